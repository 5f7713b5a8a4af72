//! What a shard should hold: items by name, and the changes that are not sure to be durable.
//!
//! Changes are known by their log sequence. After a crash the shard must hold the state after some
//! prefix of them that includes everything acknowledged. Where a start has reported damage, the
//! changes that it names may be missing from that state, and no others: a value that an undamaged
//! change has overwritten or deleted never comes back, and a key that no report and no error names
//! keeps its value.

use std::collections::{BTreeMap, BTreeSet};

use super::harness::TestShard;
use super::history::{Change, History, Name, NameRange, State};
use super::oracle::{self, After, Circumstances, Item};
use crate::entry::Metadata;
use crate::operation::{Lease, Operation, Outcome};
use crate::shard::{Answer, OpenReport};
use crate::value_log::recovery::Damage;

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
    pub(super) name: &'a Name,
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
pub(super) type Found = BTreeMap<Name, Option<Option<Item>>>;

/// What the device does to what was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Device {
    /// Nothing.
    #[default]
    Honest,
    /// Reads fail or lie.
    Misreads,
    /// Writes that were reported as done may be lost or go astray as well. At the log's end that
    /// looks like writes that a power failure has cut short, so that the end may be missing.
    LosesWrites,
}

/// What a start has found, besides the items.
pub(super) struct Start<'a> {
    generation: u32,
    clear_at: u32,
    sequence_next: u64,
    damage: &'a [Damage],
    device: Device,
}

impl<'a> Start<'a> {
    pub(super) fn of(shard: &TestShard, report: &'a OpenReport, device: Device) -> Self {
        let state = shard.state.borrow();
        Self {
            generation: state.namespaces.generation(0),
            clear_at: state.namespaces.scheduled_flush().unwrap_or(0),
            sequence_next: shard.log.sequence_next(),
            damage: &report.damage,
            device,
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct Model {
    history: History,
    now: State,
    /// The log position up to which answers were given.
    acknowledged_end: u64,
    /// Above every log sequence that was ever used.
    sequence_end: u64,
    generation: u32,
    /// What the clock has shown, in order.
    clocks: Vec<u32>,
    /// What the clock showed when it was set, and what it was set to, in order.
    clock_steps: Vec<u32>,
    /// How many clocks had been seen when an item came to be: by name, version and expiry.
    since: BTreeMap<(Name, u64, u32), usize>,
    /// The last change of each key, and of all.
    changed: BTreeMap<Name, u64>,
    cleared: u64,
    names: BTreeSet<Name>,
    /// What could not be read at the last start.
    unreadable: BTreeSet<Name>,
    /// Damage was reported once: it may have taken the record of a clear to come, which the log
    /// repeats by itself.
    was_damaged: bool,
}

impl Model {
    pub(super) fn names(&self) -> &BTreeSet<Name> {
        &self.names
    }

    pub(super) fn is_unreadable(&self, name: &Name) -> bool {
        self.unreadable.contains(name)
    }

    pub(super) fn sequence_end(&self) -> u64 {
        self.sequence_end
    }

    pub(super) fn clear_at(&self) -> u32 {
        self.now.clear_at
    }

    pub(super) fn see_clock(&mut self, now: u32) {
        if self.clocks.last() != Some(&now) {
            self.clocks.push(now);
        }
    }

    /// Notes that the clock, which showed `before`, was set to `now`.
    pub(super) fn step_clock(&mut self, before: u32, now: u32) {
        for time in [before, now] {
            self.see_clock(time);
            self.clock_steps.push(time);
        }
    }

    /// What the clock showed whenever it was set to another time, and what it was set to, in order.
    pub(super) fn clock_steps(&self) -> &[u32] {
        &self.clock_steps
    }

    /// Everything below this log position must survive from now on.
    pub(super) fn acknowledge(&mut self, end: u64) {
        self.acknowledged_end = self.acknowledged_end.max(end);
    }

    /// Notes a clear that was carried out and whose record has this log sequence.
    pub(super) fn see_generation(&mut self, generation: u32, sequence: u64) {
        if generation != self.generation {
            self.generation = generation;
            self.record(sequence, Change::Clear);
            self.cleared = sequence + 1;
        }
    }

    pub(super) fn schedule(&mut self, at: u32, sequence: u64) {
        self.record(sequence, Change::Schedule(at));
    }

    /// Notes that the items of a range were deleted.
    pub(super) fn delete_range(&mut self, range: NameRange, sequence: u64) {
        for name in self.names.iter().filter(|name| range.has(name)) {
            self.changed.insert(name.clone(), sequence + 1);
        }
        self.record(sequence, Change::Range(range));
    }

    fn record(&mut self, sequence: u64, change: Change) {
        assert!(sequence >= self.sequence_end, "log sequence {sequence} was used before");
        self.sequence_end = sequence + 1;
        self.now.apply(&change);
        self.history.push(sequence, change);
    }

    /// Whether the engine may have dropped an item: the clock has shown its expiry while it was
    /// there.
    fn may_have_gone(&self, name: &Name, item: &Item) -> bool {
        let id = (name.clone(), item.metadata.version, item.metadata.expiry);
        let since = self.since.get(&id).copied().unwrap_or(0);
        self.clocks[since..].iter().any(|now| item.is_gone(*now))
    }

    /// Checks the answers of a batch that was done, and makes its changes at once. `observed` are
    /// its operations in their order, each with the log position that covers its own change.
    pub(super) fn observe_batch(&mut self, observed: &[Observed<'_>]) {
        let mut changes = Vec::new();
        let end = observed.iter().map(|one| one.needs).max().unwrap_or(0);
        for one in observed {
            if let Some(change) = self.outcome_of(one) {
                self.changed.insert(one.name.clone(), one.needs);
                changes.push((one.name.clone(), change));
            }
        }
        if !changes.is_empty() {
            self.record(end - 1, Change::Batch(changes));
        }
    }

    /// Checks an answer and makes the operation's change.
    pub(super) fn observe(&mut self, observed: &Observed<'_>) {
        if let Some(after) = self.outcome_of(observed) {
            self.changed.insert(observed.name.clone(), observed.needs);
            self.record(observed.needs - 1, Change::Item(observed.name.clone(), after));
        }
    }

    /// Checks an answer; returns what the item becomes, if the operation changes it.
    fn outcome_of(&mut self, observed: &Observed<'_>) -> Option<Option<Item>> {
        let name = observed.name;
        let seen = self.clocks.len().saturating_sub(1);
        observed.clock.iter().for_each(|now| self.see_clock(*now));
        self.names.insert(name.clone());
        let item = self.now.items.get(name).cloned();
        let mut candidates = vec![item.clone()];
        if item.as_ref().is_some_and(|item| self.may_have_gone(name, item)) {
            candidates.push(None);
        }
        for candidate in &candidates {
            for &now in observed.clock {
                if let Some(after) = matches(candidate.as_ref(), now, observed) {
                    self.check_needs(observed);
                    match after {
                        After::Becomes(after) => {
                            self.note_since(name, after.as_ref(), seen);
                            return Some(after);
                        }
                        // It would be there at this clock: the engine has dropped it, for good.
                        After::Same if candidate.is_none() && item.is_some() => {
                            self.now.items.remove(name);
                            self.history.drop_item(name);
                        }
                        After::Same => {}
                    }
                    return None;
                }
            }
        }
        panic!(
            "{name} {:?}\nat {:?} was answered {:?} (needs {})\nbut the item is {:?}",
            observed.operation, observed.clock, observed.reply, observed.needs, item,
        );
    }

    fn note_since(&mut self, name: &Name, item: Option<&Item>, seen: usize) {
        if let Some(Item { metadata, .. }) = item.filter(|item| item.metadata.expiry > 0) {
            self.since.entry((name.clone(), metadata.version, metadata.expiry)).or_insert(seen);
        }
    }

    /// An answer waits for every change that it shows.
    fn check_needs(&self, observed: &Observed<'_>) {
        let changed = self.changed.get(observed.name).copied().unwrap_or(0);
        // Clearing concerns the default namespace alone.
        let cleared = if observed.name.namespace == 0 { self.cleared } else { 0 };
        let changed = changed.max(cleared);
        assert!(
            observed.needs >= changed || changed <= observed.durable_end,
            "the answer {reply:?} to {operation:?} shows a change below {changed}, but needs only \
             {needs}",
            reply = observed.reply.outcome,
            operation = observed.operation,
            needs = observed.needs,
        );
    }

    /// Finds the prefix of the changes that the shard has recovered to, and goes on from there.
    pub(super) fn settle(&mut self, found: &Found, start: &Start<'_>) {
        assert!(start.damage.is_empty() || start.device != Device::Honest, "{:?}", start.damage);
        self.doubt(start);
        let count = self.recovered_count(found, start);
        self.now = State { items: BTreeMap::new(), clear_at: start.clear_at };
        self.unreadable.clear();
        for (name, found) in found {
            match found {
                Some(Some(item)) => drop(self.now.items.insert(name.clone(), item.clone())),
                Some(None) => {}
                None => drop(self.unreadable.insert(name.clone())),
            }
        }
        if start.device == Device::Honest {
            self.history.restart(self.now.clone());
        } else {
            // What a fault has hidden may show itself again.
            self.history.doubt(|place, _| place >= count);
        }
        self.generation = start.generation;
        if start.device == Device::LosesWrites {
            self.sequence_end = start.sequence_next;
        }
        self.acknowledged_end = self.sequence_end;
        self.changed.clear();
        self.cleared = 0;
    }

    /// Notes what the start says to be lost.
    fn doubt(&mut self, start: &Start<'_>) {
        self.note_damage(start.damage);
        // Sequences that are given out again tell nothing.
        let reused = start.sequence_next..self.sequence_end;
        self.history.doubt(|_, sequence| reused.contains(&sequence));
    }

    /// Notes damage that a start has reported.
    pub(super) fn note_damage(&mut self, damage: &[Damage]) {
        self.was_damaged |= !damage.is_empty();
        let is_reported = |sequence| damage.iter().any(|damage| damage.lost.contains(&sequence));
        self.history.doubt(|_, sequence| is_reported(sequence));
    }

    /// After how many of the changes the shard is as it was found: the least number that explains
    /// every key.
    fn recovered_count(&self, found: &Found, start: &Start<'_>) -> usize {
        let end = self.history.len();
        let floor = match start.device {
            Device::LosesWrites => 0,
            Device::Honest | Device::Misreads => self.history.count_before(self.acknowledged_end),
        };
        let places = self.history.places();
        let mut steps = vec![0i64; end + 2];
        let mut constraints = 0;
        let mut constrain = |spans: Vec<std::ops::RangeInclusive<usize>>| {
            constraints += 1;
            for span in spans {
                steps[*span.start()] += 1;
                steps[span.end() + 1] -= 1;
            }
        };
        for (name, found) in found {
            let Some(found) = found else { continue };
            let fits = |item: Option<&Item>| self.fits(name, item, found.as_ref(), start.device);
            constrain(self.history.spans(&places, name, fits));
        }
        if start.device != Device::LosesWrites && !self.was_damaged {
            constrain(self.history.schedule_spans(&places, start.clear_at));
        }
        let mut explained = 0;
        let mut best = (-1, 0);
        for (count, step) in steps.iter().enumerate().take(end + 1) {
            explained += step;
            if count >= floor && explained > best.0 {
                best = (explained, count);
            }
        }
        if best.0 == constraints {
            return best.1;
        }
        panic!(
            "what was recovered is no prefix of what was done; acknowledged to {}, done to {}; \
             reported {:?}; the nearest has {} changes of {end} and differs in\n{}",
            self.acknowledged_end,
            self.sequence_end,
            start.damage,
            best.1,
            self.differences(found, best.1, start).join("\n"),
        );
    }

    /// Whether a start may find this where that is expected. What the engine has dropped once is
    /// not expected any more; nor does anything older come back in its stead.
    fn fits(
        &self,
        name: &Name,
        expected: Option<&Item>,
        found: Option<&Item>,
        device: Device,
    ) -> bool {
        let has_expired = |item: Option<&Item>| item.is_some_and(|i| self.may_have_gone(name, i));
        let gone = found.is_none() && has_expired(expected);
        // A device that loses writes may lose those by which the item was dropped.
        let returned = device == Device::LosesWrites && expected.is_none() && has_expired(found);
        expected == found || gone || returned
    }

    fn differences(&self, found: &Found, count: usize, start: &Start<'_>) -> Vec<String> {
        let mut differences = vec![format!("clear at {}", start.clear_at)];
        for (name, found) in found {
            let Some(found) = found else { continue };
            let expected = self.history.value_after(name, count);
            if !self.fits(name, expected, found.as_ref(), start.device) {
                let (found, expected) = (describe(found.as_ref()), describe(expected));
                differences.push(format!("{name}: {found}, expected {expected}"));
            }
        }
        differences
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
    // What was stored tells whether there was something to append to.
    if let (Operation::Store(_), Outcome::Stored, After::Becomes(Some(after))) =
        (&observed.operation, reply.outcome, &expected.after)
    {
        right &= reply.value_len == after.value.len();
    }
    right.then_some(expected.after)
}
