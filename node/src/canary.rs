//! Deliberate defects. Test builds can switch one on, to see that the simulated node notices it; in
//! every other build none exists.

/// A defect of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeDefect {
    /// An answer that has waited is encoded under the id of another request.
    OtherRequestId,
    /// A read of several items has lost its last one where that came from another core.
    LoseLastPart,
    /// An answer that comes while the client's output is full is dropped.
    DropWhereFull,
    /// A value is given back before it is sent.
    FreeBeforeSent,
    /// Answers to a connection that is gone go to the next one with its number.
    AnswerTheNext,
    /// An answer of another core leaves before those to earlier requests, whatever the protocol's
    /// order.
    Overtake,
}

/// Whether the node has this defect.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn has(_defect: NodeDefect) -> bool {
    false
}

#[cfg(test)]
pub(crate) use switched::{has, with};

#[cfg(test)]
mod switched {
    use std::cell::Cell;

    use super::NodeDefect;

    thread_local! {
        static DEFECT: Cell<Option<NodeDefect>> = const { Cell::new(None) };
    }

    /// Whether this thread's node has this defect.
    pub(crate) fn has(defect: NodeDefect) -> bool {
        DEFECT.get() == Some(defect)
    }

    /// Gives this thread's node a defect until the result is dropped.
    pub(crate) fn with(defect: NodeDefect) -> SwitchedNode {
        DEFECT.set(Some(defect));
        SwitchedNode
    }

    /// Takes the defect back when dropped.
    pub(crate) struct SwitchedNode;

    impl Drop for SwitchedNode {
        fn drop(&mut self) {
            DEFECT.set(None);
        }
    }
}
