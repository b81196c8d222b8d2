//! Starting, recognising and ending QEMU processes. They are no children in spirit: own session, recorded by pid and start time.
use crate::Error;
use std::{fs, path::Path, process::Stdio, time::Duration};

/// Does this very process live? Not when another process has its pid, nor when nothing but a zombie is left. The first thread of a
/// process may be a zombie while others still run or end, and as long as they do the process holds its files and their locks.
pub(crate) fn is_alive(pid: u32, start_time: u64) -> bool {
    stat(pid).is_some_and(|s| s.start == start_time && (s.threads > 1 || !matches!(s.state, 'Z' | 'X')))
}

/// Clock ticks after boot at which a process started.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    stat(pid).map(|s| s.start)
}

/// What we need of `/proc/<pid>/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    threads: u32,
    start: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in parentheses may hold anything, so fields are counted from its end.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let threads = fields.nth(16)?.parse().ok()?;
    Some(Stat { state, threads, start: fields.nth(1)?.parse().ok()? })
}

/// Kills a process, if it still is the one that was recorded, and waits until it is gone.
pub(crate) async fn kill(pid: u32, start_time: u64) -> Result<(), Error> {
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let mut wait = Duration::from_millis(1);
    while is_alive(pid, start_time) {
        let target = Pid::from_raw(i32::try_from(pid).map_err(|_| Error::Silent("a signal".into()))?);
        match kill(target, Signal::SIGKILL) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(e) => return Err(Error::io("ending a guest's process")(e.into())),
        }
        if tokio::time::Instant::now() > deadline {
            return Err(Error::Silent("a kill signal".into()));
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_millis(100));
    }
    Ok(())
}

/// Starts QEMU in a session of its own. `on_exit` is called when it ends while this agent lives.
pub(crate) fn spawn(
    program: &Path,
    arguments: &[String],
    user: Option<(u32, u32)>,
    log: &Path,
    on_exit: impl FnOnce() + Send + 'static,
) -> Result<u32, Error> {
    let out = fs::File::create(log).map_err(Error::path("create", log))?;
    let mut command = tokio::process::Command::new("setsid");
    command.arg(program).args(arguments).current_dir("/").env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out);
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    let mut child = command.spawn().map_err(|e| Error::Start(format!("it cannot be run: {e}")))?;
    let pid = child.id().ok_or_else(|| Error::Start("it ended at once".into()))?;
    tokio::spawn(async move {
        let status = child.wait().await;
        tracing::debug!(pid, ?status, "a QEMU process ended");
        on_exit();
    });
    Ok(pid)
}

/// What QEMU said last, for errors.
pub(crate) fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let words = text.trim();
    let from = words.char_indices().rev().nth(400).map_or(0, |(i, _)| i);
    if words.is_empty() { "it gave no reason".into() } else { words[from..].to_owned() }
}

/// Guests of ours that run, as (pid, server id): by name and by the directory of their sockets.
pub(crate) fn running(dir: &Path) -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let servers = dir.join("servers");
    pids.filter_map(|pid| Some((pid, owner(&fs::read(format!("/proc/{pid}/cmdline")).ok()?, &servers)?))).collect()
}

/// The server id of a command line of ours.
fn owner(cmdline: &[u8], servers: &Path) -> Option<String> {
    let text = String::from_utf8_lossy(cmdline);
    let arguments: Vec<&str> = text.split('\0').collect();
    let name = arguments.iter().position(|a| *a == "-name").and_then(|i| arguments.get(i + 1))?;
    let id = name.strip_prefix("guest=drover-")?.split(',').next()?;
    let socket = format!("unix:{},", servers.join(id).join("qmp.sock").display());
    arguments.iter().any(|a| a.starts_with(&socket)).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_this_process_and_no_other() {
        let pid = std::process::id();
        let start = start_time(pid).unwrap();
        assert!(is_alive(pid, start) && !is_alive(pid, start + 1) && !is_alive(u32::MAX - 1, start));
        let odd = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        assert_eq!(parse_stat(odd), Some(Stat { state: 'S', threads: 1, start: 4711 }));
        assert_eq!(parse_stat("garbage"), None);
    }

    #[test]
    fn owns_only_what_has_our_name_and_our_directory() {
        let line = |dir: &str| format!("qemu\0-name\0guest=drover-abc,x=y\0-qmp\0unix:{dir}/servers/abc/qmp.sock,server=on\0");
        assert_eq!(owner(line("/n").as_bytes(), Path::new("/n/servers")), Some("abc".into()));
        assert_eq!(owner(line("/other").as_bytes(), Path::new("/n/servers")), None);
        assert_eq!(owner(b"qemu\0-name\0guest=mine\0", Path::new("/n/servers")), None);
    }

    #[tokio::test]
    async fn starts_in_its_own_session_and_dies_on_demand() {
        let dir = tempfile::tempdir().unwrap();
        let (told, ended) = tokio::sync::oneshot::channel();
        let log = dir.path().join("log");
        let pid = spawn(Path::new("sleep"), &["60".into()], None, &log, move || told.send(()).unwrap()).unwrap();
        let start = start_time(pid).unwrap();
        kill(pid, start).await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap().unwrap();
        assert!(!is_alive(pid, start));
    }
    #[tokio::test]
    async fn a_process_whose_first_thread_has_ended_lives_on() {
        // SYS_exit ends the thread that calls it and no other.
        let number = if cfg!(target_arch = "x86_64") { 60 } else { 93 };
        let program = format!(
            "import ctypes, threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\nctypes.CDLL(None).syscall({number}, 0)"
        );
        let dir = tempfile::tempdir().unwrap();
        let (told, ended) = tokio::sync::oneshot::channel();
        let log = dir.path().join("log");
        let pid = spawn(Path::new("python3"), &["-c".into(), program], None, &log, move || told.send(()).unwrap()).unwrap();
        let start = start_time(pid).unwrap();
        let halved = async {
            while stat(pid).unwrap().state != 'Z' {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), halved).await.expect("the first thread ends");
        assert!(is_alive(pid, start), "the other thread holds what the process had");
        kill(pid, start).await.unwrap();
        assert!(!is_alive(pid, start));
        tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap().unwrap();
    }
}
