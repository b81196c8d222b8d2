//! What an operator may set of a node; every value has a default that works.
use crate::Error;
use base::retry::Backoff;
use std::{
    hash::{Hash as _, Hasher as _},
    path::PathBuf,
    time::Duration,
};

/// Settings of one node agent.
#[derive(Clone, Debug)]
pub struct Config {
    /// Everything the agent keeps: servers, volumes, image cache, unfinished snapshots. Below 50 bytes, because sockets live in it.
    pub dir: PathBuf,
    pub host_name: String,
    /// Address of the host as the API shows it.
    pub host_ip: String,
    /// Provider networks that the host is on.
    pub physical_networks: Vec<String>,
    /// Start of the names of taps (`<prefix>t…`) and metadata interfaces (`<prefix>m…`); at most 4 bytes (Linux allows 15 in all).
    pub interface_prefix: String,
    /// Start of the names of metadata namespaces.
    pub namespace_prefix: String,
    /// MiB kept for the host itself.
    pub reserved_memory_mib: u64,
    /// GiB kept free for the host itself.
    pub reserved_disk_gib: u64,
    /// Steps that make disks or start processes, at once.
    pub heavy_steps: usize,
    /// Time a guest gets to obey the power button before it is killed (Nova's `shutdown_timeout`).
    pub stop_timeout: Duration,
    /// The same for a soft reboot (Nova's `wait_soft_reboot_seconds`).
    pub soft_reboot_timeout: Duration,
    /// Time until a new QEMU process must answer.
    pub start_timeout: Duration,
    /// Time for a guest to let go of an interface; between two requests to let go of a volume.
    pub unplug_timeout: Duration,
    /// Waits between attempts at a step that failed for a passing reason.
    pub retry: Backoff,
    /// Attempts at such a step before the server, or the volume, is reported as failed.
    pub attempts: u32,
    /// After a start of the agent, servers that are known here but not assigned are kept this long.
    pub orphan_grace: Duration,
    /// Time between searches for leftovers; also the longest time between two looks at a server.
    pub sweep_every: Duration,
    /// Bytes of console output kept per server: at least this, at most twice.
    pub console_bytes: u64,
    /// Numeric users that guests run as, one each; `None` runs them as the agent's own user.
    pub guest_users: Option<GuestUsers>,
    pub qemu: PathBuf,
    pub storage_daemon: PathBuf,
    /// `kvm` or `tcg`; `None` probes.
    pub accelerator: Option<String>,
    /// MiB of translated code a guest may hold without KVM.
    pub tcg_cache_mib: u32,
}

/// A range of user ids that nobody else uses. They need no entry in `/etc/passwd`.
#[derive(Clone, Copy, Debug)]
pub struct GuestUsers {
    pub first: u32,
    pub count: u32,
}

impl GuestUsers {
    /// The user of a server or a volume: the same at each start. Two may share one; that only weakens a second wall.
    pub(crate) fn of(self, id: &str) -> u32 {
        let mut hasher = std::hash::DefaultHasher::new();
        id.hash(&mut hasher);
        let offset = hasher.finish() % u64::from(self.count.max(1));
        self.first + u32::try_from(offset).unwrap_or(0)
    }
}

impl Config {
    pub fn new(dir: impl Into<PathBuf>, host_name: impl Into<String>) -> Self {
        Self {
            dir: dir.into(),
            host_name: host_name.into(),
            host_ip: "127.0.0.1".into(),
            physical_networks: Vec::new(),
            interface_prefix: "dv".into(),
            namespace_prefix: "drover-meta-".into(),
            reserved_memory_mib: 512,
            reserved_disk_gib: 1,
            heavy_steps: std::thread::available_parallelism().map_or(2, |n| n.get()).clamp(2, 16),
            stop_timeout: Duration::from_secs(60),
            soft_reboot_timeout: Duration::from_secs(120),
            start_timeout: Duration::from_secs(60),
            unplug_timeout: Duration::from_secs(10),
            retry: Backoff::new(Duration::from_millis(500), Duration::from_secs(20)),
            attempts: 5,
            orphan_grace: Duration::from_secs(5),
            sweep_every: Duration::from_secs(60),
            console_bytes: 1 << 20,
            guest_users: Some(GuestUsers { first: 1_200_000_000, count: 1 << 20 }),
            qemu: "qemu-system-x86_64".into(),
            storage_daemon: "qemu-storage-daemon".into(),
            accelerator: None,
            tcg_cache_mib: 64,
        }
    }
    /// Refuses what would only fail later and obscurely.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let bad = |what: String| Err(Error::Config(what));
        if self.interface_prefix.is_empty() || self.interface_prefix.len() > 4 {
            return bad(format!("interface prefix {:?} must have 1 to 4 bytes", self.interface_prefix));
        }
        if !self.interface_prefix.bytes().all(|b| b.is_ascii_alphanumeric()) || self.namespace_prefix.is_empty() {
            return bad("interface and namespace prefixes must be plain letters and digits".into());
        }
        if self.dir.as_os_str().len() > 50 || !self.dir.is_absolute() {
            return bad(format!("the node's directory {} must be absolute and shorter than 50 bytes", self.dir.display()));
        }
        Ok(())
    }
    pub(crate) fn server_dir(&self, id: &str) -> PathBuf {
        self.dir.join("servers").join(id)
    }
    /// Where the consumer of an attachment finds the socket of its volume.
    pub(crate) fn entrance(&self, attachment: &str) -> PathBuf {
        self.dir.join("exports").join(attachment).join("nbd")
    }
}
