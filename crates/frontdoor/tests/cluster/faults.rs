//! Faults under a client that asks a hundred times a second; what it saw of each is printed, not judged: machines differ.
use crate::common::{Cluster, signal, until};
use std::time::Duration;
use supervise::ip;

/// The client's requests: when they ended, and how.
fn log(cluster: &Cluster) -> Vec<(f64, String)> {
    let text = std::fs::read_to_string(cluster.path("client.log")).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().filter_map(|l| l.split_once(' ')).map(|(t, w)| (t.parse().unwrap(), w.to_owned())).collect()
}

fn answered(cluster: &Cluster) -> usize {
    log(cluster).iter().filter(|(_, w)| w == "ok").count()
}

/// Waits until this many more requests were answered.
async fn answers(cluster: &Cluster, more: usize) {
    let from = answered(cluster);
    until("requests are answered", || async { (answered(cluster) >= from + more).then_some(()) }).await;
}

/// What the client saw since its request number `from`.
fn outage(cluster: &Cluster, fault: &str, from: usize) {
    let log = log(cluster);
    let seen = &log[from..];
    let before = log[..from].iter().rev().find(|(_, w)| w == "ok");
    let good: Vec<f64> = before.into_iter().chain(seen).filter(|(_, w)| w == "ok").map(|(t, _)| *t).collect();
    let longest = good.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max);
    let mut failed: Vec<_> = seen.iter().filter(|(_, w)| w != "ok").map(|(_, w)| w.as_str()).collect();
    let count = failed.len();
    failed.dedup();
    println!(
        "{fault:34} longest time without an answer {:4.0} ms, {count} of {} requests failed {failed:?}",
        longest * 1e3,
        seen.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_survives() {
    let mut cluster = Cluster::start("f").await;
    let _client = cluster.client();
    answers(&cluster, 50).await;
    let switch = cluster.ns("sw");

    let from = log(&cluster).len();
    answers(&cluster, 100).await;
    outage(&cluster, "nothing", from);

    let from = log(&cluster).len();
    let holder = cluster.holder().await;
    signal(&cluster.ns(&format!("c{holder}")), "haproxy", "KILL").await;
    answers(&cluster, 100).await;
    outage(&cluster, "haproxy killed, started again", from);

    // Nobody starts it again: the address must leave.
    let holder = cluster.holder().await;
    let from = log(&cluster).len();
    cluster.watched[holder - 1] = None;
    signal(&cluster.ns(&format!("c{holder}")), "haproxy", "KILL").await;
    until("another has it", || async { cluster.holders().await.iter().all(|h| *h != holder).then_some(()) }).await;
    let next = cluster.holder().await;
    answers(&cluster, 100).await;
    outage(&cluster, "haproxy killed for good", from);
    let watched = cluster.doors[holder - 1].watch().await.unwrap();
    cluster.watched[holder - 1] = Some(watched);
    answers(&cluster, 200).await;
    assert_eq!(cluster.holder().await, next, "it does not go back by itself");

    let from = log(&cluster).len();
    signal(&cluster.ns(&format!("c{next}")), "keepalived", "KILL").await;
    answers(&cluster, 200).await;
    outage(&cluster, "keepalived killed", from);
    let holder = cluster.holder().await;

    let from = log(&cluster).len();
    ip(Some(&switch), &format!("link set {} down", cluster.port(&format!("c{holder}")))).await.unwrap();
    until("another has it", || async { cluster.holders().await.iter().any(|h| *h != holder).then_some(()) }).await;
    answers(&cluster, 200).await;
    outage(&cluster, "link down", from);
    ip(Some(&switch), &format!("link set {} up", cluster.port(&format!("c{holder}")))).await.unwrap();
    answers(&cluster, 100).await;
    let next = cluster.holder().await;

    // What it sends arrives, what is sent to it does not: the others hear its adverts and would wait for ever.
    let from = log(&cluster).len();
    let port = cluster.port(&format!("c{next}"));
    supervise::run_in(Some(&switch), &["nft", &format!("add table netdev cut; add chain netdev cut out {{ type filter hook egress device {port} priority 0; policy drop; }}")])
        .await
        .unwrap();
    until("another has it", || async { cluster.holders().await.iter().any(|h| *h != next).then_some(()) }).await;
    answers(&cluster, 100).await;
    outage(&cluster, "link cut towards it", from);
    supervise::run_in(Some(&switch), &["nft", "delete table netdev cut"]).await.unwrap();
    answers(&cluster, 100).await;
    let holder = cluster.holder().await;

    let from = log(&cluster).len();
    cluster.kill(holder % 3 + 1);
    answers(&cluster, 300).await;
    outage(&cluster, "another API killed", from);
    cluster.serve(holder % 3 + 1);

    let from = log(&cluster).len();
    let paused = cluster.ns(&format!("c{}", (holder + 1) % 3 + 1));
    signal(&paused, "python3", "STOP").await;
    answers(&cluster, 300).await;
    outage(&cluster, "the third API paused", from);
    signal(&paused, "python3", "CONT").await;

    let from = log(&cluster).len();
    cluster.watched[holder - 1] = None;
    cluster.doors[holder - 1].stop(Duration::from_secs(5)).await.unwrap();
    answers(&cluster, 200).await;
    outage(&cluster, "stopped cleanly", from);
}
