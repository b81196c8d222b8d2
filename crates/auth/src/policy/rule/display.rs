//! A rule as text again, for explanations.
use super::{Part, Rule, Text};
use std::fmt;

/// As it is read again; parts of a tree in parentheses.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |rules: &[Rule], by: &str| {
            let parts: Vec<String> = rules.iter().map(ToString::to_string).collect();
            format!("({})", parts.join(by))
        };
        match self {
            Self::Always => f.write_str("@"),
            Self::Never => f.write_str("!"),
            Self::All(rules) => f.write_str(&joined(rules, " and ")),
            Self::Any(rules) => f.write_str(&joined(rules, " or ")),
            Self::Not(rule) => write!(f, "not {rule}"),
            Self::Named(name) => write!(f, "rule:{name}"),
            Self::Role(text) => write!(f, "role:{text}"),
            Self::Is(attribute, text) => write!(f, "{}:{text}", attribute.name()),
            Self::Literal(value, text) if value.contains('\'') => write!(f, "\"{value}\":{text}"),
            Self::Literal(value, text) => write!(f, "'{value}':{text}"),
            Self::TargetStarts { key, start } => write!(f, "field:target:{key}=~^{start}"),
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Plain(p) => f.write_str(&p.replace('%', "%%")),
            Part::Target(key) => write!(f, "%({key})s"),
        })
    }
}
