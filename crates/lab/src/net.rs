//! The lab's network: namespaces, a bridge that joins them, and what is cut.
//!
//! Cuts are rules of the bridge, so that a host can neither see nor undo them, and its interface stays up: as with a switch that
//! forwards no more. [`unplug`] takes the link itself.
use crate::{
    Error,
    host::{Host, Lab, PREFIX_LENGTH},
};
use supervise::{ip, run, run_in};

const BRIDGE: &str = "br0";
/// Two sets of ports: what is said by those in `out` goes nowhere, and nothing goes to those in `into`.
const RULES: &str = "add table bridge lab; \
    add set bridge lab out { type ifname; }; \
    add set bridge lab into { type ifname; }; \
    add chain bridge lab cut { type filter hook forward priority 0; policy accept; }; \
    flush chain bridge lab cut; \
    add rule bridge lab cut iifname @out drop; \
    add rule bridge lab cut oifname @into drop";

/// Which way nothing gets through any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// What the host sends.
    pub(crate) out: bool,
    /// What is sent to it.
    pub(crate) into: bool,
}

/// The state of a host's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) plugged: bool,
    pub(crate) cut: Cut,
}
impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.plugged, self.cut.out, self.cut.into) {
            (false, ..) => "unplugged",
            (true, true, true) => "cut",
            (true, true, false) => "cut out",
            (true, false, true) => "cut in",
            (true, false, false) => "up",
        })
    }
}

pub(crate) async fn namespaces() -> Result<Vec<String>, Error> {
    let text = run(&["ip", "netns", "list"]).await?;
    Ok(text.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect())
}

/// Makes what is missing of the network.
pub(crate) async fn ensure(lab: &Lab) -> Result<(), Error> {
    let there = namespaces().await?;
    let switch = lab.shape.switch();
    if !there.contains(&switch) {
        ip(None, &format!("netns add {switch}")).await?;
    }
    let links = ip(Some(&switch), "-br link show").await?;
    let has = |name: &str| links.lines().any(|l| l.split(['@', ' ']).next() == Some(name));
    if !has(BRIDGE) {
        ip(Some(&switch), &format!("link add {BRIDGE} type bridge")).await?;
    }
    ip(Some(&switch), &format!("link set {BRIDGE} up")).await?;
    run_in(Some(&switch), &["nft", RULES]).await?;
    for host in lab.shape.hosts() {
        let Host { name, netns, .. } = &host;
        if !there.contains(netns) {
            ip(None, &format!("netns add {netns}")).await?;
        }
        if !has(name) {
            ip(Some(&switch), &format!("link add {name} type veth peer name eth0 netns {netns}")).await?;
            ip(Some(&switch), &format!("link set {name} master {BRIDGE} up")).await?;
            address_alone(&host).await?;
            ip(Some(netns), "link set lo up").await?;
            ip(Some(netns), "link set eth0 up").await?;
        }
        for uplink in lab.shape.ports(&host).into_iter().skip(1).filter(|port| !has(port)) {
            ip(Some(&switch), &format!("link add {uplink} type veth peer name eth1 netns {netns}")).await?;
            ip(Some(&switch), &format!("link set {uplink} master {BRIDGE} up")).await?;
            ip(Some(netns), "link set eth1 up").await?;
        }
        if lab.shape.real {
            // A switch that forwards without the kernel takes packets as they are, and there is no card that completes them.
            run_in(Some(netns), &["ethtool", "-K", "eth0", "tx", "off"]).await?;
        }
    }
    Ok(())
}

/// Removes all of it; whatever still runs there has been ended before.
pub(crate) async fn remove(lab: &Lab) -> Result<(), Error> {
    let there = namespaces().await?;
    let all = lab.shape.hosts().into_iter().map(|h| h.netns).chain([lab.shape.switch()]);
    for netns in all.filter(|n| there.contains(n)) {
        ip(None, &format!("netns del {netns}")).await?;
    }
    Ok(())
}

/// Gives the host the address that it has by itself, and takes those that its programs added.
pub(crate) async fn address_alone(host: &Host) -> Result<(), Error> {
    let Host { netns, address, .. } = host;
    ip(Some(netns), "-4 addr flush dev eth0").await?;
    ip(Some(netns), &format!("addr add {address}/{PREFIX_LENGTH} dev eth0")).await?;
    Ok(())
}

pub(crate) async fn plug(lab: &Lab, host: &Host) -> Result<(), Error> {
    for port in lab.shape.ports(host) {
        ip(Some(&lab.shape.switch()), &format!("link set {port} up")).await?;
    }
    Ok(())
}

/// Takes the link: the host sees that its carrier is gone.
pub(crate) async fn unplug(lab: &Lab, host: &Host) -> Result<(), Error> {
    for port in lab.shape.ports(host) {
        ip(Some(&lab.shape.switch()), &format!("link set {port} down")).await?;
    }
    Ok(())
}

/// Makes the host's link as cut as `cut` says.
pub(crate) async fn set_cut(lab: &Lab, host: &Host, cut: Cut) -> Result<(), Error> {
    // Adding what is there is no error, and so it can be deleted after that: one transaction, whatever there was.
    let change = |set: &str, wanted: bool| {
        let ports = lab.shape.ports(host).iter().map(|port| format!("\"{port}\"")).collect::<Vec<_>>().join(", ");
        let add = format!("add element bridge lab {set} {{ {ports} }}");
        let delete = format!("delete element bridge lab {set} {{ {ports} }}");
        if wanted { add } else { format!("{add}; {delete}") }
    };
    let text = format!("{}; {}", change("out", cut.out), change("into", cut.into));
    run_in(Some(&lab.shape.switch()), &["nft", &text]).await?;
    Ok(())
}

/// The links of these hosts, in their order.
pub(crate) async fn links(lab: &Lab, hosts: &[Host]) -> Result<Vec<Link>, Error> {
    let switch = lab.shape.switch();
    let ports = ip(Some(&switch), "-br link show").await?;
    let out = elements(&run_in(Some(&switch), &["nft", "-j", "list", "set", "bridge", "lab", "out"]).await?);
    let into = elements(&run_in(Some(&switch), &["nft", "-j", "list", "set", "bridge", "lab", "into"]).await?);
    let link = |h: &Host| {
        let port = ports.lines().find(|l| l.split(['@', ' ']).next() == Some(h.name.as_str()));
        let plugged = port.and_then(|l| l.split('<').nth(1)).is_some_and(|f| f.split([',', '>']).any(|f| f == "UP"));
        Link { plugged, cut: Cut { out: out.contains(&h.name), into: into.contains(&h.name) } }
    };
    Ok(hosts.iter().map(link).collect())
}

/// The elements of the one set in a listing (JSON).
fn elements(listing: &str) -> Vec<String> {
    let listing: serde_json::Value = serde_json::from_str(listing).unwrap_or_default();
    let objects = listing["nftables"].as_array().cloned().unwrap_or_default();
    let set = objects.iter().find_map(|o| o.get("set")).cloned().unwrap_or_default();
    set["elem"].as_array().into_iter().flatten().filter_map(|e| e.as_str()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_of_sets() {
        let one = r#"{"nftables": [{"metainfo": {}}, {"set": {"name": "out", "elem": ["c1", "n2"]}}]}"#;
        assert_eq!(elements(one), ["c1", "n2"]);
        assert!(elements(r#"{"nftables": [{"metainfo": {}}, {"set": {"name": "out"}}]}"#).is_empty());
    }
}
