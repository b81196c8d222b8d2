//! Tags of everything that has them: one set of routes and one set of filters.
use crate::{admit, fail, resources::*};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::{Resource, ResourceDef, engine};
use serde_json::{Value, json};

const MOST: usize = 50;
const LONGEST: usize = 255;

/// What can be tagged.
pub(crate) const TAGGED: [&ResourceDef; 9] = [
    Network::DEF,
    Subnet::DEF,
    Port::DEF,
    Router::DEF,
    FloatingIp::DEF,
    SecurityGroup::DEF,
    SecurityGroupRule::DEF,
    SubnetPool::DEF,
    AddressGroup::DEF,
];

/// `tags`, `tags-any`, `not-tags`, `not-tags-any`, for [`resource::Rules::filter`].
pub(crate) fn filter(row: &Map, key: &str, values: &[&str]) -> Option<bool> {
    let (all, wanted) = match key {
        "tags" => (true, true),
        "tags-any" => (false, true),
        "not-tags" => (true, false),
        "not-tags-any" => (false, false),
        _ => return None,
    };
    let held = row.get("tags").and_then(Value::as_array);
    let has = |tag: &str| held.is_some_and(|h| h.iter().any(|t| t == tag));
    let mut named = values.iter().flat_map(|v| v.split(','));
    let matched = if all { named.all(has) } else { named.any(has) };
    Some(matched == wanted)
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// Called once, at start.
pub(crate) fn routes() -> Vec<Route> {
    let mut routes = Vec::new();
    for def in TAGGED {
        let (all, one) = (leak(format!("{}/{{id}}/tags", def.path)), leak(format!("{}/{{id}}/tags/{{tag}}", def.path)));
        let any = Access::Authenticated;
        routes.push(Route::new("GET", all, any, move |call| async move {
            Ok(Reply::ok(json!({ "tags": texts(admit::shown(def, &call)?.get("tags")) })))
        }));
        routes.push(Route::new("PUT", all, any, move |call| replace(def, call)));
        routes.push(Route::new("DELETE", all, any, move |call| async move {
            write(def, &call, |_| Ok(Vec::new())).await?;
            Ok(Reply::empty(204))
        }));
        routes.push(Route::new("GET", one, any, move |call| async move {
            let tag = call.param("tag").to_owned();
            if texts(admit::shown(def, &call)?.get("tags")).contains(&tag) { Ok(Reply::empty(204)) } else { Err(no_tag(&tag)) }
        }));
        routes.push(Route::new("PUT", one, any, move |call| add(def, call)));
        routes.push(Route::new("DELETE", one, any, move |call| remove(def, call)));
    }
    routes
}

fn no_tag(tag: &str) -> Error {
    fail::missing("TagNotFound", format!("Tag {tag} could not be found."))
}

fn texts(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn check(tag: &str) -> Result<()> {
    if tag.is_empty() || tag.chars().count() > LONGEST || tag.contains([',', '/', '\0']) {
        return Err(Error::invalid("tags", format!("'{tag}' is not 1 to {LONGEST} characters without comma and slash")));
    }
    Ok(())
}

async fn write<F>(def: &'static ResourceDef, call: &Call, change: F) -> Result<Vec<String>>
where
    F: Fn(Vec<String>) -> Result<Vec<String>> + Send + 'static,
{
    let id = admit::changeable(def, call)?;
    call.transact(move |cx, tx| {
        let old = engine::existing(tx, def, &id)?;
        let tags = change(texts(old.get("tags")))?;
        if tags.len() > MOST {
            return Err(Error::invalid("tags", format!("a resource has at most {MOST} tags")));
        }
        let mut row = resource::update_row(def, cx, &old, &Map::new(), tx.now)?;
        row.insert("tags".into(), tags.clone().into());
        engine::replace(tx, def, cx, &old, row)?;
        Ok(tags)
    })
    .await
}

async fn replace(def: &'static ResourceDef, call: Call) -> Result<Reply> {
    let list = call.object()?.get("tags").and_then(Value::as_array).ok_or_else(|| Error::bad_request("Invalid tags body."))?;
    let mut tags: Vec<String> = Vec::new();
    for tag in list {
        let tag = tag.as_str().ok_or_else(|| Error::invalid("tags", format!("{tag} is not a string")))?;
        check(tag)?;
        if !tags.iter().any(|t| t == tag) {
            tags.push(tag.to_owned());
        }
    }
    let tags = write(def, &call, move |_| Ok(tags.clone())).await?;
    Ok(Reply::ok(json!({ "tags": tags })))
}

async fn add(def: &'static ResourceDef, call: Call) -> Result<Reply> {
    let tag = call.param("tag").to_owned();
    check(&tag)?;
    write(def, &call, move |mut tags| {
        if !tags.contains(&tag) {
            tags.push(tag.clone());
        }
        Ok(tags)
    })
    .await?;
    Ok(Reply::empty(201))
}

async fn remove(def: &'static ResourceDef, call: Call) -> Result<Reply> {
    let tag = call.param("tag").to_owned();
    write(def, &call, move |mut tags| {
        let at = tags.iter().position(|t| *t == tag).ok_or_else(|| no_tag(&tag))?;
        tags.remove(at);
        Ok(tags)
    })
    .await?;
    Ok(Reply::empty(204))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_filters() {
        let row = json!({"tags": ["red", "blue"]});
        let row = row.as_object().unwrap();
        let is = |key: &str, values: &[&str]| filter(row, key, values);
        assert_eq!(is("tags", &["red,blue"]), Some(true));
        assert_eq!(is("tags", &["red", "green"]), Some(false));
        assert_eq!(is("tags-any", &["red,green"]), Some(true));
        assert_eq!(is("not-tags", &["red,green"]), Some(true));
        assert_eq!(is("not-tags", &["red,blue"]), Some(false));
        assert_eq!(is("not-tags-any", &["green"]), Some(true));
        assert_eq!(is("not-tags-any", &["red,green"]), Some(false));
        assert_eq!(is("name", &["red"]), None);
    }
}
