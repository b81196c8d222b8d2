use super::*;

fn with(change: impl FnOnce(&mut SecurityCompliance)) -> Compliance {
    let mut set = SecurityCompliance::default();
    change(&mut set);
    Compliance::new(set).unwrap()
}

const NOW: Timestamp = Timestamp(1_700_000_000_123_456);

#[test]
fn rules_that_cannot_be_followed_are_refused() {
    let refused = |change: &dyn Fn(&mut SecurityCompliance)| {
        let mut set = SecurityCompliance::default();
        change(&mut set);
        set.check().unwrap_err().to_string()
    };
    assert!(
        refused(&|s| s.password_regex = Some("[".into()))
            .starts_with("Setting security_compliance.password_regex cannot be used")
    );
    assert!(refused(&|s| s.lockout_failure_attempts = Some(0)).contains("leave it out"));
    assert!(refused(&|s| s.unique_last_password_count = 99).contains("at most 24"));
    assert!(refused(&|s| (s.minimum_password_age, s.password_expires_days) = (5, Some(5))).contains("in time"));
    assert!(SecurityCompliance::default().check().is_ok());
    let unknown = serde_json::from_value::<SecurityCompliance>(json!({"lockout_attempts": 3}));
    assert!(unknown.unwrap_err().to_string().contains("lockout_attempts"));
}

#[test]
fn a_new_password_expires_as_its_user_and_who_set_it_say() {
    let rules = with(|s| s.password_expires_days = Some(2));
    let set = |rules: &Compliance, options: Value, by: SetBy| {
        let mut row = json!({"options": options}).as_object().cloned().unwrap();
        rules.set_password(&mut row, "h".into(), by, NOW);
        row["password_expires_at"].as_i64()
    };
    let two_days = Some((NOW.unix() + 2 * 86_400) * 1_000_000);
    assert_eq!(set(&rules, json!({}), SetBy::User), two_days);
    assert_eq!(set(&rules, json!({"ignore_password_expiry": true}), SetBy::User), None);
    let rules = with(|s| (s.password_expires_days, s.change_password_upon_first_use) = (Some(2), true));
    assert_eq!(set(&rules, json!({}), SetBy::Administrator), Some(NOW.0));
    assert_eq!(set(&rules, json!({}), SetBy::User), two_days);
    assert_eq!(set(&rules, json!({"ignore_change_password_upon_first_use": true}), SetBy::Administrator), two_days);
    assert!(Compliance::is_expired(&json!({"password_expires_at": NOW.0}), NOW));
    assert!(!Compliance::is_expired(&json!({"password_expires_at": NOW.0 + 1}), NOW));
    let exempt = json!({"password_expires_at": 1, "options": {"ignore_password_expiry": true}});
    assert!(!Compliance::is_expired(&exempt, NOW));
}

#[test]
fn as_many_passwords_are_kept_as_must_differ() {
    let rules = with(|s| s.unique_last_password_count = 3);
    let mut user = Map::new();
    for hash in ["a", "b", "c", "d"] {
        rules.set_password(&mut user, hash.into(), SetBy::User, NOW);
    }
    assert_eq!(rules.used(&Value::from(user.clone())), ["d", "c", "b"]);
    assert_eq!(Compliance::default().used(&Value::from(user.clone())), Vec::<String>::new());
    Compliance::default().set_password(&mut user, "e".into(), SetBy::User, NOW);
    assert!(user["previous_hashes"].is_null(), "what nobody asks for is not kept");
}

#[test]
fn a_password_is_kept_for_a_while_by_who_chose_it() {
    let rules = with(|s| s.minimum_password_age = 3);
    let user = |by_user: bool| json!({"password_created_at": NOW.0, "password_set_by_user": by_user});
    assert_eq!(rules.days_to_keep(&user(true), NOW.plus(DAY)), Some(2));
    assert_eq!(rules.days_to_keep(&user(true), NOW.plus(DAY * 3)), None);
    assert_eq!(rules.days_to_keep(&user(false), NOW), None);
}

#[test]
fn an_account_without_logins_becomes_inactive() {
    let rules = with(|s| s.disable_user_account_days_inactive = Some(10));
    let user = json!({"created_at": NOW.0}).as_object().cloned().unwrap();
    assert!(!rules.is_inactive(&user, None, NOW.plus(DAY * 9)));
    assert!(rules.is_inactive(&user, None, NOW.plus(DAY * 10)));
    assert!(!rules.is_inactive(&user, Some(day(NOW) + 5), NOW.plus(DAY * 14)));
    assert!(rules.is_inactive(&user, Some(day(NOW) + 5), NOW.plus(DAY * 15)));
    let exempt = json!({"created_at": 0, "options": {"ignore_user_inactivity": true}}).as_object().cloned().unwrap();
    assert!(!rules.is_inactive(&exempt, None, NOW));
    assert!(!Compliance::default().is_inactive(&user, None, NOW.plus(DAY * 1000)));
}
