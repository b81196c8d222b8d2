//! Signed images over HTTP: uploads, imports and copies are verified with a certificate of the key manager, or refused.
//!
//! Certificates and signatures are those of the unit tests, which say how they were made.

use crate::{
    barbican::{Barbican, Secret, register},
    common::{ImageCloud, OCTETS, patch, queued, show, status},
    imports::{import, ok, staged, task, web_cloud, web_server},
    moto::ObjectStore,
    stores::{emptied, three_stores},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use image::{Options, Sweeper};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use testkit::{Answer, Client, holds, until};
use tokio::sync::Notify;

const DATA: &[u8] = b"data";

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../src/signature/vectors.json")).unwrap()
}

fn certificate(name: &str) -> Vec<u8> {
    STANDARD.decode(vectors()["certificates"][name].as_str().unwrap()).unwrap()
}

fn pem(der: &[u8]) -> Vec<u8> {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der)).into_bytes()
}

/// Properties of an image whose data, `DATA` or a large one, is signed by that key.
fn properties(kind: &str, name: &str, method: &str, secret: &str) -> Value {
    let vectors = vectors();
    let fits = |v: &&Value| v["certificate"] == name && v["hash_method"] == method;
    let vector = vectors[kind].as_array().unwrap().iter().find(fits).unwrap();
    json!({
        "img_signature": vector["signature"], "img_signature_hash_method": method, "img_signature_key_type": vector["key_type"],
        "img_signature_certificate_uuid": secret,
    })
}

/// As in the unit tests.
fn large() -> Vec<u8> {
    (0..(3 << 20) + 17).map(|at: usize| (at % 251) as u8).collect()
}

/// A cloud, and a key manager in its catalog.
async fn signing() -> (ImageCloud, Barbican) {
    let cloud = ImageCloud::start().await.working(Options::default());
    let keys = Barbican::start().await;
    keys.register(&cloud).await;
    (cloud, keys)
}

/// An image signed by `rsa-2048`, whose certificate is kept.
fn rsa(keys: &Barbican) -> Value {
    let secret = keys.keep(Secret::certificate("application/octet-stream", &certificate("rsa-2048")));
    properties("small", "rsa-2048", "SHA-256", &secret)
}

async fn put(client: &Client, id: &str, data: &[u8]) -> Answer {
    client.send_bytes("PUT", &format!("/image/v2/images/{id}/file"), OCTETS, data.to_vec().into()).await
}

fn said(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.bytes).into_owned()
}

/// The image is as good as new, and nothing of its bytes is left.
async fn untouched(cloud: &ImageCloud, user: &Client, id: &str) {
    let shown = show(user, id).await;
    assert_eq!((shown.text("/status"), shown.at("/size"), shown.at("/checksum")), ("queued".into(), &Value::Null, &Value::Null));
    assert!(cloud.incoming().is_empty());
    assert!(cloud.blobs.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_upload_is_verified_with_the_uploaders_token() {
    let (cloud, keys) = signing().await;
    let user = cloud.cloud.member("p").await;
    for (name, method, media, in_pem) in [
        ("rsa-2048", "SHA-224", "application/octet-stream", false),
        ("rsa-2048", "SHA-512", "application/pkix-cert", false),
        ("dsa-2048", "SHA-256", "text/plain", true),
        ("p384", "SHA-384", "application/octet-stream", true),
        ("p521", "SHA-256", "text/plain; charset=utf-8", true),
    ] {
        let der = certificate(name);
        let secret = keys.keep(Secret::certificate(media, &if in_pem { pem(&der) } else { der }));
        let id = queued(&user, properties("small", name, method, &secret)).await;
        let before = keys.asked().len();
        put(&user, &id, DATA).await.expect(204);
        status(&user, &id, "active").await;
        let (token, path) = (user.token.clone().unwrap(), format!("/v1/secrets/{secret}"));
        let asked = [(path.clone(), token.clone(), "application/json".to_owned()), (path + "/payload", token, media.to_owned())];
        assert_eq!(keys.asked()[before..], asked);
    }
    // In parts that are hashed one after the other.
    let secret = keys.keep(Secret::certificate("application/octet-stream", &certificate("rsa-2048")));
    let id = queued(&user, properties("large", "rsa-2048", "SHA-256", &secret)).await;
    put(&user, &id, &large()).await.expect(204);
    // With one property less nothing is verified, and nobody asked.
    let mut three = properties("small", "p384", "SHA-384", &secret);
    three.as_object_mut().unwrap().shift_remove("img_signature_key_type");
    let (id, before) = (queued(&user, three).await, keys.asked().len());
    put(&user, &id, b"other").await.expect(204);
    assert_eq!(keys.asked().len(), before);
}

#[tokio::test]
async fn data_that_was_not_signed_leaves_nothing() {
    let (cloud, keys) = signing().await;
    let user = cloud.cloud.member("p").await;
    let id = queued(&user, rsa(&keys)).await;
    for data in [&b"date"[..], b"dat", b"data\n"] {
        let refused = put(&user, &id, data).await.expect(400);
        assert!(said(&refused).contains(&format!("Signature verification failed for image {id}")), "{refused:?}");
        untouched(&cloud, &user, &id).await;
    }
    put(&user, &id, DATA).await.expect(204);
    status(&user, &id, "active").await;
}

async fn three_stores_and_keys() -> (ImageCloud, ObjectStore, Barbican) {
    let (cloud, objects) = three_stores().await;
    let keys = Barbican::start().await;
    keys.register(&cloud).await;
    (cloud, objects, keys)
}

#[tokio::test]
async fn data_that_was_not_signed_becomes_no_object() {
    let (cloud, objects, keys) = three_stores_and_keys().await;
    let user = cloud.cloud.member("p").await;
    let id = queued(&user, rsa(&keys)).await;
    let client = user.clone().header("x-image-meta-store", "objects");
    put(&client, &id, b"date").await.expect(400);
    emptied(&objects).await;
    put(&client, &id, DATA).await.expect(204);
    assert_eq!((show(&user, &id).await.text("/stores"), objects.objects().await.len()), ("objects".into(), 1));
}

#[tokio::test]
async fn a_certificate_that_cannot_be_had_refuses_the_image_with_the_reason() {
    let options = Options { certificate_within: Duration::from_millis(700), ..Options::default() };
    let cloud = ImageCloud::with(options).await;
    let keys = Barbican::start().await;
    keys.register(&cloud).await;
    let user = cloud.cloud.member("p").await;
    let der = certificate("rsa-2048");
    let good = || Secret::certificate("application/octet-stream", &der);
    let payload = |status: u16, body: Vec<u8>| Secret { payload: (status, "application/octet-stream".into(), body), ..good() };
    let told = |status: u16, body: &[u8]| Secret { told: (status, body.to_vec()), ..good() };
    for (what, secret, why) in [
        ("gone", told(404, b"{}"), "Certificate not found with ID"),
        ("forbidden", told(403, b"{}"), "answered 403"),
        ("broken", told(500, b"{}"), "answered 500"),
        ("elsewhere", told(302, b"{}"), "no usable answer"),
        ("not JSON", told(200, b"<html>"), "not the JSON of a secret"),
        ("nothing", told(200, b""), "not the JSON of a secret"),
        ("deep", told(200, "[".repeat(50_000).as_bytes()), "not the JSON of a secret"),
        ("long", told(200, &[b' '; 70_000]), "no usable answer"),
        ("slow", Secret { held: Some(Arc::new(Notify::new())), ..good() }, "did not give it in"),
        ("opaque", good().saying("secret_type", json!("opaque")), "Invalid certificate format"),
        ("empty", good().saying("content_types", Value::Null), "no payload"),
        ("header", good().saying("content_types", json!({"default": "a\r\nx-evil: b"})), "media type"),
        ("no payload", payload(404, Vec::new()), "Certificate not found with ID"),
        ("no bytes", payload(200, Vec::new()), "Invalid certificate format"),
        ("noise", payload(200, b"\x30\x82\xff\xff".repeat(1000)), "Invalid certificate format"),
        ("huge", payload(200, vec![0x30; 70_000]), "no usable answer"),
        ("expired", payload(200, certificate("expired")), "outside its valid date range"),
        ("future", payload(200, certificate("future")), "outside its valid date range"),
        ("another key", payload(200, certificate("p384")), "Invalid public key type for signature key type: RSA-PSS"),
        ("large key", payload(200, certificate("rsa-16384")), "1024 to 8192 bits"),
    ] {
        let id = queued(&user, properties("small", "rsa-2048", "SHA-256", &keys.keep(secret))).await;
        let refused = put(&user, &id, DATA).await.expect(400);
        let said = said(&refused);
        assert!(said.contains("Signature verification failed for image") && said.contains(why), "{what}: {said}");
        assert!(!said.contains(user.token.as_deref().unwrap()), "{what}");
        untouched(&cloud, &user, &id).await;
    }
}

#[tokio::test]
async fn nobody_is_asked_about_what_cannot_be_verified_anyway() {
    let (cloud, keys) = signing().await;
    let user = cloud.cloud.member("p").await;
    for (name, value, why) in [
        ("img_signature", "???", "base64"),
        (
            "img_signature_hash_method",
            "MD5",
            "Invalid signature hash method: MD5; it must be SHA-224, SHA-256, SHA-384 or SHA-512",
        ),
        ("img_signature_key_type", "ECC_SECT571R1", "it must be RSA-PSS, DSA, ECC_SECP384R1 or ECC_SECP521R1"),
        ("img_signature_certificate_uuid", "../orders", "not a UUID"),
        ("img_signature_certificate_uuid", "http://127.0.0.1/", "not a UUID"),
    ] {
        let mut odd = rsa(&keys);
        odd[name] = value.into();
        let id = queued(&user, odd).await;
        let web = json!({"method": {"name": "web-download", "uri": "https://example.org/image"}});
        for refused in [
            put(&user, &id, DATA).await,
            user.send_bytes("PUT", &format!("/image/v2/images/{id}/stage"), OCTETS, "data".into()).await,
            import(&user, &id, web).await,
        ] {
            assert!(said(&refused.clone().expect(400)).contains(why), "{refused:?}");
        }
        untouched(&cloud, &user, &id).await;
    }
    // Nor for those who may not upload.
    let id = queued(&user, json!({"visibility": "community"})).await;
    for (name, value) in rsa(&keys).as_object().unwrap() {
        patch(&user, &id, "add", &format!("/{name}"), value.clone()).await.expect(200);
    }
    put(&cloud.cloud.member("q").await, &id, DATA).await.expect(403);
    assert_eq!(keys.asked(), []);
}

#[tokio::test]
async fn a_key_manager_that_is_not_there_or_switched_off_verifies_nothing() {
    let cloud = ImageCloud::start().await;
    let (user, admin) = (cloud.cloud.member("p").await, cloud.cloud.admin().await);
    let keys = Barbican::start().await;
    let id = queued(&user, rsa(&keys)).await;
    assert!(said(&put(&user, &id, DATA).await.expect(400)).contains("this cloud has no key manager"));
    // Nobody listens there.
    register(&admin, "http://127.0.0.1:9").await;
    assert!(said(&put(&user, &id, DATA).await.expect(400)).contains("no usable answer"));
    let services = admin.get("/identity/v3/services?type=key-manager").await.expect(200);
    let service = services.text("/services/0/id");
    let endpoints = admin.get(&format!("/identity/v3/endpoints?service_id={service}&interface=public")).await.expect(200);
    let endpoint = format!("/identity/v3/endpoints/{}", endpoints.text("/endpoints/0/id"));
    admin.patch(&endpoint, json!({"endpoint": {"url": format!("{}/v1/", keys.url)}})).await.expect(200);
    admin.patch(&format!("/identity/v3/services/{service}"), json!({"service": {"enabled": false}})).await.expect(200);
    assert!(said(&put(&user, &id, DATA).await.expect(400)).contains("this cloud has no key manager"));
    admin.patch(&format!("/identity/v3/services/{service}"), json!({"service": {"enabled": true}})).await.expect(200);
    put(&user, &id, DATA).await.expect(204);
}

fn direct(stores: &[&str]) -> Value {
    json!({"method": {"name": "glance-direct"}, "stores": stores})
}

#[tokio::test]
async fn staged_data_is_verified_when_it_is_imported() {
    let (cloud, objects, keys) = three_stores_and_keys().await;
    let user = cloud.cloud.member("p").await;
    for stores in [&["local"][..], &["objects", "fast"]] {
        let id = staged(&user, rsa(&keys), DATA).await;
        import(&user, &id, direct(stores)).await.expect(202);
        status(&user, &id, "active").await;
        assert_eq!(show(&user, &id).await.text("/stores"), stores.join(","));
        assert_eq!(task(&user, &id).await.text("/tasks/0/status"), "success");
        user.delete(&format!("/image/v2/images/{id}")).await.expect(204);
        emptied(&objects).await;

        let id = staged(&user, rsa(&keys), b"date").await;
        import(&user, &id, direct(stores)).await.expect(202);
        status(&user, &id, "queued").await;
        let task = task(&user, &id).await;
        let message = task.text("/tasks/0/message");
        assert_eq!(task.text("/tasks/0/status"), "failure");
        assert!(message.starts_with(&format!("Signature verification failed for image {id}")), "{message}");
        let shown = show(&user, &id).await;
        assert_eq!((shown.at("/size"), shown.at("/stores")), (&Value::Null, &Value::Null));
        assert!(objects.objects().await.is_empty());
        user.get(&format!("/image/v2/images/{id}/file")).await.expect(204);
        Sweeper::of(cloud.stores.clone(), 0, Duration::ZERO).sweep(&cloud.cloud.cloud.db).await.unwrap();
        assert!(cloud.blobs.list().await.unwrap().is_empty());
        // It is as good as new.
        put(&user, &id, DATA).await.expect(204);
        user.delete(&format!("/image/v2/images/{id}")).await.expect(204);
    }
}

#[tokio::test]
async fn an_import_is_accepted_with_its_certificate_only() {
    let (cloud, keys) = signing().await;
    let user = cloud.cloud.member("p").await;
    let gone = properties("small", "rsa-2048", "SHA-256", &base::id::uuid());
    let id = staged(&user, gone, DATA).await;
    let refused = import(&user, &id, direct(&["local"])).await.expect(400);
    assert!(said(&refused).contains("Certificate not found with ID"), "{refused:?}");
    assert_eq!(show(&user, &id).await.text("/status"), "uploading");
    // What is staged is still there, for a certificate that is.
    let uuid = rsa(&keys)["img_signature_certificate_uuid"].clone();
    patch(&user, &id, "replace", "/img_signature_certificate_uuid", uuid).await.expect(200);
    import(&user, &id, direct(&["local"])).await.expect(202);
    status(&user, &id, "active").await;
}

#[tokio::test]
async fn an_image_that_asks_for_something_else_meanwhile_is_not_imported() {
    let (cloud, keys) = signing().await;
    let user = cloud.cloud.member("p").await;
    let told = Arc::new(Notify::new());
    let secret = Secret::certificate("application/octet-stream", &certificate("rsa-2048"));
    let secret = keys.keep(Secret { held: Some(told.clone()), ..secret });
    let id = staged(&user, properties("small", "rsa-2048", "SHA-256", &secret), DATA).await;
    let importing = tokio::spawn({
        let (user, id) = (user.clone(), id.clone());
        async move { import(&user, &id, direct(&["local"])).await }
    });
    holds("the key manager is asked", || !keys.asked().is_empty()).await;
    patch(&user, &id, "replace", "/img_signature_hash_method", json!("SHA-512")).await.expect(200);
    told.notify_one();
    let refused = importing.await.unwrap().expect(409);
    assert!(said(&refused).contains("was changed meanwhile"), "{refused:?}");
    assert_eq!(show(&user, &id).await.text("/status"), "uploading");
}

#[tokio::test]
async fn what_comes_from_the_web_is_verified() {
    let (good, bad) = (web_server(ok(&large())).await, web_server(ok(b"other")).await);
    let cloud = web_cloud(vec![good, bad]).await;
    let keys = Barbican::start().await;
    keys.register(&cloud).await;
    let user = cloud.cloud.member("p").await;
    let secret = keys.keep(Secret::certificate("text/plain", &pem(&certificate("p521"))));
    let signed = || queued(&user, properties("large", "p521", "SHA-512", &secret));
    let url = |port: u16| format!("http://127.0.0.1:{port}/image");
    for (port, reached) in [(bad, "failure"), (good, "success")] {
        let (web, location) = (signed().await, signed().await);
        import(&user, &web, json!({"method": {"name": "web-download", "uri": url(port)}})).await.expect(202);
        user.post(&format!("/image/v2/images/{location}/locations"), json!({"url": url(port)})).await.expect(202);
        for id in [web, location] {
            let ended = until("its end", || task(&user, &id), |t| t.text("/tasks/0/status") != "processing").await;
            assert_eq!(ended.text("/tasks/0/status"), reached, "{ended:?}");
            let (status, message) = (show(&user, &id).await.text("/status"), ended.text("/tasks/0/message"));
            assert_eq!(status, if reached == "success" { "active" } else { "queued" });
            assert_eq!(message.contains("Signature verification failed"), reached == "failure", "{message}");
        }
        assert_eq!(cloud.blobs.list().await.unwrap().len(), usize::from(reached == "success"));
    }
    assert!(cloud.incoming().is_empty());
}

#[tokio::test]
async fn a_copy_is_verified_too() {
    let (cloud, objects, keys) = three_stores_and_keys().await;
    let (user, admin) = (cloud.cloud.member("p").await, cloud.cloud.admin().await);
    let id = queued(&user, rsa(&keys)).await;
    put(&user, &id, DATA).await.expect(204);
    let copy = |store: &str| json!({"method": {"name": "copy-image"}, "stores": [store]});
    import(&admin, &id, copy("objects")).await.expect(202);
    until("copied", || show(&user, &id), |image| image.text("/stores") == "local,objects").await;
    // Somebody says later that it is signed by another.
    let other = keys.keep(Secret::certificate("application/octet-stream", &certificate("rsa-2049")));
    patch(&user, &id, "replace", "/img_signature_certificate_uuid", json!(other)).await.expect(200);
    import(&admin, &id, copy("fast")).await.expect(202);
    let ended = until("its end", || task(&user, &id), |t| !t.body.to_string().contains("processing")).await;
    assert!(ended.body.to_string().contains("Signature verification failed"), "{ended:?}");
    let shown = show(&user, &id).await;
    assert_eq!((shown.text("/status"), shown.text("/stores")), ("active".into(), "local,objects".into()));
    assert_eq!(objects.objects().await.len(), 1);
}
