//! Rules for passwords and accounts: Keystone's `[security_compliance]`, under its names and with its defaults.
//!
//! [`SecurityCompliance`] is what the operator writes; [`Compliance`] is the same, checked, and decides. It is pure: whose password it
//! is and what time it is are told. Failed logins are counted by [`crate::lockout`].
use auth::Error;
use base::Timestamp;
use resource::Map;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

mod pattern;
use pattern::Pattern;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Passwords that a user's row keeps at most; it is to stay short.
const MOST_PASSWORDS: usize = 24;

/// What operators set; every option is off, or as Keystone has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityCompliance {
    /// Days until a new password must be changed.
    pub password_expires_days: Option<u32>,
    /// A password that an administrator has set is expired at once.
    pub change_password_upon_first_use: bool,
    /// Days that a password which a user has set must be kept.
    pub minimum_password_age: u32,
    /// A new password is none of the last so many, the one in use among them; 0 allows all.
    pub unique_last_password_count: usize,
    /// A new password fits this.
    pub password_regex: Option<String>,
    /// The same for people.
    pub password_regex_description: Option<String>,
    /// Failed logins in a row that lock an account.
    pub lockout_failure_attempts: Option<u32>,
    /// Seconds that it stays locked; `None` is until an administrator changes the user.
    pub lockout_duration: Option<u64>,
    /// Days without a login that disable an account.
    pub disable_user_account_days_inactive: Option<u32>,
}

impl Default for SecurityCompliance {
    fn default() -> Self {
        Self {
            password_expires_days: None,
            change_password_upon_first_use: false,
            minimum_password_age: 0,
            unique_last_password_count: 0,
            password_regex: None,
            password_regex_description: None,
            lockout_failure_attempts: None,
            lockout_duration: Some(1800),
            disable_user_account_days_inactive: None,
        }
    }
}

impl SecurityCompliance {
    /// Fails when the rules cannot be followed.
    pub fn check(&self) -> Result<(), Error> {
        Compliance::new(self.clone()).map(|_| ())
    }
}

/// Who sets a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetBy {
    Administrator,
    User,
}

/// Rules that can be followed.
#[derive(Debug, Default)]
pub(crate) struct Compliance {
    pub(crate) set: SecurityCompliance,
    pattern: Option<Pattern>,
}

/// Is an option of the user on?
pub(crate) fn option(options: &Value, name: &str) -> bool {
    options.get(name) == Some(&Value::Bool(true))
}

impl Compliance {
    pub(crate) fn new(set: SecurityCompliance) -> Result<Self, Error> {
        let wrong = |option: &'static str, problem: &str| Error::Compliance { option, problem: problem.to_owned() };
        for (option, value) in [
            ("password_expires_days", set.password_expires_days),
            ("lockout_failure_attempts", set.lockout_failure_attempts),
            ("disable_user_account_days_inactive", set.disable_user_account_days_inactive),
        ] {
            if value == Some(0) {
                return Err(wrong(option, "is 0; leave it out to turn it off"));
            }
        }
        if set.lockout_duration == Some(0) {
            return Err(wrong("lockout_duration", "is 0; give seconds, or null to lock until an administrator changes the user"));
        }
        if set.unique_last_password_count > MOST_PASSWORDS {
            return Err(wrong(
                "unique_last_password_count",
                &format!("is too many; at most {MOST_PASSWORDS} passwords are kept"),
            ));
        }
        if set.password_expires_days.is_some_and(|days| set.minimum_password_age >= days) {
            return Err(wrong(
                "minimum_password_age",
                "is not less than password_expires_days; nobody could change a password in time",
            ));
        }
        let pattern = match &set.password_regex {
            Some(text) => Some(Pattern::parse(text).map_err(|problem| wrong("password_regex", &problem))?),
            None => None,
        };
        Ok(Self { set, pattern })
    }

    /// Why a password will not do, if so.
    pub(crate) fn weakness(&self, password: &str) -> Option<String> {
        if self.pattern.as_ref().is_none_or(|p| p.fits(password)) {
            return None;
        }
        let why =
            self.set.password_regex_description.as_deref().unwrap_or("it does not fit the pattern that the operator has set");
        Some(format!("The password does not match the requirements: {why}."))
    }

    /// Puts a new hash into a user's row, with all that follows from it; null takes the password away.
    pub(crate) fn set_password(&self, row: &mut Map, hash: Value, by: SetBy, now: Timestamp) {
        let before = row.insert("password_hash".into(), hash.clone()).filter(Value::is_string);
        let kept = self.set.unique_last_password_count.saturating_sub(1);
        let older = row.get("previous_hashes").and_then(Value::as_array).cloned().unwrap_or_default();
        let previous: Vec<Value> = before.into_iter().chain(older).take(kept).collect();
        row.insert("previous_hashes".into(), if previous.is_empty() { Value::Null } else { previous.into() });
        let expires = if hash.is_null() { None } else { self.expiry(row.get("options").unwrap_or(&Value::Null), by, now) };
        row.insert("password_expires_at".into(), json!(expires.map(|at| at.0)));
        row.insert("password_created_at".into(), now.0.into());
        row.insert("password_set_by_user".into(), (by == SetBy::User).into());
    }

    fn expiry(&self, options: &Value, by: SetBy, now: Timestamp) -> Option<Timestamp> {
        let first_use = self.set.change_password_upon_first_use && !option(options, "ignore_change_password_upon_first_use");
        if by == SetBy::Administrator && first_use {
            return Some(now);
        }
        let days = self.set.password_expires_days.filter(|_| !option(options, "ignore_password_expiry"))?;
        Some(Timestamp::from_unix(now.plus(DAY * days).unix()))
    }

    /// Must the password be changed before it is good for anything else?
    pub(crate) fn is_expired(user: &Value, now: Timestamp) -> bool {
        let over = user["password_expires_at"].as_i64().is_some_and(|at| now.0 >= at);
        over && !option(&user["options"], "ignore_password_expiry")
    }

    /// Days that the user's password must still be kept.
    pub(crate) fn days_to_keep(&self, user: &Value, now: Timestamp) -> Option<u64> {
        let created = user["password_created_at"].as_i64().map(Timestamp)?;
        if user["password_set_by_user"] != Value::Bool(true) {
            return None;
        }
        let left = created.plus(DAY * self.set.minimum_password_age).since(now);
        (!left.is_zero()).then(|| left.as_secs().div_ceil(DAY.as_secs()))
    }

    /// Hashes of passwords that must not come again.
    pub(crate) fn used(&self, user: &Value) -> Vec<String> {
        let older = user["previous_hashes"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let all = user["password_hash"].as_str().into_iter().chain(older);
        all.take(self.set.unique_last_password_count).map(str::to_owned).collect()
    }

    /// Has the account not been used for too long? `active_day` is that of the last login, if one was noted.
    pub(crate) fn is_inactive(&self, user: &Map, active_day: Option<i64>, now: Timestamp) -> bool {
        let Some(most) = self.set.disable_user_account_days_inactive else { return false };
        if user.get("options").is_some_and(|o| option(o, "ignore_user_inactivity")) {
            return false;
        }
        let created = user.get("created_at").and_then(Value::as_i64).map(|at| day(Timestamp(at)));
        active_day.max(created).is_some_and(|last| day(now) - last >= i64::from(most))
    }
}

/// Days since the epoch.
pub(crate) fn day(at: Timestamp) -> i64 {
    at.unix().div_euclid(24 * 3600)
}

#[cfg(test)]
mod tests;
