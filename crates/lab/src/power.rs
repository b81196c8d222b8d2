//! A host's power: its first process, and commands that run on it.
//!
//! The kernel ends every process of a process namespace when its first one is killed, at once and whatever they do meanwhile: no
//! supervisor has time to start another, and nobody says good-bye on the network.
use crate::{
    Error,
    host::{Host, Lab, file},
    net, process, share,
};
use rustix::process::Signal;
use std::{process::Stdio, sync::Arc, time::Duration};
use supervise::{Daemon, Identity, Ready};
use tokio::{process::Command, time::Instant};

/// A command on a host: to start a controller it joins etcd and waits for the API.
const WITHIN: Duration = Duration::from_secs(180);
const OFF_WITHIN: Duration = Duration::from_secs(10);

/// The first process: makes the host a machine of its own, then reaps orphans. `$1` is the host's name, `$2` a file of its own, `$3` what
/// it writes to for its share of the processors, if it has one.
const INIT: &str = r#"
set -e
[ -z "$3" ] || echo 0 > "$3"
hostname "$1"
mount -t tmpfs -o mode=755 lab-run /run
mount -t sysfs lab-sys /sys
cat /proc/sys/kernel/random/uuid > "$2"
mount --bind "$2" /proc/sys/kernel/random/boot_id
cp "$2" "$2.ready"
set +e
while :; do sleep 86400 & wait "$!"; done
"#;

fn daemon(lab: &Lab, host: &Host) -> Daemon {
    let boot = lab.run_dir().join(format!("{}.boot", host.name));
    let ready = boot.with_extension("boot.ready");
    let unshare = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let init = ["bash", "-c", INIT, "init", &host.name];
    let members = share::members(host).unwrap_or_default();
    let own = [boot.display().to_string(), members.display().to_string()];
    let argv = unshare.iter().chain(&init).map(|s| (*s).to_owned()).chain(own).collect();
    let check = Ready::Check(Arc::new(move || {
        let there = ready.exists();
        Box::pin(async move { there })
    }));
    Daemon::new(&host.name, lab.run_dir(), argv).netns(Some(host.netns.clone())).ready(check)
}

/// The host's first process, if it has power.
pub(crate) fn init(lab: &Lab, host: &Host) -> Option<Identity> {
    let parent = daemon(lab, host).running()?;
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", parent.pid)).ok()?;
    children.split_whitespace().find_map(|pid| Identity::of(pid.parse().ok()?))
}

/// Switches it on; nothing runs on it yet.
pub(crate) async fn on(lab: &Lab, host: &Host) -> Result<(), Error> {
    let disk = lab.disk(host);
    // As the state directory of any cloud: entered by all, what is secret is closed by itself.
    std::fs::create_dir_all(&disk).map_err(file("create", &disk))?;
    if init(lab, host).is_none() {
        let ready = lab.run_dir().join(format!("{}.boot.ready", host.name));
        match std::fs::remove_file(&ready) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(file("remove", &ready)(e)),
            _ => {}
        }
    }
    daemon(lab, host).ensure().await?;
    Ok(())
}

/// Cuts the power: the link goes, and with it every process.
pub(crate) async fn off(lab: &Lab, host: &Host) -> Result<(), Error> {
    let Some(init) = init(lab, host) else { return Ok(()) };
    net::unplug(lab, host).await?;
    process::signal(init, Signal::KILL);
    ended(lab, host).await
}

/// Waits until nothing of a host that was killed is left.
pub(crate) async fn ended(lab: &Lab, host: &Host) -> Result<(), Error> {
    let until = Instant::now() + OFF_WITHIN;
    // Its parent ends after it, and it ends when all others have.
    while daemon(lab, host).running().is_some() {
        if Instant::now() > until {
            return Err(late(lab, format!("{} is off", host.name), OFF_WITHIN));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

pub(crate) fn late(lab: &Lab, what: String, within: Duration) -> Error {
    Error::Late { what, within, dir: lab.dir.clone() }
}

/// A command as it runs on a host.
pub(crate) fn command(lab: &Lab, host: &Host, argv: &[String]) -> Result<Command, Error> {
    let mut words = share::enter(host);
    words.push("nsenter".to_owned());
    match init(lab, host) {
        Some(init) => words.extend(["--target", &init.pid.to_string(), "--mount", "--uts", "--net", "--pid"].map(str::to_owned)),
        None if host.role == crate::host::Role::Client => words.push(format!("--net=/run/netns/{}", host.netns)),
        None => return Err(Error::Off { host: host.name.clone() }),
    }
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg("--").args(argv).env_remove("DROVER_STATE");
    Ok(command)
}

/// Runs the lab's drover on a host, on the host's own state directory; gives its stdout.
pub(crate) async fn drover(lab: &Lab, host: &Host, arguments: &[String]) -> Result<String, Error> {
    let mut argv = vec![lab.drover.display().to_string(), "--state".into(), lab.disk(host).display().to_string()];
    argv.extend_from_slice(arguments);
    run(lab, host, &argv).await
}

/// Runs a command on a host; gives its stdout.
pub(crate) async fn run(lab: &Lab, host: &Host, argv: &[String]) -> Result<String, Error> {
    let mut child = command(lab, host, argv)?;
    let text = argv.join(" ");
    let out = child.stdin(Stdio::null()).kill_on_drop(true).output();
    let failed = |stderr: String| Error::Failed { host: host.name.clone(), command: text.clone(), stderr };
    let out = tokio::time::timeout(WITHIN, out).await.map_err(|_| Error::Slow {
        host: host.name.clone(),
        command: text.clone(),
        within: WITHIN,
        dir: lab.disk(host),
    })?;
    let out = out.map_err(|e| failed(e.to_string()))?;
    if !out.status.success() {
        return Err(failed(String::from_utf8_lossy(&out.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
