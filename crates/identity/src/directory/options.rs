//! What a domain's configuration says of its directory, read once and checked. Options, names and defaults are Keystone's.
use super::text::is_attribute;
use ldap3::{DerefAliases, Scope};
use serde_json::Value;
use std::{path::PathBuf, time::Duration};
use zeroize::Zeroizing;

/// A wrong option, by name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the option [ldap] {name} {why}")]
pub(crate) struct Wrong {
    pub(crate) name: String,
    pub(crate) why: &'static str,
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// In the order in which they are tried.
    pub(crate) urls: Vec<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Zeroizing<String>,
    pub(crate) scope: Scope,
    pub(crate) deref: DerefAliases,
    /// Entries of a page; 0 asks for all at once.
    pub(crate) page_size: i32,
    pub(crate) start_tls: bool,
    pub(crate) verify: bool,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) ca_dir: Option<PathBuf>,
    pub(crate) connect_timeout: Duration,
    pub(crate) pool_size: usize,
    /// Entries that a list shows at most.
    pub(crate) list_limit: usize,
    pub(crate) users: Tree,
    pub(crate) groups: Tree,
    pub(crate) enabled: Enabled,
    pub(crate) mail: Option<String>,
    pub(crate) default_project: Option<String>,
    pub(crate) member: String,
    pub(crate) members_are_ids: bool,
    pub(crate) nesting: bool,
}

/// Where users or groups are, and what their attributes are called.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) base: String,
    pub(crate) object_class: String,
    /// A filter besides, or nothing.
    pub(crate) filter: String,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    /// Further attributes, and what they are called here.
    pub(crate) more: Vec<(String, String)>,
}

/// How a directory says that somebody may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Enabled {
    /// It does not.
    Always,
    Attribute {
        name: String,
        /// Not 0: the bits that disable.
        mask: i64,
        invert: bool,
        default: String,
    },
    /// By a group of all that may.
    Group { dn: String, member: String, members_are_ids: bool },
}

impl Enabled {
    /// From the value of the attribute, for a directory that has one.
    pub(crate) fn of(&self, value: Option<&str>) -> bool {
        let Self::Attribute { mask, invert, default, .. } = self else { return true };
        let value = value.unwrap_or(default).trim();
        if *mask != 0 {
            // What is no number is no permission.
            return value.parse::<i64>().is_ok_and(|bits| bits & mask != *mask);
        }
        value.eq_ignore_ascii_case("true") != *invert
    }
}

/// The most entries of a list when the domain says nothing.
const LIST_LIMIT: usize = 10_000;
const CONNECT: Duration = Duration::from_secs(3);
const MOST_CONNECTIONS: usize = 64;

struct Group<'a>(&'a Value);

fn wrong(name: &str, why: &'static str) -> Wrong {
    Wrong { name: name.to_owned(), why }
}

impl Group<'_> {
    fn text(&self, name: &str) -> Option<String> {
        match self.0.get(name) {
            Some(Value::String(s)) if !s.is_empty() => Some(s.clone()),
            Some(Value::Number(n)) => Some(n.to_string()),
            Some(Value::Bool(b)) => Some(if *b { "True" } else { "False" }.to_owned()),
            _ => None,
        }
    }
    fn flag(&self, name: &str) -> Result<bool, Wrong> {
        match self.text(name).map(|t| t.to_lowercase()).as_deref() {
            None | Some("false" | "0" | "no" | "off") => Ok(false),
            Some("true" | "1" | "yes" | "on") => Ok(true),
            Some(_) => Err(wrong(name, "is not a boolean; make it true or false")),
        }
    }
    fn int(&self, name: &str) -> Result<Option<i64>, Wrong> {
        self.text(name).map(|t| t.trim().parse().map_err(|_| wrong(name, "is not a number"))).transpose()
    }
    fn list(&self, name: &str) -> Vec<String> {
        match self.0.get(name) {
            Some(Value::Array(list)) => list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
            _ => self.text(name).map_or_else(Vec::new, |t| t.split(',').map(|p| p.trim().to_owned()).collect()),
        }
    }
    /// An attribute that may stand in filters.
    fn attribute(&self, name: &str, default: &str) -> Result<String, Wrong> {
        let value = self.text(name).unwrap_or_else(|| default.to_owned());
        if is_attribute(&value) { Ok(value) } else { Err(wrong(name, "is not the name of an attribute")) }
    }
    fn optional(&self, name: &str, default: Option<&str>) -> Result<Option<String>, Wrong> {
        match (self.text(name), default) {
            (None, None) => Ok(None),
            (None, Some(default)) => Ok(Some(default.to_owned())),
            (Some(_), _) => self.attribute(name, "").map(Some),
        }
    }

    fn tree(&self, kind: &str, unit: &str, class: &str, name: &str) -> Result<Tree, Wrong> {
        let option = |what: &str| format!("{kind}_{what}");
        let suffix = self.text("suffix").unwrap_or_else(|| "cn=example,cn=com".to_owned());
        let filter = self.text(&option("filter")).unwrap_or_default();
        if !filter.is_empty() && ldap3::parse_filter(&filter).is_err() {
            return Err(wrong(&option("filter"), "is not a filter of LDAP, such as (employeeType=staff)"));
        }
        let mut more = Vec::new();
        for pair in self.list(&option("additional_attribute_mapping")) {
            let (theirs, ours) = pair
                .split_once(':')
                .filter(|(theirs, ours)| is_attribute(theirs) && !ours.is_empty())
                .ok_or_else(|| wrong(&option("additional_attribute_mapping"), "does not hold pairs such as roomNumber:room"))?;
            more.push((theirs.to_owned(), ours.to_owned()));
        }
        let description = if kind == "user" { option("description_attribute") } else { option("desc_attribute") };
        let ignored = self.list(&option("attribute_ignore"));
        Ok(Tree {
            base: self.text(&option("tree_dn")).unwrap_or_else(|| format!("{unit},{suffix}")),
            object_class: self.attribute(&option("objectclass"), class)?,
            filter,
            id: self.attribute(&option("id_attribute"), "cn")?,
            name: self.attribute(&option("name_attribute"), name)?,
            description: self
                .optional(&description, Some("description"))?
                .filter(|_| !ignored.iter().any(|i| i == "description")),
            more,
        })
    }

    fn enabled(&self, users: &Tree) -> Result<Enabled, Wrong> {
        if self.flag("user_enabled_emulation")? {
            let dn = self.text("user_enabled_emulation_dn").unwrap_or_else(|| format!("cn=enabled_users,{}", users.base));
            let as_groups = self.flag("user_enabled_emulation_use_group_config")?;
            let member = if as_groups { self.attribute("group_member_attribute", "member")? } else { "member".to_owned() };
            let members_are_ids = as_groups && self.flag("group_members_are_ids")?;
            return Ok(Enabled::Group { dn, member, members_are_ids });
        }
        if self.list("user_attribute_ignore").iter().any(|i| i == "enabled") {
            return Ok(Enabled::Always);
        }
        Ok(Enabled::Attribute {
            name: self.attribute("user_enabled_attribute", "enabled")?,
            mask: self.int("user_enabled_mask")?.unwrap_or(0),
            invert: self.flag("user_enabled_invert")?,
            default: self.text("user_enabled_default").unwrap_or_else(|| "True".to_owned()),
        })
    }
}

impl Options {
    /// `config` is a domain's; its password is given apart, since it is sealed there.
    pub(crate) fn of(config: &Value, password: Zeroizing<String>) -> Result<Self, Wrong> {
        let ldap = Group(config.get("ldap").unwrap_or(&Value::Null));
        let urls: Vec<String> = ldap
            .text("url")
            .unwrap_or_else(|| "ldap://localhost".to_owned())
            .split([',', ' '])
            .filter(|u| !u.is_empty())
            .map(str::to_owned)
            .collect();
        let fits = |u: &String| ["ldap://", "ldaps://"].iter().any(|s| u.strip_prefix(s).is_some_and(|h| !h.is_empty()));
        if urls.is_empty() || !urls.iter().all(fits) {
            return Err(wrong("url", "must be like ldap://HOST or ldaps://HOST:PORT"));
        }
        let scope = match ldap.text("query_scope").as_deref() {
            None | Some("one") => Scope::OneLevel,
            Some("sub") => Scope::Subtree,
            Some(_) => return Err(wrong("query_scope", "must be one or sub")),
        };
        let deref = match ldap.text("alias_dereferencing").as_deref() {
            None | Some("default" | "never") => DerefAliases::Never,
            Some("searching") => DerefAliases::Searching,
            Some("finding") => DerefAliases::Finding,
            Some("always") => DerefAliases::Always,
            Some(_) => return Err(wrong("alias_dereferencing", "must be never, searching, finding, always or default")),
        };
        let verify = match ldap.text("tls_req_cert").as_deref() {
            None | Some("demand") => true,
            Some("never" | "allow") => false,
            Some(_) => return Err(wrong("tls_req_cert", "must be demand, never or allow")),
        };
        let small = |name: &str| Ok(ldap.int(name)?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0));
        let users = ldap.tree("user", "ou=Users", "inetOrgPerson", "sn")?;
        let ignored = ldap.list("user_attribute_ignore");
        let heeded = |what: &str| !ignored.iter().any(|i| i == what);
        Ok(Self {
            urls,
            user: ldap.text("user"),
            password,
            scope,
            deref,
            page_size: ldap.int("page_size")?.and_then(|n| i32::try_from(n).ok()).unwrap_or(0).max(0),
            start_tls: ldap.flag("use_tls")?,
            verify,
            ca_file: ldap.text("tls_cacertfile").map(PathBuf::from),
            ca_dir: ldap.text("tls_cacertdir").map(PathBuf::from),
            // Nobody waits for minutes, whatever is configured.
            connect_timeout: small("connection_timeout")?.map_or(CONNECT, |s| Duration::from_secs(s as u64).min(CONNECT)),
            pool_size: small("pool_size")?.unwrap_or(10).min(MOST_CONNECTIONS),
            list_limit: Group(config.get("identity").unwrap_or(&Value::Null))
                .int("list_limit")?
                .and_then(|n| usize::try_from(n).ok())
                .filter(|n| *n > 0)
                .unwrap_or(LIST_LIMIT),
            enabled: ldap.enabled(&users)?,
            users,
            groups: ldap.tree("group", "ou=UserGroups", "groupOfNames", "ou")?,
            mail: ldap.optional("user_mail_attribute", Some("mail"))?.filter(|_| heeded("email")),
            default_project: ldap.optional("user_default_project_id_attribute", None)?.filter(|_| heeded("default_project_id")),
            member: ldap.attribute("group_member_attribute", "member")?,
            members_are_ids: ldap.flag("group_members_are_ids")?,
            nesting: ldap.flag("group_ad_nesting")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(ldap: Value) -> Result<Options, Wrong> {
        Options::of(&json!({"identity": {"driver": "ldap"}, "ldap": ldap}), Zeroizing::default())
    }

    #[test]
    fn defaults_are_keystones() {
        let all: Value = serde_json::from_str(include_str!("../handlers/domain_config.json")).unwrap();
        let (said, silent) = (read(all["ldap"].clone()).unwrap(), read(json!({"suffix": "cn=example,cn=com"})).unwrap());
        assert_eq!(format!("{said:?}"), format!("{silent:?}"));
        assert_eq!(silent.users.base, "ou=Users,cn=example,cn=com");
        assert_eq!(silent.groups.base, "ou=UserGroups,cn=example,cn=com");
        assert_eq!((silent.users.name.as_str(), silent.groups.name.as_str()), ("sn", "ou"));
    }

    #[test]
    fn what_cannot_be_right_is_refused_by_name() {
        for (name, value) in [
            ("url", json!("http://h")),
            ("url", json!("ldap://")),
            ("query_scope", json!("all")),
            ("user_filter", json!("employeeType=staff)(")),
            ("user_id_attribute", json!("cn)(objectClass=*")),
            ("group_member_attribute", json!("*")),
            ("user_enabled_mask", json!("two")),
            ("use_tls", json!("perhaps")),
            ("tls_req_cert", json!("maybe")),
            ("user_additional_attribute_mapping", json!(["roomNumber"])),
        ] {
            assert_eq!(read(json!({name: value})).unwrap_err().name, name, "{value}");
        }
    }

    #[test]
    fn who_may_log_in_is_said_in_many_ways() {
        let enabled = |options: Value, value: Option<&str>| read(options).unwrap().enabled.of(value);
        assert!(enabled(json!({}), None) && enabled(json!({}), Some("TRUE")));
        assert!(!enabled(json!({}), Some("FALSE")) && !enabled(json!({}), Some("perhaps")));
        assert!(!enabled(json!({"user_enabled_default": false}), None));
        assert!(!enabled(json!({"user_enabled_invert": true}), Some("true")));
        assert!(enabled(json!({"user_enabled_invert": "True"}), Some("false")));
        let mask = json!({"user_enabled_attribute": "userAccountControl", "user_enabled_mask": 2, "user_enabled_default": "512"});
        assert!(enabled(mask.clone(), Some("512")) && enabled(mask.clone(), None));
        assert!(!enabled(mask.clone(), Some("514")) && !enabled(mask, Some("x")));
        assert_eq!(read(json!({"user_attribute_ignore": ["enabled"]})).unwrap().enabled, Enabled::Always);
        let group = read(json!({"user_enabled_emulation": true, "suffix": "dc=x"})).unwrap().enabled;
        assert!(matches!(group, Enabled::Group { dn, .. } if dn == "cn=enabled_users,ou=Users,dc=x"));
    }
}
