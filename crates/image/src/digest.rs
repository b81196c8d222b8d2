//! Hashes that others announce for data.
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc};
use tokio::task::spawn_blocking;

/// Algorithms, and the hex digits of their values.
pub(crate) const ALGORITHMS: [(&str, usize); 4] = [("sha1", 40), ("sha256", 64), ("sha512", 128), ("md5", 32)];

/// The hash of a file, in lower-case hex.
pub(crate) async fn of(file: Arc<File>, algorithm: &str) -> io::Result<String> {
    let algorithm = algorithm.to_owned();
    let work = move || match algorithm.as_str() {
        "sha1" => hash::<Sha1>(&file),
        "sha256" => hash::<Sha256>(&file),
        "sha512" => hash::<Sha512>(&file),
        "md5" => hash::<Md5>(&file),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, format!("the hash algorithm {algorithm} is not known here"))),
    };
    spawn_blocking(work).await.map_err(io::Error::other).flatten()
}

fn hash<D: Digest>(file: &File) -> io::Result<String> {
    let (mut hash, mut buf, mut at) = (D::new(), vec![0; 1 << 20], 0);
    loop {
        match file.read_at(&mut buf, at)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => {
                hash.update(&buf[..count]);
                at += count as u64;
            }
        }
    }
}
