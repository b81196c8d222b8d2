//! Rows of the northbound database as we want them.
use std::collections::{BTreeMap, BTreeSet};

/// The `external_ids` key that makes a row ours; its value is the row's stable name within its table.
pub const KEY: &str = "drover:key";

/// The tables that we write, in no particular order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    AddressSet,
    Acl,
    DhcpOptions,
    HaChassis,
    HaChassisGroup,
    LogicalRouter,
    LogicalRouterPort,
    LogicalRouterStaticRoute,
    LogicalSwitch,
    LogicalSwitchPort,
    Nat,
    PortGroup,
}

impl Table {
    pub const ALL: [Self; 12] = [
        Self::AddressSet,
        Self::Acl,
        Self::DhcpOptions,
        Self::HaChassis,
        Self::HaChassisGroup,
        Self::LogicalRouter,
        Self::LogicalRouterPort,
        Self::LogicalRouterStaticRoute,
        Self::LogicalSwitch,
        Self::LogicalSwitchPort,
        Self::Nat,
        Self::PortGroup,
    ];
    pub fn name(self) -> &'static str {
        match self {
            Self::AddressSet => "Address_Set",
            Self::Acl => "ACL",
            Self::DhcpOptions => "DHCP_Options",
            Self::HaChassis => "HA_Chassis",
            Self::HaChassisGroup => "HA_Chassis_Group",
            Self::LogicalRouter => "Logical_Router",
            Self::LogicalRouterPort => "Logical_Router_Port",
            Self::LogicalRouterStaticRoute => "Logical_Router_Static_Route",
            Self::LogicalSwitch => "Logical_Switch",
            Self::LogicalSwitchPort => "Logical_Switch_Port",
            Self::Nat => "NAT",
            Self::PortGroup => "Port_Group",
        }
    }
    /// The columns that we write and follow, besides `external_ids`.
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Self::AddressSet => &["name", "addresses"],
            Self::Acl => &["priority", "direction", "match", "action"],
            Self::DhcpOptions => &["cidr", "options"],
            Self::HaChassis => &["chassis_name", "priority"],
            Self::HaChassisGroup => &["name", "ha_chassis"],
            Self::LogicalRouter => &["name", "enabled", "options", "ports", "static_routes", "nat"],
            Self::LogicalRouterPort => &["name", "mac", "networks", "enabled", "options", "ipv6_ra_configs", "ha_chassis_group"],
            Self::LogicalRouterStaticRoute => &["ip_prefix", "nexthop", "output_port"],
            Self::LogicalSwitch => &["name", "ports"],
            Self::LogicalSwitchPort => {
                &["name", "type", "addresses", "port_security", "enabled", "options", "tag", "dhcpv4_options", "dhcpv6_options"]
            }
            Self::Nat => &["type", "external_ip", "logical_ip", "external_mac", "logical_port"],
            Self::PortGroup => &["name", "ports", "acls"],
        }
    }
}

/// What names one of our rows, whatever uuid the database gave it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub table: Table,
    pub name: String,
}

impl Key {
    pub fn new(table: Table, name: impl Into<String>) -> Self {
        Self { table, name: name.into() }
    }
}

/// The value of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datum {
    Bool(bool),
    Int(i64),
    Text(String),
    /// An optional integer.
    SomeInt(Option<i64>),
    /// An optional string.
    SomeText(Option<String>),
    /// An optional boolean that is there.
    SomeBool(bool),
    Texts(BTreeSet<String>),
    Map(BTreeMap<String, String>),
    /// At most one of our rows.
    One(Option<Key>),
    /// Some of our rows; members that are not ours stay.
    Many(BTreeSet<Key>),
}

/// Column names and values; columns that are not named keep what the database has.
pub type Row = Vec<(&'static str, Datum)>;

/// All our rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    pub rows: BTreeMap<Key, Row>,
    /// What could not be compiled and why; for the operator.
    pub problems: Vec<String>,
}

impl Desired {
    pub(crate) fn put(&mut self, key: Key, row: Row) -> Key {
        self.rows.insert(key.clone(), row);
        key
    }
    pub(crate) fn problem(&mut self, text: String) {
        self.problems.push(text);
    }
    /// A column of a row, for looking at what was compiled.
    pub fn column(&self, table: Table, name: &str, column: &str) -> Option<&Datum> {
        let row = self.rows.get(&Key::new(table, name))?;
        row.iter().find(|(c, _)| *c == column).map(|(_, datum)| datum)
    }
}

pub(crate) fn text(s: impl Into<String>) -> Datum {
    Datum::Text(s.into())
}
pub(crate) fn texts<S: Into<String>>(items: impl IntoIterator<Item = S>) -> Datum {
    Datum::Texts(items.into_iter().map(Into::into).collect())
}
pub(crate) fn map<V: Into<String>>(pairs: impl IntoIterator<Item = (&'static str, V)>) -> Datum {
    Datum::Map(pairs.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect())
}
