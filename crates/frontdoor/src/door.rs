//! Keeps haproxy and keepalived as the configuration says.
//!
//! What a running program has taken over is in `NAME.applied` beside its configuration, so that a Drover that died between writing and
//! telling is made good by the next.
use crate::{Error, FrontDoor, certificate, haproxy, keepalived};
use base::retry::Backoff;
use rustix::process::{Pid, Signal};
use std::{net::IpAddr, os::unix::fs::DirBuilderExt as _, path::PathBuf, time::Duration};
use supervise::{Daemon, Identity, Ready};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::Instant,
};

const RELOAD_WITHIN: Duration = Duration::from_secs(10);
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// keepalived has nothing to finish.
const KEEPALIVED_GRACE: Duration = Duration::from_secs(5);
/// As long as one of them is away the address is of no use here: much sooner than keepalived gives it away.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(40), Duration::from_secs(2));

/// Keeps both programs running as long as it lives; they go on after it.
#[derive(Debug)]
pub struct Watched {
    pub haproxy: supervise::Watched,
    pub keepalived: Option<supervise::Watched>,
}

/// How the door of this controller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub haproxy: Option<Identity>,
    pub keepalived: Option<Identity>,
    pub has_vip: bool,
}

impl FrontDoor {
    /// Makes both programs run with this configuration; those that run with another take it over without losing a connection.
    pub async fn ensure(&self) -> Result<(), Error> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(self.dir.join("empty"));
        made.map_err(certificate::file("create", &self.dir))?;
        self.ensure_haproxy().await?;
        match &self.vip {
            Some(_) => self.ensure_keepalived().await,
            None => self.stop_keepalived().await,
        }
    }

    /// [`Self::ensure`], and starts again what ends from now on.
    pub async fn watch(&self) -> Result<Watched, Error> {
        self.ensure().await?;
        let keepalived = self.vip.is_some().then(|| self.keepalived().watch());
        Ok(Watched { haproxy: self.haproxy().watch(), keepalived })
    }

    /// Gives the address away, lets haproxy finish what it has for `grace`, and ends both. Drop what watches them first.
    pub async fn stop(&self, grace: Duration) -> Result<(), Error> {
        self.stop_keepalived().await?;
        let haproxy = self.haproxy();
        if let Some(running) = haproxy.running()
            && let Some(handle) = running.open()
        {
            signal(running, Signal::USR1);
            let _ = tokio::time::timeout(grace, handle.exited()).await;
        }
        Ok(haproxy.stop(Duration::from_secs(1)).await?)
    }

    /// What runs, and whether clients come in here.
    pub async fn status(&self) -> Result<Status, Error> {
        let has_vip = match &self.vip {
            Some(vip) => self.interface_of(vip.address.addr()).await?.is_some(),
            None => false,
        };
        Ok(Status { haproxy: self.haproxy().running(), keepalived: self.keepalived().running(), has_vip })
    }

    fn haproxy(&self) -> Daemon {
        let argv = ["haproxy".to_owned(), "-W".into(), "-f".into(), self.haproxy_config().display().to_string()];
        Daemon::new("haproxy", &self.dir, argv.into())
            // glibc (mallopt(3)) would give each buffer back to the kernel and fetch it again for the next request.
            .env("MALLOC_MMAP_THRESHOLD_", "4194304")
            .env("MALLOC_TRIM_THRESHOLD_", "67108864")
            .netns(self.netns.clone())
            .ready(Ready::Socket(self.dir.join("haproxy.sock")))
            .retry(AGAIN)
    }

    fn keepalived(&self) -> Daemon {
        // Everything that it would otherwise keep in places that all of the machine shares is said here.
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.dir.join(name).display());
        let mut argv: Vec<String> =
            ["keepalived", "--dont-fork", "--log-console", "--no-syslog", "--vrrp"].map(str::to_owned).into();
        argv.push(file("use-file", "keepalived.conf"));
        argv.push(file("pid", "keepalived.pid"));
        argv.push(file("vrrp_pid", "vrrp.pid"));
        Daemon::new("keepalived", &self.dir, argv).netns(self.netns.clone()).retry(AGAIN)
    }

    fn haproxy_config(&self) -> PathBuf {
        self.dir.join("haproxy.cfg")
    }

    async fn ensure_haproxy(&self) -> Result<(), Error> {
        let machine = certificate::bundle(&self.machine, &self.dir)?;
        let public = self.public.as_ref().map(|c| certificate::bundle(c, &self.dir)).transpose()?;
        let bundles = haproxy::Bundles { public: public.unwrap_or_else(|| machine.clone()), machine };
        let text = haproxy::config(self, &bundles);
        let path = self.haproxy_config();
        if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            let fresh = path.with_extension("fresh");
            certificate::write(&fresh, text.as_bytes(), 0o600)?;
            let checked = supervise::run(&["haproxy", "-c", "-q", "-f", &fresh.display().to_string()]).await;
            checked.map_err(|e| Error::Refused { program: "haproxy", text: base::chain(&e) })?;
            std::fs::rename(&fresh, &path).map_err(certificate::file("write", &path))?;
        }
        let daemon = self.haproxy();
        let mut running = daemon.ensure().await?;
        if running.stale {
            daemon.stop(Duration::from_secs(1)).await?;
            running = daemon.ensure().await?;
        }
        let applied = self.dir.join("haproxy.applied");
        if running.adopted && std::fs::read_to_string(&applied).ok().as_deref() != Some(&text) {
            self.reload_haproxy(running.id).await?;
        }
        certificate::write(&applied, text.as_bytes(), 0o600)?;
        certificate::sweep(&self.dir, &[&bundles.public, &bundles.machine]);
        Ok(())
    }

    /// The master starts another worker, which takes the listening sockets over; the old one ends with its last connection.
    async fn reload_haproxy(&self, master: Identity) -> Result<(), Error> {
        let before = self.worker().await;
        signal(master, Signal::USR2);
        let late = || Error::NotReloaded { program: "haproxy", within: RELOAD_WITHIN, dir: self.dir.clone() };
        let until = Instant::now() + RELOAD_WITHIN;
        loop {
            let now = self.worker().await;
            if now.is_some() && now != before {
                tracing::info!("haproxy has taken its new configuration over");
                return Ok(());
            }
            if Instant::now() > until {
                return Err(late());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The process that accepts connections now.
    async fn worker(&self) -> Option<i32> {
        let ask = async {
            let mut socket = UnixStream::connect(self.dir.join("haproxy.sock")).await.ok()?;
            socket.write_all(b"show info\n").await.ok()?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.ok()?;
            answer.lines().find_map(|l| l.strip_prefix("Pid: "))?.trim().parse().ok()
        };
        tokio::time::timeout(ASK_WITHIN, ask).await.ok().flatten()
    }

    async fn ensure_keepalived(&self) -> Result<(), Error> {
        let Some(vip) = &self.vip else { return Ok(()) };
        let interface = match &vip.interface {
            Some(name) => name.clone(),
            None => {
                let own = self.controllers.iter().find(|c| c.name == self.name).map(|c| c.api.ip());
                let address = own.ok_or_else(|| Error::Stranger { name: self.name.clone() })?;
                self.interface_of(address).await?.ok_or(Error::NoInterface { address })?
            }
        };
        let text = keepalived::config(self, &vip.address, &interface)?;
        certificate::write(&self.dir.join("check.sh"), keepalived::CHECK.as_bytes(), 0o600)?;
        let path = self.dir.join("keepalived.conf");
        if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            let fresh = path.with_extension("fresh");
            certificate::write(&fresh, text.as_bytes(), 0o600)?;
            let test = ["keepalived", "--config-test", "--use-file", &fresh.display().to_string()];
            let checked = supervise::run_in(self.netns.as_deref(), &test).await;
            checked.map_err(|e| Error::Refused { program: "keepalived", text: base::chain(&e) })?;
            std::fs::rename(&fresh, &path).map_err(certificate::file("write", &path))?;
        }
        let daemon = self.keepalived();
        if daemon.running().is_none() {
            // After a power cut the number in them may be another process's, and keepalived would take it for itself.
            for pid in ["keepalived.pid", "vrrp.pid"] {
                let path = self.dir.join(pid);
                match std::fs::remove_file(&path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(certificate::file("remove", &path)(e)),
                    _ => {}
                }
            }
            // One that was killed left its address behind, and another controller may have it by now.
            self.drop_vip(vip.address.addr()).await?;
        }
        let mut running = daemon.ensure().await?;
        if running.stale {
            daemon.stop(KEEPALIVED_GRACE).await?;
            running = daemon.ensure().await?;
        }
        let applied = self.dir.join("keepalived.applied");
        if running.adopted && std::fs::read_to_string(&applied).ok().as_deref() != Some(&text) {
            signal(running.id, Signal::HUP);
        }
        certificate::write(&applied, text.as_bytes(), 0o600)
    }

    async fn stop_keepalived(&self) -> Result<(), Error> {
        self.keepalived().stop(KEEPALIVED_GRACE).await?;
        match &self.vip {
            Some(vip) => self.drop_vip(vip.address.addr()).await,
            None => Ok(()),
        }
    }

    async fn drop_vip(&self, vip: IpAddr) -> Result<(), Error> {
        while let Some((interface, length)) = self.place_of(vip).await? {
            supervise::ip(self.netns.as_deref(), &format!("addr del {vip}/{length} dev {interface}")).await?;
        }
        Ok(())
    }

    async fn interface_of(&self, address: IpAddr) -> Result<Option<String>, Error> {
        Ok(self.place_of(address).await?.map(|(name, _)| name))
    }

    async fn place_of(&self, address: IpAddr) -> Result<Option<(String, u64)>, Error> {
        let listed = supervise::ip(self.netns.as_deref(), "-j addr show").await?;
        let links: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap_or_default();
        let place = |link: &serde_json::Value| {
            let has = link["addr_info"].as_array()?.iter().find(|a| a["local"] == address.to_string())?;
            Some((link["ifname"].as_str()?.to_owned(), has["prefixlen"].as_u64()?))
        };
        Ok(links.iter().find_map(place))
    }
}

/// To a process that was seen alive; one that has ended since needs no signal.
fn signal(to: Identity, signal: Signal) {
    if let Some(pid) = Pid::from_raw(to.pid).filter(|_| to.alive()) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
