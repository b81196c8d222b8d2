//! A request on its way through the pipeline, and what all requests share.
use crate::{policy::Policy, reply::ByteStream, ticket::Ticket};
use auth::{Caller, SecretBox};
use resource::{Cx, Error, Map, Registry, Result, Settings, StateMap, Tx};
use serde_json::Value;
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};
use store::{Db, Reader};

/// Turns a token into a caller. The identity service implements it over its rows.
pub trait Authenticator: Send + Sync {
    /// `token` is the value of `X-Auth-Token`, `service` that of `X-Service-Token`. Fails with 401.
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
        service: Option<&'a str>,
    ) -> Pin<Box<dyn Future<Output = Result<Arc<Caller>>> + Send + 'a>>;

    /// The caller that somebody would be with a token for a scope. Nobody logs in.
    fn suppose(&self, who: &Supposed) -> Result<Arc<Caller>> {
        Err(Error::not_implemented(format!("Nothing is known here of what {} may do.", who.user)))
    }

    /// What is known of the keys of tokens.
    fn token_keys(&self) -> Result<TokenKeys> {
        Err(Error::not_implemented("Tokens are not made here."))
    }
    /// Lets another key sign tokens, in all processes; tokens of before stay good.
    fn rotate_token_keys<'a>(&'a self) -> Pin<Box<dyn Future<Output = Result<TokenKeys>> + Send + 'a>> {
        Box::pin(std::future::ready(Err(Error::not_implemented("Tokens are not made here."))))
    }

    /// Seals what the pipeline keeps of answers; none are kept without.
    fn secrets(&self) -> Option<SecretBox> {
        None
    }
}

/// The keys of tokens, without the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenKeys {
    pub count: usize,
    /// Microseconds; `None` when they are as they were at the beginning.
    pub rotated_at: Option<i64>,
}

/// Somebody with a token that nobody has asked for; things are named by id, or by name in the domain beside them.
#[derive(Clone, Debug, Default)]
pub struct Supposed {
    pub user: String,
    /// `None`: the domain `default`.
    pub user_domain: Option<String>,
    pub project: Option<String>,
    pub project_domain: Option<String>,
    pub domain: Option<String>,
    pub system: bool,
}

/// What every request needs.
pub struct Cloud {
    pub db: Db,
    pub settings: Arc<Settings>,
    pub policy: Arc<Policy>,
    pub registry: Arc<Registry>,
    pub state: Arc<StateMap>,
    pub authenticator: Arc<dyn Authenticator>,
}

impl Cloud {
    /// A context for work that no request asked for (reconcilers, bootstrap): the given caller, the newest version.
    pub fn cx(&self, caller: Arc<Caller>, request_id: &str) -> Cx {
        Cx {
            caller,
            version: base::Version::MAX,
            request_id: request_id.into(),
            query: Arc::default(),
            settings: self.settings.clone(),
            policy: self.policy.in_force(&self.db.read()).book.clone(),
            public: self.settings.public_endpoint.as_str().into(),
            params: Arc::new([]),
            state: self.state.clone(),
            registry: self.registry.clone(),
        }
    }
}

pub enum Body {
    Json(Value),
    /// Taken once, by [`Call::take_stream`].
    Stream(Mutex<Option<ByteStream>>),
}

/// A request as a handler gets it: authenticated, admitted by its route's rule, on a fresh view.
pub struct Call {
    pub cx: Cx,
    pub cloud: Arc<Cloud>,
    pub method: &'static str,
    /// Path below the service's prefix, as sent.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Body,
    pub(crate) ticket: Arc<Ticket>,
}

impl Call {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
    pub fn param(&self, name: &str) -> &str {
        self.cx.param(name)
    }
    /// The URL that was asked for, without its query.
    pub fn here(&self) -> String {
        format!("{}{}", self.cx.public, crate::crud::said(&self.path))
    }
    /// The JSON body; `Null` when there was none.
    pub fn json(&self) -> &Value {
        match &self.body {
            Body::Json(v) => v,
            Body::Stream(_) => &Value::Null,
        }
    }
    /// The JSON body, which must be an object.
    pub fn object(&self) -> Result<&Map> {
        self.json().as_object().ok_or_else(|| Error::bad_request("The request body must be a JSON object."))
    }
    /// The object below one key of the body (`{"server": {...}}`).
    pub fn inner(&self, key: &str) -> Result<&Map> {
        self.object()?.get(key).and_then(Value::as_object).ok_or_else(|| {
            Error::bad_request(format!("Invalid input for field/attribute {key}: the body must hold an object '{key}'."))
        })
    }
    /// The body as it comes in. It can be taken once.
    pub fn take_stream(&self) -> Result<ByteStream> {
        let taken = match &self.body {
            Body::Stream(s) => s.lock().unwrap_or_else(PoisonError::into_inner).take(),
            Body::Json(_) => None,
        };
        taken.ok_or_else(|| Error::internal("the route does not stream, or its stream was taken"))
    }
    pub fn reader(&self) -> Reader<'_> {
        self.cloud.db.read()
    }
    /// Runs one transaction, if it can begin before the request's deadline. The closure may run several times and must not have effects
    /// outside of it.
    pub async fn transact<T, F>(&self, mut closure: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Cx, &mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (cx, ticket) = (self.cx.clone(), self.ticket.clone());
        let work = move |tx: &mut Tx<'_>| {
            let Some(keyed) = &ticket.keyed else { return Ok((closure(&cx, tx)?, tx.writes())) };
            keyed.check(tx)?;
            let value = closure(&cx, tx)?;
            Ok((value, keyed.note(tx)))
        };
        let (value, wrote) = self.cloud.db.transact_in(self.ticket.turn(), work).await?.value;
        if wrote {
            self.ticket.note_written();
        }
        Ok(value)
    }
    /// Fails with 403 unless the caller satisfies the named rule for the row.
    pub fn require(&self, rule: &str, row: Option<&Map>) -> Result<()> {
        if self.cx.may(rule, row) {
            return Ok(());
        }
        Err(Error::forbidden(format!("Policy doesn't allow {} to be performed.", rule.trim_start_matches("rule:"))))
    }
}
