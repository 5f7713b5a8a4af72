//! Every change that was made, in the log's order, and what a key may hold after some of them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use super::oracle::Item;
use crate::key::{DEFAULT_NAMESPACE, Key};
use crate::scan::Scan;

/// The name of an item: a key that owns its parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) namespace: u32,
    pub(super) record: Vec<u8>,
    pub(super) item: Vec<u8>,
}

impl Name {
    pub(super) fn memcached(record: &[u8]) -> Self {
        Self { namespace: DEFAULT_NAMESPACE, record: record.to_vec(), item: Vec::new() }
    }

    pub(super) fn as_key(&self) -> Key<'_> {
        Key { namespace: self.namespace, record: &self.record, item: &self.item }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (record, item) = (self.record.escape_ascii(), self.item.escape_ascii());
        write!(formatter, "{}/{record}/{item}", self.namespace)
    }
}

/// Names between two, in the order of encoded keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NameRange {
    pub(super) namespace: u32,
    /// Encoded, with 0 for the generation.
    start: Vec<u8>,
    end: Option<Vec<u8>>,
}

impl NameRange {
    pub(super) fn of(scan: &Scan) -> Self {
        let (start, end) = scan.bounds(0);
        Self { namespace: scan.namespace(), start, end }
    }

    pub(super) fn has(&self, name: &Name) -> bool {
        let key = Key { namespace: 0, ..name.as_key() }.encode();
        let is_below = self.end.as_ref().is_none_or(|end| key < *end);
        name.namespace == self.namespace && key >= self.start && is_below
    }
}

/// A change to the shard.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// The item has this value, or is gone.
    Item(Name, Option<Item>),
    /// Several items have these values, or are gone: all at once.
    Batch(Vec<(Name, Option<Item>)>),
    /// The items between two are gone.
    Range(NameRange),
    /// Every item of the default namespace is gone.
    Clear,
    /// Every item of the default namespace will be gone at this Unix second.
    Schedule(u32),
}

#[derive(Clone, Debug)]
struct Recorded {
    sequence: u64,
    change: Change,
    /// A fault of the device may have taken it.
    is_doubtful: bool,
}

/// The items at one point of the log.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) items: BTreeMap<Name, Item>,
    pub(super) clear_at: u32,
}

impl State {
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Item(name, Some(item)) => drop(self.items.insert(name.clone(), item.clone())),
            Change::Item(name, None) => drop(self.items.remove(name)),
            Change::Batch(items) => {
                for (name, item) in items {
                    self.apply(&Change::Item(name.clone(), item.clone()));
                }
            }
            Change::Range(range) => self.items.retain(|name, _| !range.has(name)),
            Change::Clear => {
                self.items.retain(|name, _| name.namespace != DEFAULT_NAMESPACE);
                self.clear_at = 0;
            }
            Change::Schedule(at) => self.clear_at = *at,
        }
    }
}

/// What there was at the beginning, and the changes since.
#[derive(Clone, Default)]
pub(super) struct History {
    base: State,
    changes: Vec<Recorded>,
}

/// The changes that concern each key, by their places in the history.
pub(super) struct Places<'a> {
    of_names: BTreeMap<&'a Name, Vec<usize>>,
    clears: Vec<usize>,
    schedules: Vec<usize>,
    ranges: Vec<(usize, &'a NameRange)>,
}

impl History {
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn push(&mut self, sequence: u64, change: Change) {
        self.changes.push(Recorded { sequence, change, is_doubtful: false });
    }

    /// Notes that the engine has dropped what the key held: from its last change on it holds
    /// nothing.
    pub(super) fn drop_item(&mut self, name: &Name) {
        let of_name = |change: &&mut Change| match change {
            Change::Item(of, _) => of == name,
            Change::Batch(items) => items.iter().any(|(of, _)| of == name),
            Change::Range(range) => range.has(name),
            Change::Clear | Change::Schedule(_) => false,
        };
        let mut changes = self.changes.iter_mut().rev().map(|recorded| &mut recorded.change);
        match changes.find(of_name) {
            Some(Change::Item(_, item)) => *item = None,
            Some(Change::Batch(items)) => {
                let of_name = items.iter_mut().filter(|(of, _)| of == name);
                of_name.for_each(|(_, item)| *item = None);
            }
            Some(_) => {}
            None => drop(self.base.items.remove(name)),
        }
    }

    /// How many changes come before this sequence.
    pub(super) fn count_before(&self, sequence: u64) -> usize {
        self.changes.partition_point(|recorded| recorded.sequence < sequence)
    }

    /// Begins anew with `base`.
    pub(super) fn restart(&mut self, base: State) {
        *self = Self { base, changes: Vec::new() };
    }

    /// Notes that a fault may have taken the changes for which `is_doubtful` holds, which gets
    /// their places and sequences.
    pub(super) fn doubt(&mut self, is_doubtful: impl Fn(usize, u64) -> bool) {
        for (place, recorded) in self.changes.iter_mut().enumerate() {
            recorded.is_doubtful |= is_doubtful(place, recorded.sequence);
        }
    }

    pub(super) fn places(&self) -> Places<'_> {
        let (clears, schedules, ranges) = (Vec::new(), Vec::new(), Vec::new());
        let mut places = Places { of_names: BTreeMap::new(), clears, schedules, ranges };
        for (place, recorded) in self.changes.iter().enumerate() {
            match &recorded.change {
                Change::Item(name, _) => places.of_names.entry(name).or_default().push(place),
                Change::Clear => places.clears.push(place),
                Change::Batch(items) => {
                    for (name, _) in items {
                        places.of_names.entry(name).or_default().push(place);
                    }
                }
                Change::Range(range) => places.ranges.push((place, range)),
                Change::Schedule(_) => places.schedules.push(place),
            }
        }
        places
    }

    /// After how many changes the key may hold what `fits`: as ranges of that number.
    ///
    /// A key holds what its last change says, or, if that one is doubtful, what the change before
    /// it says, and so on.
    pub(super) fn spans(
        &self,
        places: &Places<'_>,
        name: &Name,
        fits: impl Fn(Option<&Item>) -> bool,
    ) -> Vec<RangeInclusive<usize>> {
        let mut relevant = places.of_names.get(name).cloned().unwrap_or_default();
        if name.namespace == DEFAULT_NAMESPACE {
            relevant.extend(&places.clears);
        }
        let with_name = places.ranges.iter().filter(|(_, range)| range.has(name));
        relevant.extend(with_name.map(|(place, _)| place));
        relevant.sort_unstable();
        let first = fits(self.base.items.get(name));
        self.spans_of(&relevant, first, |change| match change {
            Change::Item(_, item) => fits(item.as_ref()),
            Change::Batch(items) => fits(of_batch(items, name)),
            Change::Clear | Change::Range(_) | Change::Schedule(_) => fits(None),
        })
    }

    /// The same for the moment at which the default namespace is to be cleared.
    pub(super) fn schedule_spans(
        &self,
        places: &Places<'_>,
        clear_at: u32,
    ) -> Vec<RangeInclusive<usize>> {
        let mut relevant = [places.clears.as_slice(), &places.schedules].concat();
        relevant.sort_unstable();
        self.spans_of(&relevant, self.base.clear_at == clear_at, |change| match change {
            Change::Schedule(at) => *at == clear_at,
            _ => clear_at == 0,
        })
    }

    fn spans_of(
        &self,
        relevant: &[usize],
        first_fits: bool,
        fits: impl Fn(&Change) -> bool,
    ) -> Vec<RangeInclusive<usize>> {
        let mut spans = Vec::new();
        let (mut fitting, mut start) = (first_fits, 0);
        for &place in relevant {
            if fitting {
                spans.push(start..=place);
            }
            let recorded = &self.changes[place];
            fitting = fits(&recorded.change) || (fitting && recorded.is_doubtful);
            start = place + 1;
        }
        if fitting {
            spans.push(start..=self.changes.len());
        }
        spans
    }

    /// What the key holds after `count` changes if none of them is lost.
    pub(super) fn value_after(&self, name: &Name, count: usize) -> Option<&Item> {
        for recorded in self.changes[..count].iter().rev() {
            match &recorded.change {
                Change::Item(changed, item) if changed == name => return item.as_ref(),
                Change::Clear if name.namespace == DEFAULT_NAMESPACE => return None,
                Change::Range(range) if range.has(name) => return None,
                Change::Batch(items) if items.iter().any(|(of, _)| of == name) => {
                    return of_batch(items, name);
                }
                _ => {}
            }
        }
        self.base.items.get(name)
    }
}

/// What a batch says of an item that it changes.
fn of_batch<'a>(items: &'a [(Name, Option<Item>)], name: &Name) -> Option<&'a Item> {
    items.iter().find(|(of, _)| of == name)?.1.as_ref()
}
