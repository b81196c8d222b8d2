//! The front door of a controller, kept as the cluster is: haproxy before the APIs of all controllers, keepalived for the VIP.
use crate::{
    config::{Config, State},
    controller::Controller,
    upkeep,
};
use base::retry::Backoff;
use frontdoor::{Certificate, FrontDoor, Vip};
use pki::Files;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use store_etcd::{Etcd, member::MemberInfo};
use tokio::time::sleep;

const FOLLOW: Duration = Duration::from_secs(5);
const AGAIN: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));

/// The door with these controllers behind it; ours is among them in any case.
fn door(state: &State, config: &Config, controller: &Controller, members: &[MemberInfo]) -> FrontDoor {
    let Files { ca, certificate, key } = Files::of(&state.pki());
    let mut controllers = vec![backend(&config.name(), controller.api())];
    for member in members.iter().filter(|m| m.name != config.name()) {
        // One that has not started yet has no name.
        if let Some(address) = upkeep::host(member).filter(|_| !member.name.is_empty()) {
            controllers.push(backend(&member.name, controller.api_of(address)));
        }
    }
    controllers.sort_by(|a, b| a.name.cmp(&b.name));
    FrontDoor {
        name: config.name(),
        dir: state.run("door"),
        netns: None,
        listen: vec![controller.address],
        port: frontdoor::PORT,
        local_port: frontdoor::LOCAL_PORT,
        vip: controller.vip.map(|address| Vip { address, interface: controller.interface.clone() }),
        ca,
        machine: Certificate { certificate, key },
        public: None,
        controllers,
    }
}

fn backend(name: &str, api: SocketAddr) -> frontdoor::Controller {
    frontdoor::Controller { name: name.to_owned(), api, drain: false }
}

/// Keeps the door as the cluster is, until it is dropped. The two programs go on without it.
pub(crate) async fn keep(state: State, config: Config, controller: Controller, etcd: Option<Arc<Etcd>>) {
    let mut watched: Option<(FrontDoor, frontdoor::Watched)> = None;
    let mut attempt = 0;
    loop {
        let members = match &etcd {
            Some(etcd) => etcd.cluster().members().await,
            None => Ok(Vec::new()),
        };
        // Without an answer the door stays as it is; the first one has at least ourselves behind it.
        let wanted = match members {
            Err(_) if watched.is_some() => None,
            members => Some(door(&state, &config, &controller, &members.unwrap_or_default())),
        };
        if let Some(wanted) = wanted.filter(|w| watched.as_ref().is_none_or(|(now, _)| now != w)) {
            watched = None;
            match wanted.watch().await {
                Ok(guard) => {
                    tracing::info!(controllers = wanted.controllers.len(), "The front door is open");
                    watched = Some((wanted, guard));
                    attempt = 0;
                }
                Err(e) => {
                    tracing::error!(error = %base::chain(&e), "The front door cannot be opened; trying again");
                    sleep(AGAIN.jittered(attempt)).await;
                    attempt += 1;
                    continue;
                }
            }
        }
        sleep(FOLLOW).await;
    }
}

/// Closes the door: the VIP goes to another controller, and what is under way may finish.
pub(crate) async fn close(state: &State, config: &Config, controller: &Controller, grace: Duration) -> Result<(), String> {
    door(state, config, controller, &[]).stop(grace).await.map_err(|e| base::chain(&e))
}
