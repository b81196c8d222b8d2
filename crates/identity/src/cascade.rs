//! What goes with what: rows that mean nothing without the one that is deleted, taken away in the same transaction.
use crate::{
    grants,
    resources::{ACCESS_RULE, APP_CREDENTIAL, CREDENTIAL, LIMIT, TRUST, USER},
    rows::{ACCESS_TOKENS, ACTIVITY, FAILURES, FEDERATED, IMPLIED, LINKS, MEMBERSHIPS, PASSCODES, REQUEST_TOKENS},
};
use resource::{ResourceDef, engine};
use serde_json::Value;
use store::{Table, Tx};

fn remove(tx: &mut Tx<'_>, def: &ResourceDef, index: &str, id: &str) {
    for row in tx.children(&def.table, index, id) {
        if let Some(map) = row.value().as_object() {
            engine::remove(tx, def, map);
        }
        if std::ptr::eq(def, CREDENTIAL) {
            tx.delete(&PASSCODES, row.id());
        }
    }
}

fn remove_plain(tx: &mut Tx<'_>, table: &Table, index: &str, id: &str) {
    for row in tx.children(table, index, id) {
        tx.delete(table, row.id());
    }
}

/// What a third party was let in by: of a consumer, a project or a user.
pub(crate) fn oauth1(tx: &mut Tx<'_>, index: &str, id: &str) {
    for table in [&REQUEST_TOKENS, &ACCESS_TOKENS] {
        remove_plain(tx, table, index, id);
    }
}

/// What refers to a project or domain by its role assignments.
pub(crate) fn target(tx: &mut Tx<'_>, id: &str) {
    grants::forget(tx, "target_id", id);
    remove(tx, LIMIT, "domain_id", id);
}

pub(crate) fn project(tx: &mut Tx<'_>, id: &str) {
    target(tx, id);
    for def in [APP_CREDENTIAL, CREDENTIAL, LIMIT, TRUST] {
        remove(tx, def, "project_id", id);
    }
    oauth1(tx, "project_id", id);
    links(tx, id);
    for user in tx.children(&USER.table, "default_project_id", id) {
        if let Some(mut map) = user.value().as_object().cloned() {
            map.insert("default_project_id".into(), Value::Null);
            tx.put(&USER.table, user.id(), map.into());
        }
    }
}

pub(crate) fn user(tx: &mut Tx<'_>, id: &str) {
    grants::forget(tx, "actor_id", id);
    remove_plain(tx, &MEMBERSHIPS, "user_id", id);
    remove_plain(tx, &FEDERATED, "user_id", id);
    oauth1(tx, "user_id", id);
    for table in [&FAILURES, &ACTIVITY] {
        tx.delete(table, id);
    }
    for def in [APP_CREDENTIAL, ACCESS_RULE, CREDENTIAL] {
        remove(tx, def, "user_id", id);
    }
    for side in ["trustor_user_id", "trustee_user_id"] {
        remove(tx, TRUST, side, id);
    }
}

/// Users who are here by a provider alone, with all that they have.
pub(crate) fn identity_provider(tx: &mut Tx<'_>, id: &str) {
    for link in tx.children(&FEDERATED, "idp_id", id) {
        let id = link.text("user_id").to_owned();
        user(tx, &id);
        if let Some(map) = tx.get(&USER.table, &id).and_then(|r| r.value().as_object().cloned()) {
            engine::remove(tx, USER, &map);
        }
    }
}

pub(crate) fn group(tx: &mut Tx<'_>, id: &str) {
    grants::forget(tx, "actor_id", id);
    remove_plain(tx, &MEMBERSHIPS, "group_id", id);
}

pub(crate) fn role(tx: &mut Tx<'_>, id: &str) {
    grants::forget(tx, "role_id", id);
    for side in ["prior_role_id", "implied_role_id"] {
        remove_plain(tx, &IMPLIED, side, id);
    }
}

/// Trusts that were made by this one.
pub(crate) fn trust(tx: &mut Tx<'_>, id: &str) {
    let mut gone = vec![id.to_owned()];
    while let Some(parent) = gone.pop() {
        for row in tx.all(&TRUST.table) {
            if row.text("redelegated_trust_id") == parent
                && let Some(map) = row.value().as_object()
            {
                gone.push(row.id().to_owned());
                engine::remove(tx, TRUST, map);
            }
        }
    }
}

pub(crate) fn links(tx: &mut Tx<'_>, id: &str) {
    for side in ["left", "right"] {
        remove_plain(tx, &LINKS, side, id);
    }
}
