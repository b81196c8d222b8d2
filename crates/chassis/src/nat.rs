//! The way out of the provider network through this host, and what guests may ask of the host itself.
//!
//! The host end of the provider bridge is the gateway of the external subnet. An nftables table of our own masquerades what
//! guests send to the world, and keeps them off the host: guests are hostile. Other tables of the host are left alone.
//!
//! ```text
//!   guest ──▶ router (SNAT) ──▶ bridge ──▶ forward ──▶ masquerade ──▶ the world
//!                                  └─────▶ input: replies and ping of the gateway; nothing else
//! ```
//! The kernel's forwarding is switched on where it is off, and off again by the last cloud that leaves. That it was off is kept as
//! an empty chain in the table: it lives exactly as long as the setting, so a stale note can never outlive a reboot.
use crate::Error;
use ipnet::Ipv4Net;
use supervise::run_in;

/// All tables of all clouds on a machine start with it.
const PREFIX: &str = "drover_";
const WAS_OFF: &str = "forwarding_was_off";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// NAT and filter for one provider bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nat {
    /// The named network namespace; None is the host's.
    pub netns: Option<String>,
    /// What tells this cloud's table from those of others.
    pub tag: String,
    /// The host's device on the provider network.
    pub bridge: String,
    /// The host's address there, with the network whose packets may leave.
    pub gateway: Ipv4Net,
}

impl Nat {
    /// Puts the table in place, whole or not at all, then switches forwarding on.
    pub async fn ensure(&self) -> Result<(), Error> {
        self.ensure_knowing(false).await
    }

    /// As [`Self::ensure`], but only where somebody took it away, such as a reload of the host's own firewall. `was_off` is what
    /// was seen the last time: the note goes with the table.
    pub async fn recheck(&self, was_off: &mut bool) -> Result<(), Error> {
        if let Some(own) = self.tables().await?.iter().find(|t| t.name == self.table()) {
            *was_off = own.was_off;
            if !self.forwarding_is_off().await? {
                return Ok(());
            }
        }
        tracing::warn!(table = self.table(), "Somebody removed the NAT of guests from this host; it is put back");
        self.ensure_knowing(*was_off).await
    }

    async fn ensure_knowing(&self, was_off: bool) -> Result<(), Error> {
        let off = self.forwarding_is_off().await?;
        let was_off = was_off || off || self.tables().await?.iter().any(|t| t.was_off);
        // The filter first: at no time do packets flow without it.
        self.nft(&self.rules(was_off)).await?;
        if off {
            self.set_forwarding(true).await?;
        }
        Ok(())
    }

    /// Takes the table away, and puts forwarding back if no other cloud needs it. No error if nothing is there.
    pub async fn remove(&self) -> Result<(), Error> {
        let tables = match self.tables().await {
            Ok(tables) => tables,
            // Where there is no nft, no table was made.
            Err(Error::Nat(supervise::Error::Command { .. })) => return Ok(()),
            Err(e) => return Err(e),
        };
        let Some(own) = tables.iter().find(|t| t.name == self.table()) else { return Ok(()) };
        if own.was_off && tables.len() == 1 {
            self.set_forwarding(false).await?;
        }
        self.nft(&format!("delete table inet {}", self.table())).await
    }

    fn table(&self) -> String {
        format!("{PREFIX}{}", self.tag)
    }

    /// The table as text for `nft`, replacing an older one.
    fn rules(&self, was_off: bool) -> String {
        let (table, bridge, host, range) = (self.table(), &self.bridge, self.gateway.addr(), self.gateway.trunc());
        let mark = if was_off { format!("\tchain {WAS_OFF} {{\n\t}}\n") } else { String::new() };
        format!(
            r#"table inet {table}
delete table inet {table}
table inet {table} {{
{mark}	chain input {{
		type filter hook input priority filter; policy accept;
		iifname != "{bridge}" accept
		ct state established,related accept
		ip saddr {range} ip daddr {host} icmp type echo-request accept
		icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
		counter drop
	}}
	chain forward {{
		type filter hook forward priority filter; policy accept;
		iifname "{bridge}" tcp flags syn tcp option maxseg size set rt mtu
		oifname "{bridge}" tcp flags syn tcp option maxseg size set rt mtu
		iifname != "{bridge}" accept
		ip saddr {range} ip daddr != 169.254.0.0/16 accept
		counter drop
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {range} oifname != "{bridge}" masquerade
	}}
}}
"#
        )
    }

    async fn tables(&self) -> Result<Vec<Table>, Error> {
        let text = self.run(&["nft", "-j", "list", "chains"]).await?;
        Ok(Table::of(&text))
    }
    async fn forwarding_is_off(&self) -> Result<bool, Error> {
        Ok(self.run(&["cat", FORWARDING]).await?.trim() == "0")
    }
    async fn set_forwarding(&self, on: bool) -> Result<(), Error> {
        let command = format!("echo {} > {FORWARDING}", u8::from(on));
        self.run(&["sh", "-c", &command]).await.map(drop)
    }
    async fn nft(&self, script: &str) -> Result<(), Error> {
        self.run(&["nft", script]).await.map(drop)
    }
    async fn run(&self, argv: &[&str]) -> Result<String, Error> {
        run_in(self.netns.as_deref(), argv).await.map_err(Error::Nat)
    }
}

/// A table of some cloud on this machine.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    name: String,
    was_off: bool,
}

impl Table {
    /// The clouds' tables in what `nft -j list chains` prints.
    fn of(text: &str) -> Vec<Self> {
        let printed: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let mut tables: Vec<Self> = Vec::new();
        for chain in printed["nftables"].as_array().into_iter().flatten().map(|entry| &entry["chain"]) {
            let Some(name) = chain["table"].as_str().filter(|name| name.starts_with(PREFIX)) else { continue };
            let was_off = chain["name"] == WAS_OFF;
            match tables.iter_mut().find(|t| t.name == name) {
                Some(known) => known.was_off |= was_off,
                None => tables.push(Self { name: name.to_owned(), was_off }),
            }
        }
        tables
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nat() -> Nat {
        let gateway = Ipv4Net::new_assert([172, 24, 4, 1].into(), 24);
        Nat { netns: None, tag: "abc".into(), bridge: "dvabc-ex".into(), gateway }
    }

    #[test]
    fn the_table_names_its_bridge_and_range_and_replaces_itself_at_once() {
        let text = nat().rules(false);
        assert!(text.starts_with("table inet drover_abc\ndelete table inet drover_abc\ntable inet drover_abc {\n"));
        assert!(text.contains("ip saddr 172.24.4.0/24 oifname != \"dvabc-ex\" masquerade"));
        assert!(text.contains("ip daddr 172.24.4.1 icmp"), "ping of the gateway only");
        assert!(!text.contains(WAS_OFF) && nat().rules(true).contains("chain forwarding_was_off"));
    }

    #[test]
    fn tables_of_clouds_are_told_from_others() {
        let text = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "inet", "table": "filter", "name": "forwarding_was_off"}},
            {"chain": {"family": "inet", "table": "drover_a", "name": "input"}},
            {"chain": {"family": "inet", "table": "drover_b", "name": "forwarding_was_off"}},
            {"chain": {"family": "inet", "table": "drover_b", "name": "input"}}]}"#;
        let table = |name: &str, was_off| Table { name: name.into(), was_off };
        assert_eq!(Table::of(text), [table("drover_a", false), table("drover_b", true)]);
        assert_eq!(Table::of("not JSON"), []);
    }
}
