//! Passcodes, rules for several factors, and receipts over HTTP.
use auth::totp;
use base::{Clock as _, ManualClock, SystemClock};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use store::{Memory, Store};
use testkit::{Answer, Client, Setup, TestCloud};

const TOKENS: &str = "/identity/v3/auth/tokens";
const SEED: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
const PERIOD: Duration = Duration::from_secs(30);

struct Bed {
    cloud: TestCloud,
    other: TestCloud,
    clock: Arc<ManualClock>,
    user: String,
}

impl Bed {
    /// Two processes of a cloud, and a user with a seed.
    async fn start() -> Self {
        let clock = Arc::new(ManualClock::at(SystemClock.now()));
        let store: Arc<dyn Store> = Memory::new();
        let rules = identity::SecurityCompliance { lockout_failure_attempts: Some(8), ..Default::default() };
        let setup = |keys| Setup {
            clock: clock.clone(),
            store: store.clone(),
            keys,
            security_compliance: rules.clone(),
            ..Setup::default()
        };
        let cloud = TestCloud::with(setup(None)).await;
        let other = TestCloud::with(setup(Some(cloud.keys.clone()))).await;
        let admin = cloud.admin().await;
        let body = json!({"user": {"name": "u", "password": "p"}});
        let user = admin.post("/identity/v3/users", body).await.expect(201).text("/user/id");
        let credential = json!({"credential": {"type": "totp", "blob": SEED, "user_id": user}});
        admin.post("/identity/v3/credentials", credential).await.expect(201);
        Self { cloud, other, clock, user }
    }
    fn passcode(&self, back: i64) -> String {
        totp::passcode(&totp::seed(SEED).unwrap(), totp::step(self.clock.now()) - back)
    }
    fn totp(&self, passcode: &str) -> Value {
        json!({"methods": ["totp"], "totp": {"user": {"id": self.user, "passcode": passcode}}})
    }
    fn password(&self) -> Value {
        json!({"methods": ["password"], "password": {"user": {"id": self.user, "password": "p"}}})
    }
    fn both(&self, passcode: &str) -> Value {
        let mut all = self.password();
        all["methods"] = json!(["password", "totp"]);
        all["totp"] = self.totp(passcode)["totp"].clone();
        all
    }
    async fn want(&self, rules: Value) {
        let options = json!({"multi_factor_auth_enabled": true, "multi_factor_auth_rules": rules});
        let path = format!("/identity/v3/users/{}", self.user);
        self.cloud.admin().await.patch(&path, json!({"user": {"options": options}})).await.expect(200);
    }
}

async fn log_in(client: &Client, identity: &Value) -> Answer {
    client.post(TOKENS, json!({"auth": {"identity": identity}})).await
}

#[tokio::test]
async fn a_passcode_is_good_once_anywhere() {
    let bed = Bed::start().await;
    let (here, there) = (bed.cloud.anonymous(), bed.other.anonymous());
    let code = bed.passcode(0);
    let first = log_in(&here, &bed.totp(&code)).await.expect(201);
    assert_eq!(first.at("/token/methods"), &json!(["totp"]));
    let again = log_in(&there, &bed.totp(&code)).await.expect(401);
    log_in(&here, &bed.totp(&code)).await.expect(401);
    assert_eq!(log_in(&there, &bed.totp("000000x")).await.expect(401).body, again.body);
    let nobody = json!({"methods": ["totp"], "totp": {"user": {"name": "n", "domain": {"id": "default"}, "passcode": "1"}}});
    assert_eq!(log_in(&here, &nobody).await.expect(401).body, again.body);
    log_in(&here, &bed.totp(&bed.passcode(1))).await.expect(401);

    bed.clock.advance(PERIOD * 2);
    let late = bed.passcode(1);
    log_in(&here, &bed.totp(&bed.passcode(2))).await.expect(401);
    log_in(&there, &bed.totp(&late)).await.expect(201);
    log_in(&here, &bed.totp(&late)).await.expect(401);

    bed.clock.advance(PERIOD * 2);
    let code = bed.passcode(0);
    let mut racers = tokio::task::JoinSet::new();
    for i in 0..8 {
        let (client, body) = (if i % 2 == 0 { here.clone() } else { there.clone() }, bed.totp(&code));
        racers.spawn(async move { log_in(&client, &body).await.status });
    }
    let won = racers.join_all().await.into_iter().filter(|s| *s == 201).count();
    assert_eq!(won, 1, "one of all who show it");
}

#[tokio::test]
async fn guessing_passcodes_locks_the_account() {
    let bed = Bed::start().await;
    for _ in 0..8 {
        log_in(&bed.cloud.anonymous(), &bed.totp("nothing")).await.expect(401);
    }
    log_in(&bed.other.anonymous(), &bed.totp(&bed.passcode(0))).await.expect(401);
    log_in(&bed.other.anonymous(), &bed.password()).await.expect(401);
}

#[tokio::test]
async fn a_receipt_carries_what_was_proved_to_the_next_request() {
    let bed = Bed::start().await;
    let (here, there) = (bed.cloud.anonymous(), bed.other.anonymous());
    let before = log_in(&here, &bed.password()).await.expect(201).header("x-subject-token").to_owned();
    bed.want(json!([["password", "totp"]])).await;

    let more = log_in(&here, &bed.password()).await.expect(401);
    assert_eq!(more.at("/required_auth_methods"), &json!([["password", "totp"]]));
    assert_eq!(more.at("/receipt/methods"), &json!(["password"]));
    assert_eq!(more.at("/receipt/user"), &json!({"id": bed.user, "name": "u", "domain": {"id": "default", "name": "Default"}}));
    assert!(more.header("x-subject-token").is_empty());
    let receipt = more.header("openstack-auth-receipt").to_owned();
    here.clone().token(&receipt).get("/identity/v3/auth/projects").await.expect(401);

    let bearing = there.clone().header("Openstack-Auth-Receipt", &receipt);
    log_in(&bearing, &bed.totp("wrong!")).await.expect(401);
    let token = log_in(&bearing, &bed.totp(&bed.passcode(0))).await.expect(201);
    assert_eq!(token.at("/token/methods"), &json!(["password", "totp"]));
    let rescope = |token: &str| json!({"methods": ["token"], "token": {"id": token}});
    log_in(&here, &rescope(token.header("x-subject-token"))).await.expect(201);
    let more = log_in(&here, &rescope(&before)).await.expect(401);
    assert_eq!(more.at("/receipt/methods"), &json!(["password", "token"]), "a token of before proves no more than it did");

    bed.clock.advance(PERIOD);
    log_in(&here, &bed.both(&bed.passcode(0))).await.expect(201);

    // Not another's, no garbage, not too late, and not after a change of the password.
    let admin = bed.cloud.admin().await;
    bed.clock.advance(PERIOD * 2);
    let other = json!({"methods": ["password"], "password": {"user": {"name": "admin", "domain": {"id": "default"}, "password": testkit::ADMIN_PASSWORD}}});
    log_in(&bearing, &other).await.expect(401);
    log_in(&here.clone().header("Openstack-Auth-Receipt", "garbage"), &bed.totp(&bed.passcode(0))).await.expect(401);
    let fresh = log_in(&here, &bed.password()).await.expect(401).header("openstack-auth-receipt").to_owned();
    let path = format!("/identity/v3/users/{}", bed.user);
    bed.clock.advance(PERIOD);
    admin.patch(&path, json!({"user": {"password": "q"}})).await.expect(200);
    let fresh = here.clone().header("Openstack-Auth-Receipt", &fresh);
    log_in(&fresh, &bed.totp(&bed.passcode(0))).await.expect(401);
    admin.patch(&path, json!({"user": {"password": "p"}})).await.expect(200);
    bed.clock.advance(PERIOD);
    let old = log_in(&here, &bed.password()).await.expect(401).header("openstack-auth-receipt").to_owned();
    bed.clock.advance(Duration::from_secs(300));
    log_in(&here.clone().header("Openstack-Auth-Receipt", &old), &bed.totp(&bed.passcode(0))).await.expect(401);
    bed.want(json!([["password", "totp"], ["password"]])).await;
    log_in(&here, &bed.password()).await.expect(201);
}
