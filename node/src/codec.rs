//! What a protocol is to a connection: one module that turns bytes into requests and answers into
//! bytes. Connections, messages between cores, shards and limits know none by name.

use std::fmt::Debug;
use std::sync::Arc;

use larder_engine::key::Key;
use larder_engine::shard::Answer;
use larder_protocol::sink::ReplySink;

use crate::events::NodeEvent;
use crate::request::{
    ItemRequest, Moment, NoAnswer, NodeAnswer, NodeRequest, ShardAnswer, ShardRequest,
};

/// In which order replies leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As their requests came.
    AsAsked,
    /// As they are done.
    AsDone,
}

/// How much of a message there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole {
        /// How many bytes of the input it took.
        consumed: usize,
    },
    /// A part.
    Part {
        /// How many bytes of it are done with.
        consumed: usize,
        /// How many there must be behind those before another try can say more.
        needed: usize,
    },
    /// Nothing that could be answered: the connection ends.
    Close,
}

/// What a message means.
#[derive(Clone, Debug)]
pub enum Meaning<'a> {
    /// The protocol answers it by itself.
    Constant,
    /// It is for the shard that owns a key.
    Keyed(ItemRequest<'a>),
    /// It is for one shard, and not about one item.
    Shard(Arc<ShardRequest>),
    /// It is for the shards that own several keys, and has one answer: see [`Codec::next_part`].
    Parts,
    /// It is for the whole node. It waits for the connection's earlier requests, and later
    /// ones wait for it.
    Node(NodeRequest),
    /// The protocol answers it by itself, perhaps with nothing, and the connection ends when it and
    /// what came before are answered.
    Close,
}

/// Whether a message is one of a group, of whose answer nothing more is sent after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// It is none.
    Alone,
    /// It is, or begins one.
    Member,
    /// It ends one.
    Last,
}

/// A protocol, as one connection has it.
pub trait Codec {
    /// In which order replies leave.
    const ORDER: Order;

    /// A message as it stands in the input, or what is there of it.
    type Message<'a>;
    /// How far the input is understood, so that a message can be cut again.
    type Mark;
    /// Room for keys that do not stand in the input as they are.
    type Room: Default;
    /// What is kept of a message whose answer is encoded later.
    type Token: Debug;

    /// Where the protocol stands.
    fn mark(&self) -> Self::Mark;

    /// Goes back to where it stood.
    fn rewind(&mut self, mark: &Self::Mark);

    /// Cuts the next message from the front of `input`, which is not empty.
    fn cut<'a>(&mut self, input: &'a [u8]) -> Self::Message<'a>;

    /// How much of the message there is. All other functions want whole ones.
    fn extent(message: &Self::Message<'_>) -> Extent;

    /// Whether nothing behind the message is to be looked at before it is carried out.
    fn is_last(message: &Self::Message<'_>) -> bool;

    /// The key of a message that means [`Meaning::Keyed`].
    fn key<'s>(message: &'s Self::Message<'_>, room: &'s mut Self::Room) -> Option<Key<'s>>;

    /// What the message means, by the nanosecond at which it was received, and now.
    fn meaning<'s>(
        &self,
        message: &'s Self::Message<'_>,
        room: &'s mut Self::Room,
        at: (u64, Moment),
    ) -> Meaning<'s>;

    /// The request at `cursor` of a message that means [`Meaning::Parts`], and was received at this
    /// nanosecond; `None` behind the last. The cursor begins as 0, and is moved to the next.
    fn next_part<'s>(
        &self,
        message: &'s Self::Message<'_>,
        _cursor: &mut usize,
        _asked: u64,
    ) -> Option<ItemRequest<'s>> {
        let _ = message;
        None
    }

    /// The token of the first part of such a message. What its parts bring is gathered in what all
    /// their tokens share.
    fn first_part(&self, message: &Self::Message<'_>) -> Self::Token {
        let _ = message;
        panic!("no message of this protocol has parts");
    }

    /// The token of another part of the same message.
    fn other_part(part: &Self::Token, _at: usize) -> Self::Token {
        panic!("no message of this protocol has parts: {part:?}");
    }

    /// Whether what is gathered has room for what a part brings. What has none need not be asked
    /// for.
    fn part_has_room(part: &Self::Token) -> bool {
        panic!("no message of this protocol has parts: {part:?}");
    }

    /// Whether values are gathered in what such a part belongs to.
    fn part_holds_values(part: &Self::Token) -> bool {
        panic!("no message of this protocol has parts: {part:?}");
    }

    /// Gathers the answer to a part; `None` if it was not asked for, for want of room.
    fn put_part(&self, part: &Self::Token, _answer: Option<Result<&Answer<'_>, NoAnswer>>) {
        panic!("no message of this protocol has parts: {part:?}");
    }

    /// Notes that what was gathered for a part may leave, or, if `is_lost`, never may. Appends the
    /// answer to the message if it was the last. A part that has waited is passed by
    /// [`Codec::put_waited`].
    fn pass_part(&self, part: &Self::Token, _is_lost: bool, _out: &mut Vec<u8>) {
        panic!("no message of this protocol has parts: {part:?}");
    }

    /// Bytes that are gathered for answers which are not complete.
    fn gathered_bytes(&self) -> usize {
        0
    }

    /// Whether a message that means [`Meaning::Shard`] or [`Meaning::Node`] is refused behind
    /// requests whose replies have not left.
    fn must_be_alone(_: &Self::Message<'_>) -> bool {
        false
    }

    /// Appends the answer to such a message.
    fn put_not_alone(&self, _: &Self::Message<'_>, _: &mut Vec<u8>) {
        panic!("no message of this protocol has to be alone");
    }

    /// Whether the message is one of a group.
    fn grouping(message: &Self::Message<'_>) -> Grouping;

    /// Appends the answer to a message that means [`Meaning::Constant`] or [`Meaning::Close`].
    fn put_constant(&self, message: &Self::Message<'_>, out: &mut Vec<u8>);

    /// Appends the answer to a message, at Unix second `now`.
    fn put(
        &self,
        message: &Self::Message<'_>,
        answer: Result<&Answer<'_>, NoAnswer>,
        now: u32,
        out: &mut Vec<u8>,
    );

    /// What has to be kept of the message.
    fn token(&self, message: &Self::Message<'_>) -> Self::Token;

    /// The memory that a token has besides its own size, in bytes.
    fn token_bytes(token: &Self::Token) -> usize;

    /// As [`Codec::put`], for a message that has waited. `at` has the Unix second, and how often
    /// the request has gone from one core to another.
    fn put_waited<S: ReplySink>(
        &self,
        token: &Self::Token,
        answer: Result<&Answer<'_>, NoAnswer>,
        at: (u32, u8),
        out: &mut S,
    );

    /// The same where a shard was asked for more than an item; returns what it is to be asked next,
    /// if more of the answer is to come. It is asked when the client has taken most of what is
    /// there. A protocol without such requests has no answers to them.
    fn put_shard(
        &self,
        token: &mut Self::Token,
        answer: &ShardAnswer,
        _at: (u32, u8),
        _out: &mut Vec<u8>,
    ) -> Option<Arc<ShardRequest>> {
        panic!("nothing of this protocol asks for {answer:?}: {token:?}");
    }

    /// The same where the whole node was asked.
    fn put_node(&self, token: &Self::Token, answer: &NodeAnswer, out: &mut Vec<u8>);

    /// Appends what a client that watches is told of an event.
    fn put_event(&self, event: &NodeEvent, _: &mut Vec<u8>) {
        panic!("nobody watches with this protocol: {event:?}");
    }

    /// Appends what it is told where so many events were skipped.
    fn put_skipped(&self, events: u64, _: &mut Vec<u8>) {
        panic!("nobody watches with this protocol: {events} events");
    }

    /// Appends what says that `reply`, which is not sent, must never leave because its shard has
    /// stopped.
    fn put_stopped(&self, reply: &[u8], out: &mut Vec<u8>);

    /// Appends what a client is told that comes when there are too many.
    fn put_turned_away(&self, out: &mut Vec<u8>);

    /// Appends what a client is told whose connection is closed because it holds too much memory.
    fn put_shed(&self, out: &mut Vec<u8>);
}
