//! Nova's services (Nova api-ref, `os-services`): one `nova-compute` for each node, and the parts of the control plane that Nova runs as
//! processes of their own and we do not.
use super::check_query;
use crate::{
    common::{PROVIDERS, at, flag, object, text},
    resources::{Aggregate, Node, Server},
    shape::{self, Shape, opt, req},
    zones,
};
use api::{Access, Call, Cx, Error, Reply, Result, Route};
use base::Timestamp;
use resource::{Object, Reader, Resource, engine, load};
use serde_json::{Value, json};
use store::Tx;

/// What the control plane is called where Nova names the host of its services. All controllers are alike, and any of them answers.
const CONTROLLER: &str = "controller";
/// Scheduling and conducting are done by whoever answers: that they are asked proves that they are up.
const CONTROL: [(&str, i64); 2] = [("nova-scheduler", 1), ("nova-conductor", 2)];
pub(super) const COMPUTE: &str = "nova-compute";

/// A service as it is shown in several places.
pub(super) struct Service {
    pub(super) number: i64,
    pub(super) uuid: String,
    pub(super) binary: &'static str,
    pub(super) host: String,
    pub(super) zone: String,
    pub(super) disabled: bool,
    pub(super) disabled_reason: Option<String>,
    pub(super) forced_down: bool,
    pub(super) up: bool,
    pub(super) updated_at: Timestamp,
}

/// The uuid of a node's service: another one than the node's, as in Nova.
pub(super) fn uuid_of(node_id: &str) -> String {
    base::id::named(&format!("{COMPUTE} {node_id}"))
}
/// The number of a node's service; the first ones are the control plane's.
pub(super) fn number_of(node: &Node) -> i64 {
    node.number + CONTROL.len() as i64
}

/// The id that the version shows.
pub(super) fn id(cx: &Cx, number: i64, uuid: &str) -> Value {
    if at(cx, 53) { uuid.into() } else { number.into() }
}

/// All nodes by number.
pub(super) fn nodes(reader: &Reader<'_>) -> Result<Vec<Object<Node>>> {
    let mut nodes: Vec<Object<Node>> = reader.all(&Node::DEF.table).map(|r| Object::from_row(r)).collect::<Result<_>>()?;
    nodes.sort_by_key(|n| n.number);
    Ok(nodes)
}

fn of_node(reader: &Reader<'_>, node: &Object<Node>, now: Timestamp) -> Service {
    Service {
        number: number_of(node),
        uuid: uuid_of(&node.id),
        binary: COMPUTE,
        host: node.host.clone(),
        zone: zones::zone_of(reader, &node.host),
        disabled: node.disabled,
        disabled_reason: node.disabled_reason.clone(),
        forced_down: node.forced_down,
        up: node.is_up(),
        // One that is up is heard of all the time, whether it says something new or not.
        updated_at: if node.is_up() { now } else { Timestamp(node.last_seen) },
    }
}

/// All services, those of the control plane first.
pub(super) fn all(reader: &Reader<'_>, now: Timestamp) -> Result<Vec<Service>> {
    let control = CONTROL.iter().map(|(binary, number)| Service {
        number: *number,
        uuid: base::id::named(binary),
        binary,
        host: CONTROLLER.to_owned(),
        zone: zones::INTERNAL.to_owned(),
        disabled: false,
        disabled_reason: None,
        forced_down: false,
        up: true,
        updated_at: now,
    });
    Ok(control.chain(nodes(reader)?.iter().map(|n| of_node(reader, n, now))).collect())
}

impl Service {
    fn view(&self, cx: &Cx) -> Value {
        let mut out = crate::common::map(json!({
            "id": id(cx, self.number, &self.uuid), "binary": self.binary, "host": self.host, "zone": self.zone,
            "status": if self.disabled { "disabled" } else { "enabled" }, "state": if self.up { "up" } else { "down" },
            "updated_at": self.updated_at.micros(), "disabled_reason": self.disabled_reason,
        }));
        if at(cx, 11) {
            out.insert("forced_down".into(), self.forced_down.into());
        }
        out.into()
    }
}

async fn list(call: Call) -> Result<Reply> {
    let cx = &call.cx;
    check_query(cx, 75, &["host", "binary"])?;
    let fits = |key: &str, value: &str| cx.query.get(key).is_none_or(|v| v.is_empty() || v == value);
    let services = all(&call.reader(), call.cloud.db.now())?;
    let shown: Vec<Value> =
        services.iter().filter(|s| fits("host", &s.host) && fits("binary", s.binary)).map(|s| s.view(cx)).collect();
    Ok(Reply::ok(json!({ "services": shown })))
}

const OLD_UPDATE: Shape = Shape::Object(&[
    req("host", &shape::FQDN),
    req("binary", &Shape::Text { min: 1, max: 255 }),
    opt("disabled_reason", &Shape::Text { min: 1, max: 255 }),
    opt("forced_down", &Shape::Bool).since(11),
]);
const UPDATE: Shape = Shape::Object(&[
    opt("status", &Shape::Choice(&["enabled", "disabled"])),
    opt("disabled_reason", &Shape::Text { min: 1, max: 255 }),
    opt("forced_down", &Shape::Bool),
]);

fn not_compute(binary: &str) -> Error {
    Error::bad_request(format!("Updating a {binary} service is not supported. Only {COMPUTE} services can be updated."))
}

/// What an operator wants of a node.
#[derive(Clone, Default)]
pub(super) struct Wish {
    /// Disabled or not, and why.
    pub(super) disabled: Option<(bool, Option<String>)>,
    pub(super) forced_down: Option<bool>,
}

/// Notes the wish in the node's row and story.
pub(super) fn apply(tx: &mut Tx<'_>, cx: &Cx, node: &mut Object<Node>, wish: &Wish) -> Result<()> {
    let who = cx.caller.user_id();
    if let Some((disabled, reason)) = wish.disabled.clone() {
        let why = reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default();
        let word = if disabled { "disabled" } else { "enabled" };
        engine::tell(tx, &node.id, &cx.request_id, &format!("User {who} {word} it for new servers{why}"));
        (node.disabled, node.disabled_reason) = (disabled, reason);
    }
    if let Some(down) = wish.forced_down {
        let word = if down { "declared it down" } else { "took back that it is down" };
        engine::tell(tx, &node.id, &cx.request_id, &format!("User {who} {word}"));
        node.forced_down = down;
    }
    node.clone().save(tx)
}

/// The node of a host, in a transaction.
pub(super) fn by_host(tx: &mut Tx<'_>, host: &str) -> Result<Option<Object<Node>>> {
    let Some(row) = tx.find(&Node::DEF.table, "host", host).into_iter().next() else { return Ok(None) };
    load(tx, row.id())
}

async fn update(call: Call) -> Result<Reply> {
    if at(&call.cx, 53) { update_by_id(call).await } else { update_by_action(call).await }
}

/// `PUT /os-services/disable` and the like, until 2.52.
async fn update_by_action(call: Call) -> Result<Reply> {
    let cx = &call.cx;
    OLD_UPDATE.check(call.json(), cx)?;
    let input = call.object()?;
    let (host, binary) = (text(input, "host").to_owned(), text(input, "binary").to_owned());
    let reason = input.get("disabled_reason").and_then(Value::as_str).map(str::to_owned);
    let mut out = crate::common::map(json!({ "host": host, "binary": binary }));
    let wish = match call.param("id") {
        "enable" => Wish { disabled: Some((false, None)), ..Wish::default() },
        "disable" => Wish { disabled: Some((true, None)), ..Wish::default() },
        "disable-log-reason" => {
            let reason = reason.ok_or_else(|| Error::bad_request("Missing disabled reason field"))?;
            out.insert("disabled_reason".into(), reason.as_str().into());
            Wish { disabled: Some((true, Some(reason))), ..Wish::default() }
        }
        "force-down" if at(cx, 11) => {
            let down = input.get("forced_down").and_then(shape::as_bool);
            Wish { forced_down: Some(down.ok_or_else(|| Error::bad_request("Missing forced_down field"))?), ..Wish::default() }
        }
        _ => return Err(Error::not_found("Unknown action")),
    };
    if binary != COMPUTE {
        return Err(not_compute(&binary));
    }
    if let Some((disabled, _)) = &wish.disabled {
        out.insert("status".into(), if *disabled { "disabled" } else { "enabled" }.into());
    }
    if let Some(down) = wish.forced_down {
        out.insert("forced_down".into(), down.into());
    }
    call.transact(move |cx, tx| {
        let missing = || Error::not_found(format!("Could not find binary {binary} on host {host}."));
        let mut node = by_host(tx, &host)?.ok_or_else(missing)?;
        apply(tx, cx, &mut node, &wish)
    })
    .await?;
    Ok(Reply::ok(json!({ "service": out })))
}

/// The node whose service it is; an error for those of the control plane.
fn node_of(reader: &Reader<'_>, id: &str, is_it: impl Fn(&Object<Node>) -> bool, missing: Error) -> Result<Object<Node>> {
    if let Some((binary, _)) = CONTROL.iter().find(|(b, n)| base::id::named(b) == id || n.to_string() == id) {
        return Err(not_compute(binary));
    }
    nodes(reader)?.into_iter().find(|n| is_it(n)).ok_or(missing)
}

async fn update_by_id(call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    if !base::id::is_uuid(&id) {
        return Err(Error::bad_request(format!("Invalid uuid {id}")));
    }
    UPDATE.check(call.json(), &call.cx)?;
    let input = call.object()?;
    let missing = Error::not_found(format!("Service {id} could not be found."));
    let node = node_of(&call.reader(), &id, |n| uuid_of(&n.id) == id, missing)?;
    let reason = input.get("disabled_reason").and_then(Value::as_str).map(str::to_owned);
    let disabled = match input.get("status").and_then(Value::as_str) {
        Some("enabled") if reason.is_some() => {
            return Err(Error::bad_request("Specifying 'disabled_reason' with status 'enabled' is invalid."));
        }
        Some("enabled") => Some((false, None)),
        Some(_) => Some((true, reason)),
        None => None,
    };
    let wish = Wish { disabled, forced_down: input.get("forced_down").and_then(shape::as_bool) };
    if wish.disabled.is_none() && wish.forced_down.is_none() {
        return Err(Error::bad_request("No updates were requested. Fields 'status' or 'forced_down' should be specified."));
    }
    let node = call
        .transact(move |cx, tx| {
            let mut node: Object<Node> =
                load(tx, &node.id)?.ok_or_else(|| Error::not_found(format!("Service {id} could not be found.")))?;
            apply(tx, cx, &mut node, &wish)?;
            Ok(node)
        })
        .await?;
    let reader = call.reader();
    Ok(Reply::ok(json!({ "service": of_node(&reader, &node, call.cloud.db.now()).view(&call.cx) })))
}

async fn delete(call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    let by_uuid = at(&call.cx, 53);
    if by_uuid && !base::id::is_uuid(&id) {
        return Err(Error::bad_request(format!("Invalid uuid {id}")));
    }
    if !by_uuid && id.parse::<i64>().is_err() {
        return Err(Error::bad_request("Invalid input received: id must be an integer"));
    }
    let is_it = |n: &Object<Node>| if by_uuid { uuid_of(&n.id) == id } else { number_of(n).to_string() == id };
    let node = node_of(&call.reader(), &id, is_it, Error::not_found(format!("Service {id} not found.")))?;
    call.transact(move |cx, tx| remove(tx, cx, &node)).await?;
    Ok(Reply::empty(204))
}

/// Takes a host out of the cloud: its node, its room and its places in aggregates. It must run nothing.
fn remove(tx: &mut Tx<'_>, cx: &Cx, node: &Object<Node>) -> Result<()> {
    let by_host = tx.children(&Server::DEF.table, "host", &node.host);
    let by_node = tx.children(&Server::DEF.table, "node_id", &node.id);
    if !by_host.is_empty() || !by_node.is_empty() {
        return Err(Error::conflict(
            "Unable to delete compute service that is hosting instances. Migrate or delete the instances first.",
        ));
    }
    for row in tx.all(&Aggregate::DEF.table) {
        let mut aggregate: Object<Aggregate> = Object::from_row(&row)?;
        if aggregate.hosts.contains(&node.host) {
            aggregate.hosts.retain(|h| *h != node.host);
            aggregate.save(tx)?;
        }
    }
    match (cx.registry.get(PROVIDERS.name), tx.get(&PROVIDERS, &node.id)) {
        (Ok(def), Some(row)) => engine::remove(tx, def, object(&row)),
        _ => tx.delete(&PROVIDERS, &node.id),
    }
    if let Some(row) = tx.get(&Node::DEF.table, &node.id).filter(|r| !flag(object(r), "deleting")) {
        engine::remove(tx, Node::DEF, object(&row));
    }
    Ok(())
}

pub(super) fn routes() -> Vec<Route> {
    let one = "/v2.1/os-services/{id}";
    vec![
        Route::new("GET", "/v2.1/os-services", Access::Rule("os_compute_api:os-services:list", "admin"), list),
        Route::new("PUT", one, Access::Rule("os_compute_api:os-services:update", "admin"), update),
        Route::new("DELETE", one, Access::Rule("os_compute_api:os-services:delete", "admin"), delete),
    ]
}
