//! Serves identity and placement on the memory store, for independent clients (osc-placement): `serve_placement [ADDRESS]`.
use std::net::SocketAddr;
use testkit::{Setup, TestCloud};

#[tokio::main]
async fn main() {
    let level = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).init();
    let address: SocketAddr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:18777".into()).parse().expect("an address");
    let _cloud = TestCloud::with(Setup { services: vec![placement::service()], address, ..Setup::default() }).await;
    tokio::signal::ctrl_c().await.expect("an interrupt");
}
