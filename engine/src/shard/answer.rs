//! What an operation found and did, for whoever tells a client of it.

use super::locate::Located;
use crate::cache::CachedItem;
use crate::entry::Metadata;
use crate::entry::state::{STALE, WIN_SENT};
use crate::large::LargeValue;
use crate::operation::{Decision, Effect, Lease, Operation, Outcome, Read};

/// What an operation found and did, borrowed for the time of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// What happened.
    pub outcome: Outcome,
    /// The item's metadata after the operation.
    pub metadata: Metadata,
    /// The value, if it was asked for; with [`Outcome::Large`] what stands for it, a
    /// [`LargeValue`](crate::large::LargeValue).
    pub value: &'a [u8],
    /// The value's length in bytes, known also when the value was not asked for, or is large.
    pub value_len: usize,
    /// What a reader is told about recaching.
    pub lease: Lease,
    /// Unix second of the last access before this one; `now` if it is not known.
    pub last_access: u32,
    /// Whether the item was read before, as far as the cache remembers.
    pub fetched: bool,
}

impl<'a> Answer<'a> {
    /// The answer of this outcome where there is no item.
    pub fn nothing(outcome: Outcome, now: u32) -> Self {
        Self {
            outcome,
            metadata: Metadata::default(),
            value: &[],
            value_len: 0,
            lease: Lease::default(),
            last_access: now,
            fetched: false,
        }
    }

    pub(super) fn of_cached(item: &CachedItem, value: &'a [u8], read: &Read) -> Self {
        let state = if read.leases { item.metadata.state } else { 0 };
        let (stale, already_sent) = (state & STALE != 0, state & WIN_SENT != 0);
        let is_large = item.metadata.is_large();
        Self {
            outcome: if is_large && read.value { Outcome::Large } else { Outcome::Hit },
            metadata: item.metadata,
            value: if read.value { value } else { &[] },
            value_len: shown_len(&item.metadata, value),
            lease: Lease { won: false, stale, already_sent },
            last_access: item.last_access,
            fetched: item.fetched,
        }
    }

    /// The same without the value; its length stays known.
    pub fn without_value(&self) -> Answer<'static> {
        Answer { value: &[], ..*self }
    }

    /// The same with `value`.
    pub fn with_value<'v>(&self, value: &'v [u8]) -> Answer<'v> {
        Answer { value, ..*self }
    }
}

/// The length of the value of an item with this metadata, which has this in the index or cache.
pub(super) fn shown_len(metadata: &Metadata, value: &[u8]) -> usize {
    if !metadata.is_large() {
        return value.len();
    }
    LargeValue::decode(value).map_or(0, |large| large.len as usize)
}

/// An answer that owns its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerBuf {
    answer: Answer<'static>,
    value: Vec<u8>,
}

impl AnswerBuf {
    /// `answer` with `value`.
    pub fn with_value(answer: &Answer<'_>, value: Vec<u8>) -> Self {
        Self { answer: answer.without_value(), value }
    }

    pub(super) fn new(
        operation: &Operation<'_>,
        decision: &Decision<'_>,
        located: Located,
        now: u32,
    ) -> Self {
        let value_len = match &decision.effect {
            Effect::Put(metadata, value) => shown_len(metadata, value),
            Effect::None | Effect::Remark(_) | Effect::Remove => located.shown_len(),
        };
        let answer = Answer {
            outcome: decision.outcome,
            metadata: decision.metadata,
            value: &[],
            value_len,
            lease: decision.lease,
            last_access: located.last_access.unwrap_or(now),
            fetched: located.fetched,
        };
        let is_shown = matches!(operation, Operation::Read(read) if read.value)
            && matches!(decision.effect, Effect::None | Effect::Remark(_));
        let value = located.value.filter(|_| is_shown).unwrap_or_default();
        Self { answer, value }
    }

    /// The answer.
    pub fn as_answer(&self) -> Answer<'_> {
        self.answer.with_value(&self.value)
    }

    /// The answer without its value, and the value.
    pub fn into_parts(self) -> (Answer<'static>, Vec<u8>) {
        (self.answer, self.value)
    }

    /// How long the value is that it holds, in bytes.
    pub fn value_bytes(&self) -> usize {
        self.value.len()
    }
}
