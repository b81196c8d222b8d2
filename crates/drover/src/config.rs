//! Options of a cloud on this machine, or of one controller of a cluster. Every one has a default that works; `drover dump-config` prints what is in force.
use crate::{controller::Controller, engine::Place, node_role::Host};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::{
    io::Write,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Flags of `drover up`. What is given is kept in `config.json` of the state directory and used by every later start.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Flags {
    /// Address and port of all APIs [default: 127.0.0.1:8774]. Since 0.1.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// URL that clients use, when it is not `http://` and the listen address. Since 0.1.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// IPv4 network of floating addresses; this machine takes its first address [default: 172.24.4.0/24]. Since 0.1.
    #[arg(long, value_name = "CIDR")]
    external: Option<ipnet::Ipv4Net>,
    /// Where the cloud's rows are: `sqlite`, or `etcd://HOST:PORT[,HOST:PORT …][/NAME]` for several controllers [default: sqlite]. A
    /// cloud that is there is moved with `drover store move`. Since 0.1.
    #[arg(long, value_name = "STORE")]
    pub(crate) store: Option<Place>,
    /// Who vouches for etcd's members (PEM); with it they are spoken to by TLS. Since 0.1.
    #[arg(long, value_name = "PATH")]
    etcd_ca: Option<PathBuf>,
    /// Our certificate for etcd (PEM). Since 0.1.
    #[arg(long, value_name = "PATH", requires = "etcd_key")]
    etcd_cert: Option<PathBuf>,
    /// Key of our certificate for etcd (PEM). Since 0.1.
    #[arg(long, value_name = "PATH", requires = "etcd_cert")]
    etcd_key: Option<PathBuf>,
    /// Name of this machine in the cloud [default: its host name]. Since 0.1.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Simulate this many hosts instead of running QEMU and OVN here; for benchmarks. Since 0.1.
    #[arg(long, value_name = "HOSTS")]
    simulate: Option<u32>,
    /// Leave this machine's firewall and forwarding alone: guests reach floating addresses only, and the filter between guests and
    /// this machine is yours. Since 0.1.
    #[arg(long, conflicts_with = "nat")]
    no_nat: bool,
    /// Give guests a way out through this machine, after a --no-nat [default]. Since 0.1.
    #[arg(long)]
    nat: bool,
    /// Take images whose bytes are in no known format under whatever format they are declared, as Glance does with
    /// `require_image_format_match = False`. Dangerous content, and that of another known format, stays refused. Since 0.1.
    #[arg(long, conflicts_with = "require_image_format_match")]
    no_require_image_format_match: bool,
    /// Refuse them, after a --no-require-image-format-match [default]. Since 0.1.
    #[arg(long)]
    require_image_format_match: bool,
    /// A further store of images, on each controller the same: `id=NAME,type=s3,endpoint=URL,bucket=NAME,credentials=PATH` (with
    /// `region`, `prefix`, `ca`), or `id=NAME,type=local,path=DIR`; each with `description` and `weight`. The file `credentials` has the
    /// access key and the secret key, a line each. May be given several times. Since 0.1.
    #[arg(long, value_name = "KEY=VALUE,…", value_parser = crate::images::definition)]
    image_store: Vec<image::Definition>,
    /// Forget a further store; images that are only in it cannot be read any more. Since 0.1.
    #[arg(long, value_name = "NAME")]
    no_image_store: Vec<String>,
    /// The store of images for which none is named [default: local]. Since 0.1.
    #[arg(long, value_name = "NAME")]
    default_image_store: Option<String>,
    /// GiB of images of other stores that a controller keeps for its hosts [default: 20]. Since 0.1.
    #[arg(long, value_name = "GIB")]
    image_cache: Option<u64>,
    /// Fetch no images from the web. Since 0.1.
    #[arg(long, conflicts_with = "web_download")]
    no_web_download: bool,
    /// Fetch them, after a --no-web-download [default]. Since 0.1.
    #[arg(long)]
    web_download: bool,
    /// A network that images may be fetched from although it is not public. May be given several times. Since 0.1.
    #[arg(long, value_name = "CIDR")]
    web_download_allow: Vec<ipnet::IpNet>,
    /// A port that images may be fetched from, instead of 80 and 443. May be given several times. Since 0.1.
    #[arg(long, value_name = "PORT")]
    web_download_port: Vec<u16>,
    /// Let users give the address of an image's data (`POST …/locations`); it is fetched like a download from the web. Since 0.1.
    #[arg(long)]
    image_locations: bool,
    /// Who may create, read, update and delete which properties of images: a file in the format of Glance's property protections. The
    /// same on each controller. Since 0.1.
    #[arg(long, value_name = "PATH")]
    image_property_protections: Option<PathBuf>,
    /// The file names rules of the policy, not roles. Since 0.1.
    #[arg(long)]
    image_property_policies: bool,
    /// Page of a dashboard that gets the token of a login in the browser, as the dashboard names it; once for each. What is given takes the
    /// place of all before. Since 0.1.
    #[arg(long, value_name = "URL")]
    trusted_dashboard: Vec<String>,
    /// Network of identity providers that is not public; its addresses may be asked without TLS. Once for each; what is given takes the
    /// place of all before. Since 0.1.
    #[arg(long, value_name = "CIDR")]
    federation_network: Vec<ipnet::IpNet>,
    /// qcow2 file that becomes the images `tiny` and `tiny-alt`, and from which the server `demo` boots. Since 0.1.
    #[arg(long, value_name = "PATH")]
    guest_image: Option<PathBuf>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) endpoint: Option<String>,
    pub(crate) store: Place,
    pub(crate) etcd_ca: Option<PathBuf>,
    pub(crate) etcd_cert: Option<PathBuf>,
    pub(crate) etcd_key: Option<PathBuf>,
    /// `None`: the host name.
    pub(crate) name: Option<String>,
    pub(crate) region: String,
    pub(crate) external: ipnet::Ipv4Net,
    /// A host of a cluster, and nothing else.
    pub(crate) node: Option<Host>,
    /// A controller of a cluster; `None`: the whole cloud is on this machine.
    pub(crate) controller: Option<Controller>,
    /// How often a controller saves its etcd into `snapshots/`; seconds, 0 is never.
    pub(crate) snapshot_interval_s: u64,
    /// So many snapshots are kept.
    pub(crate) snapshots: usize,
    /// 0: real hosts.
    pub(crate) simulate: u32,
    pub(crate) guest_image: Option<PathBuf>,
    /// Is what an image's bytes say its format, and nothing else?
    pub(crate) require_image_format_match: bool,
    /// Stores of images besides `local`.
    pub(crate) image_stores: Vec<image::Definition>,
    pub(crate) default_image_store: String,
    pub(crate) image_cache_gib: u64,
    pub(crate) web_download: bool,
    pub(crate) web_download_allow: Vec<ipnet::IpNet>,
    pub(crate) web_download_ports: Vec<u16>,
    /// May users give addresses of images' data?
    pub(crate) image_locations: bool,
    pub(crate) image_property_protections: Option<PathBuf>,
    /// Does the file name rules of the policy, and not roles?
    pub(crate) image_property_policies: bool,
    /// Pages that get the token of a login in the browser.
    pub(crate) trusted_dashboards: Vec<String>,
    /// Networks of identity providers that are not public.
    pub(crate) federation_networks: Vec<ipnet::IpNet>,
    /// Guests reach the world through this machine.
    pub(crate) nat: bool,
    /// Longest time from a server's creation to ACTIVE before it is an error; seconds.
    pub(crate) build_timeout_s: u64,
    /// Rules for passwords and accounts; the same at all controllers.
    pub(crate) security_compliance: identity::SecurityCompliance,
    /// How unified limits of domains and projects must fit: `flat` or `strict_two_level`; the same at all controllers.
    pub(crate) limit_model: identity::LimitModel,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 8774).into(),
            endpoint: None,
            store: Place::Sqlite,
            etcd_ca: None,
            etcd_cert: None,
            etcd_key: None,
            name: None,
            node: None,
            controller: None,
            snapshot_interval_s: 6 * 3600,
            snapshots: 4,
            region: "RegionOne".into(),
            external: ipnet::Ipv4Net::new_assert([172, 24, 4, 0].into(), 24),
            simulate: 0,
            guest_image: None,
            require_image_format_match: true,
            image_stores: Vec::new(),
            default_image_store: image::LOCAL.into(),
            image_cache_gib: 20,
            web_download: true,
            web_download_allow: Vec::new(),
            web_download_ports: vec![80, 443],
            image_locations: false,
            image_property_protections: None,
            image_property_policies: false,
            trusted_dashboards: Vec::new(),
            federation_networks: Vec::new(),
            nat: true,
            build_timeout_s: 300,
            security_compliance: identity::SecurityCompliance::default(),
            limit_model: identity::LimitModel::default(),
        }
    }
}

impl Config {
    /// The kept options, changed by what was given.
    pub(crate) fn load(state: &State, flags: &Flags) -> Result<Self, String> {
        let mut c = match std::fs::read(state.config()) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| format!("{} is not valid: {e}. Mend or remove it.", state.config().display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(e) => return Err(format!("{} cannot be read: {e}.", state.config().display())),
        };
        let f = flags.clone();
        c.listen = f.listen.unwrap_or(c.listen);
        c.endpoint = f.endpoint.or(c.endpoint);
        if let Some(store) = f.store {
            if state.config().exists() && store != c.store {
                return Err(format!("The cloud is in {}; stop it and move it with: drover store move {store}", c.store));
            }
            c.store = store;
        }
        c.etcd_ca = f.etcd_ca.or(c.etcd_ca);
        c.etcd_cert = f.etcd_cert.or(c.etcd_cert);
        c.etcd_key = f.etcd_key.or(c.etcd_key);
        c.name = f.name.or(c.name);
        c.external = f.external.unwrap_or(c.external);
        c.simulate = f.simulate.unwrap_or(c.simulate);
        c.guest_image = f.guest_image.or(c.guest_image);
        c.require_image_format_match =
            f.require_image_format_match || (c.require_image_format_match && !f.no_require_image_format_match);
        for new in &f.image_store {
            new.check().map_err(|e| format!("{}.", base::chain(&e)))?;
        }
        c.image_stores.retain(|kept| !f.no_image_store.contains(&kept.id) && f.image_store.iter().all(|new| new.id != kept.id));
        c.image_stores.extend(f.image_store);
        c.default_image_store = f.default_image_store.unwrap_or(c.default_image_store);
        c.image_cache_gib = f.image_cache.unwrap_or(c.image_cache_gib);
        c.web_download = f.web_download || (c.web_download && !f.no_web_download);
        if !f.web_download_allow.is_empty() {
            c.web_download_allow = f.web_download_allow;
        }
        if !f.web_download_port.is_empty() {
            c.web_download_ports = f.web_download_port;
        }
        c.image_locations |= f.image_locations;
        c.image_property_protections = f.image_property_protections.or(c.image_property_protections);
        c.image_property_policies |= f.image_property_policies;
        if !f.trusted_dashboard.is_empty() {
            c.trusted_dashboards = f.trusted_dashboard;
        }
        if !f.federation_network.is_empty() {
            c.federation_networks = f.federation_network;
        }
        c.nat = f.nat || (c.nat && !f.no_nat);
        c.security_compliance.check().map_err(|e| format!("{}: {}.", state.config().display(), base::chain(&e)))?;
        if c.external.prefix_len() > 28 {
            return Err(format!("External network {} is too small; give at least a /28.", c.external));
        }
        Ok(c)
    }
    pub(crate) fn save(&self, state: &State) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        state.write(&state.config(), text.as_bytes())
    }
    /// The name by which the cloud knows this machine.
    pub(crate) fn name(&self) -> String {
        self.name.clone().unwrap_or_else(crate::host::host_name)
    }
    /// Where clients are to go.
    pub(crate) fn endpoint(&self) -> String {
        let own = || match &self.controller {
            Some(controller) => controller.public_endpoint(),
            None => format!("http://{}", self.listen),
        };
        self.endpoint.clone().unwrap_or_else(own)
    }
    /// The APIs of the process on this machine, for commands that are given here.
    pub(crate) fn local_endpoint(&self) -> String {
        match &self.controller {
            Some(controller) => controller.local_endpoint(),
            None => format!("http://{}", self.listen),
        }
    }
    /// Where the process on this machine serves the APIs.
    pub(crate) fn listens(&self) -> Vec<SocketAddr> {
        match &self.controller {
            Some(controller) => controller.listens(),
            None => vec![self.listen],
        }
    }
    /// Who vouches for the APIs' certificates.
    pub(crate) fn ca(&self, state: &State) -> Option<PathBuf> {
        self.controller.as_ref().map(|_| pki::Files::of(&state.pki()).ca)
    }
    /// Does this machine run guests, for a cluster or for itself?
    pub(crate) fn has_guests(&self) -> bool {
        self.has_host() || self.node.as_ref().is_some_and(|node| node.network.is_some())
    }
    /// Is this machine a cloud by itself, and its host in the same process?
    pub(crate) fn has_host(&self) -> bool {
        self.controller.is_none() && self.node.is_none() && self.simulate == 0
    }
}

/// Where everything of a cloud lives: `$DROVER_STATE`.
#[derive(Clone, Debug)]
pub(crate) struct State(PathBuf);

impl State {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self(dir)
    }
    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }
    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("config.json")
    }
    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("drover.db")
    }
    pub(crate) fn keys(&self, kind: &str) -> PathBuf {
        self.0.join("keys").join(kind)
    }
    pub(crate) fn run(&self, what: &str) -> PathBuf {
        self.0.join("run").join(what)
    }
    /// The machine's certificate, its key and the cluster's authority.
    pub(crate) fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }
    /// What the controller's own member of etcd keeps.
    pub(crate) fn etcd(&self) -> PathBuf {
        self.0.join("etcd")
    }
    pub(crate) fn snapshots(&self) -> PathBuf {
        self.0.join("snapshots")
    }
    pub(crate) fn images(&self) -> PathBuf {
        self.0.join("images")
    }
    pub(crate) fn node(&self) -> PathBuf {
        self.0.join("node")
    }
    pub(crate) fn ovn(&self) -> PathBuf {
        self.0.join("ovn")
    }
    pub(crate) fn clouds_yaml(&self) -> PathBuf {
        self.0.join("clouds.yaml")
    }
    pub(crate) fn ssh_key(&self) -> PathBuf {
        self.0.join("demo_key")
    }
    /// The state directory itself can be entered by all (guests' processes are not root); what is secret is closed by itself.
    pub(crate) fn create(&self) -> Result<(), String> {
        let make = |dir: &Path, mode: u32| {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(dir)
                .map_err(|e| format!("Directory {} cannot be made: {e}. Run as root, or set DROVER_STATE.", dir.display()))
        };
        make(&self.0, 0o711)?;
        for (dir, mode) in [("keys", 0o700), ("secrets", 0o700), ("run", 0o711)] {
            make(&self.0.join(dir), mode)?;
        }
        Ok(())
    }
    /// Writes a file that only root reads, whole or not at all.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), String> {
        let next = path.with_extension("next");
        let write = || {
            let mut f = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
            f.write_all(bytes)?;
            f.sync_all()?;
            std::fs::rename(&next, path)
        };
        write().map_err(|e: std::io::Error| format!("{} cannot be written: {e}.", path.display()))
    }
    /// A password made at the first use.
    pub(crate) fn password(&self, of: &str) -> Result<String, String> {
        let path = self.0.join("secrets").join(of);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let password = base::id::hex();
                self.write(&path, password.as_bytes())?;
                Ok(password)
            }
            Err(e) => Err(format!("{} cannot be read: {e}. Run as the user that started the cloud.", path.display())),
        }
    }
}
