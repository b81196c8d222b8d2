//! The three processes of a chassis.
use crate::{Config, Error, Tls};
use ovsdb::Endpoint;
use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};
use supervise::{Daemon, Ready, Watched};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// OVS names it so.
const DATAPATH_DEVICE: &str = "ovs-netdev";
const GRACE: Duration = Duration::from_secs(5);

/// Who forwards packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datapath {
    /// The kernel's openvswitch module.
    System,
    /// `ovs-vswitchd` itself: slower, but runs everywhere.
    Netdev,
}

impl Datapath {
    /// The kernel's if it has one.
    pub async fn detect() -> Self {
        let _ = supervise::run(&["modprobe", "-q", "openvswitch"]).await;
        match supervise::run(&["genl", "ctrl", "get", "name", "ovs_datapath"]).await {
            Ok(_) => Self::System,
            Err(_) => Self::Netdev,
        }
    }
    /// The word in OVSDB.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Netdev => "netdev",
        }
    }
}

/// The processes, running or not.
#[derive(Clone, Debug)]
pub struct Daemons {
    run_dir: PathBuf,
    netns: Option<String>,
    tls: Option<Tls>,
}

impl Daemons {
    pub fn new(config: &Config) -> Self {
        Self { run_dir: config.run_dir.clone(), netns: config.netns.clone(), tls: config.tls.clone() }
    }
    /// Where this host's `Open_vSwitch` database is.
    pub fn database(&self) -> Endpoint {
        Endpoint::Unix(self.path("db.sock"))
    }
    /// Keeps all three running as long as the guards live: database, switch, controller.
    pub(crate) fn watch(&self) -> [Watched; 3] {
        [self.ovsdb(), self.vswitchd(), self.controller()].map(Daemon::watch)
    }
    /// Ends all three; the database stays. Taps and veths that others made stay as well.
    pub async fn stop(&self) -> Result<(), Error> {
        for daemon in [self.controller(), self.vswitchd(), self.ovsdb()] {
            daemon.stop(GRACE).await?;
        }
        Ok(())
    }

    /// As [`Self::stop`], and bridges leave the host: the kernel's datapath would keep them.
    pub(crate) async fn remove(&self) -> Result<(), Error> {
        let control = self.path("vswitchd.ctl");
        if self.vswitchd().running().is_some()
            && let Err(e) = supervise::run(&["ovs-appctl", &format!("--target={}", control.display()), "exit", "--cleanup"]).await
        {
            tracing::warn!("ovs-vswitchd did not clean up by itself and is stopped as it is: {}", base::chain(&e));
        }
        self.stop().await?;
        self.remove_datapath_device().await
    }

    /// The userspace datapath's own device outlives its process. All switches of a namespace share it, so the last one takes it along.
    async fn remove_datapath_device(&self) -> Result<(), Error> {
        let netns = self.netns.as_deref();
        if supervise::ip(netns, &format!("link show {DATAPATH_DEVICE}")).await.is_err() || is_held(netns, DATAPATH_DEVICE) {
            return Ok(());
        }
        supervise::ip(netns, &format!("link delete {DATAPATH_DEVICE}")).await?;
        Ok(())
    }

    pub(crate) async fn ensure_database(&self) -> Result<(), Error> {
        let path = self.path("conf.db");
        std::fs::create_dir_all(&self.run_dir).map_err(|source| Error::File { path: self.run_dir.clone(), source })?;
        if !path.exists() {
            // Under another name first: half of a database must not look like one.
            let fresh = self.path("conf.db.new");
            let _ = std::fs::remove_file(&fresh);
            supervise::run(&["ovsdb-tool", "create", &fresh.display().to_string(), SCHEMA]).await?;
            std::fs::rename(&fresh, &path).map_err(|source| Error::File { path, source })?;
        }
        self.ovsdb().ensure().await?;
        Ok(())
    }
    pub(crate) async fn ensure_switch(&self) -> Result<(), Error> {
        self.vswitchd().ensure().await?;
        Ok(())
    }
    pub(crate) async fn ensure_controller(&self) -> Result<(), Error> {
        let controller = self.controller();
        if controller.running().is_none() {
            self.remove_old_sockets();
        }
        controller.ensure().await?;
        Ok(())
    }

    fn remove_old_sockets(&self) {
        for file in std::fs::read_dir(&self.run_dir).into_iter().flatten().flatten() {
            let name = file.file_name();
            let old = name.to_str().is_some_and(|n| n.starts_with("ovn-controller.") && n.ends_with(".ctl"));
            if old {
                let _ = std::fs::remove_file(file.path());
            }
        }
    }
    fn ovsdb(&self) -> Daemon {
        let remote = format!("--remote=punix:{}", self.path("db.sock").display());
        let control = format!("--unixctl={}", self.path("ovsdb.ctl").display());
        let argv = vec!["ovsdb-server".to_owned(), remote, control, self.path("conf.db").display().to_string()];
        self.daemon("ovsdb", argv).ready(Ready::Socket(self.path("db.sock")))
    }
    fn vswitchd(&self) -> Daemon {
        let socket = self.path("vswitchd.ctl");
        let argv = vec!["ovs-vswitchd".into(), self.database().to_string(), format!("--unixctl={}", socket.display())];
        self.daemon("vswitchd", argv).ready(Ready::Socket(socket))
    }
    fn controller(&self) -> Daemon {
        // It has no option for its control socket; the socket's name holds its pid.
        let mut argv = vec!["ovn-controller".into(), self.database().to_string()];
        if let Some(Tls { ca, certificate, key }) = &self.tls {
            let files = [("private-key", key), ("certificate", certificate), ("ca-cert", ca)];
            argv.extend(files.map(|(name, path)| format!("--{name}={}", path.display())));
        }
        self.daemon("controller", argv)
    }
    fn daemon(&self, name: &str, mut argv: Vec<String>) -> Daemon {
        argv.extend(["--no-chdir".into(), "-vsyslog:off".into(), "-vfile:off".into()]);
        let dir = self.run_dir.display().to_string();
        let daemon = Daemon::new(name, &self.run_dir, argv).netns(self.netns.clone());
        daemon
            .env("OVS_RUNDIR", &dir)
            .env("OVN_RUNDIR", &dir)
            .env("OVS_LOGDIR", &dir)
            .env("OVN_LOGDIR", &dir)
            .env("OVS_DBDIR", dir)
    }
    fn path(&self, name: &str) -> PathBuf {
        self.run_dir.join(name)
    }
}

/// Has a process of this network namespace the tap device open?
fn is_held(netns: Option<&str>, device: &str) -> bool {
    let place = netns.map_or_else(|| "/proc/thread-self/ns/net".into(), |name| format!("/run/netns/{name}"));
    let inode = |path: &Path| std::fs::metadata(path).map(|m| m.ino()).ok();
    let here = inode(Path::new(&place));
    let holds = |process: &Path| {
        let files = std::fs::read_dir(process.join("fdinfo")).into_iter().flatten().flatten();
        let mut texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
        texts.any(|text| text.lines().any(|line| line.strip_prefix("iff:").is_some_and(|name| name.trim() == device)))
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    processes.filter(|process| here.is_some() && inode(&process.join("ns/net")) == here).any(|process| holds(&process))
}
