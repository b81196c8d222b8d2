//! Whether a token still stands: everything that it rests on is asked of the rows, when it is made and at every use.
//!
//! ```text
//! token -> provider and protocol -> user and domain enabled -> not taken back -> scope enabled -> roles still held -> trust, application credential
//! ```
//! So nothing needs to be told to other API processes when a user is disabled or a role is taken away: their rows say it.
use crate::{
    federation::protocol_key,
    grants::{self, Holder, Target},
    handlers::trusts,
    resources::{APP_CREDENTIAL, IDENTITY_PROVIDER, MAPPING, PROJECT, TRUST},
    rows::{self, ACCESS_TOKENS, PROTOCOLS, REVOCATIONS, Rows, flag, text},
};
use auth::{AccessRule, AppCredential, Federation, Role, Scope, Token, TokenScope, User};
use base::Timestamp;
use std::sync::Arc;
use store::Row;

/// What a token stands for.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) user: User,
    pub(crate) user_row: Arc<Row>,
    pub(crate) scope: Scope,
    /// With all that they imply.
    pub(crate) roles: Vec<Role>,
    pub(crate) app_credential: Option<Arc<Row>>,
    pub(crate) trust: Option<Arc<Row>>,
    /// When the next membership ends that may count: what is known is then known no more.
    pub(crate) until: Option<Timestamp>,
    pub(crate) access_token: Option<Arc<Row>>,
}

/// Why a token does not stand. Clients are not told; operators are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fallen {
    #[error("the user or its domain is disabled or gone")]
    User,
    #[error("the token was revoked")]
    Revoked,
    #[error("the project or domain is disabled or gone")]
    Scope,
    #[error("the identity provider is disabled or gone, or its protocol or the mapping")]
    Provider,
    #[error("the user has no role there")]
    NoRole,
    #[error("the application credential is gone, over, or lost its roles")]
    AppCredential,
    #[error("the trust is gone, over, or lost its roles")]
    Trust,
    #[error("the OAuth access token is gone, over, or lost its roles")]
    AccessToken,
}

fn taken_back(row: &Row, token: &Token) -> bool {
    row.field("tokens_after").as_i64().is_some_and(|after| token.issued_at.0 < after)
}

fn is_over(row: &Row, now: Timestamp) -> bool {
    row.field("expires_at").as_i64().is_some_and(|at| now.0 >= at)
}

/// What the token stands for now.
pub(crate) fn of(rows: &mut dyn Rows, token: &Token, now: Timestamp) -> Result<Standing, Fallen> {
    if let Some(federation) = &token.federation {
        vouched(rows, token, federation).ok_or(Fallen::Provider)?;
    }
    let (user, user_row) = rows::user(rows, token.user_id.as_str()).ok_or(Fallen::User)?;
    let home = rows.row(&PROJECT.table, user.domain.id.as_str());
    if taken_back(&user_row, token)
        || home.is_some_and(|d| taken_back(&d, token))
        || rows.row(&REVOCATIONS, &token.audit_id.to_string()).is_some()
    {
        return Err(Fallen::Revoked);
    }
    let (scope, target) = scope(rows, token)?;
    let until = grants::next_end(rows, token.user_id.as_str(), now);
    let roles = Vec::new();
    let mut standing = Standing { user, user_row, scope, roles, app_credential: None, trust: None, access_token: None, until };
    let Some((target, id)) = target else {
        let plain = token.trust_id.is_none() && token.app_credential_id.is_none() && token.access_token_id.is_none();
        return if plain { Ok(standing) } else { Err(Fallen::Scope) };
    };
    match (&token.trust_id, &token.app_credential_id) {
        (Some(trust), _) => by_trust(rows, token, trust, &id, now, &mut standing)?,
        (None, Some(app)) => {
            let row = rows.row(&APP_CREDENTIAL.table, app);
            let (row, roles) = lent(rows, token, row, &id, now).ok_or(Fallen::AppCredential)?;
            (standing.app_credential, standing.roles) = (Some(row), roles);
        }
        (None, None) => match &token.access_token_id {
            Some(access) => {
                let row = rows.row(&ACCESS_TOKENS, access);
                let (row, roles) = lent(rows, token, row, &id, now).ok_or(Fallen::AccessToken)?;
                (standing.access_token, standing.roles) = (Some(row), roles);
            }
            None => {
                let groups = token.federation.as_ref().map_or(&[][..], |f| &f.group_ids);
                let holder = Holder { user: token.user_id.as_str(), groups, now };
                standing.roles = grants::effective(rows, holder, target, &id);
            }
        },
    }
    if standing.roles.is_empty() {
        return Err(Fallen::NoRole);
    }
    Ok(standing)
}

/// Is all there still by which the token was given: the provider, the protocol, its mapping? New ones of the same names are others.
fn vouched(rows: &mut dyn Rows, token: &Token, by: &Federation) -> Option<()> {
    let before = |r: &Arc<Row>| r.field("created_at").as_i64().is_none_or(|at| at <= token.issued_at.0);
    rows.row(&IDENTITY_PROVIDER.table, &by.idp_id).filter(|r| flag(r, "enabled") && before(r))?;
    let protocol = rows.row(&PROTOCOLS, &protocol_key(&by.idp_id, &by.protocol_id)).filter(before)?;
    rows.row(&MAPPING.table, protocol.text("mapping_id")).filter(before).map(|_| ())
}

fn scope(rows: &mut dyn Rows, token: &Token) -> Result<(Scope, Option<(Target, String)>), Fallen> {
    let still = |rows: &mut dyn Rows, id: &str| {
        rows.row(&PROJECT.table, id).filter(|r| !taken_back(r, token)).ok_or(Fallen::Revoked).map(|_| ())
    };
    Ok(match &token.scope {
        TokenScope::Unscoped => (Scope::Unscoped, None),
        TokenScope::Project(id) => {
            let project = rows::project(rows, id.as_str()).ok_or(Fallen::Scope)?;
            still(rows, id.as_str())?;
            still(rows, project.domain.id.as_str())?;
            (Scope::Project(project), Some((Target::Project, id.as_str().to_owned())))
        }
        TokenScope::Domain(id) => {
            let domain = rows::domain(rows, id.as_str()).ok_or(Fallen::Scope)?;
            still(rows, id.as_str())?;
            (Scope::Domain(domain), Some((Target::Domain, id.as_str().to_owned())))
        }
        TokenScope::System => (Scope::System, Some((Target::System, grants::SYSTEM.to_owned()))),
    })
}

fn role_ids(row: &Row) -> Vec<String> {
    row.field("role_ids").as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// Roles that were delegated count as long as whoever delegated them has them all.
fn delegated(rows: &mut dyn Rows, by: Holder<'_>, project: &str, ids: &[String]) -> Option<Vec<Role>> {
    let given = grants::given(rows, by, Target::Project, project);
    let held = grants::expand(rows, given);
    if !ids.iter().all(|id| held.contains(id)) {
        return None;
    }
    let all = grants::expand(rows, ids.to_vec());
    Some(grants::shown(rows, &all))
}

fn by_trust(
    rows: &mut dyn Rows,
    token: &Token,
    trust_id: &str,
    project: &str,
    now: Timestamp,
    standing: &mut Standing,
) -> Result<(), Fallen> {
    let trust = rows.row(&TRUST.table, trust_id).filter(|t| !is_over(t, now)).ok_or(Fallen::Trust)?;
    let acts_as = if flag(&trust, "impersonation") { "trustor_user_id" } else { "trustee_user_id" };
    if trust.text(acts_as) != token.user_id.as_str() || text(&trust, "project_id") != Some(project) {
        return Err(Fallen::Trust);
    }
    rows::user(rows, trust.text("trustee_user_id")).ok_or(Fallen::Trust)?;
    // Of a trust that was passed on, each who did so must still be there, and the first one have the roles.
    let chain = trusts::chain(rows, trust.clone());
    for link in &chain {
        rows::user(rows, link.text("trustor_user_id")).filter(|_| !is_over(link, now)).ok_or(Fallen::Trust)?;
    }
    let first = chain.last().map_or("", |t| t.text("trustor_user_id")).to_owned();
    let by = Holder::user(&first, now);
    standing.roles = delegated(rows, by, project, &role_ids(&trust)).ok_or(Fallen::Trust)?;
    standing.until = standing.until.into_iter().chain(grants::next_end(rows, &first, now)).min();
    standing.trust = Some(trust);
    Ok(())
}

/// What a user has given a program of its own roles on a project: an application credential's row, or an access token's. Gives it back with
/// the roles of it that the user still has.
fn lent(
    rows: &mut dyn Rows,
    token: &Token,
    row: Option<Arc<Row>>,
    project: &str,
    now: Timestamp,
) -> Option<(Arc<Row>, Vec<Role>)> {
    let user = token.user_id.as_str();
    let row = row.filter(|r| !is_over(r, now) && r.text("user_id") == user && text(r, "project_id") == Some(project))?;
    let roles = delegated(rows, Holder::user(user, now), project, &role_ids(&row))?;
    Some((row, roles))
}

impl Standing {
    /// The application credential as policy and the edge know it.
    pub(crate) fn app(&self) -> Option<AppCredential> {
        let row = self.app_credential.as_ref()?;
        let rules = row
            .field("access_rules")
            .as_array()
            .map(|rules| rules.iter().filter_map(|r| serde_json::from_value::<AccessRule>(r.clone()).ok()).collect::<Vec<_>>());
        Some(AppCredential { id: row.id().to_owned(), restricted: !flag(row, "unrestricted"), access_rules: rules })
    }
}
