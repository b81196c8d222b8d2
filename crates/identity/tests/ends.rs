//! What ends a token, everywhere and at once: each thing that it rests on, in two processes of one cloud.
use base::{Clock as _, ManualClock, SystemClock};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use store::{
    Memory, Store,
    faulty::{Faulty, Way},
};
use testkit::{Client, Setup, TestCloud};

const TOKENS: &str = "/identity/v3/auth/tokens";

struct Bed {
    cloud: TestCloud,
    other: TestCloud,
    clock: Arc<ManualClock>,
    admin: Client,
}

impl Bed {
    async fn start() -> Self {
        let clock = Arc::new(ManualClock::at(SystemClock.now()));
        let store: Arc<dyn Store> = Memory::new();
        let setup = |keys| Setup { clock: clock.clone(), store: store.clone(), keys, ..Setup::default() };
        let cloud = TestCloud::with(setup(None)).await;
        let other = TestCloud::with(setup(Some(cloud.keys.clone()))).await;
        let admin = cloud.admin().await;
        Self { cloud, other, clock, admin }
    }
    async fn make(&self, kind: &str, body: Value) -> String {
        let made = self.admin.post(&format!("/identity/v3/{kind}s"), json!({ kind: body })).await;
        made.expect(201).text(&format!("/{kind}/id"))
    }
    async fn put(&self, path: &str) {
        self.admin.put(&format!("/identity/v3/{path}"), Value::Null).await.expect(204);
    }
    async fn delete(&self, path: &str) {
        self.admin.delete(&format!("/identity/v3/{path}")).await.expect(204);
    }
    async fn enable(&self, kind: &str, id: &str, enabled: bool) {
        let body = json!({kind: {"enabled": enabled}});
        self.admin.patch(&format!("/identity/v3/{kind}s/{id}"), body).await.expect(200);
    }
    async fn login(&self, user: &str, scope: Value) -> String {
        let identity = json!({"methods": ["password"], "password": {"user": {"id": user, "password": "p"}}});
        let body = json!({"auth": {"identity": identity, "scope": scope}});
        self.cloud.anonymous().post(TOKENS, body).await.expect(201).header("x-subject-token").to_owned()
    }
    /// The same in both processes, at once.
    async fn stands(&self, token: &str) -> bool {
        let here = self.cloud.anonymous().token(token).get("/identity/v3/auth/projects").await.status;
        let there = self.other.anonymous().token(token).get("/identity/v3/auth/projects").await.status;
        assert_eq!(here, there, "all processes say the same");
        assert!(here == 200 || here == 401, "{here}");
        here == 200
    }
}

#[tokio::test]
async fn a_token_ends_with_what_it_rests_on_in_every_process() {
    let bed = Bed::start().await;
    let domain = bed.make("domain", json!({"name": "d"})).await;
    let home = bed.make("domain", json!({"name": "home"})).await;
    let project = bed.make("project", json!({"name": "p", "domain_id": domain})).await;
    let user = bed.make("user", json!({"name": "u", "domain_id": home, "password": "p"})).await;
    let group = bed.make("group", json!({"name": "g", "domain_id": home})).await;
    let (carrier, carried) =
        (bed.make("role", json!({"name": "carrier"})).await, bed.make("role", json!({"name": "carried"})).await);
    let scope = || json!({"project": {"id": project}});
    let direct = format!("projects/{project}/users/{user}/roles/{carrier}");

    bed.put(&direct).await;
    let token = bed.login(&user, scope()).await;
    bed.delete(&direct).await;
    assert!(!bed.stands(&token).await, "its role was taken away");

    bed.put(&format!("projects/{project}/groups/{group}/roles/{carrier}")).await;
    bed.put(&format!("groups/{group}/users/{user}")).await;
    let token = bed.login(&user, scope()).await;
    assert!(bed.stands(&token).await);
    bed.delete(&format!("groups/{group}/users/{user}")).await;
    assert!(!bed.stands(&token).await, "its user left the group");
    bed.put(&format!("groups/{group}/users/{user}")).await;
    let token = bed.login(&user, scope()).await;
    bed.delete(&format!("groups/{group}")).await;
    assert!(!bed.stands(&token).await, "the group is gone");

    bed.put(&direct).await;
    for (kind, id) in [("user", &user), ("project", &project), ("domain", &domain), ("domain", &home)] {
        let token = bed.login(&user, scope()).await;
        bed.clock.advance(Duration::from_millis(1));
        bed.enable(kind, id, false).await;
        assert!(!bed.stands(&token).await, "{kind} was disabled");
        bed.enable(kind, id, true).await;
        assert!(!bed.stands(&token).await, "{kind} was disabled, and that it is not any more changes nothing");
        bed.clock.advance(Duration::from_millis(1));
    }

    // Roles that came by another are gone with it; the token stands as long as any role does.
    bed.admin.put(&format!("/identity/v3/roles/{carrier}/implies/{carried}"), Value::Null).await.expect(201);
    let token = bed.login(&user, scope()).await;
    let seen = bed.admin.clone().header("x-subject-token", &token);
    assert_eq!(seen.get(TOKENS).await.expect(200).all("/token/roles", "name"), ["carrier", "carried"]);
    bed.delete(&format!("roles/{carrier}/implies/{carried}")).await;
    assert_eq!(seen.get(TOKENS).await.expect(200).all("/token/roles", "name"), ["carrier"]);
    bed.delete(&format!("roles/{carrier}")).await;
    assert!(!bed.stands(&token).await, "the role is gone");
}

/// A process that is cut off does not know what was taken away meanwhile, so it lets nobody in.
#[tokio::test]
async fn a_process_that_cannot_reach_the_store_lets_nobody_in() {
    let store = Memory::new();
    let cloud = TestCloud::with(Setup { store: store.clone(), ..Setup::default() }).await;
    let way = Arc::new(Faulty::new(store, 1, 0.0));
    let other = TestCloud::with(Setup { store: way.clone(), keys: Some(cloud.keys.clone()), ..Setup::default() }).await;
    let user = cloud.member("p").await;
    let there = other.anonymous().token(user.token.clone().unwrap());
    there.get("/identity/v3/auth/projects").await.expect(200);
    way.set(Way::Cut);
    user.clone().header("x-subject-token", &user.token.clone().unwrap()).delete(TOKENS).await.expect(204);
    // What it remembers of the token is not enough.
    let anybody = other.anonymous();
    let (token, password) =
        tokio::join!(there.get("/identity/v3/auth/projects"), anybody.login("admin", testkit::ADMIN_PASSWORD, Value::Null));
    for answer in [token, password] {
        assert_eq!(answer.status, 503, "{}", answer.body);
    }
    way.set(Way::Open);
    testkit::until("it is let in again", || there.get("/identity/v3/auth/projects"), |a| a.status == 401).await;
}

#[tokio::test]
async fn a_role_of_a_domain_only_carries_others() {
    let bed = Bed::start().await;
    let domain = bed.make("domain", json!({"name": "d"})).await;
    let project = bed.make("project", json!({"name": "p", "domain_id": domain})).await;
    let user = bed.make("user", json!({"name": "u", "domain_id": domain, "password": "p"})).await;
    let own = bed.make("role", json!({"name": "own", "domain_id": domain})).await;
    let (one, two) = (bed.make("role", json!({"name": "one"})).await, bed.make("role", json!({"name": "two"})).await);
    let implies = async |prior: &str, implied: &str| {
        bed.admin.put(&format!("/identity/v3/roles/{prior}/implies/{implied}"), Value::Null).await
    };
    implies(&own, &one).await.expect(201);
    implies(&one, &two).await.expect(201);
    implies(&one, &own).await.expect(403);
    bed.put(&format!("projects/{project}/users/{user}/roles/{own}")).await;
    let token = bed.login(&user, json!({"project": {"id": project}})).await;
    let seen = bed.admin.clone().header("x-subject-token", &token).get(TOKENS).await.expect(200);
    assert_eq!(seen.all("/token/roles", "name"), ["one", "two"], "through the chain, and without itself");
}

#[tokio::test]
async fn revocations_are_listed_from_a_time_on() {
    let bed = Bed::start().await;
    let service = bed.cloud.user("service", "service").await;
    let events = "/identity/v3/OS-REVOKE/events";
    let revoke = async || {
        let client = bed.cloud.member("p").await;
        let token = client.token.clone().unwrap();
        let audit = client.clone().header("x-subject-token", &token).get(TOKENS).await.expect(200).text("/token/audit_ids/0");
        client.clone().header("x-subject-token", &token).delete(TOKENS).await.expect(204);
        assert!(!bed.stands(&token).await);
        audit
    };
    let first = revoke().await;
    bed.clock.advance(Duration::from_secs(10));
    let between = bed.clock.now().seconds_z();
    bed.clock.advance(Duration::from_secs(10));
    let second = revoke().await;
    let mut all = service.get(events).await.expect(200).all("/events", "audit_id");
    all.sort();
    let mut both = [first, second.clone()];
    both.sort();
    assert_eq!(all, both);
    assert_eq!(service.get(&format!("{events}?since={between}")).await.expect(200).all("/events", "audit_id"), [second]);
    service.get(&format!("{events}?since=yesterday")).await.expect(400);
}

#[tokio::test]
async fn keys_change_and_no_token_is_refused_anywhere() {
    let bed = Bed::start().await;
    let both = [&bed.cloud, &bed.other];
    let mut given = vec![bed.admin.token.clone().unwrap()];
    // As often as the oldest key is still kept.
    for round in 0..3 {
        let keys = both[round % 2].cloud.authenticator.rotate_token_keys().await.unwrap();
        assert!(keys.rotated_at.is_some() && keys.count <= 5);
        for cloud in both {
            given.push(cloud.member("p").await.token.unwrap());
        }
        for token in &given {
            assert!(bed.stands(token).await, "after {} rotations", round + 1);
        }
    }
    // A process that starts now knows them, too.
    let store = bed.cloud.cloud.db.store.clone();
    let late =
        TestCloud::with(Setup { store, keys: Some(bed.cloud.keys.clone()), clock: bed.clock.clone(), ..Setup::default() }).await;
    for token in &given {
        late.anonymous().token(token).get("/identity/v3/auth/projects").await.expect(200);
    }
    for _ in 0..3 {
        bed.cloud.cloud.authenticator.rotate_token_keys().await.unwrap();
    }
    assert!(!bed.stands(&given[0]).await, "what an old key signed ends with the key");
    let rows = store_text(&bed).await;
    assert!(rows.contains("sealed") && rows.contains("gAAAA"), "the keys are sealed: {rows}");
}

async fn store_text(bed: &Bed) -> String {
    let prefix = "identity/token_keys/";
    let all = bed.cloud.cloud.db.store.range(store::Range { prefix, after: None, limit: 9 }).await.unwrap();
    all.entries.iter().map(|e| String::from_utf8_lossy(&e.value).into_owned()).collect()
}
