//! The check in front of handlers that the table does not make: a row that the caller sees, and may change.
use api::{Call, Map, Result};
use resource::{ResourceDef, engine};

/// The row that the path names, if the caller sees it; 404 otherwise.
pub(crate) fn seen(def: &ResourceDef, call: &Call) -> Result<Map> {
    let (id, reader) = (call.param("id"), call.reader());
    let row = reader.get(&def.table, id).and_then(|r| r.value().as_object().cloned());
    row.filter(|r| (def.hooks.visible)(r, &call.cx, &reader)).ok_or_else(|| engine::not_found(def, id))
}

/// As [`seen`], for who may read it as the table's own show has it; 403 otherwise.
pub(crate) fn shown(def: &ResourceDef, call: &Call) -> Result<Map> {
    let row = seen(def, call)?;
    call.require(&format!("get_{}", def.name), Some(&row))?;
    Ok(row)
}

/// The id of the row, if the caller may change it as the table's own update would; 403 otherwise.
pub(crate) fn changeable(def: &ResourceDef, call: &Call) -> Result<String> {
    let row = seen(def, call)?;
    call.require(def.rule("update").or_else(|| def.rule("delete")).unwrap_or("admin"), Some(&row))?;
    Ok(call.param("id").to_owned())
}
