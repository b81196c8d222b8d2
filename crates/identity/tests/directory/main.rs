//! Users of a domain that keeps them in LDAP, with a real slapd.
#![expect(clippy::unwrap_used, reason = "what a test needs and does not get ends it")]
mod slapd;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use slapd::{PASSWORD, SUFFIX, Slapd, user};
use std::{fmt::Write as _, time::Duration};
use testkit::{Answer, Client, TestCloud};
use tokio::{
    net::TcpListener,
    time::{Instant, timeout},
};

const TOKENS: &str = "/identity/v3/auth/tokens";

/// A cloud with the domain `corp`, whose users are in a directory.
struct Bed {
    cloud: TestCloud,
    admin: Client,
    domain: String,
}

impl Bed {
    async fn with(config: Value) -> Self {
        let cloud = TestCloud::start().await;
        let admin = cloud.admin().await;
        let domain = admin.post("/identity/v3/domains", json!({"domain": {"name": "corp"}})).await.expect(201).text("/domain/id");
        let bed = Self { cloud, admin, domain };
        bed.configure(config).await;
        bed
    }
    async fn configure(&self, config: Value) {
        let path = format!("/identity/v3/domains/{}/config", self.domain);
        let shown = self.admin.put(&path, config).await;
        assert!(matches!(shown.status, 200 | 201), "{:?}", shown.body);
        assert!(!String::from_utf8_lossy(&shown.bytes).contains(PASSWORD));
    }
    fn list(&self, kind: &str, more: &str) -> String {
        format!("/identity/v3/{kind}?domain_id={}{more}", self.domain)
    }
    fn id(&self, kind: &str, local: &str) -> String {
        Sha256::digest(format!("{}{kind}{local}", self.domain)).iter().fold(String::new(), |mut out, b| {
            let _ = write!(out, "{b:02x}");
            out
        })
    }
    async fn login(&self, name: &str, password: &str, scope: Value) -> Answer {
        let user = json!({"name": name, "domain": {"name": "corp"}, "password": password});
        let mut auth = json!({"identity": {"methods": ["password"], "password": {"user": user}}});
        if !scope.is_null() {
            auth["scope"] = scope;
        }
        self.cloud.anonymous().post(TOKENS, json!({ "auth": auth })).await
    }
    async fn named(&self, kind: &str, name: &str) -> String {
        let path = format!("/identity/v3/{kind}s?name={name}");
        self.admin.get(&path).await.expect(200).text(&format!("/{kind}s/0/id"))
    }
    /// What a token is by now.
    async fn status_of(&self, token: &str) -> u16 {
        self.admin.clone().header("x-subject-token", token).get(TOKENS).await.status
    }
}

#[tokio::test]
async fn users_and_groups_come_from_the_directory() {
    let slapd = Slapd::start();
    let bed = Bed::with(slapd.config(json!({"user_additional_attribute_mapping": ["roomNumber:room"]}))).await;
    let users = bed.admin.get(&bed.list("users", "")).await.expect(200);
    let mut names = users.all("/users", "name");
    names.sort();
    assert_eq!(names, ["ada", "bob", "eve"]);

    let ada = bed.admin.get(&bed.list("users", "&name=ada")).await.expect(200);
    assert_eq!(ada.all("/users", "id"), [bed.id("user", "u1")]);
    let shown = bed.admin.get(&format!("/identity/v3/users/{}", bed.id("user", "u1"))).await.expect(200);
    for (field, value) in
        [("name", json!("ada")), ("email", json!("u1@example.org")), ("room", json!("7")), ("enabled", json!(true))]
    {
        assert_eq!(shown.at("/user")[field], value, "{}", shown.body);
    }
    assert_eq!(shown.text("/user/domain_id"), bed.domain);
    assert!(!String::from_utf8_lossy(&shown.bytes).contains("userPassword") && shown.at("/user/directory").is_null());
    assert_eq!(bed.admin.get(&bed.list("users", "&enabled=false")).await.all("/users", "name"), ["eve"]);
    assert!(bed.admin.get(&bed.list("users", "&name=*")).await.expect(200).all("/users", "id").is_empty());

    let staff = bed.admin.get(&bed.list("groups", "&name=staff")).await.expect(200);
    assert_eq!(staff.all("/groups", "id"), [bed.id("group", "staff")]);
    assert_eq!(staff.text("/groups/0/description"), "All staff");
    let path = format!("/identity/v3/groups/{}/users", bed.id("group", "staff"));
    let mut members = bed.admin.get(&path).await.expect(200).all("/users", "name");
    members.sort();
    assert_eq!(members, ["ada", "bob"]);
    bed.admin.head(&format!("{path}/{}", bed.id("user", "u2"))).await.expect(204);
    bed.admin.head(&format!("{path}/{}", bed.id("user", "u3"))).await.expect(404);
    let mut groups = bed.admin.get(&format!("/identity/v3/users/{}/groups", bed.id("user", "u1"))).await.all("/groups", "name");
    groups.sort();
    assert_eq!(groups, ["staff", "wheel"]);

    // Members of other domains see none of them.
    let stranger = bed.cloud.member("demo").await;
    stranger.get(&format!("/identity/v3/users/{}", bed.id("user", "u1"))).await.expect(403);
    stranger.get(&bed.list("users", "")).await.expect(403);
}

#[tokio::test]
async fn nobody_writes_to_the_directory() {
    let slapd = Slapd::start();
    let bed = Bed::with(slapd.config(json!({}))).await;
    bed.admin.get(&bed.list("users", "")).await.expect(200);
    bed.admin.get(&bed.list("groups", "")).await.expect(200);
    let (ada, staff) = (bed.id("user", "u1"), bed.id("group", "staff"));
    bed.cloud.member("demo").await;
    let demo = bed.named("user", "demo-member").await;
    let refused = |answer: Answer| {
        let message = answer.expect(403).text("/error/message");
        assert!(message == "LDAP does not support write operations" || message.contains("backend boundaries"), "{message}");
    };
    let new = json!({"name": "new", "domain_id": bed.domain});
    refused(bed.admin.post("/identity/v3/users", json!({ "user": new })).await);
    refused(bed.admin.post("/identity/v3/groups", json!({ "group": new })).await);
    refused(bed.admin.patch(&format!("/identity/v3/users/{ada}"), json!({"user": {"enabled": false}})).await);
    refused(bed.admin.patch(&format!("/identity/v3/groups/{staff}"), json!({"group": {"description": "x"}})).await);
    refused(bed.admin.delete(&format!("/identity/v3/users/{ada}")).await);
    refused(bed.admin.delete(&format!("/identity/v3/groups/{staff}")).await);
    refused(bed.admin.put(&format!("/identity/v3/groups/{staff}/users/{ada}"), Value::Null).await);
    refused(bed.admin.put(&format!("/identity/v3/groups/{staff}/users/{demo}"), Value::Null).await);
    refused(bed.admin.delete(&format!("/identity/v3/groups/{staff}/users/{ada}")).await);
    // Whoever knows the password learns why it cannot be changed; nobody else learns anything.
    let change = |old: &str| json!({"user": {"original_password": old, "password": "another one"}});
    let path = format!("/identity/v3/users/{ada}/password");
    refused(bed.cloud.anonymous().post(&path, change("password of ada")).await);
    bed.cloud.anonymous().post(&path, change("wrong")).await.expect(401);

    bed.admin.put("/identity/v3/domains/default/config", json!({"config": {"identity": {"driver": "ldap"}}})).await.expect(403);
}

#[tokio::test]
async fn a_login_is_a_bind() {
    let slapd = Slapd::start();
    let bed = Bed::with(slapd.config(json!({}))).await;
    let unscoped = bed.login("ada", "password of ada", Value::Null).await.expect(201);
    assert_eq!(unscoped.text("/token/user/id"), bed.id("user", "u1"));
    assert_eq!(unscoped.text("/token/user/domain/name"), "corp");
    let by_id = json!({"id": bed.id("user", "u1"), "password": "password of ada"});
    let by_id = json!({"auth": {"identity": {"methods": ["password"], "password": {"user": by_id}}}});
    bed.cloud.anonymous().post(TOKENS, by_id).await.expect(201);

    let wrong = bed.login("ada", "wrong", Value::Null).await.expect(401);
    for (name, password) in [
        ("nobody", "wrong"),
        ("ada", ""),
        ("", ""),
        ("*", "password of ada"),
        ("a*", "password of ada"),
        ("ada)(uid=*", "password of ada"),
        ("*)(|(cn=ada", "password of ada"),
        ("ada\0", "password of ada"),
        ("cn=ada", "password of ada"),
        ("eve", "password of eve"),
    ] {
        let answer = bed.login(name, password, Value::Null).await.expect(401);
        assert_eq!(answer.body, wrong.body, "{name:?} {password:?}");
    }

    // A role of a group counts, and ends with the membership.
    let project = json!({"project": {"name": "lab", "domain_id": bed.domain}});
    let project = bed.admin.post("/identity/v3/projects", project).await.expect(201).text("/project/id");
    let member = bed.named("role", "member").await;
    let scope = json!({"project": {"id": project}});
    bed.login("ada", "password of ada", scope.clone()).await.expect(401);
    let grant = format!("/identity/v3/projects/{project}/groups/{}/roles/{member}", bed.id("group", "wheel"));
    bed.admin.put(&grant, Value::Null).await.expect(204);
    let scoped = bed.login("ada", "password of ada", scope.clone()).await.expect(201);
    assert_eq!(scoped.all("/token/roles", "name"), ["member", "reader"]);
    let token = scoped.header("x-subject-token").to_owned();
    bed.login("bob", "password of bob", scope.clone()).await.expect(401);
    assert_eq!(bed.status_of(&token).await, 200);
    let listed = format!("/identity/v3/role_assignments?effective&user.id={}&include_names=1", bed.id("user", "u1"));
    assert_eq!(bed.admin.get(&listed).await.expect(200).text("/role_assignments/0/user/name"), "ada");

    slapd.replace("cn=wheel,ou=Groups", "member", &[&format!("uid=u2,ou=People,{SUFFIX}")]).await;
    bed.login("ada", "password of ada", scope.clone()).await.expect(401);
    assert_eq!(bed.status_of(&token).await, 404, "the group is not ada's any more");
    bed.login("bob", "password of bob", scope.clone()).await.expect(201);

    // Who is disabled or gone there is so here, and gets nothing back by coming again.
    let bob = bed.login("bob", "password of bob", scope.clone()).await.expect(201).header("x-subject-token").to_owned();
    let shown = format!("/identity/v3/users/{}", bed.id("user", "u2"));
    slapd.replace("uid=u2,ou=People", "employeeType", &["FALSE"]).await;
    assert_eq!(bed.admin.get(&shown).await.expect(200).at("/user/enabled"), &json!(false));
    assert_eq!(bed.status_of(&bob).await, 404);
    slapd.replace("uid=u2,ou=People", "employeeType", &["TRUE"]).await;
    assert_eq!(bed.admin.get(&shown).await.expect(200).at("/user/enabled"), &json!(true));
    assert_eq!(bed.status_of(&bob).await, 404, "it was given before");
    let bob = bed.login("bob", "password of bob", scope).await.expect(201).header("x-subject-token").to_owned();
    slapd.delete("uid=u2,ou=People").await;
    assert_eq!(bed.admin.get(&bed.list("users", "")).await.expect(200).all("/users", "name").len(), 2);
    bed.admin.get(&shown).await.expect(404);
    assert_eq!(bed.status_of(&bob).await, 404);
}

#[tokio::test]
async fn a_domain_that_leaves_its_directory_has_its_own_users_again() {
    let slapd = Slapd::start();
    let bed = Bed::with(json!({"config": {"identity": {"list_limit": 100}}})).await;
    let own = json!({"user": {"name": "own", "domain_id": bed.domain, "password": "password of own"}});
    let own = bed.admin.post("/identity/v3/users", own).await.expect(201).text("/user/id");
    let before = bed.login("own", "password of own", Value::Null).await.expect(201).header("x-subject-token").to_owned();

    bed.configure(slapd.config(json!({}))).await;
    assert_eq!(bed.status_of(&before).await, 404, "the domain's users are others now");
    bed.login("own", "password of own", Value::Null).await.expect(401);
    bed.admin.get(&format!("/identity/v3/users/{own}")).await.expect(404);
    let ada = bed.login("ada", "password of ada", Value::Null).await.expect(201).header("x-subject-token").to_owned();

    let config = format!("/identity/v3/domains/{}/config", bed.domain);
    let stored = bed.cloud.cloud.db.read().get(&store::Table { name: "identity/domain_configs", indexes: &[] }, &bed.domain);
    let stored = stored.unwrap().value().to_string();
    assert!(stored.contains("sealed") && !stored.contains(PASSWORD), "{stored}");
    assert!(bed.admin.get(&config).await.expect(200).at("/config/ldap/password").is_null());
    bed.admin.delete(&config).await.expect(204);
    assert_eq!(bed.status_of(&ada).await, 404);
    bed.login("own", "password of own", Value::Null).await.expect(201);
    bed.login("ada", "password of ada", Value::Null).await.expect(401);

    // A domain goes with what was seen of its directory, and does not ask it.
    bed.configure(slapd.config(json!({}))).await;
    bed.admin.get(&bed.list("groups", "")).await.expect(200);
    drop(slapd);
    let domain = format!("/identity/v3/domains/{}", bed.domain);
    bed.admin.patch(&domain, json!({"domain": {"enabled": false}})).await.expect(200);
    bed.admin.delete(&domain).await.expect(204);
    assert!(bed.cloud.cloud.db.read().all(&store::Table { name: "identity/memberships", indexes: &[] }).next().is_none());
}

#[tokio::test]
async fn a_directory_that_does_not_answer_costs_its_own_domain_only() {
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let config =
        json!({"config": {"identity": {"driver": "ldap"}, "ldap": {"url": format!("ldap://127.0.0.1:{port}"), "pool_size": 2}}});
    let bed = Bed::with(config.clone()).await;
    bed.cloud.member("demo").await;
    let began = Instant::now();
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let client = bed.cloud.anonymous();
            let user = json!({"name": "ada", "domain": {"name": "corp"}, "password": "x"});
            let body = json!({"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}});
            tokio::spawn(async move { client.post(TOKENS, body).await })
        })
        .collect();
    // Others come and go meanwhile.
    let others = async {
        for _ in 0..20 {
            bed.cloud.anonymous().login("demo-member", "password of demo-member", Value::Null).await.expect(201);
        }
        bed.admin.get("/identity/v3/users").await.expect(200);
    };
    timeout(Duration::from_secs(4), others).await.expect("other domains do not wait");
    for answer in waiting {
        let answer = answer.await.unwrap().expect(503);
        let message = answer.text("/error/message");
        assert!(message.contains(&bed.domain) && message.contains("try again"), "{message}");
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());

    // Nobody is there at all: that is said at once.
    drop(silent);
    let began = Instant::now();
    bed.admin.get(&bed.list("users", "")).await.expect(503);
    bed.login("ada", "x", Value::Null).await.expect(503);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());

    // What is configured wrongly is said to the operator, and mended by a new configuration.
    bed.configure(json!({"config": {"identity": {"driver": "ldap"}, "ldap": {"url": "http://127.0.0.1"}}})).await;
    bed.admin.get(&bed.list("users", "")).await.expect(503);
    let slapd = Slapd::start();
    bed.configure(slapd.config(json!({"password": "wrong"}))).await;
    bed.admin.get(&bed.list("users", "")).await.expect(503);
    bed.configure(slapd.config(json!({}))).await;
    bed.login("ada", "password of ada", Value::Null).await.expect(201);
}

#[tokio::test]
async fn long_lists_come_in_pages_and_over_tls() {
    let mut more = String::new();
    for i in 0..1200 {
        more += &user(&format!("x{i}"), &format!("many{i}"), "");
    }
    let slapd = Slapd::with(&more, "ldaps");
    let bed = Bed::with(slapd.config(json!({"page_size": 250, "user_filter": "(mail=*@example.org)"}))).await;
    let users = bed.admin.get(&bed.list("users", "")).await.expect(200);
    assert_eq!(users.all("/users", "id").len(), 1203);
    bed.login("many7", "password of many7", Value::Null).await.expect(201);

    // A limit cuts the list, and nobody is lost by it.
    let limited = format!("/identity/v3/domains/{}/config/identity", bed.domain);
    bed.admin.patch(&limited, json!({"config": {"identity": {"list_limit": 10}}})).await.expect(200);
    bed.admin.get(&bed.list("users", "")).await.expect(200);
    bed.admin.get(&format!("/identity/v3/users/{}", bed.id("user", "x1199"))).await.expect(200);
    bed.login("many8", "password of many8", Value::Null).await.expect(201);

    // An authority that we do not know is not believed, unless the operator says so.
    bed.configure(slapd.config(json!({"tls_cacertfile": null}))).await;
    bed.login("ada", "password of ada", Value::Null).await.expect(503);
    bed.configure(slapd.config(json!({"tls_cacertfile": null, "tls_req_cert": "never"}))).await;
    bed.login("ada", "password of ada", Value::Null).await.expect(201);
}

#[tokio::test]
async fn groups_may_say_who_is_enabled_and_tls_may_start_late() {
    let slapd = Slapd::start();
    let emulation = json!({
        "user_enabled_emulation": true, "user_enabled_emulation_dn": format!("cn=wheel,ou=Groups,{SUFFIX}"), "use_tls": true,
        "query_scope": "sub", "user_tree_dn": SUFFIX,
    });
    let bed = Bed::with(slapd.config(emulation)).await;
    assert_eq!(bed.admin.get(&bed.list("users", "&enabled=true")).await.expect(200).all("/users", "name"), ["ada"]);
    bed.login("ada", "password of ada", Value::Null).await.expect(201);
    bed.login("bob", "password of bob", Value::Null).await.expect(401);
}
