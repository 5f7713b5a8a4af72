//! memcached's binary protocol: requests to operations, answers to bytes.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use larder_engine::key::Key;
use larder_engine::operation::{self, Operation, Outcome, Read};
use larder_engine::shard::Answer;
use larder_protocol::memcached::binary::reply::{self, BinaryBody};
use larder_protocol::memcached::binary::{
    BinaryArithmetic, BinaryHead, BinaryParsed, BinaryParser, BinaryRead, BinaryRefusal,
    BinaryRequest, BinaryStatus, BinaryStep, BinaryStore,
};
use larder_protocol::memcached::{Direction, Limits, StoreVerb, error};
use larder_protocol::sink::ReplySink;

use super::answer::{DAMAGED, LARGE, READ_FAILED, STOPPED};
use super::command::{expiry, flush_time, mode};
use super::request_of;
use super::statistics::{self, Section};
use crate::codec::{Codec, Extent, Grouping, Meaning, Order};
use crate::counters::Kind;
use crate::facts::Facts;
use crate::namespaces::NamespaceView;
use crate::process::MEMCACHED_VERSION;
use crate::request::{Moment, NoAnswer, NodeAnswer, NodeRequest};

/// memcached's binary protocol, as one connection has it.
#[derive(Clone, Debug)]
pub struct MemcachedBinary {
    parser: BinaryParser,
    limits: Limits,
    facts: Arc<Facts>,
    namespaces: NamespaceView,
}

impl MemcachedBinary {
    /// For a connection that begins.
    pub fn new(facts: &Arc<Facts>, namespaces: &NamespaceView) -> Self {
        let (limits, parser) = (super::limits(facts), BinaryParser::default());
        Self { parser, limits, facts: Arc::clone(facts), namespaces: namespaces.clone() }
    }
}

/// The head of a reply that answers no request: the connection closes behind it.
const NOBODY: BinaryHead = BinaryHead { opcode: 0, opaque: [0; 4], is_quiet: false };

/// What is kept of a request whose answer is encoded later.
#[derive(Clone, Debug)]
pub struct BinaryToken {
    head: BinaryHead,
    form: Form,
    /// The key, where the reply has it.
    key: Box<[u8]>,
}

/// What a reply depends on besides the answer.
#[derive(Clone, Copy, Debug)]
enum Form {
    Read {
        with_key: bool,
        with_value: bool,
    },
    Store(StoreVerb),
    /// Others that one shard carries out.
    Change,
    /// A value was refused, and the key's old item is to go.
    Drop(BinaryStatus),
    Statistics(Section),
    Clear,
    Verbosity,
}

fn form(parsed: &BinaryParsed<'_>) -> (BinaryHead, Form) {
    match *parsed {
        BinaryParsed::Refused(BinaryRefusal { head, status, .. }) => (head, Form::Drop(status)),
        BinaryParsed::Request(head, ref request) => {
            let form = match *request {
                BinaryRequest::Read(BinaryRead { with_key, with_value, .. }) => {
                    Form::Read { with_key, with_value }
                }
                BinaryRequest::Store(store) => Form::Store(store.verb),
                BinaryRequest::Delete(_) | BinaryRequest::Arithmetic(_) => Form::Change,
                BinaryRequest::Statistics { section } => {
                    Form::Statistics(Section::from_arguments(section))
                }
                BinaryRequest::Flush { .. } => Form::Clear,
                BinaryRequest::Verbosity { .. } => Form::Verbosity,
                ref other => panic!("{other:?} does not wait"),
            };
            (head, form)
        }
        BinaryParsed::NeedMore { .. } | BinaryParsed::Close => panic!("{parsed:?} is no request"),
    }
}

fn key_of<'a>(parsed: &BinaryParsed<'a>) -> Option<&'a [u8]> {
    match parsed {
        BinaryParsed::Request(_, request) => request.key(),
        BinaryParsed::Refused(refusal) => refusal.drop_key,
        BinaryParsed::NeedMore { .. } | BinaryParsed::Close => None,
    }
}

/// Appends the answer to a request that has `form`.
#[inline]
fn put<S: ReplySink>(
    (head, form): (BinaryHead, Form),
    key: &[u8],
    answer: Result<&Answer<'_>, NoAnswer>,
    out: &mut S,
) {
    if let Form::Drop(status) = form {
        return put_status(out.bytes(), head, status);
    }
    match answer {
        Ok(answer) => put_answer((head, form), key, answer, out),
        Err(failure) => {
            let (status, text) = match failure {
                // It is busy where others change a record with a limit too fast for a count.
                NoAnswer::Full | NoAnswer::OverQuota | NoAnswer::RecordFull | NoAnswer::Busy => {
                    (BinaryStatus::OutOfMemory, "Out of memory allocating item")
                }
                NoAnswer::Damaged => (BinaryStatus::Internal, DAMAGED),
                NoAnswer::Stopped => (BinaryStatus::Internal, STOPPED),
                NoAnswer::ReadFailed => (BinaryStatus::Internal, READ_FAILED),
                NoAnswer::TooLate | NoAnswer::LeaseEnded | NoAnswer::NoNamespace => {
                    panic!("this protocol has no deadlines, and the default namespace: {failure:?}")
                }
            };
            reply::put_error(out.bytes(), head, status, without_prefix(text));
        }
    }
}

#[inline]
fn put_answer<S: ReplySink>(
    (head, form): (BinaryHead, Form),
    key: &[u8],
    answer: &Answer<'_>,
    sink: &mut S,
) {
    let version = answer.metadata.version;
    if let (Outcome::Hit, Form::Read { with_key, with_value }) = (answer.outcome, form) {
        let extras = &answer.metadata.client_flags.to_be_bytes();
        let key = if with_key { key } else { &[] };
        let value = if with_value { answer.value } else { &[] };
        let body = BinaryBody { extras, key, value };
        return reply::put(sink, head, BinaryStatus::Ok, version, &body);
    }
    let out = sink.bytes();
    match (answer.outcome, form) {
        (Outcome::Miss, Form::Read { .. }) if head.is_quiet => {}
        (Outcome::Miss, Form::Read { with_key: true, .. }) => {
            let body = BinaryBody { key, ..BinaryBody::default() };
            reply::put(out, head, BinaryStatus::NotFound, 0, &body);
        }
        (Outcome::Stored, _) => reply::put_done(out, head, version),
        (Outcome::Deleted | Outcome::Hit, _) => reply::put_done(out, head, 0),
        (Outcome::Number(_), _) if head.is_quiet => {}
        (Outcome::Number(number), _) => {
            let body = BinaryBody { value: &number.to_be_bytes(), ..BinaryBody::default() };
            reply::put(out, head, BinaryStatus::Ok, version, &body);
        }
        (Outcome::Miss | Outcome::NotFound, _) => put_status(out, head, BinaryStatus::NotFound),
        (Outcome::Exists | Outcome::ValueDiffers, _) => put_status(out, head, BinaryStatus::Exists),
        (Outcome::NotNumeric, _) => put_status(out, head, BinaryStatus::NotNumeric),
        (Outcome::Large, _) => {
            reply::put_error(out, head, BinaryStatus::TooLarge, without_prefix(LARGE));
        }
        (Outcome::TooLarge, Form::Store(verb))
            if !matches!(verb, StoreVerb::Append | StoreVerb::Prepend) =>
        {
            put_status(out, head, BinaryStatus::TooLarge);
        }
        (Outcome::NotStored | Outcome::TooLarge, Form::Store(verb)) => {
            put_status(out, head, not_stored(verb));
        }
        (Outcome::NotStored | Outcome::TooLarge, _) => {
            put_status(out, head, BinaryStatus::NotStored);
        }
    }
}

/// What a store is told whose verb did not allow it.
fn not_stored(verb: StoreVerb) -> BinaryStatus {
    match verb {
        StoreVerb::Add => BinaryStatus::Exists,
        StoreVerb::Replace => BinaryStatus::NotFound,
        StoreVerb::Set | StoreVerb::Append | StoreVerb::Prepend | StoreVerb::Cas => {
            BinaryStatus::NotStored
        }
    }
}

fn put_status(out: &mut Vec<u8>, head: BinaryHead, status: BinaryStatus) {
    reply::put_error(out, head, status, status.text());
}

/// A text of the other protocol, which begins with what a status says here.
fn without_prefix(text: &'static str) -> &'static str {
    text.strip_prefix("SERVER_ERROR ").unwrap_or(text)
}

/// What one shard is to do for `request`.
fn operation<'a>(request: &BinaryRequest<'a>, now: u32) -> (Operation<'a>, Kind) {
    match *request {
        BinaryRequest::Read(BinaryRead { with_value, new_exptime, .. }) => {
            let expiry = new_exptime.map(|exptime| expiry(exptime, now));
            let read = Read { value: with_value, expiry, ..Read::default() };
            let touches = expiry.is_some();
            (Operation::Read(read), if with_value { Kind::Get { touches } } else { Kind::Touch })
        }
        BinaryRequest::Store(BinaryStore { verb, client_flags, exptime, value, cas, .. }) => {
            // A store that compares stores in any case but that of another CAS id.
            let mode = match verb {
                StoreVerb::Add | StoreVerb::Replace if cas.is_some() => StoreVerb::Set,
                verb => verb,
            };
            let store = operation::Store {
                mode: self::mode(mode),
                value,
                client_flags,
                expiry: expiry(exptime, now),
                compare: cas,
                invalidate: false,
                is_large: false,
                vivify: None,
                version: None,
            };
            let kind = if cas.is_some() { Kind::CompareAndStore } else { Kind::Store };
            (Operation::Store(store), kind)
        }
        BinaryRequest::Arithmetic(BinaryArithmetic { direction, delta, initial, cas, .. }) => {
            let decrement = direction == Direction::Decrement;
            let arithmetic = operation::Arithmetic {
                delta,
                decrement,
                compare: cas,
                vivify: initial.map(|(initial, exptime)| (initial, expiry(exptime, now))),
                expiry: None,
                version: None,
            };
            let kind = if decrement { Kind::Decrement } else { Kind::Increment };
            (Operation::Arithmetic(arithmetic), kind)
        }
        BinaryRequest::Delete(delete) => {
            let delete = operation::Delete { compare: delete.cas, ..operation::Delete::default() };
            (Operation::Delete(delete), Kind::Delete)
        }
        ref other => panic!("{other:?} has no key"),
    }
}

impl Codec for MemcachedBinary {
    const ORDER: Order = Order::AsAsked;

    type Message<'a> = BinaryStep<'a>;
    type Mark = BinaryParser;
    type Room = ();
    type Token = BinaryToken;

    #[inline]
    fn mark(&self) -> BinaryParser {
        self.parser.clone()
    }

    fn rewind(&mut self, mark: &BinaryParser) {
        self.parser = mark.clone();
    }

    #[inline]
    fn cut<'a>(&mut self, input: &'a [u8]) -> BinaryStep<'a> {
        self.parser.next(&self.limits, input)
    }

    #[inline]
    fn extent(step: &BinaryStep<'_>) -> Extent {
        let consumed = step.consumed;
        match step.parsed {
            BinaryParsed::NeedMore { bytes } => Extent::Part { consumed, needed: bytes },
            BinaryParsed::Close => Extent::Close,
            BinaryParsed::Request(..) | BinaryParsed::Refused(_) => Extent::Whole { consumed },
        }
    }

    #[inline]
    fn is_last(step: &BinaryStep<'_>) -> bool {
        match step.parsed {
            BinaryParsed::Request(_, BinaryRequest::Quit) => true,
            BinaryParsed::Refused(refusal) => refusal.is_last,
            _ => false,
        }
    }

    #[inline]
    fn key<'s>(step: &'s BinaryStep<'_>, _: &'s mut ()) -> Option<Key<'s>> {
        key_of(&step.parsed).map(Key::memcached)
    }

    #[inline]
    fn meaning<'s>(
        &self,
        step: &'s BinaryStep<'_>,
        _: &'s mut (),
        (_, now): (u64, Moment),
    ) -> Meaning<'s> {
        let (operation, kind, replaces) = match &step.parsed {
            BinaryParsed::Refused(refusal) if refusal.is_last => return Meaning::Close,
            BinaryParsed::Refused(BinaryRefusal { drop_key: Some(_), .. }) => {
                (Operation::Delete(operation::Delete::default()), Kind::TooLarge, false)
            }
            BinaryParsed::Request(_, BinaryRequest::Quit) => return Meaning::Close,
            BinaryParsed::Request(_, BinaryRequest::Flush { delay })
                if self.facts.flush_enabled =>
            {
                let at = flush_time(Some(i64::from(*delay)), now.second);
                return Meaning::Node(NodeRequest::Clear(at));
            }
            BinaryParsed::Request(_, BinaryRequest::Statistics { section }) => {
                return Meaning::Node(Section::from_arguments(section).request());
            }
            BinaryParsed::Request(_, BinaryRequest::Verbosity { level }) => {
                return Meaning::Node(NodeRequest::LogLevel(*level));
            }
            BinaryParsed::Request(_, request) if request.key().is_some() => {
                let (operation, kind) = operation(request, now.second);
                let is_set = matches!(
                    request,
                    BinaryRequest::Store(BinaryStore { verb: StoreVerb::Set, .. })
                );
                (operation, kind, is_set)
            }
            _ => return Meaning::Constant,
        };
        let key = key_of(&step.parsed).expect("all that is left has a key");
        let asked = (Key::memcached(key), now.second);
        Meaning::Keyed(request_of(&self.namespaces, asked, (operation, kind), replaces))
    }

    #[inline]
    fn grouping(_: &BinaryStep<'_>) -> Grouping {
        Grouping::Alone
    }

    fn put_constant(&self, step: &BinaryStep<'_>, out: &mut Vec<u8>) {
        match step.parsed {
            BinaryParsed::Refused(refusal) => put_status(out, refusal.head, refusal.status),
            BinaryParsed::Request(head, BinaryRequest::Version) => {
                let value = MEMCACHED_VERSION.as_bytes();
                let body = BinaryBody { value, ..BinaryBody::default() };
                reply::put(out, head, BinaryStatus::Ok, 0, &body);
            }
            BinaryParsed::Request(head, BinaryRequest::Flush { .. }) => {
                put_status(out, head, BinaryStatus::Denied);
            }
            BinaryParsed::Request(head, _) => reply::put_done(out, head, 0),
            BinaryParsed::NeedMore { .. } | BinaryParsed::Close => {}
        }
    }

    #[inline]
    fn put(
        &self,
        step: &BinaryStep<'_>,
        answer: Result<&Answer<'_>, NoAnswer>,
        _: u32,
        out: &mut Vec<u8>,
    ) {
        put(form(&step.parsed), key_of(&step.parsed).unwrap_or_default(), answer, out);
    }

    fn token(&self, step: &BinaryStep<'_>) -> BinaryToken {
        let (head, form) = form(&step.parsed);
        let key = match form {
            Form::Read { with_key: true, .. } => key_of(&step.parsed).unwrap_or_default(),
            _ => &[],
        };
        BinaryToken { head, form, key: key.into() }
    }

    fn token_bytes(token: &BinaryToken) -> usize {
        token.key.len()
    }

    fn put_waited<S: ReplySink>(
        &self,
        token: &BinaryToken,
        answer: Result<&Answer<'_>, NoAnswer>,
        _: (u32, u8),
        out: &mut S,
    ) {
        put((token.head, token.form), &token.key, answer, out);
    }

    fn put_node(&self, token: &BinaryToken, answer: &NodeAnswer, out: &mut Vec<u8>) {
        let lines = match (answer, token.form) {
            (NodeAnswer::Reports(reports, now), Form::Statistics(section)) => {
                statistics::lines(section, &self.facts, reports, u64::from(*now))
            }
            (NodeAnswer::Connections(connections), _) => {
                Some(statistics::connections(&self.facts, connections))
            }
            _ => return reply::put_done(out, token.head, 0),
        };
        let Some(lines) = lines else {
            return put_status(out, token.head, BinaryStatus::NotFound);
        };
        for (name, value) in &lines {
            let (key, value) = (name.as_bytes(), value.as_bytes());
            let body = BinaryBody { extras: &[], key, value };
            reply::put(out, token.head, BinaryStatus::Ok, 0, &body);
        }
        // What has neither key nor value ends the answer.
        reply::put_done(out, token.head, 0);
    }

    fn put_stopped(&self, reply: &[u8], out: &mut Vec<u8>) {
        let head = reply::head_of(reply);
        reply::put_error(out, head, BinaryStatus::Internal, without_prefix(STOPPED));
    }

    fn put_turned_away(&self, out: &mut Vec<u8>) {
        let text = error::TOO_MANY_CONNECTIONS;
        let text = text.strip_prefix("ERROR ").unwrap_or(text);
        reply::put_error(out, NOBODY, BinaryStatus::Busy, text);
    }

    fn put_shed(&self, out: &mut Vec<u8>) {
        let text = without_prefix(error::OUT_OF_MEMORY_REQUEST);
        reply::put_error(out, NOBODY, BinaryStatus::OutOfMemory, text);
    }
}
