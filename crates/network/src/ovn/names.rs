//! Names in OVN that more than one part must agree on.
use super::model::{AddressGroupId, NetworkId, PortId, RouterId, SecurityGroupId};
use base::id::{Mac, named};

/// The port group of every port that has port security: what no rule allows is dropped there.
pub const DROP_GROUP: &str = "drover_pg_drop";

pub fn switch(id: &NetworkId) -> String {
    format!("drover-{id}")
}
pub fn router(id: &RouterId) -> String {
    format!("drover-{id}")
}
/// A port's logical switch port has the port's id: this is the `iface-id` that a node plugs with.
pub fn port(id: &PortId) -> String {
    id.0.clone()
}
pub fn router_port(id: &PortId) -> String {
    format!("lrp-{id}")
}
pub fn localnet(id: &NetworkId) -> String {
    format!("provnet-{id}")
}
/// The local port through which each node serves metadata to a network: the `iface-id` to plug its namespace with.
pub fn metadata_port(id: &NetworkId) -> String {
    format!("metadata-{id}")
}
/// The MAC of [`metadata_port`], the same on every node.
pub fn metadata_mac(id: &NetworkId) -> Mac {
    stable_mac(&format!("metadata/{id}"))
}
pub fn port_group(id: &SecurityGroupId) -> String {
    identifier("pg", id.as_str())
}
pub fn address_set(id: &AddressGroupId, family: &str) -> String {
    format!("{}_{family}", identifier("ag", id.as_str()))
}

/// The same locally administered MAC for the same name.
pub(crate) fn stable_mac(name: &str) -> Mac {
    let digits = named(name).replace('-', "");
    let octet = |i: usize| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap_or(0);
    Mac([0xfa, 0x16, 0x3f, octet(0), octet(1), octet(2)])
}

/// A word that OVN's expressions take as a name, whatever the id holds.
fn identifier(prefix: &str, id: &str) -> String {
    let word = id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    format!("{prefix}_{}", word.collect::<String>())
}

/// May this id be part of a row? Ids are made by us; one that could end a quoted string in an OVN expression is not ours.
pub(crate) fn plain(id: &str) -> bool {
    !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_a_name() {
        assert_eq!(port_group(&r#"a-1" || 1"#.into()), "pg_a_1_____1");
        assert!(plain("1d0f-4c") && !plain("a\"b") && !plain("") && !plain("a b"));
    }

    #[test]
    fn macs_are_stable_and_apart() {
        assert_eq!(metadata_mac(&"n".into()), metadata_mac(&"n".into()));
        assert_ne!(metadata_mac(&"n".into()), metadata_mac(&"m".into()));
    }
}
