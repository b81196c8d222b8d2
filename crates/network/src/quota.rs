//! Quotas (`/quotas`): limits of projects, and what they use.
use crate::fail;
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::{
    Tx,
    engine::{LIMITS, USAGE},
};
use serde_json::{Value, json};

/// Neutron's defaults.
pub(crate) const DEFAULTS: [(&str, i64); 9] = [
    ("floatingip", 50),
    ("network", 100),
    ("port", 500),
    ("rbac_policy", 10),
    ("router", 10),
    ("security_group", 10),
    ("security_group_rule", 100),
    ("subnet", 100),
    ("subnetpool", -1),
];

/// Counts what Neutron makes by itself: it is part of what a project uses, but no limit refuses it.
pub(crate) fn count(tx: &mut Tx<'_>, project: &str, name: &str, more: i64) {
    if project.is_empty() {
        return;
    }
    let id = format!("{project}:network:{name}");
    let used = tx.get(&USAGE, &id).and_then(|r| r.field("used").as_i64()).unwrap_or(0);
    tx.put(&USAGE, &id, json!({ "project": project, "used": used + more }));
}

pub(crate) fn routes() -> Vec<Route> {
    let admin = |name| Access::Rule(name, "admin");
    vec![
        Route::new("GET", "/v2.0/quotas", admin("get_quotas"), |call| async move { list(&call) }),
        Route::new("GET", "/v2.0/quotas/tenant", Access::Authenticated, |call| async move { own(&call, "tenant") }),
        Route::new("GET", "/v2.0/quotas/project", Access::Authenticated, |call| async move { own(&call, "project") }),
        Route::new("GET", "/v2.0/quotas/{project}", Access::Authenticated, |call| async move { show(&call) }),
        Route::new("GET", "/v2.0/quotas/{project}/default", Access::Authenticated, |call| async move { default(&call) }),
        Route::new("GET", "/v2.0/quotas/{project}/details", Access::Authenticated, |call| async move { details(&call) }),
        Route::new("GET", "/v2.0/quotas/{project}/details.json", Access::Authenticated, |call| async move { details(&call) }),
        Route::new("PUT", "/v2.0/quotas/{project}", admin("update_quota"), update),
        Route::new("DELETE", "/v2.0/quotas/{project}", admin("delete_quota"), delete),
    ]
}

fn defaults(call: &Call) -> Map {
    DEFAULTS.iter().map(|(name, _)| ((*name).to_owned(), call.cx.settings.quota("network", name).into())).collect()
}

fn key(project: &str) -> String {
    format!("{project}:network")
}

fn limits(call: &Call, project: &str) -> Map {
    let mut out = defaults(call);
    if let Some(row) = call.reader().get(&LIMITS, &key(project))
        && let Some(own) = row.field("limits").as_object()
    {
        out.extend(own.iter().filter(|(k, _)| out.contains_key(*k)).map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>());
    }
    out
}

/// A project sees its own quotas, an administrator all.
fn readable(call: &Call) -> Result<&str> {
    let project = call.param("project");
    if call.cx.is_admin() || call.cx.caller.project_id() == Some(project) {
        Ok(project)
    } else {
        Err(fail::forbidden("get_quota"))
    }
}

fn list(call: &Call) -> Result<Reply> {
    let projects: Vec<String> =
        call.reader().all(&LIMITS).filter_map(|r| r.id().strip_suffix(":network").map(str::to_owned)).collect();
    let quotas = projects.iter().map(|project| {
        let mut row = limits(call, project);
        row.insert("project_id".into(), project.as_str().into());
        row.insert("tenant_id".into(), project.as_str().into());
        Value::from(row)
    });
    Ok(Reply::ok(json!({ "quotas": quotas.collect::<Vec<_>>() })))
}

fn own(call: &Call, name: &str) -> Result<Reply> {
    let project = call.cx.project()?;
    let mut inner = Map::new();
    inner.insert(format!("{name}_id"), project.into());
    let mut body = Map::new();
    body.insert(name.into(), inner.into());
    Ok(Reply::ok(body.into()))
}

fn show(call: &Call) -> Result<Reply> {
    let project = readable(call)?;
    Ok(Reply::ok(json!({ "quota": limits(call, project) })))
}

fn default(call: &Call) -> Result<Reply> {
    readable(call)?;
    Ok(Reply::ok(json!({ "quota": defaults(call) })))
}

fn details(call: &Call) -> Result<Reply> {
    let project = readable(call)?;
    let limits = limits(call, project);
    let reader = call.reader();
    let detail = |(name, limit): (String, Value)| {
        let row = reader.get(&USAGE, &format!("{project}:network:{name}"));
        let used = row.and_then(|r| r.field("used").as_i64()).unwrap_or(0);
        (name, json!({ "limit": limit, "used": used, "reserved": 0 }))
    };
    Ok(Reply::ok(json!({ "quota": limits.into_iter().map(detail).collect::<Map>() })))
}

async fn update(call: Call) -> Result<Reply> {
    let mut wanted = call.inner("quota")?.clone();
    let flag =
        |v: Option<Value>| v.is_some_and(|v| v == Value::Bool(true) || v.as_str() == Some("true") || v.as_str() == Some("True"));
    wanted.remove("force");
    wanted.remove("tenant_id");
    wanted.remove("project_id");
    let check = flag(wanted.remove("check_limit"));
    for (name, value) in &mut wanted {
        if !DEFAULTS.iter().any(|(n, _)| n == name) {
            return Err(Error::bad_request(format!("Unrecognized attribute(s) '{name}'")));
        }
        let number = value.as_i64().or_else(|| value.as_str().and_then(|s| s.parse().ok()));
        match number.filter(|n| (-1..=i64::from(i32::MAX)).contains(n)) {
            Some(n) => *value = n.into(),
            None => return Err(Error::invalid(name, format!("{value} is not an integer of at least -1"))),
        }
    }
    let project = call.param("project").to_owned();
    call.transact(move |_, tx| {
        if check {
            for (name, limit) in &wanted {
                let (used, limit) = (resource::engine::usage(tx, &project, "network", name), limit.as_i64().unwrap_or(-1));
                if limit >= 0 && used > limit {
                    let text = format!("Quota limit exceeded for resource: {name}. Limit: {limit}, usage: {used}.");
                    return Err(fail::wrong("InvalidQuotaValue", text));
                }
            }
        }
        let mut limits = match tx.get(&LIMITS, &key(&project)) {
            Some(row) => row.field("limits").as_object().cloned().unwrap_or_default(),
            None => Map::new(),
        };
        limits.extend(wanted.clone());
        tx.put(&LIMITS, &key(&project), json!({ "limits": limits }));
        Ok(())
    })
    .await?;
    show(&call)
}

async fn delete(call: Call) -> Result<Reply> {
    let project = call.param("project").to_owned();
    call.transact(move |_, tx| match tx.get(&LIMITS, &key(&project)) {
        Some(_) => {
            tx.delete(&LIMITS, &key(&project));
            Ok(())
        }
        None => Err(fail::missing("TenantQuotaNotFound", format!("Quota for tenant {project} could not be found."))),
    })
    .await?;
    Ok(Reply::empty(204))
}
