//! Requests at the edge of what is sensible, and EC2 keys as services check them.
use base::{Clock as _, ManualClock, SystemClock};
use base64::Engine as _;
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use std::{sync::Arc, time::Duration};
use testkit::{Client, Setup, TestCloud};

const TOKENS: &str = "/identity/v3/auth/tokens";

#[tokio::test]
async fn what_is_too_large_or_too_deep_is_refused_before_it_costs_anything() {
    let cloud = TestCloud::start().await;
    let (anybody, admin) = (cloud.anonymous(), cloud.admin().await);
    let deep = format!("{{\"auth\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    anybody.send_bytes("POST", TOKENS, "application/json", Bytes::from(deep)).await.expect(400);
    let large = Bytes::from(vec![b' '; 4 << 20]);
    anybody.send_bytes("POST", TOKENS, "application/json", large.clone()).await.expect(413);
    admin.send_bytes("POST", "/identity/v3/users", "application/json", large).await.expect(413);

    // Long passwords are no work for the hasher, wherever they come in.
    let long = "x".repeat(100_000);
    let refused = anybody.login("admin", &long, Value::Null).await.expect(401);
    assert_eq!(refused.body, anybody.login("nobody", &long, Value::Null).await.expect(401).body);
    let made = admin.post("/identity/v3/users", json!({"user": {"name": "u", "password": "p"}})).await.expect(201);
    let path = format!("/identity/v3/users/{}", made.text("/user/id"));
    admin.patch(&path, json!({"user": {"password": long}})).await.expect(400);
    for (old, new, status) in [(long.as_str(), "new", 401), ("p", long.as_str(), 400)] {
        let body = json!({"user": {"original_password": old, "password": new}});
        anybody.post(&format!("{path}/password"), body).await.expect(status);
    }
    let totp = json!({"methods": ["totp"], "totp": {"user": {"id": made.text("/user/id"), "passcode": long}}});
    anybody.post(TOKENS, json!({"auth": {"identity": totp}})).await.expect(401);
    let many = (0..500).fold(anybody.clone(), |client, i| client.header(&format!("x-much-{i}"), "y"));
    assert!((400..500).contains(&many.get("/identity/v3").await.status));
    for text in ["x".repeat(5000), "y".repeat(60_000)] {
        anybody.clone().token(text).get("/identity/v3/auth/projects").await.expect(401);
    }
    // Filters compare; they are no patterns that one could make slow.
    let evil = "(a%2B)%2B%24";
    admin.get(&format!("/identity/v3/users?name__contains={}{evil}", "a".repeat(2000))).await.expect(200);
}

struct Bed {
    cloud: TestCloud,
    clock: Arc<ManualClock>,
    service: Client,
}

impl Bed {
    /// The body that a service sends for a request signed by version 2 at a time.
    fn signed(&self, access: &str, secret: &str, at: &str) -> Value {
        let text = format!(
            "GET\nhost\n/\nAWSAccessKeyId={access}&SignatureMethod=HmacSHA256&SignatureVersion=2&Timestamp={}",
            at.replace(':', "%3A")
        );
        let mut mac = <Hmac<Sha256> as hmac::Mac>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        let signature = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
        json!({"credentials": {
            "access": access, "signature": signature, "host": "host", "verb": "GET", "path": "/",
            "params": {"AWSAccessKeyId": access, "SignatureVersion": "2", "SignatureMethod": "HmacSHA256", "Timestamp": at},
        }})
    }
    fn time(&self, ahead: i64) -> String {
        base::Timestamp::from_unix(self.clock.now().unix() + ahead).seconds_z()
    }
    async fn check(&self, body: Value) -> testkit::Answer {
        self.service.post("/identity/v3/ec2tokens", body).await
    }
}

#[tokio::test]
async fn an_ec2_key_is_good_while_its_owner_may_and_its_signature_is_fresh() {
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let cloud = TestCloud::with(Setup { clock: clock.clone(), ..Setup::default() }).await;
    let service = cloud.user("service", "service").await;
    let (member, admin) = (cloud.member("p").await, cloud.admin().await);
    let id = async |kind: &str, name: &str| {
        admin.get(&format!("/identity/v3/{kind}s?name={name}")).await.text(&format!("/{kind}s/0/id"))
    };
    let (user, project, role) = (id("user", "p-member").await, id("project", "p").await, id("role", "member").await);
    let keys = format!("/identity/v3/users/{user}/credentials/OS-EC2");
    let made = member.post(&keys, json!({"tenant_id": project})).await.expect(201);
    let (access, secret) = (made.text("/credential/access"), made.text("/credential/secret"));
    let bed = Bed { cloud, clock, service };

    let good = bed.signed(&access, &secret, &bed.time(0));
    let token = bed.check(good.clone()).await.expect(200);
    assert_eq!((token.text("/token/user/id"), token.text("/token/project/id")), (user.clone(), project.clone()));
    for (what, body) in [
        ("old", bed.signed(&access, &secret, &bed.time(-16 * 60))),
        ("of the future", bed.signed(&access, &secret, &bed.time(16 * 60))),
        ("wrong", bed.signed(&access, "wrong", &bed.time(0))),
        ("nobody's", bed.signed("nobody", &secret, &bed.time(0))),
    ] {
        assert_eq!(bed.check(body).await.status, 401, "{what}");
    }
    let mut other = good.clone();
    other["credentials"]["path"] = "/other".into();
    bed.check(other).await.expect(401);
    let mut undated = good.clone();
    undated["credentials"]["params"].as_object_mut().unwrap().remove("Timestamp");
    bed.check(undated).await.expect(401);

    let grant = format!("/identity/v3/projects/{project}/users/{user}/roles/{role}");
    admin.delete(&grant).await.expect(204);
    bed.check(good.clone()).await.expect(401);
    admin.put(&grant, Value::Null).await.expect(204);
    for (kind, id) in [("user", &user), ("project", &project)] {
        let enable = async |on: bool| {
            admin.patch(&format!("/identity/v3/{kind}s/{id}"), json!({kind: {"enabled": on}})).await.expect(200);
        };
        enable(false).await;
        bed.check(good.clone()).await.expect(401);
        enable(true).await;
        bed.clock.advance(Duration::from_millis(1));
    }
    bed.check(good.clone()).await.expect(200);
    // As S3's clients sign: the service sends the text.
    let text = "GET\n\n\n\n/bucket/object";
    let mut mac = <Hmac<sha1::Sha1> as hmac::Mac>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    let standard = base64::engine::general_purpose::STANDARD;
    let signature = standard.encode(mac.finalize().into_bytes());
    let s3 = |signature: &str| json!({"credentials": {"access": access, "token": standard.encode(text), "signature": signature}});
    let token = bed.service.post("/identity/v3/s3tokens", s3(&signature)).await.expect(200);
    assert_eq!(token.text("/token/project/id"), project);
    bed.service.post("/identity/v3/s3tokens", s3("wrong")).await.expect(401);
    bed.cloud.member("p").await.post("/identity/v3/s3tokens", s3(&signature)).await.expect(403);
    bed.cloud.anonymous().post("/identity/v3/s3tokens", s3(&signature)).await.expect(401);

    bed.cloud.member("p").await.delete(&format!("{keys}/{access}")).await.expect(204);
    bed.check(good).await.expect(401);
}
