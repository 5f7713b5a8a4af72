//! Giving up the opening of shards that is under way.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

/// Shared by the launcher and the cores.
#[derive(Clone, Debug, Default)]
pub(super) struct Cancel(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_set: AtomicBool,
    /// Those who wait for it.
    wakers: Mutex<Vec<Waker>>,
}

impl Cancel {
    /// Ends what runs under [`Cancel::or`], and what will.
    pub(super) fn set(&self) {
        self.0.is_set.store(true, Ordering::Release);
        let mut wakers = self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        let woken = std::mem::take(&mut *wakers);
        drop(wakers);
        woken.into_iter().for_each(Waker::wake);
    }

    /// What `work` results in, or `None` if it was given up before its end.
    pub(super) async fn or<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut is_registered = false;
        std::future::poll_fn(|context| {
            if !std::mem::replace(&mut is_registered, true) {
                let mut wakers = self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner);
                wakers.push(context.waker().clone());
            }
            // Registered first, so that a `set` between the two is not missed.
            if self.0.is_set.load(Ordering::Acquire) {
                return Poll::Ready(None);
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use larder_runtime::core_thread::{Core, CoreOptions};

    use super::*;

    #[test]
    fn work_that_would_never_end_is_given_up() {
        let cancel = Cancel::default();
        let mut core = Core::new(CoreOptions::default()).expect("a ring");
        assert_eq!(core.block_on(cancel.or(async { 7 })), Some(7));
        let other = cancel.clone();
        let (begun, has_begun) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                has_begun.recv().expect("the core says so");
                other.set();
            });
            let hanging = async move {
                begun.send(()).expect("the other thread waits");
                std::future::pending::<()>().await;
            };
            assert_eq!(core.block_on(cancel.or(hanging)), None);
        });
        assert_eq!(core.block_on(cancel.or(async { 7 })), None, "it stays given up");
        core.shutdown();
    }
}
