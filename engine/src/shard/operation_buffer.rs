//! An operation that has to wait, with its bytes.

use crate::operation::{self, Operation};

/// An operation that owns its bytes, for the time that it waits.
#[derive(Clone, Debug)]
pub struct OperationBuf {
    operation: Operation<'static>,
    value: Vec<u8>,
}

impl OperationBuf {
    /// A copy of `operation`.
    pub fn new(operation: &Operation<'_>) -> Self {
        let (operation, value) = match operation {
            Operation::Read(read) => (Operation::Read(*read), Vec::new()),
            Operation::Delete(delete) => (Operation::Delete(*delete), Vec::new()),
            Operation::Arithmetic(arithmetic) => (Operation::Arithmetic(*arithmetic), Vec::new()),
            Operation::Store(store) => {
                let value = store.value.to_vec();
                (Operation::Store(operation::Store { value: &[], ..*store }), value)
            }
        };
        Self { operation, value }
    }

    /// The operation.
    pub fn as_operation(&self) -> Operation<'_> {
        match self.operation {
            Operation::Store(store) => {
                Operation::Store(operation::Store { value: &self.value, ..store })
            }
            other => other,
        }
    }
}
