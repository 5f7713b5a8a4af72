//! Waking the tasks of one core when something that they wait for has changed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// A set of waiting tasks. Belongs to one thread.
#[derive(Default)]
pub struct Signal {
    waiting: RefCell<Vec<Waker>>,
    notifications: Cell<u64>,
}

impl Signal {
    /// Completes once `ready` returns a value; it is asked now and after every notification.
    pub async fn wait_for<T>(&self, mut ready: impl FnMut() -> Option<T>) -> T {
        poll_fn(|context| match ready() {
            Some(value) => Poll::Ready(value),
            None => {
                let mut waiting = self.waiting.borrow_mut();
                if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    waiting.push(context.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }

    /// Completes at the next notification, and not when something else wakes the task.
    pub async fn notified(&self) {
        let before = self.notifications.get();
        self.wait_for(|| (self.notifications.get() != before).then_some(())).await;
    }

    /// Lets every waiting task look again.
    pub fn notify(&self) {
        self.notifications.set(self.notifications.get() + 1);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }
}

/// Lets one task of a core at a time do something that waits, in the order in which they come: one
/// that comes again and again does not keep the others out.
#[derive(Default)]
pub struct Exclusive {
    is_taken: Cell<bool>,
    /// The tickets of those who wait.
    waiting: RefCell<VecDeque<u64>>,
    ticket_next: Cell<u64>,
    left: Signal,
}

/// Holds an [`Exclusive`] until it is dropped.
pub struct Held<'a>(&'a Exclusive);

/// A place in the line; leaving it lets the others look again.
struct Ticket<'a>(&'a Exclusive, u64);

impl Exclusive {
    /// Completes when nobody else is in, and nobody who came before waits.
    pub async fn enter(&self) -> Held<'_> {
        let number = self.ticket_next.get();
        self.ticket_next.set(number + 1);
        self.waiting.borrow_mut().push_back(number);
        let ticket = Ticket(self, number);
        let is_next = || !self.is_taken.get() && self.waiting.borrow().front() == Some(&number);
        self.left.wait_for(|| is_next().then_some(())).await;
        self.is_taken.set(true);
        drop(ticket);
        Held(self)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.0.waiting.borrow_mut().retain(|number| *number != self.1);
        if !self.0.is_taken.get() {
            self.0.left.notify();
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.is_taken.set(false);
        self.0.left.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future;
    use std::cell::Cell;

    #[test]
    fn a_waiter_sees_the_change_that_it_waits_for() {
        let signal = Signal::default();
        let value = Cell::new(0);
        let waiter = signal.wait_for(|| (value.get() == 2).then(|| value.get()));
        let changer = async {
            for next in [1, 2] {
                value.set(next);
                signal.notify();
                future::yield_now().await;
            }
        };
        let (seen, ()) = future::block_on(future::zip(waiter, changer));
        assert_eq!(seen, 2);
    }

    #[test]
    fn who_waits_for_a_notification_is_not_stirred_by_others() {
        let (signal, other) = (Signal::default(), Signal::default());
        let looks = Cell::new(0);
        let look = || {
            looks.set(looks.get() + 1);
            None::<()>
        };
        let mut either = Box::pin(future::or(signal.notified(), other.wait_for(look)));
        let mut is_over = || future::block_on(future::poll_once(either.as_mut())).is_some();
        for before in 0..3 {
            assert!(!is_over());
            assert_eq!(looks.get(), before + 1);
            other.notify();
        }
        signal.notify();
        assert!(is_over());
    }

    #[test]
    fn one_at_a_time_is_in() {
        let exclusive = Exclusive::default();
        let inside = Cell::new(0);
        let visit = || async {
            let _held = exclusive.enter().await;
            inside.set(inside.get() + 1);
            assert_eq!(inside.get(), 1);
            future::yield_now().await;
            inside.set(inside.get() - 1);
        };
        future::block_on(future::zip(visit(), future::zip(visit(), visit())));
        assert_eq!(inside.get(), 0);
    }

    #[test]
    fn who_comes_again_does_not_keep_others_out() {
        let exclusive = Exclusive::default();
        let order = RefCell::new(Vec::new());
        let comes_again = async {
            for _ in 0..3 {
                let _held = exclusive.enter().await;
                order.borrow_mut().push("again");
                future::yield_now().await;
            }
        };
        let other = async {
            let _held = exclusive.enter().await;
            order.borrow_mut().push("other");
        };
        future::block_on(future::zip(comes_again, other));
        assert_eq!(*order.borrow(), ["again", "other", "again", "again"]);
    }

    #[test]
    fn who_gives_up_waiting_lets_the_next_one_in() {
        let exclusive = Exclusive::default();
        let held = future::block_on(exclusive.enter());
        let mut first = Box::pin(exclusive.enter());
        let mut second = Box::pin(exclusive.enter());
        for waiting in [&mut first, &mut second] {
            assert!(future::block_on(future::poll_once(waiting.as_mut())).is_none());
        }
        drop(held);
        drop(first);
        drop(future::block_on(second));
        drop(future::block_on(exclusive.enter()));
    }
}
