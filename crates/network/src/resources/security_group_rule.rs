//! Security group rules (api-ref `v2/security-group-rules`).
use super::{AddressGroup, SecurityGroup};
use crate::{fail, protocols, sharing, tags};
use api::{Cx, Error, Map, Result};
use ipnet::IpNet;
use resource::{Deletion, Kind, Object, Reader, Resource, Rules, Tx, load};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One thing that a security group lets through.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "network", path = "/v2.0/security-group-rules", owner = "project", quota = "security_group_rule", stamps)]
#[policy(list = "reader", show = "reader", create = "member", delete = "rule:network_row_owner")]
pub(crate) struct SecurityGroupRule {
    #[field(create, filter, default = "")]
    pub(crate) description: String,
    #[field(create, required, filter, sort, index)]
    pub(crate) security_group_id: String,
    #[field(create, required, filter, sort, kind = Kind::Choice(&["ingress", "egress"]))]
    pub(crate) direction: String,
    #[field(create, filter, sort, default = "IPv4")]
    pub(crate) ethertype: String,
    /// A name or a number.
    #[field(create, filter, sort)]
    pub(crate) protocol: Option<Value>,
    #[field(create, filter, sort)]
    pub(crate) port_range_min: Option<i64>,
    #[field(create, filter, sort)]
    pub(crate) port_range_max: Option<i64>,
    #[field(create, filter, sort)]
    pub(crate) remote_ip_prefix: Option<String>,
    /// `remote_ip_prefix` without host bits.
    #[field(filter)]
    pub(crate) normalized_cidr: Option<IpNet>,
    #[field(create, filter, sort, index)]
    pub(crate) remote_group_id: Option<String>,
    #[field(create, filter, sort, index)]
    pub(crate) remote_address_group_id: Option<String>,
    #[field(default = Vec::<String>::new())]
    pub(crate) tags: Vec<String>,
}

impl SecurityGroupRule {
    pub(crate) fn protocol_number(&self) -> Option<u8> {
        self.protocol.as_ref().and_then(Value::as_str).and_then(protocols::number)
    }
    /// What makes two rules the same.
    fn essence(&self) -> impl PartialEq {
        (
            self.direction.clone(),
            self.ethertype.clone(),
            self.protocol_number(),
            (self.port_range_min, self.port_range_max),
            self.normalized_cidr,
            self.remote_group_id.clone(),
            self.remote_address_group_id.clone(),
        )
    }
}

impl Rules for SecurityGroupRule {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        check(row)?;
        let id = row.security_group_id.clone();
        let group: Object<SecurityGroup> = load(tx, &id)?.ok_or_else(|| fail::group_missing(&id))?;
        if !sharing::owns(&group.map, cx) {
            let seen = sharing::may_use(tx, cx, &group.map, sharing::SHARED);
            return Err(if seen { fail::forbidden("create_security_group_rule") } else { fail::group_missing(&id) });
        }
        row.map.insert("project_id".into(), group.project_id().into());
        if let Some(remote) = row.remote_group_id.as_deref().filter(|r| *r != id) {
            let remote_group: Object<SecurityGroup> = load(tx, remote)?.ok_or_else(|| fail::group_missing(remote))?;
            if remote_group.project_id() != group.project_id() && !sharing::may_use(tx, cx, &remote_group.map, sharing::SHARED) {
                return Err(fail::group_missing(remote));
            }
        }
        if let Some(remote) = &row.remote_address_group_id {
            let missing = || fail::missing("AddressGroupNotFound", format!("Address group {remote} could not be found."));
            let addresses: Object<AddressGroup> = load(tx, remote)?.ok_or_else(missing)?;
            if !sharing::may_use(tx, cx, &addresses.map, sharing::SHARED) {
                return Err(missing());
            }
        }
        let rules: Vec<Object<Self>> = resource::find(tx, "security_group_id", &id)?;
        if let Some(same) = rules.iter().find(|r| r.essence() == row.essence()) {
            return Err(fail::refused(
                "SecurityGroupRuleExists",
                format!("Security group rule already exists. Rule id is {}.", same.id),
            ));
        }
        // Writing the group makes two rules at once take turns, and stops its deletion.
        group.save(tx)
    }

    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        if let Some(group) = load::<SecurityGroup>(tx, &row.security_group_id)? {
            group.save(tx)?;
        }
        Ok(Deletion::Now)
    }

    fn view(row: &Map, out: &mut Map, _cx: &Cx, reader: &Reader<'_>) {
        let group = row.get("security_group_id").and_then(Value::as_str).unwrap_or_default();
        let default = reader.get(&SecurityGroup::DEF.table, group).is_some_and(|g| g.text("name") == crate::groups::DEFAULT);
        out.insert("belongs_to_default_sg".into(), default.into());
    }

    fn visible(row: &Map, cx: &Cx, reader: &Reader<'_>) -> bool {
        sharing::owns(row, cx) || {
            let group = row.get("security_group_id").and_then(Value::as_str).unwrap_or_default();
            let group = reader.get(&SecurityGroup::DEF.table, group);
            group.as_deref().and_then(|g| g.value().as_object()).is_some_and(|g| sharing::sees(g, cx, reader))
        }
    }

    fn filter(row: &Map, key: &str, values: &[&str], _cx: &Cx) -> Option<bool> {
        tags::filter(row, key, values)
    }
}

/// What must hold of a rule by itself; brings it into its stored form.
fn check(rule: &mut SecurityGroupRule) -> Result<()> {
    rule.ethertype = match rule.ethertype.to_ascii_lowercase().as_str() {
        "ipv4" => "IPv4".into(),
        "ipv6" => "IPv6".into(),
        other => {
            let text = format!("Security group rule for ethertype '{other}' not supported. Allowed values are ['IPv4', 'IPv6'].");
            return Err(fail::wrong("SecurityGroupRuleInvalidEtherType", text));
        }
    };
    let protocol = check_protocol(rule)?;
    check_ports(rule, protocol.as_deref())?;
    let remotes = [rule.remote_ip_prefix.is_some(), rule.remote_group_id.is_some(), rule.remote_address_group_id.is_some()];
    if remotes.into_iter().filter(|r| *r).count() > 1 {
        let (code, text) = if rule.remote_address_group_id.is_some() {
            (
                "SecurityGroupMultipleRemoteEntites",
                "Only one of remote_ip_prefix, remote_group_id or remote_address_group_id may be provided.",
            )
        } else {
            ("SecurityGroupRemoteGroupAndRemoteIpPrefix", "Only remote_ip_prefix or remote_group_id may be provided.")
        };
        return Err(fail::wrong(code, text.into()));
    }
    check_prefix(rule)
}

fn check_protocol(rule: &mut SecurityGroupRule) -> Result<Option<String>> {
    let text = match &rule.protocol {
        None | Some(Value::Null) => None,
        Some(Value::String(s)) if s.is_empty() || s.eq_ignore_ascii_case("any") => None,
        Some(Value::String(s)) => Some(s.to_ascii_lowercase()),
        Some(Value::Number(n)) => Some(n.to_string()),
        Some(other) => Some(other.to_string()),
    };
    let Some(text) = text else {
        rule.protocol = None;
        return Ok(None);
    };
    if protocols::number(&text).is_none() {
        let text = format!(
            "Security group rule protocol {text} not supported. Only protocol values [{}] and integer representations [0 to 255] are supported.",
            protocols::names()
        );
        return Err(fail::wrong("SecurityGroupRuleInvalidProtocol", text));
    }
    if rule.ethertype == "IPv4" && protocols::is_v6_only(&text) {
        let text = format!("Invalid ethertype {} for protocol {text}.", rule.ethertype);
        return Err(fail::wrong("SecurityGroupEthertypeConflictWithProtocol", text));
    }
    rule.protocol = Some(text.as_str().into());
    Ok(Some(text))
}

fn check_ports(rule: &SecurityGroupRule, protocol: Option<&str>) -> Result<()> {
    let (min, max) = (rule.port_range_min, rule.port_range_max);
    if min.is_none() && max.is_none() {
        return Ok(());
    }
    let Some(protocol) = protocol else {
        return Err(fail::wrong(
            "SecurityGroupProtocolRequiredWithPorts",
            "Must also specify protocol if port range is given.".into(),
        ));
    };
    let number = protocols::number(protocol).unwrap_or(0);
    if protocols::has_ports(number) {
        if let Some(port) = [min, max].into_iter().flatten().find(|p| !(0..=65535).contains(p)) {
            return Err(fail::wrong("SecurityGroupInvalidPortValue", format!("Invalid value for port {port}")));
        }
        return match (min, max) {
            (Some(a), Some(b)) if a <= b => Ok(()),
            _ => {
                let text = "For TCP/UDP protocols, port_range_min must be <= port_range_max";
                Err(fail::wrong("SecurityGroupInvalidPortRange", text.into()))
            }
        };
    }
    if !protocols::is_icmp(number) {
        let text = format!("Invalid protocol {protocol} for port range, only supported for TCP, UDP, UDPLITE, SCTP and DCCP.");
        return Err(fail::wrong("SecurityGroupInvalidProtocolForPort", text));
    }
    for (value, field, name) in [(min, "port_range_min", "type"), (max, "port_range_max", "code")] {
        if let Some(n) = value.filter(|n| !(0..=255).contains(n)) {
            let text = format!("Invalid value for ICMP {name} ({field}) {n}. It must be 0 to 255.");
            return Err(fail::wrong("SecurityGroupInvalidIcmpValue", text));
        }
    }
    match (min, max) {
        (None, Some(code)) => {
            let text = format!("ICMP code (port-range-max) {code} is provided but ICMP type (port-range-min) is missing.");
            Err(fail::wrong("SecurityGroupMissingIcmpType", text))
        }
        _ => Ok(()),
    }
}

fn check_prefix(rule: &mut SecurityGroupRule) -> Result<()> {
    let Some(text) = rule.remote_ip_prefix.clone() else { return Ok(()) };
    let net: Option<IpNet> = text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
    let Some(net) = net else {
        return Err(Error::invalid("remote_ip_prefix", format!("'{text}' is not a valid IP address or subnet")));
    };
    if net.addr().is_ipv4() != (rule.ethertype == "IPv4") {
        let text = format!("Conflicting value ethertype {} for CIDR {text}", rule.ethertype);
        return Err(fail::wrong("SecurityGroupRuleParameterConflict", text));
    }
    rule.normalized_cidr = Some(net.trunc());
    if !text.contains('/') {
        rule.remote_ip_prefix = Some(net.to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(change: Value) -> Result<SecurityGroupRule> {
        let mut row = json!({
            "description": "", "security_group_id": "g", "direction": "ingress", "ethertype": "IPv4", "protocol": null,
            "port_range_min": null, "port_range_max": null, "remote_ip_prefix": null, "normalized_cidr": null,
            "remote_group_id": null, "remote_address_group_id": null, "tags": [],
        });
        row.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let mut rule: SecurityGroupRule = serde_json::from_value(row).unwrap();
        check(&mut rule).map(|()| rule)
    }
    fn code(change: Value) -> String {
        rule(change).err().and_then(|e| e.code).map(|c| c.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_is_wrong_has_its_name() {
        assert_eq!(code(json!({"protocol": "nonsense"})), "SecurityGroupRuleInvalidProtocol");
        assert_eq!(code(json!({"protocol": 256})), "SecurityGroupRuleInvalidProtocol");
        assert_eq!(code(json!({"port_range_min": 1, "port_range_max": 2})), "SecurityGroupProtocolRequiredWithPorts");
        assert_eq!(code(json!({"protocol": "tcp", "port_range_min": 80, "port_range_max": 79})), "SecurityGroupInvalidPortRange");
        assert_eq!(
            code(json!({"protocol": "tcp", "port_range_min": -16, "port_range_max": 80})),
            "SecurityGroupInvalidPortValue"
        );
        assert_eq!(code(json!({"protocol": "tcp", "port_range_max": 6})), "SecurityGroupInvalidPortRange");
        assert_eq!(code(json!({"protocol": "icmp", "port_range_max": 6})), "SecurityGroupMissingIcmpType");
        assert_eq!(code(json!({"protocol": "icmp", "port_range_min": 300})), "SecurityGroupInvalidIcmpValue");
        assert_eq!(
            code(json!({"protocol": "vrrp", "port_range_min": 1, "port_range_max": 2})),
            "SecurityGroupInvalidProtocolForPort"
        );
        assert_eq!(code(json!({"protocol": "ipv6-icmp"})), "SecurityGroupEthertypeConflictWithProtocol");
        assert_eq!(code(json!({"ethertype": "IPX"})), "SecurityGroupRuleInvalidEtherType");
        assert_eq!(code(json!({"remote_ip_prefix": "2001:db8::/64"})), "SecurityGroupRuleParameterConflict");
        let both = json!({"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": "h"});
        assert_eq!(code(both), "SecurityGroupRemoteGroupAndRemoteIpPrefix");
    }

    #[test]
    fn the_same_rule_in_other_words_is_the_same() {
        let a = rule(json!({"protocol": "TCP", "remote_ip_prefix": "10.0.0.7/24"})).unwrap();
        let b = rule(json!({"protocol": 6, "remote_ip_prefix": "10.0.0.0/24", "ethertype": "ipv4"})).unwrap();
        assert!(a.essence() == b.essence());
        assert_eq!(a.remote_ip_prefix.as_deref(), Some("10.0.0.7/24"));
        assert_eq!(rule(json!({"protocol": "any"})).unwrap().protocol, None);
    }
}
