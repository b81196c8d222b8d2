//! Join tokens: who may become a machine of the cloud. What they are is in crate `pki`; here is which ones are good.
//!
//! ```text
//!   made ──── used by a machine: its name and key are noted ──── the same machine asks again: yes, the answer was lost
//!     └────── expired, deleted: as if it had never been          any other: no
//! ```
//! Of a secret only its hash is stored. Wrong, expired and used ones are refused in the same words.
use api::{Call, Error, Reply, Result};
use pki::{JoinToken, Role};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use store::{Db, Row, Table, Tx};

pub static JOIN_TOKENS: Table = Table { name: "operator/join-tokens", indexes: &[] };

const TTL: Duration = Duration::from_secs(3600);
const LONGEST: Duration = Duration::from_secs(7 * 86400);
/// What is over is shown for so long.
const KEPT: Duration = Duration::from_secs(7 * 86400);

/// How machines find into this cluster; in the state of processes that let them in.
pub struct Gate {
    /// Of the cluster's authority.
    pub fingerprint: String,
    /// `host:port` where this process takes them.
    pub address: String,
}

/// A machine that wants to be let in.
#[derive(Clone, Debug)]
pub struct Newcomer {
    pub role: Role,
    pub name: String,
    /// [`JoinToken::stored_of`] its secret.
    pub secret: String,
    /// [`pki::key_of`] its request.
    pub key: String,
}

/// Uses the token up, if the newcomer is `free` to be what it says. The same machine may do so again.
pub async fn admit<F>(db: &Db, newcomer: Newcomer, free: F) -> Result<()>
where
    F: Fn(&mut Tx<'_>) -> Result<()> + Send + 'static,
{
    let now = db.now().0;
    db.transact(move |tx| take(tx, &newcomer, now, &free)).await?;
    Ok(())
}

fn take(tx: &mut Tx<'_>, newcomer: &Newcomer, now: i64, free: &dyn Fn(&mut Tx<'_>) -> Result<()>) -> Result<()> {
    let refused = || Error::forbidden("The join token is not valid here; ask for a new one with: drover join-token");
    let row = tx.get(&JOIN_TOKENS, id_of(&newcomer.secret)).ok_or_else(refused)?;
    let unused = row.field("used_at").is_null();
    let same = row.text("used_by") == newcomer.name && row.text("used_key") == newcomer.key;
    let good = row.text("secret") == newcomer.secret
        && row.text("role") == newcomer.role.to_string()
        && row.field("expires_at").as_i64().is_some_and(|at| at > now);
    if !good || !(unused || same) {
        return Err(refused());
    }
    if !unused {
        return Ok(());
    }
    free(tx)?;
    let mut used = row.value().clone();
    used["used_by"] = json!(newcomer.name);
    used["used_key"] = json!(newcomer.key);
    used["used_at"] = json!(now);
    tx.put(&JOIN_TOKENS, row.id(), used);
    Ok(())
}

/// What a token is called; enough of its hash to tell it from others.
fn id_of(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}

fn shown(row: &Row, now: i64) -> Value {
    let state = match (row.field("used_at").is_null(), row.field("expires_at").as_i64().is_some_and(|at| at > now)) {
        (false, _) => "used",
        (true, true) => "unused",
        (true, false) => "expired",
    };
    let of = |name: &str| row.field(name).clone();
    json!({ "id": row.id(), "role": of("role"), "state": state, "created_at": of("created_at"), "expires_at": of("expires_at"),
        "used_by": of("used_by"), "used_at": of("used_at") })
}

/// `POST /v1/join-tokens`: `{"join_token": {"role": "node", "ttl": 3600}}`. The answer alone tells the token.
pub(crate) async fn create(call: Call) -> Result<Reply> {
    let gate: Arc<Gate> = call.cx.state.get().ok_or_else(|| {
        Error::conflict("This cloud is one machine and takes no others; a cluster is begun with: drover server")
    })?;
    let wanted = call.inner("join_token")?;
    let role = match wanted.get("role").and_then(Value::as_str) {
        Some("node") => Role::Node,
        Some("controller") => Role::Controller,
        _ => return Err(Error::bad_request("The role of a join token is node or controller.")),
    };
    let ttl = match wanted.get("ttl") {
        None | Some(Value::Null) => TTL,
        Some(v) => v
            .as_u64()
            .map(Duration::from_secs)
            .filter(|t| (1..=LONGEST.as_secs()).contains(&t.as_secs()))
            .ok_or_else(|| Error::bad_request(format!("The ttl is in seconds, at most {}.", LONGEST.as_secs())))?,
    };
    let token = JoinToken::new(&gate.fingerprint);
    let now = call.cloud.db.now();
    let hash = token.stored();
    let row = json!({ "v": 1, "id": id_of(&hash), "role": role.to_string(), "secret": hash, "created_at": now.0,
        "expires_at": now.plus(ttl).0, "used_by": null, "used_key": null, "used_at": null });
    let mut answer = json!({ "id": row["id"], "role": row["role"], "expires_at": row["expires_at"] });
    call.transact(move |_, tx| {
        let over = |r: &Arc<Row>| r.field("expires_at").as_i64().is_some_and(|at| now.since(base::Timestamp(at)) > KEPT);
        let old: Vec<Arc<Row>> = tx.all(&JOIN_TOKENS).into_iter().filter(over).collect();
        for row in old {
            tx.delete(&JOIN_TOKENS, row.id());
        }
        tx.put(&JOIN_TOKENS, id_of(&hash), row.clone());
        Ok(())
    })
    .await?;
    answer["token"] = json!(format!("{token}@{}", gate.address));
    Ok(Reply::json(201, json!({ "join_token": answer })))
}

pub(crate) async fn list(call: Call) -> Result<Reply> {
    let now = call.cloud.db.now().0;
    let all: Vec<Value> = call.reader().all(&JOIN_TOKENS).map(|r| shown(r, now)).collect();
    Ok(Reply::ok(json!({ "join_tokens": all })))
}

pub(crate) async fn delete(call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    call.transact(move |_, tx| {
        tx.get(&JOIN_TOKENS, &id).ok_or_else(|| Error::not_found(format!("There is no join token {id}.")))?;
        tx.delete(&JOIN_TOKENS, &id);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::ManualClock;
    use store::Memory;

    const SECOND: i64 = 1_000_000;

    async fn db() -> (Db, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(base::Timestamp(0)));
        (Db::open(Memory::new(), clock.clone(), &[&JOIN_TOKENS]).await.unwrap(), clock)
    }

    async fn token(db: &Db, role: Role) -> Newcomer {
        let hash = JoinToken::new("f").stored();
        let row = json!({ "v": 1, "id": id_of(&hash), "role": role.to_string(), "secret": hash, "created_at": 0,
            "expires_at": 60 * SECOND, "used_by": null, "used_key": null, "used_at": null });
        let (id, put) = (id_of(&hash).to_owned(), row);
        db.transact(move |tx| {
            tx.put(&JOIN_TOKENS, &id, put.clone());
            Ok::<_, ()>(())
        })
        .await
        .unwrap();
        Newcomer { role, name: "n1".into(), secret: hash, key: "k1".into() }
    }

    fn anybody(_: &mut Tx<'_>) -> Result<()> {
        Ok(())
    }

    #[tokio::test]
    async fn whose_name_is_taken_keeps_the_token() {
        let (db, _) = db().await;
        let n1 = token(&db, Role::Node).await;
        let taken = |_: &mut Tx<'_>| Err(Error::conflict("taken"));
        assert!(admit(&db, n1.clone(), taken).await.is_err());
        admit(&db, Newcomer { name: "n2".into(), ..n1.clone() }, anybody).await.unwrap();
        // Who is in already is not asked again.
        admit(&db, Newcomer { name: "n2".into(), ..n1 }, taken).await.unwrap();
    }

    #[tokio::test]
    async fn a_token_is_good_once_and_again_for_the_same_machine() {
        let (db, _) = db().await;
        let n1 = token(&db, Role::Node).await;
        admit(&db, n1.clone(), anybody).await.unwrap();
        admit(&db, n1.clone(), anybody).await.unwrap();
        for other in [Newcomer { key: "k2".into(), ..n1.clone() }, Newcomer { name: "n2".into(), ..n1.clone() }] {
            assert!(admit(&db, other.clone(), anybody).await.is_err(), "{other:?}");
        }
        let row = db.read().get(&JOIN_TOKENS, id_of(&n1.secret)).unwrap();
        assert_eq!(shown(&row, SECOND)["state"], "used");
    }

    #[tokio::test]
    async fn all_that_is_wrong_is_refused_in_the_same_words() {
        let (db, clock) = db().await;
        let good = token(&db, Role::Node).await;
        let used = token(&db, Role::Node).await;
        admit(&db, used.clone(), anybody).await.unwrap();
        let half = format!("{}{}", &good.secret[..16], "0".repeat(48));
        let mut words = Vec::new();
        for wrong in [
            Newcomer { role: Role::Controller, ..good.clone() },
            Newcomer { secret: half, ..good.clone() },
            Newcomer { secret: String::new(), ..good.clone() },
            Newcomer { key: "k2".into(), ..used },
        ] {
            words.push(admit(&db, wrong, anybody).await.unwrap_err().to_string());
        }
        clock.advance(Duration::from_secs(60));
        words.push(admit(&db, good.clone(), anybody).await.unwrap_err().to_string());
        assert!(words.iter().all(|w| *w == words[0]), "{words:?}");
        let row = db.read().get(&JOIN_TOKENS, id_of(&good.secret)).unwrap();
        assert_eq!(shown(&row, 60 * SECOND)["state"], "expired");
        assert!(!shown(&row, 0).to_string().contains(&good.secret), "the hash is nobody's affair");
    }

    #[tokio::test]
    async fn of_many_at_once_one_gets_in() {
        let (db, _) = db().await;
        let good = token(&db, Role::Node).await;
        let mut all = tokio::task::JoinSet::new();
        for i in 0..16 {
            let (db, one) = (db.clone(), Newcomer { key: format!("k{i}"), ..good.clone() });
            all.spawn(async move { admit(&db, one, anybody).await.is_ok() });
        }
        assert_eq!(all.join_all().await.into_iter().filter(|ok| *ok).count(), 1);
    }
}
