//! Room on the disk of the state directory, and how long it takes until something is surely on it.
use super::{Finding, Look, Role, bytes, error, ok, warning};
use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Writes of the probe, as etcd's log makes them.
const WRITES: usize = 60;
const BYTES: usize = 2300;
/// etcd's makers want 99 of 100 writes on the disk within this time.
const GOOD: Duration = Duration::from_millis(10);
/// Beyond it a leader is late with its heartbeats, and is replaced for no other reason.
const BAD: Duration = Duration::from_millis(100);
/// The probe ends early on a disk that is very slow.
const LONGEST: Duration = Duration::from_secs(5);

/// Room on a file system.
#[derive(Clone, Copy, Debug)]
struct Room {
    size: u64,
    free: u64,
    inodes: u64,
    inodes_free: u64,
}

pub(super) fn look(look: &Look<'_>) -> Vec<Finding> {
    let dir = look.state.dir();
    let Some(there) = dir.ancestors().find(|d| d.is_dir()) else { return Vec::new() };
    let mut all = match room(there) {
        Ok(room) => judge_room(dir, room),
        Err(e) => {
            vec![error("disk", format!("{} cannot be looked at: {e}", there.display()), "See whether its disk is mounted.")]
        }
    };
    let writes = match look.role {
        Role::Controller => look.state.etcd(),
        Role::Whole { .. } => dir.to_path_buf(),
        Role::New | Role::Node => return all,
    };
    match fsync(&writes) {
        Ok(took) => all.push(judge_fsync(&writes, took)),
        Err(e) => all.push(error(
            "disk latency",
            format!("nothing can be written into {}: {e}", writes.display()),
            "Make room, and see whether the disk is mounted read-only.",
        )),
    }
    all
}

fn room(dir: &Path) -> std::io::Result<Room> {
    let s = rustix::fs::statvfs(dir)?;
    Ok(Room { size: s.f_blocks * s.f_frsize, free: s.f_bavail * s.f_frsize, inodes: s.f_files, inodes_free: s.f_favail })
}

fn judge_room(dir: &Path, room: Room) -> Vec<Finding> {
    let Room { size, free, inodes, inodes_free } = room;
    let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let found = format!("{} of {} are free at {}", bytes(free), bytes(size), dir.display());
    let room = if share(free, size) < 0.02 || free < 256 << 20 {
        let advice = "Writes are about to be refused, by etcd for all controllers. Make room now: snapshots/, old images, logs below run/.";
        error("disk", found, advice)
    } else if share(free, size) < 0.10 || free < 2 << 30 {
        warning("disk", found, "Make room before it is full: snapshots/, old images, logs below run/, or a larger disk.")
    } else {
        ok("disk", found)
    };
    let mut all = vec![room];
    // Some file systems count none.
    if inodes > 0 && share(inodes_free, inodes) < 0.05 {
        let found = format!("{inodes_free} of {inodes} inodes are free at {}", dir.display());
        let advice = "No new file can be made without one. Look for directories with very many files: du --inodes";
        all.push(if share(inodes_free, inodes) < 0.01 {
            error("inodes", found, advice)
        } else {
            warning("inodes", found, advice)
        });
    }
    all
}

/// Removes the probe's file, whatever happened.
struct Probe(PathBuf);
impl Drop for Probe {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

/// Times of small writes that are surely on the disk, sorted.
fn fsync(dir: &Path) -> std::io::Result<Vec<Duration>> {
    let probe = Probe(dir.join(format!(".doctor-{}", std::process::id())));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&probe.0)?;
    let (block, begun) = ([0x5a; BYTES], Instant::now());
    let mut took = Vec::with_capacity(WRITES);
    while took.len() < WRITES && begun.elapsed() < LONGEST {
        let one = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        took.push(one.elapsed());
    }
    took.sort_unstable();
    Ok(took)
}

fn judge_fsync(dir: &Path, sorted: Vec<Duration>) -> Finding {
    let at = |share: f64| {
        sorted.get(((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    // Of so few writes one is let off: the kernel has other things to do, too.
    let (half, most) = (at(0.5), at(0.97));
    let found = format!(
        "a write to {} is on the disk after {:.1} ms, of 100 the slowest after {:.1} ms",
        dir.display(),
        ms(half),
        ms(most)
    );
    let advice =
        "Every commit waits for this. Put the state directory on a disk of its own, best an SSD with power-loss protection.";
    if half > BAD {
        error("disk latency", found, advice)
    } else if most > GOOD {
        warning("disk latency", found, advice)
    } else {
        ok("disk latency", found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn level(free: u64, size: u64, inodes_free: u64) -> Vec<Level> {
        let room = Room { size, free, inodes: 1000, inodes_free };
        judge_room(Path::new("/x"), room).iter().map(|f| f.level).collect()
    }

    #[test]
    fn a_disk_is_judged_by_what_is_left() {
        assert_eq!(level(50 << 30, 100 << 30, 900), [Level::Ok]);
        assert_eq!(level(5 << 30, 100 << 30, 900), [Level::Warning]);
        assert_eq!(level(1 << 30, 4 << 30, 900), [Level::Warning]);
        assert_eq!(level(100 << 20, 100 << 30, 900), [Level::Error]);
        assert_eq!(level(50 << 30, 100 << 30, 30), [Level::Ok, Level::Warning]);
        assert_eq!(level(50 << 30, 100 << 30, 3), [Level::Ok, Level::Error]);
    }

    #[test]
    fn the_probe_measures_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let took = fsync(dir.path()).unwrap();
        assert!(!took.is_empty() && took.is_sorted());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let of = |ms: u64| judge_fsync(dir.path(), vec![Duration::from_millis(ms); WRITES]).level;
        assert_eq!([of(1), of(50), of(500)], [Level::Ok, Level::Warning, Level::Error]);
        assert!(fsync(&dir.path().join("none")).is_err());
    }
}
