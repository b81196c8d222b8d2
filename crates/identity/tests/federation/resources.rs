//! Providers, protocols, mappings and service providers, as administrators make them.
use serde_json::{Value, json};
use testkit::TestCloud;

const BASE: &str = "/identity/v3/OS-FEDERATION";

fn rules() -> Value {
    json!([{"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "sub"}]}])
}

#[tokio::test]
async fn providers_have_names_of_their_own_and_a_domain() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let idp = format!("{BASE}/identity_providers/corp");
    let body = json!({"identity_provider": {"description": "d", "remote_ids": ["a", "b"]}});
    let made = admin.put(&idp, body.clone()).await.expect(201);
    assert_eq!((made.at("/identity_provider/id"), made.at("/identity_provider/enabled")), (&json!("corp"), &json!(false)));
    assert!(made.text("/identity_provider/links/protocols").ends_with("/identity_providers/corp/protocols"));
    let domain = made.text("/identity_provider/domain_id");
    let description = admin.get(&format!("/identity/v3/domains/{domain}")).await.expect(200).text("/domain/description");
    assert_eq!(description, "Auto generated federated domain for Identity Provider: corp");
    admin.put(&idp, body).await.expect(409);

    let other = format!("{BASE}/identity_providers/other");
    admin.put(&other, json!({"identity_provider": {"remote_ids": ["b"]}})).await.expect(409);
    admin
        .put(&other, json!({"identity_provider": {"remote_ids": ["c"], "domain_id": domain, "enabled": true}}))
        .await
        .expect(201);
    admin.patch(&other, json!({"identity_provider": {"remote_ids": ["a"]}})).await.expect(409);
    admin.patch(&idp, json!({"identity_provider": {"remote_ids": ["b"], "authorization_ttl": 5}})).await.expect(200);
    admin.patch(&other, json!({"identity_provider": {"remote_ids": ["a", "c"]}})).await.expect(200);
    for wrong in [
        json!({"remote_ids": ["x", "x"]}),
        json!({"remote_ids": "x"}),
        json!({"enabled": "yes"}),
        json!({"unknown": 1}),
        json!({"authorization_ttl": -1}),
        json!({"domain_id": domain}),
    ] {
        admin.patch(&idp, json!({"identity_provider": wrong})).await.expect(400);
    }
    admin.put(&format!("{BASE}/identity_providers/x"), json!({"identity_provider": {"domain_id": "ghost"}})).await.expect(404);
    assert_eq!(admin.get(&format!("{BASE}/identity_providers?enabled=true")).await.all("/identity_providers", "id"), ["other"]);
    assert_eq!(admin.get(&format!("{BASE}/identity_providers?id=corp")).await.all("/identity_providers", "id"), ["corp"]);
    let member = cloud.member("demo").await;
    member.get(&format!("{BASE}/identity_providers")).await.expect(403);
    member.get(&idp).await.expect(403);
    member.put(&format!("{BASE}/identity_providers/mine"), json!({"identity_provider": {}})).await.expect(403);

    // With a domain go the providers whose users are in it.
    admin.patch(&format!("/identity/v3/domains/{domain}"), json!({"domain": {"enabled": false}})).await.expect(200);
    admin.delete(&format!("/identity/v3/domains/{domain}")).await.expect(204);
    admin.get(&idp).await.expect(404);
    assert!(admin.get(&format!("{BASE}/identity_providers")).await.all("/identity_providers", "id").is_empty());
}

#[tokio::test]
async fn protocols_belong_to_providers_and_keep_their_secrets() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let (idp, mapping) = (format!("{BASE}/identity_providers/corp"), format!("{BASE}/mappings/m"));
    admin.put(&idp, json!({"identity_provider": {}})).await.expect(201);
    let path = format!("{idp}/protocols/openid");
    admin.put(&path, json!({"protocol": {"mapping_id": "m"}})).await.expect(400);
    admin.put(&mapping, json!({"mapping": {"rules": rules()}})).await.expect(201);
    let made = admin.put(&path, json!({"protocol": {"mapping_id": "m"}})).await.expect(201);
    assert_eq!((made.at("/protocol/id"), made.at("/protocol/mapping_id")), (&json!("openid"), &json!("m")));
    assert!(made.text("/protocol/links/identity_provider").ends_with("/identity_providers/corp"));
    admin.put(&path, json!({"protocol": {"mapping_id": "m"}})).await.expect(409);
    admin
        .put(&format!("{BASE}/identity_providers/ghost/protocols/openid"), json!({"protocol": {"mapping_id": "m"}}))
        .await
        .expect(404);

    let secret = "a secret that nobody sees";
    let oidc = json!({"issuer": "https://idp.example.org", "client_id": "c", "client_secret": secret});
    let changed = admin.patch(&path, json!({"protocol": {"oidc": oidc}})).await.expect(200);
    assert_eq!(changed.at("/protocol/oidc"), &json!({"issuer": "https://idp.example.org", "client_id": "c"}));
    let table = store::Table { name: "identity/protocols", indexes: &[] };
    let stored = cloud.cloud.db.read().all(&table).map(|r| r.value().to_string()).collect::<String>();
    assert!(stored.contains("sealed") && !stored.contains(secret));
    for wrong in [
        json!({"oidc": {"issuer": "https://x"}}),
        json!({"oidc": {"issuer": "ftp://x", "client_id": "c"}}),
        json!({"oidc": {"issuer": "https://u@x", "client_id": "c"}}),
        json!({"oidc": {"issuer": "https://x", "client_id": "c", "audiences": []}}),
        json!({"oidc": {"issuer": "https://x", "client_id": "c", "more": 1}}),
        json!({"oidc": "https://x"}),
        json!({"mapping_id": "ghost"}),
        json!({"mapping_id": null}),
        json!({"unknown": 1}),
    ] {
        admin.patch(&path, json!({"protocol": wrong})).await.expect(400);
    }
    assert_eq!(admin.get(&format!("{idp}/protocols")).await.expect(200).all("/protocols", "id"), ["openid"]);
    admin.get(&format!("{idp}/protocols/saml2")).await.expect(404);
    admin.delete(&path).await.expect(204);
    admin.get(&path).await.expect(404);
    admin.put(&path, json!({"protocol": {"mapping_id": "m"}})).await.expect(201);
    admin.delete(&idp).await.expect(204);
    assert!(cloud.cloud.db.read().all(&table).next().is_none());
}

#[tokio::test]
async fn mappings_are_checked_when_they_are_written() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let path = format!("{BASE}/mappings/m");
    admin.put(&path, json!({"mapping": {}})).await.expect(400);
    admin.put(&path, json!({"mapping": {"rules": []}})).await.expect(400);
    admin.put(&path, json!({"mapping": {"rules": rules(), "schema_version": "9.9"}})).await.expect(400);
    let made = admin.put(&path, json!({"mapping": {"rules": rules()}})).await.expect(201);
    assert_eq!(made.at("/mapping/rules"), &rules());
    assert_eq!(made.text("/mapping/schema_version"), "1.0");
    let wrong = json!([{"local": [], "remote": [{"type": "a", "any_one_of": ["["], "regex": true}]}]);
    admin.patch(&path, json!({"mapping": {"rules": wrong}})).await.expect(400);
    admin.patch(&path, json!({"mapping": {"rules": rules(), "schema_version": "2.0"}})).await.expect(200);
    assert_eq!(admin.get(&format!("{BASE}/mappings")).await.expect(200).all("/mappings", "id"), ["m"]);
    admin.delete(&path).await.expect(204);
    admin.get(&path).await.expect(404);
}

#[tokio::test]
async fn tokens_name_service_providers() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let path = format!("{BASE}/service_providers/acme");
    let body = json!({"auth_url": "https://acme.example/auth", "sp_url": "https://acme.example/sp"});
    admin.put(&path, json!({"service_provider": {"auth_url": "https://acme.example/auth"}})).await.expect(400);
    admin.put(&path, json!({"service_provider": {"auth_url": "acme", "sp_url": "acme"}})).await.expect(400);
    let made = admin.put(&path, json!({"service_provider": body})).await.expect(201);
    assert_eq!(
        (made.at("/service_provider/enabled"), made.at("/service_provider/relay_state_prefix")),
        (&json!(false), &json!("ss:mem:"))
    );
    let shown = async |cloud: &TestCloud| {
        let admin = cloud.admin().await;
        let token = admin.token.clone().unwrap_or_default();
        admin
            .header("x-subject-token", &token)
            .get("/identity/v3/auth/tokens")
            .await
            .expect(200)
            .at("/token/service_providers")
            .clone()
    };
    assert!(shown(&cloud).await.is_null());
    admin.patch(&path, json!({"service_provider": {"enabled": true}})).await.expect(200);
    assert_eq!(
        shown(&cloud).await,
        json!([{"id": "acme", "auth_url": "https://acme.example/auth", "sp_url": "https://acme.example/sp"}])
    );
    admin.delete(&path).await.expect(204);
    admin.get(&path).await.expect(404);
}
