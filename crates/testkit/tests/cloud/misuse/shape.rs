//! What every error must look like, service by service.
use serde_json::Value;
use testkit::Answer;

/// Tells what is wrong with the form of an answer; `None` when it is as its service's clients expect.
pub(crate) fn complaint(method: &str, path: &str, answer: &Answer) -> Option<String> {
    if answer.header("x-openstack-request-id").is_empty() {
        return Some("there is no request id".into());
    }
    if answer.status < 400 || method == "HEAD" {
        return None;
    }
    let text = |pointer: &str| answer.at(pointer).as_str().is_some_and(|t| !t.trim().is_empty());
    let number = |pointer: &str| answer.at(pointer).as_u64() == Some(u64::from(answer.status));
    let one_key = |name: &str| answer.body.as_object().is_some_and(|o| o.len() == 1 && o.contains_key(name));
    let service = path.split(['/', '?']).nth(1).unwrap_or_default();
    let good = match service {
        // What keystonemiddleware says in front of every service.
        _ if answer.status == 401 => one_key("error") && number("/error/code") && text("/error/message"),
        "network" => one_key("NeutronError") && ["type", "message"].iter().all(|k| text(&format!("/NeutronError/{k}"))),
        "placement" => number("/errors/0/status") && text("/errors/0/detail") && text("/errors/0/code"),
        "image" => answer.header("content-type").starts_with("text/html") && html(answer),
        "compute" | "volume" => {
            let fault = answer.body.as_object().filter(|o| o.len() == 1).and_then(|o| o.values().next());
            fault.is_some_and(|f| f["code"] == answer.status && f["message"].as_str().is_some_and(|m| !m.is_empty()))
        }
        _ => one_key("error") && number("/error/code") && text("/error/title") && text("/error/message"),
    };
    let bounded = answer.bytes.len() < 16_384;
    match (good, bounded) {
        (true, true) => None,
        (false, _) => Some(format!("an error of {service} does not look like this: {}", shown(&answer.bytes))),
        (true, false) => Some(format!("the error is {} bytes long", answer.bytes.len())),
    }
}

fn html(answer: &Answer) -> bool {
    let text = String::from_utf8_lossy(&answer.bytes);
    let title = format!("<title>{} ", answer.status);
    text.contains(&title) && text.split("</h1>").nth(1).is_some_and(|rest| !rest.trim_start().starts_with("<br"))
}

/// The start of a body, for messages.
pub(crate) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(300).collect::<String>().replace('\n', " ")
}

/// A body without what differs from request to request.
pub(crate) fn without(answer: &Answer, ids: &[String]) -> String {
    let mut body = answer.body.clone();
    if let Some(Value::String(id)) = body.pointer_mut("/errors/0/request_id") {
        id.clear();
    }
    let mut text = if body.is_null() { String::from_utf8_lossy(&answer.bytes).into_owned() } else { body.to_string() };
    for id in ids {
        text = text.replace(id, "ID");
    }
    text
}
