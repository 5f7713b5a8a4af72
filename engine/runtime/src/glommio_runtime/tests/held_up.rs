//! Cores whose threads are held up at moments of chance, as they are where others want their CPUs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::core;
use crate::clock::monotonic_nanoseconds;
use crate::core_runtime::CoreRuntime;
use crate::env::Env;
use crate::executor::QUANTUM;
use crate::random::Random;

/// For how long a thread is held up: quanta are over then.
const HELD_UP_NANOSECONDS: u64 = 2 * QUANTUM;
/// How often it is.
const ROUNDS: u64 = 1000;
/// A core that gets no further for so long stands still.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often threads have been held up.
static HELD_UP: AtomicU64 = AtomicU64::new(0);

extern "C" fn hold_up(_signal: libc::c_int) {
    let until = monotonic_nanoseconds() + HELD_UP_NANOSECONDS;
    while monotonic_nanoseconds() < until {
        std::hint::spin_loop();
    }
    HELD_UP.fetch_add(1, Ordering::Release);
}

/// A signal that holds the thread up that it is sent to.
fn prepare_signal() -> libc::c_int {
    let signal = libc::SIGURG;
    // SAFETY: all zeroes are a valid action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = hold_up as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the action is valid, and what it does is allowed in signal handlers: it reads a
    // clock and adds to an atomic.
    let result = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    assert_eq!(result, 0);
    signal
}

/// Looks again and again until there is something, for so long at most; returns whether there is.
#[allow(clippy::disallowed_methods, reason = "this thread is not the core's")]
fn wait_until(is_reached: impl Fn() -> bool) -> bool {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_reached() {
        if std::time::Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_micros(20));
    }
    true
}

/// Holds a thread up, again and again; returns after how many rounds it got no further, if it did.
fn hold_up_often(thread: libc::pthread_t, steps: &AtomicU64, random: &mut Random) -> Option<u64> {
    let signal = prepare_signal();
    // SAFETY: the thread runs until this function has returned.
    let send = || assert_eq!(unsafe { libc::pthread_kill(thread, signal) }, 0);
    for round in 0..ROUNDS {
        let moment = monotonic_nanoseconds() + random.bits() % 100_000;
        while monotonic_nanoseconds() < moment {
            std::hint::spin_loop();
        }
        let held_up = HELD_UP.load(Ordering::Acquire);
        send();
        let has_come = wait_until(|| HELD_UP.load(Ordering::Acquire) > held_up);
        let before = steps.load(Ordering::Acquire);
        if !has_come || !wait_until(|| steps.load(Ordering::Acquire) > before + 1) {
            // It ends the core's sleep as well.
            send();
            return Some(round);
        }
    }
    None
}

#[test]
#[allow(clippy::disallowed_methods, reason = "who holds the core up runs beside it")]
fn a_core_that_is_held_up_goes_on() {
    let mut core = core();
    let env = core.env();
    let (steps, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (seen, over) = (Arc::clone(&steps), Arc::clone(&is_over));
    let seed = monotonic_nanoseconds();
    // SAFETY: it has no conditions.
    let thread = unsafe { libc::pthread_self() };
    let beside = std::thread::spawn(move || {
        let stood_still = hold_up_often(thread, &seen, &mut Random::new(seed));
        over.store(true, Ordering::Release);
        stood_still
    });
    // One timer at a time: if it is passed over nothing wakes the core.
    core.block_on(async {
        while !is_over.load(Ordering::Acquire) {
            env.sleep(1000).await;
            steps.fetch_add(1, Ordering::Release);
        }
    });
    let stood_still = beside.join().unwrap();
    core.shutdown();
    assert_eq!(stood_still, None, "the round in which the core stood still; seed {seed}");
}
