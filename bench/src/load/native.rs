//! The native protocol's side of the load: requests, and replies however they are split, without
//! keeping the values.

use larder_protocol::native::reply::NativeReply;
use larder_protocol::native::{
    Condition, GetItem, Group, HEADER_BYTES, ItemKey, NativeRequest, PutItem, PutMode, put_request,
};

use super::data::{CHECK_BYTES, VALUE_BYTES_MAX};
use super::encoder::Operation;
use super::reply::{Reply, ReplyError};

/// Bytes of an item in a reply before its value.
const ITEM_BYTES: usize = 24;

/// Bodies that are no item are kept up to this length, to be shown.
const TEXT_BYTES_MAX: usize = 1024;

/// Appends the request number `id`. `value` is ignored for a GET.
pub(super) fn append(id: u64, operation: Operation, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let key = ItemKey { namespace: 0, record: key, item: &[] };
    let request = match operation {
        Operation::Get => {
            NativeRequest::Get(GetItem { key, metadata_only: false, is_quiet: false })
        }
        Operation::Set => {
            let mode = PutMode::Set(Condition::Any);
            NativeRequest::Put(PutItem { key, mode, client_flags: 0, ttl: 0, value })
        }
    };
    put_request(out, id, 0, false, &request);
}

/// Takes replies out of a stream of bytes.
#[derive(Debug, Default)]
pub(super) struct NativeReplies {
    /// The header, and of the body what tells the reply: at most [`TEXT_BYTES_MAX`] bytes of it.
    front: Vec<u8>,
    /// How many bytes of the body are passed over without being kept.
    passed: usize,
    /// The text of the last error.
    text: String,
}

impl NativeReplies {
    /// The text of the last [`Reply::ServerError`] or [`Reply::ClientError`].
    pub(super) fn text(&self) -> String {
        self.text.clone()
    }

    /// Takes the next reply off the front of `input`, with the number of its request; `None` when
    /// more bytes are needed, in which case all of `input` was taken.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<Option<(u64, Reply)>, ReplyError> {
        if !self.keep(HEADER_BYTES, input) {
            return Ok(None);
        }
        let body = u32::from_le_bytes(self.front[4..8].try_into().expect("four bytes")) as usize;
        if body > VALUE_BYTES_MAX + ITEM_BYTES {
            return Err(ReplyError::Length(body.to_string()));
        }
        // An item's head and the first bytes of its value tell all; a text is kept for people.
        let is_text = self.front[3] >> 4 >= 3;
        let kept = body.min(if is_text { TEXT_BYTES_MAX } else { ITEM_BYTES + CHECK_BYTES });
        if !self.keep(HEADER_BYTES + kept, input) {
            return Ok(None);
        }
        let passed = (body - kept - self.passed).min(input.len());
        *input = &input[passed..];
        self.passed += passed;
        if self.passed < body - kept {
            return Ok(None);
        }
        let reply = self.reply(body, kept);
        self.front.clear();
        self.passed = 0;
        reply.map(Some)
    }

    /// Moves bytes to `front` until it has `len`; false if there are too few.
    fn keep(&mut self, len: usize, input: &mut &[u8]) -> bool {
        let missing = len.saturating_sub(self.front.len()).min(input.len());
        let (part, rest) = input.split_at(missing);
        self.front.extend_from_slice(part);
        *input = rest;
        self.front.len() >= len
    }

    fn reply(&mut self, body: usize, kept: usize) -> Result<(u64, Reply), ReplyError> {
        // Only the header and the kept part are looked at.
        let mut front = self.front.clone();
        front[4..8].copy_from_slice(&(kept as u32).to_le_bytes());
        let unknown = || ReplyError::Unknown(self.front.escape_ascii().to_string());
        let (read, _) = NativeReply::read(&front, u32::MAX).map_err(|_| unknown())?;
        let id = read.head.id;
        let group = read.status.ok_or_else(unknown)?.group();
        let reply = match group {
            Group::Done if body >= ITEM_BYTES => {
                let mut head = [0; CHECK_BYTES];
                let value = &read.body[ITEM_BYTES..];
                head[..value.len()].copy_from_slice(value);
                Reply::Value { length: body - ITEM_BYTES, head }
            }
            Group::Done => Reply::Stored,
            Group::Absent => Reply::Miss,
            Group::ConditionFailed => Reply::NotStored,
            Group::FixRequest => Reply::ClientError,
            Group::RetryHere | Group::RetryElsewhere | Group::Damaged | Group::Internal => {
                Reply::ServerError
            }
        };
        if matches!(reply, Reply::ServerError | Reply::ClientError) {
            self.text = read.reason();
        }
        Ok((id, reply))
    }
}

#[cfg(test)]
mod tests {
    use larder_protocol::native::reply::{self, NativeItem, ReplyHead};
    use larder_protocol::native::{NativeLimits, NativeParsed, NativeParser, NativeStatus};

    use super::*;

    fn head(id: u64) -> ReplyHead {
        ReplyHead { id, opcode: 0x10, has_checksum: false, hops: 0 }
    }

    #[test]
    fn replies_of_every_kind_are_told_by_their_ids_however_they_are_split() {
        let mut bytes = Vec::new();
        let value = [7; 3000];
        let item = |value: &'static [u8]| NativeItem {
            version: 1,
            client_flags: 0,
            expiry: 0,
            value_len: value.len() as u32,
            value,
        };
        reply::put_item(&mut bytes, head(3), &item(&[7; 3000]));
        reply::put_item(&mut bytes, head(1), &item(b"abc"));
        reply::put_item(&mut bytes, head(9), &item(b""));
        reply::put_version(&mut bytes, head(2), 5);
        reply::put(&mut bytes, head(4), NativeStatus::Absent, |_| ());
        reply::put(&mut bytes, head(5), NativeStatus::Exists, |_| ());
        reply::put_error(&mut bytes, head(6), NativeStatus::Full, &"no room ".repeat(500));
        reply::put_error(&mut bytes, head(7), NativeStatus::Malformed, "what?");
        let short = |bytes: &[u8]| {
            let mut head = [0; CHECK_BYTES];
            head[..bytes.len()].copy_from_slice(bytes);
            Reply::Value { length: bytes.len(), head }
        };
        let expected = [
            (3, Reply::Value { length: value.len(), head: [7; CHECK_BYTES] }),
            (1, short(b"abc")),
            (9, short(b"")),
            (2, Reply::Stored),
            (4, Reply::Miss),
            (5, Reply::NotStored),
            (6, Reply::ServerError),
            (7, Reply::ClientError),
        ];
        for piece in [1, 7, 100, usize::MAX] {
            let mut replies = NativeReplies::default();
            let mut found = Vec::new();
            for mut part in bytes.chunks(piece.min(bytes.len())) {
                while let Some(reply) = replies.next(&mut part).expect("replies") {
                    found.push(reply);
                }
                assert!(part.is_empty());
            }
            assert_eq!((found.as_slice(), replies.text().as_str()), (&expected[..], "what?"));
        }
        assert!(NativeReplies::default().next(&mut &[b'x'; 100][..]).is_err());
    }

    #[test]
    fn requests_are_what_a_node_reads() {
        for operation in [Operation::Get, Operation::Set] {
            let mut bytes = Vec::new();
            append(77, operation, b"key", b"value", &mut bytes);
            let limits = NativeLimits { value_bytes_max: 100 };
            let step = NativeParser::default().next(&limits, &bytes);
            let NativeParsed::Request(head, request) = step.parsed else { panic!("{step:?}") };
            assert_eq!((head.id, request.key().expect("a key").record), (77, &b"key"[..]));
            let value_bytes = if operation == Operation::Set { 5 } else { 0 };
            assert_eq!(request.value_bytes(), value_bytes);
        }
    }
}
