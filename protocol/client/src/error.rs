//! What can go wrong, and what to do then.

use larder_protocol::native::{Group, NativeStatus};

/// What the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Change the request: it fails again as it is.
    FixRequest,
    /// Ask the same node again, a little later.
    RetryHere,
    /// Ask another node, or open another connection.
    RetryElsewhere,
    /// What is stored cannot be read: restore it, or store it anew.
    Restore,
    /// Report a fault of the node.
    Report,
}

/// Why a call has failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// What was asked for cannot be said in the protocol. Nothing was sent.
    #[error("{0}")]
    Usage(String),
    /// There is no connection.
    #[error(
        "cannot connect to {node}: {source}; is the node running, and is this its --native-port?"
    )]
    Connect {
        /// The address as it was given.
        node: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The connection broke. What had no reply may have been done or not.
    #[error("the connection broke: {0}; what had no reply may have been done or not")]
    Broken(std::io::Error),
    /// The node has closed the connection.
    #[error("the node has closed the connection; what had no reply may have been done or not")]
    Closed,
    /// No reply came in time. The request may have been done or not.
    #[error("no reply within {seconds} s; the request may have been done or not")]
    Timeout {
        /// How long was waited.
        seconds: f64,
    },
    /// The node has no room for the connection. Nothing was done.
    #[error("the node has turned the connection away: {0}")]
    TurnedAway(String),
    /// The connection has failed before and cannot be used any more.
    #[error("this connection has failed before; open another")]
    Spent,
    /// What came is no reply of this protocol.
    #[error("the peer does not speak this version of the native protocol: {0}")]
    Foreign(String),
    /// The node has refused.
    #[error("{text}")]
    Refused {
        /// The status; `None` if it is one that is not known here.
        status: Option<NativeStatus>,
        /// What the node says, for people.
        text: String,
    },
}

impl ClientError {
    /// That the node has refused, with what it says for people.
    pub(crate) fn refused(status: Option<NativeStatus>, told: &[u8]) -> Self {
        let known = status.map_or("a status that is not known here", NativeStatus::text);
        let told = String::from_utf8_lossy(told).into_owned();
        let text = if told.is_empty() { known.to_owned() } else { told };
        Self::Refused { status, text }
    }

    /// What the caller does next.
    pub fn next(&self) -> Next {
        match self {
            Self::Usage(_) => Next::FixRequest,
            Self::Connect { .. }
            | Self::Broken(_)
            | Self::Closed
            | Self::Timeout { .. }
            | Self::Spent => Next::RetryElsewhere,
            Self::Foreign(_) => Next::FixRequest,
            Self::TurnedAway(_) => Next::RetryHere,
            Self::Refused { status, .. } => match status.map(NativeStatus::group) {
                // What is stored is not what the request is for.
                Some(Group::FixRequest | Group::ConditionFailed) => Next::FixRequest,
                Some(Group::RetryHere) => Next::RetryHere,
                Some(Group::RetryElsewhere) => Next::RetryElsewhere,
                Some(Group::Damaged) => Next::Restore,
                _ => Next::Report,
            },
        }
    }

    /// Whether the request may have been carried out in spite of the error.
    pub fn may_be_done(&self) -> bool {
        match self {
            Self::Usage(_) | Self::Connect { .. } | Self::TurnedAway(_) | Self::Spent => false,
            Self::Broken(_) | Self::Closed | Self::Timeout { .. } | Self::Foreign(_) => true,
            // A shard that stops may have made the change durable before.
            Self::Refused { status, .. } => {
                matches!(status, None | Some(NativeStatus::Stopped | NativeStatus::Internal))
            }
        }
    }

    /// Whether the connection cannot be used any more.
    pub(crate) fn is_final(&self) -> bool {
        !matches!(self, Self::Usage(_) | Self::Refused { .. })
    }
}
