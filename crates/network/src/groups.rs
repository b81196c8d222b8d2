//! The default security group of each project: made on first use, in the same transaction, and known by a claimed row.
use crate::{
    quota,
    resources::{SecurityGroup, SecurityGroupRule},
};
use api::{Access, Call, Cx, Reply, Result, Route};
use resource::{Object, Resource, Tx};
use serde_json::{Value, json};
use store::Table;

pub(crate) const DEFAULT: &str = "default";

/// Project to its default group.
pub(crate) static DEFAULTS: Table = Table { name: "network/default_groups", indexes: &[] };

/// The project's default group; makes it if there is none.
pub(crate) fn default_group(tx: &mut Tx<'_>, cx: &Cx, project: &str) -> Result<String> {
    if let Some(row) = tx.get(&DEFAULTS, project) {
        return Ok(row.text("security_group_id").to_owned());
    }
    let body = SecurityGroup {
        name: DEFAULT.into(),
        description: "Default security group".into(),
        stateful: true,
        shared: false,
        tags: Vec::new(),
    };
    let group = Object::new(base::id::uuid(), Some(project), body, tx.now, &cx.request_id);
    tx.put(&DEFAULTS, project, json!({ "security_group_id": group.id }));
    quota::count(tx, project, "security_group", 1);
    add_first_rules(tx, cx, &group, true)?;
    let id = group.id.clone();
    tx.put(&SecurityGroup::DEF.table, &id, Value::Object(group.into_map()?));
    Ok(id)
}

/// What every new group lets through: all that leaves, and in the default group what comes from its own members.
pub(crate) fn add_first_rules(tx: &mut Tx<'_>, cx: &Cx, group: &Object<SecurityGroup>, default: bool) -> Result<()> {
    let rule = |direction: &str, ethertype: &str, remote: Option<&str>| SecurityGroupRule {
        description: String::new(),
        security_group_id: group.id.clone(),
        direction: direction.into(),
        ethertype: ethertype.into(),
        protocol: None,
        port_range_min: None,
        port_range_max: None,
        remote_ip_prefix: None,
        normalized_cidr: None,
        remote_group_id: remote.map(str::to_owned),
        remote_address_group_id: None,
        tags: Vec::new(),
    };
    let mut rules = vec![rule("egress", "IPv4", None), rule("egress", "IPv6", None)];
    if default {
        rules.extend(["IPv4", "IPv6"].map(|ethertype| rule("ingress", ethertype, Some(&group.id))));
    }
    quota::count(tx, group.project_id(), "security_group_rule", rules.len() as i64);
    for body in rules {
        let row = Object::new(base::id::uuid(), Some(group.project_id()), body, tx.now, &cx.request_id);
        let id = row.id.clone();
        tx.put(&SecurityGroupRule::DEF.table, &id, Value::Object(row.into_map()?));
    }
    Ok(())
}

/// A group that goes is not the default any more.
pub(crate) fn forget(tx: &mut Tx<'_>, group: &Object<SecurityGroup>) {
    let project = group.project_id();
    if tx.get(&DEFAULTS, project).is_some_and(|r| r.text("security_group_id") == group.id) {
        tx.delete(&DEFAULTS, project);
    }
}

/// Lists that shall show the default group even before anything used it.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new("GET", SecurityGroup::DEF.path, Access::Rule("get_security_groups", "reader"), |call| {
            list(SecurityGroup::DEF, call)
        }),
        Route::new("GET", SecurityGroupRule::DEF.path, Access::Rule("get_security_group_rules", "reader"), |call| {
            list(SecurityGroupRule::DEF, call)
        }),
    ]
}

async fn list(def: &'static resource::ResourceDef, call: Call) -> Result<Reply> {
    if let Some(project) = call.cx.caller.project_id().map(str::to_owned)
        && call.reader().get(&DEFAULTS, &project).is_none()
    {
        call.transact(move |cx, tx| default_group(tx, cx, &project)).await?;
    }
    api::listing_reply(def, &api::dialect::NETWORK, &call, false)
}
