//! `password_regex`: what operators write for Keystone, without its dangers.
//!
//! Python's expressions backtrack, ours take linear time and know no looking around. What people write is conditions at the start,
//! `^(?=.*\d)(?=.*[a-z])(?!.*\s).{7,}$`: each of them is an expression of its own, and all must hold.
use regex::Regex;

#[derive(Debug)]
pub(super) struct Pattern(Vec<Condition>);

#[derive(Debug)]
struct Condition {
    holds: bool,
    regex: Regex,
}

impl Pattern {
    /// Fails with what is wrong, for the operator.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text.strip_prefix('^').unwrap_or(text);
        let mut all = Vec::new();
        while let Some((inside, holds)) =
            rest.strip_prefix("(?=").map(|r| (r, true)).or_else(|| rest.strip_prefix("(?!").map(|r| (r, false)))
        {
            let end = close(inside).ok_or("has a condition that is not closed; add the missing parenthesis")?;
            all.push(Condition { holds, regex: compile(&inside[..end])? });
            rest = &inside[end + 1..];
        }
        if !rest.is_empty() {
            all.push(Condition { holds: true, regex: compile(rest)? });
        }
        Ok(Self(all))
    }

    /// Does it fit from the password's first character on?
    pub(super) fn fits(&self, password: &str) -> bool {
        self.0.iter().all(|c| c.regex.is_match(password) == c.holds)
    }
}

fn compile(text: &str) -> Result<Regex, String> {
    Regex::new(&format!("\\A(?:{text})")).map_err(|e| {
        let what = e.to_string();
        let reason = what.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("cannot be used: {reason}; conditions (?=…) and (?!…) may stand at the start only")
    })
}

/// Where the group ends that `text` is inside of.
fn close(text: &str) -> Option<usize> {
    let (mut depth, mut in_class, mut escaped) = (0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' => in_class = false,
            _ if in_class => {}
            '[' => in_class = true,
            '(' => depth += 1,
            ')' if depth == 0 => return Some(at),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_at_the_start_all_hold() {
        let p = Pattern::parse(r"^(?=.*\d)(?=.*[a-zA-Z(]).{7,}$").unwrap();
        for (password, fits) in [("abcdef1", true), ("abcdefg", false), ("1234567", false), ("abc1", false), ("(234567", true)] {
            assert_eq!(p.fits(password), fits, "{password}");
        }
        let p = Pattern::parse(r"(?!.*\s)(?=(a|b).*)\S{3}").unwrap();
        for (password, fits) in [("abc", true), ("a bc", false), ("cba", false), ("bcdefg", true)] {
            assert_eq!(p.fits(password), fits, "{password}");
        }
        assert!(Pattern::parse("").unwrap().fits(""));
        assert!(!Pattern::parse("b").unwrap().fits("ab"), "it fits from the first character on");
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        for bad in ["(?=a", "a(?=b)", "[a", r"(a)\1"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        assert!(Pattern::parse("a(?=b)").unwrap_err().contains("at the start only"));
    }
}
