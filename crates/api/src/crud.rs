//! The five actions of every resource, from its table.
use crate::{Access, Call, Cx, Dialect, Error, Map, Reply, Result, Route};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use resource::{Deletion, Kind, Reader, ResourceDef, engine};
use serde_json::Value;

/// What a segment of a path cannot hold as it is (`pchar` in RFC 3986 section 3.3).
const SEGMENT: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');
/// What a client has sent as a path, and is none: it is taken all the same, but not said.
const SENT: AsciiSet = SEGMENT.remove(b'/').remove(b'%');

/// A path as it was sent, for links.
pub(crate) fn said(path: &str) -> String {
    utf8_percent_encode(path, &SENT).to_string()
}

/// The collection's path with its parameters filled in.
pub(crate) fn concrete_path(path: &str, cx: &Cx) -> String {
    if !path.contains('{') {
        return path.to_owned();
    }
    path.split('/')
        .map(|part| match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
            Some(name) => utf8_percent_encode(cx.param(name), &SEGMENT).to_string(),
            None => part.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("/")
}

/// The path of a row, for links.
pub fn links(def: &ResourceDef, cx: &Cx, id: &str) -> String {
    format!("{}{}/{id}", cx.public, concrete_path(def.path, cx))
}

/// A stored row as the caller may see it.
pub fn view_row(def: &ResourceDef, dialect: &Dialect, row: &Map, cx: &Cx, reader: &Reader<'_>, brief: bool) -> Map {
    let mut out = def.view(row, cx.version, brief, &|rule| cx.may(rule, Some(row)));
    for f in def.fields.iter().filter(|f| matches!(f.kind, Kind::Time | Kind::Optional(Kind::Time))) {
        if let Some(v) = out.get_mut(f.name)
            && let Some(t) = v.as_i64()
        {
            *v = (dialect.time)(base::Timestamp(t)).into();
        }
    }
    (dialect.decorate)(def, row, &mut out, cx);
    if !brief {
        (def.hooks.view)(row, &mut out, cx, reader);
    }
    if dialect.name == "network" {
        let wanted: Vec<&str> = cx.query.all("fields").flat_map(|f| f.split(',')).filter(|f| !f.is_empty()).collect();
        if !wanted.is_empty() {
            out.retain(|k, _| wanted.contains(&k.as_str()));
        }
    }
    out
}

/// One row as an answer's body: wrapped where the dialect wraps.
pub fn show_one(def: &ResourceDef, dialect: &Dialect, row: &Map, cx: &Cx, reader: &Reader<'_>) -> Value {
    wrap(def, dialect, view_row(def, dialect, row, cx, reader, false))
}

fn wrap(def: &ResourceDef, dialect: &Dialect, out: Map) -> Value {
    if dialect.wrapped {
        let mut body = Map::new();
        body.insert(def.name.into(), out.into());
        return body.into();
    }
    out.into()
}

/// The input of a create or update: what is below the resource's name, or the whole body.
pub fn body_of<'a>(def: &ResourceDef, dialect: &Dialect, body: &'a Value) -> Result<&'a Map> {
    let missing = || Error::bad_request(format!("The request body must be a JSON object with the object '{}'.", def.name));
    let object = body.as_object().ok_or_else(missing)?;
    if dialect.wrapped { object.get(def.name).and_then(Value::as_object).ok_or_else(missing) } else { Ok(object) }
}

/// A row that the caller may see, or 404.
fn visible_row<'a>(def: &ResourceDef, cx: &Cx, reader: &Reader<'_>, row: &'a store::Row) -> Option<&'a Map> {
    let map = row.value().as_object()?;
    let deleting = !def.shows_deleting && map.get("deleting") == Some(&Value::Bool(true));
    let path_fits = cx.params.iter().all(|(k, v)| def.field(k).is_none() || map.get(k).and_then(Value::as_str) == Some(v));
    (!deleting && path_fits && (def.hooks.visible)(map, cx, reader)).then_some(map)
}

fn check_visible(def: &ResourceDef, dialect: &Dialect, action: &str, cx: &Cx, reader: &Reader<'_>, id: &str) -> Result<Map> {
    let row = reader.get(&def.table, id);
    match row.and_then(|row| visible_row(def, cx, reader, &row).cloned()) {
        Some(row) => Ok(row),
        None => {
            // Keystone says 403 to those who may not see, or not do this to, any such row, so that 404 tells them nothing.
            if dialect.name == "identity" {
                let asked: Map = cx.params.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect();
                let sees = if def.rule("show").is_some() { "show" } else { action };
                if ![sees, action].iter().all(|rule| cx.may(&(dialect.rule)(def, rule), Some(&asked))) {
                    return Err(refused(dialect, &(dialect.rule)(def, action)));
                }
            }
            Err(engine::not_found(def, id))
        }
    }
}

fn require(def: &ResourceDef, dialect: &Dialect, action: &str, cx: &Cx, row: Option<&Map>) -> Result<()> {
    let rule = (dialect.rule)(def, action);
    if cx.may(&rule, row) {
        return Ok(());
    }
    Err(refused(dialect, &rule))
}

fn refused(dialect: &Dialect, rule: &str) -> Error {
    Error::forbidden(match dialect.name {
        "identity" => format!("You are not authorized to perform the requested action: {rule}."),
        "network" => format!("(rule:{rule}) is disallowed by policy"),
        _ => format!("Policy doesn't allow {rule} to be performed."),
    })
}

/// A page of rows as an answer.
pub fn listing_reply(def: &'static ResourceDef, dialect: &'static Dialect, call: &Call, brief: bool) -> Result<Reply> {
    let cx = &call.cx;
    let listing = (dialect.listing)(def, cx)?;
    let reader = call.reader();
    let found = resource::list(def, cx, &reader, &listing)?;
    let rows: Vec<Value> = found
        .rows
        .iter()
        .filter_map(|r| visible_row(def, cx, &reader, r))
        .map(|row| view_row(def, dialect, row, cx, &reader, brief).into())
        .collect();
    let mut body = Map::new();
    body.insert(def.plural.into(), rows.into());
    (dialect.page)(def, cx, &listing, &found, &mut body);
    Ok(Reply::ok(body.into()))
}

fn show(def: &'static ResourceDef, dialect: &'static Dialect, call: &Call) -> Result<Reply> {
    let reader = call.reader();
    let row = check_visible(def, dialect, "show", &call.cx, &reader, call.param("id"))?;
    require(def, dialect, "show", &call.cx, Some(&row))?;
    Ok(Reply::ok(show_one(def, dialect, &row, &call.cx, &reader)))
}

async fn create(def: &'static ResourceDef, dialect: &'static Dialect, call: Call) -> Result<Reply> {
    let many = dialect.bulk.then(|| call.json().get(def.plural)).flatten();
    let inputs: Vec<Map> = match many {
        None => vec![body_of(def, dialect, call.json())?.clone()],
        Some(Value::Array(list)) if !list.is_empty() => list
            .iter()
            .map(|v| v.as_object().cloned().ok_or_else(|| Error::bad_request(format!("'{}' must hold objects.", def.plural))))
            .collect::<Result<_>>()?,
        Some(_) => return Err(Error::bad_request(format!("'{}' must be a list with at least one object.", def.plural))),
    };
    let is_bulk = many.is_some();
    for input in &inputs {
        require(def, dialect, "create", &call.cx, Some(input))?;
    }
    let rows = call
        .transact(move |cx, tx| inputs.iter().map(|input| engine::create(tx, def, cx, input)).collect::<Result<Vec<Map>>>())
        .await?;
    let reader = call.reader();
    let view = |row: &Map| view_row(def, dialect, row, &call.cx, &reader, false);
    if is_bulk {
        let mut body = Map::new();
        body.insert(def.plural.into(), rows.iter().map(|r| Value::from(view(r))).collect());
        return Ok(Reply::json(dialect.created, body.into()));
    }
    let row = rows.first().ok_or_else(|| Error::internal("nothing was created"))?;
    let id = row.get("id").and_then(Value::as_str).unwrap_or_default();
    Ok(Reply::json(dialect.created, wrap(def, dialect, view(row))).header("location", links(def, &call.cx, id)))
}

async fn update(def: &'static ResourceDef, dialect: &'static Dialect, call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    let row = check_visible(def, dialect, "update", &call.cx, &call.reader(), &id)?;
    require(def, dialect, "update", &call.cx, Some(&row))?;
    let input = body_of(def, dialect, call.json())?.clone();
    let row = call.transact(move |cx, tx| engine::update(tx, def, cx, &id, &input)).await?;
    Ok(Reply::ok(show_one(def, dialect, &row, &call.cx, &call.reader())))
}

async fn delete(def: &'static ResourceDef, dialect: &'static Dialect, call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    let row = check_visible(def, dialect, "delete", &call.cx, &call.reader(), &id)?;
    require(def, dialect, "delete", &call.cx, Some(&row))?;
    let _: Deletion = call.transact(move |cx, tx| engine::delete(tx, def, cx, &id)).await?;
    Ok(Reply::empty(dialect.deleted))
}

fn leak(path: String) -> &'static str {
    Box::leak(path.into_boxed_str())
}

/// The routes that a table yields. Called once, at start.
pub fn resource_routes(def: &'static ResourceDef, dialect: &'static Dialect) -> Vec<Route> {
    let item = leak(format!("{}/{{id}}", def.path));
    let mut routes = Vec::new();
    for (action, rule) in def.policy {
        let name = leak((dialect.rule)(def, action));
        // What depends on the row is decided with the row; the route admits every token.
        let by_row = Access::Authenticated;
        match *action {
            "list" => {
                let access = Access::Rule(name, rule);
                let brief = def.detail;
                routes.push(Route::new(
                    "GET",
                    def.path,
                    access,
                    move |call| async move { listing_reply(def, dialect, &call, brief) },
                ));
                if def.detail {
                    let path = leak(format!("{}/detail", def.path));
                    routes.push(Route::new(
                        "GET",
                        path,
                        access,
                        move |call| async move { listing_reply(def, dialect, &call, false) },
                    ));
                }
            }
            "show" => routes.push(Route::new("GET", item, by_row, move |call| async move { show(def, dialect, &call) })),
            "create" => {
                let made = Route::new("POST", def.path, by_row, move |call| create(def, dialect, call));
                routes.push(made.created(dialect.created));
            }
            "update" => routes.push(Route::new(dialect.update_method, item, by_row, move |call| update(def, dialect, call))),
            _ => routes.push(Route::new("DELETE", item, by_row, move |call| delete(def, dialect, call))),
        }
    }
    routes
}

/// Names and default texts of the rules of a table's actions.
pub(crate) fn resource_rules(def: &ResourceDef, dialect: &Dialect) -> Vec<(&'static str, &'static str)> {
    def.policy.iter().map(|(action, rule)| (leak((dialect.rule)(def, action)), *rule)).collect()
}
