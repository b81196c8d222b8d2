//! Opens the file: keeps other processes out, sets SQLite up, checks the content and prepares it for this boot.
use crate::rows::Rows;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};
use store::{Revision, StoreError};

/// "Drov": how the file says that it is ours.
const APPLICATION: i32 = 0x4472_6f76;
/// The form of the tables. A new form comes with a migration from the one before.
const SCHEMA: i32 = 1;
const TABLES: &str = "
    CREATE TABLE rows (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        value BLOB NOT NULL,
        created INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        lease INTEGER
    ) STRICT;
    CREATE INDEX rows_of_leases ON rows (lease) WHERE lease IS NOT NULL;
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO meta VALUES ('revision', 0), ('boots', 0), ('repairs', 0);
";
/// Files up to this size are checked as a whole when they are opened; it takes about a second for 500 MB.
const CHECK_BELOW: u64 = 128 << 20;
/// Pages (of 4 KiB) in the write-ahead log before they are moved into the file.
const CHECKPOINT_PAGES: u32 = 4000;
/// The log is cut back to this many bytes when it has grown beyond.
const LOG_BYTES: u32 = 64 << 20;
/// How long to wait for a lock that someone's `sqlite3` shell holds.
const BUSY: Duration = Duration::from_secs(5);

/// A file that is ready for the writer.
pub(crate) struct Opened {
    pub(crate) conn: Connection,
    pub(crate) path: PathBuf,
    pub(crate) process_lock: File,
    pub(crate) revision: Revision,
    /// Counts how often the file was opened.
    pub(crate) boot: u32,
}

pub(crate) fn open(path: &Path) -> Result<Opened, StoreError> {
    let at = |what: &str, e: &dyn std::fmt::Display| StoreError::Unavailable(format!("{}: {what}: {e}", path.display()));
    let path = std::path::absolute(path).map_err(|e| at("not a path", &e))?;
    let process_lock = keep_others_out(&path)?;
    make(&path).map_err(|e| at("cannot be made; check the directory and its owner", &e))?;
    let failed = |e| failed(&path, "open", &e);
    let mut conn = connect(&path, "cell_size_check").map_err(failed)?;
    identify(&mut conn, &path)?;
    write_ahead(&conn).map_err(failed)?;
    check(&conn, &path)?;
    let (revision, boot) = begin_boot(&mut conn).map_err(failed)?;
    Ok(Opened { conn, path, process_lock, revision, boot })
}

/// Pages that a connection keeps. Reads are answered by the view, so only writes and starts use them.
const CACHE_KIB: i64 = 2048;

/// A connection with what all connections need, and one more switch turned on.
pub(crate) fn connect(path: &Path, switch: &str) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(32);
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    conn.pragma_update(None, switch, true)?;
    Ok(conn)
}

/// What went wrong in SQLite, in the store's words.
pub(crate) fn failed(path: &Path, doing: &str, e: &rusqlite::Error) -> StoreError {
    let text = format!("{} could not {doing}: {e}", path.display());
    match e.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full(format!("{text}; make space on its file system")),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Damaged(format!("{text}; restore it from a backup"))
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::Unavailable(format!("{text}; end the program that holds its lock"))
        }
        _ => StoreError::Unavailable(format!("{text}; check the disk and the system log")),
    }
}

/// Holds `<path>.lock` until the process ends. The file stays: removing it would let two processes lock two files of one name.
fn keep_others_out(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let at =
        |e: std::io::Error| StoreError::Unavailable(format!("{} cannot be locked: {e}; check the directory", name.display()));
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&name).map_err(at)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).ok();
            return Err(StoreError::Unavailable(format!(
                "{} is in use by process {}; stop that one first, or use another file",
                path.display(),
                holder.trim()
            )));
        }
        Err(TryLockError::Error(e)) => return Err(at(e)),
    }
    // Only for the message above: on a full disk the lock holds all the same.
    let note = |f: &mut File| {
        f.set_len(0)?;
        f.rewind()?;
        writeln!(f, "{}", std::process::id())
    };
    note(&mut file).ok();
    Ok(file)
}

/// Makes an empty file that only its owner can read, and makes its name durable.
fn make(path: &Path) -> std::io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

/// Sees that the file is ours and of a form we know; gives an empty one its tables.
fn identify(conn: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |e| failed(path, "be read", &e);
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let number = |pragma: &str| tx.query_row(&format!("PRAGMA {pragma}"), [], |r| r.get::<_, i32>(0)).map_err(failed);
    let (application, schema) = (number("application_id")?, number("user_version")?);
    let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).map_err(failed)?;
    match (application, schema, tables) {
        (APPLICATION, SCHEMA, _) => return Ok(()),
        (APPLICATION, newer, _) => {
            return Err(StoreError::Unavailable(format!(
                "{} has form {newer}, this version knows form {SCHEMA}; run the version that wrote it, or a newer one",
                path.display()
            )));
        }
        (0, 0, 0) => {}
        _ => {
            return Err(StoreError::Unavailable(format!(
                "{} is a database of another program; name another file",
                path.display()
            )));
        }
    }
    let fill = || {
        tx.execute_batch(TABLES)?;
        tx.pragma_update(None, "application_id", APPLICATION)?;
        tx.pragma_update(None, "user_version", SCHEMA)
    };
    fill().map_err(failed)?;
    tx.commit().map_err(failed)
}

fn write_ahead(conn: &Connection) -> rusqlite::Result<()> {
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |r| r.get(0))?;
    if mode != "wal" {
        return Err(rusqlite::Error::InvalidParameterName(format!("the file system allows no write-ahead log, only {mode}")));
    }
    // FULL: the log is on the disk before COMMIT returns.
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    conn.pragma_update(None, "journal_size_limit", LOG_BYTES)
}

fn check(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    let damaged = |what: String| StoreError::Damaged(format!("{}: {what}; restore it from a backup", path.display()));
    let size = std::fs::metadata(path).map_or(0, |m| m.len());
    if size > CHECK_BELOW {
        tracing::info!(path = %path.display(), size, "The store is large and was opened without a full check");
        return Ok(());
    }
    let failed = |e| failed(path, "be checked", &e);
    let found: String = conn.query_row("PRAGMA quick_check(1)", [], |r| r.get(0)).map_err(failed)?;
    if found != "ok" {
        return Err(damaged(found));
    }
    let newest: Option<Revision> = conn.query_row("SELECT max(modified) FROM rows", [], |r| r.get(0)).map_err(failed)?;
    let revision = Rows(conn).revision().map_err(failed)?;
    match newest {
        Some(newest) if newest > revision => {
            Err(damaged(format!("a row of revision {newest} in a store at revision {revision}")))
        }
        _ => Ok(()),
    }
}

/// Counts the boot and ends the leases of the one before. It writes, so a file that cannot be written is found now.
fn begin_boot(conn: &mut Connection) -> rusqlite::Result<(Revision, u32)> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let rows = Rows(&tx);
    let boot = u32::try_from(rows.count_up("boots")? & 0x7fff_ffff).unwrap_or(0);
    let mut revision = rows.revision()?;
    if rows.delete_all_leased()? > 0 {
        revision += 1;
        rows.set_revision(revision)?;
    }
    tx.commit()?;
    Ok((revision, boot))
}
