//! The tables themselves.
use crate::{Hooks, Kind, Map};
use base::Version;
use serde_json::Value;
use store::Table;

/// Whose a row is: who may see it unless a rule says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Anybody who may do the action at all.
    None,
    /// The project in `project_id`.
    Project,
    /// The domain in `domain_id`.
    Domain,
    /// The user in `user_id`.
    User,
}

/// How ids are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdForm {
    /// A UUID with dashes.
    Uuid,
    /// 32 hex digits, Keystone's form.
    Hex,
    /// The caller may give it as `id`; otherwise 32 hex digits.
    Given,
}

/// One field of a resource.
#[derive(Clone, Copy, Debug)]
pub struct FieldDef {
    /// Name on the wire and in the row.
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    /// May a create give it; an update?
    pub create: bool,
    pub update: bool,
    pub required: bool,
    pub filter: bool,
    pub sort: bool,
    /// Shown in lists without detail, too.
    pub brief: bool,
    /// In the row, never on the wire.
    pub hidden: bool,
    pub default: Option<fn() -> Value>,
    /// Rule that a caller must satisfy to set it, or to see it.
    pub policy: Option<&'static str>,
    pub read_policy: Option<&'static str>,
    /// First and last microversion that has it.
    pub since: Version,
    pub until: Version,
}
impl FieldDef {
    pub fn at(&self, version: Version) -> bool {
        (self.since..=self.until).contains(&version)
    }
}

/// A resource: what the engine needs to know of it.
pub struct ResourceDef {
    pub service: &'static str,
    pub name: &'static str,
    pub plural: &'static str,
    /// Of the collection, below the service's prefix. Parameters other than the id are fields of the row.
    pub path: &'static str,
    pub help: &'static str,
    pub table: Table,
    pub owner: Owner,
    pub id: IdForm,
    /// Name of the quota that a row counts against.
    pub quota: Option<&'static str>,
    /// Sets of fields whose values no two rows share.
    pub unique: &'static [&'static [&'static str]],
    /// Shows `created_at` and `updated_at`.
    pub stamps: bool,
    /// Has a `/detail` list beside a brief one.
    pub detail: bool,
    /// Keeps and shows attributes that no field names (Keystone).
    pub extras: bool,
    /// Is still shown while it is being deleted (Nova's servers).
    pub shows_deleting: bool,
    /// Tells its story to `drover why`.
    pub story: bool,
    /// Default rule of each action. An action that is missing has no route.
    pub policy: &'static [(&'static str, &'static str)],
    pub fields: &'static [FieldDef],
    pub hooks: Hooks,
}

impl ResourceDef {
    pub fn field(&self, name: &str) -> Option<&'static FieldDef> {
        self.fields.iter().find(|f| f.name == name)
    }
    pub fn rule(&self, action: &str) -> Option<&'static str> {
        self.policy.iter().find(|(a, _)| *a == action).map(|(_, r)| *r)
    }
    /// The fields of a row that a caller may see, in table order, at a version. `brief` limits it to those of short lists.
    pub fn view(&self, row: &Map, version: Version, brief: bool, may: &dyn Fn(&str) -> bool) -> Map {
        let mut out = Map::new();
        if let Some(id) = row.get("id") {
            out.insert("id".into(), id.clone());
        }
        for f in self.fields {
            if f.hidden || !f.at(version) || (brief && !f.brief) || f.read_policy.is_some_and(|r| !may(r)) {
                continue;
            }
            out.insert(f.name.into(), row.get(f.name).cloned().unwrap_or(Value::Null));
        }
        if self.extras
            && !brief
            && let Some(Value::Object(extra)) = row.get("extra")
        {
            for (k, v) in extra {
                out.entry(k.clone()).or_insert_with(|| v.clone());
            }
        }
        out
    }
}

/// A type that has a table.
pub trait Resource: serde::Serialize + serde::de::DeserializeOwned {
    const DEF: &'static ResourceDef;
}
