//! Decisions of the search on small forests.
use super::*;
use crate::query::{Aggregates, Traits};
use serde_json::{Value, json};

const AGGREGATE: &str = "00000000-0000-0000-0000-0000000000aa";

fn provider(uuid: &str, parent: Option<&str>, inventories: Value, traits: &[&str], aggregates: &[&str]) -> Provider {
    let inventories: Value = inventories.as_object().unwrap().iter().map(|(c, n)| (c.clone(), json!({ "total": n }))).collect();
    serde_json::from_value(json!({
        "uuid": uuid, "name": uuid, "parent_provider_uuid": parent, "inventories": inventories, "traits": traits, "aggregates": aggregates,
    }))
    .unwrap()
}

/// A host with two network cards, a bare host, and a disk that the first one shares.
fn forest() -> Forest {
    Forest::new(vec![
        provider("host", None, json!({"VCPU": 8, "MEMORY_MB": 100}), &["HW_CPU_X86_VMX"], &[AGGREGATE]),
        provider("nic1", Some("host"), json!({"SRIOV_NET_VF": 2}), &["CUSTOM_RED"], &[]),
        provider("nic2", Some("host"), json!({"SRIOV_NET_VF": 2}), &["CUSTOM_BLUE"], &[]),
        provider("bare", None, json!({"VCPU": 4, "DISK_GB": 10}), &[], &[]),
        provider("disk", None, json!({"DISK_GB": 1000}), &[SHARES], &[AGGREGATE]),
    ])
}

fn group(suffix: &str, resources: &[(&str, i64)], required: &str) -> Group {
    let mut traits = Traits::default();
    if !required.is_empty() {
        traits.add(required, true, true).unwrap();
    }
    let resources = resources.iter().map(|(class, n)| ((*class).to_owned(), *n)).collect();
    Group { suffix: suffix.to_owned(), resources, traits, ..Group::default() }
}

/// Providers of each candidate, and of the summary.
fn found(request: &Request) -> (Vec<Vec<String>>, Vec<String>) {
    let forest = forest();
    let found = search(&forest, request, true);
    let named = |c: &Candidate| c.resources(&forest).iter().map(|(uuid, _)| (*uuid).to_owned()).collect();
    let mut candidates: Vec<Vec<String>> = found.candidates.iter().map(named).collect();
    candidates.sort();
    (candidates, found.summarised.iter().map(|at| forest.provider(*at).uuid.clone()).collect())
}

fn candidates(groups: Vec<Group>) -> Vec<Vec<String>> {
    found(&Request { groups, ..Request::default() }).0
}

#[test]
fn one_group_may_be_spread_over_a_tree_and_what_it_shares() {
    assert_eq!(candidates(vec![group("", &[("VCPU", 1)], "")]), [["bare"], ["host"]]);
    assert_eq!(candidates(vec![group("", &[("VCPU", 1), ("DISK_GB", 5)], "")]), [vec!["bare"], vec!["host", "disk"]]);
    assert_eq!(candidates(vec![group("", &[("VCPU", 1), ("DISK_GB", 50)], "")]), [["host", "disk"]]);
    assert_eq!(candidates(vec![group("", &[("VCPU", 1), ("SRIOV_NET_VF", 1)], "")]), [["host", "nic1"], ["host", "nic2"]]);
    assert_eq!(candidates(vec![group("", &[("VCPU", 9)], "")]), [[""; 0]; 0]);
}

#[test]
fn traits_hold_for_all_providers_together_and_are_forbidden_to_each() {
    let spread = [("VCPU", 1), ("SRIOV_NET_VF", 1)];
    assert_eq!(candidates(vec![group("", &spread, "HW_CPU_X86_VMX,CUSTOM_BLUE")]), [["host", "nic2"]]);
    assert_eq!(candidates(vec![group("", &spread, "!CUSTOM_BLUE")]), [["host", "nic1"]]);
    assert_eq!(candidates(vec![group("", &spread, "in:CUSTOM_BLUE,CUSTOM_RED")]).len(), 2);
    assert!(candidates(vec![group("1", &spread, "")]).is_empty(), "a granular group comes from one provider");
}

#[test]
fn groups_share_capacity_and_can_be_kept_apart() {
    let two = |amount| vec![group("1", &[("SRIOV_NET_VF", amount)], ""), group("2", &[("SRIOV_NET_VF", amount)], "")];
    assert_eq!(candidates(two(1)).len(), 4);
    assert_eq!(candidates(two(2)), [["nic1", "nic2"], ["nic1", "nic2"]]);
    let isolated = Request { groups: two(1), isolate: true, ..Request::default() };
    assert_eq!(found(&isolated).0, [["nic1", "nic2"], ["nic1", "nic2"]]);
}

#[test]
fn the_root_the_tree_and_the_subtree_can_be_chosen() {
    let vcpu = || group("", &[("VCPU", 1)], "");
    let mut root = Traits::default();
    root.add("!HW_CPU_X86_VMX", true, false).unwrap();
    assert_eq!(found(&Request { groups: vec![vcpu()], root, ..Request::default() }).0, [["bare"]]);
    assert_eq!(candidates(vec![Group { in_tree: Some("nic2".into()), ..vcpu() }]), [["host"]]);
    assert!(candidates(vec![Group { in_tree: Some("nobody".into()), ..vcpu() }]).is_empty());
    let apart = vec![group("_A", &[("SRIOV_NET_VF", 1)], "CUSTOM_RED"), group("_B", &[("SRIOV_NET_VF", 1)], "CUSTOM_BLUE")];
    let subtrees = vec![BTreeSet::from(["_A".to_owned(), "_B".to_owned()])];
    assert!(found(&Request { groups: apart.clone(), subtrees, ..Request::default() }).0.is_empty(), "siblings");
    let mut with_top = apart;
    with_top.push(group("_TOP", &[], "HW_CPU_X86_VMX"));
    let subtrees = vec![["_A", "_B", "_TOP"].map(str::to_owned).into()];
    assert_eq!(found(&Request { groups: with_top, subtrees, ..Request::default() }).0, [["nic1", "nic2"]]);
}

#[test]
fn aggregates_of_a_root_count_for_its_tree() {
    let mut aggregates = Aggregates::default();
    aggregates.add(AGGREGATE).unwrap();
    let vf = |suffix| Group { aggregates: aggregates.clone(), ..group(suffix, &[("SRIOV_NET_VF", 1)], "") };
    assert_eq!(candidates(vec![vf("")]), [["nic1"], ["nic2"]]);
    assert!(candidates(vec![vf("1")]).is_empty(), "a granular group asks the provider itself");
    let mut not = Aggregates::default();
    not.add(&format!("!{AGGREGATE}")).unwrap();
    assert_eq!(candidates(vec![Group { aggregates: not, ..group("", &[("VCPU", 1)], "") }]), [["bare"]]);
}

#[test]
fn the_summary_tells_of_whole_trees_and_the_limit_holds() {
    let spread =
        Request { groups: vec![group("", &[("VCPU", 1), ("SRIOV_NET_VF", 1)], "")], limit: Some(1), ..Request::default() };
    let (candidates, summary) = found(&spread);
    assert_eq!((candidates.len(), summary.len()), (1, 3));
    let flat = search(&forest(), &spread, false);
    assert!(flat.candidates.is_empty(), "callers that know no trees get no candidate of two providers of one");
}

#[test]
fn a_request_with_too_many_answers_ends() {
    let mut providers = vec![provider("top", None, json!({}), &[], &[])];
    providers.extend((0..40).map(|n| provider(&format!("p{n}"), Some("top"), json!({"VGPU": 1}), &[], &[])));
    let groups = (0..12).map(|n| group(&format!("{n}x"), &[("VGPU", 1)], "")).collect();
    let found = search(&Forest::new(providers), &Request { groups, isolate: true, ..Request::default() }, true);
    assert_eq!(found.candidates.len(), MOST);
}
