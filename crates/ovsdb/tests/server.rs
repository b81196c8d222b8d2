//! Against a real `ovsdb-server` with OVN's northbound schema.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]
use ovsdb::{Client, Endpoint, Error, value};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

const DB: &str = "OVN_Northbound";
const SCHEMA: &str = "/usr/share/ovn/ovn-nb.ovsschema";
const WITHIN: Duration = Duration::from_secs(10);

struct Server {
    dir: tempfile::TempDir,
    child: Child,
}

impl Server {
    /// None, with a word about it, where OVN is not installed.
    async fn start() -> Option<Self> {
        if !Path::new(SCHEMA).exists() {
            println!("skipped: {SCHEMA} is missing; install ovn-central to run this test");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new("ovsdb-tool").arg("create").arg(dir.path().join("db")).arg(SCHEMA).status().unwrap();
        assert!(made.success());
        let child = Self::run(dir.path()).await;
        Some(Self { dir, child })
    }
    async fn run(dir: &Path) -> Child {
        let child = Command::new("ovsdb-server")
            .args(["--no-chdir", "-vconsole:off", "-vsyslog:off"])
            .arg(format!("--remote=punix:{}/s", dir.display()))
            .arg(format!("--unixctl={}/ctl", dir.display()))
            .arg(dir.join("db"))
            .env("OVS_RUNDIR", dir)
            .spawn()
            .unwrap();
        let until = tokio::time::Instant::now() + WITHIN;
        while tokio::net::UnixStream::connect(dir.join("s")).await.is_err() {
            assert!(tokio::time::Instant::now() < until, "ovsdb-server does not listen");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        child
    }
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
    fn client(&self) -> Client {
        let nobody = Endpoint::Unix(self.dir.path().join("nobody"));
        Client::new(vec![nobody, Endpoint::Unix(self.dir.path().join("s"))])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn insert(name: &str) -> Value {
    json!({"op": "insert", "table": "Logical_Switch", "row": {"name": name, "external_ids": value::map([("k", name)])}})
}

#[tokio::test]
async fn transactions_errors_and_a_replica() {
    let Some(server) = Server::start().await else { return };
    let client = server.client();
    let replica = client.monitor(DB, &[("Logical_Switch", &["name", "external_ids"])]).await.unwrap();
    let done = client.transact(DB, vec![insert("a"), insert("b")]).await.unwrap();
    let id = value::as_uuid(&done[0]["uuid"]).unwrap().to_owned();
    replica.wait(WITHIN, "two rows", |t| (t.len("Logical_Switch") == 2).then_some(())).await.unwrap();
    replica.read(|t| assert_eq!(value::lookup(&t.row("Logical_Switch", &id).unwrap()["external_ids"], "k"), Some("a")));

    let bad = json!({"op": "insert", "table": "Logical_Switch", "row": {"nome": "x"}});
    match client.transact(DB, vec![insert("c"), bad]).await {
        Err(Error::Operation { index: 1, op, table, text }) => {
            assert_eq!((op.as_str(), table.as_str()), ("insert", "Logical_Switch"));
            assert!(text.contains("nome"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    // A violation that only the commit sees is told as well.
    let port = |n: &str| json!({"op": "insert", "table": "Port_Group", "uuid-name": n, "row": {"name": "same"}});
    match client.transact(DB, vec![port("x"), port("y")]).await {
        Err(Error::Operation { op, .. }) => assert_eq!(op, "commit"),
        other => panic!("{other:?}"),
    }
    let gone = json!({"op": "delete", "table": "Logical_Switch", "where": [["_uuid", "==", value::uuid(&id)]]});
    client.transact(DB, vec![gone]).await.unwrap();
    replica.wait(WITHIN, "one row", |t| (t.len("Logical_Switch") == 1).then_some(())).await.unwrap();
    assert!(matches!(client.monitor(DB, &[("Nothing", &[])]).await, Err(Error::Refused { .. })));
    assert!(matches!(client.transact("Nowhere", vec![]).await, Err(Error::Refused { .. } | Error::Operation { .. })));
}

#[tokio::test]
async fn a_large_answer_and_many_callers() {
    let Some(server) = Server::start().await else { return };
    let client = server.client();
    let long = "x".repeat(300);
    client.transact(DB, (0..3000).map(|i| insert(&format!("{i}{long}"))).collect()).await.unwrap();
    let replica = client.monitor(DB, &[("Logical_Switch", &["name"])]).await.unwrap();
    assert_eq!(replica.read(|t| t.len("Logical_Switch")), 3000);
    let calls = (0..100).map(|i| {
        let client = client.clone();
        tokio::spawn(async move { client.transact(DB, vec![insert(&i.to_string())]).await.unwrap() })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    replica.wait(WITHIN, "all rows", |t| (t.len("Logical_Switch") == 3100).then_some(())).await.unwrap();
}

#[tokio::test]
async fn a_restarted_server_is_found_and_followed_again() {
    let Some(mut server) = Server::start().await else { return };
    let client = server.client();
    let replica = client.monitor(DB, &[("Logical_Switch", &["name"])]).await.unwrap();
    client.transact(DB, vec![insert("before")]).await.unwrap();
    let mut connected = client.connected();
    server.kill();
    tokio::time::timeout(WITHIN, connected.wait_for(|c| !c)).await.unwrap().unwrap();
    let quick = client.clone().within(Duration::from_millis(50));
    assert!(matches!(quick.transact(DB, vec![insert("never")]).await, Err(Error::Deadline { .. })));
    let path: PathBuf = server.dir.path().into();
    server.child = Server::run(&path).await;
    client.transact(DB, vec![insert("after")]).await.unwrap();
    let names = |t: &ovsdb::Tables| {
        let mut names: Vec<_> = t.rows("Logical_Switch").map(|(_, r)| r["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        (names == ["after", "before"]).then_some(())
    };
    replica.wait(WITHIN, "both rows and no other", names).await.unwrap();
}
