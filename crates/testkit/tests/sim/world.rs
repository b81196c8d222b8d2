//! The world of one seed: a cloud of some controllers and hosts, users, faults; then quiet, in which everything must settle.
use crate::{
    chance::{self, Dice},
    clients::{self, User},
    controller::{Controller, PROBES},
    door::Door,
    faults,
    ground::{Ground, furnish},
    host::Host,
    mutant::Mutant,
    operator::Operator,
    oracle::Oracle,
    trace::{Outcome, Trace},
};
use base::Clock as _;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Everything must be settled in this time once nothing fails any more.
const BOUND: Duration = Duration::from_secs(420);
/// A host looks for leftovers once a minute.
const SWEEPS: Duration = Duration::from_secs(130);

/// Runs the world of a seed to its end.
///
/// It has two parts, each a thread and a runtime of its own: helper threads hash passwords and store images in the first, and how soon
/// they are done shows in the runtime's own chance. What comes out of it are rows, and these are the same every time.
pub(crate) fn run(seed: u64, mutant: Option<Mutant>, file: Option<PathBuf>) -> Outcome {
    // Made by the chance of this thread: a name that is taken would cost the world some of its own.
    let dir = tempfile::tempdir().unwrap();
    let ground = {
        let dir = dir.path().to_owned();
        alone(seed.wrapping_add(1 << 32), move || furnish(dir))
    };
    let dir = dir.path().to_owned();
    alone(seed, move || live(seed, mutant, ground, dir, file))
}

/// Runs it on a thread whose chance and time are the seed's.
fn alone<T, F>(seed: u64, work: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let world = move || {
        chance::begin(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            chance::start_clock();
            work().await
        })
    };
    std::thread::Builder::new().stack_size(16 << 20).spawn(world).unwrap().join().unwrap()
}

async fn live(seed: u64, mutant: Option<Mutant>, ground: Ground, dir: PathBuf, file: Option<PathBuf>) -> Outcome {
    let Ground { memory, blobs, keys, common, tokens, admin } = ground;
    let trace = Arc::new(Trace::new(file.as_deref()));
    let dice = Dice::new(seed, 1);
    let controller = |i| Controller::new(i, seed, &trace, &memory, mutant, &blobs, &keys);
    let controllers: Vec<Arc<Controller>> = (0..2 + dice.below(3)).map(controller).collect();
    let oracle = Oracle::new(&trace, controllers.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(oracle.clone().follow(memory.clone()));
    for c in &controllers {
        c.start().await;
    }
    let host = |i| Host::new(i, seed, &trace, &controllers, mutant, &dir);
    let hosts: Vec<Arc<Host>> = (0..1 + dice.below(4)).map(host).collect();
    oracle.watch_hosts(&hosts);
    hosts.iter().for_each(|h| h.start());
    sleep(Duration::from_secs(5)).await;

    let (tell, quiet) = watch::channel(false);
    let mut users = JoinSet::new();
    for i in 0..2 + dice.below(4) {
        let (ours, dice) = clients::dice(seed, i);
        let door =
            Door { trace: trace.clone(), controllers: controllers.clone(), dice: ours, token: tokens[i % tokens.len()].clone() };
        users.spawn(User::new(&format!("u{i}"), door, dice, common.clone()).run(quiet.clone()));
    }
    let storm = dice.seconds(40.0..120.0);
    let door = Door { trace: trace.clone(), controllers: controllers.clone(), dice: Arc::new(Dice::new(seed, 4)), token: admin };
    let operator = Arc::new(Operator { door });
    let faults = tokio::spawn(faults::strike(Dice::new(seed, 2), controllers.clone(), hosts.clone(), operator));
    watched(&trace, &oracle, storm).await;

    trace.note("everything is healed");
    faults.abort();
    tell.send_replace(true);
    // A moment for the end of what was aborted.
    sleep(Duration::from_millis(1)).await;
    faults::heal(&controllers, &hosts).await;
    let Ok(users) = timeout(BOUND, users.join_all()).await else {
        trace.violation("users are not answered");
        return trace.outcome(seed);
    };
    settle(&trace, &oracle).await;
    if trace.is_clean() {
        let rows = oracle.rows();
        users.iter().for_each(|u| u.check(&rows, &trace));
        if rows.below(PROBES.name).next().is_none() {
            trace.violation("nobody wrote under a fence");
        }
    }
    trace.outcome(seed)
}

/// Lets time pass; what time alone makes wrong is looked at now and then.
async fn watched(trace: &Trace, oracle: &Oracle, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end && trace.is_clean() {
        sleep(Duration::from_secs(1)).await;
        oracle.check_deadlines(base::SystemClock.now().0);
        oracle.check_runners();
    }
}

/// Waits until there is nothing left to do, and stays so.
async fn settle(trace: &Trace, oracle: &Oracle) {
    let start = Instant::now();
    while let Some(why) = oracle.unsettled() {
        if !trace.is_clean() {
            return;
        }
        if start.elapsed() > BOUND {
            trace.violation(&format!("not settled {:.0} s after everything was healed: {why}", start.elapsed().as_secs_f64()));
            return;
        }
        watched(trace, oracle, Duration::from_secs(1)).await;
    }
    trace.note("settled");
    watched(trace, oracle, SWEEPS).await;
    if let Some(why) = oracle.unsettled() {
        trace.violation(&format!("settled, and then not any more: {why}"));
    }
}
