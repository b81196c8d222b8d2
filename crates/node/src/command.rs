//! Runs the host's tools: always with a deadline, always with limits where they read what users gave.
use crate::Error;
use std::{process::Stdio, time::Duration};
use tokio::{io::AsyncWriteExt as _, process::Command};

/// A tool and its arguments.
pub(crate) struct Tool {
    name: &'static str,
    command: Command,
    input: Option<String>,
    deadline: Duration,
}

impl Tool {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, command: Command::new(name), input: None, deadline: Duration::from_secs(30) }
    }
    /// The tool below limits on address space (bytes) and processor time (seconds), for work on users' files.
    pub(crate) fn limited(name: &'static str, memory: u64, seconds: u64) -> Self {
        let mut command = Command::new("prlimit");
        command.args([&format!("--as={memory}"), &format!("--cpu={seconds}"), "--core=0", "--", name]);
        Self { name, command, input: None, deadline: Duration::from_secs(seconds.saturating_mul(10)) }
    }
    pub(crate) fn args<S: AsRef<std::ffi::OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
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
    /// Runs it as another user and group.
    pub(crate) fn user(mut self, user: Option<u32>) -> Self {
        if let Some(user) = user {
            self.command.uid(user).gid(user);
        }
        self
    }
    /// Runs it to its end; its output, or its last words as the cause. Dropping this kills the tool.
    pub(crate) async fn run(mut self) -> Result<String, Error> {
        let failed = |cause: String, transient| Error::Tool { tool: self.name.into(), cause, transient };
        self.command.kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped()).env("LC_ALL", "C");
        self.command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = self.command.spawn().map_err(|e| failed(format!("it cannot be run: {e}"), false))?;
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
}
