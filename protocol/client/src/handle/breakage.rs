//! Why a connection is no more, and what that means for the requests that were on it.

use std::io::{Error, ErrorKind};
use std::time::Duration;

use crate::error::{ClientError, Next};

/// Why a connection is no more, or did not come about.
#[derive(Clone, Debug)]
pub(crate) enum Breakage {
    /// There was no way to the node.
    Connect { node: String, kind: ErrorKind, text: String },
    /// Reading or writing failed.
    Failed { kind: ErrorKind, text: String },
    /// The node has closed it.
    Closed,
    /// The node has no room for it.
    TurnedAway(String),
    /// What came is no reply to what was asked.
    Foreign(String),
    /// Nothing came for so long, not even the answer to a ping.
    Silent(Duration),
    /// More than half of the requests that it may have under way were given up.
    Unanswered,
    /// It leads to a core that the node does not have any more, or the client is gone.
    Replaced,
}

impl Breakage {
    pub(crate) fn connect(node: &str, error: &Error) -> Self {
        Self::Connect { node: node.to_owned(), kind: error.kind(), text: error.to_string() }
    }

    pub(crate) fn failed(error: &Error) -> Self {
        Self::Failed { kind: error.kind(), text: error.to_string() }
    }

    /// The error of a request that the node may have received, or has surely not.
    pub(crate) fn error(&self, was_sent: bool) -> ClientError {
        match self {
            Self::Connect { node, kind, text } => {
                let source = Error::new(*kind, text.clone());
                ClientError::Connect { node: node.clone(), source }
            }
            Self::TurnedAway(text) if was_sent => {
                ClientError::Broken(Error::new(ErrorKind::ConnectionAborted, text.clone()))
            }
            Self::TurnedAway(text) => ClientError::TurnedAway(text.clone()),
            Self::Failed { kind, text } if was_sent => {
                ClientError::Broken(Error::new(*kind, text.clone()))
            }
            Self::Closed | Self::Replaced if was_sent => ClientError::Closed,
            Self::Foreign(text) if was_sent => ClientError::Foreign(text.clone()),
            Self::Silent(silence) if was_sent => {
                let text = format!("the node was silent for {} s", silence.as_secs_f64());
                ClientError::Broken(Error::new(ErrorKind::TimedOut, text))
            }
            Self::Unanswered if was_sent => {
                let text = "too many requests had no answer in time";
                ClientError::Broken(Error::new(ErrorKind::TimedOut, text))
            }
            Self::Failed { text, .. } => unsent(text, Next::RetryElsewhere),
            Self::Closed => unsent("the node has closed the connection", Next::RetryElsewhere),
            Self::Replaced => unsent("the connection was replaced", Next::RetryHere),
            Self::Silent(_) | Self::Unanswered => {
                unsent("the node answers nothing", Next::RetryElsewhere)
            }
            Self::Foreign(text) => {
                let text = format!("the peer does not speak this version of the protocol: {text}");
                unsent(&text, Next::FixRequest)
            }
        }
    }
}

fn unsent(reason: &str, next: Next) -> ClientError {
    ClientError::Unsent { reason: reason.to_owned(), next }
}
