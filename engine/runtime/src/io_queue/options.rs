//! What an I/O queue is made with, and what of it can be changed while it runs.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::device_group::DeviceGroup;
use crate::env::{IO_CLASSES, IoClass};
use crate::fair_queue::SHARES_MAX;

/// Caps in bytes a second that make sense: with less, one request of 1 MiB takes a minute.
const BANDWIDTH_MAX: RangeInclusive<u64> = (16 << 10)..=(1 << 40);

/// What an [`IoQueue`](super::IoQueue) is made with. The defaults are for an NVMe device that
/// nobody has measured.
#[derive(Clone, Debug)]
pub struct IoQueueOptions {
    /// The classes' shares, indexed by [`IoClass`].
    pub shares: [u32; IO_CLASSES],
    /// The most bytes a second that this core moves for a class, indexed by [`IoClass`]; none for
    /// as many as its shares bring.
    pub bandwidth_max: [Option<u64>; IO_CLASSES],
    /// The most requests that the device is given at once.
    pub requests_in_flight_max: usize,
    /// The most bytes that the device is given at once, unless a single request has more.
    pub bytes_in_flight_max: u64,
    /// The device as it was measured, which all of its cores share. Without one the limits above
    /// are the only ones.
    pub device: Option<Arc<DeviceGroup>>,
}

impl Default for IoQueueOptions {
    fn default() -> Self {
        let mut shares = [0; IO_CLASSES];
        // A client waits for these two, and neither may hold up the other. Each has nearly twice
        // what all below have together when that is urgent (1150), so that reads for half of the
        // device find it free although everything else wants more than there is.
        shares[IoClass::Commit as usize] = 2000;
        shares[IoClass::Read as usize] = 2000;
        // Until memtables are written out, memory and the log they keep are not freed: the most
        // urgent of the background work.
        shares[IoClass::Flush as usize] = 400;
        // Falling behind costs space and slower reads long before it holds up a write: a tenth of
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
            bandwidth_max: [None; IO_CLASSES],
            // At 128 random reads in flight NVMe devices give close to their full rate; beyond
            // it each read waits longer and no more of them are done.
            requests_in_flight_max: 128,
            // Large requests do not need all the slots to fill the bandwidth: 4 MiB do where the
            // device answers within 2 ms at 2 GB/s, and that bounds what a commit or a read finds
            // ahead of it. On a virtual disk reads of 1 MiB came at 923 MB/s one by one, at 851
            // four by four within 4.8 ms, and at 784 sixteen by sixteen within 21 ms.
            bytes_in_flight_max: 4 << 20,
            device: None,
        }
    }
}

/// Whether a class can have these shares and this cap in bytes a second.
///
/// # Errors
/// What is wrong with which of them, and what it may be.
pub fn check_io_class(
    class: IoClass,
    shares: Option<u32>,
    bandwidth_max: Option<u64>,
) -> Result<(), String> {
    if let Some(shares) = shares.filter(|shares| !(1..=SHARES_MAX).contains(shares)) {
        return Err(format!("{class:?}: {shares} shares: not from 1 to {SHARES_MAX}"));
    }
    match bandwidth_max {
        Some(bytes) if !BANDWIDTH_MAX.contains(&bytes) => {
            let (start, end) = (BANDWIDTH_MAX.start(), BANDWIDTH_MAX.end());
            Err(format!("{class:?}: {bytes} bytes a second: not from {start} to {end}"))
        }
        _ => Ok(()),
    }
}
