//! How the lab is, host by host.
use crate::{
    Error,
    host::{Host, Lab, Role, VIP},
    net, power, process,
};
use serde::Serialize;
use std::net::Ipv4Addr;
use supervise::run_in;

/// One host as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    pub host: String,
    pub address: String,
    /// `on`, `off`, or `paused` when none of its processes runs.
    pub power: String,
    /// `up`, `unplugged`, `cut`, `cut in`, `cut out`.
    pub link: String,
    /// The cluster's public address is on it.
    pub vip: bool,
    /// Of each kind, how many.
    pub processes: std::collections::BTreeMap<String, usize>,
    /// What its API says to the client: `ready`, `not ready`, `silent`; none for other hosts.
    pub api: Option<String>,
}

impl Status {
    pub const COLUMNS: [&str; 7] = ["HOST", "ADDRESS", "POWER", "LINK", "VIP", "API", "PROCESSES"];

    /// For a table with [`Self::COLUMNS`].
    pub fn row(&self) -> Vec<String> {
        let count = |(kind, n): (&String, &usize)| if *n == 1 { kind.clone() } else { format!("{kind}×{n}") };
        vec![
            self.host.clone(),
            self.address.clone(),
            self.power.clone(),
            self.link.clone(),
            if self.vip { "yes".into() } else { String::new() },
            self.api.clone().unwrap_or_default(),
            self.processes.iter().map(count).collect::<Vec<_>>().join(" "),
        ]
    }
}

/// The hosts that have power, in the order of their names; the client's has none.
pub(crate) async fn status(lab: &Lab) -> Result<Vec<Status>, Error> {
    let hosts: Vec<Host> = lab.shape.hosts().into_iter().filter(|h| h.role != Role::Client).collect();
    let links = net::links(lab, &hosts).await?;
    let mut asked = Vec::new();
    for host in &hosts {
        let (lab, host) = (lab.clone(), host.clone());
        asked.push(tokio::spawn(async move { one(&lab, &host).await }));
    }
    let mut all = Vec::new();
    for (asked, link) in asked.into_iter().zip(links) {
        let mut status = asked.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
        status.link = link.to_string();
        all.push(status);
    }
    Ok(all)
}

async fn one(lab: &Lab, host: &Host) -> Result<Status, Error> {
    let init = power::init(lab, host);
    let mut processes = init.map(|i| process::of(i.pid)).unwrap_or_default();
    // The first process waits by it.
    processes.retain(|p| p.kind != "sleep");
    let paused = !processes.is_empty() && processes.iter().all(|p| p.stopped);
    let api = match host.role {
        Role::Controller => Some(match ready(lab, host.address, 8776).await {
            Some(200) => "ready",
            Some(_) => "not ready",
            None => "silent",
        }),
        Role::Node | Role::Client => None,
    };
    let addresses = run_in(Some(&host.netns), &["ip", "-br", "addr", "show", "dev", "eth0"]).await?;
    Ok(Status {
        host: host.name.clone(),
        address: host.address.to_string(),
        power: if init.is_none() {
            "off"
        } else if paused {
            "paused"
        } else {
            "on"
        }
        .into(),
        link: String::new(),
        vip: addresses.split_whitespace().any(|a| a.split('/').next() == Some(&VIP.to_string())),
        processes: process::kinds(&processes),
        api: api.map(str::to_owned),
    })
}

/// What the client is answered at `/readyz`.
pub(crate) async fn ready(lab: &Lab, address: Ipv4Addr, port: u16) -> Option<u16> {
    let client = lab.shape.hosts().pop()?.netns;
    let (ca, url) = (lab.ca().display().to_string(), format!("https://{address}:{port}/readyz"));
    let ask = ["curl", "-s", "-o", "/dev/null", "-m", "2", "--cacert", &ca, "-w", "%{http_code}", &url];
    let code = run_in(Some(&client), &ask).await.ok()?;
    code.trim().parse().ok().filter(|c| *c != 0)
}
