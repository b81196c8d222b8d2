//! What a body may name: every id in every sample's body, replaced by another project's and by nobody's.
//!
//! Both must be refused, and in the same words: a body is no way round the isolation of paths, and tells nothing of what exists.
use super::{
    access::{absent, send},
    samples, shape,
    world::World,
};
use store::faulty::Way;

/// Ids that one may name without seeing them, as `route key`: a project that is only noted, and what comes with its secret.
const NAMED: [&str; 5] = [
    "POST /identity/v3/auth/tokens #4 users",
    "POST /identity/v3/auth/tokens #2 token",
    "POST /identity/v3/auth/tokens #3 application_credentials",
    "POST /identity/v3/credentials projects",
    "POST /image/v2/images/{id}/members projects",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_names_only_what_its_sender_sees() {
    let world = World::start().await;
    world.store.set(Way::Full);
    let own = |k: &str| world.own.get(k);
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for sample in world.bed.cloud.routes.iter().filter(|r| !r.path.starts_with("/compute/v2/")).flat_map(samples::of) {
        let path = sample.path(&own).expect("the world has one of each");
        for key in samples::placeholders(&sample.body) {
            let Some(theirs) = world.foreign.get(&key) else { continue };
            if NAMED.contains(&format!("{} {key}", sample.name).as_str()) {
                continue;
            }
            let nobodys = absent(&theirs);
            for who in ["member@p", "manager@p"] {
                let client = world.person(who);
                let valid = send(client, &sample, &path, &sample.body(&own)).await;
                if valid.status != 503 && valid.status >= 300 {
                    continue;
                }
                let with = |id: &str| sample.body(&|k: &str| if k == key { Some(id.to_owned()) } else { own(k) });
                let a = send(client, &sample, &path, &with(&theirs)).await;
                let b = send(client, &sample, &path, &with(&nobodys)).await;
                tried += 1;
                let ids = [theirs.clone(), nobodys.clone()];
                let (said, same) = (shape::without(&a, &ids), shape::without(&a, &ids) == shape::without(&b, &ids));
                if a.status < 400 || a.status == 503 {
                    wrong.push(format!("{} as {who} takes the other project's {key}: {} {said}", sample.name, a.status));
                } else if a.status != b.status || !same {
                    let none = shape::without(&b, &ids);
                    wrong.push(format!(
                        "{} as {who} tells the other project's {key} ({} {said}) from nobody's ({} {none})",
                        sample.name, a.status, b.status
                    ));
                }
            }
        }
    }
    assert!(tried > 40, "only {tried} ids were tried");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
