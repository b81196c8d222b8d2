//! Against certificates and signatures of another implementation: `vectors.json` was made with `cryptography` 48.0.0 from PyPI (`sign` of an
//! `RSAPrivateKey` with `padding.PSS(padding.MGF1(hash), padding.PSS.MAX_LENGTH)`, of a `DSAPrivateKey`, and of an
//! `EllipticCurvePrivateKey` with `ec.ECDSA(hash)`; certificates by `x509.CertificateBuilder`, valid from 2020 to 2120), and the one of
//! `pss-oid` with `openssl genpkey -algorithm RSA-PSS`, `openssl req -x509` and `openssl dgst -sigopt rsa_pss_saltlen:max`. `small` is of
//! the data `data`, `large` of [`large`]; `salt_of_32_bytes` is `small` by `rsa-2048` with SHA-256 and that salt.
use super::*;
use base::Timestamp;
use proptest::prelude::*;
use std::collections::HashMap;
use x509_parser::prelude::FromDer as _;

#[derive(Deserialize)]
struct Vectors {
    /// DER in base64.
    certificates: HashMap<String, String>,
    small: Vec<Vector>,
    large: Vec<Vector>,
    salt_of_32_bytes: String,
}

#[derive(Clone, Deserialize)]
struct Vector {
    certificate: String,
    key_type: KeyType,
    hash_method: HashMethod,
    signature: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("vectors.json")).unwrap()
}

fn now() -> Timestamp {
    Timestamp::parse("2027-01-01T00:00:00Z").unwrap()
}

/// Three MiB and some: more than is hashed at once.
fn large() -> Vec<u8> {
    (0..(3 << 20) + 17).map(|at: usize| (at % 251) as u8).collect()
}

impl Vectors {
    fn certificate(&self, name: &str) -> Vec<u8> {
        STANDARD.decode(&self.certificates[name]).unwrap()
    }

    fn signed(&self, vector: &Vector) -> Signed {
        let key = certificate::key(&self.certificate(&vector.certificate), now()).unwrap();
        let Vector { signature, hash_method, key_type, .. } = vector.clone();
        let asked = Asked { signature, hash_method, key_type, certificate: base::id::uuid() };
        Signed { asked, key: STANDARD.encode(key) }
    }
}

fn hash(signed: &Signed, data: &[u8]) -> Box<[u8]> {
    let mut hash = crate::digest::begin(signed.algorithm()).unwrap();
    hash.update(data);
    hash.finalize()
}

fn verify(signed: &Signed, data: &[u8]) -> bool {
    match signed.verify_here(&hash(signed, data)) {
        Ok(()) => true,
        Err(Unverified::Mismatch) => false,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn what_others_sign_is_verified() {
    let vectors = vectors();
    assert_eq!((vectors.small.len(), vectors.large.len()), (21, 2));
    let large = large();
    for (data, vector) in vectors.small.iter().map(|v| (&b"data"[..], v)).chain(vectors.large.iter().map(|v| (&large[..], v))) {
        let signed = vectors.signed(vector);
        assert!(verify(&signed, data), "{} {:?}", vector.certificate, vector.hash_method);
        // It is kept in rows.
        let row = serde_json::to_string(&signed).unwrap();
        assert_eq!(serde_json::from_str::<Signed>(&row).unwrap(), signed);
    }
}

#[test]
fn other_data_hashes_and_keys_are_not() {
    let vectors = vectors();
    for vector in &vectors.small {
        let signed = vectors.signed(vector);
        assert!(!verify(&signed, b"date") && !verify(&signed, b"") && !verify(&signed, b"data\0"), "{}", vector.certificate);
        assert!(signed.verify_here(&[]).is_err(), "{}", vector.certificate);
        for hash_method in [HashMethod::Sha224, HashMethod::Sha256, HashMethod::Sha384, HashMethod::Sha512] {
            let other = Signed { asked: Asked { hash_method, ..signed.asked.clone() }, ..signed.clone() };
            assert_eq!(verify(&other, b"data"), hash_method == vector.hash_method, "{} {hash_method:?}", vector.certificate);
        }
        for key_type in [KeyType::RsaPss, KeyType::Dsa, KeyType::Secp384r1, KeyType::Secp521r1] {
            let other = Signed { asked: Asked { key_type, ..signed.asked.clone() }, ..signed.clone() };
            let found = other.verify_here(&hash(&other, b"data"));
            assert_eq!(found.is_ok(), key_type == vector.key_type, "{} {key_type:?}: {found:?}", vector.certificate);
            assert!(found.is_ok() || matches!(found, Err(Unverified::Key { .. })), "{found:?}");
        }
        for other in vectors.small.iter().filter(|o| o.certificate != vector.certificate && o.key_type == vector.key_type) {
            let signed = vectors.signed(&Vector { certificate: other.certificate.clone(), ..vector.clone() });
            assert!(!verify(&signed, b"data"), "{} by {}", vector.certificate, other.certificate);
        }
    }
}

#[test]
fn a_salt_must_be_the_longest() {
    let vectors = vectors();
    let vector = vectors.small.iter().find(|v| v.certificate == "rsa-2048" && v.hash_method == HashMethod::Sha256).unwrap();
    let signed = vectors.signed(&Vector { signature: vectors.salt_of_32_bytes.clone(), ..vector.clone() });
    assert!(!verify(&signed, b"data"));
}

#[test]
fn a_flipped_bit_of_a_signature_is_seen() {
    let vectors = vectors();
    for name in ["rsa-1024", "dsa-1024", "p384", "p521"] {
        let vector = vectors.small.iter().find(|v| v.certificate == name).unwrap();
        let bytes = STANDARD.decode(&vector.signature).unwrap();
        for bit in (0..bytes.len() * 8).step_by(5) {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let signed = vectors.signed(&Vector { signature: STANDARD.encode(bytes), ..vector.clone() });
            assert!(!verify(&signed, b"data"), "{name}, bit {bit}");
        }
        for bytes in [&bytes[..bytes.len() - 1], &[&bytes[..], &[0]].concat(), &[0; 8]] {
            let signed = vectors.signed(&Vector { signature: STANDARD.encode(bytes), ..vector.clone() });
            assert!(!verify(&signed, b"data"), "{name}");
        }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[test]
fn certificates_are_read_from_der_and_pem() {
    let vectors = vectors();
    let der = vectors.certificate("rsa-2048");
    let key = certificate::key(&der, now()).unwrap();
    let plain = pem("CERTIFICATE", &der);
    let other = pem("PRIVATE KEY", b"secret");
    for text in
        [plain.clone(), plain.replace('\n', "\r\n"), format!("Subject: CN=x\n\n{plain}"), format!("{other}{plain}{other}")]
    {
        assert_eq!(certificate::key(text.as_bytes(), now()).unwrap(), key, "{text}");
    }
    let truncated = &der[..der.len() - 1];
    for bad in [
        &b""[..],
        b"0",
        b"\x30\x80",
        b"-----BEGIN CERTIFICATE-----",
        other.as_bytes(),
        truncated,
        &[&der[..], b"x"].concat(),
        &[0x30; 65536],
    ] {
        let refused = certificate::key(bad, now()).unwrap_err();
        assert!(matches!(refused, Unverified::Format { .. }), "{refused:?}");
    }
    assert!(certificate::key(pem("CERTIFICATE", truncated).as_bytes(), now()).is_err());
}

#[test]
fn certificates_have_their_time() {
    let vectors = vectors();
    let at = |name: &str, time: &str| certificate::key(&vectors.certificate(name), Timestamp::parse(time).unwrap());
    for (name, time, good) in [
        ("expired", "2026-11-23T00:00:00Z", false),
        ("future", "2026-11-23T00:00:00Z", false),
        ("expired", "2010-06-01T00:00:00Z", true),
        ("rsa-2048", "2019-12-31T23:59:59Z", false),
        ("rsa-2048", "2020-01-01T00:00:00Z", true),
        ("rsa-2048", "2120-01-01T00:00:00Z", true),
        ("rsa-2048", "2120-01-01T00:00:01Z", false),
    ] {
        let found = at(name, time);
        assert_eq!(found.is_ok(), good, "{name} {time}");
        assert!(good || matches!(found, Err(Unverified::Dates { .. })), "{name} {time}");
    }
    let told = at("expired", "2026-11-23T00:00:00Z").unwrap_err().told("i");
    assert!(told.starts_with("Signature verification failed for image i: The certificate is outside"), "{told}");
    assert!(told.contains("2011-01-01T00:00:00Z"), "{told}");
}

#[test]
fn keys_that_nobody_verifies_are_refused_with_a_reason() {
    let vectors = vectors();
    for (name, kind, why) in [
        ("p256", KeyType::Secp384r1, "P-384"),
        ("p256", KeyType::Secp521r1, "P-521"),
        ("ed25519", KeyType::Secp384r1, "P-384"),
        ("ed25519", KeyType::RsaPss, "none of RSA"),
        ("ed25519", KeyType::Dsa, "none of DSA"),
        ("rsa-16384", KeyType::RsaPss, "1024 to 8192"),
    ] {
        let key = certificate::key(&vectors.certificate(name), now()).unwrap();
        let refused = Key::read(kind, &key).err().unwrap().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn numbers_that_take_long_are_not_calculated_with() {
    let vectors = vectors();
    let key = certificate::key(&vectors.certificate("dsa-2048"), now()).unwrap();
    let info = dsa::pkcs8::SubjectPublicKeyInfoRef::try_from(&key[..]).unwrap();
    let good: dsa::Components = info.algorithm.parameters_any().unwrap().decode_as().unwrap();
    let y = dsa::VerifyingKey::try_from(info).unwrap().y().clone();
    let one = dsa::BigUint::from(1_u8);
    for (p, q, g) in [
        (one.clone() << 6000_usize, good.q().clone(), good.g().clone()),
        (good.p().clone(), one.clone() << 6000_usize, good.g().clone()),
        (good.p().clone(), good.q().clone(), good.p().clone()),
        (dsa::BigUint::from(7_u8), dsa::BigUint::from(3_u8), dsa::BigUint::from(2_u8)),
    ] {
        let parts = der_of(&[&p, &q, &g]);
        let hostile =
            sequence(&[&sequence(&[&[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01], &parts]), &bits(&integer(&y))]);
        let refused = Key::read(KeyType::Dsa, &hostile).err().unwrap();
        assert!(matches!(refused, Unverified::Key { what, .. } if what.contains("1024 to 3072")), "{refused:?}");
    }
    // The same with good numbers is a key: the tests' DER is no reason.
    let parts = der_of(&[good.p(), good.q(), good.g()]);
    let same = sequence(&[&sequence(&[&[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01], &parts]), &bits(&integer(&y))]);
    assert!(Key::read(KeyType::Dsa, &same).is_ok());
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    // Lengths in DER are as short as can be.
    let head = match content.len() {
        0..=127 => vec![tag, length[1]],
        128..=255 => vec![tag, 0x81, length[1]],
        _ => vec![tag, 0x82, length[0], length[1]],
    };
    [head, content.to_vec()].concat()
}

fn integer(number: &dsa::BigUint) -> Vec<u8> {
    let bytes = number.to_bytes_be();
    element(2, &if bytes[0] & 0x80 == 0 { bytes } else { [vec![0], bytes].concat() })
}

fn der_of(numbers: &[&dsa::BigUint]) -> Vec<u8> {
    element(0x30, &numbers.iter().flat_map(|n| integer(n)).collect::<Vec<_>>())
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

fn bits(content: &[u8]) -> Vec<u8> {
    element(3, &[&[0], content].concat())
}

fn image(properties: serde_json::Value) -> Image {
    let row = serde_json::json!({
        "name": null, "status": "queued", "visibility": "shared", "size": null, "virtual_size": null, "disk_format": "raw",
        "container_format": "bare", "checksum": null, "os_hash_algo": null, "os_hash_value": null, "min_disk": 0, "min_ram": 0,
        "protected": false, "os_hidden": false, "tags": [], "properties": properties,
    });
    serde_json::from_value(row).unwrap()
}

#[test]
fn properties_are_read_when_all_are_there() {
    let whole = serde_json::json!({
        SIGNATURE: " c2ln\n", HASH_METHOD: "SHA-256", KEY_TYPE: "RSA-PSS", CERTIFICATE: "b1f2fe0a-4c8a-4b0e-9d0a-2f7a3c0f9a51",
    });
    let found = read(&image(whole.clone())).unwrap().unwrap();
    assert_eq!((found.signature.as_str(), found.hash_method, found.key_type), ("c2ln", HashMethod::Sha256, KeyType::RsaPss));
    for name in [SIGNATURE, HASH_METHOD, KEY_TYPE, CERTIFICATE] {
        let mut part = whole.clone();
        part.as_object_mut().unwrap().shift_remove(name);
        assert!(read(&image(part)).unwrap().is_none(), "without {name}");
    }
    for (name, value, why) in [
        (SIGNATURE, "", "base64"),
        (SIGNATURE, "c2ln!", "base64"),
        (SIGNATURE, &"AAAA".repeat(1366), "base64"),
        (HASH_METHOD, "MD5", "Invalid signature hash method: MD5; it must be SHA-224"),
        (HASH_METHOD, "sha-256", "Invalid signature hash method"),
        (KEY_TYPE, "ECC_SECT571K1", "Invalid signature key type: ECC_SECT571K1; it must be RSA-PSS, DSA, ECC_SECP384R1 or"),
        (KEY_TYPE, "", "Invalid signature key type"),
        (CERTIFICATE, "../../v1/orders", "is not a UUID"),
        (CERTIFICATE, "b1f2fe0a-4c8a-4b0e-9d0a-2f7a3c0f9a51/", "is not a UUID"),
        (CERTIFICATE, "", "is not a UUID"),
    ] {
        let mut odd = whole.clone();
        odd[name] = value.into();
        let refused = read(&image(odd)).unwrap_err().told("i");
        assert!(refused.contains(why), "{name}={value}: {refused}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_may_be_a_certificate(bytes in prop::collection::vec(any::<u8>(), 0..2000), pem_too in any::<bool>()) {
        let text = if pem_too { pem("CERTIFICATE", &bytes).into_bytes() } else { bytes };
        prop_assert!(certificate::key(&text, now()).is_err());
    }

    /// One changed byte of a certificate gives the same key, or one that did not sign.
    #[test]
    fn a_changed_certificate_does_no_harm(
        name in prop::sample::select(vec!["rsa-1024", "dsa-1024", "p384", "p521"]),
        place in any::<prop::sample::Index>(),
        by in 1..=255_u8,
    ) {
        let vectors = vectors();
        let vector = vectors.small.iter().find(|v| v.certificate == name).unwrap();
        let signed = vectors.signed(vector);
        let mut der = vectors.certificate(name);
        let at = place.index(der.len());
        der[at] ^= by;
        if let Ok(key) = certificate::key(&der, now()) {
            let same = STANDARD.encode(&key) == signed.key;
            let changed = Signed { key: STANDARD.encode(key), ..signed };
            prop_assert!(same || changed.verify_here(&hash(&changed, b"data")).is_err() || only_names_changed(&vectors, name, &der));
        }
    }
}

/// An algorithm's parameters may change without another key, as those of RSA, which are ignored.
fn only_names_changed(vectors: &Vectors, name: &str, der: &[u8]) -> bool {
    let numbers = |der: &[u8]| {
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).unwrap();
        certificate.public_key().subject_public_key.data.to_vec()
    };
    numbers(&vectors.certificate(name)) == numbers(der)
}
