//! Resource tables and what interprets them without I/O.
//!
//! A resource is one annotated struct: `#[derive(Resource)]` turns it into a [`ResourceDef`], a table of constants. The code here
//! reads such a table and a JSON object; it is not generic, so a hundred resources cost a hundred small tables. Typed code appears
//! only in [`Rules`], in actions and in reconcilers.
extern crate self as resource;

mod cx;
mod def;
pub mod engine;
mod error;
mod input;
mod kind;
mod object;
mod page;
mod rules;

pub use base::Version;
pub use cx::{BASE_RULES, Cx, Query, Registry, Settings, StateMap, policy_book};
pub use def::{FieldDef, IdForm, Owner, Resource, ResourceDef};
pub use error::{Error, ErrorKind, Result};
pub use input::{create_row, update_row};
pub use kind::{FieldType, Kind};
pub use object::{Object, all, find, load, load_any, read};
pub use page::{Found, Listing, list};
pub use resource_derive::Resource;
pub use rules::{Deletion, Hooks, Rules, owned};
pub use store::{Index, Reader, Row, Table, Tx};

/// A JSON object.
pub type Map = serde_json::Map<String, serde_json::Value>;

/// For defaults in tables.
pub fn json<T: serde::Serialize>(v: T) -> serde_json::Value {
    serde_json::to_value(v).unwrap_or(serde_json::Value::Null)
}
