//! Lists, filters, pages and versions of servers.
use crate::bed::{Bed, SERVERS};
use serde_json::json;

#[tokio::test]
async fn lists_filter_sort_and_page() {
    let bed = Bed::start(2).await;
    let mut ids = Vec::new();
    for name in ["alpha", "beta", "gamma"] {
        ids.push(bed.server(json!({ "name": name })).await);
    }
    let list = |query: &str| {
        let path = format!("{SERVERS}?{query}");
        let member = bed.member.clone();
        async move { member.get(&path).await }
    };
    assert_eq!(list("").await.expect(200).all("/servers", "name"), ["gamma", "beta", "alpha"], "the newest first");
    assert_eq!(list("name=^a").await.expect(200).all("/servers", "name"), ["alpha"]);
    assert_eq!(list("name=ta").await.expect(200).all("/servers", "name"), ["beta"]);
    assert_eq!(
        list("status=active&sort_key=display_name&sort_dir=asc").await.expect(200).all("/servers", "name"),
        ["alpha", "beta", "gamma"]
    );
    assert!(list("status=BLUE").await.expect(200).all("/servers", "id").is_empty());
    assert_eq!(list(&format!("image={}", bed.image)).await.expect(200).all("/servers", "id").len(), 3);
    assert!(list("flavor=small").await.expect(200).all("/servers", "id").is_empty());
    let page = list("limit=2").await.expect(200);
    assert_eq!(page.all("/servers", "name"), ["gamma", "beta"]);
    let next = page.text("/servers_links/0/href");
    let next = bed.member.get(next.strip_prefix(&bed.cloud.url).unwrap()).await.expect(200);
    assert_eq!(next.all("/servers", "name"), ["alpha"]);
    assert!(list("limit=0").await.expect(200).all("/servers", "id").is_empty());
    for bad in
        ["limit=-1", "limit=x", "marker=11111111-2222-4333-8444-555555555555", "changes-since=never", "sort_key=color", "_x=1"]
    {
        let answer = list(bad).await;
        // Unknown keys are left out for those who may not use all filters.
        assert_eq!(answer.status, if bad == "_x=1" { 200 } else { 400 }, "{bad}: {}", answer.body);
    }
    list("all_tenants=1").await.expect(403);
    let other = bed.cloud.member("q").await;
    assert!(other.get(SERVERS).await.expect(200).all("/servers", "id").is_empty());
    other.get(&format!("{SERVERS}/{}", ids[0])).await.expect(404);
    assert_eq!(bed.admin.get(&format!("{SERVERS}/detail?all_tenants=1&host=host-0")).await.expect(200).status, 200);
    assert!(bed.admin.get(SERVERS).await.expect(200).all("/servers", "id").is_empty(), "an administrator's own project");
    let addresses = bed.member.get(&format!("{SERVERS}/{}", ids[0])).await.expect(200);
    let ip = addresses.text("/server/addresses/n/0/addr");
    assert!(list(&format!("ip=^{}$", ip.replace('.', "%5C."))).await.expect(200).all("/servers", "id") == [ids[0].as_str()]);
}

#[tokio::test]
async fn attributes_come_with_their_versions() {
    let bed = Bed::start(1).await;
    let id = bed.server(json!({})).await;
    let show = |version: &'static str, admin: bool| {
        let client = if admin { bed.admin.clone() } else { bed.member.clone() };
        let path = format!("{SERVERS}/{id}");
        async move {
            client.header("openstack-api-version", &format!("compute {version}")).get(&path).await.expect(200).body["server"]
                .clone()
        }
    };
    let first = show("2.1", false).await;
    for absent in ["locked", "description", "tags", "OS-EXT-SRV-ATTR:host", "host_status"] {
        assert!(first.get(absent).is_none(), "{absent}");
    }
    let newest = show("latest", true).await;
    for present in [
        "locked",
        "description",
        "tags",
        "trusted_image_certificates",
        "server_groups",
        "locked_reason",
        "host_status",
        "pinned_availability_zone",
        "OS-EXT-SRV-ATTR:user_data",
    ] {
        assert!(newest.get(present).is_some(), "{present}");
    }
    assert_eq!((&newest["flavor"]["original_name"], &newest["host_status"]), (&json!("tiny"), &json!("UP")));
    assert_eq!(show("2.46", false).await["flavor"]["id"], "tiny");
    bed.admin.clone().header("openstack-api-version", "compute 2.9999").get(SERVERS).await.expect(406);
    let updated = bed.member.put(&format!("{SERVERS}/{id}"), json!({"server": {"name": " x"}})).await;
    assert_eq!(updated.status, 400);
    let updated = bed
        .member
        .put(&format!("{SERVERS}/{id}"), json!({"server": {"name": "renamed", "accessIPv4": "192.0.2.7"}}))
        .await
        .expect(200);
    assert_eq!((updated.at("/server/name"), updated.at("/server/accessIPv4")), (&json!("renamed"), &json!("192.0.2.7")));
    assert!(updated.at("/server/key_name").is_null() && updated.body["server"].get("key_name").is_none());
    bed.member.put(&format!("{SERVERS}/{id}"), json!({"server": {"description": "x"}})).await.expect(400);
}

#[tokio::test]
async fn a_password_that_a_guest_left_is_shown_until_it_is_cleared() {
    let bed = Bed::start(1).await;
    let id = bed.server(json!({})).await;
    let path = format!("{SERVERS}/{id}/os-server-password");
    assert_eq!(bed.member.get(&path).await.expect(200).body, json!({"password": ""}));
    let epoch = bed.nodes.join("host-0").await.assignments().borrow().servers[&id].epoch;
    let report = assign::PasswordReport { server_id: id.clone(), epoch, password: "cGFzcw==".into() };
    bed.nodes.join("host-0").await.report(vec![assign::Report::Password(report)]).await.unwrap();
    assert_eq!(bed.member.get(&path).await.expect(200).body, json!({"password": "cGFzcw=="}));
    let shown = bed.admin.get(&format!("{SERVERS}/{id}")).await.expect(200);
    assert!(!shown.body.to_string().contains("cGFzcw=="), "{}", shown.body);
    bed.cloud.member("q").await.get(&path).await.expect(404);
    for _ in 0..2 {
        bed.member.delete(&path).await.expect(204);
        assert_eq!(bed.member.get(&path).await.expect(200).body, json!({"password": ""}));
    }
}
