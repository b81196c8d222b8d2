//! Entries of a directory as users and groups.
use super::{
    options::{Options, Tree},
    text::rdn,
};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// An entry; names of attributes are in lower case, values are texts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) dn: String,
    values: HashMap<String, Vec<String>>,
}

impl Entry {
    pub(crate) fn new(dn: String, values: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        Self { dn, values: values.into_iter().map(|(name, v)| (name.to_lowercase(), v)).collect() }
    }
    pub(crate) fn all(&self, attribute: &str) -> &[String] {
        self.values.get(&attribute.to_lowercase()).map_or(&[], Vec::as_slice)
    }
    /// The first value, unless it is blank.
    pub(crate) fn first(&self, attribute: &str) -> Option<&str> {
        self.all(attribute).first().map(String::as_str).filter(|v| !v.trim().is_empty())
    }
    /// The id: where there are several, the one that names the entry.
    fn id(&self, attribute: &str) -> Option<String> {
        match self.all(attribute) {
            [one] => Some(one.clone()),
            [] => None,
            _ => rdn(&self.dn, attribute),
        }
    }
}

/// A user of a directory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Person {
    pub(crate) dn: String,
    pub(crate) local_id: String,
    pub(crate) name: String,
    pub(crate) enabled: bool,
    pub(crate) default_project_id: Option<String>,
    /// Mail, description and what else is mapped.
    pub(crate) extra: Map<String, Value>,
}

/// A group of a directory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Circle {
    pub(crate) dn: String,
    pub(crate) local_id: String,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) extra: Map<String, Value>,
    /// Names or ids, as the directory has it.
    pub(crate) members: Vec<String>,
}

/// What no mapping may set.
const OURS: [&str; 9] =
    ["id", "name", "enabled", "domain_id", "password", "options", "links", "default_project_id", "password_expires_at"];

fn more(entry: &Entry, tree: &Tree, extra: &mut Map<String, Value>) {
    for (theirs, ours) in tree.more.iter().filter(|(_, ours)| !OURS.contains(&ours.as_str())) {
        if let Some(value) = entry.first(theirs) {
            extra.insert(ours.clone(), value.into());
        }
    }
}

/// An entry without id or name is no user.
pub(crate) fn person(entry: &Entry, options: &Options) -> Option<Person> {
    let tree = &options.users;
    let mut extra = Map::new();
    for (attribute, ours) in [(&options.mail, "email"), (&tree.description, "description")] {
        if let Some(value) = attribute.as_ref().and_then(|a| entry.first(a)) {
            extra.insert(ours.into(), value.into());
        }
    }
    more(entry, tree, &mut extra);
    let enabled = match &options.enabled {
        super::options::Enabled::Attribute { name, .. } => options.enabled.of(entry.first(name)),
        super::options::Enabled::Always | super::options::Enabled::Group { .. } => true,
    };
    Some(Person {
        dn: entry.dn.clone(),
        local_id: entry.id(&tree.id)?,
        name: entry.first(&tree.name)?.to_owned(),
        enabled,
        default_project_id: options.default_project.as_ref().and_then(|a| entry.first(a)).map(str::to_owned),
        extra,
    })
}

/// An entry without id or name is no group.
pub(crate) fn circle(entry: &Entry, options: &Options) -> Option<Circle> {
    let tree = &options.groups;
    let mut extra = Map::new();
    more(entry, tree, &mut extra);
    Some(Circle {
        dn: entry.dn.clone(),
        local_id: entry.id(&tree.id)?,
        name: entry.first(&tree.name)?.to_owned(),
        description: tree.description.as_ref().and_then(|a| entry.first(a)).map(str::to_owned),
        extra,
        members: entry.all(&options.member).to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(dn: &str, values: &[(&str, &[&str])]) -> Entry {
        Entry::new(dn.into(), values.iter().map(|(n, v)| ((*n).to_owned(), v.iter().map(|s| (*s).to_owned()).collect())))
    }

    #[test]
    fn entries_become_users_and_groups() {
        let ldap = json!({"user_additional_attribute_mapping": ["roomNumber:room", "x:enabled"], "group_name_attribute": "cn"});
        let options = Options::of(&json!({ "ldap": ldap }), Default::default()).unwrap();
        let ada = entry(
            "cn=ada,ou=Users",
            &[("CN", &["ada"]), ("sn", &["Lovelace"]), ("mail", &["a@x", "b@x"]), ("roomnumber", &["7"]), ("x", &["FALSE"])],
        );
        let person = person(&ada, &options).unwrap();
        assert_eq!((person.local_id.as_str(), person.name.as_str(), person.enabled), ("ada", "Lovelace", true));
        assert_eq!(Value::from(person.extra), json!({"email": "a@x", "room": "7"}));
        assert_eq!(super::person(&entry("cn=a", &[("cn", &["a"]), ("sn", &["  "])]), &options), None, "it has no name");
        let two = entry("cn=b\\2Cc,ou=Users", &[("cn", &["other", "b,c"]), ("sn", &["B"])]);
        assert_eq!(super::person(&two, &options).unwrap().local_id, "b,c", "the one in its name");
        let staff = circle(&entry("cn=staff", &[("cn", &["staff"]), ("member", &["cn=ada,ou=Users"])]), &options).unwrap();
        assert_eq!((staff.name.as_str(), staff.members.len()), ("staff", 1));
    }
}
