//! Makes the northbound database equal to the desired rows, in one transaction of as little as needed.
//!
//! The difference is made against a replica in memory. A transaction only goes through if nobody of ours has written since
//! that replica's state: `NB_Global.external_ids:drover:sync` is a stamp that each one compares and replaces. So two
//! controllers never mix, and a transaction whose outcome is unknown is simply compared again.
use super::{
    Error,
    row::{Datum, Desired, KEY, Key, Row, Table},
};
use ovsdb::{Client, Endpoint, Replica, Tables, Target, value};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

const DATABASE: &str = "OVN_Northbound";
const GLOBAL: &str = "NB_Global";
const STAMP: &str = "drover:sync";
const WITHIN: Duration = Duration::from_secs(10);

/// What a call of [`Nb::apply`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub inserted: usize,
    pub updated: usize,
    pub deleted: usize,
}

/// The operations that lead from a state to the desired one.
#[derive(Debug, Default)]
pub struct Plan {
    pub operations: Vec<Value>,
    pub counts: Applied,
}

/// The northbound database, followed.
#[derive(Debug)]
pub struct Nb {
    client: Client,
    replica: Replica,
    one_at_a_time: tokio::sync::Mutex<()>,
}

impl Nb {
    /// Connects and reads our tables.
    pub async fn connect(endpoints: Vec<Endpoint>) -> Result<Self, Error> {
        Self::reach(Target::fixed(endpoints)).await
    }
    /// As [`Self::connect`].
    pub async fn reach(target: Target) -> Result<Self, Error> {
        let client = Client::to(target);
        let columns: Vec<(&str, Vec<&str>)> = Table::ALL.iter().map(|t| (t.name(), followed(*t))).collect();
        let global = ["external_ids", "options", "hv_cfg", "nb_cfg"];
        let tables: Vec<(&str, &[&str])> =
            columns.iter().map(|(t, c)| (*t, c.as_slice())).chain([(GLOBAL, global.as_slice())]).collect();
        let replica = client.monitor(DATABASE, &tables).await?;
        Ok(Self { client, replica, one_at_a_time: tokio::sync::Mutex::default() })
    }

    /// Sets what the deployment wants of OVN: gateways move within 0.3 s, where the default would be 3 s.
    pub async fn prepare(&self) -> Result<(), Error> {
        self.set_options(&[("bfd-min-rx", "100"), ("bfd-min-tx", "100"), ("bfd-mult", "3")]).await
    }

    /// Makes the database hold exactly `desired` (besides rows that are not ours). Twice is once.
    pub async fn apply(&self, desired: &Desired) -> Result<Applied, Error> {
        loop {
            if let Some(applied) = self.attempt(desired, false).await? {
                return Ok(applied);
            }
        }
    }

    /// As [`Self::apply`], once: `None` when somebody else wrote since the state that was compared, so that the caller can see whether it
    /// still may. With `claim` something is written in any case: whoever looked at the database before that can change nothing.
    pub async fn attempt(&self, desired: &Desired, claim: bool) -> Result<Option<Applied>, Error> {
        let _turn = self.one_at_a_time.lock().await;
        let (plan, global) = self.replica.read(|t| (plan(desired, t), global(t)));
        if plan.operations.is_empty() && !claim {
            return Ok(Some(plan.counts));
        }
        let (id, ids) = global.ok_or(Error::NoGlobal)?;
        let stamp = base::id::uuid();
        let mut operations = vec![unchanged(&id, &ids)];
        operations.extend(plan.operations);
        operations.push(put_pairs(&id, "external_ids", [(STAMP, stamp.as_str())]));
        match self.client.transact(DATABASE, operations).await {
            Ok(_) => {
                self.seen(&stamp).await?;
                Ok(Some(plan.counts))
            }
            // Somebody else wrote, or we looked at an old state: it is worth a look when it has arrived.
            Err(ovsdb::Error::Operation { op, .. }) if op == "wait" => {
                let moved = |t: &Tables| (super::sync::global(t)?.1 != ids).then_some(());
                self.replica.wait(WITHIN, "the other writer's rows", moved).await?;
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Sets options of the whole deployment; others stay.
    pub async fn set_options(&self, options: &[(&str, &str)]) -> Result<(), Error> {
        let missing = |t: &Tables| {
            let row = t.rows(GLOBAL).next();
            options.iter().any(|(k, v)| row.and_then(|(_, r)| value::lookup(r.get("options")?, k)) != Some(*v))
        };
        if !self.replica.read(missing) {
            return Ok(());
        }
        let operation = match self.replica.read(global) {
            Some((id, _)) => put_pairs(&id, "options", options.iter().copied()),
            None => json!({"op": "insert", "table": GLOBAL, "row": {"options": value::map(options.iter().copied())}}),
        };
        self.client.transact(DATABASE, vec![operation]).await?;
        self.replica.wait(WITHIN, "its options", |t| (!missing(t)).then_some(())).await?;
        Ok(())
    }

    /// The ports that a chassis has claimed.
    pub fn ports_up(&self) -> HashSet<String> {
        self.replica.read(up)
    }
    /// Waits until a port is bound; metadata ports never are. `name` is what [`super::names::port`] gives.
    pub async fn wait_port_up(&self, name: &str, within: Duration) -> Result<(), Error> {
        let is_up = |t: &Tables| {
            let (_, row) = t.find(Table::LogicalSwitchPort.name(), "name", &Value::from(name))?;
            (row.get("up") == Some(&Value::Bool(true))).then_some(())
        };
        Ok(self.replica.wait(within, "the port to be bound", is_up).await?)
    }
    /// Returns when every chassis has installed what is in the database now.
    pub async fn wait_installed(&self, within: Duration) -> Result<(), Error> {
        let (id, _) = self.replica.read(global).ok_or(Error::NoGlobal)?;
        let row = json!([["_uuid", "==", value::uuid(&id)]]);
        let next = json!({"op": "mutate", "table": GLOBAL, "where": row, "mutations": [["nb_cfg", "+=", 1]]});
        let read = json!({"op": "select", "table": GLOBAL, "where": row, "columns": ["nb_cfg"]});
        let results = self.client.transact(DATABASE, vec![next, read]).await?;
        let goal = results.get(1).and_then(|r| r["rows"][0]["nb_cfg"].as_i64()).unwrap_or_default();
        let reached = |t: &Tables| {
            let (_, row) = t.rows(GLOBAL).next()?;
            (row.get("hv_cfg")?.as_i64()? >= goal).then_some(())
        };
        Ok(self.replica.wait(within, "every chassis", reached).await?)
    }
    /// Notifies after each change of the database.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.replica.changes()
    }
    /// The followed tables.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    async fn seen(&self, stamp: &str) -> Result<(), Error> {
        let ours = |t: &Tables| (value::lookup(&global(t)?.1, STAMP) == Some(stamp)).then_some(());
        Ok(self.replica.wait(WITHIN, "our own rows", ours).await?)
    }
}

fn followed(table: Table) -> Vec<&'static str> {
    let up = (table == Table::LogicalSwitchPort).then_some("up");
    table.columns().iter().copied().chain(["external_ids"]).chain(up).collect()
}

fn up(tables: &Tables) -> HashSet<String> {
    let rows = tables.rows(Table::LogicalSwitchPort.name());
    let up = rows.filter(|(_, row)| row.get("up") == Some(&Value::Bool(true)));
    up.filter_map(|(_, row)| row.get("name")?.as_str().map(str::to_owned)).collect()
}

/// The one row of NB_Global: its uuid and external_ids.
fn global(tables: &Tables) -> Option<(String, Value)> {
    let (id, row) = tables.rows(GLOBAL).next()?;
    Some((id.to_owned(), row.get("external_ids")?.clone()))
}

/// The guard of a transaction: NB_Global is still as we saw it.
fn unchanged(id: &str, external_ids: &Value) -> Value {
    json!({
        "op": "wait", "table": GLOBAL, "timeout": 0, "where": [["_uuid", "==", value::uuid(id)]],
        "columns": ["external_ids"], "until": "==", "rows": [{"external_ids": external_ids}],
    })
}

fn put_pairs<'a>(id: &str, column: &str, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
    let pairs: Vec<_> = pairs.into_iter().collect();
    let keys = value::strings(pairs.iter().map(|(k, _)| k));
    json!({
        "op": "mutate", "table": GLOBAL, "where": [["_uuid", "==", value::uuid(id)]],
        "mutations": [[column, "delete", keys], [column, "insert", value::map(pairs)]],
    })
}

/// The difference between what is and what should be. Pure.
pub fn plan(desired: &Desired, tables: &Tables) -> Plan {
    let mut there: HashMap<(Table, &str), (&str, &ovsdb::Row)> = HashMap::new();
    let mut surplus: Vec<(Table, &str)> = Vec::new();
    let mut ours: HashSet<&str> = HashSet::new();
    for table in Table::ALL {
        for (id, row) in tables.rows(table.name()) {
            let Some(key) = row.get("external_ids").and_then(|ids| value::lookup(ids, KEY)) else { continue };
            ours.insert(id);
            // Of two rows with one key, every planner keeps the same.
            match there.insert((table, key), (id, row)) {
                Some(other) if other.0 < id => drop((surplus.push((table, id)), there.insert((table, key), other))),
                Some(other) => surplus.push((table, other.0)),
                None => {}
            }
        }
    }
    let state = State { there: &there, desired, ours: &ours };
    let mut out = Plan::default();
    for (key, row) in &desired.rows {
        match there.get(&(key.table, key.name.as_str())) {
            Some((id, current)) => state.update(key.table, id, row, current, &mut out),
            None => state.insert(key, row, &mut out),
        }
    }
    let gone = there.iter().filter(|((table, name), _)| !desired.rows.contains_key(&Key::new(*table, *name)));
    surplus.extend(gone.map(|((table, _), (id, _))| (*table, *id)));
    surplus.sort_unstable();
    for (table, id) in surplus {
        out.counts.deleted += 1;
        out.operations.push(json!({"op": "delete", "table": table.name(), "where": [["_uuid", "==", value::uuid(id)]]}));
    }
    out
}

/// The uuid of a row that we insert. It follows from the key, so a database that was lost comes back with the same uuids:
/// the southbound database, which is keyed by them, stays as it is and no packet is lost.
fn row_uuid(key: &Key) -> String {
    base::id::named(&format!("{}/{}", key.table.name(), key.name))
}

struct State<'a> {
    /// Our rows by key.
    there: &'a HashMap<(Table, &'a str), (&'a str, &'a ovsdb::Row)>,
    desired: &'a Desired,
    ours: &'a HashSet<&'a str>,
}

impl State<'_> {
    fn insert(&self, key: &Key, row: &Row, out: &mut Plan) {
        let mut columns: Map<String, Value> =
            row.iter().map(|(column, datum)| ((*column).to_owned(), self.json(datum))).collect();
        columns.insert("external_ids".into(), value::map([(KEY, key.name.as_str())]));
        out.counts.inserted += 1;
        out.operations.push(json!({"op": "insert", "table": key.table.name(), "uuid": row_uuid(key), "row": columns}));
    }

    fn update(&self, table: Table, id: &str, row: &Row, current: &ovsdb::Row, out: &mut Plan) {
        let (mut columns, mut mutations) = (Map::new(), Vec::new());
        for (column, datum) in row {
            let now = current.get(*column).unwrap_or(&Value::Null);
            match datum {
                Datum::Many(members) => self.mutate(column, members, now, &mut mutations),
                _ if self.same(datum, now) => {}
                _ => drop(columns.insert((*column).to_owned(), self.json(datum))),
            }
        }
        let place = json!([["_uuid", "==", value::uuid(id)]]);
        out.counts.updated += usize::from(!columns.is_empty() || !mutations.is_empty());
        if !columns.is_empty() {
            out.operations.push(json!({"op": "update", "table": table.name(), "where": place, "row": columns}));
        }
        if !mutations.is_empty() {
            out.operations.push(json!({"op": "mutate", "table": table.name(), "where": place, "mutations": mutations}));
        }
    }

    /// Members come and go one by one, so that a group of a thousand ports is not rewritten for one.
    fn mutate(&self, column: &str, members: &BTreeSet<Key>, now: &Value, out: &mut Vec<Value>) {
        let present: HashSet<&str> = value::uuids(now).collect();
        let wanted: HashSet<&str> = members.iter().filter_map(|k| self.id(k)).collect();
        let added = members.iter().filter(|k| self.id(k).is_none_or(|id| !present.contains(id)));
        let added: Vec<_> = added.filter_map(|k| self.reference(k)).collect();
        let mut removed: Vec<_> = present.iter().copied().filter(|id| self.ours.contains(id) && !wanted.contains(id)).collect();
        removed.sort_unstable();
        if !removed.is_empty() {
            out.push(json!([column, "delete", value::set(removed.into_iter().map(value::uuid))]));
        }
        if !added.is_empty() {
            out.push(json!([column, "insert", value::set(added)]));
        }
    }

    fn id(&self, key: &Key) -> Option<&str> {
        self.there.get(&(key.table, key.name.as_str())).map(|(id, _)| *id)
    }
    /// None for a key that names no row now or after the transaction.
    fn reference(&self, key: &Key) -> Option<Value> {
        let fresh = || self.desired.rows.contains_key(key).then(|| value::uuid(&row_uuid(key)));
        self.id(key).map(value::uuid).or_else(fresh)
    }

    fn same(&self, datum: &Datum, now: &Value) -> bool {
        let atoms = || value::atoms(now);
        match datum {
            Datum::Bool(b) => now.as_bool() == Some(*b),
            Datum::Int(i) => now.as_i64() == Some(*i),
            Datum::Text(s) => now.as_str() == Some(s),
            Datum::SomeBool(b) => now.as_bool() == Some(*b),
            Datum::SomeInt(i) => atoms().first().and_then(Value::as_i64) == *i,
            Datum::SomeText(s) => atoms().first().and_then(Value::as_str) == s.as_deref(),
            Datum::Texts(want) => {
                atoms().len() == want.len() && atoms().iter().all(|a| a.as_str().is_some_and(|a| want.contains(a)))
            }
            Datum::Map(want) => {
                let all = value::pairs(now).all(|(k, v)| want.get(k).is_some_and(|w| w == v));
                all && value::pairs(now).count() == want.len()
            }
            Datum::One(want) => match want.as_ref().and_then(|k| self.reference(k)) {
                Some(reference) => *now == reference,
                None => atoms().is_empty(),
            },
            // Compared and changed by member, see `mutate`.
            Datum::Many(_) => true,
        }
    }

    fn json(&self, datum: &Datum) -> Value {
        let optional = |v: Option<Value>| v.unwrap_or_else(|| value::set([]));
        match datum {
            Datum::Bool(b) | Datum::SomeBool(b) => json!(b),
            Datum::Int(i) => json!(i),
            Datum::Text(s) => json!(s),
            Datum::SomeInt(i) => optional(i.map(Value::from)),
            Datum::SomeText(s) => optional(s.as_deref().map(Value::from)),
            Datum::Texts(items) => value::strings(items),
            Datum::Map(pairs) => value::map(pairs),
            Datum::One(key) => optional(key.as_ref().and_then(|k| self.reference(k))),
            Datum::Many(keys) => value::set(keys.iter().filter_map(|k| self.reference(k))),
        }
    }
}
