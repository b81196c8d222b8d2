//! Why a rule holds or does not: its tree again, with what each part found out.
//!
//! Evaluation itself ([`Rule::holds`]) stops as soon as it can; this asks every part, so that an operator sees all of them.
use super::{
    PolicyBook, Subject, Target,
    rule::{Attribute, Rule, Text},
};
use serde::Serialize;

/// A part of a rule and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// As it is written.
    pub check: String,
    pub holds: bool,
    /// What the caller and the target have, in words; empty where the parts below say it.
    pub because: String,
    pub parts: Vec<Explained>,
}

impl PolicyBook {
    /// The rule of that name, part by part; nothing when there is none.
    pub fn explain(&self, name: &str, subject: &Subject<'_>, target: &Target<'_>) -> Option<Explained> {
        self.rule(name).map(|rule| self.part(rule, subject, target))
    }

    fn part(&self, rule: &Rule, subject: &Subject<'_>, target: &Target<'_>) -> Explained {
        let holds = rule.holds(subject, target, &|name| self.rule(name));
        let below = |rules: &[Rule]| rules.iter().map(|r| self.part(r, subject, target)).collect::<Vec<_>>();
        let leaf = |because: String| Explained { check: rule.to_string(), holds, because, parts: Vec::new() };
        match rule {
            Rule::Always => leaf("everybody may".into()),
            Rule::Never => leaf("nobody may".into()),
            Rule::All(rules) => Explained { check: "all of".into(), holds, because: String::new(), parts: below(rules) },
            Rule::Any(rules) => Explained { check: "any of".into(), holds, because: String::new(), parts: below(rules) },
            Rule::Not(inner) => {
                let parts = below(std::slice::from_ref(&**inner));
                Explained { check: "not".into(), holds, because: String::new(), parts }
            }
            Rule::Named(name) => match self.rule(name) {
                Some(inner) => {
                    let parts = below(std::slice::from_ref(inner));
                    Explained { check: rule.to_string(), holds, because: String::new(), parts }
                }
                None => leaf("there is no such rule".into()),
            },
            Rule::Role(text) => leaf(format!("{}the caller's roles are {}", filled(text, target), list(subject.roles))),
            Rule::Is(attribute, text) => leaf(attribute_found(*attribute, text, subject, target)),
            Rule::Literal(_, text) => leaf(filled(text, target).trim_end_matches("; ").to_owned()),
            Rule::TargetStarts { key, .. } => leaf(match target(key) {
                Some(value) => format!("the target's {key} is {value}"),
                None => format!("the target has no {key}"),
            }),
        }
    }
}

fn list(values: &[String]) -> String {
    if values.is_empty() { "none".into() } else { values.join(", ") }
}

/// What the places of a text stand for; empty when it has none.
fn filled(text: &Text, target: &Target<'_>) -> String {
    let found = text.keys().map(|key| match target(key) {
        Some(value) => format!("the target's {key} is {value}; "),
        None => format!("the target has no {key}; "),
    });
    found.collect()
}

fn attribute_found(attribute: Attribute, text: &Text, subject: &Subject<'_>, target: &Target<'_>) -> String {
    let has = match attribute {
        Attribute::Roles => list(subject.roles),
        Attribute::ServiceRoles => list(subject.service_roles),
        Attribute::UserId
        | Attribute::UserDomainId
        | Attribute::ProjectId
        | Attribute::ProjectDomainId
        | Attribute::DomainId
        | Attribute::SystemScope
        | Attribute::IsAdmin
        | Attribute::IsAdminProject
        | Attribute::ServiceUserId
        | Attribute::ServiceProjectId => attribute.of(subject).unwrap_or("none").to_owned(),
    };
    format!("{}the caller's {} is {has}", filled(text, target), attribute.name())
}

#[cfg(test)]
mod tests {
    use super::super::{Subject, json_target, no_target};
    use super::*;
    use serde_json::json;

    fn explained(rule: &'static str, target: &serde_json::Value) -> Explained {
        let book = PolicyBook::new([("owner", "project_id:%(project_id)s"), ("it", rule)], []).unwrap();
        let roles = ["member".to_owned(), "reader".to_owned()];
        let subject = Subject { user_id: "u1", project_id: Some("p1"), roles: &roles, ..Subject::default() };
        book.explain("it", &subject, &json_target(target)).unwrap()
    }

    #[test]
    fn every_part_says_what_it_found() {
        let e = explained("role:admin or (rule:owner and role:reader)", &json!({"project_id": "p2"}));
        assert!(!e.holds && e.check == "any of");
        assert_eq!(
            (e.parts[0].check.as_str(), e.parts[0].because.as_str()),
            ("role:admin", "the caller's roles are member, reader")
        );
        let all = &e.parts[1];
        assert!(!all.holds && all.check == "all of" && all.parts[1].holds);
        let owner = &all.parts[0].parts[0];
        assert_eq!(owner.check, "project_id:%(project_id)s");
        assert_eq!(owner.because, "the target's project_id is p2; the caller's project_id is p1");
        assert!(explained("rule:owner", &json!({"project_id": "p1"})).holds);
        let e = explained("not project_id:%(project_id)s", &json!({}));
        assert_eq!((e.holds, e.parts[0].because.as_str()), (true, "the target has no project_id; the caller's project_id is p1"));
        assert!(PolicyBook::default().explain("it", &Subject::default(), &no_target).is_none());
    }

    #[test]
    fn a_rule_is_written_as_it_was() {
        for text in
            ["role:admin", "rule:x", "@", "!", "user_id:%(user_id)s", "'a':%(b)s/c%%", "field:r:k=~^v", "system_scope:all"]
        {
            let rule = Rule::parse(text).unwrap();
            assert_eq!(Rule::parse(&rule.to_string()).unwrap(), rule, "{text}");
        }
    }
}
