//! The file of a backup: a tar archive (POSIX ustar) that any `tar` lists and unpacks, with sums of all that is in it.
//!
//! ```text
//!   manifest.json   what it is a backup of, and size and SHA-256 of each file
//!   README, …       the files
//!   SHA256          of every byte before this file's own header
//! ```
//! Only root can read it, and it is there as a whole or not at all.
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

const BLOCK: u64 = 512;
const MANIFEST: &str = "manifest.json";
const SUM: &str = "SHA256";
/// What a file that is read into memory may have.
const SMALL: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path} cannot be {act}; check the directory, its owner and the free space", path = path.display())]
    File { act: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is no whole backup of Drover: {why}; use another one", path = path.display())]
    Bad { path: PathBuf, why: String },
}

fn file(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File { act, path: path.into(), source }
}

/// Where the content of a file in the archive comes from.
pub(crate) enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sum {
    pub(crate) size: u64,
    pub(crate) sha256: String,
}

/// The manifest: what the caller says, and the sums.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Manifest<T> {
    #[serde(flatten)]
    about: T,
    files: BTreeMap<String, Sum>,
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Copies through a hash and tells how much it was.
fn drain(from: &mut dyn Read, to: &mut dyn Write, hash: &mut Sha256) -> io::Result<u64> {
    let (mut buffer, mut total) = (vec![0; 1 << 18], 0);
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(total);
        }
        hash.update(&buffer[..n]);
        to.write_all(&buffer[..n])?;
        total += n as u64;
    }
}

impl Content {
    fn open(&self) -> Result<Box<dyn Read + '_>, Error> {
        match self {
            Self::Bytes(bytes) => Ok(Box::new(&bytes[..])),
            Self::File(path) => Ok(Box::new(File::open(path).map_err(file("read", path))?)),
        }
    }
    fn sum(&self) -> Result<Sum, Error> {
        let mut hash = Sha256::new();
        let path = match self {
            Self::Bytes(_) => Path::new(MANIFEST),
            Self::File(path) => path,
        };
        let size = drain(&mut self.open()?, &mut io::sink(), &mut hash).map_err(file("read", path))?;
        Ok(Sum { size, sha256: hex(hash) })
    }
}

/// Everything that is written, and its hash.
struct Hashed {
    file: File,
    hash: Sha256,
}
impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes an archive of these files.
pub(crate) fn write<T: Serialize>(path: &Path, about: T, files: &[(String, Content)], now: u64) -> Result<(), Error> {
    let sums = files.iter().map(|(name, content)| Ok((name.clone(), content.sum()?))).collect::<Result<_, Error>>()?;
    let manifest = serde_json::to_vec_pretty(&Manifest { about, files: sums })
        .map_err(|e| Error::Bad { path: path.into(), why: e.to_string() })?;
    let part = path.with_extension("part");
    let written = write_all(&part, manifest, files, now);
    if written.is_err() {
        std::fs::remove_file(&part).ok();
    }
    written?;
    std::fs::rename(&part, path).map_err(file("written", path))?;
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|d| d.sync_all()).map_err(file("written", dir))
}

fn write_all(path: &Path, manifest: Vec<u8>, files: &[(String, Content)], now: u64) -> Result<(), Error> {
    let failed = || file("written", path);
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed())?;
    let mut out = Hashed { file: opened, hash: Sha256::new() };
    let manifest = (MANIFEST.to_owned(), Content::Bytes(manifest));
    for (name, content) in std::iter::once(&manifest).chain(files) {
        let Sum { size, .. } = content.sum()?;
        out.write_all(&header(name, size, now)).map_err(failed())?;
        let copied = drain(&mut content.open()?, &mut out, &mut Sha256::new()).map_err(failed())?;
        if copied != size {
            return Err(Error::Bad { path: path.into(), why: format!("{name} changed while it was copied") });
        }
        pad(&mut out, size).map_err(failed())?;
    }
    let sum = format!("{}\n", hex(out.hash.clone()));
    let size = sum.len() as u64;
    let mut end = || {
        out.write_all(&header(SUM, size, now))?;
        out.write_all(sum.as_bytes())?;
        pad(&mut out, size)?;
        // Two empty blocks say that the archive ends here.
        out.write_all(&[0; 2 * BLOCK as usize])?;
        out.file.sync_all()
    };
    end().map_err(failed())
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

fn pad(out: &mut dyn Write, size: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(padding(size)), out).map(|_| ())
}

/// The header of one file, as POSIX.1-1988 (ustar) has it; names are below 100 bytes.
fn header(name: &str, size: u64, now: u64) -> [u8; BLOCK as usize] {
    let mut block = [0; BLOCK as usize];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000600\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(136, &format!("{now:011o}\0"));
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    match size < 1 << 33 {
        true => put(124, &format!("{size:011o}\0")),
        // GNU's way for more than 8 GiB: the number itself, marked by the first bit.
        false => {
            block[124] = 0x80;
            block[128..136].copy_from_slice(&size.to_be_bytes());
        }
    }
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn parse(block: &[u8]) -> Option<(String, u64)> {
    let text = |from: usize, to: usize| {
        let bytes = block[from..to].split(|b| *b == 0).next()?;
        std::str::from_utf8(bytes).ok().map(str::trim)
    };
    let told = u32::from_str_radix(text(148, 156)?, 8).ok()?;
    let blank = |i: usize, b: u8| if (148..156).contains(&i) { b' ' } else { b };
    let sum: u32 = block.iter().enumerate().map(|(i, b)| u32::from(blank(i, *b))).sum();
    let size = match block[124] & 0x80 {
        0 => u64::from_str_radix(text(124, 136)?, 8).ok()?,
        _ => u64::from_be_bytes(block[128..136].try_into().ok()?),
    };
    (sum == told && block[156] == b'0').then_some((text(0, 100)?.to_owned(), size))
}

/// A backup whose every byte was checked.
#[derive(Debug)]
pub(crate) struct Archive<T> {
    path: PathBuf,
    pub(crate) about: T,
    /// Where the content of each file is, and its sum.
    files: BTreeMap<String, (u64, Sum)>,
}

impl<T: DeserializeOwned> Archive<T> {
    /// Reads all of it.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let bad = |why: &str| Error::Bad { path: path.into(), why: why.to_owned() };
        let mut from = File::open(path).map_err(file("read", path))?;
        let mut all = Sha256::new();
        let (mut at, mut found, mut manifest) = (0, BTreeMap::new(), None);
        loop {
            let mut block = [0; BLOCK as usize];
            from.read_exact(&mut block).map_err(|_| bad("it ends too early"))?;
            let (name, size) = parse(&block).ok_or_else(|| bad("it is no archive, or damaged"))?;
            let before = all.clone();
            all.update(block);
            at += BLOCK;
            let mut hash = Sha256::new();
            let mut kept = Vec::new();
            let (mut memory, mut nowhere) = (LimitedTo(&mut kept, SMALL), io::sink());
            let keep: &mut dyn Write = if name == MANIFEST || name == SUM { &mut memory } else { &mut nowhere };
            let mut both = Both(keep, &mut all);
            let read = drain(&mut (&mut from).take(size), &mut both, &mut hash).map_err(file("read", path))?;
            let mut rest = vec![0; usize::try_from(padding(size)).unwrap_or_default()];
            if read != size || from.read_exact(&mut rest).is_err() {
                return Err(bad("it ends too early"));
            }
            all.update(&rest);
            match name.as_str() {
                SUM if String::from_utf8_lossy(&kept).trim() == hex(before) => break,
                SUM => return Err(bad("its content does not have the SHA-256 that is written at its end")),
                MANIFEST => manifest = Some(kept),
                _ => drop(found.insert(name, (at, Sum { size, sha256: hex(hash) }))),
            }
            at += size + padding(size);
        }
        let manifest: Manifest<T> = serde_json::from_slice(&manifest.ok_or_else(|| bad("it has no manifest"))?)
            .map_err(|e| bad(&format!("its manifest is of another version ({e}), or damaged")))?;
        let sums: BTreeMap<_, _> = found.iter().map(|(name, (_, sum))| (name.clone(), sum.clone())).collect();
        if sums != manifest.files {
            return Err(bad("its files are not those of its manifest"));
        }
        Ok(Self { path: path.into(), about: manifest.about, files: found })
    }
}

impl<T> Archive<T> {
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    fn reader(&self, name: &str) -> Result<io::Take<File>, Error> {
        let bad = || Error::Bad { path: self.path.clone(), why: format!("it has no {name}") };
        let (at, sum) = self.files.get(name).ok_or_else(bad)?;
        let mut from = File::open(&self.path).map_err(file("read", &self.path))?;
        from.seek(SeekFrom::Start(*at)).map_err(file("read", &self.path))?;
        Ok(from.take(sum.size))
    }

    pub(crate) fn bytes(&self, name: &str) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.reader(name)?.take(SMALL).read_to_end(&mut bytes).map_err(file("read", &self.path))?;
        Ok(bytes)
    }

    /// Writes one file where only its owner reads it.
    pub(crate) fn extract(&self, name: &str, to: &Path) -> Result<(), Error> {
        let mut out =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to).map_err(file("written", to))?;
        io::copy(&mut self.reader(name)?, &mut out).and_then(|_| out.sync_all()).map_err(file("written", to))
    }
}

struct Both<'a>(&'a mut dyn Write, &'a mut Sha256);
impl Write for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.update(bytes);
        self.0.write_all(bytes)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A damaged size must not fill the memory.
struct LimitedTo<'a>(&'a mut Vec<u8>, u64);
impl Write for LimitedTo<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > self.1 {
            return Err(io::Error::other("larger than any that Drover writes"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct About {
        of: String,
    }

    fn made(dir: &Path) -> PathBuf {
        let path = dir.join("b.tar");
        let store = dir.join("store");
        std::fs::write(&store, vec![7; 100_000]).unwrap();
        let files = [
            ("keys/identity/0".to_owned(), Content::Bytes(vec![0, 255])),
            ("empty".to_owned(), Content::Bytes(Vec::new())),
            ("store".to_owned(), Content::File(store)),
        ];
        write(&path, About { of: "c".into() }, &files, 1_700_000_000).unwrap();
        path
    }

    #[test]
    fn what_was_saved_comes_back_and_tar_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = made(dir.path());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let archive = Archive::<About>::open(&path).unwrap();
        assert_eq!(archive.about, About { of: "c".into() });
        assert_eq!(archive.names().collect::<Vec<_>>(), ["empty", "keys/identity/0", "store"]);
        assert_eq!(archive.bytes("keys/identity/0").unwrap(), [0, 255]);
        archive.extract("store", &dir.path().join("out")).unwrap();
        assert_eq!(std::fs::read(dir.path().join("out")).unwrap(), vec![7; 100_000]);
        assert!(archive.bytes("none").is_err());
        let listed = std::process::Command::new("tar").arg("-tf").arg(&path).output().unwrap();
        let names = String::from_utf8(listed.stdout).unwrap();
        assert_eq!(names.lines().collect::<Vec<_>>(), [MANIFEST, "keys/identity/0", "empty", "store", SUM]);
    }

    #[test]
    fn every_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = made(dir.path());
        let whole = std::fs::read(&path).unwrap();
        // The two empty blocks at the end, the padding behind the sum, and the head of the sum's own header say nothing.
        let says_something = whole.len() - 4 * BLOCK as usize;
        for at in (0..says_something).step_by(509) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            assert!(Archive::<About>::open(&path).is_err(), "byte {at}");
        }
        for length in [0, 100, 512, 5000, says_something] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(Archive::<About>::open(&path).is_err(), "{length} bytes");
        }
        std::fs::write(&path, &whole).unwrap();
        Archive::<About>::open(&path).unwrap();
    }

    #[test]
    fn sizes_beyond_eight_gib_fit() {
        for size in [0, (1 << 33) - 1, 1 << 33, 1 << 40] {
            assert_eq!(parse(&header("store", size, 0)), Some(("store".into(), size)));
        }
        assert_eq!(parse(&[0; BLOCK as usize]), None);
    }
}
