//! Providers as they must not be, and one whose keys change.
use super::{super::jws::tests::Signer, *};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use std::collections::HashMap;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{advance, pause, resume},
};

const NOW: Timestamp = Timestamp(1_000_000_000);

/// What is answered at each path, and which paths were asked.
#[derive(Default)]
struct Shelf {
    answers: HashMap<&'static str, (&'static str, String)>,
    asked: Vec<String>,
}

struct Bed {
    url: String,
    shelf: Arc<Mutex<Shelf>>,
    signer: Signer,
    provider: Provider,
}

async fn serve(mut stream: TcpStream, shelf: Arc<Mutex<Shelf>>) -> Option<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
    stream.read_exact(&mut vec![0; length]).await.ok()?;
    let path = head.split(' ').nth(1)?.to_owned();
    let (status, body) = {
        let mut shelf = shelf.lock().unwrap();
        let answer = shelf.answers.get(path.as_str()).cloned().unwrap_or(("404 Not Found", "{}".into()));
        shelf.asked.push(path);
        answer
    };
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await.ok()
}

impl Bed {
    async fn new(more: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shelf = Arc::<Mutex<Shelf>>::default();
        let all = shelf.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, all.clone()));
            }
        });
        let signer = Signer::new("a");
        let provider = Self::provider(&url);
        let bed = Self { url, shelf, signer, provider };
        let mut metadata = json!({"issuer": bed.url});
        for (name, path) in
            [("jwks_uri", "keys"), ("token_endpoint", "token"), ("userinfo_endpoint", "me"), ("introspection_endpoint", "about")]
        {
            metadata[name] = format!("{}/{path}", bed.url).into();
        }
        metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        bed.put("/.well-known/openid-configuration", "200 OK", metadata);
        bed.publish(&[&bed.signer]);
        bed
    }
    fn provider(url: &str) -> Provider {
        let settings = Settings {
            issuer: url.to_owned(),
            client_id: "cloud".into(),
            client_secret: Some("secret".to_owned().into()),
            audiences: vec!["urn:cloud".into()],
            introspection: false,
            scopes: "openid".into(),
            ca_file: None,
        };
        Provider::new(settings, vec!["127.0.0.0/8".parse().unwrap()])
    }
    fn put(&self, path: &'static str, status: &'static str, body: impl ToString) {
        self.shelf.lock().unwrap().answers.insert(path, (status, body.to_string()));
    }
    fn publish(&self, signers: &[&Signer]) {
        let keys: Vec<&Value> = signers.iter().map(|s| &s.public).collect();
        self.put("/keys", "200 OK", json!({ "keys": keys }));
    }
    fn asked(&self, path: &str) -> usize {
        self.shelf.lock().unwrap().asked.iter().filter(|p| *p == path).count()
    }
    /// Claims that count, changed.
    fn claims(&self, change: Value) -> Value {
        let mut claims = json!({"iss": self.url, "sub": "ada", "aud": "urn:cloud", "exp": 1300, "iat": 990});
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        claims
    }
    fn token(&self, by: &Signer, change: Value) -> String {
        let mut header = json!({"alg": "ES256"});
        if let Some(id) = by.public.get("kid") {
            header["kid"] = id.clone();
        }
        by.sign(header, &self.claims(change))
    }
    async fn bearer(&self, by: &Signer, change: Value) -> Result<Map, Fault> {
        self.provider.bearer(&self.token(by, change), NOW).await
    }
}

async fn later(seconds: u64) {
    pause();
    advance(Duration::from_secs(seconds)).await;
    resume();
}

#[tokio::test]
async fn new_keys_count_and_nobody_makes_us_ask_for_them_often() {
    let bed = Bed::new(json!({})).await;
    let (second, stranger) = (Signer::new("b"), Signer::new("x"));
    bed.bearer(&bed.signer, json!({})).await.unwrap();
    for _ in 0..20 {
        assert!(matches!(bed.bearer(&stranger, json!({})).await, Err(Fault::Refused(Refused::UnknownKey))));
        assert!(matches!(bed.bearer(&Signer::new("a"), json!({})).await, Err(Fault::Refused(Refused::Signature))));
    }
    assert_eq!((bed.asked("/keys"), bed.asked("/.well-known/openid-configuration")), (1, 1));

    // What the provider adds counts when somebody comes with it, and what it takes away no more.
    bed.publish(&[&bed.signer, &second]);
    later(11).await;
    bed.bearer(&second, json!({})).await.unwrap();
    assert!(bed.bearer(&stranger, json!({})).await.is_err());
    assert_eq!(bed.asked("/keys"), 2);
    bed.publish(&[&second]);
    bed.bearer(&bed.signer, json!({})).await.unwrap();
    later(601).await;
    assert!(bed.bearer(&bed.signer, json!({})).await.is_err());
    bed.bearer(&second, json!({})).await.unwrap();

    // Keys need no names, and may have those of older ones.
    let mut nameless = Signer::new("c");
    nameless.public.as_object_mut().unwrap().shift_remove("kid");
    bed.publish(&[&nameless]);
    later(11).await;
    bed.bearer(&nameless, json!({})).await.unwrap();
    let renewed = Signer::new("b");
    bed.publish(&[&renewed]);
    later(11).await;
    bed.bearer(&renewed, json!({})).await.unwrap();
}

#[tokio::test]
async fn what_a_provider_publishes_is_short_its_own_and_where_it_may_be() {
    let metadata = "/.well-known/openid-configuration";
    for (status, body) in [
        ("200 OK", json!({"issuer": "https://elsewhere"}).to_string()),
        ("200 OK", "x".repeat(MOST + 1)),
        ("200 OK", "[]".into()),
        ("302 Found\r\nlocation: http://127.0.0.1:1/", String::new()),
        ("500 Internal Server Error", "{}".into()),
    ] {
        let bed = Bed::new(json!({})).await;
        bed.put(metadata, status, &body);
        for _ in 0..10 {
            let refused = bed.bearer(&bed.signer, json!({})).await.unwrap_err();
            assert!(!refused.is_refusal(), "{status} {body:.40}: {refused:?}");
        }
        assert_eq!((bed.asked(metadata), bed.asked("/keys")), (1, 0), "{status} {body:.40}");
    }
    for keys in
        ["http://169.254.169.254/keys", "http://localhost/keys", "https://10.0.0.1/keys", "https://[fd00::1]/", "file:///x", "x"]
    {
        let bed = Bed::new(json!({"jwks_uri": keys})).await;
        let refused = bed.bearer(&bed.signer, json!({})).await.unwrap_err();
        let forbidden = matches!(&refused, Fault::Insecure(_) | Fault::Web { source: web::Error::Forbidden { .. }, .. });
        assert!(forbidden, "{keys}: {refused:?}");
    }
    for endpoint in ["javascript:alert(1)", "https://idp\r\nset-cookie: a=b", "//idp", "https://u@idp/"] {
        let bed = Bed::new(json!({"authorization_endpoint": endpoint})).await;
        let login = Login { redirect_uri: "https://cloud/", nonce: "n", verifier: "v" };
        assert!(matches!(bed.provider.authorize(&login, "s").await, Err(Fault::Malformed(_))), "{endpoint:?}");
    }
}

#[tokio::test]
async fn an_access_token_is_one_for_us_that_its_bearer_may_use() {
    let bed = Bed::new(json!({})).await;
    assert_eq!(bed.bearer(&bed.signer, json!({"typ": "Bearer", "azp": "of a program"})).await.unwrap()["sub"], "ada");
    for change in [
        json!({"aud": "cloud"}),
        json!({"iss": "https://elsewhere"}),
        json!({"exp": 900}),
        json!({"nbf": 1100}),
        json!({"sub": null}),
        json!({"typ": "ID"}),
        json!({"typ": "Refresh"}),
        json!({"at_hash": "x"}),
        json!({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}),
        json!({"cnf": {"jkt": "x"}}),
    ] {
        let refused = bed.bearer(&bed.signer, change.clone()).await.unwrap_err();
        assert!(refused.is_refusal(), "{change}: {refused:?}");
    }
    let unsigned =
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(bed.claims(json!({})).to_string()));
    for token in [unsigned, "x".repeat(jws::LONGEST + 1), "a b".into(), "ä".into()] {
        assert!(bed.provider.bearer(&token, NOW).await.unwrap_err().is_refusal(), "{token:.40}");
    }
}

#[tokio::test]
async fn what_a_provider_says_of_a_token_must_be_about_us() {
    let bed = Bed::new(json!({})).await;
    let about = json!({"active": true, "token_type": "Bearer", "aud": "urn:cloud", "sub": "ada"});
    let said = async |change: Value| {
        let mut said = about.clone();
        said.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        said.as_object_mut().unwrap().retain(|_, v| !v.is_null());
        bed.put("/about", "200 OK", said);
        bed.provider.bearer("opaque", NOW).await
    };
    assert_eq!(said(json!({})).await.unwrap()["iss"], bed.url.as_str());
    said(json!({"aud": null, "client_id": "urn:cloud", "token_type": null, "token_use": "access_token"})).await.unwrap();
    for change in [
        json!({"active": false}),
        json!({"active": "true"}),
        json!({"active": null}),
        json!({"token_type": null}),
        json!({"token_type": "DPoP"}),
        json!({"cnf": {"x5t#S256": "x"}}),
        json!({"aud": ["cloud", "other"]}),
        json!({"aud": null, "client_id": "other"}),
        json!({"aud": null}),
        json!({"iss": "https://elsewhere"}),
        json!({"exp": 900}),
    ] {
        let refused = said(change.clone()).await.unwrap_err();
        assert!(refused.is_refusal(), "{change}: {refused:?}");
    }
}

#[tokio::test]
async fn a_login_ends_with_the_answer_to_its_own_question() {
    let bed = Bed::new(json!({})).await;
    let login = Login { redirect_uri: "https://cloud/", nonce: "n", verifier: "v" };
    let answer = async |token: String| {
        bed.put("/token", "200 OK", json!({"access_token": "x", "id_token": token}));
        bed.provider.exchange("code", &login, NOW).await
    };
    let of = |change: Value| {
        let mut all = json!({"aud": "cloud", "nonce": "n"});
        all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        bed.token(&bed.signer, all)
    };
    bed.put("/me", "200 OK", json!({"sub": "ada", "email": "e", "aud": "other", "exp": 1}));
    let claims = answer(of(json!({"azp": "cloud"}))).await.unwrap();
    assert_eq!(
        (&claims["email"], &claims["aud"], &claims["exp"]),
        (&json!("e"), &json!("cloud"), &json!(1300)),
        "signed ones count"
    );
    answer(of(json!({"aud": ["cloud", "other"], "azp": "cloud"}))).await.unwrap();
    for change in [
        json!({"aud": "urn:cloud"}),
        json!({"aud": ["cloud", "other"]}),
        json!({"aud": ["cloud", "other"], "azp": "other"}),
        json!({"azp": "other"}),
        json!({"azp": 7}),
        json!({"nonce": "m"}),
        json!({"nonce": null}),
        json!({"iss": "https://elsewhere"}),
        json!({"exp": 900}),
        json!({"iat": 1100}),
        json!({"sub": ""}),
        json!({"sub": "eve"}),
    ] {
        let refused = answer(of(change.clone())).await.unwrap_err();
        assert!(refused.is_refusal(), "{change}: {refused:?}");
    }
    let parts = of(json!({}));
    let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), parts.split('.').nth(1).unwrap());
    for token in [unsigned, bed.token(&Signer::new("a"), json!({"aud": "cloud", "nonce": "n"}))] {
        assert!(answer(token).await.unwrap_err().is_refusal());
    }
    // A code counts once: the provider says so.
    bed.put("/token", "400 Bad Request", json!({"error": "invalid_grant"}));
    assert!(matches!(bed.provider.exchange("code", &login, NOW).await, Err(Fault::Code(why)) if why == "invalid_grant"));
    bed.put("/token", "200 OK", json!({"access_token": "x"}));
    assert!(!bed.provider.exchange("code", &login, NOW).await.unwrap_err().is_refusal());
}
