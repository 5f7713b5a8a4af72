//! What a client wants and what it is told, in the words of no protocol.

use std::borrow::Cow;
use std::sync::Arc;

use larder_engine::error::EngineError;
use larder_engine::key::Key;
use larder_engine::keyed::{KeyedItems, KeyedPage};
use larder_engine::large::{CHUNK_BYTES_MAX, LargeAnswer, LargeRequest, LargeStep};
use larder_engine::operation::{Need, Operation, Outcome};
use larder_engine::scan::{Page, PageItem, Scan};
use larder_engine::shard::{
    Acknowledgement, Announced, Answer, AnswerBuf, BatchAnswer, BatchStep, ItemBatch, LeaseGiven,
    Once,
};

use crate::counters::{ConnectionList, CoreReport, Kind};
use crate::events::EventKinds;
use crate::limits::{LOG_RECORD_BYTES, PAGE_ITEM_BYTES};
use crate::namespaces::{NamespaceChanged, NamespaceRequest};
use crate::prefixes::PrefixCounts;

/// What one shard is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemRequest<'a> {
    /// The item's key.
    pub key: Key<'a>,
    /// What happens to the item.
    pub operation: Operation<'a>,
    /// As what it counts.
    pub kind: Kind,
    /// When nobody waits for the answer any more, on the clock that cores share, in nanoseconds: it
    /// is not begun then.
    pub deadline: Option<u64>,
    /// When the answer may be given.
    pub acknowledgement: Acknowledgement,
    /// Whether the old item goes if there is no room for the new one, or if that is too long: it
    /// was to be replaced, so what is there is stale.
    pub replaces: bool,
}

/// What one shard is to do that is not about one item. It owns what it needs, and tasks carry it
/// out: it may take long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRequest {
    /// The shard.
    pub shard: u16,
    /// As [`ItemRequest::deadline`].
    pub deadline: Option<u64>,
    /// As [`ItemRequest::acknowledgement`].
    pub acknowledgement: Acknowledgement,
    /// What it is.
    pub work: ShardWork,
}

/// What a shard is to do besides operations on single items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardWork {
    /// Show items in order.
    Page(Scan),
    /// Show items by a list of their keys.
    Keyed(KeyedItems),
    /// Change several items, all or none.
    Batch(ItemBatch),
    /// Delete the items that a page would show; once, if that is said.
    DeleteRange(Scan, Option<Once>),
    /// Keep the moment for so many nanoseconds.
    BeginLease(u64),
    /// Keep the moment of this lease no longer.
    EndLease(u64),
    /// Do a step on the way of a large value.
    Large(LargeRequest),
}

impl ShardRequest {
    /// This work, whose answer is given when the shard's durability says.
    pub fn new(shard: u16, deadline: Option<u64>, work: ShardWork) -> Self {
        Self { shard, deadline, acknowledgement: Acknowledgement::Configured, work }
    }

    /// The memory that it has, in bytes.
    pub fn memory(&self) -> usize {
        let work = match &self.work {
            ShardWork::Page(scan) => scan.memory(),
            ShardWork::DeleteRange(scan, once) => {
                scan.memory() + once.as_ref().map_or(0, |once| once.token.len())
            }
            ShardWork::Keyed(keyed) => keyed.memory(),
            ShardWork::Batch(batch) => batch.memory(),
            ShardWork::BeginLease(_) | ShardWork::EndLease(_) => 0,
            ShardWork::Large(step) => step.memory(),
        };
        size_of::<Self>() + work
    }

    /// What it may append to the log, in bytes; `None` if it only reads.
    pub fn log_bytes(&self) -> Option<usize> {
        match &self.work {
            ShardWork::Page(_)
            | ShardWork::Keyed(_)
            | ShardWork::BeginLease(_)
            | ShardWork::EndLease(_) => None,
            ShardWork::DeleteRange(scan, once) => {
                let records = 1 + usize::from(once.is_some());
                Some(records * LOG_RECORD_BYTES + scan.memory())
            }
            ShardWork::Batch(batch) => {
                Some(batch.value_bytes() + batch.steps.len() * LOG_RECORD_BYTES)
            }
            ShardWork::Large(step) if step.only_reads() => None,
            // Of the item, and of the upload.
            ShardWork::Large(step) => Some(step.memory() + 2 * LOG_RECORD_BYTES),
        }
    }

    /// How long the answer may be expected to be, in bytes. `unknown` stands for the first value of
    /// a page, which comes however long it is.
    pub fn reply_bytes(&self, unknown: usize) -> usize {
        let scan = match &self.work {
            ShardWork::Page(scan) => scan,
            ShardWork::Keyed(keyed) => &keyed.limits,
            // What is there of an item may have to be read to change it.
            ShardWork::Batch(batch) => {
                let of_step = |step: &BatchStep| match step.operation.as_operation().need() {
                    Need::Value => unknown,
                    Need::Nothing | Need::Metadata => 0,
                };
                let read = batch.steps.iter().map(of_step).fold(0, usize::saturating_add);
                return batch.memory() + read.min(batch.value_bytes_max);
            }
            ShardWork::Large(large) => {
                let is_chunk = matches!(large.step, LargeStep::GetChunk { .. });
                return if is_chunk { CHUNK_BYTES_MAX } else { large.memory() };
            }
            ShardWork::DeleteRange(..) | ShardWork::BeginLease(_) | ShardWork::EndLease(_) => {
                return 0;
            }
        };
        let value = if scan.keys_only { 0 } else { scan.value_bytes_max.min(unknown) };
        let items = scan.items_max.saturating_mul(PAGE_ITEM_BYTES);
        scan.bytes_max.max(value).saturating_add(items)
    }
}

/// What one shard is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyRequest<'a> {
    /// An operation on an item.
    Item(ItemRequest<'a>),
    /// Something else.
    Shard(&'a Arc<ShardRequest>),
}

/// What a shard answers to a [`ShardRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardAnswer {
    /// Items in order, and the memory that they take, in bytes.
    Page(Page, usize),
    /// Items by their keys, and the same.
    Keyed(KeyedPage, usize),
    /// What became of a batch.
    Batch(BatchAnswer),
    /// The range is deleted.
    Deleted,
    /// The moment is kept.
    Leased(LeaseGiven),
    /// It is kept no longer.
    LeaseEnded,
    /// What became of a step on the way of a large value.
    Large(LargeAnswer),
}

impl ShardAnswer {
    /// A page.
    pub fn page(page: Page) -> Self {
        let bytes = page.items.iter().map(PageItem::memory).sum();
        Self::Page(page, bytes)
    }

    /// A page by keys.
    pub fn keyed(page: KeyedPage) -> Self {
        let bytes = page.items.iter().map(PageItem::memory).sum();
        Self::Keyed(page, bytes)
    }

    /// The memory that it takes, in bytes.
    pub fn memory(&self) -> usize {
        match self {
            Self::Page(_, bytes) | Self::Keyed(_, bytes) => *bytes,
            Self::Batch(BatchAnswer::Done(answers)) => {
                let values: usize = answers.iter().map(AnswerBuf::value_bytes).sum();
                size_of_val(answers.as_slice()) + values
            }
            Self::Large(LargeAnswer::Chunk(bytes)) => bytes.capacity(),
            Self::Batch(BatchAnswer::Refused { .. } | BatchAnswer::OtherRequest)
            | Self::Deleted
            | Self::Large(_)
            | Self::Leased(_)
            | Self::LeaseEnded => 0,
        }
    }
}

/// The time of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// In Unix seconds.
    pub second: u32,
    /// On the clock that cores share and nobody sets, in nanoseconds.
    pub nanoseconds: u64,
}

/// Where a request goes: computed once, and carried.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The shard that owns the key.
    pub shard: u16,
    /// What the shard computed of the key, if it is one of this core's and was told before.
    pub announced: Option<Announced>,
}

/// What the whole node is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeRequest {
    /// Drop every item of the default namespace, now or at a Unix second. Then what is stored in
    /// that second goes as well.
    Clear(Option<u32>),
    /// Tell each core's figures, and perhaps set its counters to zero.
    Reports {
        /// Whether counters are set to zero.
        reset: bool,
    },
    /// Change a namespace.
    Namespace(NamespaceRequest),
    /// List the connections.
    Connections,
    /// Begin to count requests by prefix, or end it.
    CountPrefixes(bool),
    /// Values in memory have at most so many bytes from now on, as far as there is room for them.
    LimitValues(u64),
    /// Tell what was counted.
    Prefixes,
    /// Log more or less: 0 is warnings, 1 what is usual, 2 and 3 ever more.
    LogLevel(u32),
    /// Tell the connection from now on what happens, and take no more requests of it.
    Watch(EventKinds),
    /// Stop.
    Stop,
}

impl NodeRequest {
    /// Whether all cores have to be asked.
    pub fn asks_all_cores(&self) -> bool {
        match self {
            Self::Clear(_)
            | Self::Reports { .. }
            | Self::Connections
            | Self::CountPrefixes(_)
            | Self::LimitValues(_)
            | Self::Prefixes
            | Self::Watch(_) => true,
            Self::Namespace(_) | Self::LogLevel(_) | Self::Stop => false,
        }
    }
}

/// What the whole node answers.
#[derive(Clone, Debug)]
pub enum NodeAnswer {
    /// The items are gone, or will be.
    Cleared,
    /// The figures, by core, at a Unix second.
    Reports(Vec<CoreReport>, u32),
    /// What became of a namespace.
    Namespace(NamespaceChanged),
    /// The connections.
    Connections(ConnectionList),
    /// What was counted, by prefix.
    Prefixes(Vec<(Box<[u8]>, PrefixCounts)>),
    /// It is done.
    Done,
    /// Nothing more may be watched from that core.
    TooManyWatchers,
    /// It will stop.
    Stopping,
}

impl NodeAnswer {
    /// The memory that it takes, in bytes.
    pub fn memory(&self) -> usize {
        match self {
            Self::Reports(reports, _) => reports.iter().map(CoreReport::memory).sum(),
            Self::Connections(list) => list.memory(),
            Self::Prefixes(prefixes) => prefix_memory(prefixes),
            // Of namespaces all answers have one list.
            Self::Namespace(_)
            | Self::Cleared
            | Self::Done
            | Self::TooManyWatchers
            | Self::Stopping => 0,
        }
    }
}

/// The memory that counted prefixes take, in bytes.
pub fn prefix_memory(prefixes: &[(Box<[u8]>, PrefixCounts)]) -> usize {
    size_of_val(prefixes) + prefixes.iter().map(|(prefix, _)| prefix.len()).sum::<usize>()
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The bytes of the key cannot be read back.
    Damaged,
    /// There is no room for the value.
    Full,
    /// The shard has seen a failed write and takes no more.
    Stopped,
    /// Too many wait for the same.
    Busy,
    /// There is no such namespace any more.
    NoNamespace,
    /// The namespace has all the space that it may have.
    OverQuota,
    /// The record has as much as a record of its namespace may have.
    RecordFull,
    /// The device would not give the bytes.
    ReadFailed,
    /// The deadline was past before the work had begun.
    TooLate,
    /// The lease has ended.
    LeaseEnded,
}

impl From<&EngineError> for NoAnswer {
    fn from(error: &EngineError) -> Self {
        match error {
            EngineError::Damaged { .. } => Self::Damaged,
            EngineError::Full => Self::Full,
            EngineError::Stopped(_) | EngineError::Open(_) => Self::Stopped,
            EngineError::NoNamespace(_) => Self::NoNamespace,
            EngineError::OverQuota(_) => Self::OverQuota,
            EngineError::RecordFull(_) => Self::RecordFull,
            EngineError::LeaseEnded => Self::LeaseEnded,
            EngineError::TooManyLeases | EngineError::RecordChanging(_) => Self::Busy,
            EngineError::Read(_) => Self::ReadFailed,
        }
    }
}

/// An answer on its way to its connection, and its value or where that lies. It is short: it is
/// passed on several times before it is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedAnswer<'a> {
    /// The answer without its value.
    pub answer: &'a Answer<'static>,
    /// The value.
    pub value: Cow<'a, [u8]>,
}

impl CarriedAnswer<'_> {
    /// Whether it is an error to a protocol that has no large values, so that nothing more is sent
    /// of its group.
    pub fn is_large(&self) -> bool {
        self.answer.outcome == Outcome::Large
    }

    /// The same with a value of its own.
    pub fn into_buf(self) -> AnswerBuf {
        AnswerBuf::with_value(self.answer, self.value.into_owned())
    }
}

/// How a request that had to wait has ended.
#[derive(Clone, Debug)]
pub enum Answered {
    /// What became of the item.
    Item(AnswerBuf),
    /// What the shard did besides.
    Shard(ShardAnswer),
    /// What the whole node says.
    Node(NodeAnswer),
    /// Nothing did.
    Failed(NoAnswer),
}

impl Answered {
    /// Bytes of what it brings.
    pub fn value_bytes(&self) -> usize {
        match self {
            Self::Item(answer) => answer.value_bytes(),
            Self::Shard(answer) => answer.memory(),
            Self::Node(answer) => answer.memory(),
            Self::Failed(_) => 0,
        }
    }

    /// Whether it is a failure, or is one to some protocols: see [`CarriedAnswer::is_large`].
    pub fn is_failed(&self) -> bool {
        match self {
            Self::Failed(_) => true,
            Self::Item(answer) => answer.as_answer().outcome == Outcome::Large,
            Self::Shard(_) | Self::Node(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(work: ShardWork) -> ShardRequest {
        ShardRequest::new(0, None, work)
    }

    #[test]
    fn a_page_is_expected_to_be_as_long_as_its_limits_and_its_first_value_allow() {
        let mut scan = Scan::of_record(0, b"record");
        (scan.items_max, scan.bytes_max) = (10, 5000);
        let bytes = |scan: &Scan, unknown| {
            let work = ShardWork::Page(scan.clone());
            request(work).reply_bytes(unknown)
        };
        let items = 10 * PAGE_ITEM_BYTES;
        assert_eq!((bytes(&scan, 0), bytes(&scan, 9000)), (5000 + items, 9000 + items));
        scan.value_bytes_max = 6000;
        assert_eq!(bytes(&scan, 9000), 6000 + items);
        scan.keys_only = true;
        assert_eq!(bytes(&scan, 9000), 5000 + items);
        scan.bytes_max = usize::MAX;
        assert_eq!(bytes(&scan, 9000), usize::MAX);
    }

    #[test]
    fn what_an_answer_and_a_request_hold_is_counted() {
        let item = |value| PageItem {
            record: vec![0; 100],
            item: vec![0; 200],
            metadata: Default::default(),
            value_len: 5000,
            value,
            last_use: None,
        };
        let page = |value| Page { items: vec![item(value)], ..Page::default() };
        let without = ShardAnswer::page(page(None)).memory();
        assert!((300..1000).contains(&without), "{without}");
        assert_eq!(ShardAnswer::page(page(Some(vec![0; 5000]))).memory(), without + 5000);
        let prefixes = NodeAnswer::Prefixes(vec![(vec![0; 300].into(), PrefixCounts::default())]);
        assert!(Answered::Node(prefixes).value_bytes() > 300);
        assert_eq!(Answered::Node(NodeAnswer::Done).value_bytes(), 0);
        let memory = |record: &[u8]| {
            let work = ShardWork::Page(Scan::of_record(0, record));
            request(work).memory()
        };
        assert!(memory(&[1; 1000]) >= memory(b"r") + 999);
    }
}
