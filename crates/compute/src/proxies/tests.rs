//! The API of this module over HTTP.
use crate::{common::PROVIDERS, resources::Node};
use resource::{Object, Resource as _};
use serde_json::{Value, json};
use testkit::{Client, Setup, TestCloud};

static TABLES: [&store::Table; 2] = [&PROVIDERS, &crate::common::ALLOCATIONS];

async fn cloud() -> TestCloud {
    TestCloud::with(Setup { services: vec![crate::service()], tables: TABLES.to_vec(), ..Setup::default() }).await
}

fn at(client: &Client, version: &str) -> Client {
    client.clone().header("openstack-api-version", &format!("compute {version}"))
}

const NODE: &str = "11111111-1111-4111-8111-111111111111";

/// A host as its agent would have reported it.
async fn add_node(cloud: &TestCloud, host: &'static str) {
    let done = cloud.cloud.db.transact(move |tx| -> resource::Result<()> {
        let node = Node {
            host: host.into(),
            number: 1,
            state: "up".into(),
            hypervisor_type: "QEMU".into(),
            hypervisor_version: 7_002_000,
            vcpus: 4,
            memory_mib: 8192,
            disk_gib: 100,
            disk_free_gib: 60,
            host_ip: "192.0.2.1".into(),
            up_since: tx.now.0,
            ..Node::default()
        };
        let row = Object::new(NODE, None, node, tx.now, "").into_map()?;
        tx.put(&Node::DEF.table, NODE, row.into());
        tx.put(
            &PROVIDERS,
            NODE,
            json!({ "id": NODE, "generation": 0, "aggregates": [], "used": { "VCPU": 1, "MEMORY_MB": 512 } }),
        );
        Ok(())
    });
    done.await.expect("a node");
}

#[tokio::test]
async fn versions_are_found_without_a_token() {
    let cloud = cloud().await;
    let anybody = cloud.anonymous();
    let list = anybody.get("/compute/").await.expect(200);
    assert_eq!(list.all("/versions", "id"), ["v2.0", "v2.1"]);
    for (i, path) in ["/compute/v2/", "/compute/v2.1/"].into_iter().enumerate() {
        let one = anybody.get(path).await.expect(200);
        assert_eq!(one.at("/version/links/0"), &list.body["versions"][i]["links"][0]);
        assert_eq!(one.text("/version/links/0/href"), format!("{}{path}", cloud.url));
    }
    let reader = cloud.user("p", "reader").await;
    reader.get("/compute/v2/flavors").await.expect(200);
    reader.get("/compute/v2.1/versions/v2.1").await.expect(200);
    reader.get("/compute/v2.1/os-cells").await.expect(410);
}

#[tokio::test]
async fn flavors_have_ids_names_and_versions() {
    let cloud = cloud().await;
    let admin = cloud.admin().await;
    let create = |body: Value| {
        let admin = admin.clone();
        async move { admin.post("/compute/v2.1/flavors", json!({ "flavor": body })).await }
    };
    let small = json!({"name": "small", "ram": "512", "vcpus": 1, "disk": 1, "id": 7, "OS-FLV-EXT-DATA:ephemeral": 2});
    let made = create(small.clone()).await.expect(200);
    assert_eq!((made.text("/flavor/id"), made.at("/flavor/ram"), made.at("/flavor/swap")), ("7".into(), &json!(512), &json!("")));
    assert!(made.at("/flavor/description").is_null() && made.body["flavor"].get("description").is_none());
    create(small).await.expect(409);
    let again = create(json!({"name": "small", "ram": 1, "vcpus": 1, "disk": 0})).await.expect(409);
    assert_eq!(again.text("/conflictingRequest/message"), "Flavor with name small already exists.");
    create(json!({"name": "x", "ram": 0, "vcpus": 1, "disk": 0})).await.expect(400);
    create(json!({"name": "x", "ram": 1, "vcpus": 1, "disk": 0, "new": 1})).await.expect(400);
    create(json!({"name": "x", "ram": 1, "vcpus": 1, "disk": 0, "description": "d"})).await.expect(400);

    let show = |v: &'static str| {
        let client = at(&admin, v);
        async move { client.get("/compute/v2.1/flavors/7").await.expect(200).body["flavor"].clone() }
    };
    assert_eq!(show("2.61").await["extra_specs"], json!({}));
    assert_eq!(show("2.75").await["swap"], json!(0));
    let described = json!({"flavor": {"description": "small one"}});
    admin.put("/compute/v2.1/flavors/7", described.clone()).await.expect(404);
    at(&admin, "2.55").put("/compute/v2.1/flavors/7", described).await.expect(200);
    assert_eq!(at(&admin, "2.55").get("/compute/v2.1/flavors").await.expect(200).text("/flavors/0/description"), "small one");

    let specs = "/compute/v2.1/flavors/7/os-extra_specs";
    admin.post(specs, json!({"extra_specs": {"k1": "v1", "hw:cpu_policy": "nonsense"}})).await.expect(200);
    at(&admin, "2.86").post(specs, json!({"extra_specs": {"hw:cpu_policy": "nonsense"}})).await.expect(400);
    admin.put(&format!("{specs}/k1"), json!({"k2": "v"})).await.expect(400);
    admin.put(&format!("{specs}/k1"), json!({"k1": "v2"})).await.expect(200);
    let reader = cloud.user("p", "reader").await;
    assert_eq!(reader.get(&format!("{specs}/k1")).await.expect(200).body, json!({"k1": "v2"}));
    reader.delete(&format!("{specs}/k1")).await.expect(403);
    admin.delete(&format!("{specs}/k1")).await.expect(200);
    admin.delete(&format!("{specs}/k1")).await.expect(404);
    admin.delete("/compute/v2.1/flavors/7").await.expect(202);
    admin.delete("/compute/v2.1/flavors/7").await.expect(404);
}

#[tokio::test]
async fn private_flavors_are_for_those_who_have_access() {
    let cloud = cloud().await;
    let (admin, member) = (cloud.admin().await, cloud.member("p").await);
    let private = json!({"name": "private", "ram": 64, "vcpus": 1, "disk": 0, "id": "f", "os-flavor-access:is_public": "False"});
    admin.post("/compute/v2.1/flavors", json!({ "flavor": private })).await.expect(200);
    let flavor = "/compute/v2.1/flavors/f";
    member.get(flavor).await.expect(404);
    let names = |c: &Client, query: &'static str| {
        let c = c.clone();
        async move { c.get(&format!("/compute/v2.1/flavors{query}")).await.expect(200).all("/flavors", "id") }
    };
    assert!(names(&admin, "").await.is_empty());
    assert_eq!(names(&admin, "?is_public=None").await, ["f"]);
    assert!(names(&member, "?is_public=None").await.is_empty());
    admin.get("/compute/v2.1/flavors?is_public=maybe").await.expect(400);

    let projects = admin.get("/identity/v3/projects?name=p").await.expect(200);
    let project = projects.text("/projects/0/id");
    let add = json!({"addTenantAccess": {"tenant": project}});
    member.post(&format!("{flavor}/action"), add.clone()).await.expect(403);
    admin.post(&format!("{flavor}/action"), json!({"addTenantAccess": {"tenant": "nobody"}})).await.expect(400);
    let access = admin.post(&format!("{flavor}/action"), add.clone()).await.expect(200);
    assert_eq!(access.body, json!({"flavor_access": [{"flavor_id": "f", "tenant_id": project}]}));
    admin.post(&format!("{flavor}/action"), add).await.expect(409);
    member.get(flavor).await.expect(200);
    assert_eq!(names(&member, "").await, ["f"]);
    let remove = json!({"removeTenantAccess": {"tenant": project}});
    admin.post(&format!("{flavor}/action"), remove.clone()).await.expect(200);
    admin.post(&format!("{flavor}/action"), remove).await.expect(404);
    admin.post(&format!("{flavor}/action"), json!({"unknown": {}})).await.expect(400);
}

#[tokio::test]
async fn keypairs_belong_to_users() {
    let cloud = cloud().await;
    let (admin, member, other) = (cloud.admin().await, cloud.member("p").await, cloud.member("q").await);
    let keys = "/compute/v2.1/os-keypairs";
    let new = |name: &str| json!({"keypair": {"name": name}});
    let made = member.post(keys, new("k")).await.expect(200);
    assert!(made.text("/keypair/private_key").contains("PRIVATE KEY"));
    assert!(made.body["keypair"].get("type").is_none());
    let user = made.text("/keypair/user_id");
    member.post(keys, new("k")).await.expect(409);
    member.post(keys, new("k_/.\\@:")).await.expect(400);
    member.post(keys, json!({"keypair": {"name": "j", "public_key": "ssh-rsa JUNK nova@ubuntu"}})).await.expect(400);
    let public = made.text("/keypair/public_key");
    let imported = at(&member, "2.92").post(keys, json!({"keypair": {"name": "a@b", "public_key": public}})).await.expect(201);
    assert_eq!(imported.text("/keypair/fingerprint"), made.text("/keypair/fingerprint"));
    assert!(imported.body["keypair"].get("private_key").is_none());
    at(&member, "2.92").post(keys, new("l")).await.expect(400);

    let shown = at(&member, "2.2").get(&format!("{keys}/k")).await.expect(200);
    assert_eq!((shown.text("/keypair/type"), shown.at("/keypair/deleted")), ("ssh".into(), &json!(false)));
    assert!(shown.at("/keypair/id").is_i64() && shown.at("/keypair/updated_at").is_null());
    other.get(&format!("{keys}/k")).await.expect(404);
    at(&other, "2.10").get(&format!("{keys}?user_id={user}")).await.expect(403);
    let theirs = at(&admin, "2.10").get(&format!("{keys}?user_id={user}")).await.expect(200);
    assert_eq!(theirs.body["keypairs"].as_array().map(Vec::len), Some(2));
    let page = at(&member, "2.35").get(&format!("{keys}?limit=1")).await.expect(200);
    assert_eq!(page.text("/keypairs/0/keypair/name"), "a@b");
    assert!(page.text("/keypairs_links/0/href").contains("marker=a%40b"));
    at(&member, "2.35").get(&format!("{keys}?marker=nothing")).await.expect(400);
    at(&member, "2.75").get(&format!("{keys}?unknown=1")).await.expect(400);
    at(&member, "2.2").delete(&format!("{keys}/k")).await.expect(204);
    member.delete(&format!("{keys}/k")).await.expect(404);
}

#[tokio::test]
async fn server_groups_change_their_shape_and_count() {
    let cloud = cloud().await;
    let (admin, member, other) = (cloud.admin().await, cloud.member("p").await, cloud.member("q").await);
    let groups = "/compute/v2.1/os-server-groups";
    let made = member.post(groups, json!({"server_group": {"name": "g", "policies": ["affinity"]}})).await.expect(200);
    assert_eq!(made.body["server_group"]["policies"], json!(["affinity"]));
    assert_eq!(made.body["server_group"].as_object().map(|o| o.len()), Some(5));
    member.post(groups, json!({"server_group": {"name": "g", "policies": ["soft-affinity"]}})).await.expect(400);
    at(&member, "2.15").post(groups, json!({"server_group": {"name": "g", "policies": ["soft-affinity"]}})).await.expect(200);
    let ruled = json!({"server_group": {"name": "r", "policy": "anti-affinity", "rules": {"max_server_per_host": "3"}}});
    let made64 = at(&member, "2.64").post(groups, ruled).await.expect(200);
    assert_eq!(made64.body["server_group"]["rules"], json!({"max_server_per_host": 3}));
    let wrong = json!({"server_group": {"name": "r", "policy": "affinity", "rules": {"max_server_per_host": 3}}});
    at(&member, "2.64").post(groups, wrong).await.expect(400);
    assert_eq!(member.get("/compute/v2.1/limits").await.expect(200).at("/limits/absolute/totalServerGroupsUsed"), &json!(3));

    let one = format!("{groups}/{}", made.text("/server_group/id"));
    other.get(&one).await.expect(404);
    other.delete(&one).await.expect(404);
    cloud.user("p", "reader").await.delete(&one).await.expect(403);
    assert!(other.get(groups).await.expect(200).all("/server_groups", "id").is_empty());
    assert_eq!(admin.get(&format!("{groups}?all_projects=1")).await.expect(200).all("/server_groups", "id").len(), 3);
    assert_eq!(member.get(&format!("{groups}?limit=1&offset=1")).await.expect(200).all("/server_groups", "id").len(), 1);
    member.delete(&one).await.expect(204);
    member.get(&one).await.expect(404);
    assert_eq!(member.get("/compute/v2.1/limits").await.expect(200).at("/limits/absolute/totalServerGroupsUsed"), &json!(2));
}

#[tokio::test]
async fn aggregates_make_zones_of_hosts() {
    let cloud = cloud().await;
    add_node(&cloud, "host-1").await;
    let (admin, member) = (cloud.admin().await, cloud.member("p").await);
    let all = "/compute/v2.1/os-aggregates";
    member.get(all).await.expect(403);
    admin.post(all, json!({"aggregate": {"name": "z", "availability_zone": "a:b"}})).await.expect(400);
    let made = admin.post(all, json!({"aggregate": {"name": "one", "availability_zone": "zone-1"}})).await.expect(200);
    assert_eq!((made.at("/aggregate/id"), made.body["aggregate"].get("hosts")), (&json!(1), None));
    admin.post(all, json!({"aggregate": {"name": "one"}})).await.expect(409);
    let action = |body: Value| {
        let admin = admin.clone();
        async move { admin.post("/compute/v2.1/os-aggregates/1/action", body).await }
    };
    action(json!({"add_host": {"host": "nowhere"}})).await.expect(404);
    let added = action(json!({"add_host": {"host": "host-1"}})).await.expect(200);
    assert_eq!(added.body["aggregate"]["hosts"], json!(["host-1"]));
    action(json!({"add_host": {"host": "host-1"}})).await.expect(409);
    let provider = cloud.cloud.db.read().get(&PROVIDERS, NODE).map(|r| r.value().clone()).unwrap_or_default();
    assert_eq!((provider["aggregates"].as_array().map(Vec::len), &provider["generation"]), (Some(1), &json!(1)));

    let zones = member.get("/compute/v2.1/os-availability-zone").await.expect(200);
    assert_eq!(zones.all("/availabilityZoneInfo", "zoneName"), ["zone-1"]);
    member.get("/compute/v2.1/os-availability-zone/detail").await.expect(403);
    let detail = admin.get("/compute/v2.1/os-availability-zone/detail").await.expect(200);
    assert_eq!(detail.all("/availabilityZoneInfo", "zoneName"), ["internal", "zone-1"]);
    assert_eq!(detail.at("/availabilityZoneInfo/1/hosts/host-1/nova-compute/available"), &json!(true));

    let second = json!({"aggregate": {"name": "two", "availability_zone": "zone-2"}});
    admin.post(all, second).await.expect(200);
    admin.post(&format!("{all}/2/action"), json!({"add_host": {"host": "host-1"}})).await.expect(409);
    let set = action(json!({"set_metadata": {"metadata": {"k": "v", "gone": null}}})).await.expect(200);
    assert_eq!(set.body["aggregate"]["metadata"], json!({"k": "v", "availability_zone": "zone-1"}));
    action(json!({"set_metadata": {"metadata": {"availability_zone": null}}})).await.expect(400);
    let renamed = at(&admin, "2.41").put(&format!("{all}/1"), json!({"aggregate": {"name": " uno "}})).await.expect(200);
    assert_eq!((renamed.text("/aggregate/name"), renamed.text("/aggregate/uuid").len()), ("uno".into(), 36));
    admin.put(&format!("{all}/1"), json!({"aggregate": {"name": "two"}})).await.expect(409);
    admin.delete(&format!("{all}/1")).await.expect(400);
    action(json!({"remove_host": {"host": "host-2"}})).await.expect(404);
    action(json!({"remove_host": {"host": "host-1"}})).await.expect(200);
    admin.delete(&format!("{all}/1")).await.expect(200);
    admin.get(&format!("{all}/1")).await.expect(404);
    admin.get(&format!("{all}/x")).await.expect(404);
}

#[tokio::test]
async fn services_are_steered_by_name_then_by_id() {
    let cloud = cloud().await;
    add_node(&cloud, "host-1").await;
    let admin = cloud.admin().await;
    let all = "/compute/v2.1/os-services";
    cloud.member("p").await.get(all).await.expect(403);
    let list = admin.get(all).await.expect(200);
    assert_eq!(list.all("/services", "binary"), ["nova-scheduler", "nova-conductor", "nova-compute"]);
    assert_eq!((list.at("/services/2/id"), list.body["services"][2].get("forced_down")), (&json!(3), None));
    let only = admin.get(&format!("{all}?host=host-1&binary=nova-compute")).await.expect(200);
    assert_eq!(only.all("/services", "host"), ["host-1"]);
    let at_host = json!({"host": "host-1", "binary": "nova-compute"});
    admin.put(&format!("{all}/disable"), at_host.clone()).await.expect(200);
    let why = json!({"host": "host-1", "binary": "nova-compute", "disabled_reason": "repair"});
    let off = admin.put(&format!("{all}/disable-log-reason"), why).await.expect(200);
    assert_eq!(off.body["service"]["disabled_reason"], "repair");
    admin.put(&format!("{all}/force-down"), at_host.clone()).await.expect(404);
    admin.put(&format!("{all}/enable"), json!({"host": "h", "binary": "nova-compute"})).await.expect(404);
    admin.put(&format!("{all}/enable"), json!({"host": "controller", "binary": "nova-scheduler"})).await.expect(400);
    let down = json!({"host": "host-1", "binary": "nova-compute", "forced_down": true});
    at(&admin, "2.11").put(&format!("{all}/force-down"), down).await.expect(200);

    let new = at(&admin, "2.53");
    let list = new.get(all).await.expect(200);
    let service = &list.body["services"][2];
    assert_eq!(
        (&service["state"], &service["status"], &service["forced_down"]),
        (&json!("down"), &json!("disabled"), &json!(true))
    );
    let one = format!("{all}/{}", list.text("/services/2/id"));
    new.put(&one, json!({})).await.expect(400);
    new.put(&one, json!({"status": "enabled", "disabled_reason": "x"})).await.expect(400);
    let on = new.put(&one, json!({"status": "enabled", "forced_down": false})).await.expect(200);
    assert_eq!((&on.body["service"]["state"], &on.body["service"]["disabled_reason"]), (&json!("up"), &Value::Null));
    new.put(&format!("{all}/{}", list.text("/services/0/id")), json!({"status": "disabled"})).await.expect(400);
    new.put(&format!("{all}/nonsense"), json!({"status": "disabled"})).await.expect(400);
    new.put(&format!("{all}/{NODE}"), json!({"status": "disabled"})).await.expect(404);
    new.delete(&one).await.expect(204);
    assert_eq!(new.get(all).await.expect(200).all("/services", "id").len(), 2);
    assert!(cloud.cloud.db.read().get(&PROVIDERS, NODE).is_none());
}

#[tokio::test]
async fn hypervisors_have_a_shape_for_each_version() {
    let cloud = cloud().await;
    add_node(&cloud, "host-1").await;
    let admin = cloud.admin().await;
    let all = "/compute/v2.1/os-hypervisors";
    let brief = admin.get(all).await.expect(200);
    assert_eq!(
        brief.body["hypervisors"],
        json!([{"id": 1, "hypervisor_hostname": "host-1", "state": "up", "status": "enabled"}])
    );
    let one = admin.get(&format!("{all}/1")).await.expect(200);
    let full = one.body["hypervisor"].clone();
    assert_eq!((&full["vcpus_used"], &full["free_ram_mb"], full["cpu_info"].is_string()), (&json!(1), &json!(7680), true));
    assert_eq!(full.as_object().map(|o| o.len()), Some(20));
    assert!(at(&admin, "2.28").get(&format!("{all}/1")).await.expect(200).at("/hypervisor/cpu_info").is_object());
    admin.get(&format!("{all}/2")).await.expect(404);
    assert!(admin.get(&format!("{all}/1/uptime")).await.expect(200).text("/hypervisor/uptime").contains(" up 0 days"));
    assert_eq!(admin.get(&format!("{all}/ost/search")).await.expect(200).all("/hypervisors", "hypervisor_hostname"), ["host-1"]);
    admin.get(&format!("{all}/nothing/servers")).await.expect(404);
    assert_eq!(admin.get(&format!("{all}/statistics")).await.expect(200).at("/hypervisor_statistics/count"), &json!(1));
    let page = at(&admin, "2.33").get(&format!("{all}?limit=1")).await.expect(200);
    assert!(page.text("/hypervisors_links/0/href").ends_with("limit=1&marker=1"));

    let v53 = at(&admin, "2.53");
    assert_eq!(v53.get(&format!("{all}/{NODE}")).await.expect(200).text("/hypervisor/id"), NODE);
    v53.get(&format!("{all}/1")).await.expect(400);
    v53.get(&format!("{all}/host-1/search")).await.expect(404);
    v53.get(&format!("{all}?hypervisor_hostname_pattern=x&limit=1")).await.expect(400);
    v53.get(&format!("{all}?hypervisor_hostname_pattern=x")).await.expect(404);
    v53.get(&format!("{all}?unknown=1")).await.expect(400);
    let v75 = at(&admin, "2.75").get(&format!("{all}?with_servers=true")).await.expect(200);
    assert_eq!(v75.at("/hypervisors/0/servers"), &json!([]));
    let v88 = at(&admin, "2.88").get(&format!("{all}/{NODE}")).await.expect(200);
    assert!(v88.at("/hypervisor/uptime").is_string() && v88.body["hypervisor"].get("vcpus").is_none());
    at(&admin, "2.88").get(&format!("{all}/statistics")).await.expect(404);
}

#[tokio::test]
async fn hosts_are_an_older_view() {
    let cloud = cloud().await;
    add_node(&cloud, "host-1").await;
    let admin = cloud.admin().await;
    let all = "/compute/v2.1/os-hosts";
    assert_eq!(admin.get(all).await.expect(200).all("/hosts", "service"), ["scheduler", "conductor", "compute"]);
    assert_eq!(admin.get(&format!("{all}?zone=nova")).await.expect(200).all("/hosts", "host_name"), ["host-1"]);
    let one = admin.get(&format!("{all}/host-1")).await.expect(200);
    assert_eq!(
        one.at("/host/0/resource"),
        &json!({"host": "host-1", "project": "(total)", "cpu": 4, "memory_mb": 8192, "disk_gb": 100})
    );
    admin.get(&format!("{all}/controller")).await.expect(404);
    admin.put(&format!("{all}/host-1"), json!({})).await.expect(400);
    admin.put(&format!("{all}/host-1"), json!({"status": "invalid"})).await.expect(400);
    admin.put(&format!("{all}/nowhere"), json!({"status": "enable", "maintenance_mode": "enable"})).await.expect(404);
    let off = admin.put(&format!("{all}/host-1"), json!({"status": "Disable"})).await.expect(200);
    assert_eq!(off.body, json!({"host": "host-1", "status": "disabled"}));
    admin.get(&format!("{all}/host-1/reboot")).await.expect(501);
    admin.get(&format!("{all}/nowhere/reboot")).await.expect(404);
    at(&admin, "2.43").get(all).await.expect(404);
    cloud.member("p").await.get(&format!("{all}/host-1/reboot")).await.expect(403);
}

#[tokio::test]
async fn quotas_usage_and_the_rest_answer() {
    let cloud = cloud().await;
    let (admin, member) = (cloud.admin().await, cloud.member("p").await);
    let project = admin.get("/identity/v3/projects?name=p").await.expect(200).text("/projects/0/id");
    let quota = format!("/compute/v2.1/os-quota-sets/{project}");
    assert_eq!(member.get(&quota).await.expect(200).at("/quota_set/cores"), &json!(20));
    member.put(&quota, json!({"quota_set": {"cores": 1}})).await.expect(403);
    assert_eq!(
        admin.put(&quota, json!({"quota_set": {"cores": "1", "force": true}})).await.expect(200).at("/quota_set/cores"),
        &json!(1)
    );
    at(&admin, "2.36").put(&quota, json!({"quota_set": {"floating_ips": 1}})).await.expect(400);
    admin.delete(&quota).await.expect(202);
    assert_eq!(member.get(&quota).await.expect(200).at("/quota_set/cores"), &json!(20));

    let usage = "/compute/v2.1/os-simple-tenant-usage";
    let period = "start=2026-01-01T00:00:00&end=2026-01-02T00:00:00";
    assert_eq!(admin.get(&format!("{usage}?{period}")).await.expect(200).body, json!({"tenant_usages": []}));
    member.get(&format!("{usage}?{period}")).await.expect(403);
    assert_eq!(member.get(&format!("{usage}/{project}?{period}")).await.expect(200).body, json!({"tenant_usage": {}}));
    member.get(&format!("{usage}/other?{period}")).await.expect(403);
    admin.get(&format!("{usage}?start=2026-01-02T00:00:00&end=2026-01-01T00:00:00")).await.expect(400);
    admin.get(&format!("{usage}?start=yesterday")).await.expect(400);

    let audit = "/compute/v2.1/os-instance_usage_audit_log";
    let log = admin.get(&format!("{audit}/2026-11-22%2010:00:00")).await.expect(200);
    assert_eq!(log.text("/instance_usage_audit_log/period_beginning"), "2026-10-01 00:00:00");
    admin.get(&format!("{audit}/my_invalid_time")).await.expect(400);
    assert_eq!(admin.get("/compute/v2.1/os-migrations").await.expect(200).body, json!({"migrations": []}));
    member.get("/compute/v2.1/os-migrations").await.expect(403);
    assert!(member.get("/compute/v2.1/extensions").await.expect(200).all("/extensions", "name").contains(&"Hosts".to_owned()));
    member.get("/compute/v2.1/extensions/os-cells").await.expect(404);
    let events = "/compute/v2.1/os-server-external-events";
    let event = json!({"events": [{"name": "network-changed", "server_uuid": NODE}]});
    member.post(events, event.clone()).await.expect(403);
    let told = admin.post(events, event).await.expect(207);
    assert_eq!((told.at("/events/0/code"), told.at("/events/0/status")), (&json!(404), &json!("failed")));
    admin.post(events, json!({"events": []})).await.expect(400);
    admin.delete("/compute/v2.1/os-assisted-volume-snapshots/x").await.expect(400);
}

#[tokio::test]
async fn every_route_knows_who_may_use_it() {
    use testkit::matrix::{Known, Somebody, violations};
    let cloud = cloud().await;
    let mine: Vec<&str> = super::routes().iter().map(|r| r.path).collect();
    // What is read from other services needs them; their tests are with the whole cloud.
    let alone = |p: &str| {
        !["/images", "networks", "os-security-group", "os-floating-ip", "os-volumes", "os-snapshots"]
            .iter()
            .any(|other| p.contains(other))
    };
    let routes: Vec<Known> = cloud
        .routes
        .iter()
        .filter(|k| k.path.strip_prefix("/compute").is_some_and(|p| mine.contains(&p) && alone(p)))
        .cloned()
        .collect();
    assert!(routes.len() > 90, "{} routes", routes.len());
    let people = [
        Somebody { name: "nobody", client: cloud.anonymous() },
        Somebody { name: "admin", client: cloud.admin().await },
        Somebody { name: "member", client: cloud.member("p").await },
        Somebody { name: "reader", client: cloud.user("p", "reader").await },
    ];
    let wrong = violations(&routes, &people).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}
