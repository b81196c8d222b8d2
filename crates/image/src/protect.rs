//! Property protections: which properties of images which callers may create, read, update and delete, by a file in Glance's format.
//!
//! ```text
//! [^x_billing_.*]            the first section whose expression is found in a property's name says it
//! create = admin,billing     roles, or the one name of a policy rule; @ is everybody, ! is nobody
//! read = @
//! update = admin
//! delete = !
//! ```
//! A property that no section is for belongs to nobody, as in Glance: the last section is usually `[.*]`.
use regex::Regex;
use resource::{Cx, Error, Result};
use std::sync::Arc;

/// What is done to a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Create,
    Read,
    Update,
    Delete,
}

const OPS: [(&str, Op); 4] = [("create", Op::Create), ("read", Op::Read), ("update", Op::Update), ("delete", Op::Delete)];

/// Why a file of protections cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the property protections is not understood: {why}")]
pub struct ProtectionsError {
    line: usize,
    why: String,
}

/// How permissions are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Roles,
    Policies,
}

/// See the module.
#[derive(Debug)]
pub struct Protections {
    format: Format,
    sections: Vec<Section>,
}

#[derive(Debug)]
struct Section {
    line: usize,
    name: Regex,
    /// By the order of [`OPS`].
    allowed: [Option<Vec<String>>; 4],
}

impl Protections {
    pub fn parse(text: &str, format: Format) -> std::result::Result<Self, ProtectionsError> {
        let mut sections: Vec<Section> = Vec::new();
        for (line, raw) in text.lines().enumerate().map(|(n, raw)| (n + 1, raw.trim())) {
            let bad = |why: &str| ProtectionsError { line, why: why.to_owned() };
            if raw.is_empty() || raw.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = raw.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                let name = Regex::new(name).map_err(|e| bad(&e.to_string()))?;
                sections.push(Section { line, name, allowed: Default::default() });
                continue;
            }
            let (op, list) = raw.split_once(['=', ':']).ok_or_else(|| bad("it is neither a [section] nor an operation"))?;
            let at = OPS
                .iter()
                .position(|(name, _)| *name == op.trim())
                .ok_or_else(|| bad("the operations are create, read, update and delete"))?;
            let section = sections.last_mut().ok_or_else(|| bad("it is before the first [section]"))?;
            let list: Vec<String> = list.split(',').map(|p| p.trim().to_lowercase()).filter(|p| !p.is_empty()).collect();
            let has = |sign: &str| list.iter().any(|p| p == sign);
            if has("@") && has("!") {
                return Err(bad("@ and ! are mutually exclusive"));
            }
            if format == Format::Policies && list.len() > 1 {
                return Err(bad("an operation has one policy; combine several in the policy file"));
            }
            section.allowed[at] = Some(list);
        }
        match sections.iter().find(|section| section.allowed.iter().any(Option::is_none)) {
            Some(section) => Err(ProtectionsError { line: section.line, why: "each of the four operations needs a line".into() }),
            None => Ok(Self { format, sections }),
        }
    }

    fn allow(&self, cx: &Cx, name: &str, op: Op) -> bool {
        let Some(section) = self.sections.iter().find(|section| section.name.is_match(name)) else { return false };
        let at = OPS.iter().position(|(_, known)| *known == op).unwrap_or_default();
        let allowed = section.allowed[at].as_deref().unwrap_or_default();
        match allowed {
            [] => false,
            list if list.iter().any(|p| p == "!") => false,
            list if list.iter().any(|p| p == "@") => true,
            list => match self.format {
                Format::Policies => list.iter().all(|rule| cx.may(rule, None)),
                Format::Roles => cx.caller.subject().roles.iter().any(|role| list.iter().any(|p| p.eq_ignore_ascii_case(role))),
            },
        }
    }
}

/// What the operator protects from a caller; everything is allowed where nothing is protected.
pub(crate) struct Guard<'a>(Option<(Arc<Protections>, &'a Cx)>);

impl<'a> Guard<'a> {
    pub(crate) fn of(cx: &'a Cx) -> Self {
        Self(cx.state.get::<Protections>().map(|protections| (protections, cx)))
    }

    #[cfg(test)]
    pub(crate) fn open() -> Self {
        Self(None)
    }

    pub(crate) fn allows(&self, name: &str, op: Op) -> bool {
        self.0.as_ref().is_none_or(|(protections, cx)| protections.allow(cx, name, op))
    }

    pub(crate) fn require(&self, name: &str, op: Op) -> Result<()> {
        if self.allows(name, op) {
            return Ok(());
        }
        Err(Error::forbidden(format!("Property '{name}' is protected; ask an operator for the right to change it.")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_errors_have_their_line() {
        let good = "# billing\n[^x_.*]\ncreate = admin, Billing\nread = @\nupdate = admin\ndelete =\n[.*]\ncreate=@\nread=@\nupdate=@\ndelete=@\n";
        let read = Protections::parse(good, Format::Roles).unwrap();
        assert_eq!(read.sections[0].allowed[0], Some(vec!["admin".to_owned(), "billing".to_owned()]));
        for (bad, line) in [
            ("create = @", 1),
            ("[(]", 1),
            ("[a]\ncreate=@\nread=@\nupdate=@", 1),
            ("[a]\n\nshow = @", 3),
            ("[a]\ncreate = @,!", 2),
            ("[a]\nnothing", 2),
        ] {
            assert_eq!(Protections::parse(bad, Format::Roles).unwrap_err().line, line, "{bad}");
        }
        assert!(Protections::parse("[a]\ncreate = one,two\nread=@\nupdate=@\ndelete=@", Format::Policies).is_err());
    }
}
