//! What the device does against what was measured of it.
//!
//! Time goes in windows. At the end of each there are two verdicts.
//!
//! **The flow.** Requests given to the device for each that it ended, smoothed. A device that keeps
//! up has 1. Above [`RATIO_STEADY`] it is slower than its figures, so requests cost so much more.
//!
//! **The allowance.** If more than one read in a hundred that somebody waits for took longer than
//! the goal, what nobody waits for is held back to 7 tenths of what it was allowed before, down to
//! a floor for all cores together; otherwise it recovers by [`RECOVERY`]. The more urgent it is,
//! the less of that counts. Reads and commits are not held back by this at
//! all. If it does not help, because reads take as long at the floor as they did before, it is not
//! the background's doing: a disk that is always slow, or a core that is too busy to look. Then the
//! background has all of the device for a while, before it is tried again.
//!
//! If the figures are too low, requests wait for tokens while the device is far quicker than the
//! goal. When that has been so for [`PATIENCE_NANOSECONDS`], the allowance grows by a tenth a
//! window beyond the whole, as long as it stays so, up to ten times the figures.
//!
//! How long a read takes is counted without what its own bytes cost, so that a goal for short reads
//! says something of long ones. When it ended is known to within the time for which the core did
//! other things and did not look. It is late if it must have been, and quick only if it cannot have
//! been slow: a core that has much to do is no reason to hold the background back, and none to ask
//! more of the device.

use super::statistics::IoFlow;
use super::{IoRequest, is_background};
use crate::device_group::Claimant;
use crate::urgency::{URGENCY_MAX, URGENCY_USUAL};

/// A window is as long as so many latency goals, within bounds: it holds enough reads to tell one
/// in a hundred.
const GOALS_PER_WINDOW: u64 = 100;
const WINDOW_NANOSECONDS_MIN: u64 = 50_000_000;
const WINDOW_NANOSECONDS_MAX: u64 = 1_000_000_000;
/// After a pause no more than so many windows are made up for.
const WINDOWS_MAX: u64 = 64;

/// The part of the ratio that a window leaves as it was, in thousandths.
const RATIO_KEPT: u64 = 950;
/// Up to this the device is taken to keep up, in thousandths.
const RATIO_STEADY: u64 = 1_100;
/// The ratios of one window that are believed.
const RATIO_MIN: u64 = 250;
const RATIO_MAX: u64 = 4_000;
/// Added to both sides of a window's ratio: few requests say little.
const RATIO_PRIOR: u64 = 32;

const WHOLE: u64 = 1_000;
/// The least that all cores together leave the background, in thousandths: a fifth of a device of
/// which ten times as much was promised.
const FLOOR: u64 = 20;
/// What is added to an allowance below the whole after a good window, in thousandths.
const RECOVERY: u64 = 10;
/// So many windows with late reads at the floor show whether holding back helps.
const FLOOR_WINDOWS: u64 = 20;
/// For so many windows it is not tried again when it did not.
const TRUCE_WINDOWS: u64 = 200;
/// Of a read that took very long so many goals count.
const DELAY_GOALS_MAX: u64 = 100;
const ALLOWED_MAX: u64 = 10 * WHOLE;
/// How long figures must have looked too low before more than they say is allowed.
const PATIENCE_NANOSECONDS: u64 = 30_000_000_000;
/// Far quicker than the goal is so many times as quick.
const SLACK: u64 = 4;
/// Requests that must have ended in a window before it can show that figures are too low.
const SAMPLES_MIN: u64 = 100;
/// One or two late reads are chance, whatever part of the reads they are.
const LATE_MIN: u64 = 3;

/// Binary places of [`Feedback::price_scale`].
pub(super) const SCALE_BITS: u32 = 16;

/// How long requests of one direction took.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    ended: u64,
    /// Those that somebody waits for.
    awaited: u64,
    /// Those of them that took longer than the goal.
    late: u64,
    /// Those that took longer than the goal's [`SLACK`]th.
    noticeable: u64,
    /// What those took in all, at least, that somebody waits for, in nanoseconds.
    delays: u64,
}

/// How it goes to hold the background back.
#[derive(Debug, Default)]
struct Restraint {
    /// What reads took on average when it began, in nanoseconds.
    delay_before: u64,
    /// Windows with late reads at the floor, and the sum of what reads took on average in each.
    windows: u64,
    delays: u64,
    /// Windows in which late reads are not acted on.
    truce: u64,
}

#[derive(Debug)]
pub(super) struct Feedback {
    goal: u64,
    window: u64,
    floor: u64,
    /// When the window began, in nanoseconds; none before the first.
    since: Option<u64>,
    dispatched: u64,
    completed: u64,
    tallies: [Tally; 2],
    /// Whether requests have waited for tokens in this window, by [`Claimant`].
    throttled: [bool; 2],
    /// Whether one of the background did while requests that somebody waits for used tokens too, of
    /// whatever core.
    is_shared: bool,
    /// For how long the core did not look at the device before it saw what ends now, in
    /// nanoseconds.
    unwatched: u64,
    restraint: Restraint,
    /// For how long figures have looked too low.
    calm_nanoseconds: u64,
    flow: IoFlow,
    price_scale: u64,
    urgency: u32,
}

impl Feedback {
    /// For a device with a latency `goal` in nanoseconds that `cores` cores use.
    pub(super) fn new(goal: u64, cores: usize) -> Self {
        let window = goal.saturating_mul(GOALS_PER_WINDOW);
        let cores = u64::try_from(cores.max(1)).unwrap_or(u64::MAX);
        Self {
            goal,
            window: window.clamp(WINDOW_NANOSECONDS_MIN, WINDOW_NANOSECONDS_MAX),
            floor: (FLOOR / cores).max(1),
            since: None,
            dispatched: 0,
            completed: 0,
            tallies: [Tally::default(); 2],
            throttled: [false; 2],
            is_shared: false,
            unwatched: 0,
            restraint: Restraint::default(),
            calm_nanoseconds: 0,
            flow: IoFlow::default(),
            price_scale: 1 << SCALE_BITS,
            urgency: URGENCY_USUAL,
        }
    }

    pub(super) fn flow(&self) -> IoFlow {
        self.flow
    }

    /// What a request costs now for each token of its cost, with [`SCALE_BITS`].
    pub(super) fn price_scale(&self) -> u64 {
        self.price_scale
    }

    /// The part of the device that the background may have, in thousandths; none for all of it.
    /// Of what it is held back by the less is left, the more urgent its work is: where it falls
    /// behind for long, writers wait for it.
    pub(super) fn background_part(&self) -> Option<u64> {
        let allowed = self.flow.allowed_thousandths;
        let (usual, most) = (u64::from(URGENCY_USUAL), u64::from(URGENCY_MAX));
        let above = u64::from(self.urgency).clamp(usual, most) - usual;
        let part = allowed + WHOLE.saturating_sub(allowed) * above / (most - usual);
        Some(part).filter(|part| *part < WHOLE)
    }

    /// How urgent the background's work is, in thousandths of its usual shares.
    pub(super) fn set_urgency(&mut self, urgency: u32) {
        self.urgency = urgency;
    }

    pub(super) fn note_dispatched(&mut self) {
        self.dispatched += 1;
    }

    /// A request was given to the device in vain.
    pub(super) fn note_withdrawn(&mut self) {
        self.dispatched = self.dispatched.saturating_sub(1);
    }

    /// A request has to wait for tokens; whether those that somebody waits for use some too.
    pub(super) fn note_throttled(&mut self, claimant: Claimant, is_shared: bool) {
        self.throttled[claimant as usize] = true;
        self.is_shared |= claimant == Claimant::Background && is_shared;
    }

    /// Whether anything had to wait that says something of the figures. The background always waits
    /// for what reads leave: that they are quick meanwhile shows that they come first, and not that
    /// the device could do more.
    fn is_throttled(&self) -> bool {
        let [awaited, background] = self.throttled;
        let is_alone = !self.is_shared && self.tallies.iter().all(|tally| tally.awaited == 0);
        awaited || (background && is_alone)
    }

    /// The core did not look at the device for so many nanoseconds.
    pub(super) fn note_unwatched(&mut self, nanoseconds: u64) {
        self.unwatched = nanoseconds;
    }

    /// A request was seen to have ended, `delay` nanoseconds later than its own bytes take. Of
    /// flushes only that they ended counts. The background's own reads are never late: nobody waits
    /// for them.
    pub(super) fn note_completed(&mut self, request: IoRequest, delay: u64) {
        self.completed += 1;
        if request.bytes == 0 {
            return;
        }
        let tally = &mut self.tallies[request.direction as usize];
        tally.ended += 1;
        tally.noticeable += u64::from(delay > self.goal / SLACK);
        if !is_background(request.class) {
            tally.awaited += 1;
            let delay = delay.saturating_sub(self.unwatched);
            tally.late += u64::from(delay > self.goal);
            let delay = delay.min(self.goal.saturating_mul(DELAY_GOALS_MAX));
            tally.delays = tally.delays.saturating_add(delay);
        }
    }

    /// Time has come to `now`; whether a window has ended, so that verdicts may have changed.
    pub(super) fn advance(&mut self, now: u64) -> bool {
        let since = *self.since.get_or_insert(now);
        if now < since {
            self.since = Some(now);
            return false;
        }
        let elapsed = now - since;
        if elapsed < self.window {
            return false;
        }
        self.since = Some(now);
        // Of a longer time only a window counts: nothing was asked of the device in the rest.
        self.judge(self.window);
        // Nothing ended meanwhile: windows in which everything was as it should be.
        for _ in 1..(elapsed / self.window).min(WINDOWS_MAX) {
            self.judge(0);
        }
        true
    }

    fn judge(&mut self, elapsed: u64) {
        self.judge_flow();
        self.judge_allowance(elapsed);
        (self.dispatched, self.completed) = (0, 0);
        self.tallies = [Tally::default(); 2];
        (self.throttled, self.is_shared) = ([false; 2], false);
        let ratio = Some(self.flow.ratio_thousandths).filter(|ratio| *ratio > RATIO_STEADY);
        let beyond = self.flow.allowed_thousandths.max(WHOLE);
        self.price_scale = (ratio.unwrap_or(WHOLE) << SCALE_BITS) / beyond;
    }

    fn judge_flow(&mut self) {
        let given = self.dispatched.saturating_add(RATIO_PRIOR);
        let ended = self.completed.saturating_add(RATIO_PRIOR);
        let ratio = (given.saturating_mul(WHOLE) / ended).clamp(RATIO_MIN, RATIO_MAX);
        let kept = self.flow.ratio_thousandths * RATIO_KEPT;
        // Rounded to the nearest: it comes back to a hundredth of the whole, from both sides.
        self.flow.ratio_thousandths = (kept + ratio * (WHOLE - RATIO_KEPT) + WHOLE / 2) / WHOLE;
    }

    fn judge_allowance(&mut self, elapsed: u64) {
        let [reads, writes] = self.tallies;
        let allowed = self.flow.allowed_thousandths;
        let is_late = reads.late >= LATE_MIN && reads.late.saturating_mul(100) > reads.awaited;
        let has_truce = self.restraint.truce > 0;
        self.restraint.truce = self.restraint.truce.saturating_sub(1);
        self.flow.allowed_thousandths = if is_late && !has_truce {
            self.calm_nanoseconds = 0;
            self.hold_back(allowed, reads.delays / reads.awaited)
        } else if allowed < WHOLE {
            (allowed + RECOVERY).min(WHOLE)
        } else if self.looks_too_low(if reads.ended > 0 { reads } else { writes }) {
            self.calm_nanoseconds = self.calm_nanoseconds.saturating_add(elapsed);
            let is_sure = self.calm_nanoseconds >= PATIENCE_NANOSECONDS;
            if is_sure { (allowed * 11 / 10).min(ALLOWED_MAX) } else { allowed }
        } else {
            // Of a window in which nothing had to wait nothing is known.
            if self.is_throttled() {
                self.calm_nanoseconds = 0;
            }
            allowed
        };
    }

    /// What is allowed after a window in which reads were late and took `delay` on average.
    fn hold_back(&mut self, allowed: u64, delay: u64) -> u64 {
        let restraint = &mut self.restraint;
        if allowed >= WHOLE {
            *restraint = Restraint { delay_before: delay, ..Restraint::default() };
        }
        if allowed > self.floor {
            return (allowed * 7 / 10).max(self.floor);
        }
        restraint.windows += 1;
        restraint.delays = restraint.delays.saturating_add(delay);
        if restraint.windows < FLOOR_WINDOWS {
            return allowed;
        }
        let at_floor = restraint.delays / restraint.windows;
        (restraint.windows, restraint.delays) = (0, 0);
        if at_floor <= restraint.delay_before / 4 * 3 {
            return allowed;
        }
        restraint.truce = TRUCE_WINDOWS;
        WHOLE
    }

    /// Whether requests were held back from a device that had time for them.
    fn looks_too_low(&self, tally: Tally) -> bool {
        let is_quick = tally.noticeable.saturating_mul(100) <= tally.ended;
        let keeps_up = self.flow.ratio_thousandths <= RATIO_STEADY;
        self.is_throttled() && keeps_up && tally.ended >= SAMPLES_MIN && is_quick
    }
}

#[cfg(test)]
mod tests;
