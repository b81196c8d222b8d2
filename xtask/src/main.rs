//! Checks that cargo cannot express, run as `cargo xtask NAME`.
//!
//! `deps` keeps the arrows between the crates: it reads `cargo metadata` and fails on an edge that the layers do not allow.

mod deps;

use std::io::Write;
use std::process::{Command, ExitCode, Stdio};

fn main() -> ExitCode {
    let task = std::env::args().nth(1);
    let outcome = match task.as_deref() {
        Some("deps") => check_deps(),
        _ => Err("usage: cargo xtask deps".to_owned()),
    };
    match outcome {
        Ok(text) => {
            // A closed pipe is the reader's choice, not our failure.
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::FAILURE
        }
    }
}

fn check_deps() -> Result<String, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo metadata could not be started: {error}"))?;
    if !output.status.success() {
        return Err("cargo metadata failed; its message is above.".to_owned());
    }
    let metadata = serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata is not JSON: {error}"))?;
    let crates = deps::read(&metadata)?;
    let violations = deps::check(&crates);
    if violations.is_empty() {
        return Ok(format!("deps: the arrows of {} crates are right.", crates.len()));
    }
    let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
    Err(lines.join("\n"))
}
