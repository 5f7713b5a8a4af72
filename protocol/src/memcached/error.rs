//! Error lines, without their line end. Clients and proxies compare them to the letter.

/// An unknown command.
pub const ERROR: &str = "ERROR";
/// An empty or short line, a long key, missing arguments, a bad number in a storage line.
pub const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format";
/// The data block does not end in CR LF.
pub const BAD_DATA_CHUNK: &str = "CLIENT_ERROR bad data chunk";
/// The item is over [`Limits::item_bytes_max`](super::Limits::item_bytes_max).
pub const TOO_LARGE: &str = "SERVER_ERROR object too large for cache";
/// No memory for a request of which a part has come; the connection is closed after it.
pub const OUT_OF_MEMORY_REQUEST: &str = "SERVER_ERROR out of memory reading request";
/// No memory or disk for the item. The caller also drops the key's old value for `set` and `ms`.
pub const OUT_OF_MEMORY_STORING: &str = "SERVER_ERROR out of memory storing object";
/// An answer to `get` cannot be built.
pub const OUT_OF_MEMORY_READING: &str = "SERVER_ERROR out of memory writing get response";
/// `incr`, `decr` or `ma` on a value that is not a decimal number.
pub const NON_NUMERIC: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value";
/// `incr` or `decr` by something that is not a number.
pub const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta argument";
/// The meta `D` flag's token is not a number.
pub const BAD_META_DELTA: &str = "CLIENT_ERROR invalid numeric delta value";
/// The meta `J` flag's token is not a number.
pub const BAD_META_INITIAL: &str = "CLIENT_ERROR invalid numeric initial value";
/// The exptime of `touch`, `gat` or `flush_all` is not a number.
pub const BAD_EXPTIME: &str = "CLIENT_ERROR invalid exptime argument";
/// A meta flag's token is not a number.
pub const BAD_TOKEN: &str = "CLIENT_ERROR bad token in command line format";
/// A key with the `b` flag is not base64.
pub const BAD_BASE64_KEY: &str = "CLIENT_ERROR error decoding key";
/// An unknown mode of `ms`.
pub const BAD_SET_MODE: &str = "CLIENT_ERROR invalid mode for ms M token";
/// An unknown mode of `ma`.
pub const BAD_ARITHMETIC_MODE: &str = "CLIENT_ERROR invalid mode for ma M token";
/// The opaque token is over [`OPAQUE_BYTES_MAX`](super::OPAQUE_BYTES_MAX).
pub const OPAQUE_TOO_LONG: &str = "CLIENT_ERROR opaque token too long";
/// A meta command has over [`META_TOKENS_MAX`](super::META_TOKENS_MAX) tokens.
pub const TOO_MANY_FLAGS: &str = "CLIENT_ERROR options flags are too long";
/// A meta flag is given twice.
pub const DUPLICATE_FLAG: &str = "CLIENT_ERROR duplicate flag";
/// An unknown meta flag.
pub const INVALID_FLAG: &str = "CLIENT_ERROR invalid flag";
/// `ma` says this for too many, repeated and unknown flags alike.
pub const ARITHMETIC_FLAGS: &str = "CLIENT_ERROR invalid or duplicate flag";
/// `flush_all` is switched off.
pub const FLUSH_NOT_ALLOWED: &str = "CLIENT_ERROR flush_all not allowed";
/// `watch` is switched off.
pub const WATCH_NOT_ALLOWED: &str = "CLIENT_ERROR watch commands not allowed";
/// `lru_crawler metadump` is switched off.
pub const DUMP_NOT_ALLOWED: &str = "ERROR metadump not allowed";
/// `lru_crawler mgdump` is switched off.
pub const KEY_DUMP_NOT_ALLOWED: &str = "ERROR key dump not allowed";
/// `lru_crawler metadump` behind requests whose answers have not been sent.
pub const METADUMP_NOT_FIRST: &str = "ERROR cannot pipeline other commands before metadump";
/// `lru_crawler mgdump` behind such.
pub const KEY_DUMP_NOT_FIRST: &str = "ERROR cannot pipeline other commands before mgdump";
/// `watch` behind such.
pub const WATCH_NOT_FIRST: &str = "ERROR cannot pipeline other commands before watch";
/// `watch` where there are as many watchers as there may be.
pub const TOO_MANY_WATCHERS: &str = "WATCHER_TOO_MANY log watcher limit reached";
/// `stats detail` without one of its words.
pub const DETAIL_USAGE: &str = "CLIENT_ERROR usage: stats detail on|off|dump";
/// `stats cachedump` without class and limit.
pub const CACHE_DUMP_ARGUMENTS: &str = "CLIENT_ERROR bad command line";
/// `stats cachedump` of a class that cannot be.
pub const CACHE_DUMP_CLASS: &str = "CLIENT_ERROR Illegal slab id";
/// `cache_memlimit` of too little.
pub const MEMORY_TOO_SMALL: &str = "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m";
/// `cache_memlimit` of so much that bytes must have been meant.
pub const MEMORY_IN_BYTES: &str = "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes";
/// `stats cachedump` is switched off.
pub const CACHE_DUMP_NOT_ALLOWED: &str = "CLIENT_ERROR stats cachedump not allowed";
/// `slabs reassign` is switched off.
pub const SLABS_NOT_REASSIGNED: &str = "CLIENT_ERROR slab reassignment disabled";
/// `lru_crawler crawl` of a class that is no number.
pub const BAD_CLASS: &str = "BADCLASS invalid class id";
/// `lru_crawler sleep` of more than a second.
pub const SLEEP_TOO_LONG: &str = "CLIENT_ERROR sleep must be one second or less";
/// `lru tune` with more than all but a fifth for the younger items.
pub const LRU_TOO_MUCH: &str = "ERROR hot and warm pcts must not exceed 80";
/// `lru tune` with an age of nothing.
pub const LRU_NO_AGE: &str = "ERROR hot/warm age factors must be greater than 0";
/// `shutdown` is switched off. The colon belongs there.
pub const SHUTDOWN_NOT_ENABLED: &str = "SERVER_ERROR: shutdown not enabled";
/// `shutdown` with an unknown argument.
pub const BAD_SHUTDOWN_MODE: &str = "CLIENT_ERROR invalid shutdown mode";
/// Over the connection limit; the connection is closed after it.
pub const TOO_MANY_CONNECTIONS: &str = "ERROR Too many open connections";
/// Overload: mcrouter reads the number 307 as "busy" and keeps the connection.
pub const BUSY: &str = "SERVER_ERROR 307 busy";
