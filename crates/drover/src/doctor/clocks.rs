//! Clocks: kept right by a program, and the same on all controllers. Leases do not care; certificates, tokens and logs do.
use super::{Finding, Look, PATIENCE, Role, cluster, error, ok, warning};
use cli::Client;
use std::{
    path::Path,
    time::{Duration, SystemTime},
};
use tokio::time::timeout;

/// HTTP tells whole seconds.
const GOOD: Duration = Duration::from_secs(2);
/// Tokens and certificates bear some minutes.
const BAD: Duration = Duration::from_secs(60);

pub(super) async fn look(look: &Look<'_>) -> Vec<Finding> {
    let mut all = vec![kept().await];
    if !matches!(look.role, Role::Controller | Role::Node) {
        return all;
    }
    for (address, url) in cluster::apis(look) {
        let Ok(client) = Client::anonymous(&url, Some(&pki::Files::of(&look.state.pki()).ca)) else { continue };
        // Whether it answers at all is another look's business.
        let before = SystemTime::now();
        let Ok(Ok(theirs)) = timeout(PATIENCE, client.clock()).await else { continue };
        all.push(judge(&address, theirs, before, SystemTime::now()));
    }
    all
}

fn judge(who: &str, theirs: SystemTime, before: SystemTime, after: SystemTime) -> Finding {
    let apart = |a: SystemTime, b: SystemTime| a.duration_since(b).unwrap_or_default();
    // A whole second is rounded down; anything between asking and hearing may be the moment that was meant.
    let off = apart(before, theirs + Duration::from_secs(1)).max(apart(theirs, after));
    let found = format!("the clock of {who} differs from this one by {} s", off.as_secs());
    let advice = "Certificates and tokens are judged by it. Run chrony (apt-get install chrony) on every machine, and set it now: chronyc makestep";
    if off > BAD {
        error("clock", found, advice)
    } else if off > GOOD {
        warning("clock", found, advice)
    } else {
        ok("clock", format!("the clock of {who} is as this one"))
    }
}

/// Is there a program that keeps this clock right, and does it?
async fn kept() -> Finding {
    let advice = "Run one: apt-get install chrony";
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        return ok("clock", "systemd-timesyncd keeps it right");
    }
    if let Ok(text) = supervise::run(&["chronyc", "-n", "tracking"]).await {
        let normal = text.lines().any(|l| l.starts_with("Leap status") && l.ends_with("Normal"));
        return match normal {
            true => ok("clock", "chrony keeps it right"),
            false => warning("clock", "chrony has not found the time yet", "See its servers: chronyc sources"),
        };
    }
    if let Ok(text) = supervise::run(&["timedatectl", "show", "--property=NTPSynchronized", "--value"]).await
        && text.trim() == "yes"
    {
        return ok("clock", "it is kept right, as systemd says");
    }
    warning("clock", "no program is known that keeps this machine's clock right", advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[test]
    fn differences_are_judged_without_the_time_that_asking_took() {
        let now = SystemTime::now();
        let s = Duration::from_secs;
        let level = |theirs| judge("c2", theirs, now, now + s(3)).level;
        assert_eq!([level(now), level(now + s(3)), level(now - s(1))], [Level::Ok; 3]);
        assert_eq!([level(now - s(10)), level(now + s(10))], [Level::Warning; 2]);
        assert_eq!([level(now - s(300)), level(now + s(300))], [Level::Error; 2]);
    }

    #[tokio::test]
    async fn a_wrong_clock_is_heard() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            let answer = "HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let theirs = Client::anonymous(&url, None).unwrap().clock().await.unwrap();
        server.await.unwrap();
        assert_eq!(theirs.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(), 784_111_777);
        let now = SystemTime::now();
        assert_eq!(judge("c2", theirs, now, now).level, Level::Error);
    }
}
