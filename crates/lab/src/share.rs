//! A host's share of the processors: each host gets as much as any other while there is not enough for all.
//!
//! A host is a group of the kernel's (cgroups(7), either version), named as its network namespace. Without one a host that starts takes
//! what the others need, as no machine of their own would; and where the kernel makes a group of each session (`autogroup` in sched(7)),
//! as it does outside of groups, a process's priority is void between sessions.
use crate::host::{Host, Lab, Role};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Writing 0 there moves the process that writes.
const MEMBERS: &str = "cgroup.procs";

/// Puts a command into a group: `$0` is its list of members. Without the group the command goes on outside.
const ENTER: &str = r#"echo 0 > "$0"; exec "$@""#;

/// Makes a group for each host. Fails where the kernel or the machine's owner does not let us.
pub(crate) fn ensure(lab: &Lab) -> io::Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let (root, unified) =
        controller(&mounts).ok_or_else(|| io::Error::other("no cgroups with the controller cpu are mounted"))?;
    if unified {
        std::fs::write(root.join("cgroup.subtree_control"), "+cpu")?;
    }
    for host in machines(lab) {
        match std::fs::create_dir(root.join(&host.netns)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// The file that a process of the host writes 0 to, if there are groups.
pub(crate) fn members(host: &Host) -> Option<PathBuf> {
    group(host).map(|group| group.join(MEMBERS))
}

/// The words before a command that runs on the host.
pub(crate) fn enter(host: &Host) -> Vec<String> {
    let words = |members: PathBuf| ["sh".to_owned(), "-c".to_owned(), ENTER.to_owned(), members.display().to_string()].into();
    members(host).map(words).unwrap_or_default()
}

/// Removes the groups, once nothing runs there.
pub(crate) fn remove(lab: &Lab) {
    for group in machines(lab).iter().filter_map(group) {
        if let Err(e) = std::fs::remove_dir(&group) {
            tracing::warn!(group = %group.display(), "the group cannot be removed: {e}");
        }
    }
}

fn machines(lab: &Lab) -> Vec<Host> {
    let mut hosts = lab.shape.hosts();
    hosts.retain(|host| host.role != Role::Client);
    hosts
}

fn group(host: &Host) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let (root, _) = controller(&mounts)?;
    Some(root.join(&host.netns)).filter(|group| group.is_dir())
}

/// Where the hierarchy with the controller `cpu` is mounted, and whether it is that of version 2. From proc_pid_mountinfo(5).
fn controller(mounts: &str) -> Option<(PathBuf, bool)> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let at = Path::new(mount.split(' ').nth(4)?);
        let mut kind = kind.split(' ');
        let (name, options) = (kind.next()?, kind.nth(1)?);
        match name {
            "cgroup" if options.split(',').any(|o| o == "cpu") => Some((at.into(), false)),
            "cgroup2" => {
                let offered = std::fs::read_to_string(at.join("cgroup.controllers")).ok()?;
                offered.split_whitespace().any(|c| c == "cpu").then(|| (at.into(), true))
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_is_found_where_it_is_mounted() {
        let first = "24 18 0:22 / /sys/fs/cgroup/cpuset rw,relatime shared:9 - cgroup cgroup rw,cpuset\n\
                     25 18 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n";
        assert_eq!(controller(first), Some(("/sys/fs/cgroup/cpu,cpuacct".into(), false)));
        let unified = tempfile::tempdir().unwrap();
        let mounts = format!("30 18 0:26 / {} rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n", unified.path().display());
        assert_eq!(controller(&mounts), None, "it offers nothing");
        std::fs::write(unified.path().join("cgroup.controllers"), "cpuset cpu io\n").unwrap();
        assert_eq!(controller(&mounts), Some((unified.path().into(), true)));
        assert_eq!(controller("20 1 0:5 / /proc rw - proc proc rw\n"), None);
    }
}
