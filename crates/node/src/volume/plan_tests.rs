//! Golden plans: what is wanted, what is seen, and the whole answer.
use super::*;
use assign::VolumeSource;

fn wanted() -> VolumeAssignment {
    VolumeAssignment {
        id: "v".into(),
        revision: 1,
        request_id: "req".into(),
        keep: Keep::Present,
        size_gib: 1,
        source: VolumeSource::Blank,
        generation: 0,
        snapshots: vec![],
        exports: vec![],
        uploads: vec![],
    }
}
fn with(change: impl FnOnce(&mut VolumeAssignment)) -> VolumeAssignment {
    let mut a = wanted();
    change(&mut a);
    a
}
fn export(id: &str, epoch: u64) -> Export {
    Export { attachment_id: id.into(), epoch, read_only: false }
}
fn served(id: &str, epoch: u64) -> Served {
    let live = LiveExport { attachment_id: id.into(), epoch, endpoint: "unix:/s".into(), export: format!("{id}-{epoch}") };
    Served { export: export(id, epoch), live }
}
fn there() -> Seen {
    Seen { data: Data::Present { size_gib: 1, generation: 0 }, ..Seen::default() }
}
fn attached() -> Seen {
    Seen { engine: Engine::On, exports: vec![served("a", 1)], ..there() }
}
fn told(plan: &Plan) -> String {
    match plan {
        Plan::Steps(s) => s.iter().map(ToString::to_string).collect::<Vec<_>>().join(" > "),
        Plan::Settled { state, cause } => format!("{state:?}{}", cause.as_ref().map(|c| format!(": {c}")).unwrap_or_default()),
    }
}
fn check(a: &VolumeAssignment, seen: &Seen, golden: &str) {
    assert_eq!(told(&plan(a, seen, &BTreeMap::new())), golden);
}

#[test]
fn data_comes_and_goes_only_when_told() {
    check(&wanted(), &Seen::default(), "make data");
    check(&wanted(), &there(), "Ready");
    let deleted = with(|a| a.keep = Keep::Deleted);
    check(&deleted, &there(), "remove data");
    check(&deleted, &attached(), "revoke attachment a > end the storage daemon > remove data");
    check(&deleted, &Seen::default(), "Gone");
    let lost = Seen { data: Data::Lost("why".into()), ..Seen::default() };
    check(&wanted(), &lost, "Failed: why");
    check(&deleted, &lost, "remove data");
}

#[test]
fn exports_follow_attachments_and_epochs() {
    let one = with(|a| a.exports = vec![export("a", 1)]);
    check(&one, &there(), "serve attachment a");
    check(&one, &attached(), "Ready");
    check(&wanted(), &attached(), "revoke attachment a > end the storage daemon");
    check(&with(|a| a.exports = vec![export("a", 2)]), &attached(), "revoke attachment a > serve attachment a");
    check(&with(|a| a.exports = vec![export("a", 1), export("b", 1)]), &attached(), "serve attachment b");
    // A daemon that was killed.
    check(&one, &Seen { engine: Engine::Off, exports: vec![], ..attached() }, "serve attachment a");
    check(&one, &Seen { engine: Engine::Unfit, exports: vec![], ..attached() }, "end the storage daemon");
    // One that an interrupted agent left without an export.
    check(&wanted(), &Seen { engine: Engine::On, ..there() }, "end the storage daemon");
}

#[test]
fn access_ends_before_data_changes_and_begins_after() {
    let all = with(|a| {
        (a.size_gib, a.snapshots, a.exports) = (2, vec!["s".into()], vec![export("b", 1)]);
    });
    check(&all, &attached(), "revoke attachment a > grow > take snapshot s > serve attachment b");
}

#[test]
fn snapshots_replacement_and_merging() {
    check(&with(|a| a.snapshots = vec!["s".into()]), &there(), "take snapshot s");
    let seen = Seen { snapshots: ["s".into()].into(), mergeable: true, ..there() };
    check(&wanted(), &seen, "drop snapshot s");
    check(&with(|a| a.snapshots = vec!["s".into()]), &seen, "merge layers");
    let busy = with(|a| (a.snapshots, a.exports) = (vec!["s".into()], vec![export("a", 1)]));
    check(&busy, &Seen { mergeable: true, snapshots: ["s".into()].into(), ..attached() }, "Ready");
    check(&busy, &Seen { engine: Engine::Behind, snapshots: ["s".into()].into(), ..attached() }, "go on in the newest layer");
    let again = with(|a| (a.generation, a.exports) = (1, vec![export("a", 1)]));
    check(&again, &attached(), "revoke attachment a > end the storage daemon > replace data");
    check(&again, &Seen { data: Data::Present { size_gib: 1, generation: 1 }, ..there() }, "serve attachment a");
}

#[test]
fn uploads_run_beside() {
    let upload = VolumeUpload { image_id: "i".into(), format: "raw".into() };
    let a = with(|a| a.uploads = vec![upload]);
    check(&a, &there(), "make image i");
    check(&a, &Seen { uploading: ["i".into()].into(), ..there() }, "Ready");
    let failed = Seen { uploads: [("i".into(), Err("no".into()))].into(), ..there() };
    check(&a, &failed, "Ready");
    check(&wanted(), &failed, "forget image i");
}

#[test]
fn what_was_given_up_does_not_stop_the_rest() {
    let a = with(|a| (a.size_gib, a.exports) = (9, vec![export("a", 1)]));
    let given_up = [(Step::Grow.to_string(), "no room".to_owned())].into();
    assert_eq!(told(&plan(&a, &there(), &given_up)), "serve attachment a");
    assert_eq!(told(&plan(&a, &attached(), &given_up)), "Failed: no room");
}
