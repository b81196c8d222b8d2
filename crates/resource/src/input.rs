//! From what a caller sent to a row: unknown and forbidden fields, kinds, defaults, and what every row has.
use crate::{Cx, Error, FieldDef, IdForm, Map, Owner, ResourceDef, Result};
use base::Timestamp;
use serde_json::Value;

/// Schema version of rows written by this build.
const ROW_VERSION: u64 = 1;

pub(crate) fn stamp(map: &mut Map, id: &str, project_id: Option<&str>, now: Timestamp, request_id: &str) {
    map.insert("id".into(), id.into());
    map.insert("v".into(), ROW_VERSION.into());
    if let Some(p) = project_id {
        map.insert("project_id".into(), p.into());
    }
    map.insert("created_at".into(), now.0.into());
    map.insert("updated_at".into(), Value::Null);
    map.insert("revision".into(), 0.into());
    map.insert("request_id".into(), request_id.into());
}

pub(crate) fn touch(map: &mut Map, now: Timestamp) {
    let revision = map.get("revision").and_then(Value::as_u64).unwrap_or(0);
    map.insert("revision".into(), (revision + 1).into());
    map.insert("updated_at".into(), now.0.into());
}

/// Fields that engines and dialects own; callers may send some of them, and they are not extras.
const OWNED: [&str; 8] = ["id", "v", "created_at", "updated_at", "revision", "request_id", "deleting", "extra"];

fn take(def: &ResourceDef, cx: &Cx, input: &Map, row: &mut Map, creating: bool) -> Result<()> {
    for (name, value) in input {
        if owner_field(def, cx, name, value, row, creating)? {
            continue;
        }
        if name == "id" && ((creating && def.id == IdForm::Given) || (!creating && row.get("id") == Some(value))) {
            continue;
        }
        let allowed = |f: &&FieldDef| f.at(cx.version) && if creating { f.create } else { f.update };
        match def.field(name).filter(allowed) {
            Some(f) => {
                if let Some(rule) = f.policy
                    && !cx.may(rule, Some(row))
                {
                    return Err(Error::forbidden(format!(
                        "({}_{}:{name}) is disallowed by policy",
                        if creating { "create" } else { "update" },
                        def.name
                    )));
                }
                let stored = f.kind.check(value).map_err(|reason| Error::invalid(name, reason))?;
                row.insert(name.clone(), stored);
            }
            None if def.extras && !OWNED.contains(&name.as_str()) && def.field(name).is_none() => {
                let extra = row.entry("extra").or_insert_with(|| Map::new().into());
                if let Value::Object(extra) = extra {
                    extra.insert(name.clone(), value.clone());
                }
            }
            None if def.extras && name == "links" => {}
            None if def.field(name).is_some_and(|f| !f.hidden && f.at(cx.version)) && !creating => {
                return Err(Error::bad_request(format!("Cannot update read-only attribute {name}")));
            }
            None => return Err(Error::bad_request(format!("Unrecognized attribute(s) '{name}'"))),
        }
    }
    Ok(())
}

/// `project_id` and `tenant_id` of project-owned rows: only an administrator names another project. True if it was one of these.
fn owner_field(def: &ResourceDef, cx: &Cx, name: &str, value: &Value, row: &mut Map, creating: bool) -> Result<bool> {
    if def.owner != Owner::Project || !matches!(name, "project_id" | "tenant_id") || def.field(name).is_some() {
        return Ok(false);
    }
    let wanted = value.as_str().ok_or_else(|| Error::invalid(name, "it is not a string"))?;
    if row.get("project_id").and_then(Value::as_str) == Some(wanted) {
        return Ok(true);
    }
    if !creating {
        return Err(Error::bad_request(format!("Cannot update read-only attribute {name}")));
    }
    if !cx.is_admin() {
        return Err(Error::forbidden(format!("Only an administrator may create a {} for another project", def.name)));
    }
    row.insert("project_id".into(), wanted.into());
    Ok(true)
}

/// A new row from a create's body: defaults, path parameters, checked input. Rules come after.
pub fn create_row(def: &ResourceDef, cx: &Cx, input: &Map, now: Timestamp) -> Result<Map> {
    let id = match def.id {
        IdForm::Uuid => base::id::uuid(),
        IdForm::Hex => base::id::hex(),
        IdForm::Given => match input.get("id") {
            None => base::id::hex(),
            Some(Value::String(s)) if s.is_empty() => base::id::hex(),
            Some(Value::String(s)) if s.chars().count() <= 255 && !s.contains(['/', '\0']) => s.clone(),
            Some(_) => return Err(Error::invalid("id", "it is not a string of 1 to 255 characters without a slash")),
        },
    };
    let project = match def.owner {
        Owner::Project => match cx.caller.project_id() {
            Some(p) => Some(p.to_owned()),
            // An administrator without a project must name one.
            None => input.get("project_id").or_else(|| input.get("tenant_id")).and_then(Value::as_str).map(str::to_owned),
        },
        Owner::None | Owner::Domain | Owner::User => None,
    };
    if def.owner == Owner::Project && project.is_none() {
        return Err(Error::bad_request(format!("A {} belongs to a project: use a project-scoped token or name one.", def.name)));
    }
    let mut row = Map::new();
    stamp(&mut row, &id, project.as_deref(), now, &cx.request_id);
    for f in def.fields {
        match f.default {
            Some(make) => row.insert(f.name.into(), make()),
            None if f.kind.is_optional() => row.insert(f.name.into(), Value::Null),
            None => None,
        };
    }
    for (name, value) in cx.params.iter() {
        if def.field(name).is_some() {
            row.insert(name.clone(), value.as_str().into());
        }
    }
    take(def, cx, input, &mut row, true)?;
    for f in def.fields {
        let missing = row.get(f.name).is_none_or(|v| v.is_null() && f.required && !f.kind.is_optional());
        if missing && f.required && f.at(cx.version) {
            return Err(Error::bad_request(format!("'{}' is a required property", f.name)));
        }
    }
    Ok(row)
}

/// The row as an update's body changes it. Rules come after.
pub fn update_row(def: &ResourceDef, cx: &Cx, old: &Map, input: &Map, now: Timestamp) -> Result<Map> {
    let mut row = old.clone();
    take(def, cx, input, &mut row, false)?;
    touch(&mut row, now);
    row.insert("request_id".into(), (&*cx.request_id).into());
    Ok(row)
}
