//! An image's bytes in and out, beside what this machine's disk does with a file of the same size, and what the cloud needs for it.
//!
//! The file is copied in the same directory and synced, which is the promise of an upload: its bytes are on the disk when it is answered.
//! A download promises nothing of the kind; its share is of the same copy.
use crate::{Result, cloud::Cloud, table::Table};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{
    Request,
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::handshake,
};
use hyper_util::rt::TokioIo;
use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, sync::mpsc};

const PIECE: usize = 1 << 20;

/// Measures with an image of `mib` MiB.
pub(crate) async fn measure(cloud: &Cloud, token: &str, mib: u64, table: &mut Table) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    tokio::task::spawn_blocking({
        let source = source.clone();
        move || fill(&source, mib)
    })
    .await??;
    let mut copies = vec![copy(source.clone(), dir.path().join("copy")).await?];
    let image = cloud.queued_image(token).await?;
    let path = format!("/image/v2/images/{image}/file");

    let before = cloud.memory_mib()?;
    let done = AtomicBool::new(false);
    let started = Instant::now();
    let upload = async {
        let outcome = send(cloud, token, "PUT", &path, FromFile::open(source.clone(), mib)).await;
        done.store(true, Ordering::SeqCst);
        outcome
    };
    let (answer, most) = tokio::join!(upload, most_memory(cloud, &done));
    finish(answer?, 204).await?;
    let uploaded = started.elapsed();
    copies.push(copy(source.clone(), dir.path().join("copy")).await?);

    let started = Instant::now();
    let size = finish(send(cloud, token, "GET", &path, FromFile::nothing()).await?, 200).await?;
    let downloaded = started.elapsed();
    if size != mib << 20 {
        return Err(format!("{size} bytes came back of an image of {mib} MiB").into());
    }
    copies.push(copy(source.clone(), dir.path().join("copy")).await?);
    copies.sort_unstable();
    // Before, between and after: disks of shared machines are moody.
    let copied = copies[1];
    let share = |took: Duration| copied.as_secs_f64() / took.as_secs_f64();
    let speed = |took: Duration| mib as f64 / took.as_secs_f64();
    table.add("file copy and sync on the same disk (MiB/s, median of 3)", speed(copied));
    table.add("image upload (MiB/s)", speed(uploaded));
    table.add("image download (MiB/s)", speed(downloaded));
    table.add("image upload (share of the speed of a file copy)", share(uploaded));
    table.add("image download (share of the speed of a file copy)", share(downloaded));
    table.add("memory while an image is uploaded (MiB more, PSS)", most? - before);
    Ok(())
}

/// Writes bytes that repeat nowhere near.
fn fill(path: &Path, mib: u64) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let mut state = 88_172_645_463_325_252_u64;
    let mut piece = vec![0; PIECE];
    for _ in 0..mib {
        for word in piece.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&piece)?;
    }
    file.sync_all()
}

/// How long a copy takes until it is on the disk.
async fn copy(from: PathBuf, to: PathBuf) -> Result<Duration> {
    let work = move || {
        let started = Instant::now();
        let (mut from, mut file) = (File::open(from)?, File::create(&to)?);
        std::io::copy(&mut from, &mut file)?;
        file.sync_all()?;
        let took = started.elapsed();
        std::fs::remove_file(to)?;
        Ok::<_, std::io::Error>(took)
    };
    Ok(tokio::task::spawn_blocking(work).await??)
}

/// The most that the control plane had while `done` was not so.
async fn most_memory(cloud: &Cloud, done: &AtomicBool) -> Result<f64> {
    let mut most = cloud.memory_mib()?;
    while !done.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        most = most.max(cloud.memory_mib()?);
    }
    Ok(most)
}

async fn send(cloud: &Cloud, token: &str, method: &str, path: &str, body: FromFile) -> Result<hyper::Response<Incoming>> {
    let (mut sender, connection) = handshake(TokioIo::new(TcpStream::connect(&cloud.addr).await?)).await?;
    // It ends with the connection.
    tokio::spawn(async move { connection.await.ok() });
    let request = Request::builder().method(method).uri(path).header("host", &cloud.addr).header("x-auth-token", token);
    let request = request.header("content-type", "application/octet-stream").body(body)?;
    Ok(sender.send_request(request).await?)
}

/// Bytes of the answer's body.
async fn finish(answer: hyper::Response<Incoming>, wanted: u16) -> Result<u64> {
    let status = answer.status().as_u16();
    if status != wanted {
        return Err(format!("an image's bytes were answered with {status}").into());
    }
    let (mut body, mut size) = (answer.into_body(), 0);
    while let Some(frame) = body.frame().await {
        size += frame?.data_ref().map_or(0, Bytes::len) as u64;
    }
    Ok(size)
}

/// A request's body: a file that a thread of its own reads.
struct FromFile {
    pieces: mpsc::Receiver<std::io::Result<Bytes>>,
    left: u64,
}

impl FromFile {
    fn nothing() -> Self {
        Self { pieces: mpsc::channel(1).1, left: 0 }
    }

    fn open(path: PathBuf, mib: u64) -> Self {
        let (sender, pieces) = mpsc::channel(4);
        std::thread::spawn(move || {
            let read = || -> std::io::Result<()> {
                let mut file = File::open(&path)?;
                for _ in 0..mib {
                    let mut piece = vec![0; PIECE];
                    file.read_exact(&mut piece)?;
                    if sender.blocking_send(Ok(piece.into())).is_err() {
                        break;
                    }
                }
                Ok(())
            };
            if let Err(e) = read() {
                sender.blocking_send(Err(e)).ok();
            }
        });
        Self { pieces, left: mib << 20 }
    }
}

impl Body for FromFile {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        let piece = std::task::ready!(self.pieces.poll_recv(cx));
        if let Some(Ok(bytes)) = &piece {
            self.left = self.left.saturating_sub(bytes.len() as u64);
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
