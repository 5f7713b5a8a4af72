//! What the client costs: reads of values of 1,000 bytes, from one thread that keeps 16 under way,
//! and from 8 threads that share one client and keep as many each.
//!
//! `cargo run --release -p larder-client --example throughput -- 127.0.0.1:9411 10` measures each
//! for 10 seconds. The node keeps the 1,000 records `throughput:0000` and so on afterwards.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use larder_client::{CallKind, Calls, Client, ClientError, ItemRef, Put};
use rustix::time::{ClockId, clock_gettime};

const ITEMS: usize = 1000;
const VALUE_BYTES: usize = 1000;

/// Reads that a thread keeps under way.
const DEPTH: usize = 16;

pub(crate) fn run(node: &str, time: Duration) -> Result<(), ClientError> {
    let names: Vec<String> = (0..ITEMS).map(|number| format!("throughput:{number:04}")).collect();
    fill(&Client::connect(node)?, &names)?;
    for threads in [1, 8] {
        // A client of its own, so that its latencies are those of this run.
        let client = Client::connect(node)?;
        client.ping().wait()?;
        measure(&client, &names, threads, time)?;
    }
    Ok(())
}

fn key(name: &str) -> Result<ItemRef<'_>, ClientError> {
    ItemRef::of_record(name)
}

fn fill(client: &Client, names: &[String]) -> Result<(), ClientError> {
    let value = [b'v'; VALUE_BYTES];
    for names in names.chunks(DEPTH) {
        let keys = names.iter().map(|name| key(name)).collect::<Result<Vec<_>, _>>()?;
        let puts: Calls<_> = keys.iter().map(|key| client.put(*key, &Put::value(&value))).collect();
        puts.wait().into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    Ok(())
}

/// Reads from so many threads for so long, and prints what it has cost.
fn measure(
    client: &Client,
    names: &[String],
    threads: usize,
    time: Duration,
) -> Result<(), ClientError> {
    let (began, spent) = (now(), processor_time());
    let read = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || read(client, names, thread, began + time)))
            .collect();
        let read = readers.into_iter().map(|reader| reader.join().expect("no panic"));
        read.sum::<Result<u64, ClientError>>()
    })?;
    let (took, spent) = (now() - began, processor_time() - spent);
    let micros = spent.as_secs_f64() * 1e6 / read.max(1) as f64;
    let latency = client.metrics().of(CallKind::Get).latency(0.99);
    println!(
        "{threads} threads, {DEPTH} reads each under way: {:.0} reads/s, {micros:.3} us of CPU a \
         read, {:.2} CPUs, p99 {} us",
        read as f64 / took.as_secs_f64(),
        spent.as_secs_f64() / took.as_secs_f64(),
        latency.as_micros(),
    );
    Ok(())
}

/// Reads until `end`; how many items.
fn read(
    client: &Client,
    names: &[String],
    thread: usize,
    end: Instant,
) -> Result<u64, ClientError> {
    let keys = names.iter().map(|name| key(name)).collect::<Result<Vec<_>, _>>()?;
    let mut next = keys.iter().cycle().skip(thread * ITEMS / 8);
    let mut read = 0;
    while now() < end {
        let calls: Calls<_> = next.by_ref().take(DEPTH).map(|key| client.get(*key)).collect();
        for item in calls.wait() {
            assert_eq!(item?.expect("it was stored").value.len(), VALUE_BYTES);
            read += 1;
        }
    }
    Ok(read)
}

#[allow(clippy::disallowed_methods, reason = "a program has a clock of its own")]
fn now() -> Instant {
    Instant::now()
}

/// What all threads of this process have used of processors.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let [seconds, nanos] = [time.tv_sec, time.tv_nsec].map(|part| u64::try_from(part).unwrap_or(0));
    Duration::from_secs(seconds) + Duration::from_nanos(nanos)
}

fn main() -> Result<(), ClientError> {
    let mut arguments = std::env::args().skip(1);
    let node = arguments.next().unwrap_or_else(|| "127.0.0.1:9411".to_owned());
    let seconds = arguments.next().map_or(Ok(5), |seconds| seconds.parse());
    let seconds = seconds.map_err(|_| ClientError::Usage("how many seconds?".to_owned()))?;
    run(&node, Duration::from_secs(seconds))
}
