//! The tables of this service, one file each.
pub(crate) mod attachment;
pub(crate) mod group;
pub(crate) mod group_type;
pub(crate) mod message;
pub(crate) mod qos_specs;
pub(crate) mod snapshot;
pub(crate) mod volume;
pub(crate) mod volume_type;

pub(crate) use attachment::Attachment;
pub(crate) use group::{Group, GroupSnapshot};
pub(crate) use group_type::GroupType;
pub(crate) use message::Message;
pub(crate) use qos_specs::QosSpecs;
pub(crate) use snapshot::Snapshot;
pub(crate) use volume::Volume;
pub(crate) use volume_type::VolumeType;
