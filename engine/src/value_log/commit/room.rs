//! Who waits for room in the log, in order.
//!
//! A change that finds no room waits here. When room comes, as many of those who wait are let go,
//! the longest waiting first, as fit into it: waking all of them would make each look its key up
//! again, find no room, and come back.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    ticket_next: u64,
}

struct Waiting {
    ticket: u64,
    bytes: u64,
    waker: Waker,
}

/// The changes that wait for room. Belongs to one thread.
#[derive(Default)]
pub struct Room {
    queue: RefCell<Queue>,
}

/// A place in the queue. One that is given up after it was let go lets the next one go: room that
/// nobody takes must not be lost.
struct Ticket<'a> {
    room: &'a Room,
    bytes: u64,
    number: Option<u64>,
}

impl Room {
    /// Completes when [`Room::admit`] has let this waiter go, which needs about `bytes` of room.
    pub async fn wait(&self, bytes: u64) {
        let mut ticket = Ticket { room: self, bytes, number: None };
        poll_fn(|context| ticket.poll(context.waker())).await;
    }

    /// Lets those go who have waited longest, as many as fit into `bytes` and at least one.
    pub fn admit(&self, bytes: u64) {
        let mut left = bytes;
        let mut is_first = true;
        loop {
            let mut queue = self.queue.borrow_mut();
            let fits = |waiting: &mut Waiting| is_first || waiting.bytes <= left;
            let Some(waiting) = queue.waiting.pop_front_if(fits) else { return };
            drop(queue);
            left = left.saturating_sub(waiting.bytes);
            is_first = false;
            waiting.waker.wake();
        }
    }

    /// Lets everyone go.
    pub fn admit_all(&self) {
        self.admit(u64::MAX);
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.queue.borrow().waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Ticket<'_> {
    fn poll(&mut self, waker: &Waker) -> Poll<()> {
        let mut queue = self.room.queue.borrow_mut();
        let Some(number) = self.number else {
            let ticket = queue.ticket_next;
            queue.ticket_next += 1;
            queue.waiting.push_back(Waiting { ticket, bytes: self.bytes, waker: waker.clone() });
            self.number = Some(ticket);
            return Poll::Pending;
        };
        // Tickets ascend from front to back, so whether one is still there is a binary search.
        match queue.waiting.binary_search_by_key(&number, |waiting| waiting.ticket) {
            Ok(at) => {
                queue.waiting[at].waker.clone_from(waker);
                Poll::Pending
            }
            Err(_) => {
                self.number = None;
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut queue = self.room.queue.borrow_mut();
        match queue.waiting.binary_search_by_key(&number, |waiting| waiting.ticket) {
            Ok(at) => drop(queue.waiting.remove(at)),
            Err(_) => {
                drop(queue);
                self.room.admit(self.bytes);
            }
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

    #[test]
    fn as_many_go_as_fit_and_the_longest_waiting_first() {
        let room = Room::default();
        let (mut first, mut second, mut third) =
            (pin!(room.wait(40)), pin!(room.wait(60)), pin!(room.wait(10)));
        assert!(!poll(first.as_mut()) && !poll(second.as_mut()) && !poll(third.as_mut()));
        room.admit(100);
        assert!(!room.is_empty(), "100 bytes are used up by the first two");
        assert!(!poll(third.as_mut()));
        assert!(poll(first.as_mut()) && poll(second.as_mut()));
        room.admit(1);
        assert!(poll(third.as_mut()), "one may always go, or nobody ever might");
        assert_eq!(room.len(), 0);
    }

    #[test]
    fn room_that_nobody_takes_goes_to_the_next() {
        let room = Room::default();
        let mut first = Box::pin(room.wait(40));
        let mut second = pin!(room.wait(40));
        let mut third = pin!(room.wait(40));
        assert!(!poll(first.as_mut()) && !poll(second.as_mut()) && !poll(third.as_mut()));
        room.admit(0);
        drop(first);
        assert!(poll(second.as_mut()), "the first went away after it was let go");
        assert!(!poll(third.as_mut()));
    }

    #[test]
    fn who_gives_up_before_it_is_let_go_takes_nothing() {
        let room = Room::default();
        let mut first = Box::pin(room.wait(40));
        let mut second = pin!(room.wait(40));
        assert!(!poll(first.as_mut()) && !poll(second.as_mut()));
        drop(first);
        assert!(!poll(second.as_mut()));
        room.admit_all();
        assert!(poll(second.as_mut()));
    }
}
