//! What is there before anything fails: a project with a user, flavors, quotas that are reached, networks and an image.
use crate::{
    chance::Dice,
    clients::Common,
    controller::Controller,
    door::{Asked, Door},
    trace::Trace,
};
use image::blob::LocalStore;
use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc};
use store::Memory;
use tempfile::TempDir;
use testkit::ADMIN_PASSWORD;

/// The rows, and what goes with them.
pub(crate) struct Ground {
    pub(crate) memory: Arc<Memory>,
    pub(crate) blobs: Arc<LocalStore>,
    pub(crate) keys: Arc<TempDir>,
    pub(crate) common: Common,
    /// Of members, each of a project of its own.
    pub(crate) tokens: Vec<String>,
    /// The administrator's.
    pub(crate) admin: String,
}

/// Makes it through a controller that is gone afterwards.
pub(crate) async fn furnish(dir: PathBuf) -> Ground {
    let blobs = Arc::new(LocalStore::open(dir.join("images")).unwrap());
    let keys = Arc::new(tempfile::Builder::new().prefix("keys").rand_bytes(0).tempdir_in(dir).unwrap());
    let memory = Memory::new();
    let trace = Arc::new(Trace::new(None));
    let first = Controller::new(9, 0, &trace, &memory, None, &blobs, &keys);
    first.start().await;
    let door =
        |token: String| Door { trace: trace.clone(), controllers: vec![first.clone()], dice: Arc::new(Dice::new(0, 3)), token };
    let login = async |user: &str, password: &str, project: &str| {
        let domain = json!({"id": "default"});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {"name": user, "domain": domain, "password": password}}},
            "scope": {"project": {"name": project, "domain": domain}},
        }});
        let answer = door(String::new()).send(&Asked::new("POST", "/identity/v3/auth/tokens", body)).await.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.headers["x-subject-token"].to_str().unwrap().to_owned()
    };
    let admin = door(login("admin", ADMIN_PASSWORD, "admin").await);
    let ask = async |door: &Door, method: &str, path: &str, body: Value| {
        let answer = door.send(&Asked::new(method, path, body)).await.unwrap();
        assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.body);
        answer.body
    };
    let id = |body: &Value, kind: &str| body[kind]["id"].as_str().unwrap().to_owned();
    let roles = ask(&admin, "GET", "/identity/v3/roles", Value::Null).await;
    let role_of = |name: &str| {
        let role = roles["roles"].as_array().unwrap().iter().find(|r| r["name"] == name).unwrap();
        role["id"].as_str().unwrap().to_owned()
    };
    let (mut tokens, mut projects) = (Vec::new(), Vec::new());
    // The second may ask for addresses of the first one's network, as an administrator.
    for (name, role) in [("p", role_of("member")), ("q", role_of("admin"))] {
        let project = id(&ask(&admin, "POST", "/identity/v3/projects", json!({"project": {"name": name}})).await, "project");
        let user = json!({"user": {"name": name, "password": "the user's password"}});
        let user = id(&ask(&admin, "POST", "/identity/v3/users", user).await, "user");
        ask(&admin, "PUT", &format!("/identity/v3/projects/{project}/users/{user}/roles/{role}"), Value::Null).await;
        projects.push(project.clone());
        tokens.push(login(name, "the user's password", name).await);
        // Quotas that are reached.
        let quota = json!({"quota": {"port": 20, "network": 4, "floatingip": 4}});
        ask(&admin, "PUT", &format!("/network/v2.0/quotas/{project}"), quota).await;
        let quota = json!({"quota_set": {"instances": 8, "cores": 11}});
        ask(&admin, "PUT", &format!("/compute/v2.1/os-quota-sets/{project}"), quota).await;
    }
    for (name, ram, vcpus) in [("tiny", 256, 1), ("small", 512, 2)] {
        let flavor = json!({"id": name, "name": name, "ram": ram, "vcpus": vcpus, "disk": 1});
        ask(&admin, "POST", "/compute/v2.1/flavors", json!({ "flavor": flavor })).await;
    }
    let public = json!({"network": {"name": "public", "router:external": true}});
    let public = id(&ask(&admin, "POST", "/network/v2.0/networks", public).await, "network");
    let subnet = json!({"subnet": {"network_id": public, "cidr": "203.0.113.0/28", "ip_version": 4}});
    ask(&admin, "POST", "/network/v2.0/subnets", subnet).await;
    let network = json!({"network": {"name": "n", "shared": true, "project_id": projects[0]}});
    let network = id(&ask(&admin, "POST", "/network/v2.0/networks", network).await, "network");
    let subnet = json!({"subnet": {"network_id": network, "cidr": "10.1.0.0/26", "ip_version": 4}});
    let subnet = id(&ask(&admin, "POST", "/network/v2.0/subnets", subnet).await, "subnet");
    let router = json!({"router": {"name": "r", "external_gateway_info": {"network_id": public}}});
    let router = id(&ask(&admin, "POST", "/network/v2.0/routers", router).await, "router");
    let interface = json!({ "subnet_id": subnet });
    ask(&admin, "PUT", &format!("/network/v2.0/routers/{router}/add_router_interface"), interface).await;

    let image = json!({"name": "i", "disk_format": "raw", "container_format": "bare", "visibility": "public"});
    let image = ask(&admin, "POST", "/image/v2/images", image).await["id"].as_str().unwrap().to_owned();
    first.upload(&admin.token, &image, &[42; 512]).await;
    Ground { memory, blobs, keys, common: Common { image, network, public }, tokens, admin: admin.token }
}
