use super::*;
use crate::device_model::IoDirection;
use crate::env::IoClass;

const READ: IoRequest =
    IoRequest { class: IoClass::Read, direction: IoDirection::Read, bytes: 4096 };
const WRITE: IoRequest =
    IoRequest { class: IoClass::Commit, direction: IoDirection::Write, bytes: 4096 };

const GOAL: u64 = 1_000_000;
const WINDOW: u64 = 100 * GOAL;
const SECOND: u64 = 1_000_000_000;

/// A feedback and the time.
struct Windows {
    feedback: Feedback,
    now: u64,
}

impl Windows {
    fn new(cores: usize) -> Self {
        let mut feedback = Feedback::new(GOAL, cores);
        assert!(!feedback.advance(0), "the first window begins");
        Self { feedback, now: 0 }
    }

    /// A window in which so many reads went and ended, `late` of them after twice the goal.
    fn pass(&mut self, dispatched: u64, completed: u64, late: u64) -> IoFlow {
        (0..dispatched).for_each(|_| self.feedback.note_dispatched());
        for number in 0..completed {
            let delay = if number < late { 2 * GOAL } else { GOAL / 10 };
            self.feedback.note_completed(READ, delay);
        }
        self.now += WINDOW;
        assert!(self.feedback.advance(self.now));
        self.feedback.flow()
    }

    /// A window in which all reads were later than they should be by `delay` nanoseconds.
    fn pass_late(&mut self, delay: u64) -> u64 {
        for _ in 0..1_000 {
            self.feedback.note_dispatched();
            self.feedback.note_completed(READ, delay);
        }
        self.pass(0, 0, 0).allowed_thousandths
    }

    /// Windows of a device that has time while requests wait for tokens.
    fn pass_throttled(&mut self, nanoseconds: u64) -> IoFlow {
        let end = self.now + nanoseconds;
        while self.now < end {
            self.feedback.note_throttled(Claimant::Awaited, true);
            self.pass(1_000, 1_000, 0);
        }
        self.feedback.flow()
    }
}

#[test]
fn a_device_that_falls_behind_makes_requests_dearer_until_it_catches_up() {
    let mut windows = Windows::new(1);
    assert_eq!(windows.pass(10_000, 10_000, 0), IoFlow::default());
    let whole = windows.feedback.price_scale();
    for _ in 0..20 {
        windows.pass(10_000, 5_000, 0);
    }
    let ratio = windows.feedback.flow().ratio_thousandths;
    assert!((1_500..2_000).contains(&ratio), "{ratio}");
    assert_eq!(windows.feedback.price_scale(), (ratio << SCALE_BITS) / 1_000);
    for _ in 0..60 {
        windows.pass(10_000, 10_000, 0);
    }
    let ratio = windows.feedback.flow().ratio_thousandths;
    assert!((990..=1_050).contains(&ratio), "{ratio}");
    assert_eq!(windows.feedback.price_scale(), whole, "up to a tenth it keeps up");
}

#[test]
fn a_device_that_ends_nothing_is_not_waited_for_beyond_a_bound() {
    let mut windows = Windows::new(1);
    for _ in 0..1_000 {
        windows.pass(1_000_000, 0, 0);
    }
    assert!(windows.feedback.flow().ratio_thousandths <= RATIO_MAX);
    assert!(windows.feedback.price_scale() <= RATIO_MAX << SCALE_BITS);
    // A pause makes up for the windows in which nothing was asked of it.
    windows.now += 3_600 * SECOND;
    windows.feedback.advance(windows.now);
    assert!(windows.feedback.flow().ratio_thousandths <= 1_200);
}

#[test]
fn one_request_in_flight_when_a_window_ends_says_nothing() {
    let mut windows = Windows::new(1);
    for _ in 0..100 {
        let flow = windows.pass(1, 0, 0);
        assert!(flow.ratio_thousandths <= RATIO_STEADY, "{flow:?}");
    }
}

#[test]
fn late_reads_hold_the_background_back_down_to_the_floor_and_no_further() {
    let mut windows = Windows::new(1);
    assert_eq!(windows.feedback.background_part(), None);
    assert_eq!(windows.pass(1_000, 1_000, 10).allowed_thousandths, 1_000, "one in a hundred may");
    assert_eq!(windows.pass_late(50 * GOAL), 700);
    assert_eq!(windows.feedback.background_part(), Some(700));
    assert_eq!(windows.pass(1_000, 1_000, 11).allowed_thousandths, 490);
    // Better at the floor than before, but late still.
    for _ in 0..20 {
        assert!(windows.pass_late(50 * GOAL) >= FLOOR);
    }
    for _ in 0..1_000 {
        assert_eq!(windows.pass_late(2 * GOAL), FLOOR);
    }
    assert_eq!(windows.feedback.background_part(), Some(FLOOR));
    assert_eq!(windows.feedback.price_scale(), 1 << SCALE_BITS, "what is waited for pays as ever");
    for _ in 0..(WHOLE - FLOOR).div_ceil(RECOVERY) {
        assert!(windows.feedback.background_part().is_some());
        windows.pass(1_000, 1_000, 0);
    }
    assert_eq!(windows.feedback.background_part(), None);
}

#[test]
fn the_floor_is_one_for_all_cores() {
    let mut windows = Windows::new(4);
    for _ in 0..20 {
        windows.pass(1_000, 1_000, 1_000);
    }
    assert_eq!(windows.feedback.background_part(), Some(FLOOR / 4));
    let mut windows = Windows::new(10_000);
    for _ in 0..20 {
        windows.pass(1_000, 1_000, 1_000);
    }
    assert_eq!(windows.feedback.background_part(), Some(1), "work goes on");
}

/// The disk never gets better, or the core is too busy to see that it did.
#[test]
fn the_background_is_not_held_back_for_long_where_that_does_not_help() {
    let mut windows = Windows::new(1);
    let rounds = |windows: &mut Windows| {
        let mut held_back = 0;
        while windows.pass_late(3 * GOAL) < WHOLE {
            held_back += 1;
        }
        held_back
    };
    let held_back = rounds(&mut windows);
    assert!((FLOOR_WINDOWS..2 * FLOOR_WINDOWS).contains(&held_back), "{held_back}");
    for _ in 0..TRUCE_WINDOWS {
        assert_eq!(windows.pass_late(3 * GOAL), WHOLE, "it is left alone");
    }
    assert_eq!(rounds(&mut windows), held_back, "and tried again");
}

#[test]
fn two_late_reads_of_three_are_chance() {
    let mut windows = Windows::new(1);
    assert_eq!(windows.pass(3, 3, 2).allowed_thousandths, 1_000);
    assert_eq!(windows.pass(4, 4, 3).allowed_thousandths, 700);
}

#[test]
fn figures_that_are_too_low_are_found_out_after_a_while() {
    let mut windows = Windows::new(1);
    let patience = PATIENCE_NANOSECONDS - WINDOW;
    assert_eq!(windows.pass_throttled(patience).allowed_thousandths, 1_000);
    assert_eq!(windows.pass_throttled(WINDOW).allowed_thousandths, 1_100);
    assert_eq!(windows.feedback.price_scale(), (1_000 << SCALE_BITS) / 1_100);
    assert_eq!(windows.pass_throttled(10 * SECOND).allowed_thousandths, ALLOWED_MAX);
    assert_eq!(windows.pass_throttled(10 * SECOND).allowed_thousandths, ALLOWED_MAX, "a bound");
    // Not asked for more: it stays as it is.
    assert_eq!(windows.pass(1_000, 1_000, 0).allowed_thousandths, ALLOWED_MAX);
    // The device has become slower: down at once, and up only after another while.
    assert_eq!(windows.pass(1_000, 1_000, 100).allowed_thousandths, 7_000);
    assert_eq!(windows.pass_throttled(patience).allowed_thousandths, 7_000);
    assert_eq!(windows.pass_throttled(WINDOW).allowed_thousandths, 7_700);
}

#[test]
fn time_in_which_nothing_was_asked_does_not_show_that_figures_are_too_low() {
    let mut windows = Windows::new(1);
    for _ in 0..3 {
        windows.feedback.note_throttled(Claimant::Awaited, true);
        windows.pass(1_000, 1_000, 0);
        // A night without requests.
        windows.now += 30_000 * SECOND;
    }
    assert_eq!(windows.feedback.flow().allowed_thousandths, WHOLE);
}

#[test]
fn figures_are_believed_while_reads_take_what_they_may() {
    let mut windows = Windows::new(1);
    for _ in 0..1_000 {
        windows.feedback.note_throttled(Claimant::Awaited, true);
        for _ in 0..1_000 {
            windows.feedback.note_dispatched();
            windows.feedback.note_completed(READ, GOAL / 2);
        }
        windows.pass(0, 0, 0);
    }
    assert_eq!(windows.feedback.flow(), IoFlow::default());
}

#[test]
fn writes_alone_find_too_low_figures_too_but_flushes_say_nothing() {
    for (is_flush, expected) in [(false, ALLOWED_MAX), (true, 1_000)] {
        let mut windows = Windows::new(1);
        for _ in 0..500 {
            windows.feedback.note_throttled(Claimant::Awaited, true);
            for _ in 0..200 {
                windows.feedback.note_dispatched();
                windows.feedback.note_completed(
                    IoRequest { bytes: if is_flush { 0 } else { 4096 }, ..WRITE },
                    0,
                );
            }
            windows.pass(0, 0, 0);
        }
        assert_eq!(windows.feedback.flow().allowed_thousandths, expected);
    }
}

#[test]
fn a_clock_that_stands_still_or_jumps_ends_no_window_twice() {
    let mut windows = Windows::new(1);
    windows.pass(1_000, 1_000, 1_000);
    let flow = windows.feedback.flow();
    for _ in 0..1_000 {
        assert!(!windows.feedback.advance(windows.now));
    }
    assert!(!windows.feedback.advance(0), "set back: the window begins anew");
    assert_eq!(windows.feedback.flow(), flow);
    assert!(!windows.feedback.advance(WINDOW - 1));
    assert!(windows.feedback.advance(WINDOW));
    windows.feedback.advance(u64::MAX);
    assert_eq!(windows.feedback.flow().allowed_thousandths, 1_000, "after a pause all is well");
}

#[test]
fn late_reads_that_nobody_waits_for_hold_nothing_back() {
    let mut windows = Windows::new(1);
    let compaction = IoRequest { class: IoClass::Compaction, ..READ };
    for window in 1..=20 {
        for _ in 0..1_000 {
            windows.feedback.note_dispatched();
            windows.feedback.note_completed(compaction, 5 * GOAL);
        }
        windows.feedback.advance(window * WINDOW);
        assert_eq!(windows.feedback.background_part(), None, "window {window}");
    }
}

#[test]
fn what_is_urgent_is_held_back_less() {
    let mut windows = Windows::new(1);
    for _ in 0..30 {
        windows.pass(1_000, 1_000, 500);
    }
    let held = windows.feedback.background_part().expect("reads are late");
    windows.feedback.set_urgency(URGENCY_MAX / 2);
    let urgent = windows.feedback.background_part().expect("it is held back still");
    assert!(held < 300 && urgent > 400, "{held} {urgent}");
    windows.feedback.set_urgency(URGENCY_MAX);
    assert_eq!(windows.feedback.background_part(), None);
}

/// A core that does other things for long sees late what has ended in time, and cannot tell.
#[test]
fn what_was_seen_late_is_neither_late_nor_quick() {
    let mut windows = Windows::new(1);
    windows.feedback.note_unwatched(GOAL);
    for _ in 0..20 {
        assert_eq!(windows.pass_late(2 * GOAL), 1_000, "it may have ended in time");
    }
    assert_eq!(windows.pass_late(2 * GOAL + 1), 700, "it cannot have");
    let mut windows = Windows::new(1);
    windows.feedback.note_unwatched(GOAL);
    for _ in 0..500 {
        windows.feedback.note_throttled(Claimant::Awaited, true);
        assert_eq!(windows.pass_late(GOAL), 1_000, "it may have been slow");
    }
}
