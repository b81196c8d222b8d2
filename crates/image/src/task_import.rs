//! `POST /v2/tasks` (Glance api-ref `image/v2/tasks`): an image and its `web-download` in one, for administrators.
use crate::{
    App, attributes,
    images::insert,
    import::{self, Start},
    rest::seen,
    signature, tasks,
    transfer::WEB,
};
use api::{Access, Call, Reply, Route};
use resource::{Error, Map, Result};
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) fn routes(app: &Arc<App>) -> Vec<Route> {
    let app = app.clone();
    vec![Route::new("POST", "/v2/tasks", Access::Rule("add_task", "role:admin"), move |call| create(app.clone(), call))]
}

async fn create(app: Arc<App>, call: Call) -> Result<Reply> {
    let body = call.object()?;
    if body.get("type").and_then(Value::as_str) != Some("import") {
        return Err(Error::bad_request("The 'type' of a task must be 'import'; other types are not made by requests."));
    }
    let input = body.get("input").and_then(Value::as_object);
    let input = input.ok_or_else(|| Error::bad_request("A task needs an object 'input'."))?;
    let text = |name: &str| {
        let text = input.get(name).and_then(Value::as_str);
        text.ok_or_else(|| Error::bad_request(format!("Input does not contain '{name}' field")))
    };
    let (from, format) = (text("import_from")?, text("import_from_format")?);
    let asked = import::asked(&app, &call, &json!({"method": {"name": WEB, "uri": from}}))?;
    let (fields, id) = attributes::of_create(&properties(input, format)?)?;
    let request = Value::from(input.clone());
    let row = call
        .transact(move |cx, tx| {
            let image = insert(cx, tx, &fields, id.as_deref())?;
            let image = crate::image::text(&image, "id");
            if signature::asked(&seen(tx, cx, image)?)?.is_some() {
                return Err(Error::bad_request("A task makes no signed image: create it, then import its data by web-download."));
            }
            let start = Start { asked: &asked, signed: None, kind: "import", request: &request };
            let task = import::begin(&app, cx, tx, image, &start)?;
            let row = task.and_then(|id| tx.get(&tasks::TASKS, &id));
            row.ok_or_else(|| Error::bad_request("There is no store to import into."))
        })
        .await?;
    let location = format!("{}/v2/tasks/{}", call.cx.public, row.id());
    Ok(Reply::json(201, tasks::view(&row, true)).header("location", location))
}

/// Of the image; the format that is said once is that of both.
fn properties(input: &Map, format: &str) -> Result<Map> {
    let given = input.get("image_properties").and_then(Value::as_object);
    let mut given = given.cloned().ok_or_else(|| Error::bad_request("Input does not contain 'image_properties' field"))?;
    given.entry("disk_format").or_insert_with(|| format.into());
    given.entry("container_format").or_insert_with(|| "bare".into());
    Ok(given)
}
