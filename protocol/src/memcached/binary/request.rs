//! What a client asks for. Requests are small, `Copy`, and borrow their bytes from the input.

use super::BINARY_NO_INITIAL;
use super::opcode::Verb;
use crate::memcached::{Direction, StoreVerb};

/// What of a request's header its answer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinaryHead {
    /// The opcode, as it was sent.
    pub opcode: u8,
    /// The client's own number, as it was sent.
    pub opaque: [u8; 4],
    /// Whether success of a change, and the miss of a read, are not answered.
    pub is_quiet: bool,
}

/// A request, whole and well formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryRequest<'a> {
    /// Read an item, or give it another expiry, or both.
    Read(BinaryRead<'a>),
    /// Store a value.
    Store(BinaryStore<'a>),
    /// Delete an item.
    Delete(BinaryDelete<'a>),
    /// Change a number.
    Arithmetic(BinaryArithmetic<'a>),
    /// Drop every item.
    Flush {
        /// The raw delay, an exptime; 0 for now.
        delay: u32,
    },
    /// Tell figures.
    Statistics {
        /// Which; empty for the general ones.
        section: &'a [u8],
    },
    /// Answer when everything before is answered.
    Noop,
    /// Tell the version.
    Version,
    /// Say more or less in the log.
    Verbosity {
        /// How much; more is more.
        level: u32,
    },
    /// Answer what came before it, then close.
    Quit,
}

/// An item to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinaryRead<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Whether the reply has the key.
    pub with_key: bool,
    /// Whether the reply has the value.
    pub with_value: bool,
    /// The raw exptime that the item gets.
    pub new_exptime: Option<u32>,
}

/// A value to store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinaryStore<'a> {
    /// How it is stored. Never [`StoreVerb::Cas`].
    pub verb: StoreVerb,
    /// The key.
    pub key: &'a [u8],
    /// The client's own bits.
    pub client_flags: u32,
    /// The raw exptime.
    pub exptime: u32,
    /// The value.
    pub value: &'a [u8],
    /// The CAS id to compare with.
    pub cas: Option<u64>,
}

/// An item to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinaryDelete<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The CAS id to compare with.
    pub cas: Option<u64>,
}

/// A number to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinaryArithmetic<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Which way.
    pub direction: Direction,
    /// By how much.
    pub delta: u64,
    /// What a missing item starts with, and the raw exptime that it gets; `None` if it stays
    /// missing.
    pub initial: Option<(u64, u32)>,
    /// The CAS id to compare with.
    pub cas: Option<u64>,
}

impl<'a> BinaryRequest<'a> {
    /// The key, if it has one.
    pub fn key(&self) -> Option<&'a [u8]> {
        match self {
            Self::Read(read) => Some(read.key),
            Self::Store(store) => Some(store.key),
            Self::Delete(delete) => Some(delete.key),
            Self::Arithmetic(arithmetic) => Some(arithmetic.key),
            Self::Flush { .. }
            | Self::Statistics { .. }
            | Self::Noop
            | Self::Version
            | Self::Verbosity { .. }
            | Self::Quit => None,
        }
    }

    /// The request of a body whose lengths are those of `verb`.
    pub(super) fn read(
        verb: Verb,
        cas: u64,
        (extras, key, value): (&'a [u8], &'a [u8], &'a [u8]),
    ) -> Self {
        let cas = (cas != 0).then_some(cas);
        let read = |with_key, with_value, new_exptime| {
            Self::Read(BinaryRead { key, with_key, with_value, new_exptime })
        };
        let store = |verb, client_flags, exptime| {
            Self::Store(BinaryStore { verb, key, client_flags, exptime, value, cas })
        };
        let arithmetic = |direction| {
            let (delta, initial) = (u64_at(extras, 0), u64_at(extras, 8));
            let exptime = u32_at(extras, 16);
            let initial = (exptime != BINARY_NO_INITIAL).then_some((initial, exptime));
            Self::Arithmetic(BinaryArithmetic { key, direction, delta, initial, cas })
        };
        match verb {
            Verb::Get => read(false, true, None),
            Verb::GetKey => read(true, true, None),
            Verb::Touch => read(false, false, Some(u32_at(extras, 0))),
            Verb::GetAndTouch => read(false, true, Some(u32_at(extras, 0))),
            Verb::GetKeyAndTouch => read(true, true, Some(u32_at(extras, 0))),
            Verb::Set => store(StoreVerb::Set, u32_at(extras, 0), u32_at(extras, 4)),
            Verb::Add => store(StoreVerb::Add, u32_at(extras, 0), u32_at(extras, 4)),
            Verb::Replace => store(StoreVerb::Replace, u32_at(extras, 0), u32_at(extras, 4)),
            Verb::Append => store(StoreVerb::Append, 0, 0),
            Verb::Prepend => store(StoreVerb::Prepend, 0, 0),
            Verb::Delete => Self::Delete(BinaryDelete { key, cas }),
            Verb::Increment => arithmetic(Direction::Increment),
            Verb::Decrement => arithmetic(Direction::Decrement),
            Verb::Flush if extras.is_empty() => Self::Flush { delay: 0 },
            Verb::Flush => Self::Flush { delay: u32_at(extras, 0) },
            Verb::Statistics => Self::Statistics { section: key },
            Verb::Noop => Self::Noop,
            Verb::Version => Self::Version,
            Verb::Verbosity => Self::Verbosity { level: u32_at(extras, 0) },
            Verb::Quit => Self::Quit,
        }
    }
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let bytes = bytes.get(offset..).and_then(<[u8]>::first_chunk);
    u32::from_be_bytes(*bytes.expect("lengths are checked before fields are read"))
}

pub(super) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let bytes = bytes.get(offset..).and_then(<[u8]>::first_chunk);
    u64::from_be_bytes(*bytes.expect("lengths are checked before fields are read"))
}
