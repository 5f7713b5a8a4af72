//! A core's connections, found by the number that the network gives them.

use std::net::SocketAddr;

use larder_runtime::core_env::CoreEnv;
use larder_runtime::network::ConnectionId;

use super::dispatch::Dispatch;
use super::shares::Part;
use super::turns::Mark;
use crate::canary::{self, NodeDefect};
use crate::connection::{Drive, Load};
use crate::events::Ending;
use crate::ledger::Holding;

/// A connection of this core, whatever its protocol.
pub(super) type Client<C> = Box<dyn for<'a> Drive<Dispatch<'a, C>>>;

/// A connection and what the service knows of it.
pub(super) struct Entry<C: CoreEnv> {
    pub id: ConnectionId,
    pub connection: Client<C>,
    /// Who is at the other end; `None` if it came by a path.
    pub peer: Option<SocketAddr>,
    /// The listener that has accepted it.
    pub listener: usize,
    /// Why it ends, if it is ended from here.
    pub ending: Ending,
    /// Whether the socket is not read from.
    pub is_paused: bool,
    /// Whether the peer will send no more.
    pub has_ended: bool,
    /// Whether it is on the list of connections to look at.
    pub is_queued: bool,
    /// Whether it is on the list of those that wait for a log.
    pub awaits_log: bool,
    /// Whether it is in a row of those that were refused something.
    pub is_refused: bool,
    /// The tick in which it was last heard of.
    pub active_at: u64,
    /// Since when its output is above the mark and does not move, and how much there is.
    pub stalled: Option<(u64, usize)>,
    /// What it has appended to the core's logs.
    pub part: Part,
    /// How much of the core's time it has used.
    pub mark: Mark,
    /// Its part of the core's load.
    pub counted: Load,
    /// Its part of the ledger; its output is counted by the network.
    pub holding: Holding,
    /// The tick in which it was granted the memory for a large request, while that arrives.
    pub granted_at: Option<u64>,
    /// Since which tick it is on the list of those that wait for such a grant.
    pub wants_grant_since: Option<u64>,
    /// Whether it is one of the connections that the node counts against its limit.
    pub is_admitted: bool,
    /// Whether it is being closed, so that nothing it holds counts any more.
    pub is_leaving: bool,
}

impl<C: CoreEnv> Entry<C> {
    /// Whether there may be something to do for it although nothing has come: it was stopped, it is
    /// to end, or a reply waits.
    pub(super) fn has_more_to_do(&self) -> bool {
        self.is_paused
            || self.has_ended
            || self.connection.has_input()
            || self.connection.waits_for_log()
            || self.connection.has_parted()
    }
}

/// All connections of a core.
pub(super) struct Table<C: CoreEnv> {
    /// By the low half of the connection's number.
    entries: Vec<Option<Box<Entry<C>>>>,
    len: usize,
}

fn index(id: ConnectionId) -> usize {
    (u64::from(id) & u64::from(u32::MAX)) as usize
}

impl<C: CoreEnv> Default for Table<C> {
    fn default() -> Self {
        Self { entries: Vec::new(), len: 0 }
    }
}

impl<C: CoreEnv> Table<C> {
    pub(super) fn insert(
        &mut self,
        id: ConnectionId,
        (connection, listener, peer): (Client<C>, usize, Option<SocketAddr>),
        tick: u64,
        mark: Mark,
    ) {
        let index = index(id);
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, || None);
        }
        let entry = Entry {
            id,
            connection,
            peer,
            listener,
            ending: Ending::Normal,
            is_paused: false,
            has_ended: false,
            is_queued: false,
            awaits_log: false,
            is_refused: false,
            active_at: tick,
            stalled: None,
            part: Part::default(),
            mark,
            counted: Load::default(),
            holding: Holding::default(),
            granted_at: None,
            wants_grant_since: None,
            is_admitted: true,
            is_leaving: false,
        };
        let before = self.entries[index].replace(Box::new(entry));
        assert!(before.is_none(), "two connections with one number");
        self.len += 1;
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Entry<C>> {
        let entry = self.entries.get_mut(index(id))?.as_deref_mut()?;
        (entry.id == id || canary::has(NodeDefect::AnswerTheNext)).then_some(entry)
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Box<Entry<C>>> {
        self.get_mut(id)?;
        self.len -= 1;
        self.entries[index(id)].take()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry<C>> {
        self.entries.iter_mut().flatten().map(|entry| &mut **entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Connection;
    use crate::facts::Facts;
    use crate::memcached::Memcached;
    use crate::namespaces::NamespaceView;
    use larder_runtime::ring_env::RingEnv;

    fn client() -> (Client<RingEnv>, usize, Option<SocketAddr>) {
        let facts = std::sync::Arc::new(Facts::example());
        (Box::new(Connection::new(Memcached::new(&facts, &NamespaceView::default()))), 0, None)
    }

    #[test]
    fn a_number_that_is_used_again_does_not_find_the_new_connection() {
        let mut table = Table::default();
        let (old, new) = (ConnectionId::from(5), ConnectionId::from((1 << 32) + 5));
        table.insert(old, client(), 0, Mark::default());
        assert!(table.get_mut(old).is_some() && table.get_mut(new).is_none());
        assert!(table.remove(new).is_none() && table.remove(old).is_some());
        table.insert(new, client(), 0, Mark::default());
        assert!(table.get_mut(old).is_none());
        assert_eq!((table.len(), table.iter_mut().count()), (1, 1));
    }
}
