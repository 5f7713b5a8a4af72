//! What a device can do, and what a request costs it.
//!
//! A request takes a part of the device's time: something for itself, and something for each of its
//! bytes. Both follow from the two rates that were measured: requests of [`SHORT`] bytes at
//! [`DeviceModel::read_iops`] a second fill it, and so do requests of [`LONG`] bytes at
//! [`DeviceModel::read_bandwidth`]. The short ones move bytes too, so `1 / requests per second +
//! length / bandwidth` would count these twice: on a disk that did 159,000 reads of 4 KiB and
//! 1.31 GB a second it let 106,000 through, and the line through both points foretold 64,000 reads
//! of 16 KiB and 18,900 of 64 KiB, where 63,000 and 19,000 were measured.
//!
//! That part is counted in tokens, of which the device has [`TOKENS_PER_MILLISECOND`]. So a device
//! that is given requests for as many tokens as time has brought is as busy as it can be, whatever
//! the requests are.

use std::ops::RangeInclusive;

use crate::env::DISK_ALIGNMENT;

/// The tokens of a millisecond in which the device does nothing else.
pub const TOKENS_PER_MILLISECOND: u64 = 1 << 24;

/// The highest cost of one request, in tokens: a minute of the device.
pub const TOKENS_MAX: u64 = 1 << 40;

/// The longest request that the device is given at once, in bytes, whatever it can do: others get
/// in between two of them.
pub const LONGEST_REQUEST: u64 = 1 << 20;

/// The length of the requests that [`DeviceModel::read_iops`] and `write_iops` count, in bytes.
/// Shorter ones cost the same.
const SHORT: u64 = DISK_ALIGNMENT as u64;

/// The length of the requests that find the bandwidth, in bytes.
const LONG: u64 = 1 << 20;

/// Requests of this length are never split, in bytes: the bucket always has room for one.
const SPLIT_MIN: u64 = 64 << 10;

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;
const TOKENS_PER_SECOND: u128 = TOKENS_PER_MILLISECOND as u128 * 1_000;

/// Binary places of a byte's cost below one token.
const BYTE_FRACTION_BITS: u32 = 20;

/// Requests a second that are believed.
const IOPS: RangeInclusive<u64> = 10..=100_000_000;
/// Bytes a second that are believed.
const BANDWIDTH: RangeInclusive<u64> = 100_000..=1_000_000_000_000;
/// Goals for latency, in nanoseconds.
const LATENCY_GOAL: RangeInclusive<u64> = 10_000..=10_000_000_000;
/// Requests that a device has at a time.
const DEPTH: RangeInclusive<u64> = 1..=65_536;
/// How much of both a device does when it reads and writes, in thousandths.
const MIXED: RangeInclusive<u64> = 100..=2_000;

/// Whether a request reads or writes; a flush counts as a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IoDirection {
    /// From the device.
    Read = 0,
    /// To the device.
    Write = 1,
}

impl IoDirection {
    /// Both, in the order of their numbers.
    pub const BOTH: [Self; 2] = [Self::Read, Self::Write];

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Read => Self::Write,
            Self::Write => Self::Read,
        }
    }
}

/// What a device can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceModel {
    /// The shortest reads a second.
    pub read_iops: u64,
    /// The shortest writes a second.
    pub write_iops: u64,
    /// Bytes read a second.
    pub read_bandwidth: u64,
    /// Bytes written a second.
    pub write_bandwidth: u64,
    /// How long a read may take, in nanoseconds. Half of it is for what the device was given
    /// before, the other for the read itself.
    pub latency_goal: u64,
    /// The most requests that the device is given at a time, if more bring nothing.
    pub depth_max: Option<u64>,
    /// The share of its reads and the share of its writes that the device does together, added up,
    /// in thousandths: with 1000 each goes at the other's cost.
    pub mixed_thousandths: u64,
}

/// An NVMe device of middle size (that of AWS i3), to weigh requests with where none was measured.
impl Default for DeviceModel {
    fn default() -> Self {
        Self {
            read_iops: 411_000,
            write_iops: 182_000,
            read_bandwidth: 2_020_000_000,
            write_bandwidth: 809_000_000,
            latency_goal: 750_000,
            depth_max: None,
            mixed_thousandths: 1_000,
        }
    }
}

impl DeviceModel {
    /// Whether all figures are such as devices have.
    ///
    /// # Errors
    /// The figure that is not, with the range.
    pub fn check(&self) -> Result<(), String> {
        let figures = [
            ("read_iops", self.read_iops, IOPS),
            ("write_iops", self.write_iops, IOPS),
            ("read_bandwidth", self.read_bandwidth, BANDWIDTH),
            ("write_bandwidth", self.write_bandwidth, BANDWIDTH),
            ("latency goal in nanoseconds", self.latency_goal, LATENCY_GOAL),
            ("depth", self.depth_max.unwrap_or(*DEPTH.start()), DEPTH),
            ("mixed_thousandths", self.mixed_thousandths, MIXED),
        ];
        for (name, value, range) in figures {
            if !range.contains(&value) {
                let (start, end) = (range.start(), range.end());
                return Err(format!("{name} {value}: not from {start} to {end}"));
            }
        }
        Ok(())
    }

    /// The same with every figure in the range that [`DeviceModel::check`] asks for.
    pub fn clamped(&self) -> Self {
        let within =
            |value: u64, range: RangeInclusive<u64>| value.clamp(*range.start(), *range.end());
        Self {
            read_iops: within(self.read_iops, IOPS),
            write_iops: within(self.write_iops, IOPS),
            read_bandwidth: within(self.read_bandwidth, BANDWIDTH),
            write_bandwidth: within(self.write_bandwidth, BANDWIDTH),
            latency_goal: within(self.latency_goal, LATENCY_GOAL),
            depth_max: self.depth_max.map(|depth| within(depth, DEPTH)),
            mixed_thousandths: within(self.mixed_thousandths, MIXED),
        }
    }

    /// What a request of `bytes` (0 for a flush) costs the device, in tokens. Who asks often keeps
    /// [`DeviceModel::costs`].
    pub fn cost(&self, direction: IoDirection, bytes: u64) -> u64 {
        self.costs().of(direction, bytes)
    }

    /// The longest request that the device is to be given, in bytes; longer ones are split.
    pub fn longest_request(&self, direction: IoDirection) -> u64 {
        self.costs().longest_request(direction)
    }

    /// The costs of requests, worked out so that one is found without a division. Figures that no
    /// device has are taken for the nearest that one could have.
    pub fn costs(&self) -> DeviceCosts {
        let model = self.clamped();
        let read = line(model.read_iops, model.read_bandwidth);
        let write = line(model.write_iops, model.write_bandwidth);
        let mut costs = DeviceCosts {
            request: [read.0, write.0],
            byte: [read.1, write.1],
            limit: 0,
            threshold: 0,
            longest: [LONGEST_REQUEST; 2],
        };
        let both = |bytes| IoDirection::BOTH.map(|direction| costs.of(direction, bytes));
        let [read, write] = both(SPLIT_MIN);
        let limit = tokens_of(model.latency_goal / 2).max(read).max(write);
        let [read, write] = both(SHORT);
        let threshold = read.min(write);
        costs.limit = limit;
        costs.threshold = threshold;
        costs.longest = IoDirection::BOTH.map(|direction| {
            let mut length = LONGEST_REQUEST;
            while length > SPLIT_MIN && costs.of(direction, length) > limit {
                length /= 2;
            }
            length
        });
        costs
    }
}

/// The cost of a request without its bytes, in tokens, and that of a byte, with
/// [`BYTE_FRACTION_BITS`]: the line through the costs of a short and of a long request. Where short
/// ones move more bytes than the bandwidth says, bytes cost what the bandwidth says and nothing
/// else counts; where long ones take no longer than short ones, bytes are free.
fn line(iops: u64, bandwidth: u64) -> (u64, u64) {
    let fraction = |tokens: u128| tokens << BYTE_FRACTION_BITS;
    let short = fraction(TOKENS_PER_SECOND) / u128::from(iops);
    let long = fraction(TOKENS_PER_SECOND) * u128::from(LONG) / u128::from(bandwidth);
    let steepest = long / u128::from(LONG);
    let byte = (long.saturating_sub(short) / u128::from(LONG - SHORT)).min(steepest);
    let request = short.saturating_sub(byte * u128::from(SHORT)) >> BYTE_FRACTION_BITS;
    let whole = |tokens| u64::try_from(tokens).unwrap_or(u64::MAX);
    (whole(request), whole(byte))
}

/// What requests cost a device, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceCosts {
    /// By direction: the cost of a request without its bytes.
    request: [u64; 2],
    /// By direction: the cost of a byte, with [`BYTE_FRACTION_BITS`].
    byte: [u64; 2],
    limit: u64,
    threshold: u64,
    /// By direction, in bytes.
    longest: [u64; 2],
}

impl DeviceCosts {
    /// The cost of a request of `bytes` (0 for a flush): 1 to [`TOKENS_MAX`].
    #[inline]
    pub fn of(&self, direction: IoDirection, bytes: u64) -> u64 {
        let (direction, bytes) = (direction as usize, bytes.max(SHORT));
        let moved = (u128::from(self.byte[direction]) * u128::from(bytes)) >> BYTE_FRACTION_BITS;
        let cost = moved.saturating_add(u128::from(self.request[direction]));
        u64::try_from(cost).unwrap_or(u64::MAX).clamp(1, TOKENS_MAX)
    }

    /// The part of a second that `requests` take which move `bytes` in all, each 4 KiB or more.
    pub fn seconds_of(&self, direction: IoDirection, requests: u64, bytes: u64) -> f64 {
        let direction = direction as usize;
        let byte = self.byte[direction] as f64 / f64::from(1 << BYTE_FRACTION_BITS);
        let tokens = self.request[direction] as f64 * requests as f64 + byte * bytes as f64;
        tokens / TOKENS_PER_SECOND as f64
    }

    /// The most tokens that each bucket of an idle device has: half of its latency goal, or one
    /// request of 64 KiB where that takes longer.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The cost of the cheapest request: fewer tokens are of no use to anybody.
    pub fn threshold(&self) -> u64 {
        self.threshold
    }

    /// The longest request, in bytes, that costs no more than the limit.
    pub fn longest_request(&self, direction: IoDirection) -> u64 {
        self.longest[direction as usize]
    }
}

/// The tokens that so many nanoseconds bring; of more than a minute those of a minute.
#[inline]
pub fn tokens_of(nanoseconds: u64) -> u64 {
    const MINUTE: u64 = 60_000 * NANOSECONDS_PER_MILLISECOND;
    nanoseconds.min(MINUTE) * TOKENS_PER_MILLISECOND / NANOSECONDS_PER_MILLISECOND
}

/// The part of a second that so many tokens are.
pub fn seconds_of(tokens: u64) -> f64 {
    tokens as f64 / TOKENS_PER_SECOND as f64
}

/// How many nanoseconds it takes until so many tokens have come, rounded up.
#[inline]
pub fn nanoseconds_of(tokens: u64) -> u64 {
    let tokens = tokens.min(TOKENS_MAX);
    (tokens * NANOSECONDS_PER_MILLISECOND).div_ceil(TOKENS_PER_MILLISECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_second_of_requests_costs_a_second() {
        let model = DeviceModel::default();
        let costs = model.costs();
        let second = TOKENS_PER_MILLISECOND * 1_000;
        for (direction, iops, bandwidth) in [
            (IoDirection::Read, model.read_iops, model.read_bandwidth),
            (IoDirection::Write, model.write_iops, model.write_bandwidth),
        ] {
            assert_eq!(costs.of(direction, 0), costs.of(direction, 4096), "a flush");
            let requests = costs.of(direction, 4096) * iops;
            let bytes = costs.of(direction, 1 << 20) as f64 * bandwidth as f64 / f64::from(1 << 20);
            assert!(requests.abs_diff(second) < second / 1_000, "{requests}");
            let together = costs.seconds_of(direction, iops, iops * 4096);
            assert!((together - 1.0).abs() < 0.001, "{together}");
            assert!((bytes / second as f64 - 1.0).abs() < 0.001, "{bytes}");
        }
    }

    #[test]
    fn lengths_between_the_measured_ones_cost_what_they_take() {
        let model = DeviceModel {
            read_iops: 158_930,
            read_bandwidth: 1_311_019_593,
            ..DeviceModel::default()
        };
        let costs = model.costs();
        for (bytes, measured) in [(16 << 10, 63_255), (64 << 10, 18_900)] {
            let cost = costs.of(IoDirection::Read, bytes);
            let rate = TOKENS_PER_MILLISECOND * 1_000 / cost;
            assert!(rate.abs_diff(measured) < measured / 20, "{rate} of {measured}");
        }
    }

    #[test]
    fn figures_that_contradict_each_other_give_the_higher_cost() {
        let second = TOKENS_PER_MILLISECOND * 1_000;
        let narrow = DeviceModel {
            read_iops: 1_000_000,
            read_bandwidth: 100_000_000,
            ..DeviceModel::default()
        };
        let cost = narrow.costs().of(IoDirection::Read, 4096);
        assert!((second / cost).abs_diff(100_000_000 / 4096) < 100, "{cost}: bytes alone count");
        let slow =
            DeviceModel { read_iops: 100, read_bandwidth: 1_000_000_000, ..DeviceModel::default() };
        let costs = slow.costs();
        assert!((second / costs.of(IoDirection::Read, 4096)).abs_diff(100) < 2);
        assert_eq!(costs.of(IoDirection::Read, 4096), costs.of(IoDirection::Read, 1 << 20));
    }

    #[test]
    fn requests_are_split_where_the_device_is_slow() {
        let fast = DeviceModel::default();
        assert_eq!(fast.longest_request(IoDirection::Read), 512 << 10);
        assert_eq!(fast.longest_request(IoDirection::Write), 256 << 10);
        let fastest = DeviceModel { read_bandwidth: 10_000_000_000, ..fast };
        assert_eq!(fastest.longest_request(IoDirection::Read), 1 << 20);
        let slow = DeviceModel { read_bandwidth: 400_000_000, ..fast };
        assert_eq!(slow.longest_request(IoDirection::Read), 128 << 10);
        let slowest = DeviceModel { read_bandwidth: 1_000_000, ..fast };
        assert_eq!(slowest.longest_request(IoDirection::Read), 64 << 10);
        let costs = slowest.costs();
        assert_eq!(costs.limit(), costs.of(IoDirection::Read, 64 << 10), "room for one");
    }

    #[test]
    fn figures_that_no_device_has_are_named() {
        let good = DeviceModel::default();
        good.check().unwrap();
        let cases = [
            (DeviceModel { read_iops: 0, ..good }, "read_iops 0"),
            (DeviceModel { write_iops: 1 << 60, ..good }, "write_iops"),
            (DeviceModel { read_bandwidth: 1, ..good }, "read_bandwidth 1"),
            (DeviceModel { write_bandwidth: u64::MAX, ..good }, "write_bandwidth"),
            (DeviceModel { latency_goal: 0, ..good }, "latency goal"),
            (DeviceModel { depth_max: Some(0), ..good }, "depth 0"),
            (DeviceModel { mixed_thousandths: 0, ..good }, "mixed_thousandths 0"),
        ];
        for (model, named) in cases {
            let error = model.check().unwrap_err();
            assert!(error.contains(named) && error.contains(" to "), "{error}");
            model.clamped().check().unwrap();
        }
    }

    proptest! {
        #[test]
        fn absurd_figures_give_costs_within_the_bounds(
            figures in
                proptest::array::uniform6(prop_oneof![Just(0), Just(u64::MAX), any::<u64>()]),
            depth in any::<Option<u64>>(), bytes in any::<u64>(),
        ) {
            let [read_iops, write_iops, read_bandwidth, write_bandwidth, goal, mixed] = figures;
            let model = DeviceModel {
                read_iops,
                write_iops,
                read_bandwidth,
                write_bandwidth,
                latency_goal: goal,
                depth_max: depth,
                mixed_thousandths: mixed,
            };
            let costs = model.costs();
            prop_assert!((1..=costs.limit()).contains(&costs.threshold()));
            prop_assert!(costs.limit() <= TOKENS_MAX);
            for direction in IoDirection::BOTH {
                prop_assert!((1..=TOKENS_MAX).contains(&costs.of(direction, bytes)));
                prop_assert!(costs.of(direction, bytes) >= costs.of(direction, bytes / 2));
                let longest = costs.longest_request(direction);
                prop_assert!((SPLIT_MIN..=LONGEST_REQUEST).contains(&longest));
                prop_assert!(costs.of(direction, longest) <= costs.limit());
            }
        }

        #[test]
        fn tokens_and_time_are_the_same_thing(nanoseconds in 0..60_000_000_000u64) {
            let back = nanoseconds_of(tokens_of(nanoseconds));
            prop_assert!(back <= nanoseconds && nanoseconds - back <= 1);
        }
    }
}
