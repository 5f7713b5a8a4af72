//! The one thread that keeps time: deadlines, second tries of reads, requests that are tried again,
//! nodes that are asked what they are, connections that are silent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::client_core::{ClientCore, WeakCore};
use super::locked;
use super::node::Node;
use super::operation::{Draft, Operation, TimeAllowed};
use super::placement::Targets;
use crate::clock::now;
use crate::error::ClientError;

/// A read that could not be sent a second time is not tried again sooner.
const HEDGE_LATER: Duration = Duration::from_millis(5);

/// No time at all.
const NEVER: u64 = u64::MAX;

/// When the keeper is to look, set by anybody.
#[derive(Debug)]
pub(crate) struct Alarm {
    origin: Instant,
    /// In microseconds since the origin.
    at: AtomicU64,
    is_over: Mutex<bool>,
    changed: Condvar,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        let (is_over, changed) = (Mutex::new(false), Condvar::new());
        Self { origin: now(), at: AtomicU64::new(NEVER), is_over, changed }
    }

    /// Has the keeper look at this time, if it would not before.
    pub(crate) fn set(&self, at: Instant) {
        let at = at.saturating_duration_since(self.origin).as_micros() as u64;
        // Most requests end later than those before them, and change nothing here.
        if at < self.at.load(Ordering::Acquire) && at < self.at.fetch_min(at, Ordering::AcqRel) {
            drop(locked(&self.is_over));
            self.changed.notify_one();
        }
    }

    /// Has the keeper end.
    pub(crate) fn end(&self) {
        *locked(&self.is_over) = true;
        self.changed.notify_one();
    }

    /// Waits for the time; whether the client goes on.
    fn wait(&self) -> bool {
        let mut is_over = locked(&self.is_over);
        while !*is_over {
            let at = self.at.load(Ordering::Acquire);
            let passed = now().saturating_duration_since(self.origin).as_micros() as u64;
            if passed >= at {
                // Taken before the keeper looks, so that what comes meanwhile sets it anew.
                self.at.store(NEVER, Ordering::Release);
                return true;
            }
            // At most an hour, because not every system can wait for ever.
            let left = Duration::from_micros((at - passed).min(3_600_000_000));
            let waited = self.changed.wait_timeout(is_over, left);
            is_over = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }
}

/// Starts the keeper's thread.
///
/// # Errors
/// If there is none to be had.
pub(crate) fn start(alarm: Arc<Alarm>, core: WeakCore) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("larder-keeper".to_owned());
    thread.spawn(move || {
        while alarm.wait() {
            let Some(core) = core.upgrade() else { return };
            if let Some(next) = look(&core) {
                alarm.set(next);
            }
        }
    })?;
    Ok(())
}

/// Does what is due; when something is next.
fn look(core: &ClientCore) -> Option<Instant> {
    let at = now();
    let mut next = core.wake_sleepers(at);
    for node in &core.nodes {
        let soonest = ask(core, node, at).into_iter().chain(look_at(core, node, at)).min();
        next = next.into_iter().chain(soonest).min();
    }
    next
}

/// Asks a node what it is, if it is time.
fn ask(core: &ClientCore, node: &Node, at: Instant) -> Option<Instant> {
    let settings = &core.settings;
    if settings.wire.is_in_order() {
        return None;
    }
    let again = at + settings.hello_every;
    if let Err(later) = node.is_to_be_asked(at, again) {
        return Some(later);
    }
    let layout = node.layout();
    if let Some(door) = layout.doors().find(|lane| lane.is_up()) {
        let hello = own_request(core, door.node, at);
        if door.submit(&hello, at).is_ok() {
            door.flush();
        }
    }
    Some(again)
}

/// A request that the client makes for itself.
fn own_request(core: &ClientCore, node: usize, at: Instant) -> Arc<Operation> {
    let settings = &core.settings;
    Arc::new(Operation::new(Draft {
        kind: None,
        frame: settings.wire.greeting(&settings.name),
        route: None,
        targets: Targets::one(node),
        may_repeat: false,
        is_named: false,
        started: at,
        time: TimeAllowed::Until(at + settings.timeout.max(settings.silence)),
        hedge_at: None,
    }))
}

/// Looks after the lanes of a node.
fn look_at(core: &ClientCore, node: &Node, at: Instant) -> Option<Instant> {
    let mut next = None;
    for lane in node.layout().lanes() {
        let found = lane.look(at);
        for (operation, error) in found.late {
            core.settle(&operation, Err(error));
        }
        for operation in found.slow {
            if core.hedge(&operation, lane) {
                let later = at + core.settings.hedge_after.unwrap_or_default().max(HEDGE_LATER);
                next = next.into_iter().chain([later]).min();
            }
        }
        if found.is_silent {
            let probe = own_request(core, lane.node, at);
            if lane.submit(&probe, at).is_ok() {
                lane.flush();
            }
        }
        next = next.into_iter().chain(found.next).min();
    }
    next
}

/// The error of what was sent and has no answer in time.
pub(super) fn timeout(operation: &Operation) -> ClientError {
    ClientError::Timeout { seconds: operation.patience().as_secs_f64() }
}
