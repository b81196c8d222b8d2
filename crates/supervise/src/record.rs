//! What is written down about a daemon, so that the next Drover finds it.
use crate::{Error, Identity};
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

/// The content of `NAME.json` in the run directory. Version 1.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub version: u32,
    #[serde(flatten)]
    pub id: Identity,
    pub argv: Vec<String>,
}

impl Record {
    pub(crate) fn new(id: Identity, argv: &[String]) -> Self {
        Self { version: 1, id, argv: argv.to_vec() }
    }
    /// A damaged or missing file counts as none: the environment mark still finds the process.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
    pub(crate) fn write(&self, name: &str, path: &Path) -> Result<(), Error> {
        let fresh = path.with_extension("json.new");
        let bytes = serde_json::to_vec(self).expect("a record is plain data");
        File::create(&fresh)
            .and_then(|mut f| f.write_all(&bytes))
            .and_then(|()| std::fs::rename(&fresh, path))
            .map_err(|source| Error::File { name: name.into(), act: "write", path: path.into(), source })
    }
}

/// Takes the daemon's lock file; it is released when the file is dropped.
pub(crate) async fn lock(name: &str, path: PathBuf, within: Duration) -> Result<File, Error> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|source| Error::File { name: name.into(), act: "open", path, source })?;
    let until = tokio::time::Instant::now() + within;
    while file.try_lock().is_err() {
        if tokio::time::Instant::now() > until {
            return Err(Error::Locked { name: name.into() });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(file)
}

/// Opens the log for appending; one that has grown large becomes `.1` first.
pub(crate) fn open_log(name: &str, path: &Path) -> Result<File, Error> {
    const LARGE: u64 = 16 << 20;
    if std::fs::metadata(path).is_ok_and(|m| m.len() > LARGE) {
        let _ = std::fs::rename(path, path.with_extension("log.1"));
    }
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map_err(|source| Error::File { name: name.into(), act: "open", path: path.into(), source })
}

/// The last lines of a log, on one line, for an error message.
pub(crate) fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(600)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim().replace('\n', " | ");
    if text.is_empty() { "(nothing)".into() } else { text }
}
