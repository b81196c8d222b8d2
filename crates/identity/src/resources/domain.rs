//! Domains (Keystone api-ref, `v3/domains`): rows of the projects' table that own projects, users, groups and roles.
use super::{DOMAIN, GROUP, IDENTITY_PROVIDER, PROJECT, ROLE, USER, check_mutable, inexact, merge_options};
use crate::{
    cascade,
    rows::{self, DOMAIN_CONFIGS},
};
use resource::{Cx, Deletion, Error, Kind, Map, Object, Reader, Resource, Result, Rules, Tx, engine};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A realm of projects, users and groups with names of its own.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/domains", table = "projects", id = "hex", extras, unique = "domain_id,name")]
#[policy(
    list = "rule:identity:domain_lister",
    show = "rule:identity:any_reader or domain_id:%(id)s or project_domain_id:%(id)s",
    create = "rule:identity:cloud_admin",
    update = "rule:identity:cloud_admin",
    delete = "rule:identity:cloud_admin"
)]
pub(crate) struct Domain {
    /// Unique in the cloud.
    #[field(create, update, required, filter, index, kind = Kind::Name { max: 64 })]
    pub(crate) name: String,
    /// What it is for.
    #[field(create, update, default = "", kind = Kind::Optional(&Kind::Text { min: 0, max: 255 }))]
    pub(crate) description: Option<String>,
    /// May anything of it be used?
    #[field(create, update, filter, default = true, kind = Kind::StrictBool)]
    pub(crate) enabled: bool,
    /// Words to find it by.
    #[field(create, update, default = [(); 0])]
    pub(crate) tags: Vec<String>,
    /// `immutable`
    #[field(create, update, default = Map::new())]
    pub(crate) options: Map,
    /// None: see [`super::project::Project`], whose row it is.
    #[field(hidden, index)]
    pub(crate) domain_id: Option<String>,
    /// None.
    #[field(hidden, index)]
    pub(crate) parent_id: Option<String>,
    /// Yes.
    #[field(hidden, index, default = true)]
    pub(crate) is_domain: bool,
    /// Tokens of before this instant are no good here.
    #[field(hidden)]
    pub(crate) tokens_after: Option<i64>,
}

/// With it a create says which id the domain gets, so that several clouds can know it by the same.
const ID_OF_CHOICE: &str = "explicit_domain_id";

/// Takes a disabled domain away with all that is in it.
pub(super) fn delete(id: &str, enabled: bool, cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
    if enabled {
        return Err(Error::forbidden("Cannot delete a domain that is enabled, please disable it first."));
    }
    if id == "default" {
        return Err(Error::forbidden("The default domain cannot be deleted."));
    }
    let mut projects = rows::subtree(tx, id);
    // Leaves first.
    projects.reverse();
    for row in projects {
        cascade::project(tx, row.id());
        if let Some(map) = row.value().as_object() {
            engine::remove(tx, PROJECT, map);
        }
    }
    for provider in tx.children(&IDENTITY_PROVIDER.table, "domain_id", id) {
        engine::delete(tx, IDENTITY_PROVIDER, cx, provider.id())?;
    }
    // First: what is from its directory is not ours to delete before.
    tx.delete(&DOMAIN_CONFIGS, id);
    for def in [USER, GROUP, ROLE] {
        for row in tx.children(&def.table, "domain_id", id) {
            match row.value().as_object().filter(|_| rows::from_directory(&row)) {
                Some(map) if def.name == "user" => {
                    cascade::user(tx, row.id());
                    engine::remove(tx, def, map);
                }
                Some(map) => {
                    cascade::group(tx, row.id());
                    engine::remove(tx, def, map);
                }
                None => {
                    engine::delete(tx, def, cx, row.id())?;
                }
            }
        }
    }
    cascade::target(tx, id);
    Ok(Deletion::Now)
}

impl Rules for Domain {
    fn create(row: &mut Object<Self>, _cx: &Cx, _tx: &mut Tx<'_>) -> Result<()> {
        super::check_tags(&row.tags)?;
        if let Some(id) = super::take_extra(&mut row.map, ID_OF_CHOICE) {
            let id =
                id.as_str().filter(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
            let id = id.ok_or_else(|| Error::bad_request(format!("{ID_OF_CHOICE} must be a UUID as 32 hexadecimal digits.")))?;
            row.id = id.to_owned();
            row.map.insert("id".into(), id.into());
        }
        row.options = merge_options(DOMAIN, &Map::new(), &row.options)?;
        Ok(())
    }

    fn update(row: &mut Object<Self>, old: &Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        super::check_tags(&row.tags)?;
        if super::take_extra(&mut row.map, ID_OF_CHOICE).is_some() {
            return Err(Error::bad_request("The id of a domain does not change; make a new domain."));
        }
        row.options = merge_options(DOMAIN, &old.options, &row.options)?;
        check_mutable(DOMAIN, &old.id, &old.options, Some(&row.options))?;
        if old.enabled && !row.enabled {
            row.tokens_after = Some(tx.now.0);
        }
        Ok(())
    }

    fn delete(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        check_mutable(DOMAIN, &row.id, &row.options, None)?;
        delete(&row.id, row.enabled, cx, tx)
    }

    fn visible(row: &Map, cx: &Cx, _reader: &Reader<'_>) -> bool {
        let id = row.get("id").and_then(Value::as_str);
        let own = cx.caller.scope.project().map(|p| p.domain.id.as_str()).or(cx.caller.domain_id());
        row.get("is_domain") == Some(&Value::Bool(true)) && (cx.may("identity:any_reader", None) || (id.is_some() && id == own))
    }

    fn filter(row: &Map, key: &str, values: &[&str], _cx: &Cx) -> Option<bool> {
        inexact(row, key, values, &["name", "description"])
    }
}
