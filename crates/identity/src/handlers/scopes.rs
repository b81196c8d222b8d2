//! Where a user may go: `/v3/auth/projects`, `domains`, `system`, `catalog`, and `/v3/users/{user_id}/projects`.
use super::{allow, get, list, object, view};
use crate::{
    grants::{self, Holder, Target},
    resources::{DOMAIN, PROJECT, USER},
    rows::{self, Rows as _, flag},
    token_body,
};
use api::{Access, Call, Reply, Result, Route};
use auth::Scope;
use serde_json::{Value, json};

pub(super) fn routes() -> Vec<Route> {
    let any = Access::Authenticated;
    let own = |name| Access::Rule(name, "any");
    vec![
        Route::new("GET", "/v3/auth/projects", own("identity:get_auth_projects"), own_projects),
        Route::new("GET", "/v3/auth/domains", own("identity:get_auth_domains"), domains),
        Route::new("GET", "/v3/OS-FEDERATION/projects", own("identity:get_auth_projects"), own_projects),
        Route::new("GET", "/v3/OS-FEDERATION/domains", own("identity:get_auth_domains"), domains),
        Route::new("GET", "/v3/auth/system", own("identity:get_auth_system"), system),
        Route::new("GET", "/v3/auth/catalog", own("identity:get_auth_catalog"), catalog),
        Route::new("GET", "/v3/users/{user_id}/projects", any, user_projects),
    ]
}

/// Rules of these handlers.
pub(crate) const RULES: [(&str, &str); 1] = [("identity:list_user_projects", "rule:identity:domain_reader or user_id:%(id)s")];

/// The caller, with what the token carries.
fn holder(call: &Call) -> Holder<'_> {
    let caller = &call.cx.caller;
    Holder { user: caller.user_id(), groups: &caller.groups, now: call.cloud.db.now() }
}

async fn own_projects(call: Call) -> Result<Reply> {
    projects(&call, holder(&call))
}

fn projects(call: &Call, holder: Holder<'_>) -> Result<Reply> {
    let reader = call.reader();
    let mut shown = Vec::new();
    let name = call.cx.query.get("name");
    for id in grants::projects_of(&mut &reader, holder) {
        let Some(row) = (&reader).row(&PROJECT.table, &id) else { continue };
        // A token for it would not be given while it or its domain is disabled.
        if rows::project(&mut &reader, &id).is_none() {
            continue;
        }
        if name.is_none_or(|n| n == row.text("name")) {
            shown.push(view(PROJECT, object(&row)?, call, &reader));
        }
    }
    Ok(list(call, "projects", shown))
}

async fn user_projects(call: Call) -> Result<Reply> {
    let user = call.param("user_id").to_owned();
    let row = get(&call.reader(), USER, &user);
    let asked = json!({"id": user});
    allow(&call, "list_user_projects", row.as_ref().ok().or(asked.as_object()))?;
    row?;
    projects(&call, Holder::user(&user, call.cloud.db.now()))
}

async fn domains(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let mut shown = Vec::new();
    for id in grants::domains_of(&mut &reader, holder(&call)) {
        if let Some(row) = (&reader).row(&PROJECT.table, &id).filter(|r| flag(r, "enabled")) {
            shown.push(view(DOMAIN, object(&row)?, &call, &reader));
        }
    }
    Ok(list(&call, "domains", shown))
}

async fn system(call: Call) -> Result<Reply> {
    let roles = grants::effective(&mut &call.reader(), holder(&call), Target::System, grants::SYSTEM);
    let shown: Vec<Value> = if roles.is_empty() { Vec::new() } else { vec![json!({"all": true})] };
    Ok(list(&call, "system", shown))
}

async fn catalog(call: Call) -> Result<Reply> {
    if call.cx.caller.scope == Scope::Unscoped {
        return Err(super::forbidden("get_auth_catalog"));
    }
    let project = call.cx.caller.project_id().map(str::to_owned);
    let entries = token_body::catalog(&mut &call.reader(), project.as_deref(), call.cx.caller.user_id());
    Ok(list(&call, "catalog", entries))
}
