//! Waking the tasks of one core when something that they wait for has changed.

use std::cell::RefCell;
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
}
