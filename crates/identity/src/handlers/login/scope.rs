//! What a login asks its token to be for (Keystone api-ref, `scope` of `POST /v3/auth/tokens`).
use super::super::{need_object, need_text};
use crate::{resources::PROJECT, rows};
use api::{Error, Map, Result};
use serde_json::Value;
use store::Reader;

/// What the body asks the token to be for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing was said: the user's default project, if it can be used.
    Usual,
    Unscoped,
    Project(Named),
    Domain(Named),
    System,
    Trust(String),
}

/// Something by its id, or by its name in a domain.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    Id(String),
    Name(String, Option<Box<Named>>),
}

impl Named {
    pub(super) fn domain(map: &Map) -> Result<Self> {
        if map.contains_key("id") {
            return Ok(Self::Id(need_text(map, "id")?.to_owned()));
        }
        Ok(Self::Name(need_text(map, "name")?.to_owned(), None))
    }
    pub(super) fn inside(map: &Map) -> Result<Self> {
        if map.contains_key("id") {
            return Ok(Self::Id(need_text(map, "id")?.to_owned()));
        }
        let name = need_text(map, "name")?.to_owned();
        Ok(Self::Name(name, Some(Box::new(Self::domain(need_object(map, "domain")?)?))))
    }
    /// The id; a name that nothing has gives none.
    pub(super) fn id(&self, reader: &Reader<'_>, table: &store::Table) -> Option<String> {
        match self {
            Self::Id(id) => Some(id.clone()),
            Self::Name(name, domain) => {
                let domain = match domain {
                    Some(domain) => Some(domain.id(reader, &PROJECT.table)?),
                    None => None,
                };
                rows::by_name(&mut &*reader, table, domain.as_deref(), name)
            }
        }
    }
}

/// Reads a `scope`.
pub(super) fn wanted(scope: Option<&Value>) -> Result<Wanted> {
    let map = match scope {
        None => return Ok(Wanted::Usual),
        Some(Value::String(s)) if s == "unscoped" => return Ok(Wanted::Unscoped),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(Error::bad_request("Invalid input for field 'scope': it is not an object.")),
    };
    let known = ["project", "domain", "system", "OS-TRUST:trust", "unscoped"];
    let asked: Vec<&str> = known.into_iter().filter(|k| map.contains_key(*k)).collect();
    match asked[..] {
        [] => Ok(Wanted::Usual),
        ["unscoped"] => Ok(Wanted::Unscoped),
        ["project"] => Ok(Wanted::Project(Named::inside(need_object(map, "project")?)?)),
        ["domain"] => Ok(Wanted::Domain(Named::domain(need_object(map, "domain")?)?)),
        ["system"] if need_object(map, "system")?.get("all") == Some(&Value::Bool(true)) => Ok(Wanted::System),
        ["OS-TRUST:trust"] => Ok(Wanted::Trust(need_text(need_object(map, "OS-TRUST:trust")?, "id")?.to_owned())),
        _ => Err(Error::bad_request("The scope must name one project, domain, trust, or the system ({\"all\": true}).")),
    }
}
