//! What a client asks for. Requests are small, `Copy`, and borrow their bytes from the input.

use super::KEY_BYTES_MAX;
use super::parse::base64;

/// A request, whole and well formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// One key of `get`, `gets`, `gat` or `gats`; [`Request::GetEnd`] follows the last one.
    Get(GetRequest<'a>),
    /// The end of such a line: answer `END`.
    GetEnd,
    /// `set`, `add`, `replace`, `append`, `prepend`, `cas`.
    Store(Store<'a>),
    /// `delete`.
    Delete(Delete<'a>),
    /// `incr`, `decr`.
    Arithmetic(Arithmetic<'a>),
    /// `touch`.
    Touch(Touch<'a>),
    /// `flush_all`.
    FlushAll {
        /// The raw delay, an exptime; `None` or at most 0 means now.
        delay: Option<i32>,
        /// Whether the client wants no answer.
        noreply: bool,
    },
    /// `version`.
    Version,
    /// `verbosity`: answer `OK`.
    Verbosity {
        /// How much is to be logged; more is more.
        level: u32,
        /// Whether the client wants no answer.
        noreply: bool,
    },
    /// `cache_memlimit`: answer `OK`.
    MemoryLimit {
        /// What values may have of the memory, in megabytes of 2^20 bytes.
        megabytes: u32,
        /// Whether the client wants no answer.
        noreply: bool,
    },
    /// A setting of memcached's memory, which has no effect: answer `OK`.
    Tune {
        /// Whether the client wants no answer.
        noreply: bool,
    },
    /// `stats`.
    Stats {
        /// What follows the command's name, without spaces around it.
        arguments: &'a [u8],
    },
    /// `stats detail`.
    Detail(DetailMode),
    /// `lru_crawler metadump`, `lru_crawler mgdump`, `stats cachedump`.
    Dump(Dump),
    /// `watch`: answer `OK`, and then with what happens.
    Watch(LogStreams),
    /// `quit`: answer what came before it, then close.
    Quit,
    /// `shutdown`.
    Shutdown(ShutdownMode),
    /// `mg`.
    MetaGet(MetaGet<'a>),
    /// `ms`.
    MetaSet(MetaSet<'a>),
    /// `md`.
    MetaDelete(MetaDelete<'a>),
    /// `ma`.
    MetaArithmetic(MetaArithmetic<'a>),
    /// `mn`: answer `MN` and send everything that waits to be sent.
    MetaNoop,
    /// `me`.
    MetaDebug(MetaDebug<'a>),
}

/// One key to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetRequest<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Whether the answer carries the CAS id.
    pub with_cas: bool,
    /// The raw exptime that the item gets (`gat`, `gats`).
    pub new_exptime: Option<i32>,
}

/// How a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreVerb {
    /// In any case.
    Set,
    /// Only if the key has no item.
    Add,
    /// Only if the key has an item.
    Replace,
    /// After the item's value, whose flags and expiry stay.
    Append,
    /// Before the item's value, whose flags and expiry stay.
    Prepend,
    /// Only if the item's CAS id is the one given.
    Cas,
}

/// A value to store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store<'a> {
    /// How it is stored.
    pub verb: StoreVerb,
    /// The key.
    pub key: &'a [u8],
    /// The client's own bits.
    pub client_flags: u32,
    /// The raw exptime.
    pub exptime: i32,
    /// The value.
    pub value: &'a [u8],
    /// The CAS id to compare with; `Some` exactly for [`StoreVerb::Cas`].
    pub cas: Option<u64>,
    /// Whether the client wants no answer.
    pub noreply: bool,
}

/// A key to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delete<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Whether the client wants no answer.
    pub noreply: bool,
}

/// Which way a number moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Up, wrapping at 2^64.
    Increment,
    /// Down, stopping at 0.
    Decrement,
}

/// A number to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arithmetic<'a> {
    /// The key.
    pub key: &'a [u8],
    /// By how much.
    pub delta: u64,
    /// Which way.
    pub direction: Direction,
    /// Whether the client wants no answer.
    pub noreply: bool,
}

/// A new expiry for an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The raw exptime.
    pub exptime: i32,
    /// Whether the client wants no answer.
    pub noreply: bool,
}

/// What is asked of the counters by key prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetailMode {
    /// To count.
    On,
    /// To count no more.
    Off,
    /// To tell.
    Dump,
}

/// A list of what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dump {
    /// What is told of each item.
    pub form: DumpForm,
    /// Whether the size class is asked for that all items are in here.
    pub has_items: bool,
}

/// What is told of each item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpForm {
    /// `lru_crawler metadump`: what is known of it.
    Metadata,
    /// `lru_crawler mgdump`: its key, as a command.
    Keys,
    /// `stats cachedump`: its key, length and expiry, of so many items at most; 0 for all.
    Cache {
        /// How many.
        limit: u32,
    },
}

/// A set of kinds of events, which `watch` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStreams(u8);

impl LogStreams {
    /// Reads.
    pub const FETCHERS: Self = Self(1);
    /// Stores.
    pub const MUTATIONS: Self = Self(2);
    /// Deletes.
    pub const DELETIONS: Self = Self(4);
    /// Connections that come and go.
    pub const CONNECTIONS: Self = Self(8);
    /// Streams that this server has nothing for.
    pub const OTHERS: Self = Self(16);

    /// These and those.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of `other` is among them.
    pub fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The stream of this name.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"fetchers" => Self::FETCHERS,
            b"mutations" => Self::MUTATIONS,
            b"deletions" => Self::DELETIONS,
            b"connevents" => Self::CONNECTIONS,
            b"evictions" | b"rawcmds" | b"sysevents" | b"proxyreqs" | b"proxyevents"
            | b"proxyuser" => Self::OTHERS,
            _ => return None,
        })
    }
}

/// How the server is asked to stop. A server whose `shutdown` is off answers
/// [`SHUTDOWN_NOT_ENABLED`](super::error::SHUTDOWN_NOT_ENABLED) to all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// At once.
    Immediate,
    /// With what memcached calls a graceful stop.
    Graceful,
    /// Answer [`BAD_SHUTDOWN_MODE`](super::error::BAD_SHUTDOWN_MODE).
    Unknown,
}

/// A meta command's key as it was received. Its length and encoding were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireKey<'a> {
    pub(super) wire: &'a [u8],
    pub(super) is_base64: bool,
}

/// Room for a decoded key. One per thread is enough.
#[derive(Clone, Debug)]
pub struct KeyScratch([u8; KEY_BYTES_MAX]);

impl Default for KeyScratch {
    fn default() -> Self {
        Self([0; KEY_BYTES_MAX])
    }
}

impl<'a> WireKey<'a> {
    /// A key that is sent as it is.
    pub fn plain(key: &'a [u8]) -> Self {
        Self { wire: key, is_base64: false }
    }

    /// The bytes as they were received, for echoing.
    pub fn wire(&self) -> &'a [u8] {
        self.wire
    }

    /// Whether the bytes are base64 (the `b` flag).
    pub fn is_base64(&self) -> bool {
        self.is_base64
    }

    /// The key itself: the received bytes, or what they decode to, in `scratch`.
    pub fn bytes<'s>(&self, scratch: &'s mut KeyScratch) -> &'s [u8]
    where
        'a: 's,
    {
        if self.is_base64 { base64::decode(self.wire, &mut scratch.0) } else { self.wire }
    }
}

/// The flags of a meta command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MetaFlags<'a> {
    /// The flag tokens as received, for echoing in request order.
    pub raw: &'a [u8],
    /// The opaque token with its `O`.
    pub opaque: Option<&'a [u8]>,
    /// `C`: the CAS id to compare with.
    pub compare_cas: Option<u64>,
    /// `E`: the CAS id that the item gets.
    pub explicit_cas: Option<u64>,
    /// `T`: the raw exptime that the item gets.
    pub ttl: Option<i32>,
    /// `N`: create a missing item, with this raw exptime.
    pub vivify_ttl: Option<i32>,
    /// `R`: one reader is told to recache if less than this is left.
    pub recache_ttl: Option<i32>,
    /// `D`: by how much a number moves.
    pub delta: Option<u64>,
    /// `J`: the number that a missing item starts with.
    pub initial: Option<u64>,
    /// `F`: the client's own bits.
    pub client_flags: Option<u32>,
    /// `M`: the token's first byte; 0 if the token is empty.
    pub mode: Option<u8>,
    /// One bit for each letter that is present; see [`letter_bit`].
    pub(super) letters: u64,
}

/// The bit of an ASCII letter in [`MetaFlags::letters`].
pub(super) const fn letter_bit(letter: u8) -> u64 {
    assert!(letter.is_ascii_alphabetic(), "every flag is a letter");
    1 << (letter - b'A')
}

impl MetaFlags<'_> {
    /// Whether the flag `letter` is present.
    pub fn has(&self, letter: u8) -> bool {
        letter.is_ascii_alphabetic() && self.letters & letter_bit(letter) != 0
    }

    /// `q`: the nominal answer is not sent.
    pub fn is_quiet(&self) -> bool {
        self.has(b'q')
    }

    /// `v`: the client asks for the value.
    pub fn asks_value(&self) -> bool {
        self.has(b'v')
    }

    /// Whether an `mg` that finds `version` answers with the value: `v`, unless `C` names that
    /// version, which says that the client has it already.
    pub fn returns_value_of(&self, version: u64) -> bool {
        self.asks_value() && self.compare_cas != Some(version)
    }

    /// `u`: reading does not count as use.
    pub fn is_no_bump(&self) -> bool {
        self.has(b'u')
    }

    /// `I`: invalidate; for `ms`, store as stale if the CAS id given is older.
    pub fn is_invalidate(&self) -> bool {
        self.has(b'I')
    }

    /// `x`: remove the value and keep the item.
    pub fn is_remove_value(&self) -> bool {
        self.has(b'x')
    }
}

/// `mg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaGet<'a> {
    /// The key.
    pub key: WireKey<'a>,
    /// The flags.
    pub flags: MetaFlags<'a>,
}

/// `ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaSet<'a> {
    /// The key.
    pub key: WireKey<'a>,
    /// The flags.
    pub flags: MetaFlags<'a>,
    /// How it is stored: the `M` flag's mode. Never [`StoreVerb::Cas`]; the caller compares
    /// [`MetaFlags::compare_cas`] in any mode.
    pub verb: StoreVerb,
    /// The value.
    pub value: &'a [u8],
}

/// `md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaDelete<'a> {
    /// The key.
    pub key: WireKey<'a>,
    /// The flags.
    pub flags: MetaFlags<'a>,
}

/// `ma`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaArithmetic<'a> {
    /// The key.
    pub key: WireKey<'a>,
    /// The flags.
    pub flags: MetaFlags<'a>,
    /// Which way: the `M` flag's mode.
    pub direction: Direction,
    /// By how much: the `D` flag, or 1.
    pub delta: u64,
    /// What a missing item starts with: the `J` flag, or 0.
    pub initial: u64,
}

/// `me`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaDebug<'a> {
    /// The key.
    pub key: WireKey<'a>,
}
