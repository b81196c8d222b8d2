//! What `drover up` puts into a new cloud, over the same APIs that users have: networks, images, flavors and the server `demo`.
//! Everything is looked for by name first, so that it is safe to repeat.
use crate::config::{Config, State};
use cli::{Client, Error, Login};
use serde_json::{Value, json};
use std::{net::Ipv4Addr, path::Path, time::Duration};
use tokio::{io::AsyncReadExt, time::Instant};

/// Name, vCPUs, MiB, GiB and id, after the flavors that DevStack makes.
const FLAVORS: [(&str, u32, u32, u32, &str); 6] = [
    ("m1.nano", 1, 192, 1, "42"),
    ("m1.micro", 1, 256, 1, "84"),
    ("m1.tiny", 1, 512, 1, "1"),
    ("m1.small", 1, 2048, 20, "2"),
    ("m1.medium", 2, 4096, 40, "3"),
    ("m1.large", 4, 8192, 80, "4"),
];
const NETWORK: &str = "/network/v2.0";
const COMPUTE: &str = "/compute/v2.1";

type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller prints.
pub(crate) struct Demo {
    pub(crate) address: String,
}

fn id(v: &Value) -> Result<String> {
    v["id"].as_str().map(str::to_owned).ok_or_else(|| Error::Local(format!("An answer has no id: {v}")))
}

/// The resource with that name in the list, or a new one.
async fn ensure(client: &Client, path: &str, plural: &str, name: &str, body: Value) -> Result<Value> {
    let list = client.get(&format!("{path}?name={name}")).await?;
    if let Some(found) = list[plural].as_array().into_iter().flatten().find(|v| v["name"] == name) {
        return Ok(found.clone());
    }
    let made = client.post(path, body).await?;
    // Glance answers the object itself, the others wrap it.
    Ok(if made["id"].is_string() {
        made
    } else {
        made.as_object().and_then(|o| o.values().next().cloned()).unwrap_or(Value::Null)
    })
}

/// Flavors, images and the external network, as the administrator.
pub(crate) async fn shared(admin: &Client, config: &Config) -> Result<()> {
    let flavors = admin.get(&format!("{COMPUTE}/flavors")).await?;
    for (name, vcpus, ram, disk, flavor_id) in FLAVORS {
        if flavors["flavors"].as_array().into_iter().flatten().all(|f| f["name"] != name) {
            let body = json!({"flavor": {"name": name, "vcpus": vcpus, "ram": ram, "disk": disk, "id": flavor_id}});
            admin.post(&format!("{COMPUTE}/flavors"), body).await?;
        }
    }
    if let Some(file) = &config.guest_image {
        for name in ["tiny", "tiny-alt"] {
            image(admin, name, file).await?;
        }
    }
    let net = ensure(
        admin,
        &format!("{NETWORK}/networks"),
        "networks",
        "public",
        json!({"network": {
            "name": "public", "router:external": true, "provider:network_type": "flat", "provider:physical_network": "public",
        }}),
    )
    .await?;
    let hosts: Vec<_> = config.external.hosts().take(1).chain(config.external.hosts().skip(9).take(1)).collect();
    let last = config.external.hosts().last();
    let (Some(gateway), Some(first), Some(last)) = (hosts.first(), hosts.get(1), last) else {
        return Err(Error::Local(format!("External network {} has too few addresses.", config.external)));
    };
    ensure(
        admin,
        &format!("{NETWORK}/subnets"),
        "subnets",
        "public-subnet",
        json!({"subnet": {
            "name": "public-subnet", "network_id": id(&net)?, "ip_version": 4, "cidr": config.external.to_string(),
            "gateway_ip": gateway.to_string(), "enable_dhcp": false,
            "allocation_pools": [{"start": first.to_string(), "end": last.to_string()}],
        }}),
    )
    .await?;
    Ok(())
}

async fn image(admin: &Client, name: &str, file: &Path) -> Result<()> {
    let body = json!({"name": name, "disk_format": "qcow2", "container_format": "bare", "visibility": "public", "min_ram": 128});
    let image = ensure(admin, "/image/v2/images", "images", name, body).await?;
    if image["status"] == "queued" {
        admin.upload(&format!("/image/v2/images/{}/file", id(&image)?), file).await?;
    }
    Ok(())
}

/// A key pair, a network with a router, and the server `demo` with a floating address, as the user `demo`.
pub(crate) async fn project(user: &Client, state: &State, config: &Config, public_key: &str) -> Result<Demo> {
    let keys = user.get(&format!("{COMPUTE}/os-keypairs")).await?;
    if keys["keypairs"].as_array().into_iter().flatten().all(|k| k["keypair"]["name"] != "demo") {
        user.post(
            &format!("{COMPUTE}/os-keypairs"),
            json!({"keypair": {"name": "demo", "public_key": public_key, "type": "ssh"}}),
        )
        .await?;
    }
    let net =
        ensure(user, &format!("{NETWORK}/networks"), "networks", "private", json!({"network": {"name": "private"}})).await?;
    let subnet = ensure(
        user,
        &format!("{NETWORK}/subnets"),
        "subnets",
        "private-subnet",
        json!({"subnet": {
            "name": "private-subnet", "network_id": id(&net)?, "ip_version": 4, "cidr": "10.0.0.0/24",
            "dns_nameservers": if config.nat { resolvers() } else { Vec::new() },
        }}),
    )
    .await?;
    let public = user.get(&format!("{NETWORK}/networks?name=public")).await?["networks"][0].clone();
    let router = ensure(
        user,
        &format!("{NETWORK}/routers"),
        "routers",
        "router",
        json!({"router": {
            "name": "router", "external_gateway_info": {"network_id": id(&public)?},
        }}),
    )
    .await?;
    let ports = user.get(&format!("{NETWORK}/ports?device_id={}", id(&router)?)).await?;
    let joined = |p: &Value| p["fixed_ips"].as_array().into_iter().flatten().any(|ip| ip["subnet_id"] == subnet["id"]);
    if !ports["ports"].as_array().into_iter().flatten().any(joined) {
        user.put(&format!("{NETWORK}/routers/{}/add_router_interface", id(&router)?), json!({"subnet_id": id(&subnet)?})).await?;
    }
    open_ports(user).await?;
    server(user, state, &id(&net)?, &id(&public)?).await
}

/// This machine's own name servers, where guests can ask them too.
fn resolvers() -> Vec<String> {
    addresses_of(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

fn addresses_of(resolv_conf: &str) -> Vec<String> {
    let servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<Ipv4Addr>().ok());
    // A resolver on the loopback is the machine's own affair, and link-local addresses are closed to guests.
    servers.filter(|a| !a.is_loopback() && !a.is_link_local() && !a.is_unspecified()).map(|a| a.to_string()).collect()
}

/// Lets ping and ssh into servers of the default security group.
async fn open_ports(user: &Client) -> Result<()> {
    let group = user.get(&format!("{NETWORK}/security-groups?name=default")).await?["security_groups"][0].clone();
    let has = |protocol: &str| {
        group["security_group_rules"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|r| r["direction"] == "ingress" && r["protocol"] == protocol)
    };
    let rule = |protocol: &str, port: Option<u16>| {
        json!({"security_group_rule": {"security_group_id": group["id"], "direction": "ingress", "ethertype": "IPv4",
            "protocol": protocol, "port_range_min": port, "port_range_max": port}})
    };
    for (protocol, port) in [("icmp", None), ("tcp", Some(22))] {
        if !has(protocol) {
            user.post(&format!("{NETWORK}/security-group-rules"), rule(protocol, port)).await?;
        }
    }
    Ok(())
}

async fn server(user: &Client, state: &State, network: &str, public: &str) -> Result<Demo> {
    let images = user.get("/image/v2/images?name=tiny").await?;
    let image =
        id(&images["images"][0]).map_err(|_| Error::Local("There is no image `tiny`; start with --guest-image.".into()))?;
    forget_failed(user).await?;
    let server = ensure(
        user,
        &format!("{COMPUTE}/servers"),
        "servers",
        "demo",
        json!({"server": {
            "name": "demo", "imageRef": image, "flavorRef": "42", "key_name": "demo", "networks": [{"uuid": network}],
        }}),
    )
    .await?;
    let server = id(&server)?;
    let until = Instant::now() + Duration::from_secs(180);
    loop {
        let now = user.get(&format!("{COMPUTE}/servers/{server}")).await?["server"].clone();
        match now["status"].as_str() {
            Some("ACTIVE") => break,
            Some("ERROR") => {
                let cause = now["fault"]["message"].as_str().unwrap_or("no cause is known");
                return Err(Error::Local(format!("Server demo is in ERROR: {cause}. See `drover why server demo`.")));
            }
            Some("SHUTOFF") => {
                user.post(&format!("{COMPUTE}/servers/{server}/action"), json!({"os-start": null})).await?;
            }
            _ => {}
        }
        if Instant::now() > until {
            return Err(Error::Local(format!("Server demo is {} after 180 s. See `drover why server demo`.", now["status"])));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let port = user.get(&format!("{NETWORK}/ports?device_id={server}")).await?["ports"][0].clone();
    let fips = user.get(&format!("{NETWORK}/floatingips?port_id={}", id(&port)?)).await?;
    let address = match fips["floatingips"][0]["floating_ip_address"].as_str() {
        Some(address) => address.to_owned(),
        None => {
            let body = json!({"floatingip": {"floating_network_id": public, "port_id": id(&port)?}});
            let made = user.post(&format!("{NETWORK}/floatingips"), body).await?;
            made["floatingip"]["floating_ip_address"].as_str().unwrap_or_default().to_owned()
        }
    };
    ssh_answers(&address, &state.ssh_key()).await?;
    Ok(Demo { address })
}

/// Removes a server `demo` that an earlier start left in error.
async fn forget_failed(user: &Client) -> Result<()> {
    let failed = user.get(&format!("{COMPUTE}/servers?name=demo&status=ERROR")).await?;
    for server in failed["servers"].as_array().into_iter().flatten() {
        let path = format!("{COMPUTE}/servers/{}", id(server)?);
        user.delete(&path).await?;
        let until = Instant::now() + Duration::from_secs(60);
        while user.get(&path).await.is_ok() {
            if Instant::now() > until {
                return Err(Error::Local("The failed server demo is not gone after 60 s. See `drover why server demo`.".into()));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

/// Waits until a host can run guests.
pub(crate) async fn host_ready(admin: &Client) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        let nodes = admin.get("/operator/v1/nodes").await?;
        if nodes["nodes"].as_array().into_iter().flatten().any(|n| n["state"] == "up" && n["vcpus"].as_u64().unwrap_or(0) > 0) {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(Error::Local("No host can run guests after 90 s; the log of `serve` says why.".into()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until the guest's sshd lets the key in.
async fn ssh_answers(address: &str, key: &Path) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(240);
    let mut last = String::new();
    while Instant::now() < until {
        let banner = async {
            let mut tcp = tokio::net::TcpStream::connect((address, 22)).await?;
            let mut first = [0; 4];
            tcp.read_exact(&mut first).await?;
            Ok::<_, std::io::Error>(first)
        };
        match tokio::time::timeout(Duration::from_secs(3), banner).await {
            Ok(Ok(first)) if &first == b"SSH-" => {
                let out = tokio::process::Command::new("ssh").args(ssh_args(address, key)).arg("true").output().await;
                match out {
                    Ok(o) if o.status.success() => return Ok(()),
                    Ok(o) => last = String::from_utf8_lossy(&o.stderr).trim().to_owned(),
                    Err(e) => last = e.to_string(),
                }
            }
            Ok(Ok(_)) => last = "something that is not ssh answers".into(),
            Ok(Err(e)) => last = e.to_string(),
            Err(_) => last = "no answer in 3 s".into(),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Err(Error::Local(format!(
        "The guest at {address} did not let ssh in within 240 s ({last}). See `openstack console log show demo`."
    )))
}

/// Arguments of ssh for a guest whose host key nobody knows yet.
pub(crate) fn ssh_args(address: &str, key: &Path) -> Vec<String> {
    let options =
        ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes", "ConnectTimeout=5"];
    let mut args = vec!["-i".to_owned(), key.display().to_string()];
    args.extend(options.iter().flat_map(|o| ["-o".to_owned(), (*o).to_owned()]));
    args.push(format!("root@{address}"));
    args
}

/// The user `demo` of project `demo`, or the administrator.
pub(crate) fn login(config: &Config, state: &State, admin: bool) -> Result<Login, String> {
    let user = if admin { "admin" } else { "demo" };
    let (endpoint, ca) = (config.local_endpoint(), config.ca(state));
    Ok(Login { endpoint, ca, user: user.into(), password: state.password(user)?, project: user.into() })
}

#[cfg(test)]
mod tests {
    use super::addresses_of;

    #[test]
    fn only_name_servers_that_guests_can_reach_are_told_to_them() {
        let text = "# comment\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver fd00::1\n nameserver\t192.0.2.2\nsearch example.org\n";
        assert_eq!(addresses_of(text), ["192.0.2.1", "192.0.2.2"]);
        assert!(addresses_of("nameserver 169.254.169.253\noptions edns0\n").is_empty());
    }
}
