//! One connection's state.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use glommio::net::TcpStream;

use super::wakers::lock;
use crate::connection::Closing;
use crate::operations::Key;
use crate::outgoing::Outgoing;

/// The connections whose sockets have become ready, and whom to tell.
pub(super) struct Ready {
    keys: Mutex<Vec<Key>>,
    main: Waker,
}

impl Ready {
    pub(super) fn new(main: Waker) -> Arc<Self> {
        Arc::new(Self { keys: Mutex::default(), main })
    }

    pub(super) fn take(&self) -> Vec<Key> {
        std::mem::take(&mut *lock(&self.keys))
    }

    /// Puts back what a turn had no time for, in front of what has come since.
    pub(super) fn put_back(&self, mut left: Vec<Key>) {
        let mut keys = lock(&self.keys);
        left.append(&mut keys);
        *keys = left;
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.keys).is_empty()
    }
}

/// A connection's place in the list of those that are ready.
pub(super) struct ReadyMark {
    key: Key,
    is_listed: AtomicBool,
    ready: Arc<Ready>,
}

impl ReadyMark {
    /// Puts the connection into the list, unless it is there.
    pub(super) fn list(&self) {
        if self.is_listed.swap(true, Ordering::AcqRel) {
            return;
        }
        lock(&self.ready.keys).push(self.key);
        self.ready.main.wake_by_ref();
    }

    /// The connection was taken out of the list.
    pub(super) fn note_taken(&self) {
        self.is_listed.store(false, Ordering::Release);
    }
}

impl Wake for ReadyMark {
    fn wake(self: Arc<Self>) {
        self.list();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.list();
    }
}

pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) outgoing: Outgoing,
    pub(super) closing: Closing,
    pub(super) is_paused: bool,
    pub(super) has_peer_ended: bool,
    /// Whether glommio wakes the mark when there is something to receive.
    pub(super) is_awaited: bool,
    /// Whether the connection is on the list of those to look at when the turn ends.
    pub(super) is_dirty: bool,
    /// Bytes that were discarded while lingering.
    pub(super) discarded: usize,
    /// The memory of its output that the network has counted.
    pub(super) counted: usize,
    /// What its socket wakes; there from the moment that it has a key.
    mark: Option<(Arc<ReadyMark>, Waker)>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            outgoing: Outgoing::default(),
            closing: Closing::No,
            is_paused: false,
            has_peer_ended: false,
            is_awaited: false,
            is_dirty: false,
            discarded: 0,
            counted: 0,
            mark: None,
        }
    }

    /// Gives it the key that it is found by.
    pub(super) fn name(&mut self, key: Key, ready: &Arc<Ready>) {
        let is_listed = AtomicBool::new(false);
        let mark = Arc::new(ReadyMark { key, is_listed, ready: Arc::clone(ready) });
        self.mark = Some((Arc::clone(&mark), Waker::from(mark)));
    }

    pub(super) fn mark(&self) -> &ReadyMark {
        &self.mark.as_ref().expect("it was named").0
    }

    /// The socket, and what it is to wake.
    pub(super) fn socket(&mut self) -> (&mut TcpStream, &Waker, &Outgoing) {
        let (_, waker) = self.mark.as_ref().expect("it was named");
        (&mut self.stream, waker, &self.outgoing)
    }

    /// The memory that the output takes, in bytes; nothing if it is about to be given back.
    pub(super) fn output_memory(&self) -> usize {
        if self.closing == Closing::Now { 0 } else { self.outgoing.memory() }
    }

    /// Whether something that arrives is to be taken. A connection that closes after its output
    /// goes on receiving and discards the bytes, as [`Closing::Lingering`] says.
    pub(super) fn wants_receive(&self) -> bool {
        match self.closing {
            Closing::No => !self.has_peer_ended && !self.is_paused,
            Closing::AfterOutput | Closing::Lingering => !self.has_peer_ended,
            Closing::Now => false,
        }
    }
}
