//! Giving roles and taking them: to users and groups, on projects, domains and the system, also inherited (OS-INHERIT).
use super::{allow, forbidden, get, list, object, view};
use crate::{
    grants::{Actor, Grant, SYSTEM, Target},
    resources::{DOMAIN, GROUP, PROJECT, ROLE, USER},
    rows::{ASSIGNMENTS, Rows as _, flag},
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::engine;
use serde_json::Value;

/// Paths of one kind of grant, without `/{role_id}`.
struct Place {
    path: &'static str,
    with_role: &'static str,
    target: Target,
    actor: Actor,
    inherited: bool,
}

const INHERITED: &str = "/inherited_to_projects";

const fn place(path: &'static str, with_role: &'static str, target: Target, actor: Actor, inherited: bool) -> Place {
    Place { path, with_role, target, actor, inherited }
}

macro_rules! places {
    ($($base:literal $target:ident $actor:ident),+ $(,)?) => {[$(
        place(concat!("/v3", $base), concat!("/v3", $base, "/{role_id}"), Target::$target, Actor::$actor, false),
    )+]};
}
macro_rules! inherited {
    ($($base:literal $target:ident $actor:ident),+ $(,)?) => {[$(
        place(
            concat!("/v3/OS-INHERIT", $base, "/inherited_to_projects"),
            concat!("/v3/OS-INHERIT", $base, "/{role_id}/inherited_to_projects"),
            Target::$target, Actor::$actor, true,
        ),
    )+]};
}

static DIRECT: [Place; 6] = places![
    "/projects/{target_id}/users/{actor_id}/roles" Project User,
    "/projects/{target_id}/groups/{actor_id}/roles" Project Group,
    "/domains/{target_id}/users/{actor_id}/roles" Domain User,
    "/domains/{target_id}/groups/{actor_id}/roles" Domain Group,
    "/system/users/{actor_id}/roles" System User,
    "/system/groups/{actor_id}/roles" System Group,
];
static BELOW: [Place; 4] = inherited![
    "/projects/{target_id}/users/{actor_id}/roles" Project User,
    "/projects/{target_id}/groups/{actor_id}/roles" Project Group,
    "/domains/{target_id}/users/{actor_id}/roles" Domain User,
    "/domains/{target_id}/groups/{actor_id}/roles" Domain Group,
];

pub(super) fn routes() -> Vec<Route> {
    let any = Access::Authenticated;
    DIRECT
        .iter()
        .chain(&BELOW)
        .flat_map(|place| {
            [
                Route::new("GET", place.path, any, move |call| of_actor(place, call)),
                Route::new("GET", place.with_role, any, move |call| check(place, call)),
                Route::new("PUT", place.with_role, any, move |call| create(place, call)),
                Route::new("DELETE", place.with_role, any, move |call| revoke(place, call)),
            ]
        })
        .collect()
}

/// Rules of these handlers; their target is the project or domain, with its domain as `domain_id`.
pub(crate) const RULES: [(&str, &str); 4] = [
    ("identity:list_grants", "rule:identity:domain_reader"),
    ("identity:check_grant", "rule:identity:domain_reader"),
    ("identity:create_grant", "rule:identity:domain_manager"),
    ("identity:revoke_grant", "rule:identity:domain_manager"),
];

/// Whom and what the path names; the role, too, where the path has one. 403 comes before 404.
fn admitted(place: &Place, call: &Call, action: &str) -> Result<Grant> {
    let reader = call.reader();
    let target_id = match place.target {
        Target::Project | Target::Domain => call.param("target_id"),
        Target::System => SYSTEM,
    };
    let target = match place.target {
        Target::Project => get(&reader, PROJECT, target_id),
        Target::Domain => get(&reader, DOMAIN, target_id).and_then(|row| {
            let is_domain = row.get("is_domain") == Some(&Value::Bool(true));
            if is_domain { Ok(row) } else { Err(engine::not_found(DOMAIN, target_id)) }
        }),
        Target::System => Ok(Map::new()),
    };
    let domain = match (place.target, &target) {
        (Target::Project, Ok(row)) if row.get("is_domain") != Some(&Value::Bool(true)) => row.get("domain_id").cloned(),
        (Target::Project | Target::Domain, _) => Some(target_id.into()),
        (Target::System, _) => None,
    };
    let mut asked = Map::new();
    if let Some(domain) = domain.filter(|_| target.is_ok()) {
        asked.insert("domain_id".into(), domain);
    }
    allow(call, action, Some(&asked))?;
    target?;
    let actor = if place.actor == Actor::User { USER } else { GROUP };
    let actor_row = get(&reader, actor, call.param("actor_id"));
    let writes = matches!(action, "create_grant" | "revoke_grant");
    let inside = actor_row.as_ref().is_ok_and(|row| row.get("domain_id") == asked.get("domain_id"));
    // An assignment to somebody who is gone may still be taken away.
    let gone = actor_row.is_err() && action == "revoke_grant";
    // Who is of another domain, and who is not there, are refused alike.
    let beyond = match (place.target, writes) {
        (Target::System, true) => "identity:cloud_admin",
        (Target::System, false) => "identity:system_reader",
        (_, true) => "admin",
        (_, false) => "identity:any_reader",
    };
    if !((inside || gone) && place.target != Target::System || call.cx.may(beyond, None)) {
        return Err(forbidden(action));
    }
    if !gone {
        actor_row?;
    }
    let role_id = call.param("role_id").to_owned();
    if !role_id.is_empty() {
        let role = get(&reader, ROLE, &role_id)?;
        // Whoever manages a domain hands out what a manager has, not more; any other role may imply one that is more.
        if writes && !call.cx.is_admin() && !call.cx.may("identity:managed_role", Some(&role)) {
            return Err(forbidden(action));
        }
    }
    Ok(Grant {
        actor: place.actor,
        actor_id: call.param("actor_id").to_owned(),
        target: place.target,
        target_id: target_id.to_owned(),
        role_id,
        inherited: place.inherited,
    })
}

async fn of_actor(place: &'static Place, call: Call) -> Result<Reply> {
    let asked = admitted(place, &call, "list_grants")?;
    let reader = call.reader();
    let mut shown = Vec::new();
    for row in reader.find(&ASSIGNMENTS, "actor_id", &asked.actor_id) {
        let grant = Grant::of(&row);
        if (Grant { role_id: String::new(), ..grant.clone() }) == asked
            && let Some(role) = (&reader).row(&ROLE.table, &grant.role_id)
        {
            shown.push(view(ROLE, object(&role)?, &call, &reader));
        }
    }
    Ok(list(&call, "roles", shown))
}

fn lost(grant: &Grant) -> Error {
    Error::not_found(format!(
        "Could not find role assignment with role: {}, user or group: {}, project, domain, or system: {}.",
        grant.role_id, grant.actor_id, grant.target_id
    ))
}

async fn check(place: &'static Place, call: Call) -> Result<Reply> {
    let grant = admitted(place, &call, "check_grant")?;
    match call.reader().get(&ASSIGNMENTS, &grant.key()) {
        Some(_) => Ok(Reply::empty(204)),
        None => Err(lost(&grant)),
    }
}

async fn create(place: &'static Place, call: Call) -> Result<Reply> {
    let grant = admitted(place, &call, "create_grant")?;
    call.transact(move |_, tx| {
        let actor = if grant.actor == Actor::User { USER } else { GROUP };
        let target = (grant.target != Target::System).then_some((PROJECT, &grant.target_id));
        let parts = [Some((actor, &grant.actor_id)), Some((ROLE, &grant.role_id)), target];
        for (def, id) in parts.into_iter().flatten() {
            tx.row(&def.table, id).ok_or_else(|| engine::not_found(def, id))?;
        }
        check_domain_role(tx, &grant)?;
        grant.put(tx);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

/// A role of a domain stays in its domain.
fn check_domain_role(tx: &mut store::Tx<'_>, grant: &Grant) -> Result<()> {
    let role = tx.row(&ROLE.table, &grant.role_id);
    let Some(of) = role.as_ref().and_then(|r| r.field("domain_id").as_str()) else { return Ok(()) };
    let target = tx.row(&PROJECT.table, &grant.target_id);
    let inside = target.is_some_and(|t| if flag(&t, "is_domain") { t.id() == of } else { t.text("domain_id") == of });
    if inside {
        return Ok(());
    }
    Err(Error::forbidden(format!("Role {} is of domain {of} and can only be assigned there.", grant.role_id)))
}

async fn revoke(place: &'static Place, call: Call) -> Result<Reply> {
    let grant = admitted(place, &call, "revoke_grant")?;
    call.transact(move |_, tx| {
        tx.row(&ASSIGNMENTS, &grant.key()).ok_or_else(|| lost(&grant))?;
        tx.delete(&ASSIGNMENTS, &grant.key());
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

/// How an assignment is named in lists.
pub(super) fn link(public: &str, grant: &Grant) -> String {
    let (target, actor) = (grant.target.name(), grant.actor.name());
    let on = match grant.target {
        Target::System => "system".to_owned(),
        Target::Project | Target::Domain => format!("{target}s/{}", grant.target_id),
    };
    let tail = format!("{on}/{actor}s/{}/roles/{}", grant.actor_id, grant.role_id);
    let (below, after) = if grant.inherited { ("/OS-INHERIT", INHERITED) } else { ("", "") };
    format!("{public}/v3{below}/{tail}{after}")
}
