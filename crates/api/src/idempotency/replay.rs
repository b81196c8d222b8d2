//! Carries out a request with a key, or gives the answer that the first one got.
use super::{Error, Keyed, LARGEST, Map, Reply, ReplyBody, Result, Row, Ticket, Value, json};
use crate::{Call, Cloud, Cx, Dialect, Route, crud, dialect::error_reply};
use base::Timestamp;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    task::{AbortHandle, JoinError},
    time::{Instant, timeout_at},
};

/// How long a repeat waits for the answer of a request that has committed. It comes within milliseconds, or after an election in the store;
/// or never, when its process died in between, and then the repeat's own client must not have given up before it is told what was made.
const PATIENCE: Duration = Duration::from_secs(4);

/// What [`once`] needs of where the request came in.
pub(crate) struct Place<'a> {
    pub(crate) dialect: &'static Dialect,
    pub(crate) route: &'a Route,
    pub(crate) identity: Arc<str>,
}

/// See the module.
pub(crate) async fn once(place: Place<'_>, call: Call) -> Result<Reply> {
    let (cx, cloud, ticket) = (call.cx.clone(), call.cloud.clone(), call.ticket.clone());
    let Some(keyed) = &ticket.keyed else { return (place.route.handler)(call).await };
    let work = carry_out(&place, call);
    if let Some(row) = keyed.known(&cloud.db) {
        return replayed(&place, keyed, &cx, &cloud, row).await;
    }
    match detached(ticket.clone(), work).await {
        Ok(reply) => Ok(reply),
        // What refused it may be what the first request made.
        Err(refused) => {
            cloud.db.fresh().await?;
            match keyed.known(&cloud.db) {
                Some(row) => replayed(&place, keyed, &cx, &cloud, row).await,
                None => Err(refused),
            }
        }
    }
}

/// Runs the handler and lets its answer be kept, if anything was committed.
fn carry_out(place: &Place<'_>, call: Call) -> impl Future<Output = Result<Reply>> + Send + use<> {
    let (cloud, ticket, cx) = (call.cloud.clone(), call.ticket.clone(), call.cx.clone());
    let (dialect, identity) = (place.dialect, place.identity.clone());
    let handler = place.route.handler.clone();
    async move {
        let done = handler(call).await;
        let Some(keyed) = ticket.keyed.as_ref().filter(|_| ticket.has_written()) else { return done };
        let reply = done.unwrap_or_else(|e| error_reply(dialect, &e, &cx.request_id, &identity));
        // One that cannot be kept is an empty text: nobody need wait for it.
        let answer = sealed(&cloud, keyed, &reply).unwrap_or_default();
        tokio::spawn(keep(cloud, ticket.clone(), answer));
        Ok(reply)
    }
}

/// Work that goes on when its client has left, if it has begun: the client will come back for the answer.
async fn detached(ticket: Arc<Ticket>, work: impl Future<Output = Result<Reply>> + Send + 'static) -> Result<Reply> {
    let task = tokio::spawn(work);
    let _client = Client(ticket, task.abort_handle());
    match task.await.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_)) => Err(Error::unavailable("This process is shutting down; try again.")),
    }
}

struct Client(Arc<Ticket>, AbortHandle);
impl Drop for Client {
    fn drop(&mut self) {
        if self.0.leave() {
            self.1.abort();
        }
    }
}

/// An answer as its row keeps it. None of one that is too large, or is no text.
fn sealed(cloud: &Cloud, keyed: &Keyed, reply: &Reply) -> Option<String> {
    let body = match &reply.body {
        ReplyBody::Empty => String::new(),
        ReplyBody::Json(value) => value.to_string(),
        ReplyBody::JsonText(text) | ReplyBody::Bytes(text) => String::from_utf8_lossy(text).into_owned(),
        ReplyBody::Stream(_) | ReplyBody::WebSocket(_) => return None,
    };
    let is_json = matches!(reply.body, ReplyBody::Json(_) | ReplyBody::JsonText(_));
    let secrets = cloud.authenticator.secrets().filter(|_| body.len() <= LARGEST)?;
    let answer = json!({"status": reply.status, "headers": reply.headers, "body": body, "json": is_json});
    Some(secrets.seal(&sealed_for(&keyed.id), answer.to_string().as_bytes()))
}

/// Its client has the answer already.
async fn keep(cloud: Arc<Cloud>, ticket: Arc<Ticket>, answer: String) {
    let Some(Keyed { id, request_id, .. }) = &ticket.keyed else { return };
    let (key, of) = (id.clone(), request_id.clone());
    let kept = cloud.db.transact_along(move |tx| {
        if let Some(row) = tx.get(&super::KEYS, &key).filter(|row| row.text("request_id") == &*of) {
            let mut row = row.value().clone();
            row["answer"] = answer.as_str().into();
            tx.put(&super::KEYS, &key, row);
        }
        Ok::<_, Error>(())
    });
    if let Err(error) = kept.await {
        let request_id = &**request_id;
        tracing::warn!(request_id, %error, "An answer was not kept for repeats of its request; they get a new one");
    }
}

fn sealed_for(id: &str) -> String {
    format!("{}/{id}", super::KEYS.name)
}

/// The answer of the first request, once it is there.
async fn replayed(place: &Place<'_>, keyed: &Keyed, cx: &Cx, cloud: &Cloud, row: Arc<Row>) -> Result<Reply> {
    let mut row = row;
    if row.text("fingerprint") != keyed.fingerprint {
        return Err(Error::unprocessable(
            "The Idempotency-Key was used for another request; send a new key, or the request as it was.",
        ));
    }
    let mut changes = cloud.db.view.changes();
    let made_at = Timestamp(row.field("at").as_i64().unwrap_or_default());
    let until = Instant::now() + PATIENCE;
    // The one that made it has died since, or has trouble.
    let is_old = made_at.plus(PATIENCE) < cloud.db.now();
    while row.field("answer").is_null() && !is_old {
        row = match keyed.known(&cloud.db) {
            Some(row) => row,
            None => return Err(Error::conflict("The request with this Idempotency-Key was taken back; try again.")),
        };
        if !row.field("answer").is_null() || timeout_at(until, changes.recv()).await.is_err() {
            break;
        }
    }
    let kept = row.field("answer").as_str().and_then(|sealed| {
        let opened = cloud.authenticator.secrets()?.open(&sealed_for(&keyed.id), sealed).ok()?;
        serde_json::from_slice::<Value>(&opened).ok()
    });
    let reply = match kept {
        Some(answer) => reply_of(&answer),
        None => rendered(place, cx, cloud, &row)?,
    };
    Ok(reply.header("idempotency-replayed", "true"))
}

fn reply_of(answer: &Value) -> Reply {
    let body = answer["body"].as_str().unwrap_or_default().to_owned();
    let body = match (body.is_empty(), answer["json"] == true) {
        (true, _) => ReplyBody::Empty,
        (false, true) => ReplyBody::JsonText(body.into()),
        (false, false) => ReplyBody::Bytes(body.into()),
    };
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let headers = answer["headers"].as_array().into_iter().flatten().map(|h| (interned(&text(&h[0])), text(&h[1]))).collect();
    Reply { status: answer["status"].as_u64().and_then(|s| s.try_into().ok()).unwrap_or(200), headers, body }
}

/// Names of headers that handlers gave once: as many as there are in the program.
fn interned(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    names.get(name).copied().unwrap_or_else(|| {
        let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
        names.insert(name);
        name
    })
}

/// What the first request made, as it is now, for an answer that nobody kept.
fn rendered(place: &Place<'_>, cx: &Cx, cloud: &Cloud, key: &Row) -> Result<Reply> {
    let made: Vec<&str> = key.field("made").as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let status = place.route.created.unwrap_or(place.dialect.created);
    let reader = cloud.db.read();
    let of_path = cx.registry.iter().filter(|def| def.path == place.route.path && def.table.name.starts_with(place.dialect.name));
    for def in of_path {
        let ids = made.iter().filter_map(|key| key.strip_prefix(def.table.name)?.strip_prefix('/'));
        let rows: Vec<(&str, Arc<Row>)> = ids.filter_map(|id| Some((id, reader.get(&def.table, id)?))).collect();
        let row = |row: &Arc<Row>| row.value().as_object().cloned().unwrap_or_default();
        match rows.as_slice() {
            [] => {}
            [(id, one)] => {
                let body = crud::show_one(def, place.dialect, &row(one), cx, &reader);
                return Ok(Reply::json(status, body).header("location", crud::links(def, cx, id)));
            }
            all => {
                let shown = all.iter().map(|(_, r)| Value::from(crud::view_row(def, place.dialect, &row(r), cx, &reader, false)));
                let mut body = Map::new();
                body.insert(def.plural.into(), shown.collect());
                return Ok(Reply::json(status, body.into()));
            }
        }
    }
    Err(Error::conflict("The request with this Idempotency-Key was carried out, and its answer was lost; look at what it made."))
}
