use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use super::ParkWord;
use crate::mailbox::{Receiver, Sender, channel};

#[test]
fn a_sleep_is_claimed_by_one_notifier() {
    let word = ParkWord::new();
    assert!(!word.notify(), "the owner is awake");
    assert!(word.prepare());
    assert!(word.notify());
    assert!(!word.notify(), "already claimed");
    word.awake();
    assert!(!word.notify(), "the owner is awake again");
    assert!(word.prepare());
    assert!(word.notify(), "another sleep, another wake-up");
}

#[test]
fn a_cancelled_sleep_needs_no_wake_up() {
    let word = ParkWord::new();
    assert!(word.prepare());
    word.cancel();
    assert!(!word.notify());
    assert!(word.prepare());
}

#[test]
fn a_wake_up_for_a_cancelled_sleep_holds_off_the_next_sleep_once() {
    let word = ParkWord::new();
    assert!(word.prepare());
    assert!(word.notify());
    word.cancel();
    assert!(!word.notify(), "that wake-up is still under way");
    assert!(!word.prepare());
    assert!(!word.notify(), "the owner is awake");
    assert!(word.prepare());
    assert!(word.notify());
}

#[test]
fn an_owner_that_woke_by_itself_is_awake() {
    let word = ParkWord::new();
    assert!(word.prepare());
    word.awake();
    assert!(!word.notify());
    assert!(word.prepare());
}

#[test]
#[should_panic(expected = "no cancel or awake")]
fn preparing_twice_is_a_programmer_error() {
    let word = ParkWord::new();
    assert!(word.prepare());
    let _never = word.prepare();
}

#[test]
#[should_panic(expected = "cancel without prepare")]
fn cancelling_nothing_is_a_programmer_error() {
    ParkWord::new().cancel();
}

/// An eventfd in user space.
#[derive(Default)]
struct Wake {
    pending: Mutex<bool>,
    delivered: Condvar,
}

impl Wake {
    fn deliver(&self) {
        *self.pending.lock().expect("not poisoned") = true;
        self.delivered.notify_one();
    }

    /// Blocks until a wake-up was delivered. One that takes this long was lost.
    fn wait(&self) {
        let pending = self.pending.lock().expect("not poisoned");
        let (mut pending, result) = self
            .delivered
            .wait_timeout_while(pending, Duration::from_secs(60), |pending| !*pending)
            .expect("not poisoned");
        assert!(!result.timed_out(), "a message was published and nobody woke the owner");
        *pending = false;
    }
}

/// Sends `count` numbers in varying batches, and waits for room without ever sleeping.
fn produce(mut sender: Sender<u64>, count: u64, batch_max: usize, wake: impl Fn()) {
    for number in 0..count {
        while sender.push(number).is_err() {
            if sender.publish() {
                wake();
            }
            thread::yield_now();
        }
        // Long and short gaps between batches, so that the owner is met awake, asleep, and on the
        // way from one to the other.
        if sender.staged() > number as usize % batch_max && sender.publish() {
            wake();
            for _ in 0..(number % 97) * 8 {
                std::hint::spin_loop();
            }
        }
    }
    if sender.publish() {
        wake();
    }
}

#[test]
fn producers_and_a_sleeping_owner_lose_nothing() {
    const PRODUCERS: usize = 3;
    const COUNT: u64 = 60_000;
    let word = ParkWord::new();
    let wake = Wake::default();
    thread::scope(|scope| {
        let (word, wake) = (&word, &wake);
        let mut receivers = Vec::new();
        for producer in 0..PRODUCERS {
            let (sender, receiver) = channel(16);
            receivers.push(receiver);
            scope.spawn(move || {
                produce(sender, COUNT, 1 + 4 * producer, || {
                    if word.notify() {
                        wake.deliver();
                    }
                });
            });
        }
        let mut expected = [0; PRODUCERS];
        while expected.iter().sum::<u64>() < PRODUCERS as u64 * COUNT {
            if take_all(&mut receivers, &mut expected) || !word.prepare() {
                continue;
            }
            if receivers.iter_mut().all(Receiver::is_empty) {
                wake.wait();
                word.awake();
            } else {
                word.cancel();
            }
        }
    });
}

/// Takes what is there and checks the order; whether there was anything.
fn take_all(receivers: &mut [Receiver<u64>], expected: &mut [u64]) -> bool {
    let mut found = false;
    for (receiver, expected) in receivers.iter_mut().zip(expected) {
        while let Some(number) = receiver.pop() {
            assert_eq!(number, *expected);
            *expected += 1;
            found = true;
        }
    }
    found
}
