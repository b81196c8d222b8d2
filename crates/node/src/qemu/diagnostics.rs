//! Counters of a guest in the form of Nova's diagnostics (microversion 2.48).
use crate::{Error, qemu::Qemu, remember::Remembered};
use serde_json::{Value, json};
use std::fs;

/// Nova's names of power states.
fn state(status: &str) -> &'static str {
    match status {
        "running" | "prelaunch" => "running",
        "paused" | "watchdog" | "io-error" => "paused",
        "shutdown" => "shutdown",
        "suspended" => "suspended",
        _ => "crashed",
    }
}

pub(crate) async fn read(qemu: &Qemu, id: &str, known: &Remembered) -> Result<Value, Error> {
    let live = qemu.live(id, known).await?.ok_or_else(|| Error::NotRunning(id.to_owned()))?;
    let status = live.qmp.run("query-status", json!({})).await?;
    let cpus = live.qmp.run("query-cpus-fast", json!({})).await?;
    let blocks = live.qmp.run("query-blockstats", json!({})).await?;
    let Some(process) = &known.process else { return Err(Error::NotRunning(id.to_owned())) };
    let uptime = base::Clock::now(&base::SystemClock).since(process.launched_at);
    let cpu_details: Vec<Value> = list(&cpus)
        .iter()
        .map(|c| json!({ "id": c["cpu-index"], "time": cpu_nanos(process.pid, c["thread-id"].as_u64()), "utilisation": null }))
        .collect();
    let disk_details: Vec<Value> = list(&blocks)
        .iter()
        .filter(|b| b["qdev"].as_str().is_some_and(|q| q.contains("disk")))
        .map(|b| {
            let s = &b["stats"];
            json!({ "read_bytes": s["rd_bytes"], "read_requests": s["rd_operations"], "write_bytes": s["wr_bytes"],
                "write_requests": s["wr_operations"], "errors_count": s["failed_rd_operations"].as_u64().unwrap_or(0)
                    + s["failed_wr_operations"].as_u64().unwrap_or(0) })
        })
        .collect();
    let nic_details: Vec<Value> = known.ports.values().map(|p| nic(&p.interface, &p.mac)).collect();
    // Clients accept only Nova's own drivers; this one answers as libvirt's does.
    Ok(json!({
        "state": state(status["status"].as_str().unwrap_or("")), "driver": "libvirt", "hypervisor": qemu.host.accelerator.replace("tcg", "qemu"),
        "hypervisor_os": "linux", "uptime": uptime.as_secs(), "config_drive": qemu.has_config_drive(id),
        "num_cpus": cpu_details.len(), "num_nics": nic_details.len(), "num_disks": disk_details.len(),
        "cpu_details": cpu_details, "nic_details": nic_details, "disk_details": disk_details,
        "memory_details": { "maximum": process.memory_mib, "used": resident_mib(process.pid) },
    }))
}

fn list(v: &Value) -> &[Value] {
    v.as_array().map_or(&[], Vec::as_slice)
}

/// What the tap received is what the guest sent.
fn nic(interface: &str, mac: &str) -> Value {
    let count = |name: &str| {
        let text = fs::read_to_string(format!("/sys/class/net/{interface}/statistics/{name}")).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0)
    };
    json!({ "mac_address": mac,
        "rx_octets": count("tx_bytes"), "rx_packets": count("tx_packets"), "rx_drop": count("tx_dropped"), "rx_errors": count("tx_errors"), "rx_rate": null,
        "tx_octets": count("rx_bytes"), "tx_packets": count("rx_packets"), "tx_drop": count("rx_dropped"), "tx_errors": count("rx_errors"), "tx_rate": null })
}

fn cpu_nanos(pid: u32, thread: Option<u64>) -> u64 {
    let text = thread.and_then(|t| fs::read_to_string(format!("/proc/{pid}/task/{t}/schedstat")).ok()).unwrap_or_default();
    text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn resident_mib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
}
