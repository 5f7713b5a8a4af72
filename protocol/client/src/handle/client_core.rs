//! What all handles of a client share, and what becomes of a try.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::Waker;
use std::time::Instant;

use larder_protocol::native::{HelloReply, NativeStatus, Opcode};

use super::breakage::Breakage;
use super::budget::{Dice, TokenBucket};
use super::keeper::Alarm;
use super::lane::{Failed, Lane, NoWay};
use super::locked;
use super::metrics::Meters;
use super::node::Node;
use super::operation::{Failure, Operation, Outcome, Tries};
use super::placement::Placement;
use super::settings::Settings;
use crate::clock::now;
use crate::connection::Arrived;
use crate::error::ClientError;

/// Tries beyond the first that an outage costs at most, before successes earn more.
const RETRY_TOKENS: u32 = 100;

/// What a success earns of them, in percent: a tenth.
const RETRY_PERCENT: u32 = 10;

/// The same of reads that are sent a second time.
const HEDGE_TOKENS: u32 = 20;
const HEDGE_PERCENT: u32 = 5;

/// The first status of the groups in which nothing was done as it should be.
pub(crate) const FIRST_FAILURE: u8 = NativeStatus::Malformed as u8;

/// The client itself. It ends, with its connections and threads, when nobody holds it any more.
#[derive(Debug)]
pub(crate) struct ClientCore {
    pub settings: Arc<Settings>,
    pub nodes: Vec<Node>,
    pub placement: Placement,
    pub meters: Meters,
    pub dice: Dice,
    pub alarm: Arc<Alarm>,
    retries: TokenBucket,
    hedges: TokenBucket,
    sleepers: Mutex<Vec<(Instant, Arc<Operation>)>>,
    is_dirty: AtomicBool,
}

impl ClientCore {
    /// A client of these nodes, which have weights.
    ///
    /// # Errors
    /// If there are no threads to be had.
    pub(crate) fn open(
        settings: Settings,
        nodes: &[(String, f64)],
        placement: Placement,
    ) -> std::io::Result<Arc<Self>> {
        let named = nodes.iter().enumerate();
        let nodes = named.map(|(index, (address, _))| Node::new(address, index)).collect();
        let alarm = Arc::new(Alarm::new());
        let core = Arc::new(Self {
            settings: Arc::new(settings),
            nodes,
            placement,
            meters: Meters::default(),
            dice: Dice::new(),
            alarm: Arc::clone(&alarm),
            retries: TokenBucket::new(RETRY_TOKENS, RETRY_PERCENT),
            hedges: TokenBucket::new(HEDGE_TOKENS, HEDGE_PERCENT),
            sleepers: Mutex::new(Vec::new()),
            is_dirty: AtomicBool::new(false),
        });
        for node in &core.nodes {
            node.open(&core.settings, &Arc::downgrade(&core))?;
        }
        super::keeper::start(alarm, Arc::downgrade(&core))?;
        Ok(core)
    }

    /// Begins the first try. It is sent with the next [`ClientCore::flush`] at the latest.
    pub(crate) fn start(&self, operation: &Arc<Operation>) {
        match self.nodes[operation.targets.at(0)].submit(operation) {
            Ok(Some(lane)) => lane.flush(),
            Ok(None) => self.is_dirty.store(true, Ordering::Release),
            Err(why) => self.not_taken(operation, why),
        }
        self.watch(operation);
    }

    /// Has the keeper look when the next thing is due. It has to find the request where it looks:
    /// so this comes after the request was handed to a lane, and not before.
    fn watch(&self, operation: &Operation) {
        let deadline = operation.deadline();
        self.alarm.set(operation.hedge_due().map_or(deadline, |due| due.min(deadline)));
    }

    /// Sends what was begun.
    pub(crate) fn flush(&self) {
        self.flush_with(Lane::flush_if_dirty);
    }

    /// The same in another way of flushing lanes.
    pub(super) fn flush_with(&self, mut flush: impl FnMut(&Arc<Lane>)) {
        if self.is_dirty.load(Ordering::Acquire) && self.is_dirty.swap(false, Ordering::AcqRel) {
            for node in &self.nodes {
                node.layout().lanes().for_each(&mut flush);
            }
        }
    }

    /// Hands a request to a lane and has it sent. If the lane does not take it, the try has failed.
    fn submit(&self, operation: &Arc<Operation>, lane: &Arc<Lane>) {
        match lane.submit(operation, now()) {
            Ok(_) => lane.flush(),
            Err(why) => self.not_taken(operation, why),
        }
    }

    /// A lane has not taken a request.
    fn not_taken(&self, operation: &Arc<Operation>, why: NoWay) {
        match why {
            NoWay::Broken(why) => self.failed(operation, &why, false),
            NoWay::Overloaded { calls, bytes } => {
                self.settle(operation, Err(ClientError::Overloaded { calls, bytes }));
            }
        }
    }

    /// Begins another try.
    fn again(&self, operation: &Arc<Operation>) {
        let attempt = operation.try_more();
        self.meters.retried();
        let node = &self.nodes[operation.targets.at(attempt)];
        if let Some(lane) = node.lane(operation.route, None) {
            self.submit(operation, &lane);
        }
        self.watch(operation);
    }

    /// A reply has come at this moment. Who waits for it, if it is the last one, is to be woken.
    pub(crate) fn arrived(
        &self,
        lane: &Arc<Lane>,
        operation: &Arc<Operation>,
        arrived: Arrived,
        at: Instant,
    ) -> Option<Waker> {
        let is_hello = arrived.opcode == Opcode::Hello as u8;
        if is_hello
            && arrived.status == Some(NativeStatus::Ok)
            && let Ok(hello) = HelloReply::decode(&arrived.body)
        {
            // Behind a core's port too it is the node itself: that was checked when it connected.
            self.learn(lane.node, hello);
        }
        let is_busy = arrived.status == Some(NativeStatus::Busy) && !operation.is_settled();
        if is_busy {
            let tries = operation.try_failed(Failure::Refused)?;
            if self.retry(operation, tries, Failure::Refused) {
                return None;
            }
        }
        operation.note_answer_of(lane.node);
        self.settle_at(operation, Ok(arrived), at)
    }

    /// A try has failed; the node may have received it, or surely has not.
    pub(crate) fn failed(&self, operation: &Arc<Operation>, why: &Breakage, was_sent: bool) {
        let failure = if was_sent { Failure::Unanswered } else { Failure::Unsent };
        let Some(tries) = operation.try_failed(failure) else { return };
        let may = self.may_repeat(operation, failure);
        if !may || !self.retry(operation, tries, failure) {
            self.settle(operation, Err(why.error(was_sent)));
        }
    }

    /// Whether a request may be sent again. A change that the node would not know again any more is
    /// not.
    fn may_repeat(&self, operation: &Operation, failure: Failure) -> bool {
        let node = &self.nodes[operation.targets.at(0)];
        let is_known = || {
            let window = node.token_window();
            window.is_none_or(|window| now().saturating_duration_since(operation.started) < window)
        };
        match failure {
            Failure::Unsent | Failure::Refused if !operation.is_in_doubt() => true,
            _ => operation.may_repeat && (!operation.is_named || is_known()),
        }
    }

    /// Has a request tried again, now on another node or later on the same; whether it will be. A
    /// change in doubt is tried as long as there is no connection: that costs the node nothing, and
    /// it is about to start, perhaps.
    fn retry(&self, operation: &Arc<Operation>, tries: Tries, failure: Failure) -> bool {
        let is_own = operation.kind.is_none();
        let is_free = tries.is_in_doubt && failure == Failure::Unsent;
        if is_own || (!is_free && tries.counted >= self.settings.tries_max) {
            return false;
        }
        let others = operation.targets.as_slice().len() as u32;
        let delay = self.settings.retry.delay(tries.made, &self.dice);
        let began = now();
        let deadline = operation.deadline();
        let left = deadline.saturating_duration_since(began);
        // What is left to a change in doubt is used to its end.
        let at = began + if is_free { delay.min(left / 2) } else { delay };
        let is_next = tries.made < others;
        if (!is_next && at >= deadline) || (!is_free && !self.retries.take()) {
            return false;
        }
        if is_next {
            self.again(operation);
        } else {
            locked(&self.sleepers).push((at, Arc::clone(operation)));
            self.alarm.set(at);
        }
        true
    }

    /// Tries again what has slept for long enough; when the next one wakes.
    pub(crate) fn wake_sleepers(&self, at: Instant) -> Option<Instant> {
        let (due, next) = {
            let mut sleepers = locked(&self.sleepers);
            let due: Vec<_> = sleepers.extract_if(.., |(until, _)| *until <= at).collect();
            (due, sleepers.iter().map(|(until, _)| *until).min())
        };
        for (_, operation) in due {
            if !operation.is_settled() {
                self.again(&operation);
            }
        }
        next
    }

    /// Sends a read a second time, over another lane than the one that it waits on; whether that is
    /// to be tried later, because the other one has no connection yet.
    pub(crate) fn hedge(&self, operation: &Arc<Operation>, waits_on: &Arc<Lane>) -> bool {
        let other = operation.targets.at(1);
        let lane = self.nodes[other].lane(operation.route, Some(waits_on));
        if lane.as_ref().is_some_and(|lane| !lane.is_up()) {
            return true;
        }
        if operation.hedge()
            && let Some(lane) = lane
            && self.hedges.take()
        {
            self.meters.hedged();
            operation.try_more();
            self.submit(operation, &lane);
        }
        false
    }

    /// Settles a request, and wakes who waits for it.
    pub(crate) fn settle(&self, operation: &Operation, outcome: Outcome) {
        if let Some(waker) = self.settle_at(operation, outcome, now()) {
            waker.wake();
        }
    }

    /// Settles a request at this moment. Who waits for it is to be woken.
    fn settle_at(&self, operation: &Operation, outcome: Outcome, at: Instant) -> Option<Waker> {
        let is_good = is_good(&outcome);
        let outcome = if !is_good && operation.is_in_doubt() { doubtful(outcome) } else { outcome };
        if outcome.is_ok() {
            operation.note_progress(at);
        }
        operation.settle(outcome, |outcome| {
            // Refusals and faults of a node earn nothing.
            if is_good {
                self.retries.credit();
                self.hedges.credit();
            }
            let is_timeout = matches!(outcome, Err(ClientError::Timeout { .. }));
            let took = at.saturating_duration_since(operation.started);
            self.meters.ended(operation.kind, took, is_good, is_timeout);
        })
    }

    /// A node has said what it is.
    pub(crate) fn learn(&self, node: usize, hello: HelloReply) {
        let replaced = self.nodes[node].learn(hello, &self.settings, &self.alarm);
        self.fail_all(replaced);
    }

    /// A connection of a node has broken: it may be another node by now.
    pub(crate) fn note_trouble(&self, node: usize) {
        self.nodes[node].ask_soon();
        self.alarm.set(now());
    }

    pub(crate) fn note_hops(&self, hops: u8) {
        if hops > 0 {
            self.meters.forwarded();
        }
    }

    pub(crate) fn fail_all(&self, failed: Vec<Failed>) {
        for (operation, why, was_sent) in failed {
            self.failed(&operation, &why, was_sent);
        }
    }
}

impl Drop for ClientCore {
    fn drop(&mut self) {
        self.alarm.end();
        for node in &self.nodes {
            // Nobody waits any more: who does holds the client.
            node.layout().lanes().for_each(|lane| drop(lane.close()));
        }
    }
}

/// Whether a node has done what it was asked for, or has said what keeps it from that.
fn is_good(outcome: &Outcome) -> bool {
    let status = outcome.as_ref().ok().and_then(|arrived| arrived.status);
    status.is_some_and(|status| (status as u8) < FIRST_FAILURE)
}

/// The failure of a change that an earlier try may have made.
fn doubtful(outcome: Outcome) -> Outcome {
    match outcome.and_then(|arrived| arrived.ok(&[])) {
        Err(error) if !error.may_be_done() => Err(ClientError::InDoubt(Box::new(error))),
        other => other,
    }
}

/// What threads hold of a client, so that it can end.
pub(crate) type WeakCore = Weak<ClientCore>;
