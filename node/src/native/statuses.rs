//! What became of an operation, in the protocol's statuses: pure.

use larder_engine::operation::Outcome;
use larder_protocol::native::reply::{self, ReplyHead};
use larder_protocol::native::{Group, NativeStatus};

use crate::request::NoAnswer;

/// The status that says why there is no answer.
pub(super) fn status_of(no_answer: NoAnswer) -> NativeStatus {
    match no_answer {
        NoAnswer::Damaged => NativeStatus::Damaged,
        NoAnswer::Full => NativeStatus::Full,
        NoAnswer::Stopped => NativeStatus::Stopped,
        NoAnswer::ReadFailed => NativeStatus::ReadFailed,
        NoAnswer::Busy => NativeStatus::Busy,
        NoAnswer::NoNamespace => NativeStatus::UnknownNamespace,
        NoAnswer::OverQuota => NativeStatus::OverQuota,
        NoAnswer::RecordFull => NativeStatus::RecordFull,
        NoAnswer::TooLate => NativeStatus::DeadlinePassed,
        NoAnswer::LeaseEnded => NativeStatus::LeaseEnded,
    }
}

/// The status of an operation that was not done; `None` if it was. `wants_item` says whether a put
/// demanded that there is an item.
pub(super) fn refused(outcome: Outcome, wants_item: bool) -> Option<NativeStatus> {
    Some(match outcome {
        Outcome::Hit | Outcome::Stored | Outcome::Deleted | Outcome::Number(_) => return None,
        Outcome::Miss | Outcome::NotFound => NativeStatus::Absent,
        Outcome::NotStored if wants_item => NativeStatus::Absent,
        Outcome::NotStored => NativeStatus::Exists,
        Outcome::Exists => NativeStatus::VersionDiffers,
        Outcome::ValueDiffers => NativeStatus::ValueDiffers,
        Outcome::NotNumeric => NativeStatus::NotANumber,
        Outcome::TooLarge => NativeStatus::TooLarge,
        Outcome::Large => NativeStatus::IsLarge,
    })
}

/// Appends a reply that says that an operation was not done; in words where the request is to be
/// mended.
pub(super) fn put_refused(out: &mut Vec<u8>, head: ReplyHead, status: NativeStatus) {
    let words = if status.group() == Group::FixRequest { status.text() } else { "" };
    reply::put_error(out, head, status, words);
}
