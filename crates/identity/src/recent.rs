//! A bounded memory of what was used lately. Two generations: when the young one is full it becomes the old one, and what was not
//! used since the time before is forgotten. So no flood of new entries makes all be forgotten at once, and a hit costs one look.
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{PoisonError, RwLock},
};

/// Holds at most twice `generation` entries.
pub(crate) struct Recent<K, V> {
    generation: usize,
    inner: RwLock<Inner<K, V>>,
}

struct Inner<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash + Copy, V: Clone> Recent<K, V> {
    pub(crate) fn new(generation: usize) -> Self {
        Self { generation, inner: RwLock::new(Inner { young: HashMap::new(), old: HashMap::new() }) }
    }
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let found = {
            let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(value) = inner.young.get(key) {
                return Some(value.clone());
            }
            inner.old.get(key).cloned()
        };
        // Used again: it stays for another generation.
        found.inspect(|value| self.insert(*key, value.clone()))
    }
    pub(crate) fn insert(&self, key: K, value: V) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if inner.young.len() >= self.generation && !inner.young.contains_key(&key) {
            inner.old = std::mem::take(&mut inner.young);
        }
        inner.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let recent = Recent::new(10);
        recent.insert(0, "used");
        recent.insert(1, "not used");
        for i in 2..100 {
            recent.insert(i, "flood");
            assert_eq!(recent.get(&0), Some("used"), "after {i}");
        }
        assert_eq!(recent.get(&1), None);
        let inner = recent.inner.read().unwrap();
        assert!(inner.young.len() <= 10 && inner.old.len() <= 10);
    }

    #[test]
    fn a_new_value_takes_the_place_of_the_old() {
        let recent = Recent::new(2);
        (0..3).for_each(|i| recent.insert(i, "old"));
        recent.insert(0, "new");
        assert_eq!(recent.get(&0), Some("new"));
    }
}
