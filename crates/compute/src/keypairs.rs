//! Key pairs: imported, or generated until 2.91. The private half is shown once and kept nowhere.
use crate::{
    common::{at, map, object, paged, seconds, text},
    resources::{Keypair, keypair},
    server::view::fingerprint,
    shape::{self, Shape, opt, req},
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::{Object, Resource, engine};
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

fn is_plain(name: &str) -> bool {
    shape::is_name(name) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_- ".contains(&b))
}
fn is_wide(name: &str) -> bool {
    shape::is_name(name) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_- @.".contains(&b))
}
const NAME: Shape = Shape::Checked { min: 1, max: 255, check: is_plain, what: "does not match '^[_\\- a-zA-Z0-9]+$'" };
const WIDE_NAME: Shape = Shape::Checked { min: 1, max: 255, check: is_wide, what: "does not match '^[_\\-\\@\\. a-zA-Z0-9]+$'" };
const CREATE: Shape = Shape::Object(&[req(
    "keypair",
    &Shape::Object(&[
        req("name", &NAME).until(91),
        req("name", &WIDE_NAME).since(92),
        opt("public_key", &shape::TEXT).required_since(92),
        opt("type", &Shape::Choice(&["ssh", "x509"])).since(2),
        opt("user_id", &Shape::Text { min: 1, max: 255 }).since(10),
    ]),
)]);

/// A generated or imported key.
struct Key {
    public: String,
    private: Option<String>,
    fingerprint: String,
}

fn invalid(why: &str) -> Error {
    Error::bad_request(format!("Keypair data is invalid: {why}"))
}

/// An SSH key as the client wrote it, with its fingerprint.
fn import_ssh(public: &str) -> Result<Key> {
    let mut parts = public.split_whitespace();
    let (kind, data) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let bytes = shape::decode_base64(data).filter(|b| b.len() > 4).ok_or_else(|| invalid("failed to generate fingerprint"))?;
    let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    // The blob names its own kind: it must be the one that the line says.
    if bytes.get(4..4 + length) != Some(kind.as_bytes()) || kind.is_empty() || bytes.len() <= 4 + length {
        return Err(invalid("failed to generate fingerprint"));
    }
    Ok(Key { public: public.trim().to_owned(), private: None, fingerprint: fingerprint(&bytes) })
}

fn generate_ssh(user: &str) -> Result<Key> {
    let failed = |e: ssh_key::Error| Error::internal(format!("a key was not generated: {e}"));
    let mut key = ssh_key::PrivateKey::random(&mut ssh_key::rand_core::OsRng, ssh_key::Algorithm::Ed25519).map_err(failed)?;
    key.set_comment(format!("Generated-by-Nova {user}"));
    let public = key.public_key().to_openssh().map_err(failed)?;
    let private = key.to_openssh(ssh_key::LineEnding::LF).map_err(failed)?;
    Ok(Key { private: Some(private.to_string()), ..import_ssh(&public)? })
}

fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

fn import_x509(public: &str) -> Result<Key> {
    let body: String = public.lines().filter(|l| !l.starts_with("-----")).collect();
    let is_pem = public.contains("-----BEGIN CERTIFICATE-----") && public.contains("-----END CERTIFICATE-----");
    let der = shape::decode_base64(&body).filter(|d| is_pem && d.first() == Some(&0x30));
    let der = der.ok_or_else(|| invalid("failed to generate X509 fingerprint"))?;
    Ok(Key { public: public.to_owned(), private: None, fingerprint: colons(&Sha1::digest(&der)) })
}

fn generate_x509(user: &str, project: &str) -> Result<Key> {
    let failed = |e: rcgen::Error| Error::internal(format!("a certificate was not generated: {e}"));
    let key = rcgen::KeyPair::generate().map_err(failed)?;
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, format!("{project}-{user}"));
    parameters.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    let certificate = parameters.self_signed(&key).map_err(failed)?;
    Ok(Key { private: Some(key.serialize_pem()), ..import_x509(&certificate.pem())? })
}

/// Whose keys: the caller's, or from 2.10 those of a user that an administrator names.
fn owner(call: &Call, named: Option<&str>) -> Result<String> {
    let own = call.cx.caller.user_id();
    match named.filter(|u| at(&call.cx, 10) && *u != own) {
        None => Ok(own.to_owned()),
        Some(_) if !call.cx.is_admin() => Err(Error::forbidden("Policy doesn't allow os_compute_api:os-keypairs to be performed.")),
        Some(user) => Ok(user.to_owned()),
    }
}

async fn create(call: Call) -> Result<Reply> {
    CREATE.check(call.json(), &call.cx)?;
    let input = call.inner("keypair")?.clone();
    let user = owner(&call, input.get("user_id").and_then(Value::as_str))?;
    let name = text(&input, "name").to_owned();
    let kind = input.get("type").and_then(Value::as_str).unwrap_or("ssh").to_owned();
    let project = call.cx.caller.project_id().unwrap_or_default().to_owned();
    let key = match (kind.as_str(), input.get("public_key").and_then(Value::as_str)) {
        ("ssh", Some(public)) => import_ssh(public)?,
        ("ssh", None) => generate_ssh(&user)?,
        (_, Some(public)) => import_x509(public)?,
        (_, None) => generate_x509(&user, &project)?,
    };
    let body = Keypair {
        name: name.clone(),
        user_id: user.clone(),
        kind: kind.clone(),
        public_key: key.public.clone(),
        fingerprint: key.fingerprint.clone(),
        number: 0,
    };
    let id = keypair::key(&user, &name);
    call.transact(move |cx, tx| {
        if tx.get(&Keypair::DEF.table, &id).is_some() {
            return Err(Error::conflict(format!("Key pair '{}' already exists.", body.name)));
        }
        let most = crate::quota::limit(tx, cx, &project, "key_pairs");
        let holder = format!("user {}", body.user_id);
        let used = engine::usage(tx, &holder, "compute", "key_pairs");
        if most >= 0 && used >= most {
            return Err(Error::over_quota("Quota exceeded, too many key pairs."));
        }
        engine::release(tx, &holder, "compute", &[("key_pairs", -1)]);
        let body = Keypair { number: tx.now.0, ..body.clone() };
        let row = Object::new(id.clone(), None, body, tx.now, &cx.request_id);
        tx.put(&Keypair::DEF.table, &id, row.into_map()?.into());
        Ok(())
    })
    .await?;
    let mut out = map(json!({ "name": name, "public_key": key.public, "fingerprint": key.fingerprint, "user_id": user }));
    if at(&call.cx, 2) {
        out.insert("type".into(), kind.into());
    }
    if let Some(private) = key.private {
        out.insert("private_key".into(), private.into());
    }
    Ok(Reply::json(if at(&call.cx, 2) { 201 } else { 200 }, json!({ "keypair": out })))
}

fn found(call: &Call) -> Result<Map> {
    let user = owner(call, call.cx.query.get("user_id"))?;
    let name = call.param("id");
    let reader = call.reader();
    let row = reader.get(&Keypair::DEF.table, &keypair::key(&user, name));
    row.map(|r| object(&r).clone()).ok_or_else(|| Error::not_found(format!("Keypair {name} not found for user {user}")))
}

fn check_query(call: &Call, known: &[&str]) -> Result<()> {
    match call.cx.query.keys().find(|k| !known.contains(k)) {
        Some(key) if at(&call.cx, 75) => Err(Error::bad_request(format!("Additional properties are not allowed ('{key}' was unexpected)"))),
        _ => Ok(()),
    }
}

async fn show(call: Call) -> Result<Reply> {
    check_query(&call, &["user_id"])?;
    let row = found(&call)?;
    let mut out = brief(&call, &row);
    out.extend(map(json!({
        "user_id": row.get("user_id"), "id": row.get("number"), "created_at": seconds(&row, "created_at"), "updated_at": null,
        "deleted": false, "deleted_at": null,
    })));
    Ok(Reply::ok(json!({ "keypair": out })))
}

fn brief(call: &Call, row: &Map) -> Map {
    let mut out = map(json!({ "name": row.get("name"), "public_key": row.get("public_key"), "fingerprint": row.get("fingerprint") }));
    if at(&call.cx, 2) {
        out.insert("type".into(), row.get("type").cloned().unwrap_or_else(|| "ssh".into()));
    }
    out
}

async fn list(call: Call) -> Result<Reply> {
    check_query(&call, &["user_id", "limit", "marker"])?;
    let user = owner(&call, call.cx.query.get("user_id"))?;
    let reader = call.reader();
    let rows = reader.find(&Keypair::DEF.table, "user_id", &user);
    let (rows, more) = if at(&call.cx, 35) { paged(&call.cx, rows, 1000, |r| r.text("name"))? } else { (rows, false) };
    let list: Vec<Value> = rows.iter().map(|r| json!({ "keypair": brief(&call, object(r)) })).collect();
    let mut body = map(json!({ "keypairs": list }));
    if let (true, Some(last)) = (more, rows.last()) {
        let href = crate::server::list::next_link(&call.cx, "/v2.1/os-keypairs", last.text("name"));
        body.insert("keypairs_links".into(), json!([{ "rel": "next", "href": href }]));
    }
    Ok(Reply::ok(body.into()))
}

async fn delete(call: Call) -> Result<Reply> {
    let row = found(&call)?;
    let (user, id) = (text(&row, "user_id").to_owned(), text(&row, "id").to_owned());
    call.transact(move |_, tx| {
        if tx.get(&Keypair::DEF.table, &id).is_some() {
            tx.delete(&Keypair::DEF.table, &id);
            engine::release(tx, &format!("user {user}"), "compute", &[("key_pairs", 1)]);
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(if at(&call.cx, 2) { 204 } else { 202 }))
}

pub(crate) fn routes() -> Vec<Route> {
    let rule = |name, text| Access::Rule(name, text);
    vec![
        Route::new("GET", "/v2.1/os-keypairs", rule("os_compute_api:os-keypairs:index", "reader"), list),
        Route::new("POST", "/v2.1/os-keypairs", rule("os_compute_api:os-keypairs:create", "member"), create),
        Route::new("GET", "/v2.1/os-keypairs/{id}", rule("os_compute_api:os-keypairs:show", "reader"), show),
        Route::new("DELETE", "/v2.1/os-keypairs/{id}", rule("os_compute_api:os-keypairs:delete", "member"), delete),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_keys_import_again_and_junk_does_not() {
        let key = generate_ssh("u").expect("a key");
        let again = import_ssh(&key.public).expect("it is a key");
        assert_eq!((again.fingerprint.len(), again.fingerprint), (47, key.fingerprint));
        let private = ssh_key::PrivateKey::from_openssh(key.private.unwrap()).expect("readable");
        assert_eq!(private.public_key().key_data(), ssh_key::PublicKey::from_openssh(&key.public).unwrap().key_data());
        for junk in ["ssh-rsa JUNK nova@ubuntu", " ", &format!("ssh-rsa {} x", "A".repeat(2048)), "ssh-rsa AAAAB3NzaC1yc2E="] {
            assert!(import_ssh(junk).is_err(), "{junk}");
        }
    }

    #[test]
    fn certificates_have_a_sha1_fingerprint() {
        let key = generate_x509("u", "p").expect("a certificate");
        assert_eq!(key.fingerprint.len(), 59);
        assert!(import_x509("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----").is_err());
    }
}
