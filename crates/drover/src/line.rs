//! A controller's end of the line: who joins, the nodes that are attached here, and the blobs that are.
use crate::admission::Admission;
use assign::{Agent, Blobs, Pending, Uplink};
use compute::nodes::Nodes;
use image::blob::LocalStore;
use link::{Grant, JoinRequest, Refused};
use pki::Identity;
use std::{io, path::Path, path::PathBuf, sync::Arc};

/// See the module.
pub(crate) struct Line {
    pub(crate) admission: Admission,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) blobs: Arc<LocalStore>,
    pub(crate) incoming: PathBuf,
}

impl link::Controller for Line {
    fn join(&self, request: JoinRequest) -> Pending<'_, Result<Grant, Refused>> {
        Box::pin(self.admission.join(request))
    }
    fn renew<'a>(&'a self, identity: &'a Identity, csr: &'a str) -> Pending<'a, Result<String, Refused>> {
        Box::pin(async move { self.admission.renew(identity, csr) })
    }
    fn attach<'a>(&'a self, host: &'a str, agent: Arc<dyn Agent>) -> Pending<'a, Result<Arc<dyn Uplink>, Refused>> {
        Box::pin(async move {
            let fresh = self.admission.cloud.db.fresh().await;
            fresh.map_err(|e| Refused(format!("This controller cannot reach the store: {e}.")))?;
            let uplink = self.nodes.join(host).await;
            self.nodes.attach(host, agent);
            Ok(uplink)
        })
    }
    fn detach<'a>(&'a self, host: &'a str) -> Pending<'a, ()> {
        Box::pin(async move {
            if let Err(e) = self.nodes.lost(host).await {
                tracing::warn!(error = %e, host, "Node {host} is away, which could not be noted: {e}");
            }
        })
    }
    fn agent(&self, host: &str) -> Option<Arc<dyn Agent>> {
        self.nodes.agent(host)
    }
    fn controllers(&self) -> Vec<String> {
        self.admission.lines()
    }
    fn open<'a>(&'a self, blob: &'a str) -> Pending<'a, io::Result<tokio::fs::File>> {
        Box::pin(async move { tokio::fs::File::open(self.blobs.path(blob).map_err(io::Error::other)?).await })
    }
    fn blobs(&self) -> &dyn Blobs {
        &*self.blobs
    }
    fn incoming(&self) -> &Path {
        &self.incoming
    }
}
