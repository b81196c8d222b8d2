//! Acting for somebody by leave: OAuth 1.0, and trusts that are passed on.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
use base::{Clock as _, ManualClock, SystemClock};
use base64::Engine as _;
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha1::Sha1;
use std::{sync::Arc, time::Duration};
use store::{Memory, Store};
use testkit::{Answer, Client, Setup, TestCloud};

const TOKENS: &str = "/identity/v3/auth/tokens";
const TRUSTS: &str = "/identity/v3/OS-TRUST/trusts";

struct Bed {
    cloud: TestCloud,
    other: TestCloud,
    clock: Arc<ManualClock>,
    admin: Client,
}

impl Bed {
    /// Two processes of one cloud.
    async fn start() -> Self {
        let clock = Arc::new(ManualClock::at(SystemClock.now()));
        let store: Arc<dyn Store> = Memory::new();
        let setup = |keys| Setup { clock: clock.clone(), store: store.clone(), keys, ..Setup::default() };
        let cloud = TestCloud::with(setup(None)).await;
        let other = TestCloud::with(setup(Some(cloud.keys.clone()))).await;
        let admin = cloud.admin().await;
        Self { cloud, other, clock, admin }
    }
    async fn id(&self, kind: &str, name: &str) -> String {
        self.admin.get(&format!("/identity/v3/{kind}s?name={name}")).await.expect(200).text(&format!("/{kind}s/0/id"))
    }
    async fn stands(&self, token: &str) -> u16 {
        self.admin.clone().header("x-subject-token", token).get(TOKENS).await.status
    }
}

fn token(answer: &Answer) -> String {
    answer.header("x-subject-token").to_owned()
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
        .to_string()
        .replace("%2D", "-")
        .replace("%2E", ".")
        .replace("%5F", "_")
        .replace("%7E", "~")
}

/// A consumer as client libraries are: it signs what it sends.
struct Consumer {
    url: String,
    id: String,
    secret: String,
}

impl Consumer {
    async fn new(bed: &Bed) -> Self {
        let made =
            bed.admin.post("/identity/v3/OS-OAUTH1/consumers", json!({"consumer": {"description": "c"}})).await.expect(201);
        Self { url: bed.cloud.url.clone(), id: made.text("/consumer/id"), secret: made.text("/consumer/secret") }
    }
    fn header(&self, at: i64, path: &str, token: Option<(&str, &str)>, more: &[(&str, &str)]) -> String {
        let (seconds, nonce) = (at.to_string(), base::id::hex());
        let mut all = vec![
            ("oauth_consumer_key", self.id.as_str()),
            ("oauth_nonce", &nonce),
            ("oauth_signature_method", "HMAC-SHA1"),
            ("oauth_timestamp", &seconds),
            ("oauth_version", "1.0"),
        ];
        all.extend(token.map(|(id, _)| ("oauth_token", id)));
        all.extend(more);
        all.sort_unstable();
        let parameters: Vec<String> = all.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect();
        let base = format!("POST&{}&{}", encode(&format!("{}{path}", self.url)), encode(&parameters.join("&")));
        let key = format!("{}&{}", encode(&self.secret), encode(token.map_or("", |(_, secret)| secret)));
        let mut mac = <Hmac<Sha1> as hmac::Mac>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(base.as_bytes());
        let signature = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
        let shown = all.iter().map(|(k, v)| format!("{k}=\"{}\"", encode(v))).collect::<Vec<_>>().join(", ");
        format!("OAuth {shown}, oauth_signature=\"{}\"", encode(&signature))
    }
}

/// `oauth_token` and `oauth_token_secret` of a form.
fn pair(answer: &Answer) -> (String, String) {
    assert_eq!(answer.header("content-type"), "application/x-www-form-urlencoded");
    let text = String::from_utf8(answer.bytes.to_vec()).unwrap();
    let of = |name: &str| text.split('&').find_map(|p| p.strip_prefix(&format!("{name}="))).unwrap().to_owned();
    assert!(!of("oauth_expires_at").is_empty());
    (of("oauth_token"), of("oauth_token_secret"))
}

async fn post(client: &Client, authorization: &str, path: &str, body: Value) -> Answer {
    let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    client.clone().header("authorization", authorization).send_bytes("POST", path, "application/json", bytes).await
}

const REQUEST: &str = "/identity/v3/OS-OAUTH1/request_token";
const ACCESS: &str = "/identity/v3/OS-OAUTH1/access_token";

#[tokio::test]
async fn a_third_party_acts_by_the_leave_of_a_user() {
    let bed = Bed::start().await;
    let user = bed.cloud.member("p").await;
    let (me, project) = (bed.id("user", "p-member").await, bed.id("project", "p").await);
    let (member, reader) = (bed.id("role", "member").await, bed.id("role", "reader").await);
    let consumer = Consumer::new(&bed).await;
    let now = || bed.clock.now().unix();
    let anybody = bed.cloud.anonymous();
    // As behind a front door: clients know all processes by one name.
    let elsewhere = bed.other.anonymous().header("host", bed.cloud.url.trim_start_matches("http://"));
    let asking = anybody.clone().header("requested-project-id", &project);

    // The request: signed with the consumer's secret, and only that.
    let header = consumer.header(now(), REQUEST, None, &[("oauth_callback", "oob")]);
    let made = post(&asking, &header, REQUEST, Value::Null).await.expect(201);
    let replayed = post(&asking, &header, REQUEST, Value::Null).await.expect(401);
    let stranger = Consumer { id: "nobody".into(), ..Consumer::new(&bed).await };
    let unknown = post(&asking, &stranger.header(now(), REQUEST, None, &[]), REQUEST, Value::Null).await.expect(401);
    assert_eq!(replayed.body, unknown.body, "nobody learns which consumers there are");
    let wrong = Consumer { secret: "wrong".into(), id: consumer.id.clone(), url: consumer.url.clone() };
    post(&asking, &wrong.header(now(), REQUEST, None, &[]), REQUEST, Value::Null).await.expect(401);
    post(&asking, &consumer.header(now() - 3600, REQUEST, None, &[]), REQUEST, Value::Null).await.expect(401);
    post(&anybody, &consumer.header(now(), REQUEST, None, &[]), REQUEST, Value::Null).await.expect(400);
    post(&asking, "Basic x", REQUEST, Value::Null).await.expect(400);
    let nowhere = anybody.clone().header("requested-project-id", "nowhere");
    post(&nowhere, &consumer.header(now(), REQUEST, None, &[]), REQUEST, Value::Null).await.expect(404);
    let (request, request_secret) = pair(&made);

    // The user's word, for roles that the user has.
    let path = format!("/identity/v3/OS-OAUTH1/authorize/{request}");
    user.put(&path, json!({"roles": [{"name": "admin"}]})).await.expect(401);
    user.put(&path, json!({"roles": []})).await.expect(400);
    user.put("/identity/v3/OS-OAUTH1/authorize/nothing", json!({"roles": [{"name": "reader"}]})).await.expect(404);
    let access_header =
        |verifier: &str| consumer.header(now(), ACCESS, Some((&request, &request_secret)), &[("oauth_verifier", verifier)]);
    post(&anybody, &access_header("guessed"), ACCESS, Value::Null).await.expect(401);
    let word = user.put(&path, json!({"roles": [{"id": reader}]})).await.expect(200).text("/token/oauth_verifier");
    bed.cloud.member("q").await.put(&path, json!({"roles": [{"id": reader}]})).await.expect(404);
    bed.cloud.user("p", "reader").await.put(&path, json!({"roles": [{"id": reader}]})).await.expect(403);

    // The access token, once.
    post(&anybody, &access_header("wrong"), ACCESS, Value::Null).await.expect(401);
    let made = post(&elsewhere, &access_header(&word), ACCESS, Value::Null).await.expect(201);
    post(&anybody, &access_header(&word), ACCESS, Value::Null).await.expect(401);
    let (access, secret) = pair(&made);

    // A token of the project with these roles, for as long as all of it stands.
    let body = json!({"auth": {"identity": {"methods": ["oauth1"], "oauth1": {}}}});
    let header = || consumer.header(now(), TOKENS, Some((&access, &secret)), &[]);
    let used = header();
    let got = post(&anybody, &used, TOKENS, body.clone()).await.expect(201);
    post(&elsewhere, &used, TOKENS, body.clone()).await.expect(401);
    post(&elsewhere, &header(), TOKENS, body.clone()).await.expect(201);
    assert_eq!(got.at("/token/OS-OAUTH1"), &json!({"access_token_id": access, "consumer_id": consumer.id}));
    assert_eq!((got.text("/token/user/id"), got.text("/token/project/id")), (me.clone(), project.clone()));
    assert_eq!((got.all("/token/roles", "name"), got.at("/token/methods")), (vec!["reader".to_owned()], &json!(["oauth1"])));
    let acting = token(&got);
    let third = anybody.clone().token(&acting);
    third.get("/identity/v3/auth/projects").await.expect(200);
    for (path, body) in [
        (format!("/identity/v3/users/{me}/application_credentials"), json!({"application_credential": {"name": "x"}})),
        (format!("/identity/v3/users/{me}/credentials/OS-EC2"), json!({"tenant_id": project})),
        (
            TRUSTS.to_owned(),
            json!({"trust": {"trustor_user_id": me, "trustee_user_id": me, "impersonation": false, "project_id": project, "roles": [{"name": "reader"}]}}),
        ),
        (TOKENS.to_owned(), json!({"auth": {"identity": {"methods": ["token"], "token": {"id": acting}}}})),
    ] {
        assert_eq!(third.post(&path, body).await.status, 403, "it makes nothing that outlives it: {path}");
    }
    let mut scoped = body.clone();
    scoped["auth"]["scope"] = json!({"project": {"id": bed.id("project", "admin").await}});
    post(&anybody, &header(), TOKENS, scoped).await.expect(401);

    let mine = format!("/identity/v3/users/{me}/OS-OAUTH1/access_tokens");
    let listed = user.get(&mine).await.expect(200);
    assert_eq!(listed.all("/access_tokens", "id"), [access.as_str()]);
    assert!(!listed.body.to_string().contains(&secret) && !listed.body.to_string().contains("sealed"), "{}", listed.body);
    assert_eq!(user.get(&format!("{mine}/{access}")).await.expect(200).text("/access_token/consumer_id"), consumer.id);
    assert_eq!(user.get(&format!("{mine}/{access}/roles")).await.expect(200).all("/roles", "name"), ["reader"]);
    user.get(&format!("{mine}/{access}/roles/{reader}")).await.expect(200);
    user.get(&format!("{mine}/{access}/roles/{member}")).await.expect(404);
    third.get(&mine).await.expect(403);
    bed.cloud.member("q").await.get(&mine).await.expect(403);

    let grant = format!("/identity/v3/projects/{project}/users/{me}/roles/{member}");
    assert_eq!(bed.stands(&acting).await, 200);
    bed.admin.delete(&grant).await.expect(204);
    assert_eq!(bed.stands(&acting).await, 404, "the user has lost the role");
    bed.admin.put(&grant, Value::Null).await.expect(204);
    assert_eq!(bed.stands(&acting).await, 200);
    bed.cloud.member("p").await.delete(&format!("{mine}/{access}")).await.expect(204);
    assert_eq!(bed.stands(&acting).await, 404, "the user took it back");
    post(&anybody, &header(), TOKENS, body).await.expect(401);
}

#[tokio::test]
async fn what_a_consumer_got_ends_with_it() {
    let bed = Bed::start().await;
    let user = bed.cloud.member("p").await;
    let project = bed.id("project", "p").await;
    let consumer = Consumer::new(&bed).await;
    let anybody = bed.cloud.anonymous().header("requested-project-id", &project);
    let now = || bed.clock.now().unix();
    let made = post(&anybody, &consumer.header(now(), REQUEST, None, &[]), REQUEST, Value::Null).await.expect(201);
    let (request, secret) = pair(&made);
    let path = format!("/identity/v3/OS-OAUTH1/authorize/{request}");
    let word = user.put(&path, json!({"roles": [{"name": "member"}]})).await.expect(200).text("/token/oauth_verifier");
    let header = consumer.header(now(), ACCESS, Some((&request, &secret)), &[("oauth_verifier", &word)]);
    let (access, secret) = pair(&post(&anybody, &header, ACCESS, Value::Null).await.expect(201));
    let body = json!({"auth": {"identity": {"methods": ["oauth1"], "oauth1": {}}}});
    let header = || consumer.header(now(), TOKENS, Some((&access, &secret)), &[]);
    let acting = token(&post(&anybody, &header(), TOKENS, body.clone()).await.expect(201));
    assert_eq!(bed.stands(&acting).await, 200);
    bed.admin.delete(&format!("/identity/v3/OS-OAUTH1/consumers/{}", consumer.id)).await.expect(204);
    assert_eq!(bed.stands(&acting).await, 404, "the consumer is gone");
    post(&anybody, &header(), TOKENS, body).await.expect(401);
}

#[tokio::test]
async fn an_access_token_ends() {
    let bed = Bed::start().await;
    bed.cloud.member("p").await;
    let consumer = Consumer::new(&bed).await;
    let anybody = bed.cloud.anonymous().header("requested-project-id", &bed.id("project", "p").await);
    let now = || bed.clock.now().unix();
    let ask = async || pair(&post(&anybody, &consumer.header(now(), REQUEST, None, &[]), REQUEST, Value::Null).await.expect(201));
    let word = async |request: &str| {
        let path = format!("/identity/v3/OS-OAUTH1/authorize/{request}");
        let user = bed.cloud.member("p").await;
        user.put(&path, json!({"roles": [{"name": "member"}]})).await
    };
    let (request, _) = ask().await;
    bed.clock.advance(Duration::from_secs(8 * 3600));
    word(&request).await.expect(404);
    let (request, secret) = ask().await;
    let verifier = word(&request).await.expect(200).text("/token/oauth_verifier");
    let header = consumer.header(now(), ACCESS, Some((&request, &secret)), &[("oauth_verifier", &verifier)]);
    let (access, secret) = pair(&post(&anybody, &header, ACCESS, Value::Null).await.expect(201));
    let body = json!({"auth": {"identity": {"methods": ["oauth1"], "oauth1": {}}}});
    let header = || consumer.header(now(), TOKENS, Some((&access, &secret)), &[]);
    bed.clock.advance(Duration::from_secs(23 * 3600 + 1800));
    let last = post(&anybody, &header(), TOKENS, body.clone()).await.expect(201);
    let end = base::Timestamp::parse(&last.text("/token/expires_at")).unwrap();
    assert!(end.since(bed.clock.now()) <= Duration::from_secs(1800), "no token outlives it");
    bed.clock.advance(Duration::from_secs(1800));
    post(&anybody, &header(), TOKENS, body).await.expect(401);
}

async fn by_trust(client: &Client, trust: &str) -> Answer {
    let identity = json!({"methods": ["token"], "token": {"id": client.token.clone().unwrap()}});
    client.post(TOKENS, json!({"auth": {"identity": identity, "scope": {"OS-TRUST:trust": {"id": trust}}}})).await
}

#[tokio::test]
async fn a_trust_is_passed_on_within_its_terms() {
    let bed = Bed::start().await;
    let (a, b) = (bed.cloud.member("a").await, bed.cloud.member("b").await);
    bed.cloud.member("c").await;
    let ids = [bed.id("user", "a-member").await, bed.id("user", "b-member").await, bed.id("user", "c-member").await];
    let project = bed.id("project", "a").await;
    let end = |hours: u64| bed.clock.now().plus(Duration::from_secs(hours * 3600)).seconds_z();
    let body = |from: usize, to: usize, more: Value| {
        let mut trust = json!({
            "trustor_user_id": ids[from], "trustee_user_id": ids[to], "impersonation": false, "project_id": project,
            "roles": [{"name": "reader"}], "allow_redelegation": true,
        });
        trust.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "trust": trust })
    };
    a.post(TRUSTS, body(0, 1, json!({"remaining_uses": 1}))).await.expect(400);
    a.post(TRUSTS, body(0, 1, json!({"redelegation_count": 9}))).await.expect(403);
    let first = a.post(TRUSTS, body(0, 1, json!({"redelegation_count": 2, "expires_at": end(2)}))).await.expect(201);
    assert_eq!(first.at("/trust/redelegation_count"), 2);
    assert!(first.at("/trust").get("redelegated_trust_id").is_none());
    let first = first.text("/trust/id");

    // Whom it was passed to passes it on: no more roles, no longer, no deeper, not as somebody else.
    let acting = b.clone().token(token(&by_trust(&b, &first).await.expect(201)));
    for (more, status) in [
        (json!({"roles": [{"name": "member"}]}), 403),
        (json!({"expires_at": end(3)}), 403),
        (json!({"redelegation_count": 2}), 403),
        (json!({"impersonation": true}), 403),
        (json!({"allow_redelegation": false, "remaining_uses": 1}), 403),
    ] {
        assert_eq!(acting.post(TRUSTS, body(1, 2, more.clone())).await.status, status, "{more}");
    }
    let second = acting.post(TRUSTS, body(1, 2, json!({}))).await.expect(201);
    assert_eq!((second.at("/trust/redelegation_count"), second.text("/trust/redelegated_trust_id")), (&json!(1), first.clone()));
    assert!(!second.at("/trust/expires_at").is_null(), "it ends with the first");
    let second = second.text("/trust/id");
    let c = bed.cloud.member("c").await;
    let last = token(&by_trust(&c, &second).await.expect(201));
    assert_eq!(bed.stands(&last).await, 200);

    // It rests on all before it.
    let (role, grant) =
        (bed.id("role", "member").await, |role: &str| format!("/identity/v3/projects/{project}/users/{}/roles/{role}", ids[0]));
    bed.admin.delete(&grant(&role)).await.expect(204);
    assert_eq!(bed.stands(&last).await, 404, "the first trustor has lost the role");
    bed.admin.put(&grant(&role), Value::Null).await.expect(204);
    assert_eq!(bed.stands(&last).await, 200);
    let a = bed.cloud.member("a").await;
    a.delete(&format!("{TRUSTS}/{first}")).await.expect(204);
    assert_eq!(bed.stands(&last).await, 404, "the first trust is gone");
    bed.cloud.member("c").await.get(&format!("{TRUSTS}/{second}")).await.expect(404);
}

#[tokio::test]
async fn uses_of_a_trust_are_counted_together() {
    let bed = Bed::start().await;
    let (a, b) = (bed.cloud.member("a").await, bed.cloud.member("b").await);
    let (from, to) = (bed.id("user", "a-member").await, bed.id("user", "b-member").await);
    let body = json!({"trust": {
        "trustor_user_id": from, "trustee_user_id": to, "impersonation": true, "project_id": bed.id("project", "a").await,
        "roles": [{"name": "member"}], "remaining_uses": 3,
    }});
    let trust = a.post(TRUSTS, body).await.expect(201).text("/trust/id");
    let mut users = tokio::task::JoinSet::new();
    for i in 0..12 {
        let url = if i % 2 == 0 { &bed.cloud.url } else { &bed.other.url };
        let (client, trust) = (Client::new(url).token(b.token.clone().unwrap()), trust.clone());
        users.spawn(async move { by_trust(&client, &trust).await });
    }
    let answers = users.join_all().await;
    let good: Vec<&Answer> = answers.iter().filter(|a| a.status == 201).collect();
    assert_eq!(good.len(), 3, "{:?}", answers.iter().map(|a| a.status).collect::<Vec<_>>());
    assert!(good.iter().all(|a| a.text("/token/user/id") == from), "it acts as the trustor");
    assert_eq!(a.get(&format!("{TRUSTS}/{trust}")).await.expect(200).at("/trust/remaining_uses"), 0);
}
