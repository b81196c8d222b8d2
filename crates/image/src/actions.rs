//! Deactivate and reactivate.
use crate::rest::admitted;
use api::{Access, Call, Reply, Route};
use resource::{Error, Result};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new("POST", "/v2/images/{id}/actions/deactivate", Access::Authenticated, |call| {
            turn(call, "deactivate", "deactivated")
        }),
        Route::new("POST", "/v2/images/{id}/actions/reactivate", Access::Authenticated, |call| {
            turn(call, "reactivate", "active")
        }),
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
