//! The tables of this service, one file each.
pub(crate) mod aggregate;
pub(crate) mod flavor;
pub(crate) mod keypair;
pub(crate) mod node;
pub(crate) mod server;
pub(crate) mod server_group;

pub(crate) use aggregate::Aggregate;
pub(crate) use flavor::Flavor;
pub(crate) use keypair::Keypair;
pub(crate) use node::Node;
pub(crate) use server::Server;
pub(crate) use server_group::ServerGroup;
