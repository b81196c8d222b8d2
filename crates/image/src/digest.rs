//! Hashes that others announce for data, or sign.
use crate::blob::hex;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512, digest::DynDigest};
use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc};
use tokio::task::spawn_blocking;

/// Algorithms that are announced, and the hex digits of their values.
pub(crate) const ALGORITHMS: [(&str, usize); 4] = [("sha1", 40), ("sha256", 64), ("sha512", 128), ("md5", 32)];

/// A hash of data that comes in parts.
pub(crate) type Hash = Box<dyn DynDigest + Send>;

/// Begins one of an algorithm in lower case and without a hyphen. Fails with `Unsupported`.
pub(crate) fn begin(algorithm: &str) -> io::Result<Hash> {
    Ok(match algorithm {
        "sha1" => Box::new(Sha1::new()),
        "sha224" => Box::new(Sha224::new()),
        "sha256" => Box::new(Sha256::new()),
        "sha384" => Box::new(Sha384::new()),
        "sha512" => Box::new(Sha512::new()),
        "md5" => Box::new(Md5::new()),
        _ => return Err(io::Error::new(io::ErrorKind::Unsupported, format!("the hash algorithm {algorithm} is not known here"))),
    })
}

/// The hash of a file.
pub(crate) async fn of(file: Arc<File>, algorithm: &str) -> io::Result<Box<[u8]>> {
    let mut hash = begin(algorithm)?;
    let work = move || {
        let (mut buf, mut at) = (vec![0; 1 << 20], 0);
        loop {
            match file.read_at(&mut buf, at)? {
                0 => return Ok(hash.finalize()),
                count => {
                    hash.update(&buf[..count]);
                    at += count as u64;
                }
            }
        }
    };
    spawn_blocking(work).await.map_err(io::Error::other).flatten()
}

/// As [`of`], in lower-case hex.
pub(crate) async fn hex_of(file: Arc<File>, algorithm: &str) -> io::Result<String> {
    of(file, algorithm).await.map(|hash| hex(&hash))
}
