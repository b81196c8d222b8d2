//! One controller of a cluster: where it is reached, its certificate, and its member of etcd.
//!
//! ```text
//!   8774  front door: the public APIs (TLS)         2379  etcd, for controllers (mTLS)
//!   8775  link: nodes and controllers (mTLS)        2380  etcd, among its members (mTLS)
//!   8776  the APIs of this process (TLS)           6641  OVN northbound, for controllers (mTLS); its raft: 6643
//!                                                 6645  OVN southbound, for controllers (mTLS); its raft: 6644
//!                                                 6642  a relay of it, for nodes (mTLS)
//! ```
use crate::{
    central,
    config::{Config, State},
};
use ipnet::IpNet;
use pki::{Ca, Files, Identity, Role};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::SystemTime,
};
use store_etcd::member::{Certificates, Member, MemberInfo, Spec};

pub(crate) const PUBLIC: u16 = 8774;
pub(crate) const LINK: u16 = link::PORT;
pub(crate) const API: u16 = 8776;
const ETCD: u16 = 2379;
const ETCD_PEERS: u16 = 2380;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Controller {
    /// It is reached here by the others, for as long as it lives.
    pub(crate) address: IpAddr,
    /// The address that moves among the controllers, and the width of its network.
    pub(crate) vip: Option<IpNet>,
    /// The interface that has the VIP.
    pub(crate) interface: Option<String>,
    pub(crate) etcd: Seat,
}

/// How far this machine is with its member of etcd. Without it, data that were lost would look like those of a new cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Seat {
    /// It is about to begin a cluster.
    Founding,
    /// It was let in, and its member is on its way.
    Joining,
    /// It has a member with data.
    Member,
    /// Somebody else runs etcd.
    External,
}

impl Controller {
    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }
    fn url(&self, port: u16) -> String {
        format!("https://{}", self.at(port))
    }

    /// The one place that knows who answers at the public port: haproxy, or this process where it is not installed.
    pub(crate) fn has_front_door(&self) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join("haproxy").is_file())
    }
    pub(crate) fn listens(&self) -> Vec<SocketAddr> {
        if self.has_front_door() { vec![self.at(API)] } else { vec![self.at(API), self.at(PUBLIC)] }
    }
    pub(crate) fn public_endpoint(&self) -> String {
        format!("https://{}", SocketAddr::new(self.vip.map_or(self.address, |vip| vip.addr()), PUBLIC))
    }
    pub(crate) fn local_endpoint(&self) -> String {
        self.url(API)
    }
    /// Where machines that join go.
    pub(crate) fn link(&self) -> SocketAddr {
        self.at(LINK)
    }
    /// Our member among those of [`crate::engine::Place::Etcd`].
    pub(crate) fn etcd_member(&self) -> String {
        self.at(ETCD).to_string()
    }
    /// What its certificate is good for.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let mut all = vec![self.address, Ipv4Addr::LOCALHOST.into()];
        all.extend(self.vip.map(|vip| vip.addr()));
        all.dedup();
        all
    }

    /// Its own member of etcd; none where somebody else runs it.
    pub(crate) fn member(&self, state: &State, name: &str) -> Option<Member> {
        if self.etcd == Seat::External {
            return None;
        }
        let Files { ca, certificate, key } = Files::of(&state.pki());
        let tls = Certificates { ca, certificate, key, allowed: Some(Role::Controller.server_name()) };
        Some(Member::new(Spec {
            name: name.to_owned(),
            data_dir: state.etcd().join("data"),
            run_dir: state.run("etcd"),
            peer_url: self.url(ETCD_PEERS),
            client_url: self.url(ETCD),
            peer_tls: Some(tls.clone()),
            client_tls: Some(tls),
            netns: None,
        }))
    }

    /// Has this machine's key certified; its key stays.
    pub(crate) fn certify(&self, state: &State, name: &str, ca: &Ca) -> Result<(), String> {
        let files = Files::of(&state.pki());
        let identity = Identity { role: Role::Controller, name: name.to_owned() };
        let request = files.request().map_err(|e| base::chain(&e))?;
        let issued = ca.sign(&request.csr_pem, &identity, &self.addresses()).map_err(|e| base::chain(&e))?;
        files.keep(&issued).map_err(|e| base::chain(&e))?;
        central::certify(state, name, ca, &self.addresses()).map_err(|e| base::chain(&e))
    }
}

/// Replaces the certificate when it wants to be.
pub(crate) fn renew(state: &State, config: &Config, now: SystemTime) -> Result<bool, String> {
    let Some(controller) = &config.controller else { return Ok(false) };
    // One that was made by a version before OVN's has half of what it needs.
    if central::is_certified(state) && !Files::of(&state.pki()).wants_renewal(now).map_err(|e| base::chain(&e))? {
        return Ok(false);
    }
    let ca = Ca::load(&state.pki()).map_err(|e| base::chain(&e))?;
    controller.certify(state, &config.name(), &ca)?;
    Ok(true)
}

/// Members as `host:port` that can be asked, our own first: those that have started and vote.
pub(crate) fn askable(members: &[MemberInfo], own: &str) -> Vec<String> {
    let host = |url: &String| url.split_once("://").map(|(_, rest)| rest.trim_end_matches('/').to_owned());
    let mut all: Vec<String> =
        members.iter().filter(|m| !m.learner).flat_map(|m| m.client_urls.iter().filter_map(host)).collect();
    all.sort_by_key(|m| (m != own, m.clone()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller(vip: Option<&str>) -> Controller {
        let vip = vip.map(|v| v.parse().unwrap());
        Controller { address: [10, 0, 0, 1].into(), vip, interface: None, etcd: Seat::Member }
    }

    #[test]
    fn clients_go_to_the_vip_where_there_is_one() {
        let (with, without) = (controller(Some("10.0.0.100/24")), controller(None));
        assert_eq!(with.public_endpoint(), "https://10.0.0.100:8774");
        assert_eq!(without.public_endpoint(), "https://10.0.0.1:8774");
        assert_eq!(with.local_endpoint(), "https://10.0.0.1:8776");
        assert!(with.addresses().contains(&[10, 0, 0, 100].into()));
        let six = Controller { address: "fd00::1".parse().unwrap(), ..without };
        assert_eq!((six.etcd_member(), six.public_endpoint()), ("[fd00::1]:2379".into(), "https://[fd00::1]:8774".into()));
    }

    #[test]
    fn own_members_come_first_and_learners_not_at_all() {
        let member = |name: &str, url: &str, learner| MemberInfo {
            id: 1,
            name: name.into(),
            peer_urls: vec![],
            client_urls: if url.is_empty() { vec![] } else { vec![url.into()] },
            learner,
        };
        let all = [
            member("c3", "https://10.0.0.3:2379", false),
            member("c1", "https://10.0.0.1:2379", false),
            member("c2", "https://10.0.0.2:2379/", false),
            member("c4", "https://10.0.0.4:2379", true),
            member("", "", true),
        ];
        assert_eq!(askable(&all, "10.0.0.2:2379"), ["10.0.0.2:2379", "10.0.0.1:2379", "10.0.0.3:2379"]);
    }
}
