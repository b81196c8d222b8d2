//! A cloud with identity and network, and short ways to make what tests need.
#![allow(dead_code, reason = "each test file uses a part")]
use serde_json::{Value, json};
use std::sync::Arc;
use store::Store;
use testkit::{Client, Setup, TestCloud};

pub(crate) async fn cloud() -> TestCloud {
    cloud_on(store::Memory::new()).await
}

pub(crate) async fn cloud_on(store: Arc<dyn Store>) -> TestCloud {
    TestCloud::with(Setup { services: vec![network::service()], store, ..Setup::default() }).await
}

/// Makes one and gives what the cloud says of it.
pub(crate) async fn make(client: &Client, plural: &str, body: Value) -> Value {
    let name = plural.trim_end_matches('s').replace('-', "_").replace("rbac_policie", "rbac_policy");
    let answer = client.post(&format!("/network/v2.0/{plural}"), json!({ &name: body })).await.expect(201);
    answer.body[&name].clone()
}

pub(crate) fn id(row: &Value) -> String {
    row["id"].as_str().expect("an id").to_owned()
}

/// A network with one subnet; gives both ids.
pub(crate) async fn net(client: &Client, cidr: &str) -> (String, String) {
    let network = id(&make(client, "networks", json!({"name": "n"})).await);
    let version = if cidr.contains(':') { 6 } else { 4 };
    let body = json!({"network_id": network, "cidr": cidr, "ip_version": version});
    let subnet = id(&make(client, "subnets", body).await);
    (network, subnet)
}

/// An external network with a subnet without DHCP, made by an administrator.
pub(crate) async fn external(admin: &Client, cidr: &str) -> String {
    let network = id(&make(admin, "networks", json!({"name": "public", "router:external": true})).await);
    make(admin, "subnets", json!({"network_id": network, "cidr": cidr, "ip_version": 4, "enable_dhcp": false})).await;
    network
}

pub(crate) fn error(answer: &testkit::Answer) -> &str {
    answer.at("/NeutronError/type").as_str().unwrap_or_default()
}
