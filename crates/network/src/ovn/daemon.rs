//! A daemon of OVN's central part as we start it: traces in our own run directory, nothing of the machine's.
use std::path::Path;
use supervise::Daemon;

pub(super) fn daemon(run_dir: &Path, netns: Option<String>, name: &str, mut argv: Vec<String>) -> Daemon {
    argv.extend(["--no-chdir".into(), "-vsyslog:off".into(), "-vfile:off".into()]);
    argv.push(format!("--unixctl={}", run_dir.join(format!("{name}.ctl")).display()));
    let dir = run_dir.display().to_string();
    let daemon = Daemon::new(name, run_dir, argv).netns(netns);
    daemon.env("OVS_RUNDIR", &dir).env("OVN_RUNDIR", &dir).env("OVS_LOGDIR", &dir).env("OVN_LOGDIR", &dir).env("OVS_DBDIR", dir)
}
