//! Projects (Keystone api-ref, `v3/projects`). Domains are projects too, which own others: [`super::domain`].
use super::{PROJECT, check_domain, check_mutable, home_domain, in_sight, inexact, merge_options};
use crate::rows::{self, Rows as _, flag};
use resource::{Cx, Deletion, Error, Kind, Map, Object, Reader, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Levels of projects below a domain.
const DEEPEST: usize = 5;
const MOST_TAGS: usize = 80;

/// What owns servers, networks and volumes.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/projects", id = "hex", extras, unique = "domain_id,name")]
#[policy(
    list = "rule:identity:domain_lister",
    show = "rule:identity:domain_reader or project_id:%(id)s",
    create = "rule:identity:domain_manager",
    update = "rule:identity:domain_manager",
    delete = "rule:identity:domain_manager"
)]
pub(crate) struct Project {
    /// Unique in its domain.
    #[field(create, update, required, filter, index, kind = Kind::Name { max: 64 })]
    pub(crate) name: String,
    /// The domain that it is in; none for a domain.
    #[field(create, update, filter, index)]
    pub(crate) domain_id: Option<String>,
    /// What it is for.
    #[field(create, update, default = "", kind = Kind::Optional(&Kind::Text { min: 0, max: 65535 }))]
    pub(crate) description: Option<String>,
    /// May it be used?
    #[field(create, update, filter, default = true, kind = Kind::StrictBool)]
    pub(crate) enabled: bool,
    /// The project or domain above it.
    #[field(create, update, filter, index)]
    pub(crate) parent_id: Option<String>,
    /// Is it a domain, too?
    #[field(create, update, filter, index, default = false, kind = Kind::StrictBool)]
    pub(crate) is_domain: bool,
    /// Words to find it by.
    #[field(create, update, default = [(); 0])]
    pub(crate) tags: Vec<String>,
    /// `immutable`
    #[field(create, update, default = Map::new())]
    pub(crate) options: Map,
    /// Tokens of before this instant are no good here.
    #[field(hidden)]
    pub(crate) tokens_after: Option<i64>,
}

/// Refuses tags that the API does not know how to name.
pub(crate) fn check_tags(tags: &[String]) -> Result<()> {
    let wrong = tags.iter().find(|t| t.is_empty() || t.chars().count() > 255 || t.contains(['/', ',']));
    if let Some(tag) = wrong {
        return Err(Error::bad_request(format!("Tag '{tag}' must have 1 to 255 characters, no slash and no comma.")));
    }
    if tags.len() > MOST_TAGS {
        return Err(Error::bad_request(format!("A project can have at most {MOST_TAGS} tags.")));
    }
    if tags.iter().enumerate().any(|(i, t)| tags[..i].contains(t)) {
        return Err(Error::bad_request("Tags must be unique in a project."));
    }
    Ok(())
}

impl Project {
    /// Finds its place: the domain from the parent, the parent from the domain.
    fn place(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        if row.is_domain {
            if row.parent_id.is_some() || row.domain_id.is_some() {
                return Err(Error::bad_request("A project that is a domain has no parent and no domain."));
            }
            return Ok(());
        }
        let Some(parent_id) = row.parent_id.clone() else {
            let domain = row.domain_id.clone().unwrap_or_else(|| home_domain(cx));
            check_domain(tx, &domain)?;
            row.parent_id = Some(domain.clone());
            row.domain_id = Some(domain);
            return Ok(());
        };
        let parent = tx.row(&PROJECT.table, &parent_id).ok_or_else(|| resource::engine::not_found(PROJECT, &parent_id))?;
        let above = if flag(&parent, "is_domain") { parent_id.clone() } else { parent.text("domain_id").to_owned() };
        match &row.domain_id {
            Some(domain) => check_domain(tx, domain)?,
            None => row.domain_id = Some(above.clone()),
        }
        if row.domain_id.as_ref() != Some(&above) {
            return Err(Error::bad_request(format!(
                "Project {parent_id} is in another domain; a project is in the domain of its parent."
            )));
        }
        if !flag(&parent, "enabled") {
            return Err(Error::forbidden(format!(
                "Cannot create a project below {parent_id}, which is disabled; enable it first."
            )));
        }
        if rows::ancestors(tx, &parent_id).len() + 2 > DEEPEST {
            return Err(Error::forbidden(format!("Max hierarchy depth reached for {parent_id} branch.")));
        }
        Ok(())
    }
}

impl Rules for Project {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        check_tags(&row.tags)?;
        row.options = merge_options(PROJECT, &Map::new(), &row.options)?;
        Self::place(row, cx, tx)
    }

    fn update(row: &mut Object<Self>, old: &Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        check_tags(&row.tags)?;
        row.options = merge_options(PROJECT, &old.options, &row.options)?;
        check_mutable(PROJECT, &old.id, &old.options, Some(&row.options))?;
        if row.parent_id != old.parent_id {
            return Err(Error::forbidden("Update of `parent_id` is not allowed."));
        }
        if row.domain_id != old.domain_id || row.is_domain != old.is_domain {
            return Err(Error::bad_request("domain_id and is_domain of a project do not change; make a new project."));
        }
        if row.enabled == old.enabled {
            return Ok(());
        }
        if row.enabled {
            for id in rows::ancestors(tx, &old.id) {
                if tx.row(&PROJECT.table, &id).is_some_and(|r| !flag(&r, "enabled")) {
                    return Err(Error::forbidden(format!("Cannot enable project {} since it has disabled parents.", old.id)));
                }
            }
            return Ok(());
        }
        if !row.is_domain && rows::subtree(tx, &old.id).iter().any(|r| flag(r, "enabled")) {
            return Err(Error::forbidden(format!(
                "Cannot disable project {} since its subtree contains enabled projects.",
                old.id
            )));
        }
        row.tokens_after = Some(tx.now.0);
        Ok(())
    }

    fn delete(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        check_mutable(PROJECT, &row.id, &row.options, None)?;
        if row.is_domain {
            return super::domain::delete(&row.id, row.enabled, cx, tx);
        }
        if !tx.children(&PROJECT.table, "parent_id", &row.id).is_empty() {
            return Err(Error::forbidden(format!(
                "Cannot delete the project {} since it is not a leaf in the hierarchy. Delete its children first.",
                row.id
            )));
        }
        crate::cascade::project(tx, &row.id);
        Ok(Deletion::Now)
    }

    fn visible(row: &Map, cx: &Cx, _reader: &Reader<'_>) -> bool {
        let id = row.get("id").and_then(Value::as_str);
        in_sight(row, cx) || (id.is_some() && (id == cx.caller.project_id() || id == cx.caller.domain_id()))
    }

    fn filter(row: &Map, key: &str, values: &[&str], _cx: &Cx) -> Option<bool> {
        let has = |tag: &str| row.get("tags").and_then(Value::as_array).is_some_and(|t| t.iter().any(|v| v == tag));
        let mut wanted = values.iter().flat_map(|v| v.split(','));
        match key {
            "tags" => Some(wanted.all(has)),
            "tags-any" => Some(wanted.any(has)),
            "not-tags" => Some(!wanted.all(has)),
            "not-tags-any" => Some(!wanted.any(has)),
            _ => inexact(row, key, values, &["name", "description"]),
        }
    }
}
