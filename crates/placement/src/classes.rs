//! Resource classes: the standard ones of os-resource-classes and custom ones.
use crate::{
    answer::{href, invalid, location, ok, service},
    body,
    provider::PROVIDERS,
};
use api::{Call, Reply, Route};
use base::Timestamp;
use resource::{Error, Reader, Result, Tx};
use serde_json::{Value, json};
use store::Table;

/// Custom resource classes by name.
pub(crate) static CLASSES: Table = Table { name: "placement/resource_classes", indexes: &[] };

const STANDARD: [&str; 21] = [
    "VCPU",
    "MEMORY_MB",
    "DISK_GB",
    "PCI_DEVICE",
    "SRIOV_NET_VF",
    "NUMA_SOCKET",
    "NUMA_CORE",
    "NUMA_THREAD",
    "NUMA_MEMORY_MB",
    "IPV4_ADDRESS",
    "VGPU",
    "VGPU_DISPLAY_HEAD",
    "NET_BW_EGR_KILOBIT_PER_SEC",
    "NET_BW_IGR_KILOBIT_PER_SEC",
    "PCPU",
    "MEM_ENCRYPTION_CONTEXT",
    "FPGA",
    "PGPU",
    "NET_PACKET_RATE_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC",
];

pub(crate) fn routes() -> Vec<Route> {
    const ALL: &str = "/resource_classes";
    const ONE: &str = "/resource_classes/{name}";
    vec![
        Route::new("GET", ALL, service("placement:resource_classes:list"), list).since("1.2"),
        Route::new("POST", ALL, service("placement:resource_classes:create"), create).since("1.2"),
        Route::new("GET", ONE, service("placement:resource_classes:show"), show).since("1.2"),
        Route::new("PUT", ONE, service("placement:resource_classes:update"), rename).since("1.2").until("1.6"),
        Route::new("PUT", ONE, service("placement:resource_classes:update"), ensure).since("1.7"),
        Route::new("DELETE", ONE, service("placement:resource_classes:delete"), delete).since("1.2"),
    ]
}

fn no_such(name: &str) -> Error {
    Error::not_found(format!("No such resource class {}.", body::clip_text(name)))
}

/// Fails unless there is such a class; a custom one is compared at the commit.
pub(crate) fn check(tx: &mut Tx<'_>, name: &str) -> Result<()> {
    if STANDARD.contains(&name) || tx.get(&CLASSES, name).is_some() { Ok(()) } else { Err(no_such(name)) }
}

pub(crate) fn check_read(reader: &Reader<'_>, name: &str) -> Result<()> {
    if STANDARD.contains(&name) || reader.get(&CLASSES, name).is_some() { Ok(()) } else { Err(no_such(name)) }
}

fn path(name: &str) -> String {
    format!("/resource_classes/{name}")
}

fn view(name: &str) -> Value {
    json!({"name": name, "links": [{"rel": "self", "href": href(&path(name))}]})
}

async fn list(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let custom: Vec<_> = reader.all(&CLASSES).collect();
    let newest = custom.iter().filter_map(|r| r.field("updated_at").as_i64()).max().map(Timestamp);
    let all: Vec<Value> = STANDARD.into_iter().chain(custom.iter().map(|r| r.id())).map(view).collect();
    Ok(ok(&call, json!({"resource_classes": all}), newest))
}

async fn show(call: Call) -> Result<Reply> {
    let (name, reader) = (call.param("name"), call.reader());
    check_read(&reader, name)?;
    let at = reader.get(&CLASSES, name).and_then(|r| r.field("updated_at").as_i64()).map(Timestamp);
    Ok(ok(&call, view(name), at))
}

fn custom_name(name: &str) -> Result<()> {
    if body::is_custom(name) { Ok(()) } else { Err(invalid(format_args!("'{}' does not match '^CUSTOM_[A-Z0-9_]+$'", body::clip_text(name)))) }
}

fn row(name: &str, now: Timestamp) -> Value {
    json!({"v": 1, "id": name, "created_at": now.0, "updated_at": now.0})
}

async fn create(call: Call) -> Result<Reply> {
    let body = body::object(&call, &["name"], &[])?;
    let name = body::text(&body["name"], 1, 255)?;
    custom_name(&name)?;
    let place = location(&call, &path(&name));
    call.transact(move |_, tx| {
        let row = row(&name, tx.now);
        tx.claim(&CLASSES, &name, row).map_err(|_| Error::conflict(format!("Conflicting resource class already exists: {name}")))
    })
    .await?;
    Ok(Reply::empty(201).header("location", place))
}

async fn ensure(call: Call) -> Result<Reply> {
    let name = call.param("name").to_owned();
    custom_name(&name)?;
    let place = location(&call, &path(&name));
    let made = call
        .transact(move |_, tx| {
            let row = row(&name, tx.now);
            Ok(tx.claim(&CLASSES, &name, row).is_ok())
        })
        .await?;
    Ok(Reply::empty(if made { 201 } else { 204 }).header("location", place))
}

/// Is the class in an inventory?
fn in_use(tx: &Tx<'_>, name: &str) -> bool {
    tx.all(&PROVIDERS).iter().any(|r| r.field("inventories").get(name).is_some())
}

async fn rename(call: Call) -> Result<Reply> {
    let old = call.param("name").to_owned();
    let body = body::object(&call, &["name"], &[])?;
    let new = body::text(&body["name"], 1, 255)?;
    custom_name(&new)?;
    let shown = view(&new);
    call.transact(move |_, tx| {
        check(tx, &old)?;
        if STANDARD.contains(&old.as_str()) {
            return Err(Error::bad_request(format!("Cannot update standard resource class {old}")));
        }
        if old == new {
            return Ok(());
        }
        // Inventories and allocations name their class, so one in use keeps its name.
        if in_use(tx, &old) {
            return Err(Error::conflict(format!("Cannot rename resource class {old}. Class is in use in inventory.")));
        }
        let row = row(&new, tx.now);
        tx.claim(&CLASSES, &new, row).map_err(|_| Error::conflict(format!("Resource class already exists: {new}")))?;
        tx.delete(&CLASSES, &old);
        Ok(())
    })
    .await?;
    Ok(Reply::ok(shown))
}

async fn delete(call: Call) -> Result<Reply> {
    let name = call.param("name").to_owned();
    call.transact(move |_, tx| {
        check(tx, &name)?;
        let refused = "Error in delete resource class:";
        if STANDARD.contains(&name.as_str()) {
            return Err(Error::bad_request(format!("{refused} Cannot delete standard resource class {name}.")));
        }
        if in_use(tx, &name) {
            return Err(Error::conflict(format!("{refused} Cannot delete resource class {name}. Class is in use in inventory.")));
        }
        tx.delete(&CLASSES, &name);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
