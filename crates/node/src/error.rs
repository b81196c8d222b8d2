//! What can go wrong on a node, in words for users, and whether trying again can help.
use std::{io, path::Path};

/// A step that failed. The text is for users; the source, where there is one, for operators.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("node configuration: {0}; correct it and start the node again")]
    Config(String),
    #[error("{what} on the node failed: {source}; try again, or ask your operator to look at the node's log")]
    Io { what: String, source: io::Error },
    #[error("the node has no disk space left for {0}; delete something or try again later")]
    NoSpace(String),
    #[error("{tool} failed on the node: {cause}; ask your operator to look at the node's log")]
    Tool { tool: String, cause: String, transient: bool },
    #[error("image {image} could not be brought to the node: {cause}; try again later")]
    Image { image: String, cause: String, transient: bool },
    #[error("image {image} of format {format} cannot be booted; convert it to qcow2 or raw and upload it again")]
    Format { image: String, format: String },
    #[error("the root disk of server {0} is missing on its node; rebuild the server")]
    DiskMissing(String),
    #[error("QEMU refused {command}: {cause}; ask your operator to look at the node's log")]
    Refused { command: String, cause: String },
    #[error("QEMU did not answer {0} in time; reboot the server hard if this stays so")]
    Silent(String),
    #[error("QEMU did not start: {0}; ask your operator to look at the node's log")]
    Start(String),
    #[error("port {port} could not be plugged: {cause}; try again later")]
    Plug { port: String, cause: String },
    #[error("volume {0} could not be plugged: {1}; it is tried again, or detach it")]
    PlugVolume(String, String),
    #[error("the data of volume {0} is missing on its node; restore it from a backup, or delete the volume")]
    VolumeLost(String),
    #[error("snapshot {0} is not on the node that shall make a volume of it; create it anew")]
    SourceMissing(String),
    #[error("{size_gib} GiB are too small for the image's {needed_gib} GiB; ask for a larger volume")]
    TooSmall { size_gib: u64, needed_gib: u64 },
    #[error("volume {0} has too many layers of snapshots; detach it for a while, so that they can be merged")]
    TooManyLayers(String),
    #[error("a volume is not served: {cause}; it is tried again")]
    Serve { cause: String },
    #[error("server {0} does not run on this node")]
    NotHere(String),
    #[error("server {0} does not run; start it first")]
    NotRunning(String),
}

impl Error {
    /// Names what was attempted on which path; a full disk gets its own error.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace(what),
            _ => Self::Io { what, source },
        }
    }
    pub(crate) fn path(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::io(format!("{verb} {}", path.display()))
    }
    /// Can the same step succeed later without a change of the assignment?
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Io { .. }
            | Self::NoSpace(_)
            | Self::Silent(_)
            | Self::Start(_)
            | Self::Plug { .. }
            | Self::PlugVolume(..)
            | Self::Serve { .. } => true,
            Self::Tool { transient, .. } | Self::Image { transient, .. } => *transient,
            Self::Config(_)
            | Self::Format { .. }
            | Self::DiskMissing(_)
            | Self::Refused { .. }
            | Self::VolumeLost(_)
            | Self::SourceMissing(_)
            | Self::TooSmall { .. }
            | Self::TooManyLayers(_)
            | Self::NotHere(_)
            | Self::NotRunning(_) => false,
        }
    }
}
