//! `/groups` (since 3.13) and `/group_snapshots` (since 3.14).
use crate::{
    common::{at, map, own, visible},
    groups, hosts,
    input::Input,
    listing,
    resources::{Group, GroupSnapshot, GroupType, Volume},
    types,
};
use api::{Access, Call, Cx, Error, Map, Reply, Result, Route};
use resource::{Object, Resource as _, Tx};
use serde_json::{Value, json};

pub(crate) fn routes() -> Vec<Route> {
    let any = Access::Authenticated;
    let (list, make) = (Access::Rule("group:get_all", "reader"), Access::Rule("group:create", "member"));
    let (list_sets, make_set) =
        (Access::Rule("group:get_all_group_snapshots", "reader"), Access::Rule("group:create_group_snapshot", "member"));
    let groups = [
        Route::new("GET", "/v3/groups", list, |call| async move { listing::reply(Group::DEF, &call, false, brief) }),
        Route::new("GET", "/v3/groups/detail", list, |call| async move { index(&call) }),
        Route::new("POST", "/v3/groups", make, create),
        Route::new("POST", "/v3/groups/action", make, create_from),
        Route::new("GET", "/v3/groups/{id}", any, |call| async move { show(&call) }),
        Route::new("PUT", "/v3/groups/{id}", any, update),
        Route::new("POST", "/v3/groups/{id}/action", any, act),
    ];
    let sets = [
        Route::new("GET", "/v3/group_snapshots", list_sets, |call| async move {
            listing::reply(GroupSnapshot::DEF, &call, false, brief)
        }),
        Route::new("GET", "/v3/group_snapshots/detail", list_sets, |call| async move {
            listing::reply(GroupSnapshot::DEF, &call, false, stamped)
        }),
        Route::new("POST", "/v3/group_snapshots", make_set, create_set),
        Route::new("GET", "/v3/group_snapshots/{id}", any, |call| async move { show_set(&call) }),
        Route::new("DELETE", "/v3/group_snapshots/{id}", any, remove_set),
        Route::new("POST", "/v3/group_snapshots/{id}/action", any, act_set),
    ];
    groups.into_iter().map(|r| r.since("3.13")).chain(sets.into_iter().map(|r| r.since("3.14"))).collect()
}

/// Rules of what rows decide.
pub(crate) const RULES: [(&str, &str); 11] = [
    ("group:get", "reader"),
    ("group:get_group_snapshot", "reader"),
    ("group:enable_replication", "member"),
    ("group:disable_replication", "member"),
    ("group:failover_replication", "member"),
    ("group:list_replication_targets", "member"),
    ("group:update", "member"),
    ("group:delete", "member"),
    ("group:reset_status", "admin"),
    ("group:delete_group_snapshot", "member"),
    ("group:reset_group_snapshot_status", "admin"),
];

fn brief(_row: &Map, out: &mut Map, _cx: &Cx) {
    out.retain(|key, _| matches!(key.as_str(), "id" | "name"));
}

fn stamped(row: &Map, out: &mut Map, cx: &Cx) {
    out.insert("created_at".into(), crate::common::micros(row, "created_at"));
    if row.contains_key("group_type") && at(cx, 38) {
        out.insert("replication_status".into(), "disabled".into());
    }
}

/// Ids of the group's volumes, where they were asked for.
fn with_volumes(call: &Call, group: &mut Value) {
    if !at(&call.cx, 25) || !call.cx.query.flag("list_volume") {
        return;
    }
    let id = group["id"].as_str().unwrap_or_default().to_owned();
    let members = call.reader().find(&Volume::DEF.table, "group_id", &id);
    group["volumes"] = members.iter().map(|v| v.id().to_owned()).collect();
}

fn index(call: &Call) -> Result<Reply> {
    let mut reply = listing::reply(Group::DEF, call, false, stamped)?;
    if let api::ReplyBody::Json(body) = &mut reply.body {
        body["groups"].as_array_mut().into_iter().flatten().for_each(|g| with_volumes(call, g));
    }
    Ok(reply)
}

fn show(call: &Call) -> Result<Reply> {
    let group: Object<Group> = visible(call, call.param("id"))?;
    call.require("group:get", Some(&group.map))?;
    let mut body = listing::wrapped(Group::DEF, call, &group.map, stamped);
    with_volumes(call, &mut body["group"]);
    Ok(Reply::ok(body))
}

fn made(id: &str, name: &str) -> Reply {
    Reply::json(202, json!({ "group": { "id": id, "name": name } }))
}

/// The group type with that id or name that the caller may see, or 404.
fn group_type(tx: &mut Tx<'_>, cx: &Cx, wanted: &str) -> Result<Object<GroupType>> {
    let by_id: Option<Object<GroupType>> = resource::load(tx, wanted)?;
    let found = match by_id {
        Some(kind) => Some(kind),
        None => {
            let named = tx.all(&GroupType::DEF.table).into_iter().find(|r| r.text("name") == wanted);
            // Read again, so that it is compared at the commit.
            named.map(|row| resource::load(tx, row.id())).transpose()?.flatten()
        }
    };
    let is_open = |kind: &Object<GroupType>| kind.is_public || cx.is_admin();
    found.filter(is_open).ok_or_else(|| Error::not_found(format!("Group type {wanted} could not be found.")))
}

async fn create(call: Call) -> Result<Reply> {
    let given = call.inner("group")?.clone();
    let input = Input::new(&given, &["name", "description", "group_type", "volume_types", "availability_zone"])?;
    let body = Group {
        name: input.text("name")?.unwrap_or_default().trim().to_owned(),
        description: input.text("description")?.map(str::to_owned),
        status: "available".to_owned(),
        availability_zone: input.text("availability_zone")?.unwrap_or(hosts::ZONE).to_owned(),
        group_type: input.required("group_type")?.to_owned(),
        user_id: call.cx.caller.user_id().to_owned(),
        ..Group::default()
    };
    if body.availability_zone != hosts::ZONE {
        return Err(Error::bad_request(format!(
            "Availability zone '{}' is invalid; choose one of os-availability-zone.",
            body.availability_zone
        )));
    }
    let wanted: Vec<String> = match given.get("volume_types") {
        Some(Value::Array(list)) if !list.is_empty() => list.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect(),
        _ => return Err(Error::bad_request("volume_types must be provided to create group: name at least one.")),
    };
    let group = call
        .transact(move |cx, tx| {
            let mut body = body.clone();
            body.group_type = group_type(tx, cx, &body.group_type)?.id;
            for name in &wanted {
                let kind = types::find(tx, cx, name)?;
                body.volume_types.push(kind.id);
            }
            groups::make(tx, cx, body)
        })
        .await?;
    Ok(made(&group.id, &group.name))
}

async fn create_from(call: Call) -> Result<Reply> {
    let (action, body) = crate::actions::named(&call)?;
    if action != "create-from-src" || !at(&call.cx, 14) {
        return Err(Error::bad_request(format!("There is no such action: {action}.")));
    }
    let input = Input::of(body, action, &["name", "description", "group_snapshot_id", "source_group_id"])?;
    let (set, source) = (input.uuid("group_snapshot_id")?.map(str::to_owned), input.uuid("source_group_id")?.map(str::to_owned));
    if set.is_some() == source.is_some() {
        return Err(Error::bad_request("Give one of group_snapshot_id and source_group_id, and not both."));
    }
    let name = input.text("name")?.unwrap_or_default().trim().to_owned();
    let description = input.text("description")?.map(str::to_owned);
    let group = call
        .transact(move |cx, tx| {
            let from = match (&set, &source) {
                (Some(set), _) => own::<GroupSnapshot>(tx, cx, set)?.group_id.clone(),
                (None, source) => source.clone().unwrap_or_default(),
            };
            let from: Object<Group> = own(tx, cx, &from)?;
            let body = Group {
                name: name.clone(),
                description: description.clone(),
                status: "creating".to_owned(),
                working: true,
                group_snapshot_id: set.clone(),
                source_group_id: source.clone(),
                user_id: cx.caller.user_id().to_owned(),
                ..from.body.clone()
            };
            let group = groups::make(tx, cx, body)?;
            groups::copy(tx, cx, &group)?;
            Ok(group)
        })
        .await?;
    Ok(made(&group.id, &group.name))
}

async fn update(call: Call) -> Result<Reply> {
    let found: Object<Group> = visible(&call, call.param("id"))?;
    call.require("group:update", Some(&found.map))?;
    let given = call.inner("group")?.clone();
    let input = Input::new(&given, &["name", "description", "add_volumes", "remove_volumes"])?;
    let (add, remove) = (input.ids("add_volumes")?, input.ids("remove_volumes")?);
    let (name, description) = (input.text("name")?.map(str::to_owned), input.text("description")?.map(str::to_owned));
    if add.is_empty() && remove.is_empty() && name.is_none() && description.is_none() {
        return Err(Error::bad_request(
            "Name, description, add_volumes, and remove_volumes can not be all empty in the request body.",
        ));
    }
    if let Some(both) = add.iter().find(|a| remove.contains(a)) {
        return Err(Error::bad_request(format!("Invalid volume: volume {both} cannot be added and removed at once.")));
    }
    let id = found.id;
    call.transact(move |cx, tx| {
        let mut group: Object<Group> = own(tx, cx, &id)?;
        groups::change(tx, cx, &group, &add, &remove)?;
        if let Some(name) = &name {
            group.name = name.trim().to_owned();
        }
        if description.is_some() {
            group.description.clone_from(&description);
        }
        group.save(tx)
    })
    .await?;
    Ok(Reply::empty(202))
}

const STATUSES: [&str; 6] = ["available", "creating", "deleting", "error", "error_deleting", "updating"];

fn status_of(body: &Value, action: &str) -> Result<String> {
    let input = Input::of(body, action, &["status"])?;
    let status = input.choice("status", &STATUSES)?;
    status
        .map(str::to_owned)
        .ok_or_else(|| Error::bad_request("Invalid input for field/attribute status: it is a required property."))
}

async fn act(call: Call) -> Result<Reply> {
    let found: Object<Group> = visible(&call, call.param("id"))?;
    let (action, body) = crate::actions::named(&call)?;
    let id = found.id.clone();
    match action {
        "delete" => {
            call.require("group:delete", Some(&found.map))?;
            let with_volumes = Input::of(body, action, &["delete-volumes"])?.flag("delete-volumes")?.unwrap_or(false);
            call.transact(move |cx, tx| {
                let group: Object<Group> = own(tx, cx, &id)?;
                groups::delete(tx, cx, group, with_volumes)
            })
            .await?;
        }
        "reset_status" if at(&call.cx, 20) => {
            call.require("group:reset_status", Some(&found.map))?;
            let status = status_of(body, action)?;
            call.transact(move |cx, tx| {
                let mut group: Object<Group> = own(tx, cx, &id)?;
                (group.status, group.working) = (status.clone(), false);
                group.save(tx)
            })
            .await?;
        }
        "enable_replication" | "disable_replication" | "failover_replication" | "list_replication_targets" => {
            call.require(&format!("group:{action}"), Some(&found.map))?;
            return Err(Error::bad_request("Groups of this cloud are not replicated."));
        }
        other => return Err(Error::bad_request(format!("There is no such action: {other}."))),
    }
    Ok(Reply::empty(202))
}

fn show_set(call: &Call) -> Result<Reply> {
    let set: Object<GroupSnapshot> = visible(call, call.param("id"))?;
    call.require("group:get_group_snapshot", Some(&set.map))?;
    Ok(Reply::ok(listing::wrapped(GroupSnapshot::DEF, call, &set.map, stamped)))
}

async fn create_set(call: Call) -> Result<Reply> {
    let input = Input::new(call.inner("group_snapshot")?, &["group_id", "name", "description"])?;
    let group = input.required_uuid("group_id")?.to_owned();
    let body = GroupSnapshot {
        name: input.text("name")?.unwrap_or_default().trim().to_owned(),
        description: input.text("description")?.map(str::to_owned),
        status: "creating".to_owned(),
        working: true,
        group_id: group.clone(),
        user_id: call.cx.caller.user_id().to_owned(),
        ..GroupSnapshot::default()
    };
    let set = call
        .transact(move |cx, tx| {
            let group: Object<Group> = own(tx, cx, &group)?;
            let body = GroupSnapshot { group_type_id: group.group_type.clone(), ..body.clone() };
            groups::snapshot(tx, cx, &group, body)
        })
        .await?;
    let shown = map(json!({ "id": set.id, "name": set.name, "group_type_id": set.group_type_id }));
    Ok(Reply::json(202, json!({ "group_snapshot": shown })))
}

async fn remove_set(call: Call) -> Result<Reply> {
    let found: Object<GroupSnapshot> = visible(&call, call.param("id"))?;
    call.require("group:delete_group_snapshot", Some(&found.map))?;
    let id = found.id;
    call.transact(move |cx, tx| {
        let set: Object<GroupSnapshot> = own(tx, cx, &id)?;
        groups::delete_snapshot(tx, cx, set)
    })
    .await?;
    Ok(Reply::empty(202))
}

async fn act_set(call: Call) -> Result<Reply> {
    let found: Object<GroupSnapshot> = visible(&call, call.param("id"))?;
    let (action, body) = crate::actions::named(&call)?;
    if action != "reset_status" || !at(&call.cx, 19) {
        return Err(Error::bad_request(format!("There is no such action: {action}.")));
    }
    call.require("group:reset_group_snapshot_status", Some(&found.map))?;
    let (id, status) = (found.id.clone(), status_of(body, action)?);
    call.transact(move |cx, tx| {
        let mut set: Object<GroupSnapshot> = own(tx, cx, &id)?;
        (set.status, set.working) = (status.clone(), false);
        set.save(tx)
    })
    .await?;
    Ok(Reply::empty(202))
}
