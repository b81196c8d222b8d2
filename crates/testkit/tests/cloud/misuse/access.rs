//! Who may do what with whose: every route, by everybody, with ids that are one's own, another project's and nobody's.
//!
//! `access.txt` says for each route what becomes of everybody's request, one letter each: `1` is 401, `3` 403, `4` 404, and `+` means
//! that no check of access stands in the way. The store is frozen meanwhile, so nothing that is allowed happens.
use super::{
    samples::{self, Sample},
    shape,
    world::{Person, World},
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use store::faulty::Way;
use testkit::{Answer, Client};

/// Samples that nobody can send with success in this world, so that what is refused may hide who is.
const UNFIT: [&str; 27] = [
    // Signed with the secret of a consumer, not with a token.
    "POST /identity/v3/OS-OAUTH1/request_token",
    "POST /identity/v3/OS-OAUTH1/access_token",
    "POST /identity/v3/ec2tokens",
    "POST /identity/v3/s3tokens",
    "DELETE /identity/v3/domains/{id}",
    "DELETE /identity/v3/regions/{id}",
    "DELETE /identity/v3/users/{user_id}/access_rules/{id}",
    // Nobody here has a provider's word, or comes from a trusted dashboard.
    "GET /identity/v3/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/auth",
    "POST /identity/v3/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/auth",
    "GET /identity/v3/auth/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/websso",
    "POST /identity/v3/auth/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/websso",
    "GET /identity/v3/auth/OS-FEDERATION/websso/{protocol_id}",
    "POST /identity/v3/auth/OS-FEDERATION/websso/{protocol_id}",
    "POST /image/v2/tasks",
    "GET /compute/vnc/{token}",
    "POST /compute/v2.1/os-assisted-volume-snapshots",
    "DELETE /compute/v2.1/os-assisted-volume-snapshots/{id}",
    "GET /compute/v2.1/os-console-auth-tokens/{token}",
    // What this cloud does for nobody.
    "POST /volume/v3/volumes/{id}/action os-migrate_volume",
    "POST /volume/v3/volumes/{id}/action os-migrate_volume_completion",
    "POST /volume/v3/volumes/{id}/action os-initialize_connection",
    "POST /volume/v3/volumes/{id}/action os-terminate_connection",
    "POST /volume/v3/volumes/{id}/action os-unmanage",
    "POST /volume/v3/snapshots/{id}/action os-unmanage",
    "POST /volume/v3/groups/{id}/action enable_replication",
    "POST /volume/v3/groups/{id}/action list_replication_targets",
    "PUT /volume/v3/types/{id}/extra_specs",
];

const EXPECTED: &str = include_str!("access.txt");

fn letter(answer: &Answer) -> char {
    match answer.status {
        401 => '1',
        403 => '3',
        404 => '4',
        500 => '!',
        _ => '+',
    }
}

/// Sends a sample as it is meant to be sent.
pub(crate) async fn send(client: &Client, sample: &Sample, path: &str, body: &Value) -> Answer {
    let client = client.clone().header("openstack-api-version", &format!("{} {}", sample.service, sample.version));
    client.send_bytes(sample.method, path, sample.media, sample.bytes(body)).await
}

/// An id that has the form of this one and that nothing has.
pub(crate) fn absent(id: &str) -> String {
    let form = |c: char| match c {
        '0'..='9' => '7',
        'a'..='f' => 'c',
        other => other,
    };
    if uuid::Uuid::parse_str(id).is_ok() {
        return id.chars().map(form).collect();
    }
    if id.parse::<std::net::Ipv4Addr>().is_ok() { "10.1.0.251".into() } else { "absent".into() }
}

struct Found {
    own: String,
    /// Did anybody get further than the check of the body?
    fits: bool,
    /// Empty when nothing in the path is anybody's.
    foreign: String,
    wrong: Vec<String>,
}

/// Administrators see all projects: nothing is hidden from them.
fn sees_all(who: &Person) -> bool {
    who.name.starts_with("admin") || who.name.ends_with("system")
}

async fn ask(world: &World, sample: &Sample, hidden: &dyn Fn(&Person) -> bool) -> Found {
    let own = |k: &str| world.own.get(k);
    let other = |k: &str| world.foreign.get(k).or_else(|| own(k));
    let nobodys = |k: &str| world.foreign.get(k).map(|id| absent(&id)).or_else(|| own(k));
    let all = [&own as samples::Ids<'_>, &other, &nobodys];
    let paths = all.map(|ids| sample.path(ids).expect("the world has one of each"));
    let about = all.map(|ids| sample.subject().and_then(ids));
    let speaker = |who: &Person, i: usize| match &about[i] {
        Some(subject) => who.client.clone().header("x-subject-token", subject),
        None => who.client.clone(),
    };
    let body = sample.body(&own);
    let mut found = Found { own: String::new(), fits: false, foreign: String::new(), wrong: Vec::new() };
    let foreign = |k: &String| world.foreign.get(&format!("{}:{k}", sample.service)).or_else(|| world.foreign.get(k));
    let ids: Vec<String> = sample.keys().iter().filter_map(foreign).flat_map(|id| [absent(&id), id]).collect();
    for who in &world.people {
        let mut note = |text: String| found.wrong.push(format!("{} as {}: {text}", sample.name, who.name));
        let mine = send(&speaker(who, 0), sample, &paths[0], &body).await;
        found.own.push(letter(&mine));
        found.fits |= !matches!(mine.status, 400 | 401 | 403 | 415);
        shape::complaint(sample.method, &paths[0], &mine).into_iter().for_each(&mut note);
        if ids.is_empty() {
            leaks(world, who, &mine, "").into_iter().for_each(&mut note);
            continue;
        }
        let theirs = send(&speaker(who, 1), sample, &paths[1], &body).await;
        found.foreign.push(letter(&theirs));
        shape::complaint(sample.method, &paths[1], &theirs).into_iter().for_each(&mut note);
        leaks(world, who, &theirs, &paths[1]).into_iter().for_each(&mut note);
        if hidden(who) && letter(&theirs) != '+' {
            let none = send(&speaker(who, 2), sample, &paths[2], &body).await;
            let (a, b) = (shape::without(&theirs, &ids), shape::without(&none, &ids));
            if theirs.status != none.status || a != b {
                note(format!("what is hidden is told from what is absent: {} {a} and {} {b}", theirs.status, none.status));
            }
        }
    }
    found
}

/// Below a project, as older clients of volumes ask, all is as it is without, and another project is refused.
async fn below_projects(world: &World, sample: &Sample) -> Vec<String> {
    let own = |k: &str| world.own.get(k);
    let (client, body) = (world.person("member@p"), sample.body(&own));
    let path = sample.path(&own).expect("the world has one of each");
    let Some(rest) = path.strip_prefix("/volume/v3/") else { return Vec::new() };
    let plain = send(client, sample, &path, &body).await.status;
    let below = async |project: Option<String>| {
        let path = format!("/volume/v3/{}/{rest}", project.expect("the world has one"));
        send(client, sample, &path, &body).await.status
    };
    let (mine, theirs) = (below(own("projects")).await, below(world.foreign.get("projects")).await);
    let mut wrong = Vec::new();
    if mine != plain {
        wrong.push(format!("{} is {plain}, and {mine} below the project", sample.name));
    }
    if theirs != 400 {
        wrong.push(format!("{} is {theirs} below another project", sample.name));
    }
    wrong
}

/// Ids of the other project in an answer to somebody who must not know them.
fn leaks(world: &World, who: &Person, answer: &Answer, path: &str) -> Option<String> {
    if !who.name.ends_with("@p") || sees_all(who) {
        return None;
    }
    let text = String::from_utf8_lossy(&answer.bytes);
    let told = |id: &&String| id.len() > 12 && text.contains(id.as_str()) && !path.contains(id.as_str());
    let (key, _) = world.foreign.0.iter().find(|(_, id)| told(id))?;
    Some(format!("the answer names the other project's {key}"))
}

/// Lines of `access.txt`: `GET|PUT /path name|name` below a header of letters.
fn expected() -> BTreeMap<String, String> {
    let (mut out, mut letters) = (BTreeMap::new(), "");
    for line in EXPECTED.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if let Some(header) = line.strip_prefix("== ") {
            letters = header;
            continue;
        }
        let mut words = line.splitn(3, ' ');
        let (methods, path, names) = (words.next().unwrap_or_default(), words.next().unwrap_or_default(), words.next());
        for method in methods.split('|') {
            for name in names.unwrap_or_default().split('|') {
                out.insert(format!("{method} {path} {name}").trim_end().to_owned(), letters.to_owned());
            }
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_gets_as_far_as_they_should() {
    let world = World::start().await;
    world.store.set(Way::Full);
    let (routes, older): (Vec<_>, Vec<_>) =
        world.bed.cloud.routes.clone().into_iter().partition(|r| !r.path.starts_with("/compute/v2/"));
    let mut expected = expected();
    let mut wrong = Vec::new();
    // Nova's older path is the same routes.
    for old in older {
        let path = old.path.replacen("/v2/", "/v2.1/", 1);
        if !routes.iter().any(|r| r.path == path && r.method == old.method && r.access == old.access) {
            wrong.push(format!("{} {} has no twin below v2.1", old.method, old.path));
        }
    }
    let mut unseen: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    for sample in routes.iter().filter(|r| r.method == "GET" && r.path.ends_with('}')).flat_map(samples::of) {
        let other = |k: &str| world.foreign.get(k).or_else(|| world.own.get(k));
        let path = sample.path(&other).expect("the world has one of each");
        for who in &world.people {
            let answer = send(&who.client, &sample, &path, &Value::Null).await;
            if answer.status >= 300 {
                unseen.entry(sample.path.clone()).or_default().insert(who.name);
            }
        }
    }
    for sample in routes.iter().flat_map(samples::of) {
        let hidden = |who: &Person| {
            let mut shows = unseen.iter().filter(|(path, _)| sample.path.starts_with(path.as_str()));
            // It is theirs, in part at least.
            let at_home = who.name.ends_with("@q") || who.name.ends_with("@d2");
            !sees_all(who) && !at_home && shows.all(|(_, who_not)| who_not.contains(who.name))
        };
        let found = ask(&world, &sample, &hidden).await;
        let letters = format!("{} {}", found.own, found.foreign).trim_end().to_owned();
        wrong.extend(found.wrong);
        wrong.extend(below_projects(&world, &sample).await);
        if !found.fits && !UNFIT.contains(&sample.name.as_str()) {
            wrong.push(format!("{} has no body in samples.json that anybody gets past the first check with", sample.name));
        }
        match expected.remove(&sample.name) {
            Some(e) if e == letters => {}
            Some(e) => wrong.push(format!("{} gave\n   {letters}\nnot {e}", sample.name)),
            None => wrong.push(format!("{} is not in access.txt; it gave\n== {letters}", sample.name)),
        }
    }
    wrong.extend(expected.into_keys().map(|name| format!("{name} is in access.txt and not in a service")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
