//! What all handlers of this service share: rules, and an image as the caller may see and change it.
use crate::image::{Image, may_see};
use api::{Call, Reply, dialect::IMAGE};
use base::Timestamp;
use resource::{Cx, Error, Map, Object, Resource as _, Result, Tx, engine};
use serde_json::Value;

const OWNER: &str = "role:admin or (role:member and project_id:%(project_id)s)";
const MEMBER: &str = "role:admin or (role:member and project_id:%(member_id)s)";

/// Rules by Glance's names, beside those of the table's actions.
pub(crate) const RULES: &[(&str, &str)] = &[
    ("publicize_image", "role:admin"),
    ("communitize_image", OWNER),
    ("upload_image", OWNER),
    ("download_image", "role:member"),
    ("deactivate", OWNER),
    ("reactivate", OWNER),
    ("add_member", OWNER),
    ("delete_member", OWNER),
    ("modify_member", MEMBER),
    ("get_members", "role:reader"),
    ("copy_image", "role:admin"),
    ("delete_image_location", "role:admin"),
    ("set_image_location", "!"),
    ("add_image_location", "role:service or role:admin or (role:member and project_id:%(project_id)s)"),
    ("fetch_image_location", "role:service or role:admin"),
    ("get_tasks", "role:admin"),
    ("add_task", "role:admin"),
    ("stores_info_detail", "role:admin"),
    ("get_metadef", "role:reader"),
    ("modify_metadef", "role:admin"),
];

/// The image of the path or 404, in a transaction.
pub(crate) fn seen(tx: &mut Tx<'_>, cx: &Cx, id: &str) -> Result<Object<Image>> {
    let found = resource::load::<Image>(tx, id)?.filter(|image| may_see(&image.map, cx));
    found.ok_or_else(|| engine::not_found(Image::DEF, id))
}

/// As [`seen`], and 403 unless the rule allows it.
pub(crate) fn admitted(tx: &mut Tx<'_>, cx: &Cx, id: &str, rule: &str) -> Result<Object<Image>> {
    let image = seen(tx, cx, id)?;
    require(cx, rule, Some(&image.map))?;
    Ok(image)
}

pub(crate) fn require(cx: &Cx, rule: &str, row: Option<&Map>) -> Result<()> {
    if cx.may(rule, row) {
        return Ok(());
    }
    Err(Error::forbidden(format!("You are not authorized to complete {rule} action.")))
}

/// The image of the path or 404, outside of a transaction.
pub(crate) fn look(call: &Call) -> Result<Object<Image>> {
    let id = call.param("id");
    let found = resource::read::<Image>(&call.reader(), id)?.filter(|image| !image.deleting() && may_see(&image.map, &call.cx));
    found.ok_or_else(|| engine::not_found(Image::DEF, id))
}

/// An image as an answer's body.
pub(crate) fn shown(call: &Call, row: &Map) -> Value {
    api::show_one(Image::DEF, &IMAGE, row, &call.cx, &call.reader())
}

pub(crate) fn stamp(row: &Map, field: &str) -> Value {
    let at = row.get(field).and_then(Value::as_i64).or_else(|| row.get("created_at").and_then(Value::as_i64));
    at.map_or(Value::Null, |t| Timestamp(t).seconds_z().into())
}

/// Ends of the life of an answer's body: a JSON object with the schema that describes it.
pub(crate) fn listing(plural: &str, rows: Vec<Value>, path: &str, schema: &str) -> Reply {
    let mut body = Map::new();
    body.insert(plural.into(), rows.into());
    body.insert("first".into(), path.into());
    body.insert("schema".into(), format!("/v2/schemas/{schema}").into());
    Reply::ok(body.into())
}
