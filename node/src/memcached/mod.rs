//! The memcached port: requests to operations, answers to bytes. No I/O and no storage.

pub mod answer;
pub mod binary;
pub mod command;
pub mod gate;
pub mod statistics;
pub mod token;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use larder_engine::key::Key;
use larder_engine::shard::{Acknowledgement, Answer};
use larder_protocol::memcached::reply::{self, END};
use larder_protocol::memcached::{
    KeyScratch, Limits, Parsed, Parser, Request, ShutdownMode, Step, error,
};

use crate::codec::{Codec, Extent, Grouping, Meaning, Order};
use crate::facts::Facts;
use crate::process::MEMCACHED_VERSION;
use crate::request::{ItemRequest, Moment, NoAnswer, NodeAnswer, NodeRequest};
use command::{Command, flush_time};
use statistics::Section;
use token::Token;

/// What a client may send.
fn limits(facts: &Facts) -> Limits {
    let item_bytes_max = usize::try_from(facts.item_bytes_max).unwrap_or(usize::MAX);
    Limits { item_bytes_max, ..Limits::default() }
}

/// memcached's text and meta protocols, as one connection has them.
#[derive(Clone, Debug)]
pub struct Memcached {
    parser: Parser,
    limits: Limits,
    facts: Arc<Facts>,
    /// Whether the client may use the port.
    is_known: bool,
}

impl Memcached {
    /// For a connection that begins.
    pub fn new(facts: &Arc<Facts>) -> Self {
        let (parser, limits, is_known) = (Parser::new(), limits(facts), facts.gate.is_none());
        Self { parser, limits, facts: Arc::clone(facts), is_known }
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

    /// What a request that no shard carries out means.
    fn unkeyed(&self, request: &Request<'_>, now: u32) -> Meaning<'static> {
        let facts = &self.facts;
        match request {
            Request::Quit => Meaning::Close,
            Request::FlushAll { delay, .. } if facts.flush_enabled => {
                Meaning::Node(NodeRequest::Clear(flush_time(delay.map(i64::from), now)))
            }
            Request::Stats { arguments } => {
                let reset = Section::from_arguments(arguments) == Section::Reset;
                Meaning::Node(NodeRequest::Reports { reset })
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
            Command::Request(_) | Command::Drop { .. } => Meaning::Keyed(ItemRequest {
                key: Key::memcached(command.key(room)),
                operation: command.operation(now.second),
                kind: command.kind(),
                deadline: None,
                acknowledgement: Acknowledgement::Configured,
                replaces: command.drops_old_item(),
            }),
        }
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
            Command::Request(
                Request::Verbosity { noreply: false } | Request::Tune { noreply: false },
            ) => {
                out.extend_from_slice(reply::OK);
            }
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

    fn put_waited(
        &self,
        token: &Token,
        answer: Result<&Answer<'_>, NoAnswer>,
        (now, _): (u32, u8),
        out: &mut Vec<u8>,
    ) {
        let parsed = token.parsed();
        let command = Command::of(&parsed);
        match answer {
            Ok(answer) => answer::put(out, &command, token.value_bytes(), answer, now),
            Err(failure) => answer::put_failure(out, &command, failure),
        }
    }

    fn put_node(&self, token: &Token, answer: &NodeAnswer, out: &mut Vec<u8>) {
        match answer {
            NodeAnswer::Cleared if Command::of(&token.parsed()).is_noreply() => {}
            NodeAnswer::Cleared => out.extend_from_slice(reply::OK),
            NodeAnswer::Reports(reports, now) => {
                let now = u64::from(*now);
                statistics::put(out, token.section(), &self.facts, reports, now);
            }
            NodeAnswer::Stopping => {}
        }
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
