//! Volume types as volumes use them: found by id or name, the defaults, and whether one may go.
use crate::{
    common::own_or_open,
    resources::{Volume, VolumeType, volume_type::DEFAULT},
};
use api::{Cx, Error, Result};
use resource::{Object, Resource as _, Tx};
use serde_json::json;
use store::{Db, Table};

/// The type that volumes of a project get when they name none, by project.
pub(crate) static DEFAULTS: Table = Table { name: "volume/default_types", indexes: &[] };
/// Id of the type `__DEFAULT__`, the same in every cloud.
pub(crate) const DEFAULT_ID: &str = "2ea9d9a0-2a5f-4f63-8a3b-6f3a0b8d4c11";

/// The type with that id or name that the caller may use, or 404.
pub(crate) fn find(tx: &mut Tx<'_>, cx: &Cx, wanted: &str) -> Result<Object<VolumeType>> {
    let missing = || Error::not_found(format!("Volume type {wanted} could not be found."));
    let by_id: Option<Object<VolumeType>> = resource::load(tx, wanted)?;
    let found = match by_id {
        Some(kind) => Some(kind),
        None => {
            let named = tx.all(&VolumeType::DEF.table).into_iter().find(|r| r.text("name") == wanted);
            // Read again, so that it is compared at the commit.
            named.map(|row| resource::load(tx, row.id())).transpose()?.flatten()
        }
    };
    found.filter(|kind| own_or_open(cx, kind)).ok_or_else(missing)
}

/// The type of volumes that name none.
pub(crate) fn default_of(tx: &mut Tx<'_>, cx: &Cx, project: &str) -> Result<Object<VolumeType>> {
    if let Some(row) = tx.get(&DEFAULTS, project)
        && let Some(kind) = resource::load::<VolumeType>(tx, row.text("volume_type_id"))?
        && own_or_open(cx, &kind)
    {
        return Ok(kind);
    }
    resource::load(tx, DEFAULT_ID)?.ok_or_else(|| Error::internal("the default volume type is missing"))
}

/// A type that volumes have, or that projects get by default, stays.
pub(crate) fn check_unused(kind: &Object<VolumeType>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
    if kind.id == DEFAULT_ID {
        return Err(Error::bad_request("The default volume type cannot be deleted; it is for volumes that name none."));
    }
    if !tx.children(&Volume::DEF.table, "volume_type_id", &kind.id).is_empty() {
        return Err(Error::bad_request(format!(
            "Target volume type is still in use: volume type {} is that of volumes; retype or delete them first.",
            kind.id
        )));
    }
    let defaults = tx.all(&DEFAULTS);
    if defaults.iter().any(|row| row.text("volume_type_id") == kind.id) {
        return Err(Error::bad_request(format!(
            "Volume type {} is the default of a project; unset that in default-types first.",
            kind.id
        )));
    }
    Ok(())
}

/// Makes what the service needs before its first request: the default type.
pub async fn bootstrap(db: &Db) -> Result<()> {
    db.transact(|tx| {
        if tx.get(&VolumeType::DEF.table, DEFAULT_ID).is_some() {
            return Ok(());
        }
        let body = VolumeType {
            name: DEFAULT.to_owned(),
            description: Some("Default Volume Type".to_owned()),
            is_public: true,
            ..VolumeType::default()
        };
        let kind = Object::new(DEFAULT_ID, None, body, tx.now, "bootstrap");
        // As the engine claims unique names.
        let name = format!("{}:name:{}", VolumeType::DEF.table.name, json!([DEFAULT]));
        tx.claim(&resource::engine::UNIQUE, &name, json!({ "id": DEFAULT_ID })).ok();
        tx.put(&VolumeType::DEF.table, DEFAULT_ID, kind.into_map()?.into());
        Ok::<(), Error>(())
    })
    .await?;
    Ok(())
}
