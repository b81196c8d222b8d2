//! All routes with everything spoilt that a request has, in a cloud whose store takes no more writes.
use super::{Range, mutate, pick, samples_of};
use crate::misuse::world::World;
use store::faulty::Way;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_breaks_anything() {
    let world = World::start().await;
    world.store.set(Way::Full);
    let all = samples_of(&world.bed.cloud.routes);
    let defs = world.defs(&all);
    let own = |k: &str| world.own.get(k);
    let ids: Vec<String> = world.own.0.values().chain(world.foreign.0.values()).cloned().collect();
    let mut range = Range::new();
    while let Some(mut dice) = range.next() {
        let at = rand::Rng::random_range(&mut dice, 0..all.len());
        let who = pick(&mut dice, &["admin@p", "admin@p", "member@p", "member@q", "service", "admin@system", "nobody"]);
        if let Some(shot) = mutate::request(&mut dice, &all[at], defs[at], &own, &ids) {
            let answer = shot.fire(world.person(who)).await;
            range.judge(&all[at].name, &shot, &answer, true);
        }
    }
    range.finish(2000);
}
