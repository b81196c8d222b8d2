//! Volumes of a simulated host: what is asked for is there at once.
use super::lock;
use crate::{
    Error,
    driver::{Nudge, Owned, Volumes},
    volume::plan::{Data, Engine, Seen, Served, Step},
};
use assign::{Blobs, Export, LiveExport, Pending, VolumeAssignment, VolumeSource};
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex},
};

/// The volumes of a simulated host.
pub struct Shelf {
    pub(super) volumes: Mutex<HashMap<String, Seen>>,
    pub(super) dir: PathBuf,
    pub(super) blobs: Arc<dyn Blobs>,
}

impl Shelf {
    /// What there is of each volume.
    pub fn volumes(&self) -> BTreeMap<String, Seen> {
        lock(&self.volumes).iter().map(|(id, v)| (id.clone(), v.clone())).collect()
    }

    async fn upload(&self, image: &str) -> Result<assign::BlobInfo, Error> {
        let path = self.dir.join(format!("upload-{image}"));
        std::fs::write(&path, [0u8; 512]).map_err(Error::path("write", &path))?;
        self.blobs.store(&path).await.map_err(Error::io(format!("storing image {image}")))
    }

    async fn act(&self, step: &Step, a: &VolumeAssignment) -> Result<(), Error> {
        let stored = match step {
            Step::StartUpload(u) => Some(self.upload(&u.image_id).await.map_err(|e| e.to_string())),
            _ => None,
        };
        let mut all = lock(&self.volumes);
        if let (Step::Make | Step::Replace, VolumeSource::Snapshot { volume_id, snapshot_id }) = (step, &a.source)
            && !all.get(volume_id).is_some_and(|v| v.snapshots.contains(snapshot_id))
        {
            return Err(Error::SourceMissing(snapshot_id.clone()));
        }
        if *step == Step::Remove {
            all.remove(&a.id);
            return Ok(());
        }
        let volume = all.entry(a.id.clone()).or_default();
        match step {
            Step::Make | Step::Replace | Step::Grow => {
                volume.data = Data::Present { size_gib: a.size_gib, generation: a.generation };
            }
            Step::TakeSnapshot(id) => drop(volume.snapshots.insert(id.clone())),
            Step::DropSnapshot(id) => drop(volume.snapshots.remove(id)),
            Step::Serve(export) => {
                volume.engine = Engine::On;
                volume.exports.push(Served { export: export.clone(), live: live(export) });
            }
            Step::Revoke(export) => volume.exports.retain(|s| s.export != *export),
            Step::EndEngine => (volume.engine, volume.exports) = (Engine::Off, Vec::new()),
            Step::StartUpload(u) => {
                if let Some(stored) = stored {
                    volume.uploads.insert(u.image_id.clone(), stored);
                }
            }
            Step::ForgetUpload(image) => drop(volume.uploads.remove(image)),
            Step::Follow | Step::Merge | Step::Remove => {}
        }
        Ok(())
    }
}

fn live(export: &Export) -> LiveExport {
    let (attachment_id, epoch) = (export.attachment_id.clone(), export.epoch);
    let (endpoint, export) = (format!("unix:/sim/{attachment_id}"), format!("{attachment_id}-{epoch}"));
    LiveExport { attachment_id, epoch, endpoint, export }
}

impl Volumes for Shelf {
    fn on_change(&self, _: Nudge) {
        // Nothing changes here by itself.
    }
    fn observe<'a>(&'a self, id: &'a str) -> Pending<'a, Result<Seen, Error>> {
        Box::pin(async move { Ok(lock(&self.volumes).get(id).cloned().unwrap_or_default()) })
    }
    fn carry_out<'a>(&'a self, step: &'a Step, volume: &'a VolumeAssignment) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.act(step, volume))
    }
    fn sweep<'a>(&'a self, _: Owned<'a>) -> Pending<'a, Vec<String>> {
        Box::pin(async { Vec::new() })
    }
}
