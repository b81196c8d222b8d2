//! What a network is made of: an overlay with a number of its own, or a network of the hosts. A segment is a claimed row, so no two
//! networks are the same wire.
use crate::{fail, resources::Network};
use api::Result;
use resource::{Object, Tx};
use serde_json::json;
use store::Table;

/// `<type>:<physical network>:<number>` to the network.
pub(crate) static SEGMENTS: Table = Table { name: "network/segments", indexes: &[] };

const VNI: std::ops::RangeInclusive<u32> = 1..=0x00ff_ffff;
const VLAN: std::ops::RangeInclusive<u32> = 1..=4094;
const DRAWS: usize = 16;

fn key(network: &Network) -> String {
    let number = network.segmentation_id.map_or_else(String::new, |n| n.to_string());
    let kind = network.network_type.as_deref().unwrap_or_default();
    format!("{kind}:{}:{number}", network.physical_network.as_deref().unwrap_or_default())
}

/// A name that may be part of a bridge mapping.
fn plain(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Checks the provider attributes, completes and claims them.
pub(crate) fn take(network: &mut Object<Network>, tx: &mut Tx<'_>) -> Result<()> {
    let kind = network.network_type.get_or_insert_with(|| "geneve".into()).clone();
    let physical = network.physical_network.clone();
    let named = |kind: &str| match &physical {
        Some(name) if plain(name) => Ok(()),
        Some(name) => Err(fail::invalid(format!("physical_network '{name}' unknown for {kind} provider network"))),
        None => Err(fail::invalid(format!("physical_network required for {kind} provider network"))),
    };
    match kind.as_str() {
        "geneve" => {
            if physical.is_some() {
                return Err(fail::invalid("provider:physical_network specified for geneve network"));
            }
            match network.segmentation_id {
                Some(n) if !VNI.contains(&n) => return Err(fail::invalid(format!("segmentation_id out of range ({VNI:?})"))),
                Some(_) => {}
                None => return draw(network, tx),
            }
        }
        "vlan" => {
            named("VLAN")?;
            match network.segmentation_id {
                Some(n) if VLAN.contains(&n) => {}
                Some(n) => return Err(fail::invalid(format!("segmentation_id {n} out of range (1 through 4094)"))),
                None => return Err(fail::invalid("segmentation_id required for VLAN provider network")),
            }
        }
        "flat" => {
            named("flat")?;
            if network.segmentation_id.is_some() {
                return Err(fail::invalid("segmentation_id prohibited for flat provider network"));
            }
        }
        other => return Err(fail::invalid(format!("provider:network_type {other} not supported; use geneve, vlan or flat"))),
    }
    if tx.claim(&SEGMENTS, &key(network), json!({ "network_id": network.id })).is_ok() {
        return Ok(());
    }
    let physical = physical.unwrap_or_default();
    let number = network.segmentation_id.unwrap_or_default();
    Err(match kind.as_str() {
        "flat" => fail::refused(
            "FlatNetworkInUse",
            format!("Unable to create the flat network. Physical network {physical} is in use."),
        ),
        "vlan" => {
            let text = format!("Unable to create the network. The VLAN {number} on physical network {physical} is in use.");
            fail::refused("VlanIdInUse", text)
        }
        _ => fail::refused("TunnelIdInUse", format!("Unable to create the network. The tunnel ID {number} is in use.")),
    })
}

/// A free number for an overlay.
fn draw(network: &mut Object<Network>, tx: &mut Tx<'_>) -> Result<()> {
    for _ in 0..DRAWS {
        network.segmentation_id = Some(rand::random_range(VNI));
        if tx.claim(&SEGMENTS, &key(network), json!({ "network_id": network.id })).is_ok() {
            return Ok(());
        }
    }
    let text = "Unable to create the network. No tenant network is available for allocation.";
    Err(api::Error::unavailable(text).code("NoNetworkAvailable"))
}

pub(crate) fn release(network: &Object<Network>, tx: &mut Tx<'_>) {
    let key = key(network);
    if tx.get(&SEGMENTS, &key).is_some_and(|r| r.text("network_id") == network.id) {
        tx.delete(&SEGMENTS, &key);
    }
}
