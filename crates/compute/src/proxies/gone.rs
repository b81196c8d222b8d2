//! What upstream has removed: it answers 410 at every microversion, and so do we.
use api::{Access, Error, Route};

const REMOVED: [(&str, &[&str]); 33] = [
    ("/v2.1/os-agents", &["GET", "POST"]),
    ("/v2.1/os-agents/{id}", &["PUT", "DELETE"]),
    ("/v2.1/os-cells", &["GET", "POST"]),
    ("/v2.1/os-cells/capacities", &["GET"]),
    ("/v2.1/os-cells/detail", &["GET"]),
    ("/v2.1/os-cells/info", &["GET"]),
    ("/v2.1/os-cells/sync_instances", &["POST"]),
    ("/v2.1/os-cells/{id}", &["GET", "PUT", "DELETE"]),
    ("/v2.1/os-cells/{id}/capacities", &["GET"]),
    ("/v2.1/os-certificates", &["POST"]),
    ("/v2.1/os-certificates/{id}", &["GET"]),
    ("/v2.1/os-cloudpipe", &["GET", "POST"]),
    ("/v2.1/os-cloudpipe/{id}", &["PUT"]),
    ("/v2.1/os-fixed-ips/{id}", &["GET"]),
    ("/v2.1/os-fixed-ips/{id}/action", &["POST"]),
    ("/v2.1/os-floating-ip-dns", &["GET"]),
    ("/v2.1/os-floating-ip-dns/{id}", &["PUT", "DELETE"]),
    ("/v2.1/os-floating-ip-dns/{id}/entries/{key}", &["GET", "PUT", "DELETE"]),
    ("/v2.1/os-floating-ips-bulk", &["GET", "POST"]),
    ("/v2.1/os-floating-ips-bulk/{id}", &["GET", "PUT"]),
    ("/v2.1/os-fping", &["GET"]),
    ("/v2.1/os-fping/{id}", &["GET"]),
    ("/v2.1/os-security-group-default-rules", &["GET", "POST"]),
    ("/v2.1/os-security-group-default-rules/{id}", &["GET", "DELETE"]),
    ("/v2.1/os-networks", &["POST"]),
    ("/v2.1/os-networks/add", &["POST"]),
    ("/v2.1/os-networks/{id}", &["DELETE"]),
    ("/v2.1/os-networks/{id}/action", &["POST"]),
    ("/v2.1/os-tenant-networks", &["POST"]),
    ("/v2.1/os-tenant-networks/{id}", &["DELETE"]),
    ("/v2.1/servers/{id}/consoles", &["GET", "POST"]),
    ("/v2.1/servers/{id}/consoles/{key}", &["GET", "DELETE"]),
    ("/v2.1/servers/{id}/os-virtual-interfaces", &["GET"]),
];

pub(crate) fn routes() -> Vec<Route> {
    let one = |path, method: &&'static str| {
        Route::new(method, path, Access::Authenticated, |_| async {
            Err(Error::gone("This resource is no longer available. No forwarding address is given."))
        })
    };
    REMOVED.iter().flat_map(|(path, methods)| methods.iter().map(|m| one(path, m)).collect::<Vec<_>>()).collect()
}
