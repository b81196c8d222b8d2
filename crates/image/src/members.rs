//! Members: the projects that a `shared` image is shared with.
use crate::{
    image::{Image, Member, is_owner},
    rest::{listing, look, require, seen},
};
use api::{Access, Call, Reply, Route};
use resource::{Cx, Error, Map, Object, Result};
use serde_json::{Value, json};

const MAX_MEMBERS: usize = 128;

pub(crate) fn routes() -> Vec<Route> {
    const ONE: &str = "/v2/images/{id}/members/{member_id}";
    const ALL: &str = "/v2/images/{id}/members";
    vec![
        Route::new("GET", ALL, Access::Rule("get_members", "role:reader"), list),
        Route::new("POST", ALL, Access::Authenticated, create),
        Route::new("GET", ONE, Access::Rule("get_members", "role:reader"), show),
        Route::new("PUT", ONE, Access::Authenticated, update),
        Route::new("DELETE", ONE, Access::Authenticated, delete),
    ]
}

fn view(image: &str, member: &Member) -> Value {
    json!({
        "member_id": member.member_id,
        "image_id": image,
        "status": member.status,
        "created_at": member.created_at.seconds_z(),
        "updated_at": member.updated_at.seconds_z(),
        "schema": "/v2/schemas/member",
    })
}

/// Other images have no members.
fn shared(image: &Object<Image>) -> Result<()> {
    if image.visibility == "shared" {
        return Ok(());
    }
    Err(Error::forbidden("Only shared images have members."))
}

fn missing(image: &str, member: &str) -> Error {
    Error::not_found(format!("{member} not found in the member list of the image {image}."))
}

/// A member sees itself only.
fn sees(image: &Object<Image>, member: &Member, cx: &Cx) -> bool {
    cx.is_admin() || is_owner(&image.map, cx) || cx.caller.project_id() == Some(member.member_id.as_str())
}

async fn list(call: Call) -> Result<Reply> {
    let image = look(&call)?;
    shared(&image)?;
    let rows = image.members.iter().filter(|m| sees(&image, m, &call.cx)).map(|m| view(&image.id, m)).collect();
    let mut reply = listing("members", rows, "", "members");
    if let api::ReplyBody::Json(Value::Object(body)) = &mut reply.body {
        body.shift_remove("first");
    }
    Ok(reply)
}

async fn show(call: Call) -> Result<Reply> {
    let (image, id) = (look(&call)?, call.param("member_id"));
    let found = image.member(id).filter(|m| image.visibility == "shared" && sees(&image, m, &call.cx));
    found.map(|m| Reply::ok(view(&image.id, m))).ok_or_else(|| missing(&image.id, id))
}

async fn create(call: Call) -> Result<Reply> {
    let given = call.json().get("member").ok_or_else(|| Error::bad_request("Member to be added not specified"))?;
    let member = given.as_str().filter(|m| !m.trim().is_empty()).ok_or_else(|| Error::bad_request("Member can't be empty"))?;
    if member.len() > 255 || member.chars().any(char::is_control) {
        return Err(Error::bad_request("A member is the id of a project, of at most 255 characters."));
    }
    let (id, project) = (call.param("id").to_owned(), member.to_owned());
    let shown = call
        .transact(move |cx, tx| {
            let mut image = seen(tx, cx, &id)?;
            require(cx, "add_member", Some(&image.map))?;
            shared(&image)?;
            if image.member(&project).is_some() {
                return Err(Error::conflict(format!("Member {project} is duplicated for image {id}")));
            }
            if image.members.len() >= MAX_MEMBERS {
                return Err(Error::too_large(format!("Image member limit exceeded for image {id}: Maximum: {MAX_MEMBERS}")));
            }
            let member = Member { member_id: project.clone(), status: "pending".into(), created_at: tx.now, updated_at: tx.now };
            image.members.push(member.clone());
            image.save(tx)?;
            Ok(view(&id, &member))
        })
        .await?;
    Ok(Reply::ok(shown))
}

async fn update(call: Call) -> Result<Reply> {
    let status = call.json().get("status").ok_or_else(|| Error::bad_request("Status not specified"))?;
    let status = status.as_str().filter(|s| matches!(*s, "pending" | "accepted" | "rejected")).ok_or_else(|| {
        Error::bad_request(format!("Incorrect request: the status {status} must be one of pending, accepted, rejected."))
    })?;
    let (id, project, status) = (call.param("id").to_owned(), call.param("member_id").to_owned(), status.to_owned());
    let shown = call
        .transact(move |cx, tx| {
            let mut image = seen(tx, cx, &id)?;
            shared(&image)?;
            let known = image.member(&project).filter(|m| sees(&image, m, cx));
            if known.is_none() {
                return Err(missing(&id, &project));
            }
            let mut target = Map::new();
            target.insert("member_id".into(), project.as_str().into());
            require(cx, "modify_member", Some(&target))?;
            let now = tx.now;
            let member = image.member_mut(&project).ok_or_else(|| missing(&id, &project))?;
            member.status.clone_from(&status);
            member.updated_at = now;
            let shown = view(&id, member);
            image.save(tx)?;
            Ok(shown)
        })
        .await?;
    Ok(Reply::ok(shown))
}

async fn delete(call: Call) -> Result<Reply> {
    let (id, project) = (call.param("id").to_owned(), call.param("member_id").to_owned());
    call.transact(move |cx, tx| {
        let mut image = seen(tx, cx, &id)?;
        require(cx, "delete_member", Some(&image.map))?;
        shared(&image)?;
        if image.member(&project).is_none() {
            return Err(missing(&id, &project));
        }
        image.members.retain(|m| m.member_id != project);
        image.save(tx)
    })
    .await?;
    Ok(Reply::empty(204))
}
