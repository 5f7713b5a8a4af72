//! Who waits for room in the log, in order.
//!
//! A change that finds no room waits here. When room comes, as many of those who wait are let go,
//! the longest waiting first, as fit into it besides those who were let go before and are on their
//! way: waking all of them would make each look its key up again, find no room, and come back.
//!
//! Who was let go may need the device before it can take its room, and find it taken then. It keeps
//! its place, and from then on nobody who waits or comes is let go past it, but for those who add
//! nothing or make room: these have a line of their own.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Who may be let go at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomGate {
    /// As many as there is room for; of that so many bytes are kept from those who add.
    Room {
        /// Bytes of the log that only those may use who make room.
        kept: u64,
    },
    /// Nobody: room in the log is not what they wait for.
    Closed,
    /// Everyone who adds: they are to learn that they wait in vain. Of those who make room, as many
    /// as there is room for.
    Refusing,
    /// Everyone.
    Open,
}

#[derive(Default)]
struct Queue {
    /// Those who add to the log.
    adding: VecDeque<Waiting>,
    /// The others.
    urgent: VecDeque<Waiting>,
    ticket_next: u64,
    /// Those who were let go and have neither ended nor come back, by ticket: who add, and the
    /// others.
    adding_let_go: BTreeMap<u64, LetGo>,
    urgent_let_go: BTreeMap<u64, LetGo>,
    /// What all of these take of the room together, in bytes.
    claimed: u64,
    /// How many of those who add were let go for the second time or more.
    returning: usize,
}

struct Waiting {
    ticket: u64,
    bytes: u64,
    has_returned: bool,
    waker: Waker,
}

struct LetGo {
    claim: u64,
    has_returned: bool,
    has_seen_it: bool,
}

/// The changes that wait for room. Belongs to one thread.
pub struct Room {
    queue: RefCell<Queue>,
    gate: Cell<RoomGate>,
    times_let_go: Cell<u64>,
}

impl Default for Room {
    fn default() -> Self {
        let gate = Cell::new(RoomGate::Room { kept: 0 });
        Self { queue: RefCell::default(), gate, times_let_go: Cell::default() }
    }
}

/// A place in the line, kept from the first wait until the change was made or given up. One that is
/// given up after it was let go lets the next one go: room that nobody takes must not be lost.
pub struct PlaceInLine<'a> {
    room: &'a Room,
    is_urgent: bool,
    bytes: u64,
    /// `None` before the first wait.
    ticket: Option<u64>,
}

impl Room {
    /// A place for a change that needs about `bytes` of room and adds to the log.
    pub fn place(&self, bytes: u64) -> PlaceInLine<'_> {
        PlaceInLine { room: self, is_urgent: false, bytes, ticket: None }
    }

    /// A place for one that adds nothing, or makes room: it does not wait for those who add.
    pub fn urgent_place(&self, bytes: u64) -> PlaceInLine<'_> {
        PlaceInLine { is_urgent: true, ..self.place(bytes) }
    }

    /// Says who may be let go from now on; lets nobody go by itself.
    pub fn set_gate(&self, gate: RoomGate) {
        self.gate.set(gate);
    }

    /// Lets those go who have waited longest, as many as fit besides those who are on their way
    /// already: into the log, which has `space` bytes left, and before the device, where there is
    /// room for `queue` bytes. If there is any room at all, the oldest of those who add goes, and
    /// of the others, whatever it needs: that is an estimate.
    pub fn admit(&self, queue: u64, space: u64) {
        let urgent_bytes = queue.min(space);
        match self.gate.get() {
            RoomGate::Room { kept } => {
                self.let_go(urgent_bytes, queue.min(space.saturating_sub(kept)));
            }
            RoomGate::Closed => {}
            RoomGate::Refusing => self.let_go(urgent_bytes, u64::MAX),
            RoomGate::Open => self.admit_all(),
        }
    }

    /// Lets everyone go who need not stay behind another.
    pub fn admit_all(&self) {
        self.let_go(u64::MAX, u64::MAX);
    }

    fn let_go(&self, urgent_bytes: u64, adding_bytes: u64) {
        loop {
            let next = self.queue.borrow_mut().next(urgent_bytes, adding_bytes);
            let Some(waker) = next else { return };
            self.times_let_go.set(self.times_let_go.get() + 1);
            waker.wake();
        }
    }

    /// How often one who waited was let go since the start.
    pub fn times_let_go(&self) -> u64 {
        self.times_let_go.get()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        let queue = self.queue.borrow();
        queue.adding.len() + queue.urgent.len()
    }

    /// Whether who comes now and adds to the log has to wait behind others. Where everyone who
    /// adds is let go it is not kept waiting: it would learn nothing by that.
    pub fn has_line(&self) -> bool {
        let is_kept = matches!(self.gate.get(), RoomGate::Room { .. } | RoomGate::Closed);
        is_kept && !self.is_empty()
    }

    /// Whether nobody waits, and nobody was let go whom others must not overtake.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.queue.borrow().returning == 0
    }
}

impl Queue {
    fn line(&mut self, is_urgent: bool) -> &mut VecDeque<Waiting> {
        if is_urgent { &mut self.urgent } else { &mut self.adding }
    }

    fn let_go(&mut self, is_urgent: bool) -> &mut BTreeMap<u64, LetGo> {
        if is_urgent { &mut self.urgent_let_go } else { &mut self.adding_let_go }
    }

    /// Lets the next one go who may, where there is so much room for those who are urgent, and for
    /// those who add.
    fn next(&mut self, urgent_bytes: u64, adding_bytes: u64) -> Option<Waker> {
        self.next_of(true, urgent_bytes).or_else(|| self.next_of(false, adding_bytes))
    }

    fn next_of(&mut self, is_urgent: bool, bytes: u64) -> Option<Waker> {
        let left = bytes.saturating_sub(self.claimed);
        let oldest = self.let_go(is_urgent).first_key_value().map(|(ticket, _)| *ticket);
        let may_overtake = is_urgent || self.returning == 0;
        let may_go = |waiting: &mut Waiting| {
            let is_oldest = bytes > 0 && oldest.is_none_or(|oldest| waiting.ticket < oldest);
            (may_overtake || waiting.has_returned) && (is_oldest || waiting.bytes <= left)
        };
        let Waiting { ticket, bytes, has_returned, waker } =
            self.line(is_urgent).pop_front_if(may_go)?;
        // What does not fit into the room that there is leaves it to the others.
        let claim = if bytes <= left { bytes } else { 0 };
        self.claimed += claim;
        self.returning += usize::from(has_returned && !is_urgent);
        let let_go = LetGo { claim, has_returned, has_seen_it: false };
        self.let_go(is_urgent).insert(ticket, let_go);
        Some(waker)
    }

    /// One who was let go has ended, or comes back; `None` if it was not.
    fn end(&mut self, ticket: u64, is_urgent: bool) -> Option<LetGo> {
        let ended = self.let_go(is_urgent).remove(&ticket)?;
        self.claimed -= ended.claim;
        self.returning -= usize::from(ended.has_returned && !is_urgent);
        Some(ended)
    }
}

impl PlaceInLine<'_> {
    /// Completes when this place is let go.
    pub async fn wait(&mut self) {
        poll_fn(|context| self.poll(context.waker())).await;
    }

    fn poll(&mut self, waker: &Waker) -> Poll<()> {
        let mut queue = self.room.queue.borrow_mut();
        let queue = &mut *queue;
        let ticket = *self.ticket.get_or_insert_with(|| {
            queue.ticket_next += 1;
            queue.ticket_next
        });
        if let Some(let_go) = queue.let_go(self.is_urgent).get_mut(&ticket)
            && !std::mem::replace(&mut let_go.has_seen_it, true)
        {
            return Poll::Ready(());
        }
        let has_returned = queue.end(ticket, self.is_urgent).is_some();
        let bytes = self.bytes;
        let line = queue.line(self.is_urgent);
        // Tickets ascend from front to back.
        match line.binary_search_by_key(&ticket, |waiting| waiting.ticket) {
            Ok(at) => line[at].waker.clone_from(waker),
            Err(at) => {
                let waker = waker.clone();
                line.insert(at, Waiting { ticket, bytes, has_returned, waker });
            }
        }
        Poll::Pending
    }

    /// Leaves the line when the change was made or has failed. Whether there is room left for
    /// others the caller knows.
    pub fn leave(mut self) {
        if let Some(ticket) = self.ticket.take() {
            let mut queue = self.room.queue.borrow_mut();
            let ended = queue.end(ticket, self.is_urgent);
            assert!(ended.is_some(), "who leaves was let go");
        }
    }
}

impl Drop for PlaceInLine<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut queue = self.room.queue.borrow_mut();
        let claimed = queue.claimed;
        if queue.end(ticket, self.is_urgent).is_none() {
            let line = queue.line(self.is_urgent);
            if let Ok(at) = line.binary_search_by_key(&ticket, |waiting| waiting.ticket) {
                line.remove(at);
            }
            return;
        }
        drop(queue);
        let kept = if let RoomGate::Room { kept } = self.room.gate.get() { kept } else { 0 };
        let room = claimed.max(1);
        self.room.admit(room, room.saturating_add(kept));
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_lite::future;

    use super::*;

    /// Polls once; whether it has completed.
    fn poll(waiter: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        future::block_on(future::poll_once(waiter)).is_some()
    }

    /// The same for a wait at this place, which goes on where the last one stopped.
    fn waits(place: &mut PlaceInLine<'_>) -> bool {
        !poll(pin!(place.wait()))
    }

    #[test]
    fn as_many_go_as_fit_and_the_longest_waiting_first() {
        let room = Room::default();
        let (mut first, mut second, mut third) = (room.place(40), room.place(60), room.place(10));
        assert!(waits(&mut first) && waits(&mut second) && waits(&mut third));
        room.admit(100, 100);
        assert!(!room.is_empty(), "100 bytes are used up by the first two");
        assert!(waits(&mut third));
        assert!(!waits(&mut first) && !waits(&mut second));
        room.admit(100, 100);
        assert!(waits(&mut third), "the first two are on their way to the same room");
        first.leave();
        room.admit(60, 60);
        assert!(waits(&mut third), "the second is to have the rest of it");
        second.leave();
        room.admit(1, 1);
        assert!(!waits(&mut third), "the oldest may always go, or nobody ever might");
        assert_eq!((room.len(), room.times_let_go()), (0, 3));
    }

    #[test]
    fn who_needs_more_than_there_is_leaves_it_to_the_others_and_asks_first() {
        let room = Room::default();
        let (mut long, mut short, mut later) = (room.place(500), room.place(60), room.place(60));
        assert!(waits(&mut long) && waits(&mut short) && waits(&mut later));
        room.admit(100, 100);
        assert!(!waits(&mut long) && !waits(&mut short) && waits(&mut later));
        short.leave();
        assert!(waits(&mut long), "it has found no room");
        room.admit(600, 600);
        assert!(!waits(&mut long) && waits(&mut later), "nobody overtakes it any more");
        long.leave();
        room.admit(100, 100);
        assert!(!waits(&mut later));
    }

    #[test]
    fn the_oldest_goes_whoever_is_held_up_on_its_way() {
        let room = Room::default();
        let (mut long, mut held_up) = (room.place(500), room.place(60));
        assert!(waits(&mut long) && waits(&mut held_up));
        room.admit(100, 100);
        assert!(!waits(&mut long) && waits(&mut long), "it has found no room");
        room.admit(200, 200);
        assert!(!waits(&mut long), "the other one has not been seen again");
    }

    #[test]
    fn what_is_kept_of_the_log_is_not_taken_off_the_room_before_the_device() {
        let room = Room::default();
        room.set_gate(RoomGate::Room { kept: 1000 });
        let (mut first, mut second) = (room.place(40), room.place(40));
        assert!(waits(&mut first) && waits(&mut second));
        room.admit(100, 1000);
        assert!(waits(&mut first), "all that the log has left is kept");
        room.admit(100, 5000);
        assert!(!waits(&mut first) && !waits(&mut second));
    }

    #[test]
    fn nobody_stands_in_a_line_in_which_everyone_is_let_go() {
        let room = Room::default();
        let mut deleting = room.urgent_place(500);
        assert!(waits(&mut deleting) && room.has_line());
        for (gate, has_line) in [(RoomGate::Refusing, false), (RoomGate::Closed, true)] {
            room.set_gate(gate);
            assert_eq!(room.has_line(), has_line, "{gate:?}");
        }
        room.set_gate(RoomGate::Open);
        assert!(!room.has_line() && !room.is_empty());
    }

    #[test]
    fn what_is_kept_is_for_those_who_make_room() {
        let room = Room::default();
        let (mut adding, mut urgent) = (room.place(40), room.urgent_place(40));
        room.set_gate(RoomGate::Room { kept: 100 });
        assert!(waits(&mut adding) && waits(&mut urgent));
        room.admit(100, 100);
        assert!(!waits(&mut urgent) && waits(&mut adding));
        urgent.leave();
        room.admit(101, 101);
        assert!(!waits(&mut adding), "there is some room for it");
    }

    #[test]
    fn who_is_let_go_goes_by_the_gate() {
        let room = Room::default();
        let mut places: Vec<_> = (0..10).map(|_| room.place(40)).collect();
        let mut urgent = room.urgent_place(40);
        assert!(places.iter_mut().all(waits) && waits(&mut urgent));
        room.set_gate(RoomGate::Closed);
        room.admit(1000, 1000);
        assert_eq!(room.times_let_go(), 0);
        room.set_gate(RoomGate::Refusing);
        room.admit(0, 0);
        assert!(waits(&mut urgent) && !places.iter_mut().any(waits), "there is no room");
        room.set_gate(RoomGate::Open);
        room.admit(0, 0);
        assert!(!waits(&mut urgent));
    }

    #[test]
    fn room_that_nobody_takes_goes_to_the_next() {
        let room = Room::default();
        for gate in [RoomGate::Room { kept: 0 }, RoomGate::Room { kept: 1000 }] {
            room.set_gate(RoomGate::Room { kept: 0 });
            let (mut first, mut second, mut third) =
                (room.place(40), room.place(40), room.place(40));
            assert!(waits(&mut first) && waits(&mut second) && waits(&mut third));
            room.admit(1, 1);
            room.set_gate(gate);
            drop(first);
            assert!(!waits(&mut second), "the first went away after it was let go");
            assert!(waits(&mut third));
            drop(second);
            assert!(!waits(&mut third), "the second had seen it, and made no change");
        }
    }

    #[test]
    fn who_gives_up_before_it_is_let_go_takes_nothing() {
        let room = Room::default();
        let (mut first, mut second) = (room.place(40), room.place(40));
        assert!(waits(&mut first) && waits(&mut second));
        drop(first);
        assert!(waits(&mut second));
        room.admit_all();
        assert!(!waits(&mut second));
    }

    #[test]
    fn who_found_its_room_taken_is_not_overtaken_again() {
        let room = Room::default();
        let (mut slow, mut quick) = (room.place(40), room.place(40));
        assert!(waits(&mut slow) && waits(&mut quick));
        room.admit_all();
        assert!(!waits(&mut slow) && !waits(&mut quick), "nobody has returned yet");
        quick.leave();
        let mut later = room.place(40);
        assert!(waits(&mut later) && waits(&mut slow));
        room.admit_all();
        assert!(!waits(&mut slow), "it came before the later one");
        room.admit_all();
        assert!(waits(&mut later), "the slow one is on its way");
        let mut urgent = room.urgent_place(40);
        assert!(waits(&mut urgent));
        room.admit_all();
        assert!(!waits(&mut urgent) && waits(&mut later), "it makes room");
        urgent.leave();
        drop(slow);
        assert!(!waits(&mut later), "its room is not lost");
        later.leave();
        assert!(room.is_empty());
    }

    #[test]
    fn while_one_that_returned_is_on_its_way_the_room_is_taken() {
        let room = Room::default();
        let mut slow = room.place(40);
        for has_returned in [false, true] {
            assert!(waits(&mut slow) && !room.is_empty());
            room.admit_all();
            assert!(!waits(&mut slow));
            assert_eq!(room.is_empty(), !has_returned, "whoever comes stays behind it");
        }
        slow.leave();
        assert!(room.is_empty());
    }
}
