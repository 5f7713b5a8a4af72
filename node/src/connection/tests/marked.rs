//! A codec for tests, whose answers show what was asked.

use std::cell::Cell;

use larder_engine::key::Key;
use larder_engine::shard::Answer;
use larder_protocol::memcached::Step;
use larder_protocol::sink::ReplySink;

use crate::codec::{Codec, Extent, Grouping, Meaning, Order};
use crate::memcached::Memcached;
use crate::memcached::answer::DAMAGED;
use crate::memcached::command::Command;
use crate::request::{Moment, NoAnswer, NodeAnswer};

/// memcached's protocol, but for the answers: they show the key, or the value if there is one. Its
/// replies leave as they are done if `IS_LOOSE`. It remembers when the last message was received.
pub(super) struct Marked<const IS_LOOSE: bool>(pub Memcached, pub Cell<u64>);

/// The key and whether the client wants no answer.
type Kept = (String, bool);

fn kept(step: &Step<'_>) -> Kept {
    let command = Command::of(&step.parsed);
    let mut scratch = Default::default();
    let key = if command.is_keyed() { command.key(&mut scratch) } else { b"node" };
    (String::from_utf8(key.to_vec()).expect("text"), command.is_noreply())
}

fn put_marked<S: ReplySink>(
    (key, is_noreply): &Kept,
    answer: Result<&Answer<'_>, NoAnswer>,
    out: &mut S,
) {
    match answer {
        _ if *is_noreply => {}
        Ok(answer) if !answer.value.is_empty() => out.put_value(answer.value),
        Ok(_) => out.bytes().extend_from_slice(format!("<{key}>").as_bytes()),
        Err(_) => out.bytes().extend_from_slice(format!("{DAMAGED}\r\n").as_bytes()),
    }
}

impl<const IS_LOOSE: bool> Codec for Marked<IS_LOOSE> {
    const ORDER: Order = if IS_LOOSE { Order::AsDone } else { Order::AsAsked };

    type Message<'a> = Step<'a>;
    type Mark = <Memcached as Codec>::Mark;
    type Room = <Memcached as Codec>::Room;
    type Token = Kept;

    fn mark(&self) -> Self::Mark {
        self.0.mark()
    }

    fn rewind(&mut self, mark: &Self::Mark) {
        self.0.rewind(mark);
    }

    fn cut<'a>(&mut self, input: &'a [u8]) -> Step<'a> {
        self.0.cut(input)
    }

    fn extent(message: &Step<'_>) -> Extent {
        Memcached::extent(message)
    }

    fn is_last(message: &Step<'_>) -> bool {
        Memcached::is_last(message)
    }

    fn key<'s>(message: &'s Step<'_>, room: &'s mut Self::Room) -> Option<Key<'s>> {
        Memcached::key(message, room)
    }

    fn meaning<'s>(
        &self,
        message: &'s Step<'_>,
        room: &'s mut Self::Room,
        now: (u64, Moment),
    ) -> Meaning<'s> {
        self.1.set(now.0);
        self.0.meaning(message, room, now)
    }

    fn grouping(message: &Step<'_>) -> Grouping {
        Memcached::grouping(message)
    }

    fn put_constant(&self, message: &Step<'_>, out: &mut Vec<u8>) {
        self.0.put_constant(message, out);
    }

    fn put(
        &self,
        message: &Step<'_>,
        answer: Result<&Answer<'_>, NoAnswer>,
        _: u32,
        out: &mut Vec<u8>,
    ) {
        put_marked(&kept(message), answer, out);
    }

    fn token(&self, message: &Step<'_>) -> Kept {
        kept(message)
    }

    fn token_bytes(token: &Kept) -> usize {
        token.0.capacity()
    }

    fn put_waited<S: ReplySink>(
        &self,
        token: &Kept,
        answer: Result<&Answer<'_>, NoAnswer>,
        _: (u32, u8),
        out: &mut S,
    ) {
        put_marked(token, answer, out);
    }

    fn put_node(&self, _: &Kept, _: &NodeAnswer, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<node>");
    }

    fn put_stopped(&self, reply: &[u8], out: &mut Vec<u8>) {
        self.0.put_stopped(reply, out);
    }

    fn put_turned_away(&self, out: &mut Vec<u8>) {
        self.0.put_turned_away(out);
    }

    fn put_shed(&self, out: &mut Vec<u8>) {
        self.0.put_shed(out);
    }
}
