//! Bodies of creates and updates in a cloud that carries them out: what is refused leaves no trace, what is taken can be shown,
//! listed and deleted.
use super::{Range, Shot, mutate, pick, samples_of, version};
use crate::misuse::{
    samples::{self, Sample},
    shape,
    world::World,
};
use serde_json::{Value, json};
use testkit::{Answer, Client};

/// Routes that would end the world for the cases after them, or that a resting cloud cannot finish.
const NOT: [&str; 9] = [
    "/identity/v3/users/{id}/password",
    "/compute/v2.1/os-quota-class-sets/{id}",
    "/compute/v2.1/os-services/{id}",
    "/compute/v2.1/os-hosts/{id}",
    "/compute/v2.1/servers/{id}/action",
    "/compute/v2/",
    "/volume/v3/os-services/{action}",
    "/volume/v3/os-quota-class-sets/{class}",
    // Waits for an export that no node makes.
    "/volume/v3/attachments",
];

/// Actions that delete what the cases after them are about.
const LAST: [&str; 2] = ["os-force_delete", "{id}/action delete"];

fn writes(sample: &Sample) -> bool {
    let ends = LAST.iter().any(|n| sample.name.ends_with(n));
    !sample.body.is_null() && !ends && !NOT.iter().any(|n| sample.path.starts_with(n))
}

/// Nothing works on volumes in a resting cloud: what the cases before have begun is called done.
async fn settle(world: &World, sample: &Sample) {
    if sample.service != "volume" {
        return;
    }
    for kind in ["volumes", "snapshots"] {
        let path = format!("/volume/v3/{kind}/{}/action", world.own.get(kind).expect("the world has one of each"));
        let done = json!({"os-reset_status": {"status": "available"}});
        world.person("admin@p").post(&path, done).await.expect(202);
    }
}

/// The path of what a create has made.
fn made(shot: &Shot, answer: &Answer) -> Option<String> {
    let id = |v: &Value| ["id", "uuid", "namespace", "name"].iter().find_map(|k| v[*k].as_str().map(str::to_owned));
    let body = &answer.body;
    let id = id(body).or_else(|| body.as_object().filter(|o| o.len() == 1).and_then(|o| o.values().next()).and_then(id))?;
    let path = shot.path.split('?').next()?;
    Some(format!("{path}/{}", percent_encoding::utf8_percent_encode(&id, percent_encoding::NON_ALPHANUMERIC)))
}

/// What was taken must be good for everything else.
async fn follow(range: &mut Range, sample: &Sample, shot: &Shot, answer: &Answer, client: &Client) {
    let collection = shot.path.split('?').next().unwrap_or_default().to_owned();
    let mut after = vec![("GET", collection)];
    if let Some(path) = made(shot, answer) {
        after.extend([("GET", path.clone()), ("DELETE", path)]);
    }
    for (method, path) in after {
        let next =
            Shot { method: method.into(), path, media: String::new(), headers: vec![version(sample)], body: bytes::Bytes::new() };
        let answer = next.fire(client).await;
        if answer.status >= 500 {
            range.wrong(&sample.name, &format!("what it took breaks {method}: {}", shape::shown(&shot.body)), &next, &answer);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_leaves_no_trace() {
    let mut world = World::start().await;
    world.add_scrap().await;
    let all: Vec<Sample> = samples_of(&world.bed.cloud.routes).into_iter().filter(writes).collect();
    let defs = world.defs(&all);
    let ids: Vec<String> = world.own.0.values().chain(world.foreign.0.values()).cloned().collect();
    let mut range = Range::new();
    while let Some(mut dice) = range.next() {
        let at = rand::Rng::random_range(&mut dice, 0..all.len());
        let sample = &all[at];
        let of = |k: &str| world.scrap(sample, k).or_else(|| world.own.get(k));
        let (valid, Some(path)) = (sample.body(&of), sample.path(&of)) else { continue };
        let body = mutate::body(&mut dice, &valid, defs[at], &ids);
        let shot = Shot { method: sample.method.into(), path, media: sample.media.into(), headers: vec![version(sample)], body };
        let client = world.person(pick::<&str>(&mut dice, &["admin@p", "member@p"]));
        settle(&world, sample).await;
        let before = world.bed.cloud.cloud.db.read().revision();
        let answer = shot.fire(client).await;
        range.judge(&sample.name, &shot, &answer, false);
        match answer.status {
            400..=499 if world.bed.cloud.cloud.db.read().revision() != before => {
                range.wrong(&sample.name, "it was refused and something was written", &shot, &answer);
            }
            200..=299 => follow(&mut range, sample, &shot, &answer, client).await,
            _ => {}
        }
    }
    // Everything can still be read, with all that was taken.
    for sample in world.bed.cloud.routes.iter().filter(|r| r.method == "GET").flat_map(samples::of) {
        let Some(path) = sample.path(&|k: &str| world.own.get(k)) else { continue };
        let shot =
            Shot { method: "GET".into(), path, media: String::new(), headers: vec![version(&sample)], body: bytes::Bytes::new() };
        let answer = shot.fire(world.person("admin@p")).await;
        range.judge(&sample.name, &shot, &answer, false);
    }
    range.finish(1500);
}
