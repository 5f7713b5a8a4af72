mod held_up;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::*;
use crate::core_env::CoreEnv;
use crate::core_runtime::CoreRuntime;
use crate::core_thread::CoreOptions;
use crate::env::{Env, File, IoClass, OpenMode, TaskQueue};

fn core() -> GlommioCore {
    GlommioCore::new(CoreOptions::default()).expect("a core on glommio")
}

#[test]
fn a_task_may_have_more_wakers_than_glommio_counts() {
    let mut core = core();
    let env = core.env();
    let (wakers, ended) = (Rc::new(Cell::new(Vec::<Waker>::new())), Rc::new(Cell::new(false)));
    let (given, flag) = (Rc::clone(&wakers), Rc::clone(&ended));
    env.spawn(TaskQueue::Foreground, async move {
        let mut is_polled = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut is_polled, true) {
                return Poll::Ready(());
            }
            given.set(vec![context.waker().clone(); 100_000]);
            Poll::Pending
        })
        .await;
        flag.set(true);
    });
    core.block_on(async {
        env.sleep(1_000_000).await;
        let wakers = wakers.take();
        assert_eq!(wakers.len(), 100_000);
        wakers.iter().for_each(Waker::wake_by_ref);
        env.sleep(1_000_000).await;
    });
    assert!(ended.get());
    core.shutdown();
}

#[test]
fn an_operation_is_not_polled_for_what_others_wake() {
    let directory = tempfile::tempdir().unwrap();
    let mut core = core();
    let env = core.env();
    core.block_on(async {
        let path = directory.path().join("file");
        let file = env.open(&path, OpenMode::CreateNew).await.unwrap();
        let mut write = Box::pin(file.write_durably(IoClass::Commit, 0, env.buffer(4 << 20)));
        // glommio keeps one more waker of its own task with each poll that finds nothing.
        let mut polls = 0;
        let (result, _) = std::future::poll_fn(|context| {
            if let Poll::Ready(done) = write.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            polls += 1;
            assert!(polls < 100_000_000, "it ends some time");
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        result.unwrap();
    });
    core.shutdown();
}

#[test]
fn completions_are_not_polled_for() {
    let directory = tempfile::tempdir().unwrap();
    let mut core = core();
    let env = core.env();
    let file =
        core.block_on(env.open(&directory.path().join("file"), OpenMode::CreateNew)).unwrap();
    let shown = format!("{file:?}");
    assert!(shown.contains("NonPollable"), "{shown}");
    drop(file);
    core.shutdown();
}

#[test]
fn names_change_while_files_are_opened() {
    let directory = tempfile::tempdir().unwrap();
    let mut core = core();
    let env = core.env();
    let path = directory.path().join("name");
    let opened = Rc::new(Cell::new(0));
    for _ in 0..4 {
        let (opener, path, opened) = (env.clone(), path.clone(), Rc::clone(&opened));
        env.spawn(TaskQueue::Foreground, async move {
            loop {
                if opener.open(&path, OpenMode::Read).await.is_ok() {
                    opened.set(opened.get() + 1);
                }
                futures_lite::future::yield_now().await;
            }
        });
    }
    core.block_on(async {
        for _ in 0..50 {
            let file = env.open(&path, OpenMode::CreateNew).await.unwrap();
            drop(file);
            env.sleep(200_000).await;
            env.remove(&path).await.unwrap();
        }
    });
    assert!(opened.get() > 0);
    core.shutdown();
}

#[test]
fn shutting_down_drops_tasks_and_waits_for_operations() {
    let directory = tempfile::tempdir().unwrap();
    let mut core = core();
    let env = core.env();
    let path = directory.path().join("file");
    let file = core.block_on(env.open(&path, OpenMode::CreateNew)).unwrap();
    core.block_on(file.allocate(8 << 20)).unwrap();
    let held = Arc::new(());
    for index in 0..8 {
        let (task_env, file, held) = (env.clone(), file.clone(), Arc::clone(&held));
        env.spawn(TaskQueue::Compaction, async move {
            loop {
                let buffer = task_env.buffer(1 << 20);
                let written = file.write(IoClass::Compaction, index << 20, buffer).await.0;
                written.unwrap();
                let _still = &held;
            }
        });
    }
    core.block_on(env.sleep(5_000_000));
    assert!(env.operations() > 0);
    drop(file);
    core.shutdown();
    assert_eq!((env.operations(), Arc::strong_count(&held)), (0, 1));
    env.spawn(TaskQueue::Flush, async { panic!("the core is gone") });
}

#[test]
fn a_panic_ends_the_core_in_good_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut core = core();
    let env = core.env();
    let path = directory.path().join("file");
    let file = core.block_on(env.open(&path, OpenMode::CreateNew)).unwrap();
    let (task_env, task_file) = (env.clone(), file.clone());
    env.spawn(TaskQueue::Flush, async move {
        let mut write = Box::pin(task_file.write(IoClass::Flush, 0, task_env.buffer(4 << 20)));
        assert!(futures_lite::future::poll_once(&mut write).await.is_none());
        panic!("a broken invariant");
    });
    let run = std::panic::AssertUnwindSafe(|| core.block_on(env.sleep(1_000_000_000)));
    std::panic::catch_unwind(run).unwrap_err();
    // The executor is whole: everything else goes on to its end.
    core.block_on(env.sleep(1_000_000));
    drop(file);
    core.shutdown();
    assert_eq!(env.operations(), 0);
}

#[test]
fn an_idle_core_takes_no_turns() {
    let mut core = core();
    let env = core.env();
    core.block_on(env.sleep(1_000_000));
    let before = env.figures().turns;
    core.block_on(env.sleep(200_000_000));
    let after = env.figures().turns;
    assert!(after.turns - before.turns < 10, "{before:?} {after:?}");
    assert!(after.parks > before.parks);
    core.shutdown();
}

#[test]
fn shares_divide_the_core_between_busy_queues() {
    let mut core = core();
    let env = core.env();
    let work = |queue| {
        let (task_env, done) = (env.clone(), Rc::new(Cell::new(0u64)));
        let counted = Rc::clone(&done);
        env.spawn(queue, async move {
            loop {
                let until = task_env.precise_now() + 20_000;
                while task_env.precise_now() < until {
                    std::hint::spin_loop();
                }
                counted.set(counted.get() + 1);
                task_env.yield_if_needed().await;
            }
        });
        done
    };
    let (flush, maintenance) = (work(TaskQueue::Flush), work(TaskQueue::Maintenance));
    core.block_on(env.sleep(400_000_000));
    // 400 shares to 50; a queue's activation may go over by a task's step.
    let (flush, maintenance) = (flush.get(), maintenance.get());
    assert!(maintenance > 0 && flush > 3 * maintenance, "{flush} to {maintenance}");
    core.shutdown();
}

#[test]
fn tasks_that_never_rest_leave_the_core_to_others() {
    let directory = tempfile::tempdir().unwrap();
    let mut core = core();
    let env = core.env();
    let steps = Rc::new(Cell::new(0u64));
    for queue in [TaskQueue::Foreground, TaskQueue::Flush, TaskQueue::Maintenance] {
        let counted = Rc::clone(&steps);
        env.spawn(queue, async move {
            loop {
                counted.set(counted.get() + 1);
                futures_lite::future::yield_now().await;
            }
        });
    }
    let (opener, path) = (env, directory.path().join("file"));
    let rounds = core.block_on(async move {
        let file = opener.open(&path, OpenMode::CreateNew).await.unwrap();
        let mut rounds = 0;
        for index in 0..50 {
            opener.sleep(100_000).await;
            let written = file.write(IoClass::Commit, index * 4096, opener.buffer(4096)).await.0;
            written.unwrap();
            rounds += 1;
        }
        rounds
    });
    assert_eq!(rounds, 50);
    assert!(steps.get() > 50, "{}", steps.get());
    core.shutdown();
}

#[test]
fn a_path_is_not_listened_on() {
    let directory = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(directory.path().join("socket")).unwrap();
    let mut core = core();
    let listen = std::panic::AssertUnwindSafe(|| {
        core.listen(crate::ring_network::ClientListener::Local(listener));
    });
    std::panic::catch_unwind(listen).unwrap_err();
    core.shutdown();
}
