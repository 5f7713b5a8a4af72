use super::*;
use crate::stalls::StallFigures;
use std::cell::RefCell;
use std::rc::Rc;
use std::task::Poll;

/// One that tells of what holds the core for more than 2 ms.
fn executor() -> Arc<Executor> {
    Executor::new(0, RemoteWaker::new().unwrap(), 2_000_000)
}

/// One activation, with nobody served before it.
fn activate(executor: &Executor) {
    let now = monotonic_nanoseconds();
    executor.rested_until(now);
    executor.run(now, false, || false);
}

fn yield_now() -> impl Future<Output = ()> {
    let mut yielded = false;
    std::future::poll_fn(move |context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

fn burn(nanoseconds: u64) {
    let start = monotonic_nanoseconds();
    while monotonic_nanoseconds() - start < nanoseconds {}
}

/// Spawns a task that runs in slices for ever and adds up how long it ran.
fn spawn_busy(executor: &Arc<Executor>, queue: TaskQueue) -> Rc<Cell<u64>> {
    let ran = Rc::new(Cell::new(0));
    let counter = Rc::clone(&ran);
    executor.spawn(queue, async move {
        loop {
            let start = monotonic_nanoseconds();
            burn(20_000);
            counter.set(counter.get() + monotonic_nanoseconds() - start);
            yield_now().await;
        }
    });
    ran
}

/// Shares are shares of time, and other processes take time too: a run that was disturbed says
/// nothing, but a wrong share is wrong in every run.
fn is_so_in_an_undisturbed_run(run: impl Fn() -> bool) -> bool {
    const RUNS_MAX: usize = 20;
    (0..RUNS_MAX).any(|_| run())
}

fn run_for(executor: &Arc<Executor>, nanoseconds: u64) {
    let start = monotonic_nanoseconds();
    while monotonic_nanoseconds() - start < nanoseconds {
        activate(executor);
    }
}

#[test]
fn busy_queues_share_by_their_shares() {
    let has_due_shares = || {
        let executor = executor();
        let ran = [TaskQueue::Flush, TaskQueue::Compaction, TaskQueue::GarbageCollection]
            .map(|queue| spawn_busy(&executor, queue));
        run_for(&executor, 100_000_000);
        executor.close();
        let total: u64 = ran.iter().map(|ran| ran.get()).sum();
        let is_due = |ran: &Rc<Cell<u64>>, share: f64| {
            (ran.get() as f64 / total as f64 - share / 700.0).abs() < 0.1
        };
        is_due(&ran[0], 400.0) && is_due(&ran[1], 200.0) && is_due(&ran[2], 100.0)
    };
    assert!(is_so_in_an_undisturbed_run(has_due_shares));
}

#[test]
fn a_queue_that_slept_earns_no_credit() {
    let has_no_credit = || {
        let executor = executor();
        let flush = spawn_busy(&executor, TaskQueue::Flush);
        run_for(&executor, 50_000_000);
        let before = flush.get();
        let late = spawn_busy(&executor, TaskQueue::Compaction);
        run_for(&executor, 60_000_000);
        executor.close();
        let (flush, late) = ((flush.get() - before) as f64, late.get() as f64);
        (late / (flush + late) - 1.0 / 3.0).abs() < 0.15
    };
    assert!(is_so_in_an_undisturbed_run(has_no_credit));
}

#[test]
fn an_activation_ends_with_the_quantum() {
    let executor = executor();
    let ran = spawn_busy(&executor, TaskQueue::Compaction);
    activate(&executor);
    let slices = ran.get() / 20_000;
    assert!(slices >= 1, "it ran");
    assert!(executor.has_ready(), "it is still ready");
    executor.close();
    assert!(!executor.has_ready());
}

#[test]
fn an_urgent_task_runs_before_the_backlog() {
    let executor = executor();
    let order = Rc::new(RefCell::new(Vec::new()));
    for queue in [TaskQueue::Maintenance, TaskQueue::Scan, TaskQueue::Foreground] {
        let order = Rc::clone(&order);
        executor.spawn(queue, async move { order.borrow_mut().push(queue) });
    }
    activate(&executor);
    assert_eq!(*order.borrow(), [TaskQueue::Foreground, TaskQueue::Scan, TaskQueue::Maintenance]);
    assert_eq!(executor.tasks(), 0, "ended tasks are forgotten");
    executor.close();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test needs another thread")]
fn another_threads_wake_runs_the_task_here() {
    let executor = executor();
    let (sender, receiver) = std::sync::mpsc::channel::<Waker>();
    let done = Rc::new(Cell::new(false));
    let flag = Rc::clone(&done);
    executor.spawn(TaskQueue::Foreground, async move {
        let mut polled = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut polled, true) {
                return Poll::Ready(());
            }
            sender.send(context.waker().clone()).unwrap();
            Poll::Pending
        })
        .await;
        flag.set(true);
    });
    activate(&executor);
    assert!(!executor.has_ready());
    std::thread::spawn(move || receiver.recv().unwrap().wake()).join().unwrap();
    assert!(executor.has_ready());
    activate(&executor);
    assert!(done.get());
    executor.close();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test needs another thread")]
fn closing_drops_all_futures_and_late_wakers_do_no_harm() {
    let executor = executor();
    let alive = Rc::new(());
    let (sender, receiver) = std::sync::mpsc::channel::<Waker>();
    for _ in 0..10 {
        let (alive, sender) = (Rc::clone(&alive), sender.clone());
        executor.spawn(TaskQueue::Scan, async move {
            std::future::poll_fn(|context| {
                sender.send(context.waker().clone()).unwrap();
                Poll::<()>::Pending
            })
            .await;
            drop(alive);
        });
    }
    activate(&executor);
    assert_eq!(Rc::strong_count(&alive), 11);
    executor.close();
    assert_eq!(Rc::strong_count(&alive), 1);
    std::thread::spawn(move || receiver.try_iter().for_each(Waker::wake)).join().unwrap();
    let later = Rc::clone(&alive);
    executor.spawn(TaskQueue::Scan, async move { drop(later) });
    assert_eq!(Rc::strong_count(&alive), 1, "a closed executor takes no tasks");
}

#[test]
fn a_panic_reaches_the_caller_of_run() {
    let executor = executor();
    executor.spawn(TaskQueue::Flush, async { panic!("the disk is upside down") });
    let panic = catch_unwind(AssertUnwindSafe(|| activate(&executor))).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"the disk is upside down"));
    executor.close();
}

#[test]
fn a_task_that_does_not_yield_is_noted_with_its_queue() {
    let executor = executor();
    executor.spawn(TaskQueue::Flush, async { burn(3_000_000) });
    executor.spawn(TaskQueue::Scan, async {
        for _ in 0..10 {
            yield_now().await;
        }
    });
    while executor.has_ready() {
        activate(&executor);
    }
    let figures = executor.figures();
    assert_eq!(figures.stalls.counts[TaskQueue::Flush as usize], 1);
    assert!(figures.stalls.longest >= 3_000_000, "{figures:?}");
    assert!(figures.cpu.queues[TaskQueue::Flush as usize] >= 3_000_000, "{figures:?}");
    executor.close();
}

#[test]
fn a_service_that_holds_the_core_is_noted_as_foreground() {
    let executor = executor();
    let now = monotonic_nanoseconds();
    executor.rested_until(now);
    assert_eq!(executor.served_until(now + 1_000_000), None);
    assert_eq!(executor.served_until(now + 4_000_000), Some(3_000_000));
    let note = |nanoseconds, at| {
        let asked = Cell::new(false);
        let what = || {
            asked.set(true);
            "a connection".to_owned()
        };
        executor.tell_of_stall(TaskQueue::Foreground, nanoseconds, at, what);
        asked.get()
    };
    assert!(note(3_000_000, now + 4_000_000) && !note(9_000_000, now + 5_000_000));
    let figures = executor.figures();
    let expected = StallFigures { counts: [2, 0, 0, 0, 0, 0], longest: 9_000_000 };
    assert_eq!((figures.stalls, figures.cpu.queues[0]), (expected, 4_000_000));
    executor.close();
}

#[test]
fn a_service_that_waits_has_the_core_when_it_is_its_turn() {
    let executor = executor();
    let ran = spawn_busy(&executor, TaskQueue::Maintenance);
    let now = monotonic_nanoseconds();
    executor.rested_until(now);
    executor.run(now, true, || false);
    assert_eq!(ran.get(), 0, "of equals the more urgent one has it");
    assert!(executor.has_ready(), "the task waits for its turn");
    executor.served_until(monotonic_nanoseconds() + 1000);
    activate(&executor);
    assert!(ran.get() > 0);
    executor.close();
}

#[test]
fn an_urgent_queue_has_more_shares_until_it_is_not() {
    let executor = executor();
    executor.set_urgency(TaskQueue::Compaction, 5000);
    assert_eq!(executor.figures().task_shares, [1000, 400, 1000, 100, 100, 50]);
    executor.set_urgency(TaskQueue::Compaction, 1000);
    assert_eq!(executor.figures().task_shares, [1000, 400, 200, 100, 100, 50]);
    executor.close();
}
