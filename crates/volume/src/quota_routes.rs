//! `/os-quota-sets`, `/os-quota-class-sets` and `/limits`.
use crate::{
    common::is_own,
    quota::{self, BY_TYPE, CLASS_ROW, QUOTAS},
    type_routes,
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::engine::LIMITS;
use serde_json::{Value, json};

pub(crate) fn routes() -> Vec<Route> {
    let read = Access::Rule("volume_extension:quotas:show", "reader");
    let admin = |name| Access::Rule(name, "admin");
    let classes = admin("volume_extension:quota_classes");
    vec![
        Route::new("GET", "/v3/os-quota-sets/{project}", read, |call| async move { show(&call) }),
        Route::new("GET", "/v3/os-quota-sets/{project}/defaults", read, |call| async move { defaults(&call) }),
        Route::new("PUT", "/v3/os-quota-sets/{project}", admin("volume_extension:quotas:update"), update),
        Route::new("DELETE", "/v3/os-quota-sets/{project}", admin("volume_extension:quotas:delete"), remove),
        Route::new("GET", "/v3/os-quota-class-sets/{class}", classes, |call| async move { show_class(&call) }),
        Route::new("PUT", "/v3/os-quota-class-sets/{class}", classes, update_class),
        Route::new(
            "GET",
            "/v3/limits",
            Access::Rule("limits_extension:used_limits", "reader"),
            |call| async move { limits(&call) },
        ),
    ]
}

/// Every quota as users know it and as rows do.
fn all_names(call: &Call) -> Vec<(String, String)> {
    let plain = QUOTAS.iter().map(|(n, _)| ((*n).to_owned(), (*n).to_owned()));
    let typed = type_routes::names(call)
        .into_iter()
        .flat_map(|(id, name)| BY_TYPE.iter().map(move |q| (format!("{q}_{name}"), format!("{q}_{id}"))));
    plain.chain(typed).collect()
}

fn check(call: &Call) -> Result<&str> {
    let project = call.param("project");
    if is_own(&call.cx, project) {
        return Ok(project);
    }
    Err(Error::forbidden("Policy doesn't allow volume_extension:quotas:show to be performed."))
}

fn show(call: &Call) -> Result<Reply> {
    let project = check(call)?;
    let names = all_names(call);
    let reader = call.reader();
    let usage = call.cx.query.flag("usage");
    let mut out = Map::new();
    for (shown, row) in names {
        let limit = quota::limit_of(&reader, &call.cx, project, &row);
        let value = if usage {
            json!({ "limit": limit, "in_use": quota::used_of(&reader, project, &row), "reserved": 0 })
        } else {
            limit.into()
        };
        out.insert(shown, value);
    }
    out.insert("id".into(), project.into());
    Ok(Reply::ok(json!({ "quota_set": out })))
}

fn defaults(call: &Call) -> Result<Reply> {
    let project = check(call)?;
    let mut out = limits_of(call, "");
    out.insert("id".into(), project.into());
    Ok(Reply::ok(json!({ "quota_set": out })))
}

fn limits_of(call: &Call, project: &str) -> Map {
    let names = all_names(call);
    let reader = call.reader();
    names.into_iter().map(|(shown, row)| (shown, quota::limit_of(&reader, &call.cx, project, &row).into())).collect()
}

/// Limits of a body, by the names of rows.
fn given(call: &Call, key: &str) -> Result<Map> {
    let names = all_names(call);
    let mut out = Map::new();
    for (name, value) in call.inner(key)? {
        if matches!(name.as_str(), "tenant_id" | "force" | "class_name" | "id") {
            continue;
        }
        let Some((_, row)) = names.iter().find(|(shown, _)| shown == name) else {
            return Err(Error::bad_request(format!("Bad key(s) in quota set: {name}.")));
        };
        let limit = resource::Kind::Int { min: -1, max: 0x7fff_ffff }.check(value);
        let limit = limit.map_err(|why| Error::bad_request(format!("Invalid input for field/attribute {name}: {why}.")))?;
        out.insert(row.clone(), limit);
    }
    Ok(out)
}

async fn put(call: &Call, row: String, limits: Map) -> Result<()> {
    call.transact(move |_, tx| {
        let mut all = tx.get(&LIMITS, &row).and_then(|r| r.field("limits").as_object().cloned()).unwrap_or_default();
        all.extend(limits.clone());
        tx.put(&LIMITS, &row, json!({ "limits": all }));
        Ok(())
    })
    .await
}

async fn update(call: Call) -> Result<Reply> {
    let project = call.param("project").to_owned();
    let limits = given(&call, "quota_set")?;
    put(&call, format!("{project}:volume"), limits).await?;
    Ok(Reply::ok(json!({ "quota_set": limits_of(&call, &project) })))
}

async fn remove(call: Call) -> Result<Reply> {
    let row = format!("{}:volume", call.param("project"));
    call.transact(move |_, tx| {
        tx.delete(&LIMITS, &row);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(200))
}

fn show_class(call: &Call) -> Result<Reply> {
    let mut out = limits_of(call, "");
    out.insert("id".into(), call.param("class").into());
    Ok(Reply::ok(json!({ "quota_class_set": out })))
}

async fn update_class(call: Call) -> Result<Reply> {
    if call.param("class") != "default" {
        // Only the default class has ever had an effect.
        return Err(Error::bad_request("Only the quota class 'default' can be changed."));
    }
    let limits = given(&call, "quota_class_set")?;
    put(&call, CLASS_ROW.to_owned(), limits).await?;
    Ok(Reply::ok(json!({ "quota_class_set": limits_of(&call, "") })))
}

fn limits(call: &Call) -> Result<Reply> {
    let cx = &call.cx;
    let own = cx.caller.project_id().unwrap_or_default();
    let project = match cx.query.get("project_id").or_else(|| cx.query.get("tenant_id")) {
        Some(other) if other != own && cx.is_admin() => other,
        _ => own,
    };
    let reader = call.reader();
    let max = |name: &str| quota::limit_of(&reader, cx, project, name);
    let used = |name: &str| quota::used_of(&reader, project, name);
    let absolute: Value = json!({
        "maxTotalVolumes": max("volumes"), "maxTotalSnapshots": max("snapshots"), "maxTotalVolumeGigabytes": max("gigabytes"),
        "maxTotalBackups": max("backups"), "maxTotalBackupGigabytes": max("backup_gigabytes"), "totalVolumesUsed": used("volumes"),
        "totalSnapshotsUsed": used("snapshots"), "totalGigabytesUsed": used("gigabytes"), "totalBackupsUsed": used("backups"),
        "totalBackupGigabytesUsed": used("backup_gigabytes"),
    });
    Ok(Reply::ok(json!({ "limits": { "rate": [], "absolute": absolute } })))
}
