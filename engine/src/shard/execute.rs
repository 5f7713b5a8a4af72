//! Point operations: at once when everything needed is in memory, else by way of the device.

use std::borrow::Cow;
use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::admission::NotApplied;
use super::answer::{Answer, AnswerBuf, shown_len};
use super::compression::Tried;
use super::locate::{Located, Place};
use super::namespaces::CachePolicy;
use super::operation_buffer::OperationBuf;
use super::record_limit::{Counted, Replaced};
use super::turns::Turn;
use super::warm::Announced;
use super::{Shard, State};
use crate::cache::CachedItem;
use crate::canary::{self, Defect};
use crate::entry::{Entry, Metadata, Payload};
use crate::error::EngineError;
use crate::index::table::key_hash;
use crate::key::Key;
use crate::operation::{self, Context, Effect, Need, Operation, Outcome};
use crate::value_log::commit::PlaceInLine;
use crate::value_log::record::{Record, RecordKind};
use crate::value_log::{Append, Appended};

/// How an attempt to answer at once ended.
#[derive(Debug)]
pub enum Attempt<R> {
    /// Done. The answer may be sent once the log's acknowledged end has reached `needs`.
    Done {
        /// What the answering closure returned.
        value: R,
        /// The log must be acknowledged up to here: the answer shows or is a change below it.
        needs: u64,
    },
    /// The operation has to wait: for the device, for its turn on the key, or for space.
    Later,
    /// It failed.
    Failed(EngineError),
}

impl<E: Env> Shard<E> {
    /// Does `operation` on `key` if that needs no waiting; `respond` gets the answer, whose value
    /// may be borrowed from the cache. `now` is in Unix seconds. `announced` is what
    /// [`Shard::announce`] has returned for that very key, if it was asked.
    ///
    /// A value in RAM is answered without allocating. On [`Attempt::Later`] nothing was done:
    /// call [`Shard::execute`].
    pub fn try_execute<R>(
        &self,
        key: &Key<'_>,
        announced: Option<Announced>,
        operation: &Operation<'_>,
        now: u32,
        respond: impl FnOnce(&Answer<'_>) -> R,
    ) -> Attempt<R> {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        if state.flush_is_due(now) {
            return Attempt::Later;
        }
        state.operations.count(operation);
        let mut encoded = std::mem::take(&mut state.key_scratch);
        encoded.clear();
        key.encode_into(&mut encoded);
        let waits = self.queues(operation) || self.turns.is_taken(|| key_hash(&encoded));
        let attempt = if waits {
            Attempt::Later
        } else {
            state.set_generation(key.namespace, &mut encoded);
            let hash = Announced::hash_of(announced, &encoded);
            let namespace = key.namespace;
            let addressed = Addressed {
                namespace,
                compress_as: namespace,
                key: &encoded,
                hash,
                replaces: None,
            };
            self.try_encoded(state, addressed, operation, now, respond)
        };
        state.key_scratch = encoded;
        if matches!(attempt, Attempt::Later) {
            state.operations.later += 1;
        }
        attempt
    }

    fn try_encoded<R>(
        &self,
        state: &mut State,
        addressed: Addressed<'_>,
        operation: &Operation<'_>,
        now: u32,
        respond: impl FnOnce(&Answer<'_>) -> R,
    ) -> Attempt<R> {
        let Addressed { key, hash, .. } = addressed;
        // The common case first: a plain read of a cached item.
        if let Operation::Read(read) = operation
            && let Some(item) = state.items.access(hash, key, now, !read.quiet)
            && !(operation.may_write() && changes(read, &item.item.metadata))
            && !self.is_deleted_since(key, item.item.sequence)
        {
            let item_is_there = !item.item.metadata.is_expired(now);
            let needs = item.item.sequence + 1;
            state.operations.cached += 1;
            let answer = if item_is_there {
                Answer::of_cached(&item.item, item.value, read)
            } else if read.vivify.is_some() {
                return Attempt::Later;
            } else {
                Answer::nothing(Outcome::Miss, now)
            };
            return Attempt::Done { value: respond(&answer), needs };
        }
        let located = match operation.need() {
            Need::Nothing => Located::default(),
            need => match self.locate_resident(state, key, hash, now) {
                Some(located) if need < Need::Value || located.has_value() => located,
                _ => return Attempt::Later,
            },
        };
        match self.finish(state, addressed, operation, located, now, &Tried::Nothing) {
            Ok((done, needs)) => Attempt::Done { value: respond(&done.as_answer()), needs },
            Err(NotApplied::Wait | NotApplied::LookAgain | NotApplied::Uncounted(_)) => {
                Attempt::Later
            }
            Err(NotApplied::Failed(error)) => Attempt::Failed(error),
        }
    }

    /// How long the value of `key` is, in bytes, if memory can tell: 0 if there is none.
    pub fn value_bytes_known(&self, key: &Key<'_>, now: u32) -> Option<usize> {
        let mut state = self.state.borrow_mut();
        let mut encoded = Vec::new();
        key.encode_into(&mut encoded);
        state.set_generation(key.namespace, &mut encoded);
        let hash = key_hash(&encoded);
        let located = self.locate_resident(&mut state, &encoded, hash, now)?;
        Some(located.value_len())
    }

    /// Does `operation` on `key`, waiting for whatever it takes. The operation takes its place in
    /// the key's line now, not when the future is first polled.
    ///
    /// Returns the answer and how far the log has to be acknowledged before it may be sent, as for
    /// [`Attempt::Done`].
    pub fn execute(
        self: &Rc<Self>,
        key: &Key<'_>,
        operation: OperationBuf,
    ) -> impl Future<Output = Result<(AnswerBuf, u64), EngineError>> + use<E> {
        self.execute_for(key.namespace, key, operation)
    }

    /// The same for a value that is compressed as those of namespace `compress_as` are.
    pub(super) fn execute_for(
        self: &Rc<Self>,
        compress_as: u32,
        key: &Key<'_>,
        operation: OperationBuf,
    ) -> impl Future<Output = Result<(AnswerBuf, u64), EngineError>> + use<E> {
        let mut encoded = Vec::new();
        key.encode_into(&mut encoded);
        let waiting = Waiting {
            namespace: key.namespace,
            compress_as,
            turn: self.turns.enter(key_hash(&encoded)),
            encoded,
            counted: Counted::default(),
        };
        let shard = Rc::clone(self);
        async move {
            waiting.turn.come().await;
            shard.execute_in_turn(waiting, operation).await
        }
    }

    async fn execute_in_turn(
        &self,
        mut waiting: Waiting,
        operation: OperationBuf,
    ) -> Result<(AnswerBuf, u64), EngineError> {
        let operation = operation.as_operation();
        let mut place = None;
        let result = loop {
            // Who was let go has waited; who comes waits behind those who do.
            let attempt = if place.is_none() && self.queues(&operation) {
                Err(NotApplied::Wait)
            } else {
                self.attempt(&mut waiting, &operation).await
            };
            match attempt {
                Ok(done) => break Ok(done),
                Err(NotApplied::Failed(error)) => break Err(error),
                Err(NotApplied::LookAgain) => {
                    waiting.counted.forget_items();
                    futures_lite::future::yield_now().await;
                }
                Err(NotApplied::Uncounted(to_count)) => {
                    if to_count.all {
                        // Others may have the room meanwhile: it takes time to count.
                        self.leave_place(place.take());
                    }
                    if let Err(error) = self.count_record(&to_count, &mut waiting.counted).await {
                        break Err(error);
                    }
                }
                Err(NotApplied::Wait) => {
                    waiting.counted.forget_items();
                    self.release_files();
                    place.get_or_insert_with(|| self.place_for(&operation)).wait().await;
                }
            }
        };
        self.leave_place(place);
        drop(waiting);
        self.release_files();
        result
    }

    /// Gives up a place in the line for room in the log. Who had it may have needed less room than
    /// it was given, or none.
    pub(super) fn leave_place(&self, place: Option<PlaceInLine<'_>>) {
        if let Some(place) = place {
            place.leave();
            self.log.offer_room();
        }
    }

    async fn attempt(
        &self,
        waiting: &mut Waiting,
        operation: &Operation<'_>,
    ) -> Result<(AnswerBuf, u64), NotApplied> {
        self.apply_due_flush().await.map_err(NotApplied::Failed)?;
        let Waiting { namespace, compress_as, .. } = *waiting;
        let key = &mut waiting.encoded;
        self.state.borrow().set_generation(namespace, key);
        let hash = key_hash(key);
        let now = self.unix_now();
        let began = self.log.sequence_next();
        let located = match operation.need() {
            Need::Nothing => Located::default(),
            need => {
                let want_value = need == Need::Value;
                self.locate(key, hash, now, want_value).await.map_err(NotApplied::Failed)?
            }
        };
        let located = self.bring_what_leaves(key, operation, located).await;
        let located = located.map_err(NotApplied::Failed)?;
        let ahead = self.compress_ahead((compress_as, key), operation, &located, now).await?;
        let mut state = self.state.borrow_mut();
        let alive = state.namespaces.generation(namespace).to_be_bytes();
        if key[..4] != alive {
            // The namespace was flushed meanwhile: there is another item, or none.
            return Err(NotApplied::LookAgain);
        }
        let may_be_gone = self.index.may_be_deleted_since(key, began);
        if may_be_gone && !canary::has(Defect::MissRangesMeanwhile) {
            // So may the item have been, with others.
            return Err(NotApplied::LookAgain);
        }
        let replaces = waiting.counted.of(key);
        let addressed = Addressed { namespace, compress_as, key, hash, replaces };
        self.finish(&mut state, addressed, operation, located, now, &ahead.0)
    }

    /// A change of metadata alone would point to the value where it is. If that place is about to
    /// be freed, the value is read, so that it can be written anew.
    pub(super) async fn bring_what_leaves(
        &self,
        key: &[u8],
        operation: &Operation<'_>,
        mut located: Located,
    ) -> Result<Located, EngineError> {
        let leaves = located.pointer().is_some_and(|pointer| self.is_leaving(pointer.segment));
        if leaves && operation.may_write() && located.value.is_none() {
            self.read_value(key, &mut located).await?;
        }
        Ok(located)
    }

    /// Does `operation` and waits until its answer may be given: the form for tools and tests.
    pub async fn run<R>(
        self: &Rc<Self>,
        key: &Key<'_>,
        operation: OperationBuf,
        respond: impl FnOnce(&Answer<'_>) -> R,
    ) -> Result<R, EngineError> {
        let (answer, needs) = self.execute(key, operation).await?;
        self.wait_acknowledged(needs).await?;
        Ok(respond(&answer.as_answer()))
    }

    /// Decides and applies, with everything that has to be known at hand.
    fn finish(
        &self,
        state: &mut State,
        addressed: Addressed<'_>,
        operation: &Operation<'_>,
        located: Located,
        now: u32,
        tried: &Tried,
    ) -> Result<(AnswerBuf, u64), NotApplied> {
        let Addressed { key, hash, .. } = addressed;
        let usual = self.options.value_bytes_max;
        let context = Context {
            version_next: self.log.sequence_next(),
            value_bytes_max: state.namespaces.value_bytes_max(key, usual),
        };
        let current = located.current(now);
        let decision = operation::decide(current, operation, context);
        // An item that a flush took away must not be reported missing before the flush is durable.
        let mut needs = located.sequence_end.max(state.namespaces.flushed_end());
        if !matches!(decision.effect, Effect::None) {
            let change = Change { addressed, located: &located, now };
            needs = needs.max(self.apply(state, &change, &decision.effect, tried)?);
            if let (Operation::Read(read), Effect::Remark(metadata)) = (operation, &decision.effect)
                && !read.quiet
            {
                state.note_fetched(&change, *metadata, needs);
            }
        } else if let Operation::Read(read) = operation {
            self.cache_located(state, key, hash, &located, now, read.quiet);
        }
        Ok((AnswerBuf::new(operation, &decision, located, now), needs))
    }

    /// Makes a change: log, memtable, cache. Returns the log position that covers it.
    fn apply(
        &self,
        state: &mut State,
        change: &Change<'_>,
        effect: &Effect<'_>,
        tried: &Tried,
    ) -> Result<u64, NotApplied> {
        let Addressed { namespace, compress_as, key, .. } = change.addressed;
        let removes = matches!(effect, Effect::Remove);
        self.check_namespace(state, key)?;
        self.check_space(state, removes)?;
        let (kind, metadata, payload) = self.describe(change, effect)?;
        if matches!(effect, Effect::Put(..)) {
            self.check_quota(state, key, payload.len())?;
            let len = shown_len(&metadata, &payload);
            let put = std::iter::once((change.addressed, Some(len)));
            self.check_records(state, namespace, put)?;
        }
        // A change that has to wait comes here again and again: no more than needed is done for it.
        let stored_len = tried.compressed().map_or(payload.len(), |it| it.record_bytes());
        let made = self.log.make_room(key.len(), stored_len);
        made.map_err(|refused| self.not_applied(state, removes, refused))?;
        let compressed = match kind {
            RecordKind::Put => self.compressed(compress_as, &payload, tried)?,
            _ => None,
        };
        let append = Append::new((kind, metadata), key, &payload, compressed.as_deref());
        let appended = self.log.append(&append);
        let appended = appended.map_err(|refused| self.not_applied(state, removes, refused))?;
        let is_replaced = !matches!(effect, Effect::Remark(_));
        self.make_known(state, change, (&append.record, &payload), (appended, is_replaced));
        if self.is_flush_due() {
            self.freeze(state);
        }
        Ok(appended.sequence + 1)
    }

    /// Makes a change that was appended known to memtable and cache, which gets the value as it was
    /// before it was compressed. `is_replaced` says whether the value that was there before, if
    /// any, is no more.
    pub(super) fn make_known(
        &self,
        state: &mut State,
        change: &Change<'_>,
        (record, value): (&Record<'_>, &[u8]),
        (appended, is_replaced): (Appended, bool),
    ) {
        let Addressed { compress_as, key, hash, replaces, .. } = change.addressed;
        let entry = self.entry_of(record, change.located, appended.pointer);
        let replaced = self.index.insert(key, hash, &entry, appended.sequence);
        if is_replaced || canary::has(Defect::MarkTheLiving) {
            let cached = state.items.place_of(hash, key);
            self.garbage.mark_dead([replaced, cached, change.located.pointer()]);
        }
        if entry.pointer() == Some(appended.pointer) {
            self.garbage.note_record(appended.pointer, hash, entry.metadata.expiry);
        }
        if record.kind == RecordKind::Put {
            self.compression.count(compress_as, record);
        }
        let is_removal = record.kind == RecordKind::Delete;
        state.namespaces.quotas.note(key, appended.pointer.len, is_removal);
        let len = (!is_removal).then(|| shown_len(&record.metadata, value));
        if is_replaced {
            state.namespaces.note_of_record(key, len, replaces);
        }
        state.update_cache(change, record.kind, &entry, value, appended.sequence);
        self.note_written(appended.pointer.len);
    }

    /// What the log is told of a change: kind, metadata and payload of its record.
    pub(super) fn describe<'a>(
        &self,
        change: &'a Change<'_>,
        effect: &'a Effect<'_>,
    ) -> Result<(RecordKind, Metadata, Cow<'a, [u8]>), NotApplied> {
        let version = self.log.sequence_next();
        let located = change.located;
        Ok(match (effect, located.place) {
            (Effect::None | Effect::Remove, _) => {
                let metadata = Metadata { version, ..Metadata::default() };
                (RecordKind::Delete, metadata, Cow::Borrowed(&[]))
            }
            (Effect::Put(metadata, value), _) => {
                (RecordKind::Put, *metadata, Cow::Borrowed(value.as_ref()))
            }
            (Effect::Remark(metadata), Place::Separate(pointer, len))
                if !self.is_leaving(pointer.segment) =>
            {
                let mut entry = Vec::new();
                let payload = Payload::Separate(pointer, len);
                Entry { metadata: *metadata, payload }.encode_into(&mut entry);
                (RecordKind::Repoint, *metadata, Cow::Owned(entry))
            }
            // The item had expired, a merge has dropped it, its segment was freed, and then the
            // clock went back.
            (Effect::Remark(_), Place::Separate(..)) if located.value.is_none() => {
                return Err(NotApplied::LookAgain);
            }
            (Effect::Remark(metadata), _) => {
                let value = located.value.as_deref().unwrap_or_default();
                (RecordKind::Put, *metadata, Cow::Borrowed(value))
            }
        })
    }

    fn entry_of<'a>(
        &self,
        record: &Record<'a>,
        located: &Located,
        pointer: crate::entry::Pointer,
    ) -> Entry<'a> {
        let payload = match record.kind {
            RecordKind::Repoint => match located.place {
                Place::Separate(target, len) => Payload::Separate(target, len),
                Place::Inline | Place::Absent => unreachable!("repointed items have a pointer"),
            },
            RecordKind::Put if record.is_inline(self.options.inline_bytes_max) => {
                Payload::Inline(record.payload)
            }
            RecordKind::Put => Payload::Separate(pointer, record.value_len()),
            _ => Payload::Tombstone,
        };
        Entry { metadata: record.metadata, payload }
    }

    fn cache_located(
        &self,
        state: &mut State,
        key: &[u8],
        hash: u64,
        located: &Located,
        now: u32,
        quiet: bool,
    ) {
        let Some(value) = located.value.as_deref() else { return };
        if located.from_cache || located.current(now).is_none() {
            return;
        }
        if state.namespaces.cache_policy(key) != CachePolicy::Values {
            return;
        }
        let deleted_at = self.index.deleted_at(key).unwrap_or(0);
        let item = CachedItem {
            metadata: located.metadata,
            // It was found alive: what was deleted before does not concern it.
            sequence: located.sequence_end.saturating_sub(1).max(deleted_at),
            last_access: now,
            fetched: !quiet,
            pointer: located.pointer(),
        };
        state.items.insert(hash, key, &item, value);
    }

    /// Reads a value from the log for an item that was located just now: nothing was waited for
    /// since, so that its segment is there.
    pub(super) async fn read_value(
        &self,
        key: &[u8],
        located: &mut Located,
    ) -> Result<(), EngineError> {
        if let Place::Separate(pointer, value_len) = located.place {
            let pin = self.pins.segment(pointer.segment, self.env.now());
            let value = self.log.read((pointer, value_len), key, IoClass::Read).await;
            drop(pin);
            self.release_files();
            self.state.borrow_mut().operations.value_reads += 1;
            located.value = Some(value?);
        }
        Ok(())
    }
}

/// An operation that waits, and its place in the key's line.
struct Waiting {
    namespace: u32,
    compress_as: u32,
    /// The encoded key, of whichever generation is alive.
    encoded: Vec<u8>,
    turn: Turn,
    counted: Counted,
}

/// The item that an operation is about.
#[derive(Clone, Copy)]
pub(super) struct Addressed<'a> {
    pub(super) namespace: u32,
    /// The namespace that says whether the value is compressed.
    pub(super) compress_as: u32,
    /// The encoded key, of the namespace's living generation.
    pub(super) key: &'a [u8],
    pub(super) hash: u64,
    /// What the item has that is going to be replaced, if that was found out.
    pub(super) replaces: Option<Replaced>,
}

/// A change to one key, with what was known of it before.
pub(super) struct Change<'a> {
    pub(super) addressed: Addressed<'a>,
    pub(super) located: &'a Located,
    pub(super) now: u32,
}

impl State {
    /// A read that has changed an item's metadata is a read like others: the item counts as fetched
    /// and, if its value was read, is cached. `needs` is the log position that covers the change.
    fn note_fetched(&mut self, change: &Change<'_>, metadata: Metadata, needs: u64) {
        let (Addressed { key, hash, .. }, now) = (change.addressed, change.now);
        let is_cached = self.items.access(hash, key, now, true).is_some();
        let Some(value) = change.located.value.as_deref().filter(|_| !is_cached) else { return };
        if self.namespaces.cache_policy(key) != CachePolicy::Values {
            return;
        }
        let item = CachedItem {
            metadata,
            sequence: needs.saturating_sub(1),
            last_access: now,
            fetched: true,
            pointer: change.located.pointer(),
        };
        self.items.insert(hash, key, &item, value);
    }

    /// The cache never holds anything but the newest value of a key.
    fn update_cache(
        &mut self,
        change: &Change<'_>,
        kind: RecordKind,
        entry: &Entry<'_>,
        value: &[u8],
        sequence: u64,
    ) {
        let Addressed { key, hash, .. } = change.addressed;
        let item = CachedItem {
            metadata: entry.metadata,
            sequence,
            last_access: change.now,
            fetched: false,
            pointer: entry.pointer(),
        };
        match kind {
            RecordKind::Put if self.namespaces.cache_policy(key) == CachePolicy::Values => {
                self.items.insert(hash, key, &item, value);
            }
            RecordKind::Repoint => {
                if !self.items.update_metadata(hash, key, item.metadata, sequence) {
                    self.items.remove(hash, key);
                }
            }
            _ => {
                self.items.remove(hash, key);
            }
        }
    }
}

/// Whether a read that may change an item's metadata does change this one's.
fn changes(read: &operation::Read, metadata: &Metadata) -> bool {
    use crate::entry::state::{STALE, WIN_SENT};
    let sent = metadata.state & WIN_SENT != 0;
    let recache =
        read.recache_before.is_some_and(|limit| metadata.expiry != 0 && metadata.expiry < limit);
    let wins = read.leases && !sent && (metadata.state & STALE != 0 || recache);
    wins || read.expiry.is_some_and(|expiry| expiry != metadata.expiry)
}
