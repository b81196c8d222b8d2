//! Makes an image from a server's root disk. It goes on beside the server's own loop; the guest keeps running.
use crate::{Error, agent::Shared};
use assign::{BlobInfo, Report, SnapshotAssignment, SnapshotReport};
use std::sync::Arc;

/// Works until the snapshot is stored or has failed for good, and reports it. Dropped when it is not wanted any more.
pub(crate) async fn make(shared: Arc<Shared>, wanted: Arc<SnapshotAssignment>) {
    let mut failures = 0;
    let result = loop {
        match attempt(&shared, &wanted).await {
            Ok(blob) => break Ok(blob),
            Err(error) => {
                failures += 1;
                let (image, server, request) = (&wanted.image_id, &wanted.server_id, &wanted.request_id);
                tracing::warn!(image, server, request, error = base::chain(&error), "a snapshot failed");
                if !error.is_transient() || failures >= shared.config.attempts {
                    break Err(error.to_string());
                }
            }
        }
        tokio::time::sleep(shared.config.retry.jittered(failures - 1)).await;
    };
    shared.board.put(Report::Snapshot(SnapshotReport { image_id: wanted.image_id.clone(), result }));
}

async fn attempt(shared: &Shared, wanted: &SnapshotAssignment) -> Result<BlobInfo, Error> {
    let id = wanted.server_id.as_str();
    let known = shared.memory.get(id);
    let server = shared.server(id).filter(|_| known.disk.is_some()).ok_or_else(|| Error::NotHere(id.to_owned()))?;
    // A stopped server must not start while its disk is read; a running one is copied by its own process.
    let _turn = if known.process.is_none() { Some(server.turn.lock().await) } else { None };
    let path = shared.ports.hypervisor.snapshot(id, &wanted.image_id, &wanted.format).await?;
    let stored = shared.blobs.store(&path).await;
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "a snapshot's file is not removed"),
    }
    stored.map_err(Error::io(format!("storing image {}", wanted.image_id)))
}
