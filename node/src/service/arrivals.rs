//! What has come for connections since the last turn: from other cores, tasks and logs.

use std::ops::Range;

use larder_runtime::core_env::CoreEnv;
use larder_runtime::network::{ConnectionId, Network};

use super::NodeService;
use super::core_state::CoreState;
use super::drive::{account, queue};
use super::turns::Work;
use crate::connection::{After, Arrival, Output};
use crate::control::Event;
use crate::limits::TURN_MESSAGES_MAX;
use crate::mesh::{Batch, Place};
use crate::request::Answered;

/// How many answers before it is taken one is announced.
const ANSWERS_AHEAD: usize = 2;

impl<C: CoreEnv> NodeService<C> {
    pub(super) fn receive_batches(&mut self, network: &mut C::Network) -> bool {
        let mut has_any = false;
        let (mut taken, mut reply_bytes) = (0, 0);
        for core in self.state.mesh.next_order() {
            while taken < TURN_MESSAGES_MAX && !self.state.has_batch(core) {
                let Some(mut batch) = self.state.mesh.receive(core) else { break };
                taken += 1 + batch.requests.len() + batch.answers.len();
                self.receive_answers(network, core, &mut batch);
                self.receive_shard_answers(core, &mut batch);
                self.state.take_batch(core, batch);
                self.state.work_on_batch(core, &mut reply_bytes);
                has_any = true;
            }
            if self.state.has_batch(core) && !has_any {
                self.state.work_on_batch(core, &mut reply_bytes);
                has_any = true;
            }
        }
        has_any | self.state.work_on_parked()
    }

    /// Gives connections their answers. Those of one mostly stand behind each other, as its
    /// requests did, so what is the same for all of them is done once.
    pub(super) fn receive_answers(
        &mut self,
        network: &mut C::Network,
        core: usize,
        batch: &mut Batch,
    ) {
        let mut first = 0;
        while let Some(message) = batch.answers.get(first) {
            let connection = message.place.connection;
            let others = batch.answers[first..].iter();
            let count = others.take_while(|other| other.place.connection == connection).count();
            self.receive_answers_of(network, (core, connection), batch, first..first + count);
            first += count;
        }
    }

    /// The same for answers to one connection.
    fn receive_answers_of(
        &mut self,
        network: &mut C::Network,
        (core, connection): (usize, u64),
        batch: &mut Batch,
        answers: Range<usize>,
    ) {
        let id = ConnectionId::from(connection);
        let pending = network.output_pending(id);
        let mark = self.state.ledger.output_mark();
        let Some(entry) = self.table.get_mut(id) else { return };
        let Some(out) = network.output(id) else { return };
        let before = out.len();
        let mut output = Output::new(out, pending, mark);
        let mut has_all_passed = true;
        let now = self.state.now;
        for index in answers {
            let Place { sequence, .. } = batch.answers[index].place;
            batch.announce_answer(index + ANSWERS_AHEAD);
            let answer = batch.take_answer(index);
            let value_bytes = answer.as_ref().map_or(0, |answer| answer.value.len());
            if entry.connection.complete_now(sequence, answer, core, now, &mut output) {
                self.state.passed(core, connection, value_bytes);
            } else {
                has_all_passed = false;
            }
        }
        if !has_all_passed || self.is_draining || entry.has_more_to_do() {
            queue(&mut self.ready, entry);
        }
        let written = out.len() - before;
        self.ready.charge(&mut entry.mark, Work { requests: 0, bytes: written });
        self.state.counters.bytes_written += written as u64;
        self.state.ledger.add_output(written);
        account(&mut self.state, entry);
    }

    /// Hands over answers that are not about one item: they leave when the connections are driven.
    pub(super) fn receive_shard_answers(&mut self, core: usize, batch: &mut Batch) {
        for (place, answer) in batch.take_shard_answers() {
            let (answered, after) = (Answered::Shard(answer), After::NOTHING);
            self.state.arrived.push((place, Arrival { answered, after, core: Some(core) }));
        }
    }

    /// Takes the requests that have ended in tasks.
    pub(super) fn receive_completions(&mut self) -> bool {
        let mut completions = std::mem::take(&mut self.completions);
        self.state.shards.take_completions(&mut completions);
        let has_any = !completions.is_empty();
        for completion in completions.drain(..) {
            self.state.completed(completion);
        }
        self.completions = completions;
        has_any | self.state.take_clearings() | self.state.take_registered()
    }

    /// Hands answers that came from elsewhere to their connections.
    pub(super) fn receive_arrived(&mut self) -> bool {
        let arrived = std::mem::take(&mut self.state.arrived);
        let has_any = !arrived.is_empty();
        for (place, arrival) in arrived {
            let id = ConnectionId::from(place.connection);
            let Some(entry) = self.table.get_mut(id) else { continue };
            entry.connection.complete(place.sequence, arrival);
            account(&mut self.state, entry);
            queue(&mut self.ready, entry);
        }
        has_any
    }

    /// Looks at the logs, and at those who wait for them if one has moved.
    pub(super) fn observe_logs(&mut self) -> bool {
        let mut stopped = Vec::new();
        let backlog = self.state.shards.backlog();
        self.state.shares.see(backlog, self.state.env.now());
        let has_moved = self.state.shards.observe(&mut stopped);
        for (shard, reason) in stopped {
            tracing::error!(shard, "the shard takes no more writes: {reason}");
            self.state.tell(Event::ShardStopped { shard, reason });
        }
        if has_moved {
            self.state.release_held();
            let CoreState { latency, shards, env, .. } = &mut self.state;
            latency.settle(env.now(), |after| shards.release(after));
            let Self { table, awaiting_log, ready, .. } = self;
            for id in awaiting_log.drain(..) {
                if let Some(entry) = table.get_mut(id) {
                    entry.awaits_log = false;
                    queue(ready, entry);
                }
            }
        }
        has_moved
    }
}
