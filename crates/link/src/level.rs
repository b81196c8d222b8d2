//! Assignments on the wire: whole at first, then what changed.
use assign::{Assignments, MetadataNetwork, ServerAssignment, SnapshotAssignment, VolumeAssignment};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// By id; `None`: not assigned any more.
type Entries<T> = BTreeMap<String, Option<Arc<T>>>;

/// From one set of assignments to the next.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// What is not named is not assigned.
    #[serde(default)]
    pub(crate) whole: bool,
    #[serde(default)]
    servers: Entries<ServerAssignment>,
    #[serde(default)]
    networks: Entries<MetadataNetwork>,
    #[serde(default)]
    snapshots: Entries<SnapshotAssignment>,
    #[serde(default)]
    volumes: Entries<VolumeAssignment>,
}

impl Change {
    pub(crate) fn all(now: &Assignments) -> Self {
        Self { whole: true, ..Self::between(&Assignments::default(), now) }
    }

    pub(crate) fn between(old: &Assignments, new: &Assignments) -> Self {
        Self {
            whole: false,
            servers: entries(&old.servers, &new.servers),
            networks: entries(&old.networks, &new.networks),
            snapshots: entries(&old.snapshots, &new.snapshots),
            volumes: entries(&old.volumes, &new.volumes),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is as it was keeps its `Arc`.
    pub(crate) fn apply(self, old: &Assignments) -> Assignments {
        let whole = self.whole;
        Assignments {
            servers: applied(whole, &old.servers, self.servers),
            networks: applied(whole, &old.networks, self.networks),
            snapshots: applied(whole, &old.snapshots, self.snapshots),
            volumes: applied(whole, &old.volumes, self.volumes),
        }
    }
}

fn entries<T>(old: &BTreeMap<String, Arc<T>>, new: &BTreeMap<String, Arc<T>>) -> Entries<T> {
    let changed = new.iter().filter(|(id, now)| old.get(*id).is_none_or(|before| !Arc::ptr_eq(before, now)));
    let gone = old.keys().filter(|id| !new.contains_key(*id));
    changed.map(|(id, now)| (id.clone(), Some(now.clone()))).chain(gone.map(|id| (id.clone(), None))).collect()
}

fn applied<T: PartialEq>(whole: bool, old: &BTreeMap<String, Arc<T>>, entries: Entries<T>) -> BTreeMap<String, Arc<T>> {
    let mut new = if whole { BTreeMap::new() } else { old.clone() };
    for (id, now) in entries {
        match (now, old.get(&id)) {
            (Some(now), Some(before)) if *now == **before => drop(new.insert(id, before.clone())),
            (Some(now), _) => drop(new.insert(id, now)),
            (None, _) => drop(new.remove(&id)),
        }
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(id: &str, mtu: u16) -> (String, Arc<MetadataNetwork>) {
        let network = MetadataNetwork { network_id: id.into(), port: String::new(), mac: String::new(), addresses: vec![], mtu };
        (id.to_owned(), Arc::new(network))
    }
    fn set(networks: impl IntoIterator<Item = (String, Arc<MetadataNetwork>)>) -> Assignments {
        Assignments { networks: networks.into_iter().collect(), ..Assignments::default() }
    }
    /// As it comes out at the other end.
    fn sent(change: &Change) -> Change {
        serde_json::from_str(&serde_json::to_string(change).unwrap()).unwrap()
    }

    #[test]
    fn a_change_carries_what_changed_and_nothing_else() {
        let old = set([network("a", 1), network("b", 1), network("c", 1)]);
        let mut new = old.clone();
        new.networks.remove("b");
        new.networks.extend([network("c", 2), network("d", 1)]);
        let change = Change::between(&old, &new);
        assert_eq!(change.networks.keys().collect::<Vec<_>>(), ["b", "c", "d"]);
        let there = sent(&Change::all(&old)).apply(&Assignments::default());
        assert_eq!(there.networks, old.networks);
        let after = sent(&change).apply(&there);
        assert_eq!(after.networks, new.networks);
        assert!(Arc::ptr_eq(&after.networks["a"], &there.networks["a"]));
        assert!(Change::between(&new, &new).is_empty());
    }

    #[test]
    fn a_whole_set_ends_what_it_does_not_name_and_keeps_what_is_equal() {
        let there = set([network("a", 1), network("b", 1)]);
        let after = sent(&Change::all(&set([network("b", 1)]))).apply(&there);
        assert_eq!(after.networks.keys().collect::<Vec<_>>(), ["b"]);
        assert!(Arc::ptr_eq(&after.networks["b"], &there.networks["b"]));
        assert!(!sent(&Change::all(&set([]))).is_empty(), "an empty whole set says something");
    }
}
