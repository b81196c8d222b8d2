//! Who holds which address and MAC: one row each, claimed in the transaction that writes the port. Two ports can never have the
//! same, from whichever API server they come.
//!
//! An address is drawn at random from the pools, so taking one costs the same in a subnet that is empty as in one that is nearly full.
//! Only when most draws hit a taken one are the rows of the subnet listed.
use super::range::{Range, number};
use crate::fail;
use api::Result;
use base::id::Mac;
use resource::Tx;
use serde_json::json;
use std::{collections::HashSet, net::IpAddr};
use store::{Index, Table};

/// `<subnet>:<address>` to the port.
pub(crate) static ALLOCATIONS: Table =
    Table { name: "network/allocations", indexes: &[Index { name: "subnet_id", path: "/subnet_id" }] };
/// `<network>:<mac>` to the port.
pub(crate) static MACS: Table = Table { name: "network/macs", indexes: &[] };

/// Draws before the subnet's rows are listed: at 80 % full one in a thousand ports needs the list.
const DRAWS: usize = 32;
const MAC_DRAWS: usize = 16;

fn key(subnet: &str, ip: IpAddr) -> String {
    format!("{subnet}:{ip}")
}

fn claim(tx: &mut Tx<'_>, subnet: &str, ip: IpAddr, port: &str) -> bool {
    let value = json!({ "subnet_id": subnet, "ip": ip, "port_id": port });
    tx.claim(&ALLOCATIONS, &key(subnet, ip), value).is_ok()
}

/// Takes this address.
pub(crate) fn take(tx: &mut Tx<'_>, subnet: &str, ip: IpAddr, port: &str) -> Result<()> {
    if claim(tx, subnet, ip, port) { Ok(()) } else { Err(fail::address_taken(ip, subnet)) }
}

/// Takes the first free address of the pools.
pub(crate) fn take_first(tx: &mut Tx<'_>, subnet: &str, pools: &[Range], port: &str) -> Option<IpAddr> {
    first_free(tx, subnet, pools, 0).filter(|ip| claim(tx, subnet, *ip, port))
}

/// Takes some address of the pools; none is free if it gives none.
pub(crate) fn take_any(tx: &mut Tx<'_>, subnet: &str, pools: &[Range], port: &str) -> Option<IpAddr> {
    let total = pools.iter().fold(0u128, |n, p| n.saturating_add(p.size()));
    if total == 0 {
        return None;
    }
    for _ in 0..DRAWS {
        let ip = nth(pools, rand::random_range(0..total))?;
        if claim(tx, subnet, ip, port) {
            return Some(ip);
        }
    }
    first_free(tx, subnet, pools, rand::random_range(0..total)).filter(|ip| claim(tx, subnet, *ip, port))
}

/// The n-th address of all pools.
fn nth(pools: &[Range], mut n: u128) -> Option<IpAddr> {
    for pool in pools {
        if n < pool.size() {
            return Some(pool.nth(n));
        }
        n -= pool.size();
    }
    None
}

/// The first free address at or behind the n-th, going round. Looks at one more than there are taken.
fn first_free(tx: &Tx<'_>, subnet: &str, pools: &[Range], from: u128) -> Option<IpAddr> {
    let rows = tx.find(&ALLOCATIONS, "subnet_id", subnet);
    let taken: HashSet<u128> = rows.iter().filter_map(|r| r.text("ip").parse().ok()).map(number).collect();
    let total = pools.iter().fold(0u128, |n, p| n.saturating_add(p.size()));
    let most = total.min(taken.len() as u128 + 1);
    (0..most).filter_map(|i| nth(pools, (from + i) % total)).find(|ip| !taken.contains(&number(*ip)))
}

pub(crate) fn release(tx: &mut Tx<'_>, subnet: &str, ip: IpAddr, port: &str) {
    let key = key(subnet, ip);
    if tx.get(&ALLOCATIONS, &key).is_some_and(|r| r.text("port_id") == port) {
        tx.delete(&ALLOCATIONS, &key);
    }
}

/// Takes the named MAC in the network, or a random one.
pub(crate) fn take_mac(tx: &mut Tx<'_>, network: &str, wanted: Option<&str>, port: &str) -> Result<Mac> {
    let mut claim = |mac: &Mac| tx.claim(&MACS, &format!("{network}:{mac}"), json!({ "port_id": port })).is_ok();
    if let Some(text) = wanted {
        let mac = Mac::parse(text).ok_or_else(|| fail::invalid(format!("'{text}' is not a valid MAC address")))?;
        if mac.0[0] & 1 == 1 || mac.0 == [0; 6] {
            return Err(fail::invalid(format!("'{text}' is a multicast or null MAC address, which no port can have")));
        }
        return if claim(&mac) { Ok(mac) } else { Err(fail::mac_taken(network, text)) };
    }
    (0..MAC_DRAWS).map(|_| Mac::random()).find(&mut claim).ok_or_else(|| {
        api::Error::unavailable(format!("Unable to generate unique mac on network {network}."))
            .code("MacAddressGenerationFailure")
    })
}

pub(crate) fn release_mac(tx: &mut Tx<'_>, network: &str, mac: &str, port: &str) {
    let key = format!("{network}:{mac}");
    if tx.get(&MACS, &key).is_some_and(|r| r.text("port_id") == port) {
        tx.delete(&MACS, &key);
    }
}
