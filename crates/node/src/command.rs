//! Runs the host's tools: always with a deadline, always with limits where they read what users gave.
use crate::Error;
use std::{
    ffi::{OsStr, OsString},
    process::Stdio,
    time::Duration,
};
use tokio::{io::AsyncWriteExt as _, process::Command};

/// A tool and its arguments.
pub(crate) struct Tool {
    name: &'static str,
    args: Vec<OsString>,
    /// Address space in bytes and processor time in seconds.
    limits: Option<(u64, u64)>,
    user: Option<u32>,
    input: Option<String>,
    deadline: Duration,
}

impl Tool {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, args: Vec::new(), limits: None, user: None, input: None, deadline: Duration::from_secs(30) }
    }
    /// The tool below limits on address space (bytes) and processor time (seconds), for work on users' files.
    pub(crate) fn limited(name: &'static str, memory: u64, seconds: u64) -> Self {
        let deadline = Duration::from_secs(seconds.saturating_mul(10));
        Self { limits: Some((memory, seconds)), deadline, ..Self::new(name) }
    }
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }
    /// Text for the tool to read.
    pub(crate) fn input(mut self, text: String) -> Self {
        self.input = Some(text);
        self
    }
    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
    /// Runs it as another user and group, without a way to more rights, and in namespaces where there is no network and nobody else.
    pub(crate) fn user(mut self, user: Option<u32>) -> Self {
        self.user = user;
        self
    }
    /// The words of the whole command. Each of them becomes the next one, so that there is one process.
    fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let mut add = |text: &str| words.extend(text.split(' ').map(OsString::from));
        if let Some(user) = self.user {
            add("unshare --net --ipc --uts --");
            add(&format!("setpriv --reuid={user} --regid={user} --clear-groups --bounding-set=-all --no-new-privs --"));
        }
        if let Some((memory, seconds)) = self.limits {
            add(&format!("prlimit --as={memory} --cpu={seconds} --nofile=256 --core=0 --"));
        }
        add(self.name);
        words.extend(self.args.iter().cloned());
        words
    }
    /// Runs it to its end; its output, or its last words as the cause. Dropping this kills the tool.
    pub(crate) async fn run(self) -> Result<String, Error> {
        let failed = |cause: String, transient| Error::Tool { tool: self.name.into(), cause, transient };
        let words = self.words();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped()).env("LC_ALL", "C");
        command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().map_err(|e| failed(format!("it cannot be run: {e}"), false))?;
        let stdin = child.stdin.take();
        let feed = async {
            if let (Some(mut stdin), Some(text)) = (stdin, &self.input) {
                // A tool that stops reading says why when it ends.
                let _ = stdin.write_all(text.as_bytes()).await;
            }
        };
        let all = async { tokio::join!(feed, child.wait_with_output()).1 };
        let output = tokio::time::timeout(self.deadline, all)
            .await
            .map_err(|_| failed(format!("it took longer than {} s", self.deadline.as_secs()), true))?
            .map_err(|e| failed(e.to_string(), true))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let words = words.trim().chars().take(500).collect::<String>();
        if words.contains("No space left on device") {
            return Err(Error::NoSpace(self.name.into()));
        }
        Err(failed(if words.is_empty() { output.status.to_string() } else { words }, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_words_and_deadline() {
        assert_eq!(Tool::new("cat").input("hello".into()).run().await.unwrap(), "hello");
        let error = Tool::limited("ls", 1 << 30, 5).args(["/does/not/exist"]).run().await.unwrap_err();
        assert!(error.to_string().contains("No such file") && !error.is_transient(), "{error}");
        let error = Tool::new("sleep").args(["60"]).deadline(Duration::from_millis(50)).run().await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(matches!(Tool::new("no-such-tool").run().await, Err(Error::Tool { transient: false, .. })));
    }

    #[tokio::test]
    async fn another_user_has_no_network_and_no_way_to_more_rights() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let seen = Tool::limited("cat", 1 << 30, 5).user(Some(64_999)).args(["/proc/self/status", "/proc/self/net/dev"]);
        let seen = seen.run().await.unwrap();
        let line = |name: &str| seen.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned();
        assert_eq!((line("NoNewPrivs:"), line("CapEff:"), line("CapBnd:")), ("1".into(), "0".repeat(16), "0".repeat(16)));
        assert!(line("Uid:").starts_with("64999") && line("Groups:").is_empty(), "{seen}");
        let interfaces: Vec<&str> =
            seen.lines().filter_map(|l| l.split_once(':')).map(|(n, _)| n.trim()).filter(|n| *n == "lo").collect();
        let rows = seen.lines().skip_while(|l| !l.contains("|bytes")).skip(1).count();
        assert_eq!((interfaces, rows), (vec!["lo"], 1), "{seen}");
        let refused = Tool::limited("cat", 1 << 30, 5).user(Some(64_999)).args(["/etc/shadow"]).run().await.unwrap_err();
        assert!(refused.to_string().contains("Permission denied"), "{refused}");
    }
}
