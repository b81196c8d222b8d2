//! Ports (api-ref `v2/ports`).
use super::{Network, OBJECTS, SecurityGroup};
use crate::{fail, groups, plan_port, ports, sharing, tags};
use api::{Cx, Map, Result};
use resource::{Deletion, Kind, Object, Reader, Resource, Rules, Tx, load};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Neutron's `max_fixed_ips_per_port`.
const MOST_ADDRESSES: usize = 5;

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct FixedIp {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subnet_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ip_address: Option<String>,
}

/// Addresses that a port may use besides its own.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddressPair {
    pub(crate) ip_address: String,
    #[serde(default)]
    pub(crate) mac_address: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct DhcpOption {
    pub(crate) opt_name: String,
    #[serde(default)]
    pub(crate) opt_value: Option<String>,
    #[serde(default = "four")]
    pub(crate) ip_version: u8,
}

fn four() -> u8 {
    4
}

/// Where something joins a network.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(
    service = "network",
    path = "/v2.0/ports",
    owner = "project",
    quota = "port",
    stamps,
    index = "subnet:/fixed_ips/*/subnet_id"
)]
// Whoever sees a port may delete it: its owner, and the owner of its network.
#[policy(list = "reader", show = "reader", create = "member", update = "rule:network_row_owner", delete = "member")]
pub(crate) struct Port {
    #[field(create, update, filter, sort, default = "")]
    pub(crate) name: String,
    #[field(create, update, filter, default = "")]
    pub(crate) description: String,
    #[field(create, required, filter, sort, index)]
    pub(crate) network_id: String,
    #[field(create, update, filter, sort, default = true)]
    pub(crate) admin_state_up: bool,
    /// ACTIVE when the data plane carries it.
    #[field(filter, sort, default = "DOWN")]
    pub(crate) status: String,
    #[field(create, update, filter, sort, kind = Kind::Optional(&Kind::Mac))]
    pub(crate) mac_address: Option<String>,
    #[field(create, update, kind = OBJECTS)]
    pub(crate) fixed_ips: Option<Vec<FixedIp>>,
    #[field(create, update, filter, sort, index, default = "")]
    pub(crate) device_id: String,
    #[field(create, update, filter, sort, default = "")]
    pub(crate) device_owner: String,
    #[field(create, update, filter, index)]
    pub(crate) security_groups: Option<Vec<String>>,
    #[field(create, update, kind = OBJECTS)]
    pub(crate) allowed_address_pairs: Option<Vec<AddressPair>>,
    #[field(create, update, kind = OBJECTS)]
    pub(crate) extra_dhcp_opts: Option<Vec<DhcpOption>>,
    /// Null until the network's is taken.
    #[field(create, update, filter)]
    pub(crate) port_security_enabled: Option<bool>,
    /// Hostname of the node that the port is on.
    #[serde(rename = "binding:host_id", deserialize_with = "null_is_empty")]
    #[field(create, update, filter, index, policy = "service", read_policy = "service", default = "", kind = HOST)]
    pub(crate) host_id: String,
    #[serde(rename = "binding:vnic_type")]
    #[field(create, update, filter, kind = Kind::Choice(&["normal", "direct", "macvtap", "baremetal", "direct-physical", "virtio-forwarder", "smart-nic", "vdpa"]), default = "normal")]
    pub(crate) vnic_type: String,
    #[serde(rename = "binding:profile")]
    #[field(create, update, policy = "service", read_policy = "service", default = Map::new())]
    pub(crate) profile: Map,
    #[field(create, update, filter, default = "")]
    pub(crate) dns_name: String,
    #[field(filter, default = "immediate")]
    pub(crate) ip_allocation: String,
    /// Subnets that a router reaches through this port; empty for other owners.
    #[field(hidden, index, default = Vec::<String>::new())]
    pub(crate) routed_subnets: Vec<String>,
    #[field(default = Vec::<String>::new())]
    pub(crate) tags: Vec<String>,
}

/// Null unbinds, as the empty name does.
const HOST: Kind = Kind::Optional(&Kind::Text { min: 0, max: 255 });

fn null_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(from)?.unwrap_or_default())
}

impl Port {
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fixed_ips.iter().flatten().filter_map(|f| Some((f.subnet_id.as_deref()?, f.ip_address.as_deref()?)))
    }
    fn is_trusted(&self) -> bool {
        self.device_owner.starts_with("network:")
    }
}

impl Rules for Port {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        let network: Object<Network> = load(tx, &row.network_id)?.ok_or_else(|| fail::network_missing(&row.network_id))?;
        if !sharing::may_use(tx, cx, &network.map, sharing::SHARED) {
            let seen = sharing::may_see(tx, cx, &network.map);
            return Err(if seen { fail::forbidden("create_port") } else { fail::network_missing(&row.network_id) });
        }
        admit(row, None, &network, cx)?;
        row.fixed_ips = ports::place(tx, &network, row, None)?.into();
        secure(row, None, &network, cx, tx)?;
        plan_port::check_pairs(row)?;
        row.extra_dhcp_opts = Some(plan_port::merge_options(Vec::new(), row.extra_dhcp_opts.take().unwrap_or_default())?);
        plan_port::check_dns_name(&row.dns_name)
    }

    fn update(row: &mut Object<Self>, old: &Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        let network: Object<Network> = load(tx, &row.network_id)?.ok_or_else(|| fail::network_missing(&row.network_id))?;
        admit(row, Some(old), &network, cx)?;
        if row.mac_address != old.mac_address || row.fixed_ips != old.fixed_ips {
            row.fixed_ips = ports::place(tx, &network, row, Some(old))?.into();
            for (_, ip) in old.addresses().filter(|(_, ip)| !row.addresses().any(|(_, new)| new == *ip)) {
                super::floatingip::disassociate(tx, &old.id, Some(ip))?;
            }
        }
        ports::note_routed(row);
        secure(row, Some(old), &network, cx, tx)?;
        plan_port::check_pairs(row)?;
        if row.extra_dhcp_opts != old.extra_dhcp_opts {
            let (held, wanted) = (old.extra_dhcp_opts.clone(), row.extra_dhcp_opts.take());
            row.extra_dhcp_opts = Some(plan_port::merge_options(held.unwrap_or_default(), wanted.unwrap_or_default())?);
        }
        if row.host_id != old.host_id {
            // Whether the new host carries it is not known yet.
            row.status = "DOWN".into();
        }
        plan_port::check_dns_name(&row.dns_name)
    }

    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        if ports::belongs_to_a_router(&row.device_owner) || row.device_owner == ports::METADATA_OWNER {
            let text = format!("has device owner {}", row.device_owner);
            return Err(fail::refused(
                "ServicePortInUse",
                format!("Port {} cannot be deleted directly via the port API: {text}.", row.id),
            ));
        }
        ports::release(tx, row)?;
        Ok(Deletion::Now)
    }

    fn view(row: &Map, out: &mut Map, cx: &Cx, _reader: &Reader<'_>) {
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
        if cx.may("service", None) {
            let bound = !text("binding:host_id").is_empty();
            out.insert("binding:vif_type".into(), if bound { "ovs" } else { "unbound" }.into());
            let details =
                if bound { json!({"port_filter": true, "connectivity": "l2", "datapath_type": "system"}) } else { json!({}) };
            out.insert("binding:vif_details".into(), details);
        }
        let addresses = row.get("fixed_ips").and_then(Value::as_array);
        let assignment = |f: &Value| {
            let ip = f.get("ip_address").and_then(Value::as_str).unwrap_or_default();
            let host = match text("dns_name") {
                "" => format!("host-{}", ip.replace(['.', ':'], "-")),
                name => name.to_owned(),
            };
            json!({"ip_address": ip, "hostname": host, "fqdn": format!("{host}.openstacklocal.")})
        };
        let assignments: Vec<Value> = addresses.into_iter().flatten().map(assignment).collect();
        out.insert("dns_assignment".into(), assignments.into());
    }

    fn visible(row: &Map, cx: &Cx, reader: &Reader<'_>) -> bool {
        if sharing::owns(row, cx) {
            return true;
        }
        // The owner of a network sees who is on it.
        let network = row.get("network_id").and_then(Value::as_str).unwrap_or_default();
        let owner = reader.get(&Network::DEF.table, network).map(|n| n.text("project_id").to_owned());
        owner.is_some() && owner.as_deref() == cx.caller.project_id()
    }

    fn filter(row: &Map, key: &str, values: &[&str], _cx: &Cx) -> Option<bool> {
        if key == "fixed_ips" { Some(has_address(row, values)) } else { tags::filter(row, key, values) }
    }
}

/// `fixed_ips=ip_address=…`, `fixed_ips=subnet_id=…`, `fixed_ips=ip_address_substr=…`: one of each kind that was said.
fn has_address(row: &Map, values: &[&str]) -> bool {
    let fixed = row.get("fixed_ips").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let said = |field: &str| -> Vec<&str> {
        values.iter().filter_map(|v| v.split_once('=')).filter(|(k, _)| *k == field).map(|(_, v)| v).collect()
    };
    let text = |f: &Value, field: &str| f.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let plain = |v: &str| v.parse::<std::net::IpAddr>().map_or_else(|_| v.to_owned(), |ip| ip.to_string());
    let (subnets, addresses, parts) = (said("subnet_id"), said("ip_address"), said("ip_address_substr"));
    let any = |wanted: &[&str], test: &dyn Fn(&Value, &str) -> bool| {
        wanted.is_empty() || fixed.iter().any(|f| wanted.iter().any(|w| test(f, w)))
    };
    any(&subnets, &|f, w| text(f, "subnet_id") == w)
        && any(&addresses, &|f, w| text(f, "ip_address") == plain(w))
        && any(&parts, &|f, w| text(f, "ip_address").contains(w))
}

/// What only the network's owner, or nobody, may ask of a port.
fn admit(row: &Port, old: Option<&Object<Port>>, network: &Object<Network>, cx: &Cx) -> Result<()> {
    if row.fixed_ips.as_ref().is_some_and(|f| f.len() > MOST_ADDRESSES) {
        return Err(fail::invalid("Exceeded maximum amount of fixed ips per port"));
    }
    if cx.is_admin() {
        return Ok(());
    }
    let action = if old.is_some() { "update_port" } else { "create_port" };
    let owner = sharing::owns(&network.map, cx);
    let no = |attribute: &str| Err(fail::forbidden(&format!("({action} and {action}:{attribute})")));
    let changed = |now: bool, was: Option<bool>| was.map_or(now, |same| !same);
    if old.is_some_and(|o| o.mac_address != row.mac_address) {
        return no("mac_address");
    }
    let owner_changed = changed(!row.device_owner.is_empty(), old.map(|o| o.device_owner == row.device_owner));
    let reserved = ports::belongs_to_a_router(&row.device_owner) || row.device_owner == ports::METADATA_OWNER;
    if owner_changed && row.is_trusted() && (!owner || reserved) {
        return no("device_owner");
    }
    if let Some(old) = old {
        // What a router needs of its port is changed through the router.
        let fixed = ports::belongs_to_a_router(&old.device_owner) || old.device_owner == ports::METADATA_OWNER;
        if fixed && (owner_changed || row.device_id != old.device_id) {
            return no("device_owner");
        }
    }
    if owner {
        return Ok(());
    }
    if old.is_none() && row.mac_address.is_some() {
        return no("mac_address");
    }
    let named = |p: &Port| p.fixed_ips.iter().flatten().any(|f| f.ip_address.is_some());
    if changed(named(row), old.map(|o| o.fixed_ips == row.fixed_ips)) && named(row) {
        return no("fixed_ips:ip_address");
    }
    let pairs = |p: &Port| p.allowed_address_pairs.clone().unwrap_or_default();
    if pairs(row) != old.map(|o| pairs(o)).unwrap_or_default() {
        return no("allowed_address_pairs");
    }
    match (row.port_security_enabled, old) {
        (Some(now), None) if now != network.port_security_enabled => no("port_security_enabled"),
        (now, Some(old)) if now != old.port_security_enabled => no("port_security_enabled"),
        _ => Ok(()),
    }
}

/// Port security and the groups of the port.
fn secure(row: &mut Object<Port>, old: Option<&Object<Port>>, network: &Network, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
    let unsaid = row.security_groups.is_none();
    let default = if row.is_trusted() { false } else { network.port_security_enabled };
    let enabled = *row.port_security_enabled.get_or_insert(default);
    if !enabled {
        let groups = row.security_groups.get_or_insert_default();
        if groups.is_empty() {
            return Ok(());
        }
        return Err(match old {
            Some(_) => {
                let text = "Port has security group associated. Cannot disable port security or IP address until security group is removed.";
                fail::refused("PortSecurityPortHasSecurityGroup", text.into())
            }
            None => {
                let text = "Port security must be enabled and port must have an IP address in order to use security groups.";
                fail::wrong("PortSecurityAndIPRequiredForSecurityGroups", text.into())
            }
        });
    }
    if unsaid {
        let project = row.project_id().to_owned();
        row.security_groups = Some(match old {
            None if !row.is_trusted() && !project.is_empty() => vec![groups::default_group(tx, cx, &project)?],
            None | Some(_) => Vec::new(),
        });
        return Ok(());
    }
    if old.is_some_and(|o| o.security_groups == row.security_groups) {
        return Ok(());
    }
    let project = row.project_id().to_owned();
    let groups = row.security_groups.get_or_insert_default();
    let mut seen = Vec::new();
    for id in groups.iter() {
        let group: Object<SecurityGroup> = load(tx, id)?.ok_or_else(|| fail::group_missing(id))?;
        if group.project_id() != project && !sharing::may_use(tx, cx, &group.map, sharing::SHARED) {
            return Err(fail::group_missing(id));
        }
        if !seen.contains(id) {
            seen.push(id.clone());
        }
    }
    *groups = seen;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_filtered_by_their_addresses() {
        let row =
            json!({"fixed_ips": [{"subnet_id": "s", "ip_address": "10.0.0.5"}, {"subnet_id": "t", "ip_address": "2001:db8::5"}]});
        let has = |values: &[&str]| has_address(row.as_object().unwrap(), values);
        assert!(has(&["subnet_id=s"]) && has(&["ip_address=10.0.0.5"]) && has(&["ip_address=2001:DB8:0::5"]));
        assert!(has(&["subnet_id=x", "subnet_id=t"]) && has(&["subnet_id=t", "ip_address=10.0.0.5"]));
        assert!(!has(&["subnet_id=x"]) && !has(&["ip_address=10.0.0.50"]) && !has(&["subnet_id=s", "ip_address=10.0.0.6"]));
        assert!(has(&["ip_address_substr=0.0.5"]) && !has(&["ip_address_substr=0.0.6"]));
    }
}
