//! Steps that nodes are at, and how long each took: for `drover why`. In memory only; a story without them is still true.
//!
//! A fast step is told only in the line that says how the work ended. One that takes long, or is tried again, is told at once: it is
//! what the reader waits for.
use assign::{GuestState, ServerReport};
use std::{collections::HashMap, fmt::Write as _, time::Duration};
use tokio::time::Instant;

/// A step that takes longer than this is told while it goes on.
const SLOW: Duration = Duration::from_millis(500);
/// Steps kept of one server; more would not fit into a line.
const MOST: usize = 12;

struct Work {
    host: String,
    epoch: u64,
    /// Steps in order with their starts.
    steps: Vec<(String, Instant)>,
    told_step: bool,
    told_cause: Option<String>,
}

/// A line for the story of a server, as long as it is in this epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) host: String,
    pub(super) server: String,
    pub(super) epoch: u64,
    pub(super) text: String,
}

#[derive(Default)]
pub(super) struct Steps(HashMap<String, Work>);

impl Steps {
    /// Notes a report of work under way; gives what must be told at once.
    pub(super) fn note(&mut self, host: &str, report: &ServerReport, now: Instant) -> Option<Told> {
        if report.state != GuestState::Building {
            return None;
        }
        let work = self.0.entry(report.id.clone()).or_insert_with(|| Work {
            host: host.to_owned(),
            epoch: report.epoch,
            steps: Vec::new(),
            told_step: false,
            told_cause: None,
        });
        work.epoch = report.epoch;
        if let Some(step) = &report.step
            && work.steps.last().is_none_or(|(last, _)| last != step)
            && work.steps.len() < MOST
        {
            work.steps.push((step.clone(), now));
            work.told_step = false;
        }
        let cause = report.cause.clone().filter(|c| work.told_cause.as_ref() != Some(c))?;
        let what = report.step.as_deref().unwrap_or("a step");
        let text = format!("Node {host}: {what} failed and is tried again: {cause}");
        work.told_cause = Some(cause);
        Some(Told { host: host.to_owned(), server: report.id.clone(), epoch: work.epoch, text })
    }

    /// What took how long: ` (fetch image 0.8 s, start QEMU 0.3 s)`.
    pub(super) fn summary(&self, server: &str, now: Instant) -> String {
        let Some(work) = self.0.get(server).filter(|w| !w.steps.is_empty()) else { return String::new() };
        let ends = work.steps.iter().skip(1).map(|(_, at)| *at).chain([now]);
        let mut out = String::new();
        for ((step, start), end) in work.steps.iter().zip(ends) {
            // Ids are long and known from elsewhere.
            let short: Vec<&str> = step.split(' ').take(2).collect();
            let separator = if out.is_empty() { " (" } else { ", " };
            let taken = end.saturating_duration_since(*start).as_secs_f64();
            // Writing to a text cannot fail.
            write!(out, "{separator}{} {taken:.1} s", short.join(" ")).ok();
        }
        out.push(')');
        out
    }

    /// Nothing is under way any more.
    pub(super) fn forget(&mut self, server: &str) {
        self.0.remove(server);
    }

    /// Steps that have become slow since the last call.
    pub(super) fn slow(&mut self, now: Instant) -> Vec<Told> {
        let mut out = Vec::new();
        for (id, work) in &mut self.0 {
            let Some((step, _)) = work.steps.last().filter(|(_, at)| now.saturating_duration_since(*at) >= SLOW) else {
                continue;
            };
            if !std::mem::replace(&mut work.told_step, true) {
                let text = format!("Node {}: {step}", work.host);
                out.push(Told { host: work.host.clone(), server: id.clone(), epoch: work.epoch, text });
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn building(step: &str, cause: Option<&str>) -> ServerReport {
        ServerReport {
            id: "s".into(),
            epoch: 3,
            revision: 1,
            state: GuestState::Building,
            cause: cause.map(str::to_owned),
            step: Some(step.to_owned()),
            reboot_count: 0,
            disk_generation: 0,
            rescued: false,
            plugged: Vec::new(),
            volumes: Vec::new(),
            launched_at: None,
        }
    }

    #[test]
    fn slow_steps_are_told_once_and_all_are_summed_up() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut steps = Steps::default();
        assert_eq!(steps.note("h", &building("fetch image 7f", None), at(0)), None);
        assert!(steps.slow(at(400)).is_empty());
        let told = Told { host: "h".into(), server: "s".into(), epoch: 3, text: "Node h: fetch image 7f".into() };
        assert_eq!(steps.slow(at(600)), [told]);
        assert!(steps.slow(at(900)).is_empty());
        steps.note("h", &building("start QEMU", None), at(800));
        assert_eq!(steps.summary("s", at(1100)), " (fetch image 0.8 s, start QEMU 0.3 s)");
        steps.forget("s");
        assert_eq!(steps.summary("s", at(1200)), "");
    }

    #[test]
    fn a_cause_is_told_at_once_and_not_twice() {
        let mut steps = Steps::default();
        let now = Instant::now();
        let told = steps.note("h", &building("start QEMU", Some("No memory.")), now).unwrap();
        assert_eq!(told.text, "Node h: start QEMU failed and is tried again: No memory.");
        assert_eq!(steps.note("h", &building("start QEMU", Some("No memory.")), now), None);
        assert!(steps.note("h", &building("start QEMU", Some("No disk.")), now).is_some());
    }
}
