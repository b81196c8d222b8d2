//! What runs: the APIs, etcd's members, the line, the front door, hosts and tasks.
use super::{Finding, Look, PATIENCE, Role, bytes, error, ok, warning};
use crate::{
    config::{Config, State},
    controller::{API, LINK, Seat},
    demo, door,
    engine::{self, Place},
};
use cli::Client;
use serde_json::Value;
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use store_etcd::member::{Alarms, Cluster, Error, Health, QUOTA};
use tokio::{net::TcpStream, time::timeout};

/// Revisions that a member may be behind while all is well.
const LAG: u64 = 1000;
/// Each member reads all that it has, three times at most.
const COMPARED: Duration = Duration::from_secs(60);

/// Controllers of this machine's cluster, by address.
fn controllers(look: &Look<'_>) -> Vec<IpAddr> {
    let hosts = |list: &[String]| list.iter().filter_map(|m| m.parse::<SocketAddr>().ok()).map(|a| a.ip()).collect::<Vec<_>>();
    let mut all = match (&look.config.store, &look.config.controller, &look.config.node) {
        (Place::Etcd { members, .. }, Some(c), _) if c.etcd != Seat::External => hosts(members),
        (_, Some(c), _) => vec![c.address],
        (_, None, Some(node)) => {
            // Those of now, where it has heard of them.
            let heard = std::fs::read(look.state.dir().join("controllers.json")).ok();
            let heard = heard.and_then(|b| serde_json::from_slice::<Vec<String>>(&b).ok()).unwrap_or_default();
            hosts(if heard.is_empty() { &node.controllers } else { &heard })
        }
        (_, None, None) => Vec::new(),
    };
    all.sort();
    all.dedup();
    all
}

/// The APIs of each controller: the name for people, and the URL.
pub(super) fn apis(look: &Look<'_>) -> Vec<(String, String)> {
    controllers(look).into_iter().map(|a| (a.to_string(), format!("https://{}", SocketAddr::new(a, API)))).collect()
}

pub(super) async fn look(look: &Look<'_>) -> Vec<Finding> {
    if look.role == Role::New {
        return Vec::new();
    }
    let (apis, etcd, door) = tokio::join!(ready(look), etcd(look), front_door(look));
    let mut all: Vec<Finding> = apis.into_iter().chain(etcd).chain(door).collect();
    all.extend(line(look).await);
    if look.role != Role::Node {
        all.extend(hosts_and_tasks(look.state, look.config).await);
    }
    all
}

/// Who can serve right now.
async fn ready(look: &Look<'_>) -> Vec<Finding> {
    let asked = match look.role {
        Role::Whole { .. } => vec![("this machine".to_owned(), look.config.local_endpoint())],
        Role::Controller | Role::Node => apis(look),
        Role::New => Vec::new(),
    };
    let ca = matches!(look.role, Role::Controller | Role::Node).then(|| pki::Files::of(&look.state.pki()).ca);
    let mut all = Vec::new();
    for (who, url) in asked {
        let asked = match Client::anonymous(&url, ca.as_deref()) {
            Ok(client) => timeout(PATIENCE, async move { client.get("/readyz").await.map(|_| ()) }).await,
            Err(e) => Ok(Err(e)),
        };
        let why = match asked {
            Ok(Ok(())) => {
                all.push(ok("API", format!("{who} serves at {url}")));
                continue;
            }
            Ok(Err(cli::Error::Refused { status: 404, .. })) => "it finishes what it has and stops".to_owned(),
            Ok(Err(cli::Error::Refused { status, message, .. })) => format!("{status}: {message}"),
            Ok(Err(cli::Error::Unreachable { cause, .. })) => cause,
            Ok(Err(e)) => e.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        let advice = "On that machine: drover doctor, drover up, and the log run/drover/serve.log. If it is gone for good: drover controller remove NAME";
        all.push(error("API", format!("{who} cannot serve now ({url}/readyz: {why})"), advice));
    }
    all
}

async fn etcd(look: &Look<'_>) -> Vec<Finding> {
    let Place::Etcd { members, .. } = &look.config.store else { return Vec::new() };
    let tls = engine::tls(look.state, look.config);
    let mut urls = engine::urls(look.config, members);
    let unusable = |e: &Error| vec![error("etcd", base::chain(e), "Without it nothing is served; see the certificates.")];
    let mut cluster = match Cluster::new(&urls, tls.as_ref()) {
        Ok(cluster) => cluster,
        Err(e) => return unusable(&e),
    };
    let mut all = Vec::new();
    // The members of now, as etcd itself tells them; else those that were written down.
    if let Ok(Ok(members)) = timeout(PATIENCE, cluster.members()).await {
        let own = look.config.controller.as_ref().map(crate::controller::Controller::etcd_member).unwrap_or_default();
        urls = engine::urls(look.config, &crate::controller::askable(&members, &own));
        cluster = match Cluster::new(&urls, tls.as_ref()) {
            Ok(cluster) => cluster,
            Err(e) => return unusable(&e),
        };
        for learner in members.iter().filter(|m| m.learner) {
            let advice = "It becomes a voter when it has caught up. If its machine is gone: drover controller remove NAME";
            all.push(warning("etcd", format!("{} does not vote yet", learner.peer_urls.join(" ")), advice));
        }
    }
    let (health, alarms) = tokio::join!(cluster.health(), timeout(PATIENCE, cluster.alarms()));
    all.extend(judge_etcd(&urls, &health));
    if let Ok(Ok(alarms)) = alarms {
        all.extend(judge_alarms(alarms));
    }
    // Of fewer nobody knows who is right, and one that does not answer is waited for.
    if health.iter().all(Result::is_ok)
        && let Ok(Ok(damaged)) = timeout(COMPARED, cluster.damaged()).await
    {
        all.extend(judge_damage(&damaged));
    }
    all
}

fn judge_damage(damaged: &[String]) -> Vec<Finding> {
    let advice = "Its file is damaged, and what it answers may be wrong: take it out and let it join anew (docs/operations.md, etcd). Where two \
                  of two differ nobody knows which is right: look at both disks first";
    damaged.iter().map(|url| error("etcd", format!("{url} does not hold what most members do"), advice)).collect()
}

fn judge_etcd(urls: &[String], health: &[Result<Health, Error>]) -> Vec<Finding> {
    let mut all = Vec::new();
    let up: Vec<&Health> = health.iter().flatten().collect();
    let majority = urls.len() / 2 + 1;
    for (url, e) in urls.iter().zip(health).filter_map(|(url, h)| Some((url, h.as_ref().err()?))) {
        let advice = "On that machine: drover up, and the log run/etcd/. If it is gone for good: drover controller remove NAME, then join another";
        all.push(error("etcd", format!("{url} does not answer: {}", base::chain(e)), advice));
    }
    if up.len() < majority {
        let advice = "No quorum: nothing can be written. Start the missing controllers. If most are lost for good, restore a backup (docs/operations.md)";
        all.push(error("etcd", format!("{} of {} members answer, and {majority} are needed", up.len(), urls.len()), advice));
    } else if up.len() < urls.len() && up.len() == majority {
        all.push(warning("etcd", "no further member may be lost", "Bring the missing ones back, or replace them."));
    }
    let newest = up.iter().map(|h| h.revision).max().unwrap_or(0);
    let leaders = up.iter().filter(|h| h.leads).count();
    if up.len() >= majority && leaders != 1 {
        let advice = "An election is going on, or clocks or the network are bad. Look again in some seconds.";
        all.push(warning("etcd", format!("{leaders} members lead"), advice));
    }
    for h in &up {
        let share = h.db_size as f64 / QUOTA as f64;
        let size = format!("{} of {}", bytes(h.db_size), bytes(QUOTA));
        if share > 0.9 {
            let advice = "etcd refuses writes when it is full. Delete what is not needed; it is compacted and written anew within the hour.";
            all.push(error("etcd", format!("the file of {} has {size}", h.endpoint), advice));
        } else if share > 0.6 {
            let advice = "Growth this fast is not usual: see `drover status` for what there is so much of.";
            all.push(warning("etcd", format!("the file of {} has {size}", h.endpoint), advice));
        }
        if newest - h.revision.min(newest) > LAG {
            let advice = "It catches up, or its disk or network is slow; see `disk latency` on that machine.";
            all.push(warning("etcd", format!("{} is {} revisions behind", h.endpoint, newest - h.revision), advice));
        }
        for complaint in &h.errors {
            all.push(error(
                "etcd",
                format!("{} says: {complaint}", h.endpoint),
                "See its log run/etcd/, and the room on its disk.",
            ));
        }
    }
    if all.is_empty() {
        let version = up.first().map_or("", |h| h.version.as_str());
        all.push(ok("etcd", format!("{} members of {version}, one leads, at revision {newest}", up.len())));
    }
    all
}

fn judge_alarms(alarms: Alarms) -> Vec<Finding> {
    let mut all = Vec::new();
    if alarms.no_space > 0 {
        let advice = "Nothing is written any more. Make room on the disks; within the hour the file is written anew and the alarm taken back.";
        all.push(error("etcd", format!("{} members have the alarm NOSPACE", alarms.no_space), advice));
    }
    if alarms.others > 0 {
        let advice = "A member's file is damaged. Take it out and let it join anew: drover controller remove NAME";
        all.push(error("etcd", format!("{} members have the alarm CORRUPT", alarms.others), advice));
    }
    all
}

/// Where nodes and new machines go.
async fn line(look: &Look<'_>) -> Vec<Finding> {
    let mut all = Vec::new();
    for address in controllers(look) {
        let at = SocketAddr::new(address, LINK);
        if !matches!(timeout(Duration::from_secs(2), TcpStream::connect(at)).await, Ok(Ok(_))) {
            let advice = "Hosts and new machines cannot use it. See whether that controller runs, and firewalls between (ports 8775, 8776, 2379, 2380).";
            all.push(error("link", format!("{at} takes no connection"), advice));
        }
    }
    if look.role == Role::Node {
        all.push(match std::fs::read_to_string(look.state.run("attached")) {
            Ok(line) if look.runs => ok("link", format!("this host is attached to {}", line.trim())),
            Ok(_) | Err(_) => error(
                "link",
                "this host is attached to no controller",
                "Its guests run on. Start it with drover up; see run/drover/serve.log.",
            ),
        });
    } else if all.is_empty() && look.role == Role::Controller {
        all.push(ok("link", "every controller takes hosts"));
    }
    all
}

async fn front_door(look: &Look<'_>) -> Vec<Finding> {
    let Some(controller) = &look.config.controller else { return Vec::new() };
    if !look.runs {
        return Vec::new();
    }
    let status = match door::status(look.state, look.config).await {
        Some(Ok(status)) => status,
        Some(Err(cause)) => return vec![error("front door", cause, "Users cannot come in here; see run/door/.")],
        None => return Vec::new(),
    };
    let mut all = Vec::new();
    let advice = "It is started again when it ends. See its log in run/door/, and `drover doctor` about programs.";
    if status.haproxy.is_none() {
        all.push(error("front door", "haproxy does not run", advice));
    }
    if let Some(vip) = controller.vip {
        if status.keepalived.is_none() {
            all.push(error("front door", "keepalived does not run, so this machine cannot take the VIP", advice));
        }
        all.extend(public_address(vip.addr(), status.has_vip, controller.interface.as_deref()).await);
    }
    if all.is_empty() {
        let whose = if status.has_vip { "; this machine has the VIP" } else { "" };
        all.push(ok("front door", format!("open{whose}")));
    }
    all
}

/// Is the VIP on exactly one machine?
async fn public_address(vip: IpAddr, is_here: bool, interface: Option<&str>) -> Option<Finding> {
    let at = SocketAddr::new(vip, crate::controller::PUBLIC);
    if !matches!(timeout(PATIENCE, TcpStream::connect(at)).await, Ok(Ok(_))) {
        let advice = "No controller has the address, or a firewall drops VRRP (IP protocol 112) or the port. See run/door/keepalived.log on each.";
        return Some(error("front door", format!("the VIP {at} takes no connection"), advice));
    }
    let interface = interface?;
    if !is_here {
        return None;
    }
    // Somebody who answers for an address that is ours has it, too.
    let probe = ["arping", "-q", "-D", "-c", "2", "-w", "3", "-I", interface, &vip.to_string()];
    match supervise::run(&probe).await {
        Err(supervise::Error::Failed { stderr, .. }) if stderr.starts_with("exit status: 1") => {
            let advice = "Two controllers do not hear each other's VRRP: let IP protocol 112 through between them. An old cluster may still run.";
            Some(error("front door", format!("another machine has the VIP {vip}, too"), advice))
        }
        // Without the program, or where it cannot tell, there is nothing to say.
        Ok(_) | Err(_) => None,
    }
}

async fn hosts_and_tasks(state: &State, config: &Config) -> Vec<Finding> {
    // To log in would make a password where there is none.
    if !state.dir().join("secrets/admin").exists() {
        let advice = "The administrator's password is lost. Take secrets/ of another controller, or of a backup.";
        return vec![error("secrets", "secrets/admin is not there", advice)];
    }
    let asked = async {
        let client = Client::login(&demo::login(config, state, true)?).await.map_err(|e| e.to_string())?;
        let nodes = client.get("/operator/v1/nodes").await.map_err(|e| e.to_string())?;
        let tasks = client.get("/operator/v1/tasks").await.map_err(|e| e.to_string())?;
        Ok::<_, String>((nodes, tasks))
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok((nodes, tasks))) => judge_hosts(&nodes).into_iter().chain(judge_tasks(&tasks)).collect(),
        // That the APIs do not answer is told already.
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

fn judge_hosts(nodes: &Value) -> Vec<Finding> {
    let list: Vec<&Value> = nodes["nodes"].as_array().into_iter().flatten().collect();
    let down: Vec<&str> = list.iter().filter(|n| n["state"] != "up").filter_map(|n| n["host"].as_str()).collect();
    if list.is_empty() {
        return vec![warning(
            "hosts",
            "there is no host, so no server can be made",
            "drover join-token node; then drover node --join TOKEN on it",
        )];
    }
    if !down.is_empty() {
        let found = format!("{} of {} hosts are down: {}", down.len(), list.len(), down.join(" "));
        return vec![error("hosts", found, "Their guests may run all the same. On each: drover doctor, drover up")];
    }
    vec![ok("hosts", format!("{} up", list.len()))]
}

fn judge_tasks(tasks: &Value) -> Vec<Finding> {
    let waiting = |t: &&Value| t["state"] == "waiting" && t["name"].as_str().is_some_and(|n| n.contains(' '));
    let trouble: Vec<&Value> = tasks["tasks"].as_array().into_iter().flatten().filter(waiting).collect();
    let Some(first) = trouble.first() else { return Vec::new() };
    let found = format!("{} keys are in trouble, such as {}: {}", trouble.len(), first["name"], first["last_error"]);
    vec![warning(
        "tasks",
        found,
        "They are tried again by themselves. All of them: drover task list; one's story: drover why KIND NAME",
    )]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;
    use serde_json::json;

    fn member(n: u8, leads: bool, revision: u64) -> Result<Health, Error> {
        Ok(Health {
            endpoint: format!("https://c{n}"),
            id: n.into(),
            version: "3.4".into(),
            leads,
            learner: false,
            term: 1,
            revision,
            db_size: 1 << 20,
            db_in_use: 1 << 20,
            errors: Vec::new(),
        })
    }

    fn gone() -> Result<Health, Error> {
        Err(Error::NoMember { who: "c".into() })
    }

    fn judged(health: &[Result<Health, Error>]) -> Vec<Finding> {
        let urls: Vec<String> = (1..=health.len()).map(|n| format!("https://c{n}")).collect();
        judge_etcd(&urls, health)
    }

    #[test]
    fn members_that_differ_are_errors() {
        assert!(judge_damage(&[]).is_empty());
        let found = judge_damage(&["https://c2".into()]);
        assert_eq!((found.len(), found[0].level), (1, Level::Error));
        assert!(found[0].found.contains("https://c2"), "{found:?}");
    }

    #[test]
    fn members_are_judged_together() {
        let all = judged(&[member(1, true, 9), member(2, false, 9), member(3, false, 8)]);
        assert_eq!((all.len(), all[0].level), (1, Level::Ok));
        let one_away = judged(&[member(1, true, 9), gone(), member(3, false, 9)]);
        assert_eq!(one_away.iter().map(|f| f.level).collect::<Vec<_>>(), [Level::Error, Level::Warning]);
        let quorum_lost = judged(&[gone(), gone(), member(3, false, 9)]);
        assert!(quorum_lost.iter().any(|f| f.found.contains("1 of 3 members answer")), "{quorum_lost:?}");
        let behind = judged(&[member(1, true, 90_000), member(2, false, 9), member(3, false, 90_000)]);
        assert!(behind.iter().any(|f| f.found.contains("89991 revisions behind")), "{behind:?}");
        let nobody_leads = judged(&[member(1, false, 9)]);
        assert!(nobody_leads.iter().any(|f| f.found.contains("0 members lead")));
        let mut full = member(1, true, 9).unwrap();
        (full.db_size, full.errors) = (QUOTA, vec!["NOSPACE".into()]);
        let full = judged(&[Ok(full)]);
        assert_eq!(full.iter().filter(|f| f.level == Level::Error).count(), 2, "{full:?}");
        assert_eq!(judge_alarms(Alarms { no_space: 1, others: 1 }).len(), 2);
    }

    #[test]
    fn hosts_that_are_down_and_keys_in_trouble_are_named() {
        let nodes = |state: &str| json!({ "nodes": [{ "host": "n1", "state": "up" }, { "host": "n2", "state": state }] });
        assert_eq!(judge_hosts(&nodes("up"))[0].level, Level::Ok);
        let down = &judge_hosts(&nodes("down"))[0];
        assert!(down.level == Level::Error && down.found.contains("n2") && !down.found.contains("n1"));
        assert_eq!(judge_hosts(&json!({ "nodes": [] }))[0].level, Level::Warning);
        let tasks = json!({ "tasks": [
            { "name": "compute/x", "state": "waiting", "last_error": null },
            { "name": "compute/x compute/servers/7f", "state": "waiting", "last_error": "no room" },
        ]});
        let trouble = judge_tasks(&tasks);
        assert!(trouble.len() == 1 && trouble[0].found.contains("1 keys") && trouble[0].found.contains("no room"));
    }
}
