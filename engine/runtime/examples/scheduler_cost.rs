//! What the I/O queue costs for each request, in nanoseconds of one core:
//! `cargo run --release -p larder-runtime --example scheduler_cost`.
//!
//! A request is pushed, popped and completed; all classes wait all the time, and 32 requests are in
//! flight. Once without a device, once with a device whose tokens never run out, and once at its
//! limit, where most requests are refused at first and the tokens are claimed from a bucket.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Instant;

use larder_runtime::device_group::DeviceGroup;
use larder_runtime::device_model::{DeviceModel, IoDirection};
use larder_runtime::env::IoClass;
use larder_runtime::io_queue::{IoQueue, IoQueueOptions, IoRequest};

const REQUESTS: u64 = 2_000_000;
const IN_FLIGHT: usize = 32;
const ROUNDS: usize = 5;
/// Requests that are taken in one turn of a core.
const TURN: u64 = 8;

fn main() {
    let fast = DeviceModel { read_iops: 100_000_000, ..DeviceModel::default() };
    let real = DeviceModel::default();
    let with = |model| IoQueueOptions {
        device: Some(DeviceGroup::new(model, 2)),
        ..IoQueueOptions::default()
    };
    // How much time passes for each request: at the limit a little less than it costs.
    let own = 2_000;
    report("without a device", &IoQueueOptions::default(), own);
    report("with a device that has tokens", &with(fast), 2 * own);
    report("with a device at its limit", &with(real), own);
}

fn report(name: &str, options: &IoQueueOptions, nanoseconds_per_request: u64) {
    let times: Vec<f64> = (0..ROUNDS).map(|_| run(options, nanoseconds_per_request)).collect();
    let best = times.iter().copied().fold(f64::INFINITY, f64::min);
    println!("{name}: {best:.1} ns per request (best of {ROUNDS})");
}

/// Nanoseconds per request.
#[allow(clippy::disallowed_methods, reason = "it measures time that passes outside")]
fn run(options: &IoQueueOptions, nanoseconds_per_request: u64) -> f64 {
    let mut queue = IoQueue::new(options.clone());
    let request = |number: u64| {
        let class = IoClass::ALL[(number % IoClass::ALL.len() as u64) as usize];
        IoRequest { class, direction: IoDirection::Read, bytes: 4_096 }
    };
    let mut in_flight = VecDeque::with_capacity(IN_FLIGHT);
    let mut now = 1_000_000_000;
    (0..64).for_each(|number| queue.push(request(number), request(number), now));
    let started = Instant::now();
    let mut number = 0;
    while number < REQUESTS {
        now += TURN * nanoseconds_per_request;
        for _ in 0..TURN {
            let Some(popped) = queue.pop(now) else { break };
            in_flight.push_back(black_box(popped));
            number += 1;
            queue.push(request(number), request(number), now);
        }
        while in_flight.len() >= IN_FLIGHT {
            let ended: IoRequest = in_flight.pop_front().expect("it is not empty");
            queue.complete(ended, ended.bytes, 100_000, now);
        }
    }
    started.elapsed().as_nanos() as f64 / REQUESTS as f64
}
