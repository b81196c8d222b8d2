//! keepalived's configuration as a plain function; written for 2.2, Debian 12's.
use crate::{Error, FrontDoor, haproxy::sorted};
use std::{fmt::Write as _, net::IpAddr};

/// What keepalived asks before it takes the address, and while it has it: `PORT`. A shell has no start-up time worth speaking of and
/// needs nothing installed; a haproxy that is being started again is given the time for it.
pub(crate) const CHECK: &str = r#"# Made by drover; changes are lost.
for pause in 0.1 0.3 0.3 0; do
  if exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET /door HTTP/1.0\r\n\r\n' >&3 &&
    read -r -t 0.4 answer <&3 && [[ $answer == *' 200 '* ]]; then
    exit 0
  fi
  sleep "$pause"
done 2> /dev/null
exit 1
"#;

/// The first by name starts with the address; after that it stays where it is as long as it can.
const FIRST_PRIORITY: usize = 250;

pub(crate) fn config(door: &FrontDoor, vip: &ipnet::IpNet, interface: &str) -> Result<String, Error> {
    let all = sorted(&door.controllers);
    let place = all.iter().position(|c| c.name == door.name).ok_or_else(|| Error::Stranger { name: door.name.clone() })?;
    let own = all[place].api.ip();
    if all.iter().any(|c| c.api.is_ipv4() != vip.addr().is_ipv4()) {
        return Err(Error::Mixed { vip: vip.addr() });
    }
    let peers: Vec<IpAddr> = all.iter().filter(|c| c.name != door.name).map(|c| c.api.ip()).collect();
    let mut text = format!(
        r#"# Made by drover from the cluster's options; changes are lost.
global_defs {{
    router_id {name}
    # Adverts are sent on time also when the machine is busy: a late one moves the address for nothing.
    vrrp_priority -20
    # VRRPv3 has no authentication (RFC 5798 section 9): a password in clear text never kept anybody out. Adverts are taken from
    # the other controllers' addresses only; the network between controllers must keep strangers from using those.
    vrrp_version 3
    vrrp_check_unicast_src
    # One that hears no adverts takes the address: within this time (s) the others learn of a controller that has just joined, and send it some.
    vrrp_startup_delay 1
    # Neighbours that missed the move, such as a switch that was just restarted, learn of it.
    vrrp_garp_master_refresh 1
    enable_script_security
    script_user root
}}

# haproxy answers here.
vrrp_script door {{
    script "/bin/bash {check} {port}"
    interval 1
    timeout 3
    fall 1
    rise 1
    init_fail
}}

# 1 when no other controller answers: behind a link that is dead in one direction adverts alone would keep the address.
track_file alone {{
    file "{alone}"
    weight 0
    init_file 0
}}

vrrp_instance api {{
    state BACKUP
    # The address moves when it must, not back.
    nopreempt
    interface {interface}
    virtual_router_id 74
    priority {priority}
    # Three missed adverts and a bit: taken over after an eighth of a second.
    advert_int 0.04
    unicast_src_ip {own}
"#,
        name = door.name,
        check = door.dir.join("check.sh").display(),
        alone = crate::pulse::alone_file(&door.dir).display(),
        port = door.local_port,
        // 255 means that the address is the machine's own, 0 that it gives up.
        // Far apart: who has less waits longer, and hears who took the address before. Of two that take it at once either may be believed.
        priority = FIRST_PRIORITY - place * (FIRST_PRIORITY - 1) / all.len(),
    );
    text.push_str("    unicast_peer {\n");
    for peer in peers {
        let _ = writeln!(text, "        {peer}");
    }
    let _ = write!(
        text,
        r#"    }}
    virtual_ipaddress {{
        {vip} dev {interface}
    }}
    track_script {{
        door
    }}
    track_file {{
        alone
    }}
}}
"#
    );
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Certificate, Controller};
    use std::net::SocketAddr;

    fn door(name: &str) -> FrontDoor {
        let controller = |n: u8| Controller { name: format!("c{n}"), api: SocketAddr::from(([10, 0, 0, n], 8776)) };
        FrontDoor {
            name: name.into(),
            dir: "/var/lib/drover/door".into(),
            netns: None,
            listen: vec![],
            port: crate::PORT,
            local_port: crate::LOCAL_PORT,
            vip: None,
            ca: "ca.pem".into(),
            machine: Certificate { certificate: "cert.pem".into(), key: "key.pem".into() },
            public: None,
            controllers: vec![controller(3), controller(1), controller(2)],
        }
    }

    #[test]
    fn the_whole_configuration() {
        let text = config(&door("c2"), &"10.0.0.100/24".parse().unwrap(), "eth0").unwrap();
        assert!(text == include_str!("../golden/keepalived.conf"), "golden/keepalived.conf differs from:\n{text}");
    }

    #[test]
    fn what_cannot_work_is_told() {
        let vip = "10.0.0.100/24".parse().unwrap();
        assert!(matches!(config(&door("c4"), &vip, "eth0"), Err(Error::Stranger { name }) if name == "c4"));
        assert!(matches!(config(&door("c1"), &"fd00::1/64".parse().unwrap(), "eth0"), Err(Error::Mixed { .. })));
    }

    #[test]
    fn each_controller_has_a_priority_of_its_own() {
        let priority = |name| {
            let text = config(&door(name), &"10.0.0.100/24".parse().unwrap(), "eth0").unwrap();
            text.lines().find_map(|l| l.trim().strip_prefix("priority ")?.parse::<u8>().ok()).unwrap()
        };
        assert!(priority("c1") > priority("c2") && priority("c2") > priority("c3"));
    }
}
