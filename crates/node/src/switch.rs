//! The virtual switch that this host's OVN chassis is.
use crate::{SwitchError, VirtualSwitch};
use assign::Pending;
use chassis::{Attachment, Chassis, Datapath};
use std::{collections::BTreeMap, sync::Arc};

/// Plugs into the integration bridge of a [`Chassis`].
pub struct OvnSwitch(pub Arc<Chassis>);

fn failed(e: &chassis::Error) -> SwitchError {
    SwitchError(base::chain(e))
}

impl VirtualSwitch for OvnSwitch {
    fn plug<'a>(&'a self, interface: &'a str, port_id: &'a str, mac: &'a str) -> Pending<'a, Result<(), SwitchError>> {
        Box::pin(async move {
            let attachment = Attachment { port_id: port_id.to_owned(), mac: Some(mac.to_owned()), owner: None };
            self.0.plug(interface, &attachment).await.map_err(|e| failed(&e))
        })
    }
    fn unplug<'a>(&'a self, interface: &'a str) -> Pending<'a, Result<(), SwitchError>> {
        Box::pin(async move { self.0.unplug(interface).await.map_err(|e| failed(&e)) })
    }
    fn list(&self) -> Pending<'_, Result<BTreeMap<String, String>, SwitchError>> {
        Box::pin(async move { Ok(self.0.list_plugged().into_iter().map(|p| (p.interface, p.port_id)).collect()) })
    }
    fn carries_offloads(&self) -> bool {
        self.0.datapath() == Datapath::System
    }
}
