//! One rule: parsed once into a tree, then evaluated without allocation in the usual case.
//!
//! ```text
//! any   = all { "or" all }          all = not { "and" not }          not = "not" not | "(" any ")" | check
//! check = "@" | "!" | "role:" text | "rule:" name | "field:" resource ":" key "=" [ "~^" ] text
//!       | (attribute | 'quoted' | None | True | False | number) ":" text        text may hold %(key)s
//! ```
use super::{Subject, Target};
use crate::Error;
use std::borrow::Cow;

mod display;

/// Parentheses and `not`s inside one another; deeper rules are refused rather than risk the stack.
const DEEPEST: usize = 50;

/// A rule as a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    Always,
    Never,
    All(Vec<Rule>),
    Any(Vec<Rule>),
    Not(Box<Rule>),
    /// `rule:name`
    Named(String),
    /// `role:name`, compared without case.
    Role(Text),
    /// `project_id:%(project_id)s`: the caller's attribute equals the text.
    Is(Attribute, Text),
    /// `True:%(user.enabled)s`: the literal equals the text.
    Literal(String, Text),
    /// `field:port:device_owner=~^network:`: the target's value starts so.
    TargetStarts {
        key: String,
        start: String,
    },
}

/// A text with places for values of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Plain(String),
    Target(String),
}

/// What a check can ask of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    UserId,
    UserDomainId,
    ProjectId,
    ProjectDomainId,
    DomainId,
    SystemScope,
    IsAdmin,
    IsAdminProject,
    Roles,
    ServiceUserId,
    ServiceProjectId,
    ServiceRoles,
}

impl Attribute {
    /// The names of oslo.context, the old ones that Neutron's rules use, and the paths of Keystone's.
    const NAMES: [(&str, Self); 20] = [
        ("user_id", Self::UserId),
        ("user", Self::UserId),
        ("user_domain_id", Self::UserDomainId),
        ("token.user.domain.id", Self::UserDomainId),
        ("project_id", Self::ProjectId),
        ("tenant_id", Self::ProjectId),
        ("tenant", Self::ProjectId),
        ("token.project.id", Self::ProjectId),
        ("project_domain_id", Self::ProjectDomainId),
        ("token.project.domain.id", Self::ProjectDomainId),
        ("domain_id", Self::DomainId),
        ("token.domain.id", Self::DomainId),
        ("system_scope", Self::SystemScope),
        ("is_admin", Self::IsAdmin),
        ("is_admin_project", Self::IsAdminProject),
        ("token.is_admin_project", Self::IsAdminProject),
        ("roles", Self::Roles),
        ("service_user_id", Self::ServiceUserId),
        ("service_project_id", Self::ServiceProjectId),
        ("service_roles", Self::ServiceRoles),
    ];

    fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, a)| *a)
    }

    fn equals(self, subject: &Subject<'_>, text: &Text, target: &Target<'_>) -> bool {
        let among = |roles: &[String]| text.fill(target).is_some_and(|t| roles.iter().any(|r| *r == t));
        if self == Self::Roles || self == Self::ServiceRoles {
            return among(if self == Self::Roles { subject.roles } else { subject.service_roles });
        }
        match self.of(subject) {
            Some(value) => text.fill(target).is_some_and(|t| t == value),
            None => text.constant() == Some("None"),
        }
    }

    /// How rules call it.
    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, a)| *a == self).map_or("", |(name, _)| name)
    }

    /// What the caller has, unless it is a list or nothing.
    pub(super) fn of<'s>(self, subject: &Subject<'s>) -> Option<&'s str> {
        let boolean = |b: bool| Some(if b { "True" } else { "False" });
        match self {
            Self::Roles | Self::ServiceRoles => None,
            Self::UserId => Some(subject.user_id),
            Self::UserDomainId => subject.user_domain_id,
            Self::ProjectId => subject.project_id,
            Self::ProjectDomainId => subject.project_domain_id,
            Self::DomainId => subject.domain_id,
            Self::SystemScope => subject.system_scope,
            Self::IsAdmin => boolean(subject.is_admin),
            Self::IsAdminProject => boolean(subject.is_admin_project),
            Self::ServiceUserId => subject.service_user_id,
            Self::ServiceProjectId => subject.service_project_id,
        }
    }
}

impl Rule {
    /// Parses a rule; an error tells the character, counted from 1. An empty rule always holds.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let failed = |(at, problem): Fault| Error::RuleSyntax {
            rule: text.to_owned(),
            at: text.get(..at).map_or(0, |before| before.chars().count()) + 1,
            problem,
        };
        let tokens = tokens(text).map_err(failed)?;
        if tokens.is_empty() {
            return Ok(Self::Always);
        }
        let mut parser = Parser { tokens: &tokens, end: text.len(), depth: 0 };
        let rule = parser.any().map_err(failed)?;
        match parser.tokens.first() {
            None => Ok(rule),
            Some((at, token)) => Err(failed((*at, format!("unexpected {}; join checks by \"and\" or \"or\"", token.name())))),
        }
    }

    /// Does it hold? `named` finds the rules that `rule:` refers to; one that is missing does not hold.
    pub fn holds<'r>(&self, subject: &Subject<'_>, target: &Target<'_>, named: &dyn Fn(&str) -> Option<&'r Rule>) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::All(rules) => rules.iter().all(|r| r.holds(subject, target, named)),
            Self::Any(rules) => rules.iter().any(|r| r.holds(subject, target, named)),
            Self::Not(rule) => !rule.holds(subject, target, named),
            Self::Named(name) => named(name).is_some_and(|r| r.holds(subject, target, named)),
            Self::Role(text) => match text.constant() {
                Some(role) => subject.roles.iter().any(|r| r == role),
                None => text.fill(target).is_some_and(|t| subject.roles.contains(&t.to_lowercase())),
            },
            Self::Is(attribute, text) => attribute.equals(subject, text, target),
            Self::Literal(value, text) => text.fill(target).is_some_and(|t| t == value.as_str()),
            Self::TargetStarts { key, start } => target(key).is_some_and(|v| v.starts_with(start.as_str())),
        }
    }

    /// The names after `rule:`.
    pub fn references(&self) -> Vec<&str> {
        match self {
            Self::Named(name) => vec![name],
            Self::All(rules) | Self::Any(rules) => rules.iter().flat_map(Self::references).collect(),
            Self::Not(rule) => rule.references(),
            Self::Always | Self::Never | Self::Role(_) | Self::Is(..) | Self::Literal(..) | Self::TargetStarts { .. } => {
                Vec::new()
            }
        }
    }
}

impl Text {
    /// The keys of the target that it asks for.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Target(key) => Some(key.as_str()),
            Part::Plain(_) => None,
        })
    }
    fn parse(text: &str, at: usize) -> Result<Self, Fault> {
        if text.is_empty() {
            return Err((at, "nothing follows the colon; write a value or %(key)s".to_owned()));
        }
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(found) = rest.find(['%', '(', ')']) {
            let here = at + text.len() - rest.len() + found;
            let (before, after) = rest.split_at(found);
            plain.push_str(before);
            if let Some(inner) = after.strip_prefix("%(") {
                let (key, next) = inner.split_once(")s").ok_or_else(|| (here, "a place is written %(key)s".to_owned()))?;
                if key.is_empty() || key.contains(['(', ')', '%']) {
                    return Err((here, "a place is written %(key)s".to_owned()));
                }
                if !plain.is_empty() {
                    parts.push(Part::Plain(std::mem::take(&mut plain)));
                }
                parts.push(Part::Target(key.to_owned()));
                rest = next;
            } else if let Some(next) = after.strip_prefix("%%") {
                plain.push('%');
                rest = next;
            } else {
                return Err((here, "a place is written %(key)s, a percent sign %%".to_owned()));
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Plain(plain));
        }
        Ok(Self(parts))
    }
    fn target(key: &str) -> Self {
        Self(vec![Part::Target(key.to_owned())])
    }
    fn lower(self) -> Self {
        let lower = |part| match part {
            Part::Plain(p) => Part::Plain(p.to_lowercase()),
            Part::Target(key) => Part::Target(key),
        };
        Self(self.0.into_iter().map(lower).collect())
    }
    fn constant(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Part::Plain(p)] => Some(p),
            _ => None,
        }
    }
    /// `None` when the target lacks a key.
    fn fill<'o, 't: 'o>(&'o self, target: &Target<'t>) -> Option<Cow<'o, str>> {
        match self.0.as_slice() {
            [Part::Plain(p)] => Some(Cow::Borrowed(p)),
            [Part::Target(key)] => target(key),
            parts => parts
                .iter()
                .try_fold(String::new(), |out, part| match part {
                    Part::Plain(p) => Some(out + p),
                    Part::Target(key) => Some(out + &target(key)?),
                })
                .map(Cow::Owned),
        }
    }
}

/// The byte where it is wrong, and what is wrong.
type Fault = (usize, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Open,
    Close,
    And,
    Or,
    Not,
    Check(&'a str),
}

impl Token<'_> {
    fn name(&self) -> String {
        match self {
            Self::Open => "\"(\"".to_owned(),
            Self::Close => "\")\"".to_owned(),
            Self::And => "\"and\"".to_owned(),
            Self::Or => "\"or\"".to_owned(),
            Self::Not => "\"not\"".to_owned(),
            Self::Check(text) => format!("\"{text}\""),
        }
    }
}

/// Words end at white space; parentheses group only before and after a word, because `%(key)s` has its own.
fn tokens(text: &str) -> Result<Vec<(usize, Token<'_>)>, Fault> {
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(c) = text[at..].chars().next() {
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        if c == '(' {
            out.push((at, Token::Open));
            at += 1;
            continue;
        }
        let quoted = if matches!(c, '\'' | '"') {
            let close = text[at + 1..].find(c).ok_or_else(|| (at, "the quote is not closed".to_owned()))?;
            close + 2
        } else {
            0
        };
        let tail = &text[at + quoted..];
        let word = &text[at..at + quoted + tail.find(char::is_whitespace).unwrap_or(tail.len())];
        let check = word.trim_end_matches(')');
        match check.to_ascii_lowercase().as_str() {
            "" => {}
            "and" => out.push((at, Token::And)),
            "or" => out.push((at, Token::Or)),
            "not" => out.push((at, Token::Not)),
            _ => out.push((at, Token::Check(check))),
        }
        out.extend((at + check.len()..at + word.len()).map(|i| (i, Token::Close)));
        at += word.len();
    }
    Ok(out)
}

struct Parser<'t, 'a> {
    tokens: &'t [(usize, Token<'a>)],
    end: usize,
    depth: usize,
}

impl<'a> Parser<'_, 'a> {
    fn next(&mut self) -> Option<(usize, Token<'a>)> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(*first)
    }
    fn eat(&mut self, token: Token<'_>) -> bool {
        let found = self.tokens.first().is_some_and(|(_, t)| *t == token);
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }
    fn any(&mut self) -> Result<Rule, Fault> {
        let mut rules = vec![self.all()?];
        while self.eat(Token::Or) {
            rules.push(self.all()?);
        }
        Ok(single_or(rules, Rule::Any))
    }
    fn all(&mut self) -> Result<Rule, Fault> {
        let mut rules = vec![self.not()?];
        while self.eat(Token::And) {
            rules.push(self.not()?);
        }
        Ok(single_or(rules, Rule::All))
    }
    fn not(&mut self) -> Result<Rule, Fault> {
        let Some((at, token)) = self.next() else { return Err((self.end, "a check is missing".to_owned())) };
        if self.depth >= DEEPEST {
            return Err((at, format!("more than {DEEPEST} levels inside one another; name a part of it by \"rule:\"")));
        }
        self.depth += 1;
        let rule = match token {
            Token::Not => Rule::Not(Box::new(self.not()?)),
            Token::Open => {
                let rule = self.any()?;
                if !self.eat(Token::Close) {
                    let (here, found) = self.tokens.first().map_or((self.end, "the end".to_owned()), |(i, t)| (*i, t.name()));
                    return Err((here, format!("expected \")\" and found {found}")));
                }
                rule
            }
            Token::Check(text) => check(text, at)?,
            Token::Close | Token::And | Token::Or => return Err((at, format!("expected a check and found {}", token.name()))),
        };
        self.depth -= 1;
        Ok(rule)
    }
}

fn single_or(mut rules: Vec<Rule>, join: fn(Vec<Rule>) -> Rule) -> Rule {
    match (rules.len(), rules.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            rules.extend(last);
            join(rules)
        }
    }
}

fn check(text: &str, at: usize) -> Result<Rule, Fault> {
    match text {
        "@" => return Ok(Rule::Always),
        "!" => return Ok(Rule::Never),
        _ => {}
    }
    let not_a_check = || (at, format!("\"{text}\" is not a check; write kind:value, for example role:member"));
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '\'' | '"')) {
        let (literal, rest) = text[1..].split_once(quote).ok_or_else(not_a_check)?;
        let right = rest.strip_prefix(':').ok_or_else(not_a_check)?;
        return Ok(Rule::Literal(literal.to_owned(), Text::parse(right, at + text.len() - right.len())?));
    }
    let (kind, value) = text.split_once(':').ok_or_else(not_a_check)?;
    let value_at = at + kind.len() + 1;
    match kind {
        "rule" if value.is_empty() => Err((value_at, "nothing follows the colon; write the name of a rule".to_owned())),
        "rule" => Ok(Rule::Named(value.to_owned())),
        "role" => Ok(Rule::Role(Text::parse(value, value_at)?.lower())),
        "field" => field(value, value_at),
        "http" | "https" => Err((at, "checks by a remote server are not done here; express it with roles".to_owned())),
        "None" | "True" | "False" => Ok(Rule::Literal(kind.to_owned(), Text::parse(value, value_at)?)),
        number if number.parse::<i64>().is_ok() => Ok(Rule::Literal(kind.to_owned(), Text::parse(value, value_at)?)),
        name => match Attribute::parse(name) {
            Some(attribute) => Ok(Rule::Is(attribute, Text::parse(value, value_at)?)),
            None => Err((
                at,
                format!(
                    "callers have no \"{name}\"; use user_id, project_id, domain_id, system_scope, role, rule, or 'a literal'"
                ),
            )),
        },
    }
}

/// Neutron's check of the target: `resource:key=value`, or `resource:key=~^start`.
fn field(text: &str, at: usize) -> Result<Rule, Fault> {
    let parts = text.split_once(':').and_then(|(_, rest)| rest.split_once('='));
    let Some((key, value)) = parts.filter(|(k, v)| !k.is_empty() && !v.is_empty()) else {
        return Err((at, "a field check is written field:resource:key=value".to_owned()));
    };
    let Some(pattern) = value.strip_prefix('~') else {
        return Ok(Rule::Literal(value.to_owned(), Text::target(key)));
    };
    match pattern.strip_prefix('^').unwrap_or(pattern) {
        start if !start.contains(['.', '*', '+', '?', '[', ']', '{', '}', '|', '\\', '$', '^', '(', ')']) => {
            Ok(Rule::TargetStarts { key: key.to_owned(), start: start.to_owned() })
        }
        _ => Err((at, "of patterns only ~^start is known".to_owned())),
    }
}
