//! Resource providers.
use crate::{
    answer::{DUPLICATE_NAME, PROVIDER_HAS_CHILDREN, PROVIDER_IN_USE, href, location, ok, service, since},
    body,
    provider::{Forest, PROVIDERS, Provider},
    query,
};
use api::{Call, Reply, Route};
use resource::{Error, Map, Result, Tx};
use serde_json::{Value, json};

pub(crate) fn routes() -> Vec<Route> {
    const ALL: &str = "/resource_providers";
    const ONE: &str = "/resource_providers/{uuid}";
    vec![
        Route::new("GET", ALL, service("placement:resource_providers:list"), list),
        Route::new("POST", ALL, service("placement:resource_providers:create"), create),
        Route::new("GET", ONE, service("placement:resource_providers:show"), show),
        Route::new("PUT", ONE, service("placement:resource_providers:update"), update),
        Route::new("DELETE", ONE, service("placement:resource_providers:delete"), delete),
    ]
}

fn view(call: &Call, provider: &Provider, root: &str) -> Value {
    let own = href(&format!("/resource_providers/{}", provider.uuid));
    let mut links = vec![json!({"rel": "self", "href": own})];
    for (rel, version) in [("inventories", "1.0"), ("usages", "1.0"), ("aggregates", "1.1"), ("traits", "1.6"), ("allocations", "1.11")] {
        if since(call, version) {
            links.push(json!({"rel": rel, "href": format!("{own}/{rel}")}));
        }
    }
    let mut out = Map::new();
    out.insert("uuid".into(), provider.uuid.as_str().into());
    out.insert("name".into(), provider.name.as_str().into());
    out.insert("generation".into(), provider.generation.into());
    out.insert("links".into(), links.into());
    if since(call, "1.14") {
        out.insert("parent_provider_uuid".into(), provider.parent_provider_uuid.clone().into());
        out.insert("root_provider_uuid".into(), root.into());
    }
    out.into()
}

async fn list(call: Call) -> Result<Reply> {
    let known = |key: &str| match key {
        "name" | "uuid" => true,
        "member_of" => since(&call, "1.3"),
        "resources" => since(&call, "1.4"),
        "in_tree" => since(&call, "1.14"),
        "required" => since(&call, "1.18"),
        _ => false,
    };
    query::only(&call, &known)?;
    let name = query::last(&call, "name");
    let uuid = query::last(&call, "uuid").map(|v| query::uuid("uuid", v)).transpose()?;
    let in_tree = query::last(&call, "in_tree").map(|v| query::uuid("in_tree", v)).transpose()?;
    let resources = query::last(&call, "resources").map(query::resources).transpose()?.unwrap_or_default();
    let (traits, aggregates) = (query::traits(&call, "required")?, query::member_of(&call, "member_of")?);
    let reader = call.reader();
    for class in resources.keys() {
        crate::classes::check_read(&reader, class).map_err(|e| {
            Error::bad_request(format!("Invalid resource class in resources parameter: {}", e.message))
        })?;
    }
    crate::traits::check_read(&reader, traits.names()).map_err(|e| {
        Error::bad_request(format!("Invalid trait(s) in \"required\" parameter: {}", e.message))
    })?;
    let forest = Forest::read(&reader)?;
    let root = in_tree.as_ref().map(|uuid| forest.root(uuid).to_owned());
    let fits = |p: &&Provider| {
        name.is_none_or(|n| p.name == n)
            && uuid.as_ref().is_none_or(|u| p.uuid == *u)
            && root.as_ref().is_none_or(|r| forest.root(&p.uuid) == r)
            && aggregates.fits(&|a| p.aggregates.contains(a))
            && traits.fits(&p.traits)
            && resources.iter().all(|(class, amount)| p.has_room(class, *amount))
    };
    let found: Vec<&Provider> = forest.all.values().filter(fits).collect();
    let newest = found.iter().map(|p| p.changed_at()).max();
    let shown: Vec<Value> = found.iter().map(|p| view(&call, p, forest.root(&p.uuid))).collect();
    Ok(ok(&call, json!({"resource_providers": shown}), newest))
}

async fn show(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let provider = Provider::read(&reader, call.param("uuid"))?;
    let forest = Forest::read(&reader)?;
    Ok(ok(&call, view(&call, &provider, forest.root(&provider.uuid)), Some(provider.changed_at())))
}

/// Nobody else may have the name; the providers that do are compared at the commit.
fn check_name(tx: &mut Tx<'_>, name: &str, uuid: &str) -> Result<()> {
    if tx.children(&PROVIDERS, "name", name).iter().all(|r| r.id() == uuid) {
        return Ok(());
    }
    Err(Error::conflict(format!("Conflicting resource provider name: {name} already exists.")).code(DUPLICATE_NAME))
}

fn parent(body: &Map) -> Result<Option<Option<String>>> {
    match body.get("parent_provider_uuid") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(uuid) => Ok(Some(Some(body::uuid(uuid)?))),
    }
}

async fn create(call: Call) -> Result<Reply> {
    let optional: &[&str] = if since(&call, "1.14") { &["uuid", "parent_provider_uuid"] } else { &["uuid"] };
    let body = body::object(&call, &["name"], optional)?;
    let name = body::text(&body["name"], 0, 200)?;
    let uuid = body.get("uuid").map(body::uuid).transpose()?.unwrap_or_else(base::id::uuid);
    let parent = parent(body)?.flatten();
    let refused = |why: &str| {
        Error::bad_request(format!("Unable to create resource provider \"{name}\", {uuid}: Object action create failed because: {why}"))
    };
    if name.is_empty() {
        return Err(refused("name is required"));
    }
    if parent.as_ref() == Some(&uuid) {
        return Err(refused("parent provider UUID cannot be same as UUID. Please set parent provider UUID to None if there is no parent."));
    }
    let orphan = refused("parent provider UUID does not exist.");
    let provider = call
        .transact(move |_, tx| {
            if tx.get(&PROVIDERS, &uuid).is_some() {
                return Err(Error::conflict(format!("Conflicting resource provider uuid: {uuid} already exists.")).code(DUPLICATE_NAME));
            }
            check_name(tx, &name, &uuid)?;
            if let Some(parent) = &parent
                && tx.get(&PROVIDERS, parent).is_none()
            {
                return Err(orphan.clone());
            }
            let mut provider = Provider::new(&uuid, &name, tx.now);
            provider.parent_provider_uuid.clone_from(&parent);
            provider.save(tx)?;
            Ok(provider)
        })
        .await?;
    let place = location(&call, &format!("/resource_providers/{}", provider.uuid));
    if !since(&call, "1.20") {
        return Ok(Reply::empty(201).header("location", place));
    }
    let forest = Forest::read(&call.reader())?;
    Ok(ok(&call, view(&call, &provider, forest.root(&provider.uuid)), None).header("location", place))
}

async fn update(call: Call) -> Result<Reply> {
    let uuid = call.param("uuid").to_owned();
    // A provider that is not there is said before a body that is wrong.
    Provider::read(&call.reader(), &uuid)?;
    let optional: &[&str] = if since(&call, "1.14") { &["parent_provider_uuid"] } else { &[] };
    let body = body::object(&call, &["name"], optional)?;
    let (name, parent) = (body::text(&body["name"], 0, 200)?, parent(body)?);
    let may_move = since(&call, "1.37");
    let provider = call
        .transact(move |_, tx| {
            let mut provider = Provider::existing(tx, &uuid)?;
            check_name(tx, &name, &uuid)?;
            provider.name.clone_from(&name);
            if let Some(parent) = &parent {
                check_parent(tx, &provider, parent.as_deref(), may_move)?;
                provider.parent_provider_uuid.clone_from(parent);
            }
            provider.save(tx)?;
            Ok(provider)
        })
        .await?;
    let forest = Forest::read(&call.reader())?;
    Ok(ok(&call, view(&call, &provider, forest.root(&provider.uuid)), None))
}

fn check_parent(tx: &mut Tx<'_>, provider: &Provider, new: Option<&str>, may_move: bool) -> Result<()> {
    let uuid = &provider.uuid;
    let refused = |action: &str, why: &str| {
        let text = format!("Unable to save resource provider {uuid}: Object action {action} failed because: {why}");
        Err(Error::bad_request(text))
    };
    let Some(new) = new else {
        let attached = provider.parent_provider_uuid.is_some();
        return if attached && !may_move { refused("update", "un-parenting a provider is not currently allowed.") } else { Ok(()) };
    };
    if tx.get(&PROVIDERS, new).is_none() {
        return refused("create", "parent provider UUID does not exist.");
    }
    if provider.parent_provider_uuid.as_deref().is_some_and(|old| old != new) && !may_move {
        return refused("update", "re-parenting a provider is not currently allowed.");
    }
    // Every provider on the way up is compared at the commit, so that two moves cannot make a loop together.
    let path = Forest::load(tx)?.ancestors(new);
    if path.iter().any(|at| at == uuid) {
        return refused("update", "creating loop in the provider tree is not allowed.");
    }
    for at in path {
        tx.get(&PROVIDERS, &at);
    }
    Ok(())
}

async fn delete(call: Call) -> Result<Reply> {
    let uuid = call.param("uuid").to_owned();
    call.transact(move |_, tx| {
        let provider = Provider::load(tx, &uuid)?;
        let provider = provider.ok_or_else(|| Error::not_found(format!("No resource provider with uuid {uuid} found for delete")))?;
        if !tx.children(&PROVIDERS, "parent_provider_uuid", &uuid).is_empty() {
            let text = format!("Unable to delete parent resource provider {uuid}: It has child resource providers.");
            return Err(Error::conflict(text).code(PROVIDER_HAS_CHILDREN));
        }
        if provider.used.values().any(|n| *n > 0) {
            let text = format!("Unable to delete resource provider {uuid}: Resource provider has allocations.");
            return Err(Error::conflict(text).code(PROVIDER_IN_USE));
        }
        tx.delete(&PROVIDERS, &uuid);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
