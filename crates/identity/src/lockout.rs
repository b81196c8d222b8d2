//! Failed logins: counted in the store, so that all processes count together, and bounded.
//!
//! ```text
//!   none ──fails──▶ 1 … limit-1 ──fails──▶ locked ──lockout_duration──▶ the next failure is the first again
//!     ◀──a token was given, or an administrator changed the user───┘
//! ```
//! - An account that is locked is written no more, so an attacker makes at most `lockout_failure_attempts` writes of an account in a
//!   `lockout_duration`.
//! - Names that nobody has are counted too, by what they hash to among [`STRANGERS`] rows, and so are users who are exempt: they are
//!   answered alike and as late, and cost no more than so many accounts.
//! - A right password of a locked account is checked and refused in the same words.
use crate::{
    Auth,
    compliance::{self, Compliance},
    rows::{ACTIVITY, FAILURES, Rows},
};
use api::Result;
use base::Timestamp;
use resource::{Map, Reader};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use store::Row;

/// Rows that count for all names that nobody has.
const STRANGERS: u16 = 1024;

/// Whose failures are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// The id of the row; nothing where none are counted.
    row: Option<String>,
    /// The count locks nobody out: it is made for the time that it takes.
    exempt: bool,
}

/// One of the rows that many share.
fn shared(named: &str) -> Option<String> {
    let digest = Sha256::digest(named);
    let row = u16::from_be_bytes([digest[0], digest[1]]) % STRANGERS;
    Some(format!("stranger/{row}"))
}

impl Compliance {
    /// The account of a user, or of who was named and is not there.
    pub(crate) fn account(&self, user: Option<&Row>, named: &str) -> Account {
        if self.set.lockout_failure_attempts.is_none() {
            return Account { row: None, exempt: true };
        }
        match user {
            Some(user) if compliance::option(user.field("options"), "ignore_lockout_failure_attempts") => {
                Account { row: shared(user.id()), exempt: true }
            }
            Some(user) => Account { row: Some(user.id().to_owned()), exempt: false },
            None => Account { row: shared(named), exempt: false },
        }
    }

    /// Failures that count against the account, and whether they lock it.
    fn failures(&self, row: Option<&Row>, now: Timestamp) -> (u64, bool) {
        let Some(most) = self.set.lockout_failure_attempts else { return (0, false) };
        let field = |name: &str| row.and_then(|r| r.field(name).as_i64());
        let count = field("count").and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
        if count < u64::from(most) {
            return (count, false);
        }
        let since = now.since(Timestamp(field("at").unwrap_or_default()));
        let over = self.set.lockout_duration.is_some_and(|s| since >= Duration::from_secs(s));
        if over { (0, false) } else { (count, true) }
    }

    fn is_locked(&self, rows: &mut dyn Rows, account: &Account, now: Timestamp) -> bool {
        let row = account.row.as_ref().filter(|_| !account.exempt);
        row.is_some_and(|id| self.failures(rows.row(&FAILURES, id).as_deref(), now).1)
    }
}

impl Auth {
    /// Counts a failed login.
    pub(crate) async fn note_failure(&self, account: &Account) -> Result<()> {
        let Some(id) = account.row.clone() else { return Ok(()) };
        let rules = self.compliance.clone();
        let count = move |tx: &mut store::Tx<'_>| -> Result<()> {
            let (before, locked) = rules.failures(tx.get(&FAILURES, &id).as_deref(), tx.now);
            if !locked {
                tx.put(&FAILURES, &id, json!({"count": before + 1, "at": tx.now.0, "v": 1}));
            }
            Ok(())
        };
        self.db.transact(count).await?;
        Ok(())
    }

    /// Is the account locked by what is known here?
    pub(crate) fn is_locked(&self, account: &Account) -> bool {
        let reader = self.db.read();
        self.compliance.is_locked(&mut &reader, account, self.now())
    }

    /// Notes the day, where rules want it, and forgets failures if it was something that could have been guessed; false when the
    /// account was locked meanwhile. A program with a credential of its own neither opens an account nor is kept out by guesses.
    pub(crate) async fn note_login(&self, user: &Row, guessable: bool) -> Result<bool> {
        let account = Some(self.compliance.account(Some(user), "")).filter(|a| guessable && !a.exempt);
        let today = self.compliance.set.disable_user_account_days_inactive.map(|_| compliance::day(self.now()));
        let (counted, noted) = {
            let reader = self.db.read();
            let counted = account.is_some() && reader.get(&FAILURES, user.id()).is_some();
            let noted = today.is_none_or(|day| active_day(&reader, user.id()) == Some(day));
            (counted, noted)
        };
        if !counted && noted {
            return Ok(true);
        }
        let (rules, id) = (self.compliance.clone(), user.id().to_owned());
        let settle = move |tx: &mut store::Tx<'_>| -> Result<bool> {
            let now = tx.now;
            if let Some(account) = &account {
                if rules.is_locked(tx, account, now) {
                    return Ok(false);
                }
                tx.delete(&FAILURES, &id);
            }
            if let Some(day) = today.filter(|_| !noted) {
                tx.put(&ACTIVITY, &id, json!({"day": day, "v": 1}));
            }
            Ok(true)
        };
        Ok(self.db.transact(settle).await?.value)
    }

    /// Has the account ended because nobody used it?
    pub(crate) fn is_inactive(&self, user: &Map, reader: &Reader<'_>) -> bool {
        if self.compliance.set.disable_user_account_days_inactive.is_none() {
            return false;
        }
        let id = user.get("id").and_then(Value::as_str).unwrap_or_default();
        self.compliance.is_inactive(user, active_day(reader, id), self.now())
    }
}

fn active_day(reader: &Reader<'_>, user: &str) -> Option<i64> {
    reader.get(&ACTIVITY, user).and_then(|r| r.field("day").as_i64())
}

/// What an administrator's change of an enabled user does: it is as if the user had logged in.
pub(crate) fn reopen(tx: &mut store::Tx<'_>, auth: &Auth, user: &str) {
    tx.delete(&FAILURES, user);
    if auth.compliance.set.disable_user_account_days_inactive.is_some() {
        tx.put(&ACTIVITY, user, json!({"day": compliance::day(tx.now), "v": 1}));
    }
}
