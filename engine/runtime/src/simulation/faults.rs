//! Which faults a run is given.

use std::io;
use std::ops::RangeInclusive;

/// The kinds of disk operation that are counted, failed and crashed at.
///
/// [`File::write_durably`](crate::env::File::write_durably) is a write and then a sync. Listing a
/// directory and asking for free space are not counted: they change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum OperationKind {
    /// Opening or creating a file.
    Open,
    /// Reading from a file.
    Read,
    /// Writing to a file.
    Write,
    /// Flushing a file.
    Sync,
    /// Reserving space for a file.
    Allocate,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
    /// Flushing a directory's names.
    SyncDirectory,
    /// Creating a directory.
    CreateDirectory,
}

/// The number of operation kinds.
pub(super) const OPERATION_KINDS: usize = 9;
const _: () = assert!(OperationKind::CreateDirectory as usize + 1 == OPERATION_KINDS);

/// A set of operation kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationKinds(u16);

impl OperationKinds {
    /// Every kind.
    pub const ALL: Self = Self((1 << OPERATION_KINDS) - 1);
    /// Writes and file syncs.
    pub const WRITES_AND_SYNCS: Self = Self::of(&[OperationKind::Write, OperationKind::Sync]);

    /// The set of these kinds.
    pub const fn of(kinds: &[OperationKind]) -> Self {
        let mut set = 0;
        let mut index = 0;
        while index < kinds.len() {
            set |= 1 << kinds[index] as u16;
            index += 1;
        }
        Self(set)
    }

    /// Whether `kind` is in the set.
    pub const fn contains(self, kind: OperationKind) -> bool {
        self.0 & (1 << kind as u16) != 0
    }
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// `EIO`: the device or the file system gave up.
    Io,
    /// `ENOSPC` ([`io::ErrorKind::StorageFull`]).
    NoSpace,
    /// `EDQUOT` ([`io::ErrorKind::QuotaExceeded`]).
    QuotaExceeded,
    /// `ECANCELED`: the request was taken back before it was done.
    Cancelled,
}

impl Failure {
    pub(super) fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Io => libc::EIO,
            Self::NoSpace => libc::ENOSPC,
            Self::QuotaExceeded => libc::EDQUOT,
            Self::Cancelled => libc::ECANCELED,
        })
    }
}

/// One failure at a chosen place of the run.
///
/// A failed write leaves its target unspecified: the old bytes, the new ones, or a mixture by
/// sector. A failed sync leaves each write that it covered durable, torn or not durable, and no
/// later sync makes up for it; until a crash, reads still see those writes. A failed directory
/// sync may have made the first of the changes durable. Other failed operations do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailOperation {
    /// How many operations of the kinds in `among` are performed before the one that fails.
    pub index: u64,
    /// Which kinds are counted and can fail.
    pub among: OperationKinds,
    /// The error.
    pub failure: Failure,
    /// Whether every later operation of these kinds fails as well.
    pub sticky: bool,
}

impl FailOperation {
    /// Lets the operation number `index` (from 0, over all kinds) fail once.
    pub fn once(index: u64, failure: Failure) -> Self {
        Self { index, among: OperationKinds::ALL, failure, sticky: false }
    }

    /// Lets the operation number `index` (from 0, over all kinds) and all after it fail.
    pub fn sticky(index: u64, failure: Failure) -> Self {
        Self { sticky: true, ..Self::once(index, failure) }
    }

    /// Counts and fails only operations of these kinds.
    #[must_use]
    pub fn among(self, among: OperationKinds) -> Self {
        Self { among, ..self }
    }
}

/// The faults of one run. The default has none, and latencies that let completions come back in
/// any order.
///
/// Probabilities are per operation, in millionths.
#[derive(Clone, Debug)]
pub struct FaultPlan {
    /// How many disk operations are performed before the run stops with
    /// [`Stopped::Crashed`](super::Stopped::Crashed): the next one is not performed.
    pub crash_at_operation: Option<u64>,
    /// Which kinds of operation [`FaultPlan::crash_at_operation`] counts.
    pub crash_among: OperationKinds,
    /// The operation that fails, if any.
    pub fail_operation: Option<FailOperation>,
    /// A read finds that one of its sectors has become unreadable. The sector answers `EIO` until
    /// it is written again.
    pub latent_sector_error_per_million: u32,
    /// A read returns one flipped bit; the stored data is whole.
    pub bit_flip_at_read_per_million: u32,
    /// A write stores one flipped bit.
    pub bit_flip_at_rest_per_million: u32,
    /// A write is acknowledged, but the old bytes stay. The file's length grows all the same.
    pub stale_write_per_million: u32,
    /// A write's bytes land at another aligned offset of the file, outside its target, which keeps
    /// its old bytes. A file with no such place keeps its old bytes everywhere.
    pub misdirected_write_per_million: u32,
    /// A read returns the bytes of another aligned offset of the file, if it has one.
    pub misdirected_read_per_million: u32,
    /// How long a disk operation takes, in virtual nanoseconds.
    pub latency_nanoseconds: RangeInclusive<u64>,
    /// How often an operation takes `slow_nanoseconds` more.
    pub slow_per_million: u32,
    /// What a slow operation takes on top, in virtual nanoseconds.
    pub slow_nanoseconds: u64,
    /// A deliberate defect: every sync, of files and directories, reports success and makes
    /// nothing durable. A test harness that does not notice it is worth nothing.
    pub skip_sync: bool,
}

impl Default for FaultPlan {
    fn default() -> Self {
        Self {
            crash_at_operation: None,
            crash_among: OperationKinds::ALL,
            fail_operation: None,
            latent_sector_error_per_million: 0,
            bit_flip_at_read_per_million: 0,
            bit_flip_at_rest_per_million: 0,
            stale_write_per_million: 0,
            misdirected_write_per_million: 0,
            misdirected_read_per_million: 0,
            latency_nanoseconds: 10_000..=200_000,
            slow_per_million: 0,
            slow_nanoseconds: 20_000_000,
            skip_sync: false,
        }
    }
}

/// How many operations of each kind have been issued.
#[derive(Clone, Default)]
pub(super) struct OperationCounts([u64; OPERATION_KINDS]);

impl OperationCounts {
    pub(super) fn add(&mut self, kind: OperationKind) {
        self.0[kind as usize] += 1;
    }

    pub(super) fn of(&self, kinds: OperationKinds) -> u64 {
        let counted = |(index, count): (usize, &u64)| {
            let in_set = kinds.0 & (1 << index) != 0;
            if in_set { *count } else { 0 }
        };
        self.0.iter().enumerate().map(counted).sum()
    }
}

impl FaultPlan {
    /// Whether the run crashes instead of performing an operation of this kind, given what was
    /// issued before it.
    pub(super) fn crashes(&self, kind: OperationKind, before: &OperationCounts) -> bool {
        let among = self.crash_among;
        among.contains(kind) && self.crash_at_operation == Some(before.of(among))
    }

    /// The failure of an operation of this kind, given what was issued before it.
    pub(super) fn failure(&self, kind: OperationKind, before: &OperationCounts) -> Option<Failure> {
        let plan = self.fail_operation.as_ref()?;
        if !plan.among.contains(kind) {
            return None;
        }
        let number = before.of(plan.among);
        let fails = number == plan.index || (plan.sticky && number > plan.index);
        fails.then_some(plan.failure)
    }
}
