//! What the connections of one core hold of its memory: one account, kept by part, with a bound.
//!
//! The ledger only counts and decides; the service stops reading and closes. Invariants:
//! - The sum of what is counted for each connection is what the ledger says of all.
//! - Large requests are received only against a grant, and all grants together fit into half of the
//!   bound, so that those who ask for little always find room.

use crate::limits::{OUTPUT_HIGH_WATER, OUTPUT_MARK_PRESSED};

/// Bytes that a connection holds, or all of a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Requests of which only a part has come, as long as they are going to be if that was granted.
    pub input: usize,
    /// The part of it that was granted.
    pub granted: usize,
    /// Requests that wait and replies that wait for an earlier one.
    pub waiting: usize,
}

impl Holding {
    /// The sum.
    pub fn total(&self) -> usize {
        self.input + self.waiting
    }
}

/// The account of one core.
#[derive(Clone, Copy, Debug)]
pub struct Ledger {
    bound: usize,
    connections: Holding,
    output: usize,
    mailboxes: usize,
}

impl Ledger {
    /// The account of a core whose connections may hold `bound` bytes.
    pub fn new(bound: usize) -> Self {
        Self { bound, connections: Holding::default(), output: 0, mailboxes: 0 }
    }

    /// The most that the connections of the core may hold, in bytes.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// What the connections hold.
    pub fn connections(&self) -> Holding {
        self.connections
    }

    /// Replies that clients have not taken.
    pub fn output(&self) -> usize {
        self.output
    }

    /// What is on its way to and from other cores.
    pub fn mailboxes(&self) -> usize {
        self.mailboxes
    }

    /// Everything.
    pub fn total(&self) -> usize {
        self.connections.total() + self.output + self.mailboxes
    }

    /// Notes that a connection holds `now`, and no longer `counted`.
    #[inline]
    pub fn change(&mut self, counted: &mut Holding, now: Holding) {
        self.connections.input = self.connections.input - counted.input + now.input;
        self.connections.granted = self.connections.granted - counted.granted + now.granted;
        self.connections.waiting = self.connections.waiting - counted.waiting + now.waiting;
        *counted = now;
    }

    /// Notes replies that were just made. They count until [`Ledger::set_output`].
    #[inline]
    pub fn add_output(&mut self, bytes: usize) {
        self.output += bytes;
    }

    /// Notes how much output there is.
    pub fn set_output(&mut self, bytes: usize) {
        self.output = bytes;
    }

    /// Notes what is on its way to and from other cores.
    pub fn set_mailboxes(&mut self, bytes: usize) {
        self.mailboxes = bytes;
    }

    /// Whether a request of which `more` bytes are to come may be received.
    pub fn grants(&self, more: usize) -> bool {
        let granted = self.connections.granted + more;
        granted <= self.bound / 2 && self.total() + more <= self.bound
    }

    /// Whether those who hold memory without using it are to be closed soon.
    pub fn is_pressed(&self) -> bool {
        self.total() > self.bound / 2
    }

    /// Unsent output above which nothing more is executed for a connection; none at all when the
    /// bound is passed, until those who hold most are closed.
    #[inline]
    pub fn output_mark(&self) -> Option<usize> {
        match self.total() {
            total if total > self.bound => None,
            total if total > self.bound / 2 => Some(OUTPUT_MARK_PRESSED),
            _ => Some(OUTPUT_HIGH_WATER),
        }
    }

    /// Whether a reply of so many bytes may be made: a small one up to the bound, a large one only
    /// where it leaves the upper half of it to the small, but always one at a time.
    pub fn allows_reply(&self, bytes: usize) -> bool {
        let total = self.total();
        if bytes <= OUTPUT_MARK_PRESSED {
            return total <= self.bound;
        }
        total == 0 || total + bytes <= self.bound / 4 * 3
    }

    /// How many bytes have to be given back now; 0 while the bound is kept. A little more than the
    /// bound asks for, so that this is not needed again at once.
    pub fn excess(&self) -> usize {
        let total = self.total();
        if total <= self.bound { 0 } else { total - self.bound / 8 * 7 }
    }
}

/// Of connections and what they hold, those who hold most: as many as together hold `excess`. Who
/// holds less than an equal part of `little` is not chosen: all of those together hold no more than
/// that, so what is too much is not theirs.
pub fn heaviest<T>(mut holders: Vec<(usize, T)>, excess: usize, little: usize) -> Vec<T> {
    let little = little / holders.len().max(1);
    holders.sort_by_key(|(held, _)| std::cmp::Reverse(*held));
    let mut freed = 0;
    let chosen = holders.into_iter().take_while(|(held, _)| {
        let is_needed = freed < excess && *held > little;
        freed += held;
        is_needed
    });
    chosen.map(|(_, holder)| holder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: usize = 8 << 20;

    fn input(input: usize) -> Holding {
        Holding { input, ..Holding::default() }
    }

    fn granted(input: usize) -> Holding {
        Holding { input, granted: input, waiting: 0 }
    }

    #[test]
    fn the_sum_is_what_the_connections_hold() {
        let mut ledger = Ledger::new(BOUND);
        assert_eq!(ledger.bound(), BOUND);
        let (mut first, mut second) = (Holding::default(), Holding::default());
        ledger.change(&mut first, Holding { input: 1, granted: 1, waiting: 300 });
        ledger.change(&mut second, Holding { input: 5000, granted: 0, waiting: 1 });
        ledger.change(&mut first, Holding { input: 0, granted: 0, waiting: 100 });
        ledger.set_mailboxes(7);
        ledger.add_output(40);
        let expected = Holding { input: 5000, granted: 0, waiting: 101 };
        assert_eq!(ledger.connections(), expected);
        assert_eq!((ledger.total(), ledger.mailboxes(), ledger.output()), (5148, 7, 40));
        ledger.set_output(0);
        ledger.change(&mut first, Holding::default());
        ledger.change(&mut second, Holding::default());
        assert_eq!(ledger.total(), 7);
    }

    #[test]
    fn grants_take_half_and_the_rest_stays_for_the_small() {
        let mut ledger = Ledger::new(BOUND);
        let bound = ledger.bound();
        assert!(ledger.grants(bound / 2) && !ledger.grants(bound / 2 + 1));
        let mut counted = Holding::default();
        ledger.change(&mut counted, granted(bound / 2));
        assert!(!ledger.grants(1));
        ledger.change(&mut counted, input(bound - 10));
        assert!(ledger.grants(10) && !ledger.grants(11));
    }

    #[test]
    fn large_replies_leave_room_for_small_ones() {
        let mut ledger = Ledger::new(BOUND);
        let large = 1 << 20;
        assert!(ledger.allows_reply(2 * BOUND), "one always goes");
        ledger.set_output(BOUND / 4 * 3 - large);
        assert!(ledger.allows_reply(large) && !ledger.allows_reply(large + 1));
        ledger.set_output(BOUND);
        assert!(ledger.allows_reply(OUTPUT_MARK_PRESSED) && !ledger.allows_reply(large));
        ledger.set_output(BOUND + 1);
        assert!(!ledger.allows_reply(0));
    }

    #[test]
    fn pressure_begins_at_half_and_the_bound_is_kept() {
        let mut ledger = Ledger::new(BOUND);
        let (bound, mut counted) = (ledger.bound(), Holding::default());
        for (held, mark) in [(bound / 2, OUTPUT_HIGH_WATER), (bound, OUTPUT_MARK_PRESSED)] {
            ledger.change(&mut counted, input(held));
            assert_eq!((ledger.output_mark(), ledger.excess()), (Some(mark), 0));
        }
        ledger.change(&mut counted, input(bound + 1));
        assert_eq!((ledger.output_mark(), ledger.excess()), (None, bound + 1 - bound / 8 * 7));
    }

    #[test]
    fn those_who_hold_most_go_first_and_no_more_than_needed() {
        let holders = || vec![(10, 'a'), (500, 'b'), (0, 'c'), (300, 'd')];
        assert_eq!(heaviest(holders(), 0, 20), Vec::<char>::new());
        assert_eq!(heaviest(holders(), 500, 20), ['b']);
        assert_eq!(heaviest(holders(), 501, 20), ['b', 'd']);
        assert_eq!(heaviest(holders(), 10_000, 20), ['b', 'd', 'a']);
        assert_eq!(heaviest(holders(), 10_000, 40), ['b', 'd'], "others hold what is too much");
        assert_eq!(heaviest(Vec::<(usize, char)>::new(), 1, 40), []);
    }
}
