//! haproxy's configuration as a plain function; written for 2.6, Debian 12's.
use crate::{Controller, FrontDoor};
use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

/// Certificates with their keys as haproxy reads them.
#[derive(Clone, Debug)]
pub(crate) struct Bundles {
    /// What clients are shown.
    pub(crate) public: PathBuf,
    /// What controllers are shown.
    pub(crate) machine: PathBuf,
}

/// May be sent twice: it changes nothing, or the API gives a repetition the first answer.
const REPEATABLE: &str = "{ method GET HEAD OPTIONS } or { method POST } { req.hdr(Idempotency-Key) -m found }";

const BALANCE: &str = "    # A controller that answers late gets less: the one with fewer requests, of two that are drawn. After a refused connection haproxy 2.6
    # waits a second before it tries elsewhere, unless it draws or takes turns.
    balance random(2)
";

/// How requests are sent to controllers, in each backend.
fn common(door: &FrontDoor, bundles: &Bundles) -> String {
    format!(
        r#"    # Connections are kept and used by all: many clients at once, after an outage, cost no handshake each.
    http-reuse always
    retries 3
    option redispatch 1
    # A connection that failed was not a request yet: that is always tried elsewhere. The rest only for what may be sent twice.
    retry-on conn-failure empty-response junk-response 503
    http-request disable-l7-retry unless {REPEATABLE}
    # A host that lost its power closes nothing.
    option srvtcpka
    srvtcpka-idle 1s
    srvtcpka-intvl 1s
    srvtcpka-cnt 2
    default-server ssl verify required ca-file {ca} crt {machine} alpn http/1.1 tcp-ut 2s
"#,
        ca = door.ca.display(),
        machine = bundles.machine.display(),
    )
}

pub(crate) fn config(door: &FrontDoor, bundles: &Bundles) -> String {
    let dir = door.dir.display();
    let common = common(door, bundles);
    let mut text = format!(
        r#"# Made by drover from the cluster's options; changes are lost.
global
    log stdout format raw local0 notice
    user haproxy
    group haproxy
    chroot {dir}/empty
    stats socket {dir}/haproxy.sock mode 600 level admin expose-fd listeners
    # After a reload the old process keeps its consoles and uploads, but not for ever.
    hard-stop-after 30m
    maxconn 8000
    # A request is repeated elsewhere only if it fits a buffer: 256 KiB of body and its headers. All of a buffer is copied for each request.
    tune.bufsize 327680
    tune.maxrewrite 16384
    ssl-default-bind-options ssl-min-ver TLSv1.2
    ssl-default-server-options ssl-min-ver TLSv1.2

defaults
    mode http
    log global
    option httplog
    # What went well is in the log of the API that served it.
    option dontlog-normal
    # Nobody works for a client that has left: what waits for the store then would be carried out much later.
    option abortonclose
    # With the handshake, which a busy machine does late. Who is dead is known sooner, by the agent.
    timeout connect 3s
    # Who sends its headers slower holds a connection for nothing.
    timeout http-request 10s
    # Clients come back for more within one command or page.
    timeout http-keep-alive 60s
    # Silence within a body; uploads come from slow disks.
    timeout client 60s
    # The longest time until the API's first byte, and between two; the API's own deadline is shorter.
    timeout server 120s
    # Consoles are silent while their user reads.
    timeout tunnel 1h
    timeout client-fin 5s
    timeout server-fin 5s
    timeout queue 5s
    # Each check is a new connection, and a machine may be busy. Who can serve is known sooner, by the agent.
    timeout check 5s
{errors}
frontend door
    # No HTTP/2: haproxy 2.6 takes a server's death after an HTTP/2 request for a failed connection, and repeats writes that were carried out.
"#,
        errors = [(502, "Bad Gateway"), (503, "Service Unavailable"), (504, "Gateway Timeout")].map(error).concat(),
    );
    for line in binds(door, &bundles.public) {
        let _ = writeln!(text, "    {line}");
    }
    let _ = write!(
        text,
        r#"    # For operators, at the machines themselves.
    http-request return status 404 if {{ path /metrics }}
    # Who the client is, the door says, and nobody else.
    http-request del-header X-Forwarded- -m beg
    http-request del-header Forwarded
    http-request del-header X-Real-IP
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto https
    # A request can be repeated only when the door has all of it.
    http-request wait-for-body time 10s if {{ method POST }} {{ req.hdr(Idempotency-Key) -m found }}
    # When none is thought to be well, the thought may be wrong, or one is just coming back.
    use_backend anyone if {{ nbsrv(api) lt 1 }}
    use_backend writes if !{{ method GET HEAD OPTIONS }} {{ req.hdr(X-Auth-Token) -m found }}
    default_backend api

backend api
{BALANCE}{common}    option httpchk
    http-check send meth GET uri /livez ver HTTP/1.1 hdr Host controller.drover.internal
    http-check expect status 200
    # An interval is also the time in which a check must be connected. Those who are refused need no check: their requests go elsewhere.
    default-server check inter 5s downinter 1s fall 3 rise 1 on-marked-down shutdown-sessions
    # Where a connection is refused nobody is: the next request does not try it.
    default-server observe layer4 error-limit 1 on-error mark-down
    # Drover on this machine hears from all of them twenty times a second; without it everything stays as it was.
    default-server agent-check agent-addr 127.0.0.1 agent-port {agent} agent-inter 100ms
"#,
        agent = crate::AGENT_PORT,
    );
    for c in sorted(&door.controllers) {
        let _ = writeln!(text, "    {} agent-send \"{}\\n\"", server(c), c.name);
    }
    let _ = write!(
        text,
        r#"
# Who writes much changes the same rows again and again, such as what a project uses of its quota: at one controller these writes share
# commits, at several they would undo each other's.
backend writes
    balance hdr(X-Auth-Token)
    hash-type consistent
{common}    default-server on-marked-down shutdown-sessions
"#
    );
    for c in sorted(&door.controllers) {
        let _ = writeln!(text, "    {} track api/{}", server(c), c.name);
    }
    let _ = write!(text, "\nbackend anyone\n{BALANCE}{common}");
    for c in sorted(&door.controllers) {
        let _ = writeln!(text, "    {}", server(c));
    }
    let _ = write!(
        text,
        r#"
# How this door is; keepalived asks, and Prometheus.
frontend local
    bind {local}
    http-request use-service prometheus-exporter if {{ path /metrics }}
    http-request return status 200 if {{ path /door }}
    http-request return status 404
"#,
        local = SocketAddr::from(([127, 0, 0, 1], door.local_port)),
    );
    text
}

/// Controllers in the order of their names, whatever order they were given in.
pub(crate) fn sorted(controllers: &[Controller]) -> Vec<&Controller> {
    let mut sorted: Vec<_> = controllers.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    sorted
}

/// The VIP is bound wherever it is now, so that its arrival finds an open door.
fn binds(door: &FrontDoor, certificate: &Path) -> Vec<String> {
    let vip = door.vip.as_ref().map(|v| v.address.addr());
    let line = |address: IpAddr, transparent: &str| {
        let at = SocketAddr::new(address, door.port);
        format!("bind {at} {transparent}ssl crt {} alpn http/1.1", certificate.display())
    };
    let own = door.listen.iter().filter(|a| Some(**a) != vip);
    own.map(|a| line(*a, "")).chain(vip.map(|a| line(a, "transparent "))).collect()
}

fn server(c: &Controller) -> String {
    // The name in a controller's certificate, so that no node can stand in for one.
    let name = format!("{}.controller.drover.internal", c.name);
    format!("server {} {} sni str({name}) check-sni {name} verifyhost {name}", c.name, c.api)
}

/// What haproxy says itself, in the shape of most of the APIs' errors.
fn error((status, title): (u16, &str)) -> String {
    let message = match status {
        503 => "No controller can serve now. Repeat the request in a moment.",
        504 => "The controller has not answered in time. Look whether the request was carried out before you repeat it.",
        _ => "The controller went away before it answered. Look whether the request was carried out before you repeat it.",
    };
    let body = format!(r#"{{\"error\":{{\"code\":{status},\"title\":\"{title}\",\"message\":\"{message}\"}}}}"#);
    format!("    http-error status {status} content-type application/json string \"{body}\" hdr Retry-After 1\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Certificate, Vip};

    fn door() -> FrontDoor {
        let controller = |n: u8| Controller { name: format!("c{n}"), api: SocketAddr::from(([10, 0, 0, n], 8776)) };
        FrontDoor {
            name: "c1".into(),
            dir: "/var/lib/drover/door".into(),
            netns: None,
            listen: vec![IpAddr::from([10, 0, 0, 1])],
            port: crate::PORT,
            local_port: crate::LOCAL_PORT,
            vip: Some(Vip { address: "10.0.0.100/24".parse().unwrap(), interface: None }),
            ca: "/var/lib/drover/pki/ca.pem".into(),
            machine: Certificate { certificate: "cert.pem".into(), key: "key.pem".into() },
            public: None,
            controllers: vec![controller(2), controller(1), controller(3)],
        }
    }

    fn bundles() -> Bundles {
        Bundles { public: "/var/lib/drover/door/p.pem".into(), machine: "/var/lib/drover/door/m.pem".into() }
    }

    #[test]
    fn the_whole_configuration() {
        let golden = include_str!("../golden/haproxy.cfg");
        let text = config(&door(), &bundles());
        assert!(text == golden, "golden/haproxy.cfg differs from:\n{text}");
    }

    #[test]
    fn without_a_vip_only_own_addresses_are_bound() {
        let v6 = FrontDoor { vip: None, listen: vec!["fd00::1".parse().unwrap()], ..door() };
        let text = config(&v6, &bundles());
        let binds: Vec<_> = text.lines().filter(|l| l.contains("bind ") && l.contains("ssl")).collect();
        assert_eq!(binds, ["    bind [fd00::1]:8774 ssl crt /var/lib/drover/door/p.pem alpn http/1.1"]);
        let twice = FrontDoor { listen: vec!["10.0.0.100".parse().unwrap()], ..door() };
        assert_eq!(config(&twice, &bundles()).matches("bind 10.0.0.100:8774").count(), 1);
    }
}
