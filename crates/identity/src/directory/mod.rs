//! Users and groups of a domain from an LDAP directory, which is only read (Keystone's `ldap` identity driver).
//!
//! A domain whose configuration says `[identity] driver = ldap` has its users and groups in a directory. Whoever lists, shows or logs
//! in such a user asks the directory; what it said is kept as rows ([`mirror`]), and everything else judges by those.
//!
//! - Passwords are never kept: each login is a bind.
//! - A directory that does not answer costs its own domain's requests a few seconds and a 503, nobody else anything. Tokens
//!   that were given before stay good until they end.
//! - While a token of a user is used, the user is read again about once a minute ([`Directories::notice`]): somebody who is disabled,
//!   gone, or out of a group is so here after that.
mod connections;
mod entry;
mod lookup;
mod mirror;
mod options;
mod text;

pub(crate) use mirror::{is_gone, public_id};

use crate::{
    resources::{GROUP, USER},
    rows::{self, DOMAIN_CONFIGS, from_directory},
};
use api::{Error, Result};
use auth::{LiveKeys, SecretBox};
use connections::{Fault, Found};
use entry::Person;
use lookup::Directory;
use mirror::Mirrored;
use options::Options;
use resource::ResourceDef;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use store::{Db, Revision, Row, Tx};
use zeroize::Zeroizing;

/// What Keystone says to every write.
pub(crate) const READ_ONLY: &str = "LDAP does not support write operations";
/// How long what is known of a user whose token is used may be old.
const FRESH: Duration = Duration::from_secs(60);
/// Users of whom it is known when they were read.
const KNOWN: usize = 100_000;
/// Rows of one transaction.
const BATCH: usize = 20;

/// Whose password a domain's configuration holds, for the box of secrets.
fn owner(domain_id: &str) -> String {
    format!("domain_config/{domain_id}/ldap/password")
}

/// Puts the password of a configuration out of sight.
pub(crate) fn seal(config: &mut Value, domain_id: &str, secrets: &SecretBox) {
    if let Some(password) = config.pointer_mut("/ldap/password")
        && let Some(text) = password.as_str()
    {
        *password = json!({"sealed": secrets.seal(&owner(domain_id), text.as_bytes())});
    }
}

fn unseal(config: &Value, domain_id: &str, secrets: &SecretBox) -> Result<Zeroizing<String>, Fault> {
    match config.pointer("/ldap/password") {
        // A row of before they were sealed.
        Some(Value::String(text)) => Ok(Zeroizing::new(text.clone())),
        Some(Value::Object(map)) => {
            let sealed = map.get("sealed").and_then(Value::as_str).unwrap_or_default();
            let opened = secrets.open(&owner(domain_id), sealed).map_err(|_| Fault::Sealed)?;
            String::from_utf8(opened.to_vec()).map(Zeroizing::new).map_err(|_| Fault::Sealed)
        }
        _ => Ok(Zeroizing::default()),
    }
}

/// A directory as it was opened from a configuration.
type Opened = (Revision, Result<Arc<Directory>, Arc<Fault>>);

/// The directories of all domains. Memory only: connections, and when somebody was last read.
pub(crate) struct Directories {
    db: Db,
    secrets: Arc<LiveKeys>,
    open: Mutex<HashMap<String, Opened>>,
    seen: Mutex<HashMap<String, Instant>>,
}

fn unavailable(domain_id: &str, fault: &Fault) -> Error {
    let text = format!("The directory of domain {domain_id} cannot be asked right now; try again, or tell whoever runs it.");
    Error::unavailable(text).context(base::chain(fault))
}

impl Directories {
    pub(crate) fn new(db: Db, secrets: Arc<LiveKeys>) -> Arc<Self> {
        Arc::new(Self { db, secrets, open: Mutex::default(), seen: Mutex::default() })
    }

    /// The directory of a domain, if it has one.
    fn of(&self, domain_id: &str) -> Result<Option<Arc<Directory>>> {
        let row = self.db.read().get(&DOMAIN_CONFIGS, domain_id);
        let Some(row) = row.filter(|r| rows::is_directory_config(r)) else { return Ok(None) };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = match open.get(domain_id) {
            Some((revision, opened)) if *revision == row.modified => opened.clone(),
            _ => {
                let opened = self.open(domain_id, row.field("config")).map(Arc::new).map_err(Arc::new);
                open.insert(domain_id.to_owned(), (row.modified, opened.clone()));
                opened
            }
        };
        opened.map(Some).map_err(|fault| unavailable(domain_id, &fault))
    }
    fn open(&self, domain_id: &str, config: &Value) -> Result<Directory, Fault> {
        let password = unseal(config, domain_id, &SecretBox::new(self.secrets.ring().as_ref().clone()))?;
        Ok(Directory::new(Options::of(config, password)?))
    }

    async fn write(&self, mut work: impl FnMut(&mut Tx<'_>) + Send + 'static) -> Result<()> {
        self.db
            .transact(move |tx| {
                work(tx);
                Ok::<(), Error>(())
            })
            .await?;
        Ok(())
    }

    /// Writes what is not yet in the rows, some at a time.
    async fn keep(&self, all: Vec<Mirrored>) -> Result<()> {
        let new: Vec<Arc<Mirrored>> = {
            let reader = self.db.read();
            all.into_iter().filter(|m| !m.is_in(&reader)).map(Arc::new).collect()
        };
        for batch in new.chunks(BATCH) {
            let batch = batch.to_vec();
            self.write(move |tx| batch.iter().for_each(|m| m.put(tx))).await?;
        }
        Ok(())
    }

    /// After a list of everybody: who is not in it is gone.
    async fn forget_others(&self, def: &'static ResourceDef, domain_id: &str, seen: Vec<String>) -> Result<()> {
        let gone: Vec<String> = {
            let reader = self.db.read();
            let known = reader.find(&def.table, "domain_id", domain_id);
            let missing = |r: &&Arc<Row>| from_directory(r) && !is_gone(r) && !seen.iter().any(|id| id == r.id());
            known.iter().filter(missing).map(|r| r.id().to_owned()).collect()
        };
        for batch in gone.chunks(BATCH) {
            let batch = batch.to_vec();
            self.write(move |tx| batch.iter().for_each(|id| mirror::gone(tx, def, id))).await?;
        }
        Ok(())
    }

    /// Reads a domain's users or groups into rows, all or those with a name. False when the domain has no directory.
    pub(crate) async fn list(&self, def: &'static ResourceDef, domain_id: &str, name: Option<&str>) -> Result<bool> {
        let Some(directory) = self.of(domain_id)? else { return Ok(false) };
        let fault = |f: Fault| unavailable(domain_id, &f);
        let found: Found<Mirrored> = if def.name == "user" {
            let found = directory.users(name).await.map_err(fault)?;
            Found { all: found.all.iter().map(|p| mirror::user(domain_id, p)).collect(), complete: found.complete }
        } else {
            let found = directory.groups(name).await.map_err(fault)?;
            Found { all: found.all.iter().map(|c| mirror::group(domain_id, c)).collect(), complete: found.complete }
        };
        let seen: Vec<String> = found.all.iter().map(|m| m.id.clone()).collect();
        self.keep(found.all).await?;
        if found.complete && name.is_none() {
            self.forget_others(def, domain_id, seen).await?;
        }
        Ok(true)
    }

    /// The directory of a row and the row's id there; nothing for rows that are our own.
    fn place(&self, def: &ResourceDef, id: &str) -> Result<Option<(Arc<Directory>, String, String)>> {
        let Some(row) = self.db.read().get(&def.table, id).filter(|r| from_directory(r)) else { return Ok(None) };
        let domain = row.text("domain_id").to_owned();
        let local = row.field("directory")["id"].as_str().unwrap_or_default().to_owned();
        Ok(self.of(&domain)?.map(|directory| (directory, domain, local)))
    }

    /// Reads one user, with groups, or one group again. Rows that are our own need nothing.
    pub(crate) async fn refresh(&self, def: &'static ResourceDef, id: &str) -> Result<()> {
        let Some((directory, domain, local)) = self.place(def, id)? else { return Ok(()) };
        let fault = |f: Fault| unavailable(&domain, &f);
        let seen = if def.name == "user" {
            match directory.user(&local).await.map_err(fault)? {
                Some(person) => self.keep_user(&directory, &domain, &person).await.map(Some)?,
                None => None,
            }
        } else {
            let circle = directory.group(&local).await.map_err(fault)?;
            let mirrored = circle.map(|c| mirror::group(&domain, &c));
            match mirrored {
                Some(mirrored) => {
                    let id = mirrored.id.clone();
                    self.keep(vec![mirrored]).await?;
                    Some(id)
                }
                None => None,
            }
        };
        if seen.is_none() {
            let id = id.to_owned();
            self.write(move |tx| mirror::gone(tx, def, &id)).await?;
        }
        Ok(())
    }

    /// A user's row and groups; gives the id.
    async fn keep_user(&self, directory: &Directory, domain_id: &str, person: &Person) -> Result<String> {
        let groups = directory.groups_of(person).await.map_err(|f| unavailable(domain_id, &f))?;
        let groups: Vec<Mirrored> = groups.iter().map(|c| mirror::group(domain_id, c)).collect();
        let user = mirror::user(domain_id, person);
        let (id, ids) = (user.id.clone(), groups.iter().map(|g| g.id.clone()).collect::<Vec<_>>());
        self.keep(groups).await?;
        self.belong(user, ids).await?;
        self.note(&id);
        Ok(id)
    }

    /// Writes a row and its memberships, if anything is new.
    async fn belong(&self, of: Mirrored, others: Vec<String>) -> Result<()> {
        let same = {
            let reader = self.db.read();
            let have = match of.def.name {
                "user" => crate::grants::groups_of(&mut &reader, &of.id, self.db.now()),
                _ => crate::grants::members_of(&mut &reader, &of.id, self.db.now()),
            };
            of.is_in(&reader) && have.len() == others.len() && others.iter().all(|o| have.contains(o))
        };
        if same {
            return Ok(());
        }
        self.write(move |tx| {
            of.put(tx);
            mirror::set_members(tx, &of, &others);
        })
        .await
    }

    /// Reads who is in a group.
    pub(crate) async fn members(&self, group_id: &str) -> Result<()> {
        let Some((directory, domain, local)) = self.place(GROUP, group_id)? else { return Ok(()) };
        let fault = |f: Fault| unavailable(&domain, &f);
        let Some(circle) = directory.group(&local).await.map_err(fault)? else {
            return self.refresh(GROUP, group_id).await;
        };
        let people = directory.members_of(&circle).await.map_err(fault)?;
        let users: Vec<Mirrored> = people.iter().map(|p| mirror::user(&domain, p)).collect();
        let ids = users.iter().map(|u| u.id.clone()).collect();
        self.keep(users).await?;
        self.belong(mirror::group(&domain, &circle), ids).await
    }

    /// The id of the user whose password it is; `None` when it is nobody's. `Ok(None)` outside: the domain has no directory.
    pub(crate) async fn login(&self, domain_id: &str, who: Who<'_>, password: &str) -> Result<Option<Option<String>>> {
        let Some(directory) = self.of(domain_id)? else { return Ok(None) };
        let fault = |f: Fault| unavailable(domain_id, &f);
        let person = match who {
            Who::Name(name) => directory.user_by_name(name).await.map_err(fault)?,
            Who::Id(id) => match self.place(USER, id)? {
                Some((_, _, local)) => directory.user(&local).await.map_err(fault)?,
                None => None,
            },
        };
        let admitted = directory.admits(person.as_ref(), password).await.map_err(fault)?;
        match person.filter(|_| admitted) {
            Some(person) => Ok(Some(Some(self.keep_user(&directory, domain_id, &person).await?))),
            None => Ok(Some(None)),
        }
    }

    fn note(&self, id: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= KNOWN {
            seen.retain(|_, at| at.elapsed() < FRESH);
        }
        seen.insert(id.to_owned(), Instant::now());
    }

    /// A token of a user is used: the user is read again when that was some time ago. Nobody waits for it.
    pub(crate) fn notice(self: &Arc<Self>, user: &Row) {
        if !from_directory(user) {
            return;
        }
        let old = |at: &Instant| at.elapsed() >= FRESH;
        if !self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(user.id()).is_none_or(old) {
            return;
        }
        self.note(user.id());
        let (this, id) = (self.clone(), user.id().to_owned());
        tokio::spawn(async move {
            if let Err(e) = this.refresh(USER, &id).await {
                let why = e.context.as_deref().unwrap_or(&e.message);
                tracing::warn!(user = %id, why, "A user of a directory could not be read again; its tokens stay good until they end");
            }
        });
    }
}

/// A user by name, or by the id that we gave.
#[derive(Clone, Copy)]
pub(crate) enum Who<'a> {
    Id(&'a str),
    Name(&'a str),
}
