//! Networks (api-ref `v2/networks`).
use super::{Port, RbacPolicy, Subnet};
use crate::{fail, groups, ports, segments, sharing, tags};
use api::{Cx, Map, Result};
use resource::{Deletion, Object, Reader, Resource, Rules, Tx, engine};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The MTU that the hosts' own network gives, and what Geneve over IPv4 leaves of it.
const PHYSICAL_MTU: u32 = 1500;
const OVERLAY_MTU: u32 = 1442;

/// A virtual layer-2 network.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "network", path = "/v2.0/networks", owner = "project", quota = "network", stamps)]
#[policy(
    list = "reader",
    show = "reader",
    create = "member",
    update = "rule:network_row_owner",
    delete = "rule:network_row_owner"
)]
pub(crate) struct Network {
    #[field(create, update, filter, sort, default = "")]
    pub(crate) name: String,
    #[field(create, update, filter, default = "")]
    pub(crate) description: String,
    #[field(create, update, filter, sort, default = true)]
    pub(crate) admin_state_up: bool,
    #[field(filter, sort, default = "ACTIVE")]
    pub(crate) status: String,
    /// Usable by every project.
    #[field(create, update, filter, policy = "admin", default = false)]
    pub(crate) shared: bool,
    /// Largest packet in bytes; 0 or null takes what the network's type allows.
    #[field(create, update, filter, sort)]
    pub(crate) mtu: Option<u32>,
    /// Routers may have their gateway, and floating addresses may come from here.
    #[serde(rename = "router:external")]
    #[field(create, update, filter, policy = "admin", default = false)]
    pub(crate) external: bool,
    /// The one network that is used where a floating address or an automatic topology names none.
    #[field(create, update, filter, policy = "admin", default = false)]
    pub(crate) is_default: bool,
    /// What new ports have unless they say otherwise.
    #[field(create, update, filter, default = true)]
    pub(crate) port_security_enabled: bool,
    #[field(create, update, filter, default = "")]
    pub(crate) dns_domain: String,
    #[serde(rename = "provider:network_type")]
    #[field(create, filter, policy = "admin", read_policy = "admin")]
    pub(crate) network_type: Option<String>,
    #[serde(rename = "provider:physical_network")]
    #[field(create, filter, policy = "admin", read_policy = "admin")]
    pub(crate) physical_network: Option<String>,
    #[serde(rename = "provider:segmentation_id")]
    #[field(create, filter, policy = "admin", read_policy = "admin")]
    pub(crate) segmentation_id: Option<u32>,
    #[field(create, default = Vec::<String>::new())]
    pub(crate) availability_zone_hints: Vec<String>,
    #[field(default = Vec::<String>::new())]
    pub(crate) tags: Vec<String>,
}

impl Network {
    fn fit_mtu(&mut self) -> Result<()> {
        let most = if self.network_type.as_deref() == Some("geneve") { OVERLAY_MTU } else { PHYSICAL_MTU };
        match self.mtu.unwrap_or(0) {
            0 => self.mtu = Some(most),
            1..68 => return Err(fail::invalid("MTU must be at least 68")),
            n if n > most => return Err(fail::invalid(format!("Requested MTU is too big, maximum is {most}"))),
            _ => {}
        }
        Ok(())
    }
}

fn check_domain(domain: &str) -> Result<()> {
    let label =
        |l: &str| !l.is_empty() && l.len() <= 63 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let plain = domain.strip_suffix('.').unwrap_or(domain);
    if domain.is_empty() || (plain.split('.').all(label) && domain.len() <= 253) {
        return Ok(());
    }
    Err(api::Error::invalid("dns_domain", format!("'{domain}' is not a valid domain name")))
}

impl Rules for Network {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        check_domain(&row.dns_domain)?;
        segments::take(row, tx)?;
        row.fit_mtu()?;
        if row.is_default && !row.external {
            return Err(fail::invalid("only an external network can be the default"));
        }
        let map = row.clone().into_map()?;
        sharing::follow_flag(tx, cx, "network", &map, sharing::SHARED);
        sharing::follow_flag(tx, cx, "network", &map, sharing::EXTERNAL);
        groups::default_group(tx, cx, row.project_id())?;
        Ok(())
    }

    fn update(row: &mut Object<Self>, old: &Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        check_domain(&row.dns_domain)?;
        if row.mtu != old.mtu {
            row.fit_mtu()?;
        }
        let map = row.clone().into_map()?;
        if old.shared != row.shared {
            if !row.shared {
                check_unshare(tx, &map)?;
            }
            sharing::follow_flag(tx, cx, "network", &map, sharing::SHARED);
        }
        if old.external != row.external {
            if !row.external {
                check_internal(tx, &row.id)?;
            }
            sharing::follow_flag(tx, cx, "network", &map, sharing::EXTERNAL);
        }
        Ok(())
    }

    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        let ports = tx.children(&Port::DEF.table, "network_id", &row.id);
        let goes = |p: &store::Row| ports::goes_with_network(p.text("device_owner"));
        let mut floating = Vec::new();
        for port in &ports {
            match port.text("device_owner") {
                // An address that nothing uses goes with its network.
                "network:floatingip" => floating.push(port.text("device_id").to_owned()),
                _ if goes(port) => {}
                _ => return Err(fail::network_in_use(&row.id)),
            }
        }
        for id in floating {
            super::floatingip::remove_unused(tx, &id)?.ok_or_else(|| fail::network_in_use(&row.id))?;
        }
        for port in ports.iter().filter(|p| goes(p)) {
            ports::remove(tx, &Object::from_row(port)?)?;
        }
        for subnet in tx.children(&Subnet::DEF.table, "network_id", &row.id) {
            if let Value::Object(map) = subnet.value() {
                engine::remove(tx, Subnet::DEF, map);
            }
        }
        segments::release(row, tx);
        sharing::forget(tx, &row.id)?;
        Ok(Deletion::Now)
    }

    fn view(row: &Map, out: &mut Map, cx: &Cx, reader: &Reader<'_>) {
        let id = row.get("id").and_then(Value::as_str).unwrap_or_default();
        let subnets = reader.find(&Subnet::DEF.table, "network_id", id);
        let scope = |version: u64| -> Value {
            let of = |s: &std::sync::Arc<store::Row>| -> Option<Value> {
                let pool = reader.get(&super::SubnetPool::DEF.table, s.text("subnetpool_id"))?;
                Some(pool.field("address_scope_id").clone())
            };
            subnets.iter().filter(|s| *s.field("ip_version") == version).find_map(of).unwrap_or(Value::Null)
        };
        out.insert("ipv4_address_scope".into(), scope(4));
        out.insert("ipv6_address_scope".into(), scope(6));
        out.insert("subnets".into(), subnets.iter().map(|s| s.id().to_owned()).collect::<Vec<_>>().into());
        out.insert("shared".into(), sharing::shown_as(row, cx, reader, sharing::SHARED).into());
        out.insert("router:external".into(), sharing::shown_as(row, cx, reader, sharing::EXTERNAL).into());
        out.insert("availability_zones".into(), Value::Array(Vec::new()));
    }

    fn visible(row: &Map, cx: &Cx, reader: &Reader<'_>) -> bool {
        sharing::sees(row, cx, reader)
    }

    fn filter(row: &Map, key: &str, values: &[&str], _cx: &Cx) -> Option<bool> {
        tags::filter(row, key, values)
    }
}

/// The network may cease to be everybody's only if nobody else uses it, unless it is shared with them by name.
pub(crate) fn check_unshare(tx: &mut Tx<'_>, network: &Map) -> Result<()> {
    let text = |field: &str| network.get(field).and_then(Value::as_str).unwrap_or_default();
    let named: Vec<String> = tx
        .find(&RbacPolicy::DEF.table, "object_id", text("id"))
        .iter()
        .filter(|p| p.text("action") == sharing::SHARED)
        .map(|p| p.text("target_tenant").to_owned())
        .collect();
    let stranger = |p: &store::Row| {
        let project = p.text("project_id");
        !project.is_empty() && project != text("project_id") && !named.iter().any(|n| n == project)
    };
    if tx.children(&Port::DEF.table, "network_id", text("id")).iter().any(|p| stranger(p)) {
        let what = format!("Unable to reconfigure sharing settings for network {}.", text("name"));
        return Err(fail::refused("InvalidSharedSetting", format!("{what} Multiple tenants are using it.")));
    }
    Ok(())
}

/// A network ceases to be external only when no router has its gateway and no floating address its home there.
fn check_internal(tx: &mut Tx<'_>, id: &str) -> Result<()> {
    let ports = tx.children(&Port::DEF.table, "network_id", id);
    if ports.iter().any(|p| matches!(p.text("device_owner"), "network:router_gateway" | "network:floatingip")) {
        let text = "cannot be updated to be made non-external, since it has existing gateway ports";
        return Err(fail::refused("ExternalNetworkInUse", format!("External network {id} {text}.")));
    }
    Ok(())
}
