//! One tag at a time.
use crate::{attributes, rest::admitted};
use api::{Access, Call, Reply, Route};
use resource::{Error, Result};

pub(crate) fn routes() -> Vec<Route> {
    const TAG: &str = "/v2/images/{id}/tags/{tag}";
    vec![Route::new("PUT", TAG, Access::Authenticated, add), Route::new("DELETE", TAG, Access::Authenticated, remove)]
}

async fn add(call: Call) -> Result<Reply> {
    let (id, tag) = (call.param("id").to_owned(), call.param("tag").to_owned());
    if tag.chars().count() > 255 || tag.chars().any(char::is_control) {
        return Err(Error::bad_request("A tag has at most 255 characters."));
    }
    call.transact(move |cx, tx| {
        let mut image = admitted(tx, cx, &id, "modify_image")?;
        if image.tags.contains(&tag) {
            return Ok(());
        }
        image.tags.push(tag.clone());
        attributes::tag_count(image.tags.len())?;
        image.save(tx)
    })
    .await?;
    Ok(Reply::empty(204))
}

async fn remove(call: Call) -> Result<Reply> {
    let (id, tag) = (call.param("id").to_owned(), call.param("tag").to_owned());
    call.transact(move |cx, tx| {
        let mut image = admitted(tx, cx, &id, "modify_image")?;
        if !image.tags.contains(&tag) {
            return Err(Error::not_found(format!("Image {id} does not have the tag '{tag}'.")));
        }
        image.tags.retain(|t| *t != tag);
        image.save(tx)
    })
    .await?;
    Ok(Reply::empty(204))
}
