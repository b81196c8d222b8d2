//! Copies a server's root disk into one file without a backing file: by the guest's own process while it runs, by `qemu-img` otherwise.
use crate::{
    Error,
    command::Tool,
    qemu::{Live, Qemu, cache, disks},
};
use serde_json::{Value, json};
use std::{path::Path, path::PathBuf, sync::Arc, time::Duration};

impl Qemu {
    pub(super) async fn copy_disk(&self, id: &str, image_id: &str, format: &str) -> Result<PathBuf, Error> {
        if !base::id::is_uuid(image_id) || !matches!(format, "raw" | "qcow2") {
            return Err(Error::Format { image: image_id.to_owned(), format: format.to_owned() });
        }
        let to = self.config.dir.join("snapshots").join(image_id);
        cache::remove(&to)?;
        let known = self.memory.get(id);
        let disk = known.disk.as_ref().ok_or_else(|| Error::DiskMissing(id.to_owned()))?;
        let from = disks::root(&self.dir(id), disk.generation);
        match self.live(id, &known).await? {
            Some(live) => {
                let rescued = known.process.as_ref().is_some_and(|p| p.rescue.is_some());
                let size = disks::virtual_size(&from, "qcow2")?;
                self.copy_live(live, if rescued { "disk1" } else { "disk0" }, &to, (format, size), self.user(id)).await?;
            }
            None => {
                std::fs::File::create(&to).map_err(Error::path("create", &to))?;
                disks::give(&to, self.user(id))?;
                Tool::limited("qemu-img", 2 << 30, 3600)
                    .user(self.user(id))
                    .args(["convert", "-f", "qcow2", "-O", format])
                    .args([&from, &to])
                    .run()
                    .await
                    .inspect_err(|_| drop(cache::remove(&to)))?;
            }
        }
        Ok(to)
    }

    async fn copy_live(
        &self,
        live: Arc<Live>,
        device: &str,
        to: &Path,
        (format, size): (&str, u64),
        owner: Option<u32>,
    ) -> Result<(), Error> {
        Tool::limited("qemu-img", 1 << 30, 30)
            .args(["create", "-q", "-f", format])
            .args([to])
            .args([size.to_string()])
            .run()
            .await?;
        disks::give(to, owner)?;
        let mut job = Job { is_open: true, live, node: format!("copy-{}", &base::id::hex()[..12]) };
        let qmp = &job.live.qmp;
        let target = json!({ "driver": format, "node-name": job.node,
            "file": { "driver": "file", "filename": to, "discard": "unmap" }, "discard": "unmap", "detect-zeroes": "unmap" });
        qmp.run("blockdev-add", target).await?;
        // The job outlives its end until it is dismissed, so that its result cannot be missed.
        let backup = json!({ "job-id": job.node, "device": device, "target": job.node, "sync": "full", "auto-dismiss": false });
        qmp.run("blockdev-backup", backup).await?;
        let result = job.finish().await;
        // Closing the file writes the rest of it: only then is the copy whole.
        job.close().await;
        result
    }
}

/// A copy under way; dropping it takes it out of the guest's process.
struct Job {
    live: Arc<Live>,
    node: String,
    is_open: bool,
}

impl Job {
    async fn finish(&self) -> Result<(), Error> {
        loop {
            let jobs = self.live.qmp.run("query-jobs", json!({})).await?;
            let job = jobs.as_array().and_then(|j| j.iter().find(|j| j["id"] == self.node.as_str())).cloned();
            match job {
                Some(j) if j["status"] == "concluded" => return read_end(&j),
                Some(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                None => return Err(Error::Silent("about a copy of its disk".into())),
            }
        }
    }
    async fn close(&mut self) {
        self.is_open = false;
        close(&self.live, &self.node).await;
    }
}

async fn close(live: &Live, node: &str) {
    // Each may be refused, because that much was never done.
    let _ = live.qmp.run("job-cancel", json!({ "id": node })).await;
    for _ in 0..100 {
        let _ = live.qmp.run("job-dismiss", json!({ "id": node })).await;
        if live.qmp.run("blockdev-del", json!({ "node-name": node })).await.is_ok() || !live.qmp.is_open() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn read_end(job: &Value) -> Result<(), Error> {
    match job["error"].as_str() {
        None => Ok(()),
        Some(e) if e.contains("No space") => Err(Error::NoSpace("a snapshot".into())),
        Some(e) => Err(Error::Tool { tool: "copying a disk".into(), cause: e.to_owned(), transient: true }),
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.is_open {
            let (live, node) = (self.live.clone(), self.node.clone());
            tokio::spawn(async move { close(&live, &node).await });
        }
    }
}
