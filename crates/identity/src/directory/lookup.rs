//! Questions to one directory, as Keystone asks them: users, groups, who is in what, and whose password it is.
use super::{
    connections::{Connections, Fault, Found, Search},
    entry::{Circle, Entry, Person, circle, person},
    options::{Enabled, Options, Tree},
    text::{all, equals, in_chain, present, same_dn},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use ldap3::{Scope, dn_escape};
use std::{collections::HashSet, sync::Arc};

/// Members that are looked up at once.
const AT_ONCE: usize = 4;

/// A domain's directory.
pub(crate) struct Directory {
    options: Arc<Options>,
    connections: Connections,
}

/// The filter of a tree's entries that also fulfil `more`.
fn filter(tree: &Tree, more: &str) -> String {
    let class = equals("objectClass", &tree.object_class);
    all([more, &tree.filter, &class, &present(&tree.id)])
}

impl Directory {
    pub(crate) fn new(options: Options) -> Self {
        let options = Arc::new(options);
        Self { connections: Connections::new(options.clone()), options }
    }

    fn attributes(&self, tree: &Tree) -> Vec<String> {
        let o = &self.options;
        let mut out = vec![tree.id.clone(), tree.name.clone()];
        out.extend(tree.description.clone());
        out.extend(tree.more.iter().map(|(theirs, _)| theirs.clone()));
        out.extend([&o.mail, &o.default_project].into_iter().flatten().cloned());
        if let Enabled::Attribute { name, .. } = &o.enabled {
            out.push(name.clone());
        }
        out.push(o.member.clone());
        out
    }

    async fn find(&self, tree: &Tree, more: &str, most: usize) -> Result<Found<Entry>, Fault> {
        let (scope, filter) = (self.options.scope, filter(tree, more));
        self.connections
            .search(&Search { base: &tree.base, scope, filter: &filter, attributes: self.attributes(tree), most })
            .await
    }

    /// Users of entries; who is not in the group of those that may log in is disabled.
    async fn people(&self, entries: Vec<Entry>) -> Result<Vec<Person>, Fault> {
        let mut people: Vec<Person> = entries.iter().filter_map(|e| person(e, &self.options)).collect();
        if let Enabled::Group { dn, member, members_are_ids } = &self.options.enabled
            && !people.is_empty()
        {
            let attributes = vec![member.clone()];
            let search = Search { base: dn, scope: Scope::Base, filter: "(objectClass=*)", attributes, most: 1 };
            let group = self.connections.search(&search).await?.all.pop().unwrap_or_default();
            let form = |text: &str| if *members_are_ids { text.to_owned() } else { same_dn(text) };
            let members: HashSet<String> = group.all(member).iter().map(|m| form(m)).collect();
            for person in &mut people {
                person.enabled = members.contains(&form(if *members_are_ids { &person.local_id } else { &person.dn }));
            }
        }
        Ok(people)
    }

    /// All users, or those with a name.
    pub(crate) async fn users(&self, name: Option<&str>) -> Result<Found<Person>, Fault> {
        let tree = &self.options.users;
        let found = self.find(tree, &name.map_or_else(String::new, |n| equals(&tree.name, n)), self.options.list_limit).await?;
        Ok(Found { all: self.people(found.all).await?, complete: found.complete })
    }
    pub(crate) async fn user(&self, local_id: &str) -> Result<Option<Person>, Fault> {
        let tree = &self.options.users;
        let found = self.find(tree, &equals(&tree.id, local_id), 2).await?;
        let people = self.people(found.all).await?;
        Ok(people.into_iter().find(|p| p.local_id == local_id))
    }
    /// The one user with a name. Names that several have are nobody's.
    pub(crate) async fn user_by_name(&self, name: &str) -> Result<Option<Person>, Fault> {
        let mut found = self.users(Some(name)).await?.all;
        Ok(if found.len() == 1 { found.pop() } else { None })
    }

    /// All groups, or those with a name.
    pub(crate) async fn groups(&self, name: Option<&str>) -> Result<Found<Circle>, Fault> {
        let tree = &self.options.groups;
        let found = self.find(tree, &name.map_or_else(String::new, |n| equals(&tree.name, n)), self.options.list_limit).await?;
        Ok(Found { all: found.all.iter().filter_map(|e| circle(e, &self.options)).collect(), complete: found.complete })
    }
    pub(crate) async fn group(&self, local_id: &str) -> Result<Option<Circle>, Fault> {
        let tree = &self.options.groups;
        let found = self.find(tree, &equals(&tree.id, local_id), 2).await?;
        Ok(found.all.iter().filter_map(|e| circle(e, &self.options)).find(|c| c.local_id == local_id))
    }

    /// The groups that a user is in.
    pub(crate) async fn groups_of(&self, person: &Person) -> Result<Vec<Circle>, Fault> {
        let o = &self.options;
        let who = if o.members_are_ids { &person.local_id } else { &person.dn };
        let more = if o.nesting { in_chain("member", who) } else { equals(&o.member, who) };
        let found = self.find(&o.groups, &more, o.list_limit).await?;
        Ok(found.all.iter().filter_map(|e| circle(e, o)).collect())
    }

    /// The users in a group; members that are no users of ours are left out.
    pub(crate) async fn members_of(&self, group: &Circle) -> Result<Vec<Person>, Fault> {
        let o = &self.options;
        if o.nesting {
            let found = self.find(&o.users, &in_chain("memberOf", &group.dn), o.list_limit).await?;
            return self.people(found.all).await;
        }
        let filter = filter(&o.users, "");
        let below = format!("\u{0}{}", same_dn(&o.users.base));
        let one = async |member: &String| {
            if o.members_are_ids {
                return self.find(&o.users, &equals(&o.users.id, member), 1).await.map(|f| f.all);
            }
            // As the list of users: only what is in their tree.
            if !same_dn(member).ends_with(&below) {
                return Ok(Vec::new());
            }
            let attributes = self.attributes(&o.users);
            let search = Search { base: member, scope: Scope::Base, filter: &filter, attributes, most: 1 };
            self.connections.search(&search).await.map(|f| f.all)
        };
        let members = group.members.iter().take(o.list_limit);
        let entries: Vec<Vec<Entry>> = stream::iter(members).map(one).buffered(AT_ONCE).try_collect().await?;
        self.people(entries.concat()).await
    }

    /// Is it the password of the user? Nobody's takes as long as a wrong one.
    pub(crate) async fn admits(&self, person: Option<&Person>, password: &str) -> Result<bool, Fault> {
        let tree = &self.options.users;
        match person {
            Some(person) => self.connections.admits(&person.dn, password).await,
            None => {
                let nobody = format!("{}={},{}", tree.id, dn_escape(base::id::hex()), tree.base);
                self.connections.admits(&nobody, password).await?;
                Ok(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use zeroize::Zeroizing;

    #[test]
    fn filters_hold_everything_that_was_configured() {
        let ldap = json!({"user_filter": "(employeeType=staff)", "user_id_attribute": "uid"});
        let options = Options::of(&json!({ "ldap": ldap }), Zeroizing::default()).unwrap();
        let one = filter(&options.users, &equals("uid", "a*)(uid=*"));
        assert_eq!(one, "(&(uid=a\\2a\\29\\28uid=\\2a)(employeeType=staff)(objectClass=inetOrgPerson)(uid=*))");
        assert!(ldap3::parse_filter(one).is_ok());
        assert_eq!(filter(&options.groups, ""), "(&(objectClass=groupOfNames)(cn=*))");
    }
}
