//! What a client counts and measures, for the program to read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// Reads of items, with or without their value.
    Get,
    /// Values that are stored.
    Put,
    /// Items that are deleted.
    Delete,
    /// Numbers that are changed.
    Increment,
    /// Expiries that are changed, with or without a read.
    Touch,
    /// Pages of a record.
    Items,
    /// Pages of a namespace.
    Scan,
    /// Changes of a record.
    Mutate,
    /// Ranges that are deleted.
    DeleteItems,
    /// Reads of several items with one request.
    MultiGet,
    /// Steps of large values: what begins, ends or carries one, chunk by chunk.
    Large,
    /// Namespaces that are made, changed, listed or dropped.
    Namespaces,
    /// Figures of nodes.
    Statistics,
    /// Signs of life.
    Ping,
}

impl CallKind {
    /// Every kind.
    pub const ALL: [Self; 14] = [
        Self::Get,
        Self::Put,
        Self::Delete,
        Self::Increment,
        Self::Touch,
        Self::Items,
        Self::Scan,
        Self::Mutate,
        Self::DeleteItems,
        Self::MultiGet,
        Self::Large,
        Self::Namespaces,
        Self::Statistics,
        Self::Ping,
    ];
}

impl CallKind {
    /// Whether a node that is told a name makes such a change once, however often it is sent.
    pub(crate) fn takes_name(self) -> bool {
        matches!(
            self,
            Self::Put
                | Self::Delete
                | Self::Increment
                | Self::Touch
                | Self::Mutate
                | Self::DeleteItems
        )
    }
}

/// Buckets of a histogram: four for each doubling, from 1 microsecond to more than an hour.
const BUCKETS: usize = 128;

#[derive(Debug)]
struct Meter {
    errors: AtomicU64,
    timeouts: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Meter {
    fn default() -> Self {
        let buckets = [const { AtomicU64::new(0) }; BUCKETS];
        let (errors, timeouts) = Default::default();
        Self { errors, timeouts, buckets }
    }
}

/// The counters of a client.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    kinds: [Meter; CallKind::ALL.len()],
    retries: AtomicU64,
    hedges: AtomicU64,
    forwarded: AtomicU64,
}

impl Meters {
    pub(crate) fn ended(&self, kind: Option<CallKind>, took: Duration, is_ok: bool, late: bool) {
        let Some(kind) = kind else { return };
        let meter = &self.kinds[kind as usize];
        meter.buckets[bucket_of(took)].fetch_add(1, Relaxed);
        if !is_ok {
            meter.errors.fetch_add(1, Relaxed);
            meter.timeouts.fetch_add(u64::from(late), Relaxed);
        }
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(crate) fn hedged(&self) {
        self.hedges.fetch_add(1, Relaxed);
    }

    pub(crate) fn forwarded(&self) {
        self.forwarded.fetch_add(1, Relaxed);
    }

    pub(crate) fn read(&self) -> ClientMetrics {
        let kind = |kind: CallKind| {
            let meter = &self.kinds[kind as usize];
            let buckets = meter.buckets.each_ref().map(|bucket| bucket.load(Relaxed));
            CallMetrics {
                kind,
                calls: buckets.iter().sum(),
                errors: meter.errors.load(Relaxed),
                timeouts: meter.timeouts.load(Relaxed),
                buckets,
            }
        };
        ClientMetrics {
            calls: CallKind::ALL.map(kind).into(),
            retries: self.retries.load(Relaxed),
            hedges: self.hedges.load(Relaxed),
            forwarded: self.forwarded.load(Relaxed),
        }
    }
}

/// What a client has counted since it was built.
#[derive(Clone, Debug)]
pub struct ClientMetrics {
    /// Of each kind of call.
    pub calls: Vec<CallMetrics>,
    /// Tries beyond the first of each request, because one had failed.
    pub retries: u64,
    /// Reads that were sent a second time because the first answer was slow.
    pub hedges: u64,
    /// Replies to requests that went from one core of a node to another.
    pub forwarded: u64,
}

impl ClientMetrics {
    /// Those of one kind.
    pub fn of(&self, kind: CallKind) -> &CallMetrics {
        &self.calls[kind as usize]
    }
}

/// What was counted of one kind of call. A write to several nodes counts once for each.
#[derive(Clone, Debug)]
pub struct CallMetrics {
    /// Which kind.
    pub kind: CallKind,
    /// Calls that have ended.
    pub calls: u64,
    /// Those of them that have failed. That there is no item, or a condition does not hold, is
    /// none.
    pub errors: u64,
    /// Those of them that had no answer in time.
    pub timeouts: u64,
    buckets: [u64; BUCKETS],
}

impl CallMetrics {
    /// The time that this share of the calls has not exceeded, to within a quarter: 0.99 is the
    /// 99th percentile. Zero if there were none.
    pub fn latency(&self, share: f64) -> Duration {
        let all: u64 = self.buckets.iter().sum();
        let wanted = (all as f64 * share.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        bucket.map_or(Duration::ZERO, upper_bound)
    }
}

/// Of a time in microseconds the two bits behind the highest one tell the bucket.
fn bucket_of(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let doublings = micros.ilog2();
    let quarter = if doublings >= 2 { micros >> (doublings - 2) & 3 } else { 0 };
    (doublings as usize * 4 + quarter as usize).min(BUCKETS - 1)
}

/// The first time that is above a bucket.
fn upper_bound(bucket: usize) -> Duration {
    let (doublings, quarter) = (bucket / 4, bucket as u64 % 4);
    Duration::from_micros(((5 + quarter) << doublings).div_ceil(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_known_to_within_a_quarter() {
        for micros in (4..100_000).chain([1 << 30, 1 << 31]) {
            let took = Duration::from_micros(micros);
            let bound = upper_bound(bucket_of(took));
            assert!(bound > took && bound <= took.mul_f64(1.26), "{took:?}: {bound:?}");
        }
        assert_eq!(bucket_of(Duration::ZERO), 0);
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_come_from_what_has_ended() {
        let meters = Meters::default();
        for micros in 1..=1000 {
            meters.ended(Some(CallKind::Get), Duration::from_micros(micros), micros > 10, true);
        }
        meters.ended(None, Duration::from_secs(9), false, false);
        let metrics = meters.read();
        let get = metrics.of(CallKind::Get);
        assert_eq!((get.calls, get.errors, get.timeouts), (1000, 10, 10));
        let median = get.latency(0.5).as_micros();
        assert!((500..=640).contains(&median), "{median}");
        assert!(get.latency(1.0).as_micros() >= 1000);
        assert_eq!(metrics.of(CallKind::Put).latency(0.5), Duration::ZERO);
    }
}
