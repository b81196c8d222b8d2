//! Serves a [`TestCloud`] until it is told to stop (Ctrl-C), for real clients.
//!
//! `serve [ADDRESS [DIRECTORY]]` listens on ADDRESS (default 127.0.0.1:8774) and writes a clouds.yaml with the clouds `drover-admin`
//! and `drover` into DIRECTORY (default: the working directory).
use std::{fs, path::PathBuf};
use testkit::{ADMIN_PASSWORD, Setup, TestCloud};

fn entry(name: &str, url: &str, user: &str, password: &str, project: &str) -> String {
    format!(
        "  {name}:\n    auth:\n      auth_url: {url}/identity/v3\n      username: {user}\n      password: {password}\n      \
         project_name: {project}\n      user_domain_name: Default\n      project_domain_name: Default\n    \
         region_name: RegionOne\n    identity_api_version: '3'\n"
    )
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:8774".into()).parse()?;
    let directory = PathBuf::from(args.next().unwrap_or_else(|| ".".into()));
    let cloud = TestCloud::with(Setup { address, ..Setup::default() }).await;
    cloud.member("demo").await;
    let text = format!(
        "clouds:\n{}{}",
        entry("drover-admin", &cloud.url, "admin", ADMIN_PASSWORD, "admin"),
        entry("drover", &cloud.url, "demo-member", "password of demo-member", "demo"),
    );
    fs::write(directory.join("clouds.yaml"), text)?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}
