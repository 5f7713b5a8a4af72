//! The memcached port: requests to operations, answers to bytes. No I/O and no storage.

pub mod answer;
pub mod binary;
pub mod command;
mod dump;
pub mod gate;
mod log;
pub mod statistics;
pub mod token;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use larder_engine::key::Key;
use larder_engine::operation::Operation;
use larder_engine::shard::Answer;
use larder_protocol::memcached::reply::{self, END};
use larder_protocol::memcached::{
    DetailMode, Dump, DumpForm, KeyScratch, Limits, Parsed, Parser, Request, ShutdownMode, Step,
    error,
};
use larder_protocol::sink::ReplySink;

use crate::codec::{Codec, Extent, Grouping, Meaning, Order};
use crate::counters::Kind;
use crate::events::NodeEvent;
use crate::facts::Facts;
use crate::namespaces::NamespaceView;
use crate::namespaces::rules::{acknowledgement, with_lifetimes};
use crate::process::MEMCACHED_VERSION;
use crate::request::{
    ItemRequest, Moment, NoAnswer, NodeAnswer, NodeRequest, ShardAnswer, ShardRequest,
};
use command::{Command, flush_time};
use dump::Dumping;
use statistics::Section;
use token::Token;

/// What a client may send.
fn limits(facts: &Facts) -> Limits {
    let item_bytes_max = usize::try_from(facts.item_bytes_max).unwrap_or(usize::MAX);
    Limits { item_bytes_max, ..Limits::default() }
}

/// What one shard is to do for an operation on `key` at Unix second `now`, as the rules of the
/// default namespace have it.
#[inline]
fn request_of<'a>(
    namespaces: &NamespaceView,
    (key, now): (Key<'a>, u32),
    (operation, kind): (Operation<'a>, Kind),
    replaces: bool,
) -> ItemRequest<'a> {
    let rules = namespaces.default_rules();
    let only_reads =
        matches!(operation, Operation::Read(read) if read.value || read.expiry.is_none());
    ItemRequest {
        key,
        operation: with_lifetimes(operation, rules, (&key, now)),
        kind,
        deadline: None,
        acknowledgement: acknowledgement(rules, only_reads),
        replaces,
    }
}

/// memcached's text and meta protocols, as one connection has them.
#[derive(Clone, Debug)]
pub struct Memcached {
    parser: Parser,
    limits: Limits,
    facts: Arc<Facts>,
    namespaces: NamespaceView,
    /// Whether the client may use the port.
    is_known: bool,
}

impl Memcached {
    /// For a connection that begins.
    pub fn new(facts: &Arc<Facts>, namespaces: &NamespaceView) -> Self {
        let (parser, limits, is_known) = (Parser::new(), limits(facts), facts.gate.is_none());
        let (facts, namespaces) = (Arc::clone(facts), namespaces.clone());
        Self { parser, limits, facts, namespaces, is_known }
    }

    /// Cuts a message of a client that has given no password yet.
    #[cold]
    fn cut_unknown<'a>(&mut self, input: &'a [u8]) -> Step<'a> {
        let facts = Arc::clone(&self.facts);
        let gate = facts.gate.as_ref().expect("who is not known stands before a gate");
        let step = self.parser.next(&gate.limits(&self.limits), input);
        let (step, is_known) = gate.judge(step);
        self.is_known = is_known;
        step
    }

    /// Answers where nothing is listed.
    fn put_no_dump(&self, dump: &Dump, out: &mut Vec<u8>) {
        if self.facts.dump_enabled {
            return dump::put_nothing(dump.form, out);
        }
        let text = match dump.form {
            DumpForm::Metadata => error::DUMP_NOT_ALLOWED,
            DumpForm::Keys => error::KEY_DUMP_NOT_ALLOWED,
            DumpForm::Cache { .. } => error::CACHE_DUMP_NOT_ALLOWED,
        };
        reply::line(out, text);
    }

    /// What a request without a key means.
    fn unkeyed(&self, request: &Request<'_>, now: u32) -> Meaning<'static> {
        let facts = &self.facts;
        match request {
            Request::Quit => Meaning::Close,
            Request::FlushAll { delay, .. } if facts.flush_enabled => {
                Meaning::Node(NodeRequest::Clear(flush_time(delay.map(i64::from), now)))
            }
            Request::Stats { arguments } => {
                Meaning::Node(Section::from_arguments(arguments).request())
            }
            Request::Detail(mode) => Meaning::Node(match mode {
                DetailMode::On => NodeRequest::CountPrefixes(true),
                DetailMode::Off => NodeRequest::CountPrefixes(false),
                DetailMode::Dump => NodeRequest::Prefixes,
            }),
            Request::Dump(dump) if facts.dump_enabled && dump.has_items => {
                Meaning::Shard(Dumping::new(dump).request(None))
            }
            Request::Watch(streams) if facts.watch_enabled => {
                Meaning::Node(NodeRequest::Watch(log::kinds(*streams)))
            }
            Request::Verbosity { level, .. } => Meaning::Node(NodeRequest::LogLevel(*level)),
            Request::MemoryLimit { megabytes, .. } => {
                Meaning::Node(NodeRequest::LimitValues(u64::from(*megabytes) << 20))
            }
            Request::Shutdown(mode) if facts.shutdown_enabled && *mode != ShutdownMode::Unknown => {
                Meaning::Node(NodeRequest::Stop)
            }
            _ => Meaning::Constant,
        }
    }
}

impl Codec for Memcached {
    const ORDER: Order = Order::AsAsked;

    type Message<'a> = Step<'a>;
    type Mark = (Parser, bool);
    type Room = KeyScratch;
    type Token = Token;

    #[inline]
    fn mark(&self) -> (Parser, bool) {
        (self.parser.clone(), self.is_known)
    }

    fn rewind(&mut self, (parser, is_known): &(Parser, bool)) {
        self.parser = parser.clone();
        self.is_known = *is_known;
    }

    #[inline]
    fn cut<'a>(&mut self, input: &'a [u8]) -> Step<'a> {
        if !self.is_known {
            return self.cut_unknown(input);
        }
        self.parser.next(&self.limits, input)
    }

    #[inline]
    fn extent(step: &Step<'_>) -> Extent {
        let consumed = step.consumed;
        match step.parsed {
            Parsed::NeedMore { bytes } => Extent::Part { consumed, needed: bytes },
            Parsed::Close(_) => Extent::Close,
            Parsed::Request(_) | Parsed::Malformed(_) => Extent::Whole { consumed },
        }
    }

    #[inline]
    fn is_last(step: &Step<'_>) -> bool {
        matches!(step.parsed, Parsed::Request(Request::Quit))
    }

    #[inline]
    fn key<'s>(step: &'s Step<'_>, room: &'s mut KeyScratch) -> Option<Key<'s>> {
        let command = Command::of(&step.parsed);
        command.is_keyed().then(|| Key::memcached(command.key(room)))
    }

    #[inline]
    fn meaning<'s>(
        &self,
        step: &'s Step<'_>,
        room: &'s mut KeyScratch,
        (_, now): (u64, Moment),
    ) -> Meaning<'s> {
        let command = Command::of(&step.parsed);
        match command {
            Command::Line { .. } => Meaning::Constant,
            Command::Request(request) if !command.is_keyed() => self.unkeyed(request, now.second),
            Command::Request(_) | Command::Drop { .. } => {
                let key = Key::memcached(command.key(room));
                let asked = (command.operation(now.second), command.kind());
                let replaces = command.drops_old_item();
                Meaning::Keyed(request_of(&self.namespaces, (key, now.second), asked, replaces))
            }
        }
    }

    fn must_be_alone(step: &Step<'_>) -> bool {
        matches!(
            step.parsed,
            Parsed::Request(
                Request::Watch(_)
                    | Request::Dump(Dump { form: DumpForm::Metadata | DumpForm::Keys, .. })
            )
        )
    }

    fn put_not_alone(&self, step: &Step<'_>, out: &mut Vec<u8>) {
        let is_keys = |dump: &Dump| dump.form == DumpForm::Keys;
        let text = match step.parsed {
            Parsed::Request(Request::Watch(_)) => error::WATCH_NOT_FIRST,
            Parsed::Request(Request::Dump(dump)) if is_keys(&dump) => error::KEY_DUMP_NOT_FIRST,
            _ => error::METADUMP_NOT_FIRST,
        };
        reply::line(out, text);
    }

    #[inline]
    fn grouping(step: &Step<'_>) -> Grouping {
        match step.parsed {
            Parsed::Request(Request::Get(_)) => Grouping::Member,
            Parsed::Request(Request::GetEnd) | Parsed::Malformed(_) => Grouping::Last,
            _ => Grouping::Alone,
        }
    }

    fn put_constant(&self, step: &Step<'_>, out: &mut Vec<u8>) {
        match Command::of(&step.parsed) {
            Command::Request(Request::GetEnd) => out.extend_from_slice(END),
            Command::Request(Request::MetaNoop) => out.extend_from_slice(reply::META_NOOP),
            Command::Request(Request::Version) => reply::version(out, MEMCACHED_VERSION),
            Command::Request(Request::Tune { noreply: false }) => out.extend_from_slice(reply::OK),
            Command::Request(Request::Dump(dump)) => self.put_no_dump(dump, out),
            Command::Request(Request::Watch(_)) => reply::line(out, error::WATCH_NOT_ALLOWED),
            Command::Request(Request::FlushAll { noreply: false, .. }) => {
                reply::line(out, error::FLUSH_NOT_ALLOWED);
            }
            Command::Request(Request::Shutdown(_)) if self.facts.shutdown_enabled => {
                reply::line(out, error::BAD_SHUTDOWN_MODE);
            }
            Command::Request(Request::Shutdown(_)) => {
                reply::line(out, error::SHUTDOWN_NOT_ENABLED);
            }
            Command::Line { reply, is_suppressed: false } => reply::line(out, reply),
            _ => {}
        }
    }

    #[inline]
    fn put(
        &self,
        step: &Step<'_>,
        answer: Result<&Answer<'_>, NoAnswer>,
        now: u32,
        out: &mut Vec<u8>,
    ) {
        let command = Command::of(&step.parsed);
        match answer {
            Ok(answer) => answer::put(out, &command, command.value_bytes(), answer, now),
            Err(failure) => answer::put_failure(out, &command, failure),
        }
    }

    fn token(&self, step: &Step<'_>) -> Token {
        Token::new(&Command::of(&step.parsed))
    }

    fn token_bytes(token: &Token) -> usize {
        token.bytes()
    }

    fn put_waited<S: ReplySink>(
        &self,
        token: &Token,
        answer: Result<&Answer<'_>, NoAnswer>,
        (now, _): (u32, u8),
        out: &mut S,
    ) {
        let parsed = token.parsed();
        let command = Command::of(&parsed);
        match answer {
            Ok(answer) => answer::put(out, &command, token.value_bytes(), answer, now),
            Err(failure) => answer::put_failure(out.bytes(), &command, failure),
        }
    }

    fn put_shard(
        &self,
        token: &mut Token,
        answer: &ShardAnswer,
        (now, _): (u32, u8),
        out: &mut Vec<u8>,
    ) -> Option<Arc<ShardRequest>> {
        match answer {
            ShardAnswer::Page(page, _) => token.dumping().put(page, self.facts.shards, now, out),
            ShardAnswer::Keyed(..)
            | ShardAnswer::Batch(_)
            | ShardAnswer::Deleted
            | ShardAnswer::Large(_)
            | ShardAnswer::Leased(_)
            | ShardAnswer::LeaseEnded => {
                panic!("{answer:?} is no answer to {token:?}")
            }
        }
    }

    fn put_node(&self, token: &Token, answer: &NodeAnswer, out: &mut Vec<u8>) {
        match answer {
            NodeAnswer::Connections(connections) => {
                let lines = statistics::connections(&self.facts, connections);
                lines.iter().for_each(|(name, value)| reply::stat(out, name, value));
                out.extend_from_slice(END);
            }
            NodeAnswer::Prefixes(prefixes) => statistics::put_prefixes(prefixes, out),
            NodeAnswer::Done if Command::of(&token.parsed()).is_noreply() => {}
            NodeAnswer::Done => out.extend_from_slice(reply::OK),
            NodeAnswer::TooManyWatchers => reply::line(out, error::TOO_MANY_WATCHERS),
            NodeAnswer::Cleared if Command::of(&token.parsed()).is_noreply() => {}
            NodeAnswer::Cleared => out.extend_from_slice(reply::OK),
            NodeAnswer::Reports(reports, now) => {
                let now = u64::from(*now);
                statistics::put(out, token.section(), &self.facts, reports, now);
            }
            NodeAnswer::Stopping => {}
            NodeAnswer::Namespace(_) => panic!("this protocol asks for no namespace: {answer:?}"),
        }
    }

    fn put_event(&self, event: &NodeEvent, out: &mut Vec<u8>) {
        log::put(event, out);
    }

    fn put_skipped(&self, events: u64, out: &mut Vec<u8>) {
        reply::log_skipped(out, events);
    }

    fn put_stopped(&self, reply: &[u8], out: &mut Vec<u8>) {
        if !reply.is_empty() {
            reply::line(out, answer::STOPPED);
        }
    }

    fn put_turned_away(&self, out: &mut Vec<u8>) {
        reply::line(out, error::TOO_MANY_CONNECTIONS);
    }

    fn put_shed(&self, out: &mut Vec<u8>) {
        reply::line(out, error::OUT_OF_MEMORY_REQUEST);
    }
}
