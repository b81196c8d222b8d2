//! DHCP: one row of options for each subnet, and one more for each port with options of its own.
use super::Plan;
use crate::ovn::{
    model::{ExtraDhcpOpt, Ipv6Mode, Port, Subnet},
    names,
    row::{Datum, Desired, Key, Table, text},
};
use ipnet::IpNet;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

type Options = BTreeMap<String, String>;

const LEASE_SECONDS: u32 = 86_400;
const METADATA: &str = "169.254.169.254/32";

pub(super) fn subnet(plan: &Plan<'_>, subnet: &Subnet, out: &mut Desired) {
    if let Some(options) = options(plan, subnet) {
        put(out, subnet.id.as_str(), subnet, options);
    }
}

/// The DHCPv4 and DHCPv6 rows that serve a port.
pub(super) fn of_port(plan: &Plan<'_>, port: &Port, out: &mut Desired) -> (Option<Key>, Option<Key>) {
    let pick = |v6: bool| plan.fixed(port).map(|(s, _)| s).find(|s| is_v6(s) == v6 && serves(s));
    let mut row = |v6: bool| {
        if disabled(port, v6) {
            return None;
        }
        let subnet = pick(v6)?;
        let extra: Vec<_> = port.extra_dhcp_opts.iter().filter(|o| o.ipv6 == v6).filter_map(option).collect();
        if extra.is_empty() {
            return Some(Key::new(Table::DhcpOptions, subnet.id.as_str()));
        }
        let mut all = options(plan, subnet)?;
        all.extend(extra.into_iter().map(|(name, value)| (name.to_owned(), value)));
        Some(put(out, &format!("{}/{}", subnet.id, port.id), subnet, all))
    };
    (row(false), row(true))
}

fn put(out: &mut Desired, name: &str, subnet: &Subnet, options: Options) -> Key {
    let row = vec![("cidr", text(subnet.cidr.trunc().to_string())), ("options", Datum::Map(options))];
    out.put(Key::new(Table::DhcpOptions, name), row)
}

fn is_v6(subnet: &Subnet) -> bool {
    matches!(subnet.cidr, IpNet::V6(_))
}
/// Is it OVN that answers DHCP in this subnet? With SLAAC nobody does.
fn serves(subnet: &Subnet) -> bool {
    subnet.enable_dhcp && (!is_v6(subnet) || !matches!(subnet.ipv6_address_mode, Some(Ipv6Mode::Slaac)))
}
fn disabled(port: &Port, v6: bool) -> bool {
    port.extra_dhcp_opts.iter().any(|o| o.ipv6 == v6 && o.name == "dhcp_disabled" && o.value.eq_ignore_ascii_case("true"))
}

/// What the subnet's guests are told; none if OVN does not serve it.
fn options(plan: &Plan<'_>, subnet: &Subnet) -> Option<Options> {
    let network = plan.networks.get(&subnet.network_id).filter(|_| serves(subnet))?;
    let server = names::stable_mac(&format!("dhcp/{}", subnet.id)).to_string();
    let servers = if subnet.dns_nameservers.is_empty() { &plan.topology.dns_servers } else { &subnet.dns_nameservers };
    let dns: Vec<_> = servers.iter().filter(|ip| ip.is_ipv6() == is_v6(subnet)).map(IpAddr::to_string).collect();
    let mut out = Options::new();
    if !dns.is_empty() {
        out.insert("dns_server".into(), format!("{{{}}}", dns.join(", ")));
    }
    if is_v6(subnet) {
        out.insert("server_id".into(), server);
        if subnet.ipv6_address_mode == Some(Ipv6Mode::Dhcpv6Stateless) {
            out.insert("dhcpv6_stateless".into(), "true".into());
        }
        return Some(out);
    }
    let gateway = subnet.gateway_ip.filter(IpAddr::is_ipv4);
    let metadata = subnet.metadata_ip.map(IpAddr::V4);
    // Without a router the server still needs an address that no guest has.
    let first = subnet.cidr.hosts().next().unwrap_or(subnet.cidr.addr());
    out.insert("server_id".into(), gateway.or(metadata).unwrap_or(first).to_string());
    out.insert("server_mac".into(), server);
    out.insert("lease_time".into(), LEASE_SECONDS.to_string());
    out.insert("mtu".into(), network.mtu.to_string());
    if let Some(ip) = gateway {
        out.insert("router".into(), ip.to_string());
    }
    let routes = routes(subnet, gateway, metadata);
    if !routes.is_empty() {
        out.insert("classless_static_route".into(), format!("{{{}}}", routes.join(", ")));
    }
    Some(out)
}

/// Option 121. A client that reads it ignores the router option (RFC 3442), so the default route is said here again.
fn routes(subnet: &Subnet, gateway: Option<IpAddr>, metadata: Option<IpAddr>) -> Vec<String> {
    let own = subnet.host_routes.iter().filter(|(to, via)| matches!((to, via), (IpNet::V4(_), IpAddr::V4(_))));
    let own: Vec<_> = own.map(|(to, via)| (to.trunc().to_string(), *via)).collect();
    let told = |to: &str| own.iter().any(|(t, _)| t == to);
    let service = metadata.filter(|_| !told(METADATA)).map(|via| (METADATA.to_owned(), via));
    if service.is_none() && own.is_empty() {
        return Vec::new();
    }
    let default = gateway.filter(|_| !told("0.0.0.0/0")).map(|via| ("0.0.0.0/0".to_owned(), via));
    let all = service.into_iter().chain(own.clone()).chain(default);
    all.map(|(to, via)| format!("{to},{via}")).collect()
}

/// How a value must look in OVN, which builds an action out of it.
#[derive(Clone, Copy)]
enum Form {
    Ipv4s,
    Ipv6s,
    Number(u32),
    Flag,
    Text,
}

/// A port's own option in OVN's words; none for one that OVN does not know or whose value is not of its type.
fn option(wanted: &ExtraDhcpOpt) -> Option<(&'static str, String)> {
    use Form::{Flag, Ipv4s, Ipv6s, Number, Text};
    let seconds = Number(u32::MAX);
    let (name, form) = match (wanted.ipv6, wanted.name.as_str()) {
        (false, "netmask" | "1") => ("netmask", Ipv4s),
        (false, "router" | "3") => ("router", Ipv4s),
        (false, "dns-server" | "6") => ("dns_server", Ipv4s),
        (false, "log-server" | "7") => ("log_server", Ipv4s),
        (false, "lpr-server" | "9") => ("lpr_server", Ipv4s),
        (false, "domain-name" | "15") => ("domain_name", Text),
        (false, "swap-server" | "16") => ("swap_server", Ipv4s),
        (false, "ip-forward-enable" | "19") => ("ip_forward_enable", Flag),
        (false, "default-ttl" | "23") => ("default_ttl", Number(255)),
        (false, "mtu" | "26") => ("mtu", Number(65_535)),
        (false, "router-discovery" | "31") => ("router_discovery", Flag),
        (false, "router-solicitation" | "32") => ("router_solicitation", Ipv4s),
        (false, "arp-timeout" | "35") => ("arp_cache_timeout", seconds),
        (false, "ethernet-encap" | "36") => ("ethernet_encap", Flag),
        (false, "tcp-ttl" | "37") => ("tcp_ttl", Number(255)),
        (false, "tcp-keepalive" | "38") => ("tcp_keepalive_interval", seconds),
        (false, "nis-server" | "41") => ("nis_server", Ipv4s),
        (false, "ntp-server" | "42") => ("ntp_server", Ipv4s),
        (false, "lease-time" | "51") => ("lease_time", seconds),
        (false, "server-id" | "54") => ("server_id", Ipv4s),
        (false, "T1" | "58") => ("T1", seconds),
        (false, "T2" | "59") => ("T2", seconds),
        (false, "tftp-server" | "66") => ("tftp_server", Text),
        (false, "bootfile-name" | "67") => ("bootfile_name", Text),
        (false, "domain-search" | "119") => ("domain_search_list", Text),
        (false, "tftp-server-address" | "150") => ("tftp_server_address", Ipv4s),
        (false, "path-prefix" | "210") => ("path_prefix", Text),
        (false, "wpad" | "252") => ("wpad", Text),
        (false, "server-ip-address" | "255") => ("next_server", Ipv4s),
        (true, "dns-server" | "23") => ("dns_server", Ipv6s),
        (true, "domain-search" | "24") => ("domain_search", Text),
        _ => return None,
    };
    let value = wanted.value.trim();
    let value = match form {
        Ipv4s => addresses::<Ipv4Addr>(value)?,
        Ipv6s => addresses::<Ipv6Addr>(value)?,
        Number(most) => value.parse::<u32>().ok().filter(|n| *n <= most)?.to_string(),
        Flag => match value {
            "0" | "false" => "0".into(),
            "1" | "true" => "1".into(),
            _ => return None,
        },
        Text => quoted(value)?,
    };
    Some((name, value))
}

fn addresses<T: std::str::FromStr + ToString>(value: &str) -> Option<String> {
    let parts = value.split([',', ' ']).filter(|p| !p.is_empty());
    let ips = parts.map(|p| p.parse::<T>().ok().map(|ip| ip.to_string())).collect::<Option<Vec<_>>>()?;
    match ips.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("{{{}}}", many.join(", "))),
    }
}

/// A string that stays within its quotes.
fn quoted(value: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#[]@!&'()*+,;=% ".contains(c);
    (!value.is_empty() && value.len() <= 255 && value.chars().all(fits)).then(|| format!("\"{value}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opt(name: &str, value: &str) -> Option<(&'static str, String)> {
        option(&ExtraDhcpOpt { name: name.into(), value: value.into(), ipv6: false })
    }

    #[test]
    fn own_options_keep_their_type() {
        assert_eq!(opt("bootfile-name", "pxelinux.0"), Some(("bootfile_name", "\"pxelinux.0\"".into())));
        assert_eq!(opt("67", "x\"; drop"), None);
        assert_eq!(opt("dns-server", "8.8.8.8, 1.1.1.1"), Some(("dns_server", "{8.8.8.8, 1.1.1.1}".into())));
        assert_eq!(opt("mtu", "1400"), Some(("mtu", "1400".into())));
        assert_eq!(opt("mtu", "70000"), None);
        assert_eq!(opt("router", "10.0.0.1} ; next"), None);
        assert_eq!(opt("no-such", "1"), None);
    }
}
