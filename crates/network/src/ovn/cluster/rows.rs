//! What controllers tell each other about OVN's databases.
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use store::{Reader, Row, Table, Tx};

/// One row per database: the raft that counts.
pub static CLUSTERS: Table = Table { name: "ovn/clusters", indexes: &[] };
/// One row per database and controller: the member that it has.
pub static MEMBERS: Table = Table { name: "ovn/members", indexes: &[] };
/// What the keys of both begin with.
pub(crate) const PREFIX: &str = "ovn/";

/// OVN's two databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Database {
    Northbound,
    Southbound,
}

impl Database {
    pub const ALL: [Self; 2] = [Self::Northbound, Self::Southbound];

    /// As rows and files call it.
    pub(super) fn short(self) -> &'static str {
        match self {
            Self::Northbound => "nb",
            Self::Southbound => "sb",
        }
    }
    /// As its schema calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Northbound => "OVN_Northbound",
            Self::Southbound => "OVN_Southbound",
        }
    }
    /// Where a member serves controllers.
    pub fn port(self) -> u16 {
        match self {
            Self::Northbound => 6641,
            Self::Southbound => 6645,
        }
    }
    /// Where it speaks with the other members.
    pub(super) fn raft_port(self) -> u16 {
        match self {
            Self::Northbound => 6643,
            Self::Southbound => 6644,
        }
    }
    /// The raft address of a member.
    pub(super) fn raft(self, address: IpAddr) -> String {
        format!("ssl:{}", SocketAddr::new(address, self.raft_port()))
    }
}

/// See [`CLUSTERS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cluster {
    /// Its id: another one is another raft, whatever its addresses are.
    pub(crate) cid: String,
    /// Does it hold what it shall? Before that, northd must not look at it.
    pub(crate) filled: bool,
}

/// See [`MEMBERS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) controller: String,
    pub(crate) address: IpAddr,
    pub(crate) cid: String,
    /// The id of its data: one that lost them is another server of the raft.
    pub(crate) sid: String,
    /// It has been in the raft, and so has the raft's data.
    pub(crate) joined: bool,
}

impl Cluster {
    pub(crate) fn put(&self, tx: &mut Tx<'_>, database: Database) {
        let id = database.short();
        tx.put(&CLUSTERS, id, json!({ "v": 1, "id": id, "cid": self.cid, "filled": self.filled }));
    }
    pub(crate) fn in_tx(tx: &mut Tx<'_>, database: Database) -> Option<Self> {
        tx.get(&CLUSTERS, database.short()).and_then(|row| parse(&row))
    }
}

impl Member {
    pub(super) fn id(database: Database, controller: &str) -> String {
        format!("{}.{controller}", database.short())
    }
    pub(super) fn put(&self, tx: &mut Tx<'_>, database: Database) {
        let id = Self::id(database, &self.controller);
        let Self { controller, address, cid, sid, joined } = self;
        let row = json!({
            "v": 1, "id": id, "controller": controller, "address": address, "cid": cid, "sid": sid, "joined": joined,
        });
        tx.put(&MEMBERS, &id, row);
    }
    pub(super) fn in_tx(tx: &mut Tx<'_>, database: Database, controller: &str) -> Option<Self> {
        tx.get(&MEMBERS, &Self::id(database, controller)).and_then(|row| parse(&row))
    }
}

fn parse<T: serde::de::DeserializeOwned>(row: &Row) -> Option<T> {
    serde_json::from_value(row.value().clone()).ok()
}

/// The raft of a database that counts, and its members.
pub(crate) fn read(reader: &Reader<'_>, database: Database) -> (Option<Cluster>, Vec<Member>) {
    let cluster = reader.get(&CLUSTERS, database.short()).and_then(|row| parse(&row));
    let prefix = format!("{}.", database.short());
    let members = reader.all(&MEMBERS).filter(|row| row.id().starts_with(&prefix)).filter_map(|row| parse(row)).collect();
    (cluster, members)
}
