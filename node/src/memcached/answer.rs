//! What the engine found and did, as bytes for the client.

use larder_engine::operation::Outcome;
use larder_engine::shard::Answer;
use larder_protocol::memcached::reply::{self, ArithmeticReply, DeleteReply, StoreReply};
use larder_protocol::memcached::{ITEM_OVERHEAD_BYTES, KeyScratch, Request, error};
use larder_protocol::sink::ReplySink;

use super::command::Command;
use crate::request::NoAnswer;

/// The bytes of this key cannot be read back.
pub const DAMAGED: &str = "SERVER_ERROR stored data of this key is damaged";
/// The shard has seen a failed write.
pub const STOPPED: &str = "SERVER_ERROR the shard has stopped taking writes";
/// The device would not give the bytes.
pub const READ_FAILED: &str = "SERVER_ERROR reading from the disk failed";
/// The value is longer than this protocol has values.
pub const LARGE: &str = "SERVER_ERROR the value is large; read it in chunks on the native port";

/// Appends the answer to `command`, which came with a value of `value_bytes` and was done at Unix
/// second `now`. A command that has waited has its value no more.
pub fn put<S: ReplySink>(
    out: &mut S,
    command: &Command<'_>,
    value_bytes: usize,
    answer: &Answer<'_>,
    now: u32,
) {
    let request = match command {
        Command::Request(request) => request,
        Command::Drop { reply, is_suppressed, .. } | Command::Line { reply, is_suppressed } => {
            if !is_suppressed {
                reply::line(out.bytes(), reply);
            }
            return;
        }
    };
    let error = match answer.outcome {
        Outcome::NotNumeric => Some(error::NON_NUMERIC),
        Outcome::TooLarge => Some(error::TOO_LARGE),
        Outcome::Large => Some(LARGE),
        _ => None,
    };
    if let Some(error) = error {
        if !command.is_noreply() {
            reply::line(out.bytes(), error);
        }
        return;
    }
    match request {
        Request::Get(get) => {
            if answer.outcome == Outcome::Hit {
                let (flags, version) = (answer.metadata.client_flags, answer.metadata.version);
                reply::value(out, get, flags, version, answer.value);
            }
        }
        Request::Store(store) => reply::stored(out.bytes(), stored(answer.outcome), store.noreply),
        Request::Delete(delete) => {
            let is_deleted = answer.outcome == Outcome::Deleted;
            put_unless(out.bytes(), delete.noreply, is_deleted, reply::DELETED);
        }
        Request::Touch(touch) => {
            let is_touched = answer.outcome == Outcome::Hit;
            put_unless(out.bytes(), touch.noreply, is_touched, reply::TOUCHED);
        }
        Request::Arithmetic(arithmetic) => match answer.outcome {
            Outcome::Number(number) if !arithmetic.noreply => reply::number(out.bytes(), number),
            _ => put_unless(out.bytes(), arithmetic.noreply, false, b""),
        },
        _ => put_meta(out, request, value_bytes, answer, now),
    }
}

fn put_unless(out: &mut Vec<u8>, noreply: bool, is_done: bool, done: &[u8]) {
    if !noreply {
        out.extend_from_slice(if is_done { done } else { reply::NOT_FOUND });
    }
}

fn put_meta<S: ReplySink>(
    out: &mut S,
    request: &Request<'_>,
    value_bytes: usize,
    answer: &Answer<'_>,
    now: u32,
) {
    match request {
        Request::MetaGet(get) => match answer.outcome {
            Outcome::Hit => {
                let marks = reply::RecacheMarks {
                    is_won: answer.lease.won,
                    is_stale: answer.lease.stale,
                    is_already_won: answer.lease.already_sent,
                };
                reply::meta_hit(out, get, &item_view(answer, now), marks);
            }
            _ => reply::meta_miss(out.bytes(), get),
        },
        Request::MetaSet(set) => {
            let reply = stored(answer.outcome);
            let version = match reply {
                StoreReply::Stored => answer.metadata.version,
                StoreReply::Exists | StoreReply::NotStored | StoreReply::NotFound => 0,
            };
            let is_stored = reply == StoreReply::Stored;
            let value_bytes = if is_stored { answer.value_len } else { value_bytes };
            reply::meta_set(out.bytes(), set, reply, version, value_bytes);
        }
        Request::MetaDelete(delete) => {
            let reply = match answer.outcome {
                Outcome::Deleted => DeleteReply::Deleted,
                Outcome::Exists => DeleteReply::Exists,
                _ => DeleteReply::NotFound,
            };
            reply::meta_delete(out.bytes(), delete, reply);
        }
        Request::MetaArithmetic(arithmetic) => {
            let reply = match answer.outcome {
                Outcome::Number(number) => ArithmeticReply::Number {
                    number,
                    version: answer.metadata.version,
                    ttl_seconds: seconds_left(answer.metadata.expiry, now),
                },
                Outcome::Exists => ArithmeticReply::Exists,
                Outcome::NotStored => ArithmeticReply::NotStored,
                _ => ArithmeticReply::NotFound,
            };
            reply::meta_arithmetic(out.bytes(), arithmetic, reply);
        }
        Request::MetaDebug(debug) => {
            let key_bytes = debug.key.bytes(&mut KeyScratch::default()).len();
            let item_bytes = (key_bytes + answer.value_len + ITEM_OVERHEAD_BYTES) as u64;
            let view = reply::DebugView {
                ttl_seconds: seconds_left(answer.metadata.expiry, now),
                last_access_seconds: u64::from(now.saturating_sub(answer.last_access)),
                version: answer.metadata.version,
                is_fetched: answer.fetched,
                class: 1,
                item_bytes,
            };
            let is_hit = answer.outcome == Outcome::Hit;
            reply::meta_debug(out.bytes(), debug, is_hit.then_some(&view));
        }
        other => panic!("{other:?} has no key"),
    }
}

fn item_view<'a>(answer: &Answer<'a>, now: u32) -> reply::ItemView<'a> {
    reply::ItemView {
        value: answer.value,
        value_bytes: answer.value_len,
        client_flags: answer.metadata.client_flags,
        version: answer.metadata.version,
        ttl_seconds: seconds_left(answer.metadata.expiry, now),
        last_access_seconds: u64::from(now.saturating_sub(answer.last_access)),
        is_fetched: answer.fetched,
    }
}

fn stored(outcome: Outcome) -> StoreReply {
    match outcome {
        Outcome::Stored => StoreReply::Stored,
        Outcome::Exists => StoreReply::Exists,
        Outcome::NotFound => StoreReply::NotFound,
        _ => StoreReply::NotStored,
    }
}

fn seconds_left(expiry: u32, now: u32) -> i64 {
    if expiry == 0 { -1 } else { i64::from(expiry.saturating_sub(now)) }
}

/// Appends the answer to a command that failed, unless the client wants none.
pub fn put_failure(out: &mut Vec<u8>, command: &Command<'_>, failure: NoAnswer) {
    let text = match (command, failure) {
        (Command::Drop { reply, .. }, _) => reply,
        (_, NoAnswer::Damaged) => DAMAGED,
        // It is busy where others change a record with a limit too fast for it to be counted.
        (_, NoAnswer::Full | NoAnswer::OverQuota | NoAnswer::RecordFull | NoAnswer::Busy) => {
            error::OUT_OF_MEMORY_STORING
        }
        (_, NoAnswer::Stopped) => STOPPED,
        (_, NoAnswer::ReadFailed) => READ_FAILED,
        (_, NoAnswer::TooLate | NoAnswer::NoNamespace | NoAnswer::LeaseEnded) => {
            panic!("this protocol has no deadlines, and the default namespace: {failure:?}")
        }
    };
    if !command.is_noreply() {
        reply::line(out, text);
    }
}
