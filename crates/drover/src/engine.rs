//! The store of a cloud: which engine, and the move from one to another.
use crate::{
    config::{Config, State},
    controller::Seat,
};
use std::{fmt, str::FromStr, sync::Arc, time::Duration};
use store::Store;
use store_etcd::{Etcd, Tls, copy};
use store_sqlite::Sqlite;

/// Where the rows are.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Place {
    /// A file in the state directory, for one process.
    #[default]
    Sqlite,
    /// Members of an etcd cluster as `host:port`, and what the cloud's keys begin with.
    Etcd { members: Vec<String>, cloud: String },
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is no store; give sqlite, or etcd://HOST:PORT[,HOST:PORT …][/NAME].");
        if text == "sqlite" {
            return Ok(Self::Sqlite);
        }
        let rest = text.strip_prefix("etcd://").ok_or_else(wrong)?;
        let (members, cloud) = rest.split_once('/').unwrap_or((rest, "drover"));
        let members: Vec<String> = members.split(',').map(str::to_owned).collect();
        let is_member =
            |m: &String| m.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if cloud.is_empty() || !members.iter().all(is_member) {
            return Err(wrong());
        }
        Ok(Self::Etcd { members, cloud: cloud.to_owned() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite => f.write_str("sqlite"),
            Self::Etcd { members, cloud } => write!(f, "etcd://{}/{cloud}", members.join(",")),
        }
    }
}

impl TryFrom<String> for Place {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

/// A store that is open.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    /// The same, where it is one.
    pub(crate) etcd: Option<Arc<Etcd>>,
}

/// Opens the store that the cloud is in.
pub(crate) async fn open(state: &State, config: &Config) -> Result<Opened, String> {
    open_at(state, config, &config.store).await
}

/// URLs of members as [`Place::Etcd`] names them.
pub(crate) fn urls(config: &Config, members: &[String]) -> Vec<String> {
    let own = config.controller.as_ref().is_some_and(|c| c.etcd != Seat::External);
    let scheme = if own || config.etcd_ca.is_some() { "https" } else { "http" };
    members.iter().map(|m| format!("{scheme}://{m}")).collect()
}

/// What etcd's members are shown and must show.
pub(crate) fn tls(state: &State, config: &Config) -> Option<Tls> {
    if config.controller.as_ref().is_some_and(|c| c.etcd != Seat::External) {
        let pki::Files { ca, certificate, key } = pki::Files::of(&state.pki());
        return Some(Tls { ca, identity: Some((certificate, key)) });
    }
    let identity = config.etcd_cert.clone().zip(config.etcd_key.clone());
    config.etcd_ca.clone().map(|ca| Tls { ca, identity })
}

async fn open_at(state: &State, config: &Config, place: &Place) -> Result<Opened, String> {
    let Place::Etcd { members, cloud } = place else {
        let store = Sqlite::open(state.database()).map_err(|e| base::chain(&e))?;
        return Ok(Opened { store, etcd: None });
    };
    let mut etcd = store_etcd::Config::new(cloud, urls(config, members));
    etcd.tls = tls(state, config);
    if config.controller.as_ref().is_some_and(|c| c.etcd != Seat::External) {
        etcd = etcd.supervised();
    }
    let connected = tokio::time::timeout(CONNECT, Etcd::connect(etcd)).await;
    let connected =
        connected.map_err(|_| format!("{place} does not answer; see whether etcd runs and can be reached from here."))?;
    let etcd = connected.map_err(|e| format!("{place} cannot be used: {}.", base::chain(&e)))?;
    Ok(Opened { store: etcd.clone(), etcd: Some(etcd) })
}

const CONNECT: Duration = Duration::from_secs(30);

/// Moves a cloud that is down into another store, and lets it start there.
pub(crate) async fn migrate(state: &State, mut config: Config, to: Place) -> Result<String, String> {
    if config.controller.is_some() {
        return Err("This is a controller of a cluster, which is in its own etcd; there is nothing to move.".into());
    }
    if to == config.store {
        return Err(format!("The cloud is in {to} already."));
    }
    let source = open(state, &config).await?.store;
    let target = open_at(state, &config, &to).await?.store;
    let copied = copy::copy(&*source, &*target).await.map_err(|e| base::chain(&e))?;
    drop((source, target));
    let from = std::mem::replace(&mut config.store, to);
    config.save(state)?;
    // A file that stayed would be taken for the cloud by a move back.
    if from == Place::Sqlite {
        let database = state.database();
        let kept = database.with_extension(format!("moved-{}", base::Clock::now(&base::SystemClock).0));
        std::fs::rename(&database, &kept)
            .map_err(|e| format!("{} cannot be renamed: {e}; do it by hand before you move back.", database.display()))?;
    }
    Ok(format!("{} are in {} now, of which {} were copied by this command.", copied.content, config.store, copied.written))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_written() {
        for text in ["sqlite", "etcd://10.0.0.1:2379,h2:2379/prod", "etcd://[::1]:2379/drover"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        assert_eq!("etcd://a:1".parse::<Place>().unwrap().to_string(), "etcd://a:1/drover");
        for wrong in ["", "etcd://", "etcd://a", "etcd://a:1/", "etcd://a:1,", "mysql://a:1", "etcd://:1"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
