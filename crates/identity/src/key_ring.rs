//! The keys of tokens, and how they change without a token that any process refuses.
//!
//! A cloud begins with the key files that its controllers share. From the first rotation on the keys are a row, sealed with the keys
//! of secrets: a process that serves a request has waited for the newest rows, so it has the key of every token that was ever given
//! before. The staged key comes first when keys rotate, so processes that still read files accept what is signed next.
//!
//! ```text
//! primary, older …, staged  ──rotate──▶  staged, primary, older … (as many as are kept), a new one
//! ```
use crate::{Auth, rows::TOKEN_KEYS};
use api::{Error, Result, TokenKeys};
use auth::{Key, KeyRing, SecretBox};
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError, RwLock};
use store::{Reader, Revision, Row};

/// The id of the only row, and the owner of what is sealed in it.
const RING: &str = "ring";

/// The ring at a revision of its row.
#[derive(Debug, Default)]
pub(crate) struct StoredKeys(RwLock<Option<(Revision, Option<Arc<KeyRing>>)>>);

fn open(secrets: &SecretBox, row: &Row) -> Option<KeyRing> {
    let sealed = row.field("sealed").as_array()?;
    let key = |v: &Value| {
        let text = secrets.open(&format!("token_keys/{RING}"), v.as_str()?).ok()?;
        Key::parse(std::str::from_utf8(&text).ok()?).ok()
    };
    KeyRing::new(sealed.iter().map(key).collect::<Option<Vec<Key>>>()?).ok()
}

fn sealed(secrets: &SecretBox, keys: &[Key]) -> Vec<String> {
    keys.iter().map(|k| secrets.seal(&format!("token_keys/{RING}"), k.to_text().as_bytes())).collect()
}

/// The ring after a rotation that keeps `most` keys.
fn rotated(ring: &KeyRing, most: usize) -> Vec<Key> {
    let (mut keys, new) = (ring.keys().to_vec(), Key::generate());
    let staged = if keys.len() > 1 { keys.pop() } else { None };
    let mut next = vec![staged.unwrap_or_else(Key::generate)];
    next.extend(keys);
    // The new one is staged, and counts.
    next.truncate(most.max(3) - 1);
    next.push(new);
    next
}

impl Auth {
    /// The keys that tokens are made with by the rows as they are.
    pub(crate) fn ring(&self, reader: &Reader<'_>) -> Arc<KeyRing> {
        let at = reader.modified(&[&TOKEN_KEYS]);
        let known = self.stored_keys.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let stored = match known {
            Some((known_at, ring)) if known_at == at => ring,
            _ => {
                let row = reader.get(&TOKEN_KEYS, RING);
                let ring = row.as_ref().and_then(|row| open(&self.secret_box(), row)).map(Arc::new);
                if row.is_some() && ring.is_none() {
                    tracing::error!(
                        "The token keys in the store do not open with the keys of secrets of this process; restore those from another controller"
                    );
                }
                *self.stored_keys.0.write().unwrap_or_else(PoisonError::into_inner) = Some((at, ring.clone()));
                ring
            }
        };
        stored.unwrap_or_else(|| self.key_files().ring())
    }

    pub(crate) fn key_facts(&self) -> TokenKeys {
        let reader = self.db.read();
        let rotated_at = reader.get(&TOKEN_KEYS, RING).and_then(|r| r.field("rotated_at").as_i64());
        TokenKeys { count: self.ring(&reader).keys().len(), rotated_at }
    }

    /// Makes the staged key the one that signs, in all processes at once.
    pub(crate) async fn rotate_ring(&self) -> Result<TokenKeys> {
        self.db.fresh().await?;
        let (secrets, files, most) = (self.secret_box(), self.key_files().ring(), self.config.most_token_keys);
        let rotate = move |tx: &mut store::Tx<'_>| -> Result<()> {
            let ring = match tx.get(&TOKEN_KEYS, RING) {
                None => files.as_ref().clone(),
                Some(row) => open(&secrets, &row).ok_or_else(|| {
                    Error::conflict("The token keys do not open here; restore the keys of secrets from another controller first.")
                })?,
            };
            let row = json!({"sealed": sealed(&secrets, &rotated(&ring, most)), "rotated_at": tx.now.0, "v": 1});
            tx.put(&TOKEN_KEYS, RING, row);
            Ok(())
        };
        self.db.transact(rotate).await?;
        Ok(self.key_facts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(keys: &[Key]) -> Vec<String> {
        keys.iter().map(|k| k.to_text().to_string()).collect()
    }

    #[test]
    fn the_staged_key_signs_next_and_the_oldest_goes() {
        let first = KeyRing::new(vec![Key::generate(), Key::generate()]).unwrap();
        let mut ring = first.clone();
        for _ in 0..4 {
            let before = texts(ring.keys());
            ring = KeyRing::new(rotated(&ring, 4)).unwrap();
            let after = texts(ring.keys());
            assert_eq!(Some(&after[0]), before.last(), "the staged key signs");
            assert!(after.contains(&before[0]), "and what the last one signed is still good");
        }
        assert_eq!(ring.keys().len(), 4);
        assert!(!texts(ring.keys()).contains(&texts(first.keys())[0]));
    }

    #[test]
    fn keys_are_sealed() {
        let secrets = SecretBox::new(KeyRing::new(vec![Key::generate()]).unwrap());
        let key = Key::generate();
        let stored = sealed(&secrets, &[key.clone()]);
        assert!(!stored[0].contains(key.to_text().as_str()));
    }
}
