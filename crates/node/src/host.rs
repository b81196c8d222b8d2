//! Facts of the host, read from `/proc` and the file system.
use crate::{Config, Error};
use std::{fs, path::Path};

const GIB: u64 = 1 << 30;

/// Size and room of the file system below a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub total: u64,
    pub free: u64,
}

pub fn room(path: &Path) -> Result<Room, Error> {
    let s = nix::sys::statvfs::statvfs(path).map_err(|e| Error::path("measure", path)(e.into()))?;
    let unit = s.fragment_size();
    Ok(Room { total: s.blocks() * unit, free: s.blocks_available() * unit })
}

/// Changes with each boot of the machine.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|s| s.trim().to_owned()).unwrap_or_default()
}

/// Everything of the report but the hypervisor's own part.
pub fn report(config: &Config, hypervisor_type: &str, hypervisor_version: u64, accelerator: &str) -> assign::HostReport {
    let room = room(&config.dir).unwrap_or(Room { total: 0, free: 0 });
    let reserved = config.reserved_disk_gib;
    assign::HostReport {
        boot_id: boot_id(),
        hypervisor_type: hypervisor_type.into(),
        hypervisor_version,
        accelerator: accelerator.into(),
        cpu_model: fs::read_to_string("/proc/cpuinfo").map(|t| cpu_model(&t)).unwrap_or_default(),
        vcpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory_mib: fs::read_to_string("/proc/meminfo")
            .map(|t| memory_mib(&t))
            .unwrap_or(0)
            .saturating_sub(config.reserved_memory_mib),
        disk_gib: (room.total / GIB).saturating_sub(reserved),
        disk_free_gib: (room.free / GIB).saturating_sub(reserved),
        volume_gib: (room.total / GIB).saturating_sub(reserved),
        volume_free_gib: (room.free / GIB).saturating_sub(reserved),
        host_ip: config.host_ip.clone(),
        physical_networks: config.physical_networks.clone(),
    }
}

fn cpu_model(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find_map(|l| l.strip_prefix("model name"));
    line.and_then(|l| l.split_once(':')).map(|(_, name)| name.trim().to_owned()).unwrap_or_else(|| "unknown".into())
}

fn memory_mib(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc() {
        assert_eq!(
            cpu_model("processor\t: 0\nmodel name\t: Intel(R) Xeon(R) @ 2.1GHz\nstepping: 3"),
            "Intel(R) Xeon(R) @ 2.1GHz"
        );
        assert_eq!(memory_mib("MemTotal:       24682792 kB\nMemFree: 1 kB"), 24104);
        assert_eq!((cpu_model(""), memory_mib("")), ("unknown".into(), 0));
    }

    #[test]
    fn this_host_has_something() {
        let report = report(&Config::new("/", "h"), "QEMU", 7_002_022, "tcg");
        assert!(report.vcpus > 0 && report.disk_gib > 0 && !report.boot_id.is_empty());
    }
}
