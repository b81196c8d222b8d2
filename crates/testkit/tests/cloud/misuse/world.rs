//! Two projects of two domains with one of everything each, and everybody who may call.
mod common;
mod network;
mod volumes;

use super::samples::Sample;
use crate::bed::{Bed, SERVERS};
use resource::ResourceDef;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use store::{Memory, faulty::Faulty};
use testkit::Client;
use testkit::until;

pub(crate) const PASSWORD: &str = "password of everybody";
/// The newest version of every service that has versions.
const LATEST: &str = "compute latest, placement latest, volume latest";

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
    /// When it is full, a request that passes all checks ends with 503 and changes nothing: any number of requests by anybody then
    /// meet the same world, in any order. It is the test of a full disk besides.
    pub(crate) store: Arc<Faulty>,
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
        let store = Arc::new(Faulty::new(Memory::new(), 1, 0.0));
        let mut bed = Bed::on(store.clone(), 1).await;
        let admin = bed.admin.clone().header("openstack-api-version", LATEST);
        let office = Office { admin: &admin };
        let anonymous = bed.cloud.anonymous();
        // Limits are tests of their own.
        for (service, limits) in [
            ("compute/v2.1", json!({"cores": -1, "instances": -1, "ram": -1, "key_pairs": -1, "server_groups": -1})),
            ("volume/v3", json!({"volumes": -1, "gigabytes": -1, "snapshots": -1, "groups": -1})),
        ] {
            let path = format!("/{service}/os-quota-class-sets/default");
            admin.put(&path, json!({ "quota_class_set": limits })).await.expect(200);
        }

        let mut common = Things::default();
        common::furnish(&office, &mut common).await;
        volumes::furnish_common(&office, &mut common).await;
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

/// What a third party asks the user for, and what it has got, without the third party.
async fn oauth1(bed: &Bed, (project, user): (&str, &str), common: &Things, things: &mut Things) {
    static REQUESTS: store::Table = store::Table { name: "identity/oauth1_request_tokens", indexes: &[] };
    static ACCESS: store::Table = store::Table { name: "identity/oauth1_access_tokens", indexes: &[] };
    let asked = json!({"consumer_id": common.get("consumers").unwrap(), "project_id": project, "sealed": "", "expires_at": 4_102_444_800_000_000_i64, "v": 1});
    let mut got = asked.clone();
    got["user_id"] = user.into();
    got["role_ids"] = json!([common.get("roles").unwrap()]);
    let (request, access) = (base::id::hex(), base::id::hex());
    things.put("authorize", &request);
    things.put("access_tokens", &access);
    let put = move |tx: &mut store::Tx<'_>| {
        tx.put(&REQUESTS, &request, asked.clone());
        tx.put(&ACCESS, &access, got.clone());
        Ok::<_, store::StoreError>(())
    };
    bed.cloud.cloud.db.transact(put).await.unwrap();
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
    oauth1(bed, (project, &user), common, things).await;
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

    network::furnish(&mine, common, things).await;

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
    volumes::furnish(&mine, office, &id, things).await;
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
