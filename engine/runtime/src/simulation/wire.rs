//! What lies between a simulated client and a simulated core: bytes under way in both directions.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;

/// How far one connection has come, as the machines between its ends would know it.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// Bytes that the client has sent and the core has not received.
    pub(super) to_core: VecDeque<u8>,
    /// Bytes that were taken from the core and the client has not read.
    pub(super) to_client: VecDeque<u8>,
    /// How many bytes are taken from the core before the client reads some.
    window: usize,
    /// The client sends no more.
    pub(super) has_client_ended: bool,
    /// The core sends no more: what is in `to_client` is all.
    pub(super) has_core_ended: bool,
    /// The connection was torn down by one of the two.
    pub(super) is_reset: bool,
}

impl Wire {
    /// How many bytes may be taken from the core now.
    pub(super) fn room(&self) -> usize {
        self.window.saturating_sub(self.to_client.len())
    }
}

/// A handle on a wire; both ends have one.
#[derive(Clone, Debug)]
pub(super) struct SharedWire(Rc<RefCell<Wire>>);

impl SharedWire {
    /// A connection that begins, whose client has room for `window` bytes that it has not read.
    pub(super) fn new(window: usize) -> Self {
        Self(Rc::new(RefCell::new(Wire { window: window.max(1), ..Wire::default() })))
    }

    pub(super) fn get(&self) -> RefMut<'_, Wire> {
        self.0.borrow_mut()
    }
}

/// The client's end of a simulated connection. What is sent here arrives at the core by and by, in
/// pieces that the core's seed decides.
#[derive(Debug)]
pub struct SimClient {
    wire: SharedWire,
}

impl SimClient {
    pub(super) fn new(wire: SharedWire) -> Self {
        Self { wire }
    }

    /// Sends bytes. Nobody gets them if the connection is reset.
    pub fn send(&self, bytes: &[u8]) {
        let mut wire = self.wire.get();
        assert!(!wire.has_client_ended, "nothing is sent behind the end");
        if !wire.is_reset {
            wire.to_core.extend(bytes);
        }
    }

    /// How many of the bytes that were sent have not been received.
    pub fn unreceived(&self) -> usize {
        self.wire.get().to_core.len()
    }

    /// Reads up to `most` bytes of those that have come.
    pub fn read(&self, most: usize) -> Vec<u8> {
        let mut wire = self.wire.get();
        let len = most.min(wire.to_client.len());
        wire.to_client.drain(..len).collect()
    }

    /// Says that nothing more will be sent. The client can still read.
    pub fn finish(&self) {
        self.wire.get().has_client_ended = true;
    }

    /// Tears the connection down: what is under way may be lost.
    pub fn reset(&self) {
        let mut wire = self.wire.get();
        wire.is_reset = true;
        wire.to_client.clear();
    }

    /// Whether nothing more will come: all was read, and the core has ended its side.
    pub fn is_over(&self) -> bool {
        let wire = self.wire.get();
        wire.to_client.is_empty() && (wire.has_core_ended || wire.is_reset)
    }

    /// Whether the connection was torn down instead of ended in good order.
    pub fn was_reset(&self) -> bool {
        self.wire.get().is_reset
    }
}
