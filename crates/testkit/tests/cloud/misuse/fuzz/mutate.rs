//! From a valid request to one that is not.
use super::{Shot, chance, hostile, pick, version};
use crate::misuse::samples::{self, Sample};
use rand::{Rng as _, rngs::StdRng};
use resource::{FieldDef, ResourceDef};
use serde_json::{Map, Value};

/// Places in a document, as ways from its root.
fn places(v: &Value, way: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    out.push(way.clone());
    let mut below = |key: String, v: &Value| {
        way.push(key);
        places(v, way, out);
        way.pop();
    };
    match v {
        Value::Object(map) => map.iter().for_each(|(k, v)| below(k.clone(), v)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| below(i.to_string(), v)),
        _ => {}
    }
}

fn at<'v>(v: &'v mut Value, way: &[String]) -> Option<&'v mut Value> {
    way.iter().try_fold(v, |v, key| match v {
        Value::Object(map) => map.get_mut(key),
        Value::Array(list) => list.get_mut(key.parse::<usize>().ok()?),
        _ => None,
    })
}

/// The objects inside which a resource's own fields are.
fn inner<'v>(body: &'v mut Value, def: &ResourceDef) -> Option<&'v mut Map<String, Value>> {
    let wrapped = body.get(def.name).is_some();
    if wrapped { body.get_mut(def.name)?.as_object_mut() } else { body.as_object_mut() }
}

fn once(dice: &mut StdRng, body: &mut Value, def: Option<&ResourceDef>, ids: &[String]) {
    // A field of the table, one that callers may not set among them.
    if let Some(def) = def.filter(|_| chance(dice, 2))
        && let Some(map) = inner(body, def)
    {
        let fields: Vec<&FieldDef> = def.fields.iter().collect();
        let field = *pick(dice, &fields);
        if chance(dice, 8) {
            let name = *pick(dice, &["id", "project_id", "tenant_id", "v", "deleting", "revision"]);
            map.insert(name.into(), hostile::value(dice, ids));
        } else if chance(dice, 3) {
            map.insert(field.name.into(), hostile::value(dice, ids));
        } else {
            map.insert(field.name.into(), hostile::of_kind(dice, &field.kind, ids));
        }
        return;
    }
    let mut all = Vec::new();
    places(body, &mut Vec::new(), &mut all);
    let small = all.len() < 40;
    let way = pick(dice, &all).clone();
    let Some(target) = at(body, &way) else { return };
    match dice.random_range(0..10) {
        0 => {
            let Some((last, parent)) = way.split_last() else { return };
            match at(body, parent) {
                Some(Value::Object(map)) => drop(map.shift_remove(last)),
                Some(Value::Array(list)) => list.clear(),
                _ => {}
            }
        }
        1 => *target = Value::Array(vec![target.clone()]),
        2 => *target = Value::Array(vec![target.clone(); if small && chance(dice, 10) { 1500 } else { 2 }]),
        3 => {
            let name = hostile::text(dice);
            *target = Value::Object([(name, target.clone())].into_iter().collect());
        }
        4 => {
            if let Value::Object(map) = target {
                map.insert(if chance(dice, 2) { "no_such_field".into() } else { hostile::text(dice) }, hostile::value(dice, ids));
            } else {
                *target = hostile::value(dice, ids);
            }
        }
        _ => *target = hostile::value(dice, ids),
    }
}

/// Bytes of a body before it is spoilt as text, which may double it. Servers hang up on those who go on far beyond what is taken.
const LARGEST: usize = 4_000_000;

/// A body with up to three things wrong, or bytes that are no such body at all.
pub(super) fn body(dice: &mut StdRng, valid: &Value, def: Option<&ResourceDef>, ids: &[String]) -> bytes::Bytes {
    let mut body = valid.clone();
    if body.is_null() {
        body = Value::Object(Map::new());
    }
    for _ in 0..*pick(dice, &[1, 1, 2, 3]) {
        let before = body.clone();
        once(dice, &mut body, def, ids);
        if body.to_string().len() > LARGEST {
            body = before;
        }
    }
    let text = body.to_string();
    match dice.random_range(0..60) {
        0 => bytes::Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]),
        1 => format!("{text}{text}").into(),
        2 => [b"\xff\xfe", text.as_bytes()].concat().into(),
        3 => text.replace("\":", "\": NaN, \"x\":").into(),
        4 => "[".repeat(*pick(dice, &[100, 130, 20_000])).into(),
        5 => "{\"a\":".repeat(*pick(dice, &[126, 129, 20_000])).into(),
        6 => {
            let twice = text.trim_start_matches('{').trim_end_matches('}');
            format!("{{{twice},{twice}}}").into()
        }
        7 => bytes::Bytes::new(),
        8 => text.replace('"', "'").into(),
        9 => format!("\u{feff}{text}").into(),
        10 => {
            pick(dice, &["null", "0", "\"a\"", "[]", "{}", "true", "[{}]", "{\"\": 1}", "1e999", "\"\\ud800\""]).as_bytes().into()
        }
        11 if chance(dice, 6) => format!("{{\"a\": \"{}\"}}", "x".repeat(10_000_000)).into(),
        _ => text.into(),
    }
}

/// Percent-encodes what a URI cannot hold.
fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// An id that is none, as part of a path.
fn bad_id(dice: &mut StdRng, ids: &[String]) -> String {
    const RAW: &[&str] = &[
        "%2F",
        "..%2f..%2fetc%2fpasswd",
        "%00",
        "%ff%fe",
        "%",
        "%zz",
        "a%2fb",
        ".",
        "..",
        "*",
        "~",
        ";x=1",
        "a?b",
        "%C0%AF",
        "'",
    ];
    match dice.random_range(0..8) {
        0 | 1 => (*pick(dice, RAW)).to_owned(),
        2 => "1".repeat(10_000),
        3 => base::id::uuid(),
        4 if !ids.is_empty() => encoded(pick::<String>(dice, ids)),
        _ => encoded(&hostile::text(dice).chars().take(2000).collect::<String>()),
    }
}

fn query(dice: &mut StdRng, def: Option<&ResourceDef>, ids: &[String]) -> String {
    const KEYS: &[&str] = &[
        "marker",
        "limit",
        "sort_key",
        "sort_dir",
        "sort",
        "fields",
        "page_reverse",
        "name",
        "id",
        "status",
        "project_id",
        "tenant_id",
        "all_tenants",
        "changes-since",
        "changes-before",
        "deleted",
        "ip",
        "flavor",
        "image",
        "host",
        "tags",
        "not-tags-any",
        "user_id",
        "domain_id",
        "enabled",
        "name__contains",
        "created_at",
        "size_min",
        "visibility",
        "member_status",
        "resources",
        "resources1",
        "required",
        "member_of",
        "in_tree",
        "group_policy",
        "root_required",
        "same_subtree",
        "uuid",
        "start",
        "end",
        "detailed",
        "is_public",
        "minRam",
        "minDisk",
        "with_servers",
        "hypervisor_hostname_pattern",
        "reserved",
        "locked",
        "effective",
        "include_names",
        "scope.project.id",
        "",
    ];
    let fields: Vec<&str> = def.iter().flat_map(|d| d.fields).map(|f| f.name).collect();
    let count = if chance(dice, 100) { 600 } else { dice.random_range(1..4) };
    let one = |dice: &mut StdRng| {
        let key = if !fields.is_empty() && chance(dice, 2) { *pick(dice, &fields) } else { *pick(dice, KEYS) };
        let value = match dice.random_range(0..6) {
            0 => "%ff".to_owned(),
            1 => "%".to_owned(),
            2 if !ids.is_empty() => encoded(pick::<String>(dice, ids)),
            3 => encoded(&hostile::number(dice).to_string()),
            _ => encoded(&hostile::text(dice)).chars().take(8000).collect(),
        };
        format!("{}={value}", encoded(key))
    };
    (0..count).map(|_| one(dice)).collect::<Vec<_>>().join("&").chars().take(50_000).collect()
}

fn headers(dice: &mut StdRng, sample: &Sample) -> Vec<(&'static str, String)> {
    const VERSIONS: &[&str] = &[
        "", "2", "2.", "2.1.1", "99.99", "2.65536", "1.0", "0.0", "-1.5", "latest", "LATEST", "2.1 ", "2.٣", "٢.١", "2.1,2.2",
        "x",
    ];
    let named = |dice: &mut StdRng| {
        let service = *pick(dice, &["compute", "placement", "volume", "", "compute compute"]);
        format!("{service} {}", pick(dice, VERSIONS).replace(|c: char| !c.is_ascii(), "9"))
    };
    let long = "a".repeat(10_000);
    let odd: [(&'static str, String); 12] = [
        ("openstack-api-version", named(dice)),
        ("x-openstack-nova-api-version", pick(dice, VERSIONS).replace(|c: char| !c.is_ascii(), "9")),
        ("x-auth-token", (*pick(dice, &["", "x", "gAAAAA", "\u{7f}x", long.as_str()])).replace('\u{7f}', "~")),
        ("x-service-token", long.clone()),
        ("x-subject-token", (*pick(dice, &["", "x", long.as_str()])).to_owned()),
        (
            "range",
            (*pick(dice, &["bytes=5-2", "bytes=-", "bytes=0-99999999999999999999", "items=1", "bytes=a-b,c-d"])).to_owned(),
        ),
        ("content-range", (*pick(dice, &["bytes 0-5/2", "bytes */*", "x"])).to_owned()),
        ("accept", (*pick(dice, &["text/plain", "*/*;q=2", "application/xml", ""])).to_owned()),
        ("content-encoding", "gzip".to_owned()),
        ("x-forwarded-for", "127.0.0.1".to_owned()),
        ("if-match", "\"1\"".to_owned()),
        ("x-openstack-request-id", "req-not-a-uuid".to_owned()),
    ];
    let mut out = vec![version(sample)];
    for _ in 0..dice.random_range(1..3) {
        let chosen = pick(dice, &odd).clone();
        out.retain(|(n, _)| *n != chosen.0);
        out.push(chosen);
    }
    if chance(dice, 20) {
        out.extend((0..80).map(|i| ("x-many", format!("{i}"))));
    }
    out
}

const MEDIA: &[&str] = &[
    "application/json",
    "application/json; charset=utf-16",
    "text/plain",
    "application/xml",
    "application/octet-stream",
    "multipart/form-data",
    "application/x-www-form-urlencoded",
    "application/openstack-images-v2.1-json-patch",
    "application/json-patch+json",
    "json",
    "/",
];

/// A request around a sample with one part of it spoilt: body, ids, query, headers, media type or method.
pub(super) fn request(
    dice: &mut StdRng,
    sample: &Sample,
    def: Option<&ResourceDef>,
    of: samples::Ids<'_>,
    ids: &[String],
) -> Option<Shot> {
    let valid = sample.body(of);
    let mut shot = Shot {
        method: sample.method.to_owned(),
        path: sample.path(of)?,
        media: sample.media.to_owned(),
        headers: vec![version(sample)],
        body: sample.bytes(&valid),
    };
    let kind = dice.random_range(0..12);
    match kind {
        // Cinder's older clients name their project in the path.
        5 if chance(dice, 4) && sample.path.starts_with("/volume/v3/") => {
            let project = if chance(dice, 2) { of("projects")? } else { bad_id(dice, ids) };
            shot.path = shot.path.replacen("/v3/", &format!("/v3/{project}/"), 1);
        }
        0..=4 if !valid.is_null() || chance(dice, 6) => shot.body = body(dice, &valid, def, ids),
        5 | 6 if sample.path.contains('{') => {
            let mut parts: Vec<String> = shot.path.split('/').map(str::to_owned).collect();
            let places: Vec<usize> =
                sample.path.split('/').enumerate().filter(|(_, p)| p.starts_with('{')).map(|(i, _)| i).collect();
            let place = *pick(dice, &places);
            *parts.get_mut(place)? = bad_id(dice, ids);
            shot.path = parts.join("/");
        }
        7 => shot.headers = headers(dice, sample),
        8 => {
            shot.media = (*pick(dice, MEDIA)).to_owned();
            if shot.body.is_empty() && chance(dice, 2) {
                shot.body = "x".into();
            }
        }
        9 if chance(dice, 3) => {
            shot.method = (*pick(dice, &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])).to_owned()
        }
        _ => {
            let join = if shot.path.contains('?') { '&' } else { '?' };
            shot.path = format!("{}{join}{}", shot.path, query(dice, def, ids));
        }
    }
    Some(shot)
}
