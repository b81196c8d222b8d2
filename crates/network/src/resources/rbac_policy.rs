//! RBAC policies (api-ref `v2/rbac-policies`): one project's object for another's use.
use crate::{fail, sharing};
use api::{Cx, Map, Result};
use resource::{Deletion, Kind, Object, Resource, Rules, Tx};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Lets a project, or all (`*`), use an object.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "network", path = "/v2.0/rbac-policies", name = "rbac_policy", owner = "project", quota = "rbac_policy")]
#[policy(
    list = "reader",
    show = "reader",
    create = "member",
    update = "rule:network_row_owner",
    delete = "rule:network_row_owner"
)]
pub(crate) struct RbacPolicy {
    #[field(create, required, filter, sort, kind = Kind::Choice(&["network", "security_group", "subnetpool", "address_scope", "address_group"]))]
    pub(crate) object_type: String,
    #[field(create, required, filter, sort, index)]
    pub(crate) object_id: String,
    #[field(create, required, filter, sort, kind = Kind::Choice(&["access_as_shared", "access_as_external"]))]
    pub(crate) action: String,
    /// A project, or `*`.
    #[field(create, update, required, filter, sort)]
    pub(crate) target_tenant: String,
}

impl Rules for RbacPolicy {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        admit(row, cx)?;
        let external = row.action == sharing::EXTERNAL;
        if external && row.object_type != "network" {
            return Err(fail::wrong(
                "RbacPolicyInvalidAction",
                format!("Invalid action '{}' for object type '{}'.", row.action, row.object_type),
            ));
        }
        let missing =
            || fail::missing("RbacPolicyNotFound", format!("The {} {} could not be found.", row.object_type, row.object_id));
        let table = sharing::table(&row.object_type).ok_or_else(missing)?;
        let object = tx.get(table, &row.object_id).and_then(|r| r.value().as_object().cloned()).ok_or_else(missing)?;
        if !sharing::owns(&object, cx) {
            return Err(if sharing::may_see(tx, cx, &object) {
                fail::invalid("Only admins can manipulate policies on objects they do not own")
            } else {
                missing()
            });
        }
        check_single(row, tx)?;
        // Writing the object makes two policies at once take turns, and stops its deletion.
        set_flag(tx, table, &object, row, (row.target_tenant == "*").then_some(true));
        Ok(())
    }

    fn update(row: &mut Object<Self>, old: &Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        if row.target_tenant == old.target_tenant {
            return Ok(());
        }
        admit(row, cx)?;
        check_single(row, tx)?;
        let Some(table) = sharing::table(&row.object_type) else { return Ok(()) };
        if let Some(object) = tx.get(table, &row.object_id).and_then(|r| r.value().as_object().cloned()) {
            check_left(old, &object, tx)?;
            let value = if row.target_tenant == "*" { Some(true) } else { (old.target_tenant == "*").then_some(false) };
            set_flag(tx, table, &object, row, value);
        }
        Ok(())
    }

    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        let Some(table) = sharing::table(&row.object_type) else { return Ok(Deletion::Now) };
        if let Some(object) = tx.get(table, &row.object_id).and_then(|r| r.value().as_object().cloned()) {
            check_left(row, &object, tx)?;
            set_flag(tx, table, &object, row, (row.target_tenant == "*").then_some(false));
        }
        Ok(Deletion::Now)
    }
}

/// Only an administrator shares with everybody, or makes a network external.
fn admit(row: &RbacPolicy, cx: &Cx) -> Result<()> {
    if cx.is_admin() || (row.target_tenant != "*" && row.action != sharing::EXTERNAL) {
        return Ok(());
    }
    Err(fail::forbidden("(create_rbac_policy and create_rbac_policy:target_tenant)"))
}

fn check_single(row: &Object<RbacPolicy>, tx: &Tx<'_>) -> Result<()> {
    let policies = tx.find(&RbacPolicy::DEF.table, "object_id", &row.object_id);
    let same =
        |p: &store::Row| p.id() != row.id && p.text("action") == row.action && p.text("target_tenant") == row.target_tenant;
    if policies.iter().any(|p| same(p)) {
        return Err(fail::refused("DuplicateRbacPolicy", "An RBAC policy already exists with those values.".into()));
    }
    Ok(())
}

/// Writes the object, so that two changes at once take turns; with the flag that a policy for everybody is.
fn set_flag(tx: &mut Tx<'_>, table: &store::Table, object: &Map, policy: &RbacPolicy, value: Option<bool>) {
    let mut object = object.clone();
    if let Some(value) = value {
        object.insert(sharing::flag(&policy.action).into(), value.into());
    }
    tx.put(table, &policy.object_id, Value::Object(object));
}

/// Nobody may use the object only because of this policy.
fn check_left(policy: &Object<RbacPolicy>, object: &Map, tx: &mut Tx<'_>) -> Result<()> {
    if policy.object_type != "network" || policy.action != sharing::SHARED {
        return Ok(());
    }
    let used = if policy.target_tenant == "*" {
        super::network::check_unshare(tx, object).is_err()
    } else {
        let everybody = sharing::is_set(object, "shared");
        let ports = tx.children(&super::Port::DEF.table, "network_id", &policy.object_id);
        !everybody && ports.iter().any(|p| p.text("project_id") == policy.target_tenant)
    };
    if used {
        let text = format!("RBAC policy on object {} cannot be removed because other objects depend on it.", policy.object_id);
        return Err(fail::refused("RbacPolicyInUse", text));
    }
    Ok(())
}
