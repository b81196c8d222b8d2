//! `drover server`: begins a cluster, joins one, or goes on with the controller that is here.
//!
//! ```text
//!   --address          founding: an authority, an etcd of one member ───┐
//!   --address --join   joining: let in with a token, one more member ───┼──▶ member: the pair of `up`, which watches etcd, too
//!   (again)            ─────────────────────────────────────────────────┘
//! ```
//! Each step is kept before the next begins, so that a command which broke off can be repeated.
use crate::{
    admission::{self, Bequest},
    central,
    config::{Config, Flags, State},
    controller::{self, Controller, Seat},
    door,
    engine::{self, Place},
    up::{self, progress},
};
use clap::Args;
use ipnet::IpNet;
use pki::{Ca, Files, Identity, Issued, JoinToken, Role};
use std::{net::IpAddr, str::FromStr, time::Duration};
use store_etcd::member::{Cluster, Member};
use tokio::time::timeout;

/// etcd hands its leadership over meanwhile.
const GRACE: Duration = Duration::from_secs(10);
/// The others answer at once, or have no majority.
const SEAT: Duration = Duration::from_secs(15);
/// What the cloud's keys in etcd begin with.
const CLOUD: &str = "drover";

/// Flags of `drover server`. What is given is kept, as with `drover up`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerFlags {
    #[command(flatten)]
    flags: Flags,
    /// Where this machine is reached by the other controllers and the hosts; it stays. Since 0.1.
    #[arg(long, value_name = "ADDR")]
    address: Option<IpAddr>,
    /// Address of the cloud for its users, which moves among the controllers, and its network [default: none]. Since 0.1.
    #[arg(long, value_name = "CIDR")]
    vip: Option<IpNet>,
    /// Interface that has the VIP [default: the one that has the address]. Since 0.1.
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Join the cluster of a controller with a token of its `drover join-token controller`. Since 0.1.
    #[arg(long, value_name = "TOKEN@HOST:PORT", conflicts_with = "store")]
    join: Option<Invitation>,
}

/// A join token, and where to go with it.
#[derive(Clone, Debug)]
pub(crate) struct Invitation {
    pub(crate) token: JoinToken,
    pub(crate) line: String,
}

impl FromStr for Invitation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (token, line) = text.trim().split_once('@').ok_or("Write it as the command printed it: TOKEN@HOST:PORT.")?;
        Ok(Self { token: token.parse().map_err(|e: pki::Error| e.to_string())?, line: line.to_owned() })
    }
}

pub(crate) async fn server(state: &State, flags: &ServerFlags) -> Result<(), String> {
    if flags.flags.listen.is_some() {
        return Err("A controller listens on its address; leave --listen out.".into());
    }
    state.create()?;
    let mut config = configure(state, flags)?;
    match (&flags.join, &config.controller) {
        (Some(invitation), _) => join(state, &mut config, invitation).await?,
        (None, Some(c)) if matches!(c.etcd, Seat::Founding | Seat::External) => {
            Ca::open(&state.pki(), &config.name()).map_err(|e| base::chain(&e))?;
            config.save(state)?;
        }
        (None, _) => {}
    }
    resume(state, config).await
}

/// The kept options, changed by what was given. Nothing is written yet.
fn configure(state: &State, flags: &ServerFlags) -> Result<Config, String> {
    let first = !state.config().exists();
    let mut config = Config::load(state, &flags.flags)?;
    let mut controller = match (config.controller.take(), flags.address) {
        (Some(kept), Some(address)) if kept.address != address => {
            return Err(format!(
                "This controller is at {}, and the others know it there; it cannot move to {address}.",
                kept.address
            ));
        }
        (Some(kept), _) => kept,
        (None, _) if !first => {
            return Err(format!(
                "{} holds a cloud of one machine, which was started with drover up; choose another directory with --state.",
                state.dir().display()
            ));
        }
        (None, None) => return Err("Say where this machine is reached by the others: --address ADDR.".into()),
        (None, Some(address)) => {
            let etcd = if config.store == Place::Sqlite { Seat::Founding } else { Seat::External };
            Controller { address, vip: None, interface: None, etcd }
        }
    };
    controller.vip = flags.vip.or(controller.vip);
    controller.interface = flags.interface.clone().or(controller.interface);
    if controller.etcd == Seat::Founding {
        config.store = Place::Etcd { members: vec![controller.etcd_member()], cloud: CLOUD.into() };
    }
    config.name = Some(admission::valid_name(&config.name())?);
    config.controller = Some(controller);
    Ok(config)
}

/// Goes on with the controller that is here.
pub(crate) async fn resume(state: &State, mut config: Config) -> Result<(), String> {
    let name = config.name();
    let ca = Ca::load(&state.pki()).map_err(|e| base::chain(&e))?;
    let Some(controller) = &config.controller else { return Err("This machine is no controller.".into()) };
    // What it is good for follows the options.
    controller.certify(state, &name, &ca)?;
    match (controller.etcd, controller.member(state, &name)) {
        (Seat::Founding, Some(member)) => {
            progress("Starting etcd …");
            let peers = [member.spec().peer()];
            member.ensure_bootstrapped(&peers, &ca.fingerprint()).await.map_err(|e| base::chain(&e))?;
            seated(&mut config);
        }
        (Seat::Joining, Some(member)) => {
            progress("Joining the cluster's etcd …");
            config.store = take_seat(state, &config, controller, &member).await?;
            seated(&mut config);
        }
        // `serve` watches it, and waits for the others if it must.
        (Seat::Founding | Seat::Joining | Seat::Member | Seat::External, _) => {}
    }
    config.save(state)?;
    up::start(state, &config).await?;
    up::usage(state, &config, None);
    Ok(())
}

fn seated(config: &mut Config) {
    if let Some(controller) = &mut config.controller {
        controller.etcd = Seat::Member;
    }
}

/// Becomes a member of the etcd that the kept store names, and tells all members.
async fn take_seat(state: &State, config: &Config, controller: &Controller, member: &Member) -> Result<Place, String> {
    let Place::Etcd { members, cloud } = &config.store else {
        return Err("The cluster's etcd is not known; join again with a new token.".into());
    };
    let others: Vec<String> = members.iter().filter(|m| **m != controller.etcd_member()).cloned().collect();
    let cluster =
        Cluster::new(&engine::urls(config, &others), engine::tls(state, config).as_ref()).map_err(|e| base::chain(&e))?;
    let joined = member.ensure_joined(&cluster).await;
    joined.map_err(|e| {
        format!(
            "etcd takes no new member: {}. If a controller is gone for good, take it out first: drover controller remove NAME",
            base::chain(&e)
        )
    })?;
    let all = cluster.members().await.map_err(|e| base::chain(&e))?;
    Ok(Place::Etcd { members: controller::askable(&all, &controller.etcd_member()), cloud: cloud.clone() })
}

/// Is let in, and keeps what a controller needs.
async fn join(state: &State, config: &mut Config, invitation: &Invitation) -> Result<(), String> {
    let files = Files::of(&state.pki());
    let request = files.request().map_err(|e| base::chain(&e))?;
    let identity = Identity { role: Role::Controller, name: config.name() };
    let Some(controller) = &mut config.controller else { return Err("This machine is no controller.".into()) };
    progress(&format!("Asking {} to be let in …", invitation.line));
    let admitted = link::join(&invitation.line, &invitation.token, &identity, controller.address, &request).await;
    let grant = admitted.map_err(|e| base::chain(&e))?.grant;
    let bequest: Bequest = serde_json::from_value(grant.more)
        .map_err(|e| format!("What the cluster gave is not understood here: {e}. Use the same version on both machines."))?;
    Ca::of(&grant.ca, &bequest.ca_key).and_then(|ca| ca.keep(&state.pki())).map_err(|e| base::chain(&e))?;
    files.keep(&Issued { certificate_pem: grant.certificate, ca_pem: grant.ca }).map_err(|e| base::chain(&e))?;
    bequest.keep(state)?;
    controller.vip = controller.vip.or(bequest.vip);
    controller.etcd = if bequest.own_etcd { Seat::Joining } else { Seat::External };
    config.store = bequest.store;
    config.region = bequest.region;
    config.security_compliance = bequest.security_compliance;
    config.limit_model = bequest.limit_model;
    config.endpoint = config.endpoint.take().or(bequest.endpoint);
    config.save(state)
}

/// Gives the seat in etcd back before this controller's data are removed: the others must not go on counting on it. It needs their
/// majority, and this member's own voice as long as it runs.
pub(crate) async fn give_seat_back(state: &State, config: &Config) {
    let (Some(controller), Place::Etcd { members, .. }) = (&config.controller, &config.store) else { return };
    let others: Vec<String> = members.iter().filter(|m| **m != controller.etcd_member()).cloned().collect();
    let Some(own) = controller.member(state, &config.name()).filter(|_| !others.is_empty()) else { return };
    progress("Giving the seat in etcd back …");
    let given = async {
        let cluster = Cluster::new(&engine::urls(config, &others), engine::tls(state, config).as_ref())?;
        let members = cluster.members().await?;
        match members.iter().find(|m| m.peer_urls.contains(&own.spec().peer_url)) {
            Some(seat) => cluster.ensure_removed(seat.id).await,
            None => Ok(()),
        }
    };
    let why = match timeout(SEAT, given).await {
        Ok(Ok(())) => return,
        Ok(Err(e)) => base::chain(&e),
        Err(_) => "no answer in time".into(),
    };
    progress(&format!(
        "The other controllers still count on this one ({why}). Tell one of them: drover controller remove {}",
        config.name()
    ));
}

/// Ends what outlives the pair, for `down`.
pub(crate) async fn stop(state: &State, config: &Config) -> Result<(), String> {
    progress("Closing the front door …");
    door::stop(state, config).await?;
    if let Some(central) = central::of(state, config) {
        network::ovn::cluster::stop(&central).await.map_err(|e| base::chain(&e))?;
    }
    let member = config.controller.as_ref().and_then(|c| c.member(state, &config.name()));
    if let Some(member) = member {
        progress("Stopping etcd …");
        member.ensure_stopped(GRACE).await.map_err(|e| base::chain(&e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: ServerFlags,
    }

    fn flags(args: &[&str]) -> ServerFlags {
        Line::parse_from(["server"].iter().chain(args)).flags
    }

    #[test]
    fn a_controller_stays_where_it_is() {
        let dir = std::env::temp_dir().join(format!("drover-server-{}", std::process::id()));
        let state = State::new(dir.clone());
        state.create().unwrap();
        let first = flags(&["--name", "c1", "--address", "10.0.0.1", "--vip", "10.0.0.100/24"]);
        let config = configure(&state, &first).unwrap();
        assert_eq!(config.store.to_string(), "etcd://10.0.0.1:2379/drover");
        assert_eq!(config.endpoint(), "https://10.0.0.100:8774");
        config.save(&state).unwrap();
        let again = configure(&state, &flags(&[])).unwrap();
        assert_eq!((again.controller.clone(), again.name()), (config.controller, "c1".into()));
        assert!(configure(&state, &flags(&["--address", "10.0.0.2"])).unwrap_err().contains("cannot move"));
        Config::default().save(&state).unwrap();
        assert!(configure(&state, &first).unwrap_err().contains("drover up"));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn invitations_are_read_and_their_secrets_not_repeated() {
        let token = JoinToken::new(&Ca::create("c").unwrap().fingerprint());
        let read: Invitation = format!("{token}@10.0.0.1:8775").parse().unwrap();
        assert_eq!((read.token.clone(), read.line.as_str()), (token.clone(), "10.0.0.1:8775"));
        assert!(!format!("{read:?}").contains(token.secret()));
        assert!(token.to_string().parse::<Invitation>().is_err(), "nowhere to go");
    }
}
