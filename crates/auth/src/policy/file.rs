//! The operator's policy file: one JSON object, or the flat `"name": "rule"` lines of an oslo policy.yaml.
use crate::Error;

/// Reads a policy file into `(name, rule)`; of two with one name the later counts.
pub fn parse_overrides(text: &str) -> Result<Vec<(String, String)>, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') { parse_json(text) } else { parse_lines(text) }
}

fn parse_json(text: &str) -> Result<Vec<(String, String)>, Error> {
    let rules: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)
        .map_err(|e| Error::PolicyFile { line: e.line(), problem: format!("{e}; write one JSON object of names and rules") })?;
    rules
        .into_iter()
        .map(|(name, rule)| match rule {
            serde_json::Value::String(rule) => Ok((name, rule)),
            _ => Err(Error::PolicyFile { line: 1, problem: format!("the rule \"{name}\" is not a string; write it in quotes") }),
        })
        .collect()
}

fn parse_lines(text: &str) -> Result<Vec<(String, String)>, Error> {
    let mut out = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let failed = |problem: &str| Error::PolicyFile { line: i + 1, problem: problem.to_owned() };
        let rest = line.trim();
        if rest.is_empty() || rest.starts_with('#') || matches!(rest, "---" | "...") {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            return Err(failed("it is indented; write each rule on one line, from the first column"));
        }
        let (name, rest) = scalar(rest, true).ok_or_else(|| failed("it is not `\"name\": \"rule\"`; quote both"))?;
        let rest = rest.strip_prefix(':').map(str::trim_start).ok_or_else(|| failed("a colon must follow the name"))?;
        let (rule, rest) = scalar(rest, false).ok_or_else(|| failed("the rule must be one string on this line; quote it"))?;
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
        for bad in ["{", "{\"a\": [[\"role:x\"]]}", "{\"a\": 1}"] {
            assert!(matches!(parse_overrides(bad), Err(Error::PolicyFile { .. })), "{bad}");
        }
    }

    #[test]
    fn what_is_not_flat_is_refused_with_its_line() {
        for bad in [
            "\"a\": [[\"role:x\"]]",
            "\"a\": \"role:x\" or \"role:y\"",
            "\"a\": >\n  role:x",
            "\"a\"",
            "\"a\": ",
            "a b",
            "\"a: \"x\"",
            "  \"a\": \"x\"",
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
