//! What the projects' table does not say: lists without domains, the trees above and below a project, and tags.
use super::{allow, create_at_home, get, object};
use crate::{
    grants::{self, Holder},
    resources::{PROJECT, ROLE, check_tags},
    rows::{self, Rows as _},
};
use api::{Access, Call, Error, Map, Reply, Result, Route, dialect::IDENTITY};
use resource::{Query, Reader, ResourceDef, engine};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Vec<Route> {
    let any = Access::Authenticated;
    let lists = |name| Access::Rule(name, PROJECT.rule("list").unwrap_or("admin"));
    vec![
        Route::new("POST", "/v3/projects", any, |call| create_at_home(PROJECT, call)),
        Route::new("GET", "/v3/projects", lists("identity:list_projects"), |call: Call| async move {
            listing(PROJECT, call, "is_domain", "false")
        }),
        Route::new("GET", "/v3/projects/{id}", any, show),
        Route::new("GET", "/v3/projects/{project_id}/tags", any, tags),
        Route::new("PUT", "/v3/projects/{project_id}/tags", any, set_tags),
        Route::new("DELETE", "/v3/projects/{project_id}/tags", any, clear_tags),
        Route::new("GET", "/v3/projects/{project_id}/tags/{tag}", any, has_tag),
        Route::new("PUT", "/v3/projects/{project_id}/tags/{tag}", any, add_tag),
        Route::new("DELETE", "/v3/projects/{project_id}/tags/{tag}", any, remove_tag),
        // Roles of domains are listed only by those who ask for a domain's.
        Route::new(
            "GET",
            "/v3/roles",
            Access::Rule("identity:list_roles", ROLE.rule("list").unwrap_or("admin")),
            |call: Call| async move { listing(ROLE, call, "domain_id", "null") },
        ),
    ]
}

/// A list with a filter that holds unless the query says otherwise.
fn listing(def: &'static ResourceDef, mut call: Call, key: &str, usual: &str) -> Result<Reply> {
    if call.cx.query.get(key).is_none() {
        let mut query = Query::clone(&call.cx.query);
        query.0.push((key.to_owned(), usual.to_owned()));
        call.cx.query = Arc::new(query);
    }
    api::listing_reply(def, &IDENTITY, &call, false)
}

/// The project, for those whom the rule admits.
fn admitted(call: &Call, action: &str, id: &str) -> Result<Map> {
    let row = get(&call.reader(), PROJECT, id);
    let asked = json!({ "id": id });
    allow(call, action, row.as_ref().ok().or(asked.as_object()))?;
    row
}

async fn show(call: Call) -> Result<Reply> {
    let row = admitted(&call, "get_project", call.param("id"))?;
    let reader = call.reader();
    let mut body = api::show_one(PROJECT, &IDENTITY, &row, &call.cx, &reader);
    let project = &mut body["project"];
    let q = &call.cx.query;
    let id = call.param("id");
    if q.get("parents_as_list").is_some() {
        project["parents"] = parents(&call, &reader, id)?;
    } else if q.get("parents_as_ids").is_some() {
        project["parents"] = parent_ids(&reader, id);
    }
    if q.get("subtree_as_list").is_some() {
        project["subtree"] = below(&call, &reader, id)?;
    } else if q.get("subtree_as_ids").is_some() {
        project["subtree"] = child_ids(&reader, id);
    }
    Ok(Reply::ok(body))
}

/// Those above and below that the caller has a role on, or all for whoever sees all.
fn wrapped(call: &Call, reader: &Reader<'_>, rows: Vec<Arc<store::Row>>) -> Result<Value> {
    let all = call.cx.may("identity:any_reader", None);
    let caller = &call.cx.caller;
    let own = Holder { user: caller.user_id(), groups: &caller.groups, now: call.cloud.db.now() };
    let mine = if all { Vec::new() } else { grants::projects_of(&mut &*reader, own) };
    let seen = |r: &Arc<store::Row>| all || mine.iter().any(|id| id == r.id());
    let shown = rows.iter().filter(|r| seen(r));
    shown
        .map(|r| Ok(api::show_one(PROJECT, &IDENTITY, object(r)?, &call.cx, reader)))
        .collect::<Result<Vec<Value>>>()
        .map(Value::from)
}

fn parents(call: &Call, mut reader: &Reader<'_>, id: &str) -> Result<Value> {
    let ids = rows::ancestors(&mut reader, id);
    let found = ids.iter().filter_map(|id| reader.row(&PROJECT.table, id)).collect();
    wrapped(call, reader, found)
}

fn below(call: &Call, mut reader: &Reader<'_>, id: &str) -> Result<Value> {
    let found = rows::subtree(&mut reader, id);
    wrapped(call, reader, found)
}

/// `{"parent": {"grandparent": {"domain": null}}}`
fn parent_ids(mut reader: &Reader<'_>, id: &str) -> Value {
    let Some(row) = reader.row(&PROJECT.table, id) else { return Value::Null };
    let mut above = rows::ancestors(&mut reader, id);
    above.extend(rows::text(&row, "domain_id").map(str::to_owned));
    above.into_iter().rev().fold(Value::Null, |inner, id| json!({ id: inner }))
}

/// `{"child": {"grandchild": null}}`
fn child_ids(mut reader: &Reader<'_>, id: &str) -> Value {
    let children = reader.rows(&PROJECT.table, "parent_id", id);
    if children.is_empty() {
        return Value::Null;
    }
    children.iter().map(|c| (c.id().to_owned(), child_ids(reader, c.id()))).collect::<Map>().into()
}

/// Rules of these handlers.
pub(crate) const RULES: [(&str, &str); 2] = [
    ("identity:get_project_tags", "rule:identity:domain_reader or project_id:%(id)s"),
    ("identity:update_project_tags", "rule:identity:domain_manager"),
];

fn tags_of(row: &Map) -> Vec<String> {
    row.get("tags").and_then(Value::as_array).into_iter().flatten().filter_map(|t| t.as_str().map(str::to_owned)).collect()
}

async fn tags(call: Call) -> Result<Reply> {
    let row = admitted(&call, "get_project_tags", call.param("project_id"))?;
    let here = call.here();
    Ok(Reply::ok(json!({"tags": tags_of(&row), "links": {"next": null, "self": here, "previous": null}})))
}

async fn has_tag(call: Call) -> Result<Reply> {
    let row = admitted(&call, "get_project_tags", call.param("project_id"))?;
    let tag = call.param("tag").to_owned();
    if tags_of(&row).contains(&tag) {
        return Ok(Reply::empty(204));
    }
    Err(Error::not_found(format!("Could not find project tag: {tag}.")))
}

/// Changes the tags of the project; `change` may refuse.
async fn retag(call: &Call, change: impl Fn(&mut Vec<String>) -> Result<()> + Send + 'static) -> Result<Vec<String>> {
    admitted(call, "update_project_tags", call.param("project_id"))?;
    let id = call.param("project_id").to_owned();
    call.transact(move |cx, tx| {
        let old = engine::existing(tx, PROJECT, &id)?;
        let mut tags = tags_of(&old);
        change(&mut tags)?;
        check_tags(&tags)?;
        let mut row = old.clone();
        row.insert("tags".into(), json!(tags));
        engine::replace(tx, PROJECT, cx, &old, row)?;
        Ok(tags)
    })
    .await
}

async fn set_tags(call: Call) -> Result<Reply> {
    let new = call.object()?.get("tags").cloned().unwrap_or_default();
    let new: Vec<String> = serde_json::from_value(new)
        .map_err(|_| Error::bad_request("Invalid input for field 'tags': it is not a list of strings."))?;
    let tags = retag(&call, move |tags| {
        tags.clone_from(&new);
        Ok(())
    })
    .await?;
    let here = call.here();
    Ok(Reply::ok(json!({"tags": tags, "links": {"next": null, "self": here, "previous": null}})))
}

async fn clear_tags(call: Call) -> Result<Reply> {
    retag(&call, |tags| {
        tags.clear();
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

async fn add_tag(call: Call) -> Result<Reply> {
    let tag = call.param("tag").to_owned();
    let location = call.here();
    retag(&call, move |tags| {
        if !tags.contains(&tag) {
            tags.push(tag.clone());
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(201).header("location", location))
}

async fn remove_tag(call: Call) -> Result<Reply> {
    let tag = call.param("tag").to_owned();
    retag(&call, move |tags| {
        let at = tags.iter().position(|t| *t == tag);
        let at = at.ok_or_else(|| Error::not_found(format!("Could not find project tag: {tag}.")))?;
        tags.remove(at);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
