//! Requests as guests make them, without a wire.
use super::{super::tests::*, *};
use assign::{PasswordReport, Report};
use serde_json::json;

const PLACE: &str = "/openstack/2013-10-17/password";

fn desk(controllers: &Arc<Controllers>) -> Arc<Desk> {
    let desk = Arc::new(Desk::new(controllers.clone()));
    desk.directory.publish(&server("a", "n", "10.0.0.5"));
    desk
}
/// Status and body of the answer to the server `a`, or to who has its address.
async fn ask(desk: &Desk, method: Method, path: &str, body: &[u8]) -> (u16, String) {
    let request = Request::builder().method(method).uri(path).body(Full::new(Bytes::copy_from_slice(body))).unwrap();
    let answer = answer(desk, "n", "10.0.0.5".parse().unwrap(), request).await;
    let status = answer.status().as_u16();
    (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().into()).unwrap())
}
async fn post(desk: &Desk, body: &[u8]) -> u16 {
    ask(desk, Method::POST, PLACE, body).await.0
}
fn told(password: &str) -> Report {
    Report::Password(PasswordReport { server_id: "a".into(), epoch: 1, password: password.into() })
}

#[tokio::test(start_paused = true)]
async fn a_password_is_kept_once_and_shown() {
    let controllers = Arc::new(Controllers::refusing(2));
    let desk = desk(&controllers);
    assert_eq!(ask(&desk, Method::GET, PLACE, b"").await, (200, String::new()));
    assert_eq!(ask(&desk, Method::POST, PLACE, b"cGFzcw==").await, (200, String::new()));
    assert_eq!(controllers.taken(), [told("cGFzcw==")], "it is told again until it is taken, then no more");
    assert_eq!(ask(&desk, Method::GET, "/openstack/latest/password", b"").await, (200, "cGFzcw==".into()));
    assert_eq!(post(&desk, b"other").await, 409);
    // The user cleared it.
    desk.directory.publish(&server("a", "n", "10.0.0.5"));
    assert_eq!(post(&desk, b"other").await, 200);
    assert_eq!(controllers.taken(), [told("cGFzcw=="), told("other")]);
}

#[tokio::test]
async fn what_is_assigned_is_what_counts() {
    let controllers = Arc::new(Controllers::default());
    let desk = desk(&controllers);
    let mut assigned = assign::ServerAssignment::clone(&server("a", "n", "10.0.0.5"));
    assigned.guest = Arc::new(assign::GuestData { password: Some("kept".into()), meta_data: json!({}), ..Default::default() });
    desk.directory.publish(&Arc::new(assigned));
    assert_eq!(ask(&desk, Method::GET, PLACE, b"").await, (200, "kept".into()));
    assert_eq!(post(&desk, b"other").await, 409);
    assert!(controllers.taken().is_empty());
}

#[tokio::test]
async fn refused_are_other_places_methods_and_bodies() {
    let controllers = Arc::new(Controllers::default());
    let desk = desk(&controllers);
    for (method, path) in [
        (Method::POST, "/openstack/2012-08-10/password"),
        (Method::POST, "/openstack/latest/user_data"),
        (Method::POST, "/"),
        (Method::PUT, PLACE),
        (Method::DELETE, PLACE),
    ] {
        assert_eq!(ask(&desk, method.clone(), path, b"x").await.0, 405, "{method} {path}");
    }
    assert_eq!(post(&desk, &[b'x'; LONGEST_PASSWORD + 1]).await, 400);
    assert_eq!(post(&desk, b"\xff").await, 400);
    assert_eq!(desk.leave("n", "10.0.0.6".parse().unwrap(), "a", "x".into()).await, Outcome::Gone);
    assert!(controllers.taken().is_empty());
    assert_eq!(post(&desk, &[b'x'; LONGEST_PASSWORD]).await, 200);
    desk.directory.withdraw("a");
    assert_eq!(post(&desk, b"x").await, 404);
}

#[tokio::test(start_paused = true)]
async fn a_guest_hears_that_controllers_are_away_and_may_try_again() {
    let controllers = Arc::new(Controllers::default());
    let desk = desk(&controllers);
    let gate = controllers.gate.lock().await;
    let (first, second) = tokio::join!(biased; post(&desk, b"one"), post(&desk, b"two"));
    assert_eq!((first, second), (503, 409), "a second is refused while the first is on its way");
    drop(gate);
    assert_eq!(post(&desk, b"two").await, 200);
    assert_eq!(controllers.taken(), [told("two")]);
}
