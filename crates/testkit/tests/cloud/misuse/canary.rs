//! Secrets stay where they belong: they are planted everywhere that a client can put one, and then looked for in every log line, in
//! what `drover why` tells, and in the store.
use crate::bed::{Bed, SERVERS};
use serde_json::{Value, json};
use std::{
    io::Write,
    sync::{Arc, Mutex, PoisonError},
};
use store::{Memory, Range, Store};
use testkit::until;
use testkit::{Answer, Client};

/// All log lines of this process from the start of the test on.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);
impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What must not be found, by what it is.
#[derive(Default)]
struct Planted(Vec<(&'static str, String)>);
impl Planted {
    fn plant(&mut self, what: &'static str) -> String {
        let secret = format!("Canary{}", base::id::hex());
        self.0.push((what, secret.clone()));
        secret
    }
    fn given(&mut self, what: &'static str, secret: &str) {
        assert!(secret.len() > 15, "{what} is no secret: {secret}");
        self.0.push((what, secret.to_owned()));
    }
    /// Which of them are in a text.
    fn found_in(&self, text: &str) -> Vec<&'static str> {
        self.0.iter().filter(|(_, secret)| text.contains(secret.as_str())).map(|(what, _)| *what).collect()
    }
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

async fn identity(bed: &Bed, planted: &mut Planted) -> Client {
    let v3 = |path: &str| format!("/identity/v3/{path}");
    let (first, password) = (planted.plant("a first password"), planted.plant("a password"));
    let user = json!({"user": {"name": "canary", "password": first}});
    let user = bed.admin.post(&v3("users"), user).await.expect(201).text("/user/id");
    let project = bed.admin.get(&v3("projects?name=p")).await.text("/projects/0/id");
    let role = bed.admin.get(&v3("roles?name=member")).await.text("/roles/0/id");
    bed.admin.put(&v3(&format!("projects/{project}/users/{user}/roles/{role}")), Value::Null).await.expect(204);
    let anonymous = bed.cloud.anonymous();
    let change = json!({"user": {"original_password": first, "password": password}});
    anonymous.post(&v3(&format!("users/{user}/password")), change).await.expect(204);
    let scope = json!({"project": {"id": project}});
    let token = anonymous.login("canary", &password, scope).await.expect(201).header("x-subject-token").to_owned();
    planted.given("a token", &token);
    let me = anonymous.clone().token(&token);

    // What goes wrong is told in the log more often than what goes right.
    anonymous.login("canary", &planted.plant("a wrong password"), Value::Null).await.expect(401);
    anonymous.login("nobody", &planted.plant("a password of nobody"), Value::Null).await.expect(401);
    let odd = json!({"user": {"name": "x", "password": {"not": planted.plant("a password of a wrong type")}}});
    bed.admin.post(&v3("users"), odd).await.expect(400);
    let twice = json!({"user": {"name": "canary", "password": planted.plant("a password of a user that exists")}});
    bed.admin.post(&v3("users"), twice).await.expect(409);
    let broken = format!("{{\"auth\": {{\"identity\": {{\"password\": \"{}\" x", planted.plant("a password in broken JSON"));
    anonymous.send_bytes("POST", &v3("auth/tokens"), "application/json", broken.into()).await.expect(400);
    let bad = planted.plant("a token that is none");
    anonymous.clone().token(&bad).get(&v3("users")).await.expect(401);

    let secret = planted.plant("an application credential's secret");
    let credential = json!({"application_credential": {"name": "a", "secret": secret}});
    let path = v3(&format!("users/{user}/application_credentials"));
    let id = me.post(&path, credential).await.expect(201).text("/application_credential/id");
    let made = me.post(&path, json!({"application_credential": {"name": "b"}})).await.expect(201);
    planted.given("a generated secret", &made.text("/application_credential/secret"));
    let method = |secret: &str| {
        let identity = json!({"methods": ["application_credential"], "application_credential": {"id": id, "secret": secret}});
        json!({"auth": {"identity": identity}})
    };
    let token = anonymous.post(&v3("auth/tokens"), method(&secret)).await.expect(201).header("x-subject-token").to_owned();
    planted.given("a token of an application credential", &token);
    anonymous.post(&v3("auth/tokens"), method(&planted.plant("a wrong secret"))).await.expect(401);

    let ec2 = me.post(&v3(&format!("users/{user}/credentials/OS-EC2")), json!({"tenant_id": project})).await.expect(201);
    planted.given("an EC2 secret", &ec2.text("/credential/secret"));
    let consumer = json!({"consumer": {"description": "c"}});
    let consumer = bed.admin.post(&v3("OS-OAUTH1/consumers"), consumer).await.expect(201);
    planted.given("a consumer's secret", &consumer.text("/consumer/secret"));
    let signed = format!("OAuth oauth_consumer_key=\"c\", oauth_signature=\"{}\"", planted.plant("a signature"));
    let asking = anonymous.clone().header("authorization", &signed).header("requested-project-id", &project);
    asking.post(&v3("OS-OAUTH1/request_token"), Value::Null).await.expect(400);
    let passcode = planted.plant("a passcode");
    let totp = json!({"methods": ["totp"], "totp": {"user": {"id": user, "passcode": passcode}}});
    anonymous.post(&v3("auth/tokens"), json!({"auth": {"identity": totp}})).await.expect(401);
    let options = json!({"multi_factor_auth_enabled": true, "multi_factor_auth_rules": [["password", "totp"]]});
    bed.admin.patch(&v3(&format!("users/{user}")), json!({"user": {"options": options}})).await.expect(200);
    let more = anonymous.login("canary", &password, Value::Null).await.expect(401);
    planted.given("a receipt", more.header("openstack-auth-receipt"));
    bed.admin
        .patch(&v3(&format!("users/{user}")), json!({"user": {"options": {"multi_factor_auth_enabled": false}}}))
        .await
        .expect(200);
    bed.admin.post("/operator/v1/token-keys", Value::Null).await.expect(200);
    let blob = planted.plant("a credential's blob");
    let totp = json!({"credential": {"type": "other", "blob": blob, "user_id": user}});
    me.post(&v3("credentials"), totp).await.expect(201);
    federation(bed, planted).await;
    me
}

async fn federation(bed: &Bed, planted: &mut Planted) {
    let path = |path: &str| format!("/identity/v3/OS-FEDERATION/{path}");
    let (idp, protocol) = (path("identity_providers/canary"), "identity_providers/canary/protocols/openid");
    let rules = json!([{"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "OIDC-sub"}]}]);
    bed.admin.put(&path("mappings/canary"), json!({"mapping": {"rules": rules}})).await.expect(201);
    bed.admin.put(&idp, json!({"identity_provider": {"enabled": true}})).await.expect(201);
    let secret = planted.plant("a secret of a provider's client");
    let oidc = json!({"issuer": "https://192.0.2.1", "client_id": "c", "client_secret": secret});
    bed.admin.put(&path(protocol), json!({"protocol": {"mapping_id": "canary", "oidc": oidc}})).await.expect(201);
    let odd = json!({"issuer": 7, "client_id": "c", "client_secret": planted.plant("a client's secret beside a mistake")});
    bed.admin.patch(&path(protocol), json!({"protocol": {"oidc": odd}})).await.expect(400);
    let bearer = format!("Bearer {}", planted.plant("an access token"));
    let anonymous = bed.cloud.anonymous();
    anonymous.clone().header("authorization", &bearer).post(&path(&format!("{protocol}/auth")), Value::Null).await.expect(503);
    let (code, state) = (planted.plant("a code"), planted.plant("a state"));
    anonymous.get(&format!("/identity/v3/auth/OS-FEDERATION/{protocol}/websso?code={code}&state={state}")).await.expect(401);
}

async fn servers(bed: &Bed, me: &Client, planted: &mut Planted) -> String {
    let key = me.post("/compute/v2.1/os-keypairs", json!({"keypair": {"name": "generated"}})).await.expect(200);
    let private = key.text("/keypair/private_key");
    let line = private.lines().nth(3).expect("a key has lines").to_owned();
    planted.given("a private key", &line);
    let (pass, data) = (planted.plant("adminPass"), planted.plant("user data"));
    planted.given("user data in base64", base64(&data).trim_end_matches('='));
    let server = bed.body(json!({
        "networks": [{"uuid": bed.network}], "key_name": "generated", "adminPass": pass, "user_data": base64(&data), "config_drive": true,
        "personality": [{"path": "/a", "contents": base64(&planted.plant("an injected file"))}],
    }));
    let id = me.post(SERVERS, server).await.expect(202).text("/server/id");
    bed.status(&id, "ACTIVE").await;
    let act = async |body: Value| -> Answer { me.post(&format!("{SERVERS}/{id}/action"), body).await };
    let rescue = planted.plant("adminPass of a rescue");
    act(json!({"rescue": {"adminPass": rescue}})).await.expect(200);
    bed.status(&id, "RESCUE").await;
    act(json!({"unrescue": null})).await.expect(202);
    bed.status(&id, "ACTIVE").await;
    let rebuild = json!({"rebuild": {"imageRef": bed.image, "adminPass": planted.plant("adminPass of a rebuild")}});
    act(rebuild).await.expect(202);
    bed.status(&id, "ACTIVE").await;
    act(json!({"changePassword": {"adminPass": planted.plant("adminPass of a change")}})).await;
    let console = act(json!({"os-getVNCConsole": {"type": "novnc"}})).await.expect(200).text("/console/url");
    let token = console.rsplit(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c)).next().unwrap_or_default().to_owned();
    planted.given("a console's token", &token);
    let shell = json!({"server": {"name": "s", "user_data": planted.plant("user data that is no base64!")}});
    me.post(SERVERS, shell).await.expect(400);
    id
}

/// Whoever has the key of a transfer may take the volume.
async fn transfers(me: &Client, planted: &mut Planted) {
    let volumes = "/volume/v3/volumes";
    let id = me.post(volumes, json!({"volume": {"size": 1}})).await.expect(202).text("/volume/id");
    let path = format!("{volumes}/{id}");
    until("the volume is there", || me.get(&path), |a| a.at("/volume/status") == "available").await;
    let path = "/volume/v3/os-volume-transfer";
    let made = me.post(path, json!({"transfer": {"volume_id": id}})).await.expect(202);
    let (transfer, key) = (made.text("/transfer/id"), made.text("/transfer/auth_key"));
    planted.given("a transfer's key", &key);
    let accept = format!("{path}/{transfer}/accept");
    let wrong = planted.plant("a wrong key");
    me.post(&accept, json!({"accept": {"auth_key": wrong}})).await.expect(400);
    me.post(&accept, json!({"accept": {"auth_key": key}})).await.expect(202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_nowhere_to_be_read() {
    let log = Log::default();
    let writer = log.clone();
    let all =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).with_ansi(false);
    all.init();
    let store = Memory::new();
    let bed = Bed::on(store.clone(), 1).await;
    let mut planted = Planted::default();
    let me = identity(&bed, &mut planted).await;
    let server = servers(&bed, &me, &mut planted).await;
    transfers(&me, &mut planted).await;

    let why = bed.admin.get(&format!("/operator/v1/why/server/{server}")).await.expect(200);
    let tasks = bed.admin.get("/operator/v1/tasks").await.expect(200);
    let actions = bed.admin.get(&format!("{SERVERS}/{server}/os-instance-actions")).await.expect(200);
    let mut wrong = Vec::new();
    for (place, answer) in [("the story", why), ("the tasks", tasks), ("the actions", actions)] {
        let found = planted.found_in(&answer.body.to_string());
        wrong.extend(found.into_iter().map(|what| format!("{what} is in {place}")));
    }
    let stored = store.range(Range { prefix: "", after: None, limit: usize::MAX }).await.unwrap();
    assert!(!stored.more && stored.entries.len() > 100, "the store was read whole");
    // What a guest is given to start with is kept as it was sent, in a table of its own.
    for entry in stored.entries.iter().filter(|e| !e.key.starts_with("compute/user_data/")) {
        let found = planted.found_in(&String::from_utf8_lossy(&entry.value));
        wrong.extend(found.into_iter().map(|what| format!("{what} is in the row {}", entry.key)));
        wrong.extend(planted.found_in(&entry.key).into_iter().map(|what| format!("{what} is in the key {}", entry.key)));
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("Request"), "the log was captured");
    for line in log.lines() {
        wrong.extend(planted.found_in(line).into_iter().map(|what| format!("{what} is in the log: {line}")));
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
