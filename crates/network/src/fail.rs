//! Neutron's errors by name: clients branch on the type, so type, status and wording are one thing here.
use api::{Error, ErrorKind};
use std::{borrow::Cow, fmt::Display};

fn new(kind: ErrorKind, code: impl Into<Cow<'static, str>>, message: String) -> Error {
    Error::new(kind, message).code(code)
}
pub(crate) fn missing(code: &'static str, message: String) -> Error {
    new(ErrorKind::NotFound, code, message)
}
pub(crate) fn refused(code: &'static str, message: String) -> Error {
    new(ErrorKind::Conflict, code, message)
}
pub(crate) fn wrong(code: &'static str, message: String) -> Error {
    new(ErrorKind::BadRequest, code, message)
}
/// `InvalidInput`, what most checks of more than one field answer.
pub(crate) fn invalid(reason: impl Display) -> Error {
    wrong("InvalidInput", format!("Invalid input for operation: {reason}."))
}
/// `BadRequest`, what the router plug-in answers.
pub(crate) fn bad(resource: &str, reason: impl Display) -> Error {
    wrong("BadRequest", format!("Bad {resource} request: {reason}."))
}
pub(crate) fn forbidden(rule: &str) -> Error {
    Error::forbidden(format!("(rule:{rule}) is disallowed by policy")).code("PolicyNotAuthorized")
}

pub(crate) fn network_missing(id: &str) -> Error {
    missing("NetworkNotFound", format!("Network {id} could not be found."))
}
pub(crate) fn subnet_missing(id: &str) -> Error {
    missing("SubnetNotFound", format!("Subnet {id} could not be found."))
}
pub(crate) fn port_missing(id: &str) -> Error {
    missing("PortNotFound", format!("Port {id} could not be found."))
}
pub(crate) fn router_missing(id: &str) -> Error {
    missing("RouterNotFound", format!("Router {id} could not be found"))
}
pub(crate) fn group_missing(id: &str) -> Error {
    missing("SecurityGroupNotFound", format!("Security group {id} does not exist"))
}

pub(crate) fn network_in_use(id: &str) -> Error {
    let text = "There are one or more ports still in use on the network";
    refused("NetworkInUse", format!("Unable to complete operation on network {id}. {text}."))
}
pub(crate) fn subnet_in_use(id: &str) -> Error {
    let text = "One or more ports have an IP allocation from this subnet";
    refused("SubnetInUse", format!("Unable to complete operation on subnet {id}: {text}."))
}
pub(crate) fn port_in_use(id: &str, network: &str, device: &str) -> Error {
    let text = format!("Port already has an attached device {device}");
    refused("PortInUse", format!("Unable to complete operation on port {id} for network {network}. {text}."))
}
pub(crate) fn address_taken(ip: impl Display, subnet: &str) -> Error {
    refused("IpAddressAlreadyAllocated", format!("IP address {ip} already allocated in subnet {subnet}"))
}
pub(crate) fn no_address(network: &str) -> Error {
    refused("IpAddressGenerationFailure", format!("No more IP addresses available on network {network}."))
}
pub(crate) fn mac_taken(network: &str, mac: &str) -> Error {
    let text = format!("The mac address {mac} is in use");
    refused("MacAddressInUse", format!("Unable to complete operation for network {network}. {text}."))
}
