//! Processes that outlive their parent. Drover runs other people's engines (ovsdb, QEMU, haproxy); when Drover itself is
//! killed or upgraded they go on, and the next Drover takes them over again.
//!
//! Guarantees: a process is known by its pid *and* its start time, so a recycled pid is never signalled; a [`Daemon`] is
//! started once even if two callers ask at the same time; a process that was started just before Drover died is found by
//! the mark in its environment. It does not restart anything by itself unless somebody calls [`Daemon::watch`].
mod daemon;
mod exec;
mod process;
mod record;

pub use daemon::{Check, Daemon, Ready, Running, State, Watched};
pub use exec::{ip, run, run_in};
pub use process::{Handle, Identity};

use std::{path::PathBuf, time::Duration};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{name}: cannot {act} {path}; check the directory's owner and free space", path = path.display())]
    File { name: String, act: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{name}: cannot start {program}; check that it is installed")]
    Spawn { name: String, program: String, source: std::io::Error },
    #[error("{name} ended during its start; its log {log} ends with: {tail}", log = log.display())]
    Died { name: String, log: PathBuf, tail: String },
    #[error("{name} did not get ready within {within:?}; its log {log} ends with: {tail}", log = log.display())]
    NotReady { name: String, within: Duration, log: PathBuf, tail: String },
    #[error("{name}: another process holds its lock; try again when that one is done")]
    Locked { name: String },
    #[error("{name} (pid {pid}) did not end after SIGKILL within {within:?}; look for a process in state D")]
    Unkillable { name: String, pid: i32, within: Duration },
    #[error("cannot run `{command}`; check that it is installed")]
    Command { command: String, source: std::io::Error },
    #[error("`{command}` failed: {stderr}")]
    Failed { command: String, stderr: String },
    #[error("`{command}` took longer than {within:?}; it was killed")]
    Slow { command: String, within: Duration },
}
