//! Memory of requests that are over, for the next ones of the same thread.
//!
//! A thread that keeps many calls under way would else have its allocator take as many pieces
//! apart and put them together again.

use std::cell::RefCell;
use std::sync::Arc;

use super::codec::Frame;
use super::operation::Operation;

/// Requests whose memory a thread keeps at most.
const KEPT_MAX: usize = 32;

/// The longest room for a request's bytes that is kept.
const KEPT_BYTES: usize = 512;

thread_local! {
    static KEPT: RefCell<Vec<Arc<Operation>>> = const { RefCell::new(Vec::new()) };
}

/// Memory for a request.
#[derive(Default)]
pub(super) struct Spare {
    /// Room for the rest of it.
    pub operation: Option<Arc<Operation>>,
    /// Room for its bytes.
    pub bytes: Vec<u8>,
}

impl Spare {
    /// That of a request that is over, if there is one.
    pub(super) fn take() -> Self {
        let kept = KEPT.try_with(|kept| kept.borrow_mut().pop());
        let Some(mut operation) = kept.ok().flatten() else { return Self::default() };
        match Arc::get_mut(&mut operation).map(|over| &mut over.frame) {
            Some(Frame::Native(bytes)) => {
                let bytes = std::mem::take(bytes);
                Self { operation: Some(operation), bytes }
            }
            _ => Self::default(),
        }
    }
}

/// A request, in the memory of one that is over if there is such.
pub(super) fn hold(over: Option<Arc<Operation>>, new: Operation) -> Arc<Operation> {
    let Some(mut operation) = over else { return Arc::new(new) };
    match Arc::get_mut(&mut operation) {
        Some(over) => {
            *over = new;
            operation
        }
        None => Arc::new(new),
    }
}

/// Keeps the memory of a request that is over, if nobody else holds it.
pub(super) fn keep(operation: Arc<Operation>) {
    let Frame::Native(bytes) = &operation.frame else { return };
    if bytes.capacity() <= KEPT_BYTES && Arc::strong_count(&operation) == 1 {
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < KEPT_MAX {
                kept.push(operation);
            }
        });
    }
}
