//! The front door of a controller, kept as the cluster's members are.
//!
//! Behind it are the members of the cluster's own etcd, which are its controllers. Where somebody else runs etcd, each door has only its
//! own controller behind it, as nobody says who the others are.
use crate::{
    config::{Config, State},
    controller::{API, PUBLIC, Seat},
};
use frontdoor::{Certificate, FrontDoor, LOCAL_PORT, Vip, Watched};
use pki::Files;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use store_etcd::{Etcd, member::MemberInfo};
use tokio::time::sleep;

/// How often the cluster's members and our certificate are looked at again.
const FOLLOW: Duration = Duration::from_secs(2);
/// Requests that run through this door may end.
const GRACE: Duration = Duration::from_secs(10);

/// The door with these other controllers behind it; none on a machine that is no controller.
fn door(state: &State, config: &Config, others: Vec<(String, IpAddr)>) -> Option<FrontDoor> {
    let controller = config.controller.as_ref()?;
    let Files { ca, certificate, key } = Files::of(&state.pki());
    let name = config.name();
    let behind =
        |(name, address): (String, IpAddr)| frontdoor::Controller { name, api: SocketAddr::new(address, API), drain: false };
    let mut controllers: Vec<_> = others.into_iter().filter(|(other, _)| *other != name).map(behind).collect();
    controllers.push(behind((name.clone(), controller.address)));
    controllers.sort_by(|a, b| a.name.cmp(&b.name));
    Some(FrontDoor {
        name,
        dir: state.run("door"),
        netns: None,
        listen: vec![controller.address],
        port: PUBLIC,
        local_port: LOCAL_PORT,
        vip: controller.vip.map(|address| Vip { address, interface: controller.interface.clone() }),
        ca,
        machine: Certificate { certificate, key },
        public: None,
        controllers,
    })
}

/// The controllers that have started, by their members of etcd.
fn controllers(members: &[MemberInfo]) -> Vec<(String, IpAddr)> {
    let address = |m: &MemberInfo| {
        let at: SocketAddr = m.peer_urls.first()?.split_once("://")?.1.trim_end_matches('/').parse().ok()?;
        Some((m.name.clone(), at.ip()))
    };
    members.iter().filter(|m| !m.name.is_empty()).filter_map(address).collect()
}

/// Keeps the door as the cluster is, for as long as it is polled; the door itself goes on after that.
pub(crate) async fn keep(state: State, config: Config, etcd: Option<Arc<Etcd>>) {
    let own = config.controller.as_ref().is_some_and(|c| c.etcd != Seat::External);
    let etcd = etcd.filter(|_| own);
    let mut last = Vec::new();
    let mut watched: Option<(FrontDoor, Watched)> = None;
    loop {
        if let Some(etcd) = &etcd {
            match etcd.cluster().members().await {
                Ok(members) => last = controllers(&members),
                Err(e) => tracing::debug!(error = %e, "etcd does not tell its members"),
            }
        }
        let Some(door) = door(&state, &config, last.clone()) else { return };
        // The same door may have a renewed certificate: `ensure` looks.
        match watched.as_ref().filter(|(known, _)| *known == door) {
            Some(_) => {
                if let Err(e) = door.ensure().await {
                    tracing::warn!(error = %base::chain(&e), "The front door is not as it should be; trying again");
                }
            }
            None => match door.watch().await {
                Ok(watching) => {
                    let behind: Vec<_> = door.controllers.iter().map(|c| c.name.as_str()).collect();
                    tracing::info!(controllers = behind.join(" "), "The front door is open");
                    watched = Some((door, watching));
                }
                Err(e) => tracing::error!(error = %base::chain(&e), "The front door cannot be opened; trying again"),
            },
        }
        sleep(FOLLOW).await;
    }
}

/// Ends what outlives the pair, for `down`.
pub(crate) async fn stop(state: &State, config: &Config) -> Result<(), String> {
    let Some(door) = door(state, config, Vec::new()) else { return Ok(()) };
    door.stop(GRACE).await.map_err(|e| base::chain(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_members_that_have_started() {
        let member = |name: &str, url: &str| MemberInfo {
            id: 1,
            name: name.into(),
            peer_urls: vec![url.into()],
            client_urls: vec![],
            learner: false,
        };
        let all =
            [member("c1", "https://10.0.0.1:2380"), member("", "https://10.0.0.2:2380"), member("c3", "https://[fd00::3]:2380")];
        assert_eq!(controllers(&all), [("c1".into(), [10, 0, 0, 1].into()), ("c3".into(), "fd00::3".parse().unwrap())]);
    }
}
