//! What each operation means, said a second time: from `protocol/PROTOCOL.md` and from what
//! memcached does, by a table and a plain interpreter that share no code with `operation::decide`,
//! which is judged by them.

use crate::entry::{Metadata, state};
use crate::operation::{
    Arithmetic, Delete, EXPIRED, Exchange, Lease, Operation, Outcome, Read, Store, StoreMode,
};

/// An item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) metadata: Metadata,
    pub(crate) value: Vec<u8>,
}

impl Item {
    /// An item is gone from the second of its expiry on.
    pub(crate) fn is_gone(&self, now: u32) -> bool {
        self.metadata.expiry > 0 && now >= self.metadata.expiry
    }
}

/// What is given to an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    pub(crate) now: u32,
    pub(crate) version_next: u64,
    pub(crate) value_bytes_max: usize,
}

/// What becomes of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// It stays as it is.
    Same,
    /// It has this item, or none.
    Becomes(Option<Item>),
}

/// What an operation must do and answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) outcome: Outcome,
    pub(crate) after: After,
    /// The item that the answer is about, where its metadata count.
    pub(crate) shown: Option<Item>,
    pub(crate) lease: Lease,
}

impl Expected {
    fn says(outcome: Outcome) -> Self {
        Self { outcome, after: After::Same, shown: None, lease: Lease::default() }
    }

    fn exists(item: &Item) -> Self {
        Self { shown: Some(item.clone()), ..Self::says(Outcome::Exists) }
    }

    /// The key gets `item`; one whose expiry is always past is none.
    fn becomes(outcome: Outcome, item: Item) -> Self {
        let stays = item.metadata.expiry != EXPIRED;
        let after = After::Becomes(stays.then(|| item.clone()));
        Self { after, shown: Some(item), ..Self::says(outcome) }
    }
}

/// What `operation` must do to a key that holds `item`, which may have expired.
pub(crate) fn expected(
    item: Option<&Item>,
    operation: &Operation<'_>,
    circumstances: Circumstances,
) -> Expected {
    let item = item.filter(|item| !item.is_gone(circumstances.now));
    match (operation, item) {
        (Operation::Read(read), None) => read_missing(read, circumstances),
        (Operation::Read(read), Some(item)) => read_item(read, item),
        (Operation::Store(store), item) => store_by_rule(store, item, circumstances),
        (Operation::Delete(_), None) => Expected::says(Outcome::NotFound),
        (Operation::Delete(delete), Some(item)) => delete_item(delete, item, circumstances),
        (Operation::Arithmetic(count), None) => count_missing(count, circumstances),
        (Operation::Arithmetic(count), Some(item)) => count_item(count, item, circumstances),
        (Operation::Exchange(exchange), item) => exchanged(exchange, item, circumstances),
    }
}

/// What a store does in one of the cases of [`STORE_RULES`].
#[derive(Clone, Copy)]
enum Rule {
    /// The value, flags and expiry given, with no marks.
    Fresh,
    /// The value given is joined to the item's, which keeps flags and expiry and loses its marks.
    Join,
    /// The value and flags given, marked stale, with the item's expiry and win mark.
    Stale,
    /// Nothing, unless the command may create the item: then as `Fresh`, with the other expiry.
    Vivify,
    Say(Outcome),
}

/// The cases: no item and no CAS id given (`absent`), or one given (`absent_compared`); an item and
/// none given, the same, an older one with `I`, any other.
struct StoreRules {
    mode: StoreMode,
    absent: Rule,
    absent_compared: Rule,
    there: Rule,
    same: Rule,
    older: Rule,
    other: Rule,
}

const NOT_STORED: Rule = Rule::Say(Outcome::NotStored);
const NOT_FOUND: Rule = Rule::Say(Outcome::NotFound);
const EXISTS: Rule = Rule::Say(Outcome::Exists);

#[rustfmt::skip]
const STORE_RULES: [StoreRules; 5] = [
    StoreRules {
        mode: StoreMode::Set, absent: Rule::Fresh, absent_compared: NOT_FOUND,
        there: Rule::Fresh, same: Rule::Fresh, older: Rule::Stale, other: EXISTS,
    },
    StoreRules {
        mode: StoreMode::Add, absent: Rule::Fresh, absent_compared: Rule::Fresh,
        there: NOT_STORED, same: NOT_STORED, older: NOT_STORED, other: NOT_STORED,
    },
    StoreRules {
        mode: StoreMode::Replace, absent: NOT_STORED, absent_compared: NOT_FOUND,
        there: Rule::Fresh, same: Rule::Fresh, older: Rule::Stale, other: EXISTS,
    },
    StoreRules {
        mode: StoreMode::Append, absent: Rule::Vivify, absent_compared: Rule::Vivify,
        there: Rule::Join, same: Rule::Join, older: EXISTS, other: EXISTS,
    },
    StoreRules {
        mode: StoreMode::Prepend, absent: Rule::Vivify, absent_compared: Rule::Vivify,
        there: Rule::Join, same: Rule::Join, older: EXISTS, other: EXISTS,
    },
];

fn store_rule(store: &Store<'_>, item: Option<&Item>) -> Rule {
    let rules = STORE_RULES.iter().find(|rules| rules.mode == store.mode).expect("every mode");
    match (item.map(|item| item.metadata.version), store.compare) {
        (None, None) => rules.absent,
        (None, Some(_)) => rules.absent_compared,
        (Some(_), None) => rules.there,
        (Some(version), Some(given)) if version == given => rules.same,
        (Some(version), Some(given)) if store.invalidate && given < version => rules.older,
        (Some(_), Some(_)) => rules.other,
    }
}

fn store_by_rule(store: &Store<'_>, item: Option<&Item>, circumstances: Circumstances) -> Expected {
    if store.value.len() > circumstances.value_bytes_max {
        return Expected::says(Outcome::TooLarge);
    }
    let mut stored = Item {
        metadata: Metadata {
            version: store.version.unwrap_or(circumstances.version_next),
            client_flags: store.client_flags,
            expiry: store.expiry,
            state: 0,
        },
        value: store.value.to_vec(),
    };
    match (store_rule(store, item), item) {
        (Rule::Fresh, _) => {}
        (Rule::Join, Some(item)) => {
            stored.value.clone_from(&item.value);
            let at = if store.mode == StoreMode::Append { stored.value.len() } else { 0 };
            stored.value.splice(at..at, store.value.iter().copied());
            if stored.value.len() > circumstances.value_bytes_max {
                return Expected::says(Outcome::TooLarge);
            }
            stored.metadata.client_flags = item.metadata.client_flags;
            stored.metadata.expiry = item.metadata.expiry;
        }
        (Rule::Stale, Some(item)) => {
            stored.metadata.expiry = item.metadata.expiry;
            stored.metadata.state = marks(true, is_won(item));
        }
        (Rule::Vivify, _) => match store.vivify {
            Some(expiry) => stored.metadata.expiry = expiry,
            None => return Expected::says(Outcome::NotStored),
        },
        (Rule::Say(Outcome::Exists), Some(item)) => return Expected::exists(item),
        (Rule::Say(outcome), _) => return Expected::says(outcome),
        (Rule::Join | Rule::Stale, None) => unreachable!("these cases have an item"),
    }
    Expected::becomes(Outcome::Stored, stored)
}

fn is_stale(item: &Item) -> bool {
    item.metadata.state & state::STALE > 0
}

fn is_won(item: &Item) -> bool {
    item.metadata.state & state::WIN_SENT > 0
}

fn marks(stale: bool, won: bool) -> u8 {
    u8::from(stale) * state::STALE + u8::from(won) * state::WIN_SENT
}

/// `mg` with `N` creates an empty item, and this reader is to fill it; the mark that says so to
/// later readers is not shown to this one.
fn read_missing(read: &Read, circumstances: Circumstances) -> Expected {
    let Some(expiry) = read.vivify else { return Expected::says(Outcome::Miss) };
    let version = read.version.unwrap_or(circumstances.version_next);
    let metadata = Metadata { version, client_flags: 0, expiry, state: marks(false, true) };
    let mut shown = Item { metadata, value: Vec::new() };
    let after = After::Becomes(Some(shown.clone()));
    shown.metadata.state = 0;
    let lease = Lease { won: true, stale: false, already_sent: false };
    Expected { outcome: Outcome::Hit, after, shown: Some(shown), lease }
}

/// A touch comes first, then the question whether the item is to be recached: by whom, and whether
/// somebody was told before. Only meta commands ask it.
fn read_item(read: &Read, item: &Item) -> Expected {
    let mut touched = item.clone();
    touched.metadata.expiry = read.expiry.unwrap_or(item.metadata.expiry);
    let mut lease = Lease::default();
    if read.leases {
        let expires = touched.metadata.expiry;
        let runs_out = expires > 0 && read.recache_before.is_some_and(|before| before > expires);
        lease.stale = is_stale(item);
        lease.already_sent = is_won(item);
        lease.won = (is_stale(item) || runs_out) && !is_won(item);
        touched.metadata.state = marks(is_stale(item), is_won(item) || lease.won);
    }
    let after = if touched == *item { After::Same } else { After::Becomes(Some(touched.clone())) };
    Expected { outcome: Outcome::Hit, after, shown: Some(touched), lease }
}

/// `md`: with `I` the item stays and is stale, and the next reader may win again; with `x` it stays
/// without value and flags; else it goes.
fn delete_item(delete: &Delete, item: &Item, circumstances: Circumstances) -> Expected {
    if delete.compare.is_some_and(|given| given != item.metadata.version) {
        return Expected::exists(item);
    }
    let mut left = item.clone();
    if delete.invalidate {
        left.metadata.state = marks(true, false);
    }
    if delete.clear_value {
        left.value.clear();
        left.metadata.client_flags = 0;
    }
    if let Some(expiry) = delete.expiry {
        left.metadata.expiry = expiry;
    }
    left.metadata.version = delete.version.unwrap_or(circumstances.version_next);
    let stays = delete.invalidate || delete.clear_value;
    let after = After::Becomes(stays.then_some(left));
    Expected { after, ..Expected::says(Outcome::Deleted) }
}

fn count_missing(count: &Arithmetic, circumstances: Circumstances) -> Expected {
    let Some((initial, expiry)) = count.vivify else { return Expected::says(Outcome::NotFound) };
    let version = count.version.unwrap_or(circumstances.version_next);
    let metadata = Metadata { version, client_flags: 0, expiry, state: 0 };
    let item = Item { metadata, value: format!("{initial}").into_bytes() };
    Expected::becomes(Outcome::Number(initial), item)
}

/// Up wraps at 2^64, down stops at 0; flags and marks stay.
fn count_item(count: &Arithmetic, item: &Item, circumstances: Circumstances) -> Expected {
    if count.compare.is_some_and(|given| given != item.metadata.version) {
        return Expected::exists(item);
    }
    let Some(number) = number(&item.value) else { return Expected::says(Outcome::NotNumeric) };
    let delta = u128::from(count.delta);
    let counted =
        if count.decrement { number.saturating_sub(delta) } else { (number + delta) % (1 << 64) };
    let mut after = item.clone();
    after.value = format!("{counted}").into_bytes();
    after.metadata.version = count.version.unwrap_or(circumstances.version_next);
    after.metadata.expiry = count.expiry.unwrap_or(item.metadata.expiry);
    let shown = u64::try_from(counted).expect("under 2^64");
    Expected::becomes(Outcome::Number(shown), after)
}

/// The first value given is what the item must have, the other what it gets; without flags it
/// goes. What is too long is so before anything is looked at.
fn exchanged(
    exchange: &Exchange<'_>,
    item: Option<&Item>,
    circumstances: Circumstances,
) -> Expected {
    let [given, value] = exchange.values().map(<[u8]>::to_vec);
    match (item, exchange.stored()) {
        _ if value.len() > circumstances.value_bytes_max => Expected::says(Outcome::TooLarge),
        (None, _) => Expected::says(Outcome::NotFound),
        (Some(item), _) if item.value != given => {
            Expected { shown: Some(item.clone()), ..Expected::says(Outcome::ValueDiffers) }
        }
        (Some(_), None) => {
            Expected { after: After::Becomes(None), ..Expected::says(Outcome::Deleted) }
        }
        (Some(_), Some((client_flags, expiry))) => {
            let version = circumstances.version_next;
            let metadata = Metadata { version, client_flags, expiry, state: 0 };
            Expected::becomes(Outcome::Stored, Item { metadata, value })
        }
    }
}

/// Digits of a number under 2^64 and then spaces, 20 bytes at most.
fn number(value: &[u8]) -> Option<u128> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= 20)?;
    let digits = text.trim_end_matches([' ', '\t', '\n', '\r', '\x0C']);
    if digits.is_empty() || digits.contains(|letter: char| !letter.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|number| *number < 1 << 64)
}
