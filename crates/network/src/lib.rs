//! The network service (Neutron v2) on OVN
pub mod ovn;
