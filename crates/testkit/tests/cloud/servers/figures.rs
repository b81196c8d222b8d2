//! Work that must not grow: a list of a thousand servers.
use crate::bed::{Bed, SERVERS};
use serde_json::json;
use std::time::Instant;

#[tokio::test]
async fn a_thousand_servers_are_listed_at_once() {
    let bed = Bed::start(1).await;
    let id = bed.server(json!({})).await;
    let copies = bed.cloud.cloud.registry.get("compute/servers").unwrap();
    let table = copies.table;
    bed.cloud
        .cloud
        .db
        .transact(move |tx| -> resource::Result<()> {
            let row = tx.get(&table, &id).unwrap();
            for i in 0..999 {
                let mut copy = row.value().clone();
                let id = base::id::named(&format!("copy {i}"));
                copy["id"] = json!(id);
                copy["node_id"] = json!(null);
                copy["host"] = json!(null);
                tx.put(&table, &id, copy);
            }
            Ok(())
        })
        .await
        .unwrap();
    let path = format!("{SERVERS}/detail");
    bed.member.get(&path).await.expect(200);
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        let list = bed.member.get(&path).await.expect(200);
        best = best.min(start.elapsed().as_secs_f64());
        assert_eq!(list.body["servers"].as_array().unwrap().len(), 1000);
    }
    // The bound is generous for builds without optimisation on busy machines; a scan per server would take seconds.
    assert!(best < 1.0, "{best} s");
    eprintln!("1,000 servers with details: {:.1} ms", best * 1000.0);
}
