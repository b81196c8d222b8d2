//! A cloud with hosts: what the tests here start from.
use crate::common::{self, Work};
use compute::Nodes;
use image::blob::LocalStore;
use node::sim::{Delays, Sim, Size};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Memory, Store};
use tempfile::TempDir;
use testkit::{Answer, Client, Setup, TestCloud, until};

pub(crate) const SERVERS: &str = "/compute/v2.1/servers";

pub(crate) struct Bed {
    pub(crate) cloud: TestCloud,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) hosts: Vec<(Arc<node::Agent>, Arc<Sim>)>,
    pub(crate) admin: Client,
    pub(crate) member: Client,
    pub(crate) image: String,
    pub(crate) network: String,
    blobs: Arc<LocalStore>,
    dir: TempDir,
    work: Option<Work>,
}

/// One process of a cloud: APIs, reconcilers, and what the agents of hosts talk to.
pub(crate) struct Controller {
    pub(crate) cloud: TestCloud,
    pub(crate) nodes: Arc<Nodes>,
    work: Work,
}

impl Controller {
    async fn start(store: Arc<dyn Store>, blobs: &Arc<LocalStore>, keys: Option<Arc<TempDir>>) -> Self {
        let cloud = TestCloud::with(Setup { store, keys, ..common::setup(blobs) }).await;
        let work = Work::start(&cloud.cloud, &cloud.shards).await.unwrap();
        Self { cloud, nodes: work.nodes.clone(), work }
    }
}

pub(crate) const SIZE: Size = Size { vcpus: 4, memory_mib: 4096, disk_gib: 100 };

impl Bed {
    /// A cloud with so many hosts, an image, the flavors `tiny` and `small`, and a project with a network.
    pub(crate) async fn start(hosts: usize) -> Self {
        Self::on(Memory::new(), hosts).await
    }

    /// As [`Self::start`], on a given store.
    pub(crate) async fn on(store: Arc<dyn Store>, hosts: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Arc::new(LocalStore::open(dir.path().join("images")).unwrap());
        let Controller { cloud, nodes, work } = Controller::start(store, &blobs, None).await;
        let (admin, member) = (cloud.admin().await, cloud.member("p").await);
        let (image, network) = (String::new(), String::new());
        let mut bed = Self { cloud, nodes, hosts: Vec::new(), admin, member, image, network, blobs, dir, work: Some(work) };
        for i in 0..hosts {
            bed.add_host(&format!("host-{i}")).await;
        }
        for (name, ram, vcpus) in [("tiny", 256, 1), ("small", 512, 2)] {
            let flavor = json!({"id": name, "name": name, "ram": ram, "vcpus": vcpus, "disk": 1});
            bed.admin.post("/compute/v2.1/flavors", json!({ "flavor": flavor })).await.expect(200);
        }
        bed.image = bed.make_image(&bed.admin, "public").await;
        bed.network = bed.make_network(&bed.member, "n", "10.1.0.0/16").await;
        bed
    }

    /// Ends all work in the background: from now on only requests change rows.
    pub(crate) fn rest(&mut self) {
        self.work = None;
    }

    /// Another process of the same cloud, with a way of its own to the same store.
    pub(crate) async fn another(&self, store: Arc<dyn Store>) -> Controller {
        Controller::start(store, &self.blobs, Some(self.cloud.keys.clone())).await
    }

    pub(crate) async fn add_host(&mut self, name: &str) {
        self.add_host_at(name, &self.nodes.clone()).await;
    }

    /// A host whose agent talks to this process.
    pub(crate) async fn add_host_at(&mut self, name: &str, nodes: &Arc<Nodes>) {
        let dir = self.dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        let mut config = node::Config::new(dir, name);
        config.heavy_steps = 16;
        let uplink = nodes.join(name).await;
        let host = node::sim::start(config, SIZE, Delays::default(), uplink, self.blobs.clone());
        nodes.attach(name, host.0.clone());
        self.hosts.push(host);
        let path = "/compute/v2.1/os-hypervisors/detail";
        let admin = self.admin.clone();
        let is_there = |a: &Answer| {
            let list = a.body["hypervisors"].as_array().cloned().unwrap_or_default();
            list.iter().any(|h| h["hypervisor_hostname"] == name && h["vcpus"] == SIZE.vcpus)
        };
        until("the host has reported", || admin.get(path), is_there).await;
    }

    pub(crate) async fn make_image(&self, client: &Client, visibility: &str) -> String {
        let body = json!({"name": "i", "disk_format": "raw", "container_format": "bare", "visibility": visibility, "hw_rng_model": "virtio"});
        let id = client.post("/image/v2/images", body).await.expect(201).text("/id");
        client
            .send_bytes("PUT", &format!("/image/v2/images/{id}/file"), "application/octet-stream", b"*".repeat(1024).into())
            .await
            .expect(204);
        id
    }

    pub(crate) async fn make_network(&self, client: &Client, name: &str, cidr: &str) -> String {
        let id = client.post("/network/v2.0/networks", json!({"network": {"name": name}})).await.expect(201).text("/network/id");
        let subnet = json!({"network_id": id, "cidr": cidr, "ip_version": 4, "dns_nameservers": ["9.9.9.9"]});
        client.post("/network/v2.0/subnets", json!({ "subnet": subnet })).await.expect(201);
        id
    }

    /// A body with what every server needs.
    pub(crate) fn body(&self, more: Value) -> Value {
        let mut server = json!({"name": "s", "imageRef": self.image, "flavorRef": "tiny"});
        server.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "server": server })
    }

    pub(crate) async fn create(&self, more: Value) -> Answer {
        self.member.post(SERVERS, self.body(more)).await
    }

    /// A server that runs.
    pub(crate) async fn server(&self, more: Value) -> String {
        let id = self.create(more).await.expect(202).text("/server/id");
        self.status(&id, "ACTIVE").await;
        id
    }

    /// Waits until the server has this status and no task; gives it.
    pub(crate) async fn status(&self, id: &str, wanted: &str) -> Value {
        let path = format!("{SERVERS}/{id}");
        let settled = |a: &Answer| a.at("/server/status") == wanted && a.at("/server/OS-EXT-STS:task_state").is_null();
        until(&format!("server is {wanted}"), || self.admin.get(&path), settled).await.body["server"].clone()
    }

    pub(crate) async fn gone(&self, id: &str) {
        let path = format!("{SERVERS}/{id}");
        until("the server is gone", || self.admin.get(&path), |a| a.status == 404).await;
    }

    pub(crate) async fn act(&self, id: &str, action: &str, value: Value) -> Answer {
        self.member.post(&format!("{SERVERS}/{id}/action"), json!({ action: value })).await
    }

    /// What is held for servers: ports of computes, allocations, and use of quotas.
    pub(crate) async fn held(&self) -> (usize, usize, Vec<i64>) {
        let ports = self.admin.get("/network/v2.0/ports").await.expect(200);
        let ports = ports.all("/ports", "device_owner").iter().filter(|o| o.starts_with("compute:")).count();
        let quota = self.member.get("/compute/v2.1/limits").await.expect(200);
        let used = ["totalInstancesUsed", "totalCoresUsed", "totalRAMUsed"]
            .map(|k| quota.body["limits"]["absolute"][k].as_i64().unwrap());
        let mut allocations = 0;
        for host in self.admin.get("/placement/resource_providers").await.expect(200).all("/resource_providers", "uuid") {
            let on = self.admin.get(&format!("/placement/resource_providers/{host}/allocations")).await.expect(200);
            let usages = self.admin.get(&format!("/placement/resource_providers/{host}/usages")).await.expect(200);
            let consumers = on.body["allocations"].as_object().cloned().unwrap_or_default();
            let vcpus: i64 = consumers.values().map(|c| c["resources"]["VCPU"].as_i64().unwrap()).sum();
            assert_eq!(usages.at("/usages/VCPU"), &json!(vcpus), "use is the sum of allocations");
            allocations += consumers.len();
        }
        (ports, allocations, used.to_vec())
    }
}
