//! A provider's word counts only when somebody whom we believe vouches for its certificate.
use super::Bed;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};
use testkit::Answer;

/// An authority, and what it vouches for `name` by: PEM files of the authority, a certificate and its key.
fn authority(dir: &Path, called: &str, name: &str) -> [PathBuf; 3] {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, called);
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let own = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let files = ["ca", "certificate", "key"].map(|what| dir.join(format!("{called}-{what}.pem")));
    for (file, text) in files.iter().zip([own.pem(), certificate.pem(), key.serialize_pem()]) {
        fs::write(file, text).unwrap();
    }
    files
}

async fn enter(bed: &Bed) -> Answer {
    // Its address is known; whether it is believed is ours to say.
    bed.enter(&bed.provider.access("ada", Some("urn:cloud")).await).await
}

#[tokio::test]
async fn a_provider_is_believed_by_its_authority_only() {
    let dir = tempfile::tempdir().unwrap();
    let [ca, certificate, key] = authority(dir.path(), "own", "127.0.0.1");
    let [stranger, _, _] = authority(dir.path(), "stranger", "127.0.0.1");
    let bed = Bed::with(Some([&certificate, &key])).await;
    // The machine's authorities do not know it; another's file does not make it known, nor does one that is not there.
    let files = [json!({}), json!({"tls_cacertfile": stranger}), json!({"tls_cacertfile": dir.path().join("none")})];
    for untrusted in files {
        bed.speak(bed.provider.oidc(untrusted.clone())).await;
        let refused = enter(&bed).await.expect(503);
        let message = refused.text("/error/message");
        assert!(message.contains("The identity provider corp cannot be asked"), "{untrusted}: {message}");
        assert!(!message.contains("pem") && !message.contains("127.0.0.1"), "{message}: why is for the operator");
    }
    bed.speak(bed.provider.oidc(json!({"tls_cacertfile": ca}))).await;
    assert_eq!(enter(&bed).await.expect(201).text("/token/user/name"), "ada");
    // And about tokens that only it can read, and that it is asked about.
    let opaque = bed.provider.access("ada", None).await;
    assert_eq!(bed.enter(&opaque).await.expect(201).text("/token/user/name"), "ada");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let [ca, certificate, key] = authority(dir.path(), "own", "idp.example.org");
    let bed = Bed::with(Some([&certificate, &key])).await;
    bed.speak(bed.provider.oidc(json!({"tls_cacertfile": ca}))).await;
    enter(&bed).await.expect(503);
}
