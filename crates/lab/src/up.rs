//! A lab from nothing, and its end.
use crate::{
    Error,
    host::{Host, Lab, PREFIX_LENGTH, Role, VIP, file},
    net, power, process, share,
    status::ready,
};
use rustix::process::Signal;
use std::{os::unix::fs::OpenOptionsExt as _, time::Duration};
use tokio::{task::JoinSet, time::Instant};

const SERVES_WITHIN: Duration = Duration::from_secs(120);

/// Makes what is missing of the lab and returns when its public address answers. Tells how far it is.
pub(crate) async fn up(lab: &Lab, tell: &(dyn Fn(&str) + Sync)) -> Result<(), Error> {
    let there = net::namespaces().await?;
    let known = lab.dir.join("lab.json").exists();
    if !known
        && let Some(name) = lab.shape.hosts().into_iter().map(|h| h.netns).chain([lab.shape.switch()]).find(|n| there.contains(n))
    {
        return Err(Error::Foreign { name });
    }
    let run = lab.run_dir();
    std::fs::create_dir_all(&run).map_err(file("create", &run))?;
    lab.save()?;
    net::ensure(lab).await?;
    if let Err(e) = share::ensure(lab) {
        tell(&format!("Hosts have no shares of the processors ({e}); one that starts makes the others slow."));
    }
    let hosts = lab.shape.hosts();
    let machines: Vec<_> = hosts.iter().filter(|h| h.role != Role::Client).collect();
    for host in &machines {
        power::on(lab, host).await?;
    }
    let first = &hosts[0];
    tell(&format!("The hosts {} have power; starting the controllers …", list(&machines)));
    // One after the other: etcd takes one new member at a time.
    for host in hosts.iter().filter(|h| h.role == Role::Controller) {
        if is_installed(lab, host) {
            start(lab, host).await?;
        } else {
            join_controller(lab, host, first).await?;
        }
        tell(&format!("Controller {} runs.", host.name));
    }
    let ca = lab.disk(first).join("pki/ca.pem");
    std::fs::copy(&ca, lab.ca()).map_err(file("copy", &ca))?;
    credentials(lab, first)?;
    let mut joining = JoinSet::new();
    for host in hosts.iter().filter(|h| h.role == Role::Node) {
        let (lab, host, first) = (lab.clone(), host.clone(), first.clone());
        joining.spawn(async move {
            if is_installed(&lab, &host) { start(&lab, &host).await } else { join_node(&lab, &host, &first).await }
        });
    }
    while let Some(joined) = joining.join_next().await {
        joined.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
    }
    if lab.shape.nodes > 0 {
        tell("The nodes have joined.");
    }
    let until = Instant::now() + SERVES_WITHIN;
    while ready(lab, VIP, 8774).await != Some(200) {
        if Instant::now() > until {
            return Err(power::late(lab, format!("https://{VIP}:8774 answers"), SERVES_WITHIN));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn list(hosts: &[&Host]) -> String {
    hosts.iter().map(|h| h.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Has it ever been started? Then it keeps its own options.
fn is_installed(lab: &Lab, host: &Host) -> bool {
    lab.disk(host).join("pki/cert.pem").exists()
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

async fn token(lab: &Lab, at: &Host, role: &str) -> Result<String, Error> {
    Ok(power::drover(lab, at, &words(&format!("join-token {role}"))).await?.trim().to_owned())
}

async fn join_controller(lab: &Lab, host: &Host, first: &Host) -> Result<(), Error> {
    let (name, address) = (&host.name, host.address);
    let mut line = format!("server --name {name} --address {address} --vip {VIP}/{PREFIX_LENGTH} --interface eth0");
    if host != first {
        line = format!("{line} --join {}", token(lab, first, "controller").await?);
    }
    power::drover(lab, host, &words(&line)).await?;
    Ok(())
}

async fn join_node(lab: &Lab, host: &Host, first: &Host) -> Result<(), Error> {
    let kind = if lab.shape.real { "--uplink eth1" } else { "--simulate" };
    let line = format!("node --name {} --join {} {kind}", host.name, token(lab, first, "node").await?);
    power::drover(lab, host, &words(&line)).await?;
    Ok(())
}

/// Starts what is installed on a host, with the options that it was installed with.
pub(crate) async fn start(lab: &Lab, host: &Host) -> Result<(), Error> {
    let role = match host.role {
        Role::Controller => "server",
        Role::Node => "node",
        Role::Client => return Ok(()),
    };
    if is_installed(lab, host) {
        power::drover(lab, host, &words(role)).await?;
    }
    Ok(())
}

/// Writes `clouds.yaml` for users in the namespace of the client.
fn credentials(lab: &Lab, first: &Host) -> Result<(), Error> {
    let password = |of: &str| {
        let path = lab.disk(first).join("secrets").join(of);
        std::fs::read_to_string(&path).map_err(file("read", &path)).map(|p| p.trim().to_owned())
    };
    let ca = lab.ca().display().to_string();
    let text = clouds(&ca, &password("demo")?, &password("admin")?);
    let path = lab.dir.join("clouds.yaml");
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut f = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        std::io::Write::write_all(&mut f, text.as_bytes())
    };
    write().map_err(file("write", &path))
}

fn clouds(ca: &str, demo: &str, admin: &str) -> String {
    let cloud = |name: &str, user: &str, password: &str| {
        format!(
            "  {name}:\n    auth:\n      auth_url: https://{VIP}:8774/identity/v3\n      username: {user}\n      password: {password}\n      project_name: {user}\n      user_domain_name: Default\n      project_domain_name: Default\n    region_name: RegionOne\n    identity_api_version: \"3\"\n    cacert: {ca}\n"
        )
    };
    format!("clouds:\n{}{}", cloud("lab", "demo", demo), cloud("lab-admin", "admin", admin))
}

/// Ends all and removes it, disks too unless they are to be kept.
pub(crate) async fn down(lab: &Lab, keep: bool) -> Result<(), Error> {
    for host in lab.shape.hosts() {
        if let Some(init) = power::init(lab, &host) {
            process::signal(init, Signal::KILL);
        }
    }
    for host in lab.shape.hosts().iter().filter(|h| h.role != Role::Client) {
        power::ended(lab, host).await?;
    }
    share::remove(lab);
    net::remove(lab).await?;
    if !keep {
        std::fs::remove_dir_all(&lab.dir).map_err(file("remove", &lab.dir))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_name_the_public_address_and_its_authority() {
        let golden = r#"clouds:
  lab:
    auth:
      auth_url: https://10.77.0.100:8774/identity/v3
      username: demo
      password: d
      project_name: demo
      user_domain_name: Default
      project_domain_name: Default
    region_name: RegionOne
    identity_api_version: "3"
    cacert: /lab/ca.pem
  lab-admin:
    auth:
      auth_url: https://10.77.0.100:8774/identity/v3
      username: admin
      password: a
      project_name: admin
      user_domain_name: Default
      project_domain_name: Default
    region_name: RegionOne
    identity_api_version: "3"
    cacert: /lab/ca.pem
"#;
        assert_eq!(clouds("/lab/ca.pem", "d", "a"), golden);
    }
}
