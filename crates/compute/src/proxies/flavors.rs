//! Flavors (Nova api-ref, `flavors`): lists with Nova's filters and order, and who may make them.
use super::{check_query, only, page};
use crate::{
    common::{at, flag, int, is_shown, object, text, visible},
    resources::{Flavor, flavor},
    shape::{self, Shape, opt, req},
};
use api::{Access, Call, Cx, Error, ErrorKind, Map, Reply, Result, Route, dialect::COMPUTE};
use resource::{Object, Reader, Resource, Row, engine};
use serde_json::{Value, json};
use std::{cmp::Ordering, sync::Arc};

const ID: Shape = Shape::OneOf(&[
    &Shape::Checked { min: 1, max: 255, check: flavor::is_id, what: "does not match '^(?! )[a-zA-Z0-9. _-]+(?<! )$'" },
    &Shape::Int { min: i64::MIN, max: i64::MAX },
    &Shape::Null,
]);
const DESCRIPTION: Shape =
    Shape::OneOf(&[&Shape::Checked { min: 0, max: 65_535, check: shape::is_printable, what: "is not printable" }, &Shape::Null]);
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
        opt("rxtx_factor", &Shape::Float).until(101),
        opt("os-flavor-access:is_public", &Shape::Bool),
        opt("description", &DESCRIPTION).since(55),
    ]),
)]);
const UPDATE: Shape = Shape::Object(&[req("flavor", &Shape::Object(&[req("description", &DESCRIPTION)]))]);

/// Largest `rxtx_factor`: what a single-precision column holds.
const MAX_FACTOR: f64 = 3.402_82e38;

/// The row that the caller may see, or 404 in Nova's words.
pub(super) fn look(call: &Call) -> Result<Object<Flavor>> {
    let id = call.param("id");
    visible::<Flavor>(call, id).map_err(|e| if e.kind == ErrorKind::NotFound { missing(id) } else { e })
}

pub(super) fn missing(id: &str) -> Error {
    Error::not_found(format!("Flavor {id} could not be found."))
}

fn shown(call: &Call, row: &Map) -> Reply {
    Reply::ok(api_body(call, row))
}
fn api_body(call: &Call, row: &Map) -> Value {
    api::show_one(Flavor::DEF, &COMPUTE, row, &call.cx, &call.reader())
}

async fn show(call: Call) -> Result<Reply> {
    check_query(&call.cx, 102, &[])?;
    let flavor = look(&call)?;
    Ok(shown(&call, &flavor.map))
}

/// Which flavors a list shows, read once from the query.
struct Wanted {
    /// `None` is all.
    public: Option<bool>,
    disabled: bool,
    min_ram: i64,
    min_disk: i64,
    name: Option<String>,
}

fn number(cx: &Cx, key: &str) -> Result<i64> {
    match cx.query.get(key) {
        None => Ok(0),
        Some(text) => text.trim().parse().map_err(|_| Error::bad_request(format!("Invalid {key} filter [{text}]"))),
    }
}

fn public(cx: &Cx) -> Result<Option<bool>> {
    // Only an administrator asks for others than the public ones and those shared with the own project.
    let Some(text) = cx.query.get("is_public").filter(|_| cx.is_admin()) else { return Ok(Some(true)) };
    match text.to_ascii_lowercase().as_str() {
        "none" => Ok(None),
        "1" | "t" | "true" | "on" | "y" | "yes" => Ok(Some(true)),
        "0" | "f" | "false" | "off" | "n" | "no" => Ok(Some(false)),
        _ => Err(Error::bad_request(format!("Invalid is_public filter [{text}]"))),
    }
}

impl Wanted {
    fn read(cx: &Cx) -> Result<Self> {
        let known = ["limit", "marker", "is_public", "minRam", "minDisk", "sort_key", "sort_dir", "name"];
        check_query(cx, 75, if at(cx, 102) { &known } else { &known[..7] })?;
        Ok(Self {
            public: public(cx)?,
            disabled: cx.is_admin(),
            min_ram: number(cx, "minRam")?,
            min_disk: number(cx, "minDisk")?,
            name: cx.query.get("name").map(str::to_owned),
        })
    }
    fn admits(&self, row: &Map, project: Option<&str>) -> bool {
        let is_public = flag(row, "os-flavor-access:is_public");
        let shared = project.is_some_and(|p| flavor::is_shared(row, p));
        let fits = match self.public {
            None => true,
            Some(true) => is_public || shared,
            Some(false) => !is_public,
        };
        fits && (self.disabled || !flag(row, "OS-FLV-DISABLED:disabled"))
            && int(row, "ram") >= self.min_ram
            && int(row, "disk") >= self.min_disk
            && self.name.as_ref().is_none_or(|n| text(row, "name") == n)
    }
}

/// Nova's names of what flavors can be sorted by, and ours.
const SORT: [(&str, &str); 15] = [
    ("flavorid", "id"),
    ("id", "created_at"),
    ("created_at", "created_at"),
    ("updated_at", "updated_at"),
    ("name", "name"),
    ("memory_mb", "ram"),
    ("root_gb", "disk"),
    ("vcpus", "vcpus"),
    ("swap", "swap"),
    ("ephemeral_gb", "OS-FLV-EXT-DATA:ephemeral"),
    ("rxtx_factor", "rxtx_factor"),
    ("disabled", "OS-FLV-DISABLED:disabled"),
    ("is_public", "os-flavor-access:is_public"),
    ("description", "description"),
    ("vcpu_weight", "id"),
];

fn order(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
        (Some(Value::String(a)), Some(Value::String(b))) => a.cmp(b),
        (Some(Value::Bool(a)), Some(Value::Bool(b))) => a.cmp(b),
        (a, b) => a.is_some_and(|v| !v.is_null()).cmp(&b.is_some_and(|v| !v.is_null())),
    }
}

fn sort(cx: &Cx, rows: &mut [Arc<Row>]) -> Result<()> {
    let key = cx.query.get("sort_key").filter(|k| !k.is_empty()).unwrap_or("flavorid");
    let known = SORT.iter().find(|(name, _)| *name == key && (key != "rxtx_factor" || !at(cx, 102)));
    let Some((_, field)) = known else {
        return Err(Error::bad_request(format!(
            "Invalid input for query parameters sort_key. Value: {key}. '{key}' is not one of {:?}",
            SORT.map(|(n, _)| n)
        )));
    };
    let descending = match cx.query.get("sort_dir").filter(|d| !d.is_empty()).unwrap_or("asc") {
        "asc" => false,
        "desc" => true,
        other => {
            return Err(Error::bad_request(format!(
                "Invalid input for query parameters sort_dir. Value: {other}. '{other}' is not one of ['asc', 'desc']"
            )));
        }
    };
    rows.sort_by(|a, b| {
        let o = order(object(a).get(*field), object(b).get(*field)).then_with(|| a.id().cmp(b.id()));
        if descending { o.reverse() } else { o }
    });
    Ok(())
}

fn list(call: &Call, brief: bool) -> Result<Reply> {
    let cx = &call.cx;
    let wanted = Wanted::read(cx)?;
    let reader = call.reader();
    let mut rows: Vec<Arc<Row>> =
        visible_rows(cx, &reader).filter(|r| wanted.admits(object(r), cx.caller.project_id())).collect();
    sort(cx, &mut rows)?;
    let path = if brief { "/v2.1/flavors" } else { "/v2.1/flavors/detail" };
    let (rows, link) = page(cx, rows, path, |r| r.id())?;
    let views: Vec<Value> =
        rows.iter().map(|r| api::view_row(Flavor::DEF, &COMPUTE, object(r), cx, &reader, brief).into()).collect();
    let mut body = crate::common::map(json!({ "flavors": views }));
    if let Some(link) = link {
        body.insert("flavors_links".into(), link);
    }
    Ok(Reply::ok(body.into()))
}

fn visible_rows<'r>(cx: &'r Cx, reader: &'r Reader<'r>) -> impl Iterator<Item = Arc<Row>> + 'r {
    reader.all(&Flavor::DEF.table).filter(move |r| is_shown(Flavor::DEF, cx, reader, object(r))).cloned()
}

async fn list_brief(call: Call) -> Result<Reply> {
    list(&call, true)
}
async fn list_detail(call: Call) -> Result<Reply> {
    list(&call, false)
}

/// The row's fields from a checked body.
fn fields(input: &Map, cx: &Cx) -> Result<Map> {
    let number = |key: &str| input.get(key).and_then(shape::as_int).unwrap_or(0);
    let id = match input.get("id") {
        Some(Value::String(s)) => s.clone(),
        Some(Value::Number(n)) => n.to_string(),
        _ => base::id::uuid(),
    };
    let factor = match input.get("rxtx_factor") {
        None => 1.0,
        Some(Value::String(s)) => s.parse().unwrap_or(0.0),
        Some(v) => v.as_f64().unwrap_or(0.0),
    };
    if factor <= 0.0 || factor > MAX_FACTOR {
        return Err(Error::bad_request(
            "Invalid input received: 'rxtx_factor' argument must be a float between 0 and 3.40282e+38",
        ));
    }
    let mut out = crate::common::map(json!({
        "id": id, "name": text(input, "name").trim(), "ram": number("ram"), "vcpus": number("vcpus"), "disk": number("disk"),
        "swap": number("swap"), "OS-FLV-EXT-DATA:ephemeral": number("OS-FLV-EXT-DATA:ephemeral"), "rxtx_factor": factor,
        "os-flavor-access:is_public": input.get("os-flavor-access:is_public").and_then(shape::as_bool).unwrap_or(true),
    }));
    if at(cx, 55) {
        out.insert("description".into(), input.get("description").cloned().unwrap_or(Value::Null));
    }
    Ok(out)
}

async fn create(call: Call) -> Result<Reply> {
    CREATE.check(call.json(), &call.cx)?;
    let input = fields(call.inner("flavor")?, &call.cx)?;
    let row = call
        .transact(move |cx, tx| {
            let id = text(&input, "id");
            if tx.get(&Flavor::DEF.table, id).is_some() {
                return Err(Error::conflict(format!("Flavor with ID {id} already exists.")));
            }
            engine::create(tx, Flavor::DEF, cx, &input).map_err(|e| match e.kind {
                ErrorKind::Conflict => Error::conflict(format!("Flavor with name {} already exists.", text(&input, "name"))),
                _ => e,
            })
        })
        .await?;
    Ok(shown(&call, &row))
}

async fn update(call: Call) -> Result<Reply> {
    only(&call.cx, 55, u16::MAX)?;
    UPDATE.check(call.json(), &call.cx)?;
    let flavor = look(&call)?;
    let input = call.inner("flavor")?.clone();
    let row = call.transact(move |cx, tx| engine::update(tx, Flavor::DEF, cx, &flavor.id, &input)).await?;
    Ok(shown(&call, &row))
}

async fn delete(call: Call) -> Result<Reply> {
    let flavor = look(&call)?;
    call.transact(move |cx, tx| engine::delete(tx, Flavor::DEF, cx, &flavor.id)).await?;
    Ok(Reply::empty(202))
}

pub(super) fn routes() -> Vec<Route> {
    let admin = |name| Access::Rule(name, "admin");
    vec![
        Route::new("GET", "/v2.1/flavors", Access::Rule("os_compute_api:flavors:index", "reader"), list_brief),
        Route::new("GET", "/v2.1/flavors/detail", Access::Rule("os_compute_api:flavors:index", "reader"), list_detail),
        Route::new("GET", "/v2.1/flavors/{id}", Access::Rule("os_compute_api:flavors:show", "reader"), show),
        Route::new("POST", "/v2.1/flavors", admin("os_compute_api:os-flavor-manage:create"), create),
        Route::new("PUT", "/v2.1/flavors/{id}", admin("os_compute_api:os-flavor-manage:update"), update),
        Route::new("DELETE", "/v2.1/flavors/{id}", admin("os_compute_api:os-flavor-manage:delete"), delete),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(public: Option<bool>) -> Wanted {
        Wanted { public, disabled: false, min_ram: 0, min_disk: 0, name: None }
    }

    #[test]
    fn lists_show_public_flavors_and_those_shared_with_the_project() {
        let row = |is_public: bool, projects: &[&str]| {
            crate::common::map(json!({"os-flavor-access:is_public": is_public, "projects": projects}))
        };
        assert!(wanted(Some(true)).admits(&row(true, &[]), None));
        assert!(!wanted(Some(true)).admits(&row(false, &[]), Some("p")));
        assert!(wanted(Some(true)).admits(&row(false, &["p"]), Some("p")));
        assert!(wanted(Some(false)).admits(&row(false, &[]), None));
        assert!(!wanted(Some(false)).admits(&row(true, &[]), None));
        assert!(wanted(None).admits(&row(true, &[]), None) && wanted(None).admits(&row(false, &[]), None));
    }
}
