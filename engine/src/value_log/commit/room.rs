//! Who waits for room in the log, in order.
//!
//! A change that finds no room waits here. When room comes, as many of those who wait are let go,
//! the longest waiting first, as fit into it: waking all of them would make each look its key up
//! again, find no room, and come back.
//!
//! Who was let go may need the device before it can take its room, and find it taken then. It keeps
//! its place, and from then on nobody who waits or comes is let go past it, but for those who add
//! nothing or make room: these have a line of their own.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

#[derive(Default)]
struct Queue {
    /// Those who add to the log.
    adding: VecDeque<Waiting>,
    /// The others.
    urgent: VecDeque<Waiting>,
    ticket_next: u64,
    /// How many were let go for the second time or more, and have not ended.
    returning: usize,
}

struct Waiting {
    ticket: u64,
    bytes: u64,
    has_returned: bool,
    waker: Waker,
}

/// The changes that wait for room. Belongs to one thread.
#[derive(Default)]
pub struct Room {
    queue: RefCell<Queue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    /// It waits; whether it had been let go before.
    Waiting(bool),
    /// It was let go; whether it had been before.
    LetGo(bool),
}

/// A place in the line, kept from the first wait until the change was made or given up. One that is
/// given up after it was let go lets the next one go: room that nobody takes must not be lost.
pub struct PlaceInLine<'a> {
    room: &'a Room,
    is_urgent: bool,
    bytes: u64,
    ticket: u64,
    stage: Stage,
}

impl Room {
    /// A place for a change that needs about `bytes` of room and adds to the log.
    pub fn place(&self, bytes: u64) -> PlaceInLine<'_> {
        PlaceInLine { room: self, is_urgent: false, bytes, ticket: 0, stage: Stage::New }
    }

    /// A place for one that adds nothing, or makes room: it does not wait for those who add.
    pub fn urgent_place(&self, bytes: u64) -> PlaceInLine<'_> {
        PlaceInLine { is_urgent: true, ..self.place(bytes) }
    }

    /// Lets those go who have waited longest, as many as fit into `bytes` and at least one.
    pub fn admit(&self, bytes: u64) {
        let mut left = bytes;
        let mut is_first = true;
        loop {
            let next = self.queue.borrow_mut().next(|bytes| is_first || bytes <= left);
            let Some(waiting) = next else { return };
            left = left.saturating_sub(waiting.bytes);
            is_first = false;
            waiting.waker.wake();
        }
    }

    /// Lets everyone go who need not stay behind another.
    pub fn admit_all(&self) {
        self.admit(u64::MAX);
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        let queue = self.queue.borrow();
        queue.adding.len() + queue.urgent.len()
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

    /// Takes the next one out who may go, if it `fits`.
    fn next(&mut self, fits: impl Fn(u64) -> bool) -> Option<Waiting> {
        if let Some(waiting) = self.urgent.pop_front_if(|waiting| fits(waiting.bytes)) {
            return Some(waiting);
        }
        let may_overtake = self.returning == 0;
        let may_go =
            |waiting: &mut Waiting| (may_overtake || waiting.has_returned) && fits(waiting.bytes);
        let waiting = self.adding.pop_front_if(may_go)?;
        self.returning += usize::from(waiting.has_returned);
        Some(waiting)
    }
}

impl PlaceInLine<'_> {
    /// Completes when this place is let go.
    pub async fn wait(&mut self) {
        poll_fn(|context| self.poll(context.waker())).await;
    }

    fn poll(&mut self, waker: &Waker) -> Poll<()> {
        let mut queue = self.room.queue.borrow_mut();
        let Stage::Waiting(has_returned) = self.stage else {
            let has_returned = self.stage != Stage::New;
            if self.stage == Stage::New {
                self.ticket = queue.ticket_next;
                queue.ticket_next += 1;
            }
            queue.returning -= usize::from(self.counts_as_returning());
            let (ticket, bytes, waker) = (self.ticket, self.bytes, waker.clone());
            let line = queue.line(self.is_urgent);
            // Tickets ascend from front to back.
            let at = line.partition_point(|waiting| waiting.ticket < ticket);
            line.insert(at, Waiting { ticket, bytes, has_returned, waker });
            self.stage = Stage::Waiting(has_returned);
            return Poll::Pending;
        };
        let line = queue.line(self.is_urgent);
        match line.binary_search_by_key(&self.ticket, |waiting| waiting.ticket) {
            Ok(at) => {
                line[at].waker.clone_from(waker);
                Poll::Pending
            }
            Err(_) => {
                self.stage = Stage::LetGo(has_returned);
                Poll::Ready(())
            }
        }
    }

    /// Whether the room's count of those who have returned has this one in it.
    fn counts_as_returning(&self) -> bool {
        !self.is_urgent && self.stage == Stage::LetGo(true)
    }

    /// Leaves the line when the change was made or has failed. Whether there is room left for
    /// others the caller knows.
    pub fn leave(mut self) {
        self.room.queue.borrow_mut().returning -= usize::from(self.counts_as_returning());
        self.stage = Stage::New;
    }
}

impl Drop for PlaceInLine<'_> {
    fn drop(&mut self) {
        let mut queue = self.room.queue.borrow_mut();
        if let Stage::Waiting(has_returned) = self.stage {
            let line = queue.line(self.is_urgent);
            match line.binary_search_by_key(&self.ticket, |waiting| waiting.ticket) {
                Ok(at) => {
                    line.remove(at);
                    return;
                }
                // It was let go and has not seen it.
                Err(_) => self.stage = Stage::LetGo(has_returned),
            }
        }
        queue.returning -= usize::from(self.counts_as_returning());
        drop(queue);
        if self.stage != Stage::New {
            self.room.admit(self.bytes);
        }
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
        room.admit(100);
        assert!(!room.is_empty(), "100 bytes are used up by the first two");
        assert!(waits(&mut third));
        assert!(!waits(&mut first) && !waits(&mut second));
        room.admit(1);
        assert!(!waits(&mut third), "one may always go, or nobody ever might");
        assert_eq!(room.len(), 0);
    }

    #[test]
    fn room_that_nobody_takes_goes_to_the_next() {
        let room = Room::default();
        let (mut first, mut second, mut third) = (room.place(40), room.place(40), room.place(40));
        assert!(waits(&mut first) && waits(&mut second) && waits(&mut third));
        room.admit(0);
        drop(first);
        assert!(!waits(&mut second), "the first went away after it was let go");
        assert!(waits(&mut third));
        drop(second);
        assert!(!waits(&mut third), "the second had seen it, and made no change");
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
