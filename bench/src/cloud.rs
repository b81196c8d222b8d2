//! The cloud under load: a simulated one, with a state directory and port of its own.
use crate::{
    Result,
    load::{Request, one},
    text,
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{net::TcpListener, path::PathBuf, process::Command, time::Instant};

pub(crate) struct Cloud {
    drover: PathBuf,
    dir: tempfile::TempDir,
    pub(crate) addr: String,
    pub(crate) ready_ms: f64,
}

impl Cloud {
    pub(crate) fn start(drover: PathBuf, hosts: u32) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let started = Instant::now();
        let status = Command::new(&drover)
            .args(["up", "--bare", "--listen", &addr, "--simulate", &hosts.to_string(), "--state"])
            .arg(dir.path())
            .status()?;
        if !status.success() {
            return Err("drover up failed".into());
        }
        Ok(Self { drover, dir, addr, ready_ms: started.elapsed().as_secs_f64() * 1000.0 })
    }

    fn password(&self, user: &str) -> Result<String> {
        Ok(std::fs::read_to_string(self.dir.path().join("secrets").join(user))?.trim().to_owned())
    }

    pub(crate) fn login_body(&self, user: &str) -> Result<Value> {
        Ok(login(user, &self.password(user)?, Some(user)))
    }

    pub(crate) async fn token(&self, user: &str) -> Result<String> {
        let (_, headers, _) = one(&self.addr, &Request::post("/identity/v3/auth/tokens", &self.login_body(user)?)).await?;
        Ok(headers.get("x-subject-token").ok_or("no token")?.to_str()?.to_owned())
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Result<Value> {
        let (_, _, body) = one(&self.addr, &Request::get(path).header("x-auth-token", token)).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    async fn post(&self, token: &str, path: &str, body: Value) -> Result<Value> {
        let (_, _, body) = one(&self.addr, &Request::post(path, &body).header("x-auth-token", token)).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Users with passwords; gives the bodies of their unscoped logins.
    pub(crate) async fn make_users(&self, admin: &str, count: usize) -> Result<Vec<Value>> {
        let mut out = Vec::new();
        for i in 0..count {
            let (name, password) = (format!("bench-{i}"), base::id::hex());
            self.post(admin, "/identity/v3/users", json!({"user": {"name": name, "password": password, "domain_id": "default"}}))
                .await?;
            out.push(login(&name, &password, None));
        }
        Ok(out)
    }

    /// A network with a /16.
    pub(crate) async fn make_network(&self, token: &str) -> Result<String> {
        self.lift_quotas(token).await?;
        let net =
            text(&self.post(token, "/network/v2.0/networks", json!({"network": {"name": "bench"}})).await?["network"]["id"])?;
        let body = json!({"subnet": {"network_id": net, "ip_version": 4, "cidr": "10.50.0.0/16"}});
        self.post(token, "/network/v2.0/subnets", body).await?;
        Ok(net)
    }

    pub(crate) async fn lift_quotas(&self, token: &str) -> Result<()> {
        let subject = Request::get("/identity/v3/auth/tokens").header("x-auth-token", token).header("x-subject-token", token);
        let (_, _, body) = one(&self.addr, &subject).await?;
        let me: Value = serde_json::from_slice(&body)?;
        let project = text(&me["token"]["project"]["id"])?;
        let network = json!({"quota": {"port": -1, "network": -1, "subnet": -1}});
        let compute = json!({"quota_set": {"instances": -1, "cores": -1, "ram": -1}});
        for (path, body) in
            [(format!("/network/v2.0/quotas/{project}"), network), (format!("/compute/v2.1/os-quota-sets/{project}"), compute)]
        {
            one(&self.addr, &Request::put(&path, &body).header("x-auth-token", token)).await?;
        }
        Ok(())
    }

    /// A raw image without data.
    pub(crate) async fn queued_image(&self, token: &str) -> Result<String> {
        let image = json!({"name": "bench", "disk_format": "raw", "container_format": "bare"});
        text(&self.post(token, "/image/v2/images", image).await?["id"])
    }

    /// A small raw image and a flavor that fits a thousand times.
    pub(crate) async fn image_and_flavor(&self, token: &str) -> Result<(String, String)> {
        let image = json!({"name": "bench", "disk_format": "raw", "container_format": "bare", "visibility": "public"});
        let image = text(&self.post(token, "/image/v2/images", image).await?["id"])?;
        let upload = Request::put(&format!("/image/v2/images/{image}/file"), &Value::Null)
            .bytes(Bytes::from(vec![0; 4096]))
            .header("x-auth-token", token)
            .header("content-type", "application/octet-stream");
        one(&self.addr, &upload).await?;
        let flavor = json!({"flavor": {"name": format!("bench-{}", base::id::hex()), "vcpus": 1, "ram": 64, "disk": 1}});
        let flavor = text(&self.post(token, "/compute/v2.1/flavors", flavor).await?["flavor"]["id"])?;
        Ok((image, flavor))
    }

    /// Proportional set size of all processes of the control plane.
    pub(crate) fn memory_mib(&self) -> Result<f64> {
        let mut kib = 0u64;
        for role in ["serve", "supervise"] {
            let record = std::fs::read(self.dir.path().join("run/drover").join(format!("{role}.json")))?;
            let record: Value = serde_json::from_slice(&record)?;
            let pid = record["id"]["pid"].as_i64().or_else(|| record["pid"].as_i64()).ok_or("the record has no pid")?;
            let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let pss = rollup.lines().find(|l| l.starts_with("Pss:")).and_then(|l| l.split_whitespace().nth(1));
            kib += pss.ok_or("no Pss line")?.parse::<u64>()?;
        }
        Ok(kib as f64 / 1024.0)
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let down = Command::new(&self.drover).args(["down", "--destroy", "--state"]).arg(self.dir.path()).status();
        if !down.is_ok_and(|s| s.success()) {
            eprintln!("The cloud in {} could not be stopped; run `drover down --state` with it.", self.dir.path().display());
        }
    }
}

fn login(user: &str, password: &str, project: Option<&str>) -> Value {
    let domain = json!({"id": "default"});
    let mut auth = json!({"identity": {"methods": ["password"], "password": {"user": {"name": user, "password": password, "domain": domain}}}});
    if let Some(project) = project {
        auth["scope"] = json!({"project": {"name": project, "domain": domain}});
    }
    json!({ "auth": auth })
}
