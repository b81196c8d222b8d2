//! Transfers: a volume changes its project, by a key that the giver hands over.
//!
//! The key is shown once; the row keeps its hash. A volume that waits for its transfer is nobody's to use, and returns to what it was when
//! the transfer is deleted. Quota moves in the transaction that accepts.
use crate::{
    common::{at, flag, is_own, map, micros, object, own, text},
    create::owned_volume,
    input::Input,
    quota,
    resources::{Snapshot, Volume},
};
use api::{Access, Call, Cx, Error, Map, Reply, Result, Route};
use resource::{Object, Resource as _, Tx, engine};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use store::{Index, Table};

pub(crate) static TRANSFERS: Table = Table {
    name: "volume/transfers",
    indexes: &[Index { name: "volume_id", path: "/volume_id" }, Index { name: "project_id", path: "/project_id" }],
};

pub(crate) fn routes() -> Vec<Route> {
    let list = Access::Rule("volume:get_all_transfers", "reader");
    let show_rule = Access::Rule("volume:get_transfer", "reader");
    let (make, end) = (Access::Rule("volume:create_transfer", "member"), Access::Rule("volume:delete_transfer", "member"));
    let accept_rule = Access::Rule("volume:accept_transfer", "member");
    let mut out = Vec::new();
    // The newer path came with 3.55.
    for (all, detail, one, accepting) in [
        (
            "/v3/os-volume-transfer",
            "/v3/os-volume-transfer/detail",
            "/v3/os-volume-transfer/{id}",
            "/v3/os-volume-transfer/{id}/accept",
        ),
        ("/v3/volume-transfers", "/v3/volume-transfers/detail", "/v3/volume-transfers/{id}", "/v3/volume-transfers/{id}/accept"),
    ] {
        let routes = vec![
            Route::new("POST", all, make, create),
            Route::new("GET", all, list, |call| async move { index(&call, false) }),
            Route::new("GET", detail, list, |call| async move { index(&call, true) }),
            Route::new("GET", one, show_rule, |call| async move { show(&call) }),
            Route::new("DELETE", one, end, remove),
            Route::new("POST", accepting, accept_rule, accept),
        ];
        let is_new = all.ends_with("volume-transfers");
        out.extend(routes.into_iter().map(|r| if is_new { r.since("3.55") } else { r }));
    }
    out
}

fn hash(key: &str) -> String {
    Sha256::digest(key.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

fn view(call: &Call, row: &Map, detail: bool) -> Map {
    let id = text(row, "id");
    let mut out = map(json!({
        "id": id, "name": row.get("name"), "volume_id": text(row, "volume_id"),
        "links": [
            {"rel": "self", "href": format!("{}/v3/os-volume-transfer/{id}", call.cx.public)},
            {"rel": "bookmark", "href": format!("{}/os-volume-transfer/{id}", call.cx.public)},
        ],
    }));
    if detail {
        out.insert("created_at".into(), micros(row, "created_at"));
        if at(&call.cx, 57) {
            for field in ["source_project_id", "destination_project_id", "accepted"] {
                out.insert(field.into(), row.get(field).cloned().unwrap_or(Value::Null));
            }
        }
        if at(&call.cx, 55) {
            out.insert("no_snapshots".into(), flag(row, "no_snapshots").into());
        }
    }
    out
}

fn missing(id: &str) -> Error {
    Error::not_found(format!("Transfer {id} could not be found."))
}

fn index(call: &Call, detail: bool) -> Result<Reply> {
    let everybody = call.cx.is_admin() && call.cx.query.flag("all_tenants");
    let reader = call.reader();
    let mut rows: Vec<&Map> = Vec::new();
    let found = match (everybody, call.cx.caller.project_id()) {
        (true, _) => reader.all(&TRANSFERS).cloned().collect(),
        (false, project) => reader.find(&TRANSFERS, "project_id", project.unwrap_or_default()),
    };
    rows.extend(found.iter().map(|r| object(r)));
    rows.sort_by_key(|r| std::cmp::Reverse(crate::common::int(r, "created_at")));
    let shown: Vec<Value> = rows.into_iter().map(|r| view(call, r, detail).into()).collect();
    Ok(Reply::ok(json!({ "transfers": shown })))
}

fn show(call: &Call) -> Result<Reply> {
    let id = call.param("id");
    let row = call.reader().get(&TRANSFERS, id).filter(|r| is_own(&call.cx, r.text("project_id"))).ok_or_else(|| missing(id))?;
    Ok(Reply::ok(json!({ "transfer": view(call, object(&row), true) })))
}

async fn create(call: Call) -> Result<Reply> {
    let input = Input::new(call.inner("transfer")?, &["volume_id", "name", "no_snapshots"])?;
    let volume_id = input.required_uuid("volume_id")?.to_owned();
    let name = input.text("name")?.map(|n| n.trim().to_owned());
    let bare = input.flag("no_snapshots")?.unwrap_or(false) && at(&call.cx, 55);
    let key = base::id::hex().get(..16).unwrap_or_default().to_owned();
    let (kept, with_snapshots) = (hash(&key), at(&call.cx, 55) && !bare);
    let row = call
        .transact(move |cx, tx| {
            let mut volume = owned_volume(tx, cx, &volume_id)?;
            if volume.status != "available" || !volume.is_kept() {
                return Err(Error::bad_request(format!(
                    "Invalid volume: status must be available, but volume {volume_id} is {}.",
                    volume.status
                )));
            }
            if !with_snapshots && !tx.children(&Snapshot::DEF.table, "volume_id", &volume_id).is_empty() && !bare {
                return Err(Error::bad_request(format!(
                    "Invalid volume: volume {volume_id} has snapshots; delete them, or transfer by /volume-transfers (3.55)."
                )));
            }
            volume.status = "awaiting-transfer".to_owned();
            volume.save(tx)?;
            let row = map(json!({
                "id": base::id::uuid(), "volume_id": volume_id, "name": name, "key": kept, "no_snapshots": bare, "created_at": tx.now.0,
                "project_id": volume.project_id(), "source_project_id": volume.project_id(), "destination_project_id": null,
                "accepted": false,
            }));
            tx.put(&TRANSFERS, text(&row, "id"), row.clone().into());
            engine::tell(tx, &volume.id, &cx.request_id, "It waits for another project to take it");
            Ok(row)
        })
        .await?;
    let mut shown = view(&call, &row, true);
    shown.insert("auth_key".into(), key.into());
    Ok(Reply::json(202, json!({ "transfer": shown })))
}

async fn remove(call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    call.transact(move |cx, tx| {
        let row = tx.get(&TRANSFERS, &id).filter(|r| is_own(cx, r.text("project_id"))).ok_or_else(|| missing(&id))?;
        if let Some(mut volume) = resource::load::<Volume>(tx, row.text("volume_id"))?
            && volume.status == "awaiting-transfer"
        {
            volume.status = "available".to_owned();
            volume.save(tx)?;
        }
        tx.delete(&TRANSFERS, &id);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

async fn accept(call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    let key = hash(Input::new(call.inner("accept")?, &["auth_key"])?.required("auth_key")?);
    let project = call.cx.project()?;
    let row = call.transact(move |cx, tx| take(tx, cx, &id, &key, &project)).await?;
    Ok(Reply::json(202, json!({ "transfer": view(&call, &row, false) })))
}

/// Hands the volume over, with what is counted for it.
fn take(tx: &mut Tx<'_>, cx: &Cx, id: &str, key: &str, project: &str) -> Result<Map> {
    let row = tx.get(&TRANSFERS, id).ok_or_else(|| missing(id))?;
    if !constant_eq(row.text("key"), key) {
        return Err(Error::bad_request(format!("Invalid auth key: Attempt to transfer {id} with invalid auth key.")));
    }
    let (row, giver) = (object(&row).clone(), row.text("project_id").to_owned());
    let volume: Option<Object<Volume>> = resource::load(tx, text(&row, "volume_id"))?;
    let Some(mut volume) = volume.filter(|v| v.status == "awaiting-transfer") else {
        return Err(Error::bad_request("Invalid volume: Volume status must be awaiting-transfer to be taken."));
    };
    let kind = volume.volume_type_id.clone().unwrap_or_default();
    move_quota(tx, cx, &giver, project, &quota::volume(&kind, volume.size))?;
    if !flag(&row, "no_snapshots") {
        for mut snapshot in resource::find::<Snapshot>(tx, "volume_id", &volume.id)? {
            let kind = snapshot.volume_type_id.clone().unwrap_or_default();
            move_quota(tx, cx, &giver, project, &quota::snapshot(&kind, snapshot.volume_size))?;
            snapshot.map.insert("project_id".into(), project.into());
            snapshot.user_id = cx.caller.user_id().to_owned();
            snapshot.save(tx)?;
        }
    }
    volume.map.insert("project_id".into(), project.into());
    volume.user_id = cx.caller.user_id().to_owned();
    volume.status = "available".to_owned();
    volume.save(tx)?;
    engine::tell(tx, &volume.id, &cx.request_id, &format!("Project {project} has taken it"));
    tx.delete(&TRANSFERS, id);
    // Whoever takes it can see it now.
    own::<Volume>(tx, cx, &volume.id)?;
    Ok(row)
}

fn move_quota(tx: &mut Tx<'_>, cx: &Cx, from: &str, to: &str, what: &quota::Deltas) -> Result<()> {
    quota::release(tx, from, what);
    quota::charge(tx, cx, to, what)
}

/// Compares without telling by its time how much is right.
fn constant_eq(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}
