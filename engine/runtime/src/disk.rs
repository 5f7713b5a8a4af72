//! The core's disk requests: from the futures through the I/O queue to the ring and back.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use crate::buffer::Buffer;
use crate::disk_request::{Failure, Next, Outcome, Request, Stage, Success, Work};
use crate::env::{IO_CLASSES, IoClass, TASK_QUEUES, TaskQueue};
use crate::idle::Expected;
use crate::io_queue::{IoClassStatistics, IoFlow, IoQueue, IoQueueOptions};
use crate::operations::{Key, Kind, Port, Slots, Token};
use crate::ring::{Operation, Ring};

/// What a core has asked of its disk so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Read operations that ended.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Write operations that ended.
    pub writes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Flushes that ended, alone or at the end of a durable write.
    pub syncs: u64,
    /// The same and more by class, indexed by [`IoClass`].
    pub classes: [IoClassStatistics; IO_CLASSES],
    /// What the core has found out of a measured device.
    pub flow: IoFlow,
}

pub(crate) struct Disk {
    requests: Slots<Request>,
    queue: IoQueue<Key>,
    /// Opens, renames and the like, which move no data.
    direct: VecDeque<Key>,
    /// Requests in flight whose futures were dropped.
    cancels: Vec<Key>,
    counters: DiskCounters,
    /// Writes of group commits in the ring: clients wait for each of them.
    commit_writes: u32,
    /// Flushes in the ring, which a thread of the kernel's carries out.
    flushes: u32,
    /// Whether something has come in since the last dispatch.
    is_changed: bool,
    /// How many requests have.
    undispatched: usize,
    is_closed: bool,
}

/// So many requests go to the device before the core makes more: enough that a system call for them
/// costs each little, and a part of what a device needs for all of its rate.
pub(crate) const BATCH_REQUESTS: usize = 16;

impl Disk {
    pub(crate) fn new(options: IoQueueOptions) -> Self {
        Self {
            requests: Slots::new(),
            queue: IoQueue::new(options),
            direct: VecDeque::new(),
            cancels: Vec::new(),
            counters: DiskCounters::default(),
            commit_writes: 0,
            flushes: 0,
            is_changed: false,
            undispatched: 0,
            is_closed: false,
        }
    }

    /// How the disk stands at `now` nanoseconds.
    pub(crate) fn counters(&self, now: u64) -> DiskCounters {
        let classes = IoClass::ALL.map(|class| self.queue.class_statistics(class, now));
        DiskCounters { classes, flow: self.queue.flow(), ..self.counters }
    }

    /// See [`IoQueue::claim_urgency`].
    pub(crate) fn claim_urgency(
        &mut self,
        claimant: u16,
        queue: TaskQueue,
        urgency: u32,
    ) -> Option<[u32; TASK_QUEUES]> {
        let changed = self.queue.claim_urgency(claimant, queue, urgency)?;
        self.is_changed = true;
        Some(changed)
    }

    /// Changes the usual shares of a class and its cap, as [`IoQueue::set_class`] does.
    pub(crate) fn set_class(
        &mut self,
        class: IoClass,
        usual_shares: Option<u32>,
        bandwidth_max: Option<Option<u64>>,
        now: u64,
    ) -> Result<(), String> {
        self.queue.set_class(class, usual_shares, bandwidth_max, now)?;
        self.is_changed = true;
        Ok(())
    }

    /// When [`Disk::dispatch`] may have something to do that no completion will announce, in
    /// nanoseconds.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.queue.due().filter(|_| !self.is_closed)
    }

    /// Requests that hold a slot.
    pub(crate) fn requests(&self) -> usize {
        self.requests.len()
    }

    /// Whether so many requests were made since the last [`Disk::dispatch`] that the device is to
    /// have them before the core goes on.
    #[inline]
    pub(crate) fn has_batch(&self) -> bool {
        self.undispatched >= BATCH_REQUESTS
    }

    /// Whether [`Disk::dispatch`] may have something to do that no completion will announce.
    pub(crate) fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// Takes a request in; it goes to the ring at the end of the turn.
    pub(crate) fn start(&mut self, mut request: Request, now: u64) -> Key {
        if self.is_closed {
            request.stage = Stage::Finished(Err(Failure::Os(libc::ECANCELED)));
        }
        let is_finished = matches!(request.stage, Stage::Finished(_));
        request.ended_at = now;
        // A multiple of the alignment, because both are powers of two.
        request.leg_bytes_max = self.queue.longest_request(request.direction()) as usize;
        let key = self.requests.insert(request);
        if !is_finished {
            self.enqueue(key, now);
        }
        key
    }

    fn enqueue(&mut self, key: Key, now: u64) {
        let request = occupied(&mut self.requests, key);
        request.stage = Stage::Queued;
        self.is_changed = true;
        self.undispatched += 1;
        if request.is_queued_by_class() {
            self.queue.push(request.io_request(), key, now);
        } else {
            self.direct.push_back(key);
        }
    }

    /// What a core without work may be waiting for.
    pub(crate) fn expected(&self) -> Expected {
        match (self.flushes, self.commit_writes) {
            (1.., _) => Expected::Flush,
            (0, 1..) => Expected::CommitWrite,
            (0, 0) => Expected::Anything,
        }
    }

    /// The outcome of a request, whose slot is then free; or the waker is kept.
    pub(crate) fn poll(&mut self, key: Key, context: &Context<'_>, now: u64) -> Poll<Outcome> {
        let request = occupied(&mut self.requests, key);
        if !matches!(request.stage, Stage::Finished(_)) {
            match &mut request.waker {
                Some(waker) => waker.clone_from(context.waker()),
                empty => *empty = Some(context.waker().clone()),
            }
            return Poll::Pending;
        }
        let request = self.requests.remove(key).expect("the slot was just seen");
        if request.is_queued_by_class() {
            self.queue.note_taken(request.class, now.saturating_sub(request.ended_at));
        }
        let Stage::Finished(result) = request.stage else { unreachable!("checked above") };
        Poll::Ready(Outcome { result, buffer: request.buffer })
    }

    /// Notes that nobody waits for a request any more. What is in flight is cancelled, and keeps
    /// its slot and buffer until the last completion; what waits for its turn, which may take
    /// long, keeps its slot alone.
    ///
    /// Returns what the caller is to drop.
    pub(crate) fn abandon(&mut self, key: Key) -> (Option<Request>, Option<Buffer>) {
        let request = occupied(&mut self.requests, key);
        request.is_abandoned = true;
        match request.stage {
            Stage::Finished(_) => (self.requests.remove(key), None),
            Stage::InFlight { .. } => {
                self.cancels.push(key);
                self.is_changed = true;
                (None, None)
            }
            Stage::Queued => (None, request.buffer.take()),
        }
    }

    /// Hands to the ring what the I/O queue allows at `now`. The turn of the core that ends with it
    /// has begun `turn` nanoseconds before: so much later than it has ended something may be seen
    /// to have.
    pub(crate) fn dispatch<R: Ring>(&mut self, port: &mut Port<R>, now: u64, turn: u64) {
        self.queue.note_unwatched(turn);
        self.is_changed = false;
        self.undispatched = 0;
        if self.is_closed {
            return;
        }
        while let Some(key) = self.direct.pop_front() {
            self.submit(key, port, now);
        }
        while let Some(key) = self.queue.pop(now) {
            self.submit(key, port, now);
        }
        while let Some(key) = self.cancels.pop() {
            let token = Token::new(Kind::Disk, key).encode();
            port.push_plain(Token::without_slot(Kind::Cancel), Operation::Cancel { token });
        }
    }

    fn submit<R: Ring>(&mut self, key: Key, port: &mut Port<R>, now: u64) {
        let request = occupied(&mut self.requests, key);
        if request.is_abandoned {
            if request.is_queued_by_class() {
                self.queue.withdraw(request.io_request(), now);
            }
            self.finish(key, Err(Failure::Os(libc::ECANCELED)), now);
            return;
        }
        assert!(matches!(request.stage, Stage::Queued), "{key:?} was not queued");
        let leg = request.leg();
        request.stage = Stage::InFlight { since: now };
        self.flushes += u32::from(request.is_flush());
        self.commit_writes += u32::from(request.is_commit_write());
        // SAFETY: the leg's pointers are into what the request owns on the heap, and the slot keeps
        // the request until the completion.
        unsafe { port.push(Token::new(Kind::Disk, key), leg) };
    }

    /// Takes a completion in. Returns the waker of a request that it ended, to be called once
    /// nothing of the disk is borrowed.
    pub(crate) fn complete(&mut self, key: Key, result: i32, now: u64) -> Option<Waker> {
        let request = occupied(&mut self.requests, key);
        let Stage::InFlight { since } = request.stage else {
            panic!("a completion for {key:?}, which is not in flight")
        };
        self.leave_device(key, result, now.saturating_sub(since), now);
        let request = occupied(&mut self.requests, key);
        let was_whole = usize::try_from(result) == Ok(request.leg_len());
        match request.advance(result) {
            Next::Leg if self.is_closed || request.is_abandoned => {
                self.finish(key, Err(Failure::Os(libc::ECANCELED)), now)
            }
            Next::Leg => {
                if was_whole && request.is_transfer() {
                    self.queue.note_split(request.class);
                }
                self.enqueue(key, now);
                None
            }
            Next::Finish(result) => self.finish(key, result, now),
        }
    }

    /// Counts a leg and tells the I/O queue that it is over.
    fn leave_device(&mut self, key: Key, result: i32, ring_nanoseconds: u64, now: u64) {
        let request = occupied(&mut self.requests, key);
        if !request.is_queued_by_class() {
            return;
        }
        self.flushes -= u32::from(request.is_flush());
        self.commit_writes -= u32::from(request.is_commit_write());
        let bytes = request.leg_bytes(result);
        self.queue.complete(request.io_request(), bytes, ring_nanoseconds, now);
        let counters = &mut self.counters;
        match request.work {
            _ if request.is_flush() => counters.syncs += 1,
            Work::Read => {
                counters.reads += 1;
                counters.read_bytes += bytes;
            }
            _ => {
                counters.writes += 1;
                counters.write_bytes += bytes;
            }
        }
    }

    fn finish(&mut self, key: Key, result: Result<Success, Failure>, now: u64) -> Option<Waker> {
        let request = occupied(&mut self.requests, key);
        request.ended_at = now;
        if request.is_abandoned {
            self.requests.remove(key);
            return None;
        }
        request.stage = Stage::Finished(result);
        request.waker.take()
    }

    /// Ends what waits in the queues and lets nothing new in. What is in flight completes.
    pub(crate) fn close(&mut self, now: u64) -> Vec<Waker> {
        self.is_closed = true;
        self.queue.give_up_tokens();
        self.cancels.clear();
        let mut wakers = Vec::new();
        for key in self.requests.keys() {
            let request = occupied(&mut self.requests, key);
            if matches!(request.stage, Stage::Queued) {
                wakers.extend(self.finish(key, Err(Failure::Os(libc::ECANCELED)), now));
            }
        }
        wakers
    }
}

/// The request of a key that the caller knows to be in use.
fn occupied(requests: &mut Slots<Request>, key: Key) -> &mut Request {
    requests.get_mut(key).expect("a slot is kept until its last completion and its future's end")
}

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod tests;
