//! What a merge cannot read.
//!
//! A hole is a block of an input whose entries are lost. The keys in its range that the input's
//! filter lets pass may have had an entry there: whatever is older of such a key may be outdated,
//! and whatever is newer hides that the key is lost.

use std::rc::Rc;

use larder_runtime::env::Env;

use crate::index::table::{Table, key_hash};

struct Hole<E: Env> {
    /// How many inputs of the merge are newer.
    age: usize,
    table: Rc<Table<E>>,
    /// In increasing order.
    blocks: Vec<u32>,
}

/// The holes of a merge's inputs.
pub(super) struct Holes<E: Env>(Vec<Hole<E>>);

/// What may be lost of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Around {
    /// An entry that is newer than the one at hand.
    pub(super) newer: bool,
    /// An entry that is older.
    pub(super) older: bool,
}

impl<E: Env> Default for Holes<E> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<E: Env> Holes<E> {
    /// Notes blocks of an input, which are behind those that were noted of it before.
    pub(super) fn add(&mut self, age: usize, table: &Rc<Table<E>>, blocks: &[u32]) {
        match self.0.iter_mut().find(|hole| hole.age == age) {
            Some(hole) => hole.blocks.extend_from_slice(blocks),
            None => self.0.push(Hole { age, table: Rc::clone(table), blocks: blocks.to_vec() }),
        }
    }

    /// What may be lost of `key`, seen from an entry of the input of this age.
    pub(super) fn around(&self, key: &[u8], age: usize) -> Around {
        let mut around = Around::default();
        if self.0.is_empty() {
            return around;
        }
        let hash = key_hash(key);
        for hole in &self.0 {
            if hole.table.may_be_lost(&hole.blocks, key, hash) {
                around.newer |= hole.age < age;
                around.older |= hole.age > age;
            }
        }
        around
    }

    /// The inputs in which holes were found by reading them.
    pub(super) fn found(&self) -> Vec<(Rc<Table<E>>, Vec<u32>)> {
        let found = self.0.iter().filter(|hole| !hole.table.meta().is_stub());
        found.map(|hole| (Rc::clone(&hole.table), hole.blocks.clone())).collect()
    }
}
