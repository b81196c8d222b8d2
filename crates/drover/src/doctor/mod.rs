//! `drover doctor`: looks at a machine, at what runs on it and at its cluster, and says what to do about each thing that is not right.
//!
//! It changes nothing (but for a file that it writes and removes to measure the disk), needs no running cloud, and bears everything that
//! it looks at being broken: each look has a deadline, and what cannot be found out is a finding itself. What is good or bad is decided by
//! plain functions beside each look.
//!
//! Exit codes: 0 nothing to do, 1 warnings, 2 errors.
mod certificates;
mod clocks;
mod cluster;
mod disks;
mod files;
mod machine;
mod programs;

use crate::config::{Config, Flags, State};
use serde::Serialize;
use std::time::{Duration, SystemTime};

/// For one look at something that may not answer.
const PATIENCE: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Ok,
    Warning,
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) check: &'static str,
    pub(crate) level: Level,
    pub(crate) found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
}

fn ok(check: &'static str, found: impl Into<String>) -> Finding {
    Finding { check, level: Level::Ok, found: found.into(), advice: None }
}
fn warning(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { check, level: Level::Warning, found: found.into(), advice: Some(advice.into()) }
}
fn error(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { check, level: Level::Error, found: found.into(), advice: Some(advice.into()) }
}

/// What this machine is, or is about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Nothing yet: what `drover up` needs is looked at.
    New,
    /// The whole cloud; guests are real or simulated.
    Whole {
        guests: bool,
    },
    Controller,
    Node,
}

impl Role {
    fn of(state: &State, config: &Config) -> Self {
        if !state.config().exists() {
            Self::New
        } else if config.node.is_some() {
            Self::Node
        } else if config.controller.is_some() {
            Self::Controller
        } else {
            Self::Whole { guests: config.has_host() }
        }
    }
    fn runs_guests(self, config: &Config) -> bool {
        match self {
            Self::New => true,
            Self::Whole { guests } => guests,
            Self::Controller => false,
            Self::Node => config.node.as_ref().is_some_and(|n| n.network.is_some()),
        }
    }
}

/// What every look needs.
struct Look<'a> {
    state: &'a State,
    config: &'a Config,
    role: Role,
    now: SystemTime,
    /// The pair of this state directory runs.
    runs: bool,
}

/// Looks at everything.
pub(crate) async fn doctor(state: &State) -> Vec<Finding> {
    let mut all = Vec::new();
    let config = match Config::load(state, &Flags::default()) {
        Ok(config) => config,
        Err(cause) => {
            all.push(error("options", cause, "Nothing can start like this; take config.json from a backup."));
            Config::default()
        }
    };
    let runs = crate::up::running(state).is_ok_and(|role| role.is_some());
    let look = Look { state, config: &config, role: Role::of(state, &config), now: SystemTime::now(), runs };
    all.push(what_is_here(&look));
    let (machine, clocks, cluster) = tokio::join!(machine::look(&look), clocks::look(&look), cluster::look(&look));
    all.extend(machine);
    all.extend(programs::look(&look).await);
    all.extend(disks::look(&look));
    all.extend(files::look(&look).await);
    all.extend(certificates::look(&look));
    all.extend(clocks);
    all.extend(cluster);
    all
}

fn what_is_here(look: &Look<'_>) -> Finding {
    let dir = look.state.dir().display();
    let what = match look.role {
        Role::New => return ok("role", format!("nothing is in {dir} yet; this is what a first `drover up` finds")),
        Role::Whole { .. } => "a cloud of one machine",
        Role::Controller => "a controller",
        Role::Node => "a host",
    };
    let name = look.config.name();
    match (look.runs, crate::up::is_going_down(look.state)) {
        (true, _) => ok("role", format!("{what}, {name}, which runs")),
        (false, true) => ok("role", format!("{what}, {name}, which was stopped with drover down")),
        (false, false) => {
            let advice = format!("Start it with: drover up --state {dir}");
            error("role", format!("{what}, {name}, which does not run although nobody stopped it"), advice)
        }
    }
}

/// The worst that was found.
pub(crate) fn worst(all: &[Finding]) -> Level {
    all.iter().map(|f| f.level).max().unwrap_or(Level::Ok)
}

/// For people: what is wrong first.
pub(crate) fn rows(all: &[Finding]) -> Vec<Vec<String>> {
    let mut sorted: Vec<&Finding> = all.iter().collect();
    sorted.sort_by_key(|f| std::cmp::Reverse(f.level));
    let row = |f: &Finding| {
        let level = match f.level {
            Level::Ok => "ok",
            Level::Warning => "WARNING",
            Level::Error => "ERROR",
        };
        let text =
            f.advice.as_ref().map_or_else(|| f.found.clone(), |advice| format!("{}. {advice}", f.found.trim_end_matches('.')));
        vec![level.to_owned(), f.check.to_owned(), text]
    };
    sorted.into_iter().map(row).collect()
}

/// `120 GiB`, `3.4 GiB`, `512 MiB`.
fn bytes(n: u64) -> String {
    const GIB: f64 = (1u64 << 30) as f64;
    match n as f64 / GIB {
        gib if gib >= 10.0 => format!("{gib:.0} GiB"),
        gib if gib >= 1.0 => format!("{gib:.1} GiB"),
        _ => format!("{} MiB", n >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_told_first_and_by_the_exit_code() {
        let all = [ok("a", "fine"), error("b", "Broken.", "Mend it."), warning("c", "odd", "Look.")];
        assert_eq!(worst(&all), Level::Error);
        assert_eq!(worst(&all[..1]), Level::Ok);
        assert_eq!(rows(&all)[0], ["ERROR", "b", "Broken. Mend it."]);
        assert_eq!(rows(&all)[2], ["ok", "a", "fine"]);
        assert_eq!([bytes(120 << 30), bytes(3650722201), bytes(512 << 20)], ["120 GiB", "3.4 GiB", "512 MiB"]);
    }
}
