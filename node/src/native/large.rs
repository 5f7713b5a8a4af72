//! Large values: what their steps ask a shard for, and what is answered.

use std::sync::atomic::{AtomicU64, Ordering};

use larder_engine::key::{route_hash, shard_of_hash};
use larder_engine::large::{LargeAnswer, LargeRefusal, LargeRequest, LargeStep};
use larder_engine::operation::{Operation, Store, StoreMode};
use larder_engine::shard::OperationBuf;
use larder_protocol::native::reply::{self, ReplyHead};
use larder_protocol::native::{LargeHead, LargeItem, LargeWork, NativeStatus, StoreWhen};

use super::key_of;
use super::records::{Fault, settings_of};
use super::statuses::{put_refused, refused};
use crate::namespaces::NamespaceView;
use crate::namespaces::rules::{ItemRules, expiry_of};
use crate::request::{ShardRequest, ShardWork};

/// A number that no other connection has. Cores have no more than this count in common, once for
/// each connection.
pub(super) fn connection_number() -> u64 {
    static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
    CONNECTIONS.fetch_add(1, Ordering::Relaxed)
}

/// What a step on the way of a large value asks of a shard of `shards`, at Unix second `now`, for
/// the connection that has the number `client`.
pub(super) fn asked(
    large: &LargeItem<'_>,
    (namespaces, shards): (&NamespaceView, u16),
    (now, deadline): (u32, Option<u64>),
    client: u64,
) -> Result<ShardRequest, Fault> {
    let LargeItem { key, work } = large;
    let settings = settings_of(namespaces, key.namespace)?;
    let step = match *work {
        LargeWork::Stage { len } => LargeStep::Stage { len },
        LargeWork::PutChunk { upload, index, bytes } => {
            LargeStep::PutChunk { upload, index, bytes: bytes.to_vec() }
        }
        LargeWork::Commit { upload, .. } => {
            let store = store_of(large, ItemRules::of(&settings), now);
            LargeStep::Commit { upload, store: OperationBuf::new(&Operation::Store(store)) }
        }
        LargeWork::Abort { upload } => LargeStep::Abort { upload },
        LargeWork::GetChunk { upload, index } => LargeStep::GetChunk { upload, index },
    };
    let (record, item) = (key.record.to_vec(), key.item.to_vec());
    let request = LargeRequest { client, namespace: key.namespace, record, item, step };
    let shard = shard_of_hash(route_hash(key.record), shards);
    Ok(ShardRequest::new(shard, deadline, ShardWork::Large(request)))
}

/// The store that a commit is.
fn store_of(large: &LargeItem<'_>, rules: ItemRules, now: u32) -> Store<'static> {
    let LargeWork::Commit { when, client_flags, ttl, .. } = large.work else {
        panic!("only a commit stores: {large:?}");
    };
    let (mode, compare) = match when {
        StoreWhen::Always => (StoreMode::Set, None),
        StoreWhen::IfAbsent => (StoreMode::Add, None),
        StoreWhen::IfPresent => (StoreMode::Replace, None),
        StoreWhen::IfVersion(version) => (StoreMode::Set, Some(version)),
    };
    let expiry = expiry_of(rules, &key_of(large.key), ttl, now);
    Store { client_flags, expiry, compare, is_large: true, ..Store::plain(mode, b"") }
}

/// Appends the reply to a step. `wants_item` says whether a commit demanded that there is an item.
pub(super) fn put(head: ReplyHead, wants_item: bool, answer: &LargeAnswer, out: &mut Vec<u8>) {
    match answer {
        LargeAnswer::Staged(large) => {
            let (upload, len, chunk_bytes) = (large.upload, large.len, large.chunk_bytes);
            let bytes = LargeHead { upload, len, chunk_bytes }.bytes();
            reply::put(out, head, NativeStatus::Ok, |out| out.extend_from_slice(&bytes));
        }
        LargeAnswer::Done => super::put_status(out, head, NativeStatus::Ok),
        LargeAnswer::Committed(version) => reply::put_version(out, head, *version),
        LargeAnswer::Chunk(bytes) => {
            reply::put(out, head, NativeStatus::Ok, |out| out.extend_from_slice(bytes));
        }
        LargeAnswer::Refused(refusal) => put_refusal(head, wants_item, *refusal, out),
    }
}

fn put_refusal(head: ReplyHead, wants_item: bool, refusal: LargeRefusal, out: &mut Vec<u8>) {
    let (status, reason) = match refusal {
        LargeRefusal::Length => (
            NativeStatus::TooLarge,
            "a large value has at least a byte, and no more than `large_bytes_max` of the hello \
             and its namespace allow",
        ),
        LargeRefusal::TooManyStaged => (
            NativeStatus::Busy,
            "too many large values are staged, or too long ones, by this connection, in this \
             namespace or in all: commit or abort some, or wait until some are over",
        ),
        LargeRefusal::WrongChunk => (
            NativeStatus::Malformed,
            "the value has no such chunk, or the chunk has another length",
        ),
        LargeRefusal::Missing(index) => {
            return reply::put_refused_change(
                out,
                head,
                NativeStatus::MissingChunk,
                index as usize,
            );
        }
        LargeRefusal::NoUpload => (NativeStatus::NoUpload, NativeStatus::NoUpload.text()),
        LargeRefusal::Changed => return super::put_status(out, head, NativeStatus::Changed),
        LargeRefusal::Condition(outcome) => {
            let status = refused(outcome, wants_item).unwrap_or(NativeStatus::Internal);
            return put_refused(out, head, status);
        }
    };
    reply::put_error(out, head, status, reason);
}
