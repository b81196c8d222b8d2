//! The policy in force: the rules that tables and routes name, and what the operator has put above them.
//!
//! The operator's file is one row of the store, so every process of the cloud has it from the moment it is committed, and none has
//! another. It is checked whole before it is taken; a rule that a later version of Drover cannot follow any more holds for nobody.
use auth::{Error, PolicyBook};
use resource::{Reader, policy_book};
use std::sync::{Arc, PoisonError, RwLock};
use store::{Revision, Table};

/// The operator's file under [`FILE`]: `text`, `set_by`, `set_at`.
pub static OVERRIDES: Table = Table { name: "core/policy", indexes: &[] };
/// The id of its only row.
pub const FILE: &str = "file";
/// Who may change the rules; never out of reach of whoever changes them.
pub const MAY_CHANGE: &str = "operator:policy";

/// See the module. Cheap to ask.
pub struct Policy {
    defaults: Vec<(&'static str, &'static str)>,
    /// Above the defaults and below the operator's file.
    given: Vec<(String, String)>,
    current: RwLock<Arc<InForce>>,
}

/// The rules at a revision of the file.
#[derive(Debug, Default)]
pub struct InForce {
    at: Option<Revision>,
    pub book: Arc<PolicyBook>,
    /// Rules of the file that cannot be followed, and why.
    pub broken: Vec<(String, String)>,
}

impl Policy {
    /// `defaults` as [`crate::rules`] has them; `given` are overrides that the process was started with.
    pub fn new(defaults: Vec<(&'static str, &'static str)>, given: Vec<(String, String)>) -> Result<Self, Error> {
        let book = policy_book(defaults.clone(), given.clone())?;
        let current = InForce { at: None, book: Arc::new(book), broken: Vec::new() };
        Ok(Self { defaults, given, current: RwLock::new(Arc::new(current)) })
    }

    /// The rules by the rows as they are.
    pub fn in_force(&self, reader: &Reader<'_>) -> Arc<InForce> {
        let at = Some(reader.modified(&[&OVERRIDES]));
        let known = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if known.at == at {
            return known;
        }
        let text = reader.get(&OVERRIDES, FILE).map(|row| row.text("text").to_owned());
        let (book, broken) = self.as_far_as_possible(text.as_deref().unwrap_or_default());
        for (name, why) in &broken {
            tracing::error!(
                rule = name,
                why,
                "A rule of the operator's policy cannot be followed and holds for nobody; load a corrected file with: drover policy load"
            );
        }
        let now = Arc::new(InForce { at, book: Arc::new(book), broken });
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = now.clone();
        now
    }

    /// The rules with a file that is not yet in force; fails with what is wrong with it.
    pub fn with_file(&self, text: &str) -> Result<PolicyBook, Error> {
        self.with(auth::policy::parse_overrides(text)?)
    }

    fn with(&self, overrides: Vec<(String, String)>) -> Result<PolicyBook, Error> {
        policy_book(self.defaults.clone(), self.given.iter().cloned().chain(overrides).collect())
    }

    /// As [`Self::with_file`]; whatever cannot be followed is closed, not left out.
    fn as_far_as_possible(&self, text: &str) -> (PolicyBook, Vec<(String, String)>) {
        let mut broken: Vec<(String, String)> = Vec::new();
        let mut overrides = match auth::policy::parse_overrides(text) {
            Ok(overrides) => overrides,
            Err(e) => {
                // Nobody knows which rules it meant: only who mends it gets in.
                broken.push((FILE.to_owned(), base::chain(&e)));
                let closed =
                    |(name, _): &(&str, &str)| (*name != MAY_CHANGE).then(|| ((*name).to_owned(), "role:admin".to_owned()));
                self.defaults.iter().filter_map(closed).collect()
            }
        };
        loop {
            match self.with(overrides.clone()) {
                Ok(book) => return (book, broken),
                Err(e) => {
                    let name = e.rule().unwrap_or_default().to_owned();
                    if broken.iter().any(|(n, _)| *n == name) {
                        return (PolicyBook::default(), broken);
                    }
                    broken.push((name.clone(), base::chain(&e)));
                    overrides.retain(|(n, _)| *n != name);
                    overrides.push((name, "!".to_owned()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use auth::{Subject, policy::no_target};

    const DEFAULTS: [(&str, &str); 3] = [("get_thing", "reader"), ("make_thing", "member"), (MAY_CHANGE, "admin")];

    fn may(book: &PolicyBook, name: &str, role: &str) -> bool {
        book.allows(name, &Subject { roles: &[role.to_owned()], ..Subject::default() }, &no_target)
    }

    #[test]
    fn a_file_is_above_the_defaults() {
        let policy = Policy::new(DEFAULTS.to_vec(), vec![("make_thing".into(), "role:maker".into())]).unwrap();
        let book = policy.with_file("\"get_thing\": \"role:seer\"").unwrap();
        assert!(may(&book, "get_thing", "seer") && may(&book, "make_thing", "maker") && !may(&book, "get_thing", "reader"));
        assert!(policy.with_file("\"get_thing\": \"rule:nothing\"").is_err());
    }

    #[test]
    fn what_cannot_be_followed_holds_for_nobody() {
        let policy = Policy::new(DEFAULTS.to_vec(), Vec::new()).unwrap();
        let (book, broken) = policy.as_far_as_possible("\"get_thing\": \"rule:gone\"\n\"make_thing\": \"role:maker\"\n");
        assert_eq!(broken.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["get_thing"]);
        assert!(!may(&book, "get_thing", "reader") && !may(&book, "get_thing", "admin") && may(&book, "make_thing", "maker"));
        let (book, _) = policy.as_far_as_possible("\"a\": \"rule:b\"\n\"b\": \"rule:a\"\n\"get_thing\": \"(((\"");
        assert!(!may(&book, "get_thing", "reader") && may(&book, "make_thing", "member"));
        let (book, broken) = policy.as_far_as_possible("no policy at all");
        assert_eq!(broken.len(), 1);
        assert!(!may(&book, "get_thing", "reader") && may(&book, MAY_CHANGE, "admin") && may(&book, "get_thing", "admin"));
    }
}
