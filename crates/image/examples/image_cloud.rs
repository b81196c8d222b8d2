//! Serves identity and image on the memory store until Ctrl-C, for real clients and for Tempest.
//!
//! `image_cloud [ADDRESS [DIRECTORY [any-format]]]` listens on ADDRESS (default 127.0.0.1:8774), keeps blobs in and writes a clouds.yaml with
//! the cloud `drover-admin` into DIRECTORY (default: the working directory). With `any-format`, content of no known format is taken under any
//! `disk_format`, as Tempest's `image_format_enforcement = false` wants it.
use image::{Options, Sweeper, Uploads, blob::LocalStore};
use reconcile::{Runner, TaskList};
use std::{fs, path::PathBuf, sync::Arc};
use testkit::{ADMIN_PASSWORD, Setup, TestCloud};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:8774".into()).parse()?;
    let directory = PathBuf::from(args.next().unwrap_or_else(|| ".".into()));
    let options = Options { require_format: args.next().as_deref() != Some("any-format"), ..Options::default() };
    let blobs = Arc::new(LocalStore::open(directory.join("images"))?);
    let service = image::service_with(blobs.clone(), options);
    let cloud = TestCloud::with(Setup { address, services: vec![service], ..Setup::default() }).await;
    let mut runner = Runner::new(cloud.cloud.db.clone(), Arc::new(TaskList::default()));
    runner.spawn(Arc::new(Uploads));
    runner.spawn(Arc::new(Sweeper::new(blobs)));
    let admin = cloud.admin().await;
    for role in ["reader", "member"] {
        drop(cloud.user("demo", role).await);
    }
    admin.get("/image/v2/images").await.expect(200);
    let text = format!(
        "clouds:\n  drover-admin:\n    auth:\n      auth_url: {}/identity\n      username: admin\n      password: {ADMIN_PASSWORD}\n      \
         project_name: admin\n      user_domain_name: Default\n      project_domain_name: Default\n    region_name: RegionOne\n",
        cloud.url
    );
    fs::write(directory.join("clouds.yaml"), text)?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}
