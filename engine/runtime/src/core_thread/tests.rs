use super::*;

use crate::core_env::CoreEnv;
use crate::env::{Env, File, IoClass, OpenMode, TaskQueue};

/// What the calling thread has used of its CPU, in nanoseconds.
fn thread_cpu_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[test]
fn an_idle_core_sleeps() {
    let mut core = Core::new(CoreOptions::default()).unwrap();
    let env = core.env();
    core.block_on(env.sleep(1_000_000));
    let (before, used) = (env.loop_counters(), thread_cpu_time());
    core.block_on(env.sleep(300_000_000));
    let (after, used) = (env.loop_counters(), thread_cpu_time() - used);
    assert!(used < 3_000_000, "{used} ns of CPU in 300 ms");
    assert!(after.turns - before.turns < 10, "{before:?} {after:?}");
    assert!(after.parks > before.parks);
}

#[test]
fn dropped_sleeps_are_forgotten() {
    let mut core = Core::new(CoreOptions::default()).unwrap();
    let env = core.env();
    core.block_on(async { drop(env.sleep(1_000_000_000_000)) });
    core.block_on(futures_lite::future::or(env.sleep(1_000_000), env.sleep(u64::MAX)));
    assert_eq!(core.shared.timers.borrow().len(), 0);
}

#[test]
fn a_busy_task_gives_way_at_its_quantum() {
    let mut core = Core::new(CoreOptions::default()).unwrap();
    let env = core.env();
    let yields = Rc::new(Cell::new(0));
    let (task_env, task_yields) = (env.clone(), Rc::clone(&yields));
    env.spawn(TaskQueue::Compaction, async move {
        loop {
            let before = task_env.loop_counters().turns;
            task_env.yield_if_needed().await;
            if task_env.loop_counters().turns > before {
                task_yields.set(task_yields.get() + 1);
            }
        }
    });
    core.block_on(env.sleep(20_000_000));
    let yields = yields.get();
    assert!((5..=110).contains(&yields), "{yields} yields in 20 ms of 200 us quanta");
    core.shutdown();
}

#[test]
fn a_cpu_that_is_not_there_is_an_error() {
    let options = CoreOptions { pin_to_cpu: Some(1023), ..CoreOptions::default() };
    let message = Core::new(options).unwrap_err().to_string();
    assert!(message.starts_with("cannot bind the core's thread to CPU 1023"), "{message}");
}

#[test]
fn random_numbers_differ() {
    let (one, two) =
        (Core::new(CoreOptions::default()).unwrap(), Core::new(CoreOptions::default()).unwrap());
    let numbers: std::collections::BTreeSet<u64> =
        (0..100).flat_map(|_| [one.env().random(), two.env().random()]).collect();
    assert_eq!(numbers.len(), 200);
    assert!(one.env().unix_seconds() > 1_700_000_000);
}

/// The status of the threads that the kernel has started to work for the calling thread's ring.
#[allow(clippy::disallowed_methods, reason = "the kernel tells of its threads in files")]
fn worker_statuses() -> Vec<String> {
    let own = std::fs::read_link("/proc/thread-self").unwrap();
    let name = format!("Name:\tiou-wrk-{}", own.file_name().unwrap().to_str().unwrap());
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let status = |task: io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("status")).ok()
    };
    let named = |status: &String| status.lines().next() == Some(name.as_str());
    tasks.filter_map(status).filter(named).collect()
}

#[test]
fn workers_of_the_ring_run_where_they_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let cpus = CpuBits::of([0]);
    let mut core = Core::new(CoreOptions { worker_cpus: cpus, ..CoreOptions::default() }).unwrap();
    let env = core.env();
    core.block_on(async {
        let file = env.open(&path, OpenMode::CreateNew).await.unwrap();
        file.sync(IoClass::Flush).await.unwrap();
    });
    let statuses = worker_statuses();
    assert!(!statuses.is_empty(), "a flush is done by a worker");
    for status in statuses {
        assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    }
    core.shutdown();
}

fn burn(nanoseconds: u64) {
    let began = monotonic_nanoseconds();
    while monotonic_nanoseconds() - began < nanoseconds {}
}

#[test]
fn the_parts_of_a_cores_time_are_all_of_it() {
    const WORK: u64 = 20_000_000;
    let is_so = || {
        let mut core = Core::new(CoreOptions::default()).unwrap();
        let began = monotonic_nanoseconds();
        let env = core.env();
        let cpu = core.block_on(async move {
            let (worker, done) = (env.clone(), Rc::new(Cell::new(false)));
            let flag = Rc::clone(&done);
            env.spawn(TaskQueue::Flush, async move {
                for _ in 0..10 {
                    burn(WORK / 10);
                    worker.yield_if_needed().await;
                }
                flag.set(true);
            });
            while !done.get() {
                futures_lite::future::yield_now().await;
            }
            burn(WORK);
            env.sleep(WORK).await;
            env.figures().time.cpu
        });
        let elapsed = monotonic_nanoseconds() - began;
        core.shutdown();
        let flush = cpu.queues[TaskQueue::Flush as usize];
        let foreground = cpu.queues[TaskQueue::Foreground as usize];
        assert!(flush >= WORK && foreground >= WORK && cpu.idle >= WORK / 2, "{cpu:?}");
        elapsed.abs_diff(cpu.total()) < elapsed / 100
    };
    // Another process may have the processor between two looks at the clock, but not always.
    assert!((0..20).any(|_| is_so()));
}
