//! Who may use what belongs to another project: the rows of RBAC policies (`access_as_shared`, `access_as_external`).
//!
//! A policy for everybody (target `*`) is also a flag on the object (`shared`, `router:external`), so that the common question
//! needs no look-up. Both are written together.
use crate::{quota, resources::RbacPolicy};
use api::{Cx, Map, Result};
use resource::{Object, Reader, Resource, Tx};
use serde_json::Value;
use store::{Row, Table};

pub(crate) const SHARED: &str = "access_as_shared";
pub(crate) const EXTERNAL: &str = "access_as_external";

/// What can be shared: `object_type` and its table.
pub(crate) const OBJECTS: [(&str, &Table); 5] = [
    ("network", &crate::resources::Network::DEF.table),
    ("security_group", &crate::resources::SecurityGroup::DEF.table),
    ("subnetpool", &crate::resources::SubnetPool::DEF.table),
    ("address_scope", &crate::resources::AddressScope::DEF.table),
    ("address_group", &crate::resources::AddressGroup::DEF.table),
];

pub(crate) fn table(object_type: &str) -> Option<&'static Table> {
    OBJECTS.iter().find(|(t, _)| *t == object_type).map(|(_, t)| *t)
}

/// The flag on the object that a policy for everybody sets.
pub(crate) fn flag(action: &str) -> &'static str {
    if action == EXTERNAL { "router:external" } else { "shared" }
}

pub(crate) fn is_set(row: &Map, name: &str) -> bool {
    row.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn id(row: &Map) -> &str {
    row.get("id").and_then(Value::as_str).unwrap_or_default()
}

fn grants(policy: &Row, project: &str, action: Option<&str>) -> bool {
    let target = policy.text("target_tenant");
    (target == project || target == "*") && action.is_none_or(|a| policy.text("action") == a)
}

/// Does the caller see the object: as owner, administrator, or because it is shared with its project in any way?
pub(crate) fn sees(row: &Map, cx: &Cx, reader: &Reader<'_>) -> bool {
    owns(row, cx) || is_set(row, "shared") || is_set(row, "router:external") || {
        let project = cx.caller.project_id().unwrap_or_default();
        reader.find(&RbacPolicy::DEF.table, "object_id", id(row)).iter().any(|p| grants(p, project, None))
    }
}

/// As [`sees`], by one action, for the fields `shared` and `router:external`.
pub(crate) fn shown_as(row: &Map, cx: &Cx, reader: &Reader<'_>, action: &str) -> bool {
    is_set(row, flag(action)) || {
        let project = cx.caller.project_id().unwrap_or_default();
        let policies = reader.find(&RbacPolicy::DEF.table, "object_id", id(row));
        policies.iter().any(|p| grants(p, project, Some(action)))
    }
}

/// Is the caller the owner of the row, or an administrator?
pub(crate) fn owns(row: &Map, cx: &Cx) -> bool {
    let owner = row.get("project_id").and_then(Value::as_str);
    (owner.is_some() && owner == cx.caller.project_id()) || cx.is_admin()
}

/// In a transaction: may the caller use the object by this action, though it may not be its own?
pub(crate) fn may_use(tx: &Tx<'_>, cx: &Cx, row: &Map, action: &str) -> bool {
    owns(row, cx) || is_set(row, flag(action)) || {
        let project = cx.caller.project_id().unwrap_or_default();
        tx.find(&RbacPolicy::DEF.table, "object_id", id(row)).iter().any(|p| grants(p, project, Some(action)))
    }
}

/// In a transaction: does the caller see the object?
pub(crate) fn may_see(tx: &Tx<'_>, cx: &Cx, row: &Map) -> bool {
    may_use(tx, cx, row, SHARED) || may_use(tx, cx, row, EXTERNAL)
}

/// Makes the policy for everybody exist or not, as the flag on the object says.
pub(crate) fn follow_flag(tx: &mut Tx<'_>, cx: &Cx, object_type: &str, row: &Map, action: &str) {
    let (wanted, object) = (is_set(row, flag(action)), id(row));
    let policies = tx.find(&RbacPolicy::DEF.table, "object_id", object);
    let held = policies.iter().find(|p| p.text("target_tenant") == "*" && p.text("action") == action);
    match (wanted, held) {
        (true, None) => {
            let body = RbacPolicy {
                object_type: object_type.into(),
                object_id: object.into(),
                action: action.into(),
                target_tenant: "*".into(),
            };
            let project = row.get("project_id").and_then(Value::as_str).unwrap_or_default();
            let policy = Object::new(base::id::uuid(), Some(project), body, tx.now, &cx.request_id);
            quota::count(tx, project, "rbac_policy", 1);
            if let Ok(map) = policy.into_map() {
                let id = id(&map).to_owned();
                tx.put(&RbacPolicy::DEF.table, &id, Value::Object(map));
            }
        }
        (false, Some(policy)) => {
            if let Value::Object(map) = policy.value() {
                resource::engine::remove(tx, RbacPolicy::DEF, map);
            }
        }
        (true, Some(_)) | (false, None) => {}
    }
}

/// Removes the policies of an object that goes.
pub(crate) fn forget(tx: &mut Tx<'_>, object: &str) -> Result<()> {
    for policy in tx.children(&RbacPolicy::DEF.table, "object_id", object) {
        if let Value::Object(map) = policy.value() {
            resource::engine::remove(tx, RbacPolicy::DEF, map);
        }
    }
    Ok(())
}
