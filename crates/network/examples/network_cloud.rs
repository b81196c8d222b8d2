//! Serves identity and network on the memory store with a simulated data plane until Ctrl-C, for real clients and for Tempest.
//!
//! `serve [ADDRESS [DIRECTORY]]` listens on ADDRESS (default 127.0.0.1:8774) and writes a clouds.yaml with the cloud `drover-admin` into
//! DIRECTORY (default: the working directory). An external network `public` exists.
use serde_json::json;
use std::{fs, path::PathBuf};
use testkit::{ADMIN_PASSWORD, Setup, TestCloud};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:8774".into()).parse()?;
    let directory = PathBuf::from(args.next().unwrap_or_else(|| ".".into()));
    let cloud = TestCloud::with(Setup { address, services: vec![network::service()], ..Setup::default() }).await;
    let simulated = tokio::spawn(network::reconcile::run_sim(cloud.cloud.db.clone()));
    let admin = cloud.admin().await;
    for role in ["reader", "member"] {
        cloud.user("demo", role).await;
    }
    let body = json!({"network": {"name": "public", "router:external": true, "provider:network_type": "flat", "provider:physical_network": "public"}});
    let public = admin.post("/network/v2.0/networks", body).await.expect(201).text("/network/id");
    let v4 = json!({"network_id": public, "ip_version": 4, "cidr": "172.24.4.0/22", "enable_dhcp": false});
    let v6 = json!({"network_id": public, "ip_version": 6, "cidr": "2001:db8::/64", "enable_dhcp": false});
    admin.post("/network/v2.0/subnets", json!({ "subnets": [v4, v6] })).await.expect(201);
    let text = format!(
        "clouds:\n  drover-admin:\n    auth:\n      auth_url: {}/identity\n      username: admin\n      password: {ADMIN_PASSWORD}\n      \
         project_name: admin\n      user_domain_name: Default\n      project_domain_name: Default\n    region_name: RegionOne\n",
        cloud.url
    );
    fs::write(directory.join("clouds.yaml"), text)?;
    tokio::signal::ctrl_c().await?;
    simulated.abort();
    Ok(())
}
