//! Bytes from an address that a user gave, without lending the user this host's place in the network.
//!
//! ```text
//! URL ── scheme, user, port ──▶ name ── resolved once ──▶ every address is public, or allowed ──▶ that address is asked, by that name
//! ```
//! The checked address is the one that is connected to, so a name that changes its mind between check and use gains nothing. No redirect
//! is followed. Addresses that are not public are refused in all of their spellings, unless the operator allows their network.
use crate::{
    Error, Trust,
    http::{Body, Server, length},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Response, Uri, body::Incoming};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, SocketAddr};

/// What may be asked.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Networks that may be asked although they are not public.
    pub allow: Vec<IpNet>,
    pub ports: Vec<u16>,
    pub trust: Trust,
}

impl Default for Rules {
    fn default() -> Self {
        Self { allow: Vec::new(), ports: vec![80, 443], trust: Trust::default() }
    }
}

/// Networks that are not the public Internet: our own, our neighbours', the machine's, or nobody's.
const PRIVATE: [&str; 21] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    // Of IPv6, 2000::/3 alone is given out; in it, what is for documents and what carries an IPv4 address is not public either.
    "::/3",
    "4000::/2",
    "8000::/1",
    "2001::/32",
    "2001:db8::/32",
    "2002::/16",
];

impl Rules {
    /// For an address that the operator gave, and no user: it may be in any network, and has the port that it names.
    pub fn of_operator(url: &str, trust: Trust) -> Result<Self, Error> {
        let uri: Uri = url.parse().map_err(|_| Error::BadUrl { url: url.to_owned(), why: "it is malformed" })?;
        let port = Server::of(&uri, &trust)?.port;
        Ok(Self { allow: vec![Ipv4Net::default().into(), Ipv6Net::default().into()], ports: vec![port], trust })
    }

    fn allows(&self, address: IpAddr) -> bool {
        // ::ffff:127.0.0.1 is 127.0.0.1.
        let address = address.to_canonical();
        let within = |net: &IpNet| net.contains(&address);
        self.allow.iter().any(within) || !PRIVATE.iter().filter_map(|net| net.parse().ok()).any(|net: IpNet| within(&net))
    }

    /// Refuses what is forbidden by its looks. What a name stands for is seen when it is asked.
    pub fn check(&self, url: &str) -> Result<(), Error> {
        self.server(url).map(drop)
    }

    fn server(&self, url: &str) -> Result<(Server, Uri), Error> {
        let shown: String = url.chars().filter(|c| !c.is_control()).take(255).collect();
        let uri: Uri = url.parse().map_err(|_| Error::BadUrl { url: shown, why: "it is malformed" })?;
        let server = Server::of(&uri, &self.trust)?;
        let forbidden = |why: String| Error::Forbidden { server: server.name(), why };
        if !self.ports.contains(&server.port) {
            return Err(forbidden(format!("port {} is not among those that are open for this", server.port)));
        }
        if let Ok(address) = server.host.parse::<IpAddr>()
            && !self.allows(address)
        {
            return Err(forbidden(format!("{address} is not a public address")));
        }
        Ok((server, uri))
    }
}

/// An answer whose bytes are still to come.
pub struct Fetched {
    server: Server,
    answer: Response<Incoming>,
    /// As the server says.
    pub length: Option<u64>,
}

/// The server of a URL with all of its addresses, each of which may be asked.
pub(crate) async fn place(url: &str, rules: &Rules) -> Result<(Server, Uri, Vec<SocketAddr>), Error> {
    let (server, uri) = rules.server(url)?;
    let addresses = server.addresses().await?;
    if let Some(address) = addresses.iter().find(|address| !rules.allows(address.ip())) {
        // One bad address spoils the name: which of them would be asked is the name's owner's choice.
        return Err(Error::Forbidden { server: server.name(), why: format!("its address {} is not public", address.ip()) });
    }
    Ok((server, uri, addresses))
}

/// Asks for the URL.
pub async fn open(url: &str, rules: &Rules) -> Result<Fetched, Error> {
    let (server, uri, addresses) = place(url, rules).await?;
    let target = uri.path_and_query().map_or("/", |p| p.as_str());
    let body: Body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let request = Request::get(target)
        .header("host", server.name())
        .header("accept", "*/*")
        .header("accept-encoding", "identity")
        .header("user-agent", concat!("drover/", env!("CARGO_PKG_VERSION")))
        .body(body)
        .map_err(|_| Error::BadUrl { url: uri.to_string(), why: "it is malformed" })?;
    let answer = server.send(&addresses, request, 0).await?;
    let status = answer.status();
    if status.is_redirection() {
        return Err(Error::Redirected { server: server.name() });
    }
    if status != 200 {
        let message = status.canonical_reason().unwrap_or("without a reason").to_owned();
        return Err(Error::Refused { server: server.name(), asked: "GET", status: status.as_u16(), message });
    }
    let length = length(&answer);
    Ok(Fetched { server, answer, length })
}

impl Fetched {
    /// The next bytes; none after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.server.next(self.answer.body_mut()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    #[test]
    fn what_is_not_public_is_refused_in_all_spellings() {
        let rules = Rules::default();
        for url in [
            "http://127.0.0.1/",
            "http://169.254.169.254/openstack",
            "http://10.0.0.1/x",
            "http://192.168.1.1/",
            "http://100.64.0.1/",
            "http://0.0.0.0/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[fe80::1]/",
            "http://[fd00::1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
            "http://example.org:22/",
            "https://example.org:8443/",
            "file:///etc/shadow",
            "ftp://example.org/",
            "http://user:secret@example.org/",
            "//example.org/x",
            "example.org",
            "",
        ] {
            assert!(rules.check(url).is_err(), "{url}");
        }
        for url in ["http://example.org/a?b=c", "https://example.org/", "http://192.0.1.1/", "https://[2606:2800:220:1::1]/x"] {
            assert!(rules.check(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn an_operators_address_may_be_anywhere() {
        for url in ["http://127.0.0.1:9311", "https://[fd00::1]/key-manager", "http://10.0.0.1:1"] {
            let rules = Rules::of_operator(url, Trust::default()).unwrap();
            assert!(rules.check(url).is_ok(), "{url}");
            assert!(rules.check("http://10.0.0.1:2/").is_err(), "{url}: its port alone");
        }
        for url in ["file:///etc/shadow", "http://user:secret@10.0.0.1/", "10.0.0.1", ""] {
            assert!(Rules::of_operator(url, Trust::default()).is_err(), "{url}");
        }
    }

    /// A server that gives one answer, whatever is asked.
    async fn server(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                stream.write_all(answer.as_bytes()).await.ok();
            }
        });
        port
    }

    fn rules(port: u16) -> Rules {
        Rules { ports: vec![port], allow: vec!["127.0.0.0/8".parse().unwrap()], ..Rules::default() }
    }

    #[tokio::test]
    async fn names_are_checked_by_what_they_stand_for() {
        let port = server("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndata").await;
        let closed = Rules { allow: Vec::new(), ..rules(port) };
        for host in ["localhost", "2130706433", "0x7f.1", "127.1"] {
            let url = format!("http://{host}:{port}/");
            let refused = open(&url, &closed).await.err().unwrap();
            assert!(matches!(refused, Error::Forbidden { .. } | Error::Unreachable { .. }), "{url}: {refused:?}");
        }
        let mut fetched = open(&format!("http://127.0.0.1:{port}/x"), &rules(port)).await.unwrap();
        assert_eq!((fetched.length, fetched.next().await.unwrap().as_deref()), (Some(4), Some(&b"data"[..])));
        assert_eq!(fetched.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn redirects_and_refusals_are_errors() {
        let port = server("HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n").await;
        let refused = open(&format!("http://127.0.0.1:{port}/x"), &rules(port)).await.err().unwrap();
        assert!(matches!(refused, Error::Redirected { .. }), "{refused:?}");
        let port = server("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        let refused = open(&format!("http://127.0.0.1:{port}/x"), &rules(port)).await.err().unwrap();
        assert!(matches!(refused, Error::Refused { status: 404, .. }), "{refused:?}");
    }

    #[tokio::test]
    async fn an_answer_that_ends_early_is_an_error() {
        let port = server("HTTP/1.1 200 OK\r\ncontent-length: 40\r\nconnection: close\r\n\r\ndata").await;
        let mut fetched = open(&format!("http://127.0.0.1:{port}/x"), &rules(port)).await.unwrap();
        assert_eq!(fetched.next().await.unwrap().as_deref(), Some(&b"data"[..]));
        assert!(fetched.next().await.is_err());
    }
}
