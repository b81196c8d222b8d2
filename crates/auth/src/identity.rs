//! The authenticated caller: what every service knows of who asks.
//!
//! It is made once per request (or taken from a cache by [`token_hash`]) from a [`Token`](crate::Token) and the rows of the identity
//! service. It holds no secret: the token itself is known only by its hash.
use crate::{
    policy::Subject,
    scope::{DomainRef, ProjectRef, RoleId, Scope, UserId},
    token::{AuditId, Methods},
};
use base::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The role that may do everything that policy does not reserve.
const ADMIN: &str = "admin";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub id: UserId,
    pub name: String,
    pub domain: DomainRef,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    pub id: RoleId,
    pub name: String,
}

/// Roles of a caller with all that they imply; names for rules are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    all: Vec<Role>,
    names: Vec<String>,
}

impl Roles {
    /// `roles` are expanded already, see [`expand`](crate::expand).
    pub fn new(roles: Vec<Role>) -> Self {
        let names = roles.iter().map(|r| r.name.to_lowercase()).collect();
        Self { all: roles, names }
    }
    /// The roles as they are spelled.
    pub fn iter(&self) -> impl Iterator<Item = &Role> {
        self.all.iter()
    }
    /// Names in lower case.
    pub fn names(&self) -> &[String] {
        &self.names
    }
    pub fn ids(&self) -> impl Iterator<Item = &RoleId> {
        self.all.iter().map(|r| &r.id)
    }
    /// Is the role among them? Case does not count.
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|n| n == name || n.chars().eq(name.chars().flat_map(char::to_lowercase)))
    }
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// The application credential that a token was got by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppCredential {
    pub id: String,
    /// A restricted one may not make or delete application credentials and trusts.
    pub restricted: bool,
    /// When there are rules, only requests that one of them names are allowed.
    pub access_rules: Option<Vec<AccessRule>>,
}

/// A request that an application credential may make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRule {
    /// Type of the service, as in the catalog.
    pub service: String,
    pub method: String,
    /// Path below the service's root; `*` and `{name}` stand for one part, `**` for the rest.
    pub path: String,
}

impl AccessRule {
    pub fn allows(&self, service: &str, method: &str, path: &str) -> bool {
        self.service == service && self.method.eq_ignore_ascii_case(method) && path_matches(&self.path, path)
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    let (mut parts, mut wanted) = (path.trim_matches('/').split('/'), pattern.trim_matches('/').split('/'));
    loop {
        match (wanted.next(), parts.next()) {
            (None, None) => return true,
            (Some("**"), Some(_)) => return true,
            (Some(w), Some(p)) if w == p => {}
            (Some(w), Some(p)) if !p.is_empty() && (w == "*" || (w.starts_with('{') && w.ends_with('}'))) => {}
            _ => return false,
        }
    }
}

/// The service that sent a request on the caller's behalf, by `X-Service-Token`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceCaller {
    pub user: User,
    pub project: Option<ProjectRef>,
    pub roles: Roles,
}

/// Who asks, in which scope, with which roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub user: User,
    pub scope: Scope,
    pub roles: Roles,
    pub methods: Methods,
    pub audit_id: AuditId,
    pub parent_audit_id: Option<AuditId>,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    /// [`token_hash`] of the text that the client sent.
    pub token_hash: [u8; 32],
    pub app_credential: Option<AppCredential>,
    pub trust_id: Option<String>,
    /// Groups that the token itself carries, of a user that somebody else vouches for.
    pub groups: Vec<String>,
    /// The OAuth access token that a token was got by.
    pub access_token_id: Option<String>,
    /// True unless the cloud names one project as the only place where `admin` is an administrator.
    pub is_admin_project: bool,
    pub service: Option<ServiceCaller>,
}

impl Caller {
    /// Nobody: the caller of a route that needs no token.
    pub fn anonymous() -> Self {
        Self::internal(Vec::new(), "")
    }

    /// Drover itself, for work that no request asked for (bootstrap, reconcilers).
    pub fn internal(roles: Vec<Role>, user_id: &str) -> Self {
        Self {
            user: User { id: user_id.into(), ..User::default() },
            scope: Scope::Unscoped,
            roles: Roles::new(roles),
            methods: Methods::default(),
            audit_id: AuditId([0; 16]),
            parent_audit_id: None,
            issued_at: Timestamp(0),
            expires_at: Timestamp(i64::MAX),
            token_hash: [0; 32],
            app_credential: None,
            trust_id: None,
            groups: Vec::new(),
            access_token_id: None,
            is_admin_project: true,
            service: None,
        }
    }

    pub fn user_id(&self) -> &str {
        self.user.id.as_str()
    }
    pub fn project_id(&self) -> Option<&str> {
        self.scope.project().map(|p| p.id.as_str())
    }
    /// The domain that a domain-scoped caller acts on.
    pub fn domain_id(&self) -> Option<&str> {
        self.scope.domain().map(|d| d.id.as_str())
    }
    pub fn has_role(&self, name: &str) -> bool {
        self.roles.has(name)
    }
    /// Has it the role `admin` (in whichever scope)?
    pub fn is_admin(&self) -> bool {
        self.has_role(ADMIN)
    }
    /// Does a request come from a service with that role, in its own name or for a user?
    pub fn has_service_role(&self, name: &str) -> bool {
        self.service.as_ref().is_some_and(|s| s.roles.has(name))
    }
    /// May it make or delete application credentials and trusts? What a third party was let in by makes nothing that outlives it.
    pub fn is_unrestricted(&self) -> bool {
        self.access_token_id.is_none() && self.app_credential.as_ref().is_none_or(|a| !a.restricted)
    }
    /// Does it act for the user by the user's leave, and not as the user?
    pub fn is_delegated(&self) -> bool {
        self.trust_id.is_some() || self.access_token_id.is_some() || self.app_credential.is_some()
    }
    /// Do the access rules of its application credential, if it has any, name this request? A request by a service on its behalf
    /// is the service's affair.
    pub fn may_request(&self, service: &str, method: &str, path: &str) -> bool {
        let rules = self.app_credential.as_ref().and_then(|a| a.access_rules.as_ref());
        rules.is_none_or(|rules| self.has_service_role("service") || rules.iter().any(|r| r.allows(service, method, path)))
    }
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.expires_at
    }
    /// The caller as policy rules see it.
    pub fn subject(&self) -> Subject<'_> {
        let project = self.scope.project();
        let service = self.service.as_ref();
        Subject {
            user_id: self.user_id(),
            user_domain_id: Some(self.user.domain.id.as_str()),
            project_id: self.project_id(),
            project_domain_id: project.map(|p| p.domain.id.as_str()),
            domain_id: self.domain_id(),
            system_scope: self.scope.is_system().then_some("all"),
            roles: self.roles.names(),
            is_admin: self.is_admin(),
            is_admin_project: self.is_admin_project,
            service_user_id: service.map(|s| s.user.id.as_str()),
            service_project_id: service.and_then(|s| s.project.as_ref()).map(|p| p.id.as_str()),
            service_roles: service.map_or(&[], |s| s.roles.names()),
        }
    }
}

/// SHA-256 of a token text, by which caches and logs may know it; padding does not count.
pub fn token_hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.trim_end_matches('=')).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Rule, no_target};

    fn role(name: &str) -> Role {
        Role { id: format!("id-{name}").into(), name: name.to_owned() }
    }
    fn domain(id: &str) -> DomainRef {
        DomainRef { id: id.into(), name: id.to_uppercase() }
    }
    fn caller(scope: Scope, roles: &[&str]) -> Caller {
        Caller {
            user: User { id: "u1".into(), name: "demo".into(), domain: domain("default") },
            scope,
            roles: Roles::new(roles.iter().map(|r| role(r)).collect()),
            methods: Methods::default(),
            audit_id: AuditId([1; 16]),
            parent_audit_id: None,
            issued_at: Timestamp(0),
            expires_at: Timestamp(10),
            token_hash: token_hash("t"),
            app_credential: None,
            trust_id: None,
            groups: Vec::new(),
            access_token_id: None,
            is_admin_project: true,
            service: None,
        }
    }
    fn project() -> Scope {
        Scope::Project(ProjectRef { id: "p1".into(), name: "demo".into(), domain: domain("d2") })
    }
    fn satisfies(caller: &Caller, rule: &str) -> bool {
        Rule::parse(rule).unwrap().holds(&caller.subject(), &no_target, &|_| None)
    }

    #[test]
    fn each_scope_fills_its_own_attributes() {
        for (scope, rule) in [
            (
                project(),
                "project_id:p1 and project_domain_id:d2 and user_domain_id:default and domain_id:None and system_scope:None",
            ),
            (Scope::Domain(domain("d3")), "domain_id:d3 and project_id:None and project_domain_id:None and system_scope:None"),
            (Scope::System, "system_scope:all and project_id:None and domain_id:None"),
            (Scope::Unscoped, "system_scope:None and project_id:None and domain_id:None and user_id:u1"),
        ] {
            let c = caller(scope, &[]);
            assert!(satisfies(&c, rule), "{:?}", c.scope);
        }
    }

    #[test]
    fn roles_are_compared_without_case_and_shown_as_spelled() {
        let c = caller(project(), &["Admin", "Member"]);
        assert!(c.is_admin() && c.has_role("MEMBER") && !c.has_role("reader"));
        assert!(satisfies(&c, "role:admin and is_admin:True and role:Member"));
        assert_eq!(c.roles.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["Admin", "Member"]);
        assert_eq!(c.roles.ids().map(RoleId::as_str).collect::<Vec<_>>(), ["id-Admin", "id-Member"]);
        assert!(!caller(project(), &["member"]).is_admin());
    }

    #[test]
    fn a_service_token_adds_its_own_roles_only() {
        let service = ServiceCaller { roles: Roles::new(vec![role("Service")]), ..ServiceCaller::default() };
        let c = Caller { service: Some(service), ..caller(project(), &["member"]) };
        assert!(c.has_service_role("service") && !c.has_role("service"));
        assert!(satisfies(&c, "service_roles:service and not role:service"));
        assert!(!caller(project(), &["service"]).has_service_role("service"));
    }

    #[test]
    fn only_a_restricted_application_credential_restricts() {
        let with = |restricted| {
            let app = AppCredential { id: "a".into(), restricted, access_rules: None };
            Caller { app_credential: Some(app), ..caller(project(), &[]) }
        };
        assert!(caller(project(), &[]).is_unrestricted() && with(false).is_unrestricted() && !with(true).is_unrestricted());
    }

    #[test]
    fn access_rules_name_what_is_allowed() {
        let rule = |path: &str| AccessRule { service: "compute".into(), method: "GET".into(), path: path.into() };
        assert!(rule("/v2.1/servers/*/ips").allows("compute", "GET", "/v2.1/servers/1/ips"));
        assert!(rule("/v2.1/servers/{server_id}").allows("compute", "get", "/v2.1/servers/1"));
        assert!(rule("/v2.1/**").allows("compute", "GET", "/v2.1/servers/1/ips"));
        for path in ["/v2.1/servers/1", "/v2.1/servers/1/2/ips", "/v2.1/servers//ips", "/v2.1/servers/1/ips/x"] {
            assert!(!rule("/v2.1/servers/*/ips").allows("compute", "GET", path), "{path}");
        }
        assert!(!rule("/v2.1/**").allows("compute", "POST", "/v2.1/servers"));
        assert!(!rule("/v2.1/**").allows("network", "GET", "/v2.1/servers"));

        let app = AppCredential { id: "a".into(), restricted: true, access_rules: Some(vec![rule("/v2.1/servers")]) };
        let c = Caller { app_credential: Some(app), ..caller(project(), &[]) };
        assert!(c.may_request("compute", "GET", "/v2.1/servers") && !c.may_request("compute", "DELETE", "/v2.1/servers"));
        assert!(caller(project(), &[]).may_request("compute", "DELETE", "/v2.1/servers"));
        let service = ServiceCaller { roles: Roles::new(vec![role("service")]), ..ServiceCaller::default() };
        assert!(Caller { service: Some(service), ..c }.may_request("compute", "DELETE", "/v2.1/servers"));
    }

    #[test]
    fn padding_does_not_change_the_hash_of_a_token() {
        assert_eq!(token_hash("gAAA=="), token_hash("gAAA"));
        assert_ne!(token_hash("gAAA"), token_hash("gAAB"));
    }
}
