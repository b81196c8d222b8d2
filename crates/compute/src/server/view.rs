//! A server as users see it, at each microversion.
//!
//! Lists of a thousand are made here, so a view reads the stored form without decoding it, asks the policy once per list, and finds
//! ports, networks and groups by index.
use super::state;
use crate::{
    common::{at, by_index, flag, int, micros, object, text},
    resources::Node,
};
use api::{Cx, Map};
use md5::{Digest as _, Md5};
use resource::{Reader, Resource, ResourceDef, Row};
use serde_json::{Value, json};
use std::{fmt::Write as _, io::Write as _, sync::Arc};

/// What of a server is shown, decided once per answer.
pub(crate) struct Show<'a> {
    cx: &'a Cx,
    reader: &'a Reader<'a>,
    tables: Option<Tables>,
    extended: bool,
    host_status: HostStatus,
    extra_specs: bool,
    /// All that `GET` shows; updates and rebuilds showed less until 2.75.
    full: bool,
    detail: bool,
    user_data: bool,
}

#[derive(PartialEq)]
enum HostStatus {
    Hidden,
    Shown,
}

struct Tables {
    ports: &'static ResourceDef,
    networks: &'static ResourceDef,
    groups: &'static ResourceDef,
    floating: Option<&'static ResourceDef>,
}

impl<'a> Show<'a> {
    pub(crate) fn new(cx: &'a Cx, reader: &'a Reader<'a>) -> Self {
        let get = |t| cx.registry.get(t).ok();
        let tables = (|| {
            Some(Tables {
                ports: get("network/ports")?,
                networks: get("network/networks")?,
                groups: get("network/security_groups")?,
                floating: get("network/floatingips"),
            })
        })();
        let host_status =
            if cx.may("os_compute_api:servers:show:host_status", None) { HostStatus::Shown } else { HostStatus::Hidden };
        Self {
            cx,
            reader,
            tables,
            extended: cx.may("os_compute_api:os-extended-server-attributes", None),
            host_status,
            extra_specs: cx.may("os_compute_api:servers:show:flavor-extra-specs", None),
            full: true,
            detail: false,
            user_data: true,
        }
    }
    /// In a list.
    pub(crate) fn list(mut self) -> Self {
        self.detail = true;
        self
    }
    /// As the answer to an update.
    pub(crate) fn update(mut self) -> Self {
        self.full = at(self.cx, 75);
        self
    }
    /// As the answer to a rebuild.
    pub(crate) fn rebuild(mut self) -> Self {
        self.full = at(self.cx, 75);
        self.user_data = false;
        self
    }

    pub(crate) fn server(&self, row: &Map) -> Map {
        let mut out = Map::with_capacity(48);
        self.fields(row, &mut |key, value| drop(out.insert(key.to_owned(), value)));
        out
    }

    /// Appends the server as JSON text.
    pub(crate) fn write(&self, row: &Map, out: &mut Vec<u8>) {
        out.push(b'{');
        let start = out.len();
        self.fields(row, &mut |key, value| {
            if out.len() > start {
                out.push(b',');
            }
            // Writing into memory does not fail, and keys are plain words.
            let _ = write!(out, "\"{key}\":").and_then(|()| Ok(serde_json::to_writer(&mut *out, &value)?));
        });
        out.push(b'}');
    }

    /// Each field once.
    fn fields(&self, row: &Map, put: &mut dyn FnMut(&str, Value)) {
        let cx = self.cx;
        let id = text(row, "id");
        let ports = self.ports(id);
        let vm_state = text(row, "vm_state");
        let status = state::status(vm_state, row.get("task_state").and_then(Value::as_str));
        put("id", id.into());
        put("name", text(row, "name").into());
        put("status", status.into());
        put("tenant_id", text(row, "project_id").into());
        put("user_id", text(row, "user_id").into());
        put("metadata", row.get("metadata").cloned().unwrap_or_else(|| json!({})));
        put("hostId", host_id(text(row, "project_id"), text(row, "host")).into());
        put("image", self.image(row));
        put("flavor", self.flavor(row));
        put("created", seconds(row, "created_at"));
        put(
            "updated",
            if row.get("updated_at").is_some_and(Value::is_i64) {
                seconds(row, "updated_at")
            } else {
                seconds(row, "created_at")
            },
        );
        put("addresses", if vm_state == state::vm::BUILDING { json!({}) } else { self.addresses_of(&ports, self.full).into() });
        put("accessIPv4", text(row, "access_ipv4").into());
        let v6 = text(row, "access_ipv6");
        put("accessIPv6", v6.parse::<std::net::Ipv6Addr>().map_or_else(|_| v6.to_owned(), |ip| ip.to_string()).into());
        put("links", links(cx, id));
        put("OS-DCF:diskConfig", text(row, "disk_config").into());
        if matches!(status, "ERROR" | "DELETED")
            && let Some(fault) = row.get("fault").filter(|f| f.is_object())
        {
            put("fault", self.fault(fault));
        }
        if matches!(status, "ACTIVE" | "BUILD" | "REBUILD" | "RESIZE" | "VERIFY_RESIZE" | "MIGRATING") {
            put("progress", if status == "ACTIVE" { 100 } else { 0 }.into());
        }
        if self.full {
            self.rest(row, id, &ports, put);
        } else if !self.user_data && at(cx, 54) {
            put("key_name", row.get("key_name").cloned().unwrap_or(Value::Null));
        }
        if at(cx, 9) {
            put("locked", row.get("locked_by").is_some_and(Value::is_string).into());
        }
        if at(cx, 16) && self.full && self.host_status == HostStatus::Shown {
            put("host_status", self.host_state(row).into());
        }
        if at(cx, 19) {
            put("description", row.get("description").cloned().unwrap_or(Value::Null));
        }
        if at(cx, 26) {
            put("tags", row.get("tags").cloned().unwrap_or_else(|| json!([])));
        }
        if at(cx, 63) {
            put("trusted_image_certificates", Value::Null);
        }
        if at(cx, 71) && !self.detail {
            let group = row.get("group_id").and_then(Value::as_str);
            put("server_groups", group.map_or_else(|| json!([]), |g| json!([g])));
        }
        if at(cx, 73) {
            put("locked_reason", row.get("locked_reason").cloned().unwrap_or(Value::Null));
        }
        if at(cx, 90) && !(self.full && self.extended) {
            put("OS-EXT-SRV-ATTR:hostname", text(row, "hostname").into());
        }
        if at(cx, 96) && self.full {
            put("pinned_availability_zone", row.get("pinned_availability_zone").cloned().unwrap_or(Value::Null));
        }
    }

    /// What updates did not show until 2.75.
    fn rest(&self, row: &Map, id: &str, ports: &[Arc<Row>], put: &mut dyn FnMut(&str, Value)) {
        let or_null = |key: &str| row.get(key).cloned().unwrap_or(Value::Null);
        put("OS-EXT-AZ:availability_zone", self.zone(row).into());
        put("config_drive", if flag(row, "config_drive") { "True" } else { "" }.into());
        put("key_name", or_null("key_name"));
        put("OS-SRV-USG:launched_at", micros(row, "launched_at"));
        put("OS-SRV-USG:terminated_at", micros(row, "terminated_at"));
        let groups = self.group_names(ports);
        if !groups.is_empty() {
            put("security_groups", groups.into_iter().map(|n| json!({ "name": n })).collect());
        }
        put("OS-EXT-STS:task_state", or_null("task_state"));
        put("OS-EXT-STS:vm_state", or_null("vm_state"));
        put("OS-EXT-STS:power_state", or_null("power_state"));
        put("os-extended-volumes:volumes_attached", super::attachments::of_view(self.cx, self.reader, id));
        if !self.extended {
            return;
        }
        put("OS-EXT-SRV-ATTR:host", or_null("host"));
        put("OS-EXT-SRV-ATTR:instance_name", instance_name(id).into());
        put("OS-EXT-SRV-ATTR:hypervisor_hostname", or_null("host"));
        if at(self.cx, 3) {
            put("OS-EXT-SRV-ATTR:hostname", text(row, "hostname").into());
            put("OS-EXT-SRV-ATTR:kernel_id", "".into());
            put("OS-EXT-SRV-ATTR:launch_index", int(row, "launch_index").into());
            put("OS-EXT-SRV-ATTR:ramdisk_id", "".into());
            put("OS-EXT-SRV-ATTR:reservation_id", or_null("reservation_id"));
            put("OS-EXT-SRV-ATTR:root_device_name", "/dev/vda".into());
            if self.user_data {
                put("OS-EXT-SRV-ATTR:user_data", user_data(self.reader, id));
            }
        }
    }

    fn image(&self, row: &Map) -> Value {
        match text(row, "image_id") {
            "" => "".into(),
            id => json!({ "id": id, "links": [{ "rel": "bookmark", "href": format!("{}/images/{id}", self.cx.public) }] }),
        }
    }

    fn flavor(&self, row: &Map) -> Value {
        let Some(Value::Object(flavor)) = row.get("flavor") else { return json!({}) };
        if !at(self.cx, 47) {
            let id = text(flavor, "id");
            return json!({ "id": id, "links": [{ "rel": "bookmark", "href": format!("{}/flavors/{id}", self.cx.public) }] });
        }
        let mut out = crate::common::map(json!({
            "vcpus": int(flavor, "vcpus"), "ram": int(flavor, "ram"), "disk": int(flavor, "disk"), "ephemeral": int(flavor, "ephemeral"),
            "swap": int(flavor, "swap"), "original_name": text(flavor, "name"),
        }));
        if self.extra_specs {
            out.insert("extra_specs".into(), flavor.get("extra_specs").cloned().unwrap_or_else(|| json!({})));
        }
        out.into()
    }

    fn fault(&self, fault: &Value) -> Value {
        let mut out = crate::common::map(json!({ "code": fault["code"], "message": fault["message"] }));
        out.insert(
            "created".into(),
            fault["created"].as_i64().map(|t| base::Timestamp(t).seconds_z()).unwrap_or_default().into(),
        );
        let is_server_fault = fault["code"].as_u64().is_none_or(|c| c == 500);
        if let Some(details) = fault["details"].as_str().filter(|d| !d.is_empty() && (self.cx.is_admin() || !is_server_fault)) {
            out.insert("details".into(), details.into());
        }
        out.into()
    }

    fn ports(&self, server: &str) -> Vec<Arc<Row>> {
        self.tables.as_ref().map_or_else(Vec::new, |t| by_index(self.reader, &t.ports.table, "device_id", server))
    }

    /// Addresses by network name, with floating ones behind their fixed ones.
    pub(crate) fn addresses(&self, server: &str) -> Map {
        self.addresses_of(&self.ports(server), false)
    }

    fn addresses_of(&self, ports: &[Arc<Row>], extended: bool) -> Map {
        let mut out = Map::new();
        let Some(tables) = &self.tables else { return out };
        for port in ports {
            let port = object(port);
            if !text(port, "device_owner").starts_with("compute:") {
                continue;
            }
            let network = self.reader.get(&tables.networks.table, text(port, "network_id"));
            let label = network.as_ref().map_or("", |n| n.text("name"));
            let Value::Array(list) = out.entry(label).or_insert_with(|| json!([])) else { continue };
            let mut add = |address: &str, kind: &str| {
                let mut item = Map::with_capacity(4);
                item.insert("version".into(), if address.contains(':') { 6 } else { 4 }.into());
                item.insert("addr".into(), address.into());
                if extended {
                    item.insert("OS-EXT-IPS:type".into(), kind.into());
                    item.insert("OS-EXT-IPS-MAC:mac_addr".into(), text(port, "mac_address").into());
                }
                list.push(item.into());
            };
            let fixed = fixed_ips(port);
            fixed.iter().for_each(|a| add(a, "fixed"));
            if let Some(floating) = tables.floating {
                for fip in by_index(self.reader, &floating.table, "port_id", text(port, "id")) {
                    add(fip.text("floating_ip_address"), "floating");
                }
            }
        }
        out
    }

    /// Names of the security groups of the server's ports, each once.
    fn group_names(&self, ports: &[Arc<Row>]) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let Some(tables) = &self.tables else { return names };
        for port in ports {
            for id in port.field("security_groups").as_array().into_iter().flatten().filter_map(Value::as_str) {
                let name = self.reader.get(&tables.groups.table, id).map(|g| g.text("name").to_owned());
                names.extend(name.filter(|n| !names.contains(n)));
            }
        }
        names
    }

    fn zone(&self, row: &Map) -> String {
        match row.get("host").and_then(Value::as_str) {
            Some(host) => crate::zones::zone_of(self.reader, host),
            None => text(row, "pinned_availability_zone").to_owned(),
        }
    }

    fn host_state(&self, row: &Map) -> &'static str {
        let Some(node) = row.get("node_id").and_then(Value::as_str).and_then(|id| self.reader.get(&Node::DEF.table, id)) else {
            return "";
        };
        let node = object(&node);
        match (flag(node, "disabled"), text(node, "state") == "up" && !flag(node, "forced_down")) {
            (_, false) => "DOWN",
            (true, true) => "MAINTENANCE",
            (false, true) => "UP",
        }
    }

    pub(crate) fn brief(&self, row: &Map) -> Map {
        let id = text(row, "id");
        crate::common::map(json!({ "id": id, "name": text(row, "name"), "links": links(self.cx, id) }))
    }
}

fn seconds(row: &Map, key: &str) -> Value {
    crate::common::seconds(row, key)
}

pub(crate) fn user_data(reader: &Reader<'_>, id: &str) -> Value {
    reader.get(&crate::common::USER_DATA, id).map_or(Value::Null, |r| r.field("data").clone())
}

pub(crate) fn fixed_ips(port: &Map) -> Vec<String> {
    let list = port.get("fixed_ips").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|f| f.get("ip_address").and_then(Value::as_str).map(str::to_owned)).collect()
}

/// Two links, as Nova gives them for all that has a page.
pub(crate) fn links(cx: &Cx, id: &str) -> Value {
    link_pair(cx, "servers", id)
}
pub(crate) fn link_pair(cx: &Cx, kind: &str, id: &str) -> Value {
    json!([
        { "rel": "self", "href": format!("{}{}/{kind}/{id}", cx.public, "/v2.1") },
        { "rel": "bookmark", "href": format!("{}/{kind}/{id}", cx.public) },
    ])
}

/// Nova's `hostId`: tells hosts apart without naming them.
pub(crate) fn host_id(project: &str, host: &str) -> String {
    if host.is_empty() {
        return String::new();
    }
    let mut out = String::with_capacity(56);
    use sha2::Digest as _;
    for byte in sha2::Sha224::digest(format!("{project}{host}")) {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// The hypervisor's name of it.
pub(crate) fn instance_name(id: &str) -> String {
    format!("instance-{}", id.get(..8).unwrap_or(id))
}

/// MD5 as key fingerprints are written.
pub(crate) fn fingerprint(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}
