use super::*;
use crate::{Entry, LeaseId, Memory, Outcome, Page, Pending, Txn, TxnError, TxnId, Write};
use serde_json::{Value, json};
use std::sync::Mutex;
use tokio::sync::mpsc;

#[test]
fn index_paths_walk_lists() {
    let row = json!({"project_id": "p", "tags": ["a", "b"], "fixed_ips": [{"subnet_id": "s1"}, {"subnet_id": "s2"}]});
    let get = |path| {
        let mut out = Vec::new();
        index_values(&row, path, &mut out);
        out
    };
    assert_eq!(get("/project_id"), ["p"]);
    assert_eq!(get("/tags"), ["a", "b"]);
    assert_eq!(get("/fixed_ips/*/subnet_id"), ["s1", "s2"]);
    assert!(get("/none/x").is_empty());
}

#[test]
fn a_table_name_has_one_slash() {
    assert_eq!(table_of("network/ports/abc/def"), "network/ports");
    assert_eq!(table_of("network/ports"), "network/ports");
}

static ITEMS: Table = Table { name: "test/items", indexes: &[] };

fn put(key: &str, value: Value) -> Write {
    Write::Put { key: ITEMS.key(key), value: value.to_string().into(), lease: None }
}
async fn write(store: &dyn Store, writes: Vec<Write>) {
    store.txn(Txn { id: TxnId::random(), compares: Vec::new(), writes }).await.unwrap();
}

/// A memory engine that reads in pages of one row.
#[derive(Default)]
struct Odd {
    inner: Arc<Memory>,
    /// Writes to the first and the last row after every page.
    meddles: bool,
    /// Watches that tell nothing, as long as they are kept here.
    silent: Option<Mutex<Vec<mpsc::Sender<Batch>>>>,
}
impl Store for Odd {
    fn txn(&self, txn: Txn) -> Pending<'_, Result<Revision, TxnError>> {
        self.inner.txn(txn)
    }
    fn resolve(&self, id: TxnId) -> Pending<'_, Result<Outcome, StoreError>> {
        self.inner.resolve(id)
    }
    fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Result<Option<Entry>, StoreError>> {
        self.inner.get(key)
    }
    fn range<'a>(&'a self, range: Range<'a>) -> Pending<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let page = self.inner.range(Range { limit: 1, ..range }).await;
            if self.meddles {
                let n = self.inner.revision().await.unwrap();
                write(&*self.inner, vec![put("a", json!({ "n": n })), put("z", json!({ "n": n }))]).await;
            }
            page
        })
    }
    fn revision(&self) -> Pending<'_, Result<Revision, StoreError>> {
        self.inner.revision()
    }
    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Pending<'a, Result<Watch, WatchEnd>> {
        let Some(silent) = &self.silent else { return self.inner.watch(prefix, after) };
        let (tx, rx) = mpsc::channel(1);
        silent.lock().unwrap().push(tx);
        Box::pin(async move { Ok(Watch::new(rx)) })
    }
    fn lease_grant(&self, ttl: Duration) -> Pending<'_, Result<LeaseId, StoreError>> {
        self.inner.lease_grant(ttl)
    }
    fn lease_keep_alive(&self, lease: LeaseId) -> Pending<'_, Result<(), StoreError>> {
        self.inner.lease_keep_alive(lease)
    }
    fn lease_revoke(&self, lease: LeaseId) -> Pending<'_, Result<(), StoreError>> {
        self.inner.lease_revoke(lease)
    }
}

#[tokio::test]
async fn a_view_shows_no_half_transaction_however_it_was_loaded() {
    let store = Arc::new(Odd { meddles: true, ..Odd::default() });
    write(&*store, vec![put("a", json!({"n": 0})), put("m", json!({})), put("z", json!({"n": 0}))]).await;
    let view = View::open(store, &[&ITEMS]).await.unwrap();
    let (reader, n) = (view.read(), |r: &Reader<'_>, id| r.get(&ITEMS, id).unwrap().field("n").clone());
    assert_eq!(n(&reader, "a"), n(&reader, "z"), "two rows that are always written together");
    assert_eq!(reader.get(&ITEMS, "a").unwrap().modified, reader.revision());
}

#[tokio::test]
async fn followers_learn_what_changed_while_the_view_was_blind() {
    let store = Arc::new(Odd { silent: Some(Mutex::default()), ..Odd::default() });
    write(&*store, ["a", "b", "c"].map(|k| put(k, json!({}))).into()).await;
    let view = View::open(store.clone(), &[&ITEMS]).await.unwrap();
    let mut changes = view.changes();
    let (delete, other) = (Write::Delete { key: ITEMS.key("b") }, Write::Delete { key: ITEMS.key("none") });
    write(&*store, vec![put("a", json!({"n": 1})), delete, other, put("d", json!({}))]).await;
    let _watch = view.load().await.unwrap();
    let changed = changes.try_recv().expect("the reload is told");
    assert_eq!(*changed.keys, ["a", "b", "d"].map(|k| ITEMS.key(k)));
    assert_eq!(changed.revision, view.read().revision());
}

#[tokio::test]
async fn a_table_knows_when_it_was_changed_last() {
    static OTHERS: Table = Table { name: "test/others", indexes: &[] };
    let store = Memory::new();
    let view = View::open(store.clone(), &[&ITEMS, &OTHERS]).await.unwrap();
    write(&*store, vec![put("a", json!({}))]).await;
    view.fresh().await.unwrap();
    let first = view.read().modified(&[&ITEMS]);
    assert!(view.read().modified(&[&OTHERS]) < first);
    write(&*store, vec![Write::Delete { key: ITEMS.key("a") }]).await;
    view.fresh().await.unwrap();
    assert!(view.read().modified(&[&OTHERS, &ITEMS]) > first, "a deletion is a change");
    let _watch = view.load().await.unwrap();
    assert!(view.read().modified(&[&OTHERS]) >= first, "what was missed while the view was blind counts as a change");
}

#[tokio::test]
async fn a_dropped_view_lets_go_of_the_store() {
    let store = Memory::new();
    let weak = Arc::downgrade(&store);
    drop(View::open(store, &[&ITEMS]).await.unwrap());
    let gone = async {
        while weak.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.expect("nothing holds the store, though nothing was written since");
}
