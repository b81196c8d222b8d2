use super::{super::rules::read, *};
use serde_json::json;

/// Somebody as Keystone's own tests have it.
fn tester() -> Assertion {
    let values = [
        ("Email", &["tester@example.com"][..]),
        ("UserName", &["testacct"]),
        ("FirstName", &["Test"]),
        ("LastName", &["Account"]),
        ("orgPersonType", &["Tester"]),
        ("groups", &["admins", "staff", "guests"]),
    ];
    values.iter().map(|(k, v)| ((*k).to_owned(), v.iter().map(|s| (*s).to_owned()).collect())).collect()
}

fn map(rules: Value, version: &str) -> Result<Mapped, Unmapped> {
    evaluate(&read(&rules, version).unwrap(), version == "2.0", &tester())
}

fn rule(local: Value, remote: Value) -> Value {
    json!([{"local": local, "remote": remote}])
}

fn names(mapped: &Mapped) -> Vec<&str> {
    mapped.groups.iter().map(|g| g.name.as_str()).collect()
}

#[test]
fn values_are_put_where_they_are_named() {
    let local = json!([{"user": {"name": "{0} {1}", "email": "{2}", "id": "{3}-{{x}}"}}, {"group": {"id": "g-{3}"}}]);
    let remote = json!([
        {"type": "FirstName"}, {"type": "LastName"}, {"type": "orgPersonType", "any_one_of": ["Tester", "Admin"]},
        {"type": "Email"}, {"type": "UserName"},
    ]);
    // What only tests takes no place among the values.
    let mapped = map(rule(local, remote), "1.0").unwrap();
    assert_eq!(mapped.name.as_deref(), Some("Test Account"));
    assert_eq!(mapped.email.as_deref(), Some("tester@example.com"));
    assert_eq!(mapped.id.as_deref(), Some("testacct-{x}"));
    assert_eq!(mapped.group_ids, ["g-testacct"]);
    assert!(!mapped.local && mapped.domain.is_none());
}

#[test]
fn requirements_decide_whether_a_rule_applies() {
    for (remote, applies) in [
        (json!({"type": "UserName"}), true),
        (json!({"type": "Nickname"}), false),
        (json!({"type": "orgPersonType", "any_one_of": ["Tester"]}), true),
        (json!({"type": "orgPersonType", "any_one_of": ["Test"]}), false),
        (json!({"type": "orgPersonType", "any_one_of": ["^Test"], "regex": true}), true),
        (json!({"type": "orgPersonType", "not_any_of": ["Tester"]}), false),
        (json!({"type": "orgPersonType", "not_any_of": ["Contractor", "Guest"]}), true),
        (json!({"type": "Email", "not_any_of": [".*@evil.example$"], "regex": true}), true),
        (json!({"type": "Email", "not_any_of": ["@example.com$"], "regex": true}), false),
        // Of what is not there nothing is known, not even that it is none of these.
        (json!({"type": "Nickname", "not_any_of": ["x"]}), false),
    ] {
        let got = map(rule(json!([{"user": {"name": "x"}}]), json!([remote.clone()])), "1.0");
        assert_eq!(got.is_ok(), applies, "{remote}");
        assert!(applies || got == Err(Unmapped::NoRule));
    }
}

#[test]
fn lists_are_filtered_and_stay_lists() {
    let groups = |remote: Value| {
        let local = json!([{"user": {"name": "{0}"}}, {"groups": "{1}", "domain": {"name": "corp"}}]);
        map(rule(local, json!([{"type": "UserName"}, remote])), "1.0").unwrap()
    };
    assert_eq!(names(&groups(json!({"type": "groups"}))), ["admins", "staff", "guests"]);
    assert_eq!(names(&groups(json!({"type": "groups", "whitelist": ["staff", "other"]}))), ["staff"]);
    assert_eq!(names(&groups(json!({"type": "groups", "blacklist": ["admins"]}))), ["staff", "guests"]);
    assert_eq!(names(&groups(json!({"type": "groups", "whitelist": ["^a", "^g"], "regex": true}))), ["admins", "guests"]);
    assert_eq!(names(&groups(json!({"type": "groups", "whitelist": ["nobody"]}))), [""; 0]);
    assert_eq!(groups(json!({"type": "groups"})).groups[0].domain, DomainKey::Name("corp".into()));

    let ids =
        rule(json!([{"user": {"name": "x"}, "group_ids": "{0}"}, {"group_ids": "['a', \"b\"]"}]), json!([{"type": "groups"}]));
    assert_eq!(map(ids, "1.0").unwrap().group_ids, ["admins", "staff", "guests", "a", "b"]);
}

#[test]
fn a_value_is_never_more_than_a_value() {
    let mut assertion = tester();
    let local = json!([{"user": {"name": "{0}"}}, {"groups": "{1}", "domain": {"id": "d"}}, {"group_ids": "{1}"}]);
    let rules = read(&rule(local, json!([{"type": "UserName"}, {"type": "groups"}])), "1.0").unwrap();
    for value in ["['admins', 'wheel']", "{0}", "JSON:{\"name\": \"admins\", \"domain\": {\"id\": \"default\"}}", "a;b", "{"] {
        assertion.insert("groups".into(), vec![value.to_owned()]);
        let mapped = evaluate(&rules, false, &assertion).unwrap();
        assert_eq!(names(&mapped), [value]);
        assert_eq!(mapped.group_ids, [value]);
        assert_eq!(mapped.groups[0].domain, DomainKey::Id("d".into()));
    }
    // A rule without a domain takes groups that name theirs, and nothing else.
    let local = json!([{"user": {"name": "{0}"}, "groups": "{1}"}]);
    let rules = read(&rule(local, json!([{"type": "UserName"}, {"type": "groups"}])), "1.0").unwrap();
    let of = |assertion: &mut Assertion, value: &str| {
        assertion.insert("groups".into(), vec![value.to_owned()]);
        evaluate(&rules, false, assertion)
    };
    let json = of(&mut assertion, "JSON:{\"name\": \"g\", \"domain\": {\"name\": \"d\"}}").unwrap();
    assert_eq!(json.groups, [GroupName { name: "g".into(), domain: DomainKey::Name("d".into()) }]);
    assert_eq!(of(&mut assertion, "g"), Err(Unmapped::NoDomain));
    assert_eq!(of(&mut assertion, "JSON:{\"name\": \"g\"}"), Err(Unmapped::NotAGroup));
}

#[test]
fn what_a_rule_does_not_ask_for_it_cannot_say() {
    for name in ["{1}", "{x}", "{0", "a}b", "{0.a}", "{-1}"] {
        let got = map(rule(json!([{"user": {"name": name}}]), json!([{"type": "UserName"}])), "1.0");
        assert_eq!(got, Err(Unmapped::NoSuchValue(name.into())), "{name}");
    }
    assert_eq!(
        map(rule(json!([{"user": {"name": "{}-{}"}}]), json!([{"type": "UserName"}, {"type": "Email"}])), "1.0")
            .unwrap()
            .name
            .as_deref(),
        Some("testacct-tester@example.com")
    );
}

#[test]
fn the_first_user_counts_and_all_rules_add() {
    let rules = json!([
        {"local": [{"user": {"name": "first"}}], "remote": [{"type": "UserName"}]},
        {"local": [{"user": {"name": "second"}, "group": {"id": "g"}}], "remote": [{"type": "UserName"}]},
        {"local": [{"group": {"id": "never"}}], "remote": [{"type": "Nickname"}]},
        {"local": [{"group": {"id": "g"}}], "remote": [{"type": "Email"}]},
    ]);
    let mapped = map(rules, "1.0").unwrap();
    assert_eq!((mapped.name.as_deref(), mapped.group_ids), (Some("first"), vec!["g".to_owned()]));
}

#[test]
fn a_domain_of_the_rule_counts_in_version_2() {
    let rules = rule(
        json!([{
            "user": {"name": "{0}"}, "domain": {"id": "d"},
            "projects": [{"name": "p-{0}", "roles": [{"name": "member"}, {"name": "{1}"}]}],
        }]),
        json!([{"type": "UserName"}, {"type": "orgPersonType"}]),
    );
    let one = map(rules.clone(), "1.0").unwrap();
    assert_eq!((one.domain, &one.projects[0].domain), (None, &None));
    let two = map(rules, "2.0").unwrap();
    let d = Some(DomainKey::Id("d".into()));
    assert_eq!((&two.domain, &two.projects[0].domain), (&d, &d));
    assert_eq!(
        (two.projects[0].name.as_str(), &two.projects[0].roles[..]),
        ("p-testacct", &["member".to_owned(), "Tester".to_owned()][..])
    );
}
