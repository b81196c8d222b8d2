//! Where the northbound database is: on this machine, or on all controllers of a cluster.
use super::Failure;
use crate::ovn::{
    Central, Nb,
    cluster::{self, Cluster, Database},
};
use ovsdb::{Endpoint, Leader, Target, Tls};
use reconcile::Fence;
use resource::Reader;
use store::{Db, Tx};
use supervise::Watched;
use tokio::sync::watch;

pub(super) enum Place {
    Here {
        central: Central,
        /// The chassis for router gateways.
        gateways: Vec<String>,
    },
    Cluster {
        tls: Tls,
    },
}

/// The database, and the raft that it was found in.
pub(super) struct Open {
    pub(super) nb: Nb,
    raft: Option<Raft>,
}

struct Raft {
    cid: String,
    endpoints: watch::Sender<Vec<Endpoint>>,
}

impl Place {
    pub(super) fn gateways(&self, reader: &Reader<'_>) -> Vec<String> {
        match self {
            Self::Here { gateways, .. } => gateways.clone(),
            Self::Cluster { .. } => cluster::gateways(reader),
        }
    }

    pub(super) async fn open(&self, db: &Db) -> Result<Open, Failure> {
        match self {
            Self::Here { central, .. } => Ok(Open { nb: central.ensure_databases().await?, raft: None }),
            Self::Cluster { tls } => {
                let (found, members) = {
                    let reader = db.read();
                    (cluster::read(&reader, Database::Northbound).0, cluster::northbound(&reader))
                };
                let cid = found.ok_or("no controller has begun OVN's databases yet")?.cid;
                let (endpoints, known) = watch::channel(members);
                let leader = Leader { database: Database::Northbound.name().into(), cluster: Some(cid.clone()) };
                let target = Target { endpoints: known, tls: Some(tls.clone()), leader: Some(leader) };
                let nb = Nb::reach(target).await?;
                nb.prepare().await?;
                Ok(Open { nb, raft: Some(Raft { cid, endpoints }) })
            }
        }
    }

    /// The database holds what it shall: northd may look at it.
    pub(super) async fn filled(&self, db: &Db, fence: &Fence, open: &Open) -> Result<Option<[Watched; 3]>, Failure> {
        match (self, &open.raft) {
            (Self::Here { central, .. }, _) => {
                central.ensure_northd().await?;
                Ok(Some(central.watch()))
            }
            (Self::Cluster { .. }, None) => Ok(None),
            (Self::Cluster { .. }, Some(raft)) => {
                let (fence, cid) = (fence.clone(), raft.cid.clone());
                let written = db.transact(move |tx: &mut Tx<'_>| {
                    fence.check(tx)?;
                    if let Some(cluster) = Cluster::in_tx(tx, Database::Northbound).filter(|c| c.cid == cid && !c.filled) {
                        Cluster { filled: true, ..cluster }.put(tx, Database::Northbound);
                    }
                    Ok::<(), resource::Error>(())
                });
                written.await?;
                Ok(None)
            }
        }
    }
}

impl Open {
    /// Takes over where the members are now. Fails when another raft counts.
    pub(super) fn moved(&mut self, db: &Db) -> Result<(), Failure> {
        let Some(raft) = &self.raft else { return Ok(()) };
        let reader = db.read();
        if cluster::read(&reader, Database::Northbound).0.is_none_or(|c| c.cid != raft.cid) {
            return Err("OVN's northbound database was begun anew".into());
        }
        let members = cluster::northbound(&reader);
        raft.endpoints.send_if_modified(|known| {
            let is_new = *known != members;
            *known = members;
            is_new
        });
        Ok(())
    }
}
