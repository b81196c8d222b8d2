//! The front door of a controller, kept as the cluster's members are.
//!
//! Behind it are the members of the cluster's own etcd, which are its controllers. Where somebody else runs etcd, each door has only its
//! own controller behind it, as nobody says who the others are.
use crate::{
    config::{Config, State},
    controller::{API, PUBLIC, Seat},
    felt::Felt,
};
use api::Cloud;
use base::retry::Backoff;
use frontdoor::{Certificate, FrontDoor, LOCAL_PORT, Pulse, Readiness, Sockets, Vip, Voice, Watched};
use pki::{Ca, Files};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use store_etcd::{Etcd, member::MemberInfo};
use tokio::time::{Instant, sleep, timeout};

/// How often the cluster's members and our certificate are looked at again.
const FOLLOW: Duration = Duration::from_secs(2);
/// A door that runs has the other controllers behind it; it is not made one of this controller alone because etcd is late to tell them.
const UNKNOWN: Duration = Duration::from_secs(10);
/// How often it is looked whether this controller reaches the store, and how long that may take.
const FEEL: Duration = Duration::from_millis(150);
const STORE: Duration = Duration::from_millis(400);
const AGAIN: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
/// The priority of what tells how this controller is (`setpriority(2)`).
const FIRST: i32 = -19;
/// Requests that run through this door may end.
const GRACE: Duration = Duration::from_secs(10);

/// The door with these other controllers behind it; none on a machine that is no controller.
fn door(state: &State, config: &Config, others: Vec<(String, IpAddr)>) -> Option<FrontDoor> {
    let controller = config.controller.as_ref()?;
    let Files { ca, certificate, key } = Files::of(&state.pki());
    let name = config.name();
    let behind = |(name, address): (String, IpAddr)| frontdoor::Controller { name, api: SocketAddr::new(address, API) };
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
pub(crate) async fn keep(state: State, config: Config, etcd: Option<Arc<Etcd>>, voice: Arc<Voice>) {
    let own = config.controller.as_ref().is_some_and(|c| c.etcd != Seat::External);
    let etcd = etcd.filter(|_| own);
    let (mut last, begun) = (Vec::new(), Instant::now());
    let mut watched: Option<(FrontDoor, Watched)> = None;
    loop {
        if let Some(etcd) = &etcd {
            match etcd.cluster().members().await {
                Ok(members) => last = controllers(&members),
                Err(e) => tracing::debug!(error = %e, "etcd does not tell its members"),
            }
        }
        let knows = etcd.is_none() || !last.is_empty();
        if !knows && begun.elapsed() < UNKNOWN {
            sleep(FEEL).await;
            continue;
        }
        let Some(door) = door(&state, &config, last.clone()) else { return };
        if knows {
            voice.know(&door.controllers);
        }
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

/// Tells the pulse how this controller is.
pub(crate) async fn speak(cloud: Arc<Cloud>, voice: Arc<Voice>) {
    let of_thread = voice.clone();
    let spoken = first("voice", move || async move {
        of_thread.run().await;
    });
    if let Err(e) = spoken {
        tracing::error!(error = %e, "There is no thread to tell how this controller is; the doors send it nothing");
        return;
    }
    feel(cloud, voice).await;
}

/// The pulse of this controller, in the process that starts the API again, for as long as that lives: it tells the other controllers' doors
/// how the API here is, and the door here how they are.
pub(crate) fn pulse(state: &State, config: &Config) -> Result<(), String> {
    let Some(controller) = config.controller.as_ref().filter(|c| c.has_front_door()) else { return Ok(()) };
    let ca = Ca::load(&state.pki()).map_err(|e| base::chain(&e))?;
    let (address, dir) = (controller.address, state.run("door"));
    // The authority and what is derived from it are the same on all controllers.
    let pulse = Pulse::new(&config.name(), ca.derive("pulse"), &dir);
    let run = move || async move {
        for attempt in 0.. {
            let ended = match Sockets::bind(address, &dir).await {
                Ok(sockets) => pulse.run(sockets).await,
                Err(e) => Err(e),
            };
            let Err(e) = ended;
            tracing::error!(error = %e, "The other controllers' doors do not learn how this one is; trying again");
            sleep(AGAIN.jittered(attempt)).await;
        }
    };
    first("pulse", run).map_err(|e| format!("There is no thread to tell the other controllers' doors how this one is: {e}."))
}

/// On a thread of its own, before others: what a busy process has to do must not make it look dead.
fn first<F: Future<Output = ()>>(name: &str, run: impl FnOnce() -> F + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = move || {
        // Of this thread alone. Without the right to it, it is as all are.
        if let Err(e) = rustix::process::setpriority_process(None, FIRST) {
            tracing::warn!(error = %e, "This controller may be late to say how it is when its machine is busy");
        }
        runtime.block_on(run());
    };
    std::thread::Builder::new().name(name.into()).spawn(run).map(|_| ())
}

async fn feel(cloud: Arc<Cloud>, voice: Arc<Voice>) {
    let drain = cloud.state.get::<operator::Drain>();
    let mut felt = Felt::default();
    loop {
        let begun = Instant::now();
        let reached = matches!(timeout(STORE, cloud.db.fresh()).await, Ok(Ok(_)));
        let ready = felt.takes(reached.then(|| begun.elapsed()), Instant::now());
        voice.say(if drain.as_ref().is_some_and(|d| d.has_begun()) {
            Readiness::Draining
        } else if ready {
            Readiness::Ready
        } else {
            Readiness::Unready
        });
        sleep(FEEL).await;
    }
}

/// How it is, on a machine that has one.
pub(crate) async fn status(state: &State, config: &Config) -> Option<Result<frontdoor::Status, String>> {
    let door = door(state, config, Vec::new()).filter(|_| config.controller.as_ref().is_some_and(|c| c.has_front_door()))?;
    Some(door.status().await.map_err(|e| base::chain(&e)))
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
