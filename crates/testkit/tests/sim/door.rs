//! How clients reach the cloud: any controller, with time-outs, and repeats where a repeat is safe.
use crate::{
    chance::Dice,
    controller::{Answer, Controller},
    trace::Trace,
};
use axum::{body::Body, http::Request};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(25);
/// Repeats before a client gives up on a cloud that has healed long ago.
const REPEATS: usize = 120;

#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) trace: Arc<Trace>,
    pub(crate) controllers: Vec<Arc<Controller>>,
    pub(crate) dice: Arc<Dice>,
    pub(crate) token: String,
}

/// Of the compute service.
const VERSION: &str = "compute 2.90";

/// One request as a client sends it.
#[derive(Clone)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) body: Value,
    pub(crate) key: Option<&'a str>,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(method: &'a str, path: &'a str, body: Value) -> Self {
        Self { method, path, body, key: None }
    }
    /// To be carried out once, however often it is sent.
    pub(crate) fn keyed(self, key: &'a str) -> Self {
        Self { key: Some(key), ..self }
    }
}

impl Door {
    /// Sends it once; `None`: what became of it is not known.
    pub(crate) async fn send(&self, asked: &Asked<'_>) -> Option<Answer> {
        let controller = self.dice.pick(&self.controllers)?.clone();
        let was_troubled = controller.is_troubled();
        let mut request = Request::builder().method(asked.method).uri(asked.path).header("x-auth-token", &self.token);
        request = request.header("openstack-api-version", VERSION);
        if let Some(key) = asked.key {
            request = request.header("idempotency-key", format!("\"{key}\""));
        }
        let bytes = if asked.body.is_null() { String::new() } else { asked.body.to_string() };
        if !bytes.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Body::from(bytes)).unwrap();
        // Names of others' things are long.
        let told = format!("{} {}{}", asked.method, asked.path, asked.key.map_or(String::new(), |k| format!(" key {k}")));
        self.trace.note(&format!("{} <- {told}", controller.name));
        let answer = timeout(PATIENCE, controller.call(request)).await.ok().flatten();
        match &answer {
            None => self.trace.note(&format!("{} gives no answer to {told}", controller.name)),
            Some(a) => {
                let replayed = if a.headers.contains_key("idempotency-replayed") { " again" } else { "" };
                self.trace.note(&format!("{} -> {}{replayed} to {told}", controller.name, a.status));
                let is_excused = a.status == 503 && (was_troubled || controller.is_troubled());
                if a.status >= 500 && !is_excused {
                    self.trace.violation(&format!("{} answered {} to {told}: {}", controller.name, a.status, a.body));
                }
                // Actions may find things in any state.
                let is_action =
                    asked.path.ends_with("/action") || asked.path.contains("/os-volume_attachments") || asked.method == "DELETE";
                if a.status == 400 && !is_action || a.status == 401 || a.status == 422 {
                    self.trace.violation(&format!("{} refused {told} with {}: {}", controller.name, a.status, a.body));
                }
            }
        }
        // A 503 may be that of a commit whose outcome could not be learnt.
        answer.filter(|a| a.status < 500)
    }

    /// Sends it until there is an answer. Only for what may be repeated.
    pub(crate) async fn insist(&self, asked: &Asked<'_>) -> Option<Answer> {
        for _ in 0..REPEATS {
            if let Some(answer) = self.send(asked).await {
                return Some(answer);
            }
            sleep(self.dice.seconds(0.05..2.0)).await;
        }
        self.trace.violation(&format!("{} {} was never answered", asked.method, asked.path));
        None
    }
}
