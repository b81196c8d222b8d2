//! A cloud with storage hosts that exist as rows only: the test says what they report.
use base::{Clock as _, ManualClock};
use reconcile::{Runner, TaskList};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use store::Table;
use testkit::{Answer, Client, Setup, TestCloud, until};

pub(crate) const VOLUMES: &str = "/volume/v3/volumes";

pub(crate) static NODES: Table = Table { name: "compute/nodes", indexes: &[] };
pub(crate) static SERVERS: Table = Table { name: "compute/servers", indexes: &[] };
static VOLUME_ROWS: Table = Table { name: "volume/volumes", indexes: &[] };
static SEEN: Table = Table { name: "volume/seen", indexes: &[] };
static PLUGGED: Table = Table { name: "volume/plugged", indexes: &[] };

pub(crate) struct Bed {
    pub(crate) cloud: TestCloud,
    pub(crate) admin: Client,
    pub(crate) member: Client,
    clock: Arc<ManualClock>,
    _runner: Runner,
}

impl Bed {
    pub(crate) async fn start() -> Self {
        let clock = Arc::new(ManualClock::at(base::SystemClock.now()));
        let services = vec![volume::service()];
        let tables: Vec<&'static Table> = vec![&SERVERS];
        let cloud = TestCloud::with(Setup { services, tables, clock: clock.clone(), ..Setup::default() }).await;
        volume::bootstrap(&cloud.cloud.db).await.unwrap();
        let mut runner = Runner::new(cloud.shards.clone(), Arc::new(TaskList::default()));
        volume::reconcilers(&cloud.cloud).into_iter().for_each(|r| runner.spawn(r));
        let version = |c: Client| c.header("OpenStack-API-Version", "volume 3.70");
        let (admin, member) = (version(cloud.admin().await), version(cloud.member("p").await));
        let bed = Self { cloud, admin, member, clock, _runner: runner };
        bed.host("host-0", 100).await;
        bed
    }

    /// A host with so many GiB for volumes.
    pub(crate) async fn host(&self, name: &str, gib: u64) {
        let row = json!({
            "id": name, "host": name, "state": "up", "forced_down": false, "volume_gib": gib, "volume_free_gib": gib,
            "last_seen": self.cloud.cloud.db.now().0,
        });
        self.put(&NODES, name, row).await;
    }

    pub(crate) async fn put(&self, table: &'static Table, id: &str, row: Value) {
        let id = id.to_owned();
        let done = self.cloud.cloud.db.transact(move |tx| {
            tx.put(table, &id, row.clone());
            Ok::<(), resource::Error>(())
        });
        done.await.unwrap();
    }

    pub(crate) async fn drop_row(&self, table: &'static Table, id: &str) {
        let id = id.to_owned();
        let done = self.cloud.cloud.db.transact(move |tx| {
            tx.delete(table, &id);
            Ok::<(), resource::Error>(())
        });
        done.await.unwrap();
    }

    /// The volume's row as nodes read it.
    pub(crate) async fn row(&self, id: &str) -> Value {
        self.cloud.cloud.db.fresh().await.unwrap();
        self.cloud.cloud.db.read().get(&VOLUME_ROWS, id).map(|r| r.value().clone()).unwrap_or(Value::Null)
    }

    /// What the storage node says of a volume: the newest intent is answered, and `more` is what differs from an empty volume.
    pub(crate) async fn report(&self, id: &str, state: &str, more: Value) {
        let row = self.row(id).await;
        let mut report = json!({
            "id": id, "revision": row["intent"], "state": state, "cause": null, "size_gib": row["size"], "generation": row["generation"],
            "snapshots": [], "exports": [], "uploads": {}, "host": row["host"],
        });
        report.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.put(&SEEN, id, report).await;
    }

    pub(crate) async fn ready(&self, id: &str) {
        self.report(id, "ready", json!({})).await;
    }

    /// An export as a report names it.
    pub(crate) fn export(attachment: &str) -> Value {
        json!({"attachment_id": attachment, "epoch": 1, "endpoint": "unix:/run/x", "export": format!("{attachment}.1")})
    }

    pub(crate) async fn plug(&self, attachment: &str, server: &str) {
        self.put(&PLUGGED, attachment, json!({"server_id": server, "host": "host-0", "epoch": 1})).await;
    }
    pub(crate) async fn unplug(&self, attachment: &str) {
        self.drop_row(&PLUGGED, attachment).await;
    }

    /// Lets time pass; the volume is looked at again, as it would be at its deadline.
    pub(crate) async fn pass(&self, id: &str, time: Duration) {
        self.clock.advance(time);
        self.report(id, "building", json!({"revision": 0})).await;
    }

    /// Lets time pass, and nothing else.
    pub(crate) fn clock_on(&self, time: Duration) {
        self.clock.advance(time);
    }

    pub(crate) async fn create(&self, body: Value) -> Answer {
        self.member.post(VOLUMES, json!({ "volume": body })).await
    }

    /// A volume that is there.
    pub(crate) async fn volume(&self, body: Value) -> String {
        let id = self.create(body).await.expect(202).text("/volume/id");
        self.ready(&id).await;
        self.status(&id, "available").await;
        id
    }

    pub(crate) async fn show(&self, id: &str) -> Value {
        self.member.get(&format!("{VOLUMES}/{id}")).await.expect(200).body["volume"].clone()
    }

    pub(crate) async fn status(&self, id: &str, wanted: &str) -> Value {
        let path = format!("{VOLUMES}/{id}");
        let is = |a: &Answer| a.at("/volume/status") == wanted;
        until(&format!("the volume is {wanted}"), || self.admin.get(&path), is).await.body["volume"].clone()
    }

    pub(crate) async fn gone(&self, path: &str) {
        until("it is gone", || self.admin.get(path), |a| a.status == 404).await;
    }

    pub(crate) async fn act(&self, id: &str, action: &str, value: Value) -> Answer {
        self.member.post(&format!("{VOLUMES}/{id}/action"), json!({ action: value })).await
    }

    /// Makes an attachment as the compute service does: in a transaction of its own, through the table.
    pub(crate) async fn attach(&self, volume: &str, server: &str, more: Value) -> resource::Result<String> {
        let mut input = json!({"volume_id": volume, "instance": server, "mountpoint": "/dev/vdb", "wanted": true});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let cx = self.compute_cx(volume).await;
        let made = self.cloud.cloud.db.transact(move |tx| {
            let def = cx.registry.get("volume/attachments")?;
            resource::engine::create(tx, def, &cx, input.as_object().unwrap())
        });
        Ok(made.await?.value["id"].as_str().unwrap().to_owned())
    }

    pub(crate) async fn detach(&self, attachment: &str) -> resource::Result<()> {
        let (cx, id) = (self.compute_cx(attachment).await, attachment.to_owned());
        let done = self.cloud.cloud.db.transact(move |tx| {
            let def = cx.registry.get("volume/attachments")?;
            resource::engine::update(tx, def, &cx, &id, json!({"wanted": false}).as_object().unwrap())
        });
        done.await?;
        Ok(())
    }

    async fn compute_cx(&self, why: &str) -> resource::Cx {
        let project = self.admin.get("/identity/v3/projects?name=p").await.expect(200).text("/projects/0/id");
        let admin = auth::Role { id: "admin".into(), name: "admin".into() };
        let mut caller = auth::Caller::internal(vec![admin], "somebody");
        caller.scope = auth::Scope::Project(auth::ProjectRef { id: project.as_str().into(), ..Default::default() });
        self.cloud.cloud.cx(Arc::new(caller), why)
    }

    /// The messages that users got about a volume.
    pub(crate) async fn messages(&self, id: &str) -> Vec<String> {
        let answer = self.member.get(&format!("/volume/v3/messages?resource_uuid={id}")).await.expect(200);
        answer.all("/messages", "user_message")
    }

    /// Use of the member's quotas: volumes, GiB, snapshots.
    pub(crate) async fn used(&self) -> (i64, i64, i64) {
        let limits = self.member.get("/volume/v3/limits").await.expect(200);
        let used = |key: &str| limits.body["limits"]["absolute"][key].as_i64().unwrap();
        (used("totalVolumesUsed"), used("totalGigabytesUsed"), used("totalSnapshotsUsed"))
    }
}
