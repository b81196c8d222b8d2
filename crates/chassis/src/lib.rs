//! One host as an OVN chassis: `ovsdb-server`, `ovs-vswitchd` and `ovn-controller` of our own, in our own run directory,
//! and the ports that are plugged into them.
//!
//! Guarantees: every call is safe twice; nothing outside the run directory, the named bridges, the named network namespace and, with
//! NAT, a firewall table of our own and the kernel's forwarding is touched, so it lives beside another Open vSwitch as long as bridge names differ and, with the userspace
//! datapath, namespaces too (the datapath itself is a device with a fixed name). It knows no networks and no ports of the
//! cloud: who is plugged is decided elsewhere.
mod bridge;
mod daemons;
mod nat;
mod ports;
mod underlay;

pub use daemons::{Daemons, Datapath};
pub use nat::Nat;
pub use ports::{Attachment, Plugged};
pub use underlay::Underlay;

use base::retry::Backoff;
use bridge::Switch;
use ipnet::IpNet;
use ovsdb::Endpoint;
use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use supervise::Watched;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Database(#[from] ovsdb::Error),
    #[error(transparent)]
    Process(#[from] supervise::Error),
    #[error("cannot prepare {path} for Open vSwitch; check the directory's owner and free space", path = path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("the name {0} is too long for an interface; use at most 15 characters")]
    Name(String),
    #[error("cannot give guests their way out through this host; allow nftables and ip_forward to be changed, or switch NAT off")]
    Nat(#[source] supervise::Error),
    #[error("Open vSwitch cannot use interface {interface}: {text}; check that it exists and nobody else has it")]
    Interface { interface: String, text: String },
}

/// What this host's part of the network looks like.
#[derive(Clone, Debug)]
pub struct Config {
    /// Databases, sockets, records and logs.
    pub run_dir: PathBuf,
    /// The named network namespace in which everything lives; None is the host's.
    pub netns: Option<String>,
    /// OVN's name of the chassis, which `requested-chassis` and gateway lists mean.
    pub system_id: String,
    /// Where the southbound database is, to begin with; see [`Chassis::follow`].
    pub southbound: Vec<Endpoint>,
    /// For a southbound database by TLS.
    pub tls: Option<Tls>,
    /// The address that other chassis send Geneve to; any address will do for a single host.
    pub encap_ip: IpAddr,
    /// The interface that has it; needed by several hosts with the userspace datapath.
    pub underlay: Option<Underlay>,
    /// The integration bridge, usually `br-int`; at most 15 characters like every interface.
    pub integration_bridge: String,
    pub provider: Option<Provider>,
    /// None: ask the kernel.
    pub datapath: Option<Datapath>,
}

impl Config {
    /// Names of all bridges.
    fn bridges(&self) -> Vec<&String> {
        let others = self.provider.as_ref().map(|p| &p.bridge).into_iter().chain(self.underlay.as_ref().map(|u| &u.bridge));
        std::iter::once(&self.integration_bridge).chain(others).collect()
    }
}

/// What this host shows, and who vouches for the others; PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The bridge of a provider network, and the host's place on it.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Usually `br-ex`.
    pub bridge: String,
    pub physical_network: String,
    /// A network card that joins the bridge; None if the host itself is all there is outside.
    pub uplink: Option<String>,
    /// Addresses of the host on this network, such as the external subnet's gateway.
    pub addresses: Vec<IpNet>,
    /// How guests get out through the host and what of it they can reach; None leaves the host's firewall alone.
    pub nat: Option<Nat>,
}

/// A host that is set up.
#[derive(Debug)]
pub struct Chassis {
    config: Config,
    daemons: Daemons,
    datapath: Datapath,
    switch: Switch,
    southbound: Mutex<Vec<Endpoint>>,
}

impl Chassis {
    /// Starts and sets up what is not there yet. Processes and ports that were there stay as they are.
    pub async fn ensure(config: Config) -> Result<Self, Error> {
        if let Some(long) = config.bridges().into_iter().find(|name| name.is_empty() || name.len() > 15) {
            return Err(Error::Name(long.clone()));
        }
        let datapath = match config.datapath {
            Some(datapath) => datapath,
            None => Datapath::detect().await,
        };
        let daemons = Daemons::new(&config);
        daemons.ensure_database().await?;
        let switch = Switch::connect(daemons.database()).await?;
        // OVN reads this when it starts, so it comes first.
        switch.describe(&config, &config.southbound, datapath).await?;
        daemons.ensure_switch().await?;
        bridge::ensure(&switch, &config, datapath).await?;
        underlay::ensure(&switch, &config, datapath).await?;
        daemons.ensure_controller().await?;
        let southbound = Mutex::new(config.southbound.clone());
        Ok(Self { config, daemons, datapath, switch, southbound })
    }
    pub fn config(&self) -> &Config {
        &self.config
    }
    pub fn datapath(&self) -> Datapath {
        self.datapath
    }
    /// The three processes, for watching and stopping.
    pub fn daemons(&self) -> &Daemons {
        &self.daemons
    }
    /// Sets the host's side again: after `ovs-vswitchd` came back in the userspace datapath, bridges are new devices.
    pub async fn repair(&self) -> Result<(), Error> {
        self.describe().await?;
        bridge::ensure(&self.switch, &self.config, self.datapath).await?;
        underlay::ensure(&self.switch, &self.config, self.datapath).await
    }
    /// The southbound database is here from now on. Nothing happens to guests: what OVN told the switch stays until it tells something else.
    pub async fn follow(&self, southbound: Vec<Endpoint>) -> Result<(), Error> {
        *self.southbound.lock().unwrap_or_else(PoisonError::into_inner) = southbound;
        self.describe().await
    }
    async fn describe(&self) -> Result<(), Error> {
        let southbound = self.southbound.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.switch.describe(&self.config, &southbound, self.datapath).await
    }

    /// Puts back what others may have removed from the host's firewall.
    async fn recheck(&self, was_off: &mut bool) -> Result<(), Error> {
        match self.config.provider.as_ref().and_then(|p| p.nat.as_ref()) {
            Some(nat) => nat.recheck(was_off).await,
            None => Ok(()),
        }
    }

    /// Keeps the processes running and the host's side right for as long as the guard lives; they go on after that.
    pub fn watch(self: Arc<Self>) -> Watch {
        let watched = self.daemons.watch();
        let mut switch = watched[1].state();
        let task = tokio::spawn(async move {
            const RECHECK: Duration = Duration::from_secs(30);
            const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
            let (mut seen, mut was_off) = (None, false);
            loop {
                let restarted = switch.wait_for(|s| s.running.is_some() && s.running != seen);
                let restarted = async { restarted.await.map(|state| state.running) };
                match tokio::time::timeout(RECHECK, restarted).await {
                    Ok(Ok(now)) => {
                        let mut attempt = 0;
                        while let Err(e) = self.repair().await {
                            let cause = base::chain(&e);
                            tracing::warn!("the host's side of the switch is not right yet, trying again: {cause}");
                            tokio::time::sleep(RETRY.jittered(attempt)).await;
                            attempt += 1;
                        }
                        seen = now;
                    }
                    Ok(Err(_)) => return,
                    Err(_) => {}
                }
                if let Err(e) = self.recheck(&mut was_off).await {
                    tracing::warn!("the way out for guests is not right, trying again: {}", base::chain(&e));
                }
            }
        });
        Watch { watched, task }
    }

    /// Puts an interface of this host on the integration bridge as a port of the cloud.
    pub async fn plug(&self, interface: &str, attachment: &Attachment) -> Result<(), Error> {
        ports::plug(&self.switch, &self.config, self.datapath, interface, attachment).await
    }
    /// Takes an interface off the integration bridge; no error if it is not there.
    pub async fn unplug(&self, interface: &str) -> Result<(), Error> {
        ports::unplug(&self.switch, &self.config.integration_bridge, interface).await
    }
    /// The interfaces that were plugged.
    pub fn list_plugged(&self) -> Vec<Plugged> {
        ports::list(&self.switch, &self.config.integration_bridge)
    }
}

/// Keeps a chassis watched as long as it lives.
#[derive(Debug)]
pub struct Watch {
    watched: [Watched; 3],
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    /// What `ovs-vswitchd` does now.
    pub fn switch(&self) -> tokio::sync::watch::Receiver<supervise::State> {
        self.watched[1].state()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends the processes of a chassis and takes its bridges off the host; the database stays. No error if nothing runs.
pub async fn remove(config: &Config) -> Result<(), Error> {
    Daemons::new(config).remove().await?;
    if let Some(nat) = config.provider.as_ref().and_then(|p| p.nat.as_ref()) {
        nat.remove().await?;
    }
    // The userspace datapath's bridge devices outlive it, with the host's addresses on them.
    for bridge in config.bridges() {
        if supervise::ip(config.netns.as_deref(), &format!("link show {bridge}")).await.is_ok() {
            supervise::ip(config.netns.as_deref(), &format!("link delete {bridge}")).await?;
        }
    }
    underlay::give_back(config).await
}

/// Switches off what the userspace datapath cannot do for a packet that leaves through `interface`: checksums left to the
/// card would stay empty, and TCP would time out while ping works. Needed on each veth's far end and each bridge device.
pub async fn no_offload(netns: Option<&str>, interface: &str) -> Result<(), Error> {
    supervise::run_in(netns, &["ethtool", "-K", interface, "tx", "off"]).await?;
    Ok(())
}
