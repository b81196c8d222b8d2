//! The cache: blobs in `local` of images that are only in other stores, as the API shows and steers it.
//!
//! Each controller has its own, and answers for its own, as Glance's nodes do. What nodes fetched or an administrator asked for is in it;
//! it gives up what was used longest ago when it grows beyond its bound. Hits and the queue are this process's memory: hints, whose loss
//! costs nothing but time.
use crate::{
    App,
    blob::{Stored, Swept},
    claim::blob_of,
    image::Image,
    named::Named,
    rest::look,
    stores::{LOCAL, Stores},
};
use api::{Access, Call, Reply, Route};
use resource::{Error, Resource as _, Result};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

/// What this process remembers of its cache.
#[derive(Default)]
pub(crate) struct Hints {
    /// By blob: how often it was given out, and when last.
    hits: Mutex<HashMap<String, (u64, SystemTime)>>,
    /// Images that are to be brought.
    queue: Mutex<Vec<String>>,
    /// Whose turn it is to be brought.
    turn: tokio::sync::Mutex<()>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hints {
    pub(crate) fn hit(&self, blob: &str) {
        let mut hits = locked(&self.hits);
        let (count, last) = hits.entry(blob.to_owned()).or_insert((0, SystemTime::now()));
        *count += 1;
        *last = SystemTime::now();
    }
}

impl Stores {
    /// Blobs that are here for other stores only, newest use first.
    async fn cached(&self, named: &Named) -> Result<Vec<Stored>> {
        let mut stored = self.base().list().await.map_err(|e| Error::internal(base::chain(&e)))?;
        stored.retain(|s| named.elsewhere.contains(&s.blob) && !named.of_store(LOCAL).contains(&s.blob));
        stored.sort_by_key(|s| std::cmp::Reverse(s.modified));
        Ok(stored)
    }

    /// Gives up what is beyond the bound and was not used within `grace`.
    pub(crate) async fn prune(&self, named: &Named, bound: u64, grace: Duration) -> Result<Swept> {
        let mut room = bound;
        let mut doomed = HashSet::new();
        for stored in self.cached(named).await? {
            match room.checked_sub(stored.size) {
                Some(left) => room = left,
                None => drop(doomed.insert(stored.blob)),
            }
        }
        let swept = self.base().sweep(SystemTime::now(), grace, &|blob| !doomed.contains(blob)).await;
        swept.map_err(|e| Error::internal(base::chain(&e)))
    }

    /// Gives up one blob, if it is here for other stores only.
    async fn give_up(&self, named: &Named, blob: &str) -> Result<bool> {
        if !self.cached(named).await?.iter().any(|stored| stored.blob == blob) {
            return Ok(false);
        }
        self.base().delete(blob).await.map_err(|e| Error::internal(base::chain(&e)))
    }
}

/// Is there anything to be cached?
pub(crate) fn is_offered(app: &App) -> bool {
    app.options.cache > 0 && app.stores.all().len() > 1
}

pub(crate) fn routes(app: &Arc<App>) -> Vec<Route> {
    let route = |method, path, rule, handler: fn(Arc<App>, Call) -> Answer| {
        let app = app.clone();
        Route::new(method, path, Access::Rule(rule, "role:admin"), move |call| handler(app.clone(), call))
    };
    vec![
        route("GET", "/v2/cache", "cache_list", |app, call| Box::pin(state(app, call))),
        route("DELETE", "/v2/cache", "cache_delete", |app, call| Box::pin(clear(app, call))),
        route("PUT", "/v2/cache/{id}", "cache_image", |app, call| Box::pin(enqueue(app, call))),
        route("DELETE", "/v2/cache/{id}", "cache_delete", |app, call| Box::pin(remove(app, call))),
        route("POST", "/v2/cache/clean", "cache_clean", |app, call| Box::pin(clean(app, call))),
        route("POST", "/v2/cache/prune", "cache_prune", |app, call| Box::pin(prune(app, call))),
    ]
}

type Answer = std::pin::Pin<Box<dyn Future<Output = Result<Reply>> + Send>>;

fn offered(app: &App) -> Result<()> {
    if is_offered(app) {
        return Ok(());
    }
    Err(Error::not_found("Caching via API is not supported at this site: there is no store but local, or the cache has no room."))
}

fn epoch(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

async fn state(app: Arc<App>, call: Call) -> Result<Reply> {
    offered(&app)?;
    let stored = app.stores.cached(&Named::of(&call.cloud.db)).await?;
    let reader = call.reader();
    let hits = locked(&app.stores.hints().hits);
    let mut shown = Vec::new();
    for stored in stored {
        let (count, last) = hits.get(&stored.blob).copied().unwrap_or((0, stored.modified));
        // The same content may be several images'.
        for row in reader.find(&Image::DEF.table, "os_hash_value", &stored.blob) {
            shown.push(json!({
                "image_id": row.id(), "hits": count, "size": stored.size, "checksum": row.field("checksum"),
                "last_accessed": epoch(last), "last_modified": epoch(stored.modified),
            }));
        }
    }
    let queued: Vec<String> = locked(&app.stores.hints().queue).clone();
    Ok(Reply::ok(json!({"cached_images": shown, "queued_images": queued})))
}

async fn clear(app: Arc<App>, call: Call) -> Result<Reply> {
    offered(&app)?;
    let target = call.header("x-image-cache-clear-target").unwrap_or_default().to_ascii_lowercase();
    if !matches!(target.as_str(), "" | "cache" | "queue") {
        return Err(Error::bad_request("If provided 'x-image-cache-clear-target' must be 'cache', 'queue' or empty string."));
    }
    if target != "cache" {
        locked(&app.stores.hints().queue).clear();
    }
    if target != "queue" {
        app.stores.prune(&Named::of(&call.cloud.db), 0, Duration::ZERO).await?;
    }
    Ok(Reply::empty(204))
}

async fn enqueue(app: Arc<App>, call: Call) -> Result<Reply> {
    let image = look(&call)?;
    offered(&app)?;
    if image.status != "active" {
        return Err(Error::bad_request("Only images with status active can be targeted for queueing"));
    }
    let Some(blob) = blob_of(&image.map).map(str::to_owned) else { return Ok(Reply::empty(202)) };
    {
        let mut queue = locked(&app.stores.hints().queue);
        if queue.contains(&image.id) {
            return Ok(Reply::empty(202));
        }
        queue.push(image.id.clone());
    }
    tokio::spawn(async move {
        let hints = app.stores.hints();
        let _turn = hints.turn.lock().await;
        // It may have been taken out meanwhile.
        if locked(&hints.queue).contains(&image.id) {
            if let Err(e) = app.stores.base().keep(&blob).await {
                tracing::warn!(image = %image.id, error = base::chain(&e), "An image did not come into the cache; ask for it again");
            }
            locked(&hints.queue).retain(|id| *id != image.id);
        }
    });
    Ok(Reply::empty(202))
}

async fn remove(app: Arc<App>, call: Call) -> Result<Reply> {
    let image = look(&call)?;
    offered(&app)?;
    locked(&app.stores.hints().queue).retain(|id| *id != image.id);
    if let Some(blob) = blob_of(&image.map) {
        app.stores.give_up(&Named::of(&call.cloud.db), blob).await?;
    }
    Ok(Reply::empty(204))
}

/// A dead writer's files are found by their locks; there is nothing else that could be half.
async fn clean(app: Arc<App>, _call: Call) -> Result<Reply> {
    offered(&app)?;
    let keep_all = |_: &str| true;
    let swept = app.stores.base().sweep(SystemTime::now(), Duration::ZERO, &keep_all).await;
    swept.map_err(|e| Error::internal(base::chain(&e)))?;
    Ok(Reply::ok(Value::Null))
}

async fn prune(app: Arc<App>, call: Call) -> Result<Reply> {
    offered(&app)?;
    let swept = app.stores.prune(&Named::of(&call.cloud.db), app.options.cache, Duration::ZERO).await?;
    Ok(Reply::ok(json!({"total_files_pruned": swept.blobs.len(), "total_bytes_pruned": swept.bytes})))
}
