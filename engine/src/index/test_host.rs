//! The smallest host of an index: a manifest in memory.

use std::cell::{Cell, RefCell};

use super::{Host, Living};
use crate::error::EngineError;
use crate::manifest::{Edit, SegmentSeal, State};
use crate::space::Purpose;

/// A host whose manifest is lost with it.
pub(super) struct TestHost {
    pub(super) manifest: RefCell<State>,
    /// Bytes that may still be reserved.
    pub(super) room: Cell<u64>,
}

impl TestHost {
    /// A host whose segments 0 to `segments` are open.
    pub(super) fn new(segments: u32) -> Self {
        let mut manifest = State::default();
        let segments_opened = (0..segments).map(|number| (number, 64 << 20)).collect();
        manifest.apply(&Edit { segments_opened, ..Edit::default() }).expect("applies");
        Self { manifest: RefCell::new(manifest), room: Cell::new(u64::MAX) }
    }

    /// Live bytes of all segments.
    pub(super) fn live_bytes(&self) -> u64 {
        self.manifest.borrow().segments.values().map(|segment| segment.live_bytes).sum()
    }
}

impl Host for TestHost {
    type Reservation = ();

    fn reserve(&self, bytes: u64, _purpose: Purpose) -> Result<(), EngineError> {
        if bytes <= self.room.get() { Ok(()) } else { Err(EngineError::Full) }
    }

    async fn sync_log(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn take_seals(&self) -> Vec<SegmentSeal> {
        Vec::new()
    }

    async fn commit(&self, make: impl FnOnce() -> Edit) -> Result<(), EngineError> {
        let edit = make();
        self.manifest.borrow_mut().apply(&edit).expect("the edit follows on the state");
        Ok(())
    }

    fn durable(&self) -> Living {
        Living::of(&self.manifest.borrow())
    }
}
