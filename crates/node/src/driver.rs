//! The ports of the agent: what a hypervisor, the interfaces, the metadata service and the volumes must be able to do.
//!
//! Two sets exist: QEMU with taps, namespaces and qcow2 files, and the simulated host. Every method must be safe to call twice and safe to drop
//! half-way: the agent looks again and plans anew.
use crate::{
    Error,
    plan::{Observed, Step},
    remember::Remembered,
    volume,
};
use assign::{Answer, Duplex, HostReport, MetadataNetwork, Pending, PortAssignment, ServerAssignment, VolumeAssignment};
use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

/// Ids that have an owner. Asked after things were listed: what came meanwhile is then not taken for a leftover.
pub type Owned<'a> = &'a (dyn Fn() -> BTreeSet<String> + Sync);

/// Called with an id when something happened to that server's guest, or to that volume's engine.
pub type Nudge = Arc<dyn Fn(&str) + Send + Sync>;

/// The ports that one agent works through.
#[derive(Clone)]
pub struct Ports {
    pub hypervisor: Arc<dyn Hypervisor>,
    pub nics: Arc<dyn Nics>,
    pub metadata: Arc<dyn Metadata>,
    pub volumes: Arc<dyn Volumes>,
}

/// Guests and their disks.
pub trait Hypervisor: Send + Sync {
    /// The host as it is now.
    fn host(&self) -> Pending<'_, HostReport>;
    /// Where to tell of guests that changed by themselves.
    fn on_change(&self, nudge: Nudge);
    /// Looks at a server.
    fn observe<'a>(&'a self, id: &'a str, known: &'a Remembered) -> Pending<'a, Result<Observed, Error>>;
    /// Takes one step of a plan towards the assignment. Steps that need no hypervisor are not handed to it.
    fn carry_out<'a>(&'a self, step: &'a Step, server: &'a ServerAssignment) -> Pending<'a, Result<(), Error>>;
    /// Ends the guest's process: by the power button when `grace` is given, by force after it.
    fn end<'a>(&'a self, id: &'a str, grace: Option<Duration>) -> Pending<'a, Result<(), Error>>;
    /// Removes all files of a server whose process has ended.
    fn destroy<'a>(&'a self, id: &'a str) -> Pending<'a, Result<(), Error>>;
    /// Copies the root disk into a file of its own; `image_id` names the work.
    fn snapshot<'a>(&'a self, id: &'a str, image_id: &'a str, format: &'a str) -> Pending<'a, Result<PathBuf, Error>>;
    fn console<'a>(&'a self, id: &'a str, lines: Option<usize>) -> Pending<'a, Result<Answer, Error>>;
    fn diagnostics<'a>(&'a self, id: &'a str) -> Pending<'a, Result<Answer, Error>>;
    fn vnc<'a>(&'a self, id: &'a str) -> Pending<'a, Result<Box<dyn Duplex>, Error>>;
    /// Ends processes and removes files that belong to no server; returns what was removed.
    fn sweep<'a>(&'a self, owned: Owned<'a>) -> Pending<'a, Vec<String>>;
    /// Bounds what grows by itself, such as console logs.
    fn trim(&self) -> Pending<'_, ()>;
}

/// Interfaces between guests and the virtual switch.
pub trait Nics: Send + Sync {
    /// Makes the port's interface and plugs it; returns the interface's name.
    fn plug<'a>(&'a self, port: &'a PortAssignment) -> Pending<'a, Result<String, Error>>;
    fn unplug<'a>(&'a self, port_id: &'a str) -> Pending<'a, Result<(), Error>>;
    /// Of these ports, those whose interface exists. Cheap: asked at each look.
    fn present(&self, ports: &mut dyn Iterator<Item = &String>) -> BTreeSet<String>;
    /// Removes interfaces with our prefix that belong to none of these ports; returns what was removed.
    fn sweep<'a>(&'a self, owned: Owned<'a>) -> Pending<'a, Vec<String>>;
}

/// The metadata service of the networks on this node.
pub trait Metadata: Send + Sync {
    /// Makes the network's namespace and answers in it.
    fn ensure<'a>(&'a self, network: &'a MetadataNetwork) -> Pending<'a, Result<(), Error>>;
    fn remove<'a>(&'a self, network_id: &'a str) -> Pending<'a, Result<(), Error>>;
    /// What this server may read; replaces what was published for it.
    fn publish(&self, server: &Arc<ServerAssignment>);
    fn withdraw(&self, server_id: &str);
    /// Removes namespaces with our prefix that belong to none of these networks; returns what was removed.
    fn sweep<'a>(&'a self, owned: Owned<'a>) -> Pending<'a, Vec<String>>;
}

/// The data of volumes on this node, and the ways to it.
pub trait Volumes: Send + Sync {
    /// Where to tell of volumes whose engine changed by itself.
    fn on_change(&self, nudge: Nudge);
    /// Looks at a volume.
    fn observe<'a>(&'a self, id: &'a str) -> Pending<'a, Result<volume::plan::Seen, Error>>;
    /// Takes one step of a plan towards the assignment.
    fn carry_out<'a>(&'a self, step: &'a volume::plan::Step, volume: &'a VolumeAssignment) -> Pending<'a, Result<(), Error>>;
    /// Ends processes and removes files that belong to no volume and to none of these attachments and volumes; returns what was removed.
    fn sweep<'a>(&'a self, owned: Owned<'a>) -> Pending<'a, Vec<String>>;
}
