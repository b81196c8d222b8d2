//! The contract between controllers and nodes: assignments down, reports up, and a few questions.
//!
//! Assignments are *levels*, not commands: a node compares what it is told with what it sees and acts until both agree. Every
//! assignment carries the server's **epoch**, which grows with each placement; a node never acts for an epoch older than the
//! newest it has seen. Things that happen once (a reboot, a rebuild) are counters: the node remembers, durably, the last value
//! that it carried out. Reports say only what was observed.
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, future::Future, path::Path, pin::Pin, sync::Arc};

/// A boxed future, for traits that are used as objects.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// All that one node has to do, keyed by id. Replaced as a whole; unchanged entries keep their `Arc`.
#[derive(Clone, Debug, Default)]
pub struct Assignments {
    pub servers: BTreeMap<String, Arc<ServerAssignment>>,
    /// Networks that need a metadata responder on this node, by network id.
    pub networks: BTreeMap<String, Arc<MetadataNetwork>>,
    /// Images to be made from a server's root disk, by image id.
    pub snapshots: BTreeMap<String, Arc<SnapshotAssignment>>,
    /// Volumes whose data this node keeps, by volume id. A volume that is not named here is left alone: data goes only by [`Keep::Deleted`].
    pub volumes: BTreeMap<String, Arc<VolumeAssignment>>,
}

/// The power state that the user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    Running,
    Paused,
    Stopped,
}

/// One server on this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerAssignment {
    /// UUID of the server; also the guest's SMBIOS UUID.
    pub id: String,
    /// Grows with every placement; the fence of DESIGN section 7.
    pub epoch: u64,
    /// Revision of the row that this was made from; echoed in reports.
    pub revision: u64,
    /// Request that caused the newest change, for logs.
    pub request_id: String,
    pub name: String,
    pub power: Power,
    pub reboot: Reboot,
    pub vcpus: u32,
    /// MiB.
    pub memory_mib: u64,
    /// `None`: the root disk is the volume that says `boot`.
    pub root: Option<RootDisk>,
    /// Boot from this image instead, with the root disk as the second disk.
    pub rescue: Option<ImageRef>,
    pub ports: Vec<PortAssignment>,
    /// Volumes to be plugged; each has an export already.
    pub volumes: Vec<AttachedVolume>,
    pub config_drive: bool,
    pub guest: Arc<GuestData>,
    /// Flavor extra specs and image properties that the driver understands (`hw_*`).
    pub properties: BTreeMap<String, String>,
}

/// Asked-for reboots, counted. The node carries out the newest one once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reboot {
    pub count: u64,
    /// A hard reboot restarts the QEMU process; a soft one asks the guest by ACPI and becomes hard after a time-out.
    pub hard: bool,
}

/// The root disk: an overlay on an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootDisk {
    pub image: ImageRef,
    /// GiB; 0 means the image's own virtual size.
    pub size_gib: u64,
    /// Grows with each rebuild: a new value means a new disk from `image`.
    pub generation: u64,
}

/// An immutable image blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    /// Glance image id, for messages.
    pub image_id: String,
    /// Content hash (SHA-512, hex): the blob's name.
    pub blob: String,
    /// Format found by our inspector: `raw`, `qcow2`, `vmdk`, `vhdx`, `vhd`, `vdi`, `iso`.
    pub format: String,
}

/// One interface of a server. The logical switch port in OVN has the port's id as its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortAssignment {
    pub id: String,
    pub network_id: String,
    pub mac: String,
    /// Bytes.
    pub mtu: u16,
    /// Addresses without prefix length; they tell the metadata responder who asks.
    pub fixed_ips: Vec<String>,
}

/// What the guest may read from its config drive and the metadata service. Built by the control plane, served by the node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GuestData {
    /// Content of `openstack/latest/meta_data.json`.
    pub meta_data: serde_json::Value,
    /// Content of `openstack/latest/network_data.json`.
    pub network_data: serde_json::Value,
    /// Base64, as the user gave it.
    pub user_data: Option<String>,
    /// What the guest posted as its password, as it posted it.
    pub password: Option<String>,
    /// Content of `openstack/latest/vendor_data.json`.
    pub vendor_data: serde_json::Value,
    /// EC2 tree below `/latest/meta-data/`, path to text (`hostname`, `local-ipv4`, `public-keys/0/openssh-key`, …).
    pub ec2: BTreeMap<String, String>,
}

/// A network whose guests ask for metadata on this node: an OVN `localport` in a namespace of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataNetwork {
    pub network_id: String,
    /// Name of the logical switch port of type `localport`.
    pub port: String,
    pub mac: String,
    /// Addresses with prefix length in the network's subnets, e.g. `10.0.0.2/24`.
    pub addresses: Vec<String>,
    pub mtu: u16,
}

/// Shall a volume's data be there?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    Present,
    /// Exports are ended, then data and snapshots are removed; the report says `Gone`.
    Deleted,
}

/// One volume on the node that keeps its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeAssignment {
    pub id: String,
    /// Revision of the intent; echoed in reports.
    pub revision: u64,
    /// Request that caused the newest change, for logs.
    pub request_id: String,
    pub keep: Keep,
    /// GiB. A larger value than what is there means: grow; it never shrinks.
    pub size_gib: u64,
    /// What a new volume is made of. Read only when there is no data yet.
    pub source: VolumeSource,
    /// Grows each time that the content shall be replaced by `source` (revert to a snapshot, re-image).
    pub generation: u64,
    /// Ids of the snapshots that shall be there. One that is there and not named is removed.
    pub snapshots: Vec<String>,
    /// Who may reach the data now. An export that is not named is revoked, and its end confirmed in the report.
    pub exports: Vec<Export>,
    /// Images to be made of it.
    pub uploads: Vec<VolumeUpload>,
}

/// Where a volume's first content comes from. Sources lie on the same node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeSource {
    Blank,
    Image(ImageRef),
    Snapshot { volume_id: String, snapshot_id: String },
    Volume { volume_id: String },
}

/// One consumer's way to a volume: an engine process of its own under the epoch's name, so that ending it is the fence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    pub attachment_id: String,
    /// Grows each time that the attachment moves to another consumer; part of the export's name.
    pub epoch: u64,
    pub read_only: bool,
}

/// An image to be made of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeUpload {
    pub image_id: String,
    /// `qcow2` or `raw`.
    pub format: String,
}

/// A volume plugged into a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedVolume {
    pub attachment_id: String,
    pub volume_id: String,
    pub epoch: u64,
    /// As the storage node reported it, `unix:/path` for now.
    pub endpoint: String,
    /// Name of the NBD export.
    pub export: String,
    /// GiB; a larger value than what the guest sees means: tell it.
    pub size_gib: u64,
    pub read_only: bool,
    /// The guest boots from it: it is the root disk.
    pub boot: bool,
}

/// An image to be made from a server's root disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotAssignment {
    pub image_id: String,
    pub server_id: String,
    pub request_id: String,
    /// `qcow2` or `raw`.
    pub format: String,
}

/// What a node observed. Coalesced by the agent, idempotent for the controller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    Host(HostReport),
    Server(ServerReport),
    Snapshot(SnapshotReport),
    Password(PasswordReport),
    Volume(VolumeReport),
}

/// The host itself: sent at start and when it changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostReport {
    /// Changes with each boot of the machine.
    pub boot_id: String,
    /// `QEMU` or `sim`.
    pub hypervisor_type: String,
    /// `7002022` for 7.2.22, as Nova reports it.
    pub hypervisor_version: u64,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    pub cpu_model: String,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
    pub disk_free_gib: u64,
    /// Room for volumes, GiB; 0 on a node that keeps none.
    pub volume_gib: u64,
    pub volume_free_gib: u64,
    pub host_ip: String,
    /// Provider networks that the host is on: routers' gateways may be there.
    #[serde(default)]
    pub physical_networks: Vec<String>,
}

/// What runs now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestState {
    /// Work towards the assignment goes on.
    Building,
    Running,
    Paused,
    /// No process, as asked, or the guest powered itself off.
    Stopped,
    /// The process ended unasked.
    Crashed,
    /// Cannot be made so; `cause` says why. The agent does not try again for this revision.
    Failed,
    /// Nothing of it is left on this node.
    Gone,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerReport {
    pub id: String,
    pub epoch: u64,
    /// Revision of the assignment that this answers.
    pub revision: u64,
    pub state: GuestState,
    /// For users: starts with the thing, ends with what to do. Set when `state` is `Failed` or `Crashed`, and when something that does
    /// not stop the guest cannot be done, such as plugging a volume.
    pub cause: Option<String>,
    /// Step in progress, for `drover why`: `fetch image`, `create disk`, `plug port …`, `start QEMU`.
    pub step: Option<String>,
    /// Last reboot carried out.
    pub reboot_count: u64,
    /// Generation of the root disk in place.
    pub disk_generation: u64,
    /// Is the rescue system what runs?
    pub rescued: bool,
    /// Ports that are plugged now.
    pub plugged: Vec<String>,
    /// Attachments that the server holds: plugged into its process, or to be plugged at its next start. While one is named here, the
    /// volume may be written to.
    pub volumes: Vec<String>,
    /// Microseconds since the epoch; when the process now running was started.
    pub launched_at: Option<base::Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotReport {
    pub image_id: String,
    /// The stored blob, or the cause of failure in words for users.
    pub result: Result<BlobInfo, String>,
}

/// What there is of a volume now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// Work towards the assignment goes on.
    Building,
    /// The data is there, with all that the assignment asks for.
    Ready,
    /// Cannot be made so; `cause` says why. The node does not try again for this revision.
    Failed,
    /// Nothing of it is left on this node.
    Gone,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeReport {
    pub id: String,
    /// Revision of the assignment that this answers.
    pub revision: u64,
    pub state: VolumeState,
    /// For users: starts with the thing, ends with what to do. Set when `state` is `Failed`.
    pub cause: Option<String>,
    /// GiB that are there; 0 when nothing is.
    pub size_gib: u64,
    pub generation: u64,
    /// Snapshots that are there.
    pub snapshots: Vec<String>,
    /// Exports that serve now. One that was named and is not any more has ended for certain.
    pub exports: Vec<LiveExport>,
    /// Images that were made or failed, by image id; told until the assignment no longer asks.
    pub uploads: BTreeMap<String, Result<BlobInfo, String>>,
}

/// An export that serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveExport {
    pub attachment_id: String,
    pub epoch: u64,
    pub endpoint: String,
    pub export: String,
}

/// A password that a guest posted to the metadata service; by custom it is encrypted with the user's key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordReport {
    pub server_id: String,
    /// Epoch of the assignment whose guest posted it.
    pub epoch: u64,
    pub password: String,
}

/// Without the password: reports get into logs.
impl fmt::Debug for PasswordReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server_id, epoch, password: _ } = self;
        f.debug_struct("PasswordReport").field("server_id", server_id).field("epoch", epoch).finish_non_exhaustive()
    }
}

/// A stored blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobInfo {
    /// SHA-512, hex: the blob's name.
    pub blob: String,
    /// MD5, hex: Glance's `checksum`.
    pub checksum: String,
    /// Bytes.
    pub size: u64,
    /// Bytes; what a guest would see.
    pub virtual_size: Option<u64>,
    pub format: String,
}

/// A question to a node that must be answered now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Query {
    /// The last `lines` lines of the serial console, or all that is kept.
    ConsoleLog { server_id: String, lines: Option<usize> },
    /// CPU, memory, disk and interface counters.
    Diagnostics { server_id: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Text(String),
    Json(serde_json::Value),
}

/// Why a node did not answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("server {0} does not run on this node")]
    NotHere(String),
    #[error("node {0} is not connected; try again when it is up")]
    Unreachable(String),
    #[error("node {node} did not answer: {cause}")]
    Failed { node: String, cause: String },
}

/// Both directions of a byte stream, such as a VNC connection.
pub trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Duplex for T {}

/// What the agent sees of its controllers.
pub trait Uplink: Send + Sync {
    /// The node's assignments, always the newest.
    fn assignments(&self) -> tokio::sync::watch::Receiver<Arc<Assignments>>;
    /// Hands reports over; returns when they are durable. Errors are retried by the agent with backoff.
    fn report(&self, reports: Vec<Report>) -> Pending<'_, Result<(), ReportError>>;
}

/// A report that could not be handed over.
#[derive(Debug, thiserror::Error)]
#[error("reports were not taken: {0}")]
pub struct ReportError(pub String);

/// What controllers see of an agent.
pub trait Agent: Send + Sync {
    fn query(&self, query: Query) -> Pending<'_, Result<Answer, QueryError>>;
    /// Opens the server's VNC display (RFB).
    fn vnc(&self, server_id: &str) -> Pending<'_, Result<Box<dyn Duplex>, QueryError>>;
}

/// Where image blobs come from and snapshots go to.
pub trait Blobs: Send + Sync {
    /// Brings the blob to `to` (a path that does not exist yet), whole and verified, or not at all.
    fn fetch<'a>(&'a self, blob: &'a str, to: &'a Path) -> Pending<'a, std::io::Result<()>>;
    /// Stores a file as a blob; the file may be moved away. The format is what the inspector finds, never what the caller says.
    fn store<'a>(&'a self, from: &'a Path) -> Pending<'a, std::io::Result<BlobInfo>>;
}
