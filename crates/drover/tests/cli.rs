//! What the command line promises without a cloud.
use std::process::{Command, Output};

fn drover(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_drover")).args(args).output().expect("the program runs")
}

#[test]
fn help_teaches_and_goes_to_stdout() {
    let out = drover(&["--help"]);
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success());
    for word in ["up", "down", "status", "why", "node", "task", "token", "dump-config", "Exit codes"] {
        assert!(text.contains(word), "--help does not mention {word}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    assert_eq!(drover(&["--no-such-flag"]).status.code(), Some(2));
}

#[test]
fn the_options_in_force_are_printed_as_json() {
    let state = std::env::temp_dir().join(format!("drover-cli-{}", std::process::id()));
    let out = drover(&["dump-config", "--state", &state.display().to_string()]);
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("\"listen\": \"127.0.0.1:8774\""), "{text}");
    assert!(!state.exists(), "a question changes nothing");
}

#[test]
fn a_cloud_that_is_not_there_is_an_error_that_says_what_to_do() {
    let state = std::env::temp_dir().join(format!("drover-none-{}", std::process::id()));
    let out = drover(&["status", "--state", &state.display().to_string()]);
    assert_eq!(out.status.code(), Some(1));
    assert!(out.stdout.is_empty());
}
