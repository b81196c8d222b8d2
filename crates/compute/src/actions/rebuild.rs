//! `rebuild`: a new root disk for the same server.
use super::{Wish, wish};
use crate::{
    common::{USER_DATA, at},
    quota,
    resources::Server,
    server::{
        create, images, request,
        state::{Needs, task, vm},
        view::{self, Show},
    },
    shape::{self, Shape, opt, req},
};
use api::{Call, Error, Reply, Result};
use assign::Power;
use resource::Object;
use serde_json::{Value, json};

pub(super) const REBUILD: Shape = Shape::Object(&[
    req("imageRef", &shape::UUID),
    opt("name", &shape::NAME),
    opt("adminPass", &shape::PASSWORD),
    opt("metadata", &shape::METADATA),
    opt("preserve_ephemeral", &Shape::Bool),
    opt("OS-DCF:diskConfig", &shape::DISK_CONFIG),
    opt("accessIPv4", &shape::IPV4),
    opt("accessIPv6", &shape::IPV6),
    opt("personality", &request::PERSONALITY).until(56),
    opt("description", &shape::DESCRIPTION).since(19),
    opt("key_name", &shape::NAME_OR_NULL).since(54),
    opt("user_data", &Shape::OneOf(&[&shape::BASE64, &Shape::Null])).since(57),
    opt("trusted_image_certificates", &request::CERTIFICATES).since(63),
    opt("hostname", &shape::HOSTNAME).since(90).until(93),
    opt("hostname", &shape::FQDN).since(94),
]);

pub(super) async fn rebuild(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    if body.get("trusted_image_certificates").is_some_and(|v| !v.is_null()) {
        return Err(Error::bad_request("Image signature verification is not available; leave trusted_image_certificates out."));
    }
    if server.boot_volume {
        return Err(Error::bad_request("Unable to rebuild with a different image for a volume-backed server."));
    }
    let cx = &call.cx;
    let (image, key) = {
        let reader = call.reader();
        let image = images::find(cx, &reader, body["imageRef"].as_str().unwrap_or_default(), "Cannot find image for rebuild")?;
        let image = images::usable(&image, &server.flavor)?;
        let key = match body.get("key_name") {
            None => None,
            Some(Value::String(name)) => Some(Some(create::key(&reader, cx, name)?)),
            Some(_) => Some(None),
        };
        let limit = quota::limits_of(&reader, cx, server.project_id(), None)("metadata_items");
        quota::check_metadata(limit, body["metadata"].as_object().map_or(0, serde_json::Map::len))?;
        (image, key)
    };
    let password = body["adminPass"].as_str().map_or_else(create::password, str::to_owned);
    let needs = Needs { launched: false, ..Needs::vm(&[vm::ACTIVE, vm::STOPPED, vm::ERROR]) };
    let asked = Wish { method: "rebuild", action: "rebuild", event: "compute_rebuild_instance", needs, task: task::REBUILDING };
    let input = body.clone();
    let row = wish(&call, &server, asked, move |_, tx, s| {
        if s.node_id.is_none() {
            return Err(Error::conflict(format!("Instance {} has no host; delete it and create another.", s.id)));
        }
        let text = |key: &str| input.get(key).and_then(Value::as_str).map(str::to_owned);
        s.image_id.clone_from(&image.id);
        s.root = Some(image.clone());
        s.generation += 1;
        if s.vm_state == vm::ERROR {
            s.power = Power::Running;
        }
        if let Some(name) = text("name") {
            s.name = name.trim().to_owned();
        }
        if let Some(description) = input.get("description") {
            s.description = description.as_str().map(str::to_owned);
        }
        if input.get("metadata").is_some() {
            s.metadata = request::metadata(input.get("metadata"));
        }
        if let Some(config) = text("OS-DCF:diskConfig") {
            s.disk_config = config;
        }
        if let Some(address) = text("accessIPv4") {
            s.access_ipv4 = address;
        }
        if let Some(address) = text("accessIPv6") {
            s.access_ipv6 = address;
        }
        if let Some(hostname) = text("hostname") {
            s.hostname = hostname;
        }
        if let Some(key) = &key {
            s.key_name = key.as_ref().map(|k| k.name.clone());
            s.key.clone_from(key);
        }
        match input.get("user_data") {
            Some(Value::String(data)) => tx.put(&USER_DATA, &s.id, json!({ "data": data })),
            Some(_) => tx.delete(&USER_DATA, &s.id),
            None => {}
        }
        Ok(())
    })
    .await?;
    let reader = call.reader();
    let mut shown = Show::new(&call.cx, &reader).rebuild().server(&row);
    shown.insert("adminPass".into(), password.into());
    if at(&call.cx, 57) {
        shown.insert("user_data".into(), view::user_data(&reader, &server.id));
    }
    let location = format!("{}/v2.1/servers/{}", call.cx.public, server.id);
    Ok(Reply::json(202, json!({ "server": shown })).header("location", location))
}
