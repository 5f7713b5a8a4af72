//! One request on its way to one answer, over as many tries as it takes.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::codec::Frame;
use super::locked;
use super::metrics::CallKind;
use super::pace::ChunkPace;
use super::placement::Targets;
use crate::connection::Arrived;
use crate::error::ClientError;

/// What a request ends with.
pub(crate) type Outcome = Result<Arrived, ClientError>;

/// What a request needs to find its core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The seed with which the record id was hashed.
    pub seed: u64,
    /// Its hash.
    pub hash: u64,
}

/// A request, and what has become of it. It is settled once; what comes later is dropped.
#[derive(Debug)]
pub(crate) struct Operation {
    /// What it is for the metrics; `None` if the client asks for itself.
    pub kind: Option<CallKind>,
    /// Its bytes.
    pub frame: Frame,
    /// `None` if any core of the node will do.
    pub route: Option<Route>,
    /// The nodes that may be asked.
    pub targets: Targets,
    /// Whether it may be sent again when it may have been carried out.
    pub may_repeat: bool,
    /// Whether it is a change that the node makes once, however often it is sent.
    pub is_named: bool,
    /// When it was made.
    pub started: Instant,
    /// When it is sent a second time, if it has no answer by then.
    pub hedge_at: Option<Instant>,
    time: TimeAllowed,
    progress: Progress,
}

/// Until when a request is waited for.
#[derive(Clone, Debug)]
pub(crate) enum TimeAllowed {
    /// Until then.
    Until(Instant),
    /// As long as others of its kind are answered.
    Paced(Arc<ChunkPace>),
}

#[derive(Debug)]
struct Progress {
    is_settled: AtomicBool,
    is_hedged: AtomicBool,
    /// The lane that it is on, by its number; 0 if it is on none.
    lane: AtomicU64,
    /// The node whose answer came last.
    answered_by: AtomicUsize,
    cell: Mutex<Cell>,
}

#[derive(Debug)]
struct Cell {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
    /// Tries that are under way.
    open: u32,
    tries: Tries,
}

/// The tries of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tries {
    /// How many were made.
    pub made: u32,
    /// How many of them count: those of a change in doubt that found no connection do not, because
    /// they have cost the node nothing.
    pub counted: u32,
    /// Whether it is a change that one of them may have made.
    pub is_in_doubt: bool,
}

/// How a try has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The node has surely not received it.
    Unsent,
    /// The node may have received it.
    Unanswered,
    /// The node has refused it for now.
    Refused,
}

/// What is sent, before it is.
#[derive(Debug)]
pub(crate) struct Draft {
    pub kind: Option<CallKind>,
    pub frame: Frame,
    pub route: Option<Route>,
    pub targets: Targets,
    pub may_repeat: bool,
    pub is_named: bool,
    pub started: Instant,
    pub time: TimeAllowed,
    pub hedge_at: Option<Instant>,
}

impl Operation {
    pub(crate) fn new(draft: Draft) -> Self {
        let Draft { kind, frame, route, targets, may_repeat, is_named, .. } = draft;
        let Draft { started, time, hedge_at, .. } = draft;
        let tries = Tries { made: 1, counted: 1, is_in_doubt: false };
        let cell = Mutex::new(Cell { outcome: None, waker: None, open: 1, tries });
        let (is_settled, is_hedged) = (AtomicBool::new(false), AtomicBool::new(false));
        let answered_by = AtomicUsize::new(targets.at(0));
        let lane = AtomicU64::new(0);
        let progress = Progress { is_settled, is_hedged, lane, answered_by, cell };
        Self {
            kind,
            frame,
            route,
            targets,
            may_repeat,
            is_named,
            started,
            hedge_at,
            time,
            progress,
        }
    }

    /// When nobody waits for it any more. That of a chunk becomes later while others are answered.
    pub(crate) fn deadline(&self) -> Instant {
        match &self.time {
            TimeAllowed::Until(deadline) => *deadline,
            TimeAllowed::Paced(pace) => pace.deadline(self.started),
        }
    }

    /// When nobody waits for it any more in any case: until then a node may work on it.
    pub(crate) fn latest_deadline(&self) -> Instant {
        match &self.time {
            TimeAllowed::Until(deadline) => *deadline,
            TimeAllowed::Paced(pace) => pace.latest(self.started),
        }
    }

    /// How long nothing may come before it is given up.
    pub(crate) fn patience(&self) -> Duration {
        match &self.time {
            TimeAllowed::Until(deadline) => deadline.saturating_duration_since(self.started),
            TimeAllowed::Paced(pace) => pace.timeout(),
        }
    }

    /// It was answered: those that wait behind it have all of their time from now on.
    pub(crate) fn note_progress(&self, at: Instant) {
        if let TimeAllowed::Paced(pace) = &self.time {
            pace.note_answer(at);
        }
    }

    /// Whether it needs no answer any more.
    pub(crate) fn is_settled(&self) -> bool {
        self.progress.is_settled.load(Ordering::Acquire)
    }

    /// Settles it, if it was not before: `note` is told the outcome before anybody else is. Who
    /// waits for it is to be woken.
    #[must_use = "who waits is to be woken"]
    pub(crate) fn settle(&self, outcome: Outcome, note: impl FnOnce(&Outcome)) -> Option<Waker> {
        let mut cell = locked(&self.progress.cell);
        // It is only set under the lock.
        if self.is_settled() {
            return None;
        }
        self.progress.is_settled.store(true, Ordering::Release);
        note(&outcome);
        cell.outcome = Some(outcome);
        cell.waker.take()
    }

    /// Notes the lane that has taken it, by its number. The lane does so before anybody else can
    /// see it there.
    pub(crate) fn note_lane(&self, lane: u64) {
        self.progress.lane.store(lane, Ordering::Release);
    }

    /// The lane that it was on last, by its number; 0 if that has given it back.
    pub(crate) fn lane(&self) -> u64 {
        self.progress.lane.load(Ordering::Acquire)
    }

    /// Notes the node that answers it.
    pub(crate) fn note_answer_of(&self, node: usize) {
        self.progress.answered_by.store(node, Ordering::Release);
    }

    /// The node that has answered it, by its place in the client's list. Of a request that is sent
    /// a second time before the first has an answer it may be either.
    pub(crate) fn answered_by(&self) -> usize {
        self.progress.answered_by.load(Ordering::Acquire)
    }

    /// Nobody waits for it any more.
    pub(crate) fn abandon(&self) {
        let mut cell = locked(&self.progress.cell);
        self.progress.is_settled.store(true, Ordering::Release);
        cell.waker = None;
    }

    /// Its outcome, which is given once, if it has one.
    pub(crate) fn take(&self) -> Option<Outcome> {
        if self.is_settled() { locked(&self.progress.cell).outcome.take() } else { None }
    }

    /// Its outcome, which is given once; else the waker is woken when there is one.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Outcome> {
        let mut cell = locked(&self.progress.cell);
        if let Some(outcome) = cell.outcome.take() {
            return Poll::Ready(outcome);
        }
        match &mut cell.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        Poll::Pending
    }

    /// Whether the time has come to send it a second time; says so once.
    pub(crate) fn hedge(&self) -> bool {
        !self.is_settled() && !self.progress.is_hedged.swap(true, Ordering::Relaxed)
    }

    /// When it is to be sent a second time, if it is still to be.
    pub(crate) fn hedge_due(&self) -> Option<Instant> {
        self.hedge_at.filter(|_| !self.progress.is_hedged.load(Ordering::Relaxed))
    }

    /// Notes that a try more is under way; its number, counted from 0.
    pub(crate) fn try_more(&self) -> u32 {
        let mut cell = locked(&self.progress.cell);
        cell.open += 1;
        cell.tries.made += 1;
        cell.tries.counted += 1;
        cell.tries.made - 1
    }

    /// Notes that a try has failed. Says what was tried, if nothing is under way any more and the
    /// request is to be settled or tried again.
    pub(crate) fn try_failed(&self, failure: Failure) -> Option<Tries> {
        let mut cell = locked(&self.progress.cell);
        self.note_lane(0);
        cell.open = cell.open.saturating_sub(1);
        if cell.tries.is_in_doubt && failure == Failure::Unsent {
            cell.tries.counted -= 1;
        }
        cell.tries.is_in_doubt |= self.is_named && failure == Failure::Unanswered;
        (cell.open == 0 && !self.is_settled()).then_some(cell.tries)
    }

    /// Whether it is a change that a try which has failed may have made.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.is_named && locked(&self.progress.cell).tries.is_in_doubt
    }
}
