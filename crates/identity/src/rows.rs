//! Looks at rows alike in the view and in a transaction, and the tables that no resource owns.
use crate::resources::{GROUP, IDENTITY_PROVIDER, PROJECT, USER};
use auth::{DomainRef, ProjectRef, User};
use serde_json::Value;
use std::sync::Arc;
use store::{Index, Reader, Row, Table, Tx};

/// Who has which role where: see [`crate::grants`].
pub(crate) static ASSIGNMENTS: Table = Table {
    name: "identity/assignments",
    indexes: &[
        Index { name: "actor_id", path: "/actor_id" },
        Index { name: "target_id", path: "/target_id" },
        Index { name: "role_id", path: "/role_id" },
    ],
};
/// Roles that a role brings with it: `<prior>:<implied>`.
pub(crate) static IMPLIED: Table = Table {
    name: "identity/implied_roles",
    indexes: &[
        Index { name: "prior_role_id", path: "/prior_role_id" },
        Index { name: "implied_role_id", path: "/implied_role_id" },
    ],
};
/// Users in groups: `<group>:<user>`.
pub(crate) static MEMBERSHIPS: Table = Table {
    name: "identity/memberships",
    indexes: &[Index { name: "group_id", path: "/group_id" }, Index { name: "user_id", path: "/user_id" }],
};
/// Tokens that were taken back before their time, by audit id.
pub(crate) static REVOCATIONS: Table = Table { name: "identity/revocations", indexes: &[] };
/// Which endpoints and groups of endpoints a project sees, and which policy an endpoint has: `<kind>:<left>:<right>`.
pub(crate) static LINKS: Table =
    Table { name: "identity/links", indexes: &[Index { name: "left", path: "/left" }, Index { name: "right", path: "/right" }] };
/// Options of a domain that differ from the defaults.
pub(crate) static DOMAIN_CONFIGS: Table = Table { name: "identity/domain_configs", indexes: &[] };

/// Protocols of identity providers: `<provider>/<protocol>`.
pub(crate) static PROTOCOLS: Table = Table { name: "identity/protocols", indexes: &[Index { name: "idp_id", path: "/idp_id" }] };
/// Whose a remote id is, by its hash.
pub(crate) static REMOTE_IDS: Table = Table { name: "identity/remote_ids", indexes: &[] };
/// Who a provider's user is here, by a hash of provider, protocol and the provider's id.
pub(crate) static FEDERATED: Table = Table {
    name: "identity/federated",
    indexes: &[Index { name: "user_id", path: "/user_id" }, Index { name: "idp_id", path: "/idp_id" }],
};

/// Failed logins by account: see [`crate::lockout`].
pub(crate) static FAILURES: Table = Table { name: "identity/failures", indexes: &[] };
/// The day of a user's last login, where accounts end without.
pub(crate) static ACTIVITY: Table = Table { name: "identity/activity", indexes: &[] };
/// The newest period whose passcode was used, by credential: a passcode is good once.
pub(crate) static PASSCODES: Table = Table { name: "identity/passcodes", indexes: &[] };

/// What consumers ask users for by OAuth, and what they have got: see [`crate::handlers`].
pub(crate) static REQUEST_TOKENS: Table = Table { name: "identity/oauth1_request_tokens", indexes: OAUTH1 };
pub(crate) static ACCESS_TOKENS: Table = Table { name: "identity/oauth1_access_tokens", indexes: OAUTH1 };
const OAUTH1: &[Index] = &[
    Index { name: "consumer_id", path: "/consumer_id" },
    Index { name: "project_id", path: "/project_id" },
    Index { name: "user_id", path: "/user_id" },
];
/// Signatures of OAuth that were used; each is good once.
pub(crate) static NONCES: Table = Table { name: "identity/oauth1_nonces", indexes: &[] };
/// The keys of tokens, sealed: see [`crate::key_ring`].
pub(crate) static TOKEN_KEYS: Table = Table { name: "identity/token_keys", indexes: &[] };

pub(crate) static TABLES: [&Table; 16] = [
    &ASSIGNMENTS,
    &IMPLIED,
    &MEMBERSHIPS,
    &REVOCATIONS,
    &LINKS,
    &DOMAIN_CONFIGS,
    &FAILURES,
    &ACTIVITY,
    &PASSCODES,
    &REQUEST_TOKENS,
    &ACCESS_TOKENS,
    &NONCES,
    &TOKEN_KEYS,
    &PROTOCOLS,
    &REMOTE_IDS,
    &FEDERATED,
];

/// What both the view and a transaction can do.
pub(crate) trait Rows {
    fn row(&mut self, table: &Table, id: &str) -> Option<Arc<Row>>;
    fn rows(&mut self, table: &Table, index: &str, value: &str) -> Vec<Arc<Row>>;
    fn every(&mut self, table: &Table) -> Vec<Arc<Row>>;
}

impl Rows for &Reader<'_> {
    fn row(&mut self, table: &Table, id: &str) -> Option<Arc<Row>> {
        self.get(table, id)
    }
    fn rows(&mut self, table: &Table, index: &str, value: &str) -> Vec<Arc<Row>> {
        self.find(table, index, value)
    }
    fn every(&mut self, table: &Table) -> Vec<Arc<Row>> {
        self.all(table).cloned().collect()
    }
}

impl Rows for Tx<'_> {
    fn row(&mut self, table: &Table, id: &str) -> Option<Arc<Row>> {
        self.get(table, id)
    }
    fn rows(&mut self, table: &Table, index: &str, value: &str) -> Vec<Arc<Row>> {
        self.find(table, index, value)
    }
    fn every(&mut self, table: &Table) -> Vec<Arc<Row>> {
        self.all(table)
    }
}

/// Is a flag of the row set?
pub(crate) fn flag(row: &Row, name: &str) -> bool {
    row.field(name) == &Value::Bool(true)
}

/// A text field of the row, unless it is null or missing.
pub(crate) fn text<'a>(row: &'a Row, name: &str) -> Option<&'a str> {
    row.field(name).as_str()
}

/// A domain, enabled or not.
pub(crate) fn domain_row(rows: &mut dyn Rows, id: &str) -> Option<Arc<Row>> {
    rows.row(&PROJECT.table, id).filter(|r| flag(r, "is_domain"))
}

/// A domain that may be used.
pub(crate) fn domain(rows: &mut dyn Rows, id: &str) -> Option<DomainRef> {
    let row = domain_row(rows, id).filter(|r| flag(r, "enabled"))?;
    Some(DomainRef { id: id.into(), name: row.text("name").to_owned() })
}

/// A project that may be used: it and its domain are enabled.
pub(crate) fn project(rows: &mut dyn Rows, id: &str) -> Option<ProjectRef> {
    let row = rows.row(&PROJECT.table, id).filter(|r| flag(r, "enabled") && !flag(r, "is_domain"))?;
    let domain = domain(rows, row.text("domain_id"))?;
    Some(ProjectRef { id: id.into(), name: row.text("name").to_owned(), domain })
}

/// Is the configuration one of a domain whose users are in a directory?
pub(crate) fn is_directory_config(config: &Row) -> bool {
    config.field("config").pointer("/identity/driver").is_some_and(|d| d == "ldap")
}

/// Are the users and groups of the domain in a directory?
pub(crate) fn has_directory(rows: &mut dyn Rows, domain_id: &str) -> bool {
    rows.row(&DOMAIN_CONFIGS, domain_id).is_some_and(|r| is_directory_config(&r))
}

/// Is the user or group one that was seen in a directory?
pub(crate) fn from_directory(row: &Row) -> bool {
    row.field("directory").is_object()
}

/// Does the row of a user or group count? In a domain with a directory those do that are from there and still in it; in others our own.
pub(crate) fn counts(rows: &mut dyn Rows, domain_id: &str, directory: &Value) -> bool {
    directory.is_object() == has_directory(rows, domain_id) && directory.get("gone") != Some(&Value::Bool(true))
}

/// Is the user one who is here by the word of a provider alone?
pub(crate) fn is_guest(row: &Row) -> bool {
    row.field("federated").is_array()
}

/// Does somebody vouch for the user still? Our own users need nobody who does.
fn vouched_for(rows: &mut dyn Rows, user: &Row) -> bool {
    let Some(links) = user.field("federated").as_array() else { return true };
    let mut by = links.iter().filter_map(|l| l["idp_id"].as_str());
    by.any(|idp| rows.row(&IDENTITY_PROVIDER.table, idp).is_some_and(|r| flag(&r, "enabled")))
}

/// A user that may log in: the user, the domain and whoever vouches for the user are enabled.
pub(crate) fn user(rows: &mut dyn Rows, id: &str) -> Option<(User, Arc<Row>)> {
    let row = rows.row(&USER.table, id).filter(|r| flag(r, "enabled"))?;
    if !counts(rows, row.text("domain_id"), row.field("directory")) || !vouched_for(rows, &row) {
        return None;
    }
    let domain = domain(rows, row.text("domain_id"))?;
    Some((User { id: id.into(), name: row.text("name").to_owned(), domain }, row))
}

/// The id of the row with that name in a domain (`None`: among what has no domain). Users of identity providers have no names of ours.
pub(crate) fn by_name(rows: &mut dyn Rows, table: &Table, domain_id: Option<&str>, name: &str) -> Option<String> {
    let people = [USER.table.name, GROUP.table.name].contains(&table.name);
    let found = rows.rows(table, "name", name);
    let mut fits = |r: &&Arc<Row>| {
        let there = text(r, "domain_id") == domain_id;
        there && (!people || !is_guest(r) && counts(rows, domain_id.unwrap_or_default(), r.field("directory")))
    };
    found.iter().find(|r| fits(r)).map(|r| r.id().to_owned())
}

/// A project and all above it up to, not including, its domain.
pub(crate) fn ancestors(rows: &mut dyn Rows, project_id: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut next = rows.row(&PROJECT.table, project_id).and_then(|r| text(&r, "parent_id").map(str::to_owned));
    while let Some(id) = next.filter(|id| !out.contains(id)) {
        let Some(row) = rows.row(&PROJECT.table, &id).filter(|r| !flag(r, "is_domain")) else { break };
        out.push(id);
        next = text(&row, "parent_id").map(str::to_owned);
    }
    out
}

/// All projects below one, or below a domain, parents before children.
pub(crate) fn subtree(rows: &mut dyn Rows, id: &str) -> Vec<Arc<Row>> {
    let mut out = rows.rows(&PROJECT.table, "parent_id", id);
    let mut at = 0;
    while at < out.len() {
        let below = rows.rows(&PROJECT.table, "parent_id", out[at].id());
        out.extend(below.into_iter().filter(|r| r.id() != id));
        at += 1;
    }
    out
}
