//! What other cores' connections have under way on this core, and who may go on.
//!
//! A request of another core is carried out here, so here is known how long its reply is, while
//! only the other core knows whether the client takes its replies. So each of its connections has a
//! lane with an account of bytes: a reply is charged when it is made, and credited when the other
//! core has passed it to the client's output. A lane that is over its share keeps its requests to
//! itself, in order, while those of others go on.

use std::collections::VecDeque;

use super::shares::Part;
use crate::connection::Load;
use crate::limits::{
    CONNECTION_WAITING_BYTES_MAX, LANE_BYTES_MAX, REPLY_COVERED_BYTES, SHARE_BYTES_SCARCE,
    SHARE_REQUESTS_SCARCE, TASK_SMALL_BYTES, TASKS_MAX,
};

/// The part of a reply's bytes that is charged to the lane that it is made for. The rest is covered
/// by the number of requests that the connection may have.
pub(super) fn charged(reply_bytes: usize) -> usize {
    reply_bytes.saturating_sub(REPLY_COVERED_BYTES)
}

/// How much one core has for requests that wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// What tasks may be expected to need together, in bytes.
    pub expected_max: usize,
    /// Finished replies that wait for their client, in bytes, above which shares become small.
    pub held_max: usize,
}

impl Room {
    /// Whether little is left, so that each may have only a small share.
    pub(super) fn is_scarce(&self, all: Load) -> bool {
        all.waiting > TASKS_MAX / 2
            || all.expected_bytes > self.expected_max / 2
            || all.bytes > self.held_max
    }

    /// Whether a request that is expected to need `bytes` may start to wait, where tasks and
    /// replies of all connections hold `all` and those of its own hold `own`.
    pub(super) fn admits(&self, all: Load, own: Load, bytes: usize) -> bool {
        // Of what needs much one always goes, if hardly anything else is under way.
        let small = self.expected_max / 4;
        let is_full = if bytes > TASK_SMALL_BYTES {
            all.expected_bytes > small && all.expected_bytes + bytes > self.expected_max - small
        } else {
            all.expected_bytes > 0 && all.expected_bytes + bytes > self.expected_max
        };
        if all.waiting >= TASKS_MAX || is_full {
            return false;
        }
        if own == Load::default() {
            return true;
        }
        let own_bytes = own.bytes + own.expected_bytes + bytes;
        if self.is_scarce(all) {
            own.waiting < SHARE_REQUESTS_SCARCE && own_bytes <= SHARE_BYTES_SCARCE
        } else {
            own_bytes <= CONNECTION_WAITING_BYTES_MAX
        }
    }
}

struct Lane<T> {
    connection: u64,
    load: Load,
    /// What the connection has appended to this core's logs.
    part: Part,
    parked: VecDeque<T>,
    /// What the first of those that are parked is expected to need, if it has to wait for a place.
    wants: Option<usize>,
}

/// The lanes of all other cores' connections.
pub(super) struct Lanes<T> {
    /// By core, and then by the low half of the connection's number.
    lanes: Vec<Vec<Option<Lane<T>>>>,
    /// The sum of their accounts.
    load: Load,
    /// Connections with parked requests, in the order in which they are looked at.
    parked: VecDeque<(usize, u64)>,
}

fn index(connection: u64) -> usize {
    (connection & u64::from(u32::MAX)) as usize
}

impl<T> Lanes<T> {
    pub(super) fn new(cores: usize) -> Self {
        let lanes = (0..cores).map(|_| Vec::new()).collect();
        Self { lanes, load: Load::default(), parked: VecDeque::new() }
    }

    fn get(&mut self, core: usize, connection: u64) -> Option<&mut Lane<T>> {
        let lane = self.lanes[core].get_mut(index(connection))?.as_mut()?;
        (lane.connection == connection).then_some(lane)
    }

    /// Makes sure that a connection has a lane. The lane of one that had its number before is gone.
    #[inline]
    pub(super) fn open(&mut self, core: usize, connection: u64) {
        let (lanes, index) = (&mut self.lanes[core], index(connection));
        if index >= lanes.len() {
            lanes.resize_with(index + 1, || None);
        }
        if lanes[index].as_ref().is_some_and(|lane| lane.connection == connection) {
            return;
        }
        if let Some(old) = lanes[index].take() {
            self.load = self.load - old.load;
        }
        let (load, part) = (Load::default(), Part::default());
        let parked = VecDeque::new();
        lanes[index] = Some(Lane { connection, load, part, parked, wants: None });
    }

    /// Whether a connection has a lane still.
    pub(super) fn is_open(&mut self, core: usize, connection: u64) -> bool {
        self.get(core, connection).is_some()
    }

    /// The account of a connection.
    pub(super) fn load_of(&mut self, core: usize, connection: u64) -> Load {
        self.get(core, connection).map_or(Load::default(), |lane| lane.load)
    }

    /// What a connection has appended to this core's logs.
    pub(super) fn part_of(&mut self, core: usize, connection: u64) -> Part {
        self.get(core, connection).map_or(Part::default(), |lane| lane.part)
    }

    /// Notes that a connection has appended to them; nothing if it is gone.
    pub(super) fn note(&mut self, core: usize, connection: u64, note: impl FnOnce(&mut Part)) {
        if let Some(lane) = self.get(core, connection) {
            note(&mut lane.part);
        }
    }

    /// The sum of all accounts.
    pub(super) fn load(&self) -> Load {
        self.load
    }

    /// Whether the connection's next request that arrives may be carried out, and need not be
    /// parked. `is_scarce` as [`Room::is_scarce`] says.
    #[inline]
    pub(super) fn may_execute(&mut self, core: usize, connection: u64, is_scarce: bool) -> bool {
        let Some(lane) = self.get(core, connection) else { return true };
        lane.parked.is_empty() && lane.is_within(is_scarce)
    }

    /// Changes a connection's account; nothing if it is gone, with its account.
    pub(super) fn change(
        &mut self,
        core: usize,
        connection: u64,
        change: impl FnOnce(Load) -> Load,
    ) {
        let Some(lane) = self.get(core, connection) else { return };
        let before = lane.load;
        lane.load = change(before);
        let now = lane.load;
        self.load = self.load + now - before;
    }

    /// Charges a reply.
    #[inline]
    pub(super) fn charge(&mut self, core: usize, connection: u64, reply_bytes: usize) {
        let bytes = charged(reply_bytes);
        if bytes > 0 {
            self.change(core, connection, |load| Load { bytes: load.bytes + bytes, ..load });
        }
    }

    /// Credits bytes that were charged.
    pub(super) fn credit(&mut self, core: usize, connection: u64, bytes: usize) {
        self.change(core, connection, |load| Load { bytes: load.bytes - bytes, ..load });
    }

    /// Forgets a connection that is closed, and what it has parked.
    pub(super) fn close(&mut self, core: usize, connection: u64) {
        if let Some(lane) = self.get(core, connection) {
            let load = lane.load;
            self.load = self.load - load;
            self.lanes[core][index(connection)] = None;
        }
    }

    /// Parks a connection's request. `wants` says what it is expected to need, if it is known that
    /// it has to wait for a place.
    pub(super) fn park(&mut self, core: usize, connection: u64, request: T, wants: Option<usize>) {
        let lane = self.get(core, connection).expect("a lane is open while requests arrive");
        lane.parked.push_back(request);
        if lane.parked.len() == 1 {
            lane.wants = wants;
            self.parked.push_back((core, connection));
        }
    }

    /// How many connections have parked requests.
    pub(super) fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Takes the first request of the next connection if it may be carried out now. The connection
    /// goes to the end of the row. [`Lanes::put_back`] undoes it.
    pub(super) fn next(&mut self, room: Room, all: Load) -> Option<(usize, T)> {
        let (core, connection) = self.parked.pop_front()?;
        let is_scarce = room.is_scarce(all);
        let lane = self.get(core, connection)?;
        let has_place = lane.wants.is_none_or(|bytes| room.admits(all, lane.load, bytes));
        let request = if has_place && lane.is_within(is_scarce) {
            lane.wants = None;
            lane.parked.pop_front()
        } else {
            None
        };
        if !lane.parked.is_empty() {
            self.parked.push_back((core, connection));
        }
        request.map(|request| (core, request))
    }

    /// Puts a request that [`Lanes::next`] gave back to the front of its connection's.
    pub(super) fn put_back(&mut self, core: usize, connection: u64, request: T, wants: usize) {
        let lane = self.get(core, connection).expect("it was there a moment ago");
        if lane.parked.is_empty() {
            self.parked.push_back((core, connection));
        }
        let lane = self.get(core, connection).expect("it was there a moment ago");
        lane.parked.push_front(request);
        lane.wants = Some(wants);
    }
}

impl<T> Lane<T> {
    fn is_within(&self, is_scarce: bool) -> bool {
        let share = if is_scarce { SHARE_BYTES_SCARCE } else { LANE_BYTES_MAX };
        self.load.bytes + self.load.expected_bytes < share
    }
}

#[cfg(test)]
mod tests {
    use super::super::shares::Shares;
    use super::*;
    use crate::limits::{LOG_BUDGET_MIN, LOG_SMALL_BYTES};

    const ROOM: Room = Room { expected_max: 1 << 20, held_max: 1 << 20 };

    fn load(waiting: usize, expected_bytes: usize, bytes: usize) -> Load {
        Load { waiting, expected_bytes, bytes }
    }

    #[test]
    fn a_lane_over_its_share_waits_alone_and_in_order() {
        let mut lanes: Lanes<u32> = Lanes::new(2);
        lanes.open(1, 7);
        lanes.open(1, 8);
        assert!(lanes.may_execute(1, 7, false));
        lanes.charge(1, 7, LANE_BYTES_MAX + REPLY_COVERED_BYTES);
        assert!(!lanes.may_execute(1, 7, false) && lanes.may_execute(1, 8, false));
        lanes.park(1, 7, 70, None);
        lanes.park(1, 7, 71, None);
        let all = lanes.load();
        assert_eq!((lanes.parked(), lanes.next(ROOM, all)), (1, None));
        lanes.credit(1, 7, LANE_BYTES_MAX);
        assert!(!lanes.may_execute(1, 7, false), "those that are parked go first");
        assert_eq!(lanes.next(ROOM, Load::default()), Some((1, 70)));
        lanes.put_back(1, 7, 70, 10);
        assert_eq!(lanes.next(ROOM, Load::default()), Some((1, 70)));
        assert_eq!(lanes.next(ROOM, Load::default()), Some((1, 71)));
        assert_eq!((lanes.parked(), lanes.load()), (0, Load::default()));
        assert!(lanes.may_execute(1, 7, false));
    }

    #[test]
    fn connections_with_parked_requests_take_turns() {
        let mut lanes: Lanes<u32> = Lanes::new(1);
        for connection in [1, 2] {
            lanes.open(0, connection);
            for number in 0..2 {
                lanes.park(0, connection, connection as u32 * 10 + number, Some(5));
            }
        }
        let full = load(TASKS_MAX, 0, 0);
        assert_eq!((lanes.next(ROOM, full), lanes.next(ROOM, full)), (None, None));
        let mut order = Vec::new();
        while lanes.parked() > 0 {
            order.extend(lanes.next(ROOM, Load::default()).map(|(_, request)| request));
        }
        assert_eq!(order, [10, 20, 11, 21]);
    }

    #[test]
    fn what_a_closed_connection_held_is_given_back() {
        let mut lanes: Lanes<u32> = Lanes::new(1);
        lanes.open(0, 3);
        lanes.charge(0, 3, 10_000);
        lanes.park(0, 3, 1, None);
        // The same place in the table, another connection.
        let next = (1 << 32) + 3;
        lanes.open(0, next);
        lanes.charge(0, next, 1000 + REPLY_COVERED_BYTES);
        lanes.close(0, 3);
        lanes.credit(0, 3, 10_000);
        assert!(!lanes.is_open(0, 3) && lanes.is_open(0, next));
        assert_eq!((lanes.load().bytes, lanes.load_of(0, next).bytes), (1000, 1000));
        assert_eq!((lanes.next(ROOM, Load::default()), lanes.parked()), (None, 0));
        lanes.close(0, next);
        assert_eq!(lanes.load(), Load::default());
    }

    #[test]
    fn what_a_lane_has_appended_counts_for_its_connection_only() {
        let (mut lanes, mut shares): (Lanes<u32>, _) = (Lanes::new(1), Shares::default());
        for connection in [3, 4] {
            lanes.open(0, connection);
        }
        lanes.note(0, 3, |part| shares.note(part, LOG_BUDGET_MIN));
        let allows = |lanes: &mut Lanes<u32>, connection| {
            shares.allows(lanes.part_of(0, connection), LOG_BUDGET_MIN, LOG_SMALL_BYTES)
        };
        assert!(!allows(&mut lanes, 3) && allows(&mut lanes, 4));
        // The same place in the table, another connection.
        lanes.open(0, (1 << 32) + 3);
        lanes.note(0, 3, |_| panic!("it is gone"));
        assert_eq!(lanes.part_of(0, (1 << 32) + 3), Part::default());
    }

    #[test]
    fn a_newcomer_finds_a_place_where_others_have_used_up_their_shares() {
        let greedy = load(SHARE_REQUESTS_SCARCE, SHARE_BYTES_SCARCE, 0);
        for all in [load(TASKS_MAX - 1, 1, 0), load(1, 600 << 10, 0), load(1, 0, 100 << 20)] {
            assert!(ROOM.admits(all, Load::default(), 1) && !ROOM.admits(all, greedy, 1));
        }
        assert!(ROOM.admits(load(1, 1, 1), greedy, 1));
        assert!(!ROOM.admits(load(TASKS_MAX, 0, 0), Load::default(), 1), "no more tasks");
        assert!(!ROOM.admits(load(1, 1 << 20, 0), Load::default(), 1), "no more bytes");
        assert!(ROOM.admits(Load::default(), Load::default(), 10 << 20), "one always goes");
        let (large, many) = (256 << 10, load(1, 600 << 10, 0));
        assert!(!ROOM.admits(many, Load::default(), large), "a quarter is for the small");
        assert!(ROOM.admits(many, Load::default(), TASK_SMALL_BYTES));
        assert!(ROOM.admits(load(1, 512 << 10, 0), Load::default(), large));
    }
}
