//! The certificates of a machine of a cluster: in time, its own, of its authority, and with its key.
use super::{Finding, Look, Role, error, ok, warning};
use pki::{Files, Identity, Inspected};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(86_400);
/// It is renewed when a third of 90 days is left, so with less something keeps it from that.
const LATE: Duration = Duration::from_secs(27 * 86_400);
/// A new authority takes some planning.
const AUTHORITY: Duration = Duration::from_secs(180 * 86_400);

pub(super) fn look(look: &Look<'_>) -> Vec<Finding> {
    let role = match look.role {
        Role::Controller => pki::Role::Controller,
        Role::Node => pki::Role::Node,
        Role::New | Role::Whole { .. } => return Vec::new(),
    };
    let identity = Identity { role, name: look.config.name() };
    let dir = look.state.pki();
    let mut all = match pki::inspect(&Files::of(&dir)) {
        Ok(found) => judge(&found, &identity, look.now),
        Err(e) => vec![error("certificate", base::chain(&e), rejoin(role))],
    };
    if role == pki::Role::Controller
        && let Err(e) = pki::Ca::load(&dir).and_then(|ca| pki::Ca::of(ca.certificate(), ca.key()))
    {
        let advice = "Copy pki/ca.key of another controller here (mode 0600), or take it from a backup.";
        all.push(error("certificate", format!("the authority's key cannot be used: {}", base::chain(&e)), advice));
    }
    all
}

fn rejoin(role: pki::Role) -> &'static str {
    match role {
        pki::Role::Controller => "Make it anew from the authority's key: drover down; drover up",
        pki::Role::Node => {
            "Join again with a new token, which keeps the guests: drover join-token node on a controller, then here drover node --join TOKEN"
        }
    }
}

fn judge(found: &Inspected, identity: &Identity, now: SystemTime) -> Vec<Finding> {
    let mut all = Vec::new();
    let days = |d: Duration| d.as_secs() / DAY.as_secs();
    let again = rejoin(identity.role);
    match found.not_after.duration_since(now) {
        Err(e) => all.push(error("certificate", format!("the certificate expired {} days ago", days(e.duration())), again)),
        Ok(left) if left < LATE => {
            let advice = format!("It should have been renewed; see run/drover/serve.log for `certificate`. {again}");
            all.push(warning("certificate", format!("the certificate expires in {} days", days(left)), advice));
        }
        Ok(left) => all.push(ok("certificate", format!("good for {} days, for {identity}", days(left)))),
    }
    if found.not_before > now {
        let advice = "The clock of this machine, or of the controller that signed it, is wrong. Set it right.";
        all.push(error("certificate", "the certificate is of a time that has not come", advice));
    }
    if found.identity.as_ref() != Some(identity) {
        let whose = found.identity.as_ref().map_or_else(|| "nobody of a cluster".to_owned(), ToString::to_string);
        all.push(error("certificate", format!("the certificate is of {whose}, and this is {identity}"), again));
    }
    if !found.by_authority {
        all.push(error("certificate", "the certificate was not signed by pki/ca.pem", again));
    }
    if !found.for_key {
        all.push(error("certificate", "pki/key.pem is not the certificate's key", again));
    }
    match found.authority_not_after.duration_since(now) {
        Err(_) => all.push(error(
            "certificate",
            "the cluster's authority has expired",
            "Restore the cluster from a backup, which makes a new one.",
        )),
        Ok(left) if left < AUTHORITY => {
            let advice = "No certificate is good beyond it. Plan a restore from a backup, which makes a new authority; hosts and clients need it.";
            all.push(warning("certificate", format!("the cluster's authority expires in {} days", days(left)), advice));
        }
        Ok(_) => {}
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;
    use pki::{Ca, Issued};

    fn made(dir: &std::path::Path, ca: &Ca, identity: &Identity) -> Inspected {
        let files = Files::of(dir);
        let request = files.request().unwrap();
        files.keep(&ca.sign(&request.csr_pem, identity, &[]).unwrap()).unwrap();
        pki::inspect(&files).unwrap()
    }

    fn levels(found: &[Finding]) -> Vec<Level> {
        found.iter().map(|f| f.level).collect()
    }

    #[test]
    fn every_fault_of_a_certificate_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::create("c").unwrap();
        let me = Identity { role: pki::Role::Controller, name: "c1".into() };
        let now = SystemTime::now();
        let good = made(dir.path(), &ca, &me);
        assert_eq!(levels(&judge(&good, &me, now)), [Level::Ok]);
        assert_eq!(levels(&judge(&good, &me, now + DAY * 70)), [Level::Warning]);
        let expired = judge(&good, &me, now + DAY * 100);
        assert!(expired[0].level == Level::Error && expired[0].found.contains("expired 10 days ago"), "{expired:?}");
        let before = judge(&good, &me, now - DAY);
        assert!(before.iter().any(|f| f.found.contains("has not come")), "{before:?}");
        let other = Identity { name: "c2".into(), ..me.clone() };
        assert!(judge(&good, &other, now)[1].found.contains("is of controller c1, and this is controller c2"));
        assert!(judge(&good, &me, now + DAY * 3500).iter().any(|f| f.found.contains("authority expires")));

        // Another key, then another authority of the same name.
        let files = Files::of(dir.path());
        let stranger = pki::Request::new().unwrap();
        std::fs::write(&files.key, &stranger.key_pem).unwrap();
        let wrong_key = judge(&pki::inspect(&files).unwrap(), &me, now);
        assert!(wrong_key.iter().any(|f| f.found.contains("key.pem is not")), "{wrong_key:?}");
        let other_ca = Ca::create("c").unwrap();
        let issued = ca.sign(&stranger.csr_pem, &me, &[]).unwrap();
        files.keep(&Issued { ca_pem: other_ca.certificate().to_owned(), ..issued }).unwrap();
        let wrong_ca = judge(&pki::inspect(&files).unwrap(), &me, now);
        assert!(wrong_ca.iter().any(|f| f.found.contains("not signed by")), "{wrong_ca:?}");
        std::fs::write(&files.certificate, "nothing").unwrap();
        assert!(pki::inspect(&files).is_err());
    }
}
