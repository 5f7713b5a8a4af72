//! What an I/O queue says of itself.

/// One class of an I/O queue: how it stands, and what it has done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoClassStatistics {
    /// Requests that wait for their turn at this moment.
    pub queued: u64,
    /// Requests that the device has at this moment.
    pub in_flight: u64,
    /// Requests that have gone to the device.
    pub dispatched: u64,
    /// Requests that the device has ended, well or not: reads, writes and flushes.
    pub completed: u64,
    /// Those of them that were reads.
    pub reads: u64,
    /// Bytes that were moved.
    pub bytes: u64,
    /// Parts, beyond the first, that long requests were split into.
    pub split: u64,
    /// What requests that went were charged of the device's time, in tokens: their cost by its
    /// figures, and more or less where reads and writes meet or the device is not as quick as they
    /// say. 0 while no device was measured.
    pub charged_tokens: u64,
    /// Nanoseconds that requests waited for their turn.
    pub queue_nanoseconds: u64,
    /// Nanoseconds from the ring to the completion.
    pub ring_nanoseconds: u64,
    /// Nanoseconds from the last completion until whoever asked has taken the result.
    pub after_nanoseconds: u64,
    /// Nanoseconds in which something waited and nothing of the class was under way.
    pub starved_nanoseconds: u64,
    /// The shares that the class has now: its usual ones, times the urgency of its work.
    pub shares: u32,
    /// The shares that it has while its work is not urgent.
    pub usual_shares: u32,
    /// The most bytes a second that it may move, if there is a cap.
    pub bandwidth_max: Option<u64>,
}

/// What a core has found out of a measured device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoFlow {
    /// Requests given to the device for each that it has ended, smoothed, in thousandths: above
    /// 1,100 it is slower than was measured, and requests are taken to cost so much more.
    pub ratio_thousandths: u64,
    /// How much of the device's rate is used, in thousandths. Below 1,000 what nobody waits for is
    /// held back to that part, because reads take too long; above it the device can do so much
    /// more than was measured.
    pub allowed_thousandths: u64,
}

impl Default for IoFlow {
    fn default() -> Self {
        Self { ratio_thousandths: 1_000, allowed_thousandths: 1_000 }
    }
}
