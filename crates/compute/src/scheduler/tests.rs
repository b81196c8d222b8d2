use super::{
    host::{Facts, Room},
    *,
};
use serde_json::json;

fn host(name: &'static str, ram_used: i64) -> Host<'static> {
    let provider = json!({
        "inventories": {
            "VCPU": {"total": 4, "allocation_ratio": 16.0}, "MEMORY_MB": {"total": 4096, "allocation_ratio": 1.0},
            "DISK_GB": {"total": 100, "allocation_ratio": 1.0},
        },
        "used": {"MEMORY_MB": ram_used},
        "traits": ["HW_CPU_X86_AVX"],
    });
    let facts = Facts { name: name.to_owned(), up: true, disabled: false };
    Host::new(name, facts.into(), Room::of(&provider).into())
}

fn spec() -> Spec {
    let resources = [("VCPU", 1), ("MEMORY_MB", 1024), ("DISK_GB", 1)].map(|(k, v)| (k.to_owned(), v)).into();
    Spec { resources, ..Spec::default() }
}

fn picked(hosts: &[Host<'_>], spec: &Spec) -> Option<String> {
    pick(hosts, spec).map(|h| h.facts.name.clone())
}

#[test]
fn the_emptiest_host_with_room_is_taken() {
    let hosts = [host("a", 2048), host("b", 1024), host("c", 3500)];
    assert_eq!(picked(&hosts, &spec()).as_deref(), Some("b"));
    let full = [host("a", 3500)];
    assert_eq!(picked(&full, &spec()), None);
}

#[test]
fn hosts_that_do_not_serve_are_left_out() {
    let (mut a, mut b) = (host("a", 0), host("b", 0));
    a.facts = Facts { up: false, ..(*a.facts).clone() }.into();
    b.facts = Facts { disabled: true, ..(*b.facts).clone() }.into();
    assert_eq!(picked(&[a.clone(), b.clone()], &spec()), None);
    let forced = Spec { host: Some("b".into()), forced: true, ..spec() };
    assert_eq!(picked(&[a, b], &forced).as_deref(), Some("b"), "an administrator may force a disabled host");
}

#[test]
fn zones_traits_and_aggregates_are_obeyed() {
    let (a, mut b) = (host("a", 0), host("b", 1024));
    b.zone = "z2";
    b.aggregates = vec![Box::leak(Box::new(crate::common::map(json!({ "ssd": "true" }))))];
    let hosts = [a, b];
    let with = |key: &str, value: &str| Spec { extra_specs: [(key.to_owned(), value.to_owned())].into(), ..spec() };
    assert_eq!(picked(&hosts, &Spec { zone: Some("z2".into()), ..spec() }).as_deref(), Some("b"));
    assert_eq!(picked(&hosts, &Spec { zone: Some("z3".into()), ..spec() }), None);
    assert_eq!(picked(&hosts, &with("trait:HW_CPU_X86_AVX", "required")).as_deref(), Some("a"));
    assert_eq!(picked(&hosts, &with("trait:HW_CPU_X86_AVX", "forbidden")), None);
    assert_eq!(picked(&hosts, &with("aggregate_instance_extra_specs:ssd", "true")).as_deref(), Some("b"));
}

#[test]
fn hints_and_groups_keep_servers_together_or_apart() {
    let hosts = [host("a", 0), host("b", 1024)];
    assert_eq!(picked(&hosts, &Spec { same_host: Some(vec!["b".into()]), ..spec() }).as_deref(), Some("b"));
    assert_eq!(picked(&hosts, &Spec { same_host: Some(vec![]), ..spec() }), None);
    assert_eq!(picked(&hosts, &Spec { different_host: vec!["a".into()], ..spec() }).as_deref(), Some("b"));
    let group = |policy: &str| {
        let members = [("b".to_owned(), 1)].into();
        Spec { group: Some(Group { policy: policy.into(), most_per_host: 1, members, ..Group::default() }), ..spec() }
    };
    assert_eq!(picked(&hosts, &group("affinity")).as_deref(), Some("b"));
    assert_eq!(picked(&hosts, &group("anti-affinity")).as_deref(), Some("a"));
    assert_eq!(picked(&hosts, &group("soft-affinity")).as_deref(), Some("b"));
    assert_eq!(picked(&hosts[1..], &group("anti-affinity")), None);
    assert_eq!(picked(&hosts[1..], &group("soft-anti-affinity")).as_deref(), Some("b"));
}

#[test]
fn servers_of_one_request_see_each_other() {
    let mut hosts = vec![host("a", 0), host("b", 100)];
    let mut spec = spec();
    let mut order = Vec::new();
    while let Some(h) = pick(&hosts, &spec) {
        let place = h.place();
        order.push(place.host.clone());
        note(&mut hosts, &mut spec, &place);
    }
    assert_eq!(order.concat(), "abababa", "four fit on a, three on b");
}

#[test]
fn equally_good_hosts_are_drawn() {
    let names: Vec<&'static str> = (0..100).map(|n| &*Box::leak(format!("h{n}").into_boxed_str())).collect();
    let hosts: Vec<Host<'_>> = names.iter().map(|name| host(name, 0)).collect();
    let drawn = |draw: i32| picked(&hosts, &Spec { draw: draw.to_string(), ..spec() });
    let different: std::collections::BTreeSet<_> = (0..24).map(drawn).collect();
    assert!(different.len() > 15, "schedulers that decide at once want different hosts: {different:?}");
    assert_eq!(drawn(7), drawn(7));
}
