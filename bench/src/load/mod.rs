//! The load generator: a closed loop over many connections, lean enough to outrun a server.
//!
//! Each thread owns its connections and drives them with epoll; nothing is allocated for an
//! operation. A connection's batch of requests goes out in one write, and the next batch follows
//! when all of it is answered, as mc-crusher's mcshredder does it. A run has two phases, each on
//! fresh connections: the fill (every key stored once) and the timed mix.

pub(crate) mod data;
pub(crate) mod distribution;
mod encoder;
mod exchange;
pub mod hostile;
mod locality;
mod native;
mod progress;
pub(crate) mod random;
mod reply;
mod settings;
pub(crate) mod statistics;
pub(crate) mod summary;
mod worker;

#[cfg(test)]
mod fake_server;
#[cfg(test)]
mod tests;

use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

pub use distribution::Distribution;
pub use locality::Locality;
pub use progress::Progress;
pub(crate) use settings::{DURATION_MAX, KEYS_MAX, within};
pub use settings::{Protocol, Ratio, Settings};
pub use summary::{ErrorSummary, FillSummary, OperationSummary, ServerSummary, Summary, render};

use crate::error::BenchError;
use crate::{host, process};
use data::KEY_BYTES_MAX;
use distribution::KeyChooser;
use encoder::Encoder;
use locality::KeysOf;
use random::Random;
use statistics::{ErrorKind, Statistics};
use summary::Measured;
use worker::{Work, Worker, WorkerEnd};

/// How often progress is shown.
const TICK: Duration = Duration::from_secs(1);

/// How long making one connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A batch of the fill aims at this many bytes, to keep a server busy without flooding it.
const FILL_BATCH_BYTES: usize = 64 << 10;

/// The most requests in a batch of the fill.
const FILL_DEPTH_MAX: usize = 64;

/// Which requests a phase makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Fill,
    Timed,
}

/// What a phase came to.
struct PhaseEnd {
    statistics: Statistics,
    elapsed: Duration,
    loader_cpu: Duration,
}

/// Loads the server as the settings say, and waits until it is done.
///
/// # Errors
/// Settings that cannot be used, a server that cannot be reached or drops every connection, or a
/// `--server-pid` that cannot be read. Wrong values are no error here: they are in the summary.
pub fn measure(settings: &Settings, progress: &mut Progress) -> Result<Summary, BenchError> {
    settings.check()?;
    // If the limit cannot be raised it may still suffice; if not, connecting says so.
    let _ = host::raise_descriptor_limit();
    let encoder = Encoder::new(settings);
    let fill = if settings.fill {
        let streams = connect_all(settings, Locality::Any)?;
        Some(run_phase(settings, Phase::Fill, &encoder, streams, progress)?)
    } else {
        None
    };
    let streams = connect_all(settings, settings.locality)?;
    let server_before = sample_server(settings)?;
    let timed = run_phase(settings, Phase::Timed, &encoder, streams, progress)?;
    let server_after = sample_server(settings)?;
    let fill = fill.map(|fill| FillSummary::new(settings.keys, &fill.statistics, fill.elapsed));
    Ok(Summary::new(Measured {
        settings,
        statistics: &timed.statistics,
        elapsed: timed.elapsed,
        loader_cpu: timed.loader_cpu,
        server: server_before.zip(server_after),
        fill,
    }))
}

fn sample_server(settings: &Settings) -> Result<Option<process::ProcessSample>, BenchError> {
    let Some(pid) = settings.server_pid else { return Ok(None) };
    let sample = process::sample(pid);
    sample.map(Some).map_err(|reason| BenchError::ServerProcess { pid, reason })
}

/// A connected socket, and the keys that are asked for over it.
type Opened = (TcpStream, KeysOf);

fn connect_all(settings: &Settings, locality: Locality) -> Result<Vec<Opened>, BenchError> {
    let connect = || {
        let mut stream = TcpStream::connect_timeout(&settings.target, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        let keys = KeysOf::ask(locality, &mut stream, CONNECT_TIMEOUT)?;
        stream.set_nonblocking(true)?;
        Ok((stream, keys))
    };
    let count = settings.connections;
    let one = |index| {
        connect().map_err(|source| BenchError::Connect {
            address: settings.target.to_string(),
            index,
            connections: count,
            source,
        })
    };
    (1..=count).map(one).collect()
}

/// Runs the workers of one phase to their end, showing progress meanwhile.
fn run_phase(
    settings: &Settings,
    phase: Phase,
    encoder: &Encoder,
    streams: Vec<Opened>,
    progress: &mut Progress,
) -> Result<PhaseEnd, BenchError> {
    let failed = |action: &str, source| BenchError::System { action: action.to_owned(), source };
    let slots: Vec<_> = (0..settings.threads).map(|_| Mutex::new(Statistics::new())).collect();
    let depth = batch_depth(settings, phase);
    let start = host::now();
    let mut workers = Vec::with_capacity(settings.threads);
    for (index, streams) in shares(streams, settings.threads).into_iter().enumerate() {
        let work = work_of(settings, phase, start, index);
        let worker = Worker::new(settings, depth, encoder, &slots[index], streams, work)
            .map_err(|source| failed("setting up epoll", source))?;
        workers.push(worker);
    }
    let mut statistics = Statistics::new();
    let ends = std::thread::scope(|scope| {
        let (finished, finishes) = mpsc::channel();
        let mut threads = Vec::with_capacity(workers.len());
        for (index, worker) in workers.into_iter().enumerate() {
            let cpu = settings.cpu_of_thread(index);
            let finished = finished.clone();
            let body = move || {
                let end = run_worker(worker, cpu);
                // The receiver lives until every sender is gone.
                let _ = finished.send(());
                end
            };
            let name = format!("loader-{index}");
            let thread = host::start_thread(scope, name, body)
                .map_err(|source| failed("--threads: starting a thread", source))?;
            threads.push(thread);
        }
        drop(finished);
        let mut display = Display { settings, phase, start, progress };
        watch(&finishes, &slots, &mut statistics, &mut display);
        let joined = threads.into_iter().map(|thread| thread.join().expect("no worker panics"));
        joined.collect::<Result<Vec<WorkerEnd>, _>>()
    })?;
    check_connections(settings, &statistics)?;
    let last_answer = ends.iter().map(|end| end.last_answer).max().unwrap_or(start);
    Ok(PhaseEnd {
        statistics,
        elapsed: last_answer.saturating_duration_since(start),
        loader_cpu: ends.iter().map(|end| end.cpu).sum(),
    })
}

fn run_worker(worker: Worker<'_>, cpu: Option<usize>) -> Result<WorkerEnd, BenchError> {
    if let Some(cpu) = cpu {
        host::pin_thread(cpu).map_err(|source| BenchError::System {
            action: format!("--cpu: keeping a thread on processor {cpu}"),
            source,
        })?;
    }
    let failed = |source| BenchError::System { action: "waiting with epoll".to_owned(), source };
    worker.run().map_err(failed)
}

fn check_connections(settings: &Settings, statistics: &Statistics) -> Result<(), BenchError> {
    if statistics.connections_lost < settings.connections {
        return Ok(());
    }
    let kinds = [ErrorKind::ConnectionLost, ErrorKind::BadReply, ErrorKind::NoAnswer];
    let first = kinds.into_iter().find_map(|kind| statistics.error(kind).first.clone());
    Err(BenchError::AllConnectionsLost {
        address: settings.target.to_string(),
        connections: settings.connections,
        first: first.unwrap_or_default(),
    })
}

/// Requests in a batch: the depth asked for, or for the fill what keeps the server well fed.
fn batch_depth(settings: &Settings, phase: Phase) -> usize {
    match phase {
        Phase::Timed => settings.depth,
        Phase::Fill => {
            let request_bytes = KEY_BYTES_MAX + settings.value_size;
            (FILL_BATCH_BYTES / request_bytes).clamp(1, FILL_DEPTH_MAX)
        }
    }
}

/// Deals the streams out to `threads` threads, as evenly as possible.
fn shares(streams: Vec<Opened>, threads: usize) -> Vec<Vec<Opened>> {
    let mut shares: Vec<Vec<Opened>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, stream) in streams.into_iter().enumerate() {
        shares[index % threads].push(stream);
    }
    shares
}

/// Thread number `index`'s part of the work.
fn work_of(settings: &Settings, phase: Phase, start: Instant, index: usize) -> Work {
    let threads = settings.threads as u64;
    let index = index as u64;
    let part = |total: u64| total / threads + u64::from(index < total % threads);
    match phase {
        Phase::Fill => {
            let before = settings.keys / threads * index + index.min(settings.keys % threads);
            Work::Fill { next: before, end: before + part(settings.keys) }
        }
        Phase::Timed => Work::Mix {
            chooser: KeyChooser::new(settings.distribution, settings.keys),
            random: Random::new(settings.seed, index),
            ratio: settings.ratio,
            deadline: start + settings.duration,
            remaining: settings.operations.map_or(u64::MAX, part),
        },
    }
}

/// What the progress display is told about the phase.
struct Display<'a> {
    settings: &'a Settings,
    phase: Phase,
    start: Instant,
    progress: &'a mut Progress,
}

/// Sums what the workers publish into `total` until all of them have finished.
fn watch(
    finishes: &Receiver<()>,
    slots: &[Mutex<Statistics>],
    total: &mut Statistics,
    display: &mut Display<'_>,
) {
    if display.phase == Phase::Fill {
        display.progress.begin_fill(display.settings.keys);
    }
    let mut tick_start = display.start;
    let mut running = slots.len();
    while running > 0 {
        let left = (tick_start + TICK).saturating_duration_since(host::now());
        match finishes.recv_timeout(left) {
            Ok(()) => {
                running -= 1;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = host::now();
        let mut interval = collect(slots);
        display.show(&interval, total, now - tick_start, now - display.start);
        interval.move_into(total);
        tick_start = now;
    }
    collect(slots).move_into(total);
    if display.phase == Phase::Fill {
        display.progress.end_fill();
    }
}

/// Takes everything that the workers have published.
fn collect(slots: &[Mutex<Statistics>]) -> Statistics {
    let mut sum = Statistics::new();
    for slot in slots {
        slot.lock().expect("no thread panics with the lock held").move_into(&mut sum);
    }
    sum
}

impl Display<'_> {
    fn show(
        &mut self,
        interval: &Statistics,
        before: &Statistics,
        interval_time: Duration,
        elapsed: Duration,
    ) {
        match self.phase {
            Phase::Fill => {
                let stored = before.operations() + interval.operations();
                self.progress.show_fill(stored, self.settings.keys);
            }
            Phase::Timed => self.progress.show_interval(interval, interval_time, elapsed),
        }
    }
}
