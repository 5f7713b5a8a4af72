//! What the client costs: reads of values of 1,000 bytes, from one thread that keeps 16 under way,
//! and from 8 threads that share one client and keep as many each. Beside them what a socket alone
//! costs, over which one thread sends the same requests 16 at a time: nothing that reads them can
//! cost less.
//!
//! `cargo run --release -p larder-client --example throughput -- 127.0.0.1:9411 10` measures each
//! for 10 seconds, and with `one`, `eight` or `socket` behind that only one of them. The node keeps
//! the 1,000 records `throughput:0000` and so on afterwards.
#![forbid(unsafe_code)]

use std::io::{Error, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use larder_client::{CallKind, Calls, Client, ClientError, ItemRef, Put};
use larder_protocol::native::reply::NativeReply;
use larder_protocol::native::{GetItem, ItemKey, NativeRequest, put_request};
use rustix::time::{ClockId, clock_gettime};

const ITEMS: usize = 1000;
const VALUE_BYTES: usize = 1000;

/// Reads that a thread keeps under way.
const DEPTH: usize = 16;

/// Bytes that are read from a bare socket at most at a time.
const READ_BYTES: usize = 128 << 10;

pub(crate) fn run(node: &str, time: Duration) -> Result<(), ClientError> {
    run_some(node, time, &["one", "eight", "socket"])
}

fn run_some(node: &str, time: Duration, which: &[&str]) -> Result<(), ClientError> {
    let names: Vec<String> = (0..ITEMS).map(|number| format!("throughput:{number:04}")).collect();
    fill(&Client::connect(node)?, &names)?;
    for which in which {
        let threads = match *which {
            "one" => 1,
            "eight" => 8,
            "socket" => {
                let socket = TcpStream::connect(node).map_err(ClientError::Broken)?;
                let cost = Cost::begin();
                let read = read_bare(socket, &names, cost.began + time);
                cost.print("a socket alone", read.map_err(ClientError::Broken)?);
                continue;
            }
            other => return Err(ClientError::Usage(format!("there is no {other} to measure"))),
        };
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

/// What has been used since some moment.
struct Cost {
    began: Instant,
    spent: Duration,
}

impl Cost {
    fn begin() -> Self {
        Self { began: now(), spent: processor_time() }
    }

    fn print(&self, who: &str, read: u64) {
        let (took, spent) = (now() - self.began, processor_time() - self.spent);
        println!(
            "{who}, {DEPTH} reads under way: {read} reads, {:.0} reads/s, {:.3} us of CPU a read, \
             {:.2} CPUs",
            read as f64 / took.as_secs_f64(),
            spent.as_secs_f64() * 1e6 / read.max(1) as f64,
            spent.as_secs_f64() / took.as_secs_f64(),
        );
    }
}

/// Reads from so many threads for so long, and prints what it has cost.
fn measure(
    client: &Client,
    names: &[String],
    threads: usize,
    time: Duration,
) -> Result<(), ClientError> {
    let cost = Cost::begin();
    let read = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || read(client, names, thread, cost.began + time)))
            .collect();
        let read = readers.into_iter().map(|reader| reader.join().expect("no panic"));
        read.sum::<Result<u64, ClientError>>()
    })?;
    let latency = client.metrics().of(CallKind::Get).latency(0.99).as_micros();
    cost.print(&format!("{threads} threads (p99 {latency} us)"), read);
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

/// Reads until `end` over a socket, 16 items at a time; how many.
fn read_bare(mut socket: TcpStream, names: &[String], end: Instant) -> std::io::Result<u64> {
    socket.set_nodelay(true)?;
    let batches: Vec<Vec<u8>> = names.chunks_exact(DEPTH).map(batch).collect();
    let (mut buffer, mut read) = (vec![0; READ_BYTES], 0);
    for batch in batches.iter().cycle() {
        if now() >= end {
            break;
        }
        socket.write_all(batch)?;
        let (mut from, mut to, mut replies) = (0, 0, 0);
        while replies < DEPTH {
            match NativeReply::read(&buffer[from..to], READ_BYTES as u32) {
                Ok((reply, length)) => {
                    let item = reply.item().map_err(|_| Error::from(ErrorKind::InvalidData))?;
                    assert_eq!(item.value.len(), VALUE_BYTES);
                    (from, replies) = (from + length, replies + 1);
                }
                Err(Ok(_)) => match socket.read(&mut buffer[to..])? {
                    0 => return Err(ErrorKind::UnexpectedEof.into()),
                    more => to += more,
                },
                Err(Err(_)) => return Err(ErrorKind::InvalidData.into()),
            }
        }
        read += DEPTH as u64;
    }
    Ok(read)
}

/// Requests of these items, as bytes.
fn batch(names: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (id, name) in (1..).zip(names) {
        let key = ItemKey { namespace: 0, record: name.as_bytes(), item: b"" };
        let get = GetItem { key, metadata_only: false, is_quiet: false };
        put_request(&mut bytes, id, 5_000_000, false, &NativeRequest::Get(get));
    }
    bytes
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
    let time = Duration::from_secs(seconds);
    match arguments.next() {
        Some(which) => run_some(&node, time, &[&which]),
        None => run(&node, time),
    }
}
