//! What happens on the node, in the words of no protocol, for those who watch.

use std::net::SocketAddr;
use std::sync::Arc;

use larder_engine::operation::Outcome;

/// A set of kinds of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventKinds(u8);

impl EventKinds {
    /// None.
    pub const NONE: Self = Self(0);
    /// Items that are read, or whose number or expiry is changed.
    pub const READS: Self = Self(1);
    /// Values that are stored.
    pub const STORES: Self = Self(2);
    /// Items that are deleted.
    pub const DELETES: Self = Self(4);
    /// Connections that begin and end.
    pub const CONNECTIONS: Self = Self(8);

    /// These and those.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of `other` is among them.
    #[inline]
    pub fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// How a value was to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredBy {
    /// In any case.
    Set,
    /// Only if there is no item.
    Add,
    /// Only if there is one.
    Replace,
    /// Behind the item's value.
    Append,
    /// Before it.
    Prepend,
    /// Only in place of one version.
    Compare,
}

/// Why a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its client or its protocol has ended it.
    Normal,
    /// It was silent for too long.
    Idle,
    /// It held too much memory, or its client did not read.
    Shed,
    /// The node stops.
    Shutdown,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A key was looked up.
    Read {
        /// The key.
        key: Arc<[u8]>,
        /// Whether there was an item.
        is_found: bool,
        /// How long its value is, in bytes.
        value_bytes: usize,
    },
    /// A value was stored, or was not.
    Stored {
        /// The key.
        key: Arc<[u8]>,
        /// How.
        by: StoredBy,
        /// What became of it; `None` for want of space.
        outcome: Option<Outcome>,
        /// Seconds that the item may live; 0 for ever.
        seconds: u32,
        /// How long the value is, in bytes.
        value_bytes: usize,
    },
    /// An item was deleted.
    Deleted {
        /// The key.
        key: Arc<[u8]>,
    },
    /// A connection has begun. One that has no peer came by a path.
    Began(Option<SocketAddr>),
    /// It has ended.
    Ended(Option<SocketAddr>, Ending),
}

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEvent {
    /// When, in microseconds since the Unix epoch.
    pub microseconds: u64,
    /// Its number among all events of the node.
    pub number: u64,
    /// The number of the connection that it is of.
    pub connection: u64,
    /// What.
    pub what: Happening,
}

impl NodeEvent {
    /// The kind that it is of.
    pub fn kind(&self) -> EventKinds {
        match self.what {
            Happening::Read { .. } => EventKinds::READS,
            Happening::Stored { .. } => EventKinds::STORES,
            Happening::Deleted { .. } => EventKinds::DELETES,
            Happening::Began(_) | Happening::Ended(..) => EventKinds::CONNECTIONS,
        }
    }
}

/// How the listeners and connections of all cores are numbered: none has the number of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbering {
    /// Cores of the node.
    pub cores: usize,
    /// Listeners of each.
    pub listeners: usize,
}

impl Numbering {
    /// The number of a core's listener.
    pub fn listener(&self, core: usize, index: usize) -> u64 {
        (index * self.cores + core) as u64
    }

    /// The number of a connection that its core knows by `id`.
    pub fn connection(&self, core: usize, id: u64) -> u64 {
        let index = (id & u64::from(u32::MAX)) + self.listeners as u64;
        index * self.cores as u64 + core as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_once() {
        let numbering = Numbering { cores: 3, listeners: 2 };
        let mut all = Vec::new();
        for core in 0..3 {
            all.extend((0..2).map(|index| numbering.listener(core, index)));
            all.extend((0..5).map(|id| numbering.connection(core, (7 << 32) + id)));
        }
        all.sort_unstable();
        assert_eq!(all, (0..21).collect::<Vec<_>>());
    }
}
