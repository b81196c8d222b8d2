//! Unified limits (Keystone api-ref, `v3/registered_limits`, `v3/limits`): defaults per service and resource, and what differs
//! from them for a project or a domain. Drover's services count against quotas of their own; this is for those who ask Keystone.
use super::{LIMIT, PROJECT, REGION, REGISTERED_LIMIT, SERVICE};
use crate::{
    Auth,
    rows::{self, Rows as _, domain_row, text},
};
use resource::{Cx, Deletion, Error, Kind, Map, Object, Reader, Resource, Result, Rules, Tx, engine};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use store::Row;

/// Whether limits of a project and of those above it must fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitModel {
    /// Each is by itself.
    #[default]
    Flat,
    /// A project's is not above its domain's, and a domain's not below any of its projects'.
    StrictTwoLevel,
}

impl LimitModel {
    /// Its name and what it does, as Keystone says it.
    pub(crate) fn told(self) -> (&'static str, &'static str) {
        match self {
            Self::Flat => ("flat", "Limit enforcement and validation does not take project hierarchy into consideration."),
            Self::StrictTwoLevel => ("strict_two_level", "This model requires project hierarchy never exceeds a depth of two"),
        }
    }
}

/// The default limit of a resource of a service.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/registered_limits", id = "hex", unique = "service_id,region_id,resource_name")]
#[policy(
    list = "any",
    show = "any",
    create = "rule:identity:cloud_admin",
    update = "rule:identity:cloud_admin",
    delete = "rule:identity:cloud_admin"
)]
pub(crate) struct RegisteredLimit {
    /// The service whose resource it is.
    #[field(create, update, required, filter, index)]
    pub(crate) service_id: String,
    /// The region, if it is for one only.
    #[field(create, update, filter)]
    pub(crate) region_id: Option<String>,
    /// What is counted.
    #[field(create, update, required, filter, kind = Kind::Name { max: 255 })]
    pub(crate) resource_name: String,
    /// -1 is no limit.
    #[field(create, update, required, kind = Kind::Int { min: -1, max: 2147483647 })]
    pub(crate) default_limit: i64,
    /// What it means.
    #[field(create, update)]
    pub(crate) description: Option<String>,
}

/// What differs from the default for a project or a domain.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(
    service = "identity",
    path = "/v3/limits",
    id = "hex",
    unique = "service_id,region_id,resource_name,project_id,domain_id"
)]
#[policy(
    list = "any",
    show = "rule:identity:limit_reader",
    create = "rule:identity:cloud_admin",
    update = "rule:identity:cloud_admin",
    delete = "rule:identity:cloud_admin"
)]
pub(crate) struct Limit {
    /// The service whose resource it is.
    #[field(create, required, filter, index)]
    pub(crate) service_id: String,
    /// The region, if it is for one only.
    #[field(create, filter)]
    pub(crate) region_id: Option<String>,
    /// What is counted.
    #[field(create, required, filter, kind = Kind::Name { max: 255 })]
    pub(crate) resource_name: String,
    /// -1 is no limit.
    #[field(create, update, required, kind = Kind::Int { min: -1, max: 2147483647 })]
    pub(crate) resource_limit: i64,
    /// What it means.
    #[field(create, update)]
    pub(crate) description: Option<String>,
    /// The project that it is for.
    #[field(create, filter)]
    pub(crate) project_id: Option<String>,
    /// The domain that it is for.
    #[field(create, filter, index)]
    pub(crate) domain_id: Option<String>,
}

impl Rules for RegisteredLimit {
    fn create(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        check(tx, &row.service_id, row.region_id.as_deref())
    }

    fn update(row: &mut Object<Self>, old: &Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        let moved = row.service_id != old.service_id || row.region_id != old.region_id || row.resource_name != old.resource_name;
        if moved {
            in_use(old, tx)?;
        }
        check(tx, &row.service_id, row.region_id.as_deref())
    }

    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        in_use(row, tx)?;
        Ok(Deletion::Now)
    }
}

fn check(tx: &mut Tx<'_>, service: &str, region: Option<&str>) -> Result<()> {
    if tx.row(&SERVICE.table, service).is_none() {
        return Err(Error::bad_request(format!("Limit references a service that does not exist: {service}.")));
    }
    match region {
        Some(region) if tx.row(&REGION.table, region).is_none() => {
            Err(Error::bad_request(format!("Limit references a region that does not exist: {region}.")))
        }
        _ => Ok(()),
    }
}

fn in_use(row: &Object<RegisteredLimit>, tx: &mut Tx<'_>) -> Result<()> {
    let limits = tx.children(&LIMIT.table, "service_id", &row.service_id);
    let same = |l: &store::Row| {
        l.text("resource_name") == row.resource_name && l.field("region_id").as_str() == row.region_id.as_deref()
    };
    if limits.iter().any(|l| same(l)) {
        return Err(Error::forbidden(format!(
            "Registered limit {} is in use by limits of projects; delete these first.",
            row.id
        )));
    }
    Ok(())
}

/// -1 is above all.
fn above(a: i64, b: i64) -> bool {
    b >= 0 && (a < 0 || a > b)
}

/// Rows of a table that are of the same resource.
fn same_resource(row: &Limit, def: &resource::ResourceDef, tx: &mut Tx<'_>) -> Vec<Arc<Row>> {
    let same =
        |l: &Row| l.text("resource_name") == row.resource_name && l.field("region_id").as_str() == row.region_id.as_deref();
    tx.children(&def.table, "service_id", &row.service_id).into_iter().filter(|l| same(l)).collect()
}

/// Fails when the model of the cloud wants limits of a tree to fit, and this one does not.
fn fit_tree(row: &Object<Limit>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
    if cx.state::<Auth>()?.config.limit_model == LimitModel::Flat {
        return Ok(());
    }
    let refused = |why: String| Err(Error::forbidden(format!("Invalid resource limit: {why}.")));
    let limits = same_resource(row, LIMIT, tx);
    let value = |field: &str, id: &str| {
        limits.iter().find(|l| l.field(field).as_str() == Some(id)).and_then(|l| l.field("resource_limit").as_i64())
    };
    if let Some(project) = &row.project_id {
        let domain = tx.row(&PROJECT.table, project).and_then(|p| text(&p, "domain_id").map(str::to_owned)).unwrap_or_default();
        let default = same_resource(row, REGISTERED_LIMIT, tx).first().and_then(|l| l.field("default_limit").as_i64());
        let most = value("domain_id", &domain).or(default).unwrap_or(-1);
        if above(row.resource_limit, most) {
            return refused(format!("{} is more than the {most} of its domain {domain}", row.resource_limit));
        }
    } else if let Some(domain) = &row.domain_id {
        for project in rows::subtree(tx, domain) {
            if let Some(below) = value("project_id", project.id()).filter(|below| above(*below, row.resource_limit)) {
                return refused(format!("{} is less than the {below} of its project {}", row.resource_limit, project.id()));
            }
        }
    }
    Ok(())
}

impl Rules for Limit {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        match (&row.project_id, &row.domain_id) {
            (Some(p), None) if tx.row(&super::PROJECT.table, p).is_none() => return Err(engine::not_found(super::PROJECT, p)),
            (None, Some(d)) if domain_row(tx, d).is_none() => return Err(engine::not_found(super::DOMAIN, d)),
            (Some(_), None) | (None, Some(_)) => {}
            _ => return Err(Error::bad_request("A limit is for a project or for a domain; name one of them.")),
        }
        if same_resource(row, REGISTERED_LIMIT, tx).is_empty() {
            return Err(Error::forbidden(format!("There is no registered limit of {}; register it first.", row.resource_name)));
        }
        check(tx, &row.service_id, row.region_id.as_deref())?;
        fit_tree(row, cx, tx)
    }

    fn update(row: &mut Object<Self>, _old: &Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        fit_tree(row, cx, tx)
    }

    fn visible(row: &Map, cx: &Cx, reader: &Reader<'_>) -> bool {
        let is = |field: &str, id: Option<&str>| id.is_some() && row.get(field).and_then(Value::as_str) == id;
        let domain = cx.caller.scope.project().map(|p| p.domain.id.as_str()).or(cx.caller.domain_id());
        let project = row.get("project_id").and_then(Value::as_str).and_then(|id| reader.get(&PROJECT.table, id));
        is("project_id", cx.caller.project_id())
            || is("domain_id", domain)
            || cx.may("identity:any_reader", None)
            || project.is_some_and(|p| cx.caller.domain_id() == Some(p.text("domain_id")))
    }
}
