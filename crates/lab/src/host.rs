//! What a lab consists of: names, addresses and directories, all from a few numbers.
use crate::Error;
use serde::{Deserialize, Serialize};
use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

/// The public address of the cluster.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// Of the network that all hosts are on.
pub(crate) const PREFIX_LENGTH: u8 = 24;
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Controller,
    Node,
    /// Where the users are; nothing runs there.
    Client,
}

/// One machine of the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// `c1`, `n2`, `client`; also of its port of the bridge.
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) address: Ipv4Addr,
    pub(crate) netns: String,
}

/// What is kept in `lab.json`. Version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    version: u32,
    /// Namespaces are `PREFIX-HOST`.
    pub(crate) prefix: String,
    pub(crate) controllers: u8,
    pub(crate) nodes: u8,
    /// The nodes run real guests.
    #[serde(default)]
    pub(crate) real: bool,
}

impl Shape {
    pub(crate) fn new(prefix: &str, controllers: u8, nodes: u8, real: bool) -> Result<Self, Error> {
        if !(1..=9).contains(&controllers) || nodes > 80 {
            return Err(Error::Size { controllers, nodes });
        }
        Ok(Self { version: 1, prefix: prefix.to_owned(), controllers, nodes, real })
    }

    pub(crate) fn hosts(&self) -> Vec<Host> {
        let controller = |n| (format!("c{n}"), Role::Controller, Ipv4Addr::new(10, 77, 0, n));
        let node = |n| (format!("n{n}"), Role::Node, Ipv4Addr::new(10, 77, 0, 10 + n));
        let all = (1..=self.controllers).map(controller).chain((1..=self.nodes).map(node));
        let all = all.chain([("client".to_owned(), Role::Client, CLIENT)]);
        all.map(|(name, role, address)| Host { netns: self.netns(&name), name, role, address }).collect()
    }

    /// A host's ports of the bridge: its `eth0`, and of a real node the card that is on the provider network.
    pub(crate) fn ports(&self, host: &Host) -> Vec<String> {
        let uplink = (self.real && host.role == Role::Node).then(|| format!("{}x", host.name));
        std::iter::once(host.name.clone()).chain(uplink).collect()
    }

    /// The namespace with the bridge.
    pub(crate) fn switch(&self) -> String {
        self.netns("lab")
    }
    fn netns(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.real { "real" } else { "simulated" };
        write!(f, "{} controllers and {} {kind} nodes", self.controllers, self.nodes)
    }
}

/// A lab in its directory.
#[derive(Clone, Debug)]
pub(crate) struct Lab {
    pub(crate) dir: PathBuf,
    /// The program that runs on the hosts.
    pub(crate) drover: PathBuf,
    pub(crate) shape: Shape,
}

impl Lab {
    /// Where the lab of a state directory is.
    pub(crate) fn dir(state: &Path) -> PathBuf {
        state.join("lab")
    }

    /// The lab that is there, if any.
    pub(crate) fn find(state: &Path, drover: &Path) -> Result<Option<Self>, Error> {
        let dir = Self::dir(state);
        let path = dir.join("lab.json");
        let shape = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| Error::Damaged { path, source })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::File { act: "read", path, source }),
        };
        Ok(Some(Self { dir, drover: drover.into(), shape }))
    }

    pub(crate) fn open(state: &Path, drover: &Path) -> Result<Self, Error> {
        Self::find(state, drover)?.ok_or_else(|| Error::NoLab { dir: Self::dir(state) })
    }

    pub(crate) fn save(&self) -> Result<(), Error> {
        let path = self.dir.join("lab.json");
        let text = serde_json::to_vec_pretty(&self.shape).expect("a shape is plain data");
        std::fs::write(&path, text).map_err(file("write", &path))
    }

    pub(crate) fn host(&self, name: &str) -> Result<Host, Error> {
        let hosts = self.shape.hosts();
        let names = || hosts.iter().map(|h| h.name.as_str()).collect::<Vec<_>>().join(", ");
        hosts.iter().find(|h| h.name == name).cloned().ok_or_else(|| Error::NoHost { name: name.into(), hosts: names() })
    }

    /// A host's disk, which is also the state directory of what runs there.
    pub(crate) fn disk(&self, host: &Host) -> PathBuf {
        self.dir.join(&host.name)
    }
    /// Who vouches for the cluster's certificates.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }
    /// For the lab's own daemons.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }
}

pub(crate) fn file(act: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::File { act, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_follow_from_numbers() {
        let hosts = Shape::new("drover", 3, 2, false).unwrap().hosts();
        let text: Vec<_> = hosts.iter().map(|h| format!("{} {} {}", h.name, h.netns, h.address)).collect();
        assert_eq!(
            text,
            [
                "c1 drover-c1 10.77.0.1",
                "c2 drover-c2 10.77.0.2",
                "c3 drover-c3 10.77.0.3",
                "n1 drover-n1 10.77.0.11",
                "n2 drover-n2 10.77.0.12",
                "client drover-client 10.77.0.200"
            ]
        );
        let largest = Shape::new("drover", 9, 80, true).unwrap().hosts();
        let mut addresses: Vec<_> = largest.iter().map(|h| h.address).chain([VIP]).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), 9 + 80 + 2, "no address twice");
        assert!(matches!(Shape::new("drover", 10, 0, false), Err(Error::Size { .. })));
    }
}
