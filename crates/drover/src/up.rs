//! `up`, `down` and the supervisor.
//!
//! ```text
//!   drover up ──starts──▶ drover supervise ⇄ drover serve      each starts the other again when it ends
//! ```
//! Both are recorded by pid and start time in the run directory; a second `up` finds them. `down` leaves a mark first, so that
//! neither brings the other back.
use crate::{
    config::{Config, Flags, State},
    demo, door, node_role, server,
};
use base::retry::Backoff;
use cli::Client;
use std::{path::PathBuf, time::Duration};
use supervise::{Daemon, Ready};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

const READY_WITHIN: Duration = Duration::from_secs(120);
/// While one of the pair is away the other has nobody who starts it again, so that time is short whatever happened before.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
/// `serve` lets running requests finish; guests are not its children.
const GRACE: Duration = Duration::from_secs(15);

pub(crate) fn progress(text: &str) {
    eprintln!("{text}");
}

fn daemon(state: &State, role: &str) -> Result<Daemon, String> {
    let exe = std::env::current_exe().map_err(|e| format!("The path of this program is not known: {e}."))?;
    // A program that was replaced while it ran is found under its old name with a mark.
    let exe = PathBuf::from(exe.to_string_lossy().trim_end_matches(" (deleted)").to_owned());
    let argv = vec![exe.display().to_string(), "--state".into(), state.dir().display().to_string(), role.into()];
    let log = std::env::var("DROVER_LOG").unwrap_or_else(|_| "info".into());
    let format = std::env::var("DROVER_LOG_FORMAT").unwrap_or_default();
    let daemon = Daemon::new(role, state.run("drover"), argv).env("DROVER_LOG", log).env("DROVER_LOG_FORMAT", format);
    Ok(daemon.ready(Ready::Started).retry(AGAIN))
}

fn mark(state: &State) -> PathBuf {
    state.run("down")
}

/// The other half of the pair, kept alive until the guard is dropped.
pub(crate) fn watch_partner(state: &State, role: &str) -> Result<supervise::Watched, String> {
    Ok(daemon(state, role)?.watch())
}

/// Keeps `serve` running until it is told to stop, then stops it. On a controller it tells the others meanwhile how `serve` is.
pub(crate) async fn supervise(state: &State) -> Result<(), String> {
    crate::serve::log();
    if is_going_down(state) {
        return Ok(());
    }
    let mut stop = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let watched = watch_partner(state, "serve")?;
    door::pulse(state, &Config::load(state, &Flags::default())?)?;
    stop.recv().await;
    drop(watched);
    daemon(state, "serve")?.stop(GRACE).await.map_err(|e| e.to_string())
}

/// The role of this cloud that runs here, if any.
pub(crate) fn running(state: &State) -> Result<Option<&'static str>, String> {
    for role in ["supervise", "serve"] {
        if daemon(state, role)?.running().is_some() {
            return Ok(Some(role));
        }
    }
    Ok(None)
}

/// True while `down` wants nothing to come back.
pub(crate) fn is_going_down(state: &State) -> bool {
    mark(state).exists()
}

pub(crate) async fn up(state: &State, flags: &Flags, bare: bool) -> Result<(), String> {
    state.create()?;
    let mut config = Config::load(state, flags)?;
    if config.controller.is_some() {
        return server::resume(state, config).await;
    }
    if config.node.is_some() {
        return node_role::resume(state).await;
    }
    if let Some(image) = &config.guest_image {
        let whole = image.canonicalize().map_err(|e| format!("Guest image {} cannot be read: {e}.", image.display()))?;
        config.guest_image = Some(whole);
    }
    config.save(state)?;
    let started = start(state, &config).await?;
    if bare || config.simulate > 0 {
        usage(state, &config, None);
        return Ok(());
    }
    let admin = Client::login(&demo::login(&config, state, true)?).await.map_err(|e| e.to_string())?;
    progress("Making flavors, images and the network `public` …");
    demo::shared(&admin, &config).await.map_err(|e| e.to_string())?;
    if config.guest_image.is_none() {
        progress("No --guest-image was given, so no demo server is made.");
        usage(state, &config, None);
        return Ok(());
    }
    let user = Client::login(&demo::login(&config, state, false)?).await.map_err(|e| e.to_string())?;
    demo::host_ready(&admin).await.map_err(|e| e.to_string())?;
    progress("Booting the server `demo`; without KVM this takes some seconds …");
    let key = public_key(state).await?;
    let made = demo::project(&user, state, &config, &key).await.map_err(|e| e.to_string())?;
    progress(&format!("Server demo answers ssh after {:.1} s.", started.elapsed().as_secs_f64()));
    usage(state, &config, Some(&made));
    Ok(())
}

/// Starts the pair, or finds that it runs, and returns when the APIs answer; tells when it began.
pub(crate) async fn start(state: &State, config: &Config) -> Result<Instant, String> {
    let (admin, demo) = (state.password("admin")?, state.password("demo")?);
    state.write(&state.clouds_yaml(), clouds(state, config, &admin, &demo).as_bytes())?;
    let started = Instant::now();
    let ran = start_pair(state).await?;
    progress(if ran { "The cloud runs already; checking it …" } else { "Starting the cloud …" });
    ready(state, config, started).await?;
    progress(&format!("APIs answer at {} after {:.1} s.", config.local_endpoint(), started.elapsed().as_secs_f64()));
    Ok(started)
}

/// Starts the pair; true when it ran already.
pub(crate) async fn start_pair(state: &State) -> Result<bool, String> {
    match std::fs::remove_file(mark(state)) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(format!("{} cannot be removed: {e}.", mark(state).display())),
    }
    Ok(daemon(state, "supervise")?.ensure().await.map_err(|e| base::chain(&e))?.adopted)
}

async fn ready(state: &State, config: &Config, started: Instant) -> Result<(), String> {
    let client = Client::anonymous(&config.local_endpoint(), config.ca(state).as_deref()).map_err(|e| e.to_string())?;
    loop {
        match client.get("/readyz").await {
            Ok(_) => return Ok(()),
            Err(e) if started.elapsed() > READY_WITHIN => {
                let log = state.run("drover").join("serve.log");
                return Err(format!(
                    "The cloud is not ready after {} s: {e} The log is {}.",
                    READY_WITHIN.as_secs(),
                    log.display()
                ));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// The demo key pair, made once.
async fn public_key(state: &State) -> Result<String, String> {
    let path = state.ssh_key();
    if !path.exists() {
        let file = path.display().to_string();
        supervise::run(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "drover-demo", "-f", &file])
            .await
            .map_err(|e| base::chain(&e))?;
    }
    let public = path.with_extension("pub");
    std::fs::read_to_string(&public)
        .map(|k| k.trim().to_owned())
        .map_err(|e| format!("{} cannot be read: {e}.", public.display()))
}

fn clouds(state: &State, config: &Config, admin: &str, demo: &str) -> String {
    let ca = config.ca(state).map_or_else(String::new, |ca| format!("    cacert: {}\n", ca.display()));
    let cloud = |name: &str, user: &str, password: &str| {
        format!(
            "  {name}:\n    auth:\n      auth_url: {}/identity/v3\n      username: {user}\n      password: {password}\n      project_name: {user}\n      user_domain_name: Default\n      project_domain_name: Default\n    region_name: {}\n    identity_api_version: \"3\"\n{ca}",
            config.endpoint(),
            config.region
        )
    };
    format!("clouds:\n{}{}", cloud("drover", "demo", demo), cloud("drover-admin", "admin", admin))
}

pub(crate) fn usage(state: &State, config: &Config, made: Option<&demo::Demo>) {
    progress("\nUse it with any OpenStack client:");
    progress(&format!("  export OS_CLIENT_CONFIG_FILE={}", state.clouds_yaml().display()));
    progress("  export OS_CLOUD=drover            # or drover-admin");
    progress(&format!("\nAPIs: {0}/identity /image /compute /network /placement /volume; health: {0}/readyz", config.endpoint()));
    if let Some(demo) = made {
        progress(&format!("\nServer demo: ssh {}", demo::ssh_args(&demo.address, &state.ssh_key()).join(" ")));
    }
}

/// Why the pair is stopped, for whoever else watches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It stays down.
    Down,
    /// It comes back at once.
    Restart,
}

/// What was said last about the pair, if it is to be down, and how long ago.
pub(crate) fn stopped_for(state: &State) -> Option<(Stop, Duration)> {
    let word = std::fs::read(mark(state)).ok()?;
    let since = std::fs::metadata(mark(state)).and_then(|m| m.modified()).ok()?;
    let stop = if word == RESTART { Stop::Restart } else { Stop::Down };
    Some((stop, since.elapsed().unwrap_or_default()))
}

const RESTART: &[u8] = b"restart";

/// Starts the one of the pair that starts the other, if it is away.
pub(crate) async fn ensure_supervised(state: &State) -> Result<(), String> {
    daemon(state, "supervise")?.ensure().await.map(|_| ()).map_err(|e| base::chain(&e))
}

/// Ends the pair and leaves what it started: guests, etcd, the front door.
pub(crate) async fn stop_pair(state: &State, why: Stop) -> Result<(), String> {
    let word = if why == Stop::Restart { RESTART } else { b"" };
    std::fs::write(mark(state), word).map_err(|e| format!("{} cannot be written: {e}.", mark(state).display()))?;
    for role in ["supervise", "serve"] {
        daemon(state, role)?.stop(GRACE * 2).await.map_err(|e| base::chain(&e))?;
    }
    Ok(())
}

pub(crate) async fn down(state: &State, destroy: bool) -> Result<(), String> {
    if !state.dir().exists() {
        progress("There is no cloud here.");
        return Ok(());
    }
    let config = Config::load(state, &Flags::default())?;
    progress("Stopping the control plane …");
    stop_pair(state, Stop::Down).await?;
    if config.has_guests() {
        progress("Stopping guests and the network …");
        crate::serve::stop_host(state, &config).await?;
    } else if config.controller.is_some() {
        if destroy {
            server::give_seat_back(state, &config).await;
        }
        server::stop(state, &config).await?;
    }
    if destroy {
        // Everything in it was made by `up`.
        std::fs::remove_dir_all(state.dir()).map_err(|e| format!("{} cannot be removed: {e}.", state.dir().display()))?;
        progress("The cloud's data is gone.");
    }
    Ok(())
}
