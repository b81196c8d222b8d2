//! One process of a whole cloud as tests run it: its services, what their handlers ask for, and its work in the background.
use api::{Cloud, Service};
use compute::Nodes;
use image::blob::LocalStore;
use reconcile::{Runner, Shards, TaskList};
use std::sync::Arc;
use testkit::{Prepare, Setup};
use tokio::task::JoinSet;

/// What makes it a whole cloud.
pub(crate) fn setup(blobs: &Arc<LocalStore>) -> Setup {
    let services: Vec<Service> = vec![
        operator::health(),
        operator::service_v1(),
        image::service(blobs.clone()),
        network::service(),
        placement::service(),
        compute::service(),
        volume::service(),
    ];
    let documents = Arc::new(operator::Documents::of(&services, "http://127.0.0.1"));
    let prepare: Prepare = Box::new(|shards: &Arc<Shards>, state: &mut resource::StateMap| {
        state.insert(Nodes::new(shards.clone()));
        state.insert(documents);
        state.insert(Arc::new(TaskList::default()));
        state.insert(Arc::new(operator::Gate { fingerprint: "f".repeat(64), address: "127.0.0.1:1".into() }));
    });
    Setup { services, prepare, ..Setup::default() }
}

/// What a process does besides answering requests. It stops when this is dropped.
pub(crate) struct Work {
    pub(crate) nodes: Arc<Nodes>,
    _follows: JoinSet<()>,
    _runner: Runner,
}

impl Work {
    pub(crate) async fn start(cloud: &Arc<Cloud>, shards: &Arc<Shards>) -> Result<Self, String> {
        volume::bootstrap(&cloud.db).await.map_err(|e| e.to_string())?;
        let nodes: Arc<Nodes> = cloud.state.get().ok_or("the state has no nodes")?;
        let mut follows = JoinSet::new();
        follows.spawn(nodes.clone().run(cloud.clone()));
        let mut runner = Runner::new(shards.clone(), Arc::new(TaskList::default()));
        compute::reconcilers(cloud).into_iter().for_each(|r| runner.spawn(r));
        volume::reconcilers(cloud).into_iter().for_each(|r| runner.spawn(r));
        Ok(Self { nodes, _follows: follows, _runner: runner })
    }
}
