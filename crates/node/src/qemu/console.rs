//! The serial console's log: two files, so that what is kept stays bounded.
//!
//! QEMU appends to `console.log`; when that is full, the agent copies it to `console.log.0` and empties it. QEMU opened it for appending, so it
//! goes on at the new end; bytes written between copy and cut are lost.
use crate::{Error, qemu::disks};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

fn files(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("console.log.0"), dir.join("console.log"))
}

/// Everything kept, or its last lines.
pub(crate) fn read(dir: &Path, lines: Option<usize>) -> Result<String, Error> {
    let (old, new) = files(dir);
    let mut bytes = Vec::new();
    for path in [old, new] {
        match fs::read(&path) {
            Ok(more) => bytes.extend(more),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::path("read", &path)(e)),
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(match lines {
        None => text.into_owned(),
        Some(n) => last_lines(&text, n).to_owned(),
    })
}

fn last_lines(text: &str, n: usize) -> &str {
    if n == 0 {
        return "";
    }
    let body = text.strip_suffix('\n').unwrap_or(text);
    let from = body.rmatch_indices('\n').nth(n - 1).map_or(0, |(i, _)| i + 1);
    &text[from..]
}

/// Empties a log that is full.
pub(crate) fn trim(dir: &Path, most: u64) -> io::Result<()> {
    let (old, new) = files(dir);
    match fs::metadata(&new) {
        Ok(m) if m.len() > most => {}
        Ok(_) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    }
    keep_tail(&new, &old, most)?;
    fs::File::options().write(true).open(&new)?.set_len(0)
}

fn keep_tail(from: &Path, to: &Path, most: u64) -> io::Result<()> {
    use std::io::{Read as _, Seek as _};
    let mut source = fs::File::open(from)?;
    let length = source.metadata()?.len();
    source.seek(io::SeekFrom::Start(length.saturating_sub(most)))?;
    io::copy(&mut source.take(most), &mut fs::File::create(to)?)?;
    disks::give(to, None).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn last_lines_of_a_text() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(last_lines("a\nb\nc", 1), "c");
        assert_eq!(last_lines("a\n", 9), "a\n");
        assert_eq!(last_lines("a\n", 0), "");
    }

    #[test]
    fn stays_bounded_while_the_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = fs::File::options().append(true).create(true).open(dir.path().join("console.log")).unwrap();
        for i in 0..50 {
            writeln!(writer, "line {i:04}").unwrap();
            trim(dir.path(), 100).unwrap();
        }
        let text = read(dir.path(), None).unwrap();
        assert!(text.len() <= 220 && text.ends_with("line 0049\n"), "{text}");
        assert_eq!(read(dir.path(), Some(1)).unwrap(), "line 0049\n");
    }
}
