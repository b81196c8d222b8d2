//! Goldens of the state machine: row and report in, row and effects out.
use super::*;
use assign::Reboot;

const NOW: Timestamp = Timestamp(1_000_000_000);

fn server(vm_state: &str, task_state: Option<&str>, power: Power) -> Server {
    let launched_at = (vm_state != vm::BUILDING).then_some(5);
    Server {
        vm_state: vm_state.to_owned(),
        task_state: task_state.map(str::to_owned),
        power,
        epoch: 1,
        intent: 7,
        node_id: Some("n".into()),
        host: Some("h".into()),
        deadline: task_state.map(|_| 9),
        launched_at,
        ..Server::default()
    }
}

fn report(state: GuestState) -> ServerReport {
    ServerReport {
        id: "s".into(),
        epoch: 1,
        revision: 7,
        state,
        cause: None,
        step: None,
        reboot_count: 0,
        disk_generation: 1,
        rescued: false,
        plugged: Vec::new(),
        volumes: Vec::new(),
        launched_at: Some(Timestamp(77)),
    }
}

#[track_caller]
fn becomes(mut s: Server, r: &ServerReport, vm_state: &str, task_state: Option<&str>, effects: &[Effect]) -> Server {
    let got = on_report(&mut s, false, r, NOW);
    assert_eq!((s.vm_state.as_str(), s.task_state.as_deref(), got.as_slice()), (vm_state, task_state, effects));
    let mut again = s.clone();
    let twice = on_report(&mut again, false, r, NOW);
    let restarted = r.state == GuestState::Crashed;
    assert!(restarted || (format!("{again:?}") == format!("{s:?}") && twice.is_empty()), "twice is once: {twice:?}");
    s
}

#[test]
fn tasks_end_in_the_state_that_was_asked_for() {
    use GuestState::{Paused, Running, Stopped};
    for (from, task, power, seen, to) in [
        ("building", "spawning", Power::Running, Running, "active"),
        ("stopped", "powering-on", Power::Running, Running, "active"),
        ("active", "powering-off", Power::Stopped, Stopped, "stopped"),
        ("active", "pausing", Power::Paused, Paused, "paused"),
        ("paused", "unpausing", Power::Running, Running, "active"),
        ("active", "suspending", Power::Paused, Paused, "suspended"),
        ("suspended", "resuming", Power::Running, Running, "active"),
        ("active", "resize_prep", Power::Running, Running, "resized"),
        ("stopped", "resize_prep", Power::Stopped, Stopped, "resized"),
        ("resized", "resize_reverting", Power::Running, Running, "active"),
        ("resized", "resize_reverting", Power::Stopped, Stopped, "stopped"),
        ("stopped", "rebuilding", Power::Stopped, Stopped, "stopped"),
        ("error", "rebuilding", Power::Running, Running, "active"),
        ("shelved_offloaded", "unshelving", Power::Running, Running, "active"),
    ] {
        let s = becomes(server(from, Some(task), power), &report(seen), to, None, &[Effect::Done]);
        assert_eq!(s.deadline, None, "{task}");
    }
}

#[test]
fn a_boot_sets_the_time_of_launch() {
    let s = becomes(
        server("building", Some("spawning"), Power::Running),
        &report(GuestState::Running),
        "active",
        None,
        &[Effect::Done],
    );
    assert_eq!((s.launched_at, s.power_state), (Some(77), power::RUNNING));
}

#[test]
fn old_answers_do_not_count() {
    let s = server("active", Some("powering-off"), Power::Stopped);
    becomes(s.clone(), &ServerReport { revision: 6, ..report(GuestState::Stopped) }, "active", Some("powering-off"), &[]);
    becomes(s.clone(), &ServerReport { epoch: 0, ..report(GuestState::Stopped) }, "active", Some("powering-off"), &[]);
    becomes(s, &report(GuestState::Building), "active", Some("powering-off"), &[]);
}

#[test]
fn reboots_rebuilds_and_rescues_wait_for_their_proof() {
    let mut s = server("active", Some("rebooting_hard"), Power::Running);
    s.reboot = Reboot { count: 2, hard: true };
    let s = becomes(s, &report(GuestState::Running), "active", Some("rebooting_hard"), &[]);
    becomes(s, &ServerReport { reboot_count: 2, ..report(GuestState::Running) }, "active", None, &[Effect::Done]);

    let mut s = server("active", Some("rebuilding"), Power::Running);
    s.generation = 2;
    let s = becomes(s, &report(GuestState::Running), "active", Some("rebuilding"), &[]);
    becomes(s, &ServerReport { disk_generation: 2, ..report(GuestState::Running) }, "active", None, &[Effect::Done]);

    let mut s = server("active", Some("rescuing"), Power::Running);
    s.rescue = Some(Default::default());
    let s = becomes(s, &report(GuestState::Running), "active", Some("rescuing"), &[]);
    becomes(s, &ServerReport { rescued: true, ..report(GuestState::Running) }, "rescued", None, &[Effect::Done]);
}

#[test]
fn a_guest_that_powers_itself_off_stays_off() {
    let tell = Effect::Tell("The guest powered itself off".into());
    let s = becomes(server("active", None, Power::Running), &report(GuestState::Stopped), "stopped", None, &[tell, Effect::Done]);
    assert_eq!((s.power, s.power_state), (Power::Stopped, power::SHUTDOWN));
}

#[test]
fn a_crash_is_restarted_thrice_then_left_alone() {
    let mut s = server("active", None, Power::Running);
    for count in 1..=MOST_RESTARTS {
        let r = ServerReport { revision: s.intent, cause: Some("It died.".into()), ..report(GuestState::Crashed) };
        let before = s.intent;
        assert!(matches!(on_report(&mut s, false, &r, NOW).as_slice(), [Effect::Tell(_)]));
        assert_eq!((s.intent, s.crashes.count, s.vm_state.as_str()), (before + 1, count, "active"));
        assert!(on_report(&mut s, false, &r, NOW).is_empty(), "the same crash is counted once");
    }
    let r = ServerReport { revision: s.intent, ..report(GuestState::Crashed) };
    assert!(matches!(on_report(&mut s, false, &r, NOW).as_slice(), [Effect::Failed(_)]));
    assert_eq!(s.vm_state, "error");
}

#[test]
fn failures_carry_their_cause() {
    let r = ServerReport { cause: Some("Image x cannot be read; choose another.".into()), ..report(GuestState::Failed) };
    let s = becomes(
        server("building", Some("spawning"), Power::Running),
        &r,
        "error",
        None,
        &[Effect::Failed("Image x cannot be read; choose another.".into())],
    );
    assert_eq!(s.fault.map(|f| (f.code, f.created)), Some((500, NOW.0)));
}

#[test]
fn deletion_wins_over_everything() {
    for state in ["building", "active", "error", "rescued"] {
        let mut s = server(state, Some("deleting"), Power::Running);
        assert!(on_report(&mut s, true, &report(GuestState::Running), NOW).is_empty());
        assert_eq!(on_report(&mut s, true, &report(GuestState::Gone), NOW), [Effect::Remove]);
        let old = ServerReport { epoch: 0, ..report(GuestState::Gone) };
        assert!(on_report(&mut s, true, &old, NOW).is_empty(), "another placement's end is none of ours");
    }
    becomes(server("active", None, Power::Running), &report(GuestState::Gone), "active", None, &[]);
}

#[test]
fn shelving_stops_then_snapshots_then_leaves() {
    let s = server("active", Some("shelving"), Power::Stopped);
    let s = becomes(s, &report(GuestState::Stopped), "active", Some("shelving_image_uploading"), &[Effect::Snapshot]);
    assert_eq!(s.power_state, power::SHUTDOWN);
    let s = Server { vm_state: "shelved".into(), task_state: Some("shelving_offloading".into()), ..s };
    let s = becomes(s, &report(GuestState::Stopped), "shelved", Some("shelving_offloading"), &[]);
    let s = becomes(s, &report(GuestState::Gone), "shelved_offloaded", None, &[Effect::Offloaded, Effect::Done]);
    assert_eq!((s.host, s.node_id), (None, None));
    let mut s = server("shelved_offloaded", Some("unshelving"), Power::Running);
    s.shelved_image = Some("i".into());
    let got = on_report(&mut s, false, &report(GuestState::Running), NOW);
    assert_eq!(got, [Effect::Done, Effect::DropShelvedImage]);
}

#[test]
fn what_takes_too_long_ends_in_error_or_is_let_go() {
    let mut s = server("building", Some("spawning"), Power::Running);
    assert!(matches!(overdue(&mut s, NOW).as_slice(), [Effect::Failed(_)]));
    assert_eq!((s.vm_state.as_str(), s.deadline), ("error", None));
    let mut s = server("active", Some("image_snapshot"), Power::Running);
    s.snapshot = Some("i".into());
    overdue(&mut s, NOW);
    assert_eq!((s.vm_state.as_str(), s.task_state, s.snapshot), ("active", None, None));
    let mut s = server("shelved", Some("shelving_offloading"), Power::Stopped);
    assert_eq!(overdue(&mut s, NOW), [Effect::Offloaded, Effect::Done]);
}
