//! Requests with an idempotency token: what they ask a shard for, so that they are done once.
//!
//! A request on one item becomes a batch of one change, which leaves its answer under the token.

use larder_engine::key::{route_hash, shard_of_hash};
use larder_engine::operation::Operation;
use larder_engine::shard::{BatchAnswer, BatchStep, ItemBatch, Once, OperationBuf};
use larder_protocol::native::reply;
use larder_protocol::native::{ItemKey, NativeStatus, ReceivedToken};

use super::NativeToken;
use super::records::Fault;
use crate::limits::TOKEN_DRIFT_SECONDS;

/// What a request is answered whose token is too old, or of a clock that is wrong.
pub(super) const REFUSED: Fault = (
    NativeStatus::TokenRefused,
    "the token's time is longer ago than --idempotency-window, or more than a minute ahead of the \
     node's clock: compare the clocks of both machines",
);

/// What makes a request on `key` known again for `window` seconds, at Unix second `now`. `None` if
/// its token cannot be taken: it may have been forgotten, or be of a clock that goes wrong.
pub(super) fn once(
    received: &ReceivedToken,
    key: &ItemKey<'_>,
    now: u32,
    window: u32,
) -> Option<Once> {
    let ReceivedToken { token, fingerprint } = received;
    let sent = u32::try_from(token.time_microseconds / 1_000_000).ok()?;
    if sent.saturating_add(window) < now || sent > now.saturating_add(TOKEN_DRIFT_SECONDS) {
        return None;
    }
    // The same token on another record is another request: that is on another shard, perhaps.
    let mut name = token.time_microseconds.to_be_bytes().to_vec();
    name.extend_from_slice(&token.nonce);
    name.extend_from_slice(&key.namespace.to_be_bytes());
    name.extend_from_slice(&route_hash(key.record).to_be_bytes());
    // It is refused from the window's end on, and until then it has to be known.
    let expiry = sent.saturating_add(window).saturating_add(2);
    Some(Once { token: name, fingerprint: *fingerprint, expiry })
}

/// A batch of one operation, and its shard of `shards`.
pub(super) fn batch_of(
    key: &ItemKey<'_>,
    operation: &Operation<'_>,
    once: Once,
    (shards, value_bytes_max): (u16, usize),
) -> (u16, ItemBatch) {
    let step = BatchStep {
        namespace: key.namespace,
        record: key.record.to_vec(),
        item: key.item.to_vec(),
        operation: OperationBuf::new(operation),
    };
    // The value that is there counts as well: what is stored has a limit of its own.
    let value_bytes_max = value_bytes_max.saturating_mul(2);
    let steps = vec![step];
    let shard = shard_of_hash(route_hash(key.record), shards);
    (shard, ItemBatch { value_bytes_max, steps, once: Some(once) })
}

/// Appends the reply to a request on one item.
pub(super) fn put(token: &NativeToken, answer: &BatchAnswer, hops: u8, out: &mut Vec<u8>) {
    let answer = match answer {
        BatchAnswer::Done(answers) => answers.first().expect("an answer to each change"),
        BatchAnswer::Refused { answer, .. } => answer,
        BatchAnswer::OtherRequest => {
            let head = reply::ReplyHead { hops, ..token.head };
            return put_other(head, out);
        }
    };
    token.put(Ok(&answer.as_answer()), hops, out);
}

/// Appends the reply to a request whose token is that of another.
pub(super) fn put_other(head: reply::ReplyHead, out: &mut Vec<u8>) {
    let reason = "the token is that of another request, or too old";
    reply::put_error(out, head, NativeStatus::TokenRefused, reason);
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_protocol::native::IdempotencyToken;

    const NOW: u32 = 1_000_000;

    fn named(sent: u64, record: &'static [u8]) -> Option<Once> {
        let token = IdempotencyToken { time_microseconds: sent * 1_000_000, nonce: [7; 16] };
        let key = ItemKey { namespace: 3, record, item: b"i" };
        once(&ReceivedToken { token, fingerprint: 5 }, &key, NOW, 600)
    }

    #[test]
    fn a_token_is_taken_within_its_window() {
        let now = u64::from(NOW);
        for (sent, is_taken) in [
            (now, true),
            (now - 600, true),
            (now - 601, false),
            (now + u64::from(TOKEN_DRIFT_SECONDS), true),
            (now + u64::from(TOKEN_DRIFT_SECONDS) + 1, false),
            (0, false),
            (u64::MAX / 1_000_000, false),
        ] {
            assert_eq!(named(sent, b"r").is_some(), is_taken, "{sent}");
        }
    }

    #[test]
    fn an_answer_is_known_as_long_as_its_token_is_taken() {
        let once = named(u64::from(NOW) - 5, b"r").expect("it is taken");
        assert!(once.expiry > NOW - 5 + 600, "{}", once.expiry);
        assert_eq!(once.fingerprint, 5);
    }

    #[test]
    fn tokens_sort_by_time_and_are_good_for_one_record() {
        let name = |sent, record| named(sent, record).expect("it is taken").token;
        let now = u64::from(NOW);
        assert!(name(now - 1, b"z") < name(now, b"a"));
        assert_ne!(name(now, b"a"), name(now, b"b"));
        assert_eq!(name(now, b"a"), name(now, b"a"));
    }
}
