//! Query parameters that several calls share: resources, traits, aggregates.
use crate::{
    answer::since,
    body::{clip_text, dashed},
};
use api::Call;
use resource::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Fails when the query has a parameter that is not among these.
pub(crate) fn only(call: &Call, known: &dyn Fn(&str) -> bool) -> Result<()> {
    match call.cx.query.keys().find(|k| !known(k)) {
        None => Ok(()),
        Some(key) => Err(Error::bad_request(format!(
            "Invalid query string parameters: Additional properties are not allowed ('{}' was unexpected)",
            clip_text(key)
        ))),
    }
}

/// The last value of a parameter, as the classic service takes it.
pub(crate) fn last<'a>(call: &'a Call, key: &'a str) -> Option<&'a str> {
    call.cx.query.all(key).last()
}

/// A UUID or 400.
pub(crate) fn uuid(key: &str, value: &str) -> Result<String> {
    dashed(value).ok_or_else(|| {
        Error::bad_request(format!("Invalid query string parameters: Expected '{key}' parameter to be a valid uuid. Got: {}", clip_text(value)))
    })
}

/// `VCPU:2,MEMORY_MB:1024`
pub(crate) fn resources(text: &str) -> Result<BTreeMap<String, i64>> {
    let form = "Badly formed resources parameter. Expected resources query string parameter in form: ?resources=VCPU:2,MEMORY_MB:1024.";
    if text.trim().is_empty() {
        return Err(Error::bad_request(format!("{form} Got: empty string.")));
    }
    let mut out = BTreeMap::new();
    for part in text.split(',') {
        let (class, amount) =
            part.split_once(':').filter(|(_, a)| !a.contains(':')).ok_or_else(|| Error::bad_request(format!("{form} Got: {}.", clip_text(part))))?;
        let number: i64 = amount.trim().parse().map_err(|_| {
            Error::bad_request(format!("Requested resource {class} expected positive integer amount. Got: {}.", clip_text(amount)))
        })?;
        if number < 1 {
            return Err(Error::bad_request(format!("Requested resource {class} requires amount >= 1. Got: {number}.")));
        }
        out.insert(class.to_owned(), number);
    }
    Ok(out)
}

/// Traits: all of the sets (any of each), none of the forbidden.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Traits {
    pub(crate) any_of: Vec<BTreeSet<String>>,
    pub(crate) none_of: BTreeSet<String>,
}

impl Traits {
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.any_of.iter().flatten().chain(&self.none_of).map(String::as_str).collect()
    }
    /// Do these traits, of one provider or of several together, have all that is asked for?
    pub(crate) fn wanted_in(&self, has: &dyn Fn(&str) -> bool) -> bool {
        self.any_of.iter().all(|set| set.iter().any(|t| has(t)))
    }
    pub(crate) fn forbids(&self, traits: &BTreeSet<String>) -> bool {
        self.none_of.iter().any(|t| traits.contains(t))
    }
    pub(crate) fn fits(&self, traits: &BTreeSet<String>) -> bool {
        self.wanted_in(&|t| traits.contains(t)) && !self.forbids(traits)
    }
}

/// The parameter `key`, which from 1.39 may be repeated and hold `in:`.
pub(crate) fn traits(call: &Call, key: &str) -> Result<Traits> {
    let values: Vec<&str> = call.cx.query.all(key).collect();
    let any = since(call, "1.39");
    let values = if any { values.as_slice() } else { &values[values.len().saturating_sub(1)..] };
    let mut out = Traits::default();
    for value in values {
        one_of_traits(value, since(call, "1.22"), any, &mut out)?;
    }
    Ok(out)
}

fn one_of_traits(value: &str, forbidden: bool, any: bool, out: &mut Traits) -> Result<()> {
    let bad = |text: String| Err(Error::bad_request(format!("Invalid query string parameters: {text} Got: {}", clip_text(value))));
    if let Some(list) = value.strip_prefix("in:") {
        let set: BTreeSet<String> = list.split(',').map(|t| t.trim().to_owned()).collect();
        if !any {
            return bad("The format 'in:HW_CPU_X86_VMX,CUSTOM_MAGIC' only supported since microversion 1.39.".into());
        }
        if set.contains("") {
            return bad("Expected 'required' parameter value of the form: in:HW_CPU_X86_VMX,CUSTOM_MAGIC. An empty trait is in it.".into());
        }
        if set.iter().any(|t| t.starts_with('!')) {
            return bad("The format 'in:HW_CPU_X86_VMX,CUSTOM_MAGIC' does not support forbidden traits.".into());
        }
        out.any_of.push(set);
        return Ok(());
    }
    let form = if forbidden { "HW_CPU_X86_VMX,!CUSTOM_MAGIC" } else { "HW_CPU_X86_VMX,CUSTOM_MAGIC" };
    for part in value.split(',').map(str::trim) {
        let name = part.trim_start_matches('!');
        if name.is_empty() {
            return bad(format!("Expected 'required' parameter value of the form: {form}."));
        }
        if name.len() == part.len() {
            out.any_of.push(BTreeSet::from([name.to_owned()]));
        } else if forbidden {
            out.none_of.insert(name.to_owned());
        } else {
            return bad(format!("Expected 'required' parameter value of the form: {form}."));
        }
    }
    Ok(())
}

/// Aggregates: one of each set, none of the forbidden.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Aggregates {
    pub(crate) any_of: Vec<BTreeSet<String>>,
    pub(crate) none_of: BTreeSet<String>,
}

impl Aggregates {
    pub(crate) fn is_empty(&self) -> bool {
        self.any_of.is_empty() && self.none_of.is_empty()
    }
    pub(crate) fn fits(&self, has: &dyn Fn(&str) -> bool) -> bool {
        self.any_of.iter().all(|set| set.iter().any(|a| has(a))) && !self.none_of.iter().any(|a| has(a))
    }
}

/// The parameter `key` (`member_of`, `member_of1`).
pub(crate) fn member_of(call: &Call, key: &str) -> Result<Aggregates> {
    let values: Vec<&str> = call.cx.query.all(key).collect();
    if values.len() > 1 && !since(call, "1.24") {
        return Err(Error::bad_request(format!("Multiple {key} parameters are not supported")));
    }
    let mut out = Aggregates::default();
    for value in values {
        let (forbidden, rest) = value.strip_prefix('!').map_or((false, value), |rest| (true, rest));
        let list = rest.strip_prefix("in:");
        if list.is_none() && rest.contains(',') {
            return Err(Error::bad_request(format!(
                "Multiple values for 'member_of' must be prefixed with the 'in:' or '!in:' keyword using the valid microversion. Got: {}",
                clip_text(value)
            )));
        }
        let uuids = list.unwrap_or(rest).split(',').map(|id| {
            dashed(id).ok_or_else(|| {
                Error::bad_request(format!(
                    "Invalid query string parameters: Expected 'member_of' parameter to contain valid UUID(s). Got: {}",
                    clip_text(id)
                ))
            })
        });
        let set = uuids.collect::<Result<BTreeSet<String>>>()?;
        if !forbidden {
            out.any_of.push(set);
        } else if since(call, "1.32") {
            out.none_of.extend(set);
        } else {
            return Err(Error::bad_request(format!("Forbidden {key} parameters are not supported in the specified microversion")));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_parsed() {
        assert_eq!(resources("VCPU:2,DISK_GB:5").unwrap(), BTreeMap::from([("VCPU".into(), 2), ("DISK_GB".into(), 5)]));
        for bad in ["", "VCPU", "VCPU:x", "VCPU:0", "VCPU:1:2", "VCPU:-1"] {
            assert!(resources(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn traits_are_parsed() {
        let mut out = Traits::default();
        one_of_traits("A,!B", true, true, &mut out).unwrap();
        one_of_traits("in:C,D", true, true, &mut out).unwrap();
        let has = |names: &[&str]| out.fits(&names.iter().map(|n| (*n).to_owned()).collect());
        assert!(has(&["A", "C"]) && has(&["A", "D", "X"]));
        assert!(!has(&["A"]) && !has(&["A", "B", "C"]) && !has(&["C"]));
        for bad in ["", "A,", "in:A,", "in:!A"] {
            assert!(one_of_traits(bad, true, true, &mut Traits::default()).is_err(), "{bad}");
        }
        assert!(one_of_traits("!A", false, false, &mut Traits::default()).is_err());
        assert!(one_of_traits("in:A", true, false, &mut Traits::default()).is_err());
    }
}
