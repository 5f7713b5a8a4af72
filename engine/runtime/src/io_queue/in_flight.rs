//! How much the device has at once, whatever it can do.

/// Lets requests go up to a fixed number and a fixed sum of bytes.
///
/// A request with more bytes than the limit goes alone.
#[derive(Debug)]
pub(super) struct InFlightCap {
    requests_max: usize,
    bytes_max: u64,
    requests: usize,
    bytes: u64,
}

impl InFlightCap {
    /// Nothing in flight yet, and at most `requests_max` requests (at least one) with together
    /// `bytes_max` bytes.
    pub(super) fn new(requests_max: usize, bytes_max: u64) -> Self {
        assert!(requests_max > 0, "with no request in flight nothing is ever done");
        Self { requests_max, bytes_max, requests: 0, bytes: 0 }
    }

    /// Whether a request of `bytes` may go now. Any may if nothing is in flight.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let fits = self.bytes.saturating_add(bytes) <= self.bytes_max;
        self.requests == 0 || (self.requests < self.requests_max && fits)
    }

    /// A request goes.
    pub(super) fn enter(&mut self, bytes: u64) {
        self.requests += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// One that went is over.
    pub(super) fn leave(&mut self, bytes: u64) {
        self.requests = self.requests.checked_sub(1).expect("a request is in flight");
        self.bytes = self.bytes.checked_sub(bytes).expect("its bytes are in flight");
    }

    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}
