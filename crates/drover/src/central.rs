//! A controller's part of OVN: its certificates, and who the other controllers are.
use crate::{
    config::{Config, State},
    controller::{Controller, Seat},
};
use network::ovn::cluster::{self, Certificates, Pem, Roster};
use pki::{Ca, Files, Identity, Role};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use store_etcd::{Etcd, member::MemberInfo};

/// What the authority for controllers alone has certified.
fn files(state: &State) -> Files {
    Files::of(&state.pki().join("controllers"))
}

/// Is there what [`of`] names?
pub(crate) fn is_certified(state: &State) -> bool {
    files(state).certificate.exists()
}

/// Makes what [`of`] names, beside the controller's own certificate.
pub(crate) fn certify(state: &State, name: &str, ca: &Ca, addresses: &[IpAddr]) -> Result<(), pki::Error> {
    let (files, alone) = (files(state), ca.for_controllers()?);
    let identity = Identity { role: Role::Controller, name: name.to_owned() };
    files.keep(&alone.sign(&files.request()?.csr_pem, &identity, addresses)?)
}

/// This machine as one of those that keep OVN's databases; none that is no controller does.
pub(crate) fn of(state: &State, config: &Config) -> Option<cluster::Controller> {
    let controller: &Controller = config.controller.as_ref()?;
    let pem = |Files { ca, certificate, key }| Pem { ca, certificate, key };
    Some(cluster::Controller {
        name: config.name(),
        address: controller.address,
        run_dir: state.ovn().join("central"),
        netns: None,
        certificates: Certificates {
            machine: pem(Files::of(&state.pki())),
            controller: pem(files(state)),
            server_name: Role::Controller.server_name(),
        },
    })
}

/// Who is a controller: the members of the cluster's own etcd. Where somebody else runs etcd, nobody says who is gone for good.
pub(crate) fn roster(config: &Config, etcd: Option<Arc<Etcd>>) -> Roster {
    let own = config.controller.as_ref().is_some_and(|c| c.etcd != Seat::External);
    let etcd = etcd.filter(|_| own);
    Arc::new(move || {
        let etcd = etcd.clone();
        Box::pin(async move { Some(addresses(&etcd?.cluster().members().await.ok()?)) })
    })
}

fn addresses(members: &[MemberInfo]) -> Vec<IpAddr> {
    let address = |url: &String| url.split_once("://")?.1.trim_end_matches('/').parse::<SocketAddr>().ok().map(|at| at.ip());
    members.iter().flat_map(|m| m.peer_urls.iter().filter_map(address)).collect()
}
