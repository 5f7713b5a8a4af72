//! What took most of what a turn did: asked for when the turn was so long that others had to wait.
//!
//! No clock is read for it. By bytes and requests, as connections are charged for them, it is known
//! who had most done for them; that this also took most of the time is likely, not certain.

use std::fmt;

use crate::counters::Kind;
use crate::limits::TURN_REQUEST_BYTES;
use crate::request::ShardWork;

/// What a request asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AskedFor {
    /// A part of a request, or to take a reply.
    #[default]
    Nothing,
    /// An operation on one item.
    Item(Kind),
    /// Items in order.
    Page,
    /// Items by a list of keys.
    Keyed,
    /// Several changes at once.
    Batch,
    /// A range of items is to go.
    DeleteRange,
    /// A lease's begin or end.
    Lease,
    /// A step of a large value.
    Large,
    /// Something that the whole node is asked.
    Node,
}

impl AskedFor {
    /// What work that is not about one item is.
    pub(super) fn of(work: &ShardWork) -> Self {
        match work {
            ShardWork::Page(_) => Self::Page,
            ShardWork::Keyed(_) => Self::Keyed,
            ShardWork::Batch(_) => Self::Batch,
            ShardWork::DeleteRange(..) => Self::DeleteRange,
            ShardWork::BeginLease(_) | ShardWork::EndLease(_) => Self::Lease,
            ShardWork::Large(_) => Self::Large,
        }
    }
}

/// For whom something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// A connection of this core, by the number that clients are told.
    Connection(u64),
    /// A connection of another core.
    Core(usize),
}

/// What took most of a turn so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heaviest {
    /// The request that was taken last.
    pub latest: AskedFor,
    found: Option<(Asker, AskedFor, u64)>,
    /// How many were served.
    served: u64,
}

impl Heaviest {
    /// A turn begins.
    pub(super) fn begin(&mut self) {
        *self = Self::default();
    }

    /// A connection of this core was served; `number` is asked for if that was the most so far.
    #[inline]
    pub(super) fn served(&mut self, requests: u64, bytes: usize, number: impl FnOnce() -> u64) {
        self.note(requests, bytes, || Asker::Connection(number()));
    }

    /// A request of another core was carried out, or begun.
    #[inline]
    pub(super) fn carried_out(&mut self, core: usize, bytes: usize) {
        self.note(1, bytes, || Asker::Core(core));
    }

    #[inline]
    fn note(&mut self, requests: u64, bytes: usize, asker: impl FnOnce() -> Asker) {
        self.served += 1;
        let cost = bytes as u64 + requests * TURN_REQUEST_BYTES;
        let latest = std::mem::take(&mut self.latest);
        if self.found.is_none_or(|(.., most)| cost > most) {
            self.found = Some((asker(), latest, cost));
        }
    }
}

impl fmt::Display for AskedFor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Nothing => "bytes in or out",
            Self::Page => "page",
            Self::Keyed => "items by their keys",
            Self::Batch => "batch",
            Self::DeleteRange => "delete range",
            Self::Lease => "lease",
            Self::Large => "large value",
            Self::Node => "a request to the whole node",
            Self::Item(Kind::Get { touches: false }) => "get",
            Self::Item(Kind::Get { touches: true }) => "get and touch",
            Self::Item(Kind::CompareAndStore) => "compare and store",
            Self::Item(Kind::Store | Kind::TooLarge) => "store",
            Self::Item(Kind::Delete) => "delete",
            Self::Item(Kind::Increment) => "increment",
            Self::Item(Kind::Decrement) => "decrement",
            Self::Item(Kind::Touch) => "touch",
            Self::Item(Kind::Other) => "change",
        })
    }
}

impl fmt::Display for Heaviest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let served = self.served;
        match self.found {
            None => formatter.write_str("the core's loop, with nobody served"),
            Some((Asker::Connection(number), asked, _)) => {
                write!(formatter, "connection {number}: {asked}, the most of {served} served")
            }
            Some((Asker::Core(core), asked, _)) => {
                write!(formatter, "a client of core {core}: {asked}, the most of {served} served")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_had_most_done_is_named_with_what_it_asked_for() {
        let mut heaviest = Heaviest::default();
        assert_eq!(heaviest.to_string(), "the core's loop, with nobody served");
        heaviest.latest = AskedFor::Item(Kind::Get { touches: false });
        heaviest.served(1, 1000, || 7);
        heaviest.latest = AskedFor::Item(Kind::Store);
        heaviest.served(16, 500_000, || 8);
        heaviest.served(1, 10, || panic!("it is not the most"));
        let text = "connection 8: store, the most of 3 served";
        assert_eq!(heaviest.to_string(), text);
        heaviest.latest = AskedFor::Page;
        heaviest.carried_out(3, 1 << 20);
        assert_eq!(heaviest.to_string(), "a client of core 3: page, the most of 4 served");
        heaviest.begin();
        heaviest.served(0, 1, || 9);
        let text = "connection 9: bytes in or out, the most of 1 served";
        assert_eq!(heaviest.to_string(), text);
    }
}
