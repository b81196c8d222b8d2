//! An operator: declares a host dead that has lost its power, and has its servers built anew elsewhere before it may come back.
use crate::door::{Asked, Door};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

/// After this nothing of a request that was not answered can come to be: no process is stopped for longer, and then its client has left.
const OVER: Duration = Duration::from_secs(100);

pub(crate) struct Operator {
    /// With the administrator's token.
    pub(crate) door: Door,
}

impl Operator {
    /// Returns when nothing more will be moved away from the host.
    pub(crate) async fn evacuate(&self, host: &str) {
        self.force_down(host, true).await;
        let list = format!("/compute/v2.1/servers/detail?all_tenants=1&host={host}");
        let Some(listed) = self.door.insist(&Asked::new("GET", &list, Value::Null)).await else { return };
        let mut is_sure = true;
        for server in listed.body["servers"].as_array().into_iter().flatten() {
            let path = format!("/compute/v2.1/servers/{}/action", server["id"].as_str().unwrap_or_default());
            let asked = Asked::new("POST", &path, json!({"evacuate": {}}));
            while self.door.send(&asked).await.is_none() {
                is_sure = false;
                sleep(Duration::from_secs(1)).await;
            }
        }
        if !is_sure {
            sleep(OVER).await;
        }
    }

    pub(crate) async fn is_back(&self, host: &str) {
        self.force_down(host, false).await;
    }

    async fn force_down(&self, host: &str, down: bool) {
        let path = format!(
            "/compute/v2.1/os-services/{}",
            base::id::named(&format!("nova-compute {}", base::id::named(&format!("node/{host}"))))
        );
        self.door.insist(&Asked::new("PUT", &path, json!({ "forced_down": down }))).await;
    }
}
