//! Interfaces of guests on this host: persistent taps, plugged into the virtual switch.
//!
//! A tap's name follows from its port's id, so that it is found again without a record. It stays over restarts of its guest.
pub(crate) mod tun;

use crate::{
    Config, Error,
    command::Tool,
    driver::{Nics, Owned},
};
use assign::{Pending, PortAssignment};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};

/// The virtual switch of this host. OVN's controller binds the logical port whose name is the interface's `iface-id`.
pub trait VirtualSwitch: Send + Sync {
    /// Adds the interface as the logical port; twice is once.
    fn plug<'a>(&'a self, interface: &'a str, port_id: &'a str, mac: &'a str) -> Pending<'a, Result<(), SwitchError>>;
    /// Takes the interface out; one that is not there is fine.
    fn unplug<'a>(&'a self, interface: &'a str) -> Pending<'a, Result<(), SwitchError>>;
    /// All plugged interfaces and their logical ports.
    fn list(&self) -> Pending<'_, Result<BTreeMap<String, String>, SwitchError>>;
    /// Does it finish checksums and segments that a sender left to the hardware? The userspace datapath does not.
    fn carries_offloads(&self) -> bool {
        false
    }
}

/// Why the switch did not do it.
#[derive(Debug, thiserror::Error)]
#[error("the virtual switch failed: {0}")]
pub struct SwitchError(pub String);

/// The first ten letters and digits of an id.
pub(crate) fn short(id: &str) -> String {
    id.chars().filter(char::is_ascii_alphanumeric).take(10).collect()
}

/// Does the host have an interface of this name?
pub(crate) fn exists(interface: &str) -> bool {
    Path::new("/sys/class/net").join(interface).exists()
}

/// Interfaces of this host whose names start so.
pub(crate) fn with_prefix(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.starts_with(prefix)).collect()
}

/// The host must not speak IPv6 on a tenant's wire.
pub(crate) fn silence(interface: &str) {
    // Hosts without IPv6 have no such file, and nothing to silence.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1");
}

pub(crate) async fn delete(interface: &str) -> Result<(), Error> {
    match Tool::new("ip").args(["link", "delete", interface]).run().await {
        Err(_) if !exists(interface) => Ok(()),
        result => result.map(drop),
    }
}

/// Removes all taps of a node; the switch forgets them by itself.
pub(crate) async fn remove_all(config: &Config) -> Result<(), Error> {
    for name in with_prefix(&format!("{}t", config.interface_prefix)) {
        delete(&name).await?;
    }
    Ok(())
}

/// Guests' interfaces.
pub struct Taps {
    prefix: String,
    switch: Arc<dyn VirtualSwitch>,
}

impl Taps {
    pub fn new(config: &Config, switch: Arc<dyn VirtualSwitch>) -> Self {
        Self { prefix: format!("{}t", config.interface_prefix), switch }
    }
    fn name(&self, port_id: &str) -> String {
        format!("{}{}", self.prefix, short(port_id))
    }

    async fn add(&self, port: &PortAssignment) -> Result<String, Error> {
        let name = self.name(&port.id);
        let failed = |cause: String| Error::Plug { port: port.id.clone(), cause };
        if !exists(&name) {
            let add = Tool::new("ip").args(["tuntap", "add", "dev", name.as_str(), "mode", "tap"]).run().await;
            add.map(drop).or_else(|e| if exists(&name) { Ok(()) } else { Err(failed(e.to_string())) })?;
        }
        silence(&name);
        let mtu = port.mtu.to_string();
        let up = Tool::new("ip").args(["link", "set", "dev", name.as_str(), "mtu", &mtu, "up"]).run().await;
        up.map_err(|e| failed(e.to_string()))?;
        self.switch.plug(&name, &port.id, &port.mac).await.map_err(|e| failed(e.to_string()))?;
        Ok(name)
    }

    async fn take_out(&self, name: &str) -> Result<(), Error> {
        self.switch.unplug(name).await.map_err(|e| Error::Plug { port: name.to_owned(), cause: e.to_string() })?;
        if exists(name) { delete(name).await } else { Ok(()) }
    }

    async fn clean(&self, owned: Owned<'_>) -> Vec<String> {
        let plugged = match self.switch.list().await {
            Ok(plugged) => plugged.into_keys().filter(|n| n.starts_with(&self.prefix)).collect(),
            Err(error) => {
                tracing::warn!(%error, "leftovers in the switch cannot be looked for");
                Vec::new()
            }
        };
        let all: BTreeSet<String> = with_prefix(&self.prefix).into_iter().chain(plugged).collect();
        let owned: BTreeSet<String> = owned().iter().map(|p| self.name(p)).collect();
        let mut removed = Vec::new();
        for name in all.difference(&owned) {
            match self.take_out(name).await {
                Ok(()) => removed.push(name.clone()),
                Err(error) => tracing::warn!(interface = name, %error, "a leftover interface is not removed"),
            }
        }
        removed
    }
}

impl Nics for Taps {
    fn plug<'a>(&'a self, port: &'a PortAssignment) -> Pending<'a, Result<String, Error>> {
        Box::pin(self.add(port))
    }
    fn unplug<'a>(&'a self, port_id: &'a str) -> Pending<'a, Result<(), Error>> {
        Box::pin(async move { self.take_out(&self.name(port_id)).await })
    }
    fn present(&self, ports: &mut dyn Iterator<Item = &String>) -> BTreeSet<String> {
        ports.filter(|p| exists(&self.name(p))).cloned().collect()
    }
    fn sweep<'a>(&'a self, owned: Owned<'a>) -> Pending<'a, Vec<String>> {
        Box::pin(self.clean(owned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_linux() {
        let id = base::id::uuid();
        assert_eq!(format!("abcdt{}", short(&id)).len(), 15);
        assert_eq!(short("12-34"), "1234");
    }
}
