//! `larder bench hostile`: how one client fares while others misbehave.
//!
//! A polite client makes requests at a fixed rate, first alone and then while attackers do what
//! their [`Attack`] says. What counts is by how much the second part is worse than the first.

mod attack;
mod attackers;
mod polite;

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::encoder::Encoder;
use super::settings::within;
use super::{CONNECT_TIMEOUT, DURATION_MAX, Settings};
use crate::arguments::{CpuList, resolve};
use crate::error::BenchError;
use crate::{host, process};
pub use attack::Attack;
use attack::{KEY_BYTES, LARGE_BYTES, LARGE_KEY_FIRST, LARGE_VALUES, stores};
use attackers::{Attackers, Deeds};
use polite::{Latencies, Polite};

/// The polite client's keys and the length of their values.
const KEYS: u64 = 1000;
const VALUE_BYTES: usize = 1000;

/// How long the server may take to answer while the values are stored.
const STORE_TIMEOUT: Duration = Duration::from_secs(30);

/// How nice the polite client's thread is, if it may: attackers must not keep it from its clock.
const NICENESS_MIN: i32 = -20;

/// How nice the attackers' threads are. They give way to the kernel's own threads on their
/// processor: one of them ends the server's direct writes, wherever the device's interrupt came in
/// (seen on Linux 6.18), and was kept from it for seconds.
const NICENESS_ATTACKERS: i32 = 19;

const RATE_MAX: u32 = 1_000_000;
const CONNECTIONS_MAX: usize = 1000;
const THREADS_MAX: usize = 64;

const AFTER_HELP: &str = "\
Example, with the server on another processor:
  taskset -c 0 larder serve --data-dir /tmp/hostile --memory 512M --shards 1 &
  larder bench hostile --attack values --cpu 1 --server-pid $!

The polite client makes five GETs for each SET, of 1,000-byte values. Its latency counts from when a
request was due. `late` is by how much this program was late itself: where that is not small beside
the latencies, it is the machine that is overloaded, and the latencies say little of the server.";

/// `larder bench hostile`.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct HostileArgs {
    /// The server, as memcached://HOST:PORT
    #[arg(long, value_name = "URL", default_value = "memcached://127.0.0.1:11211")]
    pub target: String,
    /// What the attackers do
    #[arg(long, value_name = "NAME", value_enum)]
    pub attack: Attack,
    /// Seconds of the attack; a fraction is allowed
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub duration: f64,
    /// Seconds without it, before
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    pub calm: f64,
    /// Requests of the polite client a second
    #[arg(long, value_name = "N", default_value_t = 1200)]
    pub rate: u32,
    /// Connections of the polite client
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub connections: usize,
    /// Threads of the attackers
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
    /// Keep all threads on these processors, for example 1 or 2,4-7
    #[arg(long, value_name = "LIST", default_value = "")]
    pub cpu: CpuList,
    /// Also report memory and processor time of this local process
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Latencies in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    /// How many there are.
    pub count: u64,
    /// The median.
    pub p50: f64,
    /// One in a hundred was longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// What one part of the run gave.
#[derive(Clone, Debug, Serialize)]
pub struct PartSummary {
    /// The GETs.
    pub get: Quantiles,
    /// The SETs.
    pub set: Quantiles,
    /// By how much the client's own thread was late.
    pub late: Quantiles,
    /// Requests that failed.
    pub failed: u64,
    /// Why the first one did.
    pub failed_first: Option<String>,
}

/// What the attackers did.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AttackSummary {
    /// Connections that they made.
    pub connections: u64,
    /// Attempts that failed.
    pub refused: u64,
    /// Connections that the server ended.
    pub closed_by_server: u64,
    /// Bytes that the server took.
    pub bytes_sent: u64,
    /// Bytes that they read.
    pub bytes_read: u64,
}

/// The server's process.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ProcessSummary {
    /// The most memory that was ever resident, in bytes.
    pub resident_peak_bytes: u64,
    /// Processor time during the attack over its length.
    pub cpus_used: f64,
}

/// A run's figures.
#[derive(Clone, Debug, Serialize)]
pub struct HostileSummary {
    /// The attack.
    pub attack: String,
    /// Without attackers.
    pub calm: PartSummary,
    /// With them.
    pub attacked: PartSummary,
    /// What they did.
    pub attackers: AttackSummary,
    /// The server, if its process was named.
    pub server: Option<ProcessSummary>,
}

struct Checked {
    target: SocketAddr,
    calm: Duration,
    duration: Duration,
}

impl HostileArgs {
    fn check(&self) -> Result<Checked, BenchError> {
        let seconds = |option, value| match Duration::try_from_secs_f64(value) {
            Ok(duration) if !duration.is_zero() && duration <= DURATION_MAX => Ok(duration),
            _ => Err(BenchError::option(option, "must be seconds over 0, for example 10")),
        };
        within("--rate", self.rate as usize, 1, RATE_MAX as usize)?;
        within("--connections", self.connections, 1, CONNECTIONS_MAX)?;
        within("--threads", self.threads, 1, THREADS_MAX)?;
        Ok(Checked {
            target: resolve(&self.target)?,
            calm: seconds("--calm", self.calm)?,
            duration: seconds("--duration", self.duration)?,
        })
    }

    fn pin(&self) -> Result<(), BenchError> {
        if self.cpu.0.is_empty() {
            return Ok(());
        }
        host::pin_thread_to(&self.cpu.0).map_err(|source| failed("--cpu", source))
    }

    fn sample(&self) -> Result<Option<process::ProcessSample>, BenchError> {
        let Some(pid) = self.server_pid else { return Ok(None) };
        let sample = process::sample(pid);
        sample.map(Some).map_err(|reason| BenchError::ServerProcess { pid, reason })
    }
}

fn failed(action: &str, source: io::Error) -> BenchError {
    BenchError::System { action: action.to_owned(), source }
}

/// Runs the polite client alone and then beside the attackers.
///
/// # Errors
/// Options that cannot be used, or a server that cannot be reached. Failed requests are no error
/// here: they are in the summary.
pub fn measure(args: &HostileArgs) -> Result<HostileSummary, BenchError> {
    let Checked { target, calm, duration } = args.check()?;
    // If the limit cannot be raised it may still suffice; if not, connecting says so.
    let _ = host::raise_descriptor_limit();
    args.pin()?;
    let stored = store(target, VALUE_BYTES, 0..KEYS).and_then(|()| {
        let values = LARGE_KEY_FIRST..LARGE_KEY_FIRST + LARGE_VALUES;
        if args.attack.needs_values() { store(target, LARGE_BYTES, values) } else { Ok(()) }
    });
    stored.map_err(|source| failed("storing the values that are asked for", source))?;
    let settings =
        Settings { key_size: KEY_BYTES, value_size: VALUE_BYTES, ..Settings::against(target) };
    let encoder = Encoder::new(&settings);
    let mut client = Polite::connect(target, &encoder, KEYS, args.rate, args.connections)?;
    let waiting = |source| failed("waiting with epoll", source);
    // Without the right to it the client shares the processor with the attackers as an equal.
    let _ = host::set_niceness(NICENESS_MIN);
    let calm = client.run(calm).map_err(waiting)?;
    let before = args.sample()?;
    let (attacked, deeds) = beside_attackers(args, target, || client.run(duration))?;
    let after = args.sample()?;
    let server = before.zip(after).map(|(before, after)| ProcessSummary {
        resident_peak_bytes: after.resident_peak_bytes,
        cpus_used: after.cpu.saturating_sub(before.cpu).as_secs_f64() / duration.as_secs_f64(),
    });
    Ok(HostileSummary {
        attack: format!("{:?}", args.attack),
        calm: part(&calm),
        attacked: part(&attacked),
        attackers: AttackSummary {
            connections: deeds.connected,
            refused: deeds.refused,
            closed_by_server: deeds.closed_by_server,
            bytes_sent: deeds.bytes_sent,
            bytes_read: deeds.bytes_read,
        },
        server,
    })
}

/// Runs `client` while the attackers are at work.
fn beside_attackers(
    args: &HostileArgs,
    target: SocketAddr,
    client: impl FnOnce() -> io::Result<Latencies>,
) -> Result<(Latencies, Deeds), BenchError> {
    let is_over = AtomicBool::new(false);
    let threads = args.threads.min(args.attack.plan().connections);
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        let mut result = Ok(());
        for first in 0..threads {
            let is_over = &is_over;
            let body = move || {
                // A thread may always give way to others.
                host::set_niceness(NICENESS_ATTACKERS)?;
                Attackers::new(target, args.attack, first, threads)?.run(is_over)
            };
            match host::start_thread(scope, format!("attacker-{first}"), body) {
                Ok(thread) => running.push(thread),
                Err(source) => result = Err(failed("--threads: starting a thread", source)),
            }
        }
        let latencies = client().map_err(|source| failed("waiting with epoll", source));
        is_over.store(true, Ordering::Relaxed);
        let mut deeds = Deeds::default();
        for thread in running {
            let ended = thread.join().expect("no attacker panics");
            deeds += ended.map_err(|source| failed("attacking", source))?;
        }
        result.and_then(|()| Ok((latencies?, deeds)))
    })
}

/// Stores values one after the other.
fn store(
    target: SocketAddr,
    value_bytes: usize,
    keys: impl Iterator<Item = u64>,
) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STORE_TIMEOUT))?;
    for key in keys {
        stream.write_all(&stores(value_bytes, [key]))?;
        let mut answer = [0; b"STORED\r\n".len()];
        stream.read_exact(&mut answer)?;
        if answer != *b"STORED\r\n" {
            return Err(io::Error::other(format!("`{}` to a set", answer.escape_ascii())));
        }
    }
    Ok(())
}

fn part(latencies: &Latencies) -> PartSummary {
    PartSummary {
        get: quantiles(&latencies.get),
        set: quantiles(&latencies.set),
        late: quantiles(&latencies.late),
        failed: latencies.failed.0,
        failed_first: latencies.failed.1.clone(),
    }
}

fn quantiles(histogram: &Histogram<u64>) -> Quantiles {
    let milliseconds = |nanoseconds: u64| nanoseconds as f64 / 1e6;
    Quantiles {
        count: histogram.len(),
        p50: milliseconds(histogram.value_at_quantile(0.5)),
        p99: milliseconds(histogram.value_at_quantile(0.99)),
        max: milliseconds(histogram.max()),
    }
}

/// The figures as text.
#[must_use]
pub fn render(summary: &HostileSummary) -> String {
    let mut out = String::new();
    let mut put = |line: String| writeln!(out, "{line}").expect("a string takes all");
    put(format!("{:16} {:>9} {:>9} {:>9} {:>9}", "milliseconds", "count", "p50", "p99", "max"));
    let attack = &summary.attack;
    for (name, part) in [("alone", &summary.calm), (attack.as_str(), &summary.attacked)] {
        for (what, Quantiles { count, p50, p99, max }) in
            [("GET", part.get), ("SET", part.set), ("late", part.late)]
        {
            let name = format!("{name} {what}");
            put(format!("{name:16} {count:9} {p50:9.3} {p99:9.3} {max:9.3}"));
        }
        if part.failed > 0 {
            let first = part.failed_first.as_deref().unwrap_or_default();
            put(format!("{} requests failed; the first: {first}", part.failed));
        }
    }
    let AttackSummary { connections, refused, closed_by_server, bytes_sent, bytes_read } =
        summary.attackers;
    put(format!(
        "attackers: {connections} connections, {refused} refused, {closed_by_server} closed by the \
         server, {} MiB sent, {} MiB read",
        bytes_sent >> 20,
        bytes_read >> 20
    ));
    if let Some(server) = summary.server {
        let peak = server.resident_peak_bytes >> 20;
        put(format!("server: {peak} MiB resident at most, {:.2} processors", server.cpus_used));
    }
    out
}

#[cfg(test)]
mod tests;
