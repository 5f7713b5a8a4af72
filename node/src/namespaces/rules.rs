//! How the settings of a namespace rule what is asked of its items.

use larder_engine::key::{Key, route_hash};
use larder_engine::operation::{Arithmetic, Delete, EXPIRED, Operation, Read, Store};
use larder_engine::shard::Acknowledgement;
use larder_protocol::native::{NamespaceDurability, NamespaceSettings};

/// What the settings of a namespace rule for each of its items: so little that every request has
/// its own copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItemRules {
    ttl_default: u32,
    ttl_max: u32,
    ttl_jitter_percent: u8,
    durability: NamespaceDurability,
}

impl ItemRules {
    /// Those of these settings.
    pub fn of(settings: &NamespaceSettings) -> Self {
        let NamespaceSettings { ttl_default, ttl_max, ttl_jitter_percent, durability, .. } =
            *settings;
        Self { ttl_default, ttl_max, ttl_jitter_percent, durability }
    }
}

/// When the answer to a request may be given that says nothing of that itself. Who only reads is
/// told no earlier than others what a crash may take back.
#[inline]
pub fn acknowledgement(rules: ItemRules, only_reads: bool) -> Acknowledgement {
    match rules.durability {
        NamespaceDurability::Sync => Acknowledgement::Durable,
        NamespaceDurability::None if !only_reads => Acknowledgement::Made,
        NamespaceDurability::None | NamespaceDurability::Node => Acknowledgement::Configured,
    }
}

/// The Unix second at which the item of `key` is gone that is stored at `now` to live so many
/// seconds, 0 for ever; 0 for never.
pub fn expiry_of(rules: ItemRules, key: &Key<'_>, seconds: u32, now: u32) -> u32 {
    // Items that are stored together in one record live for different times too.
    match lifetime(rules, seconds, || salt(key, now)) {
        0 => 0,
        // A clock that stands before the first second of 1970 has no items that live.
        seconds => now.saturating_add(seconds).max(EXPIRED + 1),
    }
}

/// The same operation on `key`, asked at Unix second `now`, with the expiries that items of the
/// namespace have.
#[inline]
pub fn with_lifetimes<'a>(
    operation: Operation<'a>,
    rules: ItemRules,
    (key, now): (&Key<'_>, u32),
) -> Operation<'a> {
    let ItemRules { ttl_default, ttl_max, ttl_jitter_percent, .. } = rules;
    if ttl_default == 0 && ttl_max == 0 && ttl_jitter_percent == 0 {
        return operation;
    }
    let ruled = |expiry: u32| match expiry {
        0 => expiry_of(rules, key, 0, now),
        // It is gone already.
        past if past <= now => past,
        later => expiry_of(rules, key, later - now, now),
    };
    match operation {
        Operation::Read(read) => Operation::Read(Read {
            expiry: read.expiry.map(ruled),
            vivify: read.vivify.map(ruled),
            ..read
        }),
        Operation::Store(store) => Operation::Store(Store {
            expiry: ruled(store.expiry),
            vivify: store.vivify.map(ruled),
            ..store
        }),
        Operation::Delete(delete) => {
            Operation::Delete(Delete { expiry: delete.expiry.map(ruled), ..delete })
        }
        Operation::Arithmetic(arithmetic) => Operation::Arithmetic(Arithmetic {
            expiry: arithmetic.expiry.map(ruled),
            vivify: arithmetic.vivify.map(|(initial, expiry)| (initial, ruled(expiry))),
            ..arithmetic
        }),
        // Only the native protocol has them, which counts in seconds to live.
        Operation::Exchange(exchange) => Operation::Exchange(exchange),
    }
}

/// A number for an item that is stored at Unix second `now`.
fn salt(key: &Key<'_>, now: u32) -> u64 {
    let hash = route_hash(key.record) ^ route_hash(key.item).rotate_left(32);
    hash.wrapping_add(u64::from(now))
}

/// How many seconds an item lives in a namespace with these rules that was told to live `asked`
/// seconds; 0 is for ever. `salt` is another number for each item.
fn lifetime(rules: ItemRules, asked: u32, salt: impl FnOnce() -> u64) -> u32 {
    let mut seconds = if asked == 0 { rules.ttl_default } else { asked };
    if rules.ttl_max > 0 && (seconds == 0 || seconds > rules.ttl_max) {
        seconds = rules.ttl_max;
    }
    let percent = u64::from(rules.ttl_jitter_percent);
    if seconds == 0 || percent == 0 {
        return seconds;
    }
    let most = u64::from(seconds) * percent / 100;
    let less = salt() % (most + 1);
    seconds.saturating_sub(u32::try_from(less).unwrap_or(u32::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_live_as_long_as_they_are_told_and_may() {
        let with = |ttl_default, ttl_max, ttl_jitter_percent| ItemRules {
            ttl_default,
            ttl_max,
            ttl_jitter_percent,
            ..ItemRules::default()
        };
        let no_salt = || panic!("no chance is needed");
        for (rules, asked, lives) in [
            (with(0, 0, 0), 0, 0),
            (with(0, 0, 0), 5, 5),
            (with(10, 0, 0), 0, 10),
            (with(10, 0, 0), 50, 50),
            (with(0, 20, 0), 0, 20),
            (with(0, 20, 0), 21, 20),
            (with(10, 20, 0), 0, 10),
            (with(30, 20, 0), 0, 20),
            (with(0, 0, 50), 0, 0),
        ] {
            assert_eq!(lifetime(rules, asked, no_salt), lives, "{rules:?} {asked}");
        }
        let lives = |asked, salt| lifetime(with(0, 0, 10), asked, || salt);
        assert_eq!((lives(1000, 0), lives(1000, 100), lives(1000, 101)), (1000, 900, 1000));
        assert_eq!((lives(1, u64::MAX), lives(u32::MAX, 7)), (1, u32::MAX - 7));
        assert_eq!(lifetime(with(0, 0, 100), 5, || 5), 1, "it is stored at all");
    }

    #[test]
    fn expiries_are_those_that_the_namespace_has() {
        let (key, now) = (Key::memcached(b"k"), 1000);
        let rules = ItemRules { ttl_default: 60, ttl_max: 100, ..ItemRules::default() };
        let touched = |expiry| {
            let read = Read { expiry: Some(expiry), ..Read::default() };
            let ruled = with_lifetimes(Operation::Read(read), rules, (&key, now));
            let Operation::Read(Read { expiry: Some(expiry), .. }) = ruled else {
                panic!("{ruled:?}");
            };
            expiry
        };
        for (asked, has) in
            [(0, 1060), (1050, 1050), (1101, 1100), (1000, 1000), (EXPIRED, EXPIRED)]
        {
            assert_eq!(touched(asked), has, "{asked}");
        }
        let count = Operation::Arithmetic(Arithmetic {
            delta: 1,
            decrement: false,
            compare: None,
            vivify: Some((7, 0)),
            expiry: None,
            version: None,
        });
        let Operation::Arithmetic(ruled) = with_lifetimes(count, rules, (&key, now)) else {
            panic!("it counts");
        };
        assert_eq!((ruled.vivify, ruled.expiry), (Some((7, 1060)), None));
        let usual = ItemRules::default();
        assert_eq!(with_lifetimes(count, usual, (&key, now)), count);
    }

    #[test]
    fn who_only_reads_is_not_told_earlier() {
        let of = |durability, only_reads| {
            let settings = NamespaceSettings { durability, ..NamespaceSettings::default() };
            acknowledgement(ItemRules::of(&settings), only_reads)
        };
        assert_eq!(of(NamespaceDurability::None, false), Acknowledgement::Made);
        assert_eq!(of(NamespaceDurability::None, true), Acknowledgement::Configured);
        assert_eq!(of(NamespaceDurability::Sync, true), Acknowledgement::Durable);
        assert_eq!(of(NamespaceDurability::Node, false), Acknowledgement::Configured);
    }
}
