//! Members that Drover runs: made, joined, replaced, saved and restored, with TLS.
use crate::common::{SOON, free_url, put, settle, txn, wait_for};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::{path::Path, sync::Arc, time::Duration};
use store::{Range, Store};
use store_etcd::{
    Config, Etcd, Tls,
    member::{self, Alarms, Certificates, Cluster, Member, Restored, Spec},
};
use tempfile::TempDir;

/// What the certificates of those who may speak with members say.
const ALLOWED: &str = "controller.drover.internal";
const GRACE: Duration = Duration::from_secs(5);

/// A certificate authority that writes into a directory.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    file: std::path::PathBuf,
}
impl Ca {
    fn new(dir: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let file = dir.join(format!("{name}.pem"));
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }
    /// A certificate of one who may speak with members, and takes only such ones.
    fn issue(&self, dir: &Path, name: &str, host: &str) -> Certificates {
        Certificates { allowed: Some(ALLOWED.into()), ..self.sign(dir, name, &[host, ALLOWED, "127.0.0.1"]) }
    }
    fn sign(&self, dir: &Path, name: &str, names: &[&str]) -> Certificates {
        let key = KeyPair::generate().unwrap();
        // A member also checks where its peers come from, on loopback always from here.
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let (certificate_file, key_file) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        std::fs::write(&certificate_file, certificate).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        Certificates { ca: self.file.clone(), certificate: certificate_file, key: key_file, allowed: None }
    }
}

/// Ends the process with the value, also when the test fails.
struct Own(Member);
impl Drop for Own {
    fn drop(&mut self) {
        if let Ok(Some(id)) = self.0.running() {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(id.pid), nix::sys::signal::Signal::SIGKILL).ok();
        }
    }
}

fn member(dir: &Path, name: &str, ca: Option<&Ca>) -> Own {
    let (peer_url, client_url) = match ca {
        None => (free_url("http"), free_url("http")),
        Some(_) => (free_url("https"), free_url("https")),
    };
    let host = |url: &str| url.trim_start_matches("https://").rsplit_once(':').unwrap().0.to_owned();
    Own(Member::new(Spec {
        name: name.into(),
        data_dir: dir.join(name).join("data"),
        run_dir: dir.join(name).join("run"),
        peer_tls: ca.map(|ca| ca.issue(dir, &format!("{name}-peer"), &host(&peer_url))),
        client_tls: ca.map(|ca| ca.issue(dir, name, &host(&client_url))),
        peer_url,
        client_url,
        netns: None,
    }))
}

async fn bootstrap(members: &[&Own]) {
    let peers: Vec<_> = members.iter().map(|m| m.0.spec().peer()).collect();
    let mut all = tokio::task::JoinSet::new();
    for m in members {
        let (m, peers) = (m.0.clone(), peers.clone());
        all.spawn(async move { m.ensure_bootstrapped(&peers, "test").await });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap().unwrap();
    }
}

fn urls(members: &[&Own]) -> Vec<String> {
    members.iter().map(|m| m.0.spec().client_url.clone()).collect()
}

async fn open(members: &[&Own], tls: Option<Tls>) -> Arc<Etcd> {
    let config = Config { tls, ..Config::new("cloud", urls(members)).supervised() };
    Etcd::connect(config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_is_made_once_and_survives_its_restarts() {
    let dir = TempDir::new().unwrap();
    let m = member(dir.path(), "solo", None);
    assert!(matches!(m.0.ensure_running().await, Err(member::Error::NoData { .. })));
    let peers = [m.0.spec().peer()];
    let first = m.0.ensure_bootstrapped(&peers, "test").await.unwrap();
    let second = m.0.ensure_bootstrapped(&peers, "test").await.unwrap();
    assert_eq!((first.id, first.adopted, second.adopted, second.stale), (second.id, false, true, false));
    let s = open(&[&m], None).await;
    // As large as only members of ours take it.
    let many = (0..4000).map(|i| put(&format!("t/a/{i}"), &"x".repeat(1000))).collect();
    s.txn(txn(vec![], many)).await.unwrap();

    m.0.ensure_stopped(GRACE).await.unwrap();
    m.0.ensure_stopped(GRACE).await.unwrap();
    assert_eq!(m.0.running().unwrap(), None);
    let third = m.0.ensure_running().await.unwrap();
    assert!(!third.adopted && !m.0.ensure_running().await.unwrap().stale);
    wait_for("the store", || async { s.get("t/a/1").await.is_ok_and(|e| e.is_some()) }).await;
    s.txn(txn(vec![], vec![put("t/a/after", "1")])).await.unwrap();

    // A member under watch comes back by itself.
    let watched = m.0.watch().unwrap();
    let mut state = watched.state();
    tokio::time::timeout(SOON, state.wait_for(|s| s.running.is_some())).await.unwrap().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(third.id.pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    tokio::time::timeout(SOON, state.wait_for(|s| s.restarts > 0 && s.running.is_some())).await.unwrap().unwrap();
    wait_for("the store", || async { s.get("t/a/after").await.is_ok_and(|e| e.is_some()) }).await;

    // If its data go, it must not come back as an empty cluster.
    m.0.ensure_stopped(GRACE).await.unwrap();
    drop(watched);
    std::fs::remove_dir_all(&m.0.spec().data_dir).unwrap();
    let watched = m.0.watch().unwrap();
    let mut state = watched.state();
    let failed = tokio::time::timeout(SOON, state.wait_for(|s| s.last_error.is_some())).await.unwrap().unwrap().clone();
    assert!(failed.running.is_none() && !m.0.has_data(), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_with_tls_and_one_of_them_replaced() {
    let dir = TempDir::new().unwrap();
    let ca = Ca::new(dir.path(), "ca");
    let (a, b, c) = (member(dir.path(), "a", Some(&ca)), member(dir.path(), "b", Some(&ca)), member(dir.path(), "c", Some(&ca)));
    bootstrap(&[&a, &b, &c]).await;
    let tls: Tls = ca.issue(dir.path(), "client", "drover").into();
    let s = open(&[&a, &b, &c], Some(tls.clone())).await;
    s.txn(txn(vec![], vec![put("t/a/x", "1")])).await.unwrap();

    let stranger = Ca::new(dir.path(), "other-ca");
    let forged: Tls = Certificates { ca: ca.file.clone(), ..stranger.issue(dir.path(), "forged", "drover") }.into();
    for (what, bad) in [
        ("no certificate", Tls { identity: None, ..tls.clone() }),
        ("a certificate of another CA", forged),
        ("a certificate of our CA for others", ca.sign(dir.path(), "node", &["n1", "127.0.0.1"]).into()),
        ("a server that our CA does not know", Tls { ca: stranger.file.clone(), ..tls.clone() }),
    ] {
        let config = Config::new("cloud", urls(&[&a])).tls(bad);
        assert!(Etcd::connect(config).await.is_err(), "{what} must be refused");
    }

    // One that knew only a learns of b, and goes on without a.
    let config = Config { tls: Some(tls.clone()), ..Config::new("cloud", urls(&[&a])).supervised() };
    let learns = Etcd::connect(config).await.unwrap();
    assert!(!learns.follow(&urls(&[&a])).unwrap(), "nothing is other than before");
    assert!(learns.follow(&urls(&[&a, &b])).unwrap());
    let mut watch = learns.watch("", learns.revision().await.unwrap()).await.unwrap();
    a.0.ensure_stopped(GRACE).await.unwrap();
    let written = loop {
        // Refused for sure while there is no leader: then it may be repeated.
        if let Ok(Some(revision)) = settle(&*learns, txn(vec![], vec![put("t/a/without", "1")])).await {
            break revision;
        }
    };
    let seen = async { while watch.next().await.unwrap().revision < written {} };
    tokio::time::timeout(SOON, seen).await.unwrap();
    a.0.ensure_running().await.unwrap();
    // Certificates that changed in their files are shown by new connections.
    let renewed = ca.issue(dir.path(), "client", "drover");
    assert_eq!(renewed.certificate, tls.identity.clone().unwrap().0);
    assert!(learns.follow(&urls(&[&a, &b])).unwrap() && learns.get("t/a/without").await.unwrap().is_some());

    // The machine of c dies for good: another one takes its place with its name and address.
    c.0.ensure_stopped(GRACE).await.unwrap();
    std::fs::remove_dir_all(dir.path().join("c")).unwrap();
    let cluster = Cluster::new(&urls(&[&a, &b]), Some(&tls)).unwrap();
    c.0.ensure_joined(&cluster).await.unwrap();
    let again = c.0.ensure_joined(&cluster).await.unwrap();
    assert!(again.adopted, "to join again does no harm");
    let members = cluster.members().await.unwrap();
    assert_eq!((members.len(), members.iter().filter(|m| m.learner).count()), (3, 0));

    // A fourth one joins, and the cluster drops it: it notices and joins anew.
    let d = member(dir.path(), "d", Some(&ca));
    d.0.ensure_joined(&cluster).await.unwrap();
    let first = cluster.members().await.unwrap().into_iter().find(|m| m.name == "d").unwrap();
    cluster.ensure_removed(first.id).await.unwrap();
    cluster.ensure_removed(first.id).await.unwrap();
    d.0.ensure_joined(&cluster).await.unwrap();
    let second = cluster.members().await.unwrap().into_iter().find(|m| m.name == "d").unwrap();
    assert_ne!(first.id, second.id);

    let all = Cluster::new(&urls(&[&a, &b, &c, &d]), Some(&tls)).unwrap();
    let health: Vec<_> = all.health().await.into_iter().map(Result::unwrap).collect();
    assert_eq!(health.iter().filter(|h| h.leads).count(), 1);
    assert!(health.iter().all(|h| h.version.starts_with("3.") && !h.learner && h.errors.is_empty()));
    for m in [&c, &d] {
        let own = open(&[m], Some(tls.clone())).await;
        assert!(own.get("t/a/x").await.unwrap().is_some(), "the new member has the rows");
    }
    settle(&*s, txn(vec![], vec![put("t/a/end", "1")])).await.unwrap().expect("no doubt that ends badly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_becomes_a_new_cluster() {
    let dir = TempDir::new().unwrap();
    let m = member(dir.path(), "old", None);
    bootstrap(&[&m]).await;
    let s = open(&[&m], None).await;
    for i in 0..200 {
        s.txn(txn(vec![], vec![put(&format!("t/a/{i}"), &"x".repeat(1000))])).await.unwrap();
    }
    let file = dir.path().join("snapshot.db");
    let saved = member::save(&m.0.admin().unwrap(), &file).await.unwrap();
    assert_eq!(member::verify(&file).unwrap(), saved);
    assert!(!file.with_extension("part").exists());
    let before = s.range(Range { prefix: "", after: None, limit: 1000 }).await.unwrap();
    s.txn(txn(vec![], vec![put("t/a/later", "1")])).await.unwrap();
    let (newest, taken) = (before.entries.iter().map(|e| e.modified).max().unwrap(), member::revision(&file).await.unwrap());
    assert_eq!(taken, newest, "the last row's, and nothing later");
    let alarms = m.0.admin().unwrap().alarms().await.unwrap();
    assert_eq!(alarms, Alarms { no_space: 0, others: 0 });
    m.0.ensure_stopped(GRACE).await.unwrap();

    let mut bytes = std::fs::read(&file).unwrap();
    let (middle, damaged) = (bytes.len() / 2, dir.path().join("damaged.db"));
    bytes[middle] ^= 1;
    std::fs::write(&damaged, &bytes).unwrap();
    assert!(matches!(member::verify(&damaged), Err(member::Error::BadSnapshot { .. })));
    std::fs::write(&damaged, &bytes[..middle]).unwrap();
    assert!(matches!(member::verify(&damaged), Err(member::Error::BadSnapshot { .. })));

    let new = [member(dir.path(), "n1", None), member(dir.path(), "n2", None), member(dir.path(), "n3", None)];
    let peers: Vec<_> = new.iter().map(|m| m.0.spec().peer()).collect();
    assert!(member::ensure_restored(new[0].0.spec(), &damaged, &peers, "new").await.is_err());
    assert!(!new[0].0.has_data());
    for m in &new {
        assert_eq!(member::ensure_restored(m.0.spec(), &file, &peers, "new").await.unwrap(), Restored::Now);
        assert_eq!(member::ensure_restored(m.0.spec(), &file, &peers, "new").await.unwrap(), Restored::Before);
    }
    let refs: Vec<&Own> = new.iter().collect();
    bootstrap(&refs).await;
    let s = open(&refs, None).await;
    let after = s.range(Range { prefix: "", after: None, limit: 1000 }).await.unwrap();
    assert_eq!(before.entries, after.entries);
    s.txn(txn(vec![], vec![put("t/a/new", "1")])).await.unwrap();
}
