//! A connection that is kept: made anew whenever it breaks, with a thread that sees to that.

use std::collections::VecDeque;
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use larder_protocol::native::{HelloReply, capability};

use super::breakage::Breakage;
use super::client_core::ClientCore;
use super::link::{Established, Reader, establish};
use super::locked;
use super::operation::Operation;
use super::pipeline::Pipeline;
use super::reading::Readership;
use super::settings::Settings;
use crate::clock::now;

/// Bytes that may wait to be sent over a connection before further requests wait in line.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Bytes that wait for which nobody waits to ask.
const SEND_AT_BYTES: usize = 32 << 10;

/// Requests that a memcached may be asked before it has answered the first.
const UNANSWERED_MAX: usize = 1024;

/// Counts the lanes of all clients.
static LANES: AtomicU64 = AtomicU64::new(0);

/// The core that no node has.
const NO_CORE: u32 = u32::MAX;

/// Why a request does not go over a lane.
#[derive(Debug)]
pub(crate) enum NoWay {
    /// There is no connection, and the last try to make one has failed.
    Broken(Breakage),
    /// As many requests wait as may.
    Overloaded { calls: usize, bytes: usize },
}

/// A connection that is kept.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Tells it from all others; never 0.
    pub(super) number: u64,
    /// Where it leads.
    pub address: String,
    /// The core whose own port that is; `None` for the port that everybody knows.
    core_of_port: Option<u16>,
    /// The node, by its place in the client's list.
    pub node: usize,
    pub(super) settings: Arc<Settings>,
    pub(super) state: Mutex<LaneState>,
    /// The lane's threads wait here: for time to pass, for something to send, for the end.
    pub(super) changed: Condvar,
    /// Wakes the lane's thread where it has left it to others to read.
    pub(super) bell: OnceLock<OwnedFd>,
    is_up: AtomicBool,
    pub(super) is_dirty: AtomicBool,
    on_core: AtomicU32,
}

#[derive(Debug)]
pub(super) struct LaneState {
    pub phase: Phase,
    /// Requests that wait for a connection, or for room on it.
    pub line: VecDeque<Arc<Operation>>,
    pub line_bytes: usize,
    epoch: u64,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// There is none yet.
    Connecting,
    /// There is one.
    Up(Box<Link>),
    /// The last try to make one has failed.
    Down(Breakage),
    /// There will be none.
    Closed,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub epoch: u64,
    pub stream: Arc<TcpStream>,
    pub pipeline: Pipeline<Arc<Operation>>,
    pub readership: Readership,
    /// What the socket has not taken, and how much of it was sent.
    pub rest: Option<(Vec<u8>, usize)>,
    pub has_sender: bool,
    breakage: Option<Breakage>,
    /// When something came last.
    pub heard: Instant,
    /// When a sign of life was asked for, since then.
    pub probed: Option<Instant>,
}

impl LaneState {
    pub(super) fn link(&mut self, epoch: u64) -> Option<&mut Link> {
        match &mut self.phase {
            Phase::Up(link) if link.epoch == epoch => Some(link),
            _ => None,
        }
    }

    /// What is to be sent behind `sent` by who has sent that; `None` if there is nothing, or the
    /// connection is another one by now.
    pub(super) fn next_batch(&mut self, epoch: u64, sent: Vec<u8>) -> Option<Vec<u8>> {
        self.link(epoch)?;
        if !self.line.is_empty() {
            self.admit(now());
        }
        self.link(epoch)?.pipeline.go_on_sending(sent)
    }

    /// Lets requests from the line go for which there is room; whether any has.
    pub(super) fn admit(&mut self, at: Instant) -> bool {
        let Self { phase: Phase::Up(link), line, line_bytes, .. } = self else { return false };
        let mut has_admitted = false;
        while let Some(first) = line.front() {
            let bytes = first.frame.len();
            if !first.is_settled() {
                if !link.pipeline.has_room(bytes) {
                    break;
                }
                link.push(first, at);
                has_admitted = true;
            }
            *line_bytes -= bytes;
            line.pop_front();
        }
        has_admitted
    }
}

impl Link {
    fn push(&mut self, operation: &Arc<Operation>, at: Instant) {
        let left = operation.latest_deadline().saturating_duration_since(at).as_micros().max(1);
        let left = u32::try_from(left).unwrap_or(0);
        let waiter = Arc::clone(operation);
        self.pipeline.push(waiter, &operation.frame, left, at);
    }
}

impl Lane {
    /// A lane of a client, with its thread.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn open(
        address: String,
        core_of_port: Option<u16>,
        node: usize,
        settings: &Arc<Settings>,
        core: Weak<ClientCore>,
    ) -> std::io::Result<Arc<Self>> {
        let (line, phase) = (VecDeque::new(), Phase::Connecting);
        let lane = Arc::new(Self {
            number: LANES.fetch_add(1, Ordering::Relaxed) + 1,
            address,
            core_of_port,
            node,
            settings: Arc::clone(settings),
            state: Mutex::new(LaneState { phase, line, line_bytes: 0, epoch: 0 }),
            changed: Condvar::new(),
            bell: OnceLock::new(),
            is_up: AtomicBool::new(false),
            is_dirty: AtomicBool::new(false),
            on_core: AtomicU32::new(NO_CORE),
        });
        let reader = Arc::clone(&lane);
        let thread = std::thread::Builder::new().name("larder-reader".to_owned());
        thread.spawn(move || reader.live(&core))?;
        Ok(lane)
    }

    /// Whether there is a connection.
    pub(crate) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// The node's core that the connection is on, as far as is known.
    pub(crate) fn on_core(&self) -> Option<u16> {
        u16::try_from(self.on_core.load(Ordering::Relaxed)).ok()
    }

    /// Notes the core that the node has named.
    fn set_core(&self, core: u16) {
        self.on_core.store(core.into(), Ordering::Relaxed);
    }

    /// Adds a request; whether it should be sent without waiting for more.
    pub(crate) fn submit(&self, operation: &Arc<Operation>, at: Instant) -> Result<bool, NoWay> {
        let mut state = locked(&self.state);
        let bytes = operation.frame.len();
        let LaneState { phase, line, line_bytes, .. } = &mut *state;
        match phase {
            Phase::Up(link) if line.is_empty() && link.pipeline.has_room(bytes) => {
                link.push(operation, at);
                operation.note_lane(self.number);
                self.is_dirty.store(true, Ordering::Release);
                return Ok(link.pipeline.waiting_bytes() >= SEND_AT_BYTES);
            }
            Phase::Up(_) | Phase::Connecting => {}
            Phase::Down(why) => return Err(NoWay::Broken(why.clone())),
            Phase::Closed => return Err(NoWay::Broken(Breakage::Replaced)),
        }
        let is_full = line.len() >= self.settings.waiting_calls_max
            || (!line.is_empty() && *line_bytes + bytes > self.settings.waiting_bytes_max);
        if is_full {
            return Err(NoWay::Overloaded { calls: line.len(), bytes: *line_bytes });
        }
        *line_bytes += bytes;
        line.push_back(Arc::clone(operation));
        operation.note_lane(self.number);
        // Where requests wait for room, what fills it has to be on its way.
        Ok(true)
    }

    /// Makes connections and reads from them, until the lane is closed or its client gone.
    fn live(self: &Arc<Self>, core: &Weak<ClientCore>) {
        let (mut failures, mut broke_at) = (0, None);
        loop {
            let Some(client) = core.upgrade() else { return };
            if !self.is_still_there(&client, broke_at) {
                failures += 1;
                let delay = self.settings.reconnect.delay(failures, &client.dice);
                drop(client);
                if !self.nap(delay) {
                    return;
                }
                continue;
            }
            drop(client);
            let established = establish(&self.address, &self.settings);
            let Some(client) = core.upgrade() else { return };
            let established = established.and_then(|made| self.check(made, &client));
            let failed = match established {
                Ok(established) => {
                    failures = 0;
                    let Some((reader, epoch)) = self.rise(established, &client) else { return };
                    drop(client);
                    let why = self.read(reader, epoch, core);
                    self.fall(why)
                }
                Err(why) => {
                    failures += 1;
                    drop(client);
                    self.refuse(&why)
                }
            };
            let Some(client) = core.upgrade() else { return };
            let Some(failed) = failed else { return };
            for (operation, why, was_sent) in failed {
                client.failed(&operation, &why, was_sent);
            }
            broke_at = Some(now());
            client.note_trouble(self.node);
            let delay = self.settings.reconnect.delay(failures, &client.dice);
            drop(client);
            if !self.nap(delay) {
                return;
            }
        }
    }

    /// Whether the node has confirmed, since the lane broke, that the port is one of its cores'.
    /// Another node may have it by now.
    fn is_still_there(&self, client: &ClientCore, broke_at: Option<Instant>) -> bool {
        let node = &client.nodes[self.node];
        self.core_of_port.is_none() || broke_at.is_none_or(|at| node.was_heard_since(at))
    }

    /// Makes sure that behind a core's port there is that core of the node, and that it knows what
    /// it will be asked.
    fn check(&self, made: Established, client: &ClientCore) -> Result<Established, Breakage> {
        let is_other = |hello: &HelloReply| {
            let layout = client.nodes[self.node].layout();
            self.core_of_port.is_some_and(|core| core != hello.core || !layout.is_as(hello))
        };
        if made.hello.as_ref().is_some_and(is_other) {
            return Err(Breakage::Replaced);
        }
        const TOKENS: u64 = capability::TOKENS | capability::MORE_TOKENS;
        let is_without = |hello: &HelloReply| hello.capabilities & TOKENS != TOKENS;
        if self.settings.names_changes && made.hello.as_ref().is_some_and(is_without) {
            let text = "it knows no idempotency tokens, or not those of all changes; build the \
                        client without `tokens`, or put a newer node in its place";
            return Err(Breakage::Foreign(text.to_owned()));
        }
        Ok(made)
    }

    /// There is a connection; `None` if the lane is closed.
    fn rise(
        self: &Arc<Self>,
        established: Established,
        client: &ClientCore,
    ) -> Option<(Reader, u64)> {
        let Established { stream, reader, hello } = established;
        let unanswered = hello.as_ref().map_or(UNANSWERED_MAX, |hello| hello.requests_max as usize);
        let is_in_order = self.settings.wire.is_in_order();
        let epoch = {
            let mut state = locked(&self.state);
            if matches!(state.phase, Phase::Closed) {
                return None;
            }
            state.epoch += 1;
            let link = Link {
                epoch: state.epoch,
                stream,
                pipeline: Pipeline::new(unanswered, OUTPUT_BYTES_MAX, is_in_order),
                readership: Readership::of_thread(),
                rest: None,
                has_sender: false,
                breakage: None,
                heard: now(),
                probed: None,
            };
            state.phase = Phase::Up(Box::new(link));
            state.admit(now());
            self.is_up.store(true, Ordering::Relaxed);
            state.epoch
        };
        if let Some(hello) = hello {
            self.set_core(hello.core);
            if self.core_of_port.is_none() {
                client.learn(self.node, hello);
            }
        }
        self.flush();
        Some((reader, epoch))
    }

    /// There is no connection any more. What was on it has failed; `None` if the lane is closed.
    fn fall(&self, why: Breakage) -> Option<Vec<Failed>> {
        let mut state = locked(&self.state);
        self.is_up.store(false, Ordering::Relaxed);
        let Phase::Up(link) = std::mem::replace(&mut state.phase, Phase::Connecting) else {
            state.phase = Phase::Closed;
            return None;
        };
        self.changed.notify_all();
        drop(state);
        let why = link.breakage.unwrap_or(why);
        let _ = link.stream.shutdown(Shutdown::Both);
        let waiters = link.pipeline.into_waiters();
        Some(waiters.map(|(operation, was_sent)| (operation, why.clone(), was_sent)).collect())
    }

    /// There is no way to make a connection. What has waited for it has failed.
    fn refuse(&self, why: &Breakage) -> Option<Vec<Failed>> {
        let mut state = locked(&self.state);
        if matches!(state.phase, Phase::Closed) {
            return None;
        }
        state.phase = Phase::Down(why.clone());
        state.line_bytes = 0;
        let line = std::mem::take(&mut state.line);
        Some(line.into_iter().map(|operation| (operation, why.clone(), false)).collect())
    }

    /// Ends the lane. What was on it, or waited for it, has failed.
    pub(crate) fn close(&self) -> Vec<Failed> {
        let mut state = locked(&self.state);
        self.is_up.store(false, Ordering::Relaxed);
        state.line_bytes = 0;
        let line = std::mem::take(&mut state.line);
        let mut failed: Vec<Failed> =
            line.into_iter().map(|operation| (operation, Breakage::Replaced, false)).collect();
        if let Phase::Up(link) = std::mem::replace(&mut state.phase, Phase::Closed) {
            let _ = link.stream.shutdown(Shutdown::Both);
            let waiters = link.pipeline.into_waiters();
            failed.extend(waiters.map(|(operation, sent)| (operation, Breakage::Replaced, sent)));
        }
        self.changed.notify_all();
        failed
    }

    /// Waits; whether the lane is not closed then.
    fn nap(&self, delay: Duration) -> bool {
        let until = now() + delay;
        let mut state = locked(&self.state);
        loop {
            if matches!(state.phase, Phase::Closed) {
                return false;
            }
            let left = until.saturating_duration_since(now());
            if left.is_zero() {
                return true;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A request that has failed with its connection: why, and whether it may have been received.
pub(crate) type Failed = (Arc<Operation>, Breakage, bool);

impl Link {
    /// Has the reader end.
    pub(super) fn break_off(&mut self, why: Breakage) {
        self.breakage.get_or_insert(why);
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Whether it was broken off.
    pub(super) fn is_broken(&self) -> bool {
        self.breakage.is_some()
    }
}

#[cfg(test)]
impl Lane {
    /// Breaks the connection, as a network does.
    pub(super) fn cut(&self) {
        if let Phase::Up(link) = &mut locked(&self.state).phase {
            link.break_off(Breakage::Closed);
        }
    }
}
