//! A connection whose client says with its first byte which of two protocols it speaks.

use super::{
    After, Arrival, Connection, Conversation, Drive, Handler, Load, Output, SpareInputs, Stop,
};
use crate::codec::Codec;
use crate::events::NodeEvent;
use crate::request::{CarriedAnswer, NoAnswer};

/// A connection that speaks `P`, or `Q` if its first byte is the one that `Q` begins with.
#[derive(Debug)]
pub struct ByFirstByte<P: Codec, Q: Codec> {
    connection: Chosen<P, Q>,
    /// What is spoken after which byte, until the first byte has come.
    other: Option<(u8, Q)>,
}

#[derive(Debug)]
enum Chosen<P: Codec, Q: Codec> {
    Usual(Connection<P>),
    Other(Connection<Q>),
}

impl<P: Codec, Q: Codec> ByFirstByte<P, Q> {
    /// A connection that begins, and speaks `usual` unless its first byte is `byte`.
    pub fn new(usual: P, (byte, other): (u8, Q)) -> Self {
        Self { connection: Chosen::Usual(Connection::new(usual)), other: Some((byte, other)) }
    }

    /// Learns what has come. Only the first byte decides.
    fn choose(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first()
            && let Some((byte, other)) = self.other.take()
            && *first == byte
        {
            self.connection = Chosen::Other(Connection::new(other));
        }
    }
}

/// Does the same with whichever connection there is.
macro_rules! either {
    ($self:ident, $connection:ident => $body:expr) => {
        match &$self.connection {
            Chosen::Usual($connection) => $body,
            Chosen::Other($connection) => $body,
        }
    };
    (mut $self:ident, $connection:ident => $body:expr) => {
        match &mut $self.connection {
            Chosen::Usual($connection) => $body,
            Chosen::Other($connection) => $body,
        }
    };
}

impl<P: Codec, Q: Codec> Conversation for ByFirstByte<P, Q> {
    fn store(&mut self, bytes: &[u8], now: u64, spares: &mut SpareInputs) {
        self.choose(bytes);
        either!(mut self, connection => connection.store(bytes, now, spares));
    }

    fn complete(&mut self, sequence: u64, arrival: Arrival) {
        either!(mut self, connection => connection.complete(sequence, arrival));
    }

    fn complete_now(
        &mut self,
        sequence: u64,
        answer: Result<CarriedAnswer<'_>, NoAnswer>,
        core: usize,
        now: u32,
        output: &mut Output<'_>,
    ) -> bool {
        either!(mut self, connection => {
            connection.complete_now(sequence, answer, core, now, output)
        })
    }

    fn requests(&self) -> u64 {
        either!(self, connection => connection.requests())
    }

    fn input_len(&self) -> usize {
        either!(self, connection => connection.input_len())
    }

    fn is_answered(&self) -> bool {
        either!(self, connection => connection.is_answered())
    }

    fn waits_for_log(&self) -> bool {
        either!(self, connection => connection.waits_for_log())
    }

    fn has_parted(&self) -> bool {
        either!(self, connection => connection.has_parted())
    }

    fn next_after(&self) -> Option<After> {
        either!(self, connection => connection.next_after())
    }

    fn has_input(&self) -> bool {
        either!(self, connection => connection.has_input())
    }

    fn load(&self) -> Load {
        either!(self, connection => connection.load())
    }

    fn input_bytes(&self) -> usize {
        either!(self, connection => connection.input_bytes())
    }

    fn waiting_bytes(&self) -> usize {
        either!(self, connection => connection.waiting_bytes())
    }

    fn input_needed(&self) -> usize {
        either!(self, connection => connection.input_needed())
    }

    fn close(&mut self) {
        either!(mut self, connection => connection.close());
    }

    fn put_turned_away(&self, out: &mut Vec<u8>) {
        either!(self, connection => connection.put_turned_away(out));
    }

    fn put_shed(&self, out: &mut Vec<u8>) {
        either!(self, connection => connection.put_shed(out));
    }

    fn is_watching(&self) -> bool {
        either!(self, connection => connection.is_watching())
    }

    fn put_event(&self, event: &NodeEvent, out: &mut Vec<u8>) {
        either!(self, connection => connection.put_event(event, out));
    }

    fn put_skipped(&self, events: u64, out: &mut Vec<u8>) {
        either!(self, connection => connection.put_skipped(events, out));
    }
}

impl<P: Codec, Q: Codec, H: Handler> Drive<H> for ByFirstByte<P, Q> {
    fn receive(
        &mut self,
        bytes: &[u8],
        output: &mut Output<'_>,
        handler: &mut H,
        spares: &mut SpareInputs,
    ) -> Stop {
        self.choose(bytes);
        either!(mut self, connection => connection.receive(bytes, output, handler, spares))
    }

    fn resume(
        &mut self,
        output: &mut Output<'_>,
        handler: &mut H,
        spares: &mut SpareInputs,
    ) -> Stop {
        either!(mut self, connection => connection.resume(output, handler, spares))
    }
}
