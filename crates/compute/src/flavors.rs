//! What of flavors is no plain table: create and delete, lists with Nova's defaults, extra specs and access.
use crate::{
    common::{at, flag, map, object, text, visible},
    resources::Flavor,
    shape::{self, Shape, as_bool, as_int, opt, req},
};
use api::{Access, Call, Error, Map, Reply, Result, Route, dialect::COMPUTE};
use resource::{Object, Resource, engine};
use serde_json::{Value, json};

fn is_id(text: &str) -> bool {
    text.trim() == text && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._- ".contains(&b))
}

const ID: Shape = Shape::OneOf(&[
    &Shape::Checked { min: 1, max: 255, check: is_id, what: "does not match '^(?! )[a-zA-Z0-9. _-]+(?<! )$'" },
    &Shape::Int { min: i64::MIN, max: i64::MAX },
    &Shape::Null,
]);
const LONG: Shape = Shape::OneOf(&[
    &Shape::Checked { min: 0, max: 65_535, check: shape::is_printable, what: "is not printable" },
    &Shape::Null,
]);
const CREATE: Shape = Shape::Object(&[req(
    "flavor",
    &Shape::Object(&[
        req("name", &shape::NAME),
        opt("id", &ID),
        req("ram", &shape::POSITIVE),
        req("vcpus", &shape::POSITIVE),
        req("disk", &shape::NOT_NEGATIVE),
        opt("OS-FLV-EXT-DATA:ephemeral", &shape::NOT_NEGATIVE),
        opt("swap", &shape::NOT_NEGATIVE),
        opt("rxtx_factor", &Shape::Float),
        opt("os-flavor-access:is_public", &Shape::Bool),
        opt("description", &LONG).since(55),
    ]),
)]);
const UPDATE: Shape = Shape::Object(&[req("flavor", &Shape::Object(&[req("description", &LONG)]))]);

fn shown(call: &Call, row: &Map) -> Map {
    api::view_row(Flavor::DEF, &COMPUTE, row, &call.cx, &call.reader(), false)
}

async fn create(call: Call) -> Result<Reply> {
    CREATE.check(call.json(), &call.cx)?;
    let input = call.inner("flavor")?.clone();
    let number = |key: &str| input.get(key).and_then(as_int);
    let rxtx = match input.get("rxtx_factor") {
        None => 1.0,
        Some(v) => v.as_f64().or_else(|| v.as_str()?.parse().ok()).unwrap_or(0.0),
    };
    if rxtx <= 0.0 || rxtx > 3.40282e38 {
        return Err(Error::bad_request(format!("Invalid input for field/attribute rxtx_factor. Value: {rxtx}. It must be a positive number.")));
    }
    let id = match input.get("id") {
        Some(Value::String(s)) if s != "auto" => s.clone(),
        Some(v) if v.is_number() => v.to_string(),
        _ => base::id::uuid(),
    };
    let fields = map(json!({
        "id": id, "name": text(&input, "name").trim(), "ram": number("ram"), "vcpus": number("vcpus"), "disk": number("disk"),
        "OS-FLV-EXT-DATA:ephemeral": number("OS-FLV-EXT-DATA:ephemeral").unwrap_or(0), "swap": number("swap").unwrap_or(0),
        "rxtx_factor": rxtx, "os-flavor-access:is_public": input.get("os-flavor-access:is_public").and_then(as_bool).unwrap_or(true),
    }));
    let description = input.get("description").cloned();
    let row = call
        .transact(move |cx, tx| {
            let mut fields = fields.clone();
            if let Some(description) = &description {
                fields.insert("description".into(), description.clone());
            }
            if tx.get(&Flavor::DEF.table, text(&fields, "id")).is_some() {
                return Err(Error::conflict(format!("Flavor with ID {} already exists.", text(&fields, "id"))));
            }
            engine::create(tx, Flavor::DEF, cx, &fields).map_err(|e| match e.kind {
                api::ErrorKind::Conflict => Error::conflict(format!("Flavor with name {} already exists.", text(&fields, "name"))),
                _ => e,
            })
        })
        .await?;
    Ok(Reply::ok(json!({ "flavor": shown(&call, &row) })))
}

async fn update(call: Call) -> Result<Reply> {
    let flavor: Object<Flavor> = visible(&call, call.param("id"))?;
    UPDATE.check(call.json(), &call.cx)?;
    let input = call.inner("flavor")?.clone();
    let row = call.transact(move |cx, tx| engine::update(tx, Flavor::DEF, cx, &flavor.id, &input)).await?;
    Ok(Reply::ok(json!({ "flavor": shown(&call, &row) })))
}

async fn delete(call: Call) -> Result<Reply> {
    let flavor: Object<Flavor> = visible(&call, call.param("id"))?;
    call.transact(move |cx, tx| engine::delete(tx, Flavor::DEF, cx, &flavor.id)).await?;
    Ok(Reply::empty(202))
}

async fn show(call: Call) -> Result<Reply> {
    let flavor: Object<Flavor> = visible(&call, call.param("id")).map_err(|_| not_found(call.param("id")))?;
    Ok(Reply::ok(json!({ "flavor": shown(&call, &flavor.map) })))
}

fn not_found(id: &str) -> Error {
    Error::not_found(format!("Flavor {id} could not be found."))
}

/// Sort keys of the API and the fields that they mean.
const SORTS: [(&str, &str); 14] = [
    ("flavorid", "id"),
    ("id", "id"),
    ("name", "name"),
    ("memory_mb", "ram"),
    ("root_gb", "disk"),
    ("ephemeral_gb", "OS-FLV-EXT-DATA:ephemeral"),
    ("vcpus", "vcpus"),
    ("swap", "swap"),
    ("rxtx_factor", "rxtx_factor"),
    ("is_public", "os-flavor-access:is_public"),
    ("disabled", "OS-FLV-DISABLED:disabled"),
    ("description", "description"),
    ("created_at", "created_at"),
    ("updated_at", "updated_at"),
];

async fn list(call: Call, detail: bool) -> Result<Reply> {
    let cx = &call.cx;
    let mut listing = resource::Listing { limit: 1000, ..resource::Listing::default() };
    let mut named_public = false;
    for (key, value) in &cx.query.0 {
        match key.as_str() {
            "limit" => {
                let number = value.parse::<usize>().map_err(|_| bad_query(key, value))?;
                listing.limit = if number == 0 { 1000 } else { number.min(1000) };
            }
            "marker" => listing.marker = Some(value.clone()),
            "minRam" | "minDisk" => {
                value.parse::<i64>().map_err(|_| Error::bad_request(format!("Invalid {key} filter [{value}]")))?;
                listing.filters.push((key.clone(), vec![value.clone()]));
            }
            "is_public" if cx.is_admin() => {
                let word = value.to_ascii_lowercase();
                if !matches!(word.as_str(), "none" | "true" | "false" | "t" | "f" | "1" | "0" | "yes" | "no" | "on" | "off" | "y" | "n") {
                    return Err(Error::bad_request(format!("Invalid is_public filter [{value}]")));
                }
                named_public = true;
                listing.filters.push((key.clone(), vec![word]));
            }
            "is_public" | "sort_dir" => {}
            "sort_key" => {
                let field = SORTS.iter().find(|(k, _)| k == value).map(|(_, f)| *f).ok_or_else(|| bad_query(key, value))?;
                let direction = cx.query.get("sort_dir").unwrap_or("asc");
                if !matches!(direction, "asc" | "desc") {
                    return Err(bad_query("sort_dir", direction));
                }
                listing.sort.push((field.to_owned(), direction == "desc"));
            }
            _ if at(cx, 75) => {
                return Err(Error::bad_request(format!("Additional properties are not allowed ('{key}' was unexpected)")));
            }
            _ => {}
        }
    }
    if cx.is_admin() && !named_public {
        listing.filters.push(("is_public".into(), vec!["true".into()]));
    }
    listing.sort.push(("id".into(), false));
    let reader = call.reader();
    let found = resource::list(Flavor::DEF, cx, &reader, &listing)?;
    let rows: Vec<Value> =
        found.rows.iter().map(|r| api::view_row(Flavor::DEF, &COMPUTE, object(r), cx, &reader, !detail).into()).collect();
    let mut body = map(json!({ "flavors": rows }));
    let full = cx.query.get("limit").is_some() && found.rows.len() == listing.limit;
    if let (true, Some(last)) = (found.more || full, found.rows.last()) {
        let path = if detail { "/v2.1/flavors/detail" } else { "/v2.1/flavors" };
        let href = crate::server::list::next_link(cx, path, last.id());
        body.insert("flavors_links".into(), json!([{ "rel": "next", "href": href }]));
    }
    Ok(Reply::ok(body.into()))
}

fn bad_query(key: &str, value: &str) -> Error {
    Error::bad_request(format!("Invalid input for query parameters {key}. Value: {value}. It is not valid."))
}

// --- extra specs ---

fn is_spec_key(key: &str) -> bool {
    (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_:. ".contains(&b))
}
const SPECS: Shape = Shape::Map {
    key: is_spec_key,
    of: &Shape::OneOf(&[&Shape::Text { min: 0, max: 255 }, &Shape::Float]),
};
const CREATE_SPECS: Shape = Shape::Object(&[req("extra_specs", &SPECS)]);

/// From 2.86 the specs that Nova knows must have values that it knows.
fn check_known(key: &str, value: &str) -> Result<()> {
    let bad = |why: String| Err(Error::bad_request(format!("Validation failed; extra spec '{key}' {why}")));
    let (namespace, name) = key.split_once(':').unwrap_or(("", key));
    match (namespace, name) {
        ("hw", "cpu_policy") if !matches!(value, "dedicated" | "shared" | "mixed") => bad(format!("has no value '{value}'")),
        ("hw", "cpu_thread_policy") if !matches!(value, "prefer" | "isolate" | "require") => bad(format!("has no value '{value}'")),
        ("hw", "numa_nodes" | "cpu_sockets" | "cpu_cores" | "cpu_threads") if value.parse::<u32>().is_err() => {
            bad(format!("must be a number, not '{value}'"))
        }
        ("trait" | "trait1" | "trait2", _) if !matches!(value, "required" | "forbidden") => bad(format!("has no value '{value}'")),
        ("resources", _) if value.parse::<u32>().is_err() => bad(format!("must be a number, not '{value}'")),
        _ => Ok(()),
    }
}

fn spec_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

async fn specs(call: Call) -> Result<Reply> {
    let flavor: Object<Flavor> = visible(&call, call.param("id"))?;
    Ok(Reply::ok(json!({ "extra_specs": flavor.extra_specs })))
}

async fn change_specs<F>(call: &Call, mut how: F) -> Result<Object<Flavor>>
where
    F: FnMut(&mut Object<Flavor>) -> Result<()> + Send + 'static,
{
    let id = call.param("id").to_owned();
    let row = call
        .transact(move |cx, tx| {
            let flavor: Option<Object<Flavor>> = resource::load(tx, &id)?;
            let mut flavor = flavor.ok_or_else(|| not_found(&id))?;
            let old = flavor.map.clone();
            how(&mut flavor)?;
            engine::replace(tx, Flavor::DEF, cx, &old, flavor.into_map()?)
        })
        .await?;
    Object::from_map(row)
}

async fn add_specs(call: Call) -> Result<Reply> {
    CREATE_SPECS.check(call.json(), &call.cx)?;
    let new: Vec<(String, String)> =
        call.inner("extra_specs")?.iter().map(|(k, v)| (k.clone(), spec_text(v))).collect();
    if at(&call.cx, 86) {
        new.iter().try_for_each(|(k, v)| check_known(k, v))?;
    }
    let shown: Map = new.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect();
    change_specs(&call, move |f| {
        f.extra_specs.extend(new.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "extra_specs": shown })))
}

async fn spec(call: Call) -> Result<Reply> {
    let flavor: Object<Flavor> = visible(&call, call.param("id"))?;
    let key = call.param("key");
    match flavor.extra_specs.get(key) {
        Some(value) => Ok(Reply::ok(json!({ key: value }))),
        None => Err(no_spec(&flavor.id, key)),
    }
}

fn no_spec(id: &str, key: &str) -> Error {
    Error::not_found(format!("Flavor {id} has no extra specs with key {key}."))
}

async fn set_spec(call: Call) -> Result<Reply> {
    SPECS.check(call.json(), &call.cx)?;
    let key = call.param("key").to_owned();
    let body = call.object()?;
    let Some(value) = body.get(&key).filter(|_| body.len() == 1).map(spec_text) else {
        return Err(Error::bad_request("Request body and URI mismatch"));
    };
    if at(&call.cx, 86) {
        check_known(&key, &value)?;
    }
    let shown = json!({ &key: value });
    change_specs(&call, move |f| {
        f.extra_specs.insert(key.clone(), value.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(shown))
}

async fn delete_spec(call: Call) -> Result<Reply> {
    let key = call.param("key").to_owned();
    change_specs(&call, move |f| {
        let id = f.id.clone();
        f.extra_specs.remove(&key).map(drop).ok_or_else(|| no_spec(&id, &key))
    })
    .await?;
    Ok(Reply::empty(200))
}

// --- access ---

const ADD_ACCESS: Shape = Shape::Object(&[
    opt("addTenantAccess", &Shape::Object(&[req("tenant", &PROJECT)])),
    opt("removeTenantAccess", &Shape::Object(&[req("tenant", &PROJECT)])),
]);
const PROJECT: Shape = Shape::Checked { min: 1, max: 255, check: is_project, what: "does not match '^[a-zA-Z0-9-]*$'" };
fn is_project(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn access_of(flavor: &Object<Flavor>) -> Value {
    flavor.projects.iter().map(|p| json!({ "flavor_id": flavor.id, "tenant_id": p })).collect()
}

async fn access(call: Call) -> Result<Reply> {
    let flavor: Object<Flavor> = visible(&call, call.param("id"))?;
    if flavor.is_public {
        return Err(Error::not_found("Access list not available for public flavors."));
    }
    Ok(Reply::ok(json!({ "flavor_access": access_of(&flavor) })))
}

async fn change_access(call: Call) -> Result<Reply> {
    let body = call.object()?;
    let known = ["addTenantAccess", "removeTenantAccess"];
    let Some(action) = known.into_iter().find(|a| body.len() == 1 && body.contains_key(*a)) else {
        return Err(Error::bad_request("There is no such action."));
    };
    let rule = if action == "addTenantAccess" {
        "os_compute_api:os-flavor-access:add_tenant_access"
    } else {
        "os_compute_api:os-flavor-access:remove_tenant_access"
    };
    call.require(rule, None)?;
    ADD_ACCESS.check(call.json(), &call.cx)?;
    let project = body[action]["tenant"].as_str().unwrap_or_default().to_owned();
    if at(&call.cx, 7) && action == "addTenantAccess" {
        let flavor: Object<Flavor> = visible(&call, call.param("id"))?;
        if flag(&flavor.map, "os-flavor-access:is_public") {
            return Err(Error::conflict("Can not add access to a public flavor."));
        }
    }
    let flavor = change_specs(&call, move |f| {
        let has = f.projects.contains(&project);
        if action == "addTenantAccess" {
            if has {
                return Err(Error::conflict(format!("Flavor access already exists for flavor {} and project {project} combination.", f.id)));
            }
            f.projects.push(project.clone());
        } else {
            if !has {
                return Err(Error::not_found(format!("Flavor access not found for {} / {project} combination.", f.id)));
            }
            f.projects.retain(|p| *p != project);
        }
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "flavor_access": access_of(&flavor) })))
}

pub(crate) fn routes() -> Vec<Route> {
    let reader = |name| Access::Rule(name, "reader");
    let admin = |name| Access::Rule(name, "admin");
    vec![
        Route::new("GET", "/v2.1/flavors", reader("os_compute_api:flavors:index"), |c| list(c, false)),
        Route::new("GET", "/v2.1/flavors/detail", reader("os_compute_api:flavors:index"), |c| list(c, true)),
        Route::new("POST", "/v2.1/flavors", admin("os_compute_api:os-flavor-manage:create"), create),
        Route::new("GET", "/v2.1/flavors/{id}", reader("os_compute_api:flavors:show"), show),
        Route::new("PUT", "/v2.1/flavors/{id}", admin("os_compute_api:os-flavor-manage:update"), update).since("2.55"),
        Route::new("DELETE", "/v2.1/flavors/{id}", admin("os_compute_api:os-flavor-manage:delete"), delete),
        Route::new("GET", "/v2.1/flavors/{id}/os-extra_specs", reader("os_compute_api:os-flavor-extra-specs:index"), specs),
        Route::new("POST", "/v2.1/flavors/{id}/os-extra_specs", admin("os_compute_api:os-flavor-extra-specs:create"), add_specs),
        Route::new("GET", "/v2.1/flavors/{id}/os-extra_specs/{key}", reader("os_compute_api:os-flavor-extra-specs:show"), spec),
        Route::new("PUT", "/v2.1/flavors/{id}/os-extra_specs/{key}", admin("os_compute_api:os-flavor-extra-specs:update"), set_spec),
        Route::new("DELETE", "/v2.1/flavors/{id}/os-extra_specs/{key}", admin("os_compute_api:os-flavor-extra-specs:delete"), delete_spec),
        Route::new("GET", "/v2.1/flavors/{id}/os-flavor-access", admin("os_compute_api:os-flavor-access"), access),
        Route::new("POST", "/v2.1/flavors/{id}/action", Access::Authenticated, change_access),
    ]
}
