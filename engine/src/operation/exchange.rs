//! Changes that are made only if an item has a certain value.

use std::borrow::Cow;

use super::{Context, Current, Decision, Effect, Outcome, put_or_remove};
use crate::entry::Metadata;

/// A change that is made only if the item has a certain value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange<'a> {
    expected: &'a [u8],
    value: &'a [u8],
    /// How long the first of them is, also while it is kept elsewhere.
    expected_bytes: usize,
    /// The client flags and the Unix second of expiry (0 for never) of the new value; `None` if the
    /// item is to go, and there is no new value.
    stored: Option<(u32, u32)>,
}

impl<'a> Exchange<'a> {
    /// Stores `value` with these client flags and until this Unix second (0 for ever) in the place
    /// of `expected`.
    pub fn store(expected: &'a [u8], value: &'a [u8], client_flags: u32, expiry: u32) -> Self {
        let stored = Some((client_flags, expiry));
        Self { expected, value, expected_bytes: expected.len(), stored }
    }

    /// Deletes the item if its value is `expected`.
    pub fn delete(expected: &'a [u8]) -> Self {
        Self { expected, value: &[], expected_bytes: expected.len(), stored: None }
    }

    /// The value that the item must have, and the new one.
    pub fn values(&self) -> [&'a [u8]; 2] {
        [self.expected, self.value]
    }

    /// Whether it stores something.
    pub fn stores(&self) -> bool {
        self.stored.is_some()
    }

    /// Client flags and expiry of what it stores.
    #[cfg(test)]
    pub(crate) fn stored(&self) -> Option<(u32, u32)> {
        self.stored
    }

    /// The same with these values, which stand behind each other; or with none.
    pub(super) fn with_values<'v>(&self, values: &'v [u8]) -> Exchange<'v> {
        let Self { expected_bytes, stored, .. } = *self;
        let (expected, value) = values.split_at(expected_bytes.min(values.len()));
        Exchange { expected, value, expected_bytes, stored }
    }
}

pub(super) fn decide_exchange<'a>(
    current: Option<Current<'_>>,
    exchange: &Exchange<'a>,
    context: Context,
) -> Decision<'a> {
    let Exchange { expected, value, stored, .. } = *exchange;
    let found = current.map_or(Metadata::default(), |current| current.metadata);
    if value.len() > context.value_bytes_max {
        return Decision::refuse(Outcome::TooLarge, found);
    }
    let Some(current) = current else {
        return Decision::refuse(Outcome::NotFound, found);
    };
    if current.metadata.is_large() {
        return Decision::refuse(Outcome::Large, found);
    }
    if current.value != expected {
        return Decision::refuse(Outcome::ValueDiffers, found);
    }
    let Some((client_flags, expiry)) = stored else {
        return Decision { effect: Effect::Remove, ..Decision::refuse(Outcome::Deleted, found) };
    };
    let metadata = Metadata { version: context.version_next, client_flags, expiry, state: 0 };
    Decision {
        effect: put_or_remove(metadata, Cow::Borrowed(value)),
        ..Decision::refuse(Outcome::Stored, metadata)
    }
}
