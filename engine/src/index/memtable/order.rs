//! The order of the keys: slots in blocks, the blocks and the slots in them sorted by key.
//!
//! A comparison looks at a few bytes of a key, which are held here, and reads the key itself only
//! if these are the same. They are the first ones behind those that the keys of a block share.

use std::cmp::Ordering;

/// Slots of a block; a full one is split in two.
const BLOCK: usize = 256;

/// How much of a key is held here.
const PREFIX: usize = 16;

/// What a slot takes here: blocks are half full after a split, and three quarters on average.
pub(super) const BYTES: usize = size_of::<Ranked>() * 4 / 3;

/// Bytes of a key from some place on, and zeros behind its end. If two from one place differ, so do
/// the keys from there on, and in the same direction: where only one key has ended that is the
/// smaller one, and zero is the smallest byte.
type Prefix = [u8; PREFIX];

/// A slot and some bytes of its key.
#[derive(Clone, Copy, Debug)]
struct Ranked {
    prefix: Prefix,
    slot: u32,
}

/// Slots sorted by key.
#[derive(Debug, Default)]
struct Run {
    /// All keys begin with the same bytes, so many; the prefixes begin behind them.
    shared: usize,
    ranked: Vec<Ranked>,
}

/// Slots in the order of their keys.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// A slot for each block. But for the first, no key of a block is smaller than this one's.
    beginnings: Run,
    /// None is empty.
    blocks: Vec<Run>,
}

impl Order {
    /// The slot of `key`. Here and below `key_of` tells the key of a slot.
    pub(super) fn find<'a>(&self, key: &[u8], key_of: impl Fn(u32) -> &'a [u8]) -> Option<u32> {
        let block = self.blocks.get(self.block_of(key, &key_of))?;
        let at = block.position(key, &key_of).ok()?;
        Some(block.ranked[at].slot)
    }

    /// Adds the slot of a key that is not there yet.
    pub(super) fn insert<'a>(&mut self, key: &[u8], slot: u32, key_of: impl Fn(u32) -> &'a [u8]) {
        if self.blocks.is_empty() {
            self.add_block(0, Run::default(), key, slot, &key_of);
        }
        let mut number = self.block_of(key, &key_of);
        if self.blocks[number].ranked.len() == BLOCK {
            let is_last = number + 1 == self.blocks.len();
            if is_last && self.blocks[number].position(key, &key_of) == Err(BLOCK) {
                // Keys that come in ascending order leave full blocks behind.
                self.add_block(number + 1, Run::default(), key, slot, &key_of);
            } else {
                let upper = self.blocks[number].split(&key_of);
                let middle = upper.ranked[0].slot;
                self.add_block(number + 1, upper, key_of(middle), middle, &key_of);
            }
            number = self.block_of(key, &key_of);
        }
        let block = &mut self.blocks[number];
        let at = block.position(key, &key_of).expect_err("a key that is there has a slot");
        block.insert(at, key, slot, &key_of);
    }

    /// All slots, in the order of their keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.blocks.iter().flat_map(|block| &block.ranked).map(|ranked| ranked.slot)
    }

    /// The slots of keys from `key` on, in ascending order.
    pub(super) fn from<'a>(
        &self,
        key: &[u8],
        key_of: impl Fn(u32) -> &'a [u8],
    ) -> impl Iterator<Item = u32> {
        let number = self.block_of(key, &key_of);
        let block = self.blocks.get(number);
        let at = block.map_or(0, |block| block.position(key, &key_of).unwrap_or_else(|at| at));
        let blocks = self.blocks.get(number..).unwrap_or_default();
        blocks.iter().flat_map(|block| &block.ranked).skip(at).map(|ranked| ranked.slot)
    }

    /// The slots of keys below `key`, all without one, in descending order.
    pub(super) fn below<'a>(
        &self,
        key: Option<&[u8]>,
        key_of: impl Fn(u32) -> &'a [u8],
    ) -> impl Iterator<Item = u32> {
        let number = key.map_or(self.blocks.len(), |key| self.block_of(key, &key_of));
        let last = self.blocks.get(number).map_or(&[][..], |block| {
            let end = key.map(|key| block.position(key, &key_of).unwrap_or_else(|at| at));
            &block.ranked[..end.unwrap_or(block.ranked.len())]
        });
        let blocks = &self.blocks[..number.min(self.blocks.len())];
        let before = blocks.iter().rev().flat_map(|block| block.ranked.iter().rev());
        last.iter().rev().chain(before).map(|ranked| ranked.slot)
    }

    /// Frees a block; false if there was none.
    pub(super) fn drop_some(&mut self) -> bool {
        self.blocks.pop().is_some()
    }

    /// The number of the block that has `key` if one has it; 0 if there is no block.
    fn block_of<'a>(&self, key: &[u8], key_of: impl Fn(u32) -> &'a [u8]) -> usize {
        match self.beginnings.position(key, key_of) {
            Ok(number) => number,
            Err(number) => number.saturating_sub(1),
        }
    }

    /// Makes `block` the block with this number. No key in it is smaller than `key`, which is that
    /// of `slot`.
    fn add_block<'a>(
        &mut self,
        number: usize,
        block: Run,
        key: &[u8],
        slot: u32,
        key_of: impl Fn(u32) -> &'a [u8],
    ) {
        self.blocks.insert(number, block);
        self.beginnings.insert(number, key, slot, key_of);
    }
}

impl Run {
    /// Where `key` is, or where it belongs.
    fn position<'a>(&self, key: &[u8], key_of: impl Fn(u32) -> &'a [u8]) -> Result<usize, usize> {
        let Some(first) = self.ranked.first() else { return Err(0) };
        let shared = &key_of(first.slot)[..self.shared];
        match key[..key.len().min(self.shared)].cmp(shared) {
            Ordering::Less => return Err(0),
            Ordering::Greater => return Err(self.ranked.len()),
            Ordering::Equal => {}
        }
        let rest = &key[self.shared..];
        let number = |prefix: Prefix| u128::from_be_bytes(prefix);
        let prefix = number(prefix_of(rest));
        self.ranked.binary_search_by(|other| {
            let by_key = || key_of(other.slot)[self.shared..].cmp(rest);
            number(other.prefix).cmp(&prefix).then_with(by_key)
        })
    }

    fn insert<'a>(&mut self, at: usize, key: &[u8], slot: u32, key_of: impl Fn(u32) -> &'a [u8]) {
        match self.ranked.first() {
            None => {
                self.shared = key.len();
                self.ranked.reserve_exact(BLOCK);
            }
            Some(first) => {
                let shared = shared(key_of(first.slot), key);
                if shared < self.shared {
                    self.rank(shared, key_of);
                }
            }
        }
        self.ranked.insert(at, Ranked { prefix: prefix_of(&key[self.shared..]), slot });
    }

    /// Takes the greater half of the slots off.
    fn split<'a>(&mut self, key_of: impl Fn(u32) -> &'a [u8]) -> Self {
        let mut upper = Self { shared: self.shared, ranked: Vec::with_capacity(BLOCK) };
        upper.ranked.extend(self.ranked.drain(self.ranked.len() / 2..));
        for half in [&mut *self, &mut upper] {
            if let [first, .., last] = half.ranked[..] {
                half.rank(shared(key_of(first.slot), key_of(last.slot)), &key_of);
            }
        }
        upper
    }

    /// Holds the bytes of the keys that are behind the first `shared` ones.
    fn rank<'a>(&mut self, shared: usize, key_of: impl Fn(u32) -> &'a [u8]) {
        self.shared = shared;
        for ranked in &mut self.ranked {
            ranked.prefix = prefix_of(&key_of(ranked.slot)[shared..]);
        }
    }
}

/// How many bytes the keys have in common at their beginning.
fn shared(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

fn prefix_of(key: &[u8]) -> Prefix {
    let mut prefix = [0; PREFIX];
    let len = key.len().min(PREFIX);
    prefix[..len].copy_from_slice(&key[..len]);
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order of keys that come one after another, checked against a sorted list.
    fn ordered(keys: &[Vec<u8>]) -> Order {
        let key_of = |slot: u32| &keys[slot as usize][..];
        let mut order = Order::default();
        for (slot, key) in (0..).zip(keys) {
            order.insert(key, slot, key_of);
        }
        let mut sorted: Vec<u32> = (0..keys.len() as u32).collect();
        sorted.sort_by_key(|&slot| key_of(slot));
        assert!(order.iter().eq(sorted));
        for (slot, key) in (0..).zip(keys) {
            assert_eq!(order.find(key, key_of), Some(slot));
            assert_eq!(order.find(&[key, &b"\0absent"[..]].concat(), key_of), None);
        }
        assert_eq!(order.blocks.len(), order.beginnings.ranked.len());
        order
    }

    fn lens(order: &Order) -> Vec<usize> {
        order.blocks.iter().map(|block| block.ranked.len()).collect()
    }

    #[test]
    fn ascending_keys_fill_blocks_and_others_at_least_half() {
        let mut keys: Vec<Vec<u8>> = (0..2000u32).map(|key| key.to_be_bytes().to_vec()).collect();
        assert_eq!(lens(&ordered(&keys)), [256, 256, 256, 256, 256, 256, 256, 208]);
        keys.reverse();
        assert!(lens(&ordered(&keys)).iter().all(|len| (BLOCK / 2..=BLOCK).contains(len)));
        keys.sort_by_key(|key| u32::from_le_bytes([key[0], key[1], key[2], key[3]]));
        assert!(lens(&ordered(&keys)).iter().all(|len| (BLOCK / 2..=BLOCK).contains(len)));
    }

    #[test]
    fn keys_that_have_less_and_less_in_common_are_sorted() {
        let beginnings = (0..600usize).rev();
        let smaller = beginnings.clone().map(|same| [vec![b'm'; same], vec![b'a']].concat());
        let greater = beginnings.clone().map(|same| [vec![b'm'; same], vec![b'z']].concat());
        let ended = beginnings.map(|same| vec![b'm'; same]);
        ordered(&smaller.chain(greater).chain(ended).collect::<Vec<_>>());
    }

    #[test]
    fn keys_that_share_much_are_told_apart_without_reading_them() {
        let key = |number: u64| format!("{:0>200}{:05}", "", number * 7919 % 100_000).into_bytes();
        let keys: Vec<Vec<u8>> = (0..5000).map(key).collect();
        let order = ordered(&keys);
        for run in order.blocks.iter().chain([&order.beginnings]) {
            let prefixes = run.ranked.iter().map(|ranked| ranked.prefix);
            assert!(run.shared >= 200 && prefixes.is_sorted_by(|a, b| a < b), "{run:?}");
        }
    }
}
