//! The two trees that a guest may read, OpenStack's and EC2's, and the files of a config drive. Pure.
use assign::GuestData;
use base64::Engine as _;
use std::collections::BTreeMap;

pub(super) const TEXT: &str = "text/plain; charset=UTF-8";
const JSON: &str = "application/json";

/// Versions of the OpenStack tree; each knows the files of those before it.
const OPENSTACK: [&str; 11] = [
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
    "2025-04-04",
    LATEST,
];
/// Versions of the EC2 tree. All show what the newest has: no client minds more keys.
const EC2: [&str; 10] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    LATEST,
];
const LATEST: &str = "latest";
/// Files and the version that brought them.
const FILES: [(&str, &str); 6] = [
    ("meta_data.json", "2012-08-10"),
    ("user_data", "2012-08-10"),
    ("password", "2013-04-04"),
    ("vendor_data.json", "2013-10-17"),
    ("network_data.json", "2015-10-15"),
    ("vendor_data2.json", "2016-10-06"),
];

/// A body and its media type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub media_type: &'static str,
    pub body: Vec<u8>,
}

fn text(body: impl Into<Vec<u8>>) -> Option<Reply> {
    Some(Reply { media_type: TEXT, body: body.into() })
}
fn json(value: &serde_json::Value) -> Option<Reply> {
    let empty = serde_json::Value::Object(Default::default());
    let value = if value.is_null() { &empty } else { value };
    Some(Reply { media_type: JSON, body: value.to_string().into_bytes() })
}
fn listing(names: impl IntoIterator<Item = String>) -> Option<Reply> {
    text(names.into_iter().collect::<Vec<_>>().join("\n"))
}

/// What a guest reads at a path; `None` when there is nothing.
pub fn answer(guest: &GuestData, path: &str) -> Option<Reply> {
    let parts = split(path);
    match parts.as_slice() {
        [] | ["ec2"] => listing(EC2.map(str::to_owned)),
        ["openstack"] => listing(OPENSTACK.map(str::to_owned)),
        ["openstack", version] => listing(openstack_files(guest, version)?),
        ["openstack", version, file] => openstack(guest, version, file),
        ["openstack", ..] => None,
        ["ec2", rest @ ..] | rest => ec2(guest, rest),
    }
}

/// Is this where a guest posts its password?
pub(super) fn is_password(guest: &GuestData, path: &str) -> bool {
    let parts = split(path);
    let ["openstack", version, "password"] = parts.as_slice() else { return false };
    openstack_files(guest, version).is_some_and(|files| files.iter().any(|f| f == "password"))
}

/// The parts of a path, as `posixpath.normpath` sees them.
fn split(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts
}

fn user_data(guest: &GuestData) -> Option<Vec<u8>> {
    let packed: String = guest.user_data.as_ref()?.split_ascii_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(packed).ok()
}

fn openstack_files(guest: &GuestData, version: &str) -> Option<Vec<String>> {
    let at = OPENSTACK.iter().position(|v| *v == version)?;
    let known = |since: &str| OPENSTACK.iter().position(|v| *v == since).is_some_and(|s| s <= at);
    let has = |file: &str| file != "user_data" || guest.user_data.is_some();
    Some(FILES.iter().filter(|(file, since)| known(since) && has(file)).map(|(file, _)| (*file).to_owned()).collect())
}

fn openstack(guest: &GuestData, version: &str, file: &str) -> Option<Reply> {
    if !openstack_files(guest, version)?.iter().any(|f| f == file) {
        return None;
    }
    match file {
        "meta_data.json" => json(&guest.meta_data),
        "network_data.json" => json(&guest.network_data),
        "vendor_data.json" => json(&guest.vendor_data),
        "vendor_data2.json" => json(&vendor_data2(guest)),
        "user_data" => Some(Reply { media_type: "application/octet-stream", body: user_data(guest)? }),
        "password" => text(guest.password.clone().unwrap_or_default()),
        _ => None,
    }
}

fn vendor_data2(guest: &GuestData) -> serde_json::Value {
    let own = if guest.vendor_data.is_null() { serde_json::json!({}) } else { guest.vendor_data.clone() };
    serde_json::json!({ "static": own })
}

fn ec2(guest: &GuestData, parts: &[&str]) -> Option<Reply> {
    let (version, rest) = parts.split_first()?;
    if !EC2.contains(version) {
        return None;
    }
    match rest {
        [] => {
            let user = guest.user_data.as_ref().map(|_| "user-data".to_owned());
            listing(["meta-data/".to_owned()].into_iter().chain(user))
        }
        ["user-data"] => Some(Reply { media_type: "application/octet-stream", body: user_data(guest)? }),
        ["meta-data", path @ ..] => meta_data(guest, &path.join("/")),
        _ => None,
    }
}

/// A value, or the names below a path: those with names below them end with `/`, and keys show whose they are.
fn meta_data(guest: &GuestData, path: &str) -> Option<Reply> {
    if let Some(value) = guest.ec2.get(path) {
        return text(value.as_str());
    }
    let below = |key: &str| {
        if path.is_empty() { Some(key.to_owned()) } else { key.strip_prefix(path)?.strip_prefix('/').map(str::to_owned) }
    };
    let mut names = BTreeMap::new();
    for key in guest.ec2.keys().filter_map(|k| below(k)) {
        match key.split_once('/') {
            None => drop(names.insert(key.clone(), key)),
            Some((dir, _)) if path == "public-keys" => {
                drop(names.insert(dir.to_owned(), format!("{dir}={}", key_name(guest, dir))))
            }
            Some((dir, _)) => drop(names.insert(dir.to_owned(), format!("{dir}/"))),
        }
    }
    if names.is_empty() && !path.is_empty() { None } else { listing(names.into_values()) }
}

/// Name of the key pair with this number.
fn key_name(guest: &GuestData, number: &str) -> String {
    let keys = guest.meta_data["public_keys"].as_object();
    let name = number.parse().ok().and_then(|n| keys.and_then(|k| k.keys().nth(n)));
    name.cloned().unwrap_or_else(|| "key".into())
}

/// All files of a config drive, with their paths.
pub(crate) fn config_drive(guest: &GuestData) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for version in OPENSTACK {
        let names = openstack_files(guest, version).unwrap_or_default();
        for file in names.into_iter().filter(|f| f != "password") {
            if let Some(reply) = openstack(guest, version, &file) {
                files.push((format!("openstack/{version}/{file}"), reply.body));
            }
        }
    }
    for version in ["2009-04-04", LATEST] {
        files.push((format!("ec2/{version}/meta-data.json"), ec2_json(guest).to_string().into_bytes()));
        if let Some(data) = user_data(guest) {
            files.push((format!("ec2/{version}/user-data"), data));
        }
    }
    files
}

/// The EC2 tree as one object.
fn ec2_json(guest: &GuestData) -> serde_json::Value {
    let mut root = serde_json::Map::new();
    for (path, value) in &guest.ec2 {
        let mut at = &mut root;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                at.insert(part.to_owned(), value.as_str().into());
                break;
            }
            let next = at.entry(part).or_insert_with(|| serde_json::Map::new().into());
            let Some(next) = next.as_object_mut() else { break };
            at = next;
        }
    }
    root.into()
}
