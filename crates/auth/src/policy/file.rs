//! The operator's policy file: one JSON object, or the `"name": "rule"` entries of an oslo policy.yaml, folded ones too.
use crate::Error;
use serde_json::Value;

/// Reads a policy file into `(name, rule)`; of two with one name the later counts.
pub fn parse_overrides(text: &str) -> Result<Vec<(String, String)>, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') { parse_json(text) } else { parse_lines(text) }
}

fn parse_json(text: &str) -> Result<Vec<(String, String)>, Error> {
    let rules: serde_json::Map<String, Value> = serde_json::from_str(text)
        .map_err(|e| Error::PolicyFile { line: e.line(), problem: format!("{e}; write one JSON object of names and rules") })?;
    let line = |name: &str| text.lines().position(|l| l.contains(&format!("\"{name}\""))).map_or(1, |i| i + 1);
    rules
        .into_iter()
        .map(|(name, rule)| match listed(&rule) {
            Some(rule) => Ok((name, rule)),
            None => Err(Error::PolicyFile {
                line: line(&name),
                problem: format!("the rule \"{name}\" is neither a string nor a list of lists of checks; write it in quotes"),
            }),
        })
        .collect()
}

/// A rule as a string, or in the older form: any of the lists, of each list all.
fn listed(rule: &Value) -> Option<String> {
    let all = |checks: &Value| match checks {
        Value::String(check) => Some(check.clone()),
        Value::Array(checks) => {
            let texts = checks.iter().map(Value::as_str).collect::<Option<Vec<&str>>>()?;
            (!texts.is_empty()).then(|| format!("({})", texts.join(" and ")))
        }
        _ => None,
    };
    match rule {
        Value::String(rule) => Some(rule.clone()),
        // Of no lists, none can fail.
        Value::Array(lists) => Some(lists.iter().map(all).collect::<Option<Vec<String>>>()?.join(" or ")),
        _ => None,
    }
}

/// An entry of a YAML file: its first line, and those that are indented below it.
struct Entry<'a> {
    number: usize,
    first: &'a str,
    more: Vec<&'a str>,
}

impl Entry<'_> {
    /// On one line, as YAML folds it; blocks (`>`, `|`) are quoted on the way.
    fn folded(&self) -> String {
        let more = self.more.join(" ");
        let head = self.first.trim_end();
        let block = [">", ">-", ">+", "|", "|-", "|+"].into_iter().find_map(|sign| head.strip_suffix(sign));
        match block {
            Some(name) if name.trim_end().ends_with(':') => format!("{name}{}", Value::from(more.trim())),
            _ if self.more.is_empty() => head.to_owned(),
            _ => format!("{head} {more}"),
        }
    }
}

fn entries(text: &str) -> Result<Vec<Entry<'_>>, Error> {
    let mut out: Vec<Entry<'_>> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let rest = line.trim();
        if rest.is_empty() || rest.starts_with('#') || matches!(rest, "---" | "...") {
            continue;
        }
        if !line.starts_with([' ', '\t']) {
            out.push(Entry { number: i + 1, first: rest, more: Vec::new() });
            continue;
        }
        match out.last_mut() {
            Some(entry) => entry.more.push(rest),
            None => {
                let problem = "it is indented and continues nothing; write each rule from the first column".to_owned();
                return Err(Error::PolicyFile { line: i + 1, problem });
            }
        }
    }
    Ok(out)
}

fn parse_lines(text: &str) -> Result<Vec<(String, String)>, Error> {
    let mut out = Vec::new();
    for entry in entries(text)? {
        let failed = |problem: &str| Error::PolicyFile { line: entry.number, problem: problem.to_owned() };
        let whole = entry.folded();
        let (name, rest) = scalar(&whole, true).ok_or_else(|| failed("it is not `\"name\": \"rule\"`; quote both"))?;
        let rest = rest.strip_prefix(':').map(str::trim_start).ok_or_else(|| failed("a colon must follow the name"))?;
        if rest.starts_with('[') {
            let list = serde_json::from_str::<Value>(rest).ok().and_then(|list| listed(&list));
            out.push((name, list.ok_or_else(|| failed("the list is not one of lists of checks in double quotes"))?));
            continue;
        }
        let (rule, rest) = scalar(rest, false).ok_or_else(|| failed("the rule must be one string; quote it"))?;
        let rest = rest.trim_start();
        if !rest.is_empty() && !rest.starts_with('#') {
            return Err(failed("something follows the rule; quote the rule as a whole"));
        }
        out.push((name, rule));
    }
    Ok(out)
}

/// A quoted or plain string at the start, and what follows it. A plain name ends at `: `, a plain rule at ` #`.
fn scalar(text: &str, is_name: bool) -> Option<(String, &str)> {
    match text.chars().next() {
        Some('"') => {
            let mut escaped = false;
            let close = text.char_indices().skip(1).find(|(_, c)| {
                let closes = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                closes
            })?;
            let (quoted, rest) = text.split_at(close.0 + 1);
            Some((serde_json::from_str(quoted).ok()?, rest.trim_start()))
        }
        Some('\'') => {
            let (mut value, mut rest) = (String::new(), &text[1..]);
            loop {
                let (part, after) = rest.split_once('\'')?;
                value.push_str(part);
                match after.strip_prefix('\'') {
                    Some(after) => {
                        value.push('\'');
                        rest = after;
                    }
                    None => return Some((value, after.trim_start())),
                }
            }
        }
        // Collections, anchors, blocks and the words that YAML reads as something else than a string.
        Some('[' | '{' | '&' | '*' | '|' | '>' | '!' | '%' | '@' | '`' | '-' | '?' | '#') | None => None,
        Some(_) => {
            let end = if is_name { text.find(": ").or_else(|| text.strip_suffix(':').map(str::len)) } else { Some(text.len()) }?;
            let end = if is_name { end } else { text.find(" #").unwrap_or(end) };
            let value = text[..end].trim_end();
            let is_other = !is_name && (value.contains(": ") || matches!(value, "null" | "~" | "true" | "false"));
            (!value.is_empty() && !is_other).then(|| (value.to_owned(), &text[end..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(text: &str) -> Vec<(String, String)> {
        parse_overrides(text).unwrap()
    }

    #[test]
    fn lines_of_a_policy_yaml() {
        let text = concat!(
            "# comment\n---\n\n",
            "\"os_compute_api:servers:create\": \"role:member and project_id:%(project_id)s\"\n",
            "'quoted': 'role:x or ''lit'':%(a)s'  # why\n",
            "plain:name: rule:admin_api # why\n",
            "\"escaped \\\" name\" : \"'a':%(b)s\"\r\n",
            "\"open\": \"\"\n",
        );
        let expected = [
            ("os_compute_api:servers:create", "role:member and project_id:%(project_id)s"),
            ("quoted", "role:x or 'lit':%(a)s"),
            ("plain:name", "rule:admin_api"),
            ("escaped \" name", "'a':%(b)s"),
            ("open", ""),
        ];
        assert_eq!(rules(text), expected.map(|(n, r)| (n.to_owned(), r.to_owned())));
        assert!(rules("").is_empty());
    }

    #[test]
    fn one_json_object() {
        assert_eq!(rules(" {\"a\": \"role:x\",\n \"b\": \"!\"}"), [("a".into(), "role:x".into()), ("b".into(), "!".into())]);
        let older = "{\"a\": [[\"role:x\", \"rule:y\"], [\"role:z\"]], \"b\": []}";
        assert_eq!(rules(older), [("a".into(), "(role:x and rule:y) or (role:z)".into()), ("b".into(), String::new())]);
        for bad in ["{", "{\"a\": [[]]}", "{\"a\": [1]}", "{\"a\": 1}"] {
            assert!(matches!(parse_overrides(bad), Err(Error::PolicyFile { .. })), "{bad}");
        }
    }

    #[test]
    fn entries_may_take_several_lines() {
        let text = concat!(
            "\"a\": \"role:x\n  or role:y\"\n# between\n",
            "b: >-\n  role:x and\n  'q':%(r)s\n",
            "\"c\":\n  \"role:z\"  # why\n",
            "d: role:x\n  or role:y\n",
            "\"e\": [[\"role:x\"],\n  [\"role:y\"]]\n",
        );
        let expected = [
            ("a", "role:x or role:y"),
            ("b", "role:x and 'q':%(r)s"),
            ("c", "role:z"),
            ("d", "role:x or role:y"),
            ("e", "(role:x) or (role:y)"),
        ];
        assert_eq!(rules(text), expected.map(|(n, r)| (n.to_owned(), r.to_owned())));
    }

    #[test]
    fn what_is_no_rule_is_refused_with_its_line() {
        for bad in [
            "\"a\": [[]]",
            "\"a\": [[\"role:x\"]",
            "\"a\": \"role:x\" or \"role:y\"",
            "\"a\"",
            "\"a\": ",
            "a b",
            "\"a: \"x\"",
            "\"a\": {\"b\": \"c\"}",
            "\"a\": 'x",
            "a: b: c",
            "a: null",
            "- a: x",
        ] {
            let e = parse_overrides(&format!("\"ok\": \"@\"\n{bad}\n")).unwrap_err();
            assert!(matches!(e, Error::PolicyFile { line: 2, .. }), "{bad}: {e}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*|([\"'a-z:#\\\\{ \n]{0,12}\n?){0,6}") {
            let _ = parse_overrides(&text);
        }

        #[test]
        fn quoted_lines_round_trip(name in "\\PC+", rule in "\\PC*") {
            let line = format!("{}: {}", serde_json::to_string(&name).unwrap(), serde_json::to_string(&rule).unwrap());
            prop_assert_eq!(rules(&line), [(name, rule)]);
        }
    }
}
