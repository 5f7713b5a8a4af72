//! Connections whose next request was refused, by what they wait for.
//!
//! A refused request is parsed again only when what it was refused can be given, or once a second:
//! while a core has nothing to give, those who wait cost it nothing and it may sleep. In each row
//! those come first that have used least of the core's time, and only the first is looked at, so
//! whoever wants much is not passed over, and who waits for one thing is not held up by those who
//! wait for another, nor who wants little by those who want much.
//!
//! Only connections with no request under way wait here: the end of any of a connection's own
//! requests has it looked at anyway.

use std::collections::BTreeMap;

use larder_runtime::core_env::CoreEnv;
use larder_runtime::network::ConnectionId;

use super::NodeService;
use super::drive::queue;
use super::log_need::LogNeed;
use super::shares::Part;
use super::turns::Mark;
use crate::limits::{LOG_SMALL_BYTES, OUTPUT_MARK_PRESSED, TASK_SMALL_BYTES};

/// What a refused request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// A task that is expected to need so many bytes.
    Task(usize),
    /// Room in the line to a core.
    Line(usize),
    /// Room in the logs for one who has appended so much.
    Log(Part, LogNeed),
    /// That replies of so many bytes may be made.
    Reply(usize),
    /// That all cores may be asked.
    Gather,
}

/// Those who wait for one thing: by mark, and of one mark by who came first.
#[derive(Clone, Debug, Default)]
struct Row(BTreeMap<(Mark, u64), (ConnectionId, Want)>);

impl Row {
    fn pop_if(&mut self, can_give: impl FnOnce(Want) -> bool) -> Option<ConnectionId> {
        let first = self.0.first_entry()?;
        can_give(first.get().1).then(|| first.remove().0)
    }
}

/// Those who wait. Where there are two rows for one thing, the first is for those who want little
/// of it.
#[derive(Debug, Default)]
pub(super) struct Refused {
    tasks: [Row; 2],
    replies: [Row; 2],
    logs: [Row; 2],
    lines: Vec<Row>,
    gathers: Row,
    /// How many have come so far.
    order: u64,
}

impl Refused {
    pub(super) fn new(cores: usize) -> Self {
        Self { lines: vec![Row::default(); cores], ..Self::default() }
    }

    /// Puts a connection with this mark into the row for what it wants.
    pub(super) fn push(&mut self, id: ConnectionId, mark: Mark, want: Want) {
        let row = match want {
            Want::Task(bytes) => &mut self.tasks[usize::from(bytes > TASK_SMALL_BYTES)],
            Want::Line(core) => &mut self.lines[core],
            Want::Reply(bytes) => &mut self.replies[usize::from(bytes > OUTPUT_MARK_PRESSED)],
            Want::Log(_, need) => &mut self.logs[usize::from(need.bytes > LOG_SMALL_BYTES)],
            Want::Gather => &mut self.gathers,
        };
        self.order += 1;
        row.0.insert((mark, self.order), (id, want));
    }

    /// Takes the first of a row whose want can be given.
    pub(super) fn next(&mut self, can_give: impl Fn(Want) -> bool) -> Option<ConnectionId> {
        let rows = self.tasks.iter_mut().chain(&mut self.replies);
        let rows = rows.chain(&mut self.logs).chain(&mut self.lines).chain([&mut self.gathers]);
        rows.into_iter().find_map(|row| row.pop_if(&can_give))
    }

    /// Takes the first of any row.
    fn any(&mut self) -> Option<ConnectionId> {
        self.next(|_| true)
    }

    pub(super) fn len(&self) -> usize {
        let rows = self.tasks.iter().chain(&self.replies).chain(&self.logs).chain(&self.lines);
        rows.chain([&self.gathers]).map(|row| row.0.len()).sum()
    }
}

impl<C: CoreEnv> NodeService<C> {
    /// Goes on with those who were refused what can be given now, for as long as a turn has.
    pub(super) fn drive_refused(&mut self, network: &mut C::Network) -> bool {
        let mut has_any = false;
        for _ in 0..self.refused.len() {
            let state = &self.state;
            let Some(id) = self.refused.next(|want| state.can_give(want)) else { break };
            let Some(entry) = self.table.get_mut(id) else { continue };
            entry.is_refused = false;
            has_any = true;
            self.drive(network, id, None);
            if self.is_turn_long() {
                break;
            }
        }
        has_any
    }

    /// Once a second: has all of them ask again, whatever they were refused.
    pub(super) fn retry_refused(&mut self) {
        while let Some(id) = self.refused.any() {
            if let Some(entry) = self.table.get_mut(id) {
                entry.is_refused = false;
                queue(&mut self.ready, entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::turns::{Turns, Work};
    use super::*;

    fn ids(numbers: std::ops::Range<u64>) -> Vec<ConnectionId> {
        numbers.map(ConnectionId::from).collect()
    }

    #[test]
    fn nobody_is_looked_at_before_there_is_something_to_give() {
        let mut refused = Refused::new(2);
        for (id, want) in ids(0..3).into_iter().zip([Want::Task(9), Want::Line(1), Want::Reply(5)])
        {
            refused.push(id, Mark::default(), want);
        }
        assert_eq!((refused.next(|_| false), refused.len()), (None, 3));
        let asked = std::cell::RefCell::new(Vec::new());
        let given = refused.next(|want| {
            asked.borrow_mut().push(want);
            want == Want::Line(1)
        });
        assert_eq!((given, refused.len()), (Some(1.into()), 2));
        assert_eq!(asked.take(), [Want::Task(9), Want::Reply(5), Want::Line(1)]);
    }

    #[test]
    fn a_row_keeps_its_order_and_only_its_first_is_asked_for() {
        let mut refused = Refused::new(1);
        // The first wants much; those behind it want little and wait for it.
        for (number, bytes) in [(0, 1000), (1, 1), (2, 1)] {
            refused.push(number.into(), Mark::default(), Want::Task(bytes));
        }
        refused.push(3.into(), Mark::default(), Want::Reply(1));
        let small = |want| matches!(want, Want::Task(1) | Want::Reply(_));
        assert_eq!(refused.next(small), Some(3.into()), "another row goes on");
        assert_eq!(refused.next(small), None);
        let all: Vec<_> = std::iter::from_fn(|| refused.any()).collect();
        assert_eq!(all, ids(0..3));
    }

    #[test]
    fn who_has_used_least_is_the_first_of_a_row() {
        let mut refused = Refused::new(1);
        let (mut turns, mut greedy) = (Turns::default(), Mark::default());
        turns.charge(&mut greedy, Work { requests: 1, bytes: 1 << 20 });
        refused.push(0.into(), greedy, Want::Task(1 << 20));
        refused.push(1.into(), Mark::default(), Want::Task(1 << 20));
        assert_eq!((refused.any(), refused.any()), (Some(1.into()), Some(0.into())));
        refused.push(0.into(), Mark::default(), Want::Task(1 << 20));
        refused.push(1.into(), greedy, Want::Task(1 << 10));
        let small = |want| matches!(want, Want::Task(bytes) if bytes < 1 << 20);
        assert_eq!(refused.next(small), Some(1.into()), "for little there is more room");
    }

    #[test]
    fn a_small_change_does_not_wait_behind_large_ones() {
        let mut refused = Refused::new(1);
        let want = |bytes| Want::Log(Part::default(), LogNeed { bytes, adds: bytes });
        for (number, bytes) in [(0, LOG_SMALL_BYTES + 1), (1, LOG_SMALL_BYTES), (2, 1)] {
            refused.push(number.into(), Mark::default(), want(bytes));
        }
        let small = |want| matches!(want, Want::Log(_, need) if need.bytes <= LOG_SMALL_BYTES);
        assert_eq!(refused.next(small), Some(1.into()));
        assert_eq!(refused.next(small), Some(2.into()));
        assert_eq!((refused.next(small), refused.len()), (None, 1));
    }
}
