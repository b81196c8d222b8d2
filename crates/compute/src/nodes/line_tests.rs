//! Agents that go from one process of the cloud to another.
use super::testbed::{Bed, Has, host_report, network_rows, port_row, ports, server_row, servers, until};
use assign::{Query, QueryError, Report};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

async fn serve_a_server(bed: &Bed, id: &str) {
    let port = format!("port-{id}");
    let mut rows = network_rows("n");
    rows.push((servers(), id.to_owned(), server_row(id, "a", &[&port])));
    rows.push((ports(), port.clone(), port_row(&port, id, "n", "a")));
    bed.put(rows).await;
}

#[tokio::test]
async fn what_was_committed_elsewhere_before_an_agent_comes_is_in_its_first_set() {
    let one = Bed::start().await;
    let other = one.beside("127.0.0.1:1").await;
    for n in 0..50 {
        // An agent destroys what is missing from its first set.
        serve_a_server(&one, &format!("s{n:02}")).await;
        let line = tokio::time::timeout(Duration::from_secs(20), other.nodes.join_now("a")).await.unwrap().unwrap();
        assert_eq!(line.assignments().borrow().servers.len(), n + 1);
    }
}

#[tokio::test]
async fn questions_go_to_the_process_where_the_node_sits() {
    let one = Bed::start().await;
    let other = one.beside("127.0.0.1:7").await;
    serve_a_server(&one, "s").await;
    let line = other.nodes.join_now("a").await.unwrap();
    line.report(vec![Report::Host(host_report())]).await.unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = asked.clone();
    one.nodes.reach(Box::new(move |line, host| {
        noted.lock().unwrap().push(format!("{host} at {line}"));
        Some(Arc::new(Has(vec!["s".into()])))
    }));
    until("the seat is known", || one.nodes.agent("a").is_some()).await;
    let question = Query::ConsoleLog { server_id: "s".into(), lines: None };
    one.nodes.agent("a").unwrap().query(question.clone()).await.unwrap();
    assert_eq!(asked.lock().unwrap().last().unwrap(), "a at 127.0.0.1:7");
    assert!(one.nodes.agent("b").is_none(), "nobody sits there");
    // One's own agents are asked at once.
    one.nodes.attach("a", Arc::new(Has(vec![])));
    let answer = one.nodes.agent("a").unwrap().query(question).await;
    assert!(matches!(answer, Err(QueryError::NotHere(_))));
}
