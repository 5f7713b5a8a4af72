//! Point operations: at once when everything needed is in memory, else by way of the device.

use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::admission::NotApplied;
use super::answer::{Answer, AnswerBuf};
use super::apply::Addressed;
use super::compression::Tried;
use super::locate::{Located, Place};
use super::operation_buffer::OperationBuf;
use super::record_limit::Counted;
use super::turns::Turn;
use super::warm::Announced;
use super::{Shard, State};
use crate::canary::{self, Defect};
use crate::entry::Metadata;
use crate::error::EngineError;
use crate::index::table::key_hash;
use crate::key::Key;
use crate::operation::{self, Need, Operation, Outcome};

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
                    // In memory of its own: few operations count, and all carry what it would take.
                    let counting = Box::pin(self.count_record(&to_count, &mut waiting.counted));
                    if let Err(error) = counting.await {
                        break Err(error);
                    }
                }
                Err(NotApplied::Wait) => {
                    waiting.counted.forget_items();
                    self.release_files();
                    let key_bytes = waiting.encoded.len();
                    let new = || self.place_for(key_bytes, &operation);
                    place.get_or_insert_with(new).wait().await;
                }
            }
        };
        self.leave_place(place);
        drop(waiting);
        self.release_files();
        result
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
            Box::pin(self.read_value(key, &mut located)).await?;
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

/// Whether a read that may change an item's metadata does change this one's.
fn changes(read: &operation::Read, metadata: &Metadata) -> bool {
    use crate::entry::state::{STALE, WIN_SENT};
    let sent = metadata.state & WIN_SENT != 0;
    let recache =
        read.recache_before.is_some_and(|limit| metadata.expiry != 0 && metadata.expiry < limit);
    let wins = read.leases && !sent && (metadata.state & STALE != 0 || recache);
    wins || read.expiry.is_some_and(|expiry| expiry != metadata.expiry)
}
