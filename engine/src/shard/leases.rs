//! Leases: what the shard had at one moment, kept for a bounded time, so that pages that follow
//! each other show one moment.
//!
//! A lease begins with what does not change any more: the memtable is frozen if there is anything
//! in it. It keeps the tables of that moment and the segments that there were, file by file; what
//! is written later it does not keep. When space becomes short the oldest lease ends, so leases are
//! never the reason why a write is refused.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use larder_runtime::env::{Env, TaskQueue};

use super::Shard;
use super::pins::SnapshotPin;
use crate::entry::{Metadata, Pointer};
use crate::error::EngineError;
use crate::generations::Generations;
use crate::index::snapshot::IndexSnapshot;
use crate::manifest::SegmentExpiry;
use crate::space::{LeaseSpace, Readers};

/// Leases that a shard gives at a time.
pub const LEASES_MAX: usize = 8;

/// How long a lease is held at most, in nanoseconds.
pub const LEASE_NANOSECONDS_MAX: u64 = 60_000_000_000;

/// How long a lease waits at most for a memtable to be written out that is in the way, in
/// nanoseconds.
const FREEZE_NANOSECONDS_MAX: u64 = 5_000_000_000;

/// At least so long is between two memtables that are written out for leases, in nanoseconds: those
/// that come meanwhile share the next one.
const GATHER_NANOSECONDS: u64 = 50_000_000;

/// How often it is looked at least whether the time of a lease is over, in nanoseconds.
const WATCH_NANOSECONDS: u64 = 1_000_000_000;

/// Bits of a lease's id that say the shard.
const SHARD_BITS: u32 = u16::BITS;

/// A lease that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseGiven {
    /// What pages name it by; never 0, and not that of a lease before a start. Its lowest 16 bits
    /// are the shard's number.
    pub id: u64,
    /// How long it is held unless it is ended before, in nanoseconds.
    pub nanoseconds: u64,
    /// How far the log has to be acknowledged before anybody is told of it.
    pub needs: u64,
}

/// What leases have come to since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseStatistics {
    /// How many are held now.
    pub held: u64,
    /// How many were given.
    pub given: u64,
    /// How many were ended because space was short.
    pub ended_for_space: u64,
}

/// What a shard had at one moment.
pub(super) struct Lease<E: Env> {
    id: u64,
    pub(super) snapshot: Rc<IndexSnapshot<E>>,
    /// Keeps the segments.
    pin: SnapshotPin,
    generations: Generations,
    /// What had expired in segments that were freed before.
    expired: BTreeMap<u32, SegmentExpiry>,
    /// In Unix seconds.
    pub(super) unix_now: u32,
    /// On the clock of the shard's runtime, in nanoseconds.
    began: u64,
    until: u64,
    pub(super) needs: u64,
}

impl<E: Env> Lease<E> {
    /// The generation of a namespace that was alive.
    pub(super) fn generation(&self, namespace: u32) -> u32 {
        self.generations.of(namespace)
    }

    /// Whether an item had expired when the segment of its value was freed.
    pub(super) fn had_expired(&self, pointer: Pointer, metadata: Metadata) -> bool {
        let freed = self.expired.get(&pointer.segment);
        metadata.expiry != 0 && freed.is_some_and(|freed| metadata.expiry <= freed.until)
    }
}

/// A shard's leases, by number: the oldest has the lowest.
pub(super) struct Leases<E: Env> {
    held: RefCell<BTreeMap<u64, Rc<Lease<E>>>>,
    counters: Cell<LeaseStatistics>,
    /// Whether a task ends those whose time is over: one for all, however many come and go.
    is_watched: Cell<bool>,
    /// Before then no memtable is frozen for a lease, on the clock of the shard's runtime.
    freezes_from: Cell<u64>,
}

impl<E: Env> Default for Leases<E> {
    fn default() -> Self {
        let (held, counters) = Default::default();
        Self { held, counters, is_watched: Cell::new(false), freezes_from: Cell::new(0) }
    }
}

impl<E: Env> Leases<E> {
    fn is_full(&self) -> bool {
        self.held.borrow().len() >= LEASES_MAX
    }

    fn find(&self, id: u64, now: u64) -> Option<Rc<Lease<E>>> {
        let held = self.held.borrow();
        let lease = held.values().find(|lease| lease.id == id)?;
        (now < lease.until).then(|| Rc::clone(lease))
    }

    /// Ends the leases of which `ends` says so, and says how many those were.
    fn end(&self, mut ends: impl FnMut(&Lease<E>) -> bool) -> usize {
        let mut held = self.held.borrow_mut();
        let before = held.len();
        held.retain(|_, lease| !ends(lease));
        before - held.len()
    }

    fn count(&self, count: impl FnOnce(&mut LeaseStatistics)) {
        let mut counters = self.counters.get();
        count(&mut counters);
        self.counters.set(counters);
    }

    pub(super) fn statistics(&self) -> LeaseStatistics {
        LeaseStatistics { held: self.held.borrow().len() as u64, ..self.counters.get() }
    }
}

impl<E: Env> Shard<E> {
    /// Keeps what the shard has at one moment after the call for `nanoseconds`, at most
    /// [`LEASE_NANOSECONDS_MAX`]: scans that name the lease show that moment. Where that is not
    /// there by `deadline`, on the clock of the shard's runtime, there is no lease.
    ///
    /// # Errors
    ///
    /// [`EngineError::TooManyLeases`] beyond [`LEASES_MAX`], or if the memtable cannot be written
    /// out in time; [`EngineError::Full`] and [`EngineError::Stopped`] if it cannot be at all.
    pub async fn lease(
        self: &Rc<Self>,
        nanoseconds: u64,
        deadline: Option<u64>,
    ) -> Result<LeaseGiven, EngineError> {
        let latest = self.env.now().saturating_add(FREEZE_NANOSECONDS_MAX);
        let until = deadline.map_or(latest, |deadline| deadline.min(latest));
        let snapshot = loop {
            self.apply_due_flush().await?;
            self.end_old_leases();
            let snapshot = self.snapshot(until).await?;
            // One may have become due while the memtable was written out.
            if !self.state.borrow().flush_is_due(self.unix_now()) {
                break snapshot;
            }
        };
        // Nothing waits from here on: all of it is of the snapshot's moment.
        if self.leases.is_full() {
            return Err(EngineError::TooManyLeases);
        }
        let nanoseconds = nanoseconds.min(LEASE_NANOSECONDS_MAX);
        let (began, needs) = (self.env.now(), self.log.sequence_next());
        let journal = self.journal.state();
        let id = (self.env.random() | 1 << SHARD_BITS) >> SHARD_BITS << SHARD_BITS
            | u64::from(self.options.shard);
        let lease = Lease {
            id,
            snapshot,
            pin: self.pins.snapshot(journal.segment_id_next, Readers::Leases, began),
            generations: self.state.borrow().namespaces.generations().clone(),
            expired: journal.segments_expired.clone(),
            unix_now: self.unix_now(),
            began,
            until: began.saturating_add(nanoseconds),
            needs,
        };
        drop(journal);
        self.leases.count(|counters| counters.given += 1);
        let number = self.leases.counters.get().given;
        self.leases.held.borrow_mut().insert(number, Rc::new(lease));
        if !self.leases.is_watched.replace(true) {
            self.env.spawn(TaskQueue::Foreground, end_in_time(Rc::downgrade(self)));
        }
        Ok(LeaseGiven { id, nanoseconds, needs })
    }

    /// Ends a lease, if there is one with this id. Pages that were begun under it are finished.
    pub fn end_lease(&self, id: u64) -> bool {
        let ended = self.leases.end(|lease| lease.id == id) > 0;
        self.look_for_files();
        ended
    }

    /// The lease with this id.
    ///
    /// # Errors
    ///
    /// [`EngineError::LeaseEnded`] if there is none, or none any more.
    pub(super) fn leased(&self, id: u64) -> Result<Rc<Lease<E>>, EngineError> {
        self.leases.find(id, self.env.now()).ok_or(EngineError::LeaseEnded)
    }

    /// The index as it is at one moment, for which a memtable may have to be written out. It is
    /// waited for until then.
    async fn snapshot(&self, until: u64) -> Result<Rc<IndexSnapshot<E>>, EngineError> {
        loop {
            self.may_lease(until)?;
            if let Some(snapshot) = self.index.snapshot() {
                return Ok(snapshot);
            }
            if self.state.borrow().full.flushes {
                return Err(EngineError::Full);
            }
            let (now, from) = (self.env.now(), self.leases.freezes_from.get());
            if !self.index.has_frozen() && now >= from {
                self.leases.freezes_from.set(now + GATHER_NANOSECONDS);
                self.freeze(&mut self.state.borrow_mut());
                if let Some(snapshot) = self.index.snapshot() {
                    return Ok(snapshot);
                }
            }
            self.wait_to_freeze(until).await;
        }
    }

    /// Whether a lease may still be given.
    fn may_lease(&self, until: u64) -> Result<(), EngineError> {
        if let Some(reason) = self.stopped() {
            return Err(EngineError::Stopped(reason));
        }
        if self.state.borrow().closing {
            return Err(EngineError::Stopped("it is being closed".to_owned()));
        }
        if self.leases.is_full() || self.env.now() >= until {
            return Err(EngineError::TooManyLeases);
        }
        Ok(())
    }

    /// Waits until the memtable may be frozen, or there is no use in waiting any more.
    async fn wait_to_freeze(&self, until: u64) {
        let (now, from) = (self.env.now(), self.leases.freezes_from.get());
        let is_gathered = || self.env.now() >= self.leases.freezes_from.get();
        let is_over = || {
            let cannot = || self.state.borrow().full.flushes || self.may_lease(until).is_err();
            (is_gathered() && !self.index.has_frozen()) || cannot()
        };
        let looks = self.work.wait_for(|| is_over().then_some(()));
        // Another lease may be faster with the next memtable, and then it is its time that counts.
        let from = if now < from { from } else { now.saturating_add(GATHER_NANOSECONDS) };
        let next = from.min(until);
        futures_lite::future::or(looks, self.env.sleep(next.saturating_sub(now))).await;
    }

    /// Ends leases whose time is over.
    fn end_old_leases(&self) {
        let now = self.env.now();
        if self.leases.end(|lease| lease.until <= now) > 0 {
            self.look_for_files();
        }
    }

    /// Ends the oldest lease if leases keep anything from being freed; says whether it did.
    pub(super) fn end_lease_for_space(&self) -> bool {
        if self.leases_hold() == 0 {
            return false;
        }
        let oldest = self.leases.held.borrow_mut().pop_first();
        let Some((number, lease)) = oldest else { return false };
        drop(lease);
        tracing::warn!("lease {number} was ended: space is short");
        self.leases.count(|counters| counters.ended_for_space += 1);
        self.look_for_files();
        true
    }

    /// Bytes of files that would be gone but for leases.
    pub(super) fn leases_hold(&self) -> u64 {
        self.leased_space().iter().map(|lease| lease.bytes).max().unwrap_or(0)
    }

    /// Whether files are about to be free: nobody reads them any more but operations under way.
    pub(super) fn files_are_going(&self) -> bool {
        self.free.borrow().has_files_in_use() || self.tables_are_going()
    }

    /// The same for files of tables alone.
    pub(super) fn tables_are_going(&self) -> bool {
        let held = self.leases.held.borrow();
        let is_leased = |table| held.values().any(|lease| lease.snapshot.has(table));
        self.index.is_removing(is_leased)
    }

    /// About how many bytes leases alone keep: they do not count for the cap, as they will be gone
    /// soon.
    pub(super) fn leased_bytes(&self) -> u64 {
        if self.leases.held.borrow().is_empty() {
            return 0;
        }
        self.free.borrow().leased_bytes() + self.index.retired_in_use_bytes()
    }

    /// Each lease, and which bytes it keeps; several may keep the same.
    pub(super) fn leased_space(&self) -> Vec<LeaseSpace> {
        let (held, free, now) = (self.leases.held.borrow(), self.free.borrow(), self.env.now());
        let space = |(&number, lease): (&u64, &Rc<Lease<E>>)| LeaseSpace {
            number,
            bytes: free.bytes_held(|moment, segment| lease.pin.holds(moment, segment))
                + self.index.bytes_held_by(&lease.snapshot),
            nanoseconds: now.saturating_sub(lease.began),
            nanoseconds_left: lease.until.saturating_sub(now),
        };
        held.iter().map(space).collect()
    }

    /// Looks again at files that leases have kept.
    pub(super) fn look_for_files(&self) {
        self.free.borrow_mut().look_again();
        self.release_files();
    }
}

/// Ends the leases of a shard whose time is over, as long as there are any.
async fn end_in_time<E: Env>(shard: Weak<Shard<E>>) {
    let Some(env) = shard.upgrade().map(|shard| shard.env.clone()) else { return };
    loop {
        let Some(shard) = shard.upgrade() else { return };
        shard.end_old_leases();
        let earliest = shard.leases.held.borrow().values().map(|lease| lease.until).min();
        let Some(earliest) = earliest else { return shard.leases.is_watched.set(false) };
        drop(shard);
        // One that is given meanwhile may end before those that are held now.
        env.sleep(earliest.saturating_sub(env.now()).min(WATCH_NANOSECONDS)).await;
    }
}
