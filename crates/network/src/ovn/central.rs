//! OVN's central part on one machine: the two databases and northd, supervised in a run directory of our own.
use super::{Error, Nb, daemon::daemon};
use ovsdb::Endpoint;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use supervise::{Daemon, Ready, Watched};

pub(super) const SCHEMAS: &str = "/usr/share/ovn";
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// Where central runs. Make one with [`Central::new`] and change what differs.
#[derive(Clone, Debug)]
pub struct Central {
    /// Databases, sockets, records and logs.
    pub run_dir: PathBuf,
    /// A named network namespace.
    pub netns: Option<String>,
}

impl Central {
    pub fn new(run_dir: impl Into<PathBuf>) -> Self {
        Self { run_dir: run_dir.into(), netns: None }
    }
    /// Where to reach the northbound database.
    pub fn nb(&self) -> Endpoint {
        Endpoint::Unix(self.run_dir.join("nb.sock"))
    }
    /// Where chassis of this host reach the southbound database.
    pub fn sb(&self) -> Endpoint {
        Endpoint::Unix(self.run_dir.join("sb.sock"))
    }

    /// Starts the databases if they do not run yet and follows the northbound one. Next: [`Nb::apply`], then
    /// [`Self::ensure_northd`], so that northd never sees a northbound database that was lost and is not yet filled.
    pub async fn ensure_databases(&self) -> Result<Nb, Error> {
        std::fs::create_dir_all(&self.run_dir).map_err(|source| Error::File { path: self.run_dir.clone(), source })?;
        for name in ["nb", "sb"] {
            self.ensure_file(name).await?;
            self.database(name).ensure().await?;
        }
        let nb = Nb::connect(vec![self.nb()]).await?;
        nb.prepare().await?;
        Ok(nb)
    }
    /// Starts northd if it does not run yet.
    pub async fn ensure_northd(&self) -> Result<(), Error> {
        self.northd().ensure().await?;
        Ok(())
    }
    /// Keeps the three processes running as long as the guards live.
    pub fn watch(&self) -> [Watched; 3] {
        self.daemons().map(Daemon::watch)
    }
    /// Ends the three processes; the databases stay.
    pub async fn stop(&self) -> Result<(), Error> {
        for daemon in self.daemons().iter().rev() {
            daemon.stop(GRACE).await?;
        }
        Ok(())
    }

    /// Databases first, northd last.
    fn daemons(&self) -> [Daemon; 3] {
        [self.database("nb"), self.database("sb"), self.northd()]
    }
    fn northd(&self) -> Daemon {
        let argv = ["ovn-northd".into(), format!("--ovnnb-db={}", self.nb()), format!("--ovnsb-db={}", self.sb())];
        self.daemon("northd", argv.to_vec()).ready(Ready::Socket(self.path("northd", "ctl")))
    }
    fn database(&self, name: &str) -> Daemon {
        let remote = format!("--remote=punix:{}", self.path(name, "sock").display());
        let argv = vec!["ovsdb-server".to_owned(), remote, self.path(name, "db").display().to_string()];
        self.daemon(name, argv).ready(Ready::Socket(self.path(name, "sock")))
    }
    fn daemon(&self, name: &str, argv: Vec<String>) -> Daemon {
        daemon(&self.run_dir, self.netns.clone(), name, argv)
    }

    /// Creates the database file under another name first: half of one must not look like one.
    async fn ensure_file(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name, "db");
        if path.exists() {
            return Ok(());
        }
        let (fresh, schema) = (self.path(name, "db.new"), Path::new(SCHEMAS).join(format!("ovn-{name}.ovsschema")));
        let _ = std::fs::remove_file(&fresh);
        supervise::run(&["ovsdb-tool", "create", &fresh.display().to_string(), &schema.display().to_string()]).await?;
        std::fs::rename(&fresh, &path).map_err(|source| Error::File { path, source })
    }
    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.run_dir.join(format!("{name}.{extension}"))
    }
}
