//! A cloud with identity and image, and images in it.
use image::{Definition, Garbage, Imports, Options, Stores, Uploads, blob::LocalStore};
use reconcile::{Runner, TaskList};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use testkit::{Answer, Client, Setup, TestCloud};

pub(crate) const OCTETS: &str = "application/octet-stream";
pub(crate) const PATCH: &str = "application/openstack-images-v2.1-json-patch";

pub(crate) struct ImageCloud {
    pub(crate) cloud: TestCloud,
    pub(crate) blobs: Arc<LocalStore>,
    pub(crate) stores: Arc<Stores>,
    pub(crate) dir: TempDir,
    _runner: Option<Runner>,
}

/// Stores to be made in a directory.
pub(crate) type Configure<'a> = &'a dyn Fn(&Path) -> Vec<Definition>;

impl ImageCloud {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }
    pub(crate) async fn with(options: Options) -> Self {
        Self::configured(tempfile::tempdir().unwrap(), options, &|_| Vec::new(), "local").await
    }
    /// With further stores. Nothing works in the background yet.
    pub(crate) async fn configured(dir: TempDir, options: Options, stores: Configure<'_>, default: &str) -> Self {
        let blobs = Arc::new(LocalStore::open(dir.path().join("images")).unwrap());
        let stores = Stores::open(blobs.clone(), &stores(dir.path()), default).unwrap();
        let services = vec![image::service_with(stores.clone(), options)];
        let cloud = TestCloud::with(Setup { services, ..Setup::default() }).await;
        stores.attach(cloud.cloud.db.clone());
        Self { cloud, blobs, stores, dir, _runner: None }
    }
    /// Starts what works in the background.
    pub(crate) fn working(mut self, options: Options) -> Self {
        let mut runner = Runner::new(self.cloud.shards.clone(), Arc::new(TaskList::default()));
        runner.spawn(Arc::new(Imports::new(self.stores.clone(), options)));
        runner.spawn(Arc::new(Garbage::new(self.stores.clone())));
        runner.spawn(Arc::new(Uploads));
        self._runner = Some(runner);
        self
    }
    /// Files of uploads that are under way.
    pub(crate) fn incoming(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.dir.path().join("images/incoming")).unwrap().map(|e| e.unwrap().path()).collect()
    }
}

/// A queued raw image.
pub(crate) async fn queued(client: &Client, body: Value) -> String {
    let mut whole = json!({"name": "i", "disk_format": "raw", "container_format": "bare"});
    whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    client.post("/image/v2/images", whole).await.expect(201).text("/id")
}

pub(crate) async fn upload(client: &Client, id: &str, data: &'static [u8]) -> Answer {
    client.send_bytes("PUT", &format!("/image/v2/images/{id}/file"), OCTETS, data.into()).await
}

pub(crate) async fn show(client: &Client, id: &str) -> Answer {
    client.get(&format!("/image/v2/images/{id}")).await
}

pub(crate) async fn patch(client: &Client, id: &str, op: &str, path: &str, value: Value) -> Answer {
    let body = json!([{"op": op, "path": path, "value": value}]).to_string();
    client.send_bytes("PATCH", &format!("/image/v2/images/{id}"), PATCH, body.into()).await
}

/// Waits until the image has this status.
pub(crate) async fn status(client: &Client, id: &str, wanted: &str) {
    let mut last = String::new();
    let reached = async {
        loop {
            last = show(client, id).await.expect(200).text("/status");
            if last == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), reached).await;
    assert!(in_time.is_ok(), "the image is {last}, not {wanted}");
}
