//! Several futures of one task at a time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// How many of its files a start opens at a time: enough to keep a device busy, and few enough for
/// the memory that reading their indexes takes.
pub(crate) const OPENINGS_MAX: usize = 32;

/// Futures of one task that are under way, at most so many at a time. Only those are polled that
/// have been woken, so many of them cost no more than each by itself.
pub(crate) struct Lanes<F> {
    parent: Arc<Parent>,
    lanes: Vec<Lane<F>>,
    /// The lanes without a future.
    free: Vec<usize>,
    /// Where to look first for one that was woken: those that are woken together lie together, and
    /// what has just begun is to ask for what it needs before the others go on.
    next: usize,
    limit: usize,
    busy: usize,
}

struct Lane<F> {
    state: Arc<LaneWaker>,
    /// Wakes the lane.
    waker: Waker,
    future: Option<Pin<Box<F>>>,
}

/// The task.
#[derive(Default)]
struct Parent {
    waker: Mutex<Option<Waker>>,
}

struct LaneWaker {
    is_woken: AtomicBool,
    parent: Arc<Parent>,
}

impl Parent {
    fn lock(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, waker: &Waker) {
        let mut held = self.lock();
        if !held.as_ref().is_some_and(|held| held.will_wake(waker)) {
            *held = Some(waker.clone());
        }
    }
}

impl Wake for LaneWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Once is enough until the lane is polled.
        if !self.is_woken.swap(true, Ordering::AcqRel)
            && let Some(waker) = &*self.parent.lock()
        {
            waker.wake_by_ref();
        }
    }
}

impl<F: Future> Lanes<F> {
    /// Room for `limit` futures.
    pub(crate) fn new(limit: usize) -> Self {
        let (lanes, free) = (Vec::new(), Vec::new());
        Self { parent: Arc::default(), lanes, free, next: 0, limit, busy: 0 }
    }

    /// Whether another future can begin.
    pub(crate) fn has_room(&self) -> bool {
        self.busy < self.limit
    }

    /// Takes a future in, for which there is room; it begins with the next [`Self::poll_next`].
    pub(crate) fn begin(&mut self, future: F) {
        assert!(self.has_room(), "no more futures are taken than there is room for");
        self.busy += 1;
        let future = Some(Box::pin(future));
        if let Some(number) = self.free.pop() {
            let lane = &mut self.lanes[number];
            lane.state.is_woken.store(true, Ordering::Release);
            lane.future = future;
            self.next = number;
            return;
        }
        let parent = Arc::clone(&self.parent);
        let state = Arc::new(LaneWaker { is_woken: AtomicBool::new(true), parent });
        self.next = self.lanes.len();
        self.lanes.push(Lane { waker: Waker::from(Arc::clone(&state)), state, future });
    }

    /// What one of them has come to; `None` if none is under way. To be asked again until it has
    /// nothing to tell: only then the task is woken when there is more.
    pub(crate) fn poll_next(&mut self, context: &Context<'_>) -> Poll<Option<F::Output>> {
        if self.busy == 0 {
            return Poll::Ready(None);
        }
        self.parent.set(context.waker());
        for step in 0..self.lanes.len() {
            let number = (self.next + step) % self.lanes.len();
            let lane = &mut self.lanes[number];
            let Some(future) = &mut lane.future else { continue };
            if !lane.state.is_woken.swap(false, Ordering::AcqRel) {
                continue;
            }
            let mut context = Context::from_waker(&lane.waker);
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                lane.future = None;
                self.free.push(number);
                self.next = number + 1;
                self.busy -= 1;
                return Poll::Ready(Some(output));
            }
        }
        Poll::Pending
    }
}

/// Runs `futures`, at most `limit` at a time, and returns their results in order.
pub(crate) async fn concurrently<F: Future>(
    limit: usize,
    futures: impl IntoIterator<Item = F>,
) -> Vec<F::Output> {
    let mut waiting = futures.into_iter().enumerate();
    let mut lanes = Lanes::new(limit);
    let mut results: Vec<Option<F::Output>> = Vec::new();
    poll_fn(|context| {
        loop {
            while lanes.has_room()
                && let Some((index, future)) = waiting.next()
            {
                results.push(None);
                lanes.begin(async move { (index, future.await) });
            }
            match lanes.poll_next(context) {
                Poll::Ready(Some((index, result))) => results[index] = Some(result),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    results.into_iter().map(|result| result.expect("all have ended")).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_lite::future;

    use super::*;

    #[test]
    fn results_are_in_order_and_few_run_at_a_time() {
        let (running, most) = (Cell::new(0), Cell::new(0));
        let (running, most) = (&running, &most);
        let work = (0..50).map(|number: usize| async move {
            running.set(running.get() + 1);
            most.set(most.get().max(running.get()));
            for _ in 0..number % 7 {
                future::yield_now().await;
            }
            running.set(running.get() - 1);
            number
        });
        let results = future::block_on(concurrently(4, work));
        assert_eq!(results, (0..50).collect::<Vec<_>>());
        assert_eq!(most.get(), 4);
        let none: Vec<usize> =
            future::block_on(concurrently(4, Vec::<future::Ready<usize>>::new()));
        assert!(none.is_empty());
    }

    #[test]
    fn who_takes_the_place_of_another_begins_before_the_others_end() {
        let begun = Cell::new(0);
        let work = |number: usize| {
            let (begun, mut is_begun) = (&begun, false);
            poll_fn(move |context| {
                if is_begun {
                    return Poll::Ready(number);
                }
                is_begun = true;
                begun.set(begun.get() + 1);
                // It is ready when it is asked next.
                context.waker().wake_by_ref();
                Poll::Pending
            })
        };
        let mut lanes = Lanes::new(40);
        let context = Context::from_waker(Waker::noop());
        (0..40).for_each(|number| lanes.begin(work(number)));
        assert!(lanes.poll_next(&context).is_pending() && begun.get() == 40);
        assert!(matches!(lanes.poll_next(&context), Poll::Ready(Some(_))));
        for number in 0..20 {
            lanes.begin(work(40 + number));
            assert!(matches!(lanes.poll_next(&context), Poll::Ready(Some(_))));
            assert_eq!(begun.get(), 41 + number);
        }
    }

    #[test]
    fn only_who_was_woken_is_polled() {
        let (first, second) = (Cell::new(None::<Waker>), Cell::new(None));
        let polls = Cell::new(0);
        let wait = |waker: &'static str| {
            let slot = if waker == "first" { &first } else { &second };
            let polls = &polls;
            let mut is_ready = false;
            poll_fn(move |context| {
                polls.set(polls.get() + 1);
                if is_ready {
                    return Poll::Ready(waker);
                }
                is_ready = true;
                slot.set(Some(context.waker().clone()));
                Poll::Pending
            })
        };
        let mut lanes = Lanes::new(2);
        lanes.begin(wait("first"));
        lanes.begin(wait("second"));
        assert!(!lanes.has_room());
        let context = Context::from_waker(Waker::noop());
        assert!(lanes.poll_next(&context).is_pending() && lanes.poll_next(&context).is_pending());
        assert_eq!(polls.get(), 2);
        second.take().expect("it was polled").wake();
        assert_eq!((lanes.poll_next(&context), polls.get()), (Poll::Ready(Some("second")), 3));
        assert!(lanes.has_room() && lanes.poll_next(&context).is_pending());
        first.take().expect("it was polled").wake();
        assert_eq!((lanes.poll_next(&context), polls.get()), (Poll::Ready(Some("first")), 4));
        assert_eq!(lanes.poll_next(&context), Poll::Ready(None));
    }
}
