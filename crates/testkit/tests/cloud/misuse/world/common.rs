//! What belongs to nobody.
use super::{Office, PASSWORD, Things};
use serde_json::{Value, json};

pub(super) async fn furnish(office: &Office<'_>, things: &mut Things) {
    let v3 = |path: &str| format!("/identity/v3/{path}");
    things.put("roles", office.role("spare").await);
    things.put("implies", office.role("implied").await);
    things.put("regions", office.make(&v3("regions"), "region", json!({"id": "spare"})).await);
    things.put("services", office.make(&v3("services"), "service", json!({"type": "spare", "name": "spare"})).await);
    let (region, service) = (things.get("regions").unwrap(), things.get("services").unwrap());
    let endpoint = json!({"interface": "public", "url": "http://192.0.2.1", "region_id": region, "service_id": service});
    things.put("endpoints", office.make(&v3("endpoints"), "endpoint", endpoint).await);
    let group = json!({"name": "g", "filters": {"interface": "public"}});
    things.put("endpoint_groups", office.make(&v3("OS-EP-FILTER/endpoint_groups"), "endpoint_group", group).await);
    things.put("policies", office.make(&v3("policies"), "policy", json!({"blob": "{}", "type": "text"})).await);
    things.put("consumers", office.make(&v3("OS-OAUTH1/consumers"), "consumer", json!({"description": "c"})).await);
    let federation = |path: &str| v3(&format!("OS-FEDERATION/{path}"));
    let rules = json!([{"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "sub"}]}]);
    let there = json!({"auth_url": "https://192.0.2.1/a", "sp_url": "https://192.0.2.1/s"});
    let oidc = json!({"issuer": "https://192.0.2.1", "client_id": "c"});
    for (kind, path, body) in [
        ("identity_provider", "identity_providers/spare", json!({"enabled": true})),
        ("mapping", "mappings/spare", json!({ "rules": rules })),
        ("service_provider", "service_providers/spare", there),
        ("protocol", "identity_providers/spare/protocols/openid", json!({"mapping_id": "spare", "oidc": oidc})),
    ] {
        office.admin.put(&federation(path), json!({ kind: body })).await.expect(201);
    }
    for key in ["identity_providers", "mappings", "service_providers"] {
        things.put(key, "spare");
    }
    for key in ["protocols", "websso"] {
        things.put(key, "openid");
    }
    for name in ["volume", "snapshot"] {
        let limit = json!({"service_id": service, "region_id": region, "resource_name": name, "default_limit": 10});
        let made = office.admin.post(&v3("registered_limits"), json!({"registered_limits": [limit]})).await.expect(201);
        things.put("registered_limits", made.text("/registered_limits/0/id"));
    }
    things.put("config", "identity");
    things.put("security_compliance", "password_regex");
    things.put("option", "driver");
    things.put("password", PASSWORD);

    let net = |path: &str| format!("/network/v2.0/{path}");
    let external = office.make(&net("networks"), "network", json!({"name": "public", "router:external": true})).await;
    let subnet = json!({"network_id": external, "cidr": "172.24.0.0/16", "ip_version": 4, "enable_dhcp": false});
    office.make(&net("subnets"), "subnet", subnet).await;
    things.put("external", external);
    things.put("extensions", "router");
    things.put("compute:extensions", "os-networks");

    let space = "/image/v2/metadefs/namespaces";
    office.admin.post(space, json!({"namespace": "space", "visibility": "public"})).await.expect(201);
    for (kind, body) in [
        ("properties", json!({"name": "thing", "title": "t", "type": "string"})),
        ("objects", json!({"name": "thing"})),
        ("tags", json!({"tags": [{"name": "thing"}]})),
        ("resource_types", json!({"name": "thing"})),
    ] {
        office.admin.post(&format!("{space}/space/{kind}"), body).await.expect(201);
    }
    things.put("namespaces", "space");
    for key in ["properties", "objects", "resource_types", "tags"] {
        things.put(key, "thing");
    }
    things.put("stores", "local");

    let (nova, admin) = ("/compute/v2.1", office.admin);
    things.put("flavors", "tiny");
    things.put("small", "small");
    admin.post(&format!("{nova}/flavors/tiny/os-extra_specs"), json!({"extra_specs": {"k": "v"}})).await.expect(200);
    things.put("os-extra_specs", "k");
    things.put("metadata", "k");
    things.put("os-aggregates", office.make(&format!("{nova}/os-aggregates"), "aggregate", json!({"name": "spare"})).await);
    let host = admin.get(&format!("{nova}/os-hypervisors")).await.expect(200);
    things.put("os-hypervisors", host.text("/hypervisors/0/id"));
    things.put("os-hosts", "host-0");
    let services = admin.get(&format!("{nova}/os-services")).await.expect(200);
    let is_host = |s: &&Value| s["binary"] == "nova-compute";
    let found = services.at("/services").as_array().and_then(|l| l.iter().find(is_host)).expect("a host is a service");
    things.put("os-services", found["id"].as_str().unwrap());
    things.put("versions", "v2.1");
    things.put("os-quota-class-sets", "default");
    things.put("os-instance_usage_audit_log", "2026-01-01%2000:00:00");
    let providers = admin.get("/placement/resource_providers").await.expect(200);
    things.put("host-provider", providers.text("/resource_providers/0/uuid"));
    let made = admin.post("/placement/resource_providers", json!({"name": "spare"})).await.expect(200);
    let provider = made.text("/uuid");
    admin.put("/placement/resource_classes/CUSTOM_GOLD", Value::Null).await.expect(201);
    admin.put("/placement/resource_classes/CUSTOM_SPARE", Value::Null).await.expect(201);
    admin.put("/placement/traits/CUSTOM_T", Value::Null).await.expect(201);
    let stock = json!({"resource_provider_generation": made.at("/generation"), "inventories": {"CUSTOM_GOLD": {"total": 5}}});
    let stocked = admin.put(&format!("/placement/resource_providers/{provider}/inventories"), stock).await.expect(200);
    things.put("resource_providers", provider);
    // Two consumers are about to come, each of which makes it grow.
    let generation = stocked.at("/resource_provider_generation").as_i64().unwrap() + 2;
    things.put("generation", generation.to_string());
    things.put("inventories", "CUSTOM_GOLD");
    things.put("resource_classes", "CUSTOM_SPARE");
    things.put("traits", "CUSTOM_T");
    things.put("consumer", base::id::uuid());
    for key in ["os-console-auth-tokens", "vnc", "agents", "tasks", "migrations", "os-assisted-volume-snapshots"] {
        things.put(key, base::id::uuid());
    }
    for gone in [
        "os-agents",
        "os-cells",
        "os-certificates",
        "os-cloudpipe",
        "os-fixed-ips",
        "os-floating-ip-dns",
        "entries",
        "os-floating-ips-bulk",
        "os-fping",
        "os-security-group-default-rules",
        "consoles",
    ] {
        things.put(gone, "gone");
    }
    things.put("why", "network");
    things.put("controllers", "test");
    let token = json!({"join_token": {"role": "node"}});
    let made = office.admin.post("/operator/v1/join-tokens", token).await.expect(201);
    things.put("join-tokens", made.text("/join_token/id"));
    things.put("openapi", "network");
}
