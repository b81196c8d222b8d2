//! Runs one's own member of an etcd cluster: starts it, joins it, replaces it, and looks after its data.
//!
//! ```text
//!              ensure_bootstrapped (all members at once)
//!   no data ───────────────────────────────────────────────▶ voter ◀── ensure_running after any restart
//!      │  ensure_joined: told to the cluster, started,          │
//!      │  learner ──caught up──▶ ───────────────────────────────┘
//!      └◀── removed from the cluster by someone else: its data are set aside, and it joins anew
//! ```
//!
//! Every function is safe to repeat. The process outlives Drover, as all daemons of `supervise` do. It does not decide by itself that
//! another member is dead: [`Cluster::ensure_removed`] is the operator's word, or the controller's with proof.
mod cluster;
mod damage;
mod snapshot;
mod spec;

pub use cluster::{Alarms, Cluster, Health, MemberInfo};
pub use snapshot::{Restored, Snapshot, ensure_restored, revision, save, verify};
pub use spec::{Begin, Certificates, KEEP_ALIVE, Peer, QUOTA, Spec};

use crate::{Tls, verdict::store_error, wire};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use store::StoreError;
use supervise::{Daemon, Identity, Ready, Running, Watched};
use tonic::Status;

/// etcd serves nobody before it has found a leader, so this is also how long the others may take to start.
const START: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_secs(1);
/// While a member stands still the leader's words for it pile up: heartbeats above all, several for each linearizable read. A member that
/// woke would answer every one, and each answer has the leader send the newest part of its log again, for half a minute, in which the two of
/// them have time for little else. With the process go its connections and what waits in them.
const STILL: Duration = Duration::from_secs(2);
/// A heartbeat that is late on a busy machine costs an election.
const FIRST: i8 = -10;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Call(#[from] StoreError),
    #[error(transparent)]
    Daemon(#[from] supervise::Error),
    #[error("cannot {act} {path}; check its owner and the free space", path = path.display())]
    File { act: &'static str, path: PathBuf, source: std::io::Error },
    #[error("etcd knows no member {who}; look at the list of its members")]
    NoMember { who: String },
    #[error("{} has no data of etcd; bootstrap a cluster, join one or restore a snapshot", path.display())]
    NoData { path: PathBuf },
    #[error("{} is no whole snapshot of etcd: {why}; take another one", path.display())]
    BadSnapshot { path: PathBuf, why: String },
    #[error("the snapshot could not be read or restored: {stderr}")]
    Restore { stderr: String },
}
impl Error {
    fn call(status: Status) -> Self {
        Self::Call(store_error(&status))
    }
    fn file(act: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { act, path: path.into(), source }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Member {
    spec: Spec,
}

impl Member {
    pub fn new(spec: Spec) -> Self {
        Self { spec }
    }

    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    fn tls(&self) -> Option<Tls> {
        self.spec.client_tls.clone().map(Into::into)
    }

    /// This one member as a cluster to talk to.
    pub fn admin(&self) -> Result<Cluster, Error> {
        Cluster::new(std::slice::from_ref(&self.spec.client_url), self.tls().as_ref())
    }

    pub fn has_data(&self) -> bool {
        has_data(&self.spec.data_dir)
    }

    fn daemon(&self, begin: &Begin) -> Result<Daemon, Error> {
        let endpoint = self.admin()?.client.endpoints()[0].clone();
        let ready = Ready::Check(Arc::new(move || {
            let channel = endpoint.channel();
            let ask = async move { wire::unary::<_, wire::StatusResponse>(channel, wire::STATUS, wire::Empty {}).await };
            Box::pin(async move { matches!(tokio::time::timeout(PROBE, ask).await, Ok(Ok(s)) if s.leader != 0) })
        }));
        let mut daemon = Daemon::new(format!("etcd-{}", self.spec.name), &self.spec.run_dir, self.spec.argv())
            .netns(self.spec.netns.clone())
            .ready(ready)
            .still(STILL)
            .nice(FIRST);
        daemon.ready_within = START;
        Ok(self.spec.env(begin).into_iter().fold(daemon, |d, (name, value)| d.env(&name, value)))
    }

    async fn start(&self, begin: &Begin) -> Result<Running, Error> {
        private(&self.spec.data_dir)?;
        let running = self.daemon(begin)?.ensure().await?;
        // Later it tells whether the cluster still knows the member that these data are of.
        if let Some(Ok(health)) = self.admin()?.health().await.into_iter().next() {
            write_id(&self.id_file(), health.id)?;
        }
        Ok(running)
    }

    /// Starts the member as one of a new cluster; every one of `members` does the same at about the same time. `token` tells clusters
    /// apart. A member that has data just runs.
    pub async fn ensure_bootstrapped(&self, members: &[Peer], token: &str) -> Result<Running, Error> {
        if self.has_data() {
            return self.ensure_running().await;
        }
        self.start(&Begin::New { members: members.to_vec(), token: token.into() }).await
    }

    /// Starts the member as one more of a cluster that runs, and returns when it votes. If the cluster has a member at its address
    /// whose data are lost, or the cluster has dropped this one, it takes a place anew.
    pub async fn ensure_joined(&self, cluster: &Cluster) -> Result<Running, Error> {
        let members = cluster.members().await?;
        let here = members.iter().find(|m| m.peer_urls.contains(&self.spec.peer_url));
        let known = read_id(&self.id_file());
        if self.has_data() && known.is_some_and(|id| !members.iter().any(|m| m.id == id)) {
            tracing::warn!("etcd's cluster has dropped this member; its data are set aside and it joins anew");
            self.ensure_stopped(Duration::from_secs(5)).await?;
            set_aside(&self.spec.data_dir)?;
        } else if !self.has_data()
            && let Some(lost) = here.filter(|m| !m.name.is_empty())
        {
            tracing::warn!("etcd's member {} has lost its data; it is taken out and joins anew", lost.name);
            cluster.ensure_removed(lost.id).await?;
        }
        let (me, members) = cluster.ensure_added(&self.spec.peer_url).await?;
        let begin = if self.has_data() { Begin::Again } else { Begin::Join { members: peers(&members, &me, &self.spec.name) } };
        let running = self.start(&begin).await?;
        cluster.ensure_voter(me.id).await?;
        Ok(running)
    }

    /// Starts a member that has data.
    pub async fn ensure_running(&self) -> Result<Running, Error> {
        if !self.has_data() {
            return Err(Error::NoData { path: self.spec.data_dir.clone() });
        }
        self.start(&Begin::Again).await
    }

    /// Keeps a member that has data running for as long as the guard lives.
    pub fn watch(&self) -> Result<Watched, Error> {
        Ok(self.daemon(&Begin::Again)?.watch())
    }

    /// Ends the process; the cluster goes on expecting it.
    pub async fn ensure_stopped(&self, grace: Duration) -> Result<(), Error> {
        Ok(self.daemon(&Begin::Again)?.stop(grace).await?)
    }

    /// The process that runs now.
    pub fn running(&self) -> Result<Option<Identity>, Error> {
        Ok(self.daemon(&Begin::Again)?.running())
    }

    /// Outside of etcd's directory, which a restore makes anew.
    fn id_file(&self) -> PathBuf {
        self.spec.data_dir.with_extension("member")
    }
}

fn has_data(data_dir: &Path) -> bool {
    // As etcd itself judges: its log is there as a whole or not at all.
    let is_log = |f: std::fs::DirEntry| f.path().extension().is_some_and(|e| e == "wal");
    std::fs::read_dir(data_dir.join("member/wal")).is_ok_and(|files| files.flatten().any(is_log))
}

/// The list that a joining member is started with: all who have started, and itself.
fn peers(members: &[MemberInfo], me: &MemberInfo, name: &str) -> Vec<Peer> {
    let named = |m: &MemberInfo| if m.id == me.id { name.to_owned() } else { m.name.clone() };
    let peer = |m: &MemberInfo| m.peer_urls.iter().map(|url| Peer { name: named(m), peer_url: url.clone() }).collect::<Vec<_>>();
    members.iter().filter(|m| m.id == me.id || !m.name.is_empty()).flat_map(peer).collect()
}

/// Secrets of the cloud are in there, if encrypted.
fn private(dir: &Path) -> Result<(), Error> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::file("create", dir))?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(Error::file("protect", dir))
}

fn set_aside(data_dir: &Path) -> Result<(), Error> {
    for n in 1.. {
        let aside = data_dir.with_extension(format!("old-{n}"));
        if !aside.exists() {
            return std::fs::rename(data_dir, aside).map_err(Error::file("set aside", data_dir));
        }
    }
    Ok(())
}

fn read_id(path: &Path) -> Option<u64> {
    u64::from_str_radix(std::fs::read_to_string(path).ok()?.trim(), 16).ok()
}

fn write_id(path: &Path, id: u64) -> Result<(), Error> {
    std::fs::write(path, format!("{id:x}\n")).map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joining_member_is_started_with_those_who_have_started() {
        let member = |id, name: &str, url: &str| MemberInfo {
            id,
            name: name.into(),
            peer_urls: vec![url.into()],
            client_urls: vec![],
            learner: false,
        };
        let me = member(3, "", "http://c:1");
        let all = [member(1, "a", "http://a:1"), member(2, "", "http://b:1"), me.clone()];
        let peer = |name: &str, url: &str| Peer { name: name.into(), peer_url: url.into() };
        assert_eq!(peers(&all, &me, "c"), [peer("a", "http://a:1"), peer("c", "http://c:1")]);
    }
}
