//! Query parameters that several lists share: resources, traits, aggregates.
use crate::{
    rest,
    rows::{knows_class, knows_trait},
    schema,
};
use api::{Cx, Error, Result};
use resource::Reader;
use std::collections::BTreeSet;

const BAD: &str = "Invalid query string parameters:";

/// 400: the query is not what it must be.
pub(crate) fn bad(detail: impl std::fmt::Display) -> Error {
    Error::bad_request(format!("{BAD} {detail}"))
}

/// 400 for a parameter that is not known at the version. `pattern` is what names must match where any number is known.
pub(crate) fn check_keys(cx: &Cx, pattern: Option<&str>, known: impl Fn(&str) -> bool) -> Result<()> {
    match cx.query.keys().find(|k| !known(k)) {
        Some(other) => Err(bad(schema::unexpected(other, pattern))),
        None => Ok(()),
    }
}

/// Of repeated parameters the last one counts.
pub(crate) fn last<'a>(cx: &'a Cx, key: &'a str) -> Option<&'a str> {
    cx.query.all(key).last()
}

pub(crate) fn uuid(cx: &Cx, key: &str) -> Result<Option<String>> {
    match last(cx, key) {
        Some(text) if !base::id::is_uuid(text) => Err(bad(format!("'{text}' is not a 'uuid'"))),
        other => Ok(other.map(str::to_owned)),
    }
}

/// `VCPU:2,MEMORY_MB:1024`
pub(crate) fn resources(text: &str) -> Result<Vec<(String, i64)>> {
    let malformed = |got: &str| {
        Error::bad_request(format!(
            "Badly formed resources parameter. Expected resources query string parameter in form: ?resources=VCPU:2,MEMORY_MB:1024. Got: {got}."
        ))
    };
    if text.trim().is_empty() {
        return Err(malformed("empty string"));
    }
    let mut out: Vec<(String, i64)> = Vec::new();
    for part in text.split(',') {
        let (class, amount) = part.split_once(':').filter(|(_, a)| !a.contains(':')).ok_or_else(|| malformed(part))?;
        let amount: i64 = amount.trim().parse().map_err(|_| {
            Error::bad_request(format!("Requested resource {class} expected positive integer amount. Got: {amount}."))
        })?;
        if amount < 1 {
            return Err(Error::bad_request(format!("Requested resource {class} requires amount >= 1. Got: {amount}.")));
        }
        match out.iter_mut().find(|(c, _)| c == class) {
            Some(known) => known.1 = amount,
            None => out.push((class.to_owned(), amount)),
        }
    }
    Ok(out)
}

/// 400 unless all resource classes exist.
pub(crate) fn known_classes<'a>(reader: &Reader<'_>, mut classes: impl Iterator<Item = &'a str>) -> Result<()> {
    match classes.find(|c| !knows_class(reader, c)) {
        Some(class) => {
            Err(Error::bad_request(format!("Invalid resource class in resources parameter: No such resource class {class}.")))
        }
        None => Ok(()),
    }
}

/// Traits that are asked for: one of each set, and none of the forbidden ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Traits {
    pub(crate) required: Vec<BTreeSet<String>>,
    pub(crate) forbidden: BTreeSet<String>,
}

impl Traits {
    /// Reads `required` (or one with a suffix) from the query. Before 1.39 the last one counts, from then on all do.
    pub(crate) fn read(cx: &Cx, key: &str) -> Result<Self> {
        let (forbidden, any) = (rest::at(cx, 22), rest::at(cx, 39));
        let all: Vec<&str> = cx.query.all(key).collect();
        let counted = if any { &all[..] } else { &all[all.len().saturating_sub(1)..] };
        let mut out = Self::default();
        for text in counted {
            out.add(text, forbidden, any)?;
        }
        Ok(out)
    }

    /// `A,!B`, or `in:A,B`.
    pub(crate) fn add(&mut self, text: &str, forbidden: bool, any: bool) -> Result<()> {
        if let Some(alternatives) = text.strip_prefix("in:") {
            return self.add_alternatives(text, alternatives, any);
        }
        let form = if forbidden { "HW_CPU_X86_VMX,!CUSTOM_MAGIC" } else { "HW_CPU_X86_VMX,CUSTOM_MAGIC" };
        let expected = format!("{BAD} Expected 'required' parameter value of the form: {form}.");
        for name in text.split(',').map(str::trim) {
            let bare = name.trim_start_matches('!');
            if bare.is_empty() {
                return Err(Error::bad_request(format!("{expected} Got an empty trait in: {text}")));
            }
            if bare.len() == name.len() {
                self.required.push(BTreeSet::from([bare.to_owned()]));
            } else if forbidden {
                self.forbidden.insert(bare.to_owned());
            } else {
                return Err(Error::bad_request(format!("{expected} Got: {text}")));
            }
        }
        Ok(())
    }

    fn add_alternatives(&mut self, text: &str, alternatives: &str, allowed: bool) -> Result<()> {
        let form = "The format 'in:HW_CPU_X86_VMX,CUSTOM_MAGIC'";
        if !allowed {
            return Err(Error::bad_request(format!("{BAD} {form} only supported since microversion 1.39. Got: {text}")));
        }
        let names: BTreeSet<String> = alternatives.split(',').map(|n| n.trim().to_owned()).collect();
        if names.contains("") {
            return Err(Error::bad_request(format!(
                "{BAD} Expected 'required' parameter value of the form: in:HW_CPU_X86_VMX,CUSTOM_MAGIC. Got an empty trait in: {text}"
            )));
        }
        if names.iter().any(|n| n.starts_with('!')) {
            return Err(Error::bad_request(format!("{BAD} {form} does not support forbidden traits. Got: {text}")));
        }
        self.required.push(names);
        Ok(())
    }

    /// 400 unless all traits exist.
    pub(crate) fn known(&self, reader: &Reader<'_>) -> Result<()> {
        let named: BTreeSet<&String> = self.required.iter().flatten().chain(&self.forbidden).collect();
        let unknown: Vec<&str> = named.into_iter().filter(|n| !knows_trait(reader, n)).map(String::as_str).collect();
        if unknown.is_empty() { Ok(()) } else { Err(Error::bad_request(format!("No such trait(s): {}.", unknown.join(", ")))) }
    }

    pub(crate) fn admit(&self, traits: &BTreeSet<String>) -> bool {
        self.forbids_none(traits) && self.satisfied_by(|name| traits.contains(name))
    }
    pub(crate) fn forbids_none(&self, traits: &BTreeSet<String>) -> bool {
        self.forbidden.is_disjoint(traits)
    }
    pub(crate) fn satisfied_by(&self, has: impl Fn(&str) -> bool) -> bool {
        self.required.iter().all(|any| any.iter().any(|name| has(name)))
    }
}

/// Aggregates that are asked for: one of each set, and none of the forbidden ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Aggregates {
    pub(crate) required: Vec<BTreeSet<String>>,
    pub(crate) forbidden: BTreeSet<String>,
}

impl Aggregates {
    /// Reads `member_of` (or one with a suffix) from the query.
    pub(crate) fn read(cx: &Cx, key: &str) -> Result<Self> {
        let all: Vec<&str> = cx.query.all(key).collect();
        if all.len() > 1 && !rest::at(cx, 24) {
            return Err(Error::bad_request(format!("Multiple {key} parameters are not supported")));
        }
        let mut out = Self::default();
        for text in all {
            out.add(text)?;
        }
        if !out.forbidden.is_empty() && !rest::at(cx, 32) {
            return Err(Error::bad_request(format!(
                "Forbidden {key} parameters are not supported in the specified microversion"
            )));
        }
        Ok(out)
    }

    /// A uuid, `in:` several; `!` forbids.
    pub(crate) fn add(&mut self, text: &str) -> Result<()> {
        let (forbidden, named) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let (several, named) = named.strip_prefix("in:").map_or((false, named), |rest| (true, rest));
        if !several && named.contains(',') {
            return Err(Error::bad_request(format!(
                "Multiple values for 'member_of' must be prefixed with the 'in:' or '!in:' keyword using the valid microversion. Got: {text}"
            )));
        }
        let uuids: BTreeSet<String> = named.split(',').map(str::to_owned).collect();
        if let Some(bad) = uuids.iter().find(|u| !base::id::is_uuid(u)) {
            return Err(Error::bad_request(format!("{BAD} Expected 'member_of' parameter to contain valid UUID(s). Got: {bad}")));
        }
        if forbidden {
            self.forbidden.extend(uuids);
        } else {
            self.required.push(uuids);
        }
        Ok(())
    }

    pub(crate) fn admit(&self, aggregates: &[String]) -> bool {
        self.requires(aggregates) && !self.forbids(aggregates)
    }
    pub(crate) fn requires(&self, aggregates: &[String]) -> bool {
        self.required.iter().all(|any| aggregates.iter().any(|a| any.contains(a)))
    }
    pub(crate) fn forbids(&self, aggregates: &[String]) -> bool {
        aggregates.iter().any(|a| self.forbidden.contains(a))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_classes_with_amounts() {
        assert_eq!(resources("VCPU:2,DISK_GB:10").ok(), Some(vec![("VCPU".into(), 2), ("DISK_GB".into(), 10)]));
        for bad in ["", "VCPU", "VCPU:", "VCPU:x", "VCPU:0", "VCPU:-1", "VCPU:1:2", "VCPU:1,", "VCPU:1;DISK_GB:1"] {
            assert!(resources(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn traits_are_read_and_judged() {
        let mut traits = Traits::default();
        traits.add("A,!B", true, true).unwrap();
        traits.add("in:C,D", true, true).unwrap();
        let has = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<String>>();
        assert!(traits.admit(&has(&["A", "D"])));
        assert!(!traits.admit(&has(&["A"])) && !traits.admit(&has(&["A", "B", "C"])) && !traits.admit(&has(&["C"])));
        for (bad, forbidden, any) in
            [("!B", false, false), ("in:A", true, false), ("A,,B", true, true), ("in:A,!B", true, true), ("!", true, true)]
        {
            assert!(Traits::default().add(bad, forbidden, any).is_err(), "{bad}");
        }
    }

    #[test]
    fn aggregates_are_read_and_judged() {
        let [a, b, c] = [1, 2, 3].map(|n| format!("00000000-0000-0000-0000-00000000000{n}"));
        let mut asked = Aggregates::default();
        asked.add(&format!("in:{a},{b}")).unwrap();
        asked.add(&format!("!{c}")).unwrap();
        assert!(asked.admit(std::slice::from_ref(&b)) && !asked.admit(&[b.clone(), c]) && !asked.admit(&[]));
        assert!(asked.add("not-one").is_err() && asked.add(&format!("{a},{b}")).is_err());
    }
}
