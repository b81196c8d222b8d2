//! Arithmetic on addresses and ranges of them.
use base::id::Mac;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses from first to last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: IpAddr,
    pub(crate) last: IpAddr,
}

pub(crate) fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(a) => u32::from(a).into(),
        IpAddr::V6(a) => a.into(),
    }
}

/// The address with this number, in the family of `like`.
pub(crate) fn address(like: IpAddr, number: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

impl Range {
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.first.is_ipv4() && (number(self.first)..=number(self.last)).contains(&number(ip))
    }
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }
    pub(crate) fn size(&self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }
    pub(crate) fn nth(&self, n: u128) -> IpAddr {
        address(self.first, number(self.first).saturating_add(n))
    }
}

/// The addresses of a network that hosts may have. Networks of one or two addresses have no others to keep back.
pub(crate) fn hosts(net: IpNet) -> Range {
    let (first, last) = (number(net.network()), number(net.broadcast()));
    let like = net.network();
    if last - first < 2 {
        return Range { first: like, last: net.broadcast() };
    }
    let end = if like.is_ipv4() { last - 1 } else { last };
    Range { first: address(like, first + 1), last: address(like, end) }
}

/// The gateway that a subnet gets if none is named: its first address.
pub(crate) fn default_gateway(net: IpNet) -> IpAddr {
    hosts(net).first
}

/// The pools of a subnet that names none: all hosts but the gateway.
pub(crate) fn default_pools(net: IpNet, gateway: Option<IpAddr>) -> Vec<Range> {
    let all = hosts(net);
    let Some(gateway) = gateway.filter(|g| all.contains(*g)) else { return vec![all] };
    let mut pools = Vec::new();
    if gateway != all.first {
        pools.push(Range { first: all.first, last: address(gateway, number(gateway) - 1) });
    }
    if gateway != all.last {
        pools.push(Range { first: address(gateway, number(gateway) + 1), last: all.last });
    }
    pools
}

/// The address that a host derives from its MAC in a /64 (RFC 4291, appendix A).
pub(crate) fn eui64(net: IpNet, mac: Mac) -> IpAddr {
    let [a, b, c, d, e, f] = mac.0;
    let interface = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    address(net.network(), number(net.network()) | u128::from(interface))
}

/// Do the two networks share an address?
pub(crate) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// The first network of the given length inside of `prefixes` that overlaps none of `taken`.
pub(crate) fn free_network(prefixes: &[IpNet], length: u8, taken: &[IpNet]) -> Option<IpNet> {
    prefixes.iter().filter(|p| p.prefix_len() <= length).find_map(|prefix| {
        let mut at = number(prefix.network());
        let end = number(prefix.broadcast());
        while at <= end {
            let candidate = IpNet::new(address(prefix.network(), at), length).ok()?;
            match taken.iter().find(|t| overlap(t, &candidate)) {
                None => return Some(candidate),
                // Go on behind whichever of the two is larger.
                Some(t) => at = number(t.broadcast()).max(number(candidate.broadcast())).checked_add(1)?,
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(s: &str) -> IpNet {
        s.parse().unwrap()
    }
    fn shown(pools: &[Range]) -> Vec<String> {
        pools.iter().map(|r| format!("{}-{}", r.first, r.last)).collect()
    }

    #[test]
    fn default_pools_leave_out_the_gateway() {
        assert_eq!(shown(&default_pools(net("10.0.0.0/24"), Some("10.0.0.1".parse().unwrap()))), ["10.0.0.2-10.0.0.254"]);
        let middle = default_pools(net("10.0.0.0/29"), Some("10.0.0.3".parse().unwrap()));
        assert_eq!(shown(&middle), ["10.0.0.1-10.0.0.2", "10.0.0.4-10.0.0.6"]);
        assert_eq!(shown(&default_pools(net("10.0.0.0/24"), None)), ["10.0.0.1-10.0.0.254"]);
        assert_eq!(shown(&default_pools(net("10.0.0.8/31"), None)), ["10.0.0.8-10.0.0.9"]);
        let v6 = default_pools(net("2001:db8::/64"), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(shown(&v6), ["2001:db8::2-2001:db8::ffff:ffff:ffff:ffff"]);
        assert_eq!(default_pools(net("::/0"), None)[0].size(), u128::MAX, "the size saturates");
    }

    #[test]
    fn a_host_derives_its_address_from_its_mac() {
        let mac = Mac::parse("fa:16:3e:01:02:03").unwrap();
        assert_eq!(eui64(net("2001:db8::/64"), mac).to_string(), "2001:db8::f816:3eff:fe01:203");
    }

    #[test]
    fn networks_are_cut_from_a_pool_without_overlap() {
        let prefixes = [net("10.0.0.0/30"), net("10.1.0.0/16")];
        assert_eq!(free_network(&prefixes, 24, &[]), Some(net("10.1.0.0/24")));
        assert_eq!(free_network(&prefixes, 24, &[net("10.1.0.0/24"), net("10.1.1.0/25")]), Some(net("10.1.2.0/24")));
        assert_eq!(free_network(&prefixes, 16, &[net("10.1.7.0/24")]), None);
        assert_eq!(free_network(&[net("255.255.255.0/24")], 24, &[net("255.255.255.0/24")]), None);
    }
}
