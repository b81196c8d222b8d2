//! What may be made, changed and seen, by whom, over HTTP.
use serde_json::{Value, json};
use testkit::{Client, TestCloud};

async fn make(client: &Client, kind: &str, body: Value) -> String {
    let path = if kind == "policy" { "policies".into() } else { format!("{kind}s") };
    client.post(&format!("/identity/v3/{path}"), json!({ kind: body })).await.expect(201).text(&format!("/{kind}/id"))
}

#[tokio::test]
async fn strangers_cannot_tell_what_exists() {
    let cloud = TestCloud::start().await;
    let (admin, member) = (cloud.admin().await, cloud.member("demo").await);
    for kind in ["user", "project", "group", "domain", "role"] {
        let id = make(&admin, kind, json!({"name": format!("hidden-{kind}")})).await;
        for method in ["GET", "PATCH", "DELETE"] {
            let body = if method == "PATCH" { json!({kind: {"name": "x"}}) } else { Value::Null };
            let there = member.send(method, &format!("/identity/v3/{kind}s/{id}"), body.clone()).await.expect(403);
            let nowhere = member.send(method, &format!("/identity/v3/{kind}s/nowhere"), body).await.expect(403);
            assert_eq!(there.body, nowhere.body, "{method} {kind}");
        }
        admin.get(&format!("/identity/v3/{kind}s/nowhere")).await.expect(404);
    }
    member.get("/identity/v3/users").await.expect(403);
    let me = admin.get("/identity/v3/users?name=demo-member").await.text("/users/0/id");
    member.get(&format!("/identity/v3/users/{me}")).await.expect(200);
}

#[tokio::test]
async fn passwords_are_never_shown() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let body = json!({"user": {"name": "u", "password": "canary-1", "email": "a@b", "default_project_id": null}});
    let made = admin.post("/identity/v3/users", body).await.expect(201);
    let id = made.text("/user/id");
    let changed =
        admin.patch(&format!("/identity/v3/users/{id}"), json!({"user": {"password": "canary-2", "tel": 1}})).await.expect(200);
    let shown = admin.get(&format!("/identity/v3/users/{id}")).await.expect(200);
    assert_eq!((shown.at("/user/email"), shown.at("/user/tel")), (&json!("a@b"), &json!(1)));
    for answer in [&made, &changed, &shown, &admin.get("/identity/v3/users").await] {
        let text = answer.body.to_string();
        assert!(!text.contains("canary") && !text.contains("argon2") && !text.contains("\"password\""), "{text}");
    }
    let row = cloud.cloud.db.read().all(&identity_table("identity/users")).map(|r| r.value().to_string()).collect::<String>();
    assert!(row.contains("argon2id") && !row.contains("canary"));
    admin.post("/identity/v3/users", json!({"user": {"name": "v", "password": "x".repeat(5000)}})).await.expect(400);
    admin.post("/identity/v3/users", json!({"user": {"name": "v", "password_hash": "x"}})).await.expect(400);
}

fn identity_table(name: &'static str) -> store::Table {
    store::Table { name, indexes: &[] }
}

#[tokio::test]
async fn links_are_uris_whatever_the_path_holds() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let listed = admin.get("/identity/v3/users/%C2%AA%22%2F+/application_credentials").await.expect(200);
    let link = listed.text("/links/self");
    assert!(link.ends_with("/v3/users/%C2%AA%22%2F+/application_credentials"), "{link}");
    // What is encoded once is decoded once.
    let id = make(&admin, "project", json!({"name": "p"})).await;
    let tags = format!("/identity/v3/projects/{id}/tags");
    let added = admin.put(&format!("{tags}/50%2525"), Value::Null).await.expect(201);
    assert!(added.header("location").ends_with("/tags/50%2525"));
    assert_eq!(admin.get(&tags).await.expect(200).at("/tags"), &json!(["50%25"]));
    admin.get(&format!("{tags}/50%2525")).await.expect(204);
    admin.delete(&format!("{tags}/50%2525")).await.expect(204);
}

#[tokio::test]
async fn projects_are_a_tree_in_a_domain() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let domain = make(&admin, "domain", json!({"name": "d"})).await;
    let top = make(&admin, "project", json!({"name": "top", "domain_id": domain})).await;
    let below = make(&admin, "project", json!({"name": "below", "parent_id": top})).await;
    let of = |id: &str| format!("/identity/v3/projects/{id}");
    let shown = admin.get(&format!("{}?parents_as_list&subtree_as_ids", of(&below))).await.expect(200);
    assert_eq!((shown.text("/project/domain_id"), shown.text("/project/parents/0/project/id")), (domain.clone(), top.clone()));
    assert!(admin.get(&format!("{}?subtree_as_ids", of(&top))).await.at(&format!("/project/subtree/{below}")).is_null());

    for (query, there) in
        [("is_domain=True", false), ("is_domain=false", true), ("name__startswith=TO", false), ("name__istartswith=TO", true)]
    {
        let found = admin.get(&format!("/identity/v3/projects?{query}")).await.expect(200).all("/projects", "id");
        assert_eq!(found.contains(&top), there, "{query}");
    }
    let twice = json!({"project": {"name": "top", "domain_id": domain}});
    admin.post("/identity/v3/projects", twice).await.expect(409);
    admin.post("/identity/v3/projects", json!({"project": {"name": "x", "parent_id": "nowhere"}})).await.expect(404);
    admin
        .post("/identity/v3/projects", json!({"project": {"name": "x", "parent_id": top, "domain_id": "default"}}))
        .await
        .expect(400);
    admin.delete(&of(&top)).await.expect(403);
    admin.patch(&of(&top), json!({"project": {"enabled": false}})).await.expect(403);
    admin.patch(&of(&below), json!({"project": {"enabled": false}})).await.expect(200);
    admin.patch(&of(&top), json!({"project": {"enabled": false}})).await.expect(200);
    admin.patch(&of(&below), json!({"project": {"enabled": true}})).await.expect(403);
    admin.patch(&of(&below), json!({"project": {"parent_id": domain}})).await.expect(403);
    for bad in [
        json!({"name": ""}),
        json!({"name": "x".repeat(65)}),
        json!({"name": 1}),
        json!({"enabled": "True"}),
        json!({"tags": ["a", "a"]}),
    ] {
        let body = json!({"project": bad});
        assert_eq!(admin.patch(&of(&below), body.clone()).await.status, 400, "{body}");
    }

    let user = make(&admin, "user", json!({"name": "u", "domain_id": domain, "password": "p"})).await;
    let domain_path = format!("/identity/v3/domains/{domain}");
    admin.delete(&domain_path).await.expect(403);
    admin.patch(&domain_path, json!({"domain": {"enabled": false}})).await.expect(200);
    admin.delete(&domain_path).await.expect(204);
    for gone in [of(&top), of(&below), domain_path, format!("/identity/v3/users/{user}")] {
        admin.get(&gone).await.expect(404);
    }
    make(&admin, "domain", json!({"name": "d"})).await;
}

#[tokio::test]
async fn a_domain_may_come_with_an_id_of_choice() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let id = base::id::hex();
    let body = json!({"domain": {"name": "d", "explicit_domain_id": id}});
    let made = admin.post("/identity/v3/domains", body).await.expect(201);
    assert_eq!(made.text("/domain/id"), id);
    assert!(made.at("/domain/explicit_domain_id").is_null(), "{}", made.body);
    let shown = admin.get(&format!("/identity/v3/domains/{id}")).await.expect(200);
    assert!(shown.at("/domain/explicit_domain_id").is_null(), "{}", shown.body);
    admin.post("/identity/v3/domains", json!({"domain": {"name": "other", "explicit_domain_id": id}})).await.expect(409);
    for bad in [json!("d"), json!(base::id::uuid()), json!(1), json!(null)] {
        admin.post("/identity/v3/domains", json!({"domain": {"name": "bad", "explicit_domain_id": bad}})).await.expect(400);
    }
    let other = json!({"domain": {"explicit_domain_id": base::id::hex()}});
    admin.patch(&format!("/identity/v3/domains/{id}"), other).await.expect(400);
}

#[tokio::test]
async fn what_is_shown_later_is_checked_first() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    for kind in ["domain", "project", "user", "group", "role"] {
        for name in ["", " ", "\u{c}"] {
            admin.post(&format!("/identity/v3/{kind}s"), json!({kind: {"name": name}})).await.expect(400);
        }
    }
    admin.post("/identity/v3/regions", json!({"region": {"description": "x".repeat(256)}})).await.expect(400);
    let service = make(&admin, "service", json!({"type": "t"})).await;
    let endpoint = |more: Value| {
        let mut body = json!({"interface": "public", "service_id": service, "url": "http://192.0.2.1/$(project_id)s"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "endpoint": body })
    };
    let made = admin.post("/identity/v3/endpoints", endpoint(json!({"name": "n", "description": null}))).await.expect(201);
    assert_eq!(made.text("/endpoint/name"), "n");
    for bad in [
        json!({"url": "192.0.2.1"}),
        json!({"url": "http:"}),
        json!({"url": format!("http://{}", "x".repeat(219))}),
        json!({"name": 1}),
        json!({"description": []}),
    ] {
        admin.post("/identity/v3/endpoints", endpoint(bad.clone())).await.expect(400);
        admin
            .patch(&format!("/identity/v3/endpoints/{}", made.text("/endpoint/id")), json!({ "endpoint": bad }))
            .await
            .expect(400);
    }
    let groups = "/identity/v3/OS-EP-FILTER/endpoint_groups";
    let group = |filters: Value| json!({"endpoint_group": {"name": "g", "filters": filters}});
    admin.post(groups, group(json!({"interface": "public", "region_id": null}))).await.expect(201);
    for bad in
        [json!({}), json!({"interface": "other"}), json!({"service_id": null}), json!({"region_id": 1}), json!({"enabled": true})]
    {
        admin.post(groups, group(bad)).await.expect(400);
    }
    let mut more = group(json!({"interface": "public"}));
    more["endpoint_group"]["colour"] = "red".into();
    admin.post(groups, more).await.expect(400);
}

#[tokio::test]
async fn roles_come_by_groups_inheritance_and_implication() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let domain = make(&admin, "domain", json!({"name": "d"})).await;
    let project = make(&admin, "project", json!({"name": "p", "domain_id": domain})).await;
    let leaf = make(&admin, "project", json!({"name": "leaf", "parent_id": project})).await;
    let user = make(&admin, "user", json!({"name": "u", "domain_id": domain, "password": "p"})).await;
    let group = make(&admin, "group", json!({"name": "g", "domain_id": domain})).await;
    let (prior, implied) = (make(&admin, "role", json!({"name": "r1"})).await, make(&admin, "role", json!({"name": "r2"})).await);
    admin.put(&format!("/identity/v3/roles/{prior}/implies/{implied}"), Value::Null).await.expect(201);
    admin.put(&format!("/identity/v3/groups/{group}/users/{user}"), Value::Null).await.expect(204);
    let grant = format!("/identity/v3/OS-INHERIT/projects/{project}/groups/{group}/roles/{prior}/inherited_to_projects");
    admin.put(&grant, Value::Null).await.expect(204);

    let login = |project: String| {
        let anybody = cloud.anonymous();
        let identity = json!({"methods": ["password"], "password": {"user": {"id": user, "password": "p"}}});
        let auth = json!({"identity": identity, "scope": {"project": {"id": project}}});
        async move { anybody.post("/identity/v3/auth/tokens", json!({ "auth": auth })).await }
    };
    login(project.clone()).await.expect(401);
    assert_eq!(login(leaf.clone()).await.expect(201).all("/token/roles", "name"), ["r1", "r2"]);

    let list = |query: String| {
        let admin = admin.clone();
        async move { admin.get(&format!("/identity/v3/role_assignments?{query}")).await.expect(200) }
    };
    let found = list(format!("user.id={user}&effective&include_names")).await;
    assert_eq!(found.at("/role_assignments").as_array().map(Vec::len), Some(2), "{}", found.body);
    assert_eq!(found.text("/role_assignments/0/scope/project/name"), "leaf");
    let plain = list(format!("group.id={group}")).await;
    assert_eq!(plain.text("/role_assignments/0/scope/OS-INHERIT:inherited_to"), "projects");
    assert_eq!(
        list(format!("scope.project.id={project}&include_subtree=true&effective")).await.all("/role_assignments", "none").len(),
        0
    );
    admin.get("/identity/v3/role_assignments?user.id=a&group.id=b").await.expect(400);

    admin.delete(&format!("/identity/v3/groups/{group}")).await.expect(204);
    login(leaf).await.expect(401);
    assert_eq!(list(format!("role.id={prior}")).await.at("/role_assignments"), &json!([]));
}

#[tokio::test]
async fn secrets_are_sealed_and_belong_to_their_owner() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let (a, b) = (cloud.member("a").await, cloud.member("b").await);
    let me = admin.get("/identity/v3/users?name=a-member").await.text("/users/0/id");
    let body = json!({"credential": {"type": "totp", "blob": "canary-seed", "user_id": me}});
    b.post("/identity/v3/credentials", body.clone()).await.expect(403);
    let id = a.post("/identity/v3/credentials", body).await.expect(201).text("/credential/id");
    let path = format!("/identity/v3/credentials/{id}");
    assert_eq!(a.get(&path).await.expect(200).text("/credential/blob"), "canary-seed");
    for path in [path.as_str(), "/identity/v3/credentials/nothing"] {
        b.get(path).await.expect(403);
        b.patch(path, json!({"credential": {"blob": "x"}})).await.expect(403);
        b.delete(path).await.expect(403);
    }
    assert_eq!(b.get("/identity/v3/credentials").await.expect(200).at("/credentials"), &json!([]));
    a.patch(&path, json!({"credential": {"user_id": "other"}})).await.expect(403);
    a.patch(&path, json!({"credential": {"blob": "canary-other"}})).await.expect(200);
    let rows: String =
        cloud.cloud.db.read().all(&identity_table("identity/credentials")).map(|r| r.value().to_string()).collect();
    assert!(rows.contains("sealed") && !rows.contains("canary"));
    a.delete(&path).await.expect(204);
    a.get(&path).await.expect(403);
    admin.get(&path).await.expect(404);
}

#[tokio::test]
async fn a_catalog_can_be_narrowed_for_a_project() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let member = cloud.member("demo").await;
    let project = admin.get("/identity/v3/projects?name=demo").await.text("/projects/0/id");
    let service = make(&admin, "service", json!({"type": "dns", "name": "x"})).await;
    let url = "http://x/$(project_id)s";
    let endpoint =
        make(&admin, "endpoint", json!({"service_id": service, "interface": "public", "region": "R9", "url": url})).await;
    admin.get("/identity/v3/regions/R9").await.expect(200);
    let catalog = |member: Client| async move { member.get("/identity/v3/auth/catalog").await.expect(200).body };
    let all = catalog(member.clone()).await.to_string();
    assert!(all.contains(&format!("http://x/{project}")) && all.contains("/identity\""), "{all}");
    admin.put(&format!("/identity/v3/OS-EP-FILTER/projects/{project}/endpoints/{endpoint}"), Value::Null).await.expect(204);
    let narrow = catalog(member.clone()).await.to_string();
    assert!(narrow.contains(&format!("http://x/{project}")) && !narrow.contains("/identity\",\"region"), "{narrow}");
    admin.delete(&format!("/identity/v3/services/{service}")).await.expect(204);
    assert!(!catalog(member).await.to_string().contains("http://x/"));
    admin.get(&format!("/identity/v3/endpoints/{endpoint}")).await.expect(404);
}

#[tokio::test]
async fn discovery_needs_no_token() {
    let cloud = TestCloud::start().await;
    let anybody = cloud.anonymous();
    let all = anybody.get("/identity").await.expect(300);
    assert_eq!(all.header("location"), format!("{}/identity/v3/", cloud.url));
    assert_eq!(all.text("/versions/values/0/links/0/href"), format!("{}/identity/v3/", cloud.url));
    assert_eq!(anybody.get("/identity/v3/").await.expect(200).text("/version/id"), "v3.14");
    let home = anybody.header("accept", "application/json-home").get("/identity/v3").await.expect(200);
    let users = &home.at("/resources")["https://docs.openstack.org/api/openstack-identity/3/rel/users"];
    assert_eq!((home.header("content-type"), &users["href"]), ("application/json-home", &json!("/users")));
}

#[tokio::test]
async fn one_sees_where_one_may_go() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let (one, two) = (make(&admin, "domain", json!({"name": "one"})).await, make(&admin, "domain", json!({"name": "two"})).await);
    let user = make(&admin, "user", json!({"name": "u", "domain_id": one, "password": "p"})).await;
    let group = make(&admin, "group", json!({"name": "g", "domain_id": one})).await;
    let role = make(&admin, "role", json!({"name": "r"})).await;
    let (seen, shut) = (
        make(&admin, "project", json!({"name": "seen", "domain_id": two})).await,
        make(&admin, "project", json!({"name": "shut", "domain_id": two, "enabled": false})).await,
    );
    let put = async |path: String| admin.put(&format!("/identity/v3/{path}"), Value::Null).await.expect(204);
    let identity = json!({"methods": ["password"], "password": {"user": {"id": user, "password": "p"}}});
    let body = json!({"auth": {"identity": identity, "scope": "unscoped"}});
    let token = cloud.anonymous().post("/identity/v3/auth/tokens", body).await.expect(201).header("x-subject-token").to_owned();
    let me = cloud.anonymous().token(token);
    let see = async |what: &str| me.get(&format!("/identity/v3/auth/{what}")).await.expect(200).all(&format!("/{what}"), "id");
    assert!(see("projects").await.is_empty() && see("domains").await.is_empty());
    assert_eq!(me.get("/identity/v3/auth/system").await.expect(200).at("/system"), &json!([]));
    me.get("/identity/v3/auth/catalog").await.expect(403);

    put(format!("groups/{group}/users/{user}")).await;
    put(format!("OS-INHERIT/domains/{two}/groups/{group}/roles/{role}/inherited_to_projects")).await;
    assert_eq!(see("projects").await, [seen.as_str()], "not what is disabled: {shut}");
    assert!(see("domains").await.is_empty(), "an inherited role is not one on the domain");
    put(format!("domains/{one}/groups/{group}/roles/{role}")).await;
    assert_eq!(see("domains").await, [one.as_str()]);
    admin.patch(&format!("/identity/v3/domains/{two}"), json!({"domain": {"enabled": false}})).await.expect(200);
    assert!(see("projects").await.is_empty(), "nothing of a domain that is disabled");
    put(format!("system/groups/{group}/roles/{role}")).await;
    assert_eq!(me.get("/identity/v3/auth/system").await.expect(200).at("/system"), &json!([{"all": true}]));
    let scope = json!({"identity": {"methods": ["token"], "token": {"id": me.token.clone().unwrap()}}, "scope": {"system": {"all": true}}});
    let token = cloud.anonymous().post("/identity/v3/auth/tokens", json!({ "auth": scope })).await.expect(201);
    assert_eq!(token.at("/token/system"), &json!({"all": true}));
}

/// What is served is in the home document, and nothing else.
#[tokio::test]
async fn the_home_document_is_complete() {
    let cloud = TestCloud::start().await;
    let home = cloud.anonymous().header("accept", "application/json-home").get("/identity/v3").await.expect(200);
    let plain = |path: &str| {
        let part = |p: &str| if p.starts_with('{') { "{}".to_owned() } else { p.to_owned() };
        path.split('/').map(part).collect::<Vec<_>>().join("/")
    };
    let told: std::collections::BTreeSet<String> = home
        .at("/resources")
        .as_object()
        .unwrap()
        .values()
        .map(|r| plain(r["href"].as_str().or(r["href-template"].as_str()).unwrap()))
        .collect();
    let below = |r: &testkit::matrix::Known| r.path.strip_prefix("/identity/v3").filter(|p| p.len() > 1).map(plain);
    let served: std::collections::BTreeSet<String> = cloud.routes.iter().filter_map(below).collect();
    let missing: Vec<_> = served.difference(&told).collect();
    let invented: Vec<_> = told.difference(&served).collect();
    assert!(missing.is_empty() && invented.is_empty(), "not told: {missing:?}; not served: {invented:?}");
}

#[tokio::test]
async fn limits_fit_the_tree_where_the_model_wants_it() {
    let setup = testkit::Setup { limit_model: identity::LimitModel::StrictTwoLevel, ..testkit::Setup::default() };
    let cloud = TestCloud::with(setup).await;
    let admin = cloud.admin().await;
    assert_eq!(admin.get("/identity/v3/limits/model").await.expect(200).text("/model/name"), "strict_two_level");
    let domain = make(&admin, "domain", json!({"name": "d"})).await;
    let project = make(&admin, "project", json!({"name": "p", "domain_id": domain})).await;
    let service = make(&admin, "service", json!({"type": "x", "name": "x"})).await;
    let registered = json!({"registered_limits": [{"service_id": service, "resource_name": "r", "default_limit": 10}]});
    admin.post("/identity/v3/registered_limits", registered).await.expect(201);
    let limit =
        |field: &str, id: &str, n: i64| json!({"service_id": service, "resource_name": "r", field: id, "resource_limit": n});
    let post = async |limits: Vec<Value>| admin.post("/identity/v3/limits", json!({ "limits": limits })).await;
    post(vec![limit("project_id", &project, 11)]).await.expect(403);
    post(vec![limit("project_id", &project, -1)]).await.expect(403);
    // What the domain gets in the same request counts, wherever it stands.
    let made = post(vec![limit("project_id", &project, 15), limit("domain_id", &domain, 20)]).await.expect(201);
    let ids = made.all("/limits", "id");
    assert_eq!(made.text("/limits/0/project_id"), project);
    let patch =
        async |id: &str, n: i64| admin.patch(&format!("/identity/v3/limits/{id}"), json!({"limit": {"resource_limit": n}})).await;
    patch(&ids[0], 21).await.expect(403);
    patch(&ids[1], 14).await.expect(403);
    patch(&ids[1], 15).await.expect(200);
    patch(&ids[0], 16).await.expect(403);
    patch(&ids[1], -1).await.expect(200);
    patch(&ids[0], 1000).await.expect(200);

    let flat = TestCloud::start().await;
    assert_eq!(flat.admin().await.get("/identity/v3/limits/model").await.expect(200).text("/model/name"), "flat");
}

#[tokio::test]
async fn bootstrap_twice_is_once() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let before = admin.get("/identity/v3/endpoints").await.body;
    let config = identity::BootstrapConfig { admin_password: "another".into(), services: identity::CATALOG.to_vec() };
    identity::bootstrap(&cloud.cloud, &config).await.unwrap();
    identity::bootstrap(&cloud.cloud, &config).await.unwrap();
    let after = admin.get("/identity/v3/endpoints").await.body;
    assert_eq!(before["endpoints"].as_array().map(Vec::len), Some(3));
    assert_eq!(
        after["endpoints"].as_array().map(Vec::len),
        Some(3 * identity::CATALOG.len()),
        "the password is the old one, the new services are there"
    );
    let user = identity::NewUser { name: "x".into(), password: "y".into(), project: "z".into(), role: "member".into() };
    let first = identity::ensure_user(&cloud.cloud, &user).await.unwrap();
    assert_eq!(identity::ensure_user(&cloud.cloud, &user).await.unwrap(), first);
    cloud.anonymous().login_to("x", "y", "z").await.get("/identity/v3/auth/projects").await.expect(200);
}
