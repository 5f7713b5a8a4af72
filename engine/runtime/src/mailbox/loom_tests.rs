//! Model checks: loom runs each body under every interleaving and every legal weak-memory outcome,
//! and fails on a data race on a slot, on a leaked or twice dropped message, and on a deadlock.

use loom::sync::Arc;
use loom::thread;

use super::{Receiver, Sender, channel, channel_from};

fn push_until_accepted<T: Send>(sender: &mut Sender<T>, mut message: T) {
    while let Err(refused) = sender.push(message) {
        message = refused;
        thread::yield_now();
    }
}

fn pop_until_there<T: Send>(receiver: &mut Receiver<T>) -> T {
    loop {
        if let Some(message) = receiver.pop() {
            return message;
        }
        thread::yield_now();
    }
}

#[test]
fn loom_messages_arrive_once_and_in_order_around_the_ring() {
    loom::model(|| {
        // The indices wrap in the middle of the run too.
        let (mut sender, mut receiver) = channel_from(2, usize::MAX - 1);
        let producer = thread::spawn(move || {
            for number in 0..3 {
                push_until_accepted(&mut sender, Box::new(number));
                assert!(sender.publish());
            }
        });
        for number in 0..3 {
            assert_eq!(*pop_until_there(&mut receiver), number);
        }
        assert!(receiver.is_empty());
        producer.join().expect("the producer panicked");
    });
}

#[test]
fn loom_a_batch_becomes_visible_as_a_whole() {
    loom::model(|| {
        let (mut sender, mut receiver) = channel(4);
        let producer = thread::spawn(move || {
            for batch in [[1, 2], [3, 4]] {
                for message in batch {
                    sender.push(message).expect("four messages fit");
                }
                assert_eq!(sender.staged(), 2);
                assert!(sender.publish());
                assert_eq!(sender.staged(), 0);
            }
        });
        for first in [1, 3] {
            assert_eq!(pop_until_there(&mut receiver), first);
            assert_eq!(receiver.pop(), Some(first + 1), "half a batch was visible");
        }
        producer.join().expect("the producer panicked");
    });
}

#[test]
fn loom_staged_messages_are_invisible_and_dropped_with_the_sender() {
    loom::model(|| {
        let tracker = Arc::new(());
        let (mut sender, mut receiver) = channel(2);
        let message = tracker.clone();
        let producer = thread::spawn(move || {
            sender.push(message).expect("the ring is empty");
        });
        assert!(receiver.pop().is_none());
        producer.join().expect("the producer panicked");
        assert!(receiver.is_disconnected());
        assert!(receiver.pop().is_none());
        assert_eq!(Arc::strong_count(&tracker), 1);
    });
}

#[test]
fn loom_dropping_both_sides_at_once_drops_each_message_once() {
    loom::model(|| {
        let tracker = Arc::new(());
        let (mut sender, mut receiver) = channel(4);
        let messages = [tracker.clone(), tracker.clone(), tracker.clone()];
        let producer = thread::spawn(move || {
            let [first, second, third] = messages;
            assert!(sender.push(first).is_ok());
            assert!(sender.push(second).is_ok());
            assert!(sender.publish());
            assert!(sender.push(third).is_ok());
        });
        drop(receiver.pop());
        drop(receiver);
        producer.join().expect("the producer panicked");
        assert_eq!(Arc::strong_count(&tracker), 1);
    });
}

#[test]
fn loom_the_receiver_sees_everything_that_was_published_before_the_disconnect() {
    loom::model(|| {
        let (mut sender, mut receiver) = channel(2);
        let producer = thread::spawn(move || {
            sender.push(7).expect("the ring is empty");
            assert!(sender.publish());
        });
        while !receiver.is_disconnected() {
            thread::yield_now();
        }
        assert_eq!(receiver.pop(), Some(7));
        assert_eq!(receiver.pop(), None);
        producer.join().expect("the producer panicked");
    });
}

#[test]
fn loom_the_sender_sees_the_receiver_go_and_gets_nothing_lost() {
    loom::model(|| {
        let tracker = Arc::new(());
        let (mut sender, receiver) = channel(2);
        let consumer = thread::spawn(move || drop(receiver));
        assert!(sender.push(tracker.clone()).is_ok());
        assert!(sender.publish());
        while !sender.is_disconnected() {
            thread::yield_now();
        }
        consumer.join().expect("the consumer panicked");
        drop(sender);
        assert_eq!(Arc::strong_count(&tracker), 1);
    });
}
