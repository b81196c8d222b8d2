//! Resource providers: create, list, show, rename, move in their tree, delete.
use crate::{
    query::{self, Aggregates, Traits},
    rest, rows,
    rows::{PROVIDERS, Provider, find_provider, load_provider, lost, provider},
    schema,
};
use api::{Call, Cx, Error, Map, Reply, Result};
use resource::Reader;
use serde_json::{Value, json};
use store::Tx;

/// Parents of parents that are followed; trees are a few levels deep.
const DEEPEST: usize = 64;

/// The provider at the top of the tree.
pub(crate) fn root_of(reader: &Reader<'_>, provider: &Provider) -> String {
    let (mut uuid, mut parent) = (provider.uuid.clone(), provider.parent_provider_uuid.clone());
    for _ in 0..DEEPEST {
        let Some(above) = parent.as_deref().and_then(|p| reader.get(&PROVIDERS, p)) else { break };
        above.id().clone_into(&mut uuid);
        parent = above.field("parent_provider_uuid").as_str().map(str::to_owned);
    }
    uuid
}

fn links(cx: &Cx, uuid: &str) -> Vec<Value> {
    let own = rest::path(&format!("/resource_providers/{uuid}"));
    let below = [("inventories", 0), ("usages", 0), ("aggregates", 1), ("traits", 6), ("allocations", 11)];
    let below = below
        .iter()
        .filter(|(_, since)| rest::at(cx, *since))
        .map(|(rel, _)| json!({"rel": rel, "href": format!("{own}/{rel}")}));
    std::iter::once(json!({"rel": "self", "href": own})).chain(below).collect()
}

fn view(cx: &Cx, reader: &Reader<'_>, provider: &Provider) -> Value {
    let mut out = json!({
        "uuid": provider.uuid, "name": provider.name, "generation": provider.generation, "links": links(cx, &provider.uuid),
    });
    if rest::at(cx, 14) {
        out["parent_provider_uuid"] = json!(provider.parent_provider_uuid);
        out["root_provider_uuid"] = root_of(reader, provider).into();
    }
    out
}

fn reply(call: &Call, provider: &Provider) -> Reply {
    rest::uncached(call, Reply::ok(view(&call.cx, &call.reader(), provider)), provider.modified())
}

pub(crate) fn show(call: &Call) -> Result<Reply> {
    let found = provider(&call.reader(), call.param("uuid"))?;
    Ok(reply(call, &found))
}

/// What `GET /resource_providers` filters by.
struct Filter {
    name: Option<String>,
    uuid: Option<String>,
    /// Any provider of the tree.
    tree: Option<String>,
    resources: Vec<(String, i64)>,
    traits: Traits,
    aggregates: Aggregates,
}

impl Filter {
    fn read(cx: &Cx, reader: &Reader<'_>) -> Result<Self> {
        let since = [("name", 0), ("uuid", 0), ("member_of", 3), ("resources", 4), ("in_tree", 14), ("required", 18)];
        query::check_keys(cx, None, |key| since.iter().any(|(k, since)| *k == key && rest::at(cx, *since)))?;
        let last = |key: &str| query::last(cx, key).map(str::to_owned);
        let filter = Self {
            name: last("name"),
            uuid: query::uuid(cx, "uuid")?,
            tree: query::uuid(cx, "in_tree")?,
            resources: last("resources").map_or(Ok(Vec::new()), |text| query::resources(&text))?,
            traits: Traits::read(cx, "required")?,
            aggregates: Aggregates::read(cx, "member_of")?,
        };
        query::known_classes(reader, filter.resources.iter().map(|(class, _)| class.as_str()))?;
        filter
            .traits
            .known(reader)
            .map_err(|e| Error::bad_request(format!("Invalid trait(s) in \"required\" parameter: {}", e.message)))?;
        Ok(filter)
    }

    fn passes(&self, provider: &Provider, reader: &Reader<'_>, tree: Option<&str>) -> bool {
        self.name.as_ref().is_none_or(|n| *n == provider.name)
            && self.uuid.as_ref().is_none_or(|u| *u == provider.uuid)
            && self.aggregates.admit(&provider.aggregates)
            && self.traits.admit(&provider.traits)
            && self.resources.iter().all(|(class, amount)| provider.has_room(class, *amount))
            && tree.is_none_or(|root| root_of(reader, provider) == root)
    }
}

pub(crate) fn list(call: &Call) -> Result<Reply> {
    let (cx, reader) = (&call.cx, call.reader());
    let filter = Filter::read(cx, &reader)?;
    // A tree that does not exist has no members.
    let root = |uuid: &String| provider(&reader, uuid).map(|p| root_of(&reader, &p)).unwrap_or_default();
    let tree = filter.tree.as_ref().map(root);
    let mut found = match (&filter.uuid, &filter.name) {
        (Some(uuid), _) => reader.get(&PROVIDERS, uuid).into_iter().collect(),
        (None, Some(name)) => reader.find(&PROVIDERS, "name", name),
        (None, None) => reader.all(&PROVIDERS).cloned().collect::<Vec<_>>(),
    };
    found.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.key.cmp(&b.key)));
    let (mut shown, mut modified) = (Vec::new(), None);
    for row in found {
        let provider = Provider::from_row(&row)?;
        if filter.passes(&provider, &reader, tree.as_deref()) {
            modified = modified.max(provider.modified());
            shown.push(view(cx, &reader, &provider));
        }
    }
    Ok(rest::uncached(call, Reply::ok(json!({ "resource_providers": shown })), modified))
}

/// The body of a create or update.
struct Input {
    name: String,
    uuid: Option<String>,
    /// Given at all, and if so, which.
    parent: Option<Option<String>>,
}

fn input(cx: &Cx, body: &Value, with_uuid: bool) -> Result<Input> {
    let mut keys = vec!["name"];
    keys.extend(with_uuid.then_some("uuid"));
    keys.extend(rest::at(cx, 14).then_some("parent_provider_uuid"));
    let map: &Map = schema::object(body, &keys, 1)?;
    let parent = match map.get("parent_provider_uuid") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(uuid) => Some(Some(dashed(schema::uuid(uuid)?))),
    };
    Ok(Input {
        name: schema::text(&map["name"], 0, 200)?.to_owned(),
        uuid: map.get("uuid").map(schema::uuid).transpose()?.map(dashed),
        parent,
    })
}

/// The one spelling of a uuid that rows use.
pub(crate) fn dashed(uuid: &str) -> String {
    let hex: String = uuid.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
    match (hex.get(..8), hex.get(8..12), hex.get(12..16), hex.get(16..20), hex.get(20..)) {
        (Some(a), Some(b), Some(c), Some(d), Some(e)) => format!("{a}-{b}-{c}-{d}-{e}"),
        _ => uuid.to_owned(),
    }
}

fn taken(what: &str) -> Error {
    Error::conflict(format!("Conflicting resource provider {what} already exists.")).code("placement.duplicate_name")
}

/// Names are unique; a provider that any process adds meanwhile is noticed.
fn claim_name(tx: &mut Tx<'_>, name: &str, own: &str) -> Result<()> {
    match tx.children(&PROVIDERS, "name", name).iter().any(|r| r.id() != own) {
        true => Err(taken(&format!("name: {name}"))),
        false => Ok(()),
    }
}

pub(crate) async fn create(call: Call) -> Result<Reply> {
    let input = input(&call.cx, rest::body(&call)?, true)?;
    let uuid = input.uuid.unwrap_or_else(base::id::uuid);
    let (name, parent) = (input.name, input.parent.flatten());
    let refuse = |name: &str, uuid: &str, reason: &str| {
        Error::bad_request(format!(
            "Unable to create resource provider \"{name}\", {uuid}: Object action create failed because: {reason}"
        ))
    };
    if name.is_empty() {
        return Err(refuse(&name, &uuid, "name is required"));
    }
    let made = call
        .transact(move |_, tx| {
            if parent.as_ref() == Some(&uuid) {
                return Err(refuse(
                    &name,
                    &uuid,
                    "parent provider UUID cannot be same as UUID. Please set parent provider UUID to None if there is no parent.",
                ));
            }
            if let Some(parent) = &parent
                && find_provider(tx, parent)?.is_none()
            {
                return Err(refuse(&name, &uuid, "parent provider UUID does not exist."));
            }
            if tx.get(&PROVIDERS, &uuid).is_some() {
                return Err(taken(&format!("uuid: {uuid}")));
            }
            claim_name(tx, &name, &uuid)?;
            let mut provider = Provider {
                uuid: uuid.clone(),
                name: name.clone(),
                generation: 0,
                parent_provider_uuid: parent.clone(),
                inventories: Default::default(),
                traits: Default::default(),
                aggregates: Vec::new(),
                used: Default::default(),
                created_at: Some(tx.now.0),
                updated_at: None,
                rest: Map::new(),
            };
            provider.put(tx)?;
            Ok(provider)
        })
        .await?;
    let location = rest::location(&call.cx, &format!("/resource_providers/{}", made.uuid));
    if rest::at(&call.cx, 20) {
        return Ok(reply(&call, &made).header("location", location));
    }
    Ok(Reply::empty(201).header("location", location))
}

/// Is `uuid` the provider itself or one of those above it? All of them are compared at the commit.
fn is_below(tx: &mut Tx<'_>, mut at: String, uuid: &str) -> Result<bool> {
    for _ in 0..DEEPEST {
        if at == uuid {
            return Ok(true);
        }
        match find_provider(tx, &at)?.and_then(|p| p.parent_provider_uuid) {
            Some(above) => at = above,
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// Puts the provider below another one, or on top of its own tree.
fn reparent(tx: &mut Tx<'_>, cx: &Cx, provider: &mut Provider, parent: Option<&str>) -> Result<()> {
    let refuse = |reason: &str| {
        let action = if reason.ends_with("exist.") { "create" } else { "update" };
        Error::bad_request(format!(
            "Unable to save resource provider {}: Object action {action} failed because: {reason}",
            provider.uuid
        ))
    };
    let free = rest::at(cx, 37);
    match (provider.parent_provider_uuid.as_deref(), parent) {
        (Some(_), None) if !free => return Err(refuse("un-parenting a provider is not currently allowed.")),
        (old, Some(new)) => {
            if find_provider(tx, new)?.is_none() {
                return Err(refuse("parent provider UUID does not exist."));
            }
            if old.is_some_and(|o| o != new) && !free {
                return Err(refuse("re-parenting a provider is not currently allowed."));
            }
            if is_below(tx, new.to_owned(), &provider.uuid)? {
                return Err(refuse("creating loop in the provider tree is not allowed."));
            }
        }
        (_, None) => {}
    }
    provider.parent_provider_uuid = parent.map(str::to_owned);
    Ok(())
}

pub(crate) async fn update(call: Call) -> Result<Reply> {
    let (uuid, body) = (call.param("uuid").to_owned(), rest::body(&call)?);
    provider(&call.reader(), &uuid)?;
    let input = input(&call.cx, body, false)?;
    let changed = call
        .transact(move |cx, tx| {
            let mut provider = load_provider(tx, &uuid)?;
            if provider.name != input.name {
                claim_name(tx, &input.name, &uuid).map_err(|_| taken(&input.name))?;
                provider.name.clone_from(&input.name);
            }
            if let Some(parent) = &input.parent {
                reparent(tx, cx, &mut provider, parent.as_deref())?;
            }
            provider.put(tx)?;
            Ok(provider)
        })
        .await?;
    Ok(reply(&call, &changed))
}

pub(crate) async fn delete(call: Call) -> Result<Reply> {
    let uuid = call.param("uuid").to_owned();
    call.transact(move |_, tx| {
        let provider = load_provider(tx, &uuid).map_err(|_| Error::not_found(format!("{} for delete", lost(&uuid).message)))?;
        if !tx.children(&PROVIDERS, "parent", &uuid).is_empty() {
            return Err(Error::conflict(format!(
                "Unable to delete parent resource provider {uuid}: It has child resource providers. Delete them first."
            ))
            .code("placement.resource_provider.cannot_delete_parent"));
        }
        if provider.used.values().any(|n| *n > 0) {
            return Err(Error::conflict(format!(
                "Unable to delete resource provider {uuid}: Resource provider has allocations."
            ))
            .code("placement.resource_provider.inuse"));
        }
        tx.delete(&rows::PROVIDERS, &uuid);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_of_uuids() {
        let want = "0e7f3a52-9f4b-4c39-9a53-5d1f1c4bfa27";
        assert_eq!(dashed("0E7F3A529F4B4C399A535D1F1C4BFA27"), want);
        assert_eq!(dashed(want), want);
    }
}
