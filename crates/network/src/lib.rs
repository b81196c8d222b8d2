//! The network service: Neutron v2 on OVN.
//!
//! Requests write rows: networks, subnets, ports, routers, floating IPs, security groups. Addresses, MACs and segments are claimed rows
//! of the same transaction ([`ipam`], [`segments`]), so they are unique by construction. The reconciler ([`reconcile`]) compiles the rows
//! into OVN ([`ovn`]) and writes back what the data plane says of them.
mod admit;
mod auto_topology;
mod availability;
mod discovery;
mod fail;
mod gateway;
mod groups;
mod interfaces;
mod ipam;
mod metadata;
pub mod ovn;
mod plan_port;
mod plan_subnet;
mod ports;
mod protocols;
mod quota;
pub mod reconcile;
mod resources;
mod segments;
mod sharing;
mod tags;

use api::Service;

/// The service as the edge mounts it.
pub fn service() -> Service {
    let mut routes = discovery::routes();
    routes.extend(auto_topology::routes());
    routes.extend(availability::routes());
    routes.extend(groups::routes());
    routes.extend(interfaces::routes());
    routes.extend(quota::routes());
    routes.extend(resources::address_group_routes());
    routes.extend(resources::subnetpool_routes());
    routes.extend(tags::routes());
    Service {
        name: "network",
        prefix: "/network",
        dialect: &api::dialect::NETWORK,
        microversions: None,
        resources: resources::ALL.to_vec(),
        routes,
        tables: vec![
            &auto_topology::TOPOLOGIES,
            &ovn::cluster::CLUSTERS,
            &ovn::cluster::MEMBERS,
            &ipam::claim::ALLOCATIONS,
            &ipam::claim::MACS,
            &segments::SEGMENTS,
            &groups::DEFAULTS,
            &resources::floatingip::ASSOCIATIONS,
        ],
        rules: vec![("network_row_owner", "role:admin or (role:member and project_id:%(project_id)s)")],
        quotas: quota::DEFAULTS.to_vec(),
    }
}
