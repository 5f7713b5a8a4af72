//! What connections ask of their core: requests for its shards, for those of others, and for the
//! whole node.

use std::sync::Arc;

use larder_engine::key::Key;
use larder_engine::shard::Answer;
use larder_runtime::core_env::CoreEnv;

use super::core_state::CoreState;
use super::gathers::GatherFor;
use super::heaviest::AskedFor;
use super::log_need::{log_need, shard_log_need};
use super::refused::Want;
use super::shards::{Notes, Origin, Tried};
use super::shares::Part;
use crate::connection::{After, Arrival, Asked, Handled, Handler, Load, Release};
use crate::control::Event;
use crate::limits::REPLY_COVERED_BYTES;
use crate::mesh::{Ask, Place};
use crate::request::{
    Answered, ItemRequest, Moment, NoAnswer, NodeAnswer, NodeRequest, ShardRequest, Target,
};
use crate::routing::core_of;

/// One connection's way to the core.
pub(super) struct Dispatch<'a, C: CoreEnv> {
    pub state: &'a mut CoreState<C>,
    pub connection: u64,
    /// What the connection has appended to the core's logs.
    pub part: &'a mut Part,
}

impl<C: CoreEnv> Handler for Dispatch<'_, C> {
    #[inline]
    fn now(&self) -> Moment {
        Moment { second: self.state.now, nanoseconds: self.state.env.now() }
    }

    #[inline]
    fn target(&self, key: &Key<'_>) -> Target {
        self.state.shards.target(key)
    }

    #[inline]
    fn announce(&mut self, key: &Key<'_>) -> Target {
        let Target { shard, .. } = self.state.shards.target(key);
        Target { shard, announced: self.state.shards.announce(shard, key) }
    }

    #[inline]
    fn announced(&mut self) {
        self.state.shards.announced();
    }

    #[inline]
    fn request(
        &mut self,
        request: &ItemRequest<'_>,
        target: Target,
        asked: Asked,
        put: impl FnOnce(Result<&Answer<'_>, NoAnswer>),
    ) -> Handled {
        let state = &mut *self.state;
        state.heaviest.latest = AskedFor::Item(request.kind);
        let shard = target.shard;
        let place = Place { connection: self.connection, sequence: asked.sequence };
        let core = core_of(shard, state.mesh.cores());
        let own = asked.load;
        if state.is_too_late(request.deadline) {
            put(Err(NoAnswer::TooLate));
            return Handled::Done { after: After::NOTHING, is_error: true };
        }
        if core == state.core {
            if let Some(bytes) = state.reply_to_refuse(shard, request) {
                return state.refuse(own, Want::Reply(bytes));
            }
            let need = log_need(request);
            if let Some(need) = need.filter(|need| !state.may_append(*self.part, *need)) {
                return state.refuse(own, Want::Log(*self.part, need));
            }
            let number = || state.numbering.connection(core, self.connection);
            let mut observed = state.observer.observe(request, number);
            let notes = Notes {
                counters: &mut state.counters,
                observer: &mut state.observer,
                observed: &mut observed,
            };
            let sample = state.latency.sample(&request.operation, asked.since);
            let tried = state.shards.try_execute(target, request, state.now, notes, put);
            let bytes = need.map_or(0, |need| need.bytes);
            if let Tried::Done { after, is_error } = tried {
                state.shares.note(self.part, bytes);
                state.measure(sample, after);
                return Handled::Done { after, is_error };
            }
            let expected_bytes = match state.admit(shard, request, own) {
                Ok(expected_bytes) => expected_bytes,
                Err(bytes) => return state.refuse(own, Want::Task(bytes)),
            };
            state.shares.note(self.part, bytes);
            let noted = (observed, sample);
            state.start(Origin::Connection(place), shard, request, expected_bytes, noted);
            return Handled::Waiting { expected_bytes };
        }
        let bytes = request.operation.value_len();
        if !state.may_forward(own, bytes) || !state.mesh.send_request(core, place, shard, request) {
            return state.refuse(own, Want::Line(core));
        }
        state.counters.forwarded += 1;
        Handled::Waiting { expected_bytes: REPLY_COVERED_BYTES + bytes }
    }

    fn lacks_memory(&self) -> bool {
        matches!(self.state.refused_want, Some(Want::Reply(_)))
    }

    fn shard_request(
        &mut self,
        request: Arc<ShardRequest>,
        asked: Asked,
        put: impl FnOnce(NoAnswer),
    ) -> Handled {
        let state = &mut *self.state;
        state.heaviest.latest = AskedFor::of(&request.work);
        let place = Place { connection: self.connection, sequence: asked.sequence };
        let core = core_of(request.shard, state.mesh.cores());
        let own = asked.load;
        if state.is_too_late(request.deadline) {
            put(NoAnswer::TooLate);
            return Handled::Done { after: After::NOTHING, is_error: true };
        }
        if core != state.core {
            let bytes = request.memory();
            if !state.may_forward(own, bytes)
                || !state.mesh.send_shard_request(core, place, request)
            {
                return state.refuse(own, Want::Line(core));
            }
            state.counters.forwarded += 1;
            return Handled::Waiting { expected_bytes: REPLY_COVERED_BYTES + bytes };
        }
        let bytes = request.reply_bytes(state.unknown_value_bytes);
        if state.ledger.is_pressed() && !state.ledger.allows_reply(bytes) {
            return state.refuse(own, Want::Reply(bytes));
        }
        let need = shard_log_need(&request);
        if let Some(need) = need.filter(|need| !state.may_append(*self.part, *need)) {
            return state.refuse(own, Want::Log(*self.part, need));
        }
        match state.admit_shard(&request, own) {
            Ok(expected_bytes) => {
                state.shares.note(self.part, need.map_or(0, |need| need.bytes));
                state.start_shard(Origin::Connection(place), request, expected_bytes);
                Handled::Waiting { expected_bytes }
            }
            Err(bytes) => state.refuse(own, Want::Task(bytes)),
        }
    }

    fn node_request(&mut self, request: NodeRequest, sequence: u64) -> Handled {
        let place = Place { connection: self.connection, sequence };
        let state = &mut *self.state;
        state.heaviest.latest = AskedFor::Node;
        if request.asks_all_cores() && !state.may_gather() {
            return state.refuse(Load::default(), Want::Gather);
        }
        let ask = match request {
            NodeRequest::Clear(at) => {
                state.counters.cmd_flush += 1;
                Ask::Clear(at)
            }
            NodeRequest::Reports { reset: true } => Ask::Reset,
            NodeRequest::Reports { reset: false } => Ask::Report,
            NodeRequest::Namespace(request) => {
                state.change_namespace(place, request);
                return Handled::Waiting { expected_bytes: REPLY_COVERED_BYTES };
            }
            NodeRequest::Connections => Ask::Connections,
            NodeRequest::CountPrefixes(is_on) => Ask::CountPrefixes(is_on),
            NodeRequest::LimitValues(bytes) => Ask::LimitValues(bytes),
            NodeRequest::Prefixes => Ask::Prefixes,
            NodeRequest::Watch(kinds) => {
                state.start_watching(place, kinds);
                return Handled::Waiting { expected_bytes: REPLY_COVERED_BYTES };
            }
            NodeRequest::LogLevel(level) => {
                state.tell(Event::LogLevel(level));
                let answered = Answered::Node(NodeAnswer::Done);
                let arrival = Arrival { answered, after: After::NOTHING, core: None };
                state.arrived.push((place, arrival));
                return Handled::Waiting { expected_bytes: REPLY_COVERED_BYTES };
            }
            NodeRequest::Stop => {
                state.tell(Event::StopRequested("a client's shutdown command"));
                return Handled::Done { after: After::NOTHING, is_error: false };
            }
        };
        state.start_gather(GatherFor::Connection(place), ask);
        Handled::Waiting { expected_bytes: REPLY_COVERED_BYTES }
    }

    #[inline]
    fn release(&self, after: After) -> Release {
        self.state.shards.release(after)
    }

    fn passed(&mut self, core: usize, value_bytes: usize) {
        self.state.passed(core, self.connection, value_bytes);
    }
}
