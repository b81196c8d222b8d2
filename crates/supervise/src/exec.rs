//! Short commands with a deadline: the answer is their stdout, the error is their stderr.
use crate::Error;
use std::{process::Stdio, time::Duration};

const WITHIN: Duration = Duration::from_secs(20);

/// Runs `argv` to its end in the current network namespace.
pub async fn run(argv: &[&str]) -> Result<String, Error> {
    run_in(None, argv).await
}

/// Runs `argv` to its end in a named network namespace (see `ip netns`).
pub async fn run_in(netns: Option<&str>, argv: &[&str]) -> Result<String, Error> {
    let argv: Vec<String> = enter(netns).chain(argv.iter().map(|a| (*a).to_owned())).collect();
    let command = argv.join(" ");
    let (program, rest) = argv.split_first().expect("a command has a name");
    let child = tokio::process::Command::new(program).args(rest).stdin(Stdio::null()).kill_on_drop(true).output();
    let out = tokio::time::timeout(WITHIN, child)
        .await
        .map_err(|_| Error::Slow { command: command.clone(), within: WITHIN })?
        .map_err(|source| Error::Command { command: command.clone(), source })?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    let stderr = if stderr.is_empty() { out.status.to_string() } else { stderr };
    Err(Error::Failed { command, stderr })
}

/// Runs `ip` with the words of `line` in a namespace; values must not hold spaces.
pub async fn ip(netns: Option<&str>, line: &str) -> Result<String, Error> {
    let mut argv = vec!["ip"];
    if let Some(ns) = netns {
        argv.extend(["-n", ns]);
    }
    argv.extend(line.split_ascii_whitespace());
    run(&argv).await
}

/// The words that put a command into a network namespace without a process in between.
pub(crate) fn enter(netns: Option<&str>) -> impl Iterator<Item = String> {
    netns.into_iter().flat_map(|ns| ["nsenter".to_owned(), format!("--net=/run/netns/{ns}")])
}
