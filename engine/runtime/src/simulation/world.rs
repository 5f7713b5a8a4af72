//! What the tasks of one run share: the disk, the clock, the faults and the operations under way.

use std::cell::{RefCell, RefMut};
use std::rc::Rc;
use std::task::Waker;

use slab::Slab;

use super::clock::{Clock, Event};
use super::disk::{NodeId, SimDisk};
use super::executor::TaskFuture;
use super::faults::{FaultPlan, OperationCounts, OperationKind};
use super::operation::{Outcome, Request, Slot};
use super::random::{Random, Stream};
use super::trace::{TraceEntry, TraceEvent};
use super::{SimulationOptions, Stopped};
use crate::env::IO_CLASSES;
use crate::urgency::Urgencies;

pub(super) struct World {
    state: RefCell<State>,
}

/// Invariant: nothing of the tasks' (futures, wakers) is run or dropped while this is borrowed.
pub(super) struct State {
    pub(super) disk: SimDisk,
    pub(super) clock: Clock,
    pub(super) faults: FaultPlan,
    pub(super) counts: OperationCounts,
    pub(super) fault_random: Random,
    pub(super) application_random: Random,
    latency_random: Random,
    yield_random: Random,
    yield_per_million: u32,
    operations: Slab<Slot>,
    /// Reads that were asked for, by class.
    pub(super) reads: [u64; IO_CLASSES],
    /// Operations whose moment has not come.
    under_way: usize,
    submitted: u64,
    spawned: Vec<TaskFuture>,
    /// What was said of how urgent background work is.
    pub(super) urgencies: Urgencies,
    stopped: Option<Stopped>,
    trace: Option<Vec<TraceEntry>>,
}

impl State {
    pub(super) fn record(&mut self, event: impl FnOnce() -> TraceEvent) {
        if let Some(trace) = &mut self.trace {
            trace.push(TraceEntry { nanoseconds: self.clock.now(), event: event() });
        }
    }

    /// Counts an operation that is about to be performed; false if this is where the run crashes,
    /// or if it has stopped already.
    pub(super) fn admit(&mut self, kind: OperationKind) -> bool {
        if self.stopped.is_some() {
            return false;
        }
        if self.faults.crashes(kind, &self.counts) {
            self.stopped = Some(Stopped::Crashed);
            return false;
        }
        self.submitted += 1;
        self.counts.add(kind);
        true
    }

    fn submit(&mut self, mut request: Request) -> Option<usize> {
        let kind = request.kind();
        let failure = self.faults.failure(kind, &self.counts);
        if !self.admit(kind) {
            return None;
        }
        let number = self.submitted - 1;
        let (file, offset, len) = request.target();
        self.record(|| TraceEvent::Submitted { operation: number, kind, file, offset, len });
        let change = request.submit(&mut self.disk);
        let in_flight = change.map(|change| {
            self.disk.in_flight.insert(number, change);
            number
        });
        let slot = self.operations.insert(Slot {
            number,
            request: Some(request),
            in_flight,
            failure,
            is_cancelled: false,
            is_abandoned: false,
            outcome: None,
            waker: None,
        });
        self.under_way += 1;
        let done_at = self.clock.now().saturating_add(self.latency());
        self.clock.schedule(done_at, Event::Complete(slot));
        Some(slot)
    }

    fn latency(&mut self) -> u64 {
        let usual = self.latency_random.within(&self.faults.latency_nanoseconds);
        let is_slow = self.latency_random.chance(self.faults.slow_per_million);
        if is_slow { usual.saturating_add(self.faults.slow_nanoseconds) } else { usual }
    }

    /// Performs an operation whose moment has come; who waits for it.
    fn complete(&mut self, index: usize) -> Option<Waker> {
        self.under_way -= 1;
        let slot = self.operations.get_mut(index).expect("a slot lives until its event");
        let request = slot.request.take().expect("an operation is done once");
        let (failure, number) = (slot.failure, slot.number);
        let (is_cancelled, is_abandoned) = (slot.is_cancelled, slot.is_abandoned);
        let waker = slot.waker.take();
        if let Some(id) = slot.in_flight.take() {
            self.disk.in_flight.remove(&id);
        }
        let outcome =
            if is_cancelled { self.cancel(request) } else { self.perform(request, failure) };
        let is_ok = outcome.result.is_ok();
        self.record(|| TraceEvent::Done { operation: number, is_ok });
        if is_abandoned {
            self.operations.remove(index);
            self.discard(&outcome);
        } else {
            self.operations[index].outcome = Some(outcome);
        }
        waker
    }

    /// Nobody takes this outcome: closes what it opened.
    fn discard(&mut self, outcome: &Outcome) {
        if let Some(file) = outcome.opened {
            self.disk.close_handle(file);
        }
    }

    /// Takes an abandoned operation back, or lets it go on, as may happen on a real device.
    fn abandon(&mut self, index: usize) {
        if self.stopped == Some(Stopped::Ended) {
            return;
        }
        let slot = self.operations.get_mut(index).expect("a slot lives until it is abandoned");
        if slot.outcome.is_some() {
            let slot = self.operations.remove(index);
            self.discard(&slot.outcome.expect("just checked"));
            return;
        }
        slot.is_abandoned = true;
        slot.is_cancelled = self.fault_random.coin();
        if slot.is_cancelled
            && let Some(id) = slot.in_flight.take()
        {
            self.disk.in_flight.remove(&id);
        }
    }
}

impl World {
    pub(super) fn new(options: &SimulationOptions, disk: SimDisk) -> Rc<Self> {
        let random = |stream: Stream| stream.of(options.seed);
        let state = State {
            disk,
            clock: Clock::new(options.unix_seconds),
            faults: options.faults.clone(),
            counts: OperationCounts::default(),
            fault_random: random(Stream::Fault),
            application_random: random(Stream::Application),
            latency_random: random(Stream::Latency),
            yield_random: random(Stream::Yield),
            yield_per_million: options.yield_per_million,
            operations: Slab::new(),
            reads: [0; IO_CLASSES],
            under_way: 0,
            submitted: 0,
            spawned: Vec::new(),
            urgencies: Urgencies::default(),
            stopped: None,
            trace: options.record_trace.then(Vec::new),
        };
        Rc::new(Self { state: RefCell::new(state) })
    }

    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    // ---- for the environment

    pub(super) fn spawn(&self, future: TaskFuture) {
        let mut state = self.state();
        if state.stopped.is_none() {
            state.spawned.push(future);
            return;
        }
        drop(state);
        // A run that has stopped starts nothing: the future is dropped, with nothing borrowed.
        drop(future);
    }

    pub(super) fn should_yield(&self) -> bool {
        let mut state = self.state();
        let per_million = state.yield_per_million;
        state.yield_random.chance(per_million)
    }

    pub(super) fn submit(&self, request: Request) -> Option<usize> {
        self.state().submit(request)
    }

    /// The outcome of an operation, or `waker` is woken when there is one.
    pub(super) fn poll_operation(&self, index: usize, waker: &Waker) -> Option<Outcome> {
        let mut state = self.state();
        if state.stopped == Some(Stopped::Ended) {
            return None;
        }
        let slot = state.operations.get_mut(index).expect("a slot lives until it is taken");
        if slot.outcome.is_some() {
            return state.operations.remove(index).outcome;
        }
        let is_known = slot.waker.as_ref().is_some_and(|known| known.will_wake(waker));
        let old = if is_known { None } else { slot.waker.replace(waker.clone()) };
        drop(state);
        drop(old);
        None
    }

    pub(super) fn abandon(&self, index: usize) {
        let mut state = self.state();
        let waker = state.operations.get_mut(index).and_then(|slot| slot.waker.take());
        state.abandon(index);
        drop(state);
        drop(waker);
    }

    pub(super) fn close(&self, file: NodeId) {
        self.state().disk.close_handle(file);
    }

    // ---- for the run loop

    pub(super) fn stopped(&self) -> Option<Stopped> {
        self.state().stopped
    }

    pub(super) fn take_spawned(&self) -> Vec<TaskFuture> {
        std::mem::take(&mut self.state().spawned)
    }

    /// Lets everything happen whose time has come.
    pub(super) fn fire_due(&self) {
        loop {
            let mut state = self.state();
            let waker = match state.clock.pop_due() {
                None => return,
                Some(Event::Wake(waker)) => Some(waker),
                Some(Event::Complete(index)) => state.complete(index),
            };
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Moves time to the next event; false if there is none.
    pub(super) fn jump(&self) -> bool {
        self.state().clock.jump()
    }

    pub(super) fn has_operations_under_way(&self) -> bool {
        self.state().under_way > 0
    }

    pub(super) fn begin_turn(&self, task: usize, nanoseconds: u64) {
        let mut state = self.state();
        state.record(|| TraceEvent::Turn { task });
        state.clock.pass(nanoseconds);
    }

    pub(super) fn operations(&self) -> u64 {
        self.state().submitted
    }

    pub(super) fn trace(&self) -> Vec<TraceEntry> {
        self.state().trace.clone().unwrap_or_default()
    }

    /// Ends the run and takes the disk. From here on tasks can be dropped without any effect on it.
    pub(super) fn end(&self) -> SimDisk {
        let mut state = self.state();
        state.stopped = Some(Stopped::Ended);
        let disk = std::mem::replace(&mut state.disk, SimDisk::new(0));
        let spawned = std::mem::take(&mut state.spawned);
        let events = state.clock.take_events();
        let wakers: Vec<_> =
            state.operations.iter_mut().map(|(_, slot)| slot.waker.take()).collect();
        drop(state);
        drop((spawned, events, wakers));
        disk
    }
}
