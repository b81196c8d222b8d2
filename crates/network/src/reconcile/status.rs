//! What ports and floating addresses are, by what was observed. Pure: a row and facts in, a status out.
use crate::{
    ports::{METADATA_OWNER, belongs_to_a_router},
    resources::{FloatingIp, Port},
};
use reconcile::Fence;
use resource::{Resource, Result, Row, Tx};
use serde_json::Value;
use store::Db;

/// Rows whose status is written in one transaction.
const BATCH: usize = 200;

/// The status that the row should have; `None` for rows of other tables.
pub(super) fn wanted(row: &Row, is_up: &dyn Fn(&Row) -> bool) -> Option<&'static str> {
    if is_of::<Port>(row) {
        let owner = row.text("device_owner");
        return Some(match owner {
            METADATA_OWNER => "ACTIVE",
            "network:floatingip" => "N/A",
            owner if belongs_to_a_router(owner) => "ACTIVE",
            _ if row.field("admin_state_up") == false => "DOWN",
            _ if is_up(row) => "ACTIVE",
            _ => "DOWN",
        });
    }
    if is_of::<FloatingIp>(row) {
        let joined = !row.text("port_id").is_empty() && !row.text("router_id").is_empty();
        return Some(if joined { "ACTIVE" } else { "DOWN" });
    }
    None
}

fn is_of<T: Resource>(row: &Row) -> bool {
    row.key.strip_prefix(T::DEF.table.name).is_some_and(|rest| rest.starts_with('/'))
}

/// A row and the status that it should show.
pub(super) struct Change {
    table: &'static store::Table,
    id: String,
    /// What was decided upon; a row that changed since is decided anew.
    modified: u64,
    status: &'static str,
}

impl Change {
    pub(super) fn of(row: &Row, is_up: &dyn Fn(&Row) -> bool) -> Option<Self> {
        let status = wanted(row, is_up).filter(|s| row.text("status") != *s)?;
        let table = if is_of::<Port>(row) { &Port::DEF.table } else { &FloatingIp::DEF.table };
        Some(Self { table, id: row.id().to_owned(), modified: row.modified, status })
    }
}

/// Writes the statuses of rows that are still as they were.
pub(super) async fn write(db: &Db, fence: &Fence, mut changes: Vec<Change>) -> Result<()> {
    while !changes.is_empty() {
        let rest = changes.split_off(changes.len().min(BATCH));
        let batch = std::mem::replace(&mut changes, rest);
        let fence = fence.clone();
        db.transact(move |tx: &mut Tx<'_>| {
            fence.check(tx)?;
            for c in &batch {
                let Some(row) = tx.get(c.table, &c.id).filter(|r| r.modified == c.modified) else { continue };
                let Value::Object(mut map) = row.value().clone() else { continue };
                map.insert("status".into(), c.status.into());
                tx.put(c.table, &c.id, Value::Object(map));
            }
            Ok::<(), resource::Error>(())
        })
        .await?;
    }
    Ok(())
}
