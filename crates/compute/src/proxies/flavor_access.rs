//! Which projects may use a flavor that is not public (Nova api-ref, `os-flavor-access`).
use super::{check_project, check_query, flavors};
use crate::{
    common::at,
    resources::Flavor,
    shape::{Shape, opt, req},
};
use api::{Access, Call, Cx, Error, Reply, Result, Route};
use resource::{Object, Tx, load};
use serde_json::{Value, json};

const TENANT: Shape = Shape::Object(&[req("tenant", &Shape::Text { min: 1, max: 255 })]);
const ACTION: Shape = Shape::Object(&[opt("addTenantAccess", &TENANT), opt("removeTenantAccess", &TENANT)]);

fn body(flavor: &Object<Flavor>) -> Reply {
    let list: Vec<Value> = flavor.projects.iter().map(|p| json!({ "flavor_id": flavor.id, "tenant_id": p })).collect();
    Reply::ok(json!({ "flavor_access": list }))
}

async fn list(call: Call) -> Result<Reply> {
    check_query(&call.cx, 102, &[])?;
    let flavor = flavors::look(&call)?;
    if flavor.is_public {
        return Err(Error::not_found("Access list not available for public flavors."));
    }
    Ok(body(&flavor))
}

fn add(flavor: &mut Object<Flavor>, project: &str, cx: &Cx) -> Result<()> {
    if flavor.is_public && at(cx, 7) {
        return Err(Error::conflict("Can not add access to a public flavor."));
    }
    if flavor.projects.iter().any(|p| p == project) {
        return Err(Error::conflict(format!(
            "Flavor access already exists for flavor {} and project {project} combination.",
            flavor.id
        )));
    }
    flavor.projects.push(project.to_owned());
    Ok(())
}

fn remove(flavor: &mut Object<Flavor>, project: &str) -> Result<()> {
    let Some(at) = flavor.projects.iter().position(|p| p == project) else {
        return Err(Error::not_found(format!("Flavor access not found for {} / {project} combination.", flavor.id)));
    };
    flavor.projects.remove(at);
    Ok(())
}

async fn action(call: Call) -> Result<Reply> {
    let Some((name, value)) = call.object()?.iter().next().filter(|_| call.object().is_ok_and(|o| o.len() == 1)) else {
        return Err(Error::bad_request("Malformed request body: it must hold one action."));
    };
    let adding = match name.as_str() {
        "addTenantAccess" => true,
        "removeTenantAccess" => false,
        _ => return Err(Error::bad_request(format!("There is no such action: {name}"))),
    };
    call.require(if adding { ADD } else { REMOVE }, None)?;
    ACTION.check(call.json(), &call.cx)?;
    let project = value["tenant"].as_str().unwrap_or_default().to_owned();
    if adding {
        check_project(&call.cx, &call.reader(), &project)?;
    }
    let id = call.param("id").to_owned();
    let flavor = call
        .transact(move |cx: &Cx, tx: &mut Tx<'_>| {
            let mut flavor: Object<Flavor> = load(tx, &id)?.ok_or_else(|| flavors::missing(&id))?;
            if adding {
                add(&mut flavor, &project, cx)?
            } else {
                remove(&mut flavor, &project)?
            }
            flavor.save(tx)?;
            Ok(flavor)
        })
        .await?;
    Ok(body(&flavor))
}

const ADD: &str = "os_compute_api:os-flavor-access:add_tenant_access";
const REMOVE: &str = "os_compute_api:os-flavor-access:remove_tenant_access";
pub(super) const RULES: [(&str, &str); 2] = [(ADD, "admin"), (REMOVE, "admin")];

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new("GET", "/v2.1/flavors/{id}/os-flavor-access", Access::Rule("os_compute_api:os-flavor-access", "admin"), list),
        // Either rule may be overridden: the handler asks for the one of the action.
        Route::new("POST", "/v2.1/flavors/{id}/action", Access::Authenticated, action),
    ]
}
