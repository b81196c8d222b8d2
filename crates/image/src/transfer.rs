//! The steps of an import, as changes of the image's row.
//!
//! ```text
//!            ┌────────── each store in turn ──────────┐
//!   [fetch] ─┴─▶ aim ─▶ arrived │ missed (thrice) ────┴─▶ end: active │ queued │ still active (copy)
//! ```
use crate::{
    garbage::drop_place,
    image::{Image, Import, Place, Staged},
    tasks,
};
use resource::{Object, Result, Tx, engine};

pub(crate) const DIRECT: &str = "glance-direct";
pub(crate) const WEB: &str = "web-download";
pub(crate) const COPY: &str = "copy-image";
pub(crate) const LOCATION: &str = "location";

/// A store that failed so often is not tried again.
const TRIES: u32 = 3;

/// The next store is getting the bytes there.
pub(crate) fn aim(image: &mut Image, tx: &mut Tx<'_>, place: Place) {
    if let Some(import) = &mut image.import
        && let Some(stale) = import.place.replace(place)
    {
        drop_place(tx, &stale);
    }
}

/// It has them.
pub(crate) fn arrived(image: &mut Image) {
    let Some(import) = &mut image.import else { return };
    let Some(place) = import.place.take() else { return };
    import.todo.retain(|id| *id != place.store);
    import.attempts = 0;
    import.done.push(place.clone());
    if !import.all {
        // What was made before there were other stores says nothing of where it is.
        if import.method == COPY && image.places.is_empty() {
            image.places.push(Place::local());
        }
        image.places.push(place);
        activate(image);
    }
}

/// It did not take them. True if it is not tried again.
pub(crate) fn missed(image: &mut Image, tx: &mut Tx<'_>) -> bool {
    let Some(import) = &mut image.import else { return true };
    if let Some(place) = import.place.take() {
        drop_place(tx, &place);
    }
    import.attempts += 1;
    if import.attempts < TRIES || import.todo.is_empty() {
        return false;
    }
    import.attempts = 0;
    import.failed.push(import.todo.remove(0));
    if import.all {
        // The others cannot help any more.
        import.todo.clear();
    }
    true
}

/// No store will get anything.
pub(crate) fn hopeless(import: &mut Import) {
    import.failed.append(&mut import.todo);
}

/// Staged data goes to `local`, where it is already, or was refused when it came.
pub(crate) fn at_once(image: &mut Image) {
    let refused = image.staged.as_ref().is_none_or(|staged| staged.refusal.is_some());
    let Some(import) = &mut image.import else { return };
    if refused {
        hopeless(import);
    } else {
        import.place = Some(Place::local());
        arrived(image);
    }
}

/// The staged bytes are the image's.
fn activate(image: &mut Image) {
    let Some(Staged { blob: Some(blob), checksum, size, virtual_size, .. }) = &image.staged else { return };
    image.size = Some(*size);
    image.virtual_size = Some(*virtual_size);
    image.checksum = Some(checksum.clone());
    image.os_hash_algo = Some("sha512".into());
    image.os_hash_value = Some(blob.clone());
    image.status = "active".into();
}

/// Ends the import when no store is left to be tried; `why` is more than the row knows.
pub(crate) fn settle(tx: &mut Tx<'_>, image: &mut Object<Image>, why: Option<String>) -> Result<()> {
    let Some(import) = image.body.import.take() else { return Ok(()) };
    let copy = import.method == COPY;
    let failed = import.failed.join(", ");
    let refusal = image.staged.as_ref().and_then(|s| s.refusal.clone());
    let failure = match (import.failed.is_empty(), import.all, import.done.is_empty()) {
        (false, true, _) | (false, false, true) => Some(
            why.or(refusal)
                .unwrap_or_else(|| format!("The data did not reach {failed}; see that the store runs, and import again.")),
        ),
        _ => None,
    };
    image.import_failed = !import.failed.is_empty();
    match &failure {
        Some(_) => {
            import.done.iter().chain(&import.place).for_each(|place| drop_place(tx, place));
            if !copy {
                image.status = "queued".into();
            }
        }
        None if import.all => {
            let mut places = if copy { crate::image::places(&image.map) } else { Vec::new() };
            places.extend(import.done);
            image.places = places;
            if !copy {
                image.announced_hash = import.hash;
            }
            activate(image);
        }
        None => {}
    }
    image.failed_stores = Some(import.failed);
    image.staged = None;
    tasks::end(tx, &import.task, failure.as_deref());
    if let Some(failure) = &failure {
        let (id, request) = (image.id.clone(), image.request_id().to_owned());
        engine::tell(tx, &id, &request, &format!("Its import failed: {failure}"));
    }
    Ok(())
}

/// As [`settle`], when that is all.
pub(crate) fn end(tx: &mut Tx<'_>, image: &mut Object<Image>) -> Result<()> {
    settle(tx, image, None)
}
