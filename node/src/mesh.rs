//! Messages between cores: one mailbox for each ordered pair, filled a batch at a time.
//!
//! What a core says to another within a turn gathers in a batch, which is handed over when the turn
//! ends, or before it gets longer than usual: the other core begins with it while this one goes
//! on, and what a batch holds stays in a processor's nearest caches. A batch that has been read is
//! kept by its reader and carries messages the other way. Of two cores one may speak in many short
//! batches and the other in few long ones: what its reader has too many of goes back with the next.
//! So as long as cores have under way what they may keep for each other, nothing is allocated.
//!
//! Invariants:
//! - Messages from one core to another arrive in the order in which they were sent.
//! - Requests are refused when the batch that gathers them is full and cannot be handed over;
//!   answers never are, because there are no more of them than requests.

use std::collections::VecDeque;
use std::sync::Arc;

use larder_engine::shard::{Answer, AnswerBuf};
use larder_runtime::core_env::CoreWaker;
use larder_runtime::mailbox::{self, Receiver, Sender};

use crate::limits::{
    BATCHES_KEPT_BYTES_MAX, BATCHES_KEPT_BYTES_MIN, BATCHES_KEPT_MAX, BATCHES_RETURNED_ABOVE,
    MAILBOX_BATCHES,
};
use crate::request::{ItemRequest, NoAnswer, ShardAnswer, ShardRequest};

mod batch;
mod notes;

pub use batch::{AnswerMessage, Batch, ParkedRequest, Place, RequestMessage};
pub use notes::{Ask, Note, Told};

/// The two ends that one core holds of its mailboxes with another.
pub struct Ends {
    sender: Sender<Box<Batch>>,
    receiver: Receiver<Box<Batch>>,
}

/// The ends of all mailboxes among `cores` cores: for each core one element per peer, `None` for
/// itself.
pub fn mailboxes(cores: usize) -> Vec<Vec<Option<Ends>>> {
    let mut senders: Vec<Vec<Option<Sender<Box<Batch>>>>> = Vec::new();
    let mut receivers: Vec<Vec<Option<Receiver<Box<Batch>>>>> =
        (0..cores).map(|_| (0..cores).map(|_| None).collect()).collect();
    for source in 0..cores {
        let mut row = Vec::new();
        for (target, received) in receivers.iter_mut().enumerate() {
            let pair = (source != target).then(|| mailbox::channel(MAILBOX_BATCHES));
            let (sender, receiver) = pair.map_or((None, None), |(s, r)| (Some(s), Some(r)));
            row.push(sender);
            received[source] = receiver;
        }
        senders.push(row);
    }
    let pairs = senders.into_iter().zip(receivers);
    let join = |(senders, receivers): (Vec<_>, Vec<_>)| {
        let ends = senders.into_iter().zip(receivers);
        ends.map(|(sender, receiver)| Some(Ends { sender: sender?, receiver: receiver? })).collect()
    };
    pairs.map(join).collect()
}

/// One core's line to another.
struct Line<W> {
    ends: Ends,
    waker: W,
    gathering: Box<Batch>,
    /// The memory of each batch that the other core may not have taken yet, and the sum, in bytes.
    on_the_way: (VecDeque<usize>, usize),
    /// Empty batches, in the form in which mailboxes carry them.
    #[allow(clippy::vec_box, reason = "a batch moves through mailboxes by its pointer")]
    kept: Vec<Box<Batch>>,
    /// Their memory, in bytes, and how much it may be.
    kept_bytes: usize,
    kept_bytes_max: usize,
    /// Whether the other core has given empty batches back since the end of the last turn.
    is_supplied: bool,
}

impl<W> Line<W> {
    /// A line on which nothing was sent; a core has so many.
    fn new(ends: Ends, waker: W, lines: usize) -> Self {
        let kept_bytes_max = (BATCHES_KEPT_BYTES_MAX / lines).max(BATCHES_KEPT_BYTES_MIN);
        let on_the_way = (VecDeque::with_capacity(MAILBOX_BATCHES + 1), 0);
        let (gathering, kept) = (Box::default(), Vec::new());
        Self {
            ends,
            waker,
            gathering,
            on_the_way,
            kept,
            kept_bytes: 0,
            kept_bytes_max,
            is_supplied: false,
        }
    }

    /// The memory of the batches that the other core has not taken, in bytes.
    fn memory_on_the_way(&mut self) -> usize {
        let (batches, sum) = &mut self.on_the_way;
        if !batches.is_empty() {
            let waiting = self.ends.sender.waiting();
            let taken = batches.len() - waiting.min(batches.len());
            *sum -= batches.drain(..taken).sum::<usize>();
        }
        *sum
    }

    /// Keeps an empty batch, if there is room for it.
    fn keep(&mut self, batch: Box<Batch>) {
        let bytes = self.kept_bytes + batch.memory();
        if self.kept.len() < BATCHES_KEPT_MAX && bytes <= self.kept_bytes_max {
            self.kept_bytes = bytes;
            self.kept.push(batch);
        }
    }

    /// An empty batch.
    fn take_empty(&mut self) -> Box<Batch> {
        let Some(batch) = self.kept.pop() else { return Box::default() };
        self.kept_bytes -= batch.memory();
        batch
    }

    /// Gives the memory of empty batches back to the allocator.
    fn release_kept(&mut self) {
        self.kept = Vec::new();
        self.kept_bytes = 0;
        if self.gathering.is_empty() {
            *self.gathering = Batch::default();
        }
    }

    /// The memory of all batches of the line, in bytes.
    fn memory(&mut self) -> usize {
        self.gathering.memory() + self.kept_bytes + self.memory_on_the_way()
    }

    /// Hands the gathered batch over if there is room; returns whether it could.
    fn hand_over(&mut self) -> bool {
        if self.gathering.is_empty() {
            return true;
        }
        // If the other core has many as well, they would go back and forth.
        while !self.is_supplied
            && self.kept.len() > BATCHES_RETURNED_ABOVE
            && self.gathering.returned() < BATCHES_KEPT_MAX
        {
            let empty = self.take_empty();
            self.gathering.push_returned(empty);
        }
        let next = self.take_empty();
        let memory = self.gathering.memory();
        match self.ends.sender.push(std::mem::replace(&mut self.gathering, next)) {
            Ok(()) => {
                if self.on_the_way.0.len() >= MAILBOX_BATCHES {
                    self.memory_on_the_way();
                }
                self.on_the_way.0.push_back(memory);
                self.on_the_way.1 += memory;
                true
            }
            Err(batch) => {
                let empty = std::mem::replace(&mut self.gathering, batch);
                self.keep(empty);
                false
            }
        }
    }
}

impl<W: CoreWaker> Line<W> {
    /// Hands the gathered batch over before it gets longer than usual. Where there is no room it
    /// does get longer.
    fn before_message(&mut self) {
        if self.gathering.has_usual_length() {
            self.try_hand_over();
        }
    }

    /// Whether the gathered batch takes another request, if need be after it was handed over.
    fn takes_request(&mut self) -> bool {
        if self.gathering.is_full() {
            return self.try_hand_over();
        }
        self.before_message();
        true
    }

    /// Hands the gathered batch over if there is room, to be seen at once; returns whether it
    /// could.
    fn try_hand_over(&mut self) -> bool {
        let is_handed_over = self.hand_over();
        self.publish();
        is_handed_over
    }

    /// Shows what was handed over to the other core, and wakes it if it sleeps.
    fn publish(&mut self) {
        if self.ends.sender.publish() {
            self.waker.wake();
        }
    }
}

/// One core's lines to all others.
pub struct Mesh<W> {
    lines: Vec<Option<Line<W>>>,
    /// The core that the next turn receives from first.
    first: usize,
}

impl<W: CoreWaker> Mesh<W> {
    /// The lines of the core that owns `ends`; `wakers` has one waker for each core.
    pub fn new(ends: Vec<Option<Ends>>, wakers: &[W]) -> Self {
        assert_eq!(ends.len(), wakers.len(), "one waker for each core");
        let others = ends.iter().flatten().count();
        let line = |(ends, waker): (Option<Ends>, &W)| {
            ends.map(|ends| Line::new(ends, waker.clone(), others))
        };
        Self { lines: ends.into_iter().zip(wakers).map(line).collect(), first: 0 }
    }

    /// The other cores.
    pub fn peers(&self) -> impl Iterator<Item = usize> + '_ {
        self.lines.iter().enumerate().filter(|(_, line)| line.is_some()).map(|(core, _)| core)
    }

    fn line(&mut self, core: usize) -> &mut Line<W> {
        self.lines[core].as_mut().expect("a core does not write to itself")
    }

    /// Whether the line to `core` takes another request.
    pub fn has_room(&self, core: usize) -> bool {
        self.lines[core].as_ref().is_some_and(|line| !line.gathering.is_full())
    }

    /// Sends a request to a shard of `core`; false if the line is full and it is not sent.
    pub fn send_request(
        &mut self,
        core: usize,
        place: Place,
        shard: u16,
        request: &ItemRequest<'_>,
    ) -> bool {
        let line = self.line(core);
        let is_sent = line.takes_request();
        if is_sent {
            line.gathering.push_request(place, shard, request);
        }
        is_sent
    }

    /// As [`Mesh::send_request`], for a request that is not about one item.
    pub fn send_shard_request(
        &mut self,
        core: usize,
        place: Place,
        request: Arc<ShardRequest>,
    ) -> bool {
        let line = self.line(core);
        let is_sent = line.takes_request();
        if is_sent {
            line.gathering.push_shard_request(place, request);
        }
        is_sent
    }

    /// Sends the answer to a request of `core`.
    pub fn send_answer(
        &mut self,
        core: usize,
        place: Place,
        answer: Result<&Answer<'_>, NoAnswer>,
    ) {
        let line = self.line(core);
        line.before_message();
        line.gathering.push_answer(place, answer);
    }

    /// Takes the answer back that was sent to `core` last. There must be one that was sent in this
    /// turn, and nothing may have been sent to that core since.
    pub fn take_answer_back(&mut self, core: usize) -> Result<AnswerBuf, NoAnswer> {
        self.line(core).gathering.pop_answer().expect("an answer was sent a moment ago")
    }

    /// Sends an answer whose value needs not be copied.
    pub fn send_own_answer(&mut self, core: usize, place: Place, answer: AnswerBuf) {
        let line = self.line(core);
        line.before_message();
        line.gathering.push_own_answer(place, answer);
    }

    /// Sends the answer to a request that is not about one item.
    pub fn send_shard_answer(&mut self, core: usize, place: Place, answer: ShardAnswer) {
        self.line(core).gathering.push_shard_answer(place, answer);
    }

    /// Sends a note.
    pub fn send_note(&mut self, core: usize, note: Note) {
        self.line(core).gathering.push_note(note);
    }

    /// Tells `core` that a value of so many charged bytes has been passed to its client.
    pub fn send_credit(&mut self, core: usize, connection: u64, bytes: usize) {
        let credits = &mut self.line(core).gathering.credits;
        match credits.last_mut() {
            Some((last, sum)) if *last == connection => *sum += bytes,
            _ => credits.push((connection, bytes)),
        }
    }

    /// Tells all cores that a connection is closed.
    pub fn send_closed(&mut self, connection: u64) {
        for line in self.lines.iter_mut().flatten() {
            line.gathering.closed.push(connection);
        }
    }

    /// The memory of batches that gather messages, are on their way to other cores or kept for
    /// that, in bytes. Those that were received are their owner's.
    pub fn memory(&mut self) -> usize {
        self.lines.iter_mut().flatten().map(Line::memory).sum()
    }

    /// Gives the memory of empty batches back: they are made anew when they are needed.
    pub fn release_kept(&mut self) {
        self.lines.iter_mut().flatten().for_each(Line::release_kept);
    }

    /// The oldest batch from `core` that was not received yet. Give it back when it is read.
    pub fn receive(&mut self, core: usize) -> Option<Box<Batch>> {
        self.lines[core].as_mut()?.ends.receiver.pop()
    }

    /// The order in which a turn receives from the cores. Each comes first as often as the others,
    /// because a turn that receives enough leaves the last ones to the next.
    pub fn next_order(&mut self) -> impl Iterator<Item = usize> + use<W> {
        let (cores, first) = (self.lines.len(), self.first);
        self.first = (first + 1) % cores;
        (0..cores).map(move |step| (first + step) % cores)
    }

    /// Keeps a batch that was read, for what is to be sent to `core`.
    pub fn give_back(&mut self, core: usize, mut batch: Box<Batch>) {
        let line = self.line(core);
        while let Some(empty) = batch.pop_returned() {
            line.is_supplied = true;
            line.keep(empty);
        }
        batch.clear();
        line.keep(batch);
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.lines.len()
    }

    /// Hands everything over that the mailboxes have room for, and wakes who sleeps. Returns
    /// whether something is left, which only time can change.
    pub fn publish(&mut self) -> bool {
        let mut is_left = false;
        for line in self.lines.iter_mut().flatten() {
            is_left |= !line.try_hand_over();
            line.is_supplied = false;
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Kind;
    use crate::limits::{BATCH_MESSAGES_USUAL, BATCH_REQUESTS_MAX};
    use larder_engine::key::Key;
    use larder_engine::operation::{Operation, Store, StoreMode};
    use larder_engine::shard::Acknowledgement;

    /// Of a core that does not sleep.
    #[derive(Clone)]
    struct Awake;

    impl CoreWaker for Awake {
        fn wake(&self) {}
    }

    fn store(value: &[u8]) -> ItemRequest<'_> {
        ItemRequest {
            key: Key { namespace: 9, record: b"record", item: b"item" },
            operation: Operation::Store(Store::plain(StoreMode::Set, value)),
            kind: Kind::Store,
            deadline: None,
            acknowledgement: Acknowledgement::Configured,
            replaces: false,
        }
    }

    fn place(sequence: u64) -> Place {
        Place { connection: 3, sequence }
    }

    fn two_cores() -> (Mesh<Awake>, Mesh<Awake>) {
        let wakers = [Awake, Awake];
        let mut meshes = mailboxes(2).into_iter().map(|ends| Mesh::new(ends, &wakers));
        meshes.next().zip(meshes.next()).expect("two cores")
    }

    #[test]
    fn every_ordered_pair_of_cores_has_a_mailbox() {
        let mut ends = mailboxes(3);
        for (core, row) in ends.iter().enumerate() {
            assert!(row.iter().enumerate().all(|(peer, ends)| ends.is_some() == (peer != core)));
        }
        let mut batch: Box<Batch> = Box::default();
        batch.closed.push(2);
        let sender = &mut ends[0][2].as_mut().expect("a pair").sender;
        assert!(sender.push(batch).is_ok() && sender.publish());
        let receiver = &mut ends[2][0].as_mut().expect("a pair").receiver;
        assert_eq!(receiver.pop().expect("a batch").closed, [2]);
    }

    #[test]
    fn a_batch_counts_until_the_other_core_has_taken_it() {
        let (mut first, mut second) = two_cores();
        let before = first.memory();
        let large = vec![b'x'; 100_000];
        for round in 1..=3 {
            assert!(first.send_request(1, place(round), 0, &store(&large)));
            assert!(!first.publish());
            assert!(first.memory() >= before + 100_000 * round as usize, "round {round}");
        }
        for left in [2, 1, 0] {
            let batch = second.receive(0).expect("a batch");
            assert!(batch.memory() >= 100_000, "it counts where it is now");
            assert!(first.memory() < before + 100_000 * (left + 1), "{left} batches are left");
            second.give_back(0, batch);
        }
        assert!(second.memory() < 100_000, "an empty batch is kept without its values");
    }

    #[test]
    fn what_is_kept_for_another_core_has_a_bound() {
        const VALUE_BYTES: usize = 4000;
        const BATCH_BYTES: usize = BATCH_MESSAGES_USUAL * VALUE_BYTES;
        let (mut first, mut second) = two_cores();
        let value = vec![b'x'; VALUE_BYTES];
        for round in 0..2 * BATCHES_KEPT_BYTES_MAX / BATCH_BYTES {
            for sequence in 0..BATCH_MESSAGES_USUAL as u64 {
                assert!(first.send_request(1, place(sequence), 0, &store(&value)));
            }
            assert!(!first.publish());
            let batch = second.receive(0).expect("a batch");
            assert!(batch.memory() >= BATCH_BYTES, "round {round}");
            second.give_back(0, batch);
        }
        let kept = second.memory();
        let bound = BATCHES_KEPT_BYTES_MAX + 2 * size_of::<Batch>();
        assert!((BATCHES_KEPT_BYTES_MAX / 2..=bound).contains(&kept), "{kept} bytes");
        // One that is taken to be filled is counted once.
        second.send_credit(0, 3, 1);
        assert!(!second.publish() && first.receive(1).is_some());
        let after = second.memory();
        assert!(after <= bound, "{after} bytes, and {kept} before");
        second.release_kept();
        assert!(second.memory() <= 2 * size_of::<Batch>(), "{} bytes", second.memory());
    }

    #[test]
    fn a_batch_of_usual_length_does_not_wait_for_the_end_of_the_turn() {
        let (mut first, mut second) = two_cores();
        let usual = BATCH_MESSAGES_USUAL as u64;
        for sequence in 0..=usual {
            assert!(second.receive(0).is_none(), "{sequence} requests");
            assert!(first.send_request(1, place(sequence), 0, &store(b"")));
        }
        let batch = second.receive(0).expect("a batch");
        assert_eq!(batch.requests.len(), BATCH_MESSAGES_USUAL);
        second.give_back(0, batch);
        // Where the mailbox is full more gathers, and is no less in order.
        let mut sent = usual + 1;
        while first.send_request(1, place(sent), 0, &store(b"")) {
            sent += 1;
        }
        assert!(sent > usual * MAILBOX_BATCHES as u64 + BATCH_REQUESTS_MAX as u64);
        assert!(first.publish(), "the last ones are left");
        let mut next = usual;
        for _ in 0..2 {
            while let Some(batch) = second.receive(0) {
                for message in &batch.requests {
                    assert_eq!(message.place, place(next));
                    next += 1;
                }
                second.give_back(0, batch);
            }
            assert!(!first.publish());
        }
        assert_eq!(next, sent);
    }

    #[test]
    fn cores_that_speak_much_in_a_turn_need_no_new_batches() {
        const BATCHES: usize = 24;
        let (mut first, mut second) = two_cores();
        let burst = |from: &mut Mesh<Awake>, (core, to): (usize, &mut Mesh<Awake>)| {
            let mut made = 0;
            for sequence in 0..(BATCHES * BATCH_MESSAGES_USUAL) as u64 {
                assert!(from.send_request(1 - core, place(sequence), 0, &store(b"")));
                let gathering = &from.line(1 - core).gathering;
                made += usize::from(
                    gathering.requests.capacity() < BATCH_MESSAGES_USUAL
                        && gathering.requests.len() == 1,
                );
            }
            assert!(!from.publish());
            while let Some(batch) = to.receive(core) {
                to.give_back(core, batch);
            }
            made
        };
        let mut made = || burst(&mut first, (0, &mut second)) + burst(&mut second, (1, &mut first));
        let at_first: usize = (0..3).map(|_| made()).sum();
        assert!(at_first >= BATCHES, "{at_first}");
        assert_eq!((0..20).map(|_| made()).sum::<usize>(), 0);
    }

    #[test]
    fn batches_come_back_to_who_sends_more_of_them() {
        let (mut first, mut second) = two_cores();
        let sent = 2 * BATCHES_RETURNED_ABOVE;
        for _ in 0..sent {
            first.send_credit(1, 3, 1);
            assert!(!first.publish());
            let batch = second.receive(0).expect("a batch");
            second.give_back(0, batch);
        }
        let kept = |mesh: &mut Mesh<Awake>, core| mesh.line(core).kept.len();
        assert_eq!((kept(&mut first, 1), kept(&mut second, 0)), (0, sent));
        let before = second.memory();
        second.send_credit(0, 3, 1);
        assert!(!second.publish());
        assert!(second.memory() + size_of::<Batch>() > before, "those on the way count");
        let batch = first.receive(1).expect("a batch");
        first.give_back(1, batch);
        let returned = sent - BATCHES_RETURNED_ABOVE;
        // And the batch that brought them.
        assert_eq!(kept(&mut first, 1), returned + 1);
        assert_eq!(kept(&mut second, 0), BATCHES_RETURNED_ABOVE - 1);
        assert!(second.memory() < before, "what was taken counts where it is");
    }

    #[test]
    fn no_core_is_always_received_from_last() {
        let lines = (0..3).map(|_| None).collect();
        let mut mesh: Mesh<Awake> = Mesh { lines, first: 0 };
        let orders = [(); 4].map(|()| mesh.next_order().collect::<Vec<_>>());
        assert_eq!(orders, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
    }
}
