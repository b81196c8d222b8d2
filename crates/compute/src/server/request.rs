//! The body of `POST /servers`: its form at each version, and what it asks for.
use super::devices::{self, Device};
use crate::{
    common::at,
    shape::{self, Shape, opt, req},
};
use api::{Cx, Error, Map, Result};
use serde_json::Value;
use std::collections::BTreeMap;

const UUIDS: Shape = Shape::OneOf(&[&shape::UUID, &Shape::List { of: &shape::UUID, min: 0, max: 1000, unique: false }]);
const HINTS: Shape = Shape::Open(&[
    opt("group", &UUIDS),
    opt("different_host", &UUIDS),
    opt("same_host", &UUIDS),
    opt("query", &Shape::OneOf(&[&shape::TEXT, &Shape::Open(&[])])),
    opt("build_near_host_ip", &shape::IP),
]);
const NETWORK: Shape = Shape::Object(&[
    opt("fixed_ip", &shape::IP),
    opt("port", &Shape::OneOf(&[&shape::UUID, &Shape::Null])),
    opt("uuid", &shape::UUID),
    opt("tag", &shape::TAG).since(32).until(36),
]);
const TAGGED_NETWORK: Shape = Shape::Object(&[
    opt("fixed_ip", &shape::IP),
    opt("port", &Shape::OneOf(&[&shape::UUID, &Shape::Null])),
    opt("uuid", &shape::UUID),
    opt("tag", &shape::TAG).since(42),
]);
const NETWORKS: Shape = Shape::List { of: &NETWORK, min: 0, max: 1000, unique: false };
const NETWORKS_OR_WORD: Shape =
    Shape::OneOf(&[&Shape::List { of: &TAGGED_NETWORK, min: 0, max: 1000, unique: false }, &Shape::Choice(&["none", "auto"])]);
const DEVICE: Shape = Shape::Object(&[
    opt("virtual_name", &Shape::Text { min: 0, max: 255 }),
    opt("volume_id", &shape::UUID),
    opt("snapshot_id", &shape::UUID),
    opt("volume_size", &shape::POSITIVE),
    opt("device_name", &Shape::Text { min: 1, max: 255 }),
    opt("delete_on_termination", &Shape::Bool),
    opt("no_device", &Shape::Any),
    opt("connection_info", &shape::TEXT),
    opt("source_type", &Shape::Choice(&["volume", "image", "snapshot", "blank"])),
    opt("uuid", &Shape::Text { min: 1, max: 255 }),
    opt("image_id", &shape::UUID),
    opt("destination_type", &Shape::Choice(&["local", "volume"])),
    opt("guest_format", &Shape::Text { min: 0, max: 255 }),
    opt("device_type", &Shape::Text { min: 0, max: 255 }),
    opt("disk_bus", &Shape::Text { min: 0, max: 255 }),
    opt("boot_index", &Shape::OneOf(&[&Shape::Int { min: i64::MIN, max: i64::MAX }, &Shape::Null])),
    opt("tag", &shape::TAG).since(32),
    opt("volume_type", &Shape::OneOf(&[&Shape::Text { min: 0, max: 255 }, &Shape::Null])).since(67),
]);
pub(crate) const PERSONALITY: Shape = Shape::List {
    of: &Shape::Object(&[opt("path", &shape::TEXT), opt("contents", &shape::BASE64)]),
    min: 0,
    max: 100,
    unique: false,
};
const TAGS: Shape = Shape::List { of: &shape::TAG, min: 0, max: 50, unique: false };
pub(crate) const CERTIFICATES: Shape =
    Shape::OneOf(&[&Shape::List { of: &Shape::Text { min: 1, max: 255 }, min: 1, max: 50, unique: true }, &Shape::Null]);
const GROUPS: Shape = Shape::List { of: &Shape::Object(&[opt("name", &shape::NAME)]), min: 0, max: 100, unique: false };

const CREATE: Shape = Shape::Object(&[
    req(
        "server",
        &Shape::Object(&[
            req("name", &shape::NAME),
            req("flavorRef", &shape::FLAVOR_REF),
            opt("imageRef", &Shape::OneOf(&[&shape::UUID, &Shape::Text { min: 0, max: 0 }])),
            opt("adminPass", &shape::PASSWORD),
            opt("metadata", &shape::METADATA),
            opt("networks", &NETWORKS).until(36),
            req("networks", &NETWORKS_OR_WORD).since(37),
            opt("OS-DCF:diskConfig", &shape::DISK_CONFIG),
            opt("accessIPv4", &shape::IPV4),
            opt("accessIPv6", &shape::IPV6),
            opt("personality", &PERSONALITY).until(56),
            opt("availability_zone", &shape::NAME),
            opt("block_device_mapping", &Shape::List { of: &DEVICE, min: 0, max: 100, unique: false }),
            opt("block_device_mapping_v2", &Shape::List { of: &DEVICE, min: 0, max: 100, unique: false }),
            opt("config_drive", &Shape::Bool),
            opt("key_name", &shape::NAME),
            opt("min_count", &shape::POSITIVE),
            opt("max_count", &shape::POSITIVE),
            opt("return_reservation_id", &Shape::Bool),
            opt("security_groups", &GROUPS),
            opt("user_data", &shape::BASE64),
            opt("description", &shape::DESCRIPTION).since(19),
            opt("tags", &TAGS).since(52),
            opt("trusted_image_certificates", &CERTIFICATES).since(63),
            opt("host", &shape::FQDN).since(74),
            opt("hypervisor_hostname", &shape::FQDN).since(74),
            opt("hostname", &shape::HOSTNAME).since(90).until(93),
            opt("hostname", &shape::FQDN).since(94),
        ]),
    ),
    opt("os:scheduler_hints", &HINTS),
    opt("OS-SCH-HNT:scheduler_hints", &HINTS),
]);

/// Interfaces that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Networks {
    /// Nothing was said, or `auto`: the project's one network.
    Default,
    Auto,
    None,
    List(Vec<Nic>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nic {
    pub(crate) network: Option<String>,
    pub(crate) port: Option<String>,
    pub(crate) fixed_ip: Option<String>,
    pub(crate) tag: Option<String>,
}

/// A create as it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) flavor: String,
    /// Empty when the root disk is a volume that is no copy of an image.
    pub(crate) image: String,
    pub(crate) devices: Vec<Device>,
    pub(crate) admin_pass: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) networks: Networks,
    pub(crate) disk_config: Option<String>,
    pub(crate) access_ipv4: String,
    pub(crate) access_ipv6: String,
    pub(crate) zone: Option<String>,
    /// Host that an administrator asked for.
    pub(crate) host: Option<String>,
    /// Nova's `zone:host`: the host's filters do not matter.
    pub(crate) forced: bool,
    pub(crate) config_drive: bool,
    pub(crate) key_name: Option<String>,
    pub(crate) min_count: i64,
    pub(crate) max_count: i64,
    pub(crate) wants_reservation: bool,
    /// `None`: not said.
    pub(crate) groups: Option<Vec<String>>,
    pub(crate) user_data: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) hints: Map,
}

fn text(map: &Map, key: &str) -> Option<String> {
    map.get(key).and_then(Value::as_str).map(str::to_owned)
}

impl Request {
    pub(crate) fn read(body: &Value, cx: &Cx) -> Result<Self> {
        let root = body.as_object().ok_or_else(|| {
            Error::bad_request(
                "The server could not comply with the request since it is either malformed or otherwise incorrect.",
            )
        })?;
        CREATE.check(body, cx)?;
        let server =
            root.get("server").and_then(Value::as_object).ok_or_else(|| Error::bad_request("'server' is a required property"))?;
        if server.get("trusted_image_certificates").is_some_and(|v| !v.is_null()) {
            return Err(Error::bad_request(
                "Image signature verification is not available; leave trusted_image_certificates out.",
            ));
        }
        let count = |key: &str| server.get(key).and_then(shape::as_int);
        let min_count = count("min_count").unwrap_or(1);
        let max_count = count("max_count").unwrap_or(min_count);
        if min_count > max_count {
            return Err(Error::bad_request("min_count must be <= max_count"));
        }
        let (image, devices) = devices::read(server)?;
        if max_count > 1 && devices.iter().any(|d| d.is_existing_volume()) {
            return Err(Error::bad_request("Cannot attach one or more volumes to multiple instances"));
        }
        let (zone, host, forced) = place(server, cx)?;
        let groups = server.get("security_groups").and_then(Value::as_array).map(|l| {
            let mut names: Vec<String> = l.iter().filter_map(|g| g.get("name")?.as_str().map(str::to_owned)).collect();
            names.sort();
            names.dedup();
            names
        });
        let mut tags: Vec<String> = strings(server.get("tags"));
        tags.sort();
        tags.dedup();
        let name = text(server, "name").unwrap_or_default().trim().to_owned();
        let hints =
            ["os:scheduler_hints", "OS-SCH-HNT:scheduler_hints"].iter().find_map(|k| root.get(*k)).and_then(Value::as_object);
        Ok(Self {
            description: if at(cx, 19) { text(server, "description") } else { Some(name.clone()) },
            name,
            hostname: text(server, "hostname"),
            flavor: match server.get("flavorRef") {
                Some(Value::String(s)) => crate::common::id_of(s).to_owned(),
                Some(v) => v.to_string(),
                None => String::new(),
            },
            image,
            devices,
            admin_pass: text(server, "adminPass"),
            metadata: metadata(server.get("metadata")),
            networks: networks(server.get("networks"))?,
            disk_config: text(server, "OS-DCF:diskConfig"),
            access_ipv4: text(server, "accessIPv4").unwrap_or_default(),
            access_ipv6: text(server, "accessIPv6").unwrap_or_default(),
            zone,
            host,
            forced,
            config_drive: server.get("config_drive").and_then(shape::as_bool).unwrap_or(false),
            key_name: text(server, "key_name"),
            min_count,
            max_count,
            wants_reservation: server.get("return_reservation_id").and_then(shape::as_bool).unwrap_or(false),
            groups,
            user_data: text(server, "user_data"),
            tags,
            hints: hints.cloned().unwrap_or_default(),
        })
    }
}

pub(crate) fn strings(list: Option<&Value>) -> Vec<String> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

pub(crate) fn metadata(value: Option<&Value>) -> BTreeMap<String, String> {
    let object = value.and_then(Value::as_object);
    object.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

/// Zone, host, and whether the host was forced by `zone:host`.
fn place(server: &Map, cx: &Cx) -> Result<(Option<String>, Option<String>, bool)> {
    let zone = text(server, "availability_zone");
    let mut parts = zone.as_deref().unwrap_or_default().split(':');
    let (az, host, node) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    if parts.next().is_some() {
        return Err(Error::bad_request("Unable to parse availability zone"));
    }
    let forced = host.filter(|h| !h.is_empty()).or(node.filter(|n| !n.is_empty())).map(str::to_owned);
    let asked = text(server, "host").or_else(|| text(server, "hypervisor_hostname"));
    let may = |rule: &str| {
        if cx.may(rule, None) { Ok(()) } else { Err(Error::forbidden(format!("Policy doesn't allow {rule} to be performed."))) }
    };
    if forced.is_some() {
        may("os_compute_api:servers:create:forced_host")?;
    }
    if asked.is_some() {
        may("compute:servers:create:requested_destination")?;
        if forced.is_some() {
            return Err(Error::bad_request(
                "One mechanism with host and/or hypervisor_hostname and another mechanism with zone:host:node are mutually exclusive.",
            ));
        }
        let (a, b) = (text(server, "host"), text(server, "hypervisor_hostname"));
        if a.is_some() && b.is_some() && a != b {
            return Err(Error::bad_request("No valid host was found: a node has the name of its host here."));
        }
    }
    let is_forced = forced.is_some();
    Ok((Some(az.to_owned()).filter(|z| !z.is_empty()), forced.or(asked), is_forced))
}

fn networks(value: Option<&Value>) -> Result<Networks> {
    let list = match value {
        None => return Ok(Networks::Default),
        Some(Value::String(word)) => return Ok(if word == "none" { Networks::None } else { Networks::Auto }),
        Some(v) => v.as_array().cloned().unwrap_or_default(),
    };
    if list.is_empty() {
        return Ok(Networks::Default);
    }
    let mut nics: Vec<Nic> = Vec::new();
    for item in list.iter().filter_map(Value::as_object) {
        let nic = Nic {
            network: text(item, "uuid"),
            port: text(item, "port"),
            fixed_ip: text(item, "fixed_ip"),
            tag: text(item, "tag"),
        };
        if let Some(port) = &nic.port {
            if nics.iter().any(|n| n.port.as_ref() == Some(port)) {
                return Err(Error::bad_request(format!(
                    "Port ID '{port}' was specified twice: you cannot attach a port multiple times."
                )));
            }
            if let Some(address) = &nic.fixed_ip {
                return Err(Error::bad_request(format!(
                    "Specified Fixed IP '{address}' cannot be used with port '{port}': the two cannot be specified together."
                )));
            }
        } else if nic.network.is_none() {
            return Err(Error::bad_request("Bad network format: missing 'uuid'"));
        }
        nics.push(nic);
    }
    Ok(Networks::List(nics))
}
