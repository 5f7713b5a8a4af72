//! Connections whose next request was refused, by what they wait for.
//!
//! A refused request is parsed again only when what it was refused can be given, or once a second:
//! while a core has nothing to give, those who wait cost it nothing and it may sleep. Each row is
//! in the order of refusal and only its first is looked at, so whoever wants much is not passed
//! over, and who waits for one thing is not held up by those who wait for another.
//!
//! Only connections with no request under way wait here: the end of any of a connection's own
//! requests has it looked at anyway.

use std::collections::VecDeque;

use larder_runtime::network::{ConnectionId, Network};

use super::shards::LogNeed;
use super::shares::Part;
use super::{NodeService, queue};
use crate::limits::LOG_SMALL_BYTES;

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
}

/// Those who wait.
#[derive(Debug, Default)]
pub(super) struct Refused {
    tasks: VecDeque<(ConnectionId, Want)>,
    lines: Vec<VecDeque<(ConnectionId, Want)>>,
    replies: VecDeque<(ConnectionId, Want)>,
    /// Those who want room in the logs: for a small change, and for a large one.
    logs: [VecDeque<(ConnectionId, Want)>; 2],
}

impl Refused {
    pub(super) fn new(cores: usize) -> Self {
        Self { lines: vec![VecDeque::new(); cores], ..Self::default() }
    }

    /// Puts a connection at the end of the row for what it wants.
    pub(super) fn push(&mut self, id: ConnectionId, want: Want) {
        let row = match want {
            Want::Task(_) => &mut self.tasks,
            Want::Line(core) => &mut self.lines[core],
            Want::Reply(_) => &mut self.replies,
            Want::Log(_, need) => &mut self.logs[usize::from(need.bytes > LOG_SMALL_BYTES)],
        };
        row.push_back((id, want));
    }

    /// Takes the first of a row whose want can be given.
    pub(super) fn next(&mut self, can_give: impl Fn(Want) -> bool) -> Option<ConnectionId> {
        let rows = [&mut self.tasks, &mut self.replies].into_iter();
        let rows = rows.chain(&mut self.logs).chain(&mut self.lines);
        let mut firsts = rows.filter_map(|row| row.pop_front_if(|&mut (_, want)| can_give(want)));
        firsts.next().map(|(id, _)| id)
    }

    /// Takes the first of any row.
    fn any(&mut self) -> Option<ConnectionId> {
        self.next(|_| true)
    }

    pub(super) fn len(&self) -> usize {
        let many = self.logs.iter().chain(&self.lines);
        self.tasks.len() + self.replies.len() + many.map(VecDeque::len).sum::<usize>()
    }
}

impl NodeService {
    /// Goes on with those who were refused what can be given now. Each asks once at most, since one
    /// that is refused again waits at its row's end.
    pub(super) fn drive_refused(&mut self, network: &mut Network) -> bool {
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
    use super::*;

    fn ids(numbers: std::ops::Range<u64>) -> Vec<ConnectionId> {
        numbers.map(ConnectionId::from).collect()
    }

    #[test]
    fn nobody_is_looked_at_before_there_is_something_to_give() {
        let mut refused = Refused::new(2);
        for (id, want) in ids(0..3).into_iter().zip([Want::Task(9), Want::Line(1), Want::Reply(5)])
        {
            refused.push(id, want);
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
            refused.push(number.into(), Want::Task(bytes));
        }
        refused.push(3.into(), Want::Reply(1));
        let small = |want| matches!(want, Want::Task(1) | Want::Reply(_));
        assert_eq!(refused.next(small), Some(3.into()), "another row goes on");
        assert_eq!(refused.next(small), None);
        let all: Vec<_> = std::iter::from_fn(|| refused.any()).collect();
        assert_eq!(all, ids(0..3));
    }

    #[test]
    fn a_small_change_does_not_wait_behind_large_ones() {
        let mut refused = Refused::new(1);
        let want = |bytes| Want::Log(Part::default(), LogNeed { bytes, adds: bytes });
        for (number, bytes) in [(0, LOG_SMALL_BYTES + 1), (1, LOG_SMALL_BYTES), (2, 1)] {
            refused.push(number.into(), want(bytes));
        }
        let small = |want| matches!(want, Want::Log(_, need) if need.bytes <= LOG_SMALL_BYTES);
        assert_eq!(refused.next(small), Some(1.into()));
        assert_eq!(refused.next(small), Some(2.into()));
        assert_eq!((refused.next(small), refused.len()), (None, 1));
    }
}
