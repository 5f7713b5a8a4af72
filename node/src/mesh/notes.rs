//! What cores ask of each other and tell each other that is no client's request.

use std::sync::Arc;

use super::Place;
use crate::counters::{ConnectionReport, CoreReport};
use crate::events::{EventKinds, NodeEvent};
use crate::limits::EVENT_BYTES;
use crate::namespaces::{NamespaceChanged, NamespaceRequest, NamespaceTable};
use crate::prefixes::PrefixCounts;
use crate::request::{NoAnswer, prefix_memory};

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
    pub(super) fn memory(&self) -> usize {
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
