//! Model checks of the word alone and together with the mailbox. A wake-up that is lost shows as a
//! deadlock, which loom reports.

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::ParkWord;
use crate::mailbox::{Receiver, Sender, channel};

/// A core with its word and what wakes it, and counts of both sides' doings.
struct Core {
    word: ParkWord,
    /// An eventfd: the count of undelivered wake-ups.
    wakes: Mutex<usize>,
    delivered: Condvar,
    wakes_sent: AtomicUsize,
    sleeps_announced: AtomicUsize,
}

impl Core {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            word: ParkWord::new(),
            wakes: Mutex::new(0),
            delivered: Condvar::new(),
            wakes_sent: AtomicUsize::new(0),
            sleeps_announced: AtomicUsize::new(0),
        })
    }

    /// What a notifier does after publishing.
    fn notify(&self) {
        if self.word.notify() {
            self.wakes_sent.fetch_add(1, Ordering::Relaxed);
            *self.wakes.lock().expect("not poisoned") += 1;
            self.delivered.notify_one();
        }
    }

    /// The owner's blocking call: returns once at least one wake-up was delivered, and takes all.
    fn sleep(&self) {
        let mut wakes = self.wakes.lock().expect("not poisoned");
        while *wakes == 0 {
            wakes = self.delivered.wait(wakes).expect("not poisoned");
        }
        *wakes = 0;
    }

    /// The owner's loop until `look` finds something.
    fn wait_for<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            if let Some(found) = look() {
                return found;
            }
            if !self.word.prepare() {
                continue;
            }
            self.sleeps_announced.fetch_add(1, Ordering::Relaxed);
            if let Some(found) = look() {
                self.word.cancel();
                return found;
            }
            self.sleep();
            self.word.awake();
        }
    }

    /// Called when all threads have joined.
    fn check_counts(&self) {
        let sent = self.wakes_sent.load(Ordering::Relaxed);
        let announced = self.sleeps_announced.load(Ordering::Relaxed);
        assert!(sent <= announced, "{sent} wake-ups for {announced} sleeps");
    }
}

/// Loom runs every interleaving with up to this many preemptions; without a bound, the checks with
/// three threads take hours.
const PREEMPTIONS_MAX: usize = 3;

fn model_bounded(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    builder.check(body);
}

/// Two threads share a flag that carries no order of its own: the fences alone must do.
#[test]
fn loom_a_relaxed_flag_is_never_missed() {
    loom::model(|| {
        let core = Core::new();
        let stop = Arc::new(AtomicBool::new(false));
        let notifier = {
            let (core, stop) = (core.clone(), stop.clone());
            thread::spawn(move || {
                stop.store(true, Ordering::Relaxed);
                core.notify();
            })
        };
        core.wait_for(|| stop.load(Ordering::Relaxed).then_some(()));
        notifier.join().expect("the notifier panicked");
        core.check_counts();
    });
}

#[test]
fn loom_two_notifiers_wake_a_sleep_once() {
    model_bounded(|| {
        let core = Core::new();
        let flags = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
        let notifiers = [0, 1].map(|index| {
            let (core, flags) = (core.clone(), flags.clone());
            thread::spawn(move || {
                flags[index].store(true, Ordering::Relaxed);
                core.notify();
            })
        });
        for flag in flags.iter() {
            core.wait_for(|| flag.load(Ordering::Relaxed).then_some(()));
        }
        for notifier in notifiers {
            notifier.join().expect("a notifier panicked");
        }
        core.check_counts();
    });
}

/// The owner announces a sleep and cancels it, so that a wake-up for it may still be under way
/// when the next sleep begins.
#[test]
fn loom_a_stale_wake_up_is_harmless() {
    loom::model(|| {
        let core = Core::new();
        let progress = Arc::new(AtomicUsize::new(0));
        let notifier = {
            let (core, progress) = (core.clone(), progress.clone());
            thread::spawn(move || {
                for step in 1..=2 {
                    progress.store(step, Ordering::Relaxed);
                    core.notify();
                }
            })
        };
        if core.word.prepare() {
            core.sleeps_announced.fetch_add(1, Ordering::Relaxed);
            core.word.cancel();
        }
        core.wait_for(|| (progress.load(Ordering::Relaxed) == 2).then_some(()));
        notifier.join().expect("the notifier panicked");
        core.check_counts();
    });
}

fn send(sender: &mut Sender<u32>, core: &Core, batch: &[u32]) {
    for &message in batch {
        sender.push(message).expect("the ring is large enough");
    }
    assert!(sender.publish());
    core.notify();
}

fn receive(receiver: &mut Receiver<u32>, core: &Core) -> u32 {
    core.wait_for(|| receiver.pop())
}

#[test]
fn loom_a_published_message_always_reaches_a_sleeping_owner() {
    loom::model(|| {
        let core = Core::new();
        let (mut sender, mut receiver) = channel(4);
        let producer = {
            let core = core.clone();
            thread::spawn(move || {
                send(&mut sender, &core, &[1]);
                send(&mut sender, &core, &[2, 3]);
            })
        };
        for expected in 1..=3 {
            assert_eq!(receive(&mut receiver, &core), expected);
        }
        producer.join().expect("the producer panicked");
        core.check_counts();
    });
}

#[test]
fn loom_messages_of_two_producers_reach_a_sleeping_owner() {
    model_bounded(|| {
        let core = Core::new();
        let (producers, mut receivers): (Vec<_>, Vec<_>) = [10, 20]
            .map(|message| {
                let (mut sender, receiver) = channel(2);
                let core = core.clone();
                (thread::spawn(move || send(&mut sender, &core, &[message])), receiver)
            })
            .into_iter()
            .unzip();
        let mut sum = 0;
        for _ in 0..2 {
            sum += core.wait_for(|| receivers.iter_mut().find_map(Receiver::pop));
        }
        assert_eq!(sum, 30);
        for producer in producers {
            producer.join().expect("a producer panicked");
        }
        core.check_counts();
    });
}

/// The last thing a core hears may be that its peer is gone; that must wake it too.
#[test]
fn loom_a_disconnect_reaches_a_sleeping_owner() {
    loom::model(|| {
        let core = Core::new();
        let (sender, receiver) = channel::<u32>(2);
        let producer = {
            let core = core.clone();
            thread::spawn(move || {
                drop(sender);
                core.notify();
            })
        };
        core.wait_for(|| receiver.is_disconnected().then_some(()));
        producer.join().expect("the producer panicked");
        core.check_counts();
    });
}
