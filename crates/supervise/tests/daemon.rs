//! Daemons are real `sleep` and `sh` processes here.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
use std::time::Duration;
use supervise::{Daemon, Error, Identity, Ready};

const GRACE: Duration = Duration::from_millis(500);

fn daemon(dir: &tempfile::TempDir, argv: &[&str]) -> Daemon {
    Daemon::new("d", dir.path(), argv.iter().map(|a| (*a).to_owned()).collect())
}

#[tokio::test]
async fn ensure_twice_is_one_process_and_stop_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let d = daemon(&dir, &["sleep", "600"]);
    let (a, b) = tokio::join!(d.ensure(), d.ensure());
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.id, b.id);
    assert!(a.adopted != b.adopted && !a.stale && !b.stale);
    let session = std::fs::read_to_string(format!("/proc/{}/stat", a.id.pid)).unwrap();
    let session: i32 = session.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().parse().unwrap();
    assert_eq!(session, a.id.pid, "it leads its own session");
    d.stop(GRACE).await.unwrap();
    assert!(!a.id.alive());
    d.stop(GRACE).await.unwrap();
    assert!(d.running().is_none());
}

#[tokio::test]
async fn a_lost_record_is_healed_and_a_changed_command_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let d = daemon(&dir, &["sleep", "601"]);
    let first = d.ensure().await.unwrap().id;
    std::fs::remove_file(dir.path().join("d.json")).unwrap();
    let again = d.ensure().await.unwrap();
    assert!(again.adopted && again.id == first, "found by its mark");
    d.stop(GRACE).await.unwrap();
    let first = d.ensure().await.unwrap().id;
    let changed = daemon(&dir, &["sleep", "602"]).ensure().await.unwrap();
    assert!(changed.stale && changed.id == first);
    d.stop(GRACE).await.unwrap();
}

#[tokio::test]
async fn a_strangers_pid_is_never_touched() {
    let dir = tempfile::tempdir().unwrap();
    let mut stranger = tokio::process::Command::new("sleep").arg("603").spawn().unwrap();
    let pid = stranger.id().unwrap().cast_signed();
    let real = Identity::of(pid).unwrap();
    let forged = format!(r#"{{"version":1,"pid":{pid},"started":{},"argv":["sleep"]}}"#, real.started - 1);
    std::fs::write(dir.path().join("d.json"), forged).unwrap();
    let d = daemon(&dir, &["sleep", "604"]);
    d.stop(GRACE).await.unwrap();
    assert!(real.alive(), "the stranger lives");
    let mine = d.ensure().await.unwrap().id;
    assert_ne!(mine.pid, pid);
    d.stop(GRACE).await.unwrap();
    stranger.kill().await.unwrap();
}

#[tokio::test]
async fn sigkill_follows_an_ignored_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let armed = dir.path().join("armed");
    let check = {
        let armed = armed.clone();
        Ready::Check(std::sync::Arc::new(move || {
            let armed = armed.clone();
            Box::pin(async move { armed.exists() })
        }))
    };
    let script = format!("trap '' TERM; touch {}; while :; do sleep 1; done", armed.display());
    let d = daemon(&dir, &["sh", "-c", &script]).ready(check);
    let id = d.ensure().await.unwrap().id;
    d.stop(Duration::from_millis(100)).await.unwrap();
    assert!(!id.alive());
}

#[tokio::test]
async fn a_failing_start_shows_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let d = daemon(&dir, &["sh", "-c", "echo no such luck >&2; exit 3"]).ready(Ready::Socket(dir.path().join("s")));
    match d.ensure().await {
        Err(Error::Died { tail, .. }) => assert!(tail.contains("no such luck"), "{tail}"),
        other => panic!("{other:?}"),
    }
    let mut d = daemon(&dir, &["sleep", "605"]).ready(Ready::Socket(dir.path().join("s")));
    d.ready_within = Duration::from_millis(100);
    assert!(matches!(d.ensure().await, Err(Error::NotReady { .. })));
    d.stop(GRACE).await.unwrap();
}

/// What of `d` runs, after so many restarts.
async fn watched(state: &mut tokio::sync::watch::Receiver<supervise::State>, restarts: u64) -> Identity {
    let there = state.wait_for(|s| s.restarts >= restarts && s.running.is_some());
    tokio::time::timeout(Duration::from_secs(20), there).await.unwrap().unwrap().running.unwrap()
}

#[tokio::test]
async fn a_daemon_has_the_priority_that_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let d = daemon(&dir, &["sleep", "608"]).nice(5);
    let pid = d.ensure().await.unwrap().id.pid;
    // The 19th field (proc(5)); none before it has a space but the name.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let nice = stat.rsplit(") ").next().and_then(|fields| fields.split(' ').nth(16));
    assert_eq!((nice, stat.contains("(sleep)")), (Some("5"), true), "{stat}");
    d.stop(GRACE).await.unwrap();
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "standing still is what is tested")]
async fn what_stood_still_is_started_anew() {
    const LIMIT: Duration = Duration::from_millis(200);
    let dir = tempfile::tempdir().unwrap();
    let d = daemon(&dir, &["sleep", "607"]).still(LIMIT);
    let guard = d.clone().watch();
    let mut state = guard.state();
    let first = watched(&mut state, 0).await;
    rustix::process::kill_process(rustix::process::Pid::from_raw(first.pid).unwrap(), rustix::process::Signal::STOP).unwrap();
    let second = watched(&mut state, 1).await;
    assert_ne!(first, second, "it was stopped");
    assert!(!first.alive());
    let begun = std::time::Instant::now();
    let third = loop {
        // The machine stands still: this thread is the whole of it.
        std::thread::sleep(2 * LIMIT);
        if let Ok(third) = tokio::time::timeout(LIMIT / 2, watched(&mut state, 2)).await {
            break third;
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
    };
    assert_ne!(second, third, "everything stood still");
    drop(guard);
    d.stop(GRACE).await.unwrap();
    assert!(!third.alive());
}

#[tokio::test]
async fn a_watched_daemon_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let d = daemon(&dir, &["sleep", "606"]);
    let guard = d.clone().watch();
    let mut state = guard.state();
    let first = watched(&mut state, 0).await;
    first.open().unwrap().kill().unwrap();
    let again = watched(&mut state, 1).await;
    assert_ne!(again, first);
    drop(guard);
    d.stop(GRACE).await.unwrap();
    assert!(!again.alive());
}
