//! What a core says to another at a time, and what of it a request or an answer takes along.

use std::borrow::Cow;
use std::sync::Arc;

use larder_engine::key::Key;
use larder_engine::operation::Operation;
use larder_engine::shard::{Acknowledgement, Answer, AnswerBuf};
use larder_runtime::memory::{prefetch_bytes, prefetch_tail};

use super::Note;
use crate::counters::Kind;
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_COPY_BYTES_MAX, BATCH_MESSAGES_USUAL, BATCH_REQUESTS_MAX,
};
use crate::request::{AnyRequest, CarriedAnswer, ItemRequest, NoAnswer, ShardAnswer, ShardRequest};

/// So many bytes of values are brought near before they are copied. More would push each other out
/// of the nearest cache.
const ANSWER_AHEAD_BYTES_MAX: usize = 1024;

/// So many messages are brought near before they are written.
const MESSAGES_AHEAD: usize = 2;

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

/// What a request says besides its bytes. It is long, and those of a pipeline mostly say the same,
/// so a batch has it once for as many as follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RequestHead {
    namespace: u32,
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
        Self {
            namespace: key.namespace,
            kind,
            deadline,
            acknowledgement,
            replaces,
            operation: operation.without_values(),
        }
    }

    /// The request with these bytes.
    #[inline]
    fn request<'a>(&self, cuts: Cuts, bytes: &'a [u8]) -> ItemRequest<'a> {
        let (record, rest) = bytes.split_at(usize::from(cuts.record));
        let (item, values) = rest.split_at(usize::from(cuts.item));
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

/// How a request's bytes are divided: the record, the item and the values stand behind each other.
#[derive(Clone, Copy, Debug)]
struct Cuts {
    record: u16,
    item: u16,
}

impl Cuts {
    fn of(key: &Key<'_>) -> Self {
        let length = |bytes: &[u8]| u16::try_from(bytes.len()).expect("a key's part is short");
        Self { record: length(key.record), item: length(key.item) }
    }
}

/// What is asked for.
#[derive(Debug)]
enum Asked<H, B> {
    /// An operation on an item, with its bytes.
    Item(H, Cuts, B),
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
    /// With the place of its head among the batch's.
    asked: Asked<u32, Bytes>,
}

/// A request that was taken out of its batch.
#[derive(Debug)]
pub struct ParkedRequest {
    /// Who waits for the answer.
    pub place: Place,
    /// The shard.
    pub shard: u16,
    asked: Asked<RequestHead, Vec<u8>>,
}

impl ParkedRequest {
    /// The request.
    pub fn request(&self) -> AnyRequest<'_> {
        match &self.asked {
            Asked::Item(head, cuts, bytes) => AnyRequest::Item(head.request(*cuts, bytes)),
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

/// What a core says to another at a time.
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
    heads: Vec<RequestHead>,
    bytes: Vec<u8>,
    /// What its messages have besides, in bytes, as far as it was not taken out.
    own_bytes: usize,
    /// Empty batches that go back to the core that they came from.
    #[allow(clippy::vec_box, reason = "a batch moves through mailboxes by its pointer")]
    returned: Vec<Box<Self>>,
    /// Their memory, in bytes.
    returned_bytes: usize,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
            && self.answers.is_empty()
            && self.shard_answers.is_empty()
            && self.notes.is_empty()
            && self.credits.is_empty()
            && self.closed.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.requests.len() >= BATCH_REQUESTS_MAX
            || self.bytes.len() + self.own_bytes >= BATCH_BYTES_MAX
    }

    /// Whether it has as many requests and answers as a batch usually gets, or a multiple of it.
    #[inline]
    pub(super) fn has_usual_length(&self) -> bool {
        let messages = self.requests.len() + self.answers.len();
        messages > 0 && messages.is_multiple_of(BATCH_MESSAGES_USUAL)
    }

    pub(super) fn clear(&mut self) {
        self.requests.clear();
        self.answers.clear();
        self.shard_answers.clear();
        self.notes.clear();
        self.credits.clear();
        self.closed.clear();
        self.heads.clear();
        self.bytes.clear();
        self.own_bytes = 0;
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
            Asked::Item(head, cuts, bytes) => {
                let head = &self.heads[*head as usize];
                AnyRequest::Item(head.request(*cuts, self.bytes_of(bytes)))
            }
            Asked::Shard(request) => AnyRequest::Shard(request),
        }
    }

    /// The key of a message that asks for an operation on an item.
    #[inline]
    pub fn key<'a>(&'a self, message: &'a RequestMessage) -> Option<Key<'a>> {
        let Asked::Item(head, cuts, bytes) = &message.asked else { return None };
        let (record, rest) = self.bytes_of(bytes).split_at(usize::from(cuts.record));
        let item = &rest[..usize::from(cuts.item)];
        Some(Key { namespace: self.heads[*head as usize].namespace, record, item })
    }

    /// Takes a request out of the batch, to be carried out later.
    pub fn park(&mut self, request: usize) -> ParkedRequest {
        let RequestMessage { place, shard, asked } = &mut self.requests[request];
        let asked = match asked {
            Asked::Item(head, cuts, bytes) => {
                let bytes = match bytes {
                    Bytes::Shared(start, end) => self.bytes[*start..*end].to_vec(),
                    Bytes::Own(bytes) => {
                        self.own_bytes -= bytes.len();
                        std::mem::take(bytes)
                    }
                };
                Asked::Item(self.heads[*head as usize], *cuts, bytes)
            }
            Asked::Shard(request) => Asked::Shard(Arc::clone(request)),
        };
        ParkedRequest { place: *place, shard: *shard, asked }
    }

    /// The memory that the batch holds, in bytes.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.requests.capacity() * size_of::<RequestMessage>()
            + self.heads.capacity() * size_of::<RequestHead>()
            + self.notes.capacity() * size_of::<Note>()
            + self.credits.capacity() * size_of::<(u64, usize)>()
            + self.closed.capacity() * size_of::<u64>()
            + self.answers.capacity() * size_of::<AnswerMessage>()
            + self.shard_answers.capacity() * size_of::<(Place, ShardAnswer)>()
            + self.bytes.capacity()
            + self.own_bytes
            + self.returned.capacity() * size_of::<Box<Self>>()
            + self.returned_bytes
    }

    /// Starts bringing near the value of an answer that will be taken soon, if there is one:
    /// another core has written it.
    #[inline]
    pub fn announce_answer(&self, index: usize) {
        if let Some(AnswerMessage { value: Bytes::Shared(start, end), .. }) =
            self.answers.get(index)
        {
            let end = (start + ANSWER_AHEAD_BYTES_MAX).min(*end);
            prefetch_bytes(&self.bytes[*start..end]);
        }
    }

    /// Takes the answer out of a message. A long value comes as its own vector.
    pub fn take_answer(&mut self, index: usize) -> Result<CarriedAnswer<'_>, NoAnswer> {
        let AnswerMessage { answer, value, .. } = &mut self.answers[index];
        let value = match value {
            Bytes::Shared(start, end) => Cow::Borrowed(&self.bytes[*start..*end]),
            Bytes::Own(bytes) => {
                self.own_bytes -= bytes.len();
                Cow::Owned(std::mem::take(bytes))
            }
        };
        match answer {
            Ok(answer) => Ok(CarriedAnswer { answer, value }),
            Err(failure) => Err(*failure),
        }
    }

    /// Sends an empty batch along, for the other core to use.
    pub(super) fn push_returned(&mut self, empty: Box<Self>) {
        self.returned_bytes += empty.memory();
        self.returned.push(empty);
    }

    /// How many are sent along.
    pub(super) fn returned(&self) -> usize {
        self.returned.len()
    }

    /// Takes an empty batch out that was sent along.
    pub(super) fn pop_returned(&mut self) -> Option<Box<Self>> {
        let empty = self.returned.pop()?;
        self.returned_bytes -= empty.memory();
        Some(empty)
    }

    /// Takes the answers out that are not about one item.
    pub fn take_shard_answers(&mut self) -> impl Iterator<Item = (Place, ShardAnswer)> + '_ {
        let memory: usize = self.shard_answers.iter().map(|(_, answer)| answer.memory()).sum();
        self.own_bytes -= memory;
        self.shard_answers.drain(..)
    }

    #[inline]
    pub(super) fn push_request(&mut self, place: Place, shard: u16, request: &ItemRequest<'_>) {
        let Key { record, item, .. } = request.key;
        let [first, second] = request.operation.values();
        let bytes = self.keep(&[record, item, first, second]);
        let asked = Asked::Item(self.keep_head(request), Cuts::of(&request.key), bytes);
        self.requests.push(RequestMessage { place, shard, asked });
        // The other core had the next ones last.
        prefetch_tail(&mut self.requests, MESSAGES_AHEAD);
    }

    pub(super) fn push_shard_request(&mut self, place: Place, request: Arc<ShardRequest>) {
        self.own_bytes += request.memory();
        let shard = request.shard;
        self.requests.push(RequestMessage { place, shard, asked: Asked::Shard(request) });
    }

    /// Keeps a request's head, which may be that of the request before; returns its place.
    #[inline]
    fn keep_head(&mut self, request: &ItemRequest<'_>) -> u32 {
        let head = RequestHead::of(request);
        if self.heads.last() != Some(&head) {
            self.heads.push(head);
        }
        u32::try_from(self.heads.len() - 1).expect("a batch has few requests")
    }

    /// Keeps bytes: with those of others, or in a vector of their own if they are many.
    #[inline]
    fn keep(&mut self, parts: &[&[u8]]) -> Bytes {
        let len = parts.iter().map(|part| part.len()).sum();
        if len > BATCH_COPY_BYTES_MAX {
            self.own_bytes += len;
            return Bytes::Own(parts.concat());
        }
        let start = self.bytes.len();
        self.bytes.reserve(len);
        for part in parts.iter().filter(|part| !part.is_empty()) {
            self.bytes.extend_from_slice(part);
        }
        Bytes::Shared(start, start + len)
    }

    pub(super) fn push_answer(&mut self, place: Place, answer: Result<&Answer<'_>, NoAnswer>) {
        let value = self.keep(&[answer.map_or(&[][..], |answer| answer.value)]);
        let answer = answer.map(Answer::without_value);
        self.answers.push(AnswerMessage { place, answer, value });
        // The other core had these lines last.
        prefetch_tail(&mut self.bytes, ANSWER_AHEAD_BYTES_MAX);
        prefetch_tail(&mut self.answers, MESSAGES_AHEAD);
    }

    /// Takes the answer that was pushed last out again.
    pub(super) fn pop_answer(&mut self) -> Option<Result<AnswerBuf, NoAnswer>> {
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

    pub(super) fn push_shard_answer(&mut self, place: Place, answer: ShardAnswer) {
        self.own_bytes += answer.memory();
        self.shard_answers.push((place, answer));
    }

    pub(super) fn push_note(&mut self, note: Note) {
        self.own_bytes += note.memory();
        self.notes.push(note);
    }

    pub(super) fn push_own_answer(&mut self, place: Place, answer: AnswerBuf) {
        if answer.value_bytes() <= BATCH_COPY_BYTES_MAX {
            return self.push_answer(place, Ok(&answer.as_answer()));
        }
        let (answer, value) = answer.into_parts();
        self.own_bytes += value.len();
        self.answers.push(AnswerMessage { place, answer: Ok(answer), value: Bytes::Own(value) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::ShardWork;
    use larder_engine::operation::{Delete, Exchange, Outcome, Store, StoreMode};
    use larder_engine::scan::{Page, Scan};

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
        let keys: Vec<_> = batch.requests.iter().map(|message| batch.key(message)).collect();
        assert_eq!(
            keys,
            [Some(sent[0].key), Some(sent[1].key), Some(sent[2].key), Some(sent[3].key), None]
        );
        assert_eq!(batch.heads.len(), 3, "two requests that say the same follow each other");
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
        let carried = |value| Ok(CarriedAnswer { answer: &hit, value });
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
}
