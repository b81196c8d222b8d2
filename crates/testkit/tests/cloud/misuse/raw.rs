//! Below HTTP: what a broken or a hostile client may put on the socket.
//!
//! The server may refuse with 4xx or hang up; it must not answer 5xx, mix up pipelined answers or be gone afterwards.
use crate::bed::Bed;
use std::time::Duration;
use testkit::{Client, TestCloud};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(10);

async fn connect(url: &str) -> TcpStream {
    TcpStream::connect(url.trim_start_matches("http://")).await.expect("the cloud listens")
}

/// Sends bytes, ends the sending side, and gives all that comes back.
async fn exchange(url: &str, bytes: &[u8]) -> String {
    let mut socket = connect(url).await;
    // The server may hang up before it has read everything.
    socket.write_all(bytes).await.ok();
    socket.shutdown().await.ok();
    let mut out = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut out)).await.expect("the server answers or hangs up").ok();
    String::from_utf8_lossy(&out).into_owned()
}

fn statuses(answer: &str) -> Vec<u16> {
    let starts = answer.split("HTTP/1.").skip(1);
    starts.filter_map(|s| s.get(2..5)?.parse().ok()).collect()
}

/// Requests that are none: name and bytes.
fn broken(token: &str) -> Vec<(&'static str, Vec<u8>)> {
    let post = |headers: &str, body: &str| {
        let start = "POST /network/v2.0/networks HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n";
        format!("{start}x-auth-token: {token}\r\n{headers}\r\n{body}").into_bytes()
    };
    let get = |line: &str, headers: &str| format!("{line}\r\nhost: h\r\nx-auth-token: {token}\r\n{headers}\r\n").into_bytes();
    let many = (0..2000).map(|i| format!("x-h{i}: v\r\n")).collect::<String>();
    vec![
        ("nothing", Vec::new()),
        ("noise", (0..=255).cycle().take(4096).collect()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("HTTP/0.9", b"GET /\r\n".to_vec()),
        ("version 9.9", get("GET / HTTP/9.9", "")),
        ("no host", b"GET /identity/v3 HTTP/1.1\r\n\r\n".to_vec()),
        ("long line", get(&format!("GET /{} HTTP/1.1", "a".repeat(200_000)), "")),
        ("long header", get("GET / HTTP/1.1", &format!("x-long: {}\r\n", "a".repeat(600_000)))),
        ("many headers", get("GET / HTTP/1.1", &many)),
        ("header with NUL", get("GET / HTTP/1.1", "x-a: a\0b\r\n")),
        ("header without colon", get("GET / HTTP/1.1", "x-a\r\n")),
        ("folded header", get("GET / HTTP/1.1", "x-a: a\r\n b\r\n")),
        ("bytes in the path", b"GET /image/v2/images/\xff\xfe HTTP/1.1\r\nhost: h\r\n\r\n".to_vec()),
        ("NUL in the path", get("GET /image/v2/\0 HTTP/1.1", "")),
        ("space in the path", get("GET /image/v2/a b HTTP/1.1", "")),
        ("fragment in the path", get("GET /image/v2/images#x HTTP/1.1", "")),
        ("absolute form", get("GET http://other/network/v2.0/networks HTTP/1.1", "")),
        ("CONNECT", get("CONNECT h:80 HTTP/1.1", "")),
        ("star", get("OPTIONS * HTTP/1.1", "")),
        ("odd method", get("G\u{e9}T / HTTP/1.1", "")),
        ("length of text", post("content-length: abc\r\n", "{}")),
        ("negative length", post("content-length: -1\r\n", "{}")),
        ("huge length", post("content-length: 99999999999999999999999\r\n", "{}")),
        ("two lengths", post("content-length: 2\r\ncontent-length: 3\r\n", "{}x")),
        ("length and chunks", post("content-length: 4\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\nGET / HTTP/1.1\r\n\r\n")),
        ("short body", post("content-length: 500\r\n", "{\"network\": {\"name\": \"short\"}}")),
        ("chunk of text", post("transfer-encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n")),
        ("huge chunk", post("transfer-encoding: chunked\r\n", "ffffffffffffffffff\r\n{}\r\n0\r\n\r\n")),
        ("negative chunk", post("transfer-encoding: chunked\r\n", "-2\r\n{}\r\n0\r\n\r\n")),
        ("chunk without end", post("transfer-encoding: chunked\r\n", "1e\r\n{\"network\": {\"name\": \"short\"}}\r\n")),
        ("chunk too long", post("transfer-encoding: chunked\r\n", "2\r\n{}xxxx\r\n0\r\n\r\n")),
        (
            "long chunk extension",
            post("transfer-encoding: chunked\r\n", &format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "a".repeat(100_000))),
        ),
        ("unknown encoding", post("transfer-encoding: gzip\r\n", "{}")),
        ("encodings", post("transfer-encoding: chunked, identity\r\n", "0\r\n\r\n")),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_client_harms_nobody() {
    let cloud = Bed::start(0).await;
    let (url, token) = (cloud.cloud.url.clone(), cloud.member.token.clone().unwrap());
    let networks = cloud.member.get("/network/v2.0/networks").await.expect(200).body;
    let mut wrong = Vec::new();
    for (name, bytes) in broken(&token) {
        let answer = exchange(&url, &bytes).await;
        if statuses(&answer).iter().any(|s| *s >= 500) {
            wrong.push(format!("{name}: {}", answer.chars().take(400).collect::<String>()));
        }
        assert_eq!(cloud.cloud.anonymous().get("/livez").await.status, 200, "after {name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(cloud.member.get("/network/v2.0/networks").await.body, networks, "a part of a body made something");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    let cloud = TestCloud::start().await;
    let paths = [("/identity/v3", 200), ("/identity", 300), ("/nowhere", 401), ("/identity/v3/users", 401)];
    let eighty = || paths.iter().cycle().take(80);
    let all: String = eighty().map(|(p, _)| format!("GET {p} HTTP/1.1\r\nhost: h\r\n\r\n")).collect();
    let mut socket = connect(&cloud.url).await;
    socket.write_all(all.as_bytes()).await.unwrap();
    let (mut answer, mut part) = (Vec::new(), vec![0; 65_536]);
    let mut seen = Vec::new();
    while seen.len() < 80 {
        let read = timeout(PATIENCE, socket.read(&mut part)).await.expect("the server goes on answering").unwrap();
        assert!(read > 0, "the server hung up after {} answers", seen.len());
        answer.extend_from_slice(&part[..read]);
        seen = statuses(&String::from_utf8_lossy(&answer));
    }
    let expected: Vec<u16> = eighty().map(|(_, status)| *status).collect();
    assert_eq!(seen, expected);
}

async fn half_an_upload(url: &str, client: &Client, id: &str, headers: &str, body: &str) {
    let token = client.token.clone().unwrap();
    let head = format!(
        "PUT /image/v2/images/{id}/file HTTP/1.1\r\nhost: h\r\nx-auth-token: {token}\r\ncontent-type: application/octet-stream\r\n{headers}\r\n{body}"
    );
    exchange(url, head.as_bytes()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_breaks_off_leaves_the_image_as_it_was() {
    let bed = Bed::start(0).await;
    let body = serde_json::json!({"name": "i", "disk_format": "raw", "container_format": "bare"});
    let id = bed.member.post("/image/v2/images", body).await.expect(201).text("/id");
    for (headers, part) in [
        ("content-length: 1000\r\n", "only this"),
        ("transfer-encoding: chunked\r\n", "9\r\nonly this\r\n"),
        ("transfer-encoding: chunked\r\n", "9\r\nonly this\r\nzz\r\n"),
    ] {
        half_an_upload(&bed.cloud.url, &bed.member, &id, headers, part).await;
        let path = format!("/image/v2/images/{id}");
        let queued = |a: &testkit::Answer| a.at("/status") == "queued" && a.at("/size").is_null() && a.at("/checksum").is_null();
        testkit::until("the image waits for its data again", || bed.member.get(&path), queued).await;
    }
    let path = format!("/image/v2/images/{id}/file");
    bed.member.send_bytes("PUT", &path, "application/octet-stream", "all of it".into()).await.expect(204);
}

/// A client that sends 10 MB reads the answer when it has sent them, so the server must not hang up before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_that_nobody_wants_gets_its_answer() {
    let bed = Bed::start(0).await;
    let large = bytes::Bytes::from(format!("{{\"network\": {{\"name\": \"{}\"}}}}", "x".repeat(10_000_000)));
    let (nobody, member) = (bed.cloud.anonymous(), bed.member.clone());
    let absent = format!("/image/v2/images/{}/file", base::id::uuid());
    for _ in 0..10 {
        for (client, method, path, status) in [
            (&nobody, "POST", "/network/v2.0/networks", 401),
            (&member, "POST", "/network/v2.0/networks", 413),
            (&member, "POST", "/placement/resource_providers", 403),
            (&member, "POST", "/compute/v2.1/nothing", 404),
            (&member, "POST", "/nothing", 404),
            (&member, "PATCH", "/network/v2.0/networks", 405),
            (&member, "GET", "/network/v2.0/networks", 200),
            (&member, "PUT", absent.as_str(), 404),
            (&nobody, "PUT", absent.as_str(), 401),
        ] {
            let media = if path.ends_with("/file") { "application/octet-stream" } else { "application/json" };
            let answer = client.send_bytes(method, path, media, large.clone()).await;
            assert_eq!(answer.status, status, "{method} {path}");
        }
    }
}
