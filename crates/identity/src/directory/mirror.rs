//! What was seen of a directory, as rows: so tokens, role assignments and trusts of its users are judged by rows like all others.
//!
//! A row is written when somebody is first seen, and again when something changed. Its id is Keystone's: a hash of domain, kind and
//! id in the directory, so it is the same again if the rows are lost. Who is gone from the directory keeps a row that admits
//! nobody: a wrong filter must not cost role assignments, and one that comes back has them again.
use super::entry::{Circle, Person};
use crate::{
    grants,
    resources::{GROUP, USER},
    rows::{MEMBERSHIPS, from_directory},
};
use resource::{Map, ResourceDef};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use store::{Reader, Tx};

/// Keystone's id of somebody in a directory.
pub(crate) fn public_id(domain_id: &str, kind: &str, local_id: &str) -> String {
    let mut hash = Sha256::new();
    for part in [domain_id, kind, local_id] {
        hash.update(part);
    }
    format!("{:x}", hash.finalize())
}

/// A user or group as a row of its resource's table.
pub(crate) struct Mirrored {
    pub(crate) def: &'static ResourceDef,
    pub(crate) id: String,
    fields: Map,
}

fn fields(value: Value) -> Map {
    value.as_object().cloned().unwrap_or_default()
}

pub(crate) fn user(domain_id: &str, person: &Person) -> Mirrored {
    let fields = fields(json!({
        "name": person.name, "domain_id": domain_id, "enabled": person.enabled, "default_project_id": person.default_project_id,
        "options": {}, "extra": person.extra, "directory": {"id": person.local_id, "gone": false},
    }));
    Mirrored { def: USER, id: public_id(domain_id, "user", &person.local_id), fields }
}

pub(crate) fn group(domain_id: &str, circle: &Circle) -> Mirrored {
    let fields = fields(json!({
        "name": circle.name, "domain_id": domain_id, "description": circle.description.clone().unwrap_or_default(),
        "extra": circle.extra, "directory": {"id": circle.local_id, "gone": false},
    }));
    Mirrored { def: GROUP, id: public_id(domain_id, "group", &circle.local_id), fields }
}

impl Mirrored {
    /// Does the row say it already?
    pub(crate) fn is_in(&self, reader: &Reader<'_>) -> bool {
        reader.get(&self.def.table, &self.id).is_some_and(|row| self.fields.iter().all(|(k, v)| row.field(k) == v))
    }
    pub(crate) fn put(&self, tx: &mut Tx<'_>) {
        let old = tx.get(&self.def.table, &self.id).and_then(|r| r.value().as_object().cloned());
        let mut row = old.unwrap_or_else(|| {
            fields(json!({
                "id": self.id, "v": 1, "created_at": tx.now.0, "updated_at": null, "revision": 0, "request_id": "",
                "password_expires_at": null, "password_hash": null, "tokens_after": null,
            }))
        });
        if self.fields.iter().all(|(k, v)| row.get(k) == Some(v)) {
            return;
        }
        if self.def.name == "user" && self.fields.get("enabled") == Some(&Value::Bool(false)) {
            end_tokens(&mut row, tx);
        }
        row.extend(self.fields.clone());
        row.insert("updated_at".into(), tx.now.0.into());
        tx.put(&self.def.table, &self.id, row.into());
    }
}

/// Tokens of before end, also for when the user may log in again.
fn end_tokens(row: &mut Map, tx: &Tx<'_>) {
    if row.get("enabled") == Some(&Value::Bool(true)) {
        row.insert("tokens_after".into(), tx.now.0.into());
    }
}

/// The directory said that nobody has this id any more.
pub(crate) fn gone(tx: &mut Tx<'_>, def: &ResourceDef, id: &str) {
    let Some(row) = tx.get(&def.table, id).filter(|r| from_directory(r) && !is_gone(r)) else { return };
    let Some(mut map) = row.value().as_object().cloned() else { return };
    map.insert("directory".into(), json!({"id": row.field("directory")["id"], "gone": true}));
    if def.name == "user" {
        end_tokens(&mut map, tx);
        map.insert("enabled".into(), false.into());
    }
    tx.put(&def.table, id, map.into());
    let side = if def.name == "user" { "user_id" } else { "group_id" };
    for row in tx.children(&MEMBERSHIPS, side, id) {
        tx.delete(&MEMBERSHIPS, row.id());
    }
}

pub(crate) fn is_gone(row: &store::Row) -> bool {
    row.field("directory").get("gone") == Some(&Value::Bool(true))
}

/// Makes a user's groups, or a group's users, these.
pub(crate) fn set_members(tx: &mut Tx<'_>, of: &Mirrored, others: &[String]) {
    let (is_user, now) = (of.def.name == "user", tx.now);
    let have = if is_user { grants::groups_of(tx, &of.id, now) } else { grants::members_of(tx, &of.id, now) };
    let pair = |other: &str| if is_user { (other.to_owned(), of.id.clone()) } else { (of.id.clone(), other.to_owned()) };
    for other in have.iter().filter(|h| !others.contains(h)) {
        let (group, user) = pair(other);
        tx.delete(&MEMBERSHIPS, &format!("{group}:{user}"));
    }
    for other in others.iter().filter(|o| !have.contains(o)) {
        let (group, user) = pair(other);
        tx.put(&MEMBERSHIPS, &format!("{group}:{user}"), json!({"group_id": group, "user_id": user, "v": 1}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_keystones() {
        // sha256("default" + "user" + "alice"), as id_generators/sha256.py makes it of a mapping.
        let id = public_id("default", "user", "alice");
        assert_eq!(id, format!("{:x}", Sha256::digest("defaultuseralice")));
        assert_ne!(id, public_id("default", "group", "alice"));
        assert_eq!(id.len(), 64);
    }
}
