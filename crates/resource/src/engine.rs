//! Create, update and delete of any resource inside a transaction: unique names, quotas, the row, its story. Not generic.
//!
//! Services use these too when one resource makes another (a server its ports): the other service's table comes from the
//! [`Registry`](crate::Registry), so its rules apply and both rows are committed together.
use crate::{Cx, Deletion, Error, Map, ResourceDef, Result, create_row, update_row};
use serde_json::{Value, json};
use store::{Index, Table, Tx};

/// Use of quotas: `<project>:<service>:<name>` to a count.
pub static USAGE: Table = Table { name: "core/usage", indexes: &[Index { name: "project", path: "/project" }] };
/// Limits that differ from the defaults: `<project>:<service>`.
pub static LIMITS: Table = Table { name: "core/limits", indexes: &[] };
/// Claims of unique values.
pub static UNIQUE: Table = Table { name: "core/unique", indexes: &[] };
/// What happened to a resource, for `drover why`.
pub static STORIES: Table = Table { name: "core/stories", indexes: &[] };

pub const TABLES: [&Table; 4] = [&USAGE, &LIMITS, &UNIQUE, &STORIES];

/// Entries kept of one story, so that the row stays below 4 KiB.
const STORY_LENGTH: usize = 20;

/// The row does not exist, or the caller may not know that it does.
pub fn not_found(def: &ResourceDef, id: &str) -> Error {
    let title = def.name.split('_').map(|w| w[..1].to_uppercase() + &w[1..]).collect::<String>();
    match def.service {
        "identity" => Error::not_found(format!("Could not find {}: {id}.", def.name)),
        "compute" if def.name == "server" => Error::not_found(format!("Instance {id} could not be found.")),
        "image" => Error::not_found(format!("Failed to find {} {id}", def.name)),
        "network" if def.name == "floatingip" => {
            Error::not_found(format!("Floating IP {id} could not be found.")).code("FloatingIPNotFound")
        }
        "network" if def.name == "subnetpool" => {
            Error::not_found(format!("Subnet pool {id} could not be found.")).code("SubnetPoolNotFound")
        }
        _ => Error::not_found(format!("{title} {id} could not be found.")).code(format!("{title}NotFound")),
    }
}

/// The limit of a project, its own or the default; -1 is unlimited.
pub fn limit(tx: &mut Tx<'_>, cx: &Cx, project: &str, service: &str, name: &str) -> i64 {
    tx.get(&LIMITS, &format!("{project}:{service}"))
        .and_then(|r| r.field("limits").get(name).and_then(Value::as_i64))
        .unwrap_or_else(|| cx.settings.quota(service, name))
}

/// What a project uses of a quota.
pub fn usage(tx: &mut Tx<'_>, project: &str, service: &str, name: &str) -> i64 {
    tx.get(&USAGE, &format!("{project}:{service}:{name}")).and_then(|r| r.field("used").as_i64()).unwrap_or(0)
}

/// Counts use of quotas up or down. Up is refused beyond the limit; the whole transaction then is.
pub fn reserve(tx: &mut Tx<'_>, cx: &Cx, project: &str, service: &str, deltas: &[(&str, i64)]) -> Result<()> {
    for (name, delta) in deltas.iter().filter(|(_, d)| *d != 0) {
        let used = usage(tx, project, service, name);
        if *delta > 0 {
            let limit = limit(tx, cx, project, service, name);
            if limit >= 0 && used + delta > limit {
                return Err(Error::over_quota(match service {
                    "network" => format!("Quota exceeded for resources: ['{name}']."),
                    _ => format!("Quota exceeded for {name}: Requested {delta}, but already used {used} of {limit} {name}"),
                })
                .code("OverQuota"));
            }
        }
        count(tx, project, service, name, used + delta);
    }
    Ok(())
}

/// Gives quota back, where there is no request.
pub fn release(tx: &mut Tx<'_>, project: &str, service: &str, deltas: &[(&str, i64)]) {
    for (name, delta) in deltas.iter().filter(|(_, d)| *d != 0) {
        let used = usage(tx, project, service, name);
        count(tx, project, service, name, used - delta);
    }
}

fn count(tx: &mut Tx<'_>, project: &str, service: &str, name: &str, used: i64) {
    let id = format!("{project}:{service}:{name}");
    if used <= 0 {
        tx.delete(&USAGE, &id);
    } else {
        tx.put(&USAGE, &id, json!({ "project": project, "used": used }));
    }
}

/// Adds to the story of a resource: what was asked, decided, tried or failed, and what is next.
pub fn tell(tx: &mut Tx<'_>, id: &str, request_id: &str, text: &str) {
    let mut entries = match tx.get(&STORIES, id) {
        Some(row) => row.field("entries").as_array().cloned().unwrap_or_default(),
        None => Vec::new(),
    };
    let shown: String = text.chars().take(160).collect();
    entries.push(json!({ "at": tx.now.0, "request_id": request_id, "text": shown }));
    // The first entry says who asked for it: it stays.
    while entries.len() > STORY_LENGTH {
        entries.remove(1);
    }
    tx.put(&STORIES, id, json!({ "entries": entries }));
}

fn unique_keys(def: &ResourceDef, row: &Map) -> Vec<(String, &'static [&'static str])> {
    let fields = if (def.hooks.claims)(row) { def.unique } else { &[] };
    fields
        .iter()
        .filter(|fields| fields.iter().all(|f| row.get(*f).is_some()))
        .map(|fields| {
            let values: Vec<&Value> = fields.iter().filter_map(|f| row.get(*f)).collect();
            (format!("{}:{}:{}", def.table.name, fields.join(","), json!(values)), *fields)
        })
        .collect()
}

fn claim_unique(tx: &mut Tx<'_>, def: &ResourceDef, row: &Map, id: &str) -> Result<()> {
    for (key, fields) in unique_keys(def, row) {
        let taken = tx.claim(&UNIQUE, &key, json!({ "id": id }));
        if taken.is_err_and(|holder| holder.text("id") != id) {
            let field = fields.last().unwrap_or(&"id");
            let value = row.get(*field).and_then(Value::as_str).unwrap_or_default();
            return Err(match def.service {
                "identity" => Error::conflict(format!(
                    "Conflict occurred attempting to store {} - Duplicate entry found with {field} {value}.",
                    def.name
                )),
                _ => Error::conflict(format!("{} with {field} {value} already exists.", def.name)),
            });
        }
    }
    Ok(())
}

fn text<'a>(row: &'a Map, field: &str) -> &'a str {
    row.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Creates a row from a body. Defaults, checks, rules, unique values, quota, row and story, in the caller's transaction.
pub fn create(tx: &mut Tx<'_>, def: &ResourceDef, cx: &Cx, input: &Map) -> Result<Map> {
    let row = create_row(def, cx, input, tx.now)?;
    insert(tx, def, cx, row)
}

/// As [`create`], from a row that is already complete but for its rules.
pub fn insert(tx: &mut Tx<'_>, def: &ResourceDef, cx: &Cx, mut row: Map) -> Result<Map> {
    (def.hooks.create)(&mut row, cx, tx)?;
    let id = text(&row, "id").to_owned();
    if tx.get(&def.table, &id).is_some() {
        return Err(Error::conflict(format!("{} {id} already exists.", def.name)));
    }
    claim_unique(tx, def, &row, &id)?;
    if let Some(quota) = def.quota {
        reserve(tx, cx, text(&row, "project_id"), def.service, &[(quota, 1)])?;
    }
    tx.put(&def.table, &id, Value::Object(row.clone()));
    if def.story {
        let who = cx.caller.user_id();
        tell(tx, &id, &cx.request_id, &format!("User {who} asked for {} {}", def.name, text(&row, "name")));
    }
    Ok(row)
}

/// The row as stored, unless it is missing or being deleted.
pub fn existing(tx: &mut Tx<'_>, def: &ResourceDef, id: &str) -> Result<Map> {
    match tx.get(&def.table, id).as_deref().map(store::Row::value) {
        Some(Value::Object(row)) if def.shows_deleting || row.get("deleting") != Some(&Value::Bool(true)) => Ok(row.clone()),
        _ => Err(not_found(def, id)),
    }
}

/// Changes a row from a body.
pub fn update(tx: &mut Tx<'_>, def: &ResourceDef, cx: &Cx, id: &str, input: &Map) -> Result<Map> {
    let old = existing(tx, def, id)?;
    let row = update_row(def, cx, &old, input, tx.now)?;
    replace(tx, def, cx, &old, row)
}

/// As [`update`], from a row that is already changed but for its rules.
pub fn replace(tx: &mut Tx<'_>, def: &ResourceDef, cx: &Cx, old: &Map, mut row: Map) -> Result<Map> {
    (def.hooks.update)(&mut row, old, cx, tx)?;
    let id = text(old, "id").to_owned();
    let (before, after) = (unique_keys(def, old), unique_keys(def, &row));
    for (key, _) in before.iter().filter(|k| !after.contains(k)) {
        tx.delete(&UNIQUE, key);
    }
    claim_unique(tx, def, &row, &id)?;
    tx.put(&def.table, &id, Value::Object(row.clone()));
    Ok(row)
}

/// Deletes a row, now or when its reconciler has cleaned up. Deleting what is being deleted is fine.
pub fn delete(tx: &mut Tx<'_>, def: &ResourceDef, cx: &Cx, id: &str) -> Result<Deletion> {
    let mut row = existing(tx, def, id)?;
    let deletion = (def.hooks.delete)(&mut row, cx, tx)?;
    match deletion {
        Deletion::Now => remove(tx, def, &row),
        Deletion::Later => {
            row.insert("deleting".into(), true.into());
            crate::input::touch(&mut row, tx.now);
            row.insert("request_id".into(), (&*cx.request_id).into());
            tx.put(&def.table, id, Value::Object(row));
            if def.story {
                tell(tx, id, &cx.request_id, &format!("User {} asked to delete it", cx.caller.user_id()));
            }
        }
    }
    Ok(deletion)
}

/// Takes the row away for good, with its claims, its quota and its story.
pub fn remove(tx: &mut Tx<'_>, def: &ResourceDef, row: &Map) {
    let id = text(row, "id");
    for (key, _) in unique_keys(def, row) {
        if tx.get(&UNIQUE, &key).is_some_and(|r| r.text("id") == id) {
            tx.delete(&UNIQUE, &key);
        }
    }
    if let Some(quota) = def.quota {
        release(tx, text(row, "project_id"), def.service, &[(quota, 1)]);
    }
    tx.delete(&def.table, id);
    if def.story {
        tx.delete(&STORIES, id);
    }
}
