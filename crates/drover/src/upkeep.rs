//! What a controller does for itself while it serves: its etcd's members followed, its certificate renewed, its data saved and tidied.
use crate::{
    config::{Config, Flags, State},
    controller::{self, Controller, Seat},
    engine::{self, Place},
};
use operator::{Members, Pending, StoreMember};
use reconcile::Shards;
use resource::Error;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use store_etcd::{
    Etcd,
    member::{self, Cluster, Member, MemberInfo},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

const FOLLOW: Duration = Duration::from_secs(5);
const RENEWAL: Duration = Duration::from_secs(3600);
const DEFRAGMENT: Duration = Duration::from_secs(3600);
/// A file is written anew when half of it is empty, but not a small one.
const WASTE: f64 = 0.5;
const LEAST: u64 = 64 << 20;
/// After a snapshot failed.
const AGAIN: Duration = Duration::from_secs(300);
/// etcd refuses changes of its members while it is not healthy; the operator may ask again.
const REMOVAL: Duration = Duration::from_secs(30);

/// Starts all of it.
pub(crate) fn start(state: &State, config: &Config, etcd: Option<Arc<Etcd>>, shards: &Arc<Shards>, work: &mut JoinSet<()>) {
    let Some(controller) = &config.controller else { return };
    work.spawn(keep_certified(state.clone(), config.clone()));
    let (Some(etcd), Some(member)) = (etcd, controller.member(state, &config.name())) else { return };
    work.spawn(follow(state.clone(), controller.clone(), etcd.clone()));
    if config.snapshot_interval_s > 0 {
        let interval = Duration::from_secs(config.snapshot_interval_s);
        work.spawn(save(state.snapshots(), member, interval, config.snapshots.max(1)));
    }
    work.spawn(shards.clone().lead("etcd/defragment", move |_| defragment(etcd.clone())));
}

async fn keep_certified(state: State, config: Config) {
    loop {
        match controller::renew(&state, &config, SystemTime::now()) {
            Ok(true) => tracing::info!("The certificate of this controller was renewed"),
            Ok(false) => {}
            Err(cause) => tracing::error!(cause, "The certificate of this controller cannot be renewed; trying again: {cause}"),
        }
        sleep(RENEWAL).await;
    }
}

/// Uses the members that etcd has now, and remembers them for the next start.
async fn follow(state: State, controller: Controller, etcd: Arc<Etcd>) {
    loop {
        match etcd.cluster().members().await {
            Ok(members) => {
                if let Err(cause) = know(&state, &controller, &etcd, &members) {
                    tracing::warn!(cause, "The list of etcd's members is not up to date: {cause}");
                }
            }
            Err(e) => tracing::debug!(error = %e, "etcd does not tell its members"),
        }
        sleep(FOLLOW).await;
    }
}

fn know(state: &State, controller: &Controller, etcd: &Etcd, members: &[MemberInfo]) -> Result<(), String> {
    let all = controller::askable(members, &controller.etcd_member());
    // A controller that was taken out is told by an etcd that it must not use.
    if all.is_empty() {
        return Ok(());
    }
    let mut config = Config::load(state, &Flags::default())?;
    if etcd.follow(&engine::urls(&config, &all)).map_err(|e| base::chain(&e))? {
        tracing::info!(members = all.join(" "), "etcd is reached at {}", all.join(" "));
    }
    if let Place::Etcd { members: known, .. } = &mut config.store
        && *known != all
    {
        *known = all;
        config.save(state)?;
    }
    Ok(())
}

async fn defragment(etcd: Arc<Etcd>) {
    loop {
        sleep(DEFRAGMENT).await;
        match etcd.cluster().ensure_defragmented(WASTE, LEAST).await {
            Ok(done) if done.is_empty() => {}
            Ok(done) => tracing::info!(members = done.join(" "), "etcd's files were written anew"),
            Err(e) => tracing::warn!(error = %base::chain(&e), "etcd's files could not be written anew; trying again in an hour"),
        }
        match etcd.cluster().damaged().await {
            Ok(damaged) if damaged.is_empty() => {}
            Ok(damaged) => tracing::error!(
                members = damaged.join(" "),
                "Members of etcd do not hold what the others do: a file is damaged. Take each out and let it join anew: drover controller \
                 remove NAME"
            ),
            Err(e) => tracing::warn!(error = %base::chain(&e), "etcd's members could not be compared; trying again in an hour"),
        }
    }
}

/// Saves what the own member has, so that all controllers together have it more than once.
async fn save(dir: PathBuf, member: Member, interval: Duration, keep: usize) {
    loop {
        sleep(until_next(newest(&dir), interval, SystemTime::now())).await;
        match one_snapshot(&dir, &member, keep).await {
            Ok(path) => tracing::info!(path = %path.display(), "A snapshot of etcd was taken"),
            Err(cause) => {
                tracing::error!(cause, "No snapshot of etcd could be taken; trying again: {cause}");
                sleep(AGAIN).await;
            }
        }
    }
}

async fn one_snapshot(dir: &Path, member: &Member, keep: usize) -> Result<PathBuf, String> {
    use std::os::unix::fs::DirBuilderExt as _;
    let broken = |e: std::io::Error| format!("{}: {e}", dir.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(broken)?;
    let now = base::Clock::now(&base::SystemClock).unix();
    let path = dir.join(format!("etcd-{now}.db"));
    let cluster = member.admin().map_err(|e| base::chain(&e))?;
    member::save(&cluster, &path).await.map_err(|e| base::chain(&e))?;
    let all = snapshots(dir);
    for (_, old) in all.iter().rev().skip(keep) {
        std::fs::remove_file(old).map_err(broken)?;
    }
    Ok(path)
}

/// Those that are there, oldest first.
fn snapshots(dir: &Path) -> Vec<(SystemTime, PathBuf)> {
    let is_one =
        |p: &PathBuf| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("etcd-") && n.ends_with(".db"));
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|f| f.path()).filter(is_one);
    let mut all: Vec<_> = files.filter_map(|p| Some((p.metadata().and_then(|m| m.modified()).ok()?, p))).collect();
    all.sort();
    all
}

/// When the newest was taken.
pub(crate) fn newest(dir: &Path) -> Option<SystemTime> {
    snapshots(dir).pop().map(|(at, _)| at)
}

/// At once when there is none, or when the newest is of a time that has not come: the clock was set.
fn until_next(newest: Option<SystemTime>, interval: Duration, now: SystemTime) -> Duration {
    let age = newest.and_then(|at| now.duration_since(at).ok());
    age.map_or(Duration::ZERO, |age| interval.saturating_sub(age))
}

/// etcd's members as the operator's API sees them.
pub(crate) struct EtcdSeats {
    pub(crate) etcd: Arc<Etcd>,
    pub(crate) state: State,
}

/// [`EtcdSeats`] where the members are ours.
pub(crate) fn seats(state: &State, config: &Config, etcd: Option<&Arc<Etcd>>) -> Option<operator::Seats> {
    let own = config.controller.as_ref().is_some_and(|c| c.etcd != Seat::External);
    let seats = |etcd: &Arc<Etcd>| operator::Seats(Arc::new(EtcdSeats { etcd: etcd.clone(), state: state.clone() }));
    etcd.filter(|_| own).map(seats)
}

fn unavailable(e: member::Error) -> Error {
    Error::unavailable("etcd cannot be asked about its members now; try again.").context(base::chain(&e))
}

fn address(m: &MemberInfo) -> String {
    let url = m.client_urls.first().or(m.peer_urls.first());
    url.and_then(|u| u.split_once("://")).map_or_else(String::new, |(_, host)| host.trim_end_matches('/').to_owned())
}

impl Members for EtcdSeats {
    fn list(&self) -> Pending<'_, Result<Vec<StoreMember>, Error>> {
        Box::pin(async move {
            let members = self.etcd.cluster().members().await.map_err(unavailable)?;
            // One that never started has no name yet.
            let name = |m: &MemberInfo| if m.name.is_empty() { address(m) } else { m.name.clone() };
            Ok(members.iter().map(|m| StoreMember { name: name(m), address: address(m), voter: !m.learner }).collect())
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> Pending<'a, Result<(), Error>> {
        Box::pin(async move {
            let cluster = self.etcd.cluster();
            let members = cluster.members().await.map_err(unavailable)?;
            let Some(member) = members.iter().find(|m| m.name == name || (m.name.is_empty() && address(m) == name)) else {
                return Err(Error::not_found(format!("etcd has no member {name}.")));
            };
            let config = Config::load(&self.state, &Flags::default()).map_err(Error::internal)?;
            if !member.client_urls.is_empty() {
                let alone = Cluster::new(&member.client_urls, engine::tls(&self.state, &config).as_ref()).map_err(unavailable)?;
                if alone.health().await.iter().any(Result::is_ok) {
                    return Err(Error::conflict(format!(
                        "The etcd of {name} answers; stop it on its machine first with: drover down"
                    )));
                }
            }
            match timeout(REMOVAL, cluster.ensure_removed(member.id)).await {
                Ok(done) => done.map_err(unavailable),
                Err(_) => {
                    Err(Error::unavailable("etcd does not change its members as long as most of them are not up; try again."))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_when_the_newest_is_old_or_not_of_this_time() {
        let (hour, now) = (Duration::from_secs(3600), SystemTime::now());
        assert_eq!(until_next(None, hour, now), Duration::ZERO);
        assert_eq!(until_next(Some(now - hour / 4), hour, now), hour / 4 * 3);
        assert_eq!(until_next(Some(now - hour * 2), hour, now), Duration::ZERO);
        assert_eq!(until_next(Some(now + hour), hour, now), Duration::ZERO);
    }
}
