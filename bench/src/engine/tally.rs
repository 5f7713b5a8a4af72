//! What became of the operations of a run, beside their latencies.

use larder_engine::error::EngineError;

use super::expectations::Found;
use crate::load::ErrorSummary;

/// What can be wrong with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// What was read is not what was stored.
    WrongValue,
    /// The write was refused because the disk is full.
    Full,
    /// The stored bytes are damaged.
    Damaged,
    /// Any other error of the engine.
    Other,
}

impl Failure {
    const ALL: [Self; 4] = [Self::WrongValue, Self::Full, Self::Damaged, Self::Other];

    pub(super) fn of(error: &EngineError) -> Self {
        match error {
            EngineError::Full => Self::Full,
            EngineError::Damaged { .. } => Self::Damaged,
            EngineError::Stopped(_)
            | EngineError::NoNamespace(_)
            | EngineError::OverQuota(_)
            | EngineError::RecordFull(_)
            | EngineError::RecordChanging(_)
            | EngineError::LeaseEnded
            | EngineError::TooManyLeases
            | EngineError::Read(_)
            | EngineError::Open(_) => Self::Other,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::WrongValue => "wrong value",
            Self::Full => "disk full",
            Self::Damaged => "damaged",
            Self::Other => "engine error",
        }
    }
}

/// Counts of one thread, or of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Stores that were acknowledged.
    pub(super) stored: u64,
    /// Reads and deletes that found their key.
    pub(super) found: u64,
    /// Reads and deletes that did not.
    pub(super) missed: u64,
    /// Items of pages.
    pub(super) scanned: u64,
    /// Bytes of their keys and values.
    pub(super) scanned_bytes: u64,
    failures: [(u64, Option<String>); Failure::ALL.len()],
}

impl Tally {
    pub(super) fn note_found(&mut self, found: &Found) {
        match found {
            Found::Nothing => self.missed += 1,
            Found::Version(_) | Found::Item | Found::Foreign(_) => self.found += 1,
        }
    }

    /// Counts a failure; `text` is asked for only if it is the first of its kind.
    pub(super) fn fail(&mut self, failure: Failure, text: impl FnOnce() -> String) {
        let (count, first) = &mut self.failures[failure as usize];
        *count += 1;
        first.get_or_insert_with(text);
    }

    pub(super) fn add(&mut self, other: Self) {
        self.stored += other.stored;
        self.found += other.found;
        self.missed += other.missed;
        self.scanned += other.scanned;
        self.scanned_bytes += other.scanned_bytes;
        for ((count, first), (more, other_first)) in self.failures.iter_mut().zip(other.failures) {
            *count += more;
            *first = first.take().or(other_first);
        }
    }

    /// How often a failure occurred, and the first one's text.
    pub(super) fn failure(&self, failure: Failure) -> (u64, &str) {
        let (count, first) = &self.failures[failure as usize];
        (*count, first.as_deref().unwrap_or_default())
    }

    /// Failures by kind; kinds that did not occur are left out.
    pub(super) fn errors(&self) -> Vec<ErrorSummary> {
        let summary = |failure: Failure| {
            let (count, first) = self.failure(failure);
            let (kind, first) = (failure.name(), first.to_owned());
            (count > 0).then_some(ErrorSummary { kind, count, first })
        };
        Failure::ALL.into_iter().filter_map(summary).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_kind_with_the_first_text() {
        let (mut one, mut two) = (Tally::default(), Tally::default());
        one.note_found(&Found::Nothing);
        two.note_found(&Found::Item);
        two.fail(Failure::of(&EngineError::Full), || "no room".to_owned());
        two.fail(Failure::Full, || "again".to_owned());
        one.add(two);
        assert_eq!((one.found, one.missed), (1, 1));
        assert_eq!(one.failure(Failure::Full), (2, "no room"));
        let errors = one.errors();
        assert_eq!((errors.len(), errors[0].kind, errors[0].count), (1, "disk full", 2));
        for (index, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, index, "{}", failure.name());
        }
    }
}
