//! Where a URL goes to, as far as the rules for calls to others need to know it.
use ipnet::IpNet;
use std::net::IpAddr;

/// Scheme, host and port of a URL.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Address<'a> {
    pub(crate) secure: bool,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
}

/// `None` for what is no URL of http or https, or names a user.
pub(crate) fn of(url: &str) -> Option<Address<'_>> {
    let (secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return None,
    };
    let authority = rest.split(['/', '?', '#', '\\']).next().filter(|a| !a.is_empty() && !a.contains('@'))?;
    let usual = if secure { 443 } else { 80 };
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']')?;
            (host, if after.is_empty() { usual } else { after.strip_prefix(':')?.parse().ok()? })
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, usual),
        },
    };
    (!host.is_empty()).then_some(Address { secure, host, port })
}

/// May secrets go there? Only by TLS, or to an address whose network the operator named.
pub(crate) fn is_safe(url: &str, networks: &[IpNet]) -> bool {
    of(url).is_some_and(|a| a.secure || a.host.parse::<IpAddr>().is_ok_and(|ip| networks.iter().any(|n| n.contains(&ip))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let of = |url| of(url).map(|a| (a.secure, a.host, a.port));
        assert_eq!(of("https://idp.example.org/a?b"), Some((true, "idp.example.org", 443)));
        assert_eq!(of("http://127.0.0.1:8080"), Some((false, "127.0.0.1", 8080)));
        assert_eq!(of("https://[::1]:9443/x"), Some((true, "::1", 9443)));
        for url in ["", "https://", "ftp://h/", "https://user@h/", "https://h:x/", "https://:1/", "https://[::1/", "//h"] {
            assert_eq!(of(url), None, "{url}");
        }
    }

    #[test]
    fn secrets_go_by_tls() {
        let loopback = ["127.0.0.0/8".parse().unwrap()];
        assert!(is_safe("https://anything/", &[]) && is_safe("http://127.0.0.1:1/", &loopback));
        assert!(
            !is_safe("http://127.0.0.1/", &[])
                && !is_safe("http://localhost/", &loopback)
                && !is_safe("http://10.0.0.1/", &loopback)
        );
    }
}
