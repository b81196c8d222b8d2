//! What one's own etcd is started with: pure data in, a command line and an environment out.
//!
//! The command line says what holds for the member's whole life, so that a change of it shows as a stale daemon. What only its
//! first start reads is in the environment.
use crate::{Limits, Tls};
use std::{path::PathBuf, time::Duration};

/// How often etcd lets clients probe their connections, and how often it probes theirs.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Of the database, in bytes; etcd's makers advise against more.
pub const QUOTA: u64 = 8 << 30;
/// How long history is kept for watchers that come back.
const HISTORY: &str = "3m";

/// Certificates of a member as PEM files: one of its own that is good for server and client, and the CA of those it trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The DNS name that the certificates of peers and clients must have as well; without it, any that the CA signed will do.
    pub allowed: Option<String>,
}
impl From<Certificates> for Tls {
    fn from(c: Certificates) -> Self {
        Self { ca: c.ca, identity: Some((c.certificate, c.key)) }
    }
}

/// One member of an etcd cluster on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Unique in the cluster.
    pub name: String,
    /// etcd's own directory, on a fast disk; nobody else's.
    pub data_dir: PathBuf,
    /// For the log and the pid.
    pub run_dir: PathBuf,
    /// Where the other members reach it, as `https://HOST:PORT`; it listens there.
    pub peer_url: String,
    /// Where clients reach it; it listens there.
    pub client_url: String,
    /// With them, members must show certificates to each other.
    pub peer_tls: Option<Certificates>,
    /// With them, clients must show certificates; also what this crate shows as a client.
    pub client_tls: Option<Certificates>,
    /// A named network namespace.
    pub netns: Option<String>,
}

/// A member as the others see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    pub name: String,
    pub peer_url: String,
}

/// How a member without data comes to some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// A new cluster; every member is started with the same list.
    New { members: Vec<Peer>, token: String },
    /// A cluster that has been told of this member; the list is what it answered.
    Join { members: Vec<Peer> },
    /// There are data.
    Again,
}

impl Spec {
    pub fn peer(&self) -> Peer {
        Peer { name: self.name.clone(), peer_url: self.peer_url.clone() }
    }

    pub(super) fn argv(&self) -> Vec<String> {
        let Limits { txn_ops, request_bytes } = Limits::SUPERVISED;
        let mut argv = vec!["etcd".to_owned()];
        let mut flag = |name: &str, value: &dyn std::fmt::Display| argv.push(format!("--{name}={value}"));
        flag("name", &self.name);
        flag("data-dir", &self.data_dir.display());
        flag("listen-peer-urls", &self.peer_url);
        flag("initial-advertise-peer-urls", &self.peer_url);
        flag("listen-client-urls", &self.client_url);
        flag("advertise-client-urls", &self.client_url);
        for (prefix, tls) in [("", &self.client_tls), ("peer-", &self.peer_tls)] {
            if let Some(tls) = tls {
                flag(&format!("{prefix}trusted-ca-file"), &tls.ca.display());
                flag(&format!("{prefix}cert-file"), &tls.certificate.display());
                flag(&format!("{prefix}key-file"), &tls.key.display());
                flag(&format!("{prefix}client-cert-auth"), &true);
                if let Some(name) = &tls.allowed {
                    flag(if prefix.is_empty() { "client-cert-allowed-hostname" } else { "peer-cert-allowed-hostname" }, name);
                }
            }
        }
        flag("max-txn-ops", &txn_ops);
        flag("max-request-bytes", &request_bytes);
        flag("quota-backend-bytes", &QUOTA);
        flag("auto-compaction-mode", &"periodic");
        flag("auto-compaction-retention", &HISTORY);
        // A member that joins gets a snapshot and little more, not everything that was written since the cluster began.
        flag("snapshot-count", &10000);
        // A leader that died is replaced within a third of a second; nothing is read or written meanwhile. Made for one site (RTT of
        // milliseconds): a leader whose disk or processor keeps it for longer than the timeout is replaced, too.
        flag("heartbeat-interval", &25);
        flag("election-timeout", &150);
        // A member that was cut off and returns must not unseat a leader that works.
        flag("pre-vote", &true);
        flag("grpc-keepalive-min-time", &format!("{}s", KEEP_ALIVE.as_secs()));
        flag("grpc-keepalive-interval", &format!("{}s", 5 * KEEP_ALIVE.as_secs()));
        flag("grpc-keepalive-timeout", &format!("{}s", 2 * KEEP_ALIVE.as_secs()));
        flag("experimental-watch-progress-notify-interval", &"10s");
        flag("logger", &"zap");
        flag("log-outputs", &"stderr");
        argv
    }

    pub(super) fn env(&self, begin: &Begin) -> Vec<(String, String)> {
        let list = |members: &[Peer]| members.iter().map(|m| format!("{}={}", m.name, m.peer_url)).collect::<Vec<_>>().join(",");
        let mut env = Vec::new();
        let mut set = |name: &str, value: String| env.push((name.to_owned(), value));
        match begin {
            Begin::New { members, token } => {
                set("ETCD_INITIAL_CLUSTER", list(members));
                set("ETCD_INITIAL_CLUSTER_STATE", "new".into());
                set("ETCD_INITIAL_CLUSTER_TOKEN", token.clone());
            }
            Begin::Join { members } => {
                set("ETCD_INITIAL_CLUSTER", list(members));
                set("ETCD_INITIAL_CLUSTER_STATE", "existing".into());
            }
            // Read only if the data are gone; then it must fail rather than be an empty cluster of its own.
            Begin::Again => {
                set("ETCD_INITIAL_CLUSTER", list(&[self.peer()]));
                set("ETCD_INITIAL_CLUSTER_STATE", "existing".into());
            }
        }
        if cfg!(target_arch = "aarch64") {
            // etcd 3.4 refuses it otherwise.
            set("ETCD_UNSUPPORTED_ARCH", "arm64".into());
        }
        env
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        let pem = |name: &str| Certificates {
            ca: "/etc/drover/ca.pem".into(),
            certificate: format!("/etc/drover/{name}.pem").into(),
            key: format!("/etc/drover/{name}.key").into(),
            allowed: (name == "peer").then(|| "controller.drover.internal".into()),
        };
        Spec {
            name: "c1".into(),
            data_dir: "/var/lib/drover/etcd".into(),
            run_dir: "/run/drover".into(),
            peer_url: "https://10.0.0.1:2380".into(),
            client_url: "https://10.0.0.1:2379".into(),
            peer_tls: Some(pem("peer")),
            client_tls: Some(pem("etcd")),
            netns: None,
        }
    }

    #[test]
    fn the_command_line_of_a_member() {
        let golden = "\
etcd
--name=c1
--data-dir=/var/lib/drover/etcd
--listen-peer-urls=https://10.0.0.1:2380
--initial-advertise-peer-urls=https://10.0.0.1:2380
--listen-client-urls=https://10.0.0.1:2379
--advertise-client-urls=https://10.0.0.1:2379
--trusted-ca-file=/etc/drover/ca.pem
--cert-file=/etc/drover/etcd.pem
--key-file=/etc/drover/etcd.key
--client-cert-auth=true
--peer-trusted-ca-file=/etc/drover/ca.pem
--peer-cert-file=/etc/drover/peer.pem
--peer-key-file=/etc/drover/peer.key
--peer-client-cert-auth=true
--peer-cert-allowed-hostname=controller.drover.internal
--max-txn-ops=8192
--max-request-bytes=10485760
--quota-backend-bytes=8589934592
--auto-compaction-mode=periodic
--auto-compaction-retention=3m
--snapshot-count=10000
--heartbeat-interval=25
--election-timeout=150
--pre-vote=true
--grpc-keepalive-min-time=1s
--grpc-keepalive-interval=5s
--grpc-keepalive-timeout=2s
--experimental-watch-progress-notify-interval=10s
--logger=zap
--log-outputs=stderr";
        assert_eq!(spec().argv().join("\n"), golden);
        let plain = Spec { peer_tls: None, client_tls: None, ..spec() };
        assert!(!plain.argv().iter().any(|a| a.contains("cert")));
    }

    #[test]
    fn the_first_start_is_in_the_environment() {
        let other = Peer { name: "c2".into(), peer_url: "https://10.0.0.2:2380".into() };
        let members = vec![spec().peer(), other];
        let text = |begin| {
            let env = spec().env(&begin).into_iter().filter(|(k, _)| k != "ETCD_UNSUPPORTED_ARCH");
            env.map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(
            text(Begin::New { members: members.clone(), token: "cloud".into() }),
            "ETCD_INITIAL_CLUSTER=c1=https://10.0.0.1:2380,c2=https://10.0.0.2:2380\n\
             ETCD_INITIAL_CLUSTER_STATE=new\n\
             ETCD_INITIAL_CLUSTER_TOKEN=cloud"
        );
        assert_eq!(
            text(Begin::Join { members }),
            "ETCD_INITIAL_CLUSTER=c1=https://10.0.0.1:2380,c2=https://10.0.0.2:2380\nETCD_INITIAL_CLUSTER_STATE=existing"
        );
        assert_eq!(text(Begin::Again), "ETCD_INITIAL_CLUSTER=c1=https://10.0.0.1:2380\nETCD_INITIAL_CLUSTER_STATE=existing");
    }
}
