//! Idempotency keys: a POST that is sent again with its `Idempotency-Key` is not carried out again.
//!
//! ```text
//! key unknown ── transaction: what is made, and the key's row ── answer kept in the row
//!                       │ refused: nothing is written, the key stays unknown
//! key known  ── same request: the first answer, `Idempotency-Replayed: true`
//!            └─ another one: 422
//! ```
//! The key's row is written by the transaction that makes things, so there is no moment in which one is there without the other, and
//! processes that get the same key at once agree by the row: the store lets one of them commit. The answer is known only after that; it
//! is sealed (it may hold a password) and kept by a second transaction, for which its client does not wait. Should the process die between
//! the two, the row still says what was made, and the answer is rendered from that.
//!
//! This is draft-ietf-httpapi-idempotency-key-header. Keys are one user's in one scope, on one path; they are kept for a day, or until
//! their owner has used [`MOST`] newer ones. Refusals that changed nothing are not kept, so the same key may be tried again.
use crate::{Error, Reply, ReplyBody, Result, ticket::Ticket};
use auth::Caller;
use axum::http::HeaderMap;
use base::Timestamp;
use resource::{Map, Tx};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{fmt::Write as _, sync::Arc, time::Duration};
use store::{Db, Row, Table};

mod replay;
mod sweep;
pub(crate) use replay::{Place, once};
pub use sweep::sweep;

/// What was done under a key, by a hash of owner, path and key.
pub static KEYS: Table = Table { name: "api/idempotency_keys", indexes: &[] };

/// How long a key is kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Keys of one owner that are kept.
const MOST: usize = 10_000;
/// Characters of a key.
pub(crate) const LONGEST: usize = 255;
/// Bytes of an answer that are kept; a larger one is rendered again from the rows.
const LARGEST: usize = 32 * 1024;
/// Names of made rows that are kept.
const NAMED: usize = 64;

/// A request that came with a key.
#[derive(Debug)]
pub(crate) struct Keyed {
    /// Of the key's row.
    id: String,
    /// Whose key it is, for the limit.
    owner: String,
    /// Of the request: another one with this key is a mistake.
    fingerprint: String,
    request_id: Arc<str>,
}

impl Keyed {
    /// The key of a POST, if it has one. `path` includes the query.
    pub(crate) fn of(
        headers: &HeaderMap,
        caller: &Caller,
        request_id: &Arc<str>,
        path: &str,
        body: &Value,
    ) -> Result<Option<Self>> {
        let mut values = headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else { return Ok(None) };
        let key = value.to_str().ok().filter(|_| values.next().is_none()).and_then(unquoted);
        let key = key.filter(|k| (1..=LONGEST).contains(&k.len()));
        let key = key.ok_or_else(|| {
            Error::bad_request(format!(
                "The Idempotency-Key is not valid: it is one string of 1 to {LONGEST} printable ASCII characters; send a new UUID in quotes."
            ))
        })?;
        let scope = caller.project_id().or(caller.domain_id()).unwrap_or_default();
        let through = caller.app_credential.as_ref().map(|a| a.id.as_str()).or(caller.trust_id.as_deref()).unwrap_or_default();
        let owner = hash(&[caller.user_id(), scope, through]);
        let bare = path.split('?').next().unwrap_or_default();
        Ok(Some(Self {
            id: hash(&[&owner, bare, &key]),
            owner,
            fingerprint: hash(&[path, &body.to_string()]),
            request_id: request_id.clone(),
        }))
    }

    /// Fails when another request has used the key; otherwise none can until this transaction has committed.
    pub(crate) fn check(&self, tx: &mut Tx<'_>) -> Result<()> {
        let now = tx.now;
        match tx.get(&KEYS, &self.id).filter(|row| !self.is_mine(row) && !is_over(row, now)) {
            None => Ok(()),
            Some(_) => {
                Err(Error::conflict("A request with the same Idempotency-Key was quicker; repeat this one for its answer."))
            }
        }
    }

    /// Puts what the transaction makes under the key. False if it makes nothing.
    pub(crate) fn note(&self, tx: &mut Tx<'_>) -> bool {
        if !tx.writes() {
            return false;
        }
        let old = tx.get(&KEYS, &self.id).filter(|row| self.is_mine(row));
        let before = old.iter().flat_map(|row| row.field("made").as_array().into_iter().flatten().cloned());
        let made: Vec<Value> = before.chain(tx.made().map(|key| Value::from(&**key))).take(NAMED).collect();
        let row = json!({
            "v": 1, "owner": self.owner, "fingerprint": self.fingerprint, "request_id": &*self.request_id, "at": tx.now.0, "made": made,
        });
        tx.put(&KEYS, &self.id, row);
        true
    }

    fn is_mine(&self, row: &Row) -> bool {
        row.text("request_id") == &*self.request_id
    }

    /// What another request did under this key, as far as the view knows.
    fn known(&self, db: &Db) -> Option<Arc<Row>> {
        let now = db.now();
        db.read().get(&KEYS, &self.id).filter(|row| !self.is_mine(row) && !is_over(row, now))
    }
}

fn is_over(row: &Row, now: Timestamp) -> bool {
    row.field("at").as_i64().is_none_or(|at| Timestamp(at).plus(KEPT) < now)
}

/// A string as RFC 8941 writes it, or one without quotes, as many clients send it.
fn unquoted(text: &str) -> Option<String> {
    let text = text.trim();
    let Some(inner) = text.strip_prefix('"') else { return (!text.contains('"')).then(|| text.to_owned()) };
    let (mut out, mut rest) = (String::new(), inner.chars());
    loop {
        match rest.next()? {
            '"' => return rest.as_str().is_empty().then_some(out),
            '\\' => out.push(rest.next().filter(|c| matches!(c, '"' | '\\'))?),
            c => out.push(c),
        }
    }
}

/// Parts of any length, each apart from the next.
fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().iter().fold(String::with_capacity(64), |mut out, byte| {
        write!(out, "{byte:02x}").ok();
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_with_and_without_quotes() {
        assert_eq!(unquoted(r#" "8e03978e-40d5" "#).as_deref(), Some("8e03978e-40d5"));
        assert_eq!(unquoted("8e03978e-40d5").as_deref(), Some("8e03978e-40d5"));
        assert_eq!(unquoted(r#""a\"b\\c""#).as_deref(), Some(r#"a"b\c"#));
        for wrong in [r#""a"#, r#"a""#, r#""a"b"#, r#""a\n""#, r#"a"b"#] {
            assert_eq!(unquoted(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_hash_tells_parts_apart() {
        assert_ne!(hash(&["a", "bc"]), hash(&["ab", "c"]));
        assert_eq!(hash(&["a", "bc"]), hash(&["a", "bc"]));
        assert_eq!(hash(&[]).len(), 64);
    }

    #[test]
    fn keys_are_judged() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", value.parse().expect("a header"));
            let by = Caller::internal(Vec::new(), "user");
            Keyed::of(&headers, &by, &"req-1".into(), "/v2.0/ports", &Value::Null).map(|k| k.is_some())
        };
        assert!(of("\"k\"").is_ok_and(|some| some) && of(&"k".repeat(LONGEST)).is_ok_and(|some| some));
        for wrong in ["", "\"\"", &"k".repeat(LONGEST + 1)] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
    }
}
