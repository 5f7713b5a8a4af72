//! The attackers: one thread with its share of the connections, driven by epoll.

use std::collections::VecDeque;
use std::io::{self, ErrorKind as IoErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::AddAssign;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::attack::{Attack, Plan, Then};
use crate::host;

/// Bytes that a connection writes or reads before it is another's turn.
const PIECE_BYTES: usize = 64 << 10;

/// How long a thread waits for its connections before it looks whether the attack is over.
const WAIT: Duration = Duration::from_millis(5);

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

const EVENTS_MAX: usize = 1024;

/// What attackers did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deeds {
    pub(super) connected: u64,
    /// Attempts to connect that failed.
    pub(super) refused: u64,
    /// Connections that the server ended.
    pub(super) closed_by_server: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_read: u64,
}

impl AddAssign for Deeds {
    fn add_assign(&mut self, other: Self) {
        self.connected += other.connected;
        self.refused += other.refused;
        self.closed_by_server += other.closed_by_server;
        self.bytes_sent += other.bytes_sent;
        self.bytes_read += other.bytes_read;
    }
}

struct Attacker {
    stream: Option<TcpStream>,
    script: Arc<[u8]>,
    sent: usize,
}

/// One thread of an attack.
pub(super) struct Attackers {
    target: SocketAddr,
    plan: Plan,
    attackers: Vec<Attacker>,
    epoll: OwnedFd,
    /// Attackers that leave and begin again, and when.
    leaving: VecDeque<(Instant, usize)>,
    /// Attackers that are to connect.
    coming: VecDeque<usize>,
    deeds: Deeds,
    inbound: Vec<u8>,
}

impl Attackers {
    /// Every `step`th connection of the attack, from `first` on.
    pub(super) fn new(
        target: SocketAddr,
        attack: Attack,
        first: usize,
        step: usize,
    ) -> io::Result<Self> {
        let scripts = attack.scripts(first, step);
        let attacker = |script| Attacker { stream: None, script, sent: 0 };
        let attackers: Vec<_> = scripts.into_iter().map(attacker).collect();
        Ok(Self {
            target,
            plan: attack.plan(),
            coming: (0..attackers.len()).collect(),
            attackers,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            leaving: VecDeque::new(),
            deeds: Deeds::default(),
            inbound: vec![0; PIECE_BYTES],
        })
    }

    /// Attacks until `is_over`, and at least once: on a busy machine a short attack may be over
    /// before its threads get a processor.
    pub(super) fn run(mut self, is_over: &AtomicBool) -> io::Result<Deeds> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            for _ in 0..self.coming.len().min(EVENTS_MAX) {
                let index = self.coming.pop_front().expect("there are so many");
                self.connect(index)?;
            }
            self.leave();
            let is_busy = !self.coming.is_empty();
            self.wait(&mut events, if is_busy { Duration::ZERO } else { WAIT })?;
            for event in &events {
                let (flags, data) = (event.flags, event.data);
                self.handle(data.u64() as usize, flags)?;
            }
            if is_over.load(Ordering::Relaxed) {
                return Ok(self.deeds);
            }
        }
    }

    fn wait(&self, events: &mut Vec<epoll::Event>, timeout: Duration) -> io::Result<()> {
        events.clear();
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn connect(&mut self, index: usize) -> io::Result<()> {
        let Ok(stream) = TcpStream::connect_timeout(&self.target, CONNECT_TIMEOUT) else {
            self.deeds.refused += 1;
            self.coming.push_back(index);
            return Ok(());
        };
        self.deeds.connected += 1;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let flags = self.interests() | epoll::EventFlags::OUT;
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(index as u64), flags)?;
        let attacker = &mut self.attackers[index];
        (attacker.stream, attacker.sent) = (Some(stream), 0);
        self.send(index)
    }

    /// What wakes the thread for a connection that has nothing to send.
    fn interests(&self) -> epoll::EventFlags {
        let ends = epoll::EventFlags::RDHUP;
        if self.plan.reads { ends | epoll::EventFlags::IN } else { ends }
    }

    fn handle(&mut self, index: usize, flags: epoll::EventFlags) -> io::Result<()> {
        use epoll::EventFlags as Flags;
        if flags.contains(Flags::IN) {
            self.read(index);
        }
        if flags.intersects(Flags::RDHUP | Flags::HUP | Flags::ERR) {
            self.closed(index);
        } else if flags.contains(Flags::OUT) {
            self.send(index)?;
        }
        Ok(())
    }

    fn read(&mut self, index: usize) {
        if let Some(stream) = &mut self.attackers[index].stream {
            let count = stream.read(&mut self.inbound).unwrap_or(0);
            self.deeds.bytes_read += count as u64;
        }
    }

    /// The server has closed the connection.
    fn closed(&mut self, index: usize) {
        if self.attackers[index].stream.take().is_some() {
            self.deeds.closed_by_server += 1;
            if self.plan.then != Then::Stay {
                self.coming.push_back(index);
            }
        }
    }

    fn send(&mut self, index: usize) -> io::Result<()> {
        let quiet = self.interests();
        let attacker = &mut self.attackers[index];
        let Some(stream) = &mut attacker.stream else { return Ok(()) };
        let end = attacker.script.len().min(attacker.sent + PIECE_BYTES);
        match stream.write(&attacker.script[attacker.sent..end]) {
            Ok(count) => {
                attacker.sent += count;
                self.deeds.bytes_sent += count as u64;
            }
            Err(error) if error.kind() == IoErrorKind::WouldBlock => return Ok(()),
            Err(_) => {
                self.closed(index);
                return Ok(());
            }
        }
        if attacker.sent < attacker.script.len() {
            return Ok(());
        }
        if self.plan.then == Then::Repeat {
            attacker.sent = 0;
            return Ok(());
        }
        let data = epoll::EventData::new_u64(index as u64);
        epoll::modify(&self.epoll, &*stream, data, quiet)?;
        if let Then::BeginAgain(after) = self.plan.then {
            self.leaving.push_back((host::now() + after, index));
        }
        Ok(())
    }

    /// Ends the connections whose time has come: every second one by a reset.
    fn leave(&mut self) {
        let now = host::now();
        while self.leaving.front().is_some_and(|(at, _)| *at <= now) {
            let (_, index) = self.leaving.pop_front().expect("it was just seen");
            let attacker = &mut self.attackers[index];
            // One that the server has closed meanwhile may have come back and be sending.
            if attacker.sent < attacker.script.len() {
                continue;
            }
            if let Some(stream) = attacker.stream.take() {
                if index.is_multiple_of(2) {
                    // Without it the connection is closed in the ordinary way.
                    let _ = sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
                }
                self.coming.push_back(index);
            }
        }
    }
}
