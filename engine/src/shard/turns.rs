//! Who may work on a key: operations that have to wait for the device take turns, key by key.
//!
//! An operation that is answered at once never waits. One that is not takes a place in its key's
//! line when it arrives, and every later operation on that key lines up behind it, so that
//! operations on one key happen in the order in which they arrived and none sees a half-done other.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use ahash::RandomState;
use hashbrown::HashMap;

struct Lines {
    lines: HashMap<u64, VecDeque<Waiting>, RandomState>,
    next_ticket: u64,
}

impl Default for Lines {
    fn default() -> Self {
        // The keys are hashes of client keys already; a fixed seed keeps runs repeatable.
        let hasher = RandomState::with_seeds(1, 2, 3, 4);
        Self { lines: HashMap::with_hasher(hasher), next_ticket: 0 }
    }
}

struct Waiting {
    ticket: u64,
    waker: Option<Waker>,
}

/// The lines of all keys, by the key's hash. Two keys with one hash share a line, which is
/// harmless.
#[derive(Clone, Default)]
pub(super) struct Turns {
    lines: Rc<RefCell<Lines>>,
}

/// A place in a key's line; leaving it lets the next one go.
pub(super) struct Turn {
    turns: Turns,
    hash: u64,
    ticket: u64,
}

impl Turns {
    /// Whether somebody works on the key with this hash, or waits to. The hash is asked for only if
    /// somebody works on any.
    pub(super) fn is_taken(&self, hash: impl FnOnce() -> u64) -> bool {
        let lines = self.lines.borrow();
        !lines.lines.is_empty() && lines.lines.contains_key(&hash())
    }

    /// Takes the next place in the key's line.
    pub(super) fn enter(&self, hash: u64) -> Turn {
        let mut lines = self.lines.borrow_mut();
        let ticket = lines.next_ticket;
        lines.next_ticket += 1;
        lines.lines.entry(hash).or_default().push_back(Waiting { ticket, waker: None });
        Turn { turns: self.clone(), hash, ticket }
    }

    /// How many keys have a line.
    pub(super) fn len(&self) -> usize {
        self.lines.borrow().lines.len()
    }
}

impl Turn {
    /// Completes when everyone before has left.
    pub(super) async fn come(&self) {
        poll_fn(|context| {
            let mut lines = self.turns.lines.borrow_mut();
            let line = lines.lines.get_mut(&self.hash).expect("a turn stays in line until dropped");
            let mine = line.iter().position(|waiting| waiting.ticket == self.ticket);
            let mine = mine.expect("a turn stays in line until dropped");
            if mine == 0 {
                return Poll::Ready(());
            }
            line[mine].waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lines = self.turns.lines.borrow_mut();
        let Some(line) = lines.lines.get_mut(&self.hash) else { return };
        line.retain(|waiting| waiting.ticket != self.ticket);
        let next = line.front_mut().and_then(|waiting| waiting.waker.take());
        if line.is_empty() {
            lines.lines.remove(&self.hash);
        }
        drop(lines);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future;

    #[test]
    fn operations_on_one_key_go_in_the_order_of_arrival() {
        let turns = Turns::default();
        let order = RefCell::new(Vec::new());
        let places: Vec<Turn> = (0..3).map(|_| turns.enter(7)).collect();
        assert!(turns.is_taken(|| 7) && !turns.is_taken(|| 8));
        let mut work: Vec<_> = places
            .into_iter()
            .enumerate()
            .map(|(index, turn)| {
                let order = &order;
                Box::pin(async move {
                    turn.come().await;
                    future::yield_now().await;
                    order.borrow_mut().push(index);
                })
            })
            .collect();
        let mut last = work.pop().expect("three");
        let mut middle = work.pop().expect("three");
        let first = work.pop().expect("three");
        future::block_on(future::zip(last.as_mut(), future::zip(middle.as_mut(), first)));
        assert_eq!(*order.borrow(), [0, 1, 2]);
        drop((last, middle));
        assert_eq!(turns.len(), 0);
    }

    #[test]
    fn leaving_early_lets_the_next_one_go() {
        let turns = Turns::default();
        let first = turns.enter(7);
        let second = turns.enter(7);
        drop(first);
        future::block_on(second.come());
    }
}
