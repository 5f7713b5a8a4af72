//! In which order connections get the core's time.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng: SIGCOMM 1996) over bytes: each connection has a
//! mark, which what is done for it moves on, and who has the lowest goes first. The present is the
//! mark of the connection that went last. Marks of those who are idle do not stay behind it by more
//! than [`CREDIT_BYTES`], and who has used little comes before those who use much, however many
//! they are. As long as nobody waits and a turn has done little, whoever comes is served at once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use larder_runtime::network::ConnectionId;

use crate::limits::{CREDIT_BYTES, NEWCOMER_BYTES, TURN_BYTES, TURN_REQUEST_BYTES};

/// How far a connection has come, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark(u64);

/// What was done for a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// Requests that were taken.
    pub requests: u64,
    /// Bytes that were copied for it, in and out.
    pub bytes: usize,
}

/// The connections that wait for their turn, and how far those have come that had theirs.
#[derive(Debug, Default)]
pub(super) struct Turns {
    present: u64,
    /// What was done in this turn of the core.
    spent: u64,
    waiting: BinaryHeap<Reverse<(Mark, u64, u64)>>,
    /// Of those with one mark, who came first goes first.
    order: u64,
}

impl Turns {
    /// The mark of a connection that has just come: behind those that are there and use little.
    pub(super) fn newcomer(&self) -> Mark {
        Mark(self.present.saturating_add(NEWCOMER_BYTES))
    }

    /// Begins a turn of the core.
    pub(super) fn begin(&mut self) {
        self.spent = 0;
    }

    /// Where a connection with this mark stands now.
    fn start(&self, mark: Mark) -> Mark {
        Mark(mark.0.max(self.present.saturating_sub(CREDIT_BYTES)))
    }

    /// Whether a connection with this mark, for which bytes have come, is served at once. Those
    /// that wait have lower marks otherwise, or the turn has done enough for all but those who
    /// have used least.
    pub(super) fn may_go(&self, mark: Mark) -> bool {
        let start = self.start(mark);
        let is_first = self.waiting.peek().is_none_or(|Reverse((lowest, ..))| start < *lowest);
        let has_credit = start.0.saturating_add(CREDIT_BYTES / 2) <= self.present;
        is_first && (self.spent < TURN_BYTES || has_credit)
    }

    /// Notes what was done for a connection.
    pub(super) fn charge(&mut self, mark: &mut Mark, work: Work) {
        let cost = work.bytes as u64 + work.requests * TURN_REQUEST_BYTES;
        let start = self.start(*mark);
        self.present = self.present.max(start.0);
        self.spent = self.spent.saturating_add(cost);
        *mark = Mark(start.0.saturating_add(cost));
    }

    /// Has a connection wait for its turn.
    pub(super) fn push(&mut self, mark: Mark, id: ConnectionId) {
        self.order += 1;
        self.waiting.push(Reverse((self.start(mark), self.order, id.into())));
    }

    /// The connection whose turn it is.
    pub(super) fn pop(&mut self) -> Option<ConnectionId> {
        let Reverse((_, _, id)) = self.waiting.pop()?;
        Some(id.into())
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: Work = Work { requests: 1, bytes: 1 << 20 };
    const SMALL: Work = Work { requests: 1, bytes: 100 };

    #[test]
    fn who_uses_little_goes_before_many_who_use_much() {
        let mut turns = Turns::default();
        let mut polite = turns.newcomer();
        turns.charge(&mut polite, SMALL);
        let mut marks: Vec<Mark> = (0..256).map(|_| turns.newcomer()).collect();
        for (id, mark) in marks.iter().enumerate() {
            turns.push(*mark, (id as u64).into());
        }
        // Each turn serves one that wants much, and the polite one is there every time.
        let mut served = [0; 256];
        for _ in 0..2560 {
            turns.begin();
            assert!(turns.may_go(polite));
            turns.charge(&mut polite, SMALL);
            let id = u64::from(turns.pop().expect("they always wait"));
            turns.charge(&mut marks[id as usize], LARGE);
            served[id as usize] += 1;
            turns.push(marks[id as usize], id.into());
        }
        assert!(served.iter().all(|&times| times == 10), "{served:?}");
    }

    #[test]
    fn a_turn_ends_for_all_but_those_with_credit() {
        let mut turns = Turns::default();
        let (mut first, idle) = (turns.newcomer(), turns.newcomer());
        for _ in 0..2 {
            turns.begin();
            assert!(turns.may_go(first));
            turns.charge(&mut first, LARGE);
        }
        let newcomer = turns.newcomer();
        assert!(!turns.may_go(newcomer), "the turn has done enough");
        assert!(turns.may_go(idle), "it was there before and has used nothing");
        turns.begin();
        assert!(turns.may_go(newcomer) && turns.may_go(first), "nobody waits");
        turns.push(first, 1.into());
        assert!(turns.may_go(newcomer), "it has used less than who waits");
        turns.push(newcomer, 2.into());
        assert!(!turns.may_go(first));
        assert_eq!((turns.pop(), turns.pop(), turns.pop()), (Some(2.into()), Some(1.into()), None));
    }

    #[test]
    fn credit_is_bounded_and_used_up() {
        let mut turns = Turns::default();
        let (mut busy, mut idle) = (turns.newcomer(), turns.newcomer());
        for _ in 0..100 {
            turns.begin();
            turns.charge(&mut busy, LARGE);
        }
        turns.push(busy, 1.into());
        let mut requests = 0;
        while turns.may_go(idle) {
            turns.charge(&mut idle, SMALL);
            requests += 1;
        }
        // One turn's worth, and then what an idle connection has saved.
        let bound = (CREDIT_BYTES + TURN_BYTES) / (SMALL.bytes as u64 + TURN_REQUEST_BYTES) + 1;
        assert!((10..=bound).contains(&requests), "{requests}, at most {bound}");
    }
}
