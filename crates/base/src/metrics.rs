//! Figures of a running process, in the text form that Prometheus reads (0.0.4, with OpenMetrics' names).
//!
//! Whoever has figures keeps them in atomics of its own and gives the [`Exporter`] a function that writes them down; so nothing is looked
//! up by name where they are counted, and there is nothing global: two clouds in one process are two exporters. It is two hundred lines
//! where the crates for it bring label maps behind locks and a global recorder.
use std::{
    fmt::{Display, Write as _},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The media type of [`Exporter::text`].
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds in seconds, and the same in microseconds.
const BOUNDS: [(&str, u64); 14] = [
    ("0.001", 1_000),
    ("0.0025", 2_500),
    ("0.005", 5_000),
    ("0.01", 10_000),
    ("0.025", 25_000),
    ("0.05", 50_000),
    ("0.1", 100_000),
    ("0.25", 250_000),
    ("0.5", 500_000),
    ("1", 1_000_000),
    ("2.5", 2_500_000),
    ("5", 5_000_000),
    ("10", 10_000_000),
    ("60", 60_000_000),
];

/// Durations, counted by how long they were.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Each holds those above the bound before it; the last those above all.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|(_, most)| us <= *most).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).sum()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends with `_total`.
    Counter,
    Gauge,
    Histogram,
}

/// A text under way.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    family: &'static str,
}

impl Exposition {
    /// Begins a family of samples; those that follow are of it.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> &mut Self {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.family = name;
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        self
    }

    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.suffixed("", labels, value);
        self
    }

    /// The samples of a histogram: one for each bound, the sum and the count.
    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) -> &mut Self {
        let mut all: Vec<(&str, &str)> = labels.to_vec();
        let mut count = 0;
        let bounds = BOUNDS.iter().map(|(bound, _)| *bound).chain(["+Inf"]);
        for (bound, bucket) in bounds.zip(&histogram.buckets) {
            count += bucket.load(Ordering::Relaxed);
            all.push(("le", bound));
            self.suffixed("_bucket", &all, count);
            all.pop();
        }
        self.suffixed("_sum", labels, histogram.sum_us.load(Ordering::Relaxed) as f64 / 1e6);
        self.suffixed("_count", labels, count);
        self
    }

    fn suffixed(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let mut shown = String::new();
        for (name, value) in labels {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let comma = if shown.is_empty() { "" } else { "," };
            write!(shown, "{comma}{name}=\"{value}\"").ok();
        }
        let family = self.family;
        if shown.is_empty() {
            self.line(format_args!("{family}{suffix} {value}"));
        } else {
            self.line(format_args!("{family}{suffix}{{{shown}}} {value}"));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        writeln!(self.text, "{line}").ok();
    }
}

type Collector = Box<dyn Fn(&mut Exposition) + Send + Sync>;

/// All that have figures.
#[derive(Default)]
pub struct Exporter(Mutex<Vec<Collector>>);

impl Exporter {
    pub fn add(&self, collector: impl Fn(&mut Exposition) + Send + Sync + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(collector));
    }

    /// The figures of this instant.
    pub fn text(&self) -> String {
        let mut out = Exposition::default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|collect| collect(&mut out));
        out.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn figures_are_written_as_prometheus_reads_them() {
        let (exporter, took) = (Exporter::default(), Arc::new(Histogram::default()));
        for ms in [1, 3, 700_000] {
            took.observe(Duration::from_millis(ms));
        }
        let shared = took.clone();
        exporter.add(|out| {
            out.family("a_total", Kind::Counter, "All a.").sample(&[("x", "say \"\\\n")], 3).sample(&[], 4);
        });
        exporter.add(move |out| {
            out.family("t_seconds", Kind::Histogram, "Times.").histogram(&[("r", "/v1")], &shared);
        });
        let text = exporter.text();
        let start = "# HELP a_total All a.\n# TYPE a_total counter\na_total{x=\"say \\\"\\\\\\n\"} 3\na_total 4\n# HELP t_seconds Times.\n";
        assert!(text.starts_with(start), "{text}");
        for line in [
            "t_seconds_bucket{r=\"/v1\",le=\"0.001\"} 1",
            "t_seconds_bucket{r=\"/v1\",le=\"0.0025\"} 1",
            "t_seconds_bucket{r=\"/v1\",le=\"0.005\"} 2",
            "t_seconds_bucket{r=\"/v1\",le=\"60\"} 2",
            "t_seconds_bucket{r=\"/v1\",le=\"+Inf\"} 3",
            "t_seconds_sum{r=\"/v1\"} 700.004",
            "t_seconds_count{r=\"/v1\"} 3",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in {text}");
        }
        assert_eq!(took.count(), 3);
    }
}
