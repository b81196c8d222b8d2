//! `drover lab …`: what an operator types.
use crate::{
    Error, Status, fault,
    host::{Lab, Shape},
    net::Cut,
    power, status, up,
};
use clap::Subcommand;
use std::{path::Path, process::ExitStatus, time::Instant};

/// A cluster in namespaces of this machine, to try faults on. Needs root.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Make the lab, or what is missing of it; returns when its public address answers.
    #[command(
        after_help = "Then: export OS_CLIENT_CONFIG_FILE=$DROVER_STATE/lab/clouds.yaml OS_CLOUD=lab; ip netns exec drover-client openstack server list"
    )]
    Up {
        /// How many hosts c1, c2, … are controllers [default: 3].
        #[arg(long, value_name = "N")]
        controllers: Option<u8>,
        /// How many hosts n1, n2, … are nodes [default: 3].
        #[arg(long, value_name = "N")]
        nodes: Option<u8>,
        /// Let the nodes run real guests, with QEMU and Open vSwitch; each has a card `eth1` on the lab's network for routers' gateways.
        #[arg(long)]
        real: bool,
        /// What the names of the namespaces begin with [default: drover].
        #[arg(long, value_name = "NAME", hide = true)]
        prefix: Option<String>,
    },
    /// End the lab and remove it.
    Down {
        /// Keep the hosts' disks for the next up.
        #[arg(long)]
        keep: bool,
    },
    /// What each host does.
    Status,
    /// Kill processes of a host with SIGKILL: serve, supervise, etcd, haproxy, keepalived, or whatever status lists.
    Kill { host: String, what: String },
    /// Let no packet through: neither from the host nor to it, or one of both.
    Cut {
        host: String,
        /// Only what is sent to it.
        #[arg(long = "in", conflicts_with = "out")]
        into: bool,
        /// Only what it sends.
        #[arg(long)]
        out: bool,
    },
    /// Undo a cut.
    Heal { host: String },
    /// Stop all processes of a host with SIGSTOP, or those of one kind.
    Pause { host: String, what: Option<String> },
    /// Let paused processes go on.
    Resume { host: String },
    /// Cut the power of a host: all of its processes and its link are gone at once.
    PowerOff { host: String },
    /// Switch a host on and start what ran on it.
    PowerOn { host: String },
    /// Run a command on a host.
    Exec {
        host: String,
        #[arg(trailing_var_arg = true, required = true)]
        argv: Vec<String>,
    },
}

/// What a command has to say on stdout.
#[derive(Debug)]
pub enum Answer {
    Nothing,
    Status(Vec<Status>),
    /// The command that ran on a host ended so.
    Ended(ExitStatus),
}

/// Carries a command out; `drover` is the program that runs on the hosts, and `tell` says how far it is.
pub async fn run(command: &Command, state: &Path, drover: &Path, tell: &(dyn Fn(&str) + Sync)) -> Result<Answer, Error> {
    let lab = || Lab::open(state, drover);
    match command {
        Command::Up { controllers, nodes, real, prefix } => {
            let begun = Instant::now();
            let there = Lab::find(state, drover)?;
            let old = there.map(|l| l.shape);
            let or = |given: Option<u8>, of: fn(&Shape) -> u8| given.or(old.as_ref().map(of)).unwrap_or(3);
            let shape = Shape::new(
                prefix.as_deref().or(old.as_ref().map(|o| o.prefix.as_str())).unwrap_or("drover"),
                or(*controllers, |s| s.controllers),
                or(*nodes, |s| s.nodes),
                *real || old.as_ref().is_some_and(|s| s.real),
            )?;
            if let Some(old) = old.filter(|o| *o != shape) {
                return Err(Error::OtherShape { old: old.to_string(), new: shape.to_string() });
            }
            let lab = Lab { dir: Lab::dir(state), drover: drover.into(), shape };
            up::up(&lab, tell).await?;
            let (netns, clouds) = (lab.host("client")?.netns, lab.dir.join("clouds.yaml"));
            tell(&format!("The lab serves after {:.1} s.", begun.elapsed().as_secs_f64()));
            tell(&format!("\n  export OS_CLIENT_CONFIG_FILE={} OS_CLOUD=lab   # or lab-admin", clouds.display()));
            tell(&format!("  ip netns exec {netns} openstack server list"));
            return Ok(Answer::Nothing);
        }
        Command::Down { keep } => match Lab::find(state, drover)? {
            Some(lab) => up::down(&lab, *keep).await?,
            None => tell("There is no lab here."),
        },
        Command::Status => return Ok(Answer::Status(status::status(&lab()?).await?)),
        Command::Kill { host, what } => {
            let (lab, host) = (lab()?, lab()?.host(host)?);
            let n = fault::kill(&lab, &host, what)?;
            tell(&format!("{n} killed."));
        }
        Command::Cut { host, into, out } => {
            // Neither flag means both ways.
            let cut = Cut { into: *into || !*out, out: *out || !*into };
            fault::cut(&lab()?, &lab()?.host(host)?, cut).await?;
        }
        Command::Heal { host } => fault::cut(&lab()?, &lab()?.host(host)?, Cut { into: false, out: false }).await?,
        Command::Pause { host, what } => {
            let n = fault::pause(&lab()?, &lab()?.host(host)?, what.as_deref()).await?;
            tell(&format!("{n} paused."));
        }
        Command::Resume { host } => {
            let n = fault::resume(&lab()?, &lab()?.host(host)?)?;
            tell(&format!("{n} go on."));
        }
        Command::PowerOff { host } => fault::power_off(&lab()?, &lab()?.host(host)?).await?,
        Command::PowerOn { host } => fault::power_on(&lab()?, &lab()?.host(host)?).await?,
        Command::Exec { host, argv } => {
            let (lab, host) = (lab()?, lab()?.host(host)?);
            let failed =
                |e: std::io::Error| Error::Failed { host: host.name.clone(), command: argv.join(" "), stderr: e.to_string() };
            return Ok(Answer::Ended(power::command(&lab, &host, argv)?.status().await.map_err(failed)?));
        }
    }
    Ok(Answer::Nothing)
}
