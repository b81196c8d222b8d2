//! The one password that each guest may leave for its user.
//!
//! The guest is told that it is kept only when the control plane has it durably. Until the next assignment says so too, what was left
//! is shown from here; a second one is refused, also while the first is on its way.
use super::Directory;
use assign::{PasswordReport, Report, Uplink};
use base::retry::Backoff;
use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Bytes; Nova's limit.
pub(super) const LONGEST_PASSWORD: usize = 1020;
/// Time that a guest waits for the control plane.
const DELIVERY: Duration = Duration::from_secs(30);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// What became of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Kept,
    /// There is one already, or one is on its way.
    Taken,
    /// The server left this node, or its address, meanwhile.
    Gone,
    Unreachable,
}

/// Where guests ask, and leave their passwords.
pub(super) struct Desk {
    pub(super) directory: Directory,
    uplink: Arc<dyn Uplink>,
    /// Servers whose password is on its way.
    under_way: Mutex<HashSet<String>>,
}

impl Desk {
    pub(super) fn new(uplink: Arc<dyn Uplink>) -> Self {
        Self { directory: Directory::default(), uplink, under_way: Mutex::default() }
    }
    fn under_way(&self) -> MutexGuard<'_, HashSet<String>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the password over; returns when it is durable. The server must still be the one that asked when its turn comes.
    pub(super) async fn leave(&self, network_id: &str, peer: IpAddr, server_id: &str, password: String) -> Outcome {
        if !self.under_way().insert(server_id.to_owned()) {
            return Outcome::Taken;
        }
        let _turn = Turn { desk: self, server_id };
        let Some(server) = self.directory.find(network_id, peer).filter(|s| s.id == server_id) else { return Outcome::Gone };
        if server.guest.password.is_some() {
            return Outcome::Taken;
        }
        let report = PasswordReport { server_id: server.id.clone(), epoch: server.epoch, password };
        if tokio::time::timeout(DELIVERY, self.deliver(&report)).await.is_err() {
            return Outcome::Unreachable;
        }
        if !report.password.is_empty() {
            self.directory.show_password(&server, &report.password);
        }
        Outcome::Kept
    }

    async fn deliver(&self, report: &PasswordReport) {
        let mut failures = 0;
        while let Err(error) = self.uplink.report(vec![Report::Password(report.clone())]).await {
            tracing::warn!(%error, server = report.server_id, "a guest's password waits for the controllers");
            tokio::time::sleep(BACKOFF.jittered(failures)).await;
            failures = failures.saturating_add(1);
        }
    }
}

/// Ends with the delivery, also when the guest hangs up.
struct Turn<'a> {
    desk: &'a Desk,
    server_id: &'a str,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.desk.under_way().remove(self.server_id);
    }
}
