//! Files of the state directory: who may read secrets, what was left behind, how old the newest snapshot is.
use super::{Finding, Look, Role, error, ok, warning};
use crate::host::Names;
use std::{
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// What only its owner may read, below the state directory.
const SECRET: &[&str] = &[
    "config.json",
    "clouds.yaml",
    "keys",
    "secrets",
    "drover.db",
    "pki/key.pem",
    "pki/ca.key",
    "etcd/data",
    "snapshots",
    "run/door",
    "demo_key",
];
/// Half-written files are renamed within moments.
const HALF_WRITTEN: Duration = Duration::from_secs(3600);
/// Clocks of file systems may be a little off.
const AHEAD: Duration = Duration::from_secs(120);

pub(super) async fn look(look: &Look<'_>) -> Vec<Finding> {
    if look.role == Role::New {
        return Vec::new();
    }
    let dir = look.state.dir();
    let mut all = permissions(dir);
    all.extend(leftovers(look));
    all.extend(namespaces(look).await);
    all.extend(ahead(look));
    if look.role == Role::Controller && look.config.snapshot_interval_s > 0 {
        let interval = Duration::from_secs(look.config.snapshot_interval_s);
        all.push(snapshot_age(crate::upkeep::newest(&look.state.snapshots()), interval, look.now));
    }
    all
}

fn permissions(dir: &Path) -> Vec<Finding> {
    let mut open = Vec::new();
    let owner = std::fs::metadata(dir).map(|m| m.uid()).ok();
    for path in SECRET.iter().map(|name| dir.join(name)) {
        let Ok(meta) = std::fs::metadata(&path) else { continue };
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            open.push(error(
                "permissions",
                format!("{} can be read by others than its owner (mode {mode:o})", path.display()),
                format!(
                    "It holds secrets. Close it: chmod go-rwx {0}; and make new ones if others use this machine.",
                    path.display()
                ),
            ));
        }
        if owner.is_some_and(|owner| owner != meta.uid()) {
            let advice = format!("Make it the owner's of {0}: chown --reference={0} {1}", dir.display(), path.display());
            open.push(error("permissions", format!("{} belongs to user {}", path.display(), meta.uid()), advice));
        }
    }
    if open.is_empty() {
        open.push(ok("permissions", "only their owner reads keys, secrets and the store"));
    }
    open
}

fn leftovers(look: &Look<'_>) -> Vec<Finding> {
    let mut all = Vec::new();
    if !look.runs {
        let alive = daemons(&look.state.run(""));
        if crate::up::is_going_down(look.state) && !alive.is_empty() {
            let found = format!("the cloud is down, and these run still: {}", alive.join(", "));
            all.push(warning("leftovers", found, "End them with: drover down"));
        }
    }
    for path in half_written(look.state.dir(), look.now) {
        let advice = format!("A write broke off. Nothing uses it; remove it: rm {}", path.display());
        all.push(warning("leftovers", format!("{} was never finished", path.display()), advice));
    }
    let restoring = look.state.etcd().join("data.restoring");
    if restoring.exists() {
        let advice = "Remove the state directory and restore again.";
        all.push(warning("leftovers", format!("{} is of a restore that broke off", restoring.display()), advice));
    }
    all
}

/// Recorded processes that live, by name.
fn daemons(run: &Path) -> Vec<String> {
    let dirs = std::fs::read_dir(run).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir());
    let records = dirs.flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()));
    let mut alive: Vec<String> = records
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .filter_map(|path| {
            let id: supervise::Identity = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
            id.alive().then(|| format!("{} (process {})", path.file_stem().unwrap_or_default().to_string_lossy(), id.pid))
        })
        .collect();
    alive.sort();
    alive
}

fn half_written(dir: &Path, now: SystemTime) -> Vec<PathBuf> {
    let dirs = ["", "secrets", "pki", "snapshots", "keys/identity/token-keys"].map(|below| dir.join(below));
    let files = dirs.into_iter().flat_map(|d| std::fs::read_dir(d).into_iter().flatten().flatten().map(|e| e.path()));
    let is_old = |p: &PathBuf| {
        let modified = p.metadata().and_then(|m| m.modified()).ok();
        modified.and_then(|at| now.duration_since(at).ok()).is_some_and(|age| age > HALF_WRITTEN)
    };
    files.filter(|p| p.extension().is_some_and(|e| e == "next" || e == "part") && is_old(p)).collect()
}

async fn namespaces(look: &Look<'_>) -> Vec<Finding> {
    if look.runs || !look.role.runs_guests(look.config) {
        return Vec::new();
    }
    let prefix = Names::of(look.state).namespaces();
    let listed = supervise::run(&["ip", "netns", "list"]).await.unwrap_or_default();
    let orphans: Vec<&str> =
        listed.lines().filter_map(|l| l.split_whitespace().next()).filter(|n| n.starts_with(&prefix)).collect();
    match (orphans.is_empty(), crate::up::is_going_down(look.state)) {
        (false, true) => {
            let found = format!("network namespaces of this cloud are left although it is down: {}", orphans.join(" "));
            vec![warning("leftovers", found, "drover down removes them; a single one: ip netns del NAME")]
        }
        (false, false) | (true, _) => Vec::new(),
    }
}

/// Files of a time to come: the clock was set back.
fn ahead(look: &Look<'_>) -> Option<Finding> {
    let files = [look.state.config(), look.state.database(), look.state.etcd().join("data/member/wal"), look.state.snapshots()];
    let newest = files.iter().filter_map(|p| p.metadata().and_then(|m| m.modified()).ok()).max()?;
    let ahead = newest.duration_since(look.now).ok().filter(|d| *d > AHEAD)?;
    let found = format!("the state directory has files that were written {} s from now", ahead.as_secs());
    Some(error(
        "clock",
        found,
        "This machine's clock was set back, or is wrong now. Set it right (chronyc makestep), then restart: drover down; drover up",
    ))
}

fn snapshot_age(newest: Option<SystemTime>, interval: Duration, now: SystemTime) -> Finding {
    let hours = |d: Duration| d.as_secs_f64() / 3600.0;
    let advice =
        "See the log run/drover/serve.log for `snapshot`, and the room on the disk. Take a backup now: drover backup FILE";
    let Some(newest) = newest else {
        return warning("snapshots", "there is no snapshot of etcd", advice);
    };
    match now.duration_since(newest) {
        Ok(age) if age > interval * 2 => warning(
            "snapshots",
            format!("the newest snapshot of etcd is {:.1} h old, and one is due every {:.1} h", hours(age), hours(interval)),
            advice,
        ),
        Ok(age) => ok("snapshots", format!("the newest snapshot of etcd is {:.1} h old", hours(age))),
        Err(_) => warning(
            "snapshots",
            "the newest snapshot of etcd is of a time that has not come",
            "The clock was set back; see that it is right.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn secrets_that_others_can_read_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let close = |path: &str, mode: u32| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        close("keys", 0o700);
        close("secrets", 0o700);
        assert_eq!(permissions(dir.path()).iter().map(|f| f.level).collect::<Vec<_>>(), [Level::Ok]);
        close("secrets", 0o750);
        let found = permissions(dir.path());
        assert_eq!(found.len(), 1);
        assert!(found[0].level == Level::Error && found[0].found.contains("secrets") && found[0].found.contains("750"));
    }

    #[test]
    fn old_halves_are_leftovers_and_new_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.next"), "").unwrap();
        std::fs::write(dir.path().join("config.json"), "").unwrap();
        let now = SystemTime::now();
        assert!(half_written(dir.path(), now).is_empty());
        assert_eq!(half_written(dir.path(), now + HALF_WRITTEN * 2), [dir.path().join("config.next")]);
    }

    #[test]
    fn recorded_processes_that_live_are_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etcd")).unwrap();
        let me = supervise::Identity::of(std::process::id().cast_signed()).unwrap();
        let gone = supervise::Identity { started: me.started + 1, ..me };
        for (name, id) in [("here", me), ("gone", gone)] {
            let record = serde_json::json!({ "version": 1, "pid": id.pid, "started": id.started, "argv": [] });
            std::fs::write(dir.path().join(format!("etcd/{name}.json")), record.to_string()).unwrap();
        }
        assert_eq!(daemons(dir.path()), [format!("here (process {})", std::process::id())]);
    }

    #[test]
    fn snapshots_must_be_recent() {
        let (hour, now) = (Duration::from_secs(3600), SystemTime::now());
        let level = |newest| snapshot_age(newest, hour, now).level;
        assert_eq!(level(Some(now - hour)), Level::Ok);
        assert_eq!([level(None), level(Some(now - hour * 3)), level(Some(now + hour))], [Level::Warning; 3]);
    }
}
