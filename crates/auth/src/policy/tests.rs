use super::*;
use proptest::prelude::*;
use serde_json::json;

fn roles(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

/// Evaluates one rule for a member of project p1 against a target.
fn holds(rule: &str, target: &serde_json::Value) -> bool {
    let (roles, service_roles) = (roles(&["member", "reader"]), roles(&["service"]));
    let subject = Subject {
        user_id: "u1",
        user_domain_id: Some("d1"),
        project_id: Some("p1"),
        project_domain_id: Some("d1"),
        roles: &roles,
        is_admin_project: true,
        service_roles: &service_roles,
        ..Subject::default()
    };
    let parsed = Rule::parse(rule).unwrap_or_else(|e| panic!("{}", base::chain(&e)));
    parsed.holds(&subject, &json_target(target), &|_| None)
}

#[test]
fn checks_ask_the_caller_and_the_target() {
    let target = json!({
        "project_id": "p1", "target.project.id": "p2", "user_id": null, "name": "100%",
        "network": {"shared": true, "mtu": 1500}, "role": "Member", "device_owner": "network:dhcp",
    });
    for (rule, expected) in [
        ("", true),
        ("  ", true),
        ("@", true),
        ("!", false),
        ("role:member", true),
        ("role:MEMBER", true),
        ("role:admin", false),
        ("role:%(role)s", true),
        ("role:%(absent)s", false),
        ("roles:member", true),
        ("service_roles:service", true),
        ("service_roles:admin", false),
        ("is_admin:True", false),
        ("is_admin:False", true),
        ("token.is_admin_project:True", true),
        ("project_id:%(project_id)s", true),
        ("tenant_id:%(project_id)s", true),
        ("project_id:%(target.project.id)s", false),
        ("project_id:p1", true),
        ("token.project.domain.id:d1", true),
        ("user_id:%(absent)s", false),
        ("None:%(user_id)s", true),
        ("None:%(project_id)s", false),
        ("None:%(absent)s", false),
        ("True:%(network.shared)s", true),
        ("1500:%(network.mtu)s", true),
        ("'p1':%(project_id)s", true),
        ("\"p2\":%(project_id)s", false),
        ("'a b':%(project_id)s", false),
        ("'p1/p2':%(project_id)s/%(target.project.id)s", true),
        ("'100%':%(name)s", true),
        ("'100%':100%%", true),
        ("field:network:project_id=p1", true),
        ("field:port:device_owner=~^network:", true),
        ("field:port:device_owner=~^compute:", false),
        ("field:port:absent=~^x", false),
        ("rule:missing", false),
    ] {
        assert_eq!(holds(rule, &target), expected, "{rule}");
    }
}

/// oslo.policy turns both nulls into "None" and so lets a caller without a project into what has none.
#[test]
fn a_missing_attribute_equals_no_target() {
    let target = json!({"domain_id": null, "literal": "None"});
    assert!(!holds("domain_id:%(domain_id)s", &target));
    assert!(!holds("domain_id:%(literal)s", &target));
    assert!(!holds("system_scope:all", &target));
    assert!(holds("system_scope:None and domain_id:None", &target));
}

#[test]
fn system_scope_is_all() {
    let subject = Subject { system_scope: Some("all"), ..Subject::default() };
    assert!(Rule::parse("system_scope:all").unwrap().holds(&subject, &no_target, &|_| None));
}

#[test]
fn operators_bind_as_in_oslo() {
    let nothing = json!({});
    for (rule, expected) in [
        ("@ or ! and !", true),
        ("(@ or !) and !", false),
        ("! and ! or @", true),
        ("not ! and !", false),
        ("not (! and !)", true),
        ("not not @", true),
        ("NOT ! AND @ Or !", true),
        ("((@))", true),
        ("( @ ) and ( role:member or ! )", true),
        ("(role:member and (role:reader))", true),
        ("@ and @ and !", false),
    ] {
        assert_eq!(holds(rule, &nothing), expected, "{rule}");
    }
}

#[test]
fn errors_name_the_position() {
    for (rule, position) in [
        ("role:a and", 11),
        ("and role:a", 1),
        ("role:a role:b", 8),
        ("(role:a", 8),
        ("role:a)", 7),
        ("()", 2),
        ("role:a or or role:b", 11),
        ("member", 1),
        ("role:", 6),
        ("rule:", 6),
        ("role:a or project_id:", 22),
        ("é:a", 1),
        ("role:é or colour:red", 11),
        ("project_id:%(x", 12),
        ("project_id:%(x)d", 12),
        ("project_id:%s", 12),
        ("project_id:%()s", 12),
        ("role:a or role:50%", 18),
        ("'open", 1),
        ("'a'", 1),
        ("'a'b:c", 1),
        ("http://example.org", 1),
        ("field:x", 7),
        ("field:port:owner=~.*", 7),
        ("not", 4),
    ] {
        match Rule::parse(rule) {
            Err(Error::RuleSyntax { at, .. }) => assert_eq!(at, position, "{rule}"),
            other => panic!("{rule}: {other:?}"),
        }
    }
}

#[test]
fn depth_is_limited() {
    let deep = |n: usize| format!("{}@{}", "(".repeat(n), ")".repeat(n));
    assert!(Rule::parse(&deep(40)).is_ok());
    assert!(Rule::parse(&deep(100_000)).is_err() && Rule::parse(&"not ".repeat(100_000)).is_err());
    assert!(Rule::parse(&"@ or ".repeat(10_000)).is_err_and(|e| e.to_string().contains("50001")));
}

const DEFAULTS: [(&str, &str); 4] = [
    ("admin_required", "role:admin"),
    ("owner", "user_id:%(user_id)s"),
    ("get_thing", "rule:admin_required or rule:owner"),
    ("list_things", "role:reader"),
];

fn allows(book: &PolicyBook, name: &str, caller_roles: &[&str]) -> bool {
    let roles = roles(caller_roles);
    let target = json!({"user_id": "u2"});
    book.allows(name, &Subject { user_id: "u1", roles: &roles, ..Subject::default() }, &json_target(&target))
}

#[test]
fn a_book_resolves_names_and_denies_what_it_does_not_know() {
    let book = PolicyBook::new(DEFAULTS, []).unwrap();
    assert!(allows(&book, "get_thing", &["admin"]) && !allows(&book, "get_thing", &["reader"]));
    assert!(allows(&book, "list_things", &["reader"]) && !allows(&book, "no_such", &["admin"]));
    assert!(book.contains("owner") && !book.contains("no_such"));
}

#[test]
fn overrides_replace_and_extend() {
    let overrides =
        parse_overrides("\"admin_required\": \"rule:boss\"\n\"boss\": \"role:boss\"\n\"lits_things\": \"@\"\n").unwrap();
    let book = PolicyBook::new(DEFAULTS, overrides).unwrap();
    assert!(allows(&book, "get_thing", &["boss"]) && !allows(&book, "get_thing", &["admin"]));
    assert_eq!(book.unused_overrides(), ["lits_things"]);
    let listed: Vec<_> = book.iter().filter(|(_, _, overridden)| *overridden).collect();
    assert_eq!(listed, [("admin_required", "rule:boss", true), ("boss", "role:boss", true), ("lits_things", "@", true)]);
}

#[test]
fn a_book_that_cannot_work_is_refused() {
    let with = |name: &str, rule: &str| PolicyBook::new(DEFAULTS, [(name.to_owned(), rule.to_owned())]).unwrap_err();
    assert!(
        matches!(with("owner", "rule:absent"), Error::RuleMissing { name, missing } if name == "owner" && missing == "absent")
    );
    assert!(matches!(with("owner", "not rule:get_thing"), Error::RuleCircle { .. }));
    assert!(matches!(with("owner", "rule:owner"), Error::RuleCircle { path, .. } if path.ends_with("owner -> owner")));
    let e = with("owner", "role:a and");
    assert!(matches!(&e, Error::RuleOf { name, .. } if name == "owner"));
    assert!(base::chain(&e).contains("character 11"), "{}", base::chain(&e));
    assert!(matches!(PolicyBook::new([("a", "@"), ("a", "!")], []), Err(Error::RuleTwice { .. })));
    assert!(PolicyBook::new([("a", "@"), ("a", "@")], []).is_ok());
}

#[test]
fn implied_roles_are_followed_to_the_end() {
    let chain = [("admin", "manager"), ("manager", "member"), ("member", "reader")];
    assert_eq!(expand(&["admin"], &chain), ["admin", "manager", "member", "reader"]);
    assert_eq!(expand(&["member", "x", "member"], &chain), ["member", "x", "reader"]);
    assert_eq!(expand(&["a"], &[("a", "b"), ("b", "a")]), ["a", "b"]);
    assert!(expand::<&str, &str>(&[], &chain).is_empty());
}

/// A random rule as text together with its value, computed independently of the parser.
fn any_rule() -> impl Strategy<Value = (String, bool)> {
    let leaf = prop_oneof![
        Just(("@".to_owned(), true)),
        Just(("!".to_owned(), false)),
        Just(("role:member".to_owned(), true)),
        Just(("project_id:%(other)s".to_owned(), false)),
    ];
    leaf.prop_recursive(6, 40, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|(t, v)| (format!("not ({t})"), !v)),
            prop::collection::vec(inner.clone(), 2..4).prop_map(|all| {
                let texts: Vec<_> = all.iter().map(|(t, _)| format!("({t})")).collect();
                (texts.join(" and "), all.iter().all(|(_, v)| *v))
            }),
            prop::collection::vec(inner, 2..4).prop_map(|any| {
                let texts: Vec<_> = any.iter().map(|(t, _)| format!("( {t} )")).collect();
                (texts.join(" or "), any.iter().any(|(_, v)| *v))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn trees_evaluate_as_boolean_algebra((text, value) in any_rule()) {
        prop_assert_eq!(holds(&text, &json!({"other": "p9"})), value);
    }

    #[test]
    fn any_text_is_a_rule_or_an_error_inside_it(text in "\\PC*|[()@!%'a-z: é]{0,40}") {
        if let Err(Error::RuleSyntax { at, .. }) = Rule::parse(&text) {
            prop_assert!((1..=text.chars().count() + 1).contains(&at));
        }
    }
}
