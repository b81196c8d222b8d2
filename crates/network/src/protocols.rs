//! IP protocols by name (neutron-lib `constants.IP_PROTOCOL_MAP`) and number.

const NAMES: [(&str, u8); 26] = [
    ("hopopt", 0),
    ("ip", 0),
    ("icmp", 1),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", 6),
    ("egp", 8),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6-encap", 41),
    ("ipv6-route", 43),
    ("ipv6-frag", 44),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("ipv6-icmp", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ospf", 89),
    ("vrrp", 112),
    ("pgm", 113),
    ("sctp", 132),
    ("udplite", 136),
    ("any", 0),
];

/// The number of a protocol, by name or by number.
pub(crate) fn number(text: &str) -> Option<u8> {
    NAMES.iter().find(|(name, _)| *name == text).map(|(_, n)| *n).or_else(|| text.parse().ok())
}

/// Has it ports?
pub(crate) fn has_ports(number: u8) -> bool {
    matches!(number, 6 | 17 | 33 | 132 | 136)
}

pub(crate) fn is_icmp(number: u8) -> bool {
    matches!(number, 1 | 58)
}

/// Is it of IPv6 only, by its name?
pub(crate) fn is_v6_only(text: &str) -> bool {
    text.starts_with("ipv6-") || text == "icmpv6"
}

pub(crate) fn names() -> String {
    NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}
