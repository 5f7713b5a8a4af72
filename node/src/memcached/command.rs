//! What a request asks of the engine.

use larder_engine::operation::{self, EXPIRED, Operation, Read, StoreMode};
use larder_protocol::memcached::{
    Direction, Expiry, GetRequest, KeyScratch, Malformed, MetaFlags, Parsed, Request, StoreVerb,
    WireKey, error, expiry_from_exptime,
};

use crate::counters::Kind;

/// What a client has sent, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// A request, well formed.
    Request(&'a Request<'a>),
    /// Answer with a line.
    Line {
        /// The answer, without its line end.
        reply: &'static str,
        /// Whether the client wants no answer.
        is_suppressed: bool,
    },
    /// Drop the key's item, because a newer value was refused, and answer with a line.
    Drop {
        /// The key.
        key: WireKey<'a>,
        /// The answer, without its line end.
        reply: &'static str,
        /// Whether the client wants no answer.
        is_suppressed: bool,
    },
}

impl<'a> Command<'a> {
    /// What was parsed.
    ///
    /// # Panics
    /// If it is not whole.
    #[inline]
    pub fn of(parsed: &'a Parsed<'a>) -> Self {
        match parsed {
            Parsed::Request(request) => Self::Request(request),
            Parsed::Malformed(Malformed { reply, is_suppressed, drop_key }) => match drop_key {
                Some(key) => Self::Drop { key: *key, reply, is_suppressed: *is_suppressed },
                None => Self::Line { reply, is_suppressed: *is_suppressed },
            },
            Parsed::NeedMore { .. } | Parsed::Close(_) => panic!("{parsed:?} is no command"),
        }
    }

    /// The key; a base64 key is decoded into `scratch`.
    ///
    /// # Panics
    /// If it is a request without a key.
    pub fn key<'s>(&self, scratch: &'s mut KeyScratch) -> &'s [u8]
    where
        'a: 's,
    {
        match self {
            Self::Drop { key, .. } => key.bytes(scratch),
            Self::Line { .. } => panic!("{self:?} has no key"),
            Self::Request(request) => match request {
                Request::Get(get) => get.key,
                Request::Store(store) => store.key,
                Request::Delete(delete) => delete.key,
                Request::Arithmetic(arithmetic) => arithmetic.key,
                Request::Touch(touch) => touch.key,
                Request::MetaGet(get) => get.key.bytes(scratch),
                Request::MetaSet(set) => set.key.bytes(scratch),
                Request::MetaDelete(delete) => delete.key.bytes(scratch),
                Request::MetaArithmetic(arithmetic) => arithmetic.key.bytes(scratch),
                Request::MetaDebug(debug) => debug.key.bytes(scratch),
                other => panic!("{other:?} has no key"),
            },
        }
    }

    /// Whether one shard carries it out.
    #[inline]
    pub fn is_keyed(&self) -> bool {
        match self {
            Self::Drop { .. } => true,
            Self::Line { .. } => false,
            Self::Request(request) => !matches!(
                request,
                Request::GetEnd
                    | Request::FlushAll { .. }
                    | Request::Version
                    | Request::Verbosity { .. }
                    | Request::MemoryLimit { .. }
                    | Request::Tune { .. }
                    | Request::Stats { .. }
                    | Request::Detail(_)
                    | Request::Dump(_)
                    | Request::Watch(_)
                    | Request::Quit
                    | Request::Shutdown(_)
                    | Request::MetaNoop
            ),
        }
    }

    /// The length of the value that came with it.
    pub fn value_bytes(&self) -> usize {
        match self {
            Self::Request(Request::Store(store)) => store.value.len(),
            Self::Request(Request::MetaSet(set)) => set.value.len(),
            _ => 0,
        }
    }

    /// The engine's operation at Unix second `now`.
    ///
    /// # Panics
    /// If it is a request without a key.
    pub fn operation(&self, now: u32) -> Operation<'a> {
        let Self::Request(request) = self else {
            return Operation::Delete(operation::Delete::default());
        };
        match request {
            Request::Get(get) => Operation::Read(read(get, now)),
            Request::Touch(touch) => {
                let expiry = Some(expiry(touch.exptime, now));
                Operation::Read(Read { expiry, ..Read::default() })
            }
            Request::Store(store) => Operation::Store(operation::Store {
                mode: mode(store.verb),
                value: store.value,
                client_flags: store.client_flags,
                expiry: expiry(store.exptime, now),
                compare: store.cas,
                invalidate: false,
                is_large: false,
                vivify: None,
                version: None,
            }),
            Request::Delete(_) => Operation::Delete(operation::Delete::default()),
            Request::Arithmetic(arithmetic) => Operation::Arithmetic(operation::Arithmetic {
                delta: arithmetic.delta,
                decrement: arithmetic.direction == Direction::Decrement,
                compare: None,
                vivify: None,
                expiry: None,
                version: None,
            }),
            _ => meta_operation(request, now),
        }
    }

    /// How it is counted.
    pub fn kind(&self) -> Kind {
        let request = match self {
            Self::Request(request) => request,
            Self::Drop { reply, .. } if *reply == error::TOO_LARGE => return Kind::TooLarge,
            Self::Drop { .. } | Self::Line { .. } => return Kind::Other,
        };
        let arithmetic = |direction| match direction {
            Direction::Increment => Kind::Increment,
            Direction::Decrement => Kind::Decrement,
        };
        let store = |compares| if compares { Kind::CompareAndStore } else { Kind::Store };
        match request {
            Request::Get(get) => Kind::Get { touches: get.new_exptime.is_some() },
            Request::MetaGet(get) => Kind::Get { touches: get.flags.ttl.is_some() },
            Request::Store(request) => store(request.cas.is_some()),
            Request::MetaSet(request) => store(request.flags.compare_cas.is_some()),
            Request::Delete(_) | Request::MetaDelete(_) => Kind::Delete,
            Request::Arithmetic(request) => arithmetic(request.direction),
            Request::MetaArithmetic(request) => arithmetic(request.direction),
            Request::Touch(_) => Kind::Touch,
            _ => Kind::Other,
        }
    }

    /// Whether the key's old item goes when there is no room for the new one: `set` and `ms`
    /// replace it, so what is there is stale.
    pub fn drops_old_item(&self) -> bool {
        match self {
            Self::Request(Request::Store(store)) => store.verb == StoreVerb::Set,
            Self::Request(Request::MetaSet(_)) => true,
            _ => false,
        }
    }

    /// Whether even errors are not sent.
    pub fn is_noreply(&self) -> bool {
        match self {
            Self::Drop { is_suppressed, .. } | Self::Line { is_suppressed, .. } => *is_suppressed,
            Self::Request(Request::Store(store)) => store.noreply,
            Self::Request(Request::Delete(delete)) => delete.noreply,
            Self::Request(Request::Arithmetic(arithmetic)) => arithmetic.noreply,
            Self::Request(Request::Touch(touch)) => touch.noreply,
            Self::Request(
                Request::FlushAll { noreply, .. }
                | Request::Verbosity { noreply, .. }
                | Request::MemoryLimit { noreply, .. },
            ) => *noreply,
            Self::Request(_) => false,
        }
    }
}

fn meta_operation<'a>(request: &Request<'a>, now: u32) -> Operation<'a> {
    match request {
        Request::MetaGet(get) => Operation::Read(meta_read(&get.flags, now)),
        Request::MetaSet(set) => Operation::Store(operation::Store {
            mode: mode(set.verb),
            value: set.value,
            client_flags: set.flags.client_flags.unwrap_or(0),
            expiry: expiry(set.flags.ttl.unwrap_or(0), now),
            compare: set.flags.compare_cas,
            invalidate: set.flags.is_invalidate(),
            is_large: false,
            vivify: set.flags.vivify_ttl.map(|exptime| expiry(exptime, now)),
            version: set.flags.explicit_cas,
        }),
        Request::MetaDelete(delete) => Operation::Delete(operation::Delete {
            compare: delete.flags.compare_cas,
            invalidate: delete.flags.is_invalidate(),
            clear_value: delete.flags.is_remove_value(),
            expiry: delete.flags.ttl.map(|exptime| expiry(exptime, now)),
            version: delete.flags.explicit_cas,
        }),
        Request::MetaArithmetic(arithmetic) => {
            let flags = &arithmetic.flags;
            let vivify = flags.vivify_ttl.map(|exptime| expiry(exptime, now));
            Operation::Arithmetic(operation::Arithmetic {
                delta: arithmetic.delta,
                decrement: arithmetic.direction == Direction::Decrement,
                compare: flags.compare_cas,
                vivify: vivify.map(|expiry| (arithmetic.initial, expiry)),
                expiry: flags.ttl.map(|exptime| expiry(exptime, now)),
                version: flags.explicit_cas,
            })
        }
        Request::MetaDebug(_) => Operation::Read(Read { quiet: true, ..Read::default() }),
        other => panic!("{other:?} has no key"),
    }
}

fn read(get: &GetRequest<'_>, now: u32) -> Read {
    let expiry = get.new_exptime.map(|exptime| expiry(exptime, now));
    Read { value: true, expiry, ..Read::default() }
}

fn meta_read(flags: &MetaFlags<'_>, now: u32) -> Read {
    let recache_before =
        flags.recache_ttl.and_then(|exptime| match expiry_from_exptime(i64::from(exptime), now) {
            Expiry::At(at) => Some(at),
            Expiry::Never | Expiry::AlreadyExpired => None,
        });
    Read {
        value: flags.asks_value(),
        expiry: flags.ttl.map(|exptime| expiry(exptime, now)),
        vivify: flags.vivify_ttl.map(|exptime| expiry(exptime, now)),
        recache_before,
        leases: true,
        quiet: flags.is_no_bump(),
        version: flags.explicit_cas,
    }
}

pub(super) fn mode(verb: StoreVerb) -> StoreMode {
    match verb {
        StoreVerb::Set | StoreVerb::Cas => StoreMode::Set,
        StoreVerb::Add => StoreMode::Add,
        StoreVerb::Replace => StoreMode::Replace,
        StoreVerb::Append => StoreMode::Append,
        StoreVerb::Prepend => StoreMode::Prepend,
    }
}

/// A raw exptime as the engine's expiry.
pub(super) fn expiry(exptime: impl Into<i64>, now: u32) -> u32 {
    match expiry_from_exptime(exptime.into(), now) {
        Expiry::Never => 0,
        Expiry::At(at) => at,
        Expiry::AlreadyExpired => EXPIRED,
    }
}

/// The second in which a `flush_all` with this delay happens, and with which what was stored goes;
/// `None` is now. As with memcached it is the one before that which the delay names: what is stored
/// from then on stays.
pub fn flush_time(delay: Option<i64>, now: u32) -> Option<u32> {
    match expiry_from_exptime(delay.unwrap_or(0), now) {
        Expiry::At(at) => Some(at - 1),
        Expiry::Never | Expiry::AlreadyExpired => None,
    }
}
