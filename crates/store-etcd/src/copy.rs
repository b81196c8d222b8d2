//! Moves a cloud from one engine to another: offline, verified, and safe to repeat.
//!
//! Nobody may write into either store meanwhile: it is noticed, and then the copy counts for nothing. Rows under a lease are left
//! behind, as they are about processes that run. Revisions are the new engine's.
use crate::Etcd;
use sha2::{Digest, Sha256};
use std::{fmt, sync::Arc};
use store::{Compare, Entry, Outcome, Range, Revision, Store, StoreError, Txn, TxnError, TxnId, Write};

/// Rows in one page of reading.
const PAGE: usize = 1024;
/// Rows and bytes in one transaction, which each engine takes by default.
const ROWS: usize = 100;
const BYTES: usize = 512 << 10;
/// Times that one write is tried.
const ATTEMPTS: usize = 10;

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{key} is already in the store to copy to, and is another one there; copy into an empty store")]
    Occupied { key: Arc<str> },
    #[error("somebody wrote into the store to copy {side} while it was copied; stop every Drover process and copy again")]
    Moved { side: Side },
    #[error("writes into the store to copy to get lost again and again; see to that store and copy again")]
    Unknown,
    #[error("the copy is {copy} and the original {original}; do not use the copy, and look at the disks")]
    Differs { original: Summary, copy: Summary },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    From,
    To,
}
impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::From => "from",
            Self::To => "to",
        })
    }
}

/// What a store holds, without its leased rows and its revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub rows: u64,
    pub bytes: u64,
    /// Over all keys and values in key order.
    pub sha256: [u8; 32],
}
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, {} bytes, sha256 ", self.rows, self.bytes)?;
        self.sha256.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    pub content: Summary,
    /// Rows that were written by this call; the others had been copied before.
    pub written: u64,
    /// Rows under a lease, which were left behind.
    pub left: u64,
}

#[derive(Default)]
struct Tally {
    rows: u64,
    bytes: u64,
    hash: Sha256,
}
impl Tally {
    fn add(&mut self, key: &str, value: &[u8]) {
        for part in [key.as_bytes(), value] {
            self.hash.update((part.len() as u64).to_be_bytes());
            self.hash.update(part);
            self.bytes += part.len() as u64;
        }
        self.rows += 1;
    }
    fn summary(self) -> Summary {
        Summary { rows: self.rows, bytes: self.bytes, sha256: self.hash.finalize().into() }
    }
}

/// The pages of a store, one after another.
struct Pages<'a> {
    store: &'a dyn Store,
    after: Option<Arc<str>>,
    more: bool,
}
impl<'a> Pages<'a> {
    fn of(store: &'a dyn Store) -> Self {
        Self { store, after: None, more: true }
    }
    async fn next(&mut self) -> Result<Option<Vec<Entry>>, StoreError> {
        if !self.more {
            return Ok(None);
        }
        let page = self.store.range(Range { prefix: "", after: self.after.as_deref(), limit: PAGE }).await?;
        self.more = page.more;
        self.after = page.entries.last().map(|e| e.key.clone());
        Ok(Some(page.entries))
    }
}

/// Reads all of a store.
pub async fn summarize(store: &dyn Store) -> Result<Summary, StoreError> {
    let (mut tally, mut pages) = (Tally::default(), Pages::of(store));
    while let Some(rows) = pages.next().await? {
        rows.iter().filter(|e| e.lease.is_none()).for_each(|e| tally.add(&e.key, &e.value));
    }
    Ok(tally.summary())
}

/// Reads all that an etcd held at a revision which its history still has.
pub async fn summarize_at(etcd: &Etcd, revision: Revision) -> Result<Summary, StoreError> {
    let (mut tally, mut after, mut more) = (Tally::default(), None::<Arc<str>>, true);
    while more {
        let range = Range { prefix: "", after: after.as_deref(), limit: PAGE };
        let page = etcd.inner.page_at(range, revision).await?;
        page.entries.iter().filter(|e| e.lease.is_none()).for_each(|e| tally.add(&e.key, &e.value));
        more = page.more;
        after = page.entries.last().map(|e| e.key.clone());
    }
    Ok(tally.summary())
}

/// Copies all rows of `from` into `to`, and reads `to` again to compare. `to` may hold what an earlier copy left, and nothing else.
pub async fn copy(from: &dyn Store, to: &dyn Store) -> Result<Copied, CopyError> {
    let started = from.revision().await?;
    let resumed = refuse_strangers(from, to).await?;
    let mut target = Target { store: to, resumed, batch: Vec::new(), bytes: 0, written: 0 };
    let (mut tally, mut left) = (Tally::default(), 0);
    let mut pages = Pages::of(from);
    while let Some(rows) = pages.next().await? {
        for row in rows {
            if row.lease.is_some() {
                left += 1;
                continue;
            }
            tally.add(&row.key, &row.value);
            target.add(row).await?;
        }
    }
    target.flush().await?;
    let original = tally.summary();
    // The revision may also have moved for what is none of ours, in an etcd that others use.
    if from.revision().await? != started && summarize(from).await? != original {
        return Err(CopyError::Moved { side: Side::From });
    }
    let copy = summarize(to).await?;
    if copy != original {
        return Err(CopyError::Differs { original, copy });
    }
    Ok(Copied { content: copy, written: target.written, left })
}

/// Every row that is already there must be one of ours; true if there is any.
async fn refuse_strangers(from: &dyn Store, to: &dyn Store) -> Result<bool, CopyError> {
    let (mut pages, mut any) = (Pages::of(to), false);
    while let Some(rows) = pages.next().await? {
        for row in rows {
            any = true;
            let same = from.get(&row.key).await?.is_some_and(|e| e.value == row.value && e.lease.is_none());
            if !same {
                return Err(CopyError::Occupied { key: row.key });
            }
        }
    }
    Ok(any)
}

struct Target<'a> {
    store: &'a dyn Store,
    /// An earlier copy left rows.
    resumed: bool,
    batch: Vec<Entry>,
    bytes: usize,
    written: u64,
}

impl Target<'_> {
    async fn add(&mut self, row: Entry) -> Result<(), CopyError> {
        let bytes = 2 * row.key.len() + row.value.len();
        if self.batch.len() == ROWS.min(self.store.max_ops() / 2).max(1) || self.bytes + bytes > BYTES {
            self.flush().await?;
        }
        self.bytes += bytes;
        self.batch.push(row);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), CopyError> {
        self.bytes = 0;
        let mut rows = Vec::with_capacity(self.batch.len());
        for row in self.batch.drain(..) {
            // Nothing else than an earlier copy of the same row can be there.
            if !self.resumed || self.store.get(&row.key).await?.is_none() {
                rows.push(row);
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let compares = rows.iter().map(|r| Compare::Absent(r.key.clone())).collect();
        let count = rows.len() as u64;
        let writes = rows.into_iter().map(|r| Write::Put { key: r.key, value: r.value, lease: None }).collect();
        commit(self.store, compares, writes).await?;
        self.written += count;
        Ok(())
    }
}

async fn commit(store: &dyn Store, compares: Vec<Compare>, writes: Vec<Write>) -> Result<(), CopyError> {
    for _ in 0..ATTEMPTS {
        let txn = Txn { id: TxnId::random(), compares: compares.clone(), writes: writes.clone() };
        let id = txn.id;
        match store.txn(txn).await {
            Ok(_) => return Ok(()),
            Err(TxnError::Conflict { .. }) => return Err(CopyError::Moved { side: Side::To }),
            Err(TxnError::Store(e)) => return Err(e.into()),
            Err(TxnError::Unknown) => match store.resolve(id).await? {
                Outcome::Committed(_) => return Ok(()),
                Outcome::Aborted => {}
            },
        }
    }
    Err(CopyError::Unknown)
}
