//! Transfers: a volume changes its project, by a key that the giver hands over.
use store::{Index, Table};

pub(crate) static TRANSFERS: Table = Table {
    name: "volume/transfers",
    indexes: &[Index { name: "volume_id", path: "/volume_id" }, Index { name: "project_id", path: "/project_id" }],
};
