//! Imports under way: fetches what is to come from the web, and gives each store the bytes, one after the other.
//!
//! Everything that a restart must know is in the image's row: what is still to do, and the place that is being written. A process that dies
//! in the middle leaves a place that is taken up by nobody; the next one aims at a new place, and the old one is garbage.
use crate::{
    App, Options,
    claim::blob_of,
    digest,
    image::{Image, Import, Place, Staged},
    signature::Signed,
    stores::Stores,
    transfer::{self, COPY, DIRECT},
    upload::{Declared, judge},
};
use reconcile::{Next, Pending, Reconciler, Work};
use resource::{Error, Object, Resource as _, Result};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use store::Table;

/// See the module.
pub struct Imports {
    app: Arc<App>,
}

impl Imports {
    pub fn new(stores: Arc<Stores>, options: Options) -> Self {
        Self { app: Arc::new(App { stores, options }) }
    }
}

impl Reconciler for Imports {
    fn name(&self) -> &'static str {
        "image-imports"
    }
    fn tables(&self) -> Vec<&'static Table> {
        vec![&Image::DEF.table]
    }
    fn concurrency(&self) -> usize {
        4
    }
    fn reconcile<'a>(&'a self, key: &'a str, work: &'a Work) -> Pending<'a, Result<Next>> {
        Box::pin(async move {
            let id = key.rsplit('/').next().unwrap_or_default();
            loop {
                let found = resource::read::<Image>(&work.db.read(), id)?;
                let Some(image) = found.filter(|image| !image.deleting()) else { return Ok(Next::Done) };
                let Some(import) = image.body.import.clone() else { return Ok(Next::Done) };
                self.step(&image, &import, work).await?;
                work.db.fresh().await?;
            }
        })
    }
}

/// Why an import cannot go on, in words for its owner.
struct Failed(String);

/// Bytes a second. Few imports run at once, and a server that drips would keep others waiting.
const SLOWEST: u64 = 64 << 10;

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = std::result::Result<T, Failed>>,
) -> std::result::Result<T, Failed> {
    let late = |_| Failed("It took too long; import it again.".into());
    tokio::time::timeout(limit, work).await.map_err(late)?
}

impl Imports {
    /// One step; afterwards the row says another one, or none.
    async fn step(&self, image: &Object<Image>, import: &Import, work: &Work) -> Result<()> {
        if work.db.now() >= import.until {
            return give_up(work, image, import, "It took too long; import it again.".into()).await;
        }
        if import.todo.is_empty() {
            return change(work, image, import, transfer::end).await;
        }
        let here = match import.method.as_str() {
            COPY => blob_of(&image.map).map(str::to_owned),
            _ => image.staged.as_ref().and_then(|staged| staged.blob.clone()),
        };
        match here {
            Some(blob) => match &import.signed {
                Some(signed) => self.verify(image, import, signed, &blob, work).await,
                None => self.give(image, import, &blob, work).await,
            },
            None if matches!(import.method.as_str(), DIRECT | COPY) => {
                give_up(work, image, import, "Its data is not there any more; upload it again.".into()).await
            }
            None => match within(import.until.since(work.db.now()), self.fetch(image, import)).await {
                Ok(staged) => {
                    change(work, image, import, move |_, image| {
                        image.staged = Some(staged.clone());
                        verified(image);
                        Ok(())
                    })
                    .await
                }
                Err(Failed(why)) => give_up(work, image, import, why).await,
            },
        }
    }

    /// Compares bytes that are here already with their signature.
    async fn verify(&self, image: &Object<Image>, import: &Import, signed: &Signed, blob: &str, work: &Work) -> Result<()> {
        let failed = |e: crate::blob::BlobError| Error::internal(base::chain(&e));
        let local = self.app.stores.base();
        local.keep(blob).await.map_err(failed)?;
        let opened = local.read_here(blob).await.map_err(failed)?;
        let hash = digest::of(opened.file(), signed.algorithm()).await.map_err(|e| Error::internal(e.to_string()))?;
        match signed.verify(Some(&hash)).await {
            Ok(()) => {
                change(work, image, import, |_, image| {
                    verified(image);
                    Ok(())
                })
                .await
            }
            Err(why) => give_up(work, image, import, why.told(&image.id)).await,
        }
    }

    /// Gives the next store the bytes.
    async fn give(&self, image: &Object<Image>, import: &Import, blob: &str, work: &Work) -> Result<()> {
        let next = import.todo.first().map(String::as_str).unwrap_or_default();
        let Some(store) = self.app.stores.get(next) else {
            return change(work, image, import, |tx, image| {
                transfer::missed(image, tx);
                Ok(())
            })
            .await;
        };
        let place = store.place(&image.id);
        let aimed = place.clone();
        change(work, image, import, move |tx, image| {
            transfer::aim(image, tx, aimed.clone());
            Ok(())
        })
        .await?;
        let put = self.app.stores.put(blob, &place).await;
        let arrived = put.is_ok();
        change(work, image, import, move |tx, image| {
            // Another run may have aimed elsewhere meanwhile: what is here then, nobody wants.
            if image.import.as_ref().and_then(|i| i.place.as_ref()) != Some(&place) {
                return Ok(());
            }
            if arrived {
                transfer::arrived(image);
            } else {
                transfer::missed(image, tx);
            }
            Ok(())
        })
        .await?;
        put.map_err(|e| Error::internal(base::chain(&e)))
    }

    /// Takes the bytes from the web into `local`, where they wait for their stores.
    async fn fetch(&self, image: &Object<Image>, import: &Import) -> std::result::Result<Staged, Failed> {
        let (uri, rules) = match (&import.uri, &self.app.options.web) {
            (Some(uri), Some(rules)) => (uri, rules),
            _ => return Err(Failed("Nothing is fetched from the web here; upload the data.".into())),
        };
        let refused = |e: web::Error| Failed(format!("{}.", base::chain(&e)));
        let kept = |e: crate::blob::BlobError| Failed(format!("{}.", base::chain(&e)));
        let mut fetched = web::fetch::open(uri, rules).await.map_err(refused)?;
        let limit = self.app.options.max_size;
        let mut writer = self.app.stores.base().writer(limit).await.map_err(kept)?;
        if let Some(signed) = &import.signed {
            writer.also(signed.algorithm()).map_err(kept)?;
        }
        let started = Instant::now();
        while let Some(bytes) = fetched.next().await.map_err(refused)? {
            writer.write(&bytes).await.map_err(kept)?;
            let seconds = started.elapsed().as_secs();
            if seconds > 60 && writer.size() / seconds < SLOWEST {
                return Err(Failed("The server sends too slowly; import from another one.".into()));
            }
        }
        if fetched.length.is_some_and(|length| length != writer.size()) {
            return Err(Failed("The server ended before the data did; import it again.".into()));
        }
        let sealed = writer.seal().await.map_err(kept)?;
        if let Some(signed) = &import.signed {
            signed.verify(sealed.also()).await.map_err(|e| Failed(e.told(&image.id)))?;
        }
        let declared = Declared {
            disk_format: image.disk_format.clone().unwrap_or_default(),
            container_format: image.container_format.clone().unwrap_or_default(),
        };
        let staged = judge(&self.app.options, &declared, &sealed);
        if let Some(refusal) = staged.refusal {
            return Err(Failed(refusal));
        }
        let info = sealed.publish().await.map_err(kept)?;
        if let Some((algorithm, wanted)) = &import.hash {
            let opened = self.app.stores.base().read_here(&info.blob).await.map_err(kept)?;
            let found = digest::hex_of(opened.file(), algorithm).await.map_err(|e| Failed(format!("{e}.")))?;
            if found != wanted.to_ascii_lowercase() {
                return Err(Failed(format!(
                    "The data at the location has the {algorithm} {found}, and not the one that was announced."
                )));
            }
        }
        Ok(staged)
    }
}

/// The data has its signature: that need not be seen again.
fn verified(image: &mut Image) {
    if let Some(import) = &mut image.import {
        import.signed = None;
    }
}

/// Changes the row, if this import still owns it.
async fn change<F>(work: &Work, image: &Object<Image>, import: &Import, mut change: F) -> Result<()>
where
    F: FnMut(&mut resource::Tx<'_>, &mut Object<Image>) -> Result<()> + Send + 'static,
{
    let (id, task) = (image.id.clone(), import.task.clone());
    work.transact(move |tx| {
        let found = resource::load::<Image>(tx, &id)?.filter(|image| image.import.as_ref().is_some_and(|i| i.task == task));
        let Some(mut image) = found else { return Ok(()) };
        change(tx, &mut image)?;
        image.save(tx)
    })
    .await
}

async fn give_up(work: &Work, image: &Object<Image>, import: &Import, why: String) -> Result<()> {
    tracing::info!(image = %image.id, why, "An import failed");
    change(work, image, import, move |tx, image| {
        if let Some(import) = &mut image.import {
            transfer::hopeless(import);
        }
        transfer::settle(tx, image, Some(why.clone()))
    })
    .await
}

/// Every place of an image: what goes with it.
pub(crate) fn all_places(image: &Image) -> Vec<Place> {
    let import = image.import.iter().flat_map(|import| import.done.iter().chain(&import.place));
    let upload = image.upload.iter().flat_map(|upload| &upload.place);
    image.places.iter().chain(import).chain(upload).cloned().collect()
}
