//! The table of figures.
use crate::Result;
use serde_json::Value;

pub(crate) struct Table {
    known: Value,
    rows: Vec<(&'static str, f64)>,
}

impl Table {
    pub(crate) fn load() -> Result<Self> {
        let all: Value = serde_json::from_str(include_str!("../figures.json"))?;
        Ok(Self { known: all["figures"].clone(), rows: Vec::new() })
    }

    pub(crate) fn add(&mut self, name: &'static str, value: f64) {
        eprintln!("  {name}: {value:.1}");
        self.rows.push((name, value));
    }

    pub(crate) fn print(&self) {
        println!("{:<58} {:>10} {:>9} {:>7} {:>9} {:>9}", "FIGURE", "DROVER", "TARGET", "MET", "ZED", "× ZED");
        for (name, value) in &self.rows {
            let known = &self.known[*name];
            let more = known["more_is_better"].as_bool().unwrap_or(true);
            let show = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.1}"));
            let (target, zed) = (known["target"].as_f64(), known["zed"].as_f64());
            let met = target.map_or("-", |t| if (*value >= t) == more { "yes" } else { "NO" });
            let ratio = zed.map(|z| if more { value / z } else { z / value });
            println!("{name:<58} {value:>10.1} {:>9} {met:>7} {:>9} {:>9}", show(target), show(zed), show(ratio));
        }
    }
}
