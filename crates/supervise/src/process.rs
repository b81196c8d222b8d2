//! One process of this host, named so that a recycled pid cannot be mistaken for it.
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::{io, os::fd::OwnedFd, path::Path};
use tokio::io::{Interest, unix::AsyncFd};

/// A pid together with its start time (clock ticks since boot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    pub started: u64,
}

impl Identity {
    /// The process that has this pid now; none if there is none or only a zombie of it. A first thread that has ended is no proof of
    /// that: other threads may still end, and hold what the process had.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let stat = Stat::parse(&stat)?;
        (stat.threads > 1 || !matches!(stat.state, 'Z' | 'X' | 'x')).then_some(Self { pid, started: stat.started })
    }
    /// Does exactly this process still run?
    pub fn alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }
    /// Has it been stopped by a signal, and not continued?
    pub(crate) fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok();
        stat.and_then(|s| Stat::parse(&s)).is_some_and(|s| s.state == 'T' && s.started == self.started)
    }
    /// Is it the leader of its session, that is: has it left ours?
    pub(crate) fn leads_session(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok();
        stat.and_then(|s| Stat::parse(&s)).is_some_and(|s| s.session == self.pid && s.started == self.started)
    }
    /// Has it become its program? Until then, and for an instant meanwhile, its environment does not tell whose it is.
    pub(crate) fn has_become(&self, not: &[&str]) -> bool {
        let line = std::fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let name = line.split(|b| *b == 0).next().unwrap_or_default();
        !name.is_empty() && !not.iter().any(|n| n.as_bytes() == name)
    }
    /// A handle that stays with this process, or none if it has ended.
    pub fn open(&self) -> Option<Handle> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::NONBLOCK).ok()?;
        // The pid may have been recycled before the descriptor existed; from here on it cannot be.
        if !self.alive() {
            return None;
        }
        #[expect(deprecated, reason = "unsound only for types that do not own their descriptor; its successor is unsafe")]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE).ok()?;
        Some(Handle { id: *self, fd })
    }
    /// The session leader whose start environment holds `entry` (`NAME=value`); children inherit it but do not lead.
    pub(crate) fn marked(entry: &str) -> Option<Self> {
        std::fs::read_dir("/proc").ok()?.flatten().find_map(|dir| {
            let pid = dir.file_name().to_str()?.parse().ok()?;
            if !has_entry(&dir.path(), entry) {
                return None;
            }
            Self::of(pid).filter(Self::leads_session)
        })
    }
}

/// What we need of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    session: i32,
    threads: u32,
    started: u64,
}

impl Stat {
    /// The command name may hold any character, so fields count from its last `)`.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
        let state = fields.first()?.chars().next()?;
        Some(Self {
            state,
            session: fields.get(3)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

fn has_entry(proc: &Path, entry: &str) -> bool {
    std::fs::read(proc.join("environ")).is_ok_and(|env| env.split(|b| *b == 0).any(|e| e == entry.as_bytes()))
}

/// A running process held by a pidfd: signals reach it or nobody, and its end is an event.
#[derive(Debug)]
pub struct Handle {
    id: Identity,
    fd: AsyncFd<OwnedFd>,
}

impl Handle {
    pub fn id(&self) -> Identity {
        self.id
    }
    /// Returns when the process has ended.
    pub async fn exited(&self) {
        // An error here means that the runtime is shutting down; then nobody waits any more.
        let _ = self.fd.readable().await;
    }
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }
    fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(self.fd.get_ref(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_with_odd_names() {
        let line = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20";
        assert_eq!(Stat::parse(line), Some(Stat { state: 'S', session: 3, threads: 17, started: 777 }));
        assert_eq!(Stat::parse("42 (a"), None);
    }

    #[test]
    fn a_recycled_pid_is_a_stranger() {
        let me = Identity::of(std::process::id().cast_signed()).unwrap();
        assert!(me.alive());
        assert!(!Identity { started: me.started + 1, ..me }.alive());
    }
}
