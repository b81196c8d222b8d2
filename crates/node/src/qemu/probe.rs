//! Finds out what this host can really do, by doing it: which user guests can run as, whether KVM runs a guest, which machine types.
use crate::{
    Config, Error,
    command::Tool,
    qemu::{process, qmp::Qmp},
};
use serde_json::json;
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    time::Duration,
};

/// What guests get on this host.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// `7002022` for 7.2.22.
    pub(crate) version: u64,
    pub(crate) accelerator: &'static str,
    /// Versioned names of `pc` and `q35`.
    pub(crate) pc: String,
    pub(crate) q35: String,
    /// Can guests run as users of their own?
    pub(crate) separate_users: bool,
    /// Group that may open `/dev/kvm`, when guests need it.
    pub(crate) kvm_group: Option<u32>,
}

pub(crate) async fn probe(config: &Config) -> Result<Host, Error> {
    let program = config.qemu.clone();
    let ask = async |option: &str| {
        let output = tokio::process::Command::new(&program).args([option, "help"]).kill_on_drop(true).output();
        let output = tokio::time::timeout(Duration::from_secs(30), output).await;
        let output = output.map_err(|_| Error::Silent(option.into()))?;
        Ok::<_, Error>(String::from_utf8_lossy(&output.map_err(Error::path("run", &program))?.stdout).into_owned())
    };
    let version = parse_version(&ask("-version").await?);
    let machines = ask("-machine").await?;
    // Without the tools nothing works, and it is better to say so now.
    Tool::new("qemu-img").args(["--version"]).run().await?;
    let alias =
        |of: &str| alias(&machines, of).ok_or_else(|| Error::Config(format!("{} knows no machine type {of}", program.display())));
    let separate_users = config.guest_users.is_some() && nix::unistd::geteuid().is_root() && is_reachable(&config.dir);
    if config.guest_users.is_some() && !separate_users {
        tracing::warn!(dir = %config.dir.display(), "guests run as the agent's own user: it is not root, or others cannot pass its directory");
    }
    let mut host = Host { version, accelerator: "tcg", pc: alias("pc")?, q35: alias("q35")?, separate_users, kvm_group: None };
    match config.accelerator.as_deref() {
        Some("kvm") => host.accelerator = "kvm",
        Some(_) => {}
        None if runs_kvm(config, &mut host).await => host.accelerator = "kvm",
        None => tracing::info!("KVM does not run a guest here; guests are emulated"),
    }
    if host.accelerator == "kvm" {
        host.kvm_group = kvm_group();
    }
    Ok(host)
}

/// Can every user pass all directories up to this one?
fn is_reachable(dir: &Path) -> bool {
    dir.ancestors().all(|d| fs::metadata(d).is_ok_and(|m| m.permissions().mode() & 0o001 != 0))
}

fn kvm_group() -> Option<u32> {
    let kvm = fs::metadata("/dev/kvm").ok()?;
    (kvm.permissions().mode() & 0o060 == 0o060).then(|| kvm.gid())
}

/// Starts a real guest with the users' own credentials, else with the agent's.
async fn runs_kvm(config: &Config, host: &mut Host) -> bool {
    if !Path::new("/dev/kvm").exists() {
        return false;
    }
    if host.separate_users && try_kvm(config, config.guest_users.map(|u| (u.first, kvm_group().unwrap_or(u.first)))).await {
        return true;
    }
    if !try_kvm(config, None).await {
        return false;
    }
    if host.separate_users {
        tracing::warn!("guests run as the agent's own user: /dev/kvm is closed to others; make its group able to write");
        host.separate_users = false;
    }
    true
}

/// Does the firmware of a small guest run for a moment?
async fn try_kvm(config: &Config, user: Option<(u32, u32)>) -> bool {
    let dir = config.dir.join("probe");
    let attempt = async {
        fs::create_dir_all(&dir).map_err(Error::path("create", &dir))?;
        if let Some((uid, gid)) = user {
            chown(&dir, Some(uid), Some(gid)).map_err(Error::path("give", &dir))?;
        }
        let socket = dir.join("qmp.sock");
        super::cache::remove(&socket)?;
        let arguments =
            ["-accel", "kvm", "-cpu", "host", "-m", "16M", "-display", "none", "-nodefaults", "-no-user-config", "-qmp"];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        arguments.push(format!("unix:{},server=on,wait=off", socket.display()));
        let pid = process::spawn(&config.qemu, &arguments, user, &dir.join("log"), || {})?;
        let start = process::start_time(pid).unwrap_or(0);
        let ran = is_running(pid, start, &socket).await;
        process::kill(pid, start).await?;
        Ok::<_, Error>(ran)
    };
    let ran = attempt.await;
    let _ = fs::remove_dir_all(&dir);
    ran.unwrap_or(false)
}

async fn is_running(pid: u32, start: u64, socket: &Path) -> bool {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while tokio::time::Instant::now() < deadline && process::is_alive(pid, start) {
        if let Ok(qmp) = Qmp::connect(socket, Duration::from_secs(2), |_| {}).await {
            // A KVM that cannot run a guest says so within its first instructions.
            tokio::time::sleep(Duration::from_millis(200)).await;
            return qmp.run("query-status", json!({})).await.is_ok_and(|s| s["status"] == "running");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

/// `QEMU emulator version 7.2.22 (Debian …)` as Nova's number.
fn parse_version(text: &str) -> u64 {
    let numbers = text.split_once("version ").map_or("", |(_, v)| v);
    let numbers = numbers.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or("");
    let mut parts = numbers.split('.').map(|p| p.parse::<u64>().unwrap_or(0));
    let mut part = || parts.next().unwrap_or(0);
    part() * 1_000_000 + part() * 1000 + part()
}

/// The versioned machine type behind an alias.
fn alias(machines: &str, of: &str) -> Option<String> {
    let line = machines.lines().find(|l| l.split_whitespace().next() == Some(of))?;
    Some(line.split_once("alias of ")?.1.split([')', ' ']).next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_qemu_says() {
        assert_eq!(parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright"), 7_002_022);
        let machines =
            "Supported machines are:\npc   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)\npc-i440fx-7.2  Standard\n";
        assert_eq!(alias(machines, "pc").as_deref(), Some("pc-i440fx-7.2"));
        assert_eq!(alias(machines, "q35"), None);
    }
}
