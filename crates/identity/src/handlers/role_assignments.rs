//! `GET /v3/role_assignments`: who has which role where, as it was given or, with `effective`, as it counts.
use super::{allow, forbidden, get, grants::link, list};
use crate::{
    grants::{self, Actor, Grant, SYSTEM, Target},
    resources::{GROUP, PROJECT, ROLE, USER},
    rows::{self, ASSIGNMENTS, Rows as _, text},
};
use api::{Access, Call, Cx, Error, Map, Reply, Result, Route};
use base::Timestamp;
use resource::Reader;
use serde_json::{Value, json};
use std::collections::HashSet;

pub(super) fn routes() -> Vec<Route> {
    vec![Route::new("GET", "/v3/role_assignments", Access::Authenticated, listing)]
}

/// Rules of this handler; their target is the project or domain that the list is of.
pub(crate) const RULES: [(&str, &str); 2] = [
    ("identity:list_role_assignments", "rule:identity:domain_lister"),
    ("identity:list_role_assignments_for_tree", "rule:identity:domain_lister"),
];

/// An assignment and what led to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Found {
    grant: Grant,
    /// The assignment that it follows from, the group, and the role that implies its role.
    from: Grant,
    prior: Option<String>,
}

/// What the query asks for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    user: Option<&'a str>,
    group: Option<&'a str>,
    role: Option<&'a str>,
    project: Option<&'a str>,
    domain: Option<&'a str>,
    system: bool,
    inherited: bool,
    effective: bool,
    names: bool,
    subtree: bool,
    now: Timestamp,
}

impl<'a> Asked<'a> {
    fn of(cx: &'a Cx, now: Timestamp) -> Result<Self> {
        let q = &cx.query;
        let asked = Self {
            user: q.get("user.id"),
            group: q.get("group.id"),
            role: q.get("role.id"),
            project: q.get("scope.project.id"),
            domain: q.get("scope.domain.id"),
            system: q.get("scope.system").is_some(),
            inherited: q.get("scope.OS-INHERIT:inherited_to").is_some(),
            effective: on(cx, "effective"),
            names: on(cx, "include_names"),
            subtree: on(cx, "include_subtree"),
            now,
        };
        let scopes = usize::from(asked.project.is_some()) + usize::from(asked.domain.is_some()) + usize::from(asked.system);
        if scopes > 1 {
            return Err(Error::bad_request("Specify a domain, a project or the system, not several of them."));
        }
        if asked.user.is_some() && asked.group.is_some() {
            return Err(Error::bad_request("Specify a user or group, not both."));
        }
        if asked.effective && asked.group.is_some() {
            return Err(Error::bad_request("Combining effective and group filter will always result in an empty list."));
        }
        if asked.effective && asked.inherited {
            return Err(Error::bad_request("Combining effective and inherited filter will always result in an empty list."));
        }
        if asked.subtree && asked.project.is_none() {
            return Err(Error::bad_request("scope.project.id must be specified if include_subtree is also specified."));
        }
        Ok(asked)
    }
    fn fits(&self, grant: &Grant, tree: &[String]) -> bool {
        let is = |want: Option<&str>, have: &str| want.is_none_or(|w| w == have);
        let on = |kind: Target, want: Option<&str>| want.is_none_or(|id| grant.target == kind && grant.target_id == id);
        let in_project = match self.project {
            Some(_) if self.subtree => grant.target == Target::Project && tree.contains(&grant.target_id),
            project => on(Target::Project, project),
        };
        let actor = match (self.user, self.group) {
            (Some(id), _) => grant.actor == Actor::User && grant.actor_id == id,
            (None, Some(id)) => grant.actor == Actor::Group && grant.actor_id == id,
            (None, None) => true,
        };
        actor
            && is(self.role, &grant.role_id)
            && in_project
            && on(Target::Domain, self.domain)
            && (!self.system || grant.target == Target::System)
            && (!self.inherited || grant.inherited)
    }
}

/// `?effective` and `?effective=true` ask for it, `?effective=0` does not.
fn on(cx: &Cx, key: &str) -> bool {
    cx.query.get(key).is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "0" | "false" | "no" | "off"))
}

async fn listing(call: Call) -> Result<Reply> {
    let asked = Asked::of(&call.cx, call.cloud.db.now())?;
    let action = if asked.subtree { "list_role_assignments_for_tree" } else { "list_role_assignments" };
    allow(&call, action, None)?;
    let reader = call.reader();
    if let Some(project) = asked.project.filter(|_| asked.subtree) {
        let row = get(&reader, PROJECT, project);
        let own = |row: &Map| row.get("domain_id").and_then(Value::as_str) == call.cx.caller.domain_id();
        if !row.as_ref().is_ok_and(own) && !call.cx.may("identity:any_reader", None) {
            return Err(forbidden(action));
        }
        row?;
    }
    let tree: Vec<String> = match asked.project {
        Some(id) if asked.subtree => {
            let below = rows::subtree(&mut &reader, id);
            std::iter::once(id.to_owned()).chain(below.iter().map(|r| r.id().to_owned())).collect()
        }
        _ => Vec::new(),
    };
    // Readers of one domain see that domain.
    let sees_all = call.cx.may("identity:system_reader", None);
    let inside = |grant: &Grant| {
        let domain = match grant.target {
            Target::Project => {
                let row = (&reader).row(&PROJECT.table, &grant.target_id);
                row.and_then(|r| text(&r, "domain_id").map(str::to_owned))
            }
            Target::Domain => Some(grant.target_id.clone()),
            Target::System => None,
        };
        sees_all || (domain.is_some() && domain.as_deref() == call.cx.caller.domain_id())
    };
    let mut seen = HashSet::new();
    let mut shown = Vec::new();
    for row in reader.all(&ASSIGNMENTS) {
        for found in follow(&reader, Grant::of(row), &asked, &tree) {
            if asked.fits(&found.grant, &tree) && inside(&found.grant) && seen.insert(found.clone()) {
                shown.extend(show(&call, &reader, &found, asked.names));
            }
        }
    }
    Ok(list(&call, "role_assignments", shown))
}

/// The assignment itself or, when it is asked for, all that follows from it: group members, projects below, implied roles.
fn follow(reader: &Reader<'_>, from: Grant, asked: &Asked<'_>, tree: &[String]) -> Vec<Found> {
    if !asked.effective {
        return vec![Found { grant: from.clone(), from, prior: None }];
    }
    let users = match from.actor {
        Actor::User => vec![from.actor_id.clone()],
        Actor::Group => grants::members_of(&mut &*reader, &from.actor_id, asked.now),
    };
    let users: Vec<String> = users.into_iter().filter(|u| asked.user.is_none_or(|w| w == u)).collect();
    if users.is_empty() {
        return Vec::new();
    }
    let wanted = |id: &str| asked.project.is_none_or(|p| p == id) || tree.iter().any(|t| t == id);
    let targets: Vec<(Target, String)> = if from.inherited {
        let below = rows::subtree(&mut &*reader, &from.target_id);
        below.iter().filter(|r| wanted(r.id())).map(|r| (Target::Project, r.id().to_owned())).collect()
    } else {
        vec![(from.target, from.target_id.clone())]
    };
    let mut out = Vec::new();
    for role_id in grants::expand(&mut &*reader, vec![from.role_id.clone()]) {
        // A role of a domain carries others and does not count itself.
        let Some(role) = reader.get(&ROLE.table, &role_id).filter(|r| text(r, "domain_id").is_none()) else { continue };
        let prior = (role.id() != from.role_id).then(|| from.role_id.clone());
        for (target, target_id) in &targets {
            for user in &users {
                let grant = Grant {
                    actor: Actor::User,
                    actor_id: user.clone(),
                    target: *target,
                    target_id: target_id.clone(),
                    role_id: role_id.clone(),
                    inherited: false,
                };
                out.push(Found { grant, from: from.clone(), prior: prior.clone() });
            }
        }
    }
    out
}

/// `{"id": ...}`, with name and domain when names are asked for. Nothing when the row is gone.
fn party(reader: &Reader<'_>, def: &resource::ResourceDef, id: &str, names: bool) -> Option<Value> {
    if !names {
        return Some(json!({ "id": id }));
    }
    let row = reader.get(&def.table, id)?;
    let mut out = json!({"id": id, "name": row.text("name")});
    if let Some(domain) = text(&row, "domain_id") {
        let name = reader.get(&PROJECT.table, domain).map(|d| d.text("name").to_owned());
        out["domain"] = json!({"id": domain, "name": name});
    }
    Some(out)
}

fn show(call: &Call, reader: &Reader<'_>, found: &Found, names: bool) -> Option<Value> {
    let Found { grant, from, prior } = found;
    let mut out = Map::new();
    out.insert("role".into(), party(reader, ROLE, &grant.role_id, names)?);
    let actor = if grant.actor == Actor::User { USER } else { GROUP };
    out.insert(grant.actor.name().into(), party(reader, actor, &grant.actor_id, names)?);
    let mut scope = Map::new();
    match grant.target {
        Target::System => scope.insert(SYSTEM.into(), json!({"all": true})),
        target => scope.insert(target.name().into(), party(reader, PROJECT, &grant.target_id, names)?),
    };
    if grant.inherited {
        scope.insert("OS-INHERIT:inherited_to".into(), "projects".into());
    }
    out.insert("scope".into(), scope.into());
    let public = &call.cx.public;
    let mut links = json!({"assignment": link(public, from)});
    if grant.actor != from.actor {
        links["membership"] = format!("{public}/v3/groups/{}/users/{}", from.actor_id, grant.actor_id).into();
    }
    if let Some(prior) = prior {
        links["prior_role"] = format!("{public}/v3/prior_role/{prior}/implies/{}", grant.role_id).into();
    }
    out.insert("links".into(), links);
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_all_of() {
        let grant = Grant {
            actor: Actor::User,
            actor_id: "u".into(),
            target: Target::Project,
            target_id: "p".into(),
            role_id: "r".into(),
            inherited: false,
        };
        let all = Asked {
            user: None,
            group: None,
            role: None,
            project: None,
            domain: None,
            system: false,
            inherited: false,
            effective: false,
            names: false,
            subtree: false,
            now: Timestamp(0),
        };
        assert!(all.fits(&grant, &[]));
        assert!(Asked { user: Some("u"), role: Some("r"), project: Some("p"), ..all }.fits(&grant, &[]));
        assert!(!Asked { user: Some("x"), ..all }.fits(&grant, &[]));
        assert!(!Asked { group: Some("u"), ..all }.fits(&grant, &[]));
        assert!(!Asked { domain: Some("p"), ..all }.fits(&grant, &[]));
        assert!(!Asked { system: true, ..all }.fits(&grant, &[]));
        assert!(!Asked { inherited: true, ..all }.fits(&grant, &[]));
        assert!(Asked { project: Some("top"), subtree: true, ..all }.fits(&grant, &["top".into(), "p".into()]));
    }
}
