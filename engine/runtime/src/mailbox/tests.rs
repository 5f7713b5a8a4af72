use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;

use proptest::prelude::*;

use super::{Ring, channel, channel_from};

#[test]
fn messages_are_invisible_until_they_are_published() {
    let (mut sender, mut receiver) = channel(4);
    assert!(!sender.publish());
    sender.push(1).unwrap();
    sender.push(2).unwrap();
    assert_eq!(sender.staged(), 2);
    assert!(receiver.is_empty());
    assert_eq!(receiver.pop(), None);
    assert!(sender.publish());
    assert_eq!(sender.staged(), 0);
    assert!(!sender.publish());
    assert!(!receiver.is_empty());
    assert_eq!(receiver.pop(), Some(1));
    assert_eq!(receiver.pop(), Some(2));
    assert_eq!(receiver.pop(), None);
}

#[test]
fn a_full_ring_returns_the_message_and_staged_ones_count() {
    let (mut sender, mut receiver) = channel(2);
    sender.push("published").unwrap();
    sender.publish();
    sender.push("staged").unwrap();
    assert_eq!(sender.push("refused"), Err("refused"));
    assert_eq!(receiver.pop(), Some("published"));
    sender.push("accepted").unwrap();
    assert_eq!(sender.push("refused"), Err("refused"));
    sender.publish();
    assert_eq!(receiver.pop(), Some("staged"));
    assert_eq!(receiver.pop(), Some("accepted"));
    assert_eq!(receiver.pop(), None);
}

#[test]
#[should_panic(expected = "not a power of two")]
fn a_capacity_that_is_no_power_of_two_is_a_programmer_error() {
    let _ends = channel::<u8>(3);
}

#[test]
#[should_panic(expected = "not a power of two")]
fn a_capacity_of_zero_is_a_programmer_error() {
    let _ends = channel::<u8>(0);
}

#[test]
fn either_side_notices_that_the_other_is_gone() {
    let (mut sender, mut receiver) = channel(2);
    assert!(!sender.is_disconnected() && !receiver.is_disconnected());
    sender.push(5).unwrap();
    sender.publish();
    sender.push(6).unwrap();
    drop(sender);
    assert!(receiver.is_disconnected());
    assert_eq!(receiver.pop(), Some(5), "published before the end");
    assert_eq!(receiver.pop(), None, "never published");

    let (sender, receiver) = channel::<u8>(2);
    drop(receiver);
    assert!(sender.is_disconnected());
}

#[test]
fn the_sides_and_the_slots_are_on_separate_lines() {
    let sender = std::mem::offset_of!(Ring<u64>, sender);
    let receiver = std::mem::offset_of!(Ring<u64>, receiver);
    let slots = std::mem::offset_of!(Ring<u64>, slots);
    assert_eq!(align_of::<Ring<u64>>(), 128);
    assert_ne!(sender / 128, receiver / 128);
    assert_ne!(sender / 128, slots / 128);
    assert_ne!(receiver / 128, slots / 128);
}

/// What a ring may be asked to do.
#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    Publish,
    Pop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![4 => Just(Step::Push), 1 => Just(Step::Publish), 3 => Just(Step::Pop)]
}

proptest! {
    /// Against two plain queues, around the end of the index range, with drops at any point.
    #[test]
    fn the_ring_behaves_like_a_queue_and_drops_each_message_once(
        capacity_bits in 0u32..4,
        before_wrap in 0usize..20,
        steps in proptest::collection::vec(step(), 0..120),
        sender_goes_first: bool,
    ) {
        let capacity = 1usize << capacity_bits;
        let tracker = Arc::new(());
        let first = usize::MAX - before_wrap;
        let (mut sender, mut receiver) = channel_from::<(u32, Arc<()>)>(capacity, first);
        let mut staged = VecDeque::new();
        let mut visible = VecDeque::new();
        for (number, step) in (0u32..).zip(steps) {
            match step {
                Step::Push => {
                    let accepted = sender.push((number, tracker.clone())).is_ok();
                    prop_assert_eq!(accepted, staged.len() + visible.len() < capacity);
                    if accepted {
                        staged.push_back(number);
                    }
                }
                Step::Publish => {
                    prop_assert_eq!(sender.publish(), !staged.is_empty());
                    visible.append(&mut staged);
                }
                Step::Pop => {
                    prop_assert_eq!(receiver.is_empty(), visible.is_empty());
                    prop_assert_eq!(receiver.pop().map(|message| message.0), visible.pop_front());
                }
            }
            prop_assert_eq!(sender.staged(), staged.len());
            let alive = staged.len() + visible.len();
            prop_assert_eq!(Arc::strong_count(&tracker), 1 + alive);
        }
        if sender_goes_first {
            drop(sender);
            prop_assert_eq!(Arc::strong_count(&tracker), 1 + visible.len());
            drop(receiver);
        } else {
            drop(receiver);
            drop(sender);
        }
        prop_assert_eq!(Arc::strong_count(&tracker), 1);
    }
}

/// Sends `count` numbers through a ring in batches of 1 to `capacity`, from another thread.
fn stress(capacity: usize, count: u64) {
    let (mut sender, mut receiver) = channel(capacity);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut batch = 1;
            for number in 0..count {
                let mut message = Box::new(number);
                while let Err(refused) = sender.push(message) {
                    message = refused;
                    sender.publish();
                    thread::yield_now();
                }
                if sender.staged() >= batch {
                    sender.publish();
                    batch = batch % capacity + 1;
                }
            }
            sender.publish();
        });
        let mut expected = 0;
        loop {
            let ended = receiver.is_disconnected();
            while let Some(message) = receiver.pop() {
                assert_eq!(*message, expected);
                expected += 1;
            }
            if ended {
                break;
            }
            thread::yield_now();
        }
        assert_eq!(expected, count);
    });
}

#[test]
fn two_threads_lose_and_reorder_nothing() {
    stress(1, 20_000);
    stress(2, 50_000);
    stress(64, 400_000);
}

#[test]
fn a_receiver_that_leaves_in_the_middle_leaks_nothing() {
    for round in 0..300 {
        let tracker = Arc::new(());
        let (mut sender, mut receiver) = channel(8);
        thread::scope(|scope| {
            let tracker = &tracker;
            scope.spawn(move || {
                while !sender.is_disconnected() {
                    if sender.push(tracker.clone()).is_err() {
                        sender.publish();
                        thread::yield_now();
                    }
                }
            });
            for _ in 0..round {
                drop(receiver.pop());
            }
            drop(receiver);
        });
        assert_eq!(Arc::strong_count(&tracker), 1);
    }
}

#[test]
fn messages_without_size_are_counted() {
    let (mut sender, mut receiver) = channel(2);
    sender.push(()).unwrap();
    sender.push(()).unwrap();
    assert_eq!(sender.push(()), Err(()));
    sender.publish();
    assert_eq!(receiver.pop(), Some(()));
    assert_eq!(receiver.pop(), Some(()));
    assert_eq!(receiver.pop(), None);
}

#[test]
fn a_message_whose_drop_panics_is_dropped_once() {
    struct Bomb(Arc<()>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(Arc::strong_count(&self.0) != 2, "boom");
        }
    }
    let tracker = Arc::new(());
    let (mut sender, receiver) = channel(2);
    assert!(sender.push(Bomb(tracker.clone())).is_ok());
    let unwinding = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(sender)));
    assert!(unwinding.is_err());
    drop(receiver);
    assert_eq!(Arc::strong_count(&tracker), 1);
}

#[test]
fn the_sender_knows_what_was_not_taken() {
    let (mut sender, mut receiver) = channel::<u32>(4);
    assert_eq!(sender.waiting(), 0);
    for message in 0..3 {
        sender.push(message).unwrap();
    }
    assert_eq!(sender.waiting(), 3, "staged messages are with the sender");
    sender.publish();
    assert_eq!((receiver.pop(), sender.waiting()), (Some(0), 2));
    assert_eq!((receiver.pop(), receiver.pop(), sender.waiting()), (Some(1), Some(2), 0));
}
