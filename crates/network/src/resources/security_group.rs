//! Security groups (api-ref `v2/security-groups`).
use super::{Port, SecurityGroupRule};
use crate::{fail, groups, sharing, tags};
use api::{Cx, Map, Result};
use resource::{Deletion, Object, Reader, Resource, Rules, Tx, engine};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A set of rules for what may reach ports, and what they may reach.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "network", path = "/v2.0/security-groups", owner = "project", quota = "security_group", stamps)]
#[policy(
    list = "reader",
    show = "reader",
    create = "member",
    update = "rule:network_row_owner",
    delete = "rule:network_row_owner"
)]
pub(crate) struct SecurityGroup {
    #[field(create, update, filter, sort, default = "")]
    pub(crate) name: String,
    #[field(create, update, filter, default = "")]
    pub(crate) description: String,
    /// Are answers to what was let through let through, too?
    #[field(create, update, filter, default = true)]
    pub(crate) stateful: bool,
    /// Shared with everybody, by an RBAC policy.
    #[field(filter, default = false)]
    pub(crate) shared: bool,
    #[field(default = Vec::<String>::new())]
    pub(crate) tags: Vec<String>,
}

impl Rules for SecurityGroup {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        if row.name == groups::DEFAULT {
            return Err(fail::refused("SecurityGroupDefaultAlreadyExists", "Default security group already exists.".into()));
        }
        groups::default_group(tx, cx, row.project_id())?;
        groups::add_first_rules(tx, cx, row, false)
    }

    fn update(row: &mut Object<Self>, old: &Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        if row.name != old.name && (row.name == groups::DEFAULT || old.name == groups::DEFAULT) {
            let text = "Updating default security group not allowed.";
            return Err(fail::refused("SecurityGroupCannotUpdateDefault", text.into()));
        }
        if row.stateful != old.stateful && !tx.children(&Port::DEF.table, "security_groups", &row.id).is_empty() {
            return Err(fail::refused("SecurityGroupInUse", format!("Security Group {} in use.", row.id)));
        }
        Ok(())
    }

    fn delete(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        if row.name == groups::DEFAULT && !cx.is_admin() {
            let text = "Insufficient rights for removing default security group.";
            return Err(fail::refused("SecurityGroupCannotRemoveDefault", text.into()));
        }
        if !tx.children(&Port::DEF.table, "security_groups", &row.id).is_empty() {
            return Err(fail::refused("SecurityGroupInUse", format!("Security Group {} in use.", row.id)));
        }
        let table = &SecurityGroupRule::DEF.table;
        let mut rules = tx.children(table, "security_group_id", &row.id);
        let of_others = tx.find(table, "remote_group_id", &row.id);
        rules.extend(of_others.into_iter().filter(|r| r.text("security_group_id") != row.id));
        for rule in rules {
            if let Value::Object(map) = rule.value() {
                engine::remove(tx, SecurityGroupRule::DEF, map);
            }
        }
        groups::forget(tx, row);
        sharing::forget(tx, &row.id)?;
        Ok(Deletion::Now)
    }

    fn view(row: &Map, out: &mut Map, cx: &Cx, reader: &Reader<'_>) {
        let id = row.get("id").and_then(Value::as_str).unwrap_or_default();
        let def = SecurityGroupRule::DEF;
        let rules: Vec<Value> = reader
            .find(&def.table, "security_group_id", id)
            .iter()
            .filter_map(|r| r.value().as_object())
            .map(|r| {
                // The query's `fields` are about the group, not about its rules.
                let mut plain = cx.clone();
                plain.query = std::sync::Arc::default();
                api::view_row(def, &api::dialect::NETWORK, r, &plain, reader, false).into()
            })
            .collect();
        out.insert("security_group_rules".into(), rules.into());
        out.insert("shared".into(), sharing::shown_as(row, cx, reader, sharing::SHARED).into());
    }

    fn visible(row: &Map, cx: &Cx, reader: &Reader<'_>) -> bool {
        sharing::sees(row, cx, reader)
    }

    fn filter(row: &Map, key: &str, values: &[&str], _cx: &Cx) -> Option<bool> {
        tags::filter(row, key, values)
    }
}
