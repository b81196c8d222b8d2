//! Two projects of two domains with one of everything each, and everybody who may call.
use super::{frozen::Frozen, samples::Sample};
use crate::bed::{Bed, SERVERS, until};
use resource::ResourceDef;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use testkit::Client;

pub(crate) const PASSWORD: &str = "password of everybody";
/// The newest version of every service that has versions.
const LATEST: &str = "compute latest, placement latest";

/// Ids by the part of a path that they follow (`networks`), and by what bodies call them.
#[derive(Clone, Default)]
pub(crate) struct Things(pub(crate) BTreeMap<String, String>);
impl Things {
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        self.0.get(key).cloned()
    }
    fn put(&mut self, key: &str, id: impl Into<String>) {
        self.0.insert(key.into(), id.into());
    }
}

pub(crate) struct Person {
    pub(crate) name: &'static str,
    pub(crate) client: Client,
}

pub(crate) struct World {
    pub(crate) bed: Bed,
    pub(crate) store: Arc<Frozen>,
    /// Of project `p` in the domain `default`, and what belongs to nobody.
    pub(crate) own: Things,
    /// Of project `q` in a domain of its own. What belongs to nobody is not in it.
    pub(crate) foreign: Things,
    pub(crate) people: Vec<Person>,
    /// A domain, a project and a user that nothing else needs.
    scrap: Things,
}

/// Finds or makes what the administrator has to make.
struct Office<'a> {
    admin: &'a Client,
}

impl Office<'_> {
    async fn make(&self, path: &str, kind: &str, body: Value) -> String {
        let answer = self.admin.post(path, json!({ kind: body })).await;
        assert!(answer.status < 300, "POST {path}: {} {}", answer.status, answer.body);
        let id = answer.at(&format!("/{kind}/id"));
        id.as_str().map_or_else(|| id.to_string(), str::to_owned)
    }
    async fn role(&self, name: &str) -> String {
        let found = self.admin.get(&format!("/identity/v3/roles?name={name}")).await;
        match found.at("/roles/0/id").as_str() {
            Some(id) => id.to_owned(),
            None => self.make("/identity/v3/roles", "role", json!({ "name": name })).await,
        }
    }
    async fn grant(&self, on: &str, user: &str, role: &str) {
        let role = self.role(role).await;
        self.admin.put(&format!("/identity/v3/{on}/users/{user}/roles/{role}"), Value::Null).await.expect(204);
    }
    async fn user(&self, name: &str, domain: &str) -> String {
        self.make("/identity/v3/users", "user", json!({"name": name, "domain_id": domain, "password": PASSWORD})).await
    }
}

/// Logs a user in by id; `scope` may be null.
pub(crate) async fn login(anonymous: &Client, user: &str, scope: Value) -> Client {
    let user = json!({"id": user, "password": PASSWORD});
    let mut auth = json!({"identity": {"methods": ["password"], "password": {"user": user}}});
    if !scope.is_null() {
        auth["scope"] = scope;
    }
    let answer = anonymous.post("/identity/v3/auth/tokens", json!({ "auth": auth })).await.expect(201);
    anonymous.clone().token(answer.header("x-subject-token"))
}

fn in_project(id: &str) -> Value {
    json!({"project": {"id": id}})
}

impl World {
    pub(crate) async fn start() -> Self {
        let store = Frozen::new();
        let mut bed = Bed::on(store.clone(), 1).await;
        let admin = bed.admin.clone().header("openstack-api-version", LATEST);
        let office = Office { admin: &admin };
        let anonymous = bed.cloud.anonymous();
        // Limits are tests of their own.
        for service in [("compute", json!({"cores": -1, "instances": -1, "ram": -1, "key_pairs": -1, "server_groups": -1}))] {
            let path = format!("/{}/v2.1/os-quota-class-sets/default", service.0);
            admin.put(&path, json!({"quota_class_set": service.1})).await.expect(200);
        }

        let mut common = Things::default();
        furnish_common(&office, &mut common).await;
        let p = admin.get("/identity/v3/projects?name=p").await.text("/projects/0/id");
        let d2 = office.make("/identity/v3/domains", "domain", json!({"name": "d2"})).await;
        let q = office.make("/identity/v3/projects", "project", json!({"name": "q", "domain_id": d2})).await;
        let third = office.make("/identity/v3/projects", "project", json!({"name": "third"})).await;
        common.put("third", third);

        let mut own = common.clone();
        furnish(&office, &bed, &anonymous, ("p", &p, "default"), &common, &mut own).await;
        let mut theirs = common.clone();
        furnish(&office, &bed, &anonymous, ("q", &q, &d2), &common, &mut theirs).await;
        own.put("trustee", theirs.get("users").unwrap());
        let foreign = Things(theirs.0.into_iter().filter(|(k, v)| own.get(k).as_ref() != Some(v)).collect());

        let people = people(&office, &anonymous, (&p, "default"), (&q, &d2), &own, &foreign).await;
        bed.rest();
        Self { bed, store, own, foreign, people, scrap: Things::default() }
    }

    /// The table behind each sample, where there is one.
    pub(crate) fn defs(&self, samples: &[Sample]) -> Vec<Option<&'static ResourceDef>> {
        let registry = &self.bed.cloud.cloud.registry;
        let fits = |s: &Sample, d: &ResourceDef| {
            let path = s.path.strip_prefix(&format!("/{}", d.service)).unwrap_or_default();
            path == d.path || path == format!("{}/{{id}}", d.path)
        };
        samples.iter().map(|s| registry.iter().find(|d| fits(s, d))).collect()
    }

    pub(crate) async fn add_scrap(&mut self) {
        let admin = self.bed.admin.clone();
        let office = Office { admin: &admin };
        let domain = office.make("/identity/v3/domains", "domain", json!({"name": "scrap"})).await;
        let project = office.make("/identity/v3/projects", "project", json!({"name": "scrap", "domain_id": domain})).await;
        self.scrap.put("users", office.user("scrap", &domain).await);
        for key in ["projects", "os-quota-sets", "quotas"] {
            self.scrap.put(key, &project);
        }
        self.scrap.put("domains", domain);
    }
    /// The scrap of that kind, for samples that may spoil it.
    pub(crate) fn scrap(&self, sample: &Sample, key: &str) -> Option<String> {
        let spoils = sample.service == "identity" || key.contains("quota");
        self.scrap.get(key).filter(|_| spoils)
    }

    pub(crate) fn person(&self, name: &str) -> &Client {
        &self.people.iter().find(|p| p.name == name).expect("somebody of that name").client
    }
}

async fn people(
    office: &Office<'_>,
    anonymous: &Client,
    (p, d1): (&str, &str),
    (q, d2): (&str, &str),
    own: &Things,
    foreign: &Things,
) -> Vec<Person> {
    let service = office.admin.get("/identity/v3/projects?name=service").await.text("/projects/0/id");
    let mut people = vec![Person { name: "nobody", client: anonymous.clone() }];
    let (mine, theirs) = (own.get("users").unwrap(), foreign.get("users").unwrap());
    people.push(Person { name: "unscoped", client: login(anonymous, &mine, Value::Null).await });
    let at = |kind: &str, id: &str| (format!("{kind}s/{id}"), json!({kind: {"id": id}}));
    let (in_p, in_q, in_service, of_d1, of_d2) =
        (at("project", p), at("project", q), at("project", &service), at("domain", d1), at("domain", d2));
    let all = ("system".to_owned(), json!({"system": {"all": true}}));
    let seats = [
        ("guest@p", "guest", &in_p),
        ("reader@p", "reader", &in_p),
        ("member@p", "", &in_p),
        ("manager@p", "manager", &in_p),
        ("admin@p", "admin", &in_p),
        ("service", "service", &in_service),
        ("member@q", "", &in_q),
        ("manager@q", "manager", &in_q),
        ("reader@d1", "reader", &of_d1),
        ("manager@d1", "manager", &of_d1),
        ("admin@d1", "admin", &of_d1),
        ("manager@d2", "manager", &of_d2),
        ("reader@system", "reader", &all),
        ("member@system", "member", &all),
        ("admin@system", "admin", &all),
    ];
    for (name, role, (on, scope)) in seats {
        let user = match name {
            // They own what was made.
            "member@p" => mine.clone(),
            "member@q" => theirs.clone(),
            _ => {
                let user = office.user(name, if name.ends_with('q') || name.ends_with("d2") { d2 } else { d1 }).await;
                office.grant(on, &user, role).await;
                user
            }
        };
        people.push(Person { name, client: login(anonymous, &user, scope.clone()).await });
    }
    people
}

async fn furnish_common(office: &Office<'_>, things: &mut Things) {
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
    for name in ["volume", "snapshot"] {
        let limit = json!({"service_id": service, "region_id": region, "resource_name": name, "default_limit": 10});
        let made = office.admin.post(&v3("registered_limits"), json!({"registered_limits": [limit]})).await.expect(201);
        things.put("registered_limits", made.text("/registered_limits/0/id"));
    }
    things.put("config", "identity");
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
    for key in [
        "os-console-auth-tokens",
        "vnc",
        "agents",
        "tasks",
        "migrations",
        "os-volume_attachments",
        "os-assisted-volume-snapshots",
    ] {
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
    things.put("openapi", "network");
}

/// One of everything that can belong to a project.
async fn furnish(
    office: &Office<'_>,
    bed: &Bed,
    anonymous: &Client,
    (name, project, domain): (&str, &str, &str),
    common: &Things,
    things: &mut Things,
) {
    let v3 = |path: &str| format!("/identity/v3/{path}");
    let user = office.user(&format!("{name}-owner"), domain).await;
    office.grant(&format!("projects/{project}"), &user, "member").await;
    let member = login(anonymous, &user, in_project(project)).await.header("openstack-api-version", LATEST);
    let mine = Office { admin: &member };
    things.put("projects", project);
    things.put("domains", domain);
    things.put("users", &user);
    let group = office.make(&v3("groups"), "group", json!({"name": format!("{name}-group"), "domain_id": domain})).await;
    office.admin.put(&v3(&format!("groups/{group}/users/{user}")), Value::Null).await.expect(204);
    things.put("groups", group);
    let secret = json!({"type": "totp", "blob": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "user_id": user, "project_id": project});
    things.put("credentials", mine.make(&v3("credentials"), "credential", secret).await);
    let ec2 = member.post(&v3(&format!("users/{user}/credentials/OS-EC2")), json!({"tenant_id": project})).await.expect(201);
    things.put("OS-EC2", ec2.text("/credential/access"));
    let body = json!({"name": "a", "secret": "the secret of it", "access_rules": [{"path": "/v2.1/servers", "method": "GET", "service": "compute"}]});
    let path = v3(&format!("users/{user}/application_credentials"));
    things.put("application_credentials", mine.make(&path, "application_credential", body).await);
    things.put("secret", "the secret of it");
    let rules = member.get(&v3(&format!("users/{user}/access_rules"))).await.expect(200);
    things.put("access_rules", rules.text("/access_rules/0/id"));
    let trust = json!({"trustor_user_id": user, "trustee_user_id": user, "project_id": project, "impersonation": false, "roles": [{"name": "member"}]});
    things.put("trusts", mine.make(&v3("OS-TRUST/trusts"), "trust", trust).await);
    things.put("token", member.token.clone().unwrap());
    let limit = json!({"service_id": common.get("services").unwrap(), "region_id": "spare", "project_id": project, "resource_name": "volume", "resource_limit": 3});
    let limits = office.admin.post(&v3("limits"), json!({"limits": [limit]})).await.expect(201);
    things.put("limits", limits.text("/limits/0/id"));

    let consumer = base::id::uuid();
    let held = json!({"resources": {"CUSTOM_GOLD": 1}});
    let held = json!({"consumer_generation": null, "project_id": project, "user_id": user, "consumer_type": "INSTANCE",
        "allocations": {common.get("resource_providers").unwrap(): held}});
    office.admin.put(&format!("/placement/allocations/{consumer}"), held).await.expect(204);
    things.put("allocations", consumer);
    things.put("quotas", project);

    furnish_network(&mine, common, things).await;

    let image = bed.make_image(&member, "private").await;
    let shared = json!([{"op": "replace", "path": "/visibility", "value": "shared"}]).to_string();
    let media = "application/openstack-images-v2.1-json-patch";
    member.send_bytes("PATCH", &format!("/image/v2/images/{image}"), media, shared.into()).await.expect(200);
    let third = common.get("third").unwrap();
    member.post(&format!("/image/v2/images/{image}/members"), json!({ "member": third })).await.expect(200);
    things.put("members", third);
    things.put("images", image);

    let nova = "/compute/v2.1";
    let key = format!("{name}-key");
    let public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5Q8qA0iBc2Y0uYv4zJcQ9s0b4l5H3xk2h8o1m0dJ9K a@b";
    let body = json!({"keypair": {"name": key, "type": "ssh", "public_key": public}});
    member.post(&format!("{nova}/os-keypairs"), body).await.expect(201);
    things.put("os-keypairs", key);
    let group = json!({"name": "g", "policy": "soft-anti-affinity"});
    things.put("os-server-groups", mine.make(&format!("{nova}/os-server-groups"), "server_group", group).await);
    let server = json!({"server": {
        "name": format!("{name}-server"), "flavorRef": "tiny", "imageRef": things.get("images").unwrap(), "metadata": {"k": "v"},
        "networks": [{"uuid": things.get("networks").unwrap()}], "tags": ["thing"],
    }});
    let id = member.post(SERVERS, server).await.expect(202).text("/server/id");
    bed.status(&id, "ACTIVE").await;
    let ports = member.get(&format!("{SERVERS}/{id}/os-interface")).await.expect(200);
    things.put("os-interface", ports.text("/interfaceAttachments/0/port_id"));
    things.put("address", ports.text("/interfaceAttachments/0/fixed_ips/0/ip_address"));
    let actions = member.get(&format!("{SERVERS}/{id}/os-instance-actions")).await.expect(200);
    things.put("os-instance-actions", actions.text("/instanceActions/0/request_id"));
    things.put("ips", "mine");
    let consumer = format!("/placement/allocations/{id}");
    let held = |a: &testkit::Answer| !a.at("/allocations").as_object().is_none_or(serde_json::Map::is_empty);
    until("the server holds resources", || office.admin.get(&consumer), held).await;
    things.put("servers", id);
    for key in ["os-quota-sets", "os-simple-tenant-usage", "quotas", "auto-allocated-topology"] {
        things.put(key, project);
    }
    for (alias, key) in [
        ("os-networks", "networks"),
        ("os-tenant-networks", "networks"),
        ("network-ip-availabilities", "networks"),
        ("os-security-groups", "security-groups"),
        ("os-security-group-rules", "security-group-rules"),
        ("os-floating-ips", "floatingips"),
        ("id", "networks"),
        ("{what}", "networks"),
    ] {
        let id = things.get(key).unwrap();
        things.put(alias, id);
    }
}

async fn furnish_network(mine: &Office<'_>, common: &Things, things: &mut Things) {
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
