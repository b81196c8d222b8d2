//! What goes wrong: processes die or hang, hosts lose power, links are cut. Each is safe to repeat.
use crate::{
    Error,
    host::{Host, Lab, Role},
    net::{self, Cut},
    power,
    process::{self, Process},
    up,
};
use rustix::process::Signal;
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

const STOPPED_WITHIN: Duration = Duration::from_secs(5);

/// All processes of a kind on a host, or all.
fn processes(lab: &Lab, host: &Host, kind: Option<&str>) -> Result<Vec<Process>, Error> {
    let init = power::init(lab, host).ok_or_else(|| Error::Off { host: host.name.clone() })?;
    let all = process::of(init.pid);
    let Some(kind) = kind else { return Ok(all) };
    let of_kind: Vec<_> = all.iter().filter(|p| p.kind == kind).cloned().collect();
    if of_kind.is_empty() {
        let there = process::kinds(&all).into_keys().collect::<Vec<_>>().join(", ");
        return Err(Error::NothingRuns { host: host.name.clone(), what: kind.into(), there });
    }
    Ok(of_kind)
}

/// Kills each process of a kind; how many it were.
pub(crate) fn kill(lab: &Lab, host: &Host, kind: &str) -> Result<usize, Error> {
    let of_kind = processes(lab, host, Some(kind))?;
    for p in &of_kind {
        process::signal(p.id, Signal::KILL);
    }
    Ok(of_kind.len())
}

/// Stops the processes of a host until [`resume`]: all, or one kind.
pub(crate) async fn pause(lab: &Lab, host: &Host, kind: Option<&str>) -> Result<usize, Error> {
    let begun = Instant::now();
    let mut paused = HashSet::new();
    // One that was not seen may have started another meanwhile; when all that are there stand still, no more will come.
    loop {
        let running: Vec<_> = processes(lab, host, kind)?.into_iter().filter(|p| !p.stopped).collect();
        if running.is_empty() {
            return Ok(paused.len());
        }
        for p in running {
            process::signal(p.id, Signal::STOP);
            paused.insert(p.id);
        }
        if begun.elapsed() > STOPPED_WITHIN {
            return Err(power::late(lab, format!("{} stands still", host.name), STOPPED_WITHIN));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) fn resume(lab: &Lab, host: &Host) -> Result<usize, Error> {
    let stopped: Vec<_> = processes(lab, host, None)?.into_iter().filter(|p| p.stopped).collect();
    for p in &stopped {
        process::signal(p.id, Signal::CONT);
    }
    Ok(stopped.len())
}

pub(crate) async fn cut(lab: &Lab, host: &Host, cut: Cut) -> Result<(), Error> {
    net::set_cut(lab, host, cut).await
}

pub(crate) async fn power_off(lab: &Lab, host: &Host) -> Result<(), Error> {
    power::off(lab, host).await
}

/// Power and link are back, and what ran on the host is started as its init system would.
pub(crate) async fn power_on(lab: &Lab, host: &Host) -> Result<(), Error> {
    if host.role == Role::Client {
        return net::plug(lab, host).await;
    }
    if power::init(lab, host).is_none() {
        // A machine that was off has not kept the public address.
        net::address_alone(host).await?;
    }
    net::plug(lab, host).await?;
    power::on(lab, host).await?;
    up::start(lab, host).await
}
