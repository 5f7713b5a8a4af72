//! The core's disk requests, held back so that the device's own queue stays short.
//!
//! A device serves what it was given in an order of its own, so priorities count only for requests
//! that it does not have yet. This queue keeps requests by class, lets through what the device
//! takes without building up a queue ([`Admission`]), and chooses the next one by the classes'
//! shares ([`FairQueue`]). It is a plain value: the caller pushes a request, pops those that may
//! go, submits them, and says when each has completed.
//!
//! The next request by shares goes next, even when a smaller one of another class would fit into
//! what is left of a limit and it does not. Otherwise a stream of small requests would hold a large
//! one back forever.

use crate::env::{DISK_ALIGNMENT, IO_CLASSES, IoClass};
use crate::fair_queue::FairQueue;

#[cfg(test)]
mod tests;

/// What a request costs the device beside its bytes, in bytes: a device that reaches its limit of
/// requests per second could have moved this much more in that time.
///
/// It is the quotient of bandwidth and request rate: on AWS i3 2,015 MB/s by 411,200 reads/s, that
/// is 4.9 kB, and 4.5 kB for its writes.
const REQUEST_COST_BYTES: u64 = 4_900;

/// The cost of a request of `bytes`, in bytes moved: what classes share in proportion.
pub fn request_cost(bytes: u64) -> u64 {
    REQUEST_COST_BYTES.saturating_add(bytes)
}

/// How many of the smallest requests a class that was idle may have served ahead of its part: as
/// many as the device is given at once, so that a burst of reads goes out whole.
const BURST_REQUESTS: u64 = 128;

/// What an [`IoQueue`] is made with. The defaults are for an unmeasured NVMe device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoQueueOptions {
    /// The classes' shares, indexed by [`IoClass`].
    pub shares: [u32; IO_CLASSES],
    /// The most requests that the device is given at once.
    pub requests_in_flight_max: usize,
    /// The most bytes that the device is given at once, unless a single request has more.
    pub bytes_in_flight_max: u64,
}

impl Default for IoQueueOptions {
    fn default() -> Self {
        let mut shares = [0; IO_CLASSES];
        // A client waits for these two, and neither may hold up the other.
        shares[IoClass::Commit as usize] = 1000;
        shares[IoClass::Read as usize] = 1000;
        // Until memtables are written out, memory and the log they keep are not freed: the most
        // urgent of the background work.
        shares[IoClass::Flush as usize] = 400;
        // Falling behind costs space and slower reads long before it holds up a write: a fifth of
        // a waiting client's part.
        shares[IoClass::Compaction as usize] = 200;
        // As compaction, but falling behind costs space alone.
        shares[IoClass::GarbageCollection as usize] = 100;
        // A scan has a client too, but asks for far more than a read does, as fast as it gets it.
        shares[IoClass::Scan as usize] = 100;
        // Nobody waits; enough to finish one day.
        shares[IoClass::Scrub as usize] = 50;
        Self {
            shares,
            // At 128 random reads in flight NVMe devices give close to their full rate; beyond
            // it each read waits longer and no more of them are done.
            requests_in_flight_max: 128,
            // Large requests do not need all the slots to fill the bandwidth: 4 MiB do where the
            // device answers within 2 ms at 2 GB/s, and that bounds what a commit or a read finds
            // ahead of it. On a virtual disk reads of 1 MiB came at 923 MB/s one by one, at 851
            // four by four within 4.8 ms, and at 784 sixteen by sixteen within 21 ms.
            bytes_in_flight_max: 4 << 20,
        }
    }
}

/// Decides how much the device is given at once.
///
/// This is where a measured model of the device and a token bucket that its cores share have their
/// place: they answer the same two calls.
pub trait Admission {
    /// Whether a request of `bytes` may go to the device now. True takes it into account, as in
    /// flight.
    ///
    /// Asked again and again while nothing is in flight, it must become true for any size.
    fn try_admit(&mut self, bytes: u64) -> bool;

    /// A request of `bytes` that was admitted has completed.
    fn release(&mut self, bytes: u64);
}

/// Admits requests up to a fixed number and a fixed sum of bytes in flight.
///
/// A request with more bytes than the limit goes alone.
#[derive(Debug)]
pub struct InFlightCap {
    requests_max: usize,
    bytes_max: u64,
    requests: usize,
    bytes: u64,
}

impl InFlightCap {
    /// Nothing in flight yet, and at most `requests_max` requests (at least one) with together
    /// `bytes_max` bytes.
    pub fn new(requests_max: usize, bytes_max: u64) -> Self {
        assert!(requests_max > 0, "with no request in flight nothing is ever done");
        Self { requests_max, bytes_max, requests: 0, bytes: 0 }
    }
}

impl Admission for InFlightCap {
    fn try_admit(&mut self, bytes: u64) -> bool {
        let bytes_after = self.bytes.saturating_add(bytes);
        let fits = self.requests < self.requests_max && bytes_after <= self.bytes_max;
        let admitted = fits || self.requests == 0;
        if admitted {
            self.requests += 1;
            self.bytes = bytes_after;
        }
        admitted
    }

    fn release(&mut self, bytes: u64) {
        self.requests = self.requests.checked_sub(1).expect("a request is in flight");
        self.bytes = self.bytes.checked_sub(bytes).expect("its bytes are in flight");
    }
}

/// What one class of an [`IoQueue`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounters {
    /// Requests that wait here at this moment.
    pub queued: u64,
    /// Requests that have gone to the device since the start.
    pub dispatched: u64,
    /// The bytes of the dispatched requests.
    pub bytes: u64,
}

#[derive(Clone, Copy, Default)]
struct ClassState {
    counters: ClassCounters,
    requests_in_flight: usize,
    bytes_in_flight: u64,
}

/// One core's queue of disk requests; `T` is whatever the caller submits.
pub struct IoQueue<T, A = InFlightCap> {
    waiting: FairQueue<Request<T>>,
    admission: A,
    classes: [ClassState; IO_CLASSES],
}

struct Request<T> {
    bytes: u64,
    payload: T,
}

impl<T> IoQueue<T> {
    /// An empty queue with the limits of `options`.
    pub fn new(options: IoQueueOptions) -> Self {
        let cap = InFlightCap::new(options.requests_in_flight_max, options.bytes_in_flight_max);
        Self::with_admission(&options.shares, cap)
    }
}

impl<T, A: Admission> IoQueue<T, A> {
    /// An empty queue whose classes have `shares`, and which asks `admission` before it lets a
    /// request go.
    pub fn with_admission(shares: &[u32; IO_CLASSES], admission: A) -> Self {
        let burst = BURST_REQUESTS * request_cost(DISK_ALIGNMENT as u64);
        Self {
            waiting: FairQueue::new(shares, burst),
            admission,
            classes: [ClassState::default(); IO_CLASSES],
        }
    }

    /// Appends a request that moves `bytes` (0 for a flush) to its class.
    pub fn push(&mut self, class: IoClass, bytes: u64, request: T) {
        let request = Request { bytes, payload: request };
        self.waiting.push(class as usize, request_cost(bytes), request);
        self.classes[class as usize].counters.queued += 1;
    }

    /// Takes the next request if it may go to the device now; it then counts as in flight until
    /// [`IoQueue::complete`].
    pub fn pop(&mut self) -> Option<T> {
        let (_, _, request) = self.waiting.peek()?;
        if !self.admission.try_admit(request.bytes) {
            return None;
        }
        let (class, _, Request { bytes, payload }) =
            self.waiting.pop().expect("a request was seen just now");
        let class = &mut self.classes[class];
        class.counters.queued -= 1;
        class.counters.dispatched += 1;
        class.counters.bytes = class.counters.bytes.wrapping_add(bytes);
        class.requests_in_flight += 1;
        class.bytes_in_flight += bytes;
        Some(payload)
    }

    /// A request that [`IoQueue::pop`] gave out has completed, well or not; `class` and `bytes` are
    /// those of its [`IoQueue::push`].
    ///
    /// Completing more than is in flight is a programmer error, and panics.
    pub fn complete(&mut self, class: IoClass, bytes: u64) {
        let state = &mut self.classes[class as usize];
        let requests = state.requests_in_flight.checked_sub(1);
        let bytes_after = state.bytes_in_flight.checked_sub(bytes);
        let (Some(requests), Some(bytes_after)) = (requests, bytes_after) else {
            panic!("{class:?} completes {bytes} bytes that are not in flight");
        };
        assert!(requests > 0 || bytes_after == 0, "{class:?} completes too few bytes: {bytes}");
        state.requests_in_flight = requests;
        state.bytes_in_flight = bytes_after;
        self.admission.release(bytes);
    }

    /// Changes the shares of a class, for requests that go from now on.
    pub fn set_shares(&mut self, class: IoClass, shares: u32) {
        self.waiting.set_shares(class as usize, shares);
    }

    /// The number of requests that wait here.
    pub fn queued(&self) -> usize {
        self.waiting.len()
    }

    /// The number of requests that the device has.
    pub fn in_flight(&self) -> usize {
        self.classes.iter().map(|class| class.requests_in_flight).sum()
    }

    /// The bytes of the requests that the device has.
    pub fn bytes_in_flight(&self) -> u64 {
        self.classes.iter().map(|class| class.bytes_in_flight).sum()
    }

    /// What `class` has done.
    pub fn class_counters(&self, class: IoClass) -> ClassCounters {
        self.classes[class as usize].counters
    }
}
