//! Lists and looks at users and groups: those that are in a directory are read there first, and then shown as all others are.
use super::auth;
use crate::resources::{GROUP, USER};
use api::{Call, Result, Route, dialect::IDENTITY};
use resource::ResourceDef;
use std::sync::Arc;

pub(super) fn routes() -> Vec<Route> {
    let of = |def: &'static ResourceDef| {
        // The list of users is a handler of its own, which asks here.
        let own = |r: &Route| def.name == "user" && r.path == def.path;
        let reads = api::resource_routes(def, &IDENTITY).into_iter().filter(move |r| r.method == "GET" && !own(r));
        reads.map(move |mut route| {
            let (show, lists) = (route.handler.clone(), route.path == def.path);
            route.handler = Arc::new(move |call| {
                let show = show.clone();
                Box::pin(async move {
                    if lists {
                        read_all(def, &call).await?
                    } else {
                        read_one(def, &call).await?
                    }
                    show(call).await
                })
            });
            route
        })
    };
    of(USER).chain(of(GROUP)).collect()
}

/// The list of one domain asks its directory; lists of several domains show whom we have seen.
pub(super) async fn read_all(def: &'static ResourceDef, call: &Call) -> Result<()> {
    let own = call.cx.caller.domain_id();
    let Some(domain) = call.cx.query.get("domain_id").or(own) else { return Ok(()) };
    if own != Some(domain) && !call.cx.may("identity:any_reader", None) {
        return Ok(());
    }
    auth(call)?.directories.list(def, domain, call.cx.query.get("name")).await.map(|_| ())
}

async fn read_one(def: &'static ResourceDef, call: &Call) -> Result<()> {
    let id = call.param("id");
    let row = call.reader().get(&def.table, id);
    let rule = (IDENTITY.rule)(def, "show");
    // Who may not see it does not make us ask.
    let admitted = row.and_then(|r| r.value().as_object().map(|row| call.cx.may(&rule, Some(row))));
    if admitted == Some(true) { auth(call)?.directories.refresh(def, id).await } else { Ok(()) }
}
