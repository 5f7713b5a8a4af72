//! One connection's batch: the requests in flight, matched with the replies: in order, or by number
//! where replies come in any.

use std::time::Instant;

use super::Protocol;
use super::data::{check_mask, check_word};
use super::encoder::{Operation, Request};
use super::native::NativeReplies;
use super::reply::{Reply, ReplyError, ReplyParser};
use super::statistics::{ErrorKind, Statistics};

/// What every value must look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct ValueCheck {
    length: usize,
    mask: u64,
}

impl ValueCheck {
    pub(super) fn new(length: usize) -> Self {
        Self { length, mask: check_mask(length) }
    }

    fn accepts(self, key: u64, length: usize, head: [u8; 8]) -> bool {
        length == self.length && u64::from_le_bytes(head) == check_word(key) & self.mask
    }
}

/// A batch of requests in flight and what came back of it.
#[derive(Debug)]
pub(super) struct Exchange {
    replies: Replies,
    requests: Vec<Request>,
    /// Where replies come in any order: which requests are answered.
    is_answered: Vec<bool>,
    answered: usize,
    sent_at: Instant,
}

impl Exchange {
    /// An exchange with nothing in flight, for batches of up to `depth` requests.
    pub(super) fn new(protocol: Protocol, depth: usize, now: Instant) -> Self {
        Self {
            replies: match protocol {
                Protocol::Meta | Protocol::Text => Replies::Ordered(ReplyParser::new()),
                Protocol::Native => Replies::Numbered(NativeReplies::default()),
            },
            requests: Vec::with_capacity(depth),
            is_answered: Vec::with_capacity(depth),
            answered: 0,
            sent_at: now,
        }
    }

    /// Requests that wait for their answer.
    pub(super) fn in_flight(&self) -> usize {
        self.requests.len() - self.answered
    }

    /// Starts the next batch; nothing may be in flight.
    pub(super) fn clear(&mut self) {
        assert_eq!(self.in_flight(), 0, "a batch starts when the one before is answered");
        self.requests.clear();
        self.is_answered.clear();
        self.answered = 0;
    }

    /// Adds a request to the batch.
    pub(super) fn push(&mut self, request: Request) {
        self.requests.push(request);
        self.is_answered.push(false);
    }

    /// Notes when the batch was written; latencies count from here.
    pub(super) fn sent(&mut self, now: Instant) {
        self.sent_at = now;
    }

    /// Takes bytes from the server, read at `now`, and counts what they answer.
    ///
    /// # Errors
    /// The text of why the bytes make no sense here; the connection cannot be used any more.
    pub(super) fn receive(
        &mut self,
        mut bytes: &[u8],
        now: Instant,
        check: ValueCheck,
        statistics: &mut Statistics,
    ) -> Result<(), String> {
        let latency = now.saturating_duration_since(self.sent_at);
        while let Some((number, reply)) =
            self.replies.next(&mut bytes).map_err(|error| error.to_string())?
        {
            let place = number.map_or(self.answered, |number| number as usize);
            let Some(&request) = self.requests.get(place).filter(|_| !self.is_answered[place])
            else {
                return Err(format!("a reply without a request: {reply:?}"));
            };
            self.is_answered[place] = true;
            self.answered += 1;
            match (request.operation, reply) {
                (Operation::Get, Reply::Value { length, head }) => {
                    if check.accepts(request.key, length, head) {
                        statistics.hits += 1;
                        statistics.record(Operation::Get, latency);
                    } else {
                        statistics.fail(ErrorKind::WrongValue, || {
                            describe_wrong(request.key, length, head, check)
                        });
                    }
                }
                (Operation::Get, Reply::Miss) => {
                    statistics.misses += 1;
                    statistics.record(Operation::Get, latency);
                }
                (Operation::Set, Reply::Stored) => statistics.record(Operation::Set, latency),
                (Operation::Set, Reply::NotStored) => {
                    statistics.fail(ErrorKind::NotStored, || self.replies.text());
                }
                (_, Reply::ServerError) => {
                    statistics.fail(ErrorKind::ServerError, || self.replies.text());
                }
                (_, Reply::ClientError) => {
                    statistics.fail(ErrorKind::ClientError, || self.replies.text());
                }
                (operation, reply) => return Err(format!("{reply:?} answers no {operation:?}")),
            }
        }
        Ok(())
    }
}

/// What takes the replies of a protocol out of the bytes.
#[derive(Debug)]
enum Replies {
    /// They come in the order of the requests.
    Ordered(ReplyParser),
    /// They name their requests.
    Numbered(NativeReplies),
}

impl Replies {
    fn next(&mut self, input: &mut &[u8]) -> Result<Option<(Option<u64>, Reply)>, ReplyError> {
        match self {
            Self::Ordered(parser) => Ok(parser.next(input)?.map(|reply| (None, reply))),
            Self::Numbered(replies) => {
                Ok(replies.next(input)?.map(|(number, reply)| (Some(number), reply)))
            }
        }
    }

    /// The text of the last error.
    fn text(&self) -> String {
        match self {
            Self::Ordered(parser) => parser.line(),
            Self::Numbered(replies) => replies.text(),
        }
    }
}

fn describe_wrong(key: u64, length: usize, head: [u8; 8], check: ValueCheck) -> String {
    if length == check.length {
        format!("key number {key}: the value begins with `{}`", head.escape_ascii())
    } else {
        format!("key number {key}: {length} bytes instead of {}", check.length)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::data::ValueFormat;
    use super::*;

    const SIZE: usize = 20;

    fn exchange(requests: &[(Operation, u64)]) -> Exchange {
        let mut exchange = Exchange::new(Protocol::Meta, requests.len(), crate::host::now());
        for &(operation, key) in requests {
            exchange.push(Request { operation, key });
        }
        exchange
    }

    fn answer(size: usize, key: u64) -> Vec<u8> {
        let mut out = format!("VA {size}\r\n").into_bytes();
        ValueFormat::new(size).append(key, &mut out);
        out.extend_from_slice(b"\r\n");
        out
    }

    /// Feeds `bytes` in pieces of `piece`, a millisecond after the batch was sent.
    fn receive(exchange: &mut Exchange, bytes: &[u8], piece: usize) -> Result<Statistics, String> {
        let mut statistics = Statistics::new();
        let now = exchange.sent_at + Duration::from_millis(1);
        for part in bytes.chunks(piece) {
            exchange.receive(part, now, ValueCheck::new(SIZE), &mut statistics)?;
        }
        Ok(statistics)
    }

    #[test]
    fn replies_are_matched_in_order_and_counted() {
        use Operation::{Get, Set};
        let requests =
            [(Get, 5), (Get, 6), (Set, 7), (Set, 8), (Get, 9), (Get, 10), (Get, 11), (Get, 12)];
        let mut bytes = answer(SIZE, 5);
        bytes.extend_from_slice(b"EN\r\nHD\r\nNS\r\n");
        bytes.extend(answer(SIZE, 8));
        bytes.extend(answer(SIZE - 1, 10));
        bytes.extend_from_slice(b"SERVER_ERROR busy\r\nCLIENT_ERROR no\r\n");
        for piece in [1, 3, 1000] {
            let mut exchange = exchange(&requests);
            let statistics = receive(&mut exchange, &bytes, piece).expect("in order");
            assert_eq!(exchange.in_flight(), 0);
            assert_eq!((statistics.hits, statistics.misses), (1, 1));
            assert_eq!((statistics.get.len(), statistics.set.len()), (2, 1));
            assert!(statistics.p99() >= Duration::from_millis(1));
            let errors = ErrorKind::ALL.map(|kind| statistics.error(kind).count);
            assert_eq!(errors, [2, 1, 1, 1, 0, 0, 0]);
            let first = statistics.error(ErrorKind::ServerError).first.as_deref();
            assert_eq!(first, Some("SERVER_ERROR busy"));
        }
    }

    #[test]
    fn replies_that_name_their_requests_come_in_any_order_and_once() {
        use larder_protocol::native::NativeStatus;
        use larder_protocol::native::reply::{self, ReplyHead};
        let miss = |id| {
            let mut out = Vec::new();
            let head = ReplyHead { id, opcode: 0x10, has_checksum: false, hops: 0 };
            reply::put(&mut out, head, NativeStatus::Absent, |_| ());
            out
        };
        let mut exchange = Exchange::new(Protocol::Native, 3, crate::host::now());
        for key in 0..3 {
            exchange.push(Request { operation: Operation::Get, key });
        }
        let bytes = [miss(2), miss(0)].concat();
        assert_eq!(receive(&mut exchange, &bytes, 5).expect("known").misses, 2);
        assert_eq!(exchange.in_flight(), 1);
        assert!(receive(&mut exchange, &miss(2), 99).is_err(), "it was answered");
        assert!(receive(&mut exchange, &miss(3), 99).is_err(), "it was never asked");
        assert_eq!(receive(&mut exchange, &miss(1), 99).expect("known").misses, 1);
    }

    #[test]
    fn an_answer_out_of_place_ends_the_connection() {
        let mut one = exchange(&[(Operation::Get, 1)]);
        assert!(receive(&mut one, b"HD\r\n", 9).is_err(), "stored, though nothing was sent");
        let mut two = exchange(&[(Operation::Get, 1)]);
        assert!(receive(&mut two, b"EN\r\nEN\r\n", 9).is_err(), "one answer too many");
        let mut three = exchange(&[(Operation::Set, 1)]);
        assert!(receive(&mut three, b"SURPRISE\r\n", 9).is_err());
    }
}
