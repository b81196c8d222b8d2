//! Making trusts and showing what they delegate.
use super::{allow, app_credentials, created, forbidden, get, list, view};
use crate::{
    grants::{self, Target},
    resources::{ROLE, TRUST, USER},
    rows::{Rows, text},
};
use api::{Access, Call, Error, Map, Reply, Result, Route, dialect::IDENTITY};
use resource::{Cx, engine};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Row, Tx};

/// How often a trust may be passed on at most.
const MOST_REDELEGATIONS: i64 = 3;
/// Links of a chain that are followed.
const MOST_IN_CHAIN: usize = 8;

pub(super) fn routes() -> Vec<Route> {
    let any = Access::Authenticated;
    vec![
        Route::new("POST", "/v3/OS-TRUST/trusts", any, create),
        Route::new("GET", "/v3/OS-TRUST/trusts", any, all),
        Route::new("GET", "/v3/OS-TRUST/trusts/{id}/roles", any, roles),
        Route::new("GET", "/v3/OS-TRUST/trusts/{id}/roles/{role_id}", any, role),
    ]
}

/// Rules of these handlers.
pub(crate) const RULES: [(&str, &str); 1] = [("identity:list_all_trusts", "rule:identity:system_reader")];

async fn all(call: Call) -> Result<Reply> {
    let q = &call.cx.query;
    let me = Some(call.cx.caller.user_id());
    let own = q.get("trustor_user_id") == me || q.get("trustee_user_id") == me;
    if !own && !call.cx.may("identity:list_all_trusts", None) {
        return Err(forbidden("list_trusts"));
    }
    api::listing_reply(TRUST, &IDENTITY, &call, false)
}

async fn create(mut call: Call) -> Result<Reply> {
    let input = api::body_of(TRUST, &IDENTITY, call.json())?.clone();
    allow(&call, "create_trust", Some(&input))?;
    if !call.cx.caller.is_unrestricted() {
        return Err(forbidden("create_trust"));
    }
    let row = call.transact(move |cx, tx| insert(cx, tx, input.clone())).await?;
    // As if it was asked for by its id: with its roles.
    call.cx.params = Arc::new([("id".to_owned(), row.get("id").and_then(Value::as_str).unwrap_or_default().to_owned())]);
    Ok(created(TRUST, &row, &call))
}

fn insert(cx: &Cx, tx: &mut Tx<'_>, mut input: Map) -> Result<Map> {
    let expires_at = app_credentials::future(input.shift_remove("expires_at"), tx.now)?;
    let roles = match input.shift_remove("roles") {
        Some(list) => app_credentials::role_ids(tx, &list)?,
        None => Vec::new(),
    };
    let asked = match input.shift_remove("redelegation_count") {
        None | Some(Value::Null) => None,
        Some(v) => Some(
            v.as_i64()
                .filter(|n| (0..=MOST_REDELEGATIONS).contains(n))
                .ok_or_else(|| Error::forbidden(format!("redelegation_count must be between 0 and {MOST_REDELEGATIONS}.")))?,
        ),
    };
    let again = input.shift_remove("allow_redelegation").is_some_and(|v| v == Value::Bool(true)) && asked != Some(0);
    if again && input.get("remaining_uses").is_some_and(|u| !u.is_null()) {
        return Err(Error::bad_request("remaining_uses must not be set if redelegation is allowed."));
    }
    let mut row = resource::create_row(TRUST, cx, &input, tx.now)?;
    let field = |row: &Map, field: &str| row.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (trustor, trustee, project) = (field(&row, "trustor_user_id"), field(&row, "trustee_user_id"), field(&row, "project_id"));
    if tx.row(&USER.table, &trustee).is_none() {
        return Err(engine::not_found(USER, &trustee));
    }
    let count = if again { asked.unwrap_or(MOST_REDELEGATIONS) } else { 0 };
    let mut terms = Terms { roles, expires_at, count, asked: asked.filter(|_| again) };
    if project.is_empty() {
        return Err(Error::bad_request("Invalid input for field 'project_id': a trust is for a project."));
    }
    let parent = cx.caller.trust_id.clone();
    // The roles of a trust that is passed on are those of who made the first one.
    let first = match parent.as_ref().and_then(|id| tx.row(&TRUST.table, id)) {
        Some(parent) => chain(tx, parent).last().map_or_else(String::new, |t| t.text("trustor_user_id").to_owned()),
        None => trustor.clone(),
    };
    let given = grants::given(tx, &first, Target::Project, &project);
    let held = grants::expand(tx, given);
    if terms.roles.is_empty() || cx.caller.project_id() != Some(&project) {
        return Err(Error::forbidden("At least one role should be specified, with a token of the project."));
    }
    if let Some(id) = terms.roles.iter().find(|id| !held.contains(id)) {
        return Err(Error::forbidden(format!("Some of requested roles are not held by the trustor: {id}.")));
    }
    if let Some(app) = &cx.caller.app_credential {
        // An application credential hands on no more than it has.
        let own: Vec<&str> = cx.caller.roles.ids().map(auth::RoleId::as_str).collect();
        if app.access_rules.is_some() || terms.roles.iter().any(|id| !own.contains(&id.as_str())) {
            return Err(forbidden("create_trust"));
        }
    }
    if let Some(parent) = &parent {
        terms.within(tx, parent, input.get("remaining_uses"), row.get("impersonation"))?;
    }
    for (field, value) in [
        ("expires_at", terms.expires_at),
        ("role_ids", json!(terms.roles)),
        ("redelegation_count", terms.count.into()),
        ("redelegated_trust_id", json!(parent)),
    ] {
        row.insert(field.into(), value);
    }
    engine::insert(tx, TRUST, cx, row)
}

struct Terms {
    roles: Vec<String>,
    expires_at: Value,
    count: i64,
    /// What the caller wants `count` to be.
    asked: Option<i64>,
}

/// The trust, the one that it was made by, and so on to the first.
pub(crate) fn chain(rows: &mut dyn Rows, trust: Arc<Row>) -> Vec<Arc<Row>> {
    let mut out = vec![trust];
    while let Some(id) = out.last().and_then(|t| text(t, "redelegated_trust_id").map(str::to_owned)) {
        match rows.row(&TRUST.table, &id) {
            Some(row) if out.len() <= MOST_IN_CHAIN => out.push(row),
            _ => break,
        }
    }
    out
}

impl Terms {
    /// A trust by a trust is within it, in every way.
    fn within(&mut self, tx: &mut Tx<'_>, parent: &str, uses: Option<&Value>, impersonation: Option<&Value>) -> Result<()> {
        let parent = tx.row(&TRUST.table, parent).ok_or_else(|| engine::not_found(TRUST, parent))?;
        let left = parent.field("redelegation_count").as_i64().unwrap_or_default();
        if left < 1 {
            return Err(Error::forbidden("Trust cannot be redelegated; ask the trustor for a trust that can."));
        }
        if uses.is_some_and(|u| !u.is_null()) {
            return Err(Error::forbidden("Field \"remaining_uses\" must not be set in order to redelegate a trust."));
        }
        if self.asked.is_some_and(|n| n != left - 1) {
            return Err(Error::forbidden(
                "Modifying \"redelegation_count\" upon redelegation is forbidden. Omitting this parameter is advised.",
            ));
        }
        if impersonation == Some(&Value::Bool(true)) && parent.field("impersonation") != &Value::Bool(true) {
            return Err(Error::forbidden("Impersonation is not allowed because the redelegated trust does not allow it."));
        }
        self.count = self.count.min(left - 1);
        match (parent.field("expires_at").as_i64(), self.expires_at.as_i64()) {
            (Some(end), None) => self.expires_at = end.into(),
            (Some(end), Some(asked)) if asked > end => {
                return Err(Error::forbidden("Requested expiration time is more than redelegated trust can provide."));
            }
            _ => {}
        }
        let allowed: Vec<&str> = parent.field("role_ids").as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if self.roles.iter().any(|id| !allowed.contains(&id.as_str())) {
            return Err(Error::forbidden("Some of requested roles are not in redelegated trust."));
        }
        Ok(())
    }
}

fn find(call: &Call) -> Result<Map> {
    let reader = call.reader();
    let id = call.param("id");
    let row = get(&reader, TRUST, id)?;
    if (TRUST.hooks.visible)(&row, &call.cx, &reader) { Ok(row) } else { Err(engine::not_found(TRUST, id)) }
}

fn ids(row: &Map) -> impl Iterator<Item = &str> {
    row.get("role_ids").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

async fn roles(call: Call) -> Result<Reply> {
    let row = find(&call)?;
    let reader = call.reader();
    let shown = ids(&row).filter_map(|id| get(&reader, ROLE, id).ok()).map(|r| view(ROLE, &r, &call, &reader)).collect();
    Ok(list(&call, "roles", shown))
}

async fn role(call: Call) -> Result<Reply> {
    let row = find(&call)?;
    let wanted = call.param("role_id");
    if !ids(&row).any(|id| id == wanted) {
        return Err(engine::not_found(ROLE, wanted));
    }
    let reader = call.reader();
    let role = get(&reader, ROLE, wanted)?;
    Ok(Reply::ok(json!({"role": view(ROLE, &role, &call, &reader)})))
}
