//! Golden plans: each case says what is wanted, seen and remembered, and the whole answer.
use super::*;
use crate::remember::{Disk, PluggedPort, Process};
use assign::{GuestData, Reboot, RootDisk};
use std::sync::Arc;

fn image(name: &str) -> ImageRef {
    ImageRef { image_id: name.into(), blob: format!("blob-{name}"), format: "qcow2".into() }
}
fn port(id: &str) -> PortAssignment {
    PortAssignment {
        id: id.into(),
        network_id: "n".into(),
        mac: "fa:16:3e:00:00:01".into(),
        mtu: 1442,
        fixed_ips: vec!["10.0.0.5".into()],
    }
}
fn wanted() -> ServerAssignment {
    ServerAssignment {
        id: "s".into(),
        epoch: 1,
        revision: 10,
        request_id: "req".into(),
        name: "web".into(),
        power: Power::Running,
        reboot: Reboot::default(),
        vcpus: 1,
        memory_mib: 192,
        root: Some(RootDisk { image: image("tiny"), size_gib: 1, generation: 0 }),
        rescue: None,
        ports: vec![port("p")],
        volumes: vec![],
        config_drive: false,
        guest: Arc::new(GuestData::default()),
        properties: Default::default(),
    }
}
fn disk() -> Disk {
    Disk { generation: 0, size_gib: 1, blob: "blob-tiny".into(), format: "qcow2".into() }
}
/// A server that runs as wanted.
fn up() -> (Observed, Remembered) {
    let known = Remembered {
        epoch: 1,
        revision: 10,
        disk: Some(disk()),
        process: Some(Process { pid: 5, vcpus: 1, memory_mib: 192, nics: [("p".into(), 0)].into(), ..Process::default() }),
        ports: [("p".into(), PluggedPort { interface: "t".into(), mac: "m".into() })].into(),
        ..Remembered::default()
    };
    (Observed { process: Some(Status::Running), root_disk: true, ..Observed::default() }, known)
}
/// The same, switched off.
fn down() -> (Observed, Remembered) {
    let (mut seen, mut known) = up();
    (seen.process, known.process) = (None, None);
    (seen, known)
}
/// A plan as one line.
fn told(p: &Plan) -> String {
    match p {
        Plan::Steps(s) => s.iter().map(|s| format!("{s:?}")).map(short).collect::<Vec<_>>().join(" > "),
        Plan::Settled { state, cause, retry_disk, waits } => {
            let word = |is: bool, word: &'static str| if is { word } else { "" };
            format!("{state:?}{}{}{}", word(cause.is_some(), " because"), word(*retry_disk, " retry"), word(*waits, " waits"))
        }
        Plan::Stale => "Stale".into(),
    }
}
fn short(step: String) -> String {
    match step.split_once(" {") {
        Some((head, _)) => head.replace("(PortAssignment", "").replace("(ImageRef", "").replace("(AttachedVolume", ""),
        None => step,
    }
}
fn check(a: &ServerAssignment, (seen, known): &(Observed, Remembered), golden: &str) {
    assert_eq!(told(&plan(Some(a), seen, known)), golden);
}
fn with(change: impl FnOnce(&mut ServerAssignment)) -> ServerAssignment {
    let mut a = wanted();
    a.revision += 1;
    change(&mut a);
    a
}

#[test]
fn boots() {
    let new = (Observed::default(), Remembered::default());
    check(&wanted(), &new, "FetchImage > CreateDisk > Plug > Start > AttachNic > Continue");
    check(&with(|a| a.power = Power::Paused), &new, "FetchImage > CreateDisk > Plug > Start > AttachNic");
    check(&with(|a| a.power = Power::Stopped), &new, "FetchImage > CreateDisk");
    check(&with(|a| a.config_drive = true), &down(), "BuildConfigDrive > Plug > Start > AttachNic > Continue");
    check(&wanted(), &up(), "Running");
}

#[test]
fn an_interrupted_start_goes_on() {
    let (mut seen, mut known) = up();
    seen.process = Some(Status::Held);
    known.process.as_mut().unwrap().nics.clear();
    check(&wanted(), &(seen, known), "Plug > AttachNic > Continue");
}

#[test]
fn power() {
    check(&with(|a| a.power = Power::Stopped), &up(), "End(Stop)");
    check(&with(|a| a.power = Power::Stopped), &down(), "Stopped");
    check(&with(|a| a.power = Power::Paused), &up(), "Pause");
    let (mut seen, known) = up();
    seen.process = Some(Status::Paused);
    check(&with(|a| a.power = Power::Paused), &(seen.clone(), known.clone()), "Paused");
    check(&wanted(), &(seen.clone(), known.clone()), "Continue");
    check(&with(|a| a.power = Power::Stopped), &(seen, known), "End(None)");
    check(&wanted(), &down(), "Plug > Start > AttachNic > Continue");
}

#[test]
fn reboots_are_counted() {
    let soft = with(|a| a.reboot = Reboot { count: 1, hard: false });
    let hard = with(|a| a.reboot = Reboot { count: 1, hard: true });
    check(&soft, &up(), "End(SoftReboot)");
    check(&hard, &up(), "End(None)");
    let (seen, mut known) = up();
    known.reboot_done = 1;
    check(&soft, &(seen.clone(), known.clone()), "Running");
    check(&hard, &(seen, known), "Running");
    check(&with(|a| (a.reboot.count, a.power) = (1, Power::Stopped)), &down(), "NoteReboot");
    let (mut seen, known) = up();
    seen.process = Some(Status::Silent);
    check(&soft, &(seen.clone(), known.clone()), "End(None)");
    check(&wanted(), &(seen, known), "Failed because");
}

#[test]
fn a_guest_that_ended_stays_down_until_told_otherwise() {
    let (mut seen, known) = up();
    seen.process = Some(Status::PoweredOff);
    check(&wanted(), &(seen, known), "NoteHalt(None) > End(None)");
    let (seen, mut known) = down();
    known.halted = Some(Halted { revision: 10, crash: None });
    check(&wanted(), &(seen.clone(), known.clone()), "Stopped");
    check(&with(|_| {}), &(seen.clone(), known.clone()), "Plug > Start > AttachNic > Continue");
    known.halted = Some(Halted { revision: 10, crash: Some("died".into()) });
    check(&wanted(), &(seen.clone(), known.clone()), "Crashed because");
    let mut reboot = wanted();
    reboot.reboot.count = 1;
    check(&reboot, &(seen, known), "Plug > Start > AttachNic > Continue");
}

#[test]
fn a_process_that_vanished_is_a_crash_unless_we_ended_it() {
    let (mut seen, mut known) = up();
    seen.process = None;
    let Plan::Steps(steps) = plan(Some(&wanted()), &seen, &known) else { panic!("no steps") };
    assert!(matches!(&steps[..], [Step::NoteHalt(Some(_))]), "{steps:?}");
    known.process.as_mut().unwrap().ending = true;
    check(&wanted(), &(seen, known), "NoteEnd");
}

#[test]
fn rebuild_resize_rescue() {
    check(&with(|a| a.root.as_mut().unwrap().generation = 1), &up(), "End(None)");
    check(
        &with(|a| a.root.as_mut().unwrap().generation = 1),
        &down(),
        "FetchImage > CreateDisk > Plug > Start > AttachNic > Continue",
    );
    check(&with(|a| (a.root.as_mut().unwrap().generation, a.power) = (1, Power::Stopped)), &down(), "FetchImage > CreateDisk");
    check(&with(|a| a.memory_mib = 256), &up(), "End(Stop)");
    check(&with(|a| a.root.as_mut().unwrap().size_gib = 2), &up(), "End(Stop)");
    check(&with(|a| a.root.as_mut().unwrap().size_gib = 2), &down(), "GrowDisk > Plug > Start > AttachNic > Continue");
    check(&with(|a| a.root.as_mut().unwrap().size_gib = 0), &up(), "Running");
    check(&with(|a| a.rescue = Some(image("r"))), &up(), "End(Stop)");
    check(&with(|a| a.rescue = Some(image("r"))), &down(), "FetchImage > CreateRescueDisk > Plug > Start > AttachNic > Continue");
}

#[test]
fn a_lost_disk_is_never_made_anew_in_silence() {
    let (mut seen, known) = down();
    seen.root_disk = false;
    check(&wanted(), &(seen, known), "Failed because");
}

#[test]
fn ports_come_and_go() {
    check(&with(|a| a.ports.push(port("q"))), &up(), "Plug > AttachNic");
    check(&with(|a| a.ports = vec![port("q")]), &up(), "DetachNic(\"p\") > Unplug(\"p\") > Plug > AttachNic");
    check(&with(|a| (a.ports = vec![], a.power = Power::Stopped).1), &down(), "Unplug(\"p\")");
}

#[test]
fn a_full_disk_holds_the_guest() {
    let (mut seen, known) = up();
    seen.process = Some(Status::DiskError);
    check(&wanted(), &(seen, known), "Paused because retry");
}

#[test]
fn older_epochs_are_refused() {
    let (seen, mut known) = up();
    known.epoch = 2;
    check(&wanted(), &(seen, known), "Stale");
    let gone = Remembered { epoch: 1, gone: true, ..Remembered::default() };
    check(&wanted(), &(Observed::default(), gone.clone()), "Stale");
    check(&with(|a| a.epoch = 1), &(Observed::default(), gone), "Stale");
}

#[test]
fn removal_ends_unplugs_and_forgets() {
    let (seen, known) = up();
    assert_eq!(told(&plan(None, &seen, &known)), "End(None) > Unplug(\"p\") > Destroy");
    let gone = Remembered { gone: true, ..Remembered::default() };
    assert_eq!(told(&plan(None, &Observed::default(), &gone)), "Gone");
}

fn volume(id: &str) -> AttachedVolume {
    AttachedVolume {
        attachment_id: id.into(),
        volume_id: format!("volume-{id}"),
        epoch: 1,
        endpoint: "unix:/e".into(),
        export: "e".into(),
        size_gib: 1,
        read_only: false,
        boot: false,
    }
}
/// A server that runs with a volume.
fn with_volume() -> (Observed, Remembered) {
    let (mut seen, mut known) = up();
    seen.volumes.insert("a".into());
    known.volumes.insert("a".into(), 1);
    let plugged = crate::remember::PluggedVolume { volume_id: "volume-a".into(), epoch: 1, slot: Some(0), size_gib: 1 };
    known.process.as_mut().unwrap().volumes.insert("a".into(), plugged);
    (seen, known)
}

#[test]
fn volumes_are_plugged_and_let_go_of() {
    let attached = with(|a| a.volumes = vec![volume("a")]);
    check(&attached, &up(), "AttachVolume");
    check(&attached, &with_volume(), "Running");
    check(&with(|a| (a.volumes = vec![volume("a")], a.volumes[0].size_gib = 2).1), &with_volume(), "GrowVolume");
    check(&wanted(), &with_volume(), "AskForVolume(\"a\")");
    let (mut seen, known) = with_volume();
    seen.asked.insert("a".into());
    check(&wanted(), &(seen.clone(), known.clone()), "Running waits");
    seen.stuck.insert("a".into());
    check(&wanted(), &(seen.clone(), known.clone()), "Running because waits");
    // The user thinks better of it.
    check(&attached, &(seen.clone(), known.clone()), "Running");
    seen.volumes.clear();
    check(&wanted(), &(seen, known), "DetachVolume(\"a\")");
    let (mut seen, known) = up();
    seen.put_off.insert("a".into());
    check(&attached, &(seen, known), "Running waits");
}

#[test]
fn a_volume_that_moved_is_let_go_of_first() {
    let moved = with(|a| a.volumes = vec![AttachedVolume { epoch: 2, ..volume("a") }]);
    check(&moved, &with_volume(), "AskForVolume(\"a\")");
    let (mut seen, known) = with_volume();
    seen.volumes.clear();
    check(&moved, &(seen, known), "DetachVolume(\"a\")");
}

#[test]
fn a_server_that_is_off_holds_its_volumes() {
    let off = with(|a| (a.volumes, a.power) = (vec![volume("a")], Power::Stopped));
    check(&off, &down(), "HoldVolume");
    let (seen, mut known) = down();
    known.volumes.insert("a".into(), 1);
    check(&off, &(seen.clone(), known.clone()), "Stopped");
    check(&with(|a| a.power = Power::Stopped), &(seen.clone(), known.clone()), "ForgetVolume(\"a\")");
    let on = with(|a| a.volumes = vec![volume("a")]);
    check(&on, &(seen.clone(), known.clone()), "Plug > Start > AttachNic > AttachVolume > Continue");
    // One that powered itself off.
    known.halted = Some(Halted { revision: 99, crash: None });
    check(&on, &(seen.clone(), known.clone()), "Stopped");
    check(&wanted(), &(seen, known), "ForgetVolume(\"a\")");
}

#[test]
fn boots_from_a_volume_when_it_is_served() {
    let new = (Observed::default(), Remembered::default());
    let boot = with(|a| (a.root, a.volumes) = (None, vec![AttachedVolume { boot: true, ..volume("a") }]));
    check(&boot, &new, "Plug > Start > AttachNic > Continue");
    check(&with(|a| a.root = None), &new, "Building waits");
    let (seen, mut known) = with_volume();
    known.disk = None;
    known.process.as_mut().unwrap().volumes.get_mut("a").unwrap().slot = None;
    check(&boot, &(seen.clone(), known.clone()), "Running");
    // It cannot be taken out of a guest that runs from it.
    check(&with(|a| a.root = None), &(seen, known), "Running");
}
