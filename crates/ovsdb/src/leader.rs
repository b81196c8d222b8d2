//! Which server of a clustered database leads, as each tells in its database `_Server` (ovsdb-server(7), "Server Status").
use crate::replica::{Shared, Tables};
use serde_json::Value;

pub(crate) const SERVER: &str = "_Server";
/// The name of our look at it among the monitors of a connection; those of callers are numbers.
pub(crate) const LOOK: &str = "server";
const COLUMNS: &[&str] = &["name", "model", "connected", "leader", "cid"];

/// Only the server that leads this database's cluster is spoken to. One that no cluster keeps may be, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    pub database: String,
    /// The one cluster that is meant; another one at the same addresses is not.
    pub cluster: Option<String>,
}

impl Leader {
    pub(crate) fn look() -> Shared {
        Shared::new(SERVER, &[("Database", COLUMNS)])
    }

    /// Why this server is not to be spoken to.
    pub(crate) fn judge(&self, server: &Tables) -> Result<(), String> {
        let Some((_, row)) = server.find("Database", "name", &Value::from(self.database.as_str())) else {
            return Err(format!("it does not have {} yet", self.database));
        };
        let is = |column: &str| row.get(column) == Some(&Value::Bool(true));
        let cluster = row.get("cid").and_then(crate::value::as_uuid);
        if row.get("model").and_then(Value::as_str) != Some("clustered") {
            return if self.cluster.is_none() { Ok(()) } else { Err("it is no cluster's".into()) };
        }
        if self.cluster.as_deref().is_some_and(|wanted| cluster != Some(wanted)) {
            return Err("it is another cluster's".into());
        }
        match (is("connected"), is("leader")) {
            (true, true) => Ok(()),
            (true, false) => Err("it does not lead".into()),
            (false, _) => Err("it does not reach its cluster".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_leader_of_the_right_cluster_is_taken() {
        let judge = |cluster: Option<&str>, model: &str, connected: bool, leader: bool| {
            let shared = Leader::look();
            let row = json!({"name": "NB", "model": model, "connected": connected, "leader": leader, "cid": ["uuid", "c"]});
            shared.replace(json!({"Database": {"u": {"new": row}}}));
            Leader { database: "NB".into(), cluster: cluster.map(str::to_owned) }.judge(&shared.read())
        };
        judge(None, "clustered", true, true).unwrap();
        judge(Some("c"), "clustered", true, true).unwrap();
        judge(None, "standalone", true, true).unwrap();
        assert!(judge(Some("c"), "standalone", true, true).is_err());
        assert!(judge(Some("d"), "clustered", true, true).is_err());
        assert!(judge(None, "clustered", true, false).is_err());
        assert!(judge(None, "clustered", false, true).is_err());
        assert!(Leader { database: "NB".into(), cluster: None }.judge(&Tables::default()).is_err());
    }
}
