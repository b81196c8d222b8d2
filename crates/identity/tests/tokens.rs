//! Tokens over HTTP: who gets one, what it says, and what ends it.
use base::{Clock as _, ManualClock, SystemClock};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use testkit::{ADMIN_PASSWORD, Client, Setup, TestCloud};

const TOKENS: &str = "/identity/v3/auth/tokens";

fn project(name: &str) -> Value {
    json!({"project": {"name": name, "domain": {"id": "default"}}})
}

/// What a token is by now: 200, 404, …
async fn status_of(admin: &Client, token: &str) -> u16 {
    admin.clone().header("x-subject-token", token).get(TOKENS).await.status
}

async fn id_of(admin: &Client, kind: &str, name: &str) -> String {
    admin.get(&format!("/identity/v3/{kind}s?name={name}")).await.expect(200).text(&format!("/{kind}s/0/id"))
}

fn token(client: &Client) -> String {
    client.token.clone().expect("a client that has logged in")
}

async fn by_token(cloud: &TestCloud, token: &str, scope: Value) -> testkit::Answer {
    let auth = json!({"identity": {"methods": ["token"], "token": {"id": token}}, "scope": scope});
    cloud.anonymous().post(TOKENS, json!({ "auth": auth })).await
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_are_answered_alike() {
    let cloud = TestCloud::start().await;
    let anybody = cloud.anonymous();
    let wrong = anybody.login("admin", "wrong", Value::Null).await.expect(401);
    let nobody = anybody.login("nobody", "wrong", Value::Null).await.expect(401);
    assert_eq!(wrong.body, nobody.body);
    let long = anybody.login("admin", &"x".repeat(5000), Value::Null).await.expect(401);
    assert_eq!(long.body, wrong.body);
    assert!(wrong.header("www-authenticate").contains("/identity"), "{:?}", wrong.headers);
    for body in [json!({}), json!({"auth": {}}), json!({"auth": {"identity": {"methods": []}}}), json!([])] {
        anybody.post(TOKENS, body).await.expect(400);
    }
    let unknown = json!({"auth": {"identity": {"methods": ["magic"], "magic": {}}}});
    anybody.post(TOKENS, unknown).await.expect(401);
}

#[tokio::test]
async fn a_token_says_who_where_and_until_when() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let seen = admin.clone().header("x-subject-token", &token(&admin)).get(TOKENS).await.expect(200);
    assert_eq!(seen.header("x-subject-token"), token(&admin));
    assert_eq!(seen.at("/token/methods"), &json!(["password"]));
    assert_eq!(seen.at("/token/project/name"), "admin");
    assert_eq!(seen.all("/token/roles", "name"), ["admin", "manager", "member", "reader"]);
    assert_eq!(seen.at("/token/user/domain"), &json!({"id": "default", "name": "Default"}));
    assert_eq!(seen.text("/token/catalog/0/endpoints/0/url"), format!("{}/identity", cloud.url));
    let bare = admin.clone().header("x-subject-token", &token(&admin)).get(&format!("{TOKENS}?nocatalog")).await;
    assert!(bare.at("/token/catalog").is_null() && bare.at("/token/roles").is_array());
    admin.clone().header("x-subject-token", &token(&admin)).head(TOKENS).await.expect(200);

    let system = cloud.anonymous().login("admin", ADMIN_PASSWORD, json!({"system": {"all": true}})).await.expect(201);
    assert_eq!(system.at("/token/system"), &json!({"all": true}));
    let unscoped = cloud.anonymous().login("admin", ADMIN_PASSWORD, Value::Null).await.expect(201);
    assert!(unscoped.at("/token/roles").is_null() && unscoped.at("/token/catalog").is_null());
    cloud.anonymous().login("admin", ADMIN_PASSWORD, json!({"domain": {"id": "default"}})).await.expect(401);
    cloud.anonymous().login("admin", ADMIN_PASSWORD, project("nowhere")).await.expect(401);
}

#[tokio::test]
async fn rescoping_never_lengthens_a_life() {
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let cloud = TestCloud::with(Setup { clock: clock.clone(), ..Setup::default() }).await;
    let member = cloud.member("demo").await;
    let first = cloud.anonymous().login("demo-member", "password of demo-member", json!("unscoped")).await.expect(201);
    clock.advance(Duration::from_secs(1800));
    let second = by_token(&cloud, first.header("x-subject-token"), project("demo")).await.expect(201);
    assert_eq!(first.at("/token/expires_at"), second.at("/token/expires_at"));
    assert_ne!(first.at("/token/issued_at"), second.at("/token/issued_at"));
    assert_eq!(second.at("/token/methods"), &json!(["password", "token"]));
    assert_eq!(second.at("/token/audit_ids/1"), first.at("/token/audit_ids/0"));
    let again = by_token(&cloud, second.header("x-subject-token"), project("demo")).await.expect(201);
    assert_eq!(again.at("/token/audit_ids/1"), first.at("/token/audit_ids/0"), "the chain has one beginning");

    clock.advance(Duration::from_secs(1801));
    by_token(&cloud, second.header("x-subject-token"), project("demo")).await.expect(404);
    member.get("/identity/v3/auth/projects").await.expect(401);
    let admin = cloud.admin().await.header("x-subject-token", &token(&member));
    admin.get(TOKENS).await.expect(404);
    admin.get(&format!("{TOKENS}?allow_expired=1")).await.expect(200);
    clock.advance(Duration::from_secs(49 * 3600));
    let admin = cloud.admin().await.header("x-subject-token", &token(&member));
    admin.get(&format!("{TOKENS}?allow_expired=1")).await.expect(404);
}

#[tokio::test]
async fn what_a_token_rests_on_ends_it_at_once() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let (user, role) = (cloud.member("demo").await, id_of(&admin, "role", "member").await);
    let (user_id, project_id) = (id_of(&admin, "user", "demo-member").await, id_of(&admin, "project", "demo").await);
    let grant = format!("/identity/v3/projects/{project_id}/users/{user_id}/roles/{role}");
    assert_eq!(status_of(&admin, &token(&user)).await, 200);

    admin.delete(&grant).await.expect(204);
    assert_eq!(status_of(&admin, &token(&user)).await, 404, "its role was taken away");
    admin.put(&grant, Value::Null).await.expect(204);

    for (kind, id) in [("user", &user_id), ("project", &project_id)] {
        let fresh = cloud.member("demo").await;
        for enabled in [false, true] {
            admin.patch(&format!("/identity/v3/{kind}s/{id}"), json!({kind: {"enabled": enabled}})).await.expect(200);
            assert_eq!(status_of(&admin, &token(&fresh)).await, 404, "{kind} was disabled, enabled is now {enabled}");
        }
    }

    let fresh = cloud.member("demo").await;
    fresh.clone().header("x-subject-token", &token(&fresh)).delete(TOKENS).await.expect(204);
    assert_eq!(status_of(&admin, &token(&fresh)).await, 404, "it was revoked");
    fresh.get("/identity/v3/auth/projects").await.expect(401);

    let fresh = cloud.member("demo").await;
    let change = |old: &str, new: &str| json!({"user": {"original_password": old, "password": new}});
    let path = format!("/identity/v3/users/{user_id}/password");
    cloud.anonymous().post(&path, change("wrong", "new")).await.expect(401);
    assert_eq!(status_of(&admin, &token(&fresh)).await, 200);
    cloud.anonymous().post(&path, change("password of demo-member", "new one")).await.expect(204);
    assert_eq!(status_of(&admin, &token(&fresh)).await, 404, "the password was changed");
    cloud.anonymous().login("demo-member", "password of demo-member", project("demo")).await.expect(401);
    let fresh = cloud.anonymous().login_to("demo-member", "new one", "demo").await;

    admin.delete(&format!("/identity/v3/users/{user_id}")).await.expect(204);
    assert_eq!(status_of(&admin, &token(&fresh)).await, 404, "its user is gone");
}

#[tokio::test]
async fn all_tokens_of_a_user_end_together() {
    let cloud = TestCloud::start().await;
    let (admin, other) = (cloud.admin().await, cloud.member("other").await);
    cloud.member("demo").await;
    let path = format!("/identity/v3/users/{}/tokens", id_of(&admin, "user", "demo-member").await);
    let login = async || cloud.anonymous().login_to("demo-member", "password of demo-member", "demo").await;
    let (one, two) = (login().await, login().await);
    other.delete(&path).await.expect(403);
    assert_eq!(status_of(&admin, &token(&one)).await, 200);
    one.delete(&path).await.expect(204);
    for ended in [&one, &two] {
        assert_eq!(status_of(&admin, &token(ended)).await, 404);
    }
    let fresh = login().await;
    assert_eq!(status_of(&admin, &token(&fresh)).await, 200, "a token of after it is good");
    admin.delete(&path).await.expect(204);
    assert_eq!(status_of(&admin, &token(&fresh)).await, 404);
    admin.delete("/identity/v3/users/nobody/tokens").await.expect(404);
}

#[tokio::test]
async fn nobody_learns_about_or_revokes_the_tokens_of_others() {
    let cloud = TestCloud::start().await;
    let (a, b) = (cloud.member("a").await, cloud.member("b").await);
    let spy = a.clone().header("x-subject-token", &token(&b));
    let none = a.clone().header("x-subject-token", "garbage").get(TOKENS).await.expect(404);
    assert_eq!(spy.get(TOKENS).await.expect(404).body, none.body, "not even that it is a token");
    spy.delete(TOKENS).await.expect(404);
    assert_eq!(status_of(&cloud.admin().await, &token(&b)).await, 200);
    assert_eq!(status_of(&cloud.user("service", "service").await, &token(&b)).await, 200);
    a.get(TOKENS).await.expect(404);
    cloud.anonymous().header("x-subject-token", &token(&b)).get(TOKENS).await.expect(401);
}

#[tokio::test]
async fn a_service_token_carries_an_expired_one() {
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let cloud = TestCloud::with(Setup { clock: clock.clone(), ..Setup::default() }).await;
    let user = cloud.member("demo").await;
    clock.advance(Duration::from_secs(3700));
    let (service, other) = (cloud.user("service", "service").await, cloud.member("other").await);
    let here = "/identity/v3/auth/projects";
    user.get(here).await.expect(401);
    user.clone().header("x-service-token", &token(&service)).get(here).await.expect(200);
    user.clone().header("x-service-token", &token(&other)).get(here).await.expect(401);
    other.clone().header("x-service-token", "garbage").get(here).await.expect(401);
}

#[tokio::test]
async fn an_application_credential_gives_its_part_and_no_more() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let member = cloud.member("demo").await;
    let me = id_of(&admin, "user", "demo-member").await;
    let path = format!("/identity/v3/users/{me}/application_credentials");
    let make = |body: Value| {
        let (member, path) = (member.clone(), path.clone());
        async move { member.post(&path, json!({"application_credential": body})).await }
    };
    make(json!({"name": "x", "roles": [{"name": "admin"}]})).await.expect(400);
    cloud.member("other").await.post(&path, json!({"application_credential": {"name": "x"}})).await.expect(403);
    let made = make(json!({"name": "app", "roles": [{"name": "reader"}]})).await.expect(201);
    let (id, secret) = (made.text("/application_credential/id"), made.text("/application_credential/secret"));
    make(json!({"name": "app"})).await.expect(409);
    let shown = member.get(&format!("{path}/{id}")).await.expect(200);
    assert!(shown.at("/application_credential/secret").is_null() && !shown.body.to_string().contains("hash"), "{}", shown.body);

    let login = |secret: String, scope: Value| {
        let (anybody, id) = (cloud.anonymous(), id.clone());
        let mut auth =
            json!({"identity": {"methods": ["application_credential"], "application_credential": {"id": id, "secret": secret}}});
        if !scope.is_null() {
            auth["scope"] = scope;
        }
        async move { anybody.post(TOKENS, json!({ "auth": auth })).await }
    };
    login("wrong".into(), Value::Null).await.expect(401);
    login(secret.clone(), project("other")).await.expect(401);
    let answer = login(secret.clone(), Value::Null).await.expect(201);
    assert_eq!(answer.all("/token/roles", "name"), ["reader"]);
    assert_eq!(answer.at("/token/application_credential/restricted"), true);
    let app = cloud.anonymous().token(answer.header("x-subject-token"));
    by_token(&cloud, &token(&app), project("demo")).await.expect(403);
    // It is restricted: it makes nothing that outlives it.
    app.post(&path, json!({"application_credential": {"name": "y"}})).await.expect(403);
    app.delete(&format!("{path}/{id}")).await.expect(403);
    let demo = id_of(&admin, "project", "demo").await;
    app.post(&format!("/identity/v3/users/{me}/credentials/OS-EC2"), json!({"tenant_id": demo})).await.expect(403);
    let blob = json!({"credential": {"type": "ec2", "project_id": demo, "blob": "{\"access\": \"a\", \"secret\": \"s\"}"}});
    app.post("/identity/v3/credentials", blob).await.expect(403);
    let trust = json!({"trust": {"trustor_user_id": me, "trustee_user_id": me, "impersonation": true, "project_id": demo, "roles": [{"name": "reader"}]}});
    app.post("/identity/v3/OS-TRUST/trusts", trust).await.expect(403);

    member.delete(&format!("{path}/{id}")).await.expect(204);
    app.get("/identity/v3/auth/projects").await.expect(401);
    login(secret, Value::Null).await.expect(401);
}

#[tokio::test]
async fn access_rules_are_enforced() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let member = cloud.member("demo").await;
    let me = id_of(&admin, "user", "demo-member").await;
    let path = format!("/identity/v3/users/{me}/application_credentials");
    let rules = json!([{"service": "identity", "method": "GET", "path": "/v3/auth/projects"}]);
    let made =
        member.post(&path, json!({"application_credential": {"name": "app", "unrestricted": true, "access_rules": rules}})).await;
    let made = made.expect(201);
    let secret = json!({"id": made.text("/application_credential/id"), "secret": made.text("/application_credential/secret")});
    let auth = json!({"identity": {"methods": ["application_credential"], "application_credential": secret}});
    let answer = cloud.anonymous().post(TOKENS, json!({ "auth": auth })).await.expect(201);
    let app = cloud.anonymous().token(answer.header("x-subject-token"));
    app.get("/identity/v3/auth/projects").await.expect(200);
    app.get("/identity/v3/auth/domains").await.expect(401);
    app.post(&path, json!({"application_credential": {"name": "more"}})).await.expect(401);
}

#[tokio::test]
async fn a_trust_delegates_roles_while_its_trustor_has_them() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let (trustor, trustee) = (cloud.member("a").await, cloud.member("b").await);
    let (trustor_id, trustee_id) = (id_of(&admin, "user", "a-member").await, id_of(&admin, "user", "b-member").await);
    let a = id_of(&admin, "project", "a").await;
    let body = |roles: Value| {
        json!({"trust": {
            "trustor_user_id": trustor_id, "trustee_user_id": trustee_id, "impersonation": false, "project_id": a,
            "roles": roles, "remaining_uses": 2,
        }})
    };
    trustor.post("/identity/v3/OS-TRUST/trusts", body(json!([{"name": "admin"}]))).await.expect(403);
    trustee.post("/identity/v3/OS-TRUST/trusts", body(json!([{"name": "member"}]))).await.expect(403);
    let trust =
        trustor.post("/identity/v3/OS-TRUST/trusts", body(json!([{"name": "reader"}]))).await.expect(201).text("/trust/id");
    cloud.member("c").await.get(&format!("/identity/v3/OS-TRUST/trusts/{trust}")).await.expect(404);

    let scope = json!({"OS-TRUST:trust": {"id": trust}});
    by_token(&cloud, &token(&trustor), scope.clone()).await.expect(403);
    let first = by_token(&cloud, &token(&trustee), scope.clone()).await.expect(201);
    assert_eq!((first.text("/token/user/id"), first.text("/token/project/id")), (trustee_id.clone(), a.clone()));
    assert_eq!(first.all("/token/roles", "name"), ["reader"]);
    let acting = first.header("x-subject-token").to_owned();
    by_token(&cloud, &acting, project("a")).await.expect(403);
    by_token(&cloud, &token(&trustee), scope.clone()).await.expect(201);
    by_token(&cloud, &token(&trustee), scope).await.expect(401);

    assert_eq!(status_of(&admin, &acting).await, 200);
    let role = id_of(&admin, "role", "member").await;
    admin.delete(&format!("/identity/v3/projects/{a}/users/{trustor_id}/roles/{role}")).await.expect(204);
    assert_eq!(status_of(&admin, &acting).await, 404, "the trustor has lost the role");
}

#[tokio::test]
async fn only_services_ask_for_tokens_by_ec2_keys() {
    let cloud = TestCloud::start().await;
    let body = json!({"credentials": {
        "access": "a", "signature": "s", "host": "h", "verb": "GET", "path": "/",
        "params": {"SignatureVersion": "2", "SignatureMethod": "HmacSHA256", "Timestamp": "2026-01-01T00:00:00Z"},
    }});
    let path = "/identity/v3/ec2tokens";
    cloud.anonymous().post(path, body.clone()).await.expect(401);
    cloud.member("demo").await.post(path, body.clone()).await.expect(403);
    cloud.user("service", "service").await.post(path, body).await.expect(401);
}
