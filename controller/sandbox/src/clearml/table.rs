//! A collection in the order of insertion with look-up by id, as the server's database lists it.

use std::collections::{BTreeMap, HashMap};

pub(crate) struct Table<T> {
    rows: BTreeMap<u64, T>,
    places: HashMap<String, u64>,
    next: u64,
}

impl<T> Table<T> {
    pub(crate) fn new() -> Self {
        Self { rows: BTreeMap::new(), places: HashMap::new(), next: 0 }
    }

    pub(crate) fn get(&self, id: &str) -> Option<&T> {
        self.rows.get(self.places.get(id)?)
    }

    pub(crate) fn get_mut(&mut self, id: &str) -> Option<&mut T> {
        self.rows.get_mut(self.places.get(id)?)
    }

    pub(crate) fn insert(&mut self, id: impl Into<String>, row: T) {
        self.places.insert(id.into(), self.next);
        self.rows.insert(self.next, row);
        self.next += 1;
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<T> {
        self.rows.remove(&self.places.remove(id)?)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.rows.values()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.rows.values_mut()
    }
}
