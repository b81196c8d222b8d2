//! Role assignments: who has which role where, and what follows from it.
//!
//! ```text
//! actor (user, group) + target (project, domain, system) + role [+ inherited to the projects below]
//!    --groups, parents, implied roles-->   roles of a user on a target
//! ```
use crate::{
    resources::ROLE,
    rows::{self, ASSIGNMENTS, IMPLIED, MEMBERSHIPS, Rows, flag, text},
};
use auth::Role;
use base::Timestamp;
use serde_json::{Value, json};
use std::collections::HashSet;
use store::{Row, Tx};

/// The one target of system-wide roles.
pub(crate) const SYSTEM: &str = "system";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Actor {
    User,
    Group,
}

impl Actor {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Project,
    Domain,
    System,
}

impl Target {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Domain => "domain",
            Self::System => "system",
        }
    }
}

/// One assignment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Grant {
    pub(crate) actor: Actor,
    pub(crate) actor_id: String,
    pub(crate) target: Target,
    pub(crate) target_id: String,
    pub(crate) role_id: String,
    /// Counts on the projects below the target and not on the target itself.
    pub(crate) inherited: bool,
}

impl Grant {
    pub(crate) fn key(&self) -> String {
        let Self { actor, actor_id, target, target_id, role_id, inherited } = self;
        let how = if *inherited { "inherited" } else { "direct" };
        format!("{}:{actor_id}:{}:{target_id}:{role_id}:{how}", actor.name(), target.name())
    }
    pub(crate) fn row(&self) -> Value {
        json!({
            "actor": self.actor.name(), "actor_id": self.actor_id, "target": self.target.name(), "target_id": self.target_id,
            "role_id": self.role_id, "inherited": self.inherited, "v": 1,
        })
    }
    pub(crate) fn of(row: &Row) -> Self {
        Self {
            actor: if row.text("actor") == "group" { Actor::Group } else { Actor::User },
            actor_id: row.text("actor_id").to_owned(),
            target: match row.text("target") {
                "domain" => Target::Domain,
                "system" => Target::System,
                _ => Target::Project,
            },
            target_id: row.text("target_id").to_owned(),
            role_id: row.text("role_id").to_owned(),
            inherited: flag(row, "inherited"),
        }
    }
    pub(crate) fn put(&self, tx: &mut Tx<'_>) {
        tx.put(&ASSIGNMENTS, &self.key(), self.row());
    }
}

/// Whose roles are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder<'a> {
    pub(crate) user: &'a str,
    /// Groups besides those that the user is in: a token of a user that others vouch for carries them.
    pub(crate) groups: &'a [String],
    /// Some memberships end.
    pub(crate) now: Timestamp,
}

impl<'a> Holder<'a> {
    /// A user, by no token.
    pub(crate) fn user(user: &'a str, now: Timestamp) -> Self {
        Self { user, groups: &[], now }
    }
}

/// Does a membership last until after now?
pub(crate) fn lasts(membership: &Row, now: Timestamp) -> bool {
    membership.field("expires_at").as_i64().is_none_or(|at| now.0 < at)
}

pub(crate) fn groups_of(rows: &mut dyn Rows, user_id: &str, now: Timestamp) -> Vec<String> {
    let found = rows.rows(&MEMBERSHIPS, "user_id", user_id);
    found.iter().filter(|r| lasts(r, now)).map(|r| r.text("group_id").to_owned()).collect()
}

pub(crate) fn members_of(rows: &mut dyn Rows, group_id: &str, now: Timestamp) -> Vec<String> {
    let found = rows.rows(&MEMBERSHIPS, "group_id", group_id);
    found.iter().filter(|r| lasts(r, now)).map(|r| r.text("user_id").to_owned()).collect()
}

/// When the next of a user's memberships ends.
pub(crate) fn next_end(rows: &mut dyn Rows, user_id: &str, now: Timestamp) -> Option<Timestamp> {
    let found = rows.rows(&MEMBERSHIPS, "user_id", user_id);
    found.iter().filter_map(|r| r.field("expires_at").as_i64()).filter(|at| now.0 < *at).min().map(Timestamp)
}

/// Assignments to the user and to the user's groups.
pub(crate) fn grants_of(rows: &mut dyn Rows, holder: Holder<'_>) -> Vec<Grant> {
    let mut found = rows.rows(&ASSIGNMENTS, "actor_id", holder.user);
    let mut groups = groups_of(rows, holder.user, holder.now);
    groups.extend(holder.groups.iter().filter(|g| !groups.contains(g)).cloned().collect::<Vec<_>>());
    for group in groups {
        found.extend(rows.rows(&ASSIGNMENTS, "actor_id", &group));
    }
    found.iter().map(|r| Grant::of(r)).collect()
}

/// Does an assignment count on a target? `above` are the projects above it, `domain` is its domain.
fn counts(grant: &Grant, target: Target, id: &str, above: &[String], domain: &str) -> bool {
    match (target, grant.target, grant.inherited) {
        (Target::Project, Target::Project, true) => above.contains(&grant.target_id),
        (Target::Project, Target::Domain, true) => grant.target_id == domain,
        (t, g, false) => t == g && grant.target_id == id,
        _ => false,
    }
}

/// Role ids and all that they imply; the ids that imply come first.
pub(crate) fn expand(rows: &mut dyn Rows, mut roles: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    roles.retain(|r| seen.insert(r.clone()));
    let mut at = 0;
    while at < roles.len() {
        for row in rows.rows(&IMPLIED, "prior_role_id", &roles[at]) {
            let implied = row.text("implied_role_id").to_owned();
            if seen.insert(implied.clone()) {
                roles.push(implied);
            }
        }
        at += 1;
    }
    roles
}

/// The roles as tokens show them: those of a domain only carry others and are left out.
pub(crate) fn shown(rows: &mut dyn Rows, role_ids: &[String]) -> Vec<Role> {
    let role = |id: &String| {
        let row = rows.row(&ROLE.table, id).filter(|r| text(r, "domain_id").is_none())?;
        Some(Role { id: id.as_str().into(), name: row.text("name").to_owned() })
    };
    role_ids.iter().filter_map(role).collect()
}

/// Ids of the roles that a user was given on a target, before implied ones.
pub(crate) fn given(rows: &mut dyn Rows, holder: Holder<'_>, target: Target, id: &str) -> Vec<String> {
    let (above, domain) = match target {
        Target::Project => {
            let row = rows.row(&crate::resources::PROJECT.table, id);
            (rows::ancestors(rows, id), row.map_or_else(String::new, |r| r.text("domain_id").to_owned()))
        }
        Target::Domain | Target::System => (Vec::new(), String::new()),
    };
    let grants = grants_of(rows, holder);
    grants.into_iter().filter(|g| counts(g, target, id, &above, &domain)).map(|g| g.role_id).collect()
}

/// All roles of a user on a target.
pub(crate) fn effective(rows: &mut dyn Rows, holder: Holder<'_>, target: Target, id: &str) -> Vec<Role> {
    let given = given(rows, holder, target, id);
    let all = expand(rows, given);
    shown(rows, &all)
}

/// Ids of projects on which the user has a role.
pub(crate) fn projects_of(rows: &mut dyn Rows, holder: Holder<'_>) -> Vec<String> {
    let mut ids = Vec::new();
    for grant in grants_of(rows, holder) {
        match (grant.target, grant.inherited) {
            (Target::Project, false) => ids.push(grant.target_id),
            (Target::Project | Target::Domain, true) => {
                ids.extend(rows::subtree(rows, &grant.target_id).iter().map(|r| r.id().to_owned()));
            }
            (Target::Domain, false) | (Target::System, _) => {}
        }
    }
    let mut seen = HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    ids
}

/// Ids of domains on which the user has a role.
pub(crate) fn domains_of(rows: &mut dyn Rows, holder: Holder<'_>) -> Vec<String> {
    let direct = |g: &Grant| g.target == Target::Domain && !g.inherited;
    let mut ids: Vec<String> = grants_of(rows, holder).into_iter().filter(direct).map(|g| g.target_id).collect();
    let mut seen = HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    ids
}

/// Takes away every assignment that an index finds.
pub(crate) fn forget(tx: &mut Tx<'_>, index: &str, id: &str) {
    for row in tx.children(&ASSIGNMENTS, index, id) {
        tx.delete(&ASSIGNMENTS, row.id());
    }
}
