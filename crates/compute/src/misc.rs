//! Versions, extensions, migrations, external events, and what upstream has removed.
use crate::{
    MAX_VERSION, MIN_VERSION,
    common::{map, object, text},
    resources::Server,
    shape::{self, Shape, opt, req},
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::Resource;
use serde_json::{Value, json};

// --- versions ---

fn version(call: &Call, id: &str, whole: bool) -> Value {
    let (path, status, updated, max, min) = match id {
        "v2.0" => ("v2", "SUPPORTED", "2011-01-21T11:33:21Z", "", ""),
        _ => ("v2.1", "CURRENT", "2013-07-23T11:33:21Z", MAX_VERSION, MIN_VERSION),
    };
    let mut links = vec![json!({ "rel": "self", "href": format!("{}/{path}/", call.cx.public) })];
    if whole {
        links.push(json!({ "rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/" }));
    }
    let mut out = map(json!({ "id": id, "status": status, "version": max, "min_version": min, "updated": updated, "links": links }));
    if whole {
        let media = if id == "v2.0" { "application/vnd.openstack.compute+json;version=2" } else { "application/vnd.openstack.compute+json;version=2.1" };
        out.insert("media-types".into(), json!([{ "base": "application/json", "type": media }]));
    }
    out.into()
}

async fn versions(call: Call) -> Result<Reply> {
    Ok(Reply::ok(json!({ "versions": [version(&call, "v2.0", false), version(&call, "v2.1", false)] })))
}
async fn version_20(call: Call) -> Result<Reply> {
    Ok(Reply::ok(json!({ "version": version(&call, "v2.0", true) })))
}
async fn version_21(call: Call) -> Result<Reply> {
    Ok(Reply::ok(json!({ "version": version(&call, "v2.1", true) })))
}

// --- extensions: a list that means nothing since 2.1, but is still asked for ---

const EXTENSIONS: [(&str, &str); 44] = [
    ("AdminActions", "os-admin-actions"),
    ("AdminPassword", "os-admin-password"),
    ("Aggregates", "os-aggregates"),
    ("AttachInterfaces", "os-attach-interfaces"),
    ("AvailabilityZone", "os-availability-zone"),
    ("ConfigDrive", "os-config-drive"),
    ("ConsoleOutput", "os-console-output"),
    ("Consoles", "os-consoles"),
    ("CreateBackup", "os-create-backup"),
    ("DeferredDelete", "os-deferred-delete"),
    ("DiskConfig", "OS-DCF"),
    ("Evacuate", "os-evacuate"),
    ("ExtendedAvailabilityZone", "OS-EXT-AZ"),
    ("ExtendedIps", "OS-EXT-IPS"),
    ("ExtendedIpsMac", "OS-EXT-IPS-MAC"),
    ("ExtendedServerAttributes", "OS-EXT-SRV-ATTR"),
    ("ExtendedStatus", "OS-EXT-STS"),
    ("FlavorAccess", "os-flavor-access"),
    ("FlavorExtraData", "OS-FLV-EXT-DATA"),
    ("FlavorExtraSpecs", "os-flavor-extra-specs"),
    ("FlavorManage", "os-flavor-manage"),
    ("FloatingIpPools", "os-floating-ip-pools"),
    ("FloatingIps", "os-floating-ips"),
    ("Hosts", "os-hosts"),
    ("Hypervisors", "os-hypervisors"),
    ("InstanceActions", "os-instance-actions"),
    ("Keypairs", "os-keypairs"),
    ("LockServer", "os-lock-server"),
    ("MigrateServer", "os-migrate-server"),
    ("MultipleCreate", "os-multiple-create"),
    ("PauseServer", "os-pause-server"),
    ("Quotas", "os-quota-sets"),
    ("QuotaClasses", "os-quota-class-sets"),
    ("RemoteConsoles", "os-remote-consoles"),
    ("Rescue", "os-rescue"),
    ("SchedulerHints", "OS-SCH-HNT"),
    ("SecurityGroups", "os-security-groups"),
    ("ServerDiagnostics", "os-server-diagnostics"),
    ("ServerExternalEvents", "os-server-external-events"),
    ("ServerGroups", "os-server-groups"),
    ("ServerUsage", "OS-SRV-USG"),
    ("Services", "os-services"),
    ("SimpleTenantUsage", "os-simple-tenant-usage"),
    ("SuspendServer", "os-suspend-server"),
];

fn extension((name, alias): (&str, &str)) -> Value {
    json!({
        "name": name, "alias": alias, "description": "", "links": [], "updated": "2014-12-03T00:00:00Z",
        "namespace": "http://docs.openstack.org/compute/ext/fake_xml",
    })
}
async fn extensions(_: Call) -> Result<Reply> {
    Ok(Reply::ok(json!({ "extensions": EXTENSIONS.into_iter().map(extension).collect::<Vec<_>>() })))
}
async fn one_extension(call: Call) -> Result<Reply> {
    let found = EXTENSIONS.into_iter().find(|(_, alias)| *alias == call.param("id"));
    let found = found.ok_or_else(|| Error::not_found(format!("Extension {} could not be found.", call.param("id"))))?;
    Ok(Reply::ok(json!({ "extension": extension(found) })))
}

// --- migrations: servers stay where they are, so there are none ---

async fn migrations(_: Call) -> Result<Reply> {
    Ok(Reply::ok(json!({ "migrations": [] })))
}

// --- external events: rows tell everything already, so an event needs no work; its server must exist ---

const EVENTS: [&str; 8] = [
    "network-changed",
    "network-vif-plugged",
    "network-vif-unplugged",
    "network-vif-deleted",
    "volume-extended",
    "volume-reimaged",
    "power-update",
    "accelerator-request-bound",
];
const CREATE_EVENTS: Shape = Shape::Object(&[req(
    "events",
    &Shape::List {
        of: &Shape::Object(&[
            req("server_uuid", &shape::UUID),
            req("name", &Shape::Choice(&EVENTS)),
            opt("status", &Shape::Choice(&["failed", "completed", "in-progress"])),
            opt("tag", &Shape::Text { min: 0, max: 255 }),
        ]),
        min: 1,
        max: 1000,
        unique: false,
    },
)]);

async fn external_events(call: Call) -> Result<Reply> {
    CREATE_EVENTS.check(call.json(), &call.cx)?;
    let reader = call.reader();
    let mut out: Vec<Map> = Vec::new();
    let (mut good, mut bad) = (0, 0);
    for event in call.json()["events"].as_array().into_iter().flatten().filter_map(Value::as_object) {
        let server = reader.get(&Server::DEF.table, text(event, "server_uuid"));
        let code = match server.map(|s| text(object(&s), "host").is_empty()) {
            None => 404,
            Some(true) => 422,
            Some(false) => 200,
        };
        if code == 200 { good += 1 } else { bad += 1 }
        let mut one = event.clone();
        one.entry("status").or_insert_with(|| "completed".into());
        one.insert("code".into(), code.into());
        if code != 200 {
            one.insert("status".into(), "failed".into());
        }
        out.push(one);
    }
    if good == 0 {
        return Err(Error::not_found("No instances found for any event"));
    }
    Ok(Reply::json(if bad > 0 { 207 } else { 200 }, json!({ "events": out })))
}

// --- what upstream has removed ---

const GONE: [&str; 25] = [
    "/v2.1/os-agents",
    "/v2.1/os-agents/{id}",
    "/v2.1/os-cells",
    "/v2.1/os-cells/{id}",
    "/v2.1/os-cells/detail",
    "/v2.1/os-cells/info",
    "/v2.1/os-cells/capacities",
    "/v2.1/os-certificates",
    "/v2.1/os-certificates/{id}",
    "/v2.1/os-cloudpipe",
    "/v2.1/os-cloudpipe/{id}",
    "/v2.1/os-fping",
    "/v2.1/os-fping/{id}",
    "/v2.1/os-fixed-ips/{id}",
    "/v2.1/os-fixed-ips/{id}/action",
    "/v2.1/os-floating-ip-dns",
    "/v2.1/os-floating-ip-dns/{id}",
    "/v2.1/os-floating-ips-bulk",
    "/v2.1/os-floating-ips-bulk/{id}",
    "/v2.1/os-security-group-default-rules",
    "/v2.1/os-security-group-default-rules/{id}",
    "/v2.1/os-networks/add",
    "/v2.1/os-networks/{id}/action",
    "/v2.1/servers/{id}/os-virtual-interfaces",
    "/v2.1/servers/{id}/consoles",
];

async fn gone(_: Call) -> Result<Reply> {
    Err(Error::gone("This resource is no longer available. No forwarding address is given."))
}

/// `DELETE /collection/` and the like: the id is missing.
pub(crate) async fn missing(_: Call) -> Result<Reply> {
    Err(Error::not_found("The resource could not be found."))
}

pub(crate) fn routes() -> Vec<Route> {
    let reader = |name| Access::Rule(name, "reader");
    let mut out = vec![
        Route::new("GET", "/", Access::Public, versions),
        Route::new("GET", "/v2", Access::Public, version_20),
        Route::new("GET", "/v2.1", Access::Public, version_21),
        Route::new("GET", "/v2.1/extensions", reader("os_compute_api:extensions"), extensions),
        Route::new("GET", "/v2.1/extensions/{id}", reader("os_compute_api:extensions"), one_extension),
        Route::new("GET", "/v2.1/os-migrations", Access::Rule("os_compute_api:os-migrations:index", "admin"), migrations),
        Route::new(
            "POST",
            "/v2.1/os-server-external-events",
            Access::Rule("os_compute_api:os-server-external-events:create", "service"),
            external_events,
        ),
    ];
    for path in GONE {
        out.extend(["GET", "POST", "PUT", "DELETE"].map(|method| Route::new(method, path, Access::Authenticated, gone)));
    }
    out
}
