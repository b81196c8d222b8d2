//! Rules for passwords and accounts over HTTP: `[security_compliance]`.
use base::{Clock as _, ManualClock, SystemClock};
use identity::SecurityCompliance;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use store::{Memory, Range, Store};
use testkit::{Answer, Client, Setup, TestCloud};

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Bed {
    cloud: TestCloud,
    clock: Arc<ManualClock>,
    store: Arc<dyn Store>,
    rules: SecurityCompliance,
}

impl Bed {
    async fn start(rules: SecurityCompliance) -> Self {
        let clock = Arc::new(ManualClock::at(SystemClock.now()));
        let store: Arc<dyn Store> = Memory::new();
        let setup = Setup { clock: clock.clone(), store: store.clone(), security_compliance: rules.clone(), ..Setup::default() };
        Self { cloud: TestCloud::with(setup).await, clock, store, rules }
    }
    /// Another process of the same cloud.
    async fn another(&self) -> TestCloud {
        let (clock, store, keys) = (self.clock.clone(), self.store.clone(), Some(self.cloud.keys.clone()));
        TestCloud::with(Setup { clock, store, keys, security_compliance: self.rules.clone(), ..Setup::default() }).await
    }
    async fn user(&self, name: &str, options: Value) -> String {
        let body = json!({"user": {"name": name, "password": "first", "options": options}});
        self.cloud.admin().await.post("/identity/v3/users", body).await.expect(201).text("/user/id")
    }
    async fn login(&self, name: &str, password: &str) -> Answer {
        self.cloud.anonymous().login(name, password, Value::Null).await
    }
    async fn change(&self, id: &str, old: &str, new: &str) -> Answer {
        let body = json!({"user": {"original_password": old, "password": new}});
        self.cloud.anonymous().post(&format!("/identity/v3/users/{id}/password"), body).await
    }
    async fn patch(&self, id: &str, user: Value) -> Answer {
        let admin = self.cloud.admin().await;
        admin.patch(&format!("/identity/v3/users/{id}"), json!({ "user": user })).await.expect(200)
    }
    async fn rows(&self, prefix: &str) -> Vec<String> {
        let all = self.store.range(Range { prefix, after: None, limit: usize::MAX }).await.unwrap();
        all.entries.iter().map(|e| String::from_utf8_lossy(&e.value).into_owned()).collect()
    }
}

#[tokio::test]
async fn a_password_expires_and_is_changed_by_its_user() {
    let bed = Bed::start(SecurityCompliance { password_expires_days: Some(30), ..Default::default() }).await;
    let (id, exempt) = (bed.user("u", json!({})).await, bed.user("v", json!({"ignore_password_expiry": true})).await);
    let admin = bed.cloud.admin().await;
    let shown = admin.get(&format!("/identity/v3/users/{id}")).await.expect(200).text("/user/password_expires_at");
    assert!(shown.ends_with(".000000"), "{shown}");
    let login = bed.login("u", "first").await.expect(201);
    assert_eq!(login.text("/token/user/password_expires_at"), shown);
    assert!(admin.get(&format!("/identity/v3/users/{exempt}")).await.at("/user/password_expires_at").is_null());

    let now = bed.clock.now();
    let list = async |client: &Client, what: &str, how: &str, days: u32| {
        let at = now.plus(DAY * days).seconds_z();
        client.get(&format!("/identity/v3/{what}?password_expires_at={how}:{at}")).await.expect(200).all("/users", "name")
    };
    assert_eq!(list(&admin, "users", "lt", 31).await, ["u"]);
    assert_eq!(list(&admin, "users", "gte", 29).await, ["u"]);
    assert!(list(&admin, "users", "lt", 29).await.is_empty() && list(&admin, "users", "gt", 31).await.is_empty());
    let group = admin.post("/identity/v3/groups", json!({"group": {"name": "g"}})).await.expect(201).text("/group/id");
    for user in [&id, &exempt] {
        admin.put(&format!("/identity/v3/groups/{group}/users/{user}"), Value::Null).await.expect(204);
    }
    assert_eq!(list(&admin, &format!("groups/{group}/users"), "neq", 1).await, ["u"]);
    for bad in ["lt:yesterday", "below:2026-01-01T00:00:00Z", "2026"] {
        admin.get(&format!("/identity/v3/users?password_expires_at={bad}")).await.expect(400);
    }

    bed.clock.advance(DAY * 30);
    let refused = bed.login("u", "first").await.expect(401);
    let said = format!("The password is expired and needs to be changed for user: {id}.");
    assert_eq!(refused.text("/error/message"), said);
    let wrong = bed.login("u", "wrong").await.expect(401);
    assert_eq!(wrong.body, bed.login("nobody", "wrong").await.expect(401).body, "only who knows it learns that it is expired");
    bed.login("v", "first").await.expect(201);
    bed.change(&id, "first", "second").await.expect(204);
    bed.login("u", "second").await.expect(201);
}

#[tokio::test]
async fn what_an_administrator_sets_is_changed_at_first_use() {
    let bed = Bed::start(SecurityCompliance { change_password_upon_first_use: true, ..Default::default() }).await;
    let id = bed.user("u", json!({})).await;
    bed.user("v", json!({"ignore_change_password_upon_first_use": true})).await;
    bed.login("u", "first").await.expect(401);
    bed.login("v", "first").await.expect(201);
    bed.change(&id, "first", "second").await.expect(204);
    bed.login("u", "second").await.expect(201);
    bed.patch(&id, json!({"password": "reset"})).await;
    bed.login("u", "reset").await.expect(401);
    bed.patch(&id, json!({"password": "reset", "options": {"ignore_change_password_upon_first_use": true}})).await;
    bed.login("u", "reset").await.expect(201);
}

#[tokio::test]
async fn old_passwords_do_not_come_again_and_new_ones_stay_a_while() {
    let rules = SecurityCompliance { unique_last_password_count: 3, minimum_password_age: 2, ..Default::default() };
    let bed = Bed::start(rules).await;
    let id = bed.user("u", json!({})).await;
    bed.change(&id, "first", "second").await.expect(204);
    let early = bed.change(&id, "second", "third").await.expect(400);
    assert!(early.text("/error/message").contains("try again in 2 day(s)"), "{}", early.body);
    bed.clock.advance(DAY * 2);
    let again = bed.change(&id, "second", "first").await.expect(400);
    assert!(again.text("/error/message").contains("must be unique is 3"), "{}", again.body);
    bed.change(&id, "second", "second").await.expect(400);
    bed.change(&id, "second", "third").await.expect(204);
    bed.clock.advance(DAY * 2);
    bed.change(&id, "third", "first").await.expect(400);
    bed.change(&id, "third", "fourth").await.expect(204);
    bed.clock.advance(DAY * 2);
    bed.change(&id, "fourth", "first").await.expect(204);
    // An administrator is bound by neither, and what an administrator has set may be changed at once.
    bed.patch(&id, json!({"password": "first"})).await;
    bed.change(&id, "first", "fifth").await.expect(204);
    let shown = bed.cloud.admin().await.get(&format!("/identity/v3/users/{id}")).await;
    assert!(!shown.body.to_string().contains("hash"), "{}", shown.body);
}

#[tokio::test]
async fn a_password_is_as_strong_as_the_operator_wants() {
    let rules = SecurityCompliance {
        password_regex: Some(r"^(?=.*\d)(?=.*[a-zA-Z]).{7,}$".into()),
        password_regex_description: Some("seven characters, a letter and a digit".into()),
        ..Default::default()
    };
    let bed = Bed::start(rules).await;
    let admin = bed.cloud.admin().await;
    let weak = admin.post("/identity/v3/users", json!({"user": {"name": "u", "password": "weak"}})).await.expect(400);
    let said = "The password does not match the requirements: seven characters, a letter and a digit.";
    assert_eq!(weak.text("/error/message"), said);
    let made = admin.post("/identity/v3/users", json!({"user": {"name": "u", "password": "strong123"}})).await.expect(201);
    let id = made.text("/user/id");
    admin.patch(&format!("/identity/v3/users/{id}"), json!({"user": {"password": "weak"}})).await.expect(400);
    assert_eq!(bed.change(&id, "strong123", "weak").await.expect(400).text("/error/message"), said);
    bed.change(&id, "strong123", "stronger1234").await.expect(204);
    let me = bed.login("u", "stronger1234").await.expect(201).header("x-subject-token").to_owned();
    let me = bed.cloud.anonymous().token(me);
    let told = me.get("/identity/v3/domains/default/config/security_compliance").await.expect(200);
    assert_eq!(told.at("/config/security_compliance/password_regex_description"), "seven characters, a letter and a digit");
    let one = me.get("/identity/v3/domains/default/config/security_compliance/password_regex").await.expect(200);
    assert_eq!(one.at("/config"), &json!({"password_regex": r"^(?=.*\d)(?=.*[a-zA-Z]).{7,}$"}));
    me.get("/identity/v3/domains/default/config/security_compliance/lockout_duration").await.expect(403);
    me.get("/identity/v3/domains/other/config/security_compliance").await.expect(403);
}

#[tokio::test]
async fn guessing_locks_an_account_at_all_controllers() {
    let rules = SecurityCompliance { lockout_failure_attempts: Some(3), lockout_duration: Some(60), ..Default::default() };
    let bed = Bed::start(rules).await;
    let other = bed.another().await;
    let id = bed.user("u", json!({})).await;
    bed.user("v", json!({"ignore_lockout_failure_attempts": true})).await;
    let guess = async |name: &str| bed.login(name, "wrong").await.expect(401);
    guess("u").await;
    other.anonymous().login("u", "wrong", Value::Null).await.expect(401);
    bed.login("u", "first").await.expect(201);

    guess("u").await;
    other.anonymous().login("u", "wrong", Value::Null).await.expect(401);
    let body = json!({"user": {"original_password": "wrong", "password": "x"}});
    other.anonymous().post(&format!("/identity/v3/users/{id}/password"), body).await.expect(401);
    let locked = bed.login("u", "first").await.expect(401);
    other.anonymous().login("u", "first", Value::Null).await.expect(401);
    bed.change(&id, "first", "second").await.expect(401);
    for _ in 0..3 {
        assert_eq!(guess("nobody").await.body, locked.body, "who does not exist is locked and answered alike");
        guess("v").await;
    }
    bed.login("v", "first").await.expect(201);

    // What is locked is written no more, whoever tries.
    let before = bed.store.range(Range { prefix: "identity/failures/", after: None, limit: 9 }).await.unwrap();
    let modified: Vec<_> = before.entries.iter().map(|e| e.modified).collect();
    assert!((2..=3).contains(&modified.len()), "u, nobody, and v, whom it does not lock out: {}", modified.len());
    for _ in 0..5 {
        guess("u").await;
        guess("nobody").await;
    }
    let after = bed.store.range(Range { prefix: "identity/failures/", after: None, limit: 9 }).await.unwrap();
    assert_eq!(after.entries.iter().map(|e| e.modified).collect::<Vec<_>>(), modified);

    bed.clock.advance(Duration::from_secs(60));
    guess("u").await;
    bed.login("u", "first").await.expect(201);
    let me = bed.login("u", "first").await.expect(201).header("x-subject-token").to_owned();
    let admin = bed.cloud.admin().await;
    let project = admin.post("/identity/v3/projects", json!({"project": {"name": "p"}})).await.expect(201).text("/project/id");
    let role = admin.get("/identity/v3/roles?name=member").await.text("/roles/0/id");
    admin.put(&format!("/identity/v3/projects/{project}/users/{id}/roles/{role}"), Value::Null).await.expect(204);
    let scoped = json!({"identity": {"methods": ["token"], "token": {"id": me}}, "scope": {"project": {"id": project}}});
    let tokens = "/identity/v3/auth/tokens";
    let me = bed.cloud.anonymous().post(tokens, json!({ "auth": scoped })).await.expect(201).header("x-subject-token").to_owned();
    let path = format!("/identity/v3/users/{id}/application_credentials");
    let app = bed.cloud.anonymous().token(me).post(&path, json!({"application_credential": {"name": "a"}})).await.expect(201);
    let app = json!({"id": app.text("/application_credential/id"), "secret": app.text("/application_credential/secret")});
    for _ in 0..3 {
        guess("u").await;
    }
    bed.login("u", "first").await.expect(401);
    // A program goes on whoever guesses, and opens nothing.
    let program = json!({"auth": {"identity": {"methods": ["application_credential"], "application_credential": app}}});
    bed.cloud.anonymous().post(tokens, program).await.expect(201);
    bed.login("u", "first").await.expect(401);
    bed.patch(&id, json!({"enabled": true})).await;
    bed.login("u", "first").await.expect(201);
    bed.cloud.admin().await.delete(&format!("/identity/v3/users/{id}")).await.expect(204);
    assert_eq!(bed.rows(&format!("identity/failures/{id}")).await.len(), 0);
}

#[tokio::test]
async fn many_guesses_at_once_are_no_way_round_the_lock() {
    let rules = SecurityCompliance { lockout_failure_attempts: Some(5), ..Default::default() };
    let bed = Bed::start(rules).await;
    bed.user("u", json!({})).await;
    let mut guesses = tokio::task::JoinSet::new();
    for i in 0..40 {
        let client = bed.cloud.anonymous();
        guesses.spawn(async move { client.login("u", &format!("guess {i}"), Value::Null).await.status });
    }
    assert!(guesses.join_all().await.iter().all(|s| *s == 401));
    assert_eq!(bed.rows("identity/failures/").await.len(), 1);
    assert!(bed.rows("identity/failures/").await[0].contains("\"count\":5"), "{:?}", bed.rows("identity/failures/").await);
    bed.login("u", "first").await.expect(401);
}

#[tokio::test]
async fn an_account_that_nobody_uses_ends() {
    let bed = Bed::start(SecurityCompliance { disable_user_account_days_inactive: Some(10), ..Default::default() }).await;
    let id = bed.user("u", json!({})).await;
    bed.user("v", json!({"ignore_user_inactivity": true})).await;
    bed.clock.advance(DAY * 9);
    bed.login("u", "first").await.expect(201);
    bed.login("u", "first").await.expect(201);
    bed.cloud.admin().await;
    bed.clock.advance(DAY * 9);
    bed.login("u", "first").await.expect(201);
    let admin = bed.cloud.admin().await;
    assert_eq!(admin.get(&format!("/identity/v3/users/{id}")).await.at("/user/enabled"), true);
    bed.clock.advance(DAY * 9);
    bed.cloud.admin().await;
    bed.clock.advance(DAY);
    bed.login("u", "first").await.expect(401);
    bed.change(&id, "first", "second").await.expect(401);
    bed.login("v", "first").await.expect(201);
    let admin = bed.cloud.admin().await;
    assert_eq!(admin.get(&format!("/identity/v3/users/{id}")).await.at("/user/enabled"), false);
    bed.patch(&id, json!({"enabled": true})).await;
    bed.login("u", "first").await.expect(201);
}

#[tokio::test]
async fn options_of_a_user_have_their_forms() {
    let bed = Bed::start(SecurityCompliance::default()).await;
    let id = bed.user("u", json!({"lock_password": true})).await;
    let locked = bed.change(&id, "first", "second").await.expect(400);
    assert!(locked.text("/error/message").contains("disallowing password changes"), "{}", locked.body);
    let admin = bed.cloud.admin().await;
    let path = format!("/identity/v3/users/{id}");
    for bad in [
        json!({"lock_password": "yes"}),
        json!({"unknown": true}),
        json!({"multi_factor_auth_rules": [[]]}),
        json!({"multi_factor_auth_rules": [["password", "password"]]}),
        json!({"multi_factor_auth_rules": [["totp"], ["totp"]]}),
        json!({"multi_factor_auth_rules": [[1]]}),
        json!({"multi_factor_auth_rules": ["totp"]}),
    ] {
        let body = json!({"user": {"options": bad}});
        assert_eq!(admin.patch(&path, body.clone()).await.status, 400, "{body}");
    }
    let shown =
        bed.patch(&id, json!({"options": {"lock_password": null, "multi_factor_auth_rules": [["password", "totp"]]}})).await;
    assert_eq!(shown.at("/user/options"), &json!({"multi_factor_auth_rules": [["password", "totp"]]}));
    bed.change(&id, "first", "second").await.expect(204);
}
