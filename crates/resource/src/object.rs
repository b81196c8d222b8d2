//! A row as its type, with what every row has besides.
use crate::{Error, Map, Reader, Resource, Result, Row, Tx};
use base::Timestamp;
use serde_json::Value;
use std::ops::{Deref, DerefMut};

/// A typed row. Fields of the type are reached directly; everything else in the row is kept as it is.
#[derive(Clone, Debug)]
pub struct Object<T> {
    pub id: String,
    pub body: T,
    /// The whole row as stored; `body` is written over it by [`Object::into_map`].
    pub map: Map,
}

impl<T> Deref for Object<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.body
    }
}
impl<T> DerefMut for Object<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.body
    }
}

impl<T: Resource> Object<T> {
    pub fn from_map(map: Map) -> Result<Self> {
        let value = Value::Object(map);
        let body = T::deserialize(&value).map_err(|e| Error::internal(format!("{}: {e}", T::DEF.table.name)))?;
        let Value::Object(map) = value else { return Err(Error::internal("a row is an object")) };
        let id = map.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self { id, body, map })
    }

    pub fn from_row(row: &Row) -> Result<Self> {
        let Value::Object(map) = row.value() else { return Err(Error::internal(format!("row {} is not an object", row.key))) };
        Self::from_map(map.clone())
    }

    /// A new row outside of the engine, made by a rule or an action. Sets what every row has.
    pub fn new(id: impl Into<String>, project_id: Option<&str>, body: T, now: Timestamp, request_id: &str) -> Self {
        let id = id.into();
        let mut map = Map::new();
        crate::input::stamp(&mut map, &id, project_id, now, request_id);
        Self { id, body, map }
    }

    /// The stored form.
    pub fn into_map(self) -> Result<Map> {
        Self::merged(self.map, &self.body)
    }

    fn merged(mut map: Map, body: &T) -> Result<Map> {
        match serde_json::to_value(body) {
            Ok(Value::Object(body)) => map.extend(body),
            Ok(_) | Err(_) => return Err(Error::internal(format!("{} is not an object", T::DEF.name))),
        }
        Ok(map)
    }

    pub fn project_id(&self) -> &str {
        self.map.get("project_id").and_then(Value::as_str).unwrap_or_default()
    }
    pub fn created_at(&self) -> Timestamp {
        Timestamp(self.map.get("created_at").and_then(Value::as_i64).unwrap_or_default())
    }
    pub fn updated_at(&self) -> Option<Timestamp> {
        self.map.get("updated_at").and_then(Value::as_i64).map(Timestamp)
    }
    /// Counts the changes of this row (Neutron's `revision_number`).
    pub fn revision(&self) -> u64 {
        self.map.get("revision").and_then(Value::as_u64).unwrap_or_default()
    }
    /// Is it being deleted?
    pub fn deleting(&self) -> bool {
        self.map.get("deleting").and_then(Value::as_bool).unwrap_or_default()
    }
    pub fn request_id(&self) -> &str {
        self.map.get("request_id").and_then(Value::as_str).unwrap_or_default()
    }

    /// Writes the row as changed now.
    pub fn save(&self, tx: &mut Tx<'_>) -> Result<()> {
        let mut map = Self::merged(self.map.clone(), &self.body)?;
        crate::input::touch(&mut map, tx.now);
        tx.put(&T::DEF.table, &self.id, Value::Object(map));
        Ok(())
    }
    /// Marks the row as being deleted; a reconciler removes it when the world is clean.
    pub fn mark_deleting(&mut self) {
        self.map.insert("deleting".into(), true.into());
    }
}

/// The row in a transaction; it is compared at the commit.
pub fn load<T: Resource>(tx: &mut Tx<'_>, id: &str) -> Result<Option<Object<T>>> {
    Ok(load_any(tx, id)?.filter(|o: &Object<T>| !o.deleting()))
}

/// As [`load`], also when it is being deleted.
pub fn load_any<T: Resource>(tx: &mut Tx<'_>, id: &str) -> Result<Option<Object<T>>> {
    tx.get(&T::DEF.table, id).map(|r| Object::from_row(&r)).transpose()
}

/// Rows of an index in a transaction. Advisory: see [`Tx::find`].
pub fn find<T: Resource>(tx: &Tx<'_>, index: &str, value: &str) -> Result<Vec<Object<T>>> {
    tx.find(&T::DEF.table, index, value).iter().map(|r| Object::from_row(r)).collect()
}

/// The row in the view.
pub fn read<T: Resource>(reader: &Reader<'_>, id: &str) -> Result<Option<Object<T>>> {
    reader.get(&T::DEF.table, id).map(|r| Object::from_row(&r)).transpose()
}

/// Rows of an index in the view.
pub fn all<T: Resource>(reader: &Reader<'_>, index: &str, value: &str) -> Result<Vec<Object<T>>> {
    reader.find(&T::DEF.table, index, value).iter().map(|r| Object::from_row(r)).collect()
}
