//! Changes of several items that are made as a whole or not at all.
//!
//! All items of a batch are in one shard. Its operations take their turns on all keys at once, are
//! decided together, and their records go into one frame of the log, which a crash leaves whole or
//! takes whole. Nobody reads a part of a batch: it is made in one step of the shard's thread, and
//! what is acknowledged of the log ends with a frame.
//!
//! A few bytes may ask for much: to append one to each of a thousand values rewrites them all, in
//! one piece. So a batch says how many bytes its values may have together.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use larder_runtime::env::{DISK_ALIGNMENT, Env};

use super::admission::NotApplied;
use super::answer::{Answer, AnswerBuf, shown_len};
use super::apply::{Addressed, Change};
use super::compression::{Ahead, Tried};
use super::locate::Located;
use super::once::{ANSWER_BYTES, ONCE_NAMESPACE, Once};
use super::operation_buffer::OperationBuf;
use super::options::SEGMENT_BYTES_MIN;
use super::record_limit::Counted;
use super::{Shard, State};
use crate::compression::CompressedValue;
use crate::concurrent::concurrently;
use crate::entry::Metadata;
use crate::error::EngineError;
use crate::index::table::key_hash;
use crate::key::{ENCODED_BYTES_MAX, Key};
use crate::operation::{self, Context, Decision, Effect, Need, Operation, Outcome, Read};
use crate::value_log::Append;
use crate::value_log::frame::{self, FRAME_BESIDES_VALUE_BYTES};
use crate::value_log::record::{self, RecordKind};
use crate::value_log::segment;

/// The most operations of a batch.
pub const BATCH_STEPS_MAX: usize = 1024;

const _: () = {
    // With the answers that are kept of a batch that is done once.
    let step = record::HEAD_BYTES + ENCODED_BYTES_MAX + ANSWER_BYTES;
    let overhead = (BATCH_STEPS_MAX + 1) * step;
    assert!(overhead <= FRAME_BESIDES_VALUE_BYTES, "a replay takes any batch's frame for one");
    let frame = frame::HEADER_BYTES + overhead + DISK_ALIGNMENT;
    let is_short = segment::HEADER_BYTES as usize + frame <= SEGMENT_BYTES_MIN as usize;
    assert!(is_short, "a full disk keeps segments for deletes that any batch of them fits into");
};

/// Items of a batch that are looked up at a time.
const LOOK_UPS_MAX: usize = 16;

/// One operation of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchStep {
    /// The namespace's number.
    pub namespace: u32,
    /// The record id.
    pub record: Vec<u8>,
    /// The item key.
    pub item: Vec<u8>,
    /// What happens to the item.
    pub operation: OperationBuf,
}

/// Operations that are done together, each on another item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemBatch {
    /// How many bytes its values may have together: those that it brings, and those that it goes on
    /// from.
    pub value_bytes_max: usize,
    /// The operations. Each stores, deletes, counts, touches, or only reads: then, as where it
    /// touches, the item has to be there.
    pub steps: Vec<BatchStep>,
    /// What makes the batch known again, so that it is not done twice.
    pub once: Option<Once>,
}

impl ItemBatch {
    /// Whether it stores something. Others make room, or only read.
    pub fn adds(&self) -> bool {
        self.steps.iter().any(|step| step.operation.as_operation().adds())
    }

    /// Bytes of the values that it brings.
    pub fn value_bytes(&self) -> usize {
        self.steps.iter().map(|step| step.operation.as_operation().value_len()).sum()
    }

    /// The memory that it takes, in bytes.
    pub fn memory(&self) -> usize {
        let keys = |step: &BatchStep| step.record.len() + step.item.len() + size_of::<BatchStep>();
        let token = self.once.as_ref().map_or(0, |once| once.token.len());
        self.value_bytes() + self.steps.iter().map(keys).sum::<usize>() + token
    }
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchAnswer {
    /// All of it was done; the answers are in the order of the operations.
    Done(Vec<AnswerBuf>),
    /// Nothing was: the operation at this place was refused, with this answer.
    Refused {
        /// Its place in the batch.
        at: usize,
        /// Its answer.
        answer: AnswerBuf,
    },
    /// Nothing was: its token is that of another request that was done, or is not known any more.
    OtherRequest,
}

/// What the batch's token was found to be.
pub(super) struct FoundOnce<'a> {
    pub(super) once: &'a Once,
    /// The item under the token's name.
    pub(super) item: Found<'a>,
}

/// An item of a batch, as it was found.
pub(super) struct Found<'a> {
    pub(super) addressed: Addressed<'a>,
    operation: Operation<'a>,
    pub(super) located: Located,
}

impl Found<'_> {
    /// How long the value is that the operation goes on from, in bytes.
    fn needed_bytes(&self) -> usize {
        if self.operation.need() == Need::Value { self.located.value_len() } else { 0 }
    }
}

/// A record that a batch appends.
struct Planned<'a> {
    found: &'a Found<'a>,
    kind: RecordKind,
    metadata: Metadata,
    /// The value; for an item that is touched, where that is.
    value: Cow<'a, [u8]>,
    /// Whether the value that was there before, if any, is no more.
    is_replaced: bool,
    tried: &'a Tried,
}

impl Planned<'_> {
    fn record_len(&self) -> usize {
        let compressed = self.tried.compressed();
        let payload = compressed.map_or(self.value.len(), CompressedValue::record_bytes);
        record::encoded_len(self.found.addressed.key.len(), payload)
    }

    fn append(&self) -> Append<'_> {
        let Self { found, kind, metadata, value, tried, .. } = self;
        Append::new((*kind, *metadata), found.addressed.key, value, tried.compressed())
    }
}

impl<E: Env> Shard<E> {
    /// Does all operations of `batch`, or none if one of them is refused; waits for whatever it
    /// takes. The batch takes its places in the lines of its keys now, not when the future is first
    /// polled.
    ///
    /// Returns what became of it, and how far the log has to be acknowledged before that may be
    /// told.
    ///
    /// # Errors
    ///
    /// [`EngineError`] as for [`Shard::execute`]; nothing was done then.
    ///
    /// # Panics
    ///
    /// If two operations concern one item, one of them marks an item or makes one by reading it, or
    /// there are more than [`BATCH_STEPS_MAX`].
    pub fn execute_batch(
        self: &Rc<Self>,
        batch: ItemBatch,
    ) -> impl Future<Output = Result<(BatchAnswer, u64), EngineError>> + use<E> {
        assert!(batch.steps.len() <= BATCH_STEPS_MAX, "{} operations", batch.steps.len());
        assert!(batch.steps.iter().all(|step| is_plain(&step.operation.as_operation())));
        let mut keys: Vec<Vec<u8>> = Vec::with_capacity(batch.steps.len());
        for &BatchStep { namespace, ref record, ref item, .. } in &batch.steps {
            keys.push(Key { namespace, record, item }.encode());
        }
        keys.extend(batch.once.as_ref().map(Once::key));
        let mut sorted: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[0] != pair[1]), "each step has its own item");
        let mut hashes: Vec<u64> = keys.iter().map(|key| key_hash(key)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        // All at once: of two batches one is before the other in every line that they share.
        let turns: Vec<_> = hashes.into_iter().map(|hash| self.turns.enter(hash)).collect();
        let shard = Rc::clone(self);
        async move {
            for turn in &turns {
                turn.come().await;
            }
            let done = shard.batch_in_turn(&batch, keys).await;
            drop(turns);
            shard.release_files();
            done
        }
    }

    async fn batch_in_turn(
        &self,
        batch: &ItemBatch,
        mut keys: Vec<Vec<u8>>,
    ) -> Result<(BatchAnswer, u64), EngineError> {
        let (mut place, mut counted) = (None, Counted::default());
        let result = loop {
            let must_queue = place.is_none() && batch.adds() && self.log.room().has_line();
            let attempt = if must_queue {
                Err(NotApplied::Wait)
            } else {
                self.attempt_batch(batch, &mut keys, &counted).await
            };
            match attempt {
                Ok(done) => break Ok(done),
                Err(NotApplied::Failed(error)) => break Err(error),
                Err(NotApplied::LookAgain) => {
                    counted.forget_items();
                    futures_lite::future::yield_now().await;
                }
                Err(NotApplied::Uncounted(to_count)) => {
                    if to_count.all {
                        // Others may have the room meanwhile: it takes time to count.
                        self.leave_place(place.take());
                    }
                    if let Err(error) = self.count_record(&to_count, &mut counted).await {
                        break Err(error);
                    }
                }
                Err(NotApplied::Wait) => {
                    counted.forget_items();
                    self.release_files();
                    let records = keys.iter().map(|key| record::encoded_len(key.len(), 0));
                    let bytes = (records.sum::<usize>() + batch.value_bytes()) as u64;
                    let (room, adds) = (self.log.room(), batch.adds());
                    let new = || if adds { room.place(bytes) } else { room.urgent_place(bytes) };
                    place.get_or_insert_with(new).wait().await;
                }
            }
        };
        self.leave_place(place);
        result
    }

    async fn attempt_batch(
        &self,
        batch: &ItemBatch,
        keys: &mut [Vec<u8>],
        counted: &Counted,
    ) -> Result<(BatchAnswer, u64), NotApplied> {
        self.apply_due_flush().await.map_err(NotApplied::Failed)?;
        let (keys, once_key) = keys.split_at_mut(batch.steps.len());
        for (key, step) in keys.iter_mut().zip(&batch.steps) {
            self.state.borrow().set_generation(step.namespace, key);
        }
        let (now, began) = (self.unix_now(), self.log.sequence_next());
        let once = self.find_once((once_key, batch.once.as_ref()), now).await;
        let once = once.map_err(NotApplied::Failed)?;
        // The turn on the token's key is held: nothing changes what was found.
        let told = once.as_ref().and_then(|once| self.told_before(once, batch.steps.len(), now));
        if let Some(told) = told {
            let told = self.with_reads_anew((batch, &*keys), told, now).await;
            return told.map_err(NotApplied::Failed);
        }
        let kept = Cell::new(0);
        let look_ups = keys.iter().zip(&batch.steps).map(|(key, step)| {
            let operation = step.operation.as_operation();
            self.find((step.namespace, key, operation), (&kept, batch.value_bytes_max), now)
        });
        let found: Result<Vec<_>, _> =
            concurrently(LOOK_UPS_MAX, look_ups).await.into_iter().collect();
        let mut found = found.map_err(NotApplied::Failed)?;
        for Found { addressed, .. } in &mut found {
            addressed.replaces = counted.of(addressed.key);
        }
        let ahead = self.compress_found(batch, &found, now).await?;
        let mut state = self.state.borrow_mut();
        let is_outdated = |found: &Found<'_>| {
            let alive = state.namespaces.generation(found.addressed.namespace);
            found.addressed.key[..4] != alive.to_be_bytes()
                || self.index.may_be_deleted_since(found.addressed.key, began)
        };
        if found.iter().any(is_outdated) {
            return Err(NotApplied::LookAgain);
        }
        let known = (&found[..], &ahead.0[..]);
        self.finish_batch(&mut state, known, once.as_ref(), (now, batch.value_bytes_max))
    }

    /// Looks up whether a batch with this token was done before.
    pub(super) async fn find_once<'a>(
        &self,
        (key, once): (&'a [Vec<u8>], Option<&'a Once>),
        now: u32,
    ) -> Result<Option<FoundOnce<'a>>, EngineError> {
        let (Some(key), Some(once)) = (key.first(), once) else { return Ok(None) };
        let operation = Operation::Read(Read { value: true, quiet: true, ..Read::default() });
        let asked = (ONCE_NAMESPACE, &key[..], operation);
        let item = self.find(asked, (&Cell::new(0), usize::MAX), now).await?;
        Ok(Some(FoundOnce { once, item }))
    }

    /// What a batch of so many steps with this token is told without being done: what was answered
    /// to it before, or that its token is that of another request, or not known any more.
    pub(super) fn told_before(
        &self,
        found: &FoundOnce<'_>,
        steps: usize,
        now: u32,
    ) -> Option<(BatchAnswer, u64)> {
        let FoundOnce { once, item } = found;
        let Some(current) = item.located.current(now) else {
            // It may have been done and forgotten.
            return (once.expiry <= now).then_some((BatchAnswer::OtherRequest, 0));
        };
        // The first one is answered when it is durable, and so is this one.
        let needs = item.located.sequence_end.max(self.state.borrow().namespaces.flushed_end());
        // Who looks for two requests with one checksum finds them.
        let answers = once.answers(current.value, now).filter(|answers| answers.len() == steps);
        Some((answers.map_or(BatchAnswer::OtherRequest, BatchAnswer::Done), needs))
    }

    /// What a batch is told that was done before. An item that it touched is not touched again, and
    /// shown as it is now: what was shown of it then was not kept.
    async fn with_reads_anew(
        &self,
        (batch, keys): (&ItemBatch, &[Vec<u8>]),
        (told, mut needs): (BatchAnswer, u64),
        now: u32,
    ) -> Result<(BatchAnswer, u64), EngineError> {
        let BatchAnswer::Done(mut answers) = told else { return Ok((told, needs)) };
        for (at, (step, key)) in batch.steps.iter().zip(keys).enumerate() {
            let Operation::Read(read) = step.operation.as_operation() else { continue };
            if read.expiry.is_none() {
                continue;
            }
            let read = Operation::Read(Read { expiry: None, quiet: true, ..read });
            let asked = (step.namespace, &key[..], read);
            let Found { located, .. } = self.find(asked, (&Cell::new(0), usize::MAX), now).await?;
            needs = needs.max(located.sequence_end);
            let context = Context {
                version_next: self.log.sequence_next(),
                value_bytes_max: batch.value_bytes_max,
            };
            let decision = operation::decide(located.current(now), &read, context);
            let answer = AnswerBuf::new(&read, &decision, located, now);
            if is_refused(&read, decision.outcome) {
                return Ok((BatchAnswer::Refused { at, answer }, needs));
            }
            answers[at] = answer;
        }
        Ok((BatchAnswer::Done(answers), needs))
    }

    /// Compresses the values that a batch is going to store. One that is refused for what it would
    /// take is not worked on.
    async fn compress_found(
        &self,
        batch: &ItemBatch,
        found: &[Found<'_>],
        now: u32,
    ) -> Result<Ahead<'_, Vec<Tried>>, NotApplied> {
        if too_large(found, batch.value_bytes_max).is_some() {
            return Ok((Vec::new(), None));
        }
        let operations =
            found.iter().map(|found| (found.addressed.namespace, &found.operation, &found.located));
        self.compress_all_ahead(operations, now).await
    }

    /// Looks an item of a batch up. Its value is kept only if it is needed, and as long as all that
    /// the batch has kept is no longer than it may be.
    async fn find<'a>(
        &self,
        (namespace, key, operation): (u32, &'a [u8], Operation<'a>),
        (kept, kept_max): (&Cell<usize>, usize),
        now: u32,
    ) -> Result<Found<'a>, EngineError> {
        let (compress_as, hash) = (namespace, key_hash(key));
        let addressed = Addressed { namespace, compress_as, key, hash, replaces: None };
        let mut found = Found { addressed, operation, located: Located::default() };
        if found.operation.need() == Need::Nothing {
            return Ok(found);
        }
        found.located = self.locate(key, addressed.hash, now, false).await?;
        kept.set(kept.get().saturating_add(found.needed_bytes()));
        let is_kept = found.needed_bytes() > 0 && kept.get() <= kept_max;
        let located = &mut found.located;
        if !is_kept && located.pointer().is_some() {
            located.value = None;
        } else if !located.has_value() && !located.metadata.is_expired(now) {
            self.read_value(key, located).await?;
        }
        if matches!(found.operation, Operation::Read(_)) {
            let located = std::mem::take(&mut found.located);
            found.located = self.bring_what_leaves(key, &found.operation, located).await?;
        }
        Ok(found)
    }

    /// Decides and applies, with everything that has to be known at hand.
    fn finish_batch(
        &self,
        state: &mut State,
        (found, tried): (&[Found<'_>], &[Tried]),
        once: Option<&FoundOnce<'_>>,
        (now, value_bytes_max): (u32, usize),
    ) -> Result<(BatchAnswer, u64), NotApplied> {
        let mut needs = state.namespaces.flushed_end();
        if let Some(at) = too_large(found, value_bytes_max) {
            let seen = found.iter().map(|found| found.located.sequence_end).max();
            let answer = Answer::nothing(Outcome::TooLarge, now);
            let answer = AnswerBuf::with_value(&answer, Vec::new());
            return Ok((BatchAnswer::Refused { at, answer }, needs.max(seen.unwrap_or(0))));
        }
        let mut version_next = self.log.sequence_next();
        let mut decisions = Vec::with_capacity(found.len());
        for (at, Found { addressed, operation, located, .. }) in found.iter().enumerate() {
            needs = needs.max(located.sequence_end);
            let usual = self.options.value_bytes_max;
            let value_bytes_max = state.namespaces.value_bytes_max(addressed.key, usual);
            let context = Context { version_next, value_bytes_max };
            let decision = operation::decide(located.current(now), operation, context);
            if is_refused(operation, decision.outcome) {
                let answer = AnswerBuf::new(operation, &decision, located.clone(), now);
                return Ok((BatchAnswer::Refused { at, answer }, needs));
            }
            version_next += u64::from(!matches!(decision.effect, Effect::None));
            decisions.push(decision);
        }
        let answer = |(found, decision): (&Found<'_>, &Decision<'_>)| {
            AnswerBuf::new(&found.operation, decision, found.located.clone(), now)
        };
        let answers: Vec<AnswerBuf> = found.iter().zip(&decisions).map(answer).collect();
        let told = once.map(|found| (found, found.once.value(&answers)));
        let told = (told.as_ref(), now);
        needs = needs.max(self.apply_batch(state, (found, tried), &decisions, told)?);
        Ok((BatchAnswer::Done(answers), needs))
    }

    /// Makes the changes: log, memtable, cache. Returns the log position that covers them.
    fn apply_batch(
        &self,
        state: &mut State,
        (found, tried): (&[Found<'_>], &[Tried]),
        decisions: &[Decision<'_>],
        (told, now): (Option<&(&FoundOnce<'_>, Vec<u8>)>, u32),
    ) -> Result<u64, NotApplied> {
        let mut version = self.log.sequence_next();
        let mut planned = Vec::with_capacity(found.len() + 1);
        let changes: Vec<Change<'_>> = found
            .iter()
            .map(|found| Change { addressed: found.addressed, located: &found.located, now })
            .collect();
        let known = found.iter().zip(tried).zip(&changes);
        for (((found, tried), change), decision) in known.zip(decisions) {
            let (kind, metadata, value) = match &decision.effect {
                Effect::None => continue,
                Effect::Remove => {
                    let metadata = Metadata { version, ..Metadata::default() };
                    (RecordKind::Delete, metadata, Cow::Borrowed(&[][..]))
                }
                effect => self.describe(change, effect)?,
            };
            version += 1;
            let is_replaced = !matches!(decision.effect, Effect::Remark(_));
            planned.push(Planned { found, kind, metadata, value, is_replaced, tried });
        }
        if planned.is_empty() && told.is_none() {
            return Ok(0);
        }
        let removes = planned.iter().all(|one| one.kind == RecordKind::Delete);
        for one in &planned {
            self.check_namespace(state, one.found.addressed.key)?;
        }
        if !removes {
            self.check_quotas(state, &planned)?;
        }
        if let Some((FoundOnce { once, item }, value)) = told {
            let metadata = Metadata { version, expiry: once.expiry, ..Metadata::default() };
            let (kind, tried, is_replaced) = (RecordKind::Put, &Tried::Nothing, true);
            let value = Cow::Borrowed(value.as_slice());
            planned.push(Planned { found: item, kind, metadata, value, is_replaced, tried });
        }
        self.check_space(state, removes)?;
        // A batch that has to wait comes here again: its values are not looked at before.
        let bytes = planned.iter().map(Planned::record_len).sum();
        let made = self.log.make_room_for(planned.len() as u64, bytes);
        made.map_err(|refused| self.not_applied(state, removes, refused))?;
        let appends: Vec<_> = planned.iter().map(Planned::append).collect();
        let appended = self.log.append_all(&appends);
        let appended = appended.map_err(|refused| self.not_applied(state, removes, refused))?;
        let mut sequence_end = 0;
        for ((one, append), appended) in planned.iter().zip(&appends).zip(appended) {
            let Found { addressed, located, .. } = one.found;
            let change = Change { addressed: *addressed, located, now };
            let stored = (&append.record, &*one.value);
            self.make_known(state, &change, stored, (appended, one.is_replaced));
            sequence_end = appended.sequence + 1;
        }
        if self.is_flush_due() {
            self.freeze(state);
        }
        Ok(sequence_end)
    }

    /// Whether the namespaces of these records may take what is stored.
    fn check_quotas(&self, state: &mut State, planned: &[Planned<'_>]) -> Result<(), NotApplied> {
        let mut of_namespaces: BTreeMap<u32, (&[u8], usize)> = BTreeMap::new();
        for one in planned.iter().filter(|one| one.is_replaced) {
            let Addressed { namespace, key, .. } = one.found.addressed;
            of_namespaces.entry(namespace).or_insert((key, 0)).1 += one.value.len();
        }
        for (namespace, (key, bytes)) in of_namespaces {
            self.check_quota(state, key, bytes)?;
            // Who only touches an item leaves what its record has.
            let of_namespace = planned
                .iter()
                .filter(|one| one.is_replaced && one.found.addressed.namespace == namespace);
            let items = of_namespace.map(|one| {
                let is_put = one.kind == RecordKind::Put;
                let len = shown_len(&one.metadata, &one.value);
                (one.found.addressed, is_put.then_some(len))
            });
            self.check_records(state, namespace, items)?;
        }
        Ok(())
    }
}

/// The first step with which the values of a batch, those that it brings and those that it goes on
/// from, have more than `most` bytes.
fn too_large(found: &[Found<'_>], most: usize) -> Option<usize> {
    let mut bytes: usize = 0;
    found.iter().position(|found| {
        bytes = bytes.saturating_add(found.operation.value_len());
        bytes = bytes.saturating_add(found.needed_bytes());
        bytes > most
    })
}

/// Whether an operation makes, deletes or touches an item, or leaves it as it is.
fn is_plain(operation: &Operation<'_>) -> bool {
    match operation {
        Operation::Read(read) => read.vivify.is_none() && !read.leases,
        Operation::Store(store) => !store.invalidate && store.vivify.is_none(),
        Operation::Delete(delete) => !delete.invalidate && !delete.clear_value,
        Operation::Arithmetic(_) | Operation::Exchange(_) => true,
    }
}

/// Whether an operation with this outcome lets its batch fail. To delete what is not there is what
/// was wanted.
fn is_refused(operation: &Operation<'_>, outcome: Outcome) -> bool {
    match outcome {
        Outcome::Hit | Outcome::Stored | Outcome::Deleted | Outcome::Number(_) => false,
        Outcome::NotFound => {
            !matches!(operation, Operation::Delete(delete) if delete.compare.is_none())
        }
        // It is shown what stands for the value.
        Outcome::Large => !matches!(operation, Operation::Read(_)),
        Outcome::Miss
        | Outcome::NotStored
        | Outcome::Exists
        | Outcome::ValueDiffers
        | Outcome::NotNumeric
        | Outcome::TooLarge => true,
    }
}
