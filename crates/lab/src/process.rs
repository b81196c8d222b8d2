//! The processes of a host, seen from outside.
use rustix::process::{Pid, Signal};
use std::{collections::BTreeMap, path::Path};
use supervise::Identity;

/// One process of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) id: Identity,
    /// What an operator calls it: the role of a drover, otherwise the name of its program.
    pub(crate) kind: String,
    pub(crate) stopped: bool,
}

/// All processes in the process namespace that `init` is the first of, besides it.
pub(crate) fn of(init: i32) -> Vec<Process> {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(ours) = namespace(init) else { return Vec::new() };
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|d| d.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != init && namespace(*pid).as_ref() == Some(&ours)).filter_map(look).collect()
}

fn look(pid: i32) -> Option<Process> {
    let id = Identity::of(pid)?;
    let proc = Path::new("/proc").join(pid.to_string());
    let name = std::fs::read_to_string(proc.join("comm")).ok()?;
    let line = std::fs::read(proc.join("cmdline")).ok()?;
    let words: Vec<String> = line.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
    let stat = std::fs::read_to_string(proc.join("stat")).ok()?;
    let stopped = stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']));
    Some(Process { id, kind: kind(name.trim(), &words), stopped })
}

fn kind(name: &str, words: &[String]) -> String {
    let role = words.iter().rev().find(|w| !w.is_empty()).filter(|w| matches!(w.as_str(), "serve" | "supervise"));
    // Whatever the program is called: these are started by a drover, with its state.
    role.filter(|_| words.iter().any(|w| w == "--state")).map_or_else(|| name.to_owned(), Clone::clone)
}

/// How many there are of each kind.
pub(crate) fn kinds(processes: &[Process]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for p in processes {
        *kinds.entry(p.kind.clone()).or_default() += 1;
    }
    kinds
}

/// Sends a signal; one that has ended since needs none.
pub(crate) fn signal(to: Identity, signal: Signal) {
    if let Some(pid) = Pid::from_raw(to.pid).filter(|_| to.alive()) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_roles_or_programs() {
        let words = |line: &str| line.split(' ').chain([""]).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(kind("drover", &words("/usr/bin/drover --state /var/lib/drover serve")), "serve");
        assert_eq!(kind("drover-1.2", &words("/opt/drover-1.2 --state /var/lib/drover supervise")), "supervise");
        assert_eq!(kind("drover", &words("/usr/bin/drover --state /var/lib/drover")), "drover");
        assert_eq!(kind("haproxy", &words("haproxy -W -f /x/haproxy.cfg")), "haproxy");
        assert_eq!(kind("etcd", &words("etcd --name=c1")), "etcd");
    }
}
