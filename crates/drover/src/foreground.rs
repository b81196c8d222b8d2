//! `drover run`: the pair of `up` under a service manager, and `drover restart`: the pair anew.
//!
//! ```text
//!   systemd ──▶ drover run ──▶ supervise ⇄ serve          guests, OVN, etcd, haproxy, keepalived: processes of their own
//!     SIGTERM ──▶ ends the pair, and nothing else
//!     drover down, from anywhere ──▶ ends all of it, and `drover run` with it
//! ```
//! So a stop or an upgrade of the service touches no guest and no vote of etcd. Whoever wants all of it stopped says `drover down`.
use crate::{
    config::{Config, Flags, State},
    controller::Seat,
    node_role, server,
    up::{self, Stop, progress},
};
use std::{
    os::{
        linux::net::SocketAddrExt as _,
        unix::{ffi::OsStrExt as _, net},
    },
    path::Path,
    time::{Duration, SystemTime},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

/// The pair watches itself; this is for when both of it are gone.
const LOOK: Duration = Duration::from_millis(500);
/// A restart that takes longer has broken off.
const RESTARTED: Duration = Duration::from_secs(180);

/// Runs what the state directory holds until it is told to stop.
pub(crate) async fn run(state: &State) -> Result<(), String> {
    let mut stop = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
    if !state.config().exists() {
        return Err(format!(
            "Nothing is in {} yet. Begin with drover up, drover server or drover node; then this command keeps it running.",
            state.dir().display()
        ));
    }
    let started = async {
        start(state).await?;
        tell_manager("READY=1");
        keep(state).await
    };
    tokio::select! {
        ended = started => return ended,
        _ = stop.recv() => {}
        _ = interrupt.recv() => {}
    }
    tell_manager("STOPPING=1");
    up::stop_pair(state, Stop::Down).await
}

/// Brings the pair back when both of it are away; returns when somebody said `drover down`.
async fn keep(state: &State) -> Result<(), String> {
    loop {
        // Looked at in this order, as the word is said before the pair is stopped.
        let runs = up::running(state)?.is_some();
        match up::stopped_for(state) {
            Some((Stop::Down, _)) => return Ok(()),
            Some((Stop::Restart, age)) if age < RESTARTED => {}
            Some((Stop::Restart, _)) => start(state).await?,
            None if !runs => up::ensure_supervised(state).await?,
            None => {}
        }
        sleep(LOOK).await;
    }
}

/// Starts the pair again with this program: after an upgrade, or to use what has changed in `config.json`.
pub(crate) async fn restart(state: &State) -> Result<(), String> {
    if !state.config().exists() {
        return Err(format!("Nothing is in {}; name the state directory with --state.", state.dir().display()));
    }
    progress("Stopping the control plane …");
    up::stop_pair(state, Stop::Restart).await?;
    start(state).await
}

/// The pair, with what it needs beside it; returns when it serves.
async fn start(state: &State) -> Result<(), String> {
    let config = Config::load(state, &Flags::default())?;
    if let Some(controller) = &config.controller {
        // A new certificate is a new configuration of the front door, which costs clients their connections: only when it is due.
        let certified = pki::Files::of(&state.pki()).wants_renewal(SystemTime::now()).is_ok_and(|wants| !wants);
        match controller.etcd {
            Seat::Member | Seat::External if certified => up::start(state, &config).await.map(|_| ()),
            Seat::Founding | Seat::Joining | Seat::Member | Seat::External => server::resume(state, config).await,
        }
    } else if config.node.is_some() {
        // A host without controllers is to run on.
        node_role::resume(state).await.or_else(|e| {
            progress(&e);
            Ok(())
        })
    } else {
        up::start(state, &config).await.map(|_| ())
    }
}

/// sd_notify(3), where a manager listens.
fn tell_manager(word: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match name.as_bytes() {
        [b'@', name @ ..] => net::SocketAddr::from_abstract_name(name),
        _ => net::SocketAddr::from_pathname(Path::new(&name)),
    };
    let told = address.and_then(|to| net::UnixDatagram::unbound()?.send_to_addr(word.as_bytes(), &to));
    if let Err(e) = told {
        progress(&format!("The service manager could not be told {word}: {e}."));
    }
}
