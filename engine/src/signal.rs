//! Waking the tasks of one core when something that they wait for has changed.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// A set of waiting tasks. Belongs to one thread.
#[derive(Default)]
pub struct Signal {
    waiting: RefCell<Vec<Waker>>,
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

    /// Lets every waiting task look again.
    pub fn notify(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }
}

/// Lets one task of a core at a time do something that waits.
#[derive(Default)]
pub struct Exclusive {
    is_taken: Cell<bool>,
    left: Signal,
}

/// Holds an [`Exclusive`] until it is dropped.
pub struct Held<'a>(&'a Exclusive);

impl Exclusive {
    /// Completes when nobody else is in.
    pub async fn enter(&self) -> Held<'_> {
        self.left.wait_for(|| (!self.is_taken.get()).then_some(())).await;
        self.is_taken.set(true);
        Held(self)
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
}
