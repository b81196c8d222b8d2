//! What a controller does about its member of a database's raft. Pure.
use super::{
    rows::{Cluster, Database, Member},
    status::{Server, Status},
};
use std::net::IpAddr;

/// What names a member's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) cid: String,
    pub(super) sid: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The data here are a member's: it runs.
    Run,
    /// Nobody has the data that count: begin a raft anew.
    Found,
    /// What is here, if anything, is of no use: become a member of the raft that these have.
    Join { cid: String, others: Vec<IpAddr> },
}

/// `here` are the data on this controller's disk.
pub(super) fn step(me: &str, cluster: Option<&Cluster>, members: &[Member], here: Option<&Ids>) -> Step {
    let Some(cluster) = cluster else { return Step::Found };
    let current = || members.iter().filter(|m| m.cid == cluster.cid);
    let others: Vec<IpAddr> = current().filter(|m| m.controller != me && m.joined).map(|m| m.address).collect();
    let mine = current().find(|m| m.controller == me);
    let whole = mine.zip(here).filter(|(row, here)| here.cid == row.cid && here.sid == row.sid);
    match whole {
        Some((row, _)) if row.joined || !others.is_empty() => Step::Run,
        _ if others.is_empty() => Step::Found,
        _ => Step::Join { cid: cluster.cid.clone(), others },
    }
}

fn is_named(server: &Server, database: Database, cid: &str, members: &[Member]) -> bool {
    let is = |m: &Member| m.cid == cid && m.sid.starts_with(&server.id) && server.address == database.raft(m.address);
    members.iter().any(is)
}

/// A server of the raft that nobody is: its data are lost, or its controller was taken out.
pub(super) fn stranger<'s>(status: &'s Status, database: Database, cid: &str, members: &[Member]) -> Option<&'s Server> {
    status.servers.iter().find(|s| !is_named(s, database, cid, members))
}

/// Can it never have a leader again? That is so when half of its servers are nobody.
pub(super) fn is_lost(status: &Status, database: Database, cid: &str, members: &[Member]) -> bool {
    let left = status.servers.iter().filter(|s| is_named(s, database, cid, members)).count();
    !status.has_leader && left * 2 <= status.servers.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(n: u8, cid: &str, sid: &str, joined: bool) -> Member {
        Member { controller: format!("c{n}"), address: [10, 0, 0, n].into(), cid: cid.into(), sid: sid.into(), joined }
    }
    fn ids(cid: &str, sid: &str) -> Ids {
        Ids { cid: cid.into(), sid: sid.into() }
    }

    #[test]
    fn who_has_the_data_runs_and_who_lost_them_joins_again() {
        let cluster = Cluster { cid: "x".into(), filled: true };
        let all = [member(1, "x", "aaaa1", true), member(2, "x", "bbbb1", true), member(3, "x", "cccc1", true)];
        let step = |members: &[Member], here: Option<Ids>| step("c1", Some(&cluster), members, here.as_ref());
        let join = |others: &[u8]| Step::Join { cid: "x".into(), others: others.iter().map(|n| [10, 0, 0, *n].into()).collect() };
        assert_eq!(step(&all, Some(ids("x", "aaaa1"))), Step::Run);
        assert_eq!(step(&all, None), join(&[2, 3]), "lost");
        assert_eq!(step(&all, Some(ids("x", "dddd1"))), join(&[2, 3]), "not what it told the others");
        assert_eq!(step(&all, Some(ids("w", "aaaa1"))), join(&[2, 3]), "of an older raft");
        assert_eq!(step(&all[1..], Some(ids("x", "aaaa1"))), join(&[2, 3]), "it was taken out meanwhile");
        assert_eq!(step(&all[..1], None), Step::Found, "it was alone and lost them");
        let waiting = [member(1, "x", "aaaa1", false), member(2, "x", "bbbb1", false)];
        assert_eq!(step(&waiting, Some(ids("x", "aaaa1"))), Step::Found, "all lost them, and each waits for the others");
        assert_eq!(super::step("c1", None, &[], None), Step::Found);
    }

    #[test]
    fn servers_that_nobody_is_are_known_and_a_raft_is_lost_when_they_are_too_many() {
        let server = |n: u8, id: &str| Server { id: id.into(), address: format!("ssl:10.0.0.{n}:6643") };
        let status = |servers: Vec<Server>| Status { joined: true, leads: false, has_leader: false, servers };
        let three = status(vec![server(1, "aaaa"), server(2, "bbbb"), server(3, "cccc")]);
        let all = [member(1, "x", "aaaa1", true), member(2, "x", "bbbb1", true), member(3, "x", "cccc1", true)];
        let stranger = |members: &[Member]| stranger(&three, Database::Northbound, "x", members).map(|s| s.id.as_str());
        let lost = |members: &[Member]| is_lost(&three, Database::Northbound, "x", members);
        assert_eq!((stranger(&all), lost(&all)), (None, false), "two may be away for long");
        assert_eq!((stranger(&all[..2]), lost(&all[..2])), (Some("cccc"), false));
        assert_eq!((stranger(&all[..1]), lost(&all[..1])), (Some("bbbb"), true), "two were taken out");
        let anew = [all[0].clone(), member(2, "x", "dddd1", false), member(3, "x", "eeee1", false)];
        assert!(lost(&anew), "two lost their data");
        let moved = [all[0].clone(), all[1].clone(), Member { address: [10, 0, 0, 9].into(), ..all[2].clone() }];
        assert_eq!(stranger(&moved), Some("cccc"));
        assert!(
            !is_lost(&Status { has_leader: true, ..three }, Database::Northbound, "x", &all[..1]),
            "it works: they are kicked"
        );
    }
}
