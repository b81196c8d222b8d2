//! A file goes to a bucket in parts while it still grows, so that little is left to send when its last byte has come.
use std::{fs::File, sync::Arc};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use web::{
    Error,
    s3::{Multipart, Part},
};

/// Parts that are sent at the same time.
const AT_ONCE: usize = 3;

/// Bytes of a part. An upload has at most 10,000 of them: these are enough for a TiB.
fn part_size(number: u32) -> u64 {
    if number <= 1000 { 16 << 20 } else { 128 << 20 }
}

/// How much of the file is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reach {
    bytes: u64,
    /// It grows no more.
    last: bool,
}

/// An upload under way. Dropped before [`Push::finish`], it takes back what it sent.
pub(super) struct Push {
    upload: Multipart,
    reach: watch::Sender<Reach>,
    work: Option<JoinHandle<Result<Vec<Part>, Error>>>,
}

impl Push {
    /// Begins to send a file of which nothing is there yet.
    pub(super) fn start(upload: Multipart, file: Arc<File>) -> Self {
        let (reach, reached) = watch::channel(Reach { bytes: 0, last: false });
        let work = tokio::spawn(send(upload.clone(), file, reached));
        Self { upload, reach, work: Some(work) }
    }

    /// So many bytes of the file are there.
    pub(super) fn reach(&self, bytes: u64) {
        self.reach.send_replace(Reach { bytes, last: false });
    }

    /// Has it failed already?
    pub(super) fn is_broken(&self) -> bool {
        self.work.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Sends the rest, and makes the object of it.
    pub(super) async fn finish(mut self, size: u64) -> Result<(), Error> {
        self.reach.send_replace(Reach { bytes: size, last: true });
        let Some(work) = &mut self.work else { return Err(gone(std::io::ErrorKind::Interrupted.into())) };
        let parts = work.await.map_err(|e| gone(std::io::Error::other(e))).flatten()?;
        self.upload.complete(parts, size).await?;
        self.work = None;
        Ok(())
    }
}

fn gone(source: std::io::Error) -> Error {
    Error::File { source }
}

impl Drop for Push {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        work.abort();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let upload = self.upload.clone();
            // What it cannot take back now is found when the bucket is swept.
            runtime.spawn(async move { upload.abort().await.ok() });
        }
    }
}

async fn send(upload: Multipart, file: Arc<File>, mut reached: watch::Receiver<Reach>) -> Result<Vec<Part>, Error> {
    let (mut parts, mut running) = (Vec::new(), JoinSet::new());
    let (mut at, mut number) = (0, 1);
    loop {
        let reach = *reached.borrow_and_update();
        let Some(end) = next_part(at, number, reach) else {
            if reach.last && running.is_empty() {
                return Ok(parts);
            }
            tokio::select! {
                changed = reached.changed(), if !reach.last => {
                    if changed.is_err() {
                        return Err(gone(std::io::ErrorKind::Interrupted.into()));
                    }
                }
                Some(done) = running.join_next() => parts.push(settled(done)?),
            }
            continue;
        };
        if running.len() >= AT_ONCE
            && let Some(done) = running.join_next().await
        {
            parts.push(settled(done)?);
        }
        let (upload, file, start, this) = (upload.clone(), file.clone(), at, number);
        running.spawn(async move { upload.part(this, file, start..end).await });
        (at, number) = (end, number + 1);
    }
}

fn settled(done: Result<Result<Part, Error>, tokio::task::JoinError>) -> Result<Part, Error> {
    done.map_err(|e| gone(std::io::Error::other(e))).flatten()
}

/// Where the part that begins at `at` ends, if it can be sent. Only the last one may be short; an empty file is one empty part.
fn next_part(at: u64, number: u32, reach: Reach) -> Option<u64> {
    let size = part_size(number);
    match reach.bytes.saturating_sub(at) {
        there if there >= size => Some(at + size),
        there if reach.last && (there > 0 || number == 1) => Some(at + there),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_full_but_the_last() {
        const MIB: u64 = 1 << 20;
        let grows = |bytes| Reach { bytes, last: false };
        let ended = |bytes| Reach { bytes, last: true };
        assert_eq!(next_part(0, 1, grows(16 * MIB - 1)), None);
        assert_eq!(next_part(0, 1, grows(17 * MIB)), Some(16 * MIB));
        assert_eq!(next_part(16 * MIB, 2, ended(17 * MIB)), Some(17 * MIB));
        assert_eq!(next_part(17 * MIB, 3, ended(17 * MIB)), None);
        assert_eq!(next_part(0, 1, ended(0)), Some(0));
        assert_eq!(next_part(0, 1001, ended(200 * MIB)), Some(128 * MIB));
        assert!((1..=10_000).map(part_size).sum::<u64>() > 1 << 40);
    }
}
