//! Versions, the index of resources, extensions and other lists that clients ask for first.
use crate::resources::ALL;
use api::{Access, Call, Reply, Result, Route};
use serde_json::{Value, json};

/// Alias, name, description. Only what works is here: clients decide by this list what they may ask for.
const EXTENSIONS: [(&str, &str, &str); 50] = [
    ("address-group", "Address group", "Support address group"),
    ("address-scope", "Address scope", "Address scopes extension."),
    ("agent", "agent", "The agent management extension."),
    ("allowed-address-pairs", "Allowed Address Pairs", "Provides allowed address pairs"),
    ("auto-allocated-topology", "Auto Allocated Topology Services", "Auto Allocated Topology Services."),
    ("availability_zone", "Availability Zone", "The availability zone extension."),
    ("binding", "Port Binding", "Expose port bindings of a virtual port to external application"),
    ("default-subnetpools", "Default Subnetpools", "Provides ability to mark and use a subnetpool as the default."),
    ("dns-integration", "DNS Integration", "Provides integration with DNS."),
    ("dvr", "Distributed Virtual Router", "Enables configuration of Distributed Virtual Routers."),
    ("empty-string-filtering", "Empty String Filtering Extension", "Allow filtering by attributes with empty string value"),
    (
        "ext-gw-mode",
        "Neutron L3 Configurable external gateway mode",
        "Extension of the router abstraction for specifying whether SNAT should occur on the external gateway",
    ),
    ("external-net", "Neutron external network", "Adds external network attribute to network resource."),
    ("extra_dhcp_opt", "Neutron Extra DHCP options", "Extra options configuration for DHCP."),
    ("extraroute", "Neutron Extra Route", "Extra routes configuration for L3 router"),
    (
        "extraroute-atomic",
        "Atomically add/remove extra routes",
        "Edit extra routes of a router on server side by atomically adding/removing extra routes",
    ),
    ("fip-port-details", "Floating IP Port Details Extension", "Add port_details attribute to Floating IP resource"),
    ("ip-substring-filtering", "IP address substring filtering", "Provides IP address substring filtering when listing ports"),
    ("ip_allocation", "IP Allocation", "IP allocation extension."),
    ("l3-ha", "HA Router extension", "Adds HA capability to routers."),
    ("net-mtu", "Network MTU", "Provides MTU attribute for a network resource."),
    ("net-mtu-writable", "Network MTU (writable)", "Provides a writable MTU attribute for a network resource."),
    ("network-ip-availability", "Network IP Availability", "Provides IP availability data for each network and subnet."),
    ("network_availability_zone", "Network Availability Zone", "Availability zone support for network."),
    ("pagination", "Pagination support", "Extension that indicates that pagination is enabled."),
    ("port-security", "Port Security", "Provides port security"),
    ("project-id", "project_id field enabled", "Extension that indicates that project_id field is enabled."),
    ("provider", "Provider Network", "Expose mapping of virtual networks to physical networks"),
    (
        "quota-check-limit",
        "Quota engine limit check",
        "Support for checking the resource usage before applying a new quota limit",
    ),
    ("quota_details", "Quota details management support", "Expose functions for quotas usage statistics per project"),
    ("quotas", "Quota management support", "Expose functions for quotas management per project"),
    ("rbac-address-group", "Add address_group type to RBAC", "Add address_group type to network RBAC"),
    ("rbac-address-scope", "Add address_scope type to RBAC", "Add address_scope type to RBAC"),
    ("rbac-policies", "RBAC Policies", "Allows creation and modification of policies that control tenant access to resources."),
    ("rbac-security-groups", "Add security_group type to network RBAC", "Add security_group type to network RBAC"),
    ("rbac-subnetpool", "Add subnetpool type to RBAC", "Add subnetpool type to RBAC"),
    (
        "router",
        "Neutron L3 Router",
        "Router abstraction for basic L3 forwarding between L2 Neutron networks and access to external networks via a NAT gateway.",
    ),
    ("router_availability_zone", "Router Availability Zone", "Availability zone support for router."),
    ("security-group", "security-group", "The security groups extension."),
    (
        "security-groups-normalized-cidr",
        "Normalized CIDR field for security group rules",
        "Add new field with normalized remote_ip_prefix cidr in SG rule",
    ),
    (
        "security-groups-remote-address-group",
        "Remote address group id field for security group rules",
        "Add new field of remote address group id in SG rules",
    ),
    ("service-type", "Neutron Service Type Management", "API for retrieving service providers for Neutron advanced services"),
    ("sorting", "Sorting support", "Extension that indicates that sorting is enabled."),
    ("standard-attr-description", "standard-attr-description", "Extension to add descriptions to standard attributes"),
    (
        "standard-attr-revisions",
        "Resource revision numbers",
        "This extension will display the revision number of neutron resources.",
    ),
    (
        "standard-attr-tag",
        "Tag support for resources with standard attribute: port, subnet, subnetpool, network, router, floatingip, security_group",
        "Enables to set tag on resources with standard attribute.",
    ),
    (
        "standard-attr-timestamp",
        "Resource timestamps",
        "Adds created_at and updated_at fields to all Neutron resources that have Neutron standard attributes.",
    ),
    ("stateful-security-group", "Stateful security group", "Indicates if the security group is stateful or not"),
    ("subnet_allocation", "Subnet Allocation", "Enables allocation of subnets from a subnet pool"),
    ("subnetpool-prefix-ops", "Subnet Pool Prefix Operations", "Provides support for adjusting the prefix list of subnet pools"),
];

pub(crate) fn routes() -> Vec<Route> {
    let any = Access::Authenticated;
    vec![
        Route::new("GET", "/", Access::Public, |call| async move { Ok(versions(&call)) }),
        Route::new("GET", "/v2.0", Access::Public, |call| async move { Ok(index(&call)) }),
        Route::new("GET", "/v2.0/extensions", any, |_| async move {
            let all: Vec<Value> = EXTENSIONS.iter().map(described).collect();
            Ok(Reply::ok(json!({ "extensions": all })))
        }),
        Route::new("GET", "/v2.0/extensions/{alias}", any, |call| async move { extension(&call) }),
        Route::new("GET", "/v2.0/service-providers", any, |_| async move { Ok(Reply::ok(json!({ "service_providers": [] }))) }),
        Route::new("GET", "/v2.0/availability_zones", any, |_| async move { Ok(zones()) }),
    ]
}

fn versions(call: &Call) -> Reply {
    let href = format!("{}/v2.0/", call.cx.public);
    let link = json!({ "rel": "self", "href": href });
    Reply::ok(json!({ "versions": [{ "id": "v2.0", "status": "CURRENT", "links": [link] }] }))
}

fn index(call: &Call) -> Reply {
    let resource = |def: &&'static resource::ResourceDef| {
        let href = format!("{}{}", call.cx.public, def.path);
        json!({ "name": def.name, "collection": def.plural, "links": [{ "rel": "self", "href": href }] })
    };
    Reply::ok(json!({ "resources": ALL.iter().map(resource).collect::<Vec<_>>() }))
}

fn described((alias, name, description): &(&str, &str, &str)) -> Value {
    json!({ "alias": alias, "name": name, "description": description, "updated": "2013-01-20T00:00:00-00:00", "links": [] })
}

fn extension(call: &Call) -> Result<Reply> {
    let alias = call.param("alias");
    let found = EXTENSIONS.iter().find(|(a, ..)| *a == alias);
    let found = found.ok_or_else(|| api::Error::not_found(format!("Extension with alias {alias} does not exist")))?;
    Ok(Reply::ok(json!({ "extension": described(found) })))
}

/// Networks and routers are everywhere: one zone, with the name of Nova's default.
fn zones() -> Reply {
    let zone = |resource: &str| json!({ "name": "nova", "resource": resource, "state": "available" });
    Reply::ok(json!({ "availability_zones": [zone("network"), zone("router")] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_told_once() {
        let mut seen = std::collections::BTreeSet::new();
        assert!(EXTENSIONS.iter().all(|(alias, ..)| seen.insert(*alias)));
    }
}
