//! What a core tells of its requests and connections to those who want to know: counts by prefix,
//! and events. Nobody wants it, usually, and then all that it costs is to find that out.

use std::sync::Arc;

use larder_engine::error::EngineError;
use larder_engine::operation::{Operation, Outcome, StoreMode};
use larder_runtime::core_env::CoreEnv;

use super::core_state::Shared;
use crate::counters::{Counters, Kind, Tally};
use crate::events::{EventKinds, Happening, NodeEvent, StoredBy};
use crate::limits::EVENTS_TURN_MAX;
use crate::prefixes::Prefixes;
use crate::request::ItemRequest;

/// What is to be known of a request when it has ended.
#[derive(Debug)]
pub(super) struct Observed {
    key: Arc<[u8]>,
    kind: Kind,
    by: StoredBy,
    seconds: u32,
    value_bytes: usize,
    connection: u64,
}

/// What a core tells.
pub(super) struct Observer<C> {
    /// Whether anybody wants to know anything.
    is_on: bool,
    pub prefixes: Prefixes,
    /// By core, what is watched there.
    watched: Vec<EventKinds>,
    /// All of that.
    kinds: EventKinds,
    /// What has happened in this turn.
    events: Vec<NodeEvent>,
    /// What has, and was not kept because it was too much.
    lost: u64,
    env: C,
    shared: Arc<Shared>,
}

impl<C: CoreEnv> Observer<C> {
    pub(super) fn new(env: C, shared: Arc<Shared>, cores: usize) -> Self {
        let facts = &shared.facts;
        let prefixes = Prefixes::new(facts.prefix_delimiter, facts.counts_prefixes);
        Self {
            is_on: facts.counts_prefixes,
            prefixes,
            watched: vec![EventKinds::NONE; cores],
            kinds: EventKinds::NONE,
            events: Vec::new(),
            lost: 0,
            env,
            shared,
        }
    }

    /// Begins to count by prefix, or ends it.
    pub(super) fn count_prefixes(&mut self, is_on: bool) {
        self.prefixes.switch(is_on);
        self.update();
    }

    /// Learns what is watched on a core from now on.
    pub(super) fn watch(&mut self, core: usize, kinds: EventKinds) {
        self.watched[core] = kinds;
        self.update();
    }

    /// What is watched on a core.
    pub(super) fn watched(&self, core: usize) -> EventKinds {
        self.watched[core]
    }

    fn update(&mut self) {
        self.kinds = self.watched.iter().fold(EventKinds::NONE, |all, kinds| all.and(*kinds));
        self.is_on = self.prefixes.is_on() || self.kinds != EventKinds::NONE;
    }

    /// What is to be known of a request of a connection when it has ended, if anybody wants to. It
    /// is told of items that memcached's clients can reach.
    #[inline]
    pub(super) fn observe(
        &self,
        request: &ItemRequest<'_>,
        connection: impl FnOnce() -> u64,
    ) -> Option<Box<Observed>> {
        if !self.is_on {
            return None;
        }
        self.observe_now(request, connection())
    }

    #[cold]
    fn observe_now(&self, request: &ItemRequest<'_>, connection: u64) -> Option<Box<Observed>> {
        let ItemRequest { key, operation, kind, .. } = request;
        if key.namespace != 0 || !key.item.is_empty() {
            return None;
        }
        let (by, seconds) = match operation {
            Operation::Store(store) => {
                let by = match store.mode {
                    _ if store.compare.is_some() => StoredBy::Compare,
                    StoreMode::Set => StoredBy::Set,
                    StoreMode::Add => StoredBy::Add,
                    StoreMode::Replace => StoredBy::Replace,
                    StoreMode::Append => StoredBy::Append,
                    StoreMode::Prepend => StoredBy::Prepend,
                };
                let now = u32::try_from(self.env.unix_microseconds() / 1_000_000);
                (by, store.expiry.saturating_sub(now.unwrap_or(u32::MAX)))
            }
            _ => (StoredBy::Set, 0),
        };
        Some(Box::new(Observed {
            key: key.record.into(),
            kind: *kind,
            by,
            seconds,
            value_bytes: operation.value_len(),
            connection,
        }))
    }

    /// Tells of a request that has ended: what became of it, and how long the item's value is.
    #[cold]
    pub(super) fn ended(
        &mut self,
        observed: Observed,
        result: Result<(Outcome, usize), &EngineError>,
        counters: &mut Counters,
    ) {
        let tally = result.map_or(Tally::Other, |(outcome, _)| Tally::from(outcome));
        let is_found = tally == Tally::Hit;
        let found_bytes = if is_found { result.map_or(0, |(_, bytes)| bytes) } else { 0 };
        let Observed { key, kind, by, seconds, value_bytes, connection } = observed;
        if self.prefixes.is_on() {
            self.prefixes.count(&key, kind, is_found);
        }
        let what = match kind {
            Kind::Get { .. } | Kind::Increment | Kind::Decrement | Kind::Touch => {
                Happening::Read { key, is_found, value_bytes: found_bytes }
            }
            Kind::Store | Kind::CompareAndStore => {
                let outcome = result.ok().map(|(outcome, _)| outcome);
                Happening::Stored { key, by, outcome, seconds, value_bytes }
            }
            Kind::TooLarge => {
                let outcome = Some(Outcome::TooLarge);
                Happening::Stored { key, by, outcome, seconds: 0, value_bytes: 0 }
            }
            Kind::Delete if is_found => Happening::Deleted { key },
            Kind::Delete | Kind::Other => return,
        };
        self.happened(connection, what, counters);
    }

    /// Tells of what has happened, if anybody watches that.
    pub(super) fn happened(&mut self, connection: u64, what: Happening, counters: &mut Counters) {
        let event = NodeEvent { microseconds: 0, number: 0, connection, what };
        if !self.kinds.has_any(event.kind()) {
            return;
        }
        if self.events.len() >= EVENTS_TURN_MAX {
            self.lost += 1;
            counters.log_worker_dropped += 1;
            return;
        }
        counters.log_worker_written += 1;
        let (microseconds, number) = (self.env.unix_microseconds(), self.shared.next_event());
        self.events.push(NodeEvent { microseconds, number, ..event });
    }

    /// What has happened since the last call, and how much more that was not kept.
    pub(super) fn take(&mut self) -> (Vec<NodeEvent>, u64) {
        (std::mem::take(&mut self.events), std::mem::take(&mut self.lost))
    }

    /// Whether there is anything to take.
    #[inline]
    pub(super) fn has_any(&self) -> bool {
        !self.events.is_empty() || self.lost > 0
    }
}
