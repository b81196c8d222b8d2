//! Quotas of compute: what projects and users may have, and what they use.
//!
//! Limits and use are rows that are compared in the transaction that uses them, so they are exact. A project's limits are those of
//! `core/limits` or the defaults; a user's limits exist only where an administrator has set them.
use crate::common::{at, map};
use api::{Access, Call, Cx, Error, Map, Reply, Result, Route};
use resource::{Reader, engine};
use serde_json::{Value, json};
use store::Tx;

use crate::shape::{Prop, Shape, opt, req};

/// Name and default of each quota.
pub(crate) const QUOTAS: [(&str, i64); 14] = [
    ("instances", 10),
    ("cores", 20),
    ("ram", 51_200),
    ("floating_ips", -1),
    ("fixed_ips", -1),
    ("metadata_items", 128),
    ("injected_files", 5),
    ("injected_file_content_bytes", 10_240),
    ("injected_file_path_bytes", 255),
    ("security_groups", -1),
    ("security_group_rules", -1),
    ("key_pairs", 100),
    ("server_groups", 10),
    ("server_group_members", 10),
];
/// Quotas of the network service's things, until 2.35.
const NETWORK: [&str; 4] = ["floating_ips", "fixed_ips", "security_groups", "security_group_rules"];
/// Gone with personality, in 2.57.
const FILES: [&str; 3] = ["injected_files", "injected_file_content_bytes", "injected_file_path_bytes"];

fn of_user(project: &str, user: &str) -> String {
    format!("{project}/{user}")
}

/// The limit of a project; -1 is unlimited.
pub(crate) fn limit(tx: &mut Tx<'_>, cx: &Cx, project: &str, name: &str) -> i64 {
    let class = class_limit(tx.get(&engine::LIMITS, CLASS_ROW).as_deref(), name);
    let own =
        tx.get(&engine::LIMITS, &format!("{project}:compute")).and_then(|r| r.field("limits").get(name).and_then(Value::as_i64));
    own.or(class).unwrap_or_else(|| cx.settings.quota("compute", name))
}

fn user_limit(tx: &mut Tx<'_>, project: &str, user: &str, name: &str) -> Option<i64> {
    let row = tx.get(&engine::LIMITS, &format!("{}:compute", of_user(project, user)))?;
    row.field("limits").get(name).and_then(Value::as_i64)
}

/// Counts use up, or fails with 403 beyond a limit.
pub(crate) fn charge(tx: &mut Tx<'_>, cx: &Cx, project: &str, user: &str, deltas: &[(&str, i64)]) -> Result<()> {
    for (name, delta) in deltas.iter().filter(|(_, d)| *d > 0) {
        let owner = of_user(project, user);
        for (holder, limit) in [(project, Some(limit(tx, cx, project, name))), (&owner, user_limit(tx, project, user, name))] {
            let used = engine::usage(tx, holder, "compute", name);
            if limit.is_some_and(|l| l >= 0 && used + delta > l) {
                let l = limit.unwrap_or(0);
                return Err(Error::over_quota(format!(
                    "Quota exceeded for {name}: Requested {delta}, but already used {used} of {l} {name}"
                )));
            }
        }
    }
    let minus: Vec<(&str, i64)> = deltas.iter().map(|(n, d)| (*n, -d)).collect();
    release(tx, project, user, &minus);
    Ok(())
}

/// Gives use back.
pub(crate) fn release(tx: &mut Tx<'_>, project: &str, user: &str, deltas: &[(&str, i64)]) {
    engine::release(tx, project, "compute", deltas);
    engine::release(tx, &of_user(project, user), "compute", deltas);
}

/// How many of `wanted` servers of a flavor fit below the limits.
pub(crate) fn headroom(tx: &mut Tx<'_>, cx: &Cx, project: &str, user: &str, each: &[(&str, i64)], wanted: i64) -> i64 {
    let mut fits = wanted;
    for (name, amount) in each.iter().filter(|(_, a)| *a > 0) {
        let owner = of_user(project, user);
        for (holder, limit) in [(project, Some(limit(tx, cx, project, name))), (&owner, user_limit(tx, project, user, name))] {
            if let Some(limit) = limit.filter(|l| *l >= 0) {
                let used = engine::usage(tx, holder, "compute", name);
                fits = fits.min((limit - used).max(0) / amount);
            }
        }
    }
    fits
}

const CLASS_ROW: &str = "class default:compute";

fn class_limit(row: Option<&resource::Row>, name: &str) -> Option<i64> {
    row?.field("limits").get(name).and_then(Value::as_i64)
}

/// Limits as readers see them.
pub(crate) fn limits_of(reader: &Reader<'_>, cx: &Cx, project: &str, user: Option<&str>) -> impl Fn(&str) -> i64 + use<> {
    let limits =
        |id: String| reader.get(&engine::LIMITS, &id).and_then(|r| r.field("limits").as_object().cloned()).unwrap_or_default();
    let class = limits(CLASS_ROW.to_owned());
    let own = limits(format!("{project}:compute"));
    let users = user.map(|u| limits(format!("{}:compute", of_user(project, u)))).unwrap_or_default();
    let settings = cx.settings.clone();
    move |name| {
        let get = |m: &Map| m.get(name).and_then(Value::as_i64);
        get(&users).or_else(|| get(&own)).or_else(|| get(&class)).unwrap_or_else(|| settings.quota("compute", name))
    }
}

pub(crate) fn used_of(reader: &Reader<'_>, holder: &str, name: &str) -> i64 {
    reader.get(&engine::USAGE, &format!("{holder}:compute:{name}")).and_then(|r| r.field("used").as_i64()).unwrap_or(0)
}

fn names(cx: &Cx) -> impl Iterator<Item = &'static str> {
    let (network, files) = (!at(cx, 36), !at(cx, 57));
    QUOTAS.iter().map(|(n, _)| *n).filter(move |n| (network || !NETWORK.contains(n)) && (files || !FILES.contains(n)))
}

fn check_project(call: &Call, project: &str) -> Result<()> {
    if call.cx.caller.project_id() == Some(project) || call.cx.is_admin() {
        return Ok(());
    }
    Err(Error::forbidden("Policy doesn't allow os_compute_api:os-quota-sets:show to be performed."))
}

fn check_query(call: &Call) -> Result<()> {
    let unknown = call.cx.query.keys().find(|k| *k != "user_id");
    match unknown {
        Some(key) if at(&call.cx, 75) => Err(Error::bad_request(format!(
            "Invalid input for query parameters {key}. Additional properties are not allowed ('{key}' was unexpected)"
        ))),
        _ => Ok(()),
    }
}

async fn show(call: Call) -> Result<Reply> {
    let project = call.param("id").to_owned();
    check_project(&call, &project)?;
    check_query(&call)?;
    let reader = call.reader();
    let limit = limits_of(&reader, &call.cx, &project, call.cx.query.get("user_id"));
    let mut out = map(json!({ "id": project }));
    out.extend(names(&call.cx).map(|n| (n.to_owned(), limit(n).into())));
    Ok(Reply::ok(json!({ "quota_set": out })))
}

async fn show_detail(call: Call) -> Result<Reply> {
    let project = call.param("id").to_owned();
    check_project(&call, &project)?;
    check_query(&call)?;
    let reader = call.reader();
    let user = call.cx.query.get("user_id");
    let limit = limits_of(&reader, &call.cx, &project, user);
    let holder = user.map_or_else(|| project.clone(), |u| of_user(&project, u));
    let mut out = map(json!({ "id": project }));
    for name in names(&call.cx) {
        out.insert(name.into(), json!({ "limit": limit(name), "in_use": used_of(&reader, &holder, name), "reserved": 0 }));
    }
    Ok(Reply::ok(json!({ "quota_set": out })))
}

async fn show_defaults(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let limit = limits_of(&reader, &call.cx, "", None);
    let mut out = map(json!({ "id": call.param("id") }));
    out.extend(names(&call.cx).map(|n| (n.to_owned(), limit(n).into())));
    Ok(Reply::ok(json!({ "quota_set": out })))
}

const LIMIT: Shape = Shape::Int { min: -1, max: crate::shape::MAX_INT };
const UPDATE: Shape = Shape::Object(&[req(
    "quota_set",
    &Shape::Object(&[
        opt("instances", &LIMIT),
        opt("cores", &LIMIT),
        opt("ram", &LIMIT),
        opt("metadata_items", &LIMIT),
        opt("key_pairs", &LIMIT),
        opt("server_groups", &LIMIT),
        opt("server_group_members", &LIMIT),
        network("floating_ips"),
        network("fixed_ips"),
        network("security_groups"),
        network("security_group_rules"),
        network("networks"),
        files("injected_files"),
        files("injected_file_content_bytes"),
        files("injected_file_path_bytes"),
        opt("force", &Shape::Bool),
        opt("tenant_id", &Shape::Any).until(35),
    ]),
)]);
const fn network(name: &'static str) -> Prop {
    opt(name, &LIMIT).until(35)
}
const fn files(name: &'static str) -> Prop {
    opt(name, &LIMIT).until(56)
}

async fn update(call: Call) -> Result<Reply> {
    UPDATE.check(call.json(), &call.cx)?;
    check_query(&call)?;
    let project = call.param("id").to_owned();
    let user = call.cx.query.get("user_id").map(str::to_owned);
    let input = call.inner("quota_set")?.clone();
    let force = input.get("force").and_then(crate::shape::as_bool).unwrap_or(false);
    {
        let holder = project.clone();
        let user = user.clone();
        call.transact(move |cx, tx| {
            let owner = user.as_ref().map_or_else(|| holder.clone(), |u| of_user(&holder, u));
            let id = format!("{owner}:compute");
            let mut limits =
                tx.get(&engine::LIMITS, &id).and_then(|r| r.field("limits").as_object().cloned()).unwrap_or_default();
            for (name, value) in &input {
                let Some(value) = crate::shape::as_int(value).filter(|_| QUOTAS.iter().any(|(q, _)| q == name)) else { continue };
                let used = engine::usage(tx, &owner, "compute", name);
                if !force && value >= 0 && value < used {
                    return Err(Error::bad_request(format!(
                        "Quota limit {value} for {name} must be greater than or equal to already used and reserved {used}."
                    )));
                }
                let most = limit(tx, cx, &holder, name);
                if user.is_some() && most >= 0 && !force && (value > most || value < 0) {
                    return Err(Error::bad_request(format!(
                        "Quota limit {value} for {name} must be less than or equal to {most}."
                    )));
                }
                limits.insert(name.clone(), value.into());
            }
            tx.put(&engine::LIMITS, &id, json!({ "limits": limits }));
            Ok(())
        })
        .await?;
    }
    let reader = call.reader();
    let limit = limits_of(&reader, &call.cx, &project, user.as_deref());
    let out: Map = names(&call.cx).map(|n| (n.to_owned(), limit(n).into())).collect();
    Ok(Reply::ok(json!({ "quota_set": out })))
}

async fn delete(call: Call) -> Result<Reply> {
    let project = call.param("id").to_owned();
    let user = call.cx.query.get("user_id").map(str::to_owned);
    call.transact(move |_, tx| {
        let owner = user.as_ref().map_or_else(|| project.clone(), |u| of_user(&project, u));
        tx.delete(&engine::LIMITS, &format!("{owner}:compute"));
        if user.is_none() {
            // A user's limits mean nothing without the project's.
            let below = format!("{project}/");
            for row in tx.all(&engine::LIMITS).iter().filter(|r| r.id().starts_with(&below) && r.id().ends_with(":compute")) {
                tx.delete(&engine::LIMITS, row.id());
            }
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

/// Quotas of a class: the names that may be set are fewer.
fn class_names(cx: &Cx) -> impl Iterator<Item = &'static str> {
    let (network, groups, files) = (!at(cx, 50), at(cx, 50), !at(cx, 57));
    QUOTAS.iter().map(|(n, _)| *n).filter(move |n| {
        (network || !NETWORK.contains(n)) && (groups || !n.starts_with("server_group")) && (files || !FILES.contains(n))
    })
}

async fn show_class(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let limit = limits_of(&reader, &call.cx, "", None);
    let mut out = map(json!({ "id": call.param("id") }));
    out.extend(class_names(&call.cx).map(|n| (n.to_owned(), limit(n).into())));
    Ok(Reply::ok(json!({ "quota_class_set": out })))
}

const UPDATE_CLASS: Shape = Shape::Object(&[req(
    "quota_class_set",
    &Shape::Object(&[
        opt("instances", &LIMIT),
        opt("cores", &LIMIT),
        opt("ram", &LIMIT),
        opt("metadata_items", &LIMIT),
        opt("key_pairs", &LIMIT),
        opt("server_groups", &LIMIT),
        opt("server_group_members", &LIMIT),
        opt("floating_ips", &LIMIT).until(49),
        opt("fixed_ips", &LIMIT).until(49),
        opt("security_groups", &LIMIT).until(49),
        opt("security_group_rules", &LIMIT).until(49),
        files("injected_files"),
        files("injected_file_content_bytes"),
        files("injected_file_path_bytes"),
    ]),
)]);

async fn update_class(call: Call) -> Result<Reply> {
    UPDATE_CLASS.check(call.json(), &call.cx)?;
    let input = call.inner("quota_class_set")?.clone();
    if call.param("id") != "default" {
        // Only the default class has ever had an effect.
        return Err(Error::bad_request("Only the quota class 'default' can be changed."));
    }
    call.transact(move |_, tx| {
        let mut limits =
            tx.get(&engine::LIMITS, CLASS_ROW).and_then(|r| r.field("limits").as_object().cloned()).unwrap_or_default();
        limits.extend(input.iter().filter_map(|(k, v)| Some((k.clone(), crate::shape::as_int(v)?.into()))));
        tx.put(&engine::LIMITS, CLASS_ROW, json!({ "limits": limits }));
        Ok(())
    })
    .await?;
    let reader = call.reader();
    let limit = limits_of(&reader, &call.cx, "", None);
    let out: Map = class_names(&call.cx).map(|n| (n.to_owned(), limit(n).into())).collect();
    Ok(Reply::ok(json!({ "quota_class_set": out })))
}

/// `os-limits`: what the caller's project may have and has.
async fn limits(call: Call) -> Result<Reply> {
    let cx = &call.cx;
    let own = cx.caller.project_id().unwrap_or_default().to_owned();
    let project = match cx.query.get("tenant_id") {
        Some(other) if other != own => {
            call.require("os_compute_api:limits:other_project", None)?;
            other.to_owned()
        }
        _ => own,
    };
    if let Some(key) = cx.query.keys().find(|k| !matches!(*k, "tenant_id" | "reserved"))
        && at(cx, 75)
    {
        return Err(Error::bad_request(format!("Additional properties are not allowed ('{key}' was unexpected)")));
    }
    let reader = call.reader();
    let limit = limits_of(&reader, cx, &project, None);
    let used = |name: &str| used_of(&reader, &project, name);
    let mut absolute = map(json!({
        "maxTotalInstances": limit("instances"), "maxTotalCores": limit("cores"), "maxTotalRAMSize": limit("ram"),
        "maxServerMeta": limit("metadata_items"), "maxTotalKeypairs": limit("key_pairs"), "maxServerGroups": limit("server_groups"),
        "maxServerGroupMembers": limit("server_group_members"), "totalInstancesUsed": used("instances"), "totalCoresUsed": used("cores"),
        "totalRAMUsed": used("ram"), "totalServerGroupsUsed": used("server_groups"),
    }));
    if !at(cx, 36) {
        absolute.extend(map(json!({
            "maxSecurityGroups": limit("security_groups"), "maxSecurityGroupRules": limit("security_group_rules"),
            "maxTotalFloatingIps": limit("floating_ips"), "totalFloatingIpsUsed": 0, "totalSecurityGroupsUsed": 0,
        })));
    }
    if !at(cx, 39) {
        absolute.insert("maxImageMeta".into(), limit("metadata_items").into());
    }
    if !at(cx, 57) {
        absolute.insert("maxPersonality".into(), limit("injected_files").into());
        absolute.insert("maxPersonalitySize".into(), limit("injected_file_content_bytes").into());
    }
    Ok(Reply::ok(json!({ "limits": { "rate": [], "absolute": absolute } })))
}

pub(crate) fn routes() -> Vec<Route> {
    let reader = Access::Rule("os_compute_api:os-quota-sets:show", "reader");
    let admin = Access::Rule("os_compute_api:os-quota-sets:update", "admin");
    let classes = Access::Rule("os_compute_api:os-quota-class-sets:show", "admin");
    vec![
        Route::new("GET", "/v2.1/os-quota-sets/{id}", reader, show),
        Route::new("GET", "/v2.1/os-quota-sets/{id}/detail", reader, show_detail),
        Route::new(
            "GET",
            "/v2.1/os-quota-sets/{id}/defaults",
            Access::Rule("os_compute_api:os-quota-sets:defaults", "reader"),
            show_defaults,
        ),
        Route::new("PUT", "/v2.1/os-quota-sets/{id}", admin, update),
        Route::new("DELETE", "/v2.1/os-quota-sets/{id}", Access::Rule("os_compute_api:os-quota-sets:delete", "admin"), delete),
        Route::new("GET", "/v2.1/os-quota-class-sets/{id}", classes, show_class),
        Route::new(
            "PUT",
            "/v2.1/os-quota-class-sets/{id}",
            Access::Rule("os_compute_api:os-quota-class-sets:update", "admin"),
            update_class,
        ),
        Route::new("GET", "/v2.1/limits", Access::Rule("os_compute_api:limits", "reader"), limits),
    ]
}

/// A limit that bounds one request rather than a count.
pub(crate) fn check_metadata(limit: i64, items: usize) -> Result<()> {
    if limit >= 0 && items as i64 > limit {
        return Err(Error::over_quota(format!("Maximum number of metadata items exceeds {limit}")));
    }
    Ok(())
}
