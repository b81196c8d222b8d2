//! Users for whom an identity provider vouches, with a real one.
#![expect(clippy::unwrap_used, reason = "what a test needs and does not get ends it")]
mod browser;
mod ends;
mod provider;
mod resources;
mod tls;

use base::{Clock as _, ManualClock, SystemClock};
use browser::Browser;
use provider::Provider;
use serde_json::{Value, json};
use std::{path::Path, sync::Arc, time::Duration};
use testkit::{Answer, Client, Setup, TestCloud};
use tokio::{
    net::TcpListener,
    time::{Instant, timeout},
};

const TOKENS: &str = "/identity/v3/auth/tokens";
const IDP: &str = "/identity/v3/OS-FEDERATION/identity_providers/corp";
const DASHBOARD: &str = "https://dashboard.example.org/auth/websso/";
const WEBSSO: &str = "/identity/v3/auth/OS-FEDERATION/identity_providers/corp/protocols/openid/websso";

/// A cloud that knows the provider `corp`, with a project for its group `staff`.
struct Bed {
    cloud: TestCloud,
    admin: Client,
    provider: Provider,
    clock: Arc<ManualClock>,
    domain: String,
    project: String,
    staff: String,
}

fn rules() -> Value {
    json!([
        {"local": [{"user": {"name": "{0}", "email": "{1}"}}], "remote": [{"type": "OIDC-preferred_username"}, {"type": "HTTP_OIDC_EMAIL"}]},
        {"local": [{"user": {"name": "robot {0}"}}], "remote": [{"type": "OIDC-client_id"}, {"type": "OIDC-groups", "any_one_of": ["robots"]}]},
        {"local": [{"groups": "{0}", "domain": {"name": "corp"}}], "remote": [{"type": "OIDC-groups", "whitelist": ["staff", "robots"]}]},
    ])
}

async fn federation() -> (TestCloud, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let networks = vec!["127.0.0.0/8".parse().unwrap()];
    let federation = identity::FederationConfig { trusted_dashboards: vec![DASHBOARD.into()], networks };
    (TestCloud::with(Setup { federation, clock: clock.clone(), ..Setup::default() }).await, clock)
}

impl Bed {
    async fn new() -> Self {
        Self::with(None).await
    }
    /// Its provider has that certificate and key.
    async fn with(tls: Option<[&Path; 2]>) -> Self {
        let (cloud, clock) = federation().await;
        let admin = cloud.admin().await;
        let provider = Provider::start(&format!("{}{WEBSSO}", cloud.url), tls);
        let v3 = |path: &str| format!("/identity/v3/{path}");
        let domain = admin.post(&v3("domains"), json!({"domain": {"name": "corp"}})).await.expect(201).text("/domain/id");
        let group = json!({"group": {"name": "staff", "domain_id": domain}});
        let staff = admin.post(&v3("groups"), group).await.expect(201).text("/group/id");
        let project = json!({"project": {"name": "lab", "domain_id": domain}});
        let project = admin.post(&v3("projects"), project).await.expect(201).text("/project/id");
        let role = admin.get(&v3("roles?name=member")).await.expect(200).text("/roles/0/id");
        admin.put(&v3(&format!("projects/{project}/groups/{staff}/roles/{role}")), Value::Null).await.expect(204);
        let idp = json!({"enabled": true, "domain_id": domain, "remote_ids": [provider.issuer]});
        admin.put(IDP, json!({"identity_provider": idp})).await.expect(201);
        admin.put(&v3("OS-FEDERATION/mappings/corp"), json!({"mapping": {"rules": rules()}})).await.expect(201);
        let bed = Self { cloud, admin, provider, clock, domain, project, staff };
        bed.speak(bed.provider.oidc(json!({}))).await;
        bed
    }
    /// Makes the protocol speak so.
    async fn speak(&self, oidc: Value) {
        let path = format!("{IDP}/protocols/openid");
        self.admin.delete(&path).await;
        let made = self.admin.put(&path, json!({"protocol": {"mapping_id": "corp", "oidc": oidc}})).await.expect(201);
        assert!(!String::from_utf8_lossy(&made.bytes).contains("secret of cloud"));
    }
    async fn map(&self, rules: Value, version: &str) {
        let mapping = json!({"mapping": {"rules": rules, "schema_version": version}});
        self.admin.patch("/identity/v3/OS-FEDERATION/mappings/corp", mapping).await.expect(200);
    }
    async fn enter(&self, access: &str) -> Answer {
        let client = self.cloud.anonymous().header("authorization", &format!("Bearer {access}"));
        client.post(&format!("{IDP}/protocols/openid/auth"), Value::Null).await
    }
    /// Ada's token of the cloud.
    async fn ada(&self) -> Answer {
        self.enter(&self.provider.access("ada", Some("urn:cloud")).await).await.expect(201)
    }
    async fn rescope(&self, token: &str, scope: Value) -> Answer {
        let auth = json!({"identity": {"methods": ["token"], "token": {"id": token}}, "scope": scope});
        self.cloud.anonymous().post(TOKENS, json!({ "auth": auth })).await
    }
    async fn status_of(&self, token: &str) -> u16 {
        self.cloud.admin().await.header("x-subject-token", token).get(TOKENS).await.status
    }
    fn lab(&self) -> Value {
        json!({"project": {"id": self.project}})
    }
}

#[tokio::test]
async fn a_providers_user_gets_what_the_mapping_gives() {
    let bed = Bed::new().await;
    let entered = bed.ada().await;
    let user = entered.at("/token/user");
    assert_eq!((user["name"].as_str(), user["domain"]["name"].as_str()), (Some("ada"), Some("corp")));
    let federation = json!({"groups": [{"id": bed.staff}], "identity_provider": {"id": "corp"}, "protocol": {"id": "openid"}});
    assert_eq!(user["OS-FEDERATION"], federation);
    assert!(user.get("password_expires_at").is_none() && entered.at("/token/roles").is_null());
    assert_eq!(entered.at("/token/methods"), &json!(["openid"]));

    let unscoped = entered.header("x-subject-token").to_owned();
    let client = bed.cloud.anonymous().token(unscoped.clone());
    for path in ["OS-FEDERATION/projects", "auth/projects"] {
        assert_eq!(client.get(&format!("/identity/v3/{path}")).await.expect(200).all("/projects", "name"), ["lab"]);
    }
    assert!(client.get("/identity/v3/OS-FEDERATION/domains").await.expect(200).all("/domains", "id").is_empty());

    let scoped = bed.rescope(&unscoped, bed.lab()).await.expect(201);
    assert_eq!(scoped.all("/token/roles", "name"), ["member", "reader"]);
    assert_eq!(scoped.at("/token/user/OS-FEDERATION"), &federation);
    assert_eq!(scoped.at("/token/expires_at"), entered.at("/token/expires_at"));
    let seen = bed.admin.clone().header("x-subject-token", scoped.header("x-subject-token")).get(TOKENS).await.expect(200);
    assert_eq!(seen.at("/token/user/OS-FEDERATION"), &federation);

    // The same user at each login, with the row that administrators see.
    let id = entered.text("/token/user/id");
    assert_eq!(bed.ada().await.text("/token/user/id"), id);
    let shown = bed.admin.get(&format!("/identity/v3/users/{id}")).await.expect(200);
    assert_eq!(shown.text("/user/email"), "ada@example.org");
    assert_eq!(
        shown.at("/user/federated"),
        &json!([{"idp_id": "corp", "protocols": [{"protocol_id": "openid", "unique_id": "ada"}]}])
    );
    assert_eq!(
        bed.admin.get("/identity/v3/users?idp_id=corp&unique_id=ada").await.expect(200).all("/users", "id"),
        std::slice::from_ref(&id)
    );
    assert!(bed.admin.get("/identity/v3/users?idp_id=other").await.expect(200).all("/users", "id").is_empty());

    // Eve is known and has nothing; robots come by their own rule.
    let eve = bed.enter(&bed.provider.access("eve", Some("urn:cloud")).await).await.expect(201);
    bed.rescope(eve.header("x-subject-token"), bed.lab()).await.expect(401);
    let robot =
        bed.provider.token("cloud", "grant_type=client_credentials&resource=urn:cloud").await.expect(200).text("/access_token");
    assert_eq!(bed.enter(&robot).await.expect(201).text("/token/user/name"), "robot cloud");

    // Whoever is disabled, or whose provider is, is out at once.
    let token = scoped.header("x-subject-token").to_owned();
    bed.admin.patch(IDP, json!({"identity_provider": {"enabled": false}})).await.expect(200);
    assert_eq!(bed.status_of(&token).await, 404);
    bed.enter(&robot).await.expect(403);
    bed.admin.patch(IDP, json!({"identity_provider": {"enabled": true}})).await.expect(200);
    assert_eq!(bed.status_of(&token).await, 200);
    bed.admin.patch(&format!("/identity/v3/users/{id}"), json!({"user": {"enabled": false}})).await.expect(200);
    assert_eq!(bed.status_of(&token).await, 404);
    bed.enter(&bed.provider.access("ada", Some("urn:cloud")).await).await.expect(401);
    bed.admin.delete(IDP).await.expect(204);
    bed.admin.get(&format!("/identity/v3/users/{id}")).await.expect(404);
}

#[tokio::test]
async fn the_clients_library_logs_in() {
    let bed = Bed::new().await;
    let access = bed.provider.access("ada", Some("urn:cloud")).await;
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/federation/client.py");
    let mut python = tokio::process::Command::new(provider::cached("keystoneauth").join("bin/python"));
    python.arg(script).arg(format!("{}/identity/v3", bed.cloud.url)).arg(&bed.provider.url).arg(&bed.project).arg(access);
    let done = python.output().await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let seen: Value = serde_json::from_slice(&done.stdout).unwrap();
    let in_project =
        |user: &str| json!({"user": user, "project": bed.project, "roles": ["member", "reader"], "projects": ["lab"]});
    let robot = json!({"user": "robot cloud", "project": null, "roles": [], "projects": []});
    let all =
        json!({"v3oidcpassword": in_project("ada"), "v3oidcaccesstoken": in_project("ada"), "v3oidcclientcredentials": robot});
    assert_eq!(seen, all);
}

#[tokio::test]
async fn only_words_for_us_count() {
    let bed = Bed::new().await;
    let good = bed.provider.access("ada", Some("urn:cloud")).await;
    bed.enter(&good).await.expect(201);
    let others = bed.provider.access("ada", Some("urn:other")).await;
    let parts: Vec<&str> = good.split('.').collect();
    let (unsigned, cut) = (format!("eyJhbGciOiJub25lIn0.{}.", parts[1]), format!("{}.{}.AAAA", parts[0], parts[1]));
    let foreign = bed.provider.token("other", "grant_type=client_credentials").await.expect(200).text("/access_token");
    for (what, token) in [("of others", &others), ("unsigned", &unsigned), ("cut", &cut), ("foreign", &foreign)] {
        let refused = bed.enter(token).await.expect(401);
        assert!(refused.text("/error/message").contains("requires authentication"), "{what}: {}", refused.body);
    }
    for token in ["", "x", "a.b.c", &"x".repeat(40_000)[..9_000]] {
        bed.enter(token).await.expect(401);
    }
    bed.cloud.anonymous().post(&format!("{IDP}/protocols/openid/auth"), Value::Null).await.expect(401);
    bed.cloud.anonymous().post(&format!("{IDP}/protocols/none/auth"), Value::Null).await.expect(404);
    bed.cloud
        .anonymous()
        .post("/identity/v3/OS-FEDERATION/identity_providers/none/protocols/openid/auth", Value::Null)
        .await
        .expect(404);

    // Tokens that only the provider can read are asked about; so are all, when that is wanted.
    let opaque = bed.provider.access("ada", None).await;
    assert_eq!(bed.enter(&opaque).await.expect(201).text("/token/user/name"), "ada");
    bed.speak(bed.provider.oidc(json!({"introspection": true}))).await;
    bed.enter(&opaque).await.expect(201);
    bed.enter(&foreign).await.expect(401);
    bed.enter("not-a-token-of-anybody").await.expect(401);
    bed.speak(bed.provider.oidc(json!({"client_secret": null}))).await;
    bed.enter(&opaque).await.expect(401);
    bed.enter(&good).await.expect(201);

    // A token is good for its time, and a provider for what it calls itself.
    let named = |name: &str| json!({"identity_provider": {"remote_ids": [name]}});
    bed.admin.patch(IDP, named("https://elsewhere")).await.expect(200);
    bed.enter(&good).await.expect(403);
    bed.admin.patch(IDP, named(&bed.provider.url)).await.expect(200);
    bed.enter(&good).await.expect(201);
    bed.clock.advance(Duration::from_secs(400));
    bed.enter(&good).await.expect(401);
}

#[tokio::test]
async fn what_a_mapping_gives_is_given_for_a_while() {
    let bed = Bed::new().await;
    let id = bed.ada().await.text("/token/user/id");
    let groups = format!("/identity/v3/users/{id}/groups");
    assert!(bed.admin.get(&groups).await.expect(200).all("/groups", "id").is_empty(), "only the token has them");
    bed.admin.patch(IDP, json!({"identity_provider": {"authorization_ttl": 1}})).await.expect(200);
    let unscoped = bed.ada().await.header("x-subject-token").to_owned();
    let shown = bed.admin.get(&groups).await.expect(200);
    assert_eq!(shown.all("/groups", "name"), ["staff"]);
    assert!(shown.at("/groups/0/membership_expires_at").is_string());
    let token = bed.rescope(&unscoped, bed.lab()).await.expect(201).header("x-subject-token").to_owned();

    // An application credential rests on the membership, not on the token.
    let own = bed.cloud.anonymous().token(token.clone());
    let robots = format!("/identity/v3/users/{id}/application_credentials");
    let made = own.post(&robots, json!({"application_credential": {"name": "robot"}})).await.expect(201);
    let by = json!({"id": made.text("/application_credential/id"), "secret": made.text("/application_credential/secret")});
    let by = json!({"auth": {"identity": {"methods": ["application_credential"], "application_credential": by}}});
    let robot = bed.cloud.anonymous().post(TOKENS, by.clone()).await.expect(201).header("x-subject-token").to_owned();
    assert_eq!((bed.status_of(&token).await, bed.status_of(&robot).await), (200, 200));
    bed.clock.advance(Duration::from_secs(61));
    assert_eq!(
        (bed.status_of(&token).await, bed.status_of(&robot).await),
        (200, 404),
        "one carries its groups, the other rests on rows"
    );
    bed.cloud.anonymous().post(TOKENS, by.clone()).await.expect(401);
    let admin = bed.cloud.admin().await;
    assert!(admin.get(&groups).await.expect(200).all("/groups", "id").is_empty());

    // The next login gives them again, and one that the provider gives no more goes.
    bed.ada().await;
    bed.cloud.anonymous().post(TOKENS, by.clone()).await.expect(201);
    admin.patch("/identity/v3/OS-FEDERATION/mappings/corp", json!({"mapping": {"rules": [rules()[0]]}})).await.expect(200);
    bed.ada().await;
    bed.cloud.anonymous().post(TOKENS, by).await.expect(401);
}

#[tokio::test]
async fn projects_and_local_users_come_by_mappings() {
    let bed = Bed::new().await;
    let local = json!([
        {"user": {"name": "{0}"}},
        {"projects": [{"name": "of {0}", "roles": [{"name": "member"}]}, {"name": "lab", "roles": [{"name": "reader"}]}]},
    ]);
    let remote = json!([{"type": "OIDC-preferred_username"}]);
    bed.map(json!([{"local": local, "remote": remote}]), "2.0").await;
    for _ in 0..2 {
        let entered = bed.ada().await;
        let client = bed.cloud.anonymous().token(entered.header("x-subject-token"));
        let mut projects = client.get("/identity/v3/auth/projects").await.expect(200).all("/projects", "name");
        projects.sort();
        assert_eq!(projects, ["lab", "of ada"]);
    }
    bed.map(json!([{"local": [{"user": {"name": "x"}, "projects": [{"name": "p", "roles": [{"name": "ghost"}]}]}], "remote": remote}]), "1.0").await;
    bed.enter(&bed.provider.access("ada", Some("urn:cloud")).await).await.expect(404);

    // A user of ours is that user, and nobody becomes one by a name alone.
    bed.cloud.member("demo").await;
    let local = |user: Value| json!([{"local": [{"user": user}], "remote": remote}]);
    bed.map(local(json!({"name": "demo-member", "domain": {"id": "default"}, "type": "local"})), "1.0").await;
    let entered = bed.ada().await;
    assert_eq!(entered.text("/token/user/name"), "demo-member");
    assert!(entered.at("/token/user/OS-FEDERATION").is_null());
    let demo = entered.text("/token/user/id");
    bed.map(local(json!({"name": "demo-member", "domain": {"id": "default"}})), "1.0").await;
    assert_ne!(bed.ada().await.text("/token/user/id"), demo);
    bed.cloud.anonymous().login("demo-member", "password of demo-member", Value::Null).await.expect(201);
    bed.map(local(json!({"name": "ghost", "domain": {"id": "default"}, "type": "local"})), "1.0").await;
    bed.enter(&bed.provider.access("ada", Some("urn:cloud")).await).await.expect(401);

    // Another provider's user of the same name in the same domain is not this one.
    bed.map(rules(), "1.0").await;
    let first = bed.ada().await.text("/token/user/id");
    let other = IDP.replace("corp", "other");
    bed.admin.put(&other, json!({"identity_provider": {"enabled": true, "domain_id": bed.domain}})).await.expect(201);
    let protocol = json!({"protocol": {"mapping_id": "corp", "oidc": bed.provider.oidc(json!({}))}});
    bed.admin.put(&format!("{other}/protocols/openid"), protocol).await.expect(201);
    let access = bed.provider.access("ada", Some("urn:cloud")).await;
    let client = bed.cloud.anonymous().header("authorization", &format!("Bearer {access}"));
    client.post(&format!("{other}/protocols/openid/auth"), Value::Null).await.expect(401);
    assert_eq!(bed.ada().await.text("/token/user/id"), first);
}

#[tokio::test]
async fn a_browser_brings_a_token_to_the_dashboard() {
    let bed = Bed::new().await;
    let start = format!("{}{WEBSSO}?origin={DASHBOARD}", bed.cloud.url);
    let mut ada = Browser::default();
    let page = ada.visit(&start).await;
    assert_eq!(page.status, 200, "{}", String::from_utf8_lossy(&page.bytes));
    let html = String::from_utf8_lossy(&page.bytes).into_owned();
    assert!(html.contains(&format!("action=\"{DASHBOARD}\"")), "{html}");
    assert!(page.header("content-type").starts_with("text/html") && page.header("cache-control") == "no-store");
    let token = html.split("value=\"").nth(1).and_then(|t| t.split('"').next()).unwrap();
    let seen = bed.admin.clone().header("x-subject-token", token).get(TOKENS).await.expect(200);
    assert_eq!(seen.text("/token/user/name"), "ada");
    assert_eq!(seen.at("/token/user/OS-FEDERATION/groups/0/id"), &json!(bed.staff));
    bed.rescope(token, bed.lab()).await.expect(201);

    // The only provider of a protocol need not be named.
    let any = format!("{}/identity/v3/auth/OS-FEDERATION/websso/openid?origin={DASHBOARD}", bed.cloud.url);
    assert_eq!(Browser::default().visit(&any).await.status, 200);

    // Whose login it is decides the browser that began it; an answer counts once, and only as it was.
    let back = Browser::default().until(&start, "code=").await;
    assert_eq!(Browser::default().visit(&back).await.status, 401, "another browser");
    let mut twice = Browser::default();
    let back = twice.until(&start, "code=").await;
    let mut copy = twice.clone();
    assert_eq!((twice.visit(&back).await.status, copy.visit(&back).await.status), (200, 401), "a code is used up");
    let mut eve = Browser::default();
    let back = eve.until(&start, "code=").await;
    assert_eq!(eve.visit(&back.replace("state=", "state=x")).await.status, 401);
    assert_eq!(eve.visit(&back.replace("code=", "code=x")).await.status, 401);
    let denied =
        back.split("code=").next().unwrap().to_owned() + "error=access_denied&state=" + back.split("state=").nth(1).unwrap();
    assert_eq!(eve.visit(&denied).await.status, 401);
    let mut late = Browser::default();
    let back = late.until(&start, "code=").await;
    bed.clock.advance(Duration::from_secs(601));
    assert_eq!(late.visit(&back).await.status, 401);

    // The token goes to dashboards that the operator trusts, and nowhere else.
    let client = bed.cloud.anonymous();
    client.get(WEBSSO).await.expect(400);
    for origin in ["https://evil.example", "https://dashboard.example.org/auth/websso/x", "https://dashboard.example.org"] {
        client.get(&format!("{WEBSSO}?origin={origin}")).await.expect(401);
    }
}

#[tokio::test]
async fn a_provider_that_does_not_answer_costs_its_own_users_only() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let bed = Bed::new().await;
    let good = bed.provider.access("ada", Some("urn:cloud")).await;
    let oidc = |issuer: &str| json!({"issuer": issuer, "client_id": "cloud", "client_secret": "s"});
    bed.speak(oidc(&url)).await;
    let began = Instant::now();
    let auth = format!("{IDP}/protocols/openid/auth");
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let client = bed.cloud.anonymous().header("authorization", &format!("Bearer {good}"));
            let auth = auth.clone();
            tokio::spawn(async move { client.post(&auth, Value::Null).await })
        })
        .collect();
    timeout(Duration::from_secs(4), bed.cloud.admin()).await.expect("others do not wait");
    for answer in waiting {
        let message = answer.await.unwrap().expect(503).text("/error/message");
        assert!(message.contains("corp") && message.contains("try again"), "{message}");
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());

    // What is not public, or not by TLS, is not asked unless the operator named its network.
    for issuer in ["http://localhost:1", "http://10.0.0.1", "https://10.0.0.1", "https://169.254.169.254", "https://[::1]"] {
        bed.speak(oidc(issuer)).await;
        let began = Instant::now();
        bed.enter(&good).await.expect(503);
        assert!(began.elapsed() < Duration::from_secs(3), "{issuer}: {:?}", began.elapsed());
    }
    // Metadata of another issuer are not this one's.
    bed.speak(oidc(&format!("{}/", bed.provider.url))).await;
    bed.enter(&good).await.expect(503);
    bed.speak(bed.provider.oidc(json!({}))).await;
    bed.enter(&good).await.expect(201);
}
