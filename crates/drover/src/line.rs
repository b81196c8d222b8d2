//! A controller's end of the line: who joins, the nodes that are attached here, and the blobs that are here or at other controllers.
use crate::admission::Admission;
use assign::{Agent, Blobs, Pending, Uplink};
use base::retry::Backoff;
use compute::nodes::Nodes;
use image::{
    Stores,
    blob::{LocalStore, Others},
};
use link::{Credentials, Grant, JoinRequest, Peers, Refused, Service};
use pki::Identity;
use reconcile::Shards;
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::AsyncRead,
    net::TcpListener,
    time::{sleep, timeout},
};

/// See the module.
pub(crate) struct Line {
    pub(crate) admission: Admission,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) blobs: Arc<LocalStore>,
    /// Of which `blobs` is one.
    pub(crate) stores: Arc<Stores>,
    /// A directory on the file system of `blobs`, for what nodes send.
    pub(crate) incoming: PathBuf,
}

impl link::Controller for Line {
    fn join(&self, request: JoinRequest) -> Pending<'_, Result<Grant, Refused>> {
        Box::pin(self.admission.join(request))
    }
    fn renew<'a>(&'a self, identity: &'a Identity, csr: &'a str) -> Pending<'a, Result<String, Refused>> {
        Box::pin(self.admission.renew(identity, csr))
    }
    fn attach<'a>(&'a self, host: &'a str, agent: Arc<dyn Agent>) -> Pending<'a, Result<Arc<dyn Uplink>, Refused>> {
        Box::pin(async move {
            let line = self.nodes.join_now(host).await.map_err(|e| Refused(e.to_string()))?;
            self.nodes.attach(host, agent);
            Ok(line)
        })
    }
    fn detach<'a>(&'a self, host: &'a str) -> Pending<'a, ()> {
        Box::pin(async move {
            if let Err(e) = self.nodes.lost(host).await {
                tracing::warn!(node = host, error = %e, "That the node is away could not be written; housekeeping will");
            }
        })
    }
    fn agent(&self, host: &str) -> Option<Arc<dyn Agent>> {
        self.nodes.attached(host)
    }
    fn controllers(&self) -> Vec<String> {
        self.admission.lines()
    }
    fn open<'a>(&'a self, blob: &'a str, bring: bool) -> Pending<'a, io::Result<tokio::fs::File>> {
        Box::pin(async move {
            if bring {
                self.blobs.keep(blob).await?;
                // What is used stays longest in the cache.
                self.blobs.touch(blob).await?;
            }
            tokio::fs::File::open(self.stores.file_here(blob).await?).await
        })
    }
    fn keep<'a>(&'a self, blob: &'a str) -> Pending<'a, io::Result<()>> {
        Box::pin(async move { Ok(self.blobs.keep(blob).await?) })
    }
    fn blobs(&self) -> &dyn Blobs {
        &*self.blobs
    }
    fn incoming(&self) -> &Path {
        &self.incoming
    }
}

/// How often the certificate is looked at.
const RENEWED: Duration = Duration::from_secs(60);

/// Takes connections, with the newest certificate.
pub(crate) async fn keep(
    listener: TcpListener,
    address: SocketAddr,
    pki: PathBuf,
    mut credentials: Credentials,
    service: Service,
    peers: Arc<Peers>,
) {
    let mut listener = Some(listener);
    for attempt in 0.. {
        let bound = match listener.take() {
            Some(listener) => Ok(listener),
            None => link::listen(address).await,
        };
        let ended = match bound {
            Ok(listener) => tokio::select! {
                ended = link::serve(listener, &credentials, service.clone()) => ended,
                newer = newer(&pki, &credentials) => {
                    peers.renewed(newer.clone());
                    credentials = newer;
                    continue;
                }
            },
            Err(e) => Err(e),
        };
        if let Err(e) = ended {
            tracing::error!(error = base::chain(&e), "Nodes and new machines cannot reach this controller; trying again");
        }
        sleep(AGAIN.jittered(attempt)).await;
    }
}

async fn newer(pki: &Path, than: &Credentials) -> Credentials {
    loop {
        sleep(RENEWED).await;
        if let Ok(found) = Credentials::read(pki)
            && found != *than
        {
            return found;
        }
    }
}

/// The other controllers' stores of images.
pub(crate) struct OtherStores {
    pub(crate) shards: Arc<Shards>,
    pub(crate) peers: Arc<Peers>,
    /// Our own line.
    pub(crate) own: String,
}

/// A controller that lives takes a copy within this time, or nobody does.
const SHARED: Duration = Duration::from_secs(600);
const AGAIN: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

impl OtherStores {
    fn lines(&self) -> Vec<String> {
        let mut lines = reconcile::lines(&self.shards.db().read());
        lines.retain(|line| *line != self.own);
        lines
    }

    async fn try_share(&self, blob: &str) -> io::Result<()> {
        let mut failed = Ok(());
        for line in self.lines() {
            match self.peers.way(&line).map_err(io::Error::other)?.keep(blob).await {
                Ok(()) => return Ok(()),
                Err(e) => failed = Err(e),
            }
        }
        failed
    }
}

impl Others for OtherStores {
    fn open<'a>(&'a self, blob: &'a str) -> Pending<'a, io::Result<Box<dyn AsyncRead + Send + Unpin>>> {
        Box::pin(async move {
            let mut failed = io::Error::new(io::ErrorKind::NotFound, "no controller that runs has the blob");
            for line in self.lines() {
                match self.peers.way(&line).map_err(io::Error::other)?.open(blob).await {
                    Ok(bytes) => return Ok(Box::new(bytes) as _),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => failed = e,
                }
            }
            Err(failed)
        })
    }

    /// One that has just died is a member still; a moment later it is none, and nobody else may be left.
    fn share<'a>(&'a self, blob: &'a str) -> Pending<'a, io::Result<()>> {
        Box::pin(async move {
            let shared = async {
                for attempt in 0.. {
                    match self.try_share(blob).await {
                        Ok(()) => return,
                        Err(e) => tracing::warn!(blob, error = %e, "No controller took a copy of a blob yet; trying again"),
                    }
                    sleep(AGAIN.jittered(attempt)).await;
                }
            };
            timeout(SHARED, shared).await.map_err(|_| io::ErrorKind::TimedOut.into())
        })
    }
}
