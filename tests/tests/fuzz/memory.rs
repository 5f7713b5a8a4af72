//! Counts what a thread allocates.

use std::cell::Cell;

thread_local! {
    /// Bytes that the thread has taken and not given back since it began to count.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Counts bytes that are taken, or given back where there are less than none.
pub(crate) fn count(bytes: isize) {
    // A thread that ends has no counters any more.
    let _ended = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ended = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

/// Runs `work`; returns its result and the most bytes that it held at a time.
pub(crate) fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    HELD.set(0);
    PEAK.set(0);
    let result = work();
    (result, PEAK.get().max(0).cast_unsigned())
}

#[test]
fn what_is_held_is_counted() {
    let (_, small) = peak(|| vec![1u8; 100]);
    let (_, large) = peak(|| drop(vec![0u8; 1 << 20]));
    assert!((100..4096).contains(&small) && large >= 1 << 20, "{small}, {large}");
}
