//! Batches that are done once, however often they come.
//!
//! A client that has no reply sends its request again, and does not know whether the first one was
//! done. So it names each request by a token, and a batch that is done leaves an item under that
//! name, in the same frame: what was answered. Who comes with the token again gets that answer,
//! also after a crash, as long as the item lives. What was refused leaves nothing: it is decided
//! anew. Of an item that was touched it is kept that it was: it is shown as it is.
//!
//! The items are in a namespace that no user has, and go when they expire.

use super::answer::{Answer, AnswerBuf};
use crate::key::{ITEM_BYTES_MAX, Key, RESERVED_NAMESPACES};
use crate::operation::Outcome;

/// The namespace of what was answered.
pub(super) const ONCE_NAMESPACE: u32 = *RESERVED_NAMESPACES.end() - 1;

const RECORD: &[u8] = b"tokens";

const FINGERPRINT_BYTES: usize = 4;

/// Bytes that an answer takes: what became of the item, its version, and a number.
pub(super) const ANSWER_BYTES: usize = 17;

/// What makes a batch known again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// The token, at most [`ITEM_BYTES_MAX`] bytes. The same number of bytes each time, those that
    /// say when first: then what expires together is stored together.
    pub token: Vec<u8>,
    /// A checksum of what is asked for: a token is good for one request.
    pub fingerprint: u32,
    /// The Unix second until which it is known.
    pub expiry: u32,
}

impl Once {
    /// The encoded key under which the answer is found.
    ///
    /// # Panics
    ///
    /// If the token is too long.
    pub(super) fn key(&self) -> Vec<u8> {
        assert!(self.token.len() <= ITEM_BYTES_MAX, "a token of {} bytes", self.token.len());
        Key { namespace: ONCE_NAMESPACE, record: RECORD, item: &self.token }.encode()
    }

    /// The value that keeps these answers.
    pub(super) fn value(&self, answers: &[AnswerBuf]) -> Vec<u8> {
        let mut value = Vec::with_capacity(FINGERPRINT_BYTES + answers.len() * ANSWER_BYTES);
        value.extend_from_slice(&self.fingerprint.to_le_bytes());
        for answer in answers {
            let answer = answer.as_answer();
            let (code, number) = match answer.outcome {
                Outcome::Hit | Outcome::Large => (0, 0),
                Outcome::Stored => (1, 0),
                Outcome::Deleted => (2, 0),
                Outcome::NotFound => (3, 0),
                Outcome::Number(number) => (4, number),
                other => unreachable!("{other:?} lets a batch fail"),
            };
            value.push(code);
            value.extend_from_slice(&answer.metadata.version.to_le_bytes());
            value.extend_from_slice(&number.to_le_bytes());
        }
        value
    }

    /// The answers that a value keeps; `None` if they are those to another request.
    pub(super) fn answers(&self, value: &[u8], now: u32) -> Option<Vec<AnswerBuf>> {
        let (fingerprint, answers) = value.split_first_chunk::<FINGERPRINT_BYTES>()?;
        let (answers, rest) = answers.as_chunks::<ANSWER_BYTES>();
        if u32::from_le_bytes(*fingerprint) != self.fingerprint || !rest.is_empty() {
            return None;
        }
        answers.iter().map(|bytes| answer(bytes, now)).collect()
    }
}

fn answer(bytes: &[u8; ANSWER_BYTES], now: u32) -> Option<AnswerBuf> {
    let (&code, numbers) = bytes.split_first()?;
    let (numbers, _) = numbers.as_chunks::<8>();
    let [version, number] = [0, 1].map(|at: usize| u64::from_le_bytes(numbers[at]));
    let outcome = match code {
        0 => Outcome::Hit,
        1 => Outcome::Stored,
        2 => Outcome::Deleted,
        3 => Outcome::NotFound,
        4 => Outcome::Number(number),
        _ => return None,
    };
    let mut answer = Answer::nothing(outcome, now);
    answer.metadata.version = version;
    Some(AnswerBuf::with_value(&answer, Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(fingerprint: u32) -> Once {
        Once { token: b"token".to_vec(), fingerprint, expiry: 1 }
    }

    fn with(outcome: Outcome, version: u64) -> AnswerBuf {
        let mut answer = Answer::nothing(outcome, 5);
        answer.metadata.version = version;
        AnswerBuf::with_value(&answer, Vec::new())
    }

    #[test]
    fn answers_are_kept_as_they_were() {
        let answers = vec![
            with(Outcome::Stored, 7),
            with(Outcome::Number(u64::MAX), 8),
            with(Outcome::Deleted, 0),
            with(Outcome::NotFound, 0),
            with(Outcome::Hit, 3),
        ];
        let value = once(9).value(&answers);
        assert_eq!(once(9).answers(&value, 5), Some(answers));
        assert_eq!(once(8).answers(&value, 5), None, "it is another request");
        assert_eq!(once(9).answers(&value[..value.len() - 1], 5), None);
        assert_eq!(once(9).answers(&[9, 0, 0], 5), None);
        let mut unknown = value;
        unknown[FINGERPRINT_BYTES] = 5;
        assert_eq!(once(9).answers(&unknown, 5), None);
        assert_eq!(once(9).answers(&once(9).value(&[]), 5), Some(vec![]));
    }
}
