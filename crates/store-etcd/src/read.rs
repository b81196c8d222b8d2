//! Reads: linearizable, and pages of one revision however many messages they take.
use crate::{
    client::{LONG, SHORT},
    inner::Inner,
    txn::{revision_of, signed, unsigned},
    verdict::{COMPACTED, FUTURE, says, store_error},
    wire,
};
use std::sync::Arc;
use store::{Entry, LeaseId, Page, Range, Revision, StoreError, WatchEnd};

/// Rows in one message.
const CHUNK: usize = 4096;
/// How often a page is begun anew because the history that it reads went away.
const BEGINNINGS: usize = 5;

impl Inner {
    pub(crate) fn entry(&self, kv: wire::KeyValue) -> Option<Result<Entry, StoreError>> {
        let key: Arc<str> = match self.keys.strip(&kv.key)? {
            Ok(key) => key.into(),
            Err(e) => return Some(Err(e)),
        };
        let lease = (kv.lease != 0).then(|| LeaseId(unsigned(kv.lease)));
        Some(Ok(Entry { key, value: kv.value.into(), created: unsigned(kv.created), modified: unsigned(kv.modified), lease }))
    }

    /// The newest revision of the etcd cluster.
    pub(crate) async fn revision(&self) -> Result<Revision, StoreError> {
        let request = wire::RangeRequest { key: self.keys.form(), keys_only: true, ..Default::default() };
        let answer: wire::RangeResponse = self.client.read(wire::RANGE, request, SHORT).await.map_err(|s| store_error(&s))?;
        let revision = revision_of(answer.header.as_ref());
        self.asked(revision);
        Ok(revision)
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let request = wire::RangeRequest { key: self.keys.row(key), ..Default::default() };
        let answer: wire::RangeResponse = self.client.read(wire::RANGE, request, SHORT).await.map_err(|s| store_error(&s))?;
        answer.kvs.into_iter().next().and_then(|kv| self.entry(kv)).transpose()
    }

    pub(crate) async fn page(&self, range: Range<'_>) -> Result<Page, StoreError> {
        self.page_at(range, 0).await
    }

    /// A page as it was at a revision; 0 is the newest.
    pub(crate) async fn page_at(&self, range: Range<'_>, at: Revision) -> Result<Page, StoreError> {
        let (mut start, end) = self.keys.rows(range.prefix);
        if let Some(after) = range.after
            && after >= range.prefix
        {
            start = self.keys.row(after);
            start.push(0);
        }
        if start >= end {
            return Ok(Page { entries: Vec::new(), more: false, revision: self.revision().await? });
        }
        for _ in 1..BEGINNINGS {
            if let Some(page) = self.try_page(start.clone(), &end, range.limit, at).await? {
                return Ok(page);
            }
            if at != 0 {
                return Err(StoreError::Unavailable(format!("etcd has no history of revision {at} any more; begin anew")));
            }
        }
        Err(StoreError::Unavailable("etcd drops its history faster than a page can be read; compact it less often".into()))
    }

    /// `None` when the revision of the first part was compacted before the last was read.
    async fn try_page(&self, mut start: Vec<u8>, end: &[u8], limit: usize, at: Revision) -> Result<Option<Page>, StoreError> {
        let mut page = Page { entries: Vec::new(), more: false, revision: at };
        loop {
            let wanted = limit.saturating_sub(page.entries.len()).min(CHUNK);
            let request = wire::RangeRequest {
                key: start,
                end: end.to_vec(),
                // 0 would be no limit. Of a page without rows it is only asked whether there is one.
                limit: signed(wanted.max(1) as u64),
                revision: signed(page.revision),
                keys_only: wanted == 0,
                ..Default::default()
            };
            let patience = if wanted > 64 { LONG } else { SHORT };
            let answer: wire::RangeResponse = match self.client.read(wire::RANGE, request, patience).await {
                Err(status) if page.revision != 0 && says(&status, COMPACTED) => return Ok(None),
                answer => answer.map_err(|s| store_error(&s))?,
            };
            if page.revision == 0 {
                page.revision = revision_of(answer.header.as_ref());
            }
            if wanted == 0 {
                page.more = !answer.kvs.is_empty();
                return Ok(Some(page));
            }
            let last = answer.kvs.last().map(|kv| [&kv.key[..], b"\0"].concat());
            for entry in answer.kvs.into_iter().filter_map(|kv| self.entry(kv)) {
                page.entries.push(entry?);
            }
            page.more = answer.more;
            match last {
                Some(next) if answer.more && page.entries.len() < limit => start = next,
                _ => return Ok(Some(page)),
            }
        }
    }

    /// Can a watch begin behind this revision? It can if etcd still knows what was there then.
    pub(crate) async fn remembers(&self, revision: Revision) -> Result<(), WatchEnd> {
        let request =
            wire::RangeRequest { key: self.keys.form(), revision: signed(revision), keys_only: true, ..Default::default() };
        match self.client.read::<_, wire::RangeResponse>(wire::RANGE, request, SHORT).await {
            Ok(_) => Ok(()),
            // After a restore etcd is younger than what was seen of it: all must be read anew.
            Err(status) if says(&status, COMPACTED) || says(&status, FUTURE) => Err(WatchEnd::Compacted),
            Err(status) => {
                tracing::warn!(error = %status, "A watch could not begin: {}", store_error(&status));
                Err(WatchEnd::Closed)
            }
        }
    }

    /// If nothing of ours changed after `seen`, the revision up to which that is proved.
    ///
    /// Every transaction of ours writes a slot, and every lease with rows has a key: without a newer slot and with as many leases as
    /// there were, neither a transaction nor the end of a lease has touched a row. (A slot that is gone went with its session, which
    /// is a lease with a key.)
    pub(crate) async fn quiet_since(&self, seen: Revision) -> Result<Option<Revision>, StoreError> {
        let (key, end) = self.keys.slots();
        let newer =
            wire::RangeRequest { key, end, min_modified: signed(seen + 1), limit: 1, keys_only: true, ..Default::default() };
        let (key, end) = self.keys.leases();
        let leases = wire::RangeRequest { key, end, count_only: true, ..Default::default() };
        let before = wire::RangeRequest { revision: signed(seen), ..leases.clone() };
        let success = [newer, leases, before].map(Into::into).to_vec();
        let request = wire::TxnRequest { success, ..Default::default() };
        let answer: wire::TxnResponse = match self.client.read(wire::TXN, request, SHORT).await {
            Err(status) if says(&status, COMPACTED) || says(&status, FUTURE) => return Ok(None),
            answer => answer.map_err(|s| store_error(&s))?,
        };
        let ranges: Vec<wire::RangeResponse> = answer.responses.into_iter().filter_map(|r| r.range).collect();
        let [newer, leases, before] = &ranges[..] else { return Ok(None) };
        let quiet = newer.kvs.is_empty() && leases.count == before.count;
        Ok(quiet.then(|| revision_of(answer.header.as_ref())))
    }
}
