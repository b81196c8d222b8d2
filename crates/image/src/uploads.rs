//! Uploads whose process died: their images return to `queued` when their deadline is past.
use crate::{claim, image::Image};
use reconcile::{Next, Pending, Reconciler, Work};
use resource::{Resource as _, Result};
use store::Table;

/// See the module.
#[derive(Debug, Default)]
pub struct Uploads;

impl Reconciler for Uploads {
    fn name(&self) -> &'static str {
        "image-uploads"
    }
    fn tables(&self) -> Vec<&'static Table> {
        vec![&Image::DEF.table]
    }
    fn reconcile<'a>(&'a self, key: &'a str, work: &'a Work) -> Pending<'a, Result<Next>> {
        Box::pin(async move {
            let id = key.rsplit('/').next().unwrap_or_default().to_owned();
            let found = resource::read::<Image>(&work.db.read(), &id)?;
            let Some(upload) = found.and_then(|image| image.body.upload) else { return Ok(Next::Done) };
            let now = work.db.now();
            if now < upload.until {
                return Ok(Next::After(upload.until.since(now)));
            }
            tracing::info!(image = %id, "An upload died; its image is queued again");
            work.transact(move |tx| {
                // It may have been renewed meanwhile.
                let renewed =
                    resource::load::<Image>(tx, &id)?.and_then(|image| image.body.upload).is_some_and(|u| u.until > now);
                if renewed { Ok(()) } else { claim::release(tx, &id, &upload.id) }
            })
            .await?;
            Ok(Next::Done)
        })
    }
}
