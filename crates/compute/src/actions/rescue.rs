//! `rescue` and `unrescue`: boots another image, with the server's own disk as the second one.
use super::{Wish, wish};
use crate::{
    resources::Server,
    server::{
        create, images,
        state::{Needs, task, vm},
    },
    shape::{self, Shape, opt},
};
use api::{Call, Error, Reply, Result};
use assign::Power;
use resource::Object;
use serde_json::{Value, json};

pub(super) const RESCUE: Shape =
    Shape::OneOf(&[&Shape::Null, &Shape::Object(&[opt("adminPass", &shape::PASSWORD), opt("rescue_image_ref", &shape::UUID)])]);

pub(super) async fn rescue(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    // A password that nothing in the guest reads is still what Nova answers.
    let password = body["adminPass"].as_str().map_or_else(create::password, str::to_owned);
    let asked_image = body["rescue_image_ref"].as_str();
    let image = {
        let reader = call.reader();
        match asked_image {
            Some(id) => {
                let missing = format!("Instance {} cannot be rescued: Image {id} could not be found.", server.id);
                images::usable(&images::find(&call.cx, &reader, id, &missing)?, &server.flavor)?
            }
            None if server.boot_volume => {
                return Err(Error::bad_request(format!(
                    "Instance {} cannot be rescued: Cannot rescue a volume-backed instance without an image; name one.",
                    server.id
                )));
            }
            None => {
                let root = server.root.clone();
                root.ok_or_else(|| {
                    Error::bad_request(format!("Instance {} cannot be rescued: it has no image; name one.", server.id))
                })?
            }
        }
    };
    if server.boot_volume && !crate::common::at(&call.cx, 87) {
        return Err(Error::bad_request(format!(
            "Instance {} cannot be rescued: Cannot rescue a volume-backed instance before API version 2.87",
            server.id
        )));
    }
    let needs = Needs::vm(&[vm::ACTIVE, vm::STOPPED, vm::ERROR]);
    let asked = Wish { method: "rescue", action: "rescue", event: "compute_rescue_instance", needs, task: task::RESCUING };
    wish(&call, &server, asked, move |_, _, s| {
        if s.node_id.is_none() {
            return Err(Error::conflict(format!("Instance {} has no host.", s.id)));
        }
        s.was_stopped = s.vm_state == vm::STOPPED;
        s.rescue = Some(image.clone());
        s.power = Power::Running;
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "adminPass": password })))
}

pub(super) async fn unrescue(call: Call, server: Object<Server>) -> Result<Reply> {
    let needs = Needs::vm(&[vm::RESCUED]);
    let asked =
        Wish { method: "unrescue", action: "unrescue", event: "compute_unrescue_instance", needs, task: task::UNRESCUING };
    wish(&call, &server, asked, |_, _, s| {
        s.rescue = None;
        s.power = Power::Running;
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}
