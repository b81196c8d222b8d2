use super::*;
use crate::inspect::Format;
use assign::Blobs as _;
use sha2::Digest as _;
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    time::{Duration, SystemTime},
};

const GRACE: Duration = Duration::from_secs(3600);

struct Place {
    dir: tempfile::TempDir,
    store: LocalStore,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path().join("images")).unwrap();
    Place { dir, store }
}

impl Place {
    /// Every file below the store, without the lock.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut dirs = vec![self.dir.path().join("images")];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    dirs.push(entry)
                } else {
                    found.push(entry.file_name().unwrap().to_str().unwrap().to_owned())
                }
            }
        }
        found.retain(|name| name != "lock");
        found.sort();
        found
    }

    async fn upload(&self, data: &[u8]) -> assign::BlobInfo {
        let mut writer = self.store.writer(u64::MAX).await.unwrap();
        for part in data.chunks(70_001) {
            writer.write(part).await.unwrap();
        }
        writer.seal().await.unwrap().publish().await.unwrap()
    }
}

fn content(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

fn sha512(data: &[u8]) -> String {
    hex(&sha2::Sha512::digest(data))
}

async fn whole(mut chunks: Chunks) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = chunks.next().await.unwrap() {
        all.extend_from_slice(&chunk);
    }
    all
}

fn later() -> SystemTime {
    SystemTime::now() + 2 * GRACE
}

#[tokio::test]
async fn an_upload_becomes_a_blob_and_comes_back() {
    let place = place();
    for len in [0, 1, pump::CHUNK - 1, pump::CHUNK, pump::CHUNK + 1, 5 * pump::CHUNK + 77] {
        let data = content(len, len as u32);
        let info = place.upload(&data).await;
        assert_eq!(info.blob, sha512(&data));
        assert_eq!(info.checksum, hex(&md5::Md5::digest(&data)));
        assert_eq!((info.size, info.virtual_size, info.format.as_str()), (len as u64, Some(len as u64), "raw"));
        let blob = place.store.read(&info.blob).await.unwrap();
        assert_eq!(blob.size(), len as u64);
        assert!(whole(blob.chunks(0..u64::MAX)).await == data);
        place.store.verify(&info.blob).await.unwrap();
        assert_eq!(place.store.size(&info.blob).await.unwrap(), Some(len as u64));
    }
    assert_eq!(place.store.list().await.unwrap().len(), 6);
}

#[tokio::test]
async fn ranges_are_cut_to_the_blob() {
    let place = place();
    let data = content(3 * pump::CHUNK, 1);
    let info = place.upload(&data).await;
    let blob = place.store.read(&info.blob).await.unwrap();
    let len = data.len() as u64;
    #[expect(clippy::reversed_empty_ranges, reason = "a client may ask for one")]
    for (range, expected) in [
        (0..10, &data[..10]),
        (1_000_000..1_100_000, &data[1_000_000..1_100_000]),
        (5..len - 5, &data[5..data.len() - 5]),
        (len - 1..u64::MAX, &data[data.len() - 1..]),
        (len..len + 9, &[]),
        (9..2, &[]),
    ] {
        assert!(whole(blob.chunks(range)).await == expected);
    }
    // Deleted while it is read, it can still be read.
    let chunks = blob.chunks(0..len);
    assert!(place.store.delete(&info.blob).await.unwrap());
    assert!(whole(chunks).await == data);
    assert!(!place.store.delete(&info.blob).await.unwrap());
    assert!(matches!(place.store.read(&info.blob).await, Err(BlobError::Missing { .. })));
}

#[tokio::test]
async fn a_broken_off_upload_leaves_nothing() {
    let place = place();
    let mut writer = place.store.writer(u64::MAX).await.unwrap();
    writer.write(&content(3 * pump::CHUNK, 2)).await.unwrap();
    assert_eq!(place.files().len(), 1);
    drop(writer);
    assert!(place.files().is_empty());

    let mut writer = place.store.writer(u64::MAX).await.unwrap();
    writer.write(b"sealed, but not welcome").await.unwrap();
    drop(writer.seal().await.unwrap());
    assert!(place.files().is_empty());

    let mut writer = place.store.writer(10).await.unwrap();
    writer.write(b"0123456789").await.unwrap();
    assert!(matches!(writer.write(b"x").await, Err(BlobError::TooLarge { limit: 10 })));
    assert!(matches!(writer.write(b"x").await, Err(BlobError::Torn)));
    assert!(matches!(writer.seal().await, Err(BlobError::Torn)));
    assert!(place.files().is_empty());

    let mut broken = tokio::io::AsyncReadExt::chain(&b"start"[..], Broken);
    assert!(matches!(place.store.put(&mut broken, u64::MAX).await, Err(BlobError::Io { .. })));
    assert!(place.files().is_empty());
}

/// A client that goes away.
struct Broken;
impl tokio::io::AsyncRead for Broken {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

#[tokio::test]
async fn a_cancelled_write_makes_the_upload_useless() {
    let place = place();
    let mut writer = place.store.writer(u64::MAX).await.unwrap();
    let data = content(8 * pump::CHUNK, 3);
    // Polled once: it hands over some chunks and waits for a lane.
    let mut write = Box::pin(writer.write(&data));
    let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(write.as_mut().poll(cx).is_pending())).await;
    assert!(polled, "eight chunks cannot pass at once");
    drop(write);
    assert!(matches!(writer.seal().await, Err(BlobError::Torn)));
    assert!(place.files().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_content_is_stored_once() {
    let place = std::sync::Arc::new(place());
    let data = std::sync::Arc::new(content(3 * pump::CHUNK + 5, 4));
    let uploads: Vec<_> = (0..8)
        .map(|_| {
            let (place, data) = (place.clone(), data.clone());
            tokio::spawn(async move { place.upload(&data).await })
        })
        .collect();
    for upload in uploads {
        assert_eq!(upload.await.unwrap().blob, sha512(&data));
    }
    assert_eq!(place.files(), [sha512(&data)]);
    place.store.verify(&sha512(&data)).await.unwrap();
}

#[tokio::test]
async fn a_damaged_blob_is_found_and_healed_by_the_next_upload() {
    let place = place();
    let info = place.upload(b"some content").await;
    let path = place.store.path(&info.blob).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"short").unwrap();
    assert!(matches!(place.store.verify(&info.blob).await, Err(BlobError::Damaged { .. })));
    place.upload(b"some content").await;
    place.store.verify(&info.blob).await.unwrap();
}

#[tokio::test]
async fn names_cannot_leave_the_store() {
    let place = place();
    let good = sha512(b"");
    let slashed = format!("../{}", &good[3..]);
    let upper = good.to_uppercase();
    for name in
        ["", "..", "../../etc/passwd", "/etc/passwd", &good[1..], &upper, &slashed, &format!("{good}\0"), "é".repeat(64).as_str()]
    {
        assert!(matches!(place.store.path(name), Err(BlobError::BadName { .. })), "{name}");
        assert!(place.store.read(name).await.is_err());
        assert!(place.store.delete(name).await.is_err());
        assert!(place.store.fetch(name, &place.dir.path().join("x")).await.is_err());
    }
}

#[tokio::test]
async fn a_sweep_takes_old_garbage_only() {
    let place = place();
    let (wanted, garbage) = (place.upload(b"wanted").await.blob, place.upload(b"garbage").await.blob);
    let keep = |blob: &str| blob == wanted;
    // Within the grace period, and after a clock that was set back, nothing goes.
    for now in [SystemTime::now(), SystemTime::now() - 2 * GRACE] {
        assert_eq!(place.store.sweep(now, GRACE, &keep).await.unwrap(), Swept::default());
    }
    let dead = place.dir.path().join("images/incoming/dead");
    fs::write(&dead, b"of a writer that died").unwrap();
    let mut alive = place.store.writer(u64::MAX).await.unwrap();
    alive.write(&content(2 * pump::CHUNK, 5)).await.unwrap();

    // What a dead writer left has no use for anyone, however young it is.
    let swept = place.store.sweep(SystemTime::now(), GRACE, &keep).await.unwrap();
    assert_eq!(swept, Swept { blobs: Vec::new(), incoming: 1, bytes: 21 });
    assert!(!dead.exists());
    let swept = place.store.sweep(later(), GRACE, &keep).await.unwrap();
    assert_eq!(swept, Swept { blobs: vec![garbage], incoming: 0, bytes: 7 });
    let alive = alive.seal().await.unwrap().publish().await.unwrap().blob;
    let mut left = vec![wanted, alive];
    left.sort();
    assert_eq!(place.files(), left);
}

#[tokio::test]
async fn content_that_is_stored_again_is_young_again() {
    let place = place();
    let blob = place.upload(b"again").await.blob;
    let age = |to: SystemTime| fs::File::open(place.store.path(&blob).unwrap()).unwrap().set_modified(to).unwrap();
    let old = SystemTime::now() - 2 * GRACE;
    let nobody = |_: &str| false;
    age(old);
    place.upload(b"again").await;
    assert_eq!(place.store.sweep(SystemTime::now(), GRACE, &nobody).await.unwrap(), Swept::default());
    age(old);
    assert!(place.store.touch(&blob).await.unwrap());
    assert_eq!(place.store.sweep(SystemTime::now(), GRACE, &nobody).await.unwrap(), Swept::default());
    // Stored again after the sweep made its list: asking `keep` is where that happens here.
    age(old);
    let touching = |_: &str| {
        age(SystemTime::now());
        false
    };
    assert_eq!(place.store.sweep(SystemTime::now(), GRACE, &touching).await.unwrap(), Swept::default());
    age(old);
    assert_eq!(place.store.sweep(SystemTime::now(), GRACE, &nobody).await.unwrap().blobs, std::slice::from_ref(&blob));
    assert!(!place.store.touch(&blob).await.unwrap());
}

#[tokio::test]
async fn a_node_fetches_links_and_stores_files() {
    let place = place();
    let data = content(2 * pump::CHUNK, 6);
    let made = place.dir.path().join("snapshot");
    fs::write(&made, &data).unwrap();
    let inode = fs::metadata(&made).unwrap().ino();
    let info = place.store.store(&made).await.unwrap();
    assert!(!made.exists());
    assert_eq!((info.blob.as_str(), info.format.as_str()), (sha512(&data).as_str(), "raw"));
    assert_eq!(fs::metadata(place.store.path(&info.blob).unwrap()).unwrap().ino(), inode, "moved, not copied");

    let to = place.dir.path().join("cache");
    place.store.fetch(&info.blob, &to).await.unwrap();
    assert!(fs::read(&to).unwrap() == data);
    assert_eq!(place.store.fetch(&info.blob, &to).await.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    let missing = place.store.fetch(&sha512(b"?"), &place.dir.path().join("none")).await;
    assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);

    // A file with a second name could change later: it is copied.
    let (one, two) = (place.dir.path().join("one"), place.dir.path().join("two"));
    fs::write(&one, b"linked").unwrap();
    fs::hard_link(&one, &two).unwrap();
    let info = place.store.store(&one).await.unwrap();
    fs::write(&two, b"changed").unwrap();
    place.store.verify(&info.blob).await.unwrap();

    let link = place.dir.path().join("link");
    symlink("/etc/hostname", &link).unwrap();
    assert_eq!(place.store.store(&link).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_file_that_is_not_safe_is_not_stored_for_a_node() {
    let place = place();
    let path = place.dir.path().join("evil");
    fs::write(&path, b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/shadow\" 0\n").unwrap();
    let error = place.store.store(&path).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(path.exists());
    assert!(place.files().is_empty());
    // An upload is sealed with the verdict, for the image service to decide.
    let sealed = place.store.put(&mut &b"QFI\xfb\0\0\0\x03"[..], 100).await.unwrap();
    assert_eq!(sealed.inspection().format, Format::Qcow2);
    assert!(sealed.inspection().safety.is_err());
}

/// A small file system of its own, gone with the value.
struct Small(tempfile::TempDir);
impl Small {
    fn mount(bytes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={bytes}");
        let none = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("drover-blob-test"), dir.path(), Some("tmpfs"), none, Some(options.as_str())).unwrap();
        Self(dir)
    }
}
impl Drop for Small {
    fn drop(&mut self) {
        nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_is_left() {
    if !nix::unistd::geteuid().is_root() {
        return; // Mounting needs root; the mapping of the error has its own test.
    }
    let small = Small::mount(4 * pump::CHUNK);
    let store = LocalStore::open(small.0.path()).unwrap();
    let data = content(8 * pump::CHUNK, 7);
    let full = store.put(&mut data.as_slice(), u64::MAX).await;
    assert!(matches!(full, Err(BlobError::Full)), "{:?}", full.err());
    assert_eq!(fs::read_dir(small.0.path().join("incoming")).unwrap().count(), 0);
    // There is room again, and it works.
    let info = store.put(&mut &data[..2 * pump::CHUNK], u64::MAX).await.unwrap().publish().await.unwrap();
    store.verify(&info.blob).await.unwrap();

    // From and to another file system: copied, proved, and nothing is left when there is no room.
    let place = place();
    let to = place.dir.path().join("cache");
    store.fetch(&info.blob, &to).await.unwrap();
    assert!(fs::read(&to).unwrap() == data[..2 * pump::CHUNK]);
    let big = place.upload(&data).await;
    let error = place.store.fetch(&big.blob, &small.0.path().join("big")).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let mut left: Vec<_> = fs::read_dir(small.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["blobs", "incoming", "lock"]);
    let moved = small.0.path().join("moved");
    fs::write(&moved, b"from another file system").unwrap();
    let info = place.store.store(&moved).await.unwrap();
    assert!(!moved.exists());
    place.store.verify(&info.blob).await.unwrap();
}

#[test]
fn a_full_disk_has_an_error_of_its_own() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
        let error = BlobError::io("write", Path::new("x"))(kind.into());
        assert!(matches!(error, BlobError::Full));
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::StorageFull);
    }
}

/// Another controller, with a store of its own, that may be away.
struct Other {
    store: LocalStore,
    away: std::sync::atomic::AtomicBool,
    spoils: bool,
    first: LocalStore,
}
impl Others for Other {
    fn open<'a>(&'a self, blob: &'a str) -> assign::Pending<'a, io::Result<Box<dyn tokio::io::AsyncRead + Send + Unpin>>> {
        Box::pin(async move {
            if self.spoils {
                return Ok(Box::new(io::Cursor::new(b"something else".to_vec())) as _);
            }
            let mut chunks = self.store.read_here(blob).await?.chunks(0..u64::MAX);
            let mut all = Vec::new();
            while let Some(bytes) = chunks.next().await? {
                all.extend_from_slice(&bytes);
            }
            Ok(Box::new(io::Cursor::new(all)) as _)
        })
    }
    fn share<'a>(&'a self, blob: &'a str) -> assign::Pending<'a, io::Result<()>> {
        Box::pin(async move {
            if self.away.load(std::sync::atomic::Ordering::SeqCst) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut file = tokio::fs::File::from_std(fs::File::open(self.first.path(blob)?)?);
            self.store.put(&mut file, u64::MAX).await?.publish().await?;
            Ok(())
        })
    }
}

fn beside(first: &Place, spoils: bool) -> (Place, std::sync::Arc<Other>) {
    let other = place();
    let away = std::sync::atomic::AtomicBool::new(false);
    let others = Other { store: other.store.clone(), away, spoils, first: first.store.clone() };
    (other, std::sync::Arc::new(others))
}

#[tokio::test]
async fn what_is_published_is_in_two_stores_or_not_published() {
    let first = place();
    let (other, others) = beside(&first, false);
    first.store.join(others.clone());
    let info = first.upload(&content(300_000, 1)).await;
    other.store.verify(&info.blob).await.unwrap();
    let adopted = first.dir.path().join("disk");
    fs::write(&adopted, content(1000, 2)).unwrap();
    let info = first.store.store(&adopted).await.unwrap();
    other.store.verify(&info.blob).await.unwrap();
    others.away.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut writer = first.store.writer(u64::MAX).await.unwrap();
    writer.write(b"alone").await.unwrap();
    let refused = writer.seal().await.unwrap().publish().await.unwrap_err();
    assert!(matches!(refused, BlobError::Elsewhere { .. }), "{refused}");
}

#[tokio::test]
async fn what_is_missing_here_is_brought_whole_and_once() {
    let first = place();
    let (other, others) = beside(&first, false);
    let info = other.upload(&content(300_000, 3)).await;
    assert!(matches!(first.store.read(&info.blob).await, Err(BlobError::Missing { .. })), "nobody is known yet");
    first.store.join(others);
    let both = tokio::join!(first.store.read(&info.blob), first.store.read(&info.blob));
    assert_eq!((both.0.unwrap().size(), both.1.unwrap().size()), (300_000, 300_000));
    first.store.verify(&info.blob).await.unwrap();
    assert_eq!(first.files(), [info.blob]);
    let nowhere = "a".repeat(128);
    assert!(matches!(first.store.read(&nowhere).await, Err(BlobError::Missing { .. })));
}

#[tokio::test]
async fn what_comes_under_a_wrong_name_is_not_kept() {
    let first = place();
    let (other, others) = beside(&first, true);
    let info = other.upload(&content(1000, 4)).await;
    first.store.join(others);
    assert!(matches!(first.store.read(&info.blob).await, Err(BlobError::Damaged { .. })));
    assert!(first.files().is_empty());
}
