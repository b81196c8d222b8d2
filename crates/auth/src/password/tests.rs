use super::*;

const CHEAP: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };
const MINUTE: Duration = Duration::from_secs(60);

fn passwords(workers: usize, waiting: usize) -> Passwords {
    Passwords::with_workers(CHEAP, workers, waiting, CredentialCache::new(100, MINUTE)).unwrap()
}

#[tokio::test]
async fn the_right_password_verifies_and_no_other() {
    let p = passwords(2, 10);
    let stored = p.hash("pässwörd").await.unwrap();
    assert!(p.verify("u", "pässwörd", Some(&stored)).await.unwrap());
    for wrong in ["passwörd", "", "pässwörd "] {
        assert!(!p.verify("u", wrong, Some(&stored)).await.unwrap());
    }
    assert!(!p.verify("u", "pässwörd", None).await.unwrap());
    assert_eq!(p.cache().len(), 1, "only the success is remembered");
    assert_ne!(p.hash("pässwörd").await.unwrap(), stored, "salts differ");
}

#[tokio::test]
async fn hashes_are_phc_strings_of_owasp_cost() {
    let p = Passwords::new(Cost::OWASP, 10, MINUTE).unwrap();
    let stored = p.hash("x").await.unwrap();
    assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
    assert!(p.is_current(&stored) && p.verify("u", "x", Some(&stored)).await.unwrap());
}

/// A vector of the reference implementation: salt "somesalt", password "password".
#[tokio::test]
async fn hashes_of_others_verify_at_their_own_cost() {
    let p = passwords(1, 10);
    let known = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    assert!(p.verify("u", "password", Some(known)).await.unwrap());
    assert!(!p.verify("u", "passwore", Some(known)).await.unwrap());
    assert!(!p.is_current(known) && !p.is_current("garbage"));
}

#[tokio::test]
async fn a_stored_hash_that_cannot_be_read_is_an_error_not_a_wrong_password() {
    let p = passwords(1, 10);
    for bad in ["", "plain", "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW", "$argon2id$v=19$m=8,t=1,p=1"] {
        assert!(matches!(p.verify("u", "x", Some(bad)).await, Err(Error::StoredHash)), "{bad}");
    }
}

#[tokio::test]
async fn long_passwords_are_refused() {
    let p = passwords(1, 10);
    let (most, more) = ("x".repeat(MAX_PASSWORD_BYTES), "x".repeat(MAX_PASSWORD_BYTES + 1));
    let stored = p.hash(&most).await.unwrap();
    assert!(p.verify("u", &most, Some(&stored)).await.unwrap());
    assert!(matches!(p.hash(&more).await, Err(Error::PasswordTooLong { .. })));
    assert!(!p.verify("u", &more, Some(&stored)).await.unwrap());
}

#[tokio::test]
async fn a_returning_login_needs_no_worker() {
    let p = passwords(1, 0);
    let stored = p.hash("x").await.unwrap();
    assert!(p.verify("u", "x", Some(&stored)).await.unwrap());
    let _all = p.queue.clone().try_acquire_many_owned(1).unwrap();
    assert!(p.verify("u", "x", Some(&stored)).await.unwrap());
    assert!(matches!(p.verify("u", "y", Some(&stored)).await, Err(Error::PasswordsBusy)));
    assert!(matches!(p.verify("u", "x", None).await, Err(Error::PasswordsBusy)));
    assert!(matches!(p.verify("other", "x", Some(&stored)).await, Err(Error::PasswordsBusy)));
}

#[tokio::test]
async fn a_changed_password_misses_at_once() {
    let p = passwords(1, 10);
    let before = p.hash("old").await.unwrap();
    assert!(p.verify("u", "old", Some(&before)).await.unwrap());
    let after = p.hash("new").await.unwrap();
    assert!(!p.verify("u", "old", Some(&after)).await.unwrap());
    assert!(p.verify("u", "new", Some(&after)).await.unwrap());
}

#[tokio::test]
async fn places_are_free_again_when_work_is_done_or_its_caller_left() {
    let p = Arc::new(passwords(1, 1));
    let stored = p.hash("x").await.unwrap();
    for _ in 0..5 {
        let (p, stored) = (p.clone(), stored.clone());
        let login = tokio::spawn(async move { p.verify("u", "y", Some(&stored)).await });
        tokio::task::yield_now().await;
        login.abort();
        assert!(login.await.map_or_else(|e| e.is_cancelled(), |r| !r.unwrap()));
    }
    let both = tokio::time::timeout(Duration::from_secs(10), p.queue.acquire_many(2)).await;
    drop(both.expect("places come back").unwrap());
    assert!(p.verify("u", "x", Some(&stored)).await.unwrap());
}

#[test]
fn the_cache_is_bounded_and_forgets_the_oldest() {
    let (cache, now) = (CredentialCache::new(3, MINUTE), Instant::now());
    let tags: Vec<_> = ["a", "b", "c", "d"].iter().map(|u| cache.tag(u, "p", "h")).collect();
    for tag in &tags {
        cache.remember(*tag, now);
        cache.remember(*tag, now);
    }
    assert_eq!(cache.len(), 3);
    assert_eq!(tags.iter().map(|t| cache.holds(t, now)).collect::<Vec<_>>(), [false, true, true, true]);
    cache.clear();
    assert!(cache.is_empty());
}

#[test]
fn entries_end_at_their_time_and_are_not_renewed() {
    let (cache, start) = (CredentialCache::new(10, MINUTE), Instant::now());
    let (a, b) = (cache.tag("a", "p", "h"), cache.tag("b", "p", "h"));
    cache.remember(a, start);
    cache.remember(a, start + MINUTE / 2);
    assert!(cache.holds(&a, start + MINUTE - Duration::from_nanos(1)) && !cache.holds(&a, start + MINUTE));
    cache.remember(b, start + MINUTE);
    assert_eq!(cache.len(), 1, "what has ended is removed");
    cache.remember(a, start + MINUTE);
    assert!(cache.holds(&a, start + MINUTE));
}

#[test]
fn tags_depend_on_every_part_and_on_the_key() {
    let (one, two) = (CredentialCache::new(1, MINUTE), CredentialCache::new(1, MINUTE));
    let tag = one.tag("user", "pass", "hash");
    assert!(tag == one.tag("user", "pass", "hash") && tag != two.tag("user", "pass", "hash"));
    for (u, p, h) in [("userp", "ass", "hash"), ("user", "passh", "ash"), ("use", "rpass", "hash"), ("user", "pass", "hasi")] {
        assert!(tag != one.tag(u, p, h), "{u} {p} {h}");
    }
}

#[tokio::test]
#[ignore = "a measurement: run it by name with --no-capture"]
async fn rate_of_logins() {
    let p = Passwords::new(Cost::OWASP, 100, MINUTE).unwrap();
    let stored = p.hash("x").await.unwrap();
    for (what, password, stored, n) in [
        ("wrong password", "y", Some(stored.as_str()), 20u32),
        ("no such user", "y", None, 20),
        ("returning user", "x", Some(&stored), 100_000),
    ] {
        p.verify("u", "x", Some(p.hash("x").await.unwrap().as_str())).await.unwrap();
        let start = Instant::now();
        for _ in 0..n {
            p.verify("u", password, stored).await.unwrap();
        }
        println!("{what}, one at a time: {:.0}/s", f64::from(n) / start.elapsed().as_secs_f64());
    }
}

#[tokio::test]
async fn work_areas_are_used_again_and_few_are_kept() {
    let p = passwords(8, 100);
    let logins = (0..50).map(|i| p.verify("u", if i % 2 == 0 { "a" } else { "b" }, None));
    futures_util::future::join_all(logins).await;
    let kept: Vec<usize> = p.hasher.areas().iter().map(Vec::len).collect();
    assert!(!kept.is_empty() && kept.len() <= MOST_KEPT, "{kept:?}");
    assert!(kept.iter().all(|n| *n == p.hasher.argon2.params().block_count()), "{kept:?}");
}
