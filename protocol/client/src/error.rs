//! What can go wrong, and what to do then.

use std::io::Error;

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
        source: Error,
    },
    /// The connection broke. What had no reply may have been done or not.
    #[error("the connection broke: {0}; what had no reply may have been done or not")]
    Broken(Error),
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
    /// The request could not be sent. Nothing was done.
    #[error("the request was not sent, so nothing was done: {reason}")]
    Unsent {
        /// Why.
        reason: String,
        /// What the caller does next.
        next: Next,
    },
    /// As many calls wait for a connection as may. Nothing was done.
    #[error(
        "{calls} calls of {bytes} bytes wait for a connection already: ask for less at a time, or \
         raise `waiting` of the client's builder"
    )]
    Overloaded {
        /// Calls that wait.
        calls: usize,
        /// Bytes of their requests.
        bytes: usize,
    },
    /// A write that goes to several nodes was not done by all. Repeat it, so that they agree.
    #[error("done by {done} of {of} nodes, and not known to be done by the others: {error}")]
    Replicas {
        /// Nodes that have done it.
        done: usize,
        /// Nodes that should have.
        of: usize,
        /// What one of the others said.
        error: Box<ClientError>,
    },
    /// A write was sent again because its first try had no answer, and that has failed too. The
    /// first one may have done it.
    #[error("{0}; an earlier try of this write had no answer, and may have done it or not")]
    InDoubt(Box<ClientError>),
    /// The nodes of a client answer differently what they should answer alike.
    #[error(
        "the nodes of the client have different namespaces: each has to have the same names with \
         the same numbers and settings; compare what `larder ns list` shows of each"
    )]
    Disagreement,
    /// A value is marked as compressed by this client and cannot be expanded.
    #[error(
        "the value is marked as compressed, but {0}: it was stored by another program that uses \
         client flag bit 31, or with other bytes appended; store it anew"
    )]
    Compression(&'static str),
    /// What was to be stored cannot be read. Nothing was stored.
    #[error("cannot read what is to be stored: {0}; nothing was stored")]
    Source(Error),
    /// The operating system gives no thread.
    #[error("cannot start a thread for a connection: {0}; raise the limit of threads")]
    Thread(Error),
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
        // These say more by numbers than by words.
        let is_numbers = matches!(status, Some(NativeStatus::Large | NativeStatus::MissingChunk));
        let told = if is_numbers { b"" } else { told };
        let told = String::from_utf8_lossy(told).into_owned();
        let text = if told.is_empty() { known.to_owned() } else { told };
        Self::Refused { status, text }
    }

    /// The same once more, for another call that ends so.
    pub(crate) fn again(&self) -> Self {
        let same = |error: &Error| Error::new(error.kind(), error.to_string());
        match self {
            Self::Usage(text) => Self::Usage(text.clone()),
            Self::Connect { node, source } => {
                Self::Connect { node: node.clone(), source: same(source) }
            }
            Self::Broken(error) => Self::Broken(same(error)),
            Self::Closed => Self::Closed,
            Self::Timeout { seconds } => Self::Timeout { seconds: *seconds },
            Self::TurnedAway(text) => Self::TurnedAway(text.clone()),
            Self::Spent => Self::Spent,
            Self::Foreign(text) => Self::Foreign(text.clone()),
            Self::Unsent { reason, next } => Self::Unsent { reason: reason.clone(), next: *next },
            Self::Overloaded { calls, bytes } => Self::Overloaded { calls: *calls, bytes: *bytes },
            Self::Replicas { done, of, error } => {
                Self::Replicas { done: *done, of: *of, error: Box::new(error.again()) }
            }
            Self::InDoubt(error) => Self::InDoubt(Box::new(error.again())),
            Self::Disagreement => Self::Disagreement,
            Self::Compression(text) => Self::Compression(text),
            Self::Source(error) => Self::Source(same(error)),
            Self::Thread(error) => Self::Thread(same(error)),
            Self::Refused { status, text } => Self::Refused { status: *status, text: text.clone() },
        }
    }

    /// What the caller does next.
    pub fn next(&self) -> Next {
        match self {
            Self::Usage(_) | Self::Source(_) => Next::FixRequest,
            Self::Connect { .. }
            | Self::Broken(_)
            | Self::Closed
            | Self::Timeout { .. }
            | Self::Spent => Next::RetryElsewhere,
            Self::Foreign(_) => Next::FixRequest,
            Self::TurnedAway(_) | Self::Overloaded { .. } | Self::Thread(_) => Next::RetryHere,
            Self::Unsent { next, .. } => *next,
            Self::Replicas { error, .. } | Self::InDoubt(error) => error.next(),
            Self::Disagreement => Next::FixRequest,
            Self::Compression(_) => Next::Restore,
            Self::Refused { status: Some(NativeStatus::Large), .. } => Next::FixRequest,
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
            Self::Usage(_)
            | Self::Source(_)
            | Self::Connect { .. }
            | Self::TurnedAway(_)
            | Self::Spent
            | Self::Unsent { .. }
            | Self::Overloaded { .. }
            | Self::Compression(_)
            | Self::Thread(_) => false,
            Self::Replicas { done, error, .. } => *done > 0 || error.may_be_done(),
            Self::Broken(_)
            | Self::Closed
            | Self::Timeout { .. }
            | Self::Foreign(_)
            | Self::InDoubt(_)
            | Self::Disagreement => true,
            // A shard that stops may have made the change durable before, and a name that is not
            // taken may have been taken when the request was sent before.
            Self::Refused { status, .. } => matches!(
                status,
                None | Some(
                    NativeStatus::Stopped | NativeStatus::Internal | NativeStatus::TokenRefused
                )
            ),
        }
    }

    /// Whether the connection cannot be used any more.
    pub(crate) fn is_final(&self) -> bool {
        !matches!(self, Self::Usage(_) | Self::Source(_) | Self::Refused { .. })
    }
}
