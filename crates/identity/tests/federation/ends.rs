//! What a provider's word rests on, and who nobody becomes by it.
use super::{Bed, IDP, TOKENS, rules};
use serde_json::{Value, json};
use std::time::Duration;

const MAPPING: &str = "/identity/v3/OS-FEDERATION/mappings/corp";
const PROTOCOL: &str = "/identity/v3/OS-FEDERATION/identity_providers/corp/protocols/openid";

/// How the user's things fare: a token of the provider's word, one of an application credential, and a new one of that.
async fn states(bed: &Bed, tokens: &[&str], by: &Value) -> Vec<u16> {
    let mut out = Vec::new();
    for token in tokens {
        out.push(bed.status_of(token).await);
    }
    out.push(bed.cloud.anonymous().post(TOKENS, by.clone()).await.status);
    out
}

#[tokio::test]
async fn a_token_ends_with_what_the_providers_word_rests_on() {
    let bed = Bed::new().await;
    bed.admin.patch(IDP, json!({"identity_provider": {"authorization_ttl": 60}})).await.expect(200);
    let entered = bed.ada().await;
    let id = entered.text("/token/user/id");
    let scoped = bed.rescope(entered.header("x-subject-token"), bed.lab()).await.expect(201).header("x-subject-token").to_owned();
    let own = bed.cloud.anonymous().token(scoped.clone());
    let made = own
        .post(&format!("/identity/v3/users/{id}/application_credentials"), json!({"application_credential": {"name": "robot"}}))
        .await
        .expect(201);
    let by = json!({"id": made.text("/application_credential/id"), "secret": made.text("/application_credential/secret")});
    let by = json!({"auth": {"identity": {"methods": ["application_credential"], "application_credential": by}}});
    let robot = bed.cloud.anonymous().post(TOKENS, by.clone()).await.expect(201).header("x-subject-token").to_owned();
    let tokens = [scoped.as_str(), robot.as_str()];
    assert_eq!(states(&bed, &tokens, &by).await, [200, 200, 201]);

    // All that a user has is nothing while nobody vouches for the user.
    let enabled = |enabled: bool| json!({"identity_provider": {"enabled": enabled}});
    bed.admin.patch(IDP, enabled(false)).await.expect(200);
    assert_eq!(states(&bed, &tokens, &by).await, [404, 404, 401]);
    bed.admin.patch(IDP, enabled(true)).await.expect(200);
    assert_eq!(states(&bed, &tokens, &by).await, [200, 200, 201]);
    // Nor while the domain of the provider's users is disabled: then tokens of before are no good any more, either.
    let domain = format!("/identity/v3/domains/{}", bed.domain);
    bed.admin.patch(&domain, json!({"domain": {"enabled": false}})).await.expect(200);
    assert_eq!(states(&bed, &tokens, &by).await, [404, 404, 401]);
    bed.enter(&bed.provider.access("ada", Some("urn:cloud")).await).await.expect(401);
    bed.admin.patch(&domain, json!({"domain": {"enabled": true}})).await.expect(200);

    // A protocol or a mapping that is made anew is another one; what it gave was its own.
    let enter = async || {
        bed.clock.advance(Duration::from_secs(1));
        let token = bed.ada().await.header("x-subject-token").to_owned();
        assert_eq!(bed.status_of(&token).await, 200);
        bed.clock.advance(Duration::from_secs(1));
        token
    };
    let token = enter().await;
    bed.admin.delete(PROTOCOL).await.expect(204);
    assert_eq!(bed.status_of(&token).await, 404);
    bed.speak(bed.provider.oidc(json!({}))).await;
    assert_eq!(bed.status_of(&token).await, 404);
    let token = enter().await;
    bed.admin.delete(MAPPING).await.expect(204);
    assert_eq!(bed.status_of(&token).await, 404);
    bed.enter(&bed.provider.access("ada", Some("urn:cloud")).await).await.expect(404);
    bed.admin.put(MAPPING, json!({"mapping": {"rules": rules()}})).await.expect(201);
    assert_eq!(bed.status_of(&token).await, 404);

    // With a provider go its users; who comes by a new one of the name gets the id, and nothing of before.
    let token = enter().await;
    assert_eq!(states(&bed, &[token.as_str()], &by).await, [200, 201]);
    bed.admin.delete(IDP).await.expect(204);
    assert_eq!(states(&bed, &[token.as_str()], &by).await, [404, 401]);
    let idp = json!({"enabled": true, "domain_id": bed.domain});
    bed.admin.put(IDP, json!({"identity_provider": idp})).await.expect(201);
    bed.speak(bed.provider.oidc(json!({}))).await;
    let again = bed.ada().await;
    assert_eq!(again.text("/token/user/id"), id);
    assert_eq!(states(&bed, &[token.as_str(), again.header("x-subject-token")], &by).await, [404, 200, 401]);
}

#[tokio::test]
async fn a_claim_makes_nobody_somebody_else() {
    let bed = Bed::new().await;
    let (cloud, admin) = (&bed.cloud, &bed.admin);
    cloud.member("demo").await;
    let of = |name: &'static str| async move {
        let found = admin.get(&format!("/identity/v3/users?name={name}&domain_id=default")).await.expect(200);
        found.text("/users/0/id")
    };
    let (boss, demo) = (of("admin").await, of("demo-member").await);
    let user = |user: Value| json!([{"local": [{ "user": user }], "remote": [{"type": "OIDC-sub"}, {"type": "OIDC-nickname"}]}]);
    let come = async |nickname: &str| bed.enter(&bed.provider.access_of("ada", json!({ "nickname": nickname })).await).await;

    // A claim that is the id or the name of one of ours, wherever the mapping puts it, names a guest.
    for rules in [
        user(json!({"id": "{1}"})),
        user(json!({"name": "{1}"})),
        user(json!({"id": "{1}", "name": "{1}", "domain": {"id": "default"}})),
        user(json!({"name": "{1}", "domain": {"id": "default"}})),
    ] {
        bed.map(rules.clone(), "2.0").await;
        for nickname in [boss.as_str(), demo.as_str(), "admin", "demo-member"] {
            let entered = come(nickname).await.expect(201);
            let id = entered.text("/token/user/id");
            assert!(id != boss && id != demo, "{rules} {nickname}");
            assert_eq!(entered.text("/token/user/name"), nickname);
            let token = entered.header("x-subject-token");
            assert!(cloud.anonymous().token(token).get("/identity/v3/auth/projects").await.all("/projects", "id").is_empty());
            bed.rescope(token, json!({"system": {"all": true}})).await.expect(401);
            // The next mapping makes the guest anew, in its own domain.
            admin.delete(&format!("/identity/v3/users/{id}")).await.expect(204);
        }
    }
    // Nor does a guest keep a name from others, or lose it for them.
    let named = |name: &str| json!({"user": {"name": name, "domain_id": "default", "password": "a password"}});
    bed.map(user(json!({"name": "{1}", "domain": {"id": "default"}})), "2.0").await;
    let guest = come("grace").await.expect(201).text("/token/user/id");
    let grace = admin.post("/identity/v3/users", named("grace")).await.expect(201).text("/user/id");
    cloud.anonymous().login("grace", "a password", Value::Null).await.expect(201);
    for change in [json!({"enabled": false}), json!({"name": "other"}), json!({"name": "grace", "enabled": true})] {
        admin.patch(&format!("/identity/v3/users/{guest}"), json!({ "user": change })).await.expect(200);
        admin.post("/identity/v3/users", named("grace")).await.expect(409);
    }
    admin.delete(&format!("/identity/v3/users/{guest}")).await.expect(204);
    admin.post("/identity/v3/users", named("grace")).await.expect(409);
    admin.delete(&format!("/identity/v3/users/{grace}")).await.expect(204);
    admin.post("/identity/v3/users", named("grace")).await.expect(201);

    // A user of ours is one of ours: not a guest, by whatever id.
    let guest = come("grace").await.expect(201).text("/token/user/id");
    bed.map(user(json!({"id": "{1}", "type": "local"})), "1.0").await;
    come(&guest).await.expect(401);
    assert_eq!(come(&demo).await.expect(201).text("/token/user/id"), demo);
    bed.map(user(json!({"name": "{1}", "type": "local", "domain": {"id": "default"}})), "1.0").await;
    assert_ne!(come("grace").await.expect(201).text("/token/user/id"), guest);

    // What is no name is none.
    bed.map(user(json!({"name": "{1}"})), "1.0").await;
    come(&"x".repeat(255)).await.expect(201);
    come(&"x".repeat(256)).await.expect(401);
    // Groups of a claim are names of groups, one each.
    let groups = json!({"groups": "{1}", "domain": {"id": bed.domain}});
    bed.map(
        json!([{"local": [{"user": {"name": "{0}"}}, groups], "remote": [{"type": "OIDC-sub"}, {"type": "OIDC-nickname"}]}]),
        "1.0",
    )
    .await;
    for (nickname, given) in [("staff", 1), ("['staff']", 0), ("admins;staff", 0), ("{0}", 0)] {
        let entered = come(nickname).await.expect(201);
        assert_eq!(entered.all("/token/user/OS-FEDERATION/groups", "id").len(), given, "{nickname}");
    }
}

#[tokio::test]
async fn a_token_has_a_scope_by_the_method_that_it_came_by_and_no_other() {
    let bed = Bed::new().await;
    let by = async |method: &str, token: &str| {
        let identity = json!({"methods": [method], method: {"id": token}});
        bed.cloud.anonymous().post(TOKENS, json!({"auth": {"identity": identity, "scope": bed.lab()}})).await
    };
    let unscoped = bed.ada().await.header("x-subject-token").to_owned();
    for method in ["mapped", "openid", "saml2"] {
        let scoped = by(method, &unscoped).await.expect(201);
        assert_eq!(scoped.all("/token/roles", "name"), ["member", "reader"]);
        assert!(!scoped.at("/token/methods").to_string().contains("saml2"), "a method is what was proved");
    }
    let member = bed.cloud.member("demo").await.token.unwrap();
    by("mapped", &member).await.expect(401);
    by("mapped", "not a token").await.expect(404);
}

#[tokio::test]
async fn what_was_passed_on_ends_with_the_membership_that_it_rests_on() {
    let bed = Bed::new().await;
    bed.admin.patch(IDP, json!({"identity_provider": {"authorization_ttl": 1}})).await.expect(200);
    let entered = bed.ada().await;
    let (id, unscoped) = (entered.text("/token/user/id"), entered.header("x-subject-token"));
    let own = bed.cloud.anonymous().token(bed.rescope(unscoped, bed.lab()).await.expect(201).header("x-subject-token"));
    let other = bed.cloud.member("demo").await;
    let trustee = bed.admin.get("/identity/v3/users?name=demo-member").await.expect(200).text("/users/0/id");
    let trust = json!({"trust": {
        "trustor_user_id": id, "trustee_user_id": trustee, "project_id": bed.project, "impersonation": false, "roles": [{"name": "reader"}],
    }});
    let trust = own.post("/identity/v3/OS-TRUST/trusts", trust).await.expect(201).text("/trust/id");
    let token = bed.rescope(&other.token.unwrap(), json!({"OS-TRUST:trust": {"id": trust}})).await.expect(201);
    let token = token.header("x-subject-token");
    assert_eq!(bed.status_of(token).await, 200);
    bed.clock.advance(Duration::from_secs(61));
    assert_eq!(bed.status_of(token).await, 404, "though no row has changed");
}

#[tokio::test]
async fn a_token_holds_so_many_groups() {
    let bed = Bed::new().await;
    let mut names = Vec::new();
    for i in 0..201 {
        let group = json!({"group": {"name": format!("g{i}"), "domain_id": bed.domain}});
        bed.admin.post("/identity/v3/groups", group).await.expect(201);
        names.push(format!("g{i}"));
    }
    let local = json!([{"user": {"name": "{0}"}}, {"groups": "{1}", "domain": {"id": bed.domain}}]);
    bed.map(json!([{"local": local, "remote": [{"type": "OIDC-sub"}, {"type": "OIDC-groups"}]}]), "1.0").await;
    let come = async |names: &[String]| bed.enter(&bed.provider.access_of("ada", json!({ "groups": names })).await).await;
    come(&names).await.expect(401);
    let entered = come(&names[..200]).await.expect(201);
    assert_eq!(entered.all("/token/user/OS-FEDERATION/groups", "id").len(), 200);
    assert_eq!(bed.status_of(entered.header("x-subject-token")).await, 200);
}
