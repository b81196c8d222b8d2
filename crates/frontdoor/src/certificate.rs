//! A certificate and its key in one file, as haproxy wants them.
//!
//! The file's name tells its content: a renewed certificate is another file, so that the configuration in force never names a file
//! that has changed below it.
use crate::{Certificate, Error};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

const PREFIX: &str = "certificate-";

pub(crate) fn file(act: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::File { act, path: path.into(), source }
}

/// Writes a file whole or not at all.
pub(crate) fn write(path: &Path, text: &[u8], mode: u32) -> Result<(), Error> {
    let next = path.with_extension("next");
    let written = || {
        let mut f = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&next)?;
        f.write_all(text)?;
        f.sync_all()?;
        fs::rename(&next, path)
    };
    written().map_err(file("write", path))
}

/// Puts both into one file of `dir` and names it.
pub(crate) fn bundle(of: &Certificate, dir: &Path) -> Result<PathBuf, Error> {
    let mut text = fs::read(&of.certificate).map_err(file("read", &of.certificate))?;
    text.push(b'\n');
    text.extend(fs::read(&of.key).map_err(file("read", &of.key))?);
    let hash: String = Sha256::digest(&text).iter().take(8).map(|b| format!("{b:02x}")).collect();
    let path = dir.join(format!("{PREFIX}{hash}.pem"));
    if !path.exists() {
        write(&path, &text, 0o600)?;
    }
    Ok(path)
}

/// Removes the bundles of `dir` that are not among `used`.
pub(crate) fn sweep(dir: &Path, used: &[&Path]) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && !used.contains(&path.as_path()) {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_renewed_certificate_is_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let of = Certificate { certificate: dir.path().join("c"), key: dir.path().join("k") };
        fs::write(&of.certificate, "one").unwrap();
        fs::write(&of.key, "key").unwrap();
        let first = bundle(&of, dir.path()).unwrap();
        assert_eq!(first, bundle(&of, dir.path()).unwrap());
        assert_eq!(fs::read_to_string(&first).unwrap(), "one\nkey");
        assert_eq!(fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&of.certificate, "two").unwrap();
        let second = bundle(&of, dir.path()).unwrap();
        assert_ne!(first, second);
        sweep(dir.path(), &[&second]);
        assert!(!first.exists() && second.exists() && of.key.exists());
    }
}
