//! A project's network things: one of each, tagged.
use super::{Office, Things};
use serde_json::{Value, json};

pub(super) async fn furnish(mine: &Office<'_>, common: &Things, things: &mut Things) {
    let net = |path: &str| format!("/network/v2.0/{path}");
    let network = mine.make(&net("networks"), "network", json!({"name": "mine"})).await;
    let subnet = json!({"network_id": network, "cidr": "10.1.0.0/24", "ip_version": 4});
    let subnet = mine.make(&net("subnets"), "subnet", subnet).await;
    let second = json!({"network_id": network, "cidr": "10.2.0.0/24", "ip_version": 4});
    let second = mine.make(&net("subnets"), "subnet", second).await;
    let group = mine.make(&net("security-groups"), "security_group", json!({"name": "g"})).await;
    let rule = json!({"security_group_id": group, "direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22});
    things.put("security-group-rules", mine.make(&net("security-group-rules"), "security_group_rule", rule).await);
    things.put("security-groups", group);
    things.put(
        "ports",
        mine.make(&net("ports"), "port", json!({"network_id": network, "fixed_ips": [{"subnet_id": subnet}]})).await,
    );
    let external = common.get("external").unwrap();
    let gateway = json!({"name": "r", "external_gateway_info": {"network_id": external}});
    let router = mine.make(&net("routers"), "router", gateway).await;
    let plug = net(&format!("routers/{router}/add_router_interface"));
    mine.admin.put(&plug, json!({ "subnet_id": second })).await.expect(200);
    let routed = json!({"network_id": network, "fixed_ips": [{"subnet_id": second}]});
    things.put("routed", mine.make(&net("ports"), "port", routed).await);
    things.put("nexthop", "10.2.0.99");
    let floating =
        mine.admin.post(&net("floatingips"), json!({"floatingip": {"floating_network_id": external}})).await.expect(201);
    things.put("floatingips", floating.text("/floatingip/id"));
    things.put("floating_address", floating.text("/floatingip/floating_ip_address"));
    let pool = json!({"name": "pool", "prefixes": ["10.150.0.0/16"], "default_prefixlen": 26});
    things.put("subnetpools", mine.make(&net("subnetpools"), "subnetpool", pool).await);
    things.put("address-scopes", mine.make(&net("address-scopes"), "address_scope", json!({"name": "s", "ip_version": 4})).await);
    let addresses = json!({"name": "a", "addresses": ["192.0.2.0/24"]});
    things.put("address-groups", mine.make(&net("address-groups"), "address_group", addresses).await);
    // Shares a network of its own, so that the other one stays private.
    let given = mine.make(&net("networks"), "network", json!({"name": "given"})).await;
    let share = json!({"object_type": "network", "object_id": given, "action": "access_as_shared", "target_tenant": common.get("third").unwrap()});
    things.put("rbac-policies", mine.make(&net("rbac-policies"), "rbac_policy", share).await);
    for kind in [
        "networks",
        "subnets",
        "ports",
        "routers",
        "floatingips",
        "security-groups",
        "security-group-rules",
        "subnetpools",
        "address-groups",
    ] {
        let id = match kind {
            "networks" => network.clone(),
            "subnets" => subnet.clone(),
            "routers" => router.clone(),
            other => things.get(other).unwrap(),
        };
        mine.admin.put(&net(&format!("{kind}/{id}/tags/thing")), Value::Null).await.expect(201);
    }
    things.put("networks", network);
    things.put("subnets", subnet);
    things.put("plugged", second);
    things.put("routers", router);
}
