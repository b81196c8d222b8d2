//! One controller's member of one database's raft: its file and its process.
use super::{
    Controller,
    plan::Ids,
    rows::Database,
    status::{self, Status},
};
use crate::ovn::{Error, central::SCHEMAS, daemon::daemon};
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};
use supervise::{Daemon, Ready, run};

pub(super) struct Member<'a> {
    pub(super) at: &'a Controller,
    pub(super) database: Database,
}

impl Member<'_> {
    pub(super) fn file(&self) -> PathBuf {
        self.path("db")
    }
    fn path(&self, extension: &str) -> PathBuf {
        self.at.run_dir.join(format!("{}.{extension}", self.database.short()))
    }
    /// Not in place until the others have been told of it.
    fn fresh(&self) -> PathBuf {
        self.path("db.new")
    }

    /// What its file says it is; nothing of one that is not there, or is of no use.
    pub(super) async fn ids(&self) -> Option<Ids> {
        if !self.file().exists() {
            return None;
        }
        match ids(&self.file()).await {
            Ok(ids) => Some(ids),
            Err(e) => {
                tracing::warn!("OVN's {} on this controller is of no use: {}", self.database.name(), base::chain(&e));
                None
            }
        }
    }

    /// Makes the file of a new raft's first member, to be put in place by [`Self::settle`].
    pub(super) async fn found(&self) -> Result<Ids, Error> {
        let fresh = self.clear()?;
        let schema = self.schema();
        let own = self.database.raft(self.at.address);
        run(&["ovsdb-tool", "create-cluster", &fresh, &schema.display().to_string(), &own]).await?;
        ids(&self.fresh()).await
    }

    /// The same of one more member.
    pub(super) async fn join(&self, cid: &str, others: &[IpAddr]) -> Result<Ids, Error> {
        let fresh = self.clear()?;
        let (cid, own) = (format!("--cid={cid}"), self.database.raft(self.at.address));
        let others: Vec<String> = others.iter().map(|other| self.database.raft(*other)).collect();
        let argv = ["ovsdb-tool", &cid, "join-cluster", &fresh, self.database.name(), &own];
        let argv: Vec<&str> = argv.into_iter().chain(others.iter().map(String::as_str)).collect();
        run(&argv).await?;
        ids(&self.fresh()).await
    }

    pub(super) fn settle(&self) -> Result<(), Error> {
        let path = self.file();
        std::fs::rename(self.fresh(), &path).map_err(|source| Error::File { path, source })
    }

    fn schema(&self) -> PathBuf {
        Path::new(SCHEMAS).join(format!("ovn-{}.ovsschema", self.database.short()))
    }

    /// Removes what is left of older data; all of it can be had again.
    fn clear(&self) -> Result<String, Error> {
        // It comes with the programs.
        if !self.schema().exists() {
            return Err(Error::Missing);
        }
        let lock = |path: &Path| path.with_file_name(format!(".{}.~lock~", path.file_name().unwrap_or_default().display()));
        std::fs::create_dir_all(&self.at.run_dir).map_err(|source| Error::File { path: self.at.run_dir.clone(), source })?;
        for path in [self.file(), self.fresh(), lock(&self.fresh())] {
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(Error::File { path, source }),
                _ => {}
            }
        }
        Ok(self.fresh().display().to_string())
    }

    /// Where it serves this machine.
    pub(super) fn socket(&self) -> PathBuf {
        self.path("sock")
    }

    pub(super) fn daemon(&self) -> Daemon {
        let at = passive(SocketAddr::new(self.at.address, self.database.port()));
        let mut argv =
            vec!["ovsdb-server".to_owned(), format!("--remote=punix:{}", self.socket().display()), format!("--remote={at}")];
        argv.extend(self.at.certificates.controller.arguments());
        argv.push(self.file().display().to_string());
        daemon(&self.at.run_dir, self.at.netns.clone(), self.database.short(), argv).ready(Ready::Socket(self.socket()))
    }

    pub(super) async fn status(&self) -> Result<Status, Error> {
        let text = ovsdb::unixctl(&self.path("ctl"), "cluster/status", &[self.database.name()]).await?;
        Ok(status::parse(&text))
    }

    /// Takes a server out of the raft, for ever.
    pub(super) async fn kick(&self, server: &str) -> Result<(), Error> {
        ovsdb::unixctl(&self.path("ctl"), "cluster/kick", &[self.database.name(), server]).await?;
        Ok(())
    }
}

/// Where a server is to listen, as OVSDB's programs take it.
pub(super) fn passive(at: SocketAddr) -> String {
    match at {
        SocketAddr::V4(at) => format!("pssl:{}:{}", at.port(), at.ip()),
        SocketAddr::V6(at) => format!("pssl:{}:[{}]", at.port(), at.ip()),
    }
}

async fn ids(file: &Path) -> Result<Ids, Error> {
    let file = file.display().to_string();
    let ask = async |what: &str| run(&["ovsdb-tool", what, &file]).await.map(|text| text.trim().to_owned());
    Ok(Ids { cid: ask("db-cid").await?, sid: ask("db-sid").await? })
}
