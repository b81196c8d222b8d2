//! The metadata service of the networks on this host.
//!
//! Each network has a namespace with the network's `localport` and 169.254.169.254. Who asks is known by the network that the
//! question came in on and by its source address, which OVN's port security vouches for; never by a header. Answers come from memory: the
//! control plane may be away. Only a password that a guest leaves needs it. While the agent restarts, nobody answers for a moment; guests retry.
mod namespace;
mod password;
mod serve;
pub mod tree;

use crate::{
    Config, Error,
    agent::AbortOnDrop,
    driver::{Metadata, Owned},
    nic::VirtualSwitch,
};
use assign::{GuestData, MetadataNetwork, Pending, ServerAssignment, Uplink};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

/// Who is who: guests by network and address.
#[derive(Default)]
pub(crate) struct Directory {
    guests: RwLock<HashMap<(String, IpAddr), Arc<ServerAssignment>>>,
    /// Keys of each server, to take them out again.
    keys: Mutex<HashMap<String, Vec<(String, IpAddr)>>>,
}

impl Directory {
    fn find(&self, network_id: &str, address: IpAddr) -> Option<Arc<ServerAssignment>> {
        let guests = self.guests.read().unwrap_or_else(PoisonError::into_inner);
        guests.get(&(network_id.to_owned(), address.to_canonical())).cloned()
    }
    fn publish(&self, server: &Arc<ServerAssignment>) {
        let addresses = server.ports.iter().flat_map(|p| p.fixed_ips.iter().map(|ip| (p.network_id.clone(), ip.parse())));
        let new: Vec<(String, IpAddr)> = addresses.filter_map(|(network, ip)| Some((network, ip.ok()?))).collect();
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let mut guests = self.guests.write().unwrap_or_else(PoisonError::into_inner);
        Self::take_out(&mut guests, &server.id, keys.insert(server.id.clone(), new.clone()));
        guests.extend(new.into_iter().map(|key| (key, server.clone())));
    }
    /// Shows a server's guest what it posted before its next assignment says it.
    fn show_password(&self, server: &Arc<ServerAssignment>, password: &str) {
        let mut guests = self.guests.write().unwrap_or_else(PoisonError::into_inner);
        for shown in guests.values_mut().filter(|s| Arc::ptr_eq(s, server)) {
            let mut next = ServerAssignment::clone(shown);
            next.guest = Arc::new(GuestData { password: Some(password.to_owned()), ..GuestData::clone(&next.guest) });
            *shown = Arc::new(next);
        }
    }
    fn withdraw(&self, id: &str) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let mut guests = self.guests.write().unwrap_or_else(PoisonError::into_inner);
        Self::take_out(&mut guests, id, keys.remove(id));
    }
    /// An address may have gone over to another server meanwhile; that one keeps it.
    fn take_out(guests: &mut HashMap<(String, IpAddr), Arc<ServerAssignment>>, id: &str, keys: Option<Vec<(String, IpAddr)>>) {
        for key in keys.into_iter().flatten() {
            if guests.get(&key).is_some_and(|s| s.id == id) {
                guests.remove(&key);
            }
        }
    }
}

/// The responder of a real node.
pub struct Responder {
    config: Config,
    switch: Arc<dyn VirtualSwitch>,
    desk: Arc<password::Desk>,
    serving: Mutex<HashMap<String, AbortOnDrop>>,
}

impl Responder {
    /// Passwords that guests leave go up by the uplink.
    pub fn new(config: &Config, switch: Arc<dyn VirtualSwitch>, uplink: Arc<dyn Uplink>) -> Self {
        let desk = Arc::new(password::Desk::new(uplink));
        Self { config: config.clone(), switch, desk, serving: Mutex::default() }
    }
    fn serving(&self) -> MutexGuard<'_, HashMap<String, AbortOnDrop>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn place(&self, network_id: &str) -> namespace::Place {
        namespace::Place::new(&self.config.namespace_prefix, &self.config.interface_prefix, network_id)
    }

    async fn bring_up(&self, network: &MetadataNetwork) -> Result<(), Error> {
        let place = self.place(&network.network_id);
        place.ensure(network, self.switch.carries_offloads()).await?;
        let plugged = self.switch.plug(&place.outer, &network.port, &network.mac).await;
        plugged.map_err(|e| Error::Plug { port: network.port.clone(), cause: e.to_string() })?;
        if !self.serving().contains_key(&network.network_id) {
            let listener = place.listen().await?;
            let serve = serve::serve(listener, network.network_id.clone(), self.desk.clone());
            let task = AbortOnDrop(tokio::spawn(serve).abort_handle());
            self.serving().insert(network.network_id.clone(), task);
        }
        Ok(())
    }

    async fn take_down(&self, place: &namespace::Place) -> Result<(), Error> {
        let unplugged = self.switch.unplug(&place.outer).await;
        unplugged.map_err(|e| Error::Plug { port: place.outer.clone(), cause: e.to_string() })?;
        place.remove().await
    }

    async fn clean(&self, owned: Owned<'_>) -> Vec<String> {
        let found = namespace::Place::all(&self.config.namespace_prefix, &self.config.interface_prefix);
        let owned: Vec<namespace::Place> = owned().iter().map(|n| self.place(n)).collect();
        let mut removed = Vec::new();
        for place in found.into_iter().filter(|p| !owned.contains(p)) {
            match self.take_down(&place).await {
                Ok(()) => removed.push(place.namespace),
                Err(error) => tracing::warn!(namespace = place.namespace, %error, "a leftover namespace is not removed"),
            }
        }
        removed
    }
}

/// Removes all namespaces of a node; the switch forgets their ends by itself.
pub(crate) async fn remove_all(config: &Config) -> Result<(), Error> {
    for place in namespace::Place::all(&config.namespace_prefix, &config.interface_prefix) {
        place.remove().await?;
    }
    Ok(())
}

impl Metadata for Responder {
    fn ensure<'a>(&'a self, network: &'a MetadataNetwork) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.bring_up(network))
    }
    fn remove<'a>(&'a self, network_id: &'a str) -> Pending<'a, Result<(), Error>> {
        Box::pin(async move {
            drop(self.serving().remove(network_id));
            self.take_down(&self.place(network_id)).await
        })
    }
    fn publish(&self, server: &Arc<ServerAssignment>) {
        self.desk.directory.publish(server);
    }
    fn withdraw(&self, server_id: &str) {
        self.desk.directory.withdraw(server_id);
    }
    fn sweep<'a>(&'a self, owned: Owned<'a>) -> Pending<'a, Vec<String>> {
        Box::pin(self.clean(owned))
    }
}

#[cfg(test)]
#[path = "metadata/tests.rs"]
mod tests;
