//! What the keeper looks for on a lane.

use std::sync::Arc;
use std::time::Instant;

use super::breakage::Breakage;
use super::keeper::timeout;
use super::lane::{Lane, LaneState, Link, Phase};
use super::locked;
use super::operation::Operation;
use super::settings::Settings;
use crate::error::{ClientError, Next};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Requests whose time is over, and their errors.
    pub late: Vec<(Arc<Operation>, ClientError)>,
    /// Reads that may be sent a second time.
    pub slow: Vec<Arc<Operation>>,
    /// Whether the connection should be asked for a sign of life.
    pub is_silent: bool,
    /// When to look again.
    pub next: Option<Instant>,
}

impl Found {
    fn look_again(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// A request that has time left.
    fn look_at_waiting(&mut self, operation: &Arc<Operation>, at: Instant) {
        self.look_again(operation.deadline());
        match operation.hedge_due() {
            Some(due) if due <= at => self.slow.push(Arc::clone(operation)),
            Some(due) => self.look_again(due),
            None => {}
        }
    }
}

impl Lane {
    /// Looks at everything that is under way or in line.
    pub(super) fn look(&self, at: Instant) -> Found {
        let mut found = Found::default();
        let mut state = locked(&self.state);
        self.look_at_line(&mut state, at, &mut found);
        if let Phase::Up(link) = &mut state.phase {
            look_at_link(link, &self.settings, at, &mut found);
        }
        found
    }

    fn look_at_line(&self, state: &mut LaneState, at: Instant, found: &mut Found) {
        let reason = match &state.phase {
            Phase::Up(link) => format!(
                "{} requests are under way on the connection to {}, which is all that it takes: \
                 ask for less at a time, or allow more time or `connections`",
                link.pipeline.under_way(),
                self.address
            ),
            _ => format!(
                "there was no connection to {} in time; is the node running, and the timeout \
                 longer than a connection takes?",
                self.address
            ),
        };
        let LaneState { line, line_bytes, .. } = state;
        line.retain(|operation| {
            let is_late = operation.deadline() <= at;
            if is_late || operation.is_settled() {
                *line_bytes -= operation.frame.len();
                let error = ClientError::Unsent { reason: reason.clone(), next: Next::RetryHere };
                found.late.push((Arc::clone(operation), error));
                return false;
            }
            found.look_at_waiting(operation, at);
            true
        });
    }
}

fn look_at_link(link: &mut Link, settings: &Settings, at: Instant, found: &mut Found) {
    let mut oldest: Option<Instant> = None;
    let mut given_up = 0;
    for under_way in link.pipeline.waiters() {
        let operation = &under_way.waiter;
        oldest = Some(oldest.map_or(under_way.since, |oldest| oldest.min(under_way.since)));
        if operation.is_settled() {
            given_up += 1;
        } else if operation.deadline() <= at {
            given_up += 1;
            found.late.push((Arc::clone(operation), timeout(operation)));
        } else {
            found.look_at_waiting(operation, at);
        }
    }
    let Some(oldest) = oldest else { return };
    if given_up * 2 > link.pipeline.slots_max() {
        link.break_off(Breakage::Unanswered);
        return;
    }
    // Since when something should have come.
    let since = link.probed.unwrap_or(link.heard.max(oldest));
    let silent_at = since + settings.silence;
    if silent_at > at {
        found.look_again(silent_at);
    } else if link.probed.is_some() {
        link.break_off(Breakage::Silent(at.saturating_duration_since(link.heard)));
    } else {
        link.probed = Some(at);
        found.is_silent = true;
        found.look_again(at + settings.silence);
    }
}
