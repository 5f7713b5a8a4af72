//! What every key of a shard should hold, so that whatever is read can be judged.
//!
//! The engine carries out the operations on one key in the order in which they were given to it.
//! So the state noted when a write is given is what every read given later must find, whether or
//! not the write has been acknowledged by then.

use std::collections::{BTreeMap, HashSet};

const ABSENT: u32 = 0;
const UNKNOWN: u32 = u32::MAX;

/// An expiry is in whole seconds, and the clocks of the engine and the run are read at different
/// moments: so many seconds around it either answer is right.
const EXPIRY_SLACK: u32 = 1;

/// What a key should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Nothing.
    Absent,
    /// A version of its value, until a Unix second; 0 for ever.
    Version { version: u32, expiry: u32 },
    /// Whatever was there before the run: nothing, or any version.
    Unknown,
}

/// What was found under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// The whole value of this key in a version.
    Version(u32),
    /// An item, whose value was not asked for.
    Item,
    /// Something that was never stored under this key.
    Foreign(Box<str>),
}

/// The states of all keys of a shard, by the key's place in the shard.
#[derive(Debug)]
pub(super) struct Expectations {
    /// `ABSENT`, `UNKNOWN`, or the version plus one.
    states: Vec<u32>,
    /// Expiries of the keys with a version; empty if nothing expires.
    expiries: Vec<u32>,
    /// Keys that are there or may be, and were not seen to expire.
    live: u64,
    /// How many of them expire in which Unix second.
    expiring: BTreeMap<u32, u64>,
    /// The version that a key gets whose former one is not known.
    version_first: u32,
    /// Keys of which a write failed after it was begun.
    doubted: HashSet<u32>,
}

impl Expectations {
    /// `keys` keys in an empty store.
    pub(super) fn empty(keys: u32, may_expire: bool) -> Self {
        Self::with_state(keys, may_expire, ABSENT, 0)
    }

    /// `keys` keys of which nothing is known; versions are counted from `version_first`.
    pub(super) fn unknown(keys: u32, may_expire: bool, version_first: u32) -> Self {
        Self::with_state(keys, may_expire, UNKNOWN, version_first)
    }

    fn with_state(keys: u32, may_expire: bool, state: u32, version_first: u32) -> Self {
        Self {
            states: vec![state; keys as usize],
            expiries: vec![0; if may_expire { keys as usize } else { 0 }],
            live: if state == UNKNOWN { u64::from(keys) } else { 0 },
            expiring: BTreeMap::new(),
            version_first,
            doubted: HashSet::new(),
        }
    }

    /// What `key` should hold now.
    pub(super) fn of(&self, key: u32) -> Expected {
        match self.states[key as usize] {
            ABSENT => Expected::Absent,
            UNKNOWN => Expected::Unknown,
            state => Expected::Version { version: state - 1, expiry: self.expiry(key) },
        }
    }

    /// The version that the next store of `key` writes.
    pub(super) fn next_version(&self, key: u32) -> u32 {
        match self.states[key as usize] {
            ABSENT | UNKNOWN => self.version_first,
            // The state after the last version would stand for something else.
            state => state.min(UNKNOWN - 2),
        }
    }

    /// A store was given to the engine.
    pub(super) fn stored(&mut self, key: u32, version: u32, expiry: u32) {
        self.forget(key);
        self.states[key as usize] = version + 1;
        if let Some(place) = self.expiries.get_mut(key as usize) {
            *place = expiry;
        }
        self.live += 1;
        if self.expiry(key) != 0 {
            *self.expiring.entry(expiry).or_default() += 1;
        }
    }

    /// A delete was given to the engine.
    pub(super) fn deleted(&mut self, key: u32) {
        self.forget(key);
        self.states[key as usize] = ABSENT;
    }

    /// A write of `key` failed after it was begun: what the key holds from now on is not known.
    pub(super) fn doubt(&mut self, key: u32) {
        self.doubted.insert(key);
    }

    /// What was found under a key of which nothing was known.
    pub(super) fn learn(&mut self, key: u32, found: &Found) {
        if self.states[key as usize] != UNKNOWN {
            return;
        }
        match found {
            Found::Nothing => self.deleted(key),
            Found::Version(version) => self.stored(key, (*version).min(UNKNOWN - 2), 0),
            Found::Item | Found::Foreign(_) => {}
        }
    }

    /// Judges what an operation found. `expected` is of the time when it was given to the engine,
    /// in
    /// second `given`; `now` is the second in which it had its answer.
    ///
    /// # Errors
    /// What is wrong, if it is.
    pub(super) fn judge(
        &self,
        key: u32,
        expected: Expected,
        found: &Found,
        (given, now): (u32, u32),
    ) -> Result<(), String> {
        if let Found::Foreign(what) = found {
            return Err(format!("found {what}"));
        }
        let expected = if self.doubted.contains(&key) { Expected::Unknown } else { expected };
        match (expected, found) {
            (Expected::Unknown, _) | (Expected::Absent, Found::Nothing) => Ok(()),
            (Expected::Absent, Found::Version(version)) => {
                Err(format!("found version {version}, though it was deleted or never stored"))
            }
            (Expected::Absent, _) => Err("found, though deleted or never stored".to_owned()),
            (Expected::Version { version, expiry }, Found::Nothing) => {
                let may_be_gone = expiry != 0 && now.saturating_add(EXPIRY_SLACK) >= expiry;
                let lost = || format!("not found, though version {version} was stored");
                if may_be_gone { Ok(()) } else { Err(lost()) }
            }
            (Expected::Version { version, expiry }, found) => {
                if expiry != 0 && given > expiry.saturating_add(EXPIRY_SLACK) {
                    return Err(format!("found {} s after it expired", given - expiry));
                }
                match found {
                    Found::Version(other) if *other != version => {
                        Err(format!("found version {other} instead of {version}"))
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// Keys that are there in Unix second `now`, as far as is known.
    pub(super) fn live(&mut self, now: u32) -> u64 {
        while let Some(entry) = self.expiring.first_entry()
            && *entry.key() <= now
        {
            self.live -= entry.remove();
        }
        self.live
    }

    /// How many keys are there, if that is known of each of them, and none expires.
    pub(super) fn certain(&self) -> Option<u64> {
        let is_known = self.doubted.is_empty() && !self.states.contains(&UNKNOWN);
        (is_known && self.expiries.is_empty()).then_some(self.live)
    }

    /// Whether anything will expire.
    pub(super) fn expires(&self) -> bool {
        !self.expiring.is_empty()
    }

    /// Bytes that this takes in memory.
    pub(super) fn bytes(&self) -> u64 {
        (size_of::<u32>() * (self.states.len() + self.expiries.len())) as u64
    }

    fn expiry(&self, key: u32) -> u32 {
        self.expiries.get(key as usize).copied().unwrap_or(0)
    }

    /// Takes a key out of the counts of those that are there.
    fn forget(&mut self, key: u32) {
        if self.states[key as usize] == ABSENT {
            return;
        }
        let expiry = self.expiry(key);
        if expiry == 0 {
            self.live -= 1;
        } else if let Some(count) = self.expiring.get_mut(&expiry) {
            *count -= 1;
            self.live -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: (u32, u32) = (1_000, 1_000);

    #[test]
    fn versions_count_up_and_only_the_last_is_right() {
        let mut keys = Expectations::empty(3, false);
        assert_eq!((keys.of(0), keys.next_version(0), keys.live(0)), (Expected::Absent, 0, 0));
        keys.stored(0, 0, 0);
        keys.stored(0, keys.next_version(0), 0);
        let expected = keys.of(0);
        assert_eq!(expected, Expected::Version { version: 1, expiry: 0 });
        assert_eq!(keys.judge(0, expected, &Found::Version(1), NOW), Ok(()));
        for (found, words) in [
            (Found::Version(0), "version 0 instead of 1"),
            (Found::Version(2), "version 2 instead of 1"),
            (Found::Nothing, "not found, though version 1 was stored"),
            (Found::Foreign("bytes".into()), "found bytes"),
        ] {
            let wrong = keys.judge(0, expected, &found, NOW).expect_err("wrong");
            assert!(wrong.contains(words), "{wrong}");
        }
        keys.deleted(0);
        assert_eq!((keys.of(0), keys.live(0)), (Expected::Absent, 0));
        assert!(keys.judge(0, Expected::Absent, &Found::Version(1), NOW).is_err());
        assert!(keys.judge(0, Expected::Absent, &Found::Item, NOW).is_err());
        assert_eq!(keys.judge(0, Expected::Absent, &Found::Nothing, NOW), Ok(()));
    }

    #[test]
    fn what_was_there_before_is_learned_once() {
        let mut keys = Expectations::unknown(2, false, 500);
        assert_eq!((keys.next_version(0), keys.live(0)), (500, 2));
        assert_eq!(keys.judge(0, keys.of(0), &Found::Nothing, NOW), Ok(()));
        assert!(keys.judge(0, keys.of(0), &Found::Foreign("x".into()), NOW).is_err());
        keys.learn(0, &Found::Version(7));
        keys.learn(0, &Found::Version(9));
        assert_eq!(keys.of(0), Expected::Version { version: 7, expiry: 0 });
        keys.learn(1, &Found::Nothing);
        assert_eq!((keys.of(1), keys.live(0)), (Expected::Absent, 1));
    }

    #[test]
    fn a_write_that_failed_leaves_any_version_right() {
        let mut keys = Expectations::empty(1, false);
        keys.stored(0, 0, 0);
        keys.doubt(0);
        for found in [Found::Nothing, Found::Version(0), Found::Version(5)] {
            assert_eq!(keys.judge(0, keys.of(0), &found, NOW), Ok(()));
        }
        assert!(keys.judge(0, keys.of(0), &Found::Foreign("x".into()), NOW).is_err());
    }

    #[test]
    fn an_item_is_there_until_it_expires_and_not_after() {
        let mut keys = Expectations::empty(2, true);
        keys.stored(0, 0, 1_010);
        keys.stored(1, 0, 1_020);
        let expected = keys.of(0);
        let judge = |found: &Found, second| keys.judge(0, expected, found, (second, second));
        assert!(judge(&Found::Nothing, 1_008).is_err(), "gone too early");
        assert_eq!(judge(&Found::Nothing, 1_009), Ok(()));
        assert_eq!(judge(&Found::Version(0), 1_011), Ok(()));
        let late = judge(&Found::Version(0), 1_012).expect_err("there too long");
        assert_eq!(late, "found 2 s after it expired");
        assert_eq!(keys.live(1_000), 2);
        keys.stored(1, 1, 1_030);
        assert_eq!(keys.live(1_010), 1);
        assert!(keys.expires());
        assert_eq!(keys.live(1_030), 0);
        assert!(!keys.expires());
        keys.stored(0, 1, 1_050);
        assert_eq!(keys.live(1_031), 1, "an item that had expired is there again");
    }
}
