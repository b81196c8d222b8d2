//! What is repeated elsewhere and what is not; what the API is told; draining and reloads.
use crate::common::{Cluster, until};
use std::time::Duration;

const KEY: [&str; 4] = ["-H", "Idempotency-Key: k1", "-H", "X-Auth-Token: t1"];

/// Asks for a death in mid-request and tells the answer and how often the request was carried out.
async fn die(cluster: &mut Cluster, more: &[&str]) -> (u16, String, usize) {
    let (status, body) = cluster.ask("/die", more).await;
    let names = ["died.c1", "died.c2", "died.c3"];
    let times = names.iter().filter_map(|n| std::fs::read(cluster.path(n)).ok()).map(|b| b.len()).sum();
    for name in names.iter().chain(&["died"]) {
        let _ = std::fs::remove_file(cluster.path(name));
    }
    for n in 1..=3 {
        let child = cluster.backends[n - 1].as_mut().unwrap();
        if tokio::time::timeout(Duration::from_millis(300), child.wait()).await.is_ok() {
            cluster.serve(n);
        }
    }
    until("all are back", || async { all_up(cluster).await.then_some(()) }).await;
    (status, body, times)
}

async fn all_up(cluster: &Cluster) -> bool {
    all_have(cluster, 3).await
}

/// Does each door send requests to so many controllers?
async fn all_have(cluster: &Cluster, count: usize) -> bool {
    for n in 1..=3 {
        if cluster.serving(n).await != count {
            return false;
        }
    }
    true
}

/// Who got a request that waits, in order.
fn waiting(cluster: &Cluster) -> Vec<String> {
    let text = std::fs::read_to_string(cluster.path("waiting")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_serve_any_more_loses_its_requests() {
    let cluster = Cluster::start("w").await;
    for (more, repeated) in [
        (&[][..], true),
        (&["-d", "x"], false),
        (&["-d", "x", KEY[0], KEY[1]], true),
        (&["-d", "x", KEY[0], KEY[1], KEY[2], KEY[3]], true),
    ] {
        let asked = cluster.ask("/wait", more);
        let left = async {
            let name = until("a request waits", || async { waiting(&cluster).pop() }).await;
            std::fs::write(cluster.path(&format!("{name}.ready")), "503").unwrap();
            if repeated {
                until("another has it", || async { (waiting(&cluster).len() == 2).then_some(()) }).await;
                std::fs::write(cluster.path("go"), "").unwrap();
            }
            name
        };
        let ((status, _), name) = tokio::join!(asked, left);
        assert_eq!(status == 200, repeated, "{more:?}: {status}");
        assert_eq!(waiting(&cluster).len(), if repeated { 2 } else { 1 }, "{more:?}");
        std::fs::write(cluster.path("go"), "").unwrap();
        std::fs::remove_file(cluster.path(&format!("{name}.ready"))).unwrap();
        until("all are back", || async { all_up(&cluster).await.then_some(()) }).await;
        for file in ["go", "waiting"] {
            std::fs::remove_file(cluster.path(file)).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_may_be_repeated_is_repeated() {
    let mut cluster = Cluster::start("r").await;
    let (status, answer, times) = die(&mut cluster, &[]).await;
    assert!(status == 200 && times == 2, "a read: {status} {answer} {times}");
    let (status, answer, times) = die(&mut cluster, &["-d", "x"]).await;
    assert!(status == 502 && times == 1, "a write: {status} {answer} {times}");
    let small = [&["-d", "x"][..], &KEY].concat();
    let (status, answer, times) = die(&mut cluster, &small).await;
    assert!(status == 200 && times == 2, "a write with a key: {status} {answer} {times}");
    // As large as a server's user data may be, and in many packets.
    let body = cluster.path("body");
    std::fs::write(&body, vec![b'x'; 1 << 18]).unwrap();
    let file = format!("@{}", body.display());
    let large = [&["--data-binary", &file, "-H", "Expect:"][..], &KEY].concat();
    let (status, answer, times) = die(&mut cluster, &large).await;
    assert!(status == 200 && times == 2 && answer.ends_with(" 262144"), "a large write: {status} {answer} {times}");
    // Too large for the door to keep: carried out at most once.
    std::fs::write(&body, vec![b'x'; 1 << 20]).unwrap();
    let (status, answer, times) = die(&mut cluster, &large).await;
    assert!(status == 502 && times == 1, "a very large write: {status} {answer} {times}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_much_writes_at_one_controller() {
    let cluster = Cluster::start("a").await;
    let mut took = std::collections::BTreeMap::<String, std::collections::BTreeSet<String>>::new();
    for n in 0..36 {
        let token = format!("X-Auth-Token: t{}", n % 12);
        let (status, who) = cluster.ask("/who", &["-d", "x", "-H", &token]).await;
        assert_eq!(status, 200);
        took.entry(token).or_default().insert(who);
    }
    assert!(took.values().all(|who| who.len() == 1), "{took:?}");
    let all: std::collections::BTreeSet<_> = took.values().flatten().collect();
    assert!(all.len() > 1, "the clients share the controllers: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_told_who_asks_by_the_door_alone() {
    let cluster = Cluster::start("h").await;
    let forged = ["X-Forwarded-For: 1.2.3.4", "X-Forwarded-Host: evil", "Forwarded: for=1.2.3.4", "X-Forwarded-Proto: http"];
    let mut more: Vec<&str> = forged.iter().flat_map(|h| ["-H", h]).collect();
    more.extend(["-H", "X-Openstack-Request-Id: req-1"]);
    let (status, seen) = cluster.ask("/seen", &more).await;
    assert_eq!(status, 200);
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["x-forwarded-for"], "10.78.0.9");
    assert_eq!(seen["x-forwarded-proto"], "https");
    assert_eq!((&seen["x-forwarded-host"], &seen["forwarded"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    assert_eq!(seen["x-openstack-request-id"], "req-1");
    assert_eq!(seen["host"], "10.78.0.100:8774");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_drains_finishes_what_it_has() {
    let mut cluster = Cluster::start("d").await;
    // It asks for no more while a request runs, and the request is answered.
    let asked = async { cluster.ask("/wait", &["-d", "x"]).await };
    let drained = async {
        let name = until("a request waits", || async { waiting(&cluster).pop() }).await;
        std::fs::write(cluster.path(&format!("{name}.ready")), "404").unwrap();
        until("no door sends it more", || async { all_have(&cluster, 2).await.then_some(()) }).await;
        for _ in 0..12 {
            let (status, who) = cluster.ask("/who", &[]).await;
            assert!(status == 200 && who != name, "{status} {who}");
        }
        std::fs::write(cluster.path("go"), "").unwrap();
        name
    };
    let ((status, who), name) = tokio::join!(asked, drained);
    assert_eq!((status, who), (200, name.clone()));

    // None can serve: requests go where they may wait for it, as an election in the store lasts a moment.
    let ready = |n: u8| cluster.path(&format!("c{n}.ready"));
    for n in 1..=2 {
        std::fs::write(ready(n), "503").unwrap();
    }
    until("two are left", || async { all_have(&cluster, 1).await.then_some(()) }).await;
    std::fs::write(ready(3), "503").unwrap();
    until("none is left", || async { all_up(&cluster).await.then_some(()) }).await;
    assert_eq!(cluster.ask("/who", &[]).await.0, 200);
    for n in 1..=3 {
        std::fs::remove_file(ready(n)).unwrap();
    }

    // A changed configuration is taken over by the process that runs, and a request that waits meanwhile is answered.
    let _ = std::fs::remove_file(cluster.path("go"));
    let _ = std::fs::remove_file(cluster.path("waiting"));
    let holder = cluster.holder().await - 1;
    let before = cluster.doors[holder].status().await.unwrap();
    let mut changed = cluster.doors[holder].clone();
    changed.listen.push([127, 0, 0, 1].into());
    let asked = async { cluster.ask("/wait", &["-d", "x"]).await };
    let reloaded = async {
        until("a request waits", || async { cluster.path("waiting").exists().then_some(()) }).await;
        changed.ensure().await.unwrap();
        for _ in 0..12 {
            let (status, who) = cluster.ask("/who", &[]).await;
            assert_eq!(status, 200, "{who}");
        }
        std::fs::write(cluster.path("go"), "").unwrap();
    };
    let ((status, _), ()) = tokio::join!(asked, reloaded);
    assert_eq!(status, 200);
    assert_eq!(changed.status().await.unwrap(), before, "the same processes, and the address stayed");

    // A certificate that does not fit its key is refused, and nothing changes.
    let other = cluster.doors[(holder + 1) % 3].machine.certificate.clone();
    let mut wrong = changed.clone();
    wrong.machine.certificate = other;
    assert!(matches!(wrong.ensure().await, Err(frontdoor::Error::Refused { program: "haproxy", .. })));
    assert_eq!(cluster.ask("/who", &[]).await.0, 200);

    // Stopped, it leaves nothing behind and the address goes to another.
    cluster.watched[holder] = None;
    changed.stop(Duration::from_secs(5)).await.unwrap();
    let status = changed.status().await.unwrap();
    assert_eq!((status.haproxy, status.keepalived, status.has_vip), (None, None, false));
    assert_ne!(cluster.holder().await, holder + 1);
    until("another door answers", || async { (cluster.ask("/who", &[]).await.0 == 200).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_api_runs_the_door_says_so_itself() {
    let mut cluster = Cluster::start("n").await;
    for n in 1..=3 {
        cluster.kill(n);
    }
    let (_, body) = until("nobody serves", || async {
        let answer = cluster.ask("/who", &[]).await;
        (answer.0 == 503).then_some(answer)
    })
    .await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["error"]["code"], 503);
    for n in 1..=3 {
        cluster.serve(n);
    }
    until("they serve again", || async { (cluster.ask("/who", &[]).await.0 == 200).then_some(()) }).await;
}
