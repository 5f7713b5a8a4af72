//! An operation that has to wait, with its bytes.

use crate::operation::Operation;

/// An operation that owns its bytes, for the time that it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationBuf {
    operation: Operation<'static>,
    /// Behind each other.
    values: Vec<u8>,
}

impl OperationBuf {
    /// A copy of `operation`.
    pub fn new(operation: &Operation<'_>) -> Self {
        Self { operation: operation.without_values(), values: operation.values().concat() }
    }

    /// The operation.
    pub fn as_operation(&self) -> Operation<'_> {
        self.operation.with_values(&self.values)
    }
}
