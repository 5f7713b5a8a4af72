//! What tasks and timers go through, whatever runs the core.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::Make;
use crate::clock::monotonic_nanoseconds;
use crate::core_env::CoreEnv;
use crate::core_runtime::CoreRuntime;
use crate::core_thread::CoreOptions;
use crate::env::{Env, TaskQueue};

pub(super) fn timers_wake_in_order_and_not_early<C: CoreRuntime>(make: Make<C>) {
    let mut core = make(CoreOptions::default());
    let env = core.env();
    let order = Rc::new(RefCell::new(Vec::new()));
    for milliseconds in [30, 10, 20] {
        let (timer, order) = (env.clone(), Rc::clone(&order));
        env.spawn(TaskQueue::Maintenance, async move {
            timer.sleep(milliseconds * 1_000_000).await;
            order.borrow_mut().push(milliseconds);
        });
    }
    let start = monotonic_nanoseconds();
    core.block_on(env.sleep(40_000_000));
    assert!(monotonic_nanoseconds() - start >= 40_000_000);
    assert_eq!(*order.borrow(), [10, 20, 30]);
}

#[allow(clippy::disallowed_methods, reason = "the wake-up comes from another thread")]
pub(super) fn another_thread_wakes_a_sleeping_core<C: CoreRuntime>(make: Make<C>) {
    let mut core = make(CoreOptions::default());
    for round in 0..20 {
        let is_done = Arc::new(AtomicBool::new(false));
        let (flag, sender) = (Arc::clone(&is_done), mpsc::channel::<Waker>());
        let (sender, receiver) = sender;
        let thread = std::thread::spawn(move || {
            let waker = receiver.recv().unwrap();
            if round % 2 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
            flag.store(true, Ordering::SeqCst);
            waker.wake();
        });
        core.block_on(std::future::poll_fn(|context| {
            if is_done.load(Ordering::SeqCst) {
                return Poll::Ready(());
            }
            let _gone = sender.send(context.waker().clone());
            Poll::Pending
        }));
        thread.join().unwrap();
    }
    let counters = core.env().figures().turns;
    assert!(counters.wakes >= 5, "{counters:?}");
    core.shutdown();
}

#[allow(clippy::disallowed_methods, reason = "the wake-up comes from another thread")]
pub(super) fn a_task_is_woken_by_another_thread<C: CoreRuntime>(make: Make<C>) {
    let mut core = make(CoreOptions::default());
    let env = core.env();
    let (sender, receiver) = mpsc::channel::<Waker>();
    let is_done = Rc::new(Cell::new(false));
    let flag = Rc::clone(&is_done);
    env.spawn(TaskQueue::Foreground, async move {
        let mut is_polled = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut is_polled, true) {
                return Poll::Ready(());
            }
            sender.send(context.waker().clone()).unwrap();
            Poll::Pending
        })
        .await;
        flag.set(true);
    });
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        receiver.recv().unwrap().wake();
    });
    core.block_on(async {
        while !is_done.get() {
            env.sleep(50_000_000).await;
        }
    });
    thread.join().unwrap();
}

pub(super) fn a_panicking_task_ends_the_loop_with_its_panic<C: CoreRuntime>(make: Make<C>) {
    let mut core = make(CoreOptions::default());
    let env = core.env();
    env.spawn(TaskQueue::Flush, async { panic!("a broken invariant") });
    let run = std::panic::AssertUnwindSafe(|| core.block_on(env.sleep(1_000_000_000)));
    let panic = std::panic::catch_unwind(run).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"a broken invariant"));
}
