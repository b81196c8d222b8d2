//! Servers: their states, what is shown of them, and how they come and go.
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod images;
pub(crate) mod list;
pub(crate) mod networks;
pub(crate) mod parts;
pub(crate) mod plan;
pub(crate) mod records;
pub(crate) mod request;
pub(crate) mod state;
pub(crate) mod update;
pub(crate) mod view;
