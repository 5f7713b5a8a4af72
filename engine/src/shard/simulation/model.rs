//! What a shard should hold: an ordered map, and the changes that are not sure to be durable.
//!
//! Changes are known by their log sequence. After a crash the shard must hold the state after some
//! prefix of them that includes everything acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use crate::entry::Metadata;
use super::oracle::{self, After, Circumstances, Item};
use crate::operation::{Lease, Operation, Outcome};
use crate::shard::Answer;

/// A change to the shard.
#[derive(Clone, Debug)]
enum Change {
    Key(Vec<u8>, Option<Item>),
    Flush,
    Schedule(u32),
}

/// The items at one point of the log.
#[derive(Clone, Debug, Default)]
struct State {
    items: BTreeMap<Vec<u8>, Item>,
    flush_at: u32,
}

impl State {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Key(key, Some(item)) => {
                self.items.insert(key.clone(), item.clone());
            }
            Change::Key(key, None) => {
                self.items.remove(key);
            }
            Change::Flush => *self = Self::default(),
            Change::Schedule(at) => self.flush_at = *at,
        }
    }
}

/// An answer that owns its value.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) outcome: Outcome,
    pub(super) metadata: Metadata,
    pub(super) value: Vec<u8>,
    pub(super) value_len: usize,
    pub(super) lease: Lease,
}

impl Reply {
    pub(super) fn new(answer: &Answer<'_>) -> Self {
        Self {
            outcome: answer.outcome,
            metadata: answer.metadata,
            value: answer.value.to_vec(),
            value_len: answer.value_len,
            lease: answer.lease,
        }
    }
}

/// An operation that was carried out, as the client saw it.
pub(super) struct Observed<'a> {
    pub(super) key: &'a [u8],
    pub(super) operation: Operation<'a>,
    pub(super) reply: &'a Reply,
    pub(super) needs: u64,
    /// The log was durable up to here when the answer came.
    pub(super) durable_end: u64,
    /// What the clock showed from the operation's beginning to its end.
    pub(super) clock: &'a [u32],
    pub(super) value_bytes_max: usize,
}

/// What reading a key back gave; `None` if it is known to be damaged.
pub(super) type Found = BTreeMap<Vec<u8>, Option<Option<Item>>>;

#[derive(Clone, Default)]
pub(super) struct Model {
    base: State,
    changes: BTreeMap<u64, Change>,
    now: State,
    /// The log position up to which answers were given.
    acknowledged_end: u64,
    /// Above every log sequence that was ever used.
    sequence_end: u64,
    generation: u32,
    /// The latest that the clock has ever shown: what has expired by then may be gone.
    clock_max: u32,
    /// What the clock was set to, in order.
    clock_steps: Vec<u32>,
    /// The last change of each key, and of all.
    changed: BTreeMap<Vec<u8>, u64>,
    flushed: u64,
    keys: BTreeSet<Vec<u8>>,
    /// Every item that each key ever had.
    history: BTreeMap<Vec<u8>, Vec<Item>>,
    /// Keys whose data a fault has destroyed.
    lost: BTreeSet<Vec<u8>>,
}

impl Model {
    pub(super) fn keys(&self) -> &BTreeSet<Vec<u8>> {
        &self.keys
    }

    pub(super) fn is_lost(&self, key: &[u8]) -> bool {
        self.lost.contains(key)
    }

    pub(super) fn sequence_end(&self) -> u64 {
        self.sequence_end
    }

    pub(super) fn flush_at(&self) -> u32 {
        self.now.flush_at
    }

    pub(super) fn see_clock(&mut self, now: u32) {
        self.clock_max = self.clock_max.max(now);
    }

    pub(super) fn step_clock(&mut self, now: u32) {
        self.see_clock(now);
        self.clock_steps.push(now);
    }

    pub(super) fn clock_steps(&self) -> &[u32] {
        &self.clock_steps
    }

    /// Everything below this log position must survive from now on.
    pub(super) fn acknowledge(&mut self, end: u64) {
        self.acknowledged_end = self.acknowledged_end.max(end);
    }

    /// Notes a flush that was carried out and whose record has this log sequence.
    pub(super) fn see_generation(&mut self, generation: u32, sequence: u64) {
        if generation != self.generation {
            self.generation = generation;
            self.record(sequence, Change::Flush);
            self.flushed = sequence + 1;
        }
    }

    pub(super) fn schedule(&mut self, at: u32, sequence: u64) {
        self.record(sequence, Change::Schedule(at));
    }

    fn record(&mut self, sequence: u64, change: Change) {
        assert!(sequence >= self.sequence_end, "log sequence {sequence} was used before");
        self.sequence_end = sequence + 1;
        self.now.apply(&change);
        if let Change::Key(key, Some(item)) = &change {
            self.history.entry(key.clone()).or_default().push(item.clone());
        }
        self.changes.insert(sequence, change);
    }

    fn may_have_gone(&self, item: &Item) -> bool {
        item.metadata.is_expired(self.clock_max)
    }

    /// Checks an answer and makes the operation's change.
    pub(super) fn observe(&mut self, observed: &Observed<'_>) {
        let key = observed.key;
        self.keys.insert(key.to_vec());
        let item = self.now.items.get(key).cloned();
        let mut candidates = vec![item.clone()];
        if item.as_ref().is_some_and(|item| self.may_have_gone(item)) {
            candidates.push(None);
        }
        for candidate in &candidates {
            for &now in observed.clock {
                if let Some(change) = matches(candidate.as_ref(), now, observed) {
                    let changed = self.changed.get(key).copied().unwrap_or(0).max(self.flushed);
                    assert!(
                        observed.needs >= changed || changed <= observed.durable_end,
                        "the answer {observed_reply:?} to {operation:?} shows a change below \
                         {changed}, but needs only {needs}",
                        observed_reply = observed.reply.outcome,
                        operation = observed.operation,
                        needs = observed.needs,
                    );
                    if let After::Becomes(after) = change {
                        self.changed.insert(key.to_vec(), observed.needs);
                        self.record(observed.needs - 1, Change::Key(key.to_vec(), after));
                    } else if candidate.is_none() {
                        self.now.items.remove(key);
                    }
                    return;
                }
            }
        }
        panic!(
            "{} {:?}\nat {:?} was answered {:?} (needs {})\nbut the item is {:?}",
            key.escape_ascii(),
            observed.operation,
            observed.clock,
            observed.reply,
            observed.needs,
            item,
        );
    }

    /// Finds the prefix of the changes that the shard has recovered to, and goes on from there.
    ///
    /// `flush_at` is the flush that the shard has scheduled.
    pub(super) fn settle(&mut self, found: &Found, generation: u32, flush_at: u32) {
        let mut state = self.base.clone();
        let mut nearest: Option<Vec<String>> = None;
        let changes = std::mem::take(&mut self.changes);
        let mut rest = changes.iter();
        loop {
            let next = rest.next();
            if next.is_none_or(|(sequence, _)| *sequence >= self.acknowledged_end) {
                let differences = self.differences(&state, found, flush_at);
                if differences.is_empty() {
                    break;
                }
                if nearest.as_ref().is_none_or(|nearest| differences.len() < nearest.len()) {
                    nearest = Some(differences);
                }
            }
            let Some((_, change)) = next else {
                panic!(
                    "what was recovered is no prefix of what was done; acknowledged to {}, done \
                     to {}; the nearest differs in\n{}",
                    self.acknowledged_end,
                    self.sequence_end,
                    nearest.unwrap_or_default().join("\n"),
                );
            };
            state.apply(change);
        }
        self.adopt(state, found);
        self.generation = generation;
        self.acknowledged_end = self.sequence_end;
        self.changed.clear();
        self.flushed = 0;
    }

    /// Goes on from what was found although the device has lost acknowledged changes: the items
    /// must only be such that once were there, unmixed.
    pub(super) fn settle_after_loss(
        &mut self,
        found: &Found,
        generation: u32,
        flush_at: u32,
        sequence_next: u64,
    ) {
        for (key, found) in found {
            let Some(Some(found)) = found else { continue };
            let known = self.history.get(key).is_some_and(|items| items.contains(found));
            assert!(known, "{} never was {}", key.escape_ascii(), describe(Some(found)));
        }
        self.changes.clear();
        let items = BTreeMap::new();
        self.adopt(State { items, flush_at }, found);
        self.generation = generation;
        self.sequence_end = sequence_next;
        self.acknowledged_end = sequence_next;
        self.changed.clear();
        self.flushed = 0;
    }

    fn differences(&self, state: &State, found: &Found, flush_at: u32) -> Vec<String> {
        let mut differences = Vec::new();
        for (key, found) in found {
            let Some(found) = found else { continue };
            let expected = state.items.get(key);
            let gone = found.is_none() && expected.is_some_and(|item| self.may_have_gone(item));
            if expected != found.as_ref() && !gone {
                let (key, found) = (key.escape_ascii(), describe(found.as_ref()));
                differences.push(format!("{key}: {found}, expected {}", describe(expected)));
            }
        }
        if state.flush_at != flush_at {
            differences.push(format!("flush at {flush_at}, expected {}", state.flush_at));
        }
        differences
    }

    fn adopt(&mut self, mut state: State, found: &Found) {
        for (key, found) in found {
            match found {
                Some(Some(item)) => drop(state.items.insert(key.clone(), item.clone())),
                Some(None) => drop(state.items.remove(key)),
                None => drop(self.lost.insert(key.clone())),
            }
        }
        self.base = state.clone();
        self.now = state;
    }
}

fn describe(item: Option<&Item>) -> String {
    item.map_or("none".to_owned(), |item| {
        let start = &item.value[..item.value.len().min(12)];
        format!("{:?} {} bytes {}", item.metadata, item.value.len(), start.escape_ascii())
    })
}

/// What becomes of the key if the answer is right for this item at this time.
fn matches(item: Option<&Item>, now: u32, observed: &Observed<'_>) -> Option<After> {
    let circumstances = Circumstances {
        now,
        version_next: observed.needs.saturating_sub(1),
        value_bytes_max: observed.value_bytes_max,
    };
    let expected = oracle::expected(item, &observed.operation, circumstances);
    let reply = observed.reply;
    let mut right = expected.outcome == reply.outcome && expected.lease == reply.lease;
    if let Some(shown) = &expected.shown {
        right &= shown.metadata == reply.metadata;
        if let Operation::Read(read) = observed.operation {
            right &= reply.value_len == shown.value.len();
            right &= !read.value || reply.value == shown.value;
        }
    }
    right.then_some(expected.after)
}
