//! What a client that watches is told.

use larder_engine::operation::Outcome;
use larder_protocol::memcached::LogStreams;
use larder_protocol::memcached::reply::{self, LogStamp, LoggedItem};

use super::dump::CLASS;
use crate::events::{Ending, EventKinds, Happening, NodeEvent, StoredBy};

/// The kinds of events that these streams are of.
pub(super) fn kinds(streams: LogStreams) -> EventKinds {
    let all = [
        (LogStreams::FETCHERS, EventKinds::READS),
        (LogStreams::MUTATIONS, EventKinds::STORES),
        (LogStreams::DELETIONS, EventKinds::DELETES),
        (LogStreams::CONNECTIONS, EventKinds::CONNECTIONS),
    ];
    let wanted = all.iter().filter(|(stream, _)| streams.has_any(*stream));
    wanted.fold(EventKinds::NONE, |kinds, (_, kind)| kinds.and(*kind))
}

/// Appends the line of an event.
pub(super) fn put(event: &NodeEvent, out: &mut Vec<u8>) {
    let NodeEvent { microseconds, number, connection, ref what } = *event;
    let stamp = LogStamp { microseconds, number };
    match what {
        Happening::Read { key, is_found, value_bytes } => {
            let class = if *is_found { CLASS } else { 0 };
            let item = LoggedItem { key, class, connection, value_bytes: *value_bytes };
            reply::logged_get(out, stamp, &item, *is_found);
        }
        Happening::Stored { key, by, outcome, seconds, value_bytes } => {
            let item = LoggedItem { key, class: CLASS, connection, value_bytes: *value_bytes };
            let words = (status(*outcome), verb(*by), *seconds);
            reply::logged_store(out, stamp, &item, words);
        }
        Happening::Deleted { key } => {
            let item = LoggedItem { key, class: CLASS, connection, value_bytes: 0 };
            reply::logged_delete(out, stamp, &item);
        }
        Happening::Began(peer) => reply::logged_connection(out, stamp, (connection, *peer), None),
        Happening::Ended(peer, ending) => {
            let reason = match ending {
                Ending::Normal => "normal",
                Ending::Idle => "idle_timeout",
                Ending::Shed => "error",
                Ending::Shutdown => "shutdown",
            };
            reply::logged_connection(out, stamp, (connection, *peer), Some(reason));
        }
    }
}

fn status(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Stored) => "stored",
        Some(Outcome::Exists) => "exists",
        Some(Outcome::NotFound | Outcome::Miss) => "not_found",
        Some(Outcome::TooLarge) => "too_large",
        None => "no_memory",
        Some(_) => "not_stored",
    }
}

fn verb(by: StoredBy) -> &'static str {
    match by {
        StoredBy::Set => "set",
        StoredBy::Add => "add",
        StoredBy::Replace => "replace",
        StoredBy::Append => "append",
        StoredBy::Prepend => "prepend",
        StoredBy::Compare => "cas",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_kinds_of_events() {
        assert_eq!(kinds(LogStreams::OTHERS), EventKinds::NONE);
        let both = kinds(LogStreams::FETCHERS.and(LogStreams::CONNECTIONS));
        assert_eq!(both, EventKinds::READS.and(EventKinds::CONNECTIONS));
        assert!(kinds(LogStreams::MUTATIONS).has_any(EventKinds::STORES));
        assert!(kinds(LogStreams::DELETIONS).has_any(EventKinds::DELETES));
    }

    #[test]
    fn outcomes_have_memcacheds_names() {
        let stored = |outcome| {
            let key = b"k".as_slice().into();
            let (by, seconds, value_bytes) = (StoredBy::Compare, 0, 5);
            let what = Happening::Stored { key, by, outcome, seconds, value_bytes };
            let mut out = Vec::new();
            put(&NodeEvent { microseconds: 1_000_002, number: 3, connection: 4, what }, &mut out);
            String::from_utf8(out).expect("text")
        };
        for (outcome, status) in [
            (Some(Outcome::Stored), "stored"),
            (Some(Outcome::NotStored), "not_stored"),
            (Some(Outcome::Exists), "exists"),
            (Some(Outcome::NotFound), "not_found"),
            (Some(Outcome::TooLarge), "too_large"),
            (None, "no_memory"),
        ] {
            let expected = format!(
                "ts=1.2 gid=3 type=item_store key=k status={status} cmd=cas ttl=0 clsid=1 cfd=4 \
                 size=5\n"
            );
            assert_eq!(stored(outcome), expected);
        }
    }
}
