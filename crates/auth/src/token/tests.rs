use super::*;
use crate::Key;
use proptest::prelude::*;
use std::time::Instant;

fn ring() -> KeyRing {
    KeyRing::new(vec![Key::from_bytes([7; 32])]).unwrap()
}

fn project_token() -> Token {
    let issued = Timestamp(1_795_358_197_123_456);
    let methods = [Method::Password, Method::Token].into_iter().collect();
    Token {
        scope: TokenScope::Project(base::id::hex().into()),
        parent_audit_id: Some(AuditId::random()),
        ..Token::new(base::id::hex(), methods, issued, Duration::from_secs(3600))
    }
}

#[test]
fn usual_tokens_stay_below_255_characters() {
    let id = || Some(base::id::hex());
    let scoped = project_token();
    let trust = Token { trust_id: id(), ..scoped.clone() };
    let app_credential = Token { app_credential_id: id(), ..scoped.clone() };
    let digest_user = Token { user_id: "ab".repeat(32).into(), ..app_credential.clone() };
    for (token, most) in [(scoped, 204), (trust, 246), (app_credential, 246), (digest_user, 254)] {
        let text = mint(&ring(), &token);
        assert!(text.len() <= most, "{} characters", text.len());
        assert!(!text.contains('='));
        assert_eq!(open(&ring(), &text), Ok(token));
    }
}

/// A rolling upgrade reads tokens of the previous release: this text must open for as long as version 1 is read.
#[test]
fn the_stored_form_does_not_drift() {
    let token = Token {
        scope: TokenScope::Domain("default".into()),
        audit_id: AuditId([1; 16]),
        app_credential_id: Some("0123456789abcdef0123456789abcdef".into()),
        ..Token::new("u1", Methods::default().with(Method::Totp), Timestamp(1_000_000), Duration::from_secs(1))
    };
    let golden: Vec<u8> = [
        &[1u8, 0, 0b1_0010, 0, 0b1000][..],
        &1_000_000i64.to_be_bytes(),
        &[0xc0, 0x84, 0x3d],
        &[1; 16],
        &[3, 2, b'u', b'1'],
        &[3, 7],
        b"default",
        &[0, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef],
    ]
    .concat();
    assert_eq!(token.pack(), golden);
    assert_eq!(Token::unpack(&golden), Ok(token));
}

#[test]
fn other_versions_and_damaged_payloads_are_told_apart() {
    let sealed = |bytes: &[u8]| ring().encrypt(bytes, Timestamp(0));
    assert_eq!(open(&ring(), &sealed(&[9, 9])), Err(TokenError::Version(9)));
    assert_eq!(open(&ring(), &sealed(&[])), Err(TokenError::Payload));
    let whole = project_token().pack();
    for cut in 1..whole.len() {
        assert_eq!(open(&ring(), &sealed(&whole[..cut])), Err(TokenError::Payload), "cut at {cut}");
    }
    assert_eq!(open(&ring(), &sealed(&[&whole[..], &[0]].concat())), Err(TokenError::Payload));
    assert_eq!(open(&ring(), &"A".repeat(LONGEST_TEXT + 1)), Err(TokenError::Malformed));
}

#[test]
fn expiry_is_exclusive() {
    let token = project_token();
    let last = Timestamp(token.expires_at.0 - 1);
    assert!(!token.is_expired(last) && token.is_expired(token.expires_at));
}

#[test]
fn audit_ids_have_keystones_form_and_name_the_chain() {
    let first = Token { parent_audit_id: None, ..project_token() };
    let second = Token { parent_audit_id: Some(first.chain_audit_id()), ..project_token() };
    let third = Token { parent_audit_id: Some(second.chain_audit_id()), ..project_token() };
    assert_eq!(third.audit_ids()[1], first.audit_ids()[0]);
    assert_eq!(first.audit_ids().len(), 1);
    let text = first.audit_id.to_string();
    assert_eq!((text.len(), AuditId::parse(&text)), (22, Some(first.audit_id)));
    assert_eq!(AuditId::parse("short"), None);
}

#[test]
fn methods_have_names_and_bits_of_their_own() {
    let all: Methods = Method::ALL.into_iter().collect();
    assert_eq!(all.names().len(), Method::ALL.len());
    assert_eq!(all.0, Methods::MASK);
    assert!(Method::ALL.into_iter().all(|m| Method::parse(m.name()) == Some(m)));
    assert_eq!(Method::parse("voodoo"), None);
}

fn any_token() -> impl Strategy<Value = Token> {
    let id = || "[0-9a-f]{32}|[0-9a-f]{64}|\\PC{0,40}";
    let scope = prop_oneof![
        Just(TokenScope::Unscoped),
        Just(TokenScope::System),
        id().prop_map(|i| TokenScope::Project(i.into())),
        id().prop_map(|i| TokenScope::Domain(i.into())),
    ];
    let federation = (id(), id(), prop::collection::vec(id(), 0..5)).prop_map(|(idp_id, protocol_id, group_ids)| Federation {
        idp_id,
        protocol_id,
        group_ids,
    });
    let optional = (prop::option::of(id()), prop::option::of(id()), prop::option::of(id()), prop::option::of(federation));
    (id(), 0..=Methods::MASK, scope, any::<(i64, i64, [u8; 16], Option<[u8; 16]>)>(), optional).prop_map(
        |(user, methods, scope, (issued, expires, audit, parent), (trust_id, app_credential_id, access_token_id, federation))| {
            Token {
                user_id: user.into(),
                methods: Methods(methods),
                scope,
                issued_at: Timestamp(issued),
                expires_at: Timestamp(expires),
                audit_id: AuditId(audit),
                parent_audit_id: parent.map(AuditId),
                trust_id,
                app_credential_id,
                access_token_id,
                federation,
            }
        },
    )
}

proptest! {
    #[test]
    fn every_token_round_trips(token in any_token()) {
        prop_assert_eq!(open(&ring(), &mint(&ring(), &token)), Ok(token));
    }

    /// Signed garbage is refused, or is exactly what `mint` writes: no payload has two forms.
    #[test]
    fn payloads_have_one_form(token in any_token(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut bytes = token.pack();
        let i = at.index(bytes.len());
        bytes[i] = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Ok(read) = Token::unpack(&bytes) {
            prop_assert_eq!(read.pack(), bytes);
        }
    }

    #[test]
    fn garbage_never_panics(mut bytes: Vec<u8>, text in "\\PC{0,300}|[A-Za-z0-9_-]{0,300}") {
        prop_assert!(open(&ring(), &text).is_err());
        bytes.insert(0, VERSION);
        if let Ok(read) = Token::unpack(&bytes) {
            prop_assert_eq!(read.pack(), bytes);
        }
    }
}

#[test]
#[ignore = "a measurement: run it by name with --no-capture"]
fn rate_of_minting_and_opening() {
    const N: u32 = 50_000;
    let keys = [1, 2, 3].map(|b| Key::from_bytes([b; 32])).to_vec();
    let (ring, token) = (KeyRing::new(keys).unwrap(), project_token());
    let per_second = |since: Instant| f64::from(N) / since.elapsed().as_secs_f64();
    let start = Instant::now();
    let texts: Vec<_> = (0..N).map(|_| mint(&ring, &token)).collect();
    println!("mint: {:.0}/s", per_second(start));
    let start = Instant::now();
    assert!(texts.iter().all(|t| open(&ring, t).is_ok()));
    println!("open: {:.0}/s", per_second(start));
}
