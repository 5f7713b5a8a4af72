//! Which generation of each namespace is alive.
//!
//! The number in an encoded key is the generation, not the namespace: clearing a namespace gives
//! it a new generation, so that its items are unreachable at once whatever their number. Namespaces
//! have the numbers below [`CLEARED`]; one that was never cleared is its own first generation.

use std::collections::BTreeMap;

use crate::key::DEFAULT_NAMESPACE;

/// The bit that tells the generations that clearing makes from the namespaces' own numbers.
pub const CLEARED: u32 = 1 << 31;

/// The living generation of every namespace that was ever cleared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generations(BTreeMap<u32, u32>);

impl Generations {
    /// What the manifest says.
    pub fn from_manifest(generations: &BTreeMap<u32, u64>) -> Self {
        let number = |generation: u64| u32::try_from(generation).unwrap_or(u32::MAX);
        let pairs = generations.iter();
        Self(pairs.map(|(&namespace, &generation)| (namespace, number(generation))).collect())
    }

    /// The living generation of `namespace`.
    pub fn of(&self, namespace: u32) -> u32 {
        self.0.get(&namespace).copied().unwrap_or(namespace)
    }

    /// Whether keys with this number are those of a living generation.
    pub fn is_alive(&self, generation: u32) -> bool {
        if generation & CLEARED == 0 {
            return !self.0.contains_key(&generation);
        }
        self.0.values().any(|alive| *alive == generation)
    }

    /// Whether an encoded key belongs to a living generation.
    pub fn has_key(&self, key: &[u8]) -> bool {
        self.is_alive(generation_of(key))
    }

    /// Makes `generation` the living one of `namespace`.
    pub fn set(&mut self, namespace: u32, generation: u32) {
        self.0.insert(namespace, generation);
    }

    /// A generation that no namespace has had.
    pub fn next(&self) -> u32 {
        let last = self.0.values().copied().max().unwrap_or(0);
        (last | CLEARED).checked_add(1).expect("namespaces are cleared fewer than 2^31 times")
    }

    /// Every namespace that was ever cleared, with its living generation.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.0.iter().map(|(&namespace, &generation)| (namespace, generation))
    }
}

/// The number at the front of an encoded key.
pub fn generation_of(key: &[u8]) -> u32 {
    key.first_chunk::<4>().map_or(DEFAULT_NAMESPACE, |bytes| u32::from_be_bytes(*bytes))
}
