//! Several futures of one task at a time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// How many of its files a start opens at a time: enough to keep a device busy, and few enough for
/// the memory that reading their indexes takes.
pub(crate) const OPENINGS_MAX: usize = 32;

/// Runs `futures`, at most `limit` at a time, and returns their results in order.
///
/// Every wake-up polls all that are under way, so this is for a handful.
pub(crate) async fn concurrently<F: Future>(
    limit: usize,
    futures: impl IntoIterator<Item = F>,
) -> Vec<F::Output> {
    let mut waiting = futures.into_iter().enumerate();
    let mut under_way: Vec<(usize, Pin<Box<F>>)> = Vec::with_capacity(limit);
    let mut results: Vec<Option<F::Output>> = Vec::new();
    poll_fn(|context| {
        loop {
            while under_way.len() < limit
                && let Some((index, future)) = waiting.next()
            {
                results.push(None);
                under_way.push((index, Box::pin(future)));
            }
            let before = under_way.len();
            under_way.retain_mut(|(index, future)| match future.as_mut().poll(context) {
                Poll::Ready(result) => {
                    results[*index] = Some(result);
                    false
                }
                Poll::Pending => true,
            });
            if under_way.is_empty() && waiting.size_hint().1 == Some(0) {
                return Poll::Ready(());
            }
            if under_way.len() == before {
                return Poll::Pending;
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
}
