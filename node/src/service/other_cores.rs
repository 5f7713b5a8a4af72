//! Requests of other cores' connections: carried out batch by batch, in parts, and parked one by
//! one where their connection has used up its share.

use std::sync::Arc;

use larder_engine::key::Key;
use larder_engine::shard::{Announced, AnswerBuf};
use larder_runtime::core_env::CoreEnv;

use super::core_state::CoreState;
use super::gathers::Gather;
use super::heaviest::AskedFor;
use super::log_need::{log_need, shard_log_need};
use super::shards::{Notes, Origin, Tried};
use crate::connection::{After, Load, Release};
use crate::limits::{BATCH_TURN_BYTES, BATCH_TURN_REQUESTS};
use crate::mesh::{Batch, Note, Place};
use crate::request::{AnyRequest, ItemRequest, NoAnswer, ShardRequest, Target};

/// How many requests of a batch are announced before the first of them is carried out.
const ANNOUNCED_MAX: usize = 16;

impl<C: CoreEnv> CoreState<C> {
    /// Brings the ledger up to date with what is on its way between this core and others.
    pub(super) fn count_between_cores(&mut self) {
        let bytes = self.memory_between_cores();
        self.ledger.set_mailboxes(bytes);
    }

    /// The memory of what is on its way between this core and others, in bytes: batches that it has
    /// sent and that were not taken, batches of others that it works on, answers that may not
    /// leave, and what was told that goes into one answer. Requests of others that are parked here
    /// count on the cores that they came from, as what their clients wait for: nothing that this
    /// core could close would free them.
    fn memory_between_cores(&mut self) -> usize {
        let inboxes: usize = self.inboxes.iter().flatten().map(|(batch, _)| batch.memory()).sum();
        let gathers: usize = self.gathers.values().map(Gather::memory).sum();
        self.mesh.memory() + self.shards.held_bytes() + inboxes + gathers
    }

    /// Takes a batch of another core in; its requests are carried out by and by. There must be none
    /// from that core whose requests are not all carried out.
    pub(super) fn take_batch(&mut self, core: usize, batch: Box<Batch>) {
        for &(connection, bytes) in &batch.credits {
            self.lanes.credit(core, connection, bytes);
        }
        let before = self.inboxes[core].replace((batch, 0));
        assert!(before.is_none(), "a core's batches are carried out one after the other");
    }

    /// Whether a batch of that core waits for its requests to be carried out.
    pub(super) fn has_batch(&self, core: usize) -> bool {
        self.inboxes[core].is_some()
    }

    /// Goes on with the requests of a core's batch; what is left when the turn's part of them is
    /// done waits for the next one. `reply_bytes` are those that the turn has made before for other
    /// cores, and makes. A request that cannot go on is parked, so it holds no other up.
    pub(super) fn work_on_batch(&mut self, core: usize, reply_bytes: &mut usize) {
        let Some((mut batch, first)) = self.inboxes[core].take() else { return };
        let last = batch.requests.len().min(first + BATCH_TURN_REQUESTS);
        let mut targets = [None; ANNOUNCED_MAX];
        let mut opened = None;
        for index in first..last {
            if *reply_bytes > BATCH_TURN_BYTES {
                self.inboxes[core] = Some((batch, index));
                return;
            }
            let ahead = (index - first) % ANNOUNCED_MAX;
            if ahead == 0 {
                self.announce(&batch, index..last.min(index + ANNOUNCED_MAX), &mut targets);
            }
            let message = &batch.requests[index];
            let (place, shard) = (message.place, message.shard);
            let target = Target { shard, announced: targets[ahead] };
            // Requests of one connection mostly stand behind each other.
            if opened != Some(place.connection) {
                self.lanes.open(core, place.connection);
                opened = Some(place.connection);
            }
            let is_scarce = self.room.is_scarce(self.under_way());
            let wants = if self.lanes.may_execute(core, place.connection, is_scarce) {
                match self.carry_out_any(core, place, target, batch.request(message)) {
                    Ok(bytes) => {
                        self.heaviest.carried_out(core, bytes);
                        *reply_bytes += bytes;
                        continue;
                    }
                    Err(bytes) => Some(bytes),
                }
            } else {
                None
            };
            let parked = batch.park(index);
            self.lanes.park(core, place.connection, parked, wants);
            self.counters.parked += 1;
        }
        if last < batch.requests.len() {
            self.inboxes[core] = Some((batch, last));
            return;
        }
        for note in batch.notes.drain(..) {
            match note {
                Note::Ask(ask, what) => self.answer_ask(core, ask, what),
                Note::Told(ask, told) => self.gathered(ask, told),
                Note::Watching(kinds) => self.observer.watch(core, kinds),
                Note::Events(events, lost) => self.hear(events, lost),
                Note::ChangeNamespace(place, request) => self.ask_registrar((core, place), request),
                Note::NamespaceChanged(place, result) => self.namespace_changed(place, result),
            }
        }
        for connection in batch.closed.drain(..) {
            self.lanes.close(core, connection);
        }
        self.mesh.give_back(core, batch);
    }

    /// Carries out parked requests that may go on now; returns whether there were any.
    pub(super) fn work_on_parked(&mut self) -> bool {
        let mut reply_bytes = 0;
        let mut has_any = false;
        for _ in 0..self.lanes.parked() {
            if reply_bytes > BATCH_TURN_BYTES {
                break;
            }
            let all = self.under_way();
            let Some((core, parked)) = self.lanes.next(self.room, all) else { continue };
            let target = Target { shard: parked.shard, announced: None };
            match self.carry_out_any(core, parked.place, target, parked.request()) {
                Ok(bytes) => {
                    self.heaviest.carried_out(core, bytes);
                    has_any = true;
                    reply_bytes += bytes;
                }
                Err(wants) => self.lanes.put_back(core, parked.place.connection, parked, wants),
            }
        }
        has_any
    }

    /// Starts bringing near what these requests of a batch will touch.
    fn announce(
        &mut self,
        batch: &Batch,
        range: std::ops::Range<usize>,
        targets: &mut [Option<Announced>; ANNOUNCED_MAX],
    ) {
        for (message, target) in batch.requests[range].iter().zip(targets) {
            let announce = |key: Key<'_>| self.shards.announce(message.shard, &key);
            *target = batch.key(message).and_then(announce);
        }
        self.shards.announced();
    }

    /// Carries a request of another core out, or starts to. Returns how long the answer's value is,
    /// as far as it is known, or the bytes for which there is no room yet.
    #[inline]
    fn carry_out_any(
        &mut self,
        core: usize,
        place: Place,
        target: Target,
        request: AnyRequest<'_>,
    ) -> Result<usize, usize> {
        match request {
            AnyRequest::Item(request) => {
                self.heaviest.latest = AskedFor::Item(request.kind);
                self.carry_out(core, place, target, &request)
            }
            AnyRequest::Shard(request) => {
                self.heaviest.latest = AskedFor::of(&request.work);
                self.start_for(core, place, request)
            }
        }
    }

    /// The same for a request that is not about one item.
    fn start_for(
        &mut self,
        core: usize,
        place: Place,
        request: &Arc<ShardRequest>,
    ) -> Result<usize, usize> {
        if self.is_too_late(request.deadline) {
            self.deliver((core, place), Err(NoAnswer::TooLate), After::NOTHING);
            return Ok(0);
        }
        let need = shard_log_need(request);
        let part = self.lanes.part_of(core, place.connection);
        if let Some(need) = need.filter(|need| !self.may_append(part, *need)) {
            return Err(need.bytes);
        }
        let own = self.lanes.load_of(core, place.connection);
        let expected_bytes = self.admit_shard(request, own)?;
        if let Some(need) = need {
            self.lanes.note(core, place.connection, |part| self.shares.note(part, need.bytes));
        }
        let task = Load { waiting: 1, expected_bytes, bytes: 0 };
        self.lanes.change(core, place.connection, |load| load + task);
        self.start_shard(Origin::Core { core, place }, Arc::clone(request), expected_bytes);
        Ok(0)
    }

    /// The same for an operation on an item.
    fn carry_out(
        &mut self,
        core: usize,
        place: Place,
        target: Target,
        request: &ItemRequest<'_>,
    ) -> Result<usize, usize> {
        if self.is_too_late(request.deadline) {
            self.deliver((core, place), Err(NoAnswer::TooLate), After::NOTHING);
            return Ok(0);
        }
        let need = log_need(request);
        if let Some(need) = need {
            let part = self.lanes.part_of(core, place.connection);
            if !self.may_append(part, need) {
                return Err(need.bytes);
            }
        }
        let mut value_bytes = 0;
        let Self { shards, counters, observer, numbering, mesh, now, .. } = self;
        let number = || numbering.connection(core, place.connection);
        let mut observed = observer.observe(request, number);
        let notes = Notes { counters, observer, observed: &mut observed };
        let tried = shards.try_execute(target, request, *now, notes, |answer| {
            value_bytes = answer.map_or(0, |answer| answer.value.len());
            mesh.send_answer(core, place, answer);
        });
        let result = match tried {
            Tried::Done { after, .. } => {
                self.lanes.charge(core, place.connection, value_bytes);
                // Nearly all may leave, so all are written where they leave from.
                if self.shards.release(after) != Release::Now {
                    let answer = self.mesh.take_answer_back(core);
                    let answer = answer.as_ref().map(AnswerBuf::as_answer);
                    let answer = answer.as_ref().map_err(|failure| **failure);
                    self.deliver((core, place), answer, after);
                }
                Ok(value_bytes)
            }
            Tried::Later => {
                let own = self.lanes.load_of(core, place.connection);
                let admitted = self.admit(target.shard, request, own);
                admitted.map(|expected_bytes| {
                    let task = Load { waiting: 1, expected_bytes, bytes: 0 };
                    self.lanes.change(core, place.connection, |load| load + task);
                    let origin = Origin::Core { core, place };
                    self.start(origin, target.shard, request, expected_bytes, (observed, None));
                    0
                })
            }
        };
        if let (Ok(_), Some(need)) = (result, need) {
            self.lanes.note(core, place.connection, |part| self.shares.note(part, need.bytes));
        }
        result
    }
}
