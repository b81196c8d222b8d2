//! Other controllers: nodes that are attached there, and blobs that are there.
use crate::{
    Error,
    call::{Credentials, Way},
    tunnel,
    wire::{self, Asked, Chunk, Json, NoAnswer},
};
use assign::{Agent, Answer, Duplex, Pending, Query, QueryError};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tonic::{Request, metadata::AsciiMetadataValue};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ways to other controllers, by address.
pub struct Peers {
    credentials: Mutex<Credentials>,
    ways: Mutex<HashMap<String, Way>>,
}

impl Peers {
    pub fn new(credentials: Credentials) -> Arc<Self> {
        Arc::new(Self { credentials: Mutex::new(credentials), ways: Mutex::default() })
    }

    /// Shows another certificate from now on.
    pub fn renewed(&self, credentials: Credentials) {
        *lock(&self.credentials) = credentials;
        lock(&self.ways).clear();
    }

    /// The way to `host:port`.
    pub fn way(&self, address: &str) -> Result<Way, Error> {
        let mut ways = lock(&self.ways);
        if let Some(way) = ways.get(address) {
            return Ok(way.clone());
        }
        let way = Way::to(address, &lock(&self.credentials))?;
        ways.insert(address.to_owned(), way.clone());
        Ok(way)
    }

    /// The agent of a node that is attached to the controller at that address.
    pub fn agent(&self, address: &str, host: &str) -> Result<Arc<dyn Agent>, Error> {
        Ok(Arc::new(There { way: self.way(address)?, host: host.to_owned() }))
    }
}

struct There {
    way: Way,
    host: String,
}

impl There {
    fn failed(&self, e: &tonic::Status) -> QueryError {
        QueryError::Failed { node: self.host.clone(), cause: format!("through {}: {}", self.way.address(), e.message()) }
    }
}

impl Agent for There {
    fn query(&self, query: Query) -> Pending<'_, Result<Answer, QueryError>> {
        Box::pin(async move {
            let asked = Json(Asked { host: self.host.clone(), query });
            let answer = self.way.ask::<_, Json<Result<Answer, NoAnswer>>>(wire::ASK, asked).await;
            answer.map_err(|e| self.failed(&e))?.0.map_err(QueryError::from)
        })
    }

    fn vnc(&self, server_id: &str) -> Pending<'_, Result<Box<dyn Duplex>, QueryError>> {
        let server_id = server_id.to_owned();
        Box::pin(async move {
            let (tunnel, outgoing) = tunnel::open();
            let mut request = Request::new(outgoing);
            for (key, value) in [(wire::HOST, &self.host), (wire::SERVER, &server_id)] {
                let value = AsciiMetadataValue::try_from(value.as_str());
                let value = value.map_err(|_| QueryError::NotHere(server_id.clone()))?;
                request.metadata_mut().insert(key, value);
            }
            let incoming = self.way.call::<Chunk, Chunk>(wire::SHOW, request).await.map_err(|e| self.failed(&e))?;
            Ok(Box::new(tunnel.join(incoming)) as Box<dyn Duplex>)
        })
    }
}
