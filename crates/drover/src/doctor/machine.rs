//! What the machine offers: KVM, the kernel's switch, memory.
use super::{Finding, Look, PATIENCE, bytes, error, ok, warning};
use std::{process::Stdio, time::Duration};
use tokio::{
    io::AsyncWriteExt as _,
    time::{sleep, timeout},
};

const MOMENT: Duration = Duration::from_millis(300);

/// Below these the control plane itself is in danger (MiB).
const LITTLE_MEMORY: u64 = 1024;

pub(super) async fn look(look: &Look<'_>) -> Vec<Finding> {
    let mut all = vec![memory(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()), user()];
    if look.role.runs_guests(look.config) {
        all.push(kvm().await);
        all.push(datapath().await);
        all.extend(services().await);
    }
    all
}

fn user() -> Finding {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:")?.split_whitespace().next()?.parse::<u32>().ok());
    match uid {
        Some(0) => ok("user", "root"),
        _ => warning("user", "not root, so not everything can be seen", "Run drover doctor as root."),
    }
}

fn memory(meminfo: &str) -> Finding {
    let kib =
        |name: &str| meminfo.lines().find_map(|l| l.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    match kib("MemAvailable:") {
        None => warning("memory", "the kernel does not tell how much memory is free", "Look at /proc/meminfo."),
        Some(free) if free / 1024 < LITTLE_MEMORY => warning(
            "memory",
            format!("{} of memory are free", bytes(free * 1024)),
            "The kernel ends processes when none is left. Move guests away, or stop what else runs here.",
        ),
        Some(free) => ok("memory", format!("{} of memory are free", bytes(free * 1024))),
    }
}

/// Lets the firmware of a small guest run for a moment, as the file alone says little: nested machines often have one that does not work.
async fn kvm() -> Finding {
    let without = "Guests run much slower under TCG.";
    if !std::path::Path::new("/dev/kvm").exists() {
        let advice = format!(
            "{without} Switch virtualization on in the firmware (or for this virtual machine), then: modprobe kvm_intel, or kvm_amd"
        );
        return warning("KVM", "there is no /dev/kvm", advice);
    }
    let tried = async {
        let mut qemu = tokio::process::Command::new("qemu-system-x86_64")
            .args([
                "-accel",
                "kvm",
                "-cpu",
                "host",
                "-m",
                "16M",
                "-display",
                "none",
                "-nodefaults",
                "-no-user-config",
                "-qmp",
                "stdio",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut input) = qemu.stdin.take() {
            input.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").await.ok();
            // A KVM that cannot run a guest says so within its first instructions.
            sleep(MOMENT).await;
            input.write_all(b"{\"execute\":\"query-status\"}\n{\"execute\":\"quit\"}\n").await.ok();
            let out = qemu.wait_with_output().await;
            drop(input);
            return out;
        }
        qemu.wait_with_output().await
    };
    match timeout(PATIENCE, tried).await {
        Ok(Ok(out)) if String::from_utf8_lossy(&out.stdout).contains("\"status\": \"running\"") => {
            ok("KVM", "a guest runs on it")
        }
        Ok(Ok(out)) => {
            let text = String::from_utf8_lossy(&out.stderr).lines().next().unwrap_or_default().trim().to_owned();
            let found = format!("there is /dev/kvm, and no guest runs on it: {text}");
            warning("KVM", found, format!("{without} In a virtual machine its host must allow nesting; see the kernel's log."))
        }
        Ok(Err(e)) => warning("KVM", format!("QEMU cannot be run to try it: {e}"), "Install qemu-system-x86."),
        Err(_) => warning("KVM", "QEMU hangs when it uses /dev/kvm", format!("{without} Look at the kernel's log.")),
    }
}

async fn datapath() -> Finding {
    let loaded = std::path::Path::new("/sys/module/openvswitch").exists();
    let can_load = match loaded {
        true => true,
        false => supervise::run(&["modprobe", "-n", "-q", "openvswitch"]).await.is_ok(),
    };
    if can_load {
        return ok("datapath", "the kernel has openvswitch");
    }
    warning(
        "datapath",
        "the kernel has no module openvswitch, so packets go through a program",
        "Good for trials; for more speed use a kernel with CONFIG_OPENVSWITCH (Debian's linux-image-amd64 has it).",
    )
}

/// Those of the system that would share the kernel's switch with ours.
async fn services() -> Option<Finding> {
    if !std::path::Path::new("/run/systemd/system").exists() {
        return None;
    }
    let units = ["openvswitch-switch", "ovn-host", "ovn-central"];
    let mut active = Vec::new();
    for unit in units {
        if supervise::run(&["systemctl", "is-active", "--quiet", unit]).await.is_ok() {
            active.push(unit);
        }
    }
    let found = format!("{} of the system runs, and Drover runs its own", active.join(" "));
    let advice = format!("Two of them fight for the kernel's switch: systemctl disable --now {}", active.join(" "));
    (!active.is_empty()).then(|| error("services", found, advice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn little_memory_is_told() {
        assert_eq!(memory("MemTotal: 1 kB\nMemAvailable:    8000000 kB\n").level, Level::Ok);
        assert_eq!(memory("MemAvailable:    80000 kB\n").level, Level::Warning);
        assert_eq!(memory("").level, Level::Warning);
    }
}
