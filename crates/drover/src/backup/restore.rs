//! A backup becomes a cloud: in a new state directory, of one controller or of one machine.
//!
//! A restored store is older than the world. The rules that keep the world safe:
//! 1. **Two clouds never meet.** A restored cluster has a new authority and a new etcd: controllers and hosts of the old one cannot speak to
//!    it, whatever they believe, and their addresses are looked at first: if one answers, nothing is restored (but for a `--drill`).
//! 2. **Hosts decide last.** A host joins the restored cloud with a new token, and while it has guests only with `--take-over`
//!    ([`crate::node_role`]): then guests that the backup does not know are destroyed, as everywhere. Until then they run on.
//! 3. **Nothing is started here.** `drover up` does that, when disks and images are in their places.
use super::{About, CONFIG, ETCD, Kind, SQLITE, Scratch, look_at_sqlite, open};
use crate::{
    admission,
    config::{Config, State},
    controller::{LINK, Seat},
    engine::{self, Place},
    schema,
    up::progress,
};
use clap::Args;
use ipnet::IpNet;
use pki::Ca;
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use store_etcd::{copy, member};
use tokio::{net::TcpStream, time::timeout};

const ANSWERS: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(10);

/// Flags of `drover restore`. What is not given is as it was when the backup was taken.
#[derive(Args, Clone, Debug)]
pub(crate) struct RestoreFlags {
    /// The backup.
    file: PathBuf,
    /// Name of this controller. Since 0.1.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where this controller is reached by the others and the hosts. Since 0.1.
    #[arg(long, value_name = "ADDR")]
    address: Option<IpAddr>,
    /// Address of the cloud for its users, and its network. Since 0.1.
    #[arg(long, value_name = "CIDR", conflicts_with = "drill")]
    vip: Option<IpNet>,
    /// Interface that has the VIP. Since 0.1.
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Restore beside a cluster that runs, to see that the backup is good: without VIP, and at an address of its own. Since 0.1.
    #[arg(long)]
    drill: bool,
}

pub(crate) async fn restore(state: &State, flags: &RestoreFlags) -> Result<(), String> {
    let dir = state.dir();
    let is_empty = std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none());
    if !is_empty {
        return Err(format!(
            "{} is not empty, and a restore overwrites nothing; name a new directory with --state.",
            dir.display()
        ));
    }
    if let Some((pid, name)) = still_running(dir) {
        return Err(format!("{name} (process {pid}) of the cloud that was in {} still runs; end it first.", dir.display()));
    }
    progress(&format!("Reading {} …", flags.file.display()));
    let archive = open(&flags.file)?;
    let bytes = archive.bytes(CONFIG).map_err(|e| base::chain(&e))?;
    let config: Config = serde_json::from_slice(&bytes)
        .map_err(|e| format!("The options in the backup are not understood: {e}. Use the version that made it."))?;
    let config = configure(config, flags, archive.about.store)?;
    if archive.about.store == Kind::Etcd {
        refuse_others(&config, flags).await?;
    }
    state.create()?;
    let restored = fill(state, config, &archive).await;
    restored.map_err(|e| format!("{e}\nNothing was started. Remove {} before you try again.", dir.display()))
}

/// The options of the cloud that comes, and still the old members of its etcd.
fn configure(mut config: Config, flags: &RestoreFlags, kind: Kind) -> Result<Config, String> {
    if let Some(name) = &flags.name {
        config.name = Some(admission::valid_name(name)?);
    }
    let cluster_flags = flags.address.is_some() || flags.vip.is_some() || flags.interface.is_some() || flags.drill;
    match (kind, &mut config.controller) {
        (Kind::Etcd, Some(controller)) => {
            controller.address = flags.address.unwrap_or(controller.address);
            controller.vip = if flags.drill { None } else { flags.vip.or(controller.vip) };
            controller.interface = flags.interface.clone().or(controller.interface.take());
            controller.etcd = Seat::Member;
            if flags.drill {
                config.endpoint = None;
            }
            Ok(config)
        }
        (Kind::Sqlite, None) if cluster_flags => {
            Err("This is the backup of a cloud of one machine; leave --address, --vip, --interface and --drill out.".into())
        }
        (Kind::Sqlite, None) => Ok(config),
        (Kind::Etcd, None) | (Kind::Sqlite, Some(_)) => {
            Err("The backup's options and its store do not fit together; use another backup.".into())
        }
    }
}

/// Neither may a controller of the old cluster run, nor this address be another machine's.
async fn refuse_others(config: &Config, flags: &RestoreFlags) -> Result<(), String> {
    let (Place::Etcd { members, .. }, Some(controller)) = (&config.store, &config.controller) else { return Ok(()) };
    let own = controller.address;
    if let Err(e) = std::net::TcpListener::bind(SocketAddr::new(own, 0)) {
        return Err(format!(
            "This machine cannot use the address {own}: {e}. Say where this controller is reached: --address ADDR."
        ));
    }
    for member in members.iter().filter_map(|m| m.parse::<SocketAddr>().ok()) {
        for at in [member, SocketAddr::new(member.ip(), LINK)] {
            let answers = matches!(timeout(ANSWERS, TcpStream::connect(at)).await, Ok(Ok(_)));
            let is_own = member.ip() == own;
            if answers && (is_own || !flags.drill) {
                return Err(format!(
                    "The old cluster still runs: {at} answers. Two clouds would have the same addresses and guests. End it for good on that machine (drover down --destroy), or \
                     look at the backup beside it with: --drill --address ADDR"
                ));
            }
        }
    }
    Ok(())
}

/// A process of a cloud in this directory, which may be of a directory that was moved away.
fn still_running(dir: &Path) -> Option<(u32, String)> {
    let dir = std::path::absolute(dir).ok()?;
    let (mark, below) = (format!("DROVER_DAEMON={}/", dir.display()), format!("{}/", dir.display()));
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let parts = |name: &str| -> Vec<String> {
            let bytes = std::fs::read(entry.path().join(name)).unwrap_or_default();
            bytes.split(|b| *b == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
        };
        let line = parts("cmdline");
        let is_guest = line.first().is_some_and(|p| p.contains("qemu")) && line.iter().any(|arg| arg.contains(&below));
        let is_daemon = pid != std::process::id() && parts("environ").iter().any(|e| e.starts_with(&mark));
        (is_guest || is_daemon).then(|| (pid, line.first().cloned().unwrap_or_default()))
    })
}

async fn fill(state: &State, mut config: Config, archive: &super::Archive<About>) -> Result<(), String> {
    let about = &archive.about;
    for name in archive.names().filter(|n| admission::is_shared(Path::new(n))) {
        admission::keep_shared(state, Path::new(name), &archive.bytes(name).map_err(|e| base::chain(&e))?)?;
    }
    let found = match about.store {
        Kind::Sqlite => {
            archive.extract(SQLITE, &state.database()).map_err(|e| base::chain(&e))?;
            let taken = look_at_sqlite(&state.database()).await?;
            (taken.content, taken.schema)
        }
        Kind::Etcd => fill_etcd(state, &mut config, archive).await?,
    };
    schema::check(found.1)?;
    let (was, is) = (&about.content, &found.0);
    if was.is_some() && was != is {
        return Err(format!("The store that was made holds {is:?} and the backup {was:?}: it is not used."));
    }
    // A file outside of the backup.
    config.guest_image = None;
    config.save(state)?;
    let rows = is.as_ref().map_or(0, |c| c.rows);
    progress(&format!("{} holds {rows} rows as of {}, checked against the backup.", state.dir().display(), about.taken_at));
    for line in next_steps(state, about, &config) {
        progress(&line);
    }
    Ok(())
}

async fn fill_etcd(
    state: &State,
    config: &mut Config,
    archive: &super::Archive<About>,
) -> Result<(Option<super::Rows>, u32), String> {
    let name = config.name();
    let ca = Ca::create(&name).map_err(|e| base::chain(&e))?;
    ca.keep(&state.pki()).map_err(|e| base::chain(&e))?;
    let controller = config.controller.clone().ok_or("the backup is of no controller")?;
    controller.certify(state, &name, &ca)?;
    let Place::Etcd { cloud, .. } = &config.store else { return Err("the backup's cloud is not in etcd".into()) };
    config.store = Place::Etcd { members: vec![controller.etcd_member()], cloud: cloud.clone() };
    config.name = Some(name.clone());
    let member = controller.member(state, &name).ok_or("this controller has no etcd")?;
    std::fs::create_dir_all(state.etcd()).map_err(|e| format!("{} cannot be made: {e}.", state.etcd().display()))?;
    let chain = |e: member::Error| base::chain(&e);
    {
        let scratch = Scratch::beside(&state.etcd().join("snapshot"))?;
        let snapshot = scratch.0.join("store");
        archive.extract(ETCD, &snapshot).map_err(|e| base::chain(&e))?;
        progress("Making the data of etcd …");
        member::ensure_restored(member.spec(), &snapshot, &[member.spec().peer()], &ca.fingerprint()).await.map_err(chain)?;
    }
    progress("Starting etcd to read it …");
    member.ensure_running().await.map_err(chain)?;
    let read = read_etcd(state, config).await;
    member.ensure_stopped(GRACE).await.map_err(chain)?;
    read
}

async fn read_etcd(state: &State, config: &Config) -> Result<(Option<super::Rows>, u32), String> {
    let etcd = engine::open(state, config).await?.etcd.ok_or("the backup's cloud is not in etcd")?;
    let content = copy::summarize(&*etcd).await.map_err(|e| base::chain(&e))?;
    let schema = schema::of(&*etcd).await.map_err(|e| base::chain(&e))?;
    etcd.close().await;
    Ok((Some(content.into()), schema))
}

fn next_steps(state: &State, about: &About, config: &Config) -> Vec<String> {
    let dir = state.dir().display();
    let mut lines = vec![
        "Not in a backup: image bytes and disks.".to_owned(),
        format!("  Images: copy images/ of the old state directory (of any controller) into {dir}."),
    ];
    match about.store {
        Kind::Sqlite => lines.push(format!(
            "  Disks of servers and volumes: copy node/ of the old state directory into {dir} before you start; without it servers are made anew, empty."
        )),
        Kind::Etcd => lines.extend([
            "The cluster has a new authority. Clients need the new pki/ca.pem; controllers join anew (drover join-token controller).".to_owned(),
            "Hosts run on as they are. Each joins with a new token (drover join-token node) and --take-over, which destroys guests that are \
             newer than the backup: look at them first (docs/operations.md)."
                .to_owned(),
        ]),
    }
    let up = if config.controller.is_some() { "drover up" } else { "drover up --bare" };
    lines.push(format!("Start it with: {up} --state {dir}"));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::Controller;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: RestoreFlags,
    }

    fn flags(args: &[&str]) -> RestoreFlags {
        Line::parse_from(["restore", "b.tar"].iter().chain(args)).flags
    }

    fn cluster() -> Config {
        let controller =
            Controller { address: [127, 0, 0, 1].into(), vip: "10.0.0.100/24".parse().ok(), interface: None, etcd: Seat::Member };
        Config { name: Some("c1".into()), controller: Some(controller), ..Config::default() }
    }

    #[test]
    fn what_is_not_given_is_as_it_was() {
        let kept = configure(cluster(), &flags(&[]), Kind::Etcd).unwrap();
        assert_eq!((kept.name(), kept.controller), ("c1".into(), cluster().controller));
        let new = configure(cluster(), &flags(&["--name", "r1", "--address", "10.0.0.9", "--drill"]), Kind::Etcd).unwrap();
        assert_eq!((new.name(), new.endpoint()), ("r1".into(), "https://10.0.0.9:8774".into()), "a drill takes no VIP");
        assert!(configure(Config::default(), &flags(&["--drill"]), Kind::Sqlite).unwrap_err().contains("one machine"));
        assert!(
            configure(cluster(), &flags(&[]), Kind::Sqlite).is_err()
                && configure(Config::default(), &flags(&[]), Kind::Etcd).is_err()
        );
    }

    #[tokio::test]
    async fn no_restore_beside_a_cluster_that_runs() {
        let old = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
        let members = vec![old.local_addr().unwrap().to_string()];
        let config = Config { store: Place::Etcd { members, cloud: "drover".into() }, ..cluster() };
        let refused = refuse_others(&config, &flags(&[])).await.unwrap_err();
        assert!(refused.contains("still runs") && refused.contains("--drill"), "{refused}");
        refuse_others(&config, &flags(&["--drill"])).await.unwrap();
        drop(old);
        refuse_others(&config, &flags(&[])).await.unwrap();
        let mut elsewhere = config;
        elsewhere.controller.as_mut().unwrap().address = [192, 0, 2, 1].into();
        assert!(refuse_others(&elsewhere, &flags(&[])).await.unwrap_err().contains("--address"));
    }

    #[test]
    fn processes_of_a_cloud_that_was_moved_away_are_seen() {
        let dir = std::env::temp_dir().join(format!("drover-restore-{}", std::process::id()));
        assert_eq!(still_running(&dir), None);
        let mut child = std::process::Command::new("sleep").arg("60").env("DROVER_DAEMON", dir.join("run/x")).spawn().unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while still_running(&dir).is_none() && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        let seen = still_running(&dir);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(seen.map(|(pid, _)| pid), Some(child.id()));
    }
}
