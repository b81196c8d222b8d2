//! What stands behind a controller's `join`: who is let in, and what each role is given.
//!
//! A node gets a certificate. A controller gets what makes it the equal of the others: the authority's key, the keys and secrets that are
//! not in the store, and where the store is.
use crate::{
    config::{Config, State},
    controller::{LINK, Seat},
    engine::Place,
};
use api::Cloud;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use ipnet::IpNet;
use link::{Grant, JoinRequest, Refused};
use operator::Newcomer;
use pki::{Ca, Identity, Role};
use reconcile::MEMBERS;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Component, Path, PathBuf},
    sync::Arc,
};
use store_etcd::{
    Etcd,
    member::{self, MemberInfo},
};

/// Directories of the state that all controllers have in common.
const SHARED: [&str; 2] = ["keys", "secrets"];
/// Of a name: it becomes part of a DNS name.
const LONGEST: usize = 63;

/// What a controller is given besides its certificate.
#[derive(Serialize, Deserialize)]
pub(crate) struct Bequest {
    pub(crate) ca_key: String,
    /// Path below the state directory, and content (base64).
    files: BTreeMap<PathBuf, String>,
    pub(crate) store: Place,
    /// It is to have a member of etcd.
    pub(crate) own_etcd: bool,
    pub(crate) vip: Option<IpNet>,
    pub(crate) endpoint: Option<String>,
    pub(crate) region: String,
    /// A controller of an older version does not tell.
    #[serde(default)]
    pub(crate) security_compliance: identity::SecurityCompliance,
    #[serde(default)]
    pub(crate) limit_model: identity::LimitModel,
}

impl Bequest {
    fn of(state: &State, config: &Config, ca: &Ca) -> Result<Self, String> {
        let controller = config.controller.as_ref().ok_or("this process is no controller")?;
        let files = shared(state)?.into_iter().map(|(path, bytes)| (path, BASE64_STANDARD.encode(bytes))).collect();
        Ok(Self {
            ca_key: ca.key().to_owned(),
            files,
            store: config.store.clone(),
            own_etcd: controller.etcd != Seat::External,
            vip: controller.vip,
            endpoint: config.endpoint.clone(),
            region: config.region.clone(),
            security_compliance: config.security_compliance.clone(),
            limit_model: config.limit_model,
        })
    }

    /// Writes the files where they were.
    pub(crate) fn keep(&self, state: &State) -> Result<(), String> {
        for (path, content) in &self.files {
            if !is_shared(path) {
                return Err(format!(
                    "{} does not belong to what controllers share; the cluster is not to be trusted.",
                    path.display()
                ));
            }
            let bytes =
                BASE64_STANDARD.decode(content).map_err(|e| format!("{} came damaged: {e}. Join again.", path.display()))?;
            keep_shared(state, path, &bytes)?;
        }
        Ok(())
    }
}

/// The keys and secrets that are not in the store, by path below the state directory.
pub(crate) fn shared(state: &State) -> Result<BTreeMap<PathBuf, Vec<u8>>, String> {
    let mut files = BTreeMap::new();
    for dir in SHARED {
        read_all(state.dir(), Path::new(dir), &mut files)?;
    }
    Ok(files)
}

pub(crate) fn is_shared(path: &Path) -> bool {
    SHARED.iter().any(|dir| path.starts_with(dir)) && path.components().all(|c| matches!(c, Component::Normal(_)))
}

/// Writes one that [`is_shared`].
pub(crate) fn keep_shared(state: &State, path: &Path, bytes: &[u8]) -> Result<(), String> {
    let path = state.dir().join(path);
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|e| format!("Directory {} cannot be made: {e}.", dir.display()))?;
    }
    state.write(&path, bytes)
}

fn read_all(root: &Path, below: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<(), String> {
    let unreadable = |path: &Path, e: std::io::Error| format!("{} cannot be read: {e}", path.display());
    let dir = root.join(below);
    for entry in std::fs::read_dir(&dir).map_err(|e| unreadable(&dir, e))? {
        let entry = entry.map_err(|e| unreadable(&dir, e))?;
        let path = below.join(entry.file_name());
        if entry.path().is_dir() {
            read_all(root, &path, files)?;
        // One that is being written.
        } else if path.extension().is_none_or(|e| e != "next") {
            let bytes = std::fs::read(entry.path()).map_err(|e| unreadable(&path, e))?;
            files.insert(path, bytes);
        }
    }
    Ok(())
}

/// A name that certificates can bear.
pub(crate) fn valid_name(name: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if name.len() <= LONGEST && name.chars().all(good) && edge(name.chars().next()) && edge(name.chars().last()) {
        return Ok(name.to_owned());
    }
    Err(format!("{name:?} cannot be a machine's name; use at most {LONGEST} letters, digits, dots and dashes: --name NAME."))
}

/// See the module.
pub(crate) struct Admission {
    pub(crate) state: State,
    pub(crate) cloud: Arc<Cloud>,
    pub(crate) etcd: Option<Arc<Etcd>>,
}

impl Admission {
    pub(crate) async fn join(&self, request: JoinRequest) -> Result<Grant, Refused> {
        let role = [Role::Controller, Role::Node].into_iter().find(|r| r.to_string() == request.role);
        let role = role.ok_or_else(|| Refused(format!("{:?} is no role of a machine.", request.role)))?;
        let name = valid_name(&request.name).map_err(Refused)?;
        let key = pki::key_of(&request.csr).map_err(|e| Refused(base::chain(&e)))?;
        // Asked before, as a transaction cannot: who has a seat in etcd.
        let seats = match (role, &self.etcd) {
            (Role::Controller, Some(etcd)) if self.has_own_etcd()? => etcd.cluster().members().await.map_err(store_refused)?,
            (Role::Controller | Role::Node, _) => Vec::new(),
        };
        let newcomer = Newcomer { role, name: name.clone(), secret: pki::JoinToken::stored_of(&request.secret), key };
        let (address, taken_by) = (request.address, name.clone());
        let nodes = self.cloud.registry.get("compute/nodes").map_err(|e| Refused(e.to_string()))?;
        let free = move |tx: &mut store::Tx<'_>| is_free(tx, &nodes.table, role, &taken_by, address, &seats);
        operator::admit(&self.cloud.db, newcomer, free).await.map_err(|e| Refused(e.to_string()))?;
        tracing::info!(%role, name, %address, "The {role} {name} is let in");
        self.grant(role, name, request).map_err(Refused)
    }

    fn grant(&self, role: Role, name: String, request: JoinRequest) -> Result<Grant, String> {
        let config = Config::load(&self.state, &Default::default())?;
        let ca = Ca::load(&self.state.pki()).map_err(|e| base::chain(&e))?;
        // Only controllers are asked for by address; a node's word for its own is not enough to vouch for it.
        let vip = config.controller.as_ref().and_then(|c| c.vip).map(|vip| vip.addr());
        let addresses = match role {
            Role::Controller => [request.address, Ipv4Addr::LOCALHOST.into()].into_iter().chain(vip).collect(),
            Role::Node => Vec::new(),
        };
        let issued = ca.sign(&request.csr, &Identity { role, name }, &addresses).map_err(|e| base::chain(&e))?;
        let more = match role {
            Role::Controller => serde_json::to_value(Bequest::of(&self.state, &config, &ca)?).map_err(|e| e.to_string())?,
            Role::Node => serde_json::Value::Null,
        };
        Ok(Grant { certificate: issued.certificate_pem, ca: issued.ca_pem, controllers: self.lines(), more })
    }

    /// A new certificate for a machine that has shown its old one.
    pub(crate) async fn renew(&self, identity: &Identity, csr: &str) -> Result<String, Refused> {
        if identity.role == Role::Controller {
            return Err(Refused("A controller has the authority's key and renews its certificate by itself.".into()));
        }
        // One that was taken out of the cloud must not stay a machine of it for ever.
        self.cloud.db.fresh().await.map_err(|e| Refused(base::chain(&e)))?;
        let nodes = self.cloud.registry.get("compute/nodes").map_err(|e| Refused(e.to_string()))?;
        if !is_known(&self.cloud.db.read(), &nodes.table, &identity.name) {
            return Err(Refused(format!(
                "The cloud has no host {} any more, so its certificate is not renewed. Join again with a new token: drover join-token node",
                identity.name
            )));
        }
        let ca = Ca::load(&self.state.pki()).map_err(|e| Refused(base::chain(&e)))?;
        let issued = ca.sign(csr, identity, &[]).map_err(|e| Refused(base::chain(&e)))?;
        Ok(issued.certificate_pem)
    }

    /// Lines of all controllers, `host:port`: those of the store's members, and of those who live.
    pub(crate) fn lines(&self) -> Vec<String> {
        let config = Config::load(&self.state, &Default::default()).unwrap_or_default();
        let own = config.controller.as_ref().map(|c| c.link().to_string());
        let host = |member: &String| member.parse::<SocketAddr>().ok().map(|a| SocketAddr::new(a.ip(), LINK).to_string());
        let mut all: Vec<String> = match (&config.store, &config.controller) {
            (Place::Etcd { members, .. }, Some(c)) if c.etcd != Seat::External => members.iter().filter_map(host).collect(),
            _ => own.iter().cloned().collect(),
        };
        all.extend(reconcile::lines(&self.cloud.db.read()));
        all.sort_by_key(|line| (Some(line) != own.as_ref(), line.clone()));
        all.dedup();
        all
    }

    fn has_own_etcd(&self) -> Result<bool, Refused> {
        let config = Config::load(&self.state, &Default::default()).map_err(Refused)?;
        Ok(config.controller.is_some_and(|c| c.etcd != Seat::External))
    }
}

fn store_refused(e: member::Error) -> Refused {
    Refused(format!("The cluster cannot take machines now: {}.", base::chain(&e)))
}

/// May a machine that is not here yet have this name?
fn is_free(
    tx: &mut store::Tx<'_>,
    nodes: &store::Table,
    role: Role,
    name: &str,
    address: IpAddr,
    seats: &[MemberInfo],
) -> Result<(), resource::Error> {
    let taken = match role {
        Role::Controller => {
            let lives = tx.all(&MEMBERS).iter().any(|m| m.text("name") == name);
            // At the same address it is the machine that lost its data, or its replacement.
            let elsewhere = seats.iter().any(|s| s.name == name && !s.peer_urls.iter().any(|u| host_of(u) == Some(address)));
            lives || elsewhere
        }
        Role::Node => tx.all(nodes).iter().any(|n| n.text("host") == name && n.text("state") == "up"),
    };
    if taken {
        let text = format!("There is a {role} {name} already; choose another name, or remove that one first.");
        return Err(resource::Error::conflict(text));
    }
    Ok(())
}

/// Is the host among those of the cloud?
fn is_known(reader: &store::Reader<'_>, nodes: &store::Table, name: &str) -> bool {
    reader.all(nodes).any(|n| n.text("host") == name)
}

fn host_of(url: &str) -> Option<IpAddr> {
    url.split_once("://")?.1.trim_end_matches('/').parse::<SocketAddr>().ok().map(|a| a.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controllers_share_arrives_as_it_was() {
        let root = std::env::temp_dir().join(format!("drover-bequest-{}", std::process::id()));
        let (from, to) = (State::new(root.join("c1")), State::new(root.join("c2")));
        from.create().unwrap();
        to.create().unwrap();
        std::fs::create_dir_all(from.keys("identity")).unwrap();
        std::fs::write(from.keys("identity").join("0"), [0, 255, 7]).unwrap();
        std::fs::write(from.keys("identity").join("1.next"), "half").unwrap();
        let password = from.password("admin").unwrap();
        let controller =
            crate::controller::Controller { address: [10, 0, 0, 1].into(), vip: None, interface: None, etcd: Seat::Member };
        let config = Config { controller: Some(controller), ..Config::default() };
        let bequest = Bequest::of(&from, &config, &Ca::create("c").unwrap()).unwrap();
        let sent = serde_json::to_string(&bequest).unwrap();
        serde_json::from_str::<Bequest>(&sent).unwrap().keep(&to).unwrap();
        assert_eq!(std::fs::read(to.keys("identity").join("0")).unwrap(), [0, 255, 7]);
        assert_eq!(to.password("admin").unwrap(), password);
        assert!(!to.keys("identity").join("1.next").exists());

        for evil in ["keys/../../x", "/etc/x", "run/x", ""] {
            let files = BTreeMap::from([(PathBuf::from(evil), String::new())]);
            assert!(Bequest { files, ..serde_json::from_str(&sent).unwrap() }.keep(&to).is_err(), "{evil}");
        }
        std::fs::remove_dir_all(root).unwrap();
    }

    #[tokio::test]
    async fn only_hosts_of_the_cloud_are_known() {
        static NODES: store::Table = store::Table { name: "compute/nodes", indexes: &[] };
        let db = store::Db::open(store::Memory::new(), Arc::new(base::SystemClock), &[&NODES]).await.unwrap();
        let put = db.transact(|tx| {
            tx.put(&NODES, "1", serde_json::json!({ "host": "n1", "state": "down" }));
            Ok::<_, store::StoreError>(())
        });
        put.await.unwrap();
        assert!(is_known(&db.read(), &NODES, "n1") && !is_known(&db.read(), &NODES, "n2"));
    }

    #[test]
    fn names_are_parts_of_dns_names() {
        for good in ["c1", "rack-7.node_3", "a"] {
            valid_name(good).unwrap();
        }
        for wrong in ["", "c 1", "-c", "c.", "c/1", "ü", &"x".repeat(64)] {
            assert!(valid_name(wrong).is_err(), "{wrong}");
        }
    }
}
