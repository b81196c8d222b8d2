//! Seeds as processes: the same test program again, told by its environment which world to run.
#![expect(clippy::print_stdout, reason = "what a seed came to is its output")]
use crate::{mutant::Mutant, trace::Outcome, world};
use std::{
    env,
    io::{IsTerminal as _, Write as _},
    ops::Range,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

const SEED: &str = "DROVER_SIM_SEED";
const SEEDS: &str = "DROVER_SIM_SEEDS";
const FIRST: &str = "DROVER_SIM_FIRST";
const MUTANT: &str = "DROVER_SIM_MUTANT";
/// All events of the seed go into this file.
const TRACE: &str = "DROVER_SIM_TRACE";
/// Marks the line of a child that says how it came out.
const MARK: &str = "outcome of the seed: ";
/// Real time.
const LONGEST: Duration = Duration::from_secs(300);

pub(crate) struct Plan {
    seeds: Range<u64>,
    mutant: Option<Mutant>,
    /// One violation is enough.
    until_found: bool,
    at_once: usize,
    shows: bool,
}

impl Plan {
    pub(crate) fn new(seeds: Range<u64>) -> Self {
        // The other tests of this program run beside it.
        Self { seeds, mutant: None, until_found: false, at_once: 1, shows: false }
    }
    /// With this defect, until it is found.
    pub(crate) fn with(self, mutant: Mutant) -> Self {
        Self { mutant: Some(mutant), until_found: true, ..self }
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().and_then(|v| v.parse().ok())
}

/// In a child: the world itself.
pub(crate) fn one() {
    let seed = number(SEED).expect("the environment names the seed; use make sim SEED=n");
    if let Ok(filter) = env::var("DROVER_LOG") {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).without_time().init();
    }
    let mutant = env::var(MUTANT).ok().and_then(|name| Mutant::named(&name));
    let outcome = world::run(seed, mutant, env::var_os(TRACE).map(Into::into));
    println!("{MARK}{}", serde_json::to_string(&outcome).unwrap());
}

fn spawn(seed: u64, mutant: Option<Mutant>) -> (u64, Instant, Child) {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["one", "--exact", "--ignored", "--nocapture", "--test-threads", "1"]).env(SEED, seed.to_string());
    match mutant {
        Some(mutant) => command.env(MUTANT, mutant.name()),
        None => command.env_remove(MUTANT),
    };
    (seed, Instant::now(), command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap())
}

/// The outcome of a child; one that ended otherwise is a violation, too.
fn wait(seed: u64, child: Child) -> Outcome {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let told = text.lines().find_map(|l| l.split_once(MARK)).and_then(|(_, json)| serde_json::from_str(json).ok());
    told.unwrap_or_else(|| Outcome {
        seed,
        hash: String::new(),
        events: 0,
        transactions: 0,
        seconds: 0.0,
        violations: vec![format!("its process ended with {} and said nothing", output.status)],
        tail: text.lines().map(str::to_owned).collect(),
    })
}

/// Runs all of them, some at once, and gives how they came out, in order.
pub(crate) fn seeds(plan: Plan) -> Vec<Outcome> {
    let start = Instant::now();
    let (done, results) = std::sync::mpsc::channel();
    let mut left = plan.seeds.clone();
    let (mut running, mut all) = (0, Vec::new());
    let mut enough = false;
    loop {
        while running < plan.at_once
            && !enough
            && let Some(seed) = left.next()
        {
            running += 1;
            let done = done.clone();
            let (seed, began, child) = spawn(seed, plan.mutant);
            let id = child.id();
            std::thread::spawn(move || {
                let (tell, ended) = std::sync::mpsc::channel();
                let waiter = std::thread::spawn(move || {
                    let outcome = wait(seed, child);
                    tell.send(()).ok();
                    outcome
                });
                if ended.recv_timeout(LONGEST).is_err() {
                    // It hangs: its end is its outcome.
                    let pid = nix::unistd::Pid::from_raw(i32::try_from(id).unwrap());
                    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
                }
                done.send((waiter.join().unwrap(), began.elapsed())).ok();
            });
        }
        if running == 0 {
            break;
        }
        let (outcome, _) = results.recv().unwrap();
        running -= 1;
        enough |= plan.until_found && !outcome.is_clean();
        all.push(outcome);
        if plan.shows {
            progress(&plan, &all, start);
        }
    }
    all.sort_by_key(|o| o.seed);
    all
}

fn progress(plan: &Plan, all: &[Outcome], start: Instant) {
    let (count, bad) = (all.len(), all.iter().filter(|o| !o.is_clean()).count());
    let newest = all.last().unwrap();
    if !newest.is_clean() {
        println!("\n{}", newest.story());
    }
    let (simulated, real) = (all.iter().map(|o| o.seconds).sum::<f64>(), start.elapsed().as_secs_f64());
    let transactions = all.iter().map(|o| o.transactions).sum::<u64>() / count as u64;
    let line = format!(
        "{count} of {} seeds, {bad} bad; {:.1} seeds a minute, {:.0} simulated seconds a second, {transactions} transactions a seed",
        plan.seeds.end - plan.seeds.start,
        count as f64 / real * 60.0,
        simulated / real
    );
    if std::io::stdout().is_terminal() {
        print!("\r{line} ");
        std::io::stdout().flush().unwrap();
    } else if count % 10 == 0 || count as u64 == plan.seeds.end - plan.seeds.start {
        println!("{line}");
    }
}

/// As many as the environment says; false when one was bad.
pub(crate) fn many() -> bool {
    let seeds_wanted = match (number(SEED), number(SEEDS)) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let first = number(FIRST).unwrap_or(now.as_secs() % 1_000_000 * 1000);
            first..first + count.unwrap_or(100)
        }
    };
    println!("Seeds {} to {}", seeds_wanted.start, seeds_wanted.end - 1);
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mutant = env::var(MUTANT).ok().and_then(|name| Mutant::named(&name));
    let ran = seeds(Plan { at_once: cores, shows: true, mutant, ..Plan::new(seeds_wanted) });
    let bad: Vec<u64> = ran.iter().filter(|o| !o.is_clean()).map(|o| o.seed).collect();
    println!();
    if bad.is_empty() {
        println!("All {} seeds are clean.", ran.len());
    } else {
        println!("Bad seeds: {bad:?}. One of them again, alone: make sim SEED={}", bad[0]);
    }
    bad.is_empty()
}
