//! What a member of a raft says of it: the text of `cluster/status` (ovsdb-server(8)), which is the one place that lists its servers.

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// It is a member, and not on its way in or out.
    pub(super) joined: bool,
    pub(super) leads: bool,
    pub(super) has_leader: bool,
    pub(super) servers: Vec<Server>,
}

/// One server of the raft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// The beginning of its id.
    pub(super) id: String,
    pub(super) address: String,
}

pub(super) fn parse(text: &str) -> Status {
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim);
    let servers = text.lines().skip_while(|line| *line != "Servers:").skip(1).take_while(|line| line.starts_with(' '));
    Status {
        joined: value("Status") == Some("cluster member"),
        leads: value("Role") == Some("leader"),
        has_leader: value("Leader").is_some_and(|leader| leader != "unknown"),
        servers: servers.filter_map(server).collect(),
    }
}

/// `    1c1b (1c1b at ssl:10.0.0.1:6643) (self) next_index=2 …`
fn server(line: &str) -> Option<Server> {
    let (id, rest) = line.trim().split_once(" (")?;
    let address = rest.split_once(')')?.0.split_once(" at ")?.1;
    Some(Server { id: id.to_owned(), address: address.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ovsdb_server_prints() {
        let text = "1c1b\nName: OVN_Northbound\nCluster ID: d4a5 (d4a5e1b3-0000-4000-8000-000000000000)\n\
            Server ID: 1c1b (1c1b9d1a-0000-4000-8000-000000000000)\nAddress: ssl:127.7.0.1:6643\nStatus: cluster member\nRole: leader\n\
            Term: 2\nLeader: self\nVote: self\n\nLast Election started 5 ms ago, reason: timeout\nElection timer: 1000\nLog: [2, 5]\n\
            Connections: ->0000 <-2a2b\nDisconnections: 0\nServers:\n    1c1b (1c1b at ssl:127.7.0.1:6643) (self) next_index=2 match_index=4\n\
            \x20   2a2b (2a2b at ssl:[fd00::2]:6643) next_index=5 match_index=4 last msg 33 ms ago\n";
        let server = |id: &str, address: &str| Server { id: id.into(), address: address.into() };
        let servers = vec![server("1c1b", "ssl:127.7.0.1:6643"), server("2a2b", "ssl:[fd00::2]:6643")];
        assert_eq!(parse(text), Status { joined: true, leads: true, has_leader: true, servers });
        let joining =
            "Status: joining cluster\nRemotes for joining: ssl:127.7.0.1:6643\nRole: follower\nLeader: unknown\nServers:\n";
        assert_eq!(parse(joining), Status::default());
    }
}
