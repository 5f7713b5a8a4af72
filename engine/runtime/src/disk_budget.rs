//! The disk space of one node, shared by its cores.
//!
//! Every file is paid for before it is made: a core takes a [`Promise`] of the bytes, makes the
//! file, and keeps the promise; what a file gives back when it is removed is released. So the sum
//! of all files never exceeds the limit, not even for a moment, and two cores never count on the
//! same free bytes of the file system.
//!
//! Invariant: `taken` = bytes of files + bytes promised <= limit. `promised` tells how much of the
//! file system's free space is spoken for although it still shows as free.

use std::io;

use crate::sync::{Arc, AtomicU64, Ordering};

/// The budget. Shared by all cores of a node.
#[derive(Debug)]
pub struct DiskBudget {
    limit: u64,
    taken: AtomicU64,
    promised: AtomicU64,
    shortages: AtomicU64,
}

/// Bytes that may be allocated. Dropped, it gives back what was not kept.
#[derive(Debug)]
pub struct Promise {
    budget: Arc<DiskBudget>,
    bytes: u64,
}

/// Says that somebody is refused space, until it is dropped.
#[derive(Debug)]
pub struct Shortage {
    budget: Arc<DiskBudget>,
}

impl Drop for Shortage {
    fn drop(&mut self) {
        self.budget.shortages.fetch_sub(1, Ordering::AcqRel);
    }
}

impl DiskBudget {
    /// A budget of `limit` bytes; none means that the file system alone is the limit.
    pub fn new(limit: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.unwrap_or(u64::MAX),
            taken: AtomicU64::new(0),
            promised: AtomicU64::new(0),
            shortages: AtomicU64::new(0),
        })
    }

    /// The limit in bytes, if there is one.
    pub fn limit(&self) -> Option<u64> {
        (self.limit != u64::MAX).then_some(self.limit)
    }

    /// Bytes of files and of promises.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// How many bytes may still be promised: by the limit, and by the `free` bytes that the file
    /// system has.
    pub fn headroom(&self, free: u64) -> u64 {
        let promised = self.promised.load(Ordering::Acquire);
        self.limit.saturating_sub(self.taken()).min(free.saturating_sub(promised))
    }

    /// Says that the caller is refused space, so that others give back what they can do without.
    pub fn shortage(budget: &Arc<Self>) -> Shortage {
        budget.shortages.fetch_add(1, Ordering::AcqRel);
        Shortage { budget: Arc::clone(budget) }
    }

    /// How many are refused space at the moment.
    pub fn shortages(&self) -> u64 {
        self.shortages.load(Ordering::Acquire)
    }

    /// Counts files that were there before the budget.
    pub fn adopt(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Gives back the bytes of a file that was removed.
    pub fn release(&self, bytes: u64) {
        let before = self.taken.fetch_sub(bytes, Ordering::AcqRel);
        assert!(before >= bytes, "{bytes} bytes are released, but only {before} are taken");
    }

    /// Promises `bytes` if `left` bytes then remain both of the limit and of the file system's
    /// free space, which `free` asks for; `None` if not.
    ///
    /// Two cores that ask at once may both be refused where one would have fitted, never both
    /// be served where one fits.
    ///
    /// # Errors
    ///
    /// Those of `free`.
    pub fn promise(
        budget: &Arc<Self>,
        bytes: u64,
        left: u64,
        free: impl FnOnce() -> io::Result<u64>,
    ) -> io::Result<Option<Promise>> {
        let mut taken = budget.taken.load(Ordering::Acquire);
        loop {
            let fits = taken.checked_add(bytes).and_then(|sum| sum.checked_add(left));
            if fits.is_none_or(|sum| sum > budget.limit) {
                return Ok(None);
            }
            let after = taken + bytes;
            match budget.taken.compare_exchange(taken, after, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => taken = now,
            }
        }
        let spoken_for = budget.promised.fetch_add(bytes, Ordering::AcqRel) + bytes;
        // From here on dropping the promise takes both back.
        let promise = Promise { budget: Arc::clone(budget), bytes };
        let is_there = free()? >= spoken_for.saturating_add(left);
        Ok(is_there.then_some(promise))
    }
}

impl Promise {
    /// How many bytes are promised.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Says that a file of `bytes` was made. What it took less than promised is given back; more
    /// counts all the same, because it is there.
    pub fn keep(mut self, bytes: u64) {
        self.keep_part(bytes);
    }

    /// As [`Promise::keep`], with the rest left promised: for work that makes several files.
    pub fn keep_part(&mut self, bytes: u64) {
        let covered = bytes.min(self.bytes);
        self.bytes -= covered;
        self.budget.promised.fetch_sub(covered, Ordering::AcqRel);
        self.budget.taken.fetch_add(bytes - covered, Ordering::AcqRel);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.budget.promised.fetch_sub(self.bytes, Ordering::AcqRel);
        self.budget.taken.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(all(test, loom))]
mod loom_tests;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const PLENTY: u64 = 1 << 40;

    #[test]
    fn the_limit_holds_for_files_and_promises_together() {
        let budget = DiskBudget::new(Some(100));
        budget.adopt(30);
        let promise =
            DiskBudget::promise(&budget, 40, 10, || Ok(PLENTY)).expect("free").expect("it fits");
        assert_eq!(budget.taken(), 70);
        assert!(DiskBudget::promise(&budget, 31, 0, || Ok(PLENTY)).expect("free").is_none());
        assert!(DiskBudget::promise(&budget, 30, 1, || Ok(PLENTY)).expect("free").is_none());
        promise.keep(35);
        assert_eq!(budget.taken(), 65);
        budget.release(65);
        assert_eq!((budget.taken(), budget.headroom(PLENTY)), (0, 100));
    }

    #[test]
    fn free_bytes_are_promised_once() {
        let budget = DiskBudget::new(None);
        let first =
            DiskBudget::promise(&budget, 60, 10, || Ok(100)).expect("free").expect("it fits");
        assert!(DiskBudget::promise(&budget, 40, 10, || Ok(100)).expect("free").is_none());
        assert_eq!(budget.headroom(100), 40);
        drop(first);
        assert_eq!(budget.taken(), 0);
        assert!(DiskBudget::promise(&budget, 90, 10, || Ok(100)).expect("free").is_some());
    }

    #[test]
    fn a_promise_for_several_files_is_kept_in_parts() {
        let budget = DiskBudget::new(Some(100));
        let mut promise =
            DiskBudget::promise(&budget, 50, 0, || Ok(PLENTY)).expect("free").expect("it fits");
        promise.keep_part(20);
        promise.keep_part(40);
        assert_eq!(promise.bytes(), 0);
        drop(promise);
        assert_eq!(budget.taken(), 60);
    }

    #[test]
    fn nothing_is_taken_when_the_file_system_does_not_answer() {
        let budget = DiskBudget::new(None);
        let error = DiskBudget::promise(&budget, 50, 0, || Err(io::Error::other("broken")));
        assert!(error.is_err());
        assert_eq!((budget.taken(), budget.headroom(70)), (0, 70));
    }

    #[test]
    fn a_shortage_is_known_until_it_is_over() {
        let budget = DiskBudget::new(None);
        let (first, second) = (DiskBudget::shortage(&budget), DiskBudget::shortage(&budget));
        assert_eq!(budget.shortages(), 2);
        drop(first);
        assert_eq!(budget.shortages(), 1);
        drop(second);
        assert_eq!(budget.shortages(), 0);
    }

    #[test]
    fn numbers_at_the_end_of_the_range_do_not_wrap() {
        let budget = DiskBudget::new(Some(100));
        assert!(DiskBudget::promise(&budget, u64::MAX, 1, || Ok(PLENTY)).expect("free").is_none());
        assert!(DiskBudget::promise(&budget, 1, u64::MAX, || Ok(PLENTY)).expect("free").is_none());
    }
}
