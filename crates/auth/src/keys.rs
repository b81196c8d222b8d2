//! A directory of Fernet keys that several API processes share, laid out as Keystone's `key_repository`.
//!
//! Files are named by number. The highest number is the **primary**, which signs; `0` is the **staged** key, the next
//! primary, which every process already accepts before it is first used; the others still verify.
//!
//! ```text
//! ensure:  {} -> {1, 0}      rotate:  {0, 1, 2} -> 0 becomes 3, a new 0 is made, the oldest beyond the limit go
//! ```
//! Writers exclude each other by a lock on the directory. Readers take no lock: every file appears whole by a rename, the
//! staged key is promoted by a link before it is replaced, and a reader that saw the set change reads again. A writer
//! that died half-way leaves a set that loads, and the next rotation completes it.
use crate::{Error, Key, KeyRing};
use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};
use zeroize::Zeroizing;

const STAGED: u64 = 0;
const TEMPORARY: &str = "0.tmp";
/// One staged, one primary and one that verifies tokens of before the last rotation.
const FEWEST_KEPT: usize = 3;
const READ_ATTEMPTS: usize = 16;

/// Where keys live and how many of them are kept.
#[derive(Clone, Debug)]
pub struct KeyRepository {
    dir: PathBuf,
    keep: Option<usize>,
}

impl KeyRepository {
    /// Token keys: a rotation removes the oldest beyond `most`, which counts the staged key and is at least 3.
    pub fn for_tokens(dir: impl Into<PathBuf>, most: usize) -> Self {
        Self { dir: dir.into(), keep: Some(most.max(FEWEST_KEPT)) }
    }
    /// Keys of secrets at rest: a rotation removes none, because what an old key sealed must still open.
    pub fn for_secrets(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), keep: None }
    }
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Loads the keys, after making the directory and the first two if there are none.
    pub fn ensure(&self) -> Result<KeyRing, Error> {
        match self.load() {
            Err(Error::NoKeys { .. }) => self.create()?,
            other => return other,
        }
        self.load()
    }

    /// Reads the ring: the primary first, the staged key last.
    pub fn load(&self) -> Result<KeyRing, Error> {
        self.load_with(|| {})
    }

    /// `listed` runs after each look at the directory: there tests let another process change it.
    fn load_with(&self, mut listed: impl FnMut()) -> Result<KeyRing, Error> {
        for _ in 0..READ_ATTEMPTS {
            let numbers = self.numbers()?;
            listed();
            if numbers.is_empty() {
                return Err(Error::NoKeys { dir: self.dir.clone() });
            }
            let keys = numbers.iter().rev().map(|n| self.read(*n)).collect::<Result<Option<Vec<_>>, _>>()?;
            if let Some(keys) = keys
                && self.numbers()? == numbers
            {
                return KeyRing::new(keys);
            }
        }
        Err(Error::KeysUnsettled { dir: self.dir.clone() })
    }

    /// Promotes the staged key, stages a new one and removes the oldest keys beyond the limit.
    ///
    /// All processes must load the set between two rotations, and a key must outlive the tokens it signed: rotate no more
    /// often than (token lifetime) / (kept keys - 2).
    pub fn rotate(&self) -> Result<KeyRing, Error> {
        let lock = self.directory()?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::KeysBusy { dir: self.dir.clone() }),
            Err(TryLockError::Error(source)) => return Err(self.io("lock", self.dir.clone(), source)),
        }
        let numbers = self.numbers()?;
        let primary = numbers.last().copied().ok_or_else(|| Error::NoKeys { dir: self.dir.clone() })?;
        // A staged key that is absent or already promoted is the trace of a rotation that died: only complete it.
        let text_of = |key: Option<Key>| key.map(|k| k.to_text());
        let staged = if numbers.contains(&STAGED) { text_of(self.read(STAGED)?) } else { None };
        let promoted = primary != STAGED && staged == text_of(self.read(primary)?);
        if staged.is_some() && !promoted {
            let (from, to) = (self.path(STAGED), self.path(primary + 1));
            fs::hard_link(from, &to).map_err(|e| self.io("promote the staged key to", to, e))?;
        }
        self.write(STAGED)?;
        self.purge()?;
        self.sync(&lock)?;
        self.load()
    }

    fn create(&self) -> Result<(), Error> {
        if let Some(parent) = self.dir.parent() {
            fs::create_dir_all(parent).map_err(|e| self.io("create", parent.to_path_buf(), e))?;
        }
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(self.io("create", self.dir.clone(), e)),
            Ok(()) | Err(_) => {}
        }
        let lock = self.directory()?;
        // Held elsewhere only while another process makes the same two files.
        lock.lock().map_err(|e| self.io("lock", self.dir.clone(), e))?;
        if self.numbers()?.is_empty() {
            self.write(1)?;
            self.write(STAGED)?;
            self.sync(&lock)?;
        }
        Ok(())
    }

    fn purge(&self) -> Result<(), Error> {
        let Some(keep) = self.keep else { return Ok(()) };
        let numbers = self.numbers()?;
        let excess = numbers.len().saturating_sub(keep);
        for n in numbers.into_iter().filter(|n| *n != STAGED).take(excess) {
            fs::remove_file(self.path(n)).map_err(|e| self.io("remove", self.path(n), e))?;
        }
        Ok(())
    }

    fn numbers(&self) -> Result<BTreeSet<u64>, Error> {
        let failed = |e| self.io("list", self.dir.clone(), e);
        let entries = match fs::read_dir(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            other => other.map_err(failed)?,
        };
        let mut numbers = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            // "01" and "+1" parse too, but are not names that we write.
            let number = name.to_str().and_then(|n| n.parse::<u64>().ok().filter(|v| v.to_string() == n));
            numbers.extend(number);
        }
        Ok(numbers)
    }

    /// `None` when the file went away, which a rotation does.
    fn read(&self, number: u64) -> Result<Option<Key>, Error> {
        let path = self.path(number);
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| self.io("open", path.clone(), e))?,
        };
        let mode = file.metadata().map_err(|e| self.io("inspect", path.clone(), e))?.mode();
        if mode & 0o007 != 0 {
            return Err(Error::KeyFileOpen { path });
        }
        let mut text = Zeroizing::new(String::new());
        match file.take(256).read_to_string(&mut text) {
            Err(e) if e.kind() != io::ErrorKind::InvalidData => Err(self.io("read", path, e)),
            Ok(_) | Err(_) => Key::parse(&text).map(Some).map_err(|_| Error::KeyFile { path }),
        }
    }

    /// Makes a new key and lets it appear whole under its number.
    fn write(&self, number: u64) -> Result<(), Error> {
        let (temporary, path) = (self.dir.join(TEMPORARY), self.path(number));
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(self.io("remove", temporary, e)),
            Ok(()) | Err(_) => {}
        }
        let text = Key::generate().to_text();
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.sync_all()))
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|e| self.io("write", path, e))
    }

    fn directory(&self) -> Result<File, Error> {
        File::open(&self.dir).map_err(|e| self.io("open", self.dir.clone(), e))
    }
    fn sync(&self, dir: &File) -> Result<(), Error> {
        dir.sync_all().map_err(|e| self.io("flush", self.dir.clone(), e))
    }
    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(number.to_string())
    }
    fn io(&self, action: &'static str, path: PathBuf, source: io::Error) -> Error {
        Error::KeyIo { action, path, source }
    }
}

/// The ring in use, which follows its repository when told to look.
#[derive(Debug)]
pub struct LiveKeys {
    repository: KeyRepository,
    ring: RwLock<Arc<KeyRing>>,
}

impl LiveKeys {
    /// Loads the repository, making the first keys if there are none.
    pub fn ensure(repository: KeyRepository) -> Result<Self, Error> {
        let ring = RwLock::new(Arc::new(repository.ensure()?));
        Ok(Self { repository, ring })
    }
    pub fn ring(&self) -> Arc<KeyRing> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Reads the directory again; true when the set changed. The old ring stays when this fails.
    pub fn reload(&self) -> Result<bool, Error> {
        Ok(self.replace(self.repository.load()?))
    }
    /// Rotates the repository and uses the result.
    pub fn rotate(&self) -> Result<(), Error> {
        self.replace(self.repository.rotate()?);
        Ok(())
    }

    fn replace(&self, new: KeyRing) -> bool {
        let texts = |ring: &KeyRing| ring.keys().iter().map(Key::to_text).collect::<Vec<_>>();
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        let changed = texts(&ring) != texts(&new);
        if changed {
            *ring = Arc::new(new);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Timestamp;
    use std::{os::unix::fs::PermissionsExt as _, thread};

    fn repository(keep: usize) -> (tempfile::TempDir, KeyRepository) {
        let root = tempfile::tempdir().unwrap();
        let repository = KeyRepository::for_tokens(root.path().join("deep/fernet-keys"), keep);
        (root, repository)
    }
    fn names(r: &KeyRepository) -> Vec<u64> {
        r.numbers().unwrap().into_iter().collect()
    }
    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn makes_a_primary_and_a_staged_key_that_only_the_owner_reads() {
        let (_root, r) = repository(3);
        assert!(matches!(r.load(), Err(Error::NoKeys { .. })));
        assert_eq!(r.ensure().unwrap().keys().len(), 2);
        assert_eq!(names(&r), [0, 1]);
        assert_eq!((mode(r.dir()), mode(&r.path(0)), mode(&r.path(1))), (0o700, 0o600, 0o600));
        let before = fs::read(r.path(1)).unwrap();
        r.ensure().unwrap();
        assert_eq!(fs::read(r.path(1)).unwrap(), before);
    }

    #[test]
    fn rotation_promotes_the_staged_key_and_keeps_the_limit() {
        let (_root, r) = repository(3);
        r.ensure().unwrap();
        let staged = fs::read(r.path(0)).unwrap();
        r.rotate().unwrap();
        assert_eq!(names(&r), [0, 1, 2]);
        assert_eq!(fs::read(r.path(2)).unwrap(), staged);
        assert_ne!(fs::read(r.path(0)).unwrap(), staged);
        r.rotate().unwrap();
        assert_eq!(names(&r), [0, 2, 3]);
    }

    /// The point of staging: whoever rotates first, its tokens open everywhere before others reload, and old ones after.
    #[test]
    fn processes_accept_each_others_tokens_across_one_rotation() {
        let (_root, r) = repository(3);
        let (a, b) = (LiveKeys::ensure(r.clone()).unwrap(), LiveKeys::ensure(r).unwrap());
        let old = b.ring().encrypt(b"old", Timestamp(0));
        a.rotate().unwrap();
        let new = a.ring().encrypt(b"new", Timestamp(0));
        assert_eq!(b.ring().decrypt(&new).unwrap().message, b"new");
        assert!(b.reload().unwrap() && !b.reload().unwrap());
        assert_eq!(b.ring().decrypt(&old).unwrap().key, 1);
        a.rotate().unwrap();
        a.rotate().unwrap();
        assert!(a.ring().decrypt(&old).is_err());
    }

    #[test]
    fn secret_keys_are_never_removed() {
        let (_root, r) = repository(3);
        let r = KeyRepository::for_secrets(r.dir());
        let sealed = r.ensure().unwrap().encrypt(b"s", Timestamp(0));
        for _ in 0..10 {
            r.rotate().unwrap();
        }
        assert_eq!(names(&r).len(), 12);
        assert_eq!(r.load().unwrap().decrypt(&sealed).unwrap().message, b"s");
    }

    #[test]
    fn a_rotation_that_died_is_completed_and_loses_no_key() {
        let (_root, r) = repository(5);
        let ring = r.ensure().unwrap();
        let token = ring.encrypt(b"t", Timestamp(0));
        // Died after the link: the staged key is also the primary.
        fs::hard_link(r.path(0), r.path(2)).unwrap();
        fs::write(r.dir().join(TEMPORARY), "half").unwrap();
        assert!(r.load().unwrap().decrypt(&token).is_ok());
        let promoted = fs::read(r.path(2)).unwrap();
        r.rotate().unwrap();
        assert_eq!(names(&r), [0, 1, 2]);
        assert_ne!(fs::read(r.path(0)).unwrap(), promoted);
        assert_eq!(fs::read(r.path(2)).unwrap(), promoted);
        // Died at the very beginning: there is a primary only.
        fs::remove_file(r.path(0)).unwrap();
        r.rotate().unwrap();
        assert_eq!(names(&r), [0, 1, 2]);
        assert!(r.load().unwrap().decrypt(&token).is_ok());
    }

    #[test]
    fn bad_files_are_named_and_foreign_ones_ignored() {
        let (_root, r) = repository(3);
        r.ensure().unwrap();
        fs::write(r.dir().join("README"), "not a key").unwrap();
        fs::write(r.dir().join("007"), "not a key").unwrap();
        assert_eq!(r.load().unwrap().keys().len(), 2);
        fs::set_permissions(r.path(1), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(r.load(), Err(Error::KeyFileOpen { path }) if path == r.path(1)));
        fs::set_permissions(r.path(1), fs::Permissions::from_mode(0o600)).unwrap();
        for bad in [&b"short"[..], b"", &[0xff; 44], &[b'A'; 4096]] {
            fs::write(r.path(1), bad).unwrap();
            assert!(matches!(r.load(), Err(Error::KeyFile { path }) if path == r.path(1)));
        }
    }

    #[test]
    fn only_one_process_rotates_at_a_time() {
        let (_root, r) = repository(3);
        r.ensure().unwrap();
        let other = r.directory().unwrap();
        other.lock().unwrap();
        assert!(matches!(r.rotate(), Err(Error::KeysBusy { .. })));
        other.unlock().unwrap();
        r.rotate().unwrap();
    }

    #[test]
    fn a_set_that_changes_under_the_reader_is_read_again() {
        let (_root, r) = repository(3);
        r.ensure().unwrap();
        let mut rotations = 0;
        let ring = r.load_with(|| {
            if rotations < 5 {
                rotations += 1;
                r.rotate().unwrap();
            }
        });
        let newest = r.load().unwrap().encrypt(b"x", Timestamp(0));
        assert_eq!(ring.unwrap().decrypt(&newest).unwrap().key, 0);
        let never_still = r.load_with(|| drop(r.rotate().unwrap()));
        assert!(matches!(never_still, Err(Error::KeysUnsettled { .. })));
    }

    #[test]
    fn many_starters_agree_and_readers_follow_a_storm_of_rotations() {
        let (_root, r) = repository(4);
        let rings: Vec<_> = thread::scope(|s| {
            let starters: Vec<_> = (0..8).map(|_| s.spawn(|| r.ensure().unwrap())).collect();
            starters.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let text = rings[0].encrypt(b"x", Timestamp(0));
        assert!(rings.iter().all(|ring| ring.decrypt(&text).unwrap().key == 0));

        // Nothing is purged here, so every ring that loads must open the newest token that was known before it was read.
        let r = KeyRepository::for_secrets(r.dir());
        let newest = RwLock::new(text);
        let loaded: usize = thread::scope(|s| {
            let reader = || {
                let attempt = |_: &i32| {
                    let text = newest.read().unwrap().clone();
                    match r.load() {
                        Ok(ring) => ring.decrypt(&text).map(|_| true).unwrap(),
                        Err(Error::KeysUnsettled { .. }) => false,
                        Err(e) => panic!("{e}"),
                    }
                };
                (0..100).filter(attempt).count()
            };
            let readers = [s.spawn(reader), s.spawn(reader)];
            for _ in 0..50 {
                let text = r.rotate().unwrap().encrypt(b"x", Timestamp(0));
                *newest.write().unwrap() = text;
            }
            readers.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert!(loaded > 100, "{loaded} of 200");
    }
}
