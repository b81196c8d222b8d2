//! The port through which each node serves DHCP and metadata to a network: one per network, with an address in each subnet that has
//! DHCP. It follows the subnets in their own transactions and is in nobody's way.
use crate::{
    ipam::claim,
    ovn::names,
    ports,
    resources::{FixedIp, Network, Port, Subnet},
};
use api::Result;
use base::id::named;
use resource::{Object, Tx, load};
use std::collections::HashMap;

/// The id of a network's metadata port: no look-up finds it.
pub(crate) fn port_id(network: &str) -> String {
    named(&format!("network/metadata-port/{network}"))
}

/// Makes the metadata port of the network hold one address in each of `subnets` that has DHCP, or not exist if none has.
pub(crate) fn settle<'s>(
    tx: &mut Tx<'_>,
    network: &Object<Network>,
    subnets: impl Iterator<Item = &'s Object<Subnet>>,
) -> Result<()> {
    let id = port_id(&network.id);
    let old: Option<Object<Port>> = load(tx, &id)?;
    let served: Vec<&Object<Subnet>> = subnets.filter(|s| s.enable_dhcp).collect();
    if served.is_empty() {
        return old.map_or(Ok(()), |port| ports::remove(tx, &port));
    }
    let mac = names::metadata_mac(&network.id.as_str().into());
    let held: HashMap<String, FixedIp> =
        old.iter().flat_map(|o| o.fixed_ips.iter().flatten()).filter_map(|f| Some((f.subnet_id.clone()?, f.clone()))).collect();
    let mut addresses = Vec::new();
    for subnet in served {
        let address = match held.get(&subnet.id) {
            Some(f) => Some(f.clone()),
            None if subnet.makes_own_addresses() => ports::own_address(tx, subnet, mac, &id, &[]).ok(),
            // A full subnet works without: its guests have a config drive.
            None => claim::take_first(tx, &subnet.id, &subnet.pools(), &id).map(|ip| ports::fixed(subnet, ip)),
        };
        addresses.extend(address);
    }
    for (_, gone) in held.iter().filter(|(_, f)| !addresses.contains(f)) {
        ports::free(tx, gone, &id);
    }
    match old {
        Some(mut port) => {
            if port.fixed_ips.as_ref() != Some(&addresses) {
                port.fixed_ips = Some(addresses);
                port.save(tx)?;
            }
            Ok(())
        }
        None => {
            let device = format!("ovnmeta-{}", network.id);
            let spec = ports::Internal {
                id,
                network,
                project: "",
                owner: ports::METADATA_OWNER,
                device,
                mac: Some(mac),
                fixed_ips: Some(Vec::new()),
            };
            let mut port = ports::blank(tx, None, &spec)?;
            claim::take_mac(tx, &network.id, port.mac_address.as_deref(), &port.id)?;
            port.fixed_ips = Some(addresses);
            ports::put(tx, &port)
        }
    }
}
