//! Who somebody is here, in one transaction: the user's row, groups for a while, projects and roles.
use super::{
    mapping::{DomainKey, Mapped},
    protocol_key, user_key,
};
use crate::{
    directory::public_id,
    grants::{Actor, Grant, Target},
    resources::{GROUP, IDENTITY_PROVIDER, MAPPING, PROJECT, ROLE, USER},
    rows::{self, FEDERATED, MEMBERSHIPS, PROTOCOLS, Rows as _, flag, text},
};
use api::{Error, Map, Result};
use auth::Federation;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use resource::{Cx, engine};
use serde_json::{Value, json};
use store::{Row, Tx};

/// What Python's `quote` leaves as it is; ids and links of Keystone are made with it.
const QUOTED: AsciiSet = NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-').remove(b'~').remove(b'/');

/// A token has to hold them all.
const MOST_GROUPS: usize = 200;
/// Of names and ids, in characters, as of those that administrators choose.
const LONGEST_NAME: usize = 255;

/// Where somebody comes from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) idp_id: String,
    pub(crate) protocol_id: String,
    /// What the provider itself calls them, when the mapping says nothing.
    pub(crate) remote_user: Option<String>,
}

/// Somebody who has arrived; a user of ours carries nothing of where they came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) user_id: String,
    pub(crate) federation: Option<Federation>,
    /// When the last of what the login rests on was made; the clock of the process that did so may be ahead of ours.
    pub(crate) since: i64,
}

fn nobody(why: impl Into<String>) -> Error {
    Error::unauthorized(crate::authenticator::NOT_AUTHENTICATED).context(why)
}

fn domain(tx: &mut Tx<'_>, key: &DomainKey) -> Result<String> {
    let found = match key {
        DomainKey::Id(id) => rows::domain_row(tx, id).map(|r| r.id().to_owned()),
        DomainKey::Name(name) => rows::by_name(tx, &PROJECT.table, None, name),
    };
    found.ok_or_else(|| nobody(format!("the mapping names the domain {key:?}, which does not exist")))
}

/// Ids of all groups that the mapping gives. Those by id must exist; names that no group has give none, as in Keystone.
fn groups(tx: &mut Tx<'_>, mapped: &Mapped) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for id in &mapped.group_ids {
        tx.row(&GROUP.table, id).ok_or_else(|| nobody(format!("the mapping gives the group {id}, which does not exist")))?;
        ids.push(id.clone());
    }
    for group in &mapped.groups {
        let domain = domain(tx, &group.domain)?;
        ids.extend(rows::by_name(tx, &GROUP.table, Some(&domain), &group.name));
    }
    ids.sort();
    ids.dedup();
    if ids.len() > MOST_GROUPS {
        return Err(nobody(format!("the mapping gives {} groups, and a token holds {MOST_GROUPS}; give fewer", ids.len())));
    }
    Ok(ids)
}

/// The user of ours that the mapping names; never a provider's, of whom that provider alone has a say.
fn own(tx: &mut Tx<'_>, mapped: &Mapped) -> Result<String> {
    let found = match (&mapped.id, &mapped.name, &mapped.domain) {
        (Some(id), _, _) => tx.row(&USER.table, id).filter(|r| !rows::is_guest(r)).map(|r| r.id().to_owned()),
        (None, Some(name), Some(of)) => {
            let domain = domain(tx, of)?;
            rows::by_name(tx, &USER.table, Some(&domain), name)
        }
        _ => None,
    };
    found.ok_or_else(|| nobody("the mapping names a local user that does not exist, or without its domain"))
}

/// The row of a user who is here by a provider alone; made when they first come.
fn guest(tx: &mut Tx<'_>, from: &Origin, mapped: &Mapped, domain_id: &str) -> Result<String> {
    let named = mapped.id.as_ref().or(mapped.name.as_ref()).or(from.remote_user.as_ref());
    let named = named.ok_or_else(|| nobody("the mapping gives neither a name nor an id, and the provider names nobody"))?;
    let unique_id = utf8_percent_encode(named, &QUOTED).to_string();
    let name = mapped.name.as_ref().or(mapped.id.as_ref()).or(from.remote_user.as_ref()).unwrap_or(named);
    if [&unique_id, name].iter().any(|n| n.chars().count() > LONGEST_NAME) {
        return Err(nobody(format!("the mapping gives a name or an id of more than {LONGEST_NAME} characters")));
    }
    let key = user_key(&from.idp_id, &from.protocol_id, &unique_id);
    let link = tx.get(&FEDERATED, &key).map(|r| r.text("user_id").to_owned());
    let id = link.clone().unwrap_or_else(|| public_id(domain_id, "user", &unique_id));
    let old = tx.get(&USER.table, &id);
    if link.is_none() && old.is_some() {
        // Another provider's, or a directory's: nobody becomes somebody else by being called the same.
        return Err(nobody(format!("{unique_id} of domain {domain_id} is somebody else's user already")));
    }
    let mut row = match old.as_ref().and_then(|r| r.value().as_object().cloned()) {
        Some(row) => row,
        None => {
            let new = json!({
                "id": id, "v": 1, "created_at": tx.now.0, "updated_at": null, "revision": 0, "request_id": "", "domain_id": domain_id,
                "enabled": true, "default_project_id": null, "options": {}, "extra": {}, "password_expires_at": null,
                // Whoever had this id before had other tokens.
                "password_hash": null, "tokens_after": tx.now.0, "directory": null,
            });
            new.as_object().cloned().unwrap_or_default()
        }
    };
    let federated = json!([{"idp_id": from.idp_id, "protocols": [{"protocol_id": from.protocol_id, "unique_id": unique_id}]}]);
    let before = Value::from(row.clone());
    row.insert("name".into(), name.as_str().into());
    row.insert("federated".into(), federated);
    if let (Some(email), Some(extra)) = (&mapped.email, row.get_mut("extra").and_then(Value::as_object_mut)) {
        extra.insert("email".into(), email.as_str().into());
    }
    if before != Value::from(row.clone()) {
        tx.put(&USER.table, &id, row.into());
    }
    if link.is_none() {
        tx.put(&FEDERATED, &key, json!({"user_id": id, "idp_id": from.idp_id, "v": 1}));
    }
    Ok(id)
}

/// Makes the groups that a provider gave last until then, and takes away those that it gives no more.
fn belong(tx: &mut Tx<'_>, user_id: &str, idp_id: &str, groups: &[String], until: Option<i64>) {
    for row in tx.children(&MEMBERSHIPS, "user_id", user_id) {
        let stale = row.text("idp_id") == idp_id && (until.is_none() || !groups.iter().any(|g| g == row.text("group_id")));
        if stale {
            tx.delete(&MEMBERSHIPS, row.id());
        }
    }
    let Some(until) = until else { return };
    for group in groups {
        let key = format!("{group}:{user_id}");
        // What an administrator gave does not end.
        if tx.get(&MEMBERSHIPS, &key).is_none_or(|r| r.field("expires_at").is_i64()) {
            let row = json!({"group_id": group, "user_id": user_id, "idp_id": idp_id, "expires_at": until, "v": 1});
            tx.put(&MEMBERSHIPS, &key, row);
        }
    }
}

/// Makes the projects that the mapping names where they are missing, and gives the roles.
fn projects(tx: &mut Tx<'_>, cx: &Cx, user_id: &str, mapped: &Mapped, home: &str) -> Result<()> {
    for project in &mapped.projects {
        let domain_id = match &project.domain {
            Some(key) => domain(tx, key)?,
            None => home.to_owned(),
        };
        let mut roles = Vec::new();
        for name in &project.roles {
            let own = rows::by_name(tx, &ROLE.table, None, name);
            let role = own.or_else(|| rows::by_name(tx, &ROLE.table, Some(&domain_id), name));
            roles.push(role.ok_or_else(|| Error::not_found(format!("Could not find role: {name}.")))?);
        }
        let id = match rows::by_name(tx, &PROJECT.table, Some(&domain_id), &project.name) {
            Some(id) => id,
            None => {
                let input = json!({"name": project.name, "domain_id": domain_id});
                let row = engine::create(tx, PROJECT, cx, input.as_object().unwrap_or(&Map::new()))?;
                row.get("id").and_then(Value::as_str).unwrap_or_default().to_owned()
            }
        };
        for role_id in roles {
            let grant = Grant {
                actor: Actor::User,
                actor_id: user_id.to_owned(),
                target: Target::Project,
                target_id: id.clone(),
                role_id,
                inherited: false,
            };
            if tx.get(&rows::ASSIGNMENTS, &grant.key()).is_none() {
                grant.put(tx);
            }
        }
    }
    Ok(())
}

/// Fails with 403 unless the provider is enabled.
pub(crate) fn check_enabled(idp: &Row) -> Result<()> {
    if flag(idp, "enabled") {
        return Ok(());
    }
    Err(Error::forbidden(format!("Identity Provider {} is disabled", idp.id())))
}

/// Writes who has come. `cx` is ours, not the visitor's: the mapping may give what visitors may not take.
pub(crate) fn arrive(tx: &mut Tx<'_>, cx: &Cx, from: &Origin, mapped: &Mapped) -> Result<Arrived> {
    let idp = tx.row(&IDENTITY_PROVIDER.table, &from.idp_id).ok_or_else(|| nobody("the provider is gone"))?;
    check_enabled(&idp)?;
    let protocol = tx.row(&PROTOCOLS, &protocol_key(&from.idp_id, &from.protocol_id));
    let protocol = protocol.ok_or_else(|| nobody("the protocol is gone"))?;
    let mapping = tx.row(&MAPPING.table, protocol.text("mapping_id")).ok_or_else(|| nobody("the mapping is gone"))?;
    let since = [&idp, &protocol, &mapping].iter().filter_map(|r| r.field("created_at").as_i64()).max().unwrap_or_default();
    if mapped.local {
        return Ok(Arrived { user_id: own(tx, mapped)?, federation: None, since });
    }
    let home = text(&idp, "domain_id").unwrap_or_default().to_owned();
    let domain_id = match &mapped.domain {
        Some(key) => domain(tx, key)?,
        None => home.clone(),
    };
    let group_ids = groups(tx, mapped)?;
    let user_id = guest(tx, from, mapped, &domain_id)?;
    let minutes = idp.field("authorization_ttl").as_i64().filter(|m| *m > 0);
    let until = minutes.map(|m| tx.now.0 + m * 60 * 1_000_000);
    belong(tx, &user_id, &from.idp_id, &group_ids, until);
    projects(tx, cx, &user_id, mapped, &home)?;
    let federation = Federation { idp_id: from.idp_id.clone(), protocol_id: from.protocol_id.clone(), group_ids };
    Ok(Arrived { user_id, federation: Some(federation), since })
}
