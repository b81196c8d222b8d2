//! A real provider: `oidc-provider` of npm, in a process of its own.
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use testkit::{Answer, Client};

/// It ends when it is dropped.
pub(crate) struct Provider {
    /// Where it is asked by tests.
    pub(crate) url: String,
    /// As it calls itself.
    pub(crate) issuer: String,
    child: Child,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Where `scripts/install-deps --dev` puts things.
pub(crate) fn cached(what: &str) -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).expect("a home directory");
    let dir = cache.join("drover").join(what);
    assert!(dir.join("version").exists(), "{what} is missing in {dir:?}; run make dev-deps.");
    dir
}

pub(crate) fn basic(client: &str) -> String {
    use base64::Engine as _;
    let pair = format!("{client}:secret%20of%20{client}");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

impl Provider {
    /// Its clients come back to `redirect`. With a certificate and its key, PEM files, it is one of https.
    pub(crate) fn start(redirect: &str, tls: Option<[&Path; 2]>) -> Self {
        let modules = cached("oidc-provider");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/federation/provider.mjs");
        let mut node = Command::new("node");
        node.arg(script).arg(modules).arg(redirect).args(tls.iter().flatten()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = node.spawn().expect("node runs");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ports = |line: String| line.split(' ').map(|port| port.trim().parse::<u16>().ok()).collect::<Option<Vec<_>>>();
        let ports = lines.map_while(Result::ok).find_map(ports).expect("the provider says its ports");
        let (first, last) = (ports[0], ports[ports.len() - 1]);
        let scheme = if tls.is_some() { "https" } else { "http" };
        Self { url: format!("http://127.0.0.1:{last}"), issuer: format!("{scheme}://127.0.0.1:{first}"), child }
    }

    pub(crate) async fn token(&self, client: &str, form: &str) -> Answer {
        let http = Client::new(&self.url).header("authorization", &basic(client));
        http.send_bytes("POST", "/token", "application/x-www-form-urlencoded", form.to_owned().into()).await
    }
    /// An access token of a user: one that speaks for itself when there is a resource, else one that only the provider can read.
    pub(crate) async fn access(&self, user: &str, resource: Option<&str>) -> String {
        let resource = resource.map_or_else(String::new, |r| format!("&resource={r}"));
        let form = format!("grant_type=password&username={user}&password=password%20of%20{user}{resource}");
        self.token("cloud", &form).await.expect(200).text("/access_token")
    }
    /// As [`Self::access`], with more that is known of the user.
    pub(crate) async fn access_of(&self, user: &str, known: Value) -> String {
        use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
        let known = known.to_string();
        let known = utf8_percent_encode(&known, NON_ALPHANUMERIC);
        let form =
            format!("grant_type=password&username={user}&password=password%20of%20{user}&resource=urn:cloud&known={known}");
        self.token("cloud", &form).await.expect(200).text("/access_token")
    }

    /// How a protocol speaks to it; `more` is added.
    pub(crate) fn oidc(&self, more: Value) -> Value {
        let mut oidc = json!({
            "issuer": self.issuer, "client_id": "cloud", "client_secret": "secret of cloud", "audiences": ["urn:cloud", "cloud"],
        });
        oidc.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        oidc
    }
}
