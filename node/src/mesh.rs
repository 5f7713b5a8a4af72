//! Messages between cores: one mailbox for each ordered pair, filled a batch at a time.
//!
//! What a core says to another within a turn gathers in one batch, which is handed over when the
//! turn ends, with at most one wake-up. A batch that has been read is kept by its reader and
//! carries messages the other way, so in steady state nothing is allocated.
//!
//! Invariants:
//! - Messages from one core to another arrive in the order in which they were sent.
//! - Requests are refused when the batch that gathers them is full and cannot be handed over;
//!   answers never are, because there are no more of them than requests.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use larder_engine::key::Key;
use larder_engine::operation::Operation;
use larder_engine::shard::{Acknowledgement, Answer, AnswerBuf};
use larder_runtime::core_env::CoreWaker;
use larder_runtime::mailbox::{self, Receiver, Sender};

use crate::counters::{ConnectionReport, CoreReport, Kind};
use crate::events::{EventKinds, NodeEvent};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_COPY_BYTES_MAX, BATCH_KEPT_BYTES_MAX, BATCH_REQUESTS_MAX,
    BATCHES_KEPT_MAX, EVENT_BYTES, MAILBOX_BATCHES,
};
use crate::namespaces::{NamespaceChanged, NamespaceRequest, NamespaceTable};
use crate::prefixes::PrefixCounts;
use crate::request::{
    AnyRequest, CarriedAnswer, ItemRequest, NoAnswer, ShardAnswer, ShardRequest, prefix_memory,
};

/// Who waits for a reply: a place among a connection's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The connection, as its core numbers it.
    pub connection: u64,
    /// The request's sequence in the connection.
    pub sequence: u64,
}

/// Where a message's bytes are.
#[derive(Debug)]
enum Bytes {
    /// In the batch, from here to there.
    Shared(usize, usize),
    /// In a vector of their own.
    Own(Vec<u8>),
}

/// A request without its bytes: those of the record, the item and the values stand behind each
/// other.
#[derive(Clone, Copy, Debug)]
struct RequestHead {
    namespace: u32,
    record_bytes: u16,
    item_bytes: u16,
    kind: Kind,
    deadline: Option<u64>,
    acknowledgement: Acknowledgement,
    replaces: bool,
    /// With empty values.
    operation: Operation<'static>,
}

impl RequestHead {
    fn of(request: &ItemRequest<'_>) -> Self {
        let ItemRequest { key, operation, kind, deadline, acknowledgement, replaces } = *request;
        let length = |bytes: &[u8]| u16::try_from(bytes.len()).expect("a key's part is short");
        Self {
            namespace: key.namespace,
            record_bytes: length(key.record),
            item_bytes: length(key.item),
            kind,
            deadline,
            acknowledgement,
            replaces,
            operation: operation.without_values(),
        }
    }

    /// The request with these bytes.
    fn request<'a>(&self, bytes: &'a [u8]) -> ItemRequest<'a> {
        let (record, rest) = bytes.split_at(usize::from(self.record_bytes));
        let (item, values) = rest.split_at(usize::from(self.item_bytes));
        ItemRequest {
            key: Key { namespace: self.namespace, record, item },
            operation: self.operation.with_values(values),
            kind: self.kind,
            deadline: self.deadline,
            acknowledgement: self.acknowledgement,
            replaces: self.replaces,
        }
    }
}

/// What is asked for.
#[derive(Debug)]
enum Asked<B> {
    /// An operation on an item, with its bytes.
    Item(RequestHead, B),
    /// Something else.
    Shard(Arc<ShardRequest>),
}

/// A request for a shard of the core that it is sent to.
#[derive(Debug)]
pub struct RequestMessage {
    /// Who waits for the answer.
    pub place: Place,
    /// The shard.
    pub shard: u16,
    asked: Asked<Bytes>,
}

/// A request that was taken out of its batch.
#[derive(Debug)]
pub struct ParkedRequest {
    /// Who waits for the answer.
    pub place: Place,
    /// The shard.
    pub shard: u16,
    asked: Asked<Vec<u8>>,
}

impl ParkedRequest {
    /// The request.
    pub fn request(&self) -> AnyRequest<'_> {
        match &self.asked {
            Asked::Item(head, bytes) => AnyRequest::Item(head.request(bytes)),
            Asked::Shard(request) => AnyRequest::Shard(request),
        }
    }
}

/// An answer that may leave.
#[derive(Debug)]
pub struct AnswerMessage {
    /// Who waits for it.
    pub place: Place,
    /// Without its value.
    answer: Result<Answer<'static>, NoAnswer>,
    value: Bytes,
}

/// What one core wants of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The core's figures.
    Report,
    /// The same, and to set its counters to zero.
    Reset,
    /// To drop every item of its shards, now or at a Unix second.
    Clear(Option<u32>),
    /// To know that these are the namespaces from now on.
    Namespaces(Arc<NamespaceTable>),
    /// To delete, on each of its shards, all that a namespace has that nobody knows any more.
    DropNamespace(u32),
    /// To list its connections.
    Connections,
    /// To count requests by prefix, or not to.
    CountPrefixes(bool),
    /// Values in memory have at most so many bytes on all shards together.
    LimitValues(u64),
    /// To tell what it has counted by prefix.
    Prefixes,
    /// To tell of these events from now on.
    Watch(EventKinds),
}

/// A core's part of the answer.
#[derive(Debug)]
pub enum Told {
    /// Its figures.
    Report(Box<CoreReport>),
    /// Its connections.
    Connections(Arc<[ConnectionReport]>),
    /// What it has counted by prefix.
    Prefixes(Vec<(Box<[u8]>, PrefixCounts)>),
    /// It is done, for the core or for one of its shards.
    Done,
}

impl Told {
    /// The memory that it takes, in bytes.
    pub fn memory(&self) -> usize {
        match self {
            Self::Report(report) => report.memory(),
            Self::Connections(reports) => size_of_val(&**reports),
            Self::Prefixes(prefixes) => prefix_memory(prefixes),
            Self::Done => 0,
        }
    }
}

/// Messages that are rare and not a client's request.
#[derive(Debug)]
pub enum Note {
    /// A question, with a number that the answer names.
    Ask(u64, Ask),
    /// A part of the answer, or why there is none.
    Told(u64, Result<Told, String>),
    /// These events are watched on the core that says so, from now on.
    Watching(EventKinds),
    /// What has happened that is watched there, and how much more was not kept.
    Events(Vec<NodeEvent>, u64),
    /// A request of a connection to change a namespace.
    ChangeNamespace(Place, NamespaceRequest),
    /// Its end.
    NamespaceChanged(Place, Result<NamespaceChanged, NoAnswer>),
}

impl Note {
    /// The memory that it takes besides its own size, in bytes.
    fn memory(&self) -> usize {
        match self {
            Self::Told(_, Ok(told)) => told.memory(),
            Self::Events(events, _) => events.len() * EVENT_BYTES,
            Self::Ask(..)
            | Self::Told(_, Err(_))
            | Self::Watching(_)
            | Self::ChangeNamespace(..)
            | Self::NamespaceChanged(..) => 0,
        }
    }
}

/// What a core says to another within a turn.
#[derive(Debug, Default)]
pub struct Batch {
    /// Requests.
    pub requests: Vec<RequestMessage>,
    /// Answers to requests.
    pub answers: Vec<AnswerMessage>,
    shard_answers: Vec<(Place, ShardAnswer)>,
    /// The rest. They count as sent after the requests of the same batch.
    pub notes: Vec<Note>,
    /// Connections, and bytes of values that were passed to their clients.
    pub credits: Vec<(u64, usize)>,
    /// Connections that are closed. They count as sent after the requests of the same batch.
    pub closed: Vec<u64>,
    bytes: Vec<u8>,
    /// What its messages have besides, in bytes, as far as it was not taken out.
    own_bytes: usize,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.requests.is_empty()
            && self.answers.is_empty()
            && self.shard_answers.is_empty()
            && self.notes.is_empty()
            && self.credits.is_empty()
            && self.closed.is_empty()
    }

    fn is_full(&self) -> bool {
        self.requests.len() >= BATCH_REQUESTS_MAX
            || self.bytes.len() + self.own_bytes >= BATCH_BYTES_MAX
    }

    fn clear(&mut self) {
        self.requests.clear();
        self.answers.clear();
        self.shard_answers.clear();
        self.notes.clear();
        self.credits.clear();
        self.closed.clear();
        self.bytes.clear();
        self.own_bytes = 0;
        if self.bytes.capacity() > BATCH_KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
    }

    fn bytes_of<'a>(&'a self, bytes: &'a Bytes) -> &'a [u8] {
        match bytes {
            Bytes::Shared(start, end) => &self.bytes[*start..*end],
            Bytes::Own(bytes) => bytes,
        }
    }

    /// The request of a message.
    #[inline]
    pub fn request<'a>(&'a self, message: &'a RequestMessage) -> AnyRequest<'a> {
        match &message.asked {
            Asked::Item(head, bytes) => AnyRequest::Item(head.request(self.bytes_of(bytes))),
            Asked::Shard(request) => AnyRequest::Shard(request),
        }
    }

    /// Takes a request out of the batch, to be carried out later.
    pub fn park(&mut self, request: usize) -> ParkedRequest {
        let RequestMessage { place, shard, asked } = &mut self.requests[request];
        let asked = match asked {
            Asked::Item(head, Bytes::Shared(start, end)) => {
                Asked::Item(*head, self.bytes[*start..*end].to_vec())
            }
            Asked::Item(head, Bytes::Own(bytes)) => {
                self.own_bytes -= bytes.len();
                Asked::Item(*head, std::mem::take(bytes))
            }
            Asked::Shard(request) => Asked::Shard(Arc::clone(request)),
        };
        ParkedRequest { place: *place, shard: *shard, asked }
    }

    /// The memory that the batch holds, in bytes.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.requests.capacity() * size_of::<RequestMessage>()
            + self.notes.capacity() * size_of::<Note>()
            + self.credits.capacity() * size_of::<(u64, usize)>()
            + self.closed.capacity() * size_of::<u64>()
            + self.answers.capacity() * size_of::<AnswerMessage>()
            + self.shard_answers.capacity() * size_of::<(Place, ShardAnswer)>()
            + self.bytes.capacity()
            + self.own_bytes
    }

    /// Takes the answer out of a message. A long value comes as its own vector.
    pub fn take_answer(&mut self, index: usize) -> Result<CarriedAnswer<'_>, NoAnswer> {
        let message = &mut self.answers[index];
        let value = match &mut message.value {
            Bytes::Shared(start, end) => Cow::Borrowed(&self.bytes[*start..*end]),
            Bytes::Own(bytes) => {
                self.own_bytes -= bytes.len();
                Cow::Owned(std::mem::take(bytes))
            }
        };
        message.answer.map(|answer| CarriedAnswer { answer, value })
    }

    /// Takes the answers out that are not about one item.
    pub fn take_shard_answers(&mut self) -> impl Iterator<Item = (Place, ShardAnswer)> + '_ {
        let memory: usize = self.shard_answers.iter().map(|(_, answer)| answer.memory()).sum();
        self.own_bytes -= memory;
        self.shard_answers.drain(..)
    }

    fn push_request(&mut self, place: Place, shard: u16, request: &ItemRequest<'_>) {
        let Key { record, item, .. } = request.key;
        let parts = [record, item].into_iter().chain(request.operation.values());
        let asked = Asked::Item(RequestHead::of(request), self.keep(parts));
        self.requests.push(RequestMessage { place, shard, asked });
    }

    fn push_shard_request(&mut self, place: Place, request: Arc<ShardRequest>) {
        self.own_bytes += request.memory();
        let shard = request.shard;
        self.requests.push(RequestMessage { place, shard, asked: Asked::Shard(request) });
    }

    /// Keeps bytes: with those of others, or in a vector of their own if they are many.
    #[inline]
    fn keep<'p>(&mut self, parts: impl Iterator<Item = &'p [u8]> + Clone) -> Bytes {
        let len = parts.clone().map(<[u8]>::len).sum();
        if len > BATCH_COPY_BYTES_MAX {
            let mut own = Vec::with_capacity(len);
            parts.for_each(|part| own.extend_from_slice(part));
            self.own_bytes += len;
            return Bytes::Own(own);
        }
        let start = self.bytes.len();
        parts.for_each(|part| self.bytes.extend_from_slice(part));
        Bytes::Shared(start, start + len)
    }

    fn push_answer(&mut self, place: Place, answer: Result<&Answer<'_>, NoAnswer>) {
        let value = self.keep(std::iter::once(answer.map_or(&[][..], |answer| answer.value)));
        let answer = answer.map(Answer::without_value);
        self.answers.push(AnswerMessage { place, answer, value });
    }

    /// Takes the answer that was pushed last out again.
    fn pop_answer(&mut self) -> Option<Result<AnswerBuf, NoAnswer>> {
        let AnswerMessage { answer, value, .. } = self.answers.pop()?;
        let value = match value {
            Bytes::Shared(start, _) => self.bytes.split_off(start),
            Bytes::Own(value) => {
                self.own_bytes -= value.len();
                value
            }
        };
        Some(answer.map(|answer| AnswerBuf::with_value(&answer, value)))
    }

    fn push_shard_answer(&mut self, place: Place, answer: ShardAnswer) {
        self.own_bytes += answer.memory();
        self.shard_answers.push((place, answer));
    }

    fn push_own_answer(&mut self, place: Place, answer: AnswerBuf) {
        if answer.value_bytes() <= BATCH_COPY_BYTES_MAX {
            return self.push_answer(place, Ok(&answer.as_answer()));
        }
        let (answer, value) = answer.into_parts();
        self.own_bytes += value.len();
        self.answers.push(AnswerMessage { place, answer: Ok(answer), value: Bytes::Own(value) });
    }
}

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
}

impl<W> Line<W> {
    /// A line on which nothing was sent.
    fn new(ends: Ends, waker: W) -> Self {
        let on_the_way = (VecDeque::with_capacity(MAILBOX_BATCHES), 0);
        Self { ends, waker, gathering: Box::default(), on_the_way, kept: Vec::new() }
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

    /// The memory of all batches of the line, in bytes.
    fn memory(&mut self) -> usize {
        let kept: usize = self.kept.iter().map(|batch| batch.memory()).sum();
        self.gathering.memory() + kept + self.memory_on_the_way()
    }

    /// Hands the gathered batch over if there is room; returns whether it could.
    fn hand_over(&mut self) -> bool {
        if self.gathering.is_empty() {
            return true;
        }
        let next = self.kept.pop().unwrap_or_default();
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
                self.kept.push(empty);
                false
            }
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
        let line =
            |(ends, waker): (Option<Ends>, &W)| ends.map(|ends| Line::new(ends, waker.clone()));
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
        if line.gathering.is_full() && !line.hand_over() {
            return false;
        }
        line.gathering.push_request(place, shard, request);
        true
    }

    /// As [`Mesh::send_request`], for a request that is not about one item.
    pub fn send_shard_request(
        &mut self,
        core: usize,
        place: Place,
        request: Arc<ShardRequest>,
    ) -> bool {
        let line = self.line(core);
        if line.gathering.is_full() && !line.hand_over() {
            return false;
        }
        line.gathering.push_shard_request(place, request);
        true
    }

    /// Sends the answer to a request of `core`.
    pub fn send_answer(
        &mut self,
        core: usize,
        place: Place,
        answer: Result<&Answer<'_>, NoAnswer>,
    ) {
        self.line(core).gathering.push_answer(place, answer);
    }

    /// Takes the answer back that was sent to `core` last. There must be one that was sent in this
    /// turn, and nothing may have been sent to that core since.
    pub fn take_answer_back(&mut self, core: usize) -> Result<AnswerBuf, NoAnswer> {
        self.line(core).gathering.pop_answer().expect("an answer was sent a moment ago")
    }

    /// Sends an answer whose value needs not be copied.
    pub fn send_own_answer(&mut self, core: usize, place: Place, answer: AnswerBuf) {
        self.line(core).gathering.push_own_answer(place, answer);
    }

    /// Sends the answer to a request that is not about one item.
    pub fn send_shard_answer(&mut self, core: usize, place: Place, answer: ShardAnswer) {
        self.line(core).gathering.push_shard_answer(place, answer);
    }

    /// Sends a note.
    pub fn send_note(&mut self, core: usize, note: Note) {
        let gathering = &mut self.line(core).gathering;
        gathering.own_bytes += note.memory();
        gathering.notes.push(note);
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
        if line.kept.len() < BATCHES_KEPT_MAX {
            batch.clear();
            line.kept.push(batch);
        }
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
            is_left |= !line.hand_over();
            if line.ends.sender.publish() {
                line.waker.wake();
            }
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::ShardWork;
    use larder_engine::operation::{Delete, Exchange, Outcome, Store, StoreMode};
    use larder_engine::scan::{Page, Scan};

    /// Of a core that does not sleep.
    #[derive(Clone)]
    struct Awake;

    impl CoreWaker for Awake {
        fn wake(&self) {}
    }

    fn store(value: &[u8]) -> ItemRequest<'_> {
        let operation = Operation::Store(Store {
            mode: StoreMode::Append,
            value,
            client_flags: 1,
            expiry: 2,
            compare: Some(3),
            invalidate: true,
            is_large: false,
            vivify: Some(4),
            version: Some(5),
        });
        let key = Key { namespace: 9, record: b"record", item: b"item" };
        ItemRequest {
            key,
            operation,
            kind: Kind::Store,
            deadline: Some(8),
            acknowledgement: Acknowledgement::Durable,
            replaces: true,
        }
    }

    fn place(sequence: u64) -> Place {
        Place { connection: 3, sequence }
    }

    #[test]
    fn a_batch_carries_requests_and_answers_of_any_length() {
        let mut batch = Batch::default();
        let large = vec![b'x'; BATCH_COPY_BYTES_MAX + 1];
        let operation = Operation::Delete(Delete::default());
        let delete = ItemRequest { operation, kind: Kind::Delete, replaces: false, ..store(b"") };
        let operation = Operation::Exchange(Exchange::store(b"old", &large, 6, 7));
        let exchange = ItemRequest { operation, ..store(b"") };
        let sent = [store(b"small"), store(&large), delete, exchange];
        for (sequence, request) in sent.iter().enumerate() {
            batch.push_request(place(sequence as u64), 7, request);
        }
        let hit = Answer::nothing(Outcome::Hit, 5);
        batch.push_answer(place(3), Ok(&hit.with_value(b"value")));
        batch.push_answer(place(4), Err(NoAnswer::Damaged));
        batch.push_own_answer(place(5), AnswerBuf::with_value(&hit, large.clone()));
        let page = Arc::new(ShardRequest {
            shard: 7,
            deadline: None,
            acknowledgement: Acknowledgement::Configured,
            work: ShardWork::Page(Scan::of_record(0, &[b'r'; 1000])),
        });
        let before = batch.own_bytes;
        batch.push_shard_request(place(6), Arc::clone(&page));
        assert!(batch.own_bytes > before + 1000, "what it owns counts");
        let requests: Vec<_> =
            batch.requests.iter().map(|message| batch.request(message)).collect();
        let expected: Vec<_> = sent.into_iter().map(AnyRequest::Item).collect();
        assert_eq!(requests[..4], expected);
        assert_eq!(requests[4], AnyRequest::Shard(&page));
        let (bytes, own_bytes) = (batch.bytes.len(), batch.own_bytes);
        batch.push_answer(place(6), Ok(&hit.with_value(b"another")));
        let taken = batch.pop_answer().expect("an answer").expect("no failure");
        assert_eq!(taken.as_answer(), hit.with_value(b"another"));
        batch.push_answer(place(6), Ok(&hit.with_value(&large)));
        let taken = batch.pop_answer().expect("an answer").expect("no failure");
        assert_eq!(taken.as_answer(), hit.with_value(&large));
        batch.push_answer(place(6), Err(NoAnswer::Damaged));
        assert!(matches!(batch.pop_answer(), Some(Err(NoAnswer::Damaged))));
        assert_eq!((batch.bytes.len(), batch.own_bytes), (bytes, own_bytes));
        let carried = |value| Ok(CarriedAnswer { answer: hit, value });
        assert_eq!(batch.take_answer(0), carried(Cow::Borrowed(&b"value"[..])));
        assert_eq!(batch.take_answer(1), Err(NoAnswer::Damaged));
        let before = batch.own_bytes;
        let taken = batch.take_answer(2);
        assert!(matches!(&taken, Ok(CarriedAnswer { value: Cow::Owned(_), .. })));
        assert_eq!(taken, carried(Cow::Borrowed(&large)));
        assert_eq!(batch.own_bytes, before - large.len(), "what is taken out counts elsewhere");
        let parked = batch.park(1);
        assert_eq!(parked.request(), AnyRequest::Item(store(&large)));
        let len = large.len() + b"recorditem".len();
        assert_eq!(batch.own_bytes, before - large.len() - len);
        assert_eq!(batch.park(4).request(), AnyRequest::Shard(&page));
        let before = batch.own_bytes;
        batch.push_shard_answer(place(6), ShardAnswer::Page(Page::default(), 5000));
        assert_eq!(batch.own_bytes, before + 5000);
        assert_eq!(batch.take_shard_answers().count(), 1);
        assert_eq!(batch.own_bytes, before);
        batch.clear();
        assert!(batch.is_empty() && !batch.is_full());
    }

    #[test]
    fn a_batch_is_full_by_number_and_by_bytes() {
        let mut batch = Batch::default();
        for sequence in 0..BATCH_REQUESTS_MAX as u64 {
            assert!(!batch.is_full());
            batch.push_request(place(sequence), 0, &store(b""));
        }
        assert!(batch.is_full());
        let mut batch = Batch::default();
        let large = vec![b'x'; BATCH_BYTES_MAX];
        batch.push_request(place(0), 0, &store(&large));
        assert!(batch.is_full());
    }

    #[test]
    fn every_ordered_pair_of_cores_has_a_mailbox() {
        let mut ends = mailboxes(3);
        for (core, row) in ends.iter().enumerate() {
            assert!(row.iter().enumerate().all(|(peer, ends)| ends.is_some() == (peer != core)));
        }
        let batch = Box::new(Batch { bytes: b"from 0 to 2".to_vec(), ..Batch::default() });
        let sender = &mut ends[0][2].as_mut().expect("a pair").sender;
        assert!(sender.push(batch).is_ok() && sender.publish());
        let receiver = &mut ends[2][0].as_mut().expect("a pair").receiver;
        assert_eq!(receiver.pop().expect("a batch").bytes, b"from 0 to 2");
    }

    #[test]
    fn a_batch_counts_until_the_other_core_has_taken_it() {
        let wakers = [Awake, Awake];
        let mut meshes = mailboxes(2).into_iter().map(|ends| Mesh::new(ends, &wakers));
        let (mut first, mut second) = meshes.next().zip(meshes.next()).expect("two cores");
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
    fn no_core_is_always_received_from_last() {
        let lines = (0..3).map(|_| None).collect();
        let mut mesh: Mesh<Awake> = Mesh { lines, first: 0 };
        let orders = [(); 4].map(|()| mesh.next_order().collect::<Vec<_>>());
        assert_eq!(orders, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
    }
}
