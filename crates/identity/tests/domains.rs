//! What a token for a domain is good for, over HTTP: nothing beyond that domain, whatever its roles are.
use serde_json::{Value, json};
use testkit::{Client, TestCloud};

async fn make(client: &Client, kind: &str, body: Value) -> String {
    client.post(&format!("/identity/v3/{kind}s"), json!({ kind: body })).await.expect(201).text(&format!("/{kind}/id"))
}

async fn role(admin: &Client, name: &str) -> String {
    admin.get(&format!("/identity/v3/roles?name={name}")).await.text("/roles/0/id")
}

/// A new user of the domain with a role on it and a token for it.
async fn on_domain(cloud: &TestCloud, domain: &str, has: &str) -> Client {
    let admin = cloud.admin().await;
    let user = make(&admin, "user", json!({"name": format!("a-{has}"), "domain_id": domain, "password": "p"})).await;
    let has = role(&admin, has).await;
    admin.put(&format!("/identity/v3/domains/{domain}/users/{user}/roles/{has}"), Value::Null).await.expect(204);
    let identity = json!({"methods": ["password"], "password": {"user": {"id": user, "password": "p"}}});
    let auth = json!({"identity": identity, "scope": {"domain": {"id": domain}}});
    let answer = cloud.anonymous().post("/identity/v3/auth/tokens", json!({ "auth": auth })).await.expect(201);
    cloud.anonymous().token(answer.header("x-subject-token"))
}

struct Bed {
    cloud: TestCloud,
    admin: Client,
    domain: String,
    /// Of somebody with a role on the domain.
    client: Client,
}

async fn bed(has: &str) -> Bed {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let domain = make(&admin, "domain", json!({"name": "d"})).await;
    let client = on_domain(&cloud, &domain, has).await;
    Bed { cloud, admin, domain, client }
}

#[tokio::test]
async fn an_administrator_of_a_domain_is_none_of_the_cloud() {
    let Bed { cloud: _cloud, admin, domain, client } = bed("admin").await;
    for (kind, body) in [
        ("service", json!({"type": "t", "name": "s"})),
        ("region", json!({"id": "r"})),
        ("role", json!({"name": "r"})),
        ("domain", json!({"name": "e"})),
        ("policy", json!({"blob": "b", "type": "t"})),
    ] {
        let plural = if kind == "policy" { "policies".to_owned() } else { format!("{kind}s") };
        client.post(&format!("/identity/v3/{plural}"), json!({kind: body})).await.expect(403);
    }
    for path in ["services", "endpoints", "policies", "OS-TRUST/trusts", "role_inferences", "domains/default/config"] {
        client.get(&format!("/identity/v3/{path}")).await.expect(403);
        admin.get(&format!("/identity/v3/{path}?type=x")).await.expect(if path.ends_with("config") { 404 } else { 200 });
    }
    let me = client.get("/identity/v3/users").await.expect(200).all("/users", "id");
    assert_eq!((me.len(), client.get("/identity/v3/domains").await.expect(200).all("/domains", "id")), (1, vec![domain]));
    let member = role(&admin, "member").await;
    client.put(&format!("/identity/v3/system/users/{}/roles/{member}", me[0]), Value::Null).await.expect(403);
    client.get(&format!("/identity/v3/system/users/{}/roles", me[0])).await.expect(403);
}

#[tokio::test]
async fn readers_of_a_domain_see_its_part_of_groups_and_trees() {
    let Bed { cloud: _cloud, admin, domain, client: reader } = bed("reader").await;
    let of = |name: &str, domain: &str| json!({"name": name, "domain_id": domain});
    let (ours, theirs) = (make(&admin, "user", of("u", &domain)).await, make(&admin, "user", of("v", "default")).await);
    let (group, other) = (make(&admin, "group", of("g", &domain)).await, make(&admin, "group", of("h", "default")).await);
    for (group, user) in [(&group, &ours), (&group, &theirs), (&other, &ours)] {
        admin.put(&format!("/identity/v3/groups/{group}/users/{user}"), Value::Null).await.expect(204);
    }
    let users = reader.get(&format!("/identity/v3/groups/{group}/users")).await.expect(200).all("/users", "id");
    let groups = reader.get(&format!("/identity/v3/users/{ours}/groups")).await.expect(200).all("/groups", "id");
    assert_eq!((users, groups), (vec![ours.clone()], vec![group.clone()]));
    reader.get(&format!("/identity/v3/groups/{group}/users/{ours}")).await.expect(204);
    for stranger in [theirs.as_str(), "nobody"] {
        reader.get(&format!("/identity/v3/groups/{group}/users/{stranger}")).await.expect(403);
    }
    let (near, far) = (make(&admin, "project", of("p", &domain)).await, make(&admin, "project", of("q", "default")).await);
    let tree = |project: &str| format!("/identity/v3/role_assignments?include_subtree=true&scope.project.id={project}");
    reader.get(&tree(&near)).await.expect(200);
    for project in [far.as_str(), "nowhere"] {
        reader.get(&tree(project)).await.expect(403);
    }
}

#[tokio::test]
async fn a_manager_of_a_domain_manages_that_domain() {
    let Bed { cloud: _cloud, admin, domain, client } = bed("manager").await;
    let (member, admin_role) = (role(&admin, "member").await, role(&admin, "admin").await);

    let project = make(&client, "project", json!({"name": "p"})).await;
    let user = make(&client, "user", json!({"name": "u"})).await;
    let grant = |role: &str| format!("/identity/v3/projects/{project}/users/{user}/roles/{role}");
    client.put(&grant(&member), Value::Null).await.expect(204);
    client.put(&grant(&admin_role), Value::Null).await.expect(403);
    // A role that implies more than a manager has is no way round.
    let (door, own) = (json!({"name": "door"}), json!({"name": "own", "domain_id": domain}));
    for door in [make(&admin, "role", door).await, make(&admin, "role", own).await] {
        admin.put(&format!("/identity/v3/roles/{door}/implies/{member}"), Value::Null).await.expect(201);
        client.put(&grant(&door), Value::Null).await.expect(403);
        client.get(&format!("/identity/v3/roles/{door}")).await.expect(403);
    }
    client.get(&format!("/identity/v3/roles/{member}")).await.expect(200);
    for stranger in ["nobody".to_owned(), admin.get("/identity/v3/users?name=admin").await.text("/users/0/id")] {
        let path = format!("/identity/v3/projects/{project}/users/{stranger}/roles");
        client.get(&path).await.expect(403);
        client.put(&format!("{path}/{member}"), Value::Null).await.expect(403);
    }
    assert_eq!(client.get("/identity/v3/users").await.expect(200).all("/users", "name").len(), 2);
    client.post("/identity/v3/users", json!({"user": {"name": "x", "domain_id": "default"}})).await.expect(403);
    client.post("/identity/v3/domains", json!({"domain": {"name": "x"}})).await.expect(403);
    let foreign = admin.get("/identity/v3/users?name=admin").await.text("/users/0/id");
    client.get(&format!("/identity/v3/users/{foreign}")).await.expect(403);
    client.patch(&format!("/identity/v3/users/{foreign}"), json!({"user": {"password": "mine"}})).await.expect(403);
    client.put(&format!("/identity/v3/system/users/{user}/roles/{member}"), Value::Null).await.expect(403);
}
