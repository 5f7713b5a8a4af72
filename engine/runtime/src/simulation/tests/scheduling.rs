//! Executor, clock and determinism.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::{poll_once, yield_now};

use super::*;
use crate::env::TaskQueue;
use crate::simulation::env::GARBAGE;

const SECOND: u64 = 1_000_000_000;

/// Four workers that write, read, sync and rename as random numbers tell them, with every kind of
/// fault around them.
async fn busy_script(env: SimEnv) {
    let done = Rc::new(Cell::new(0));
    for worker in 0..4u8 {
        let (env, done) = (env.clone(), Rc::clone(&done));
        env.clone().spawn(TaskQueue::Foreground, async move {
            let path = format!("/file-{worker}");
            let file = create(&env, &path).await;
            for step in 0..40 {
                let page = env.random() % 8;
                let _ = match env.random() % 4 {
                    0 => file.sync(CLASS).await,
                    1 => get(&env, &file, page).await.map(drop),
                    _ => put(&env, &file, page, step).await,
                };
                env.yield_if_needed().await;
            }
            let _ = env.rename(Path::new(&path), Path::new(&format!("/done-{worker}"))).await;
            done.set(done.get() + 1);
        });
    }
    while done.get() < 4 {
        env.sleep(50_000).await;
    }
}

fn busy_faults() -> FaultPlan {
    FaultPlan {
        latent_sector_error_per_million: 50_000,
        bit_flip_at_read_per_million: 50_000,
        bit_flip_at_rest_per_million: 50_000,
        stale_write_per_million: 50_000,
        misdirected_write_per_million: 50_000,
        misdirected_read_per_million: 50_000,
        slow_per_million: 50_000,
        ..FaultPlan::default()
    }
}

fn busy_run(seed: u64) -> (Vec<TraceEntry>, Vec<(std::path::PathBuf, Vec<u8>)>) {
    let options = SimulationOptions { record_trace: true, ..with_faults(seed, busy_faults()) };
    let (simulation, result) = run(options, busy_script);
    assert_eq!(result, Ok(()));
    let trace = simulation.trace();
    let disk = simulation.crash();
    let files = disk.files().into_iter().map(|(path, _)| (path.clone(), disk.read_all(path)));
    (trace, files.collect())
}

#[test]
fn the_same_seed_replays_the_same_run() {
    let mut traces = Vec::new();
    for seed in 0..20 {
        let (trace, files) = busy_run(seed);
        assert!(trace.len() > 500, "seed {seed}: the trace has {} entries", trace.len());
        let (again, files_again) = busy_run(seed);
        assert!(trace == again, "seed {seed}: the traces differ");
        assert!(files == files_again, "seed {seed}: the disks differ");
        assert!(!traces.contains(&trace), "seed {seed}: another seed has had this trace");
        traces.push(trace);
    }
}

#[test]
fn tasks_run_in_any_order() {
    let mut orders = BTreeSet::new();
    for seed in 0..100 {
        let (mut simulation, order) = run(options(seed), async |env| {
            let order = Rc::new(RefCell::new(Vec::new()));
            for task in 0..3 {
                let order = Rc::clone(&order);
                env.spawn(TaskQueue::Flush, async move { order.borrow_mut().push(task) });
            }
            order
        });
        simulation.run_until_idle().unwrap();
        orders.insert(order.unwrap().take());
    }
    assert_eq!(orders.len(), 6);
}

#[test]
fn completions_come_back_in_any_order() {
    let mut orders = BTreeSet::new();
    for seed in 0..100 {
        let (mut simulation, order) = run(options(seed), async |env| {
            let file = create(&env, "/file").await;
            let order = Rc::new(RefCell::new(Vec::new()));
            for page in 0..3 {
                let (task, file, order) = (env.clone(), file.clone(), Rc::clone(&order));
                env.spawn(TaskQueue::Flush, async move {
                    put(&task, &file, page, 1).await.unwrap();
                    order.borrow_mut().push(page);
                });
            }
            order
        });
        simulation.run_until_idle().unwrap();
        orders.insert(order.unwrap().take());
    }
    assert_eq!(orders.len(), 6);
}

#[test]
fn a_deadlock_is_reported() {
    let (mut simulation, result) = run(options(1), async |_| pending::<()>().await);
    assert_eq!(result, Err(Stopped::Deadlock));
    // Other tasks that wait for ever do not matter as long as the future resolves.
    simulation.env().spawn(TaskQueue::Maintenance, pending());
    assert_eq!(simulation.block_on(async { 5 }), Ok(5));
}

#[test]
fn a_wake_left_over_from_one_call_does_not_swallow_the_next() {
    let mut simulation = Simulation::new(options(1));
    for _ in 0..3 {
        let wakes_itself = std::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::Ready(5)
        });
        assert_eq!(simulation.block_on(wakes_itself), Ok(5));
        assert_eq!(simulation.run_until_idle(), Ok(()));
    }
}

#[test]
fn an_endless_run_is_given_up() {
    let options = SimulationOptions { turn_limit: 1000, ..options(1) };
    let (_, result) = run(options, async |_| {
        loop {
            yield_now().await;
        }
    });
    assert_eq!(result, Err::<(), _>(Stopped::TurnLimit));
}

#[test]
fn sleepers_wake_in_the_order_of_their_deadlines_and_cost_no_time() {
    let (mut simulation, woken) = run(options(3), async |env| {
        let woken = Rc::new(RefCell::new(Vec::new()));
        for seconds in [300, 100, 200_000] {
            let (task, woken) = (env.clone(), Rc::clone(&woken));
            env.spawn(TaskQueue::Maintenance, async move {
                let start = task.now();
                task.sleep(seconds * SECOND).await;
                assert!(task.now() - start >= seconds * SECOND);
                woken.borrow_mut().push(seconds);
            });
        }
        woken
    });
    let woken = woken.unwrap();
    simulation.run_until_idle().unwrap();
    assert_eq!(*woken.borrow(), []);
    simulation.advance(400 * SECOND).unwrap();
    assert_eq!(*woken.borrow(), [100, 300]);
    simulation.advance(200_000 * SECOND).unwrap();
    assert_eq!(*woken.borrow(), [100, 300, 200_000]);
}

#[test]
fn a_dropped_sleep_leaves_nothing_behind() {
    let (simulation, result) = run(options(3), async |env| {
        let mut long = Box::pin(env.sleep(1000 * SECOND));
        assert!(poll_once(&mut long).await.is_none());
        drop(long);
        pending::<()>().await;
    });
    assert_eq!(result, Err(Stopped::Deadlock));
    assert!(simulation.env().now() < SECOND);
}

#[test]
fn time_passes_while_tasks_are_busy() {
    let (_, result) = run(options(3), async |env| {
        let woken = Rc::new(Cell::new(false));
        let (task, flag) = (env.clone(), Rc::clone(&woken));
        env.spawn(TaskQueue::Foreground, async move {
            task.sleep(1_000_000).await;
            flag.set(true);
        });
        while !woken.get() {
            yield_now().await;
        }
    });
    assert_eq!(result, Ok(()));
}

#[test]
fn the_wall_clock_follows_virtual_time_and_can_be_set() {
    let options = SimulationOptions { unix_seconds: 1000, ..options(3) };
    let mut simulation = Simulation::new(options);
    let env = simulation.env();
    assert_eq!(env.unix_seconds(), 1000);
    simulation.advance(5 * SECOND).unwrap();
    assert_eq!(env.unix_seconds(), 1005);
    let monotonic = env.now();
    simulation.set_unix_seconds(2);
    assert_eq!((env.unix_seconds(), env.now()), (2, monotonic));
    simulation.advance(3 * SECOND).unwrap();
    assert_eq!(env.unix_seconds(), 5);
}

#[test]
fn yields_come_as_often_as_asked() {
    for (per_million, expected) in [(0, 0..=0), (500_000, 400..=600), (1_000_000, 1000..=1000)] {
        let options = SimulationOptions { yield_per_million: per_million, ..options(9) };
        let (_, yields) = run(options, async |env| {
            let mut yields = 0;
            for _ in 0..1000 {
                let mut turn = Box::pin(env.yield_if_needed());
                if poll_once(&mut turn).await.is_none() {
                    yields += 1;
                    turn.await;
                }
            }
            yields
        });
        assert!(expected.contains(&yields.unwrap()), "{per_million}: {yields:?}");
    }
}

#[test]
fn buffers_hold_garbage() {
    let simulation = Simulation::new(options(1));
    assert_eq!(uniform(&simulation.env().buffer(3 * PAGE)), Some(GARBAGE));
}

#[test]
fn a_crash_drops_every_task() {
    struct Token(Rc<Cell<u32>>, SimEnv);
    impl Drop for Token {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
            // What is started while tasks are dropped never runs, and goes as well.
            self.1.spawn(TaskQueue::Scan, pending());
        }
    }
    let dropped = Rc::new(Cell::new(0));
    for life in 0..3 {
        let (simulation, result) = run(options(life), async |env| {
            let file = create(&env, "/file").await;
            for _ in 0..4 {
                let (task, file) = (env.clone(), file.clone());
                let token = Token(Rc::clone(&dropped), env.clone());
                env.spawn(TaskQueue::Scan, async move {
                    let _token = token;
                    let _ = put(&task, &file, 0, 1).await;
                    pending::<()>().await;
                });
            }
            env.sleep(20_000).await;
        });
        assert_eq!(result, Ok(()));
        match life {
            0 => drop(simulation.crash()),
            1 => drop(simulation.kill()),
            _ => drop(simulation),
        }
        assert_eq!(dropped.replace(0), 4);
    }
}

#[test]
fn a_thousand_faulty_runs_end() {
    let mut operations = 0;
    for seed in 0..1000 {
        let (simulation, result) = run(with_faults(seed, busy_faults()), busy_script);
        assert_eq!(result, Ok(()));
        operations += simulation.operations();
    }
    assert!(operations > 150_000, "{operations}");
}

#[test]
fn latency_follows_the_plan() {
    let faults = FaultPlan {
        latency_nanoseconds: 1000..=2000,
        slow_per_million: 100_000,
        slow_nanoseconds: 1_000_000,
        ..FaultPlan::default()
    };
    let (_, slow) = run(with_faults(4, faults), async |env| {
        let file = create(&env, "/file").await;
        let mut slow = 0;
        for _ in 0..1000 {
            let start = env.now();
            put(&env, &file, 0, 1).await.unwrap();
            let took = Duration::from_nanos(env.now() - start);
            assert!(took >= Duration::from_micros(1));
            slow += u32::from(took >= Duration::from_millis(1));
        }
        slow
    });
    assert!((60..140).contains(&slow.unwrap()), "{slow:?}");
}
