//! Who somebody would be with a token for a scope: for operators who ask why, without anybody logging in.
use crate::{
    Auth,
    authenticator::caller,
    resources::{PROJECT, USER},
    rows::{self, Rows as _, flag},
    standing,
};
use api::{Error, Result, Supposed};
use auth::{Caller, Method, Methods, Token, TokenScope};
use std::{sync::Arc, time::Duration};
use store::{Reader, Table};

/// The id of what is named by its id or, in a domain, by its name.
fn find(mut reader: &Reader<'_>, what: &str, table: &Table, text: &str, domain: Option<&str>) -> Result<String> {
    if let Some(row) = reader.row(table, text) {
        return Ok(row.id().to_owned());
    }
    let named = rows::by_name(&mut reader, table, domain, text);
    named.ok_or_else(|| Error::not_found(format!("There is no {what} {text}; give its id, or its name and its domain.")))
}

/// The id of the domain that is named, or the usual one.
fn domain(mut reader: &Reader<'_>, text: Option<&str>) -> Result<String> {
    let Some(text) = text else { return Ok("default".to_owned()) };
    let id = find(reader, "domain", &PROJECT.table, text, None)?;
    match reader.row(&PROJECT.table, &id).filter(|r| flag(r, "is_domain")) {
        Some(_) => Ok(id),
        None => Err(Error::not_found(format!("There is no domain {text}."))),
    }
}

impl Auth {
    pub(crate) fn suppose_rows(&self, who: &Supposed) -> Result<Arc<Caller>> {
        let reader = self.db.read();
        let home = domain(&reader, who.user_domain.as_deref())?;
        let user = find(&reader, "user", &USER.table, &who.user, Some(&home))?;
        let scope = match (&who.project, &who.domain, who.system) {
            (None, None, false) => TokenScope::Unscoped,
            (Some(project), None, false) => {
                let home = domain(&reader, who.project_domain.as_deref())?;
                TokenScope::Project(find(&reader, "project", &PROJECT.table, project, Some(&home))?.into())
            }
            (None, Some(named), false) => TokenScope::Domain(domain(&reader, Some(named))?.into()),
            (None, None, true) => TokenScope::System,
            _ => return Err(Error::bad_request("A token is for one of a project, a domain, and the system; name one of them.")),
        };
        let mut token = Token::new(user, Methods::default().with(Method::Password), self.now(), Duration::from_secs(1));
        // It has not been taken back, whatever was before.
        token.issued_at.0 = i64::MAX;
        token.scope = scope;
        let standing = standing::of(&mut &reader, &token, self.now())
            .map_err(|why| Error::conflict(format!("{} would get no such token: {why}.", who.user)))?;
        Ok(Arc::new(caller(&token, &standing, [0; 32])))
    }
}
