//! Changes of a record's items: what they ask a shard for, and what is answered.

use larder_engine::key::route_hash;
use larder_engine::key::shard_of_hash;
use larder_engine::operation::Outcome;
use larder_engine::scan::Scan;
use larder_engine::shard::{
    AnswerBuf, BATCH_STEPS_MAX, BatchAnswer, BatchStep, ItemBatch, OperationBuf,
};
use larder_protocol::native::reply::{self, Changed, ReplyHead};
use larder_protocol::native::{
    DeleteItems, Group, ItemRange, MUTATE_CHANGES_MAX, MutateRecord, NamespaceSettings,
    NativeRequest, NativeStatus, PutItem, PutMode,
};

use super::item_request;
use super::statuses::refused;
use crate::namespaces::NamespaceView;
use crate::namespaces::rules::ItemRules;
use crate::request::{ShardRequest, ShardWork};

const _: () = assert!(MUTATE_CHANGES_MAX <= BATCH_STEPS_MAX);

/// Why a request is refused before a shard is asked: the status, and words for people.
pub(super) type Fault = (NativeStatus, &'static str);

/// What of a mutation its reply needs: which of its changes demand that there is no item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mutation {
    if_absent: Box<[bool]>,
}

impl Mutation {
    /// What `mutate` asks of a shard of `shards`, at Unix second `now`. The values
    /// have together no more bytes than one may have.
    pub(super) fn asked(
        mutate: &MutateRecord<'_>,
        (shards, now): (u16, u32),
        value_bytes_max: usize,
        (namespaces, deadline): (&NamespaceView, Option<u64>),
    ) -> Result<ShardRequest, Fault> {
        let rules = ItemRules::of(&settings_of(namespaces, mutate.namespace)?);
        let mut steps = Vec::with_capacity(mutate.len());
        for change in mutate.changes() {
            let (Some(key), Some((operation, _))) =
                (change.key(), item_request(&change, now, rules))
            else {
                panic!("every change is of one item: {change:?}");
            };
            steps.push(BatchStep {
                namespace: key.namespace,
                record: key.record.to_vec(),
                item: key.item.to_vec(),
                operation: OperationBuf::new(&operation),
            });
        }
        let mut items: Vec<&[u8]> = steps.iter().map(|step| step.item.as_slice()).collect();
        items.sort_unstable();
        if items.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err((NativeStatus::Malformed, "two changes are of the same item"));
        }
        let shard = shard_of_hash(route_hash(mutate.record), shards);
        let batch = ItemBatch { value_bytes_max, steps, once: None };
        Ok(ShardRequest::new(shard, deadline, ShardWork::Batch(batch)))
    }

    /// What the reply to `mutate` needs.
    pub(super) fn of(mutate: &MutateRecord<'_>) -> Self {
        let is_if_absent = |change: NativeRequest<'_>| {
            matches!(change, NativeRequest::Put(PutItem { mode: PutMode::IfAbsent, .. }))
        };
        Self { if_absent: mutate.changes().map(is_if_absent).collect() }
    }

    /// The memory that it has besides its own size, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.if_absent.len()
    }

    /// Appends the reply.
    pub(super) fn put(&self, head: ReplyHead, answer: &BatchAnswer, out: &mut Vec<u8>) {
        match answer {
            BatchAnswer::Done(answers) => {
                reply::put_changed(out, head, answers.iter().map(changed));
            }
            BatchAnswer::OtherRequest => {
                super::once::put_other(head, out);
            }
            BatchAnswer::Refused { at, answer } => {
                let wants_item = !self.if_absent[*at];
                let status = refused(answer.as_answer().outcome, wants_item);
                match status.unwrap_or(NativeStatus::Internal) {
                    // As where the body is: in words.
                    status if status.group() == Group::FixRequest => {
                        let reason = format!("change {at}, counted from 0: {}", status.text());
                        reply::put_error(out, head, status, &reason);
                    }
                    status => reply::put_refused_change(out, head, status, *at),
                }
            }
        }
    }
}

fn changed(answer: &AnswerBuf) -> Changed {
    let answer = answer.as_answer();
    let version = answer.metadata.version;
    match answer.outcome {
        Outcome::Number(number) => Changed { version, number },
        Outcome::Stored | Outcome::Hit => Changed { version, number: 0 },
        _ => Changed::default(),
    }
}

/// What a deletion of a range asks of a shard of `shards`.
pub(super) fn deletion(
    delete: &DeleteItems<'_>,
    (namespaces, shards): (&NamespaceView, u16),
    deadline: Option<u64>,
) -> Result<ShardRequest, Fault> {
    let DeleteItems { namespace, record, range } = *delete;
    settings_of(namespaces, namespace)?;
    let shard = shard_of_hash(route_hash(record), shards);
    let work = ShardWork::DeleteRange(scan_of(namespace, record, range), None);
    Ok(ShardRequest::new(shard, deadline, work))
}

/// The items of a record that a range means.
pub(super) fn scan_of(namespace: u32, record: &[u8], range: ItemRange<'_>) -> Scan {
    match range {
        ItemRange::Prefix(prefix) => Scan::of_items(namespace, record, prefix),
        ItemRange::Between { from, to } => {
            let scan = Scan::of_record(namespace, record).from(record, from.unwrap_or(b""));
            match to {
                Some(to) => scan.below(record, to),
                None => scan,
            }
        }
    }
}

/// How a namespace is that a request names.
pub(super) fn settings_of(
    namespaces: &NamespaceView,
    namespace: u32,
) -> Result<NamespaceSettings, Fault> {
    let reason = "there is no such namespace: `default` is number 0, and a list tells the others";
    namespaces.settings(namespace).ok_or((NativeStatus::UnknownNamespace, reason))
}
