//! Deactivate and reactivate, and the locations that this store does not take.
use crate::rest::{admitted, look, require};
use api::{Access, Call, Reply, Route};
use resource::{Error, Result};

pub(crate) fn routes() -> Vec<Route> {
    const LOCATIONS: &str = "/v2/images/{id}/locations";
    vec![
        Route::new("POST", "/v2/images/{id}/actions/deactivate", Access::Authenticated, |call| {
            turn(call, "deactivate", "deactivated")
        }),
        Route::new("POST", "/v2/images/{id}/actions/reactivate", Access::Authenticated, |call| {
            turn(call, "reactivate", "active")
        }),
        Route::new("POST", LOCATIONS, Access::Authenticated, add_location),
        Route::new("GET", LOCATIONS, Access::Authenticated, locations),
    ]
}

async fn turn(call: Call, action: &'static str, wanted: &'static str) -> Result<Reply> {
    let id = call.param("id").to_owned();
    call.transact(move |cx, tx| {
        let mut image = admitted(tx, cx, &id, action)?;
        match image.status.as_str() {
            status if status == wanted => Ok(()),
            "active" | "deactivated" => {
                image.status = wanted.into();
                image.save(tx)
            }
            status => Err(Error::forbidden(format!("Not allowed to {action} image in status '{status}'"))),
        }
    })
    .await?;
    Ok(Reply::empty(204))
}

async fn add_location(call: Call) -> Result<Reply> {
    let image = look(&call)?;
    require(&call.cx, "set_image_location", Some(&image.map))?;
    Err(Error::forbidden("Images live in this cloud's own store; upload the data instead of a location."))
}

/// Data is reached by the file path only, so no image has a location of its own.
async fn locations(call: Call) -> Result<Reply> {
    let image = look(&call)?;
    require(&call.cx, "fetch_image_location", Some(&image.map))?;
    Ok(Reply::ok(serde_json::json!([])))
}
