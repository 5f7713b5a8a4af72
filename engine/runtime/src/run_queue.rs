//! How long the calling thread waits for a processor that others have.
//!
//! The kernel counts it for each thread: the second number of `/proc/thread-self/schedstat` is the
//! time that it was ready to run and did not, in nanoseconds (Documentation/scheduler/
//! sched-stats.rst of the kernel). Where it does not, the file is not there or says 0: the
//! thread then seems to be alone.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// How often the kernel is asked, in nanoseconds: the file takes some microseconds to read.
const LOOK_NANOSECONDS: u64 = 100_000_000;

/// A thread shares its processor if it waits for it for one part in so many of its time. The
/// kernel's own threads take less.
const SHARED_PARTS: u64 = 25;

/// So many looks in a row must find that it does not before that is believed: the scheduler moves
/// threads from one processor to another and back.
const LOOKS_ALONE: u32 = 10;

/// Whether the thread that made it shares its processor.
pub(crate) struct RunQueue {
    file: Option<File>,
    looked_at: u64,
    delay: u64,
    /// Looks since the last one that found others.
    looks_alone: u32,
}

impl RunQueue {
    /// That of the calling thread, which is looked at from `now` on, in nanoseconds.
    #[allow(
        clippy::disallowed_methods,
        reason = "a file of the kernel's, and of the ring's runtime"
    )]
    pub(crate) fn new(now: u64) -> Self {
        let file = File::open("/proc/thread-self/schedstat").ok();
        let mut queue = Self { file, looked_at: now, delay: 0, looks_alone: LOOKS_ALONE };
        queue.delay = queue.read().unwrap_or(0);
        queue
    }

    /// Whether others have the processor while the thread wants it; `None` if it is too early to
    /// ask again, or nobody knows.
    pub(crate) fn is_shared(&mut self, now: u64) -> Option<bool> {
        let passed = now.saturating_sub(self.looked_at);
        if passed < LOOK_NANOSECONDS {
            return None;
        }
        self.looked_at = now;
        let delay = self.read()?;
        let waited = delay.saturating_sub(self.delay);
        self.delay = delay;
        Some(self.judge(waited, passed))
    }

    /// The same, where the thread has waited so long in the time since the last look.
    fn judge(&mut self, waited: u64, passed: u64) -> bool {
        let is_alone = waited <= passed / SHARED_PARTS;
        self.looks_alone = if is_alone { self.looks_alone.saturating_add(1) } else { 0 };
        self.looks_alone < LOOKS_ALONE
    }

    /// How long the thread has waited since it began, in nanoseconds.
    fn read(&self) -> Option<u64> {
        let mut bytes = [0; 96];
        let len = self.file.as_ref()?.read_at(&mut bytes, 0).ok()?;
        delay_of(&bytes[..len])
    }
}

/// The second number of the file.
fn delay_of(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affinity::{CPUS_MAX, pin_thread};
    use crate::clock::monotonic_nanoseconds;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn the_second_number_is_what_a_thread_has_waited() {
        assert_eq!(delay_of(b"123 4567 8\n"), Some(4567));
        for nonsense in [&b""[..], b"123", b"1 x 2", b"1 -5 2", &[0xff; 20], &[0; 96]] {
            assert_eq!(delay_of(nonsense), None);
        }
    }

    #[test]
    fn others_are_seen_at_once_and_gone_after_a_while() {
        let mut queue = RunQueue { file: None, looked_at: 0, delay: 0, looks_alone: LOOKS_ALONE };
        assert_eq!(queue.is_shared(LOOK_NANOSECONDS), None, "nobody knows");
        assert!(!queue.judge(10, 1000), "the kernel's own threads");
        assert!(queue.judge(100, 1000));
        for _ in 1..LOOKS_ALONE {
            assert!(queue.judge(0, 1000));
        }
        assert!(!queue.judge(0, 1000));
    }

    #[test]
    fn a_thread_beside_another_one_learns_that_it_shares_its_processor() {
        let is_over = AtomicBool::new(false);
        let allowed = || (0..CPUS_MAX).find(|cpu| pin_thread(*cpu).is_ok());
        let cpu = std::thread::scope(|scope| scope.spawn(allowed).join().expect("it ends"));
        let cpu = cpu.expect("there is one");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pin_thread(cpu).expect("it is allowed");
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let found = scope.spawn(|| {
                pin_thread(cpu).expect("it is allowed");
                let mut queue = RunQueue::new(monotonic_nanoseconds());
                let mut looks = std::iter::repeat_with(|| {
                    let now = monotonic_nanoseconds();
                    (queue.is_shared(now), queue.delay)
                });
                looks.find(|(shared, _)| shared.is_some())
            });
            let found = found.join();
            is_over.store(true, Ordering::Relaxed);
            let (shared, delay) = found.expect("it ends").expect("it is asked again");
            // Where the kernel does not count, it says 0.
            assert!(shared == Some(true) || delay == 0, "{shared:?} after {delay} ns");
        });
    }
}
