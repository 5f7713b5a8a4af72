//! What an operation does to an item: pure decisions, no storage.
//!
//! [`decide`] takes the item as it is and an operation, and returns what to change and what to
//! answer. The semantics are those that memcached's users rely on, classic and meta commands alike.

mod exchange;

use std::borrow::Cow;

use crate::entry::{Metadata, state};
use exchange::decide_exchange;

pub use exchange::Exchange;

/// An expiry that is always in the past: the item is stored and gone at once.
pub const EXPIRED: u32 = 1;

/// How a store behaves when the item exists or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreMode {
    /// Store in any case.
    Set,
    /// Only if there is no item.
    Add,
    /// Only if there is one.
    Replace,
    /// Put the value behind the item's.
    Append,
    /// Put the value before the item's.
    Prepend,
}

/// A read, perhaps with changes to the item's metadata. Expiries are Unix seconds, 0 for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Whether the value is needed, and not only the metadata.
    pub value: bool,
    /// Gives the item this expiry.
    pub expiry: Option<u32>,
    /// Creates an empty item with this expiry if there is none.
    pub vivify: Option<u32>,
    /// The reader wins the right to recache if the item expires before this Unix second.
    pub recache_before: Option<u32>,
    /// Whether stale items and recache tokens are handled (meta commands).
    pub leases: bool,
    /// The read does not count as an access.
    pub quiet: bool,
    /// The version of a vivified item, instead of the next one.
    pub version: Option<u64>,
}

/// A store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store<'a> {
    /// How to behave when the item exists or not.
    pub mode: StoreMode,
    /// The value, or the part to add to it.
    pub value: &'a [u8],
    /// The client's flags.
    pub client_flags: u32,
    /// Unix second of expiry; 0 for never.
    pub expiry: u32,
    /// Only if the item has this version.
    pub compare: Option<u64>,
    /// If the version compared is older than the item's, store the value marked stale.
    pub invalidate: bool,
    /// The value stands for a large one, which lies elsewhere.
    pub is_large: bool,
    /// Append and prepend create a missing item with this expiry.
    pub vivify: Option<u32>,
    /// The item's new version, instead of the next one.
    pub version: Option<u64>,
}

impl<'a> Store<'a> {
    /// A store of this value for ever, without client flags and further conditions.
    pub fn plain(mode: StoreMode, value: &'a [u8]) -> Self {
        Self {
            mode,
            value,
            client_flags: 0,
            expiry: 0,
            compare: None,
            invalidate: false,
            is_large: false,
            vivify: None,
            version: None,
        }
    }
}

/// A deletion, or what stands in for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delete {
    /// Only if the item has this version.
    pub compare: Option<u64>,
    /// Mark the item stale instead.
    pub invalidate: bool,
    /// Empty the item's value instead.
    pub clear_value: bool,
    /// The new expiry of an item that stays.
    pub expiry: Option<u32>,
    /// The new version of an item that stays, instead of the next one.
    pub version: Option<u64>,
}

/// An increment or decrement of a decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arithmetic {
    /// By how much.
    pub delta: u64,
    /// Down (to no less than 0) instead of up (modulo 2^64).
    pub decrement: bool,
    /// Only if the item has this version.
    pub compare: Option<u64>,
    /// Creates a missing item with this value and expiry.
    pub vivify: Option<(u64, u32)>,
    /// Gives the item this expiry.
    pub expiry: Option<u32>,
    /// The item's new version, instead of the next one.
    pub version: Option<u64>,
}

/// A point operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Read the item or its metadata.
    Read(Read),
    /// Store a value.
    Store(Store<'a>),
    /// Delete the item.
    Delete(Delete),
    /// Change a number.
    Arithmetic(Arithmetic),
    /// Store a value in place of a certain other one, or delete that.
    Exchange(Exchange<'a>),
}

/// What has to be known of the item before [`decide`] can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Nothing: the operation does not depend on it.
    Nothing,
    /// Whether it is there, and its metadata.
    Metadata,
    /// Its value too.
    Value,
}

impl<'a> Operation<'a> {
    /// The values that the operation brings; empty where it brings none. Behind each other they are
    /// what [`Operation::with_values`] takes.
    pub fn values(&self) -> [&'a [u8]; 2] {
        match self {
            Self::Store(store) => [store.value, &[]],
            Self::Exchange(exchange) => exchange.values(),
            Self::Read(_) | Self::Delete(_) | Self::Arithmetic(_) => [&[], &[]],
        }
    }

    /// What has to be known of the item.
    pub fn need(&self) -> Need {
        match self {
            Self::Read(read) if !read.value => Need::Metadata,
            Self::Read(_) | Self::Arithmetic(_) | Self::Exchange(_) => Need::Value,
            Self::Delete(_) => Need::Metadata,
            Self::Store(store) => match store.mode {
                StoreMode::Append | StoreMode::Prepend => Need::Value,
                StoreMode::Set if store.compare.is_none() => Need::Nothing,
                StoreMode::Set | StoreMode::Add | StoreMode::Replace => Need::Metadata,
            },
        }
    }

    /// Bytes of the values that the operation brings.
    pub fn value_len(&self) -> usize {
        let [first, second] = self.values();
        first.len() + second.len()
    }

    /// The same with other values, if it brings some.
    pub fn with_values<'v>(&self, values: &'v [u8]) -> Operation<'v> {
        match *self {
            Self::Read(read) => Operation::Read(read),
            Self::Store(store) => Operation::Store(Store { value: values, ..store }),
            Self::Delete(delete) => Operation::Delete(delete),
            Self::Arithmetic(arithmetic) => Operation::Arithmetic(arithmetic),
            Self::Exchange(exchange) => Operation::Exchange(exchange.with_values(values)),
        }
    }

    /// The same with empty values, in place of which [`Operation::with_values`] puts them back.
    pub fn without_values(&self) -> Operation<'static> {
        self.with_values(&[])
    }

    /// Whether the operation can change anything.
    pub fn may_write(&self) -> bool {
        match self {
            Self::Read(read) => read.expiry.is_some() || read.vivify.is_some() || read.leases,
            Self::Store(_) | Self::Delete(_) | Self::Arithmetic(_) | Self::Exchange(_) => true,
        }
    }

    /// Whether the operation adds to what is stored. Others make room, or only read.
    pub fn adds(&self) -> bool {
        match self {
            Self::Store(_) | Self::Arithmetic(_) => true,
            Self::Exchange(exchange) => exchange.stores(),
            Self::Read(_) | Self::Delete(_) => false,
        }
    }
}

/// An item as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current<'a> {
    /// Its metadata.
    pub metadata: Metadata,
    /// Its value, empty if only the metadata was needed.
    pub value: &'a [u8],
}

/// What to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<'a> {
    /// Nothing.
    None,
    /// The item has this metadata and value.
    Put(Metadata, Cow<'a, [u8]>),
    /// The item has this metadata and the value it had.
    Remark(Metadata),
    /// The item is gone.
    Remove,
}

/// What to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The item is there.
    Hit,
    /// It is not.
    Miss,
    /// Stored.
    Stored,
    /// The mode did not allow it.
    NotStored,
    /// The item has another version.
    Exists,
    /// The item has another value.
    ValueDiffers,
    /// There is no item to work on.
    NotFound,
    /// Deleted, emptied or marked.
    Deleted,
    /// The number's new value.
    Number(u64),
    /// The value is not a decimal number of at most 64 bits.
    NotNumeric,
    /// The new value would be longer than the limit.
    TooLarge,
    /// The item's value is large: it is read in chunks, and cannot be changed in part.
    Large,
}

/// What a reader is told about recaching.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// This reader is to recache the item.
    pub won: bool,
    /// The item is stale.
    pub stale: bool,
    /// Another reader was told before.
    pub already_sent: bool,
}

/// What to change and what to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// What to change.
    pub effect: Effect<'a>,
    /// What to answer.
    pub outcome: Outcome,
    /// The item's metadata as the answer shows it: after the change.
    pub metadata: Metadata,
    /// What a reader is told about recaching.
    pub lease: Lease,
}

impl Decision<'_> {
    pub(crate) fn refuse(outcome: Outcome, metadata: Metadata) -> Self {
        Self { effect: Effect::None, outcome, metadata, lease: Lease::default() }
    }
}

/// What is given to every decision.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The version for a changed item: above all that were given before.
    pub version_next: u64,
    /// The longest value, in bytes.
    pub value_bytes_max: usize,
}

/// Decides an operation on an item; `current` is `None` if there is none or it has expired.
pub fn decide<'a>(
    current: Option<Current<'_>>,
    operation: &Operation<'a>,
    context: Context,
) -> Decision<'a> {
    match operation {
        Operation::Read(read) => decide_read(current, read, context),
        Operation::Store(store) => decide_store(current, store, context),
        Operation::Delete(delete) => decide_delete(current, delete, context),
        Operation::Arithmetic(arithmetic) => decide_arithmetic(current, arithmetic, context),
        Operation::Exchange(exchange) => decide_exchange(current, exchange, context),
    }
}

fn decide_read<'a>(current: Option<Current<'_>>, read: &Read, context: Context) -> Decision<'a> {
    let Some(current) = current else {
        let Some(expiry) = read.vivify else {
            return Decision::refuse(Outcome::Miss, Metadata::default());
        };
        let version = read.version.unwrap_or(context.version_next);
        let shown = Metadata { version, client_flags: 0, expiry, state: 0 };
        let stored = Metadata { state: state::WIN_SENT, ..shown };
        return Decision {
            effect: Effect::Put(stored, Cow::Borrowed(&[])),
            outcome: Outcome::Hit,
            metadata: shown,
            lease: Lease { won: true, ..Lease::default() },
        };
    };
    let mut metadata = current.metadata;
    let mut lease = Lease::default();
    if let Some(expiry) = read.expiry {
        metadata.expiry = expiry;
    }
    if read.leases {
        lease.already_sent = metadata.state & state::WIN_SENT != 0;
        lease.stale = metadata.state & state::STALE != 0;
        let recache = read
            .recache_before
            .is_some_and(|limit| metadata.expiry != 0 && metadata.expiry < limit);
        lease.won = !lease.already_sent && (lease.stale || recache);
        if lease.won {
            metadata.state |= state::WIN_SENT;
        }
    }
    let effect = if metadata == current.metadata { Effect::None } else { Effect::Remark(metadata) };
    let is_large = read.value && metadata.is_large();
    let outcome = if is_large { Outcome::Large } else { Outcome::Hit };
    Decision { effect, outcome, metadata, lease }
}

fn decide_store<'a>(
    current: Option<Current<'_>>,
    store: &Store<'a>,
    context: Context,
) -> Decision<'a> {
    if store.value.len() > context.value_bytes_max {
        let metadata = current.map_or(Metadata::default(), |current| current.metadata);
        return Decision::refuse(Outcome::TooLarge, metadata);
    }
    let version = store.version.unwrap_or(context.version_next);
    let large = if store.is_large { state::LARGE } else { 0 };
    let mut metadata =
        Metadata { version, client_flags: store.client_flags, expiry: store.expiry, state: large };
    let value = match (store.mode, current) {
        (StoreMode::Add, Some(current)) => {
            return Decision::refuse(Outcome::NotStored, current.metadata);
        }
        (StoreMode::Set, None) if store.compare.is_some() => {
            return Decision::refuse(Outcome::NotFound, metadata);
        }
        (StoreMode::Replace, None) => {
            let compared = store.compare.is_some();
            let outcome = if compared { Outcome::NotFound } else { Outcome::NotStored };
            return Decision::refuse(outcome, metadata);
        }
        (StoreMode::Append | StoreMode::Prepend, None) => {
            let Some(expiry) = store.vivify else {
                return Decision::refuse(Outcome::NotStored, metadata);
            };
            metadata.expiry = expiry;
            Cow::Borrowed(store.value)
        }
        (StoreMode::Append | StoreMode::Prepend, Some(current)) => {
            if store.compare.is_some_and(|compare| compare != current.metadata.version) {
                return Decision::refuse(Outcome::Exists, current.metadata);
            }
            if current.metadata.is_large() {
                return Decision::refuse(Outcome::Large, current.metadata);
            }
            metadata = Metadata { version, state: 0, ..current.metadata };
            if current.value.len() + store.value.len() > context.value_bytes_max {
                return Decision::refuse(Outcome::TooLarge, current.metadata);
            }
            let (first, second) = match store.mode {
                StoreMode::Append => (current.value, store.value),
                _ => (store.value, current.value),
            };
            Cow::Owned([first, second].concat())
        }
        (StoreMode::Set | StoreMode::Replace, Some(current)) => {
            match compare(store, &current.metadata) {
                Compared::Matches => {}
                Compared::Differs => return Decision::refuse(Outcome::Exists, current.metadata),
                Compared::Older => {
                    metadata.expiry = current.metadata.expiry;
                    metadata.state |= state::STALE | (current.metadata.state & state::WIN_SENT);
                }
            }
            Cow::Borrowed(store.value)
        }
        (StoreMode::Set | StoreMode::Add, None) => Cow::Borrowed(store.value),
    };
    Decision {
        effect: put_or_remove(metadata, value),
        outcome: Outcome::Stored,
        metadata,
        lease: Lease::default(),
    }
}

/// An item that is stored as expired is the same as none.
fn put_or_remove(metadata: Metadata, value: Cow<'_, [u8]>) -> Effect<'_> {
    if metadata.expiry == EXPIRED { Effect::Remove } else { Effect::Put(metadata, value) }
}

enum Compared {
    Matches,
    Older,
    Differs,
}

fn compare(store: &Store<'_>, current: &Metadata) -> Compared {
    match store.compare {
        None => Compared::Matches,
        Some(version) if version == current.version => Compared::Matches,
        Some(version) if store.invalidate && version < current.version => Compared::Older,
        Some(_) => Compared::Differs,
    }
}

fn decide_delete<'a>(
    current: Option<Current<'_>>,
    delete: &Delete,
    context: Context,
) -> Decision<'a> {
    let Some(current) = current else {
        return Decision::refuse(Outcome::NotFound, Metadata::default());
    };
    if delete.compare.is_some_and(|compare| compare != current.metadata.version) {
        return Decision::refuse(Outcome::Exists, current.metadata);
    }
    let mut metadata = current.metadata;
    let effect = if delete.invalidate || delete.clear_value {
        metadata.version = delete.version.unwrap_or(context.version_next);
        metadata.expiry = delete.expiry.unwrap_or(metadata.expiry);
        if delete.invalidate {
            // The next reader may win again.
            metadata.state = (metadata.state | state::STALE) & !state::WIN_SENT;
        }
        if delete.clear_value {
            metadata.client_flags = 0;
            metadata.state &= !state::LARGE;
            Effect::Put(metadata, Cow::Borrowed(&[]))
        } else {
            Effect::Remark(metadata)
        }
    } else {
        Effect::Remove
    };
    Decision { effect, outcome: Outcome::Deleted, metadata, lease: Lease::default() }
}

fn decide_arithmetic<'a>(
    current: Option<Current<'_>>,
    arithmetic: &Arithmetic,
    context: Context,
) -> Decision<'a> {
    let version = arithmetic.version.unwrap_or(context.version_next);
    let (number, metadata) = match current {
        None => match arithmetic.vivify {
            None => return Decision::refuse(Outcome::NotFound, Metadata::default()),
            Some((initial, expiry)) => {
                (initial, Metadata { version, client_flags: 0, expiry, state: 0 })
            }
        },
        Some(current) => {
            if arithmetic.compare.is_some_and(|compare| compare != current.metadata.version) {
                return Decision::refuse(Outcome::Exists, current.metadata);
            }
            if current.metadata.is_large() {
                return Decision::refuse(Outcome::Large, current.metadata);
            }
            let Some(number) = parse_number(current.value) else {
                return Decision::refuse(Outcome::NotNumeric, current.metadata);
            };
            let number = if arithmetic.decrement {
                number.saturating_sub(arithmetic.delta)
            } else {
                number.wrapping_add(arithmetic.delta)
            };
            let expiry = arithmetic.expiry.unwrap_or(current.metadata.expiry);
            (number, Metadata { version, expiry, ..current.metadata })
        }
    };
    Decision {
        effect: put_or_remove(metadata, Cow::Owned(number.to_string().into_bytes())),
        outcome: Outcome::Number(number),
        metadata,
        lease: Lease::default(),
    }
}

/// Reads a decimal number; trailing spaces are allowed, because memcached leaves them when a number
/// loses digits, and stores move between servers.
fn parse_number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii_end();
    if digits.is_empty() || value.len() > 20 {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests;
