//! Which blobs rows name, and where they have to be: what a sweep keeps, and what the cache may give up.
use crate::{
    claim::blob_of,
    image::{Image, Import, places},
    stores::LOCAL,
};
use resource::Resource as _;
use serde::Deserialize as _;
use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};
use store::Db;

/// Blobs that rows name.
#[derive(Default)]
pub(crate) struct Named {
    /// By the directory that has to have them.
    here: HashMap<String, HashSet<String>>,
    /// Those that another store has.
    pub(crate) elsewhere: HashSet<String>,
}

static NONE: LazyLock<HashSet<String>> = LazyLock::new(HashSet::new);

impl Named {
    pub(crate) fn of(db: &Db) -> Self {
        let reader = db.read();
        let mut out = Self::default();
        for row in reader.all(&Image::DEF.table).filter_map(|r| r.value().as_object()) {
            out.add(row);
        }
        out
    }

    fn add(&mut self, row: &resource::Map) {
        let blob = blob_of(row).map(str::to_owned);
        let staged = row.get("staged").and_then(|s| s["blob"].as_str()).map(str::to_owned);
        for place in places(row) {
            match (&blob, place.key) {
                (Some(blob), None) => self.name(&place.store, blob),
                (Some(blob), Some(_)) => {
                    self.elsewhere.insert(blob.clone());
                }
                (None, _) => {}
            }
        }
        if let Some(staged) = &staged {
            self.name(LOCAL, staged);
        }
        // An import takes the bytes from here, and what it brought to another directory counts from then on.
        let Some(import) = row.get("import").and_then(|i| Import::deserialize(i).ok()) else { return };
        if let Some(blob) = staged.or(blob) {
            self.name(LOCAL, &blob);
            import.done.iter().chain(&import.place).filter(|p| p.key.is_none()).for_each(|p| self.name(&p.store, &blob));
        }
    }

    fn name(&mut self, store: &str, blob: &str) {
        self.here.entry(store.to_owned()).or_default().insert(blob.to_owned());
    }

    pub(crate) fn of_store(&self, id: &str) -> &HashSet<String> {
        self.here.get(id).unwrap_or(&NONE)
    }
}
