//! How replies leave a connection, and who reads them.
//!
//! A connection has one [`Reader`], and who has it reads. At first that is the lane's thread. Where
//! it finds for a while that one thread at a time waits for what it has asked, it leaves the reader
//! in the lane: then who waits takes it, reads its own answers and puts it back, and nobody has to
//! be woken. The lane's thread sleeps meanwhile, until the connection ends or it is called.
//!
//! Invariant: where answers are owed to what was sent, somebody has the reader, or the lane's
//! thread is called. So it is called by who sends and will not read, be it its own request or what
//! others have brought meanwhile, and by who puts the reader back before all is answered.
//!
//! A connection that was broken off is not read any more, whatever has come: over memcached's
//! protocol what follows an answer to nobody may be anybody's.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::breakage::Breakage;
use super::client_core::ClientCore;
use super::codec::RawReply;
use super::lane::{Lane, LaneState, Phase};
use super::link::Reader;
use super::locked;
use crate::clock::now;

/// Replies that are handed over at a time.
const REPLIES_AT_A_TIME: usize = 256;

/// Times in a row that one thread alone was owed answers and has got them, before it is left to
/// such threads to read; doubled whenever that has turned out wrong.
const CALM_MIN: u32 = 4;
const CALM_MAX: u32 = 1024;

/// Who reads a connection, and who would.
#[derive(Debug)]
pub(super) struct Readership {
    /// The reader, while nobody reads.
    idle: Option<Reader>,
    /// Whether the lane's thread is to read next.
    is_called: bool,
    /// Whether the lane's thread has seen the end of the connection, and waits for the reader.
    is_at_end: bool,
    /// Who has sent since nothing was owed and could not read itself: threads that wait count once,
    /// others twice.
    turned_away: u32,
    calm: u32,
    calm_needed: u32,
}

impl Readership {
    /// The lane's thread reads.
    pub(super) fn of_thread() -> Self {
        Self {
            idle: None,
            is_called: false,
            is_at_end: false,
            turned_away: 0,
            calm: 0,
            calm_needed: CALM_MIN,
        }
    }

    /// The reader, for a thread that has sent something and waits for the answer.
    pub(super) fn take(&mut self) -> Option<Reader> {
        let reader = if self.is_called { None } else { self.idle.take() };
        self.turned_away = self.turned_away.saturating_add(u32::from(reader.is_none()));
        reader
    }

    /// Notes that replies have come; whether it should be left to others to read.
    fn note_replies(&mut self, is_owed: bool) -> bool {
        if !is_owed {
            self.calm = if self.turned_away == 1 { self.calm.saturating_add(1) } else { 0 };
            self.turned_away = 0;
        }
        self.calm >= self.calm_needed
    }

    /// Has the lane's thread read next; whether it sleeps and is to be woken.
    fn call(&mut self) -> bool {
        self.turned_away = self.turned_away.saturating_add(2);
        if self.is_called || self.idle.is_none() {
            return false;
        }
        self.is_called = true;
        self.calm = 0;
        self.calm_needed = (self.calm_needed * 2).min(CALM_MAX);
        true
    }

    /// The reader, for the lane's thread.
    fn take_for_thread(&mut self) -> Option<Reader> {
        let reader = self.idle.take()?;
        (self.is_called, self.is_at_end) = (false, false);
        Some(reader)
    }
}

impl Lane {
    /// Reads replies until the connection is no more, or has others read them.
    pub(super) fn read(
        self: &Arc<Self>,
        mut reader: Reader,
        epoch: u64,
        core: &Weak<ClientCore>,
    ) -> Breakage {
        loop {
            let Some(client) = core.upgrade() else { return Breakage::Replaced };
            let may_rest = match self.take_replies(&mut reader, &client) {
                Ok(may_rest) => may_rest,
                Err(why) => return why,
            };
            drop(client);
            if may_rest {
                reader = match self.rest(reader, epoch) {
                    Ok(reader) => reader,
                    Err(why) => return why,
                };
            }
            match reader.fill(None) {
                Ok(true) => self.note_life(epoch),
                Ok(false) => {}
                Err(why) => return why,
            }
        }
    }

    /// Reads once for somebody who waits, if something comes in so much time.
    pub(super) fn read_once(
        self: &Arc<Self>,
        (reader, epoch): (&mut Reader, u64),
        client: &ClientCore,
        at_most: Duration,
    ) -> Result<(), Breakage> {
        if reader.fill(Some(at_most))? {
            self.note_life(epoch);
        }
        self.take_replies(reader, client).map(drop)
    }

    /// A part of a long reply has come, or of a long request was taken: the node is there, although
    /// no reply came whole for a while.
    pub(super) fn note_life(&self, epoch: u64) {
        if let Some(link) = locked(&self.state).link(epoch) {
            (link.heard, link.probed) = (now(), None);
        }
    }

    /// Who goes on sending, for others, has the lane's thread read if nobody does by now.
    pub(super) fn see_to_reading(&self, state: &mut LaneState, epoch: u64) {
        if let Some(link) = state.link(epoch)
            && link.readership.idle.is_some()
        {
            self.call_thread(&mut link.readership);
        }
    }

    /// Hands over the replies that have come whole; whether it should be left to others to read.
    fn take_replies(
        self: &Arc<Self>,
        reader: &mut Reader,
        client: &ClientCore,
    ) -> Result<bool, Breakage> {
        let (mut replies, mut may_rest) = (std::mem::take(&mut reader.replies), false);
        loop {
            let ended = loop {
                match reader.next_reply() {
                    Ok(Some(reply)) => replies.push(reply),
                    Ok(None) => break Some(Ok(())),
                    Err(why) => break Some(Err(why)),
                }
                if replies.len() >= REPLIES_AT_A_TIME {
                    break None;
                }
            };
            if !replies.is_empty() {
                may_rest = self.deliver(&mut replies, client)?;
            }
            if let Some(ended) = ended {
                reader.replies = replies;
                return ended.map(|()| may_rest);
            }
        }
    }

    fn deliver(
        self: &Arc<Self>,
        replies: &mut Vec<RawReply>,
        client: &ClientCore,
    ) -> Result<bool, Breakage> {
        let mut ready = Vec::with_capacity(replies.len());
        let mut foreign = None;
        let (has_admitted, may_rest, at) = {
            let mut state = locked(&self.state);
            let Phase::Up(link) = &mut state.phase else { return Err(Breakage::Replaced) };
            (link.heard, link.probed) = (now(), None);
            for reply in replies.drain(..) {
                let Some(taken) = link.pipeline.take(reply.to()) else {
                    let text = "it answers what was not asked, or answers twice".to_owned();
                    foreign = Some(Breakage::Foreign(text));
                    break;
                };
                ready.push((taken.waiter, reply));
            }
            let at = link.heard;
            let has_admitted = state.admit(at);
            let Phase::Up(link) = &mut state.phase else { return Err(Breakage::Replaced) };
            let is_owed = link.pipeline.under_way() > 0;
            (has_admitted, link.readership.note_replies(is_owed), at)
        };
        if has_admitted {
            self.flush();
        }
        // Who is woken finds all of its answers, and is the last to hold what it has asked for.
        let mut wakers: Vec<Waker> = Vec::new();
        for (operation, reply) in ready {
            client.note_hops(reply.hops());
            match reply.answer(&operation.frame) {
                Ok(arrived) => {
                    let waker = client.arrived(self, &operation, arrived, at);
                    let last = wakers.last();
                    let waker = waker.filter(|new| !last.is_some_and(|last| last.will_wake(new)));
                    wakers.extend(waker);
                }
                Err(why) => {
                    client.failed(&operation, &why, true);
                    foreign = Some(why);
                }
            }
        }
        wakers.into_iter().for_each(Waker::wake);
        foreign.map_or(Ok(may_rest), Err)
    }

    /// Puts the reader back, with which somebody who waited has read.
    pub(super) fn put_back(&self, reader: Reader, epoch: u64) {
        let mut state = locked(&self.state);
        let Some(link) = state.link(epoch) else { return };
        if link.is_broken() {
            // The lane's thread sees the end.
            self.changed.notify_all();
            return;
        }
        let is_owed = link.pipeline.under_way() > 0;
        let readership = &mut link.readership;
        readership.idle = Some(reader);
        if is_owed {
            self.call_thread(readership);
        } else {
            readership.calm_needed = CALM_MIN.max(readership.calm_needed - 1);
        }
        if readership.is_at_end {
            self.changed.notify_all();
        }
    }

    /// Has the lane's thread read, unless somebody does.
    pub(super) fn call_thread(&self, readership: &mut Readership) {
        if readership.call()
            && let Some(bell) = self.bell.get()
        {
            // It fails only where the bell has been rung 2^64 times and not been heard.
            let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
        }
    }

    /// Leaves it to others to read, until the connection ends or the lane's thread is called.
    fn rest(&self, reader: Reader, epoch: u64) -> Result<Reader, Breakage> {
        // Without a descriptor to be called by, the thread goes on.
        let Some(bell) = self.bell() else { return Ok(reader) };
        let stream = Arc::clone(reader.stream());
        {
            let mut state = locked(&self.state);
            let Some(link) = state.link(epoch) else { return Err(Breakage::Replaced) };
            if link.pipeline.under_way() > 0 {
                return Ok(reader);
            }
            link.readership.idle = Some(reader);
        }
        loop {
            let has_ended = wait_for_end(&stream, bell);
            let mut state = locked(&self.state);
            loop {
                let Some(link) = state.link(epoch) else { return Err(Breakage::Replaced) };
                if link.is_broken() {
                    return Err(Breakage::Closed);
                }
                let readership = &mut link.readership;
                if (has_ended || readership.is_called)
                    && let Some(reader) = readership.take_for_thread()
                {
                    return Ok(reader);
                }
                if !has_ended {
                    break;
                }
                // Who reads finds the end as well, and puts the reader back.
                readership.is_at_end = true;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// What the lane's thread is called by; `None` if there are no descriptors to be had.
    fn bell(&self) -> Option<&OwnedFd> {
        if self.bell.get().is_none() {
            let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
            let _ = self.bell.set(eventfd(0, flags).ok()?);
        }
        self.bell.get()
    }
}

/// Waits until the connection ends or the bell is rung; whether it is the end. Data that comes is
/// for others, and wakes nobody here.
fn wait_for_end(stream: &TcpStream, bell: &OwnedFd) -> bool {
    let mut waited = [PollFd::new(stream, PollFlags::RDHUP), PollFd::new(bell, PollFlags::IN)];
    match poll(&mut waited, None) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return false,
        // Reading will say what is wrong.
        Err(_) => return true,
    }
    let [ended, rung] = waited.map(|waited| !waited.revents().is_empty());
    if rung {
        let _ = rustix::io::read(bell, &mut [0u8; 8]);
    }
    ended
}

#[cfg(test)]
impl Lane {
    /// Whether it is left to who waits to read.
    pub(super) fn is_left_to_others(&self) -> bool {
        matches!(&locked(&self.state).phase, Phase::Up(link) if link.readership.idle.is_some())
    }
}
