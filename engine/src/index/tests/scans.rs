//! Scans against a model, in both directions, over memtables and tables.

use larder_runtime::random::Random;

use super::*;
use crate::index::scan::ScanRange;

fn key_number(key: &[u8]) -> u32 {
    let record = crate::key::decode(key).expect("an encoded key").record;
    let number = record.strip_prefix(b"key-").expect("a key of the test's");
    std::str::from_utf8(number).expect("digits").parse().expect("a number")
}

impl Fixture {
    /// What a scan of `range` comes to, and whether it was cut.
    pub(super) fn scan(
        &mut self,
        range: &ScanRange,
    ) -> Result<(Vec<(u32, EntryBuf)>, bool), EngineError> {
        let (index, range) = (self.index.clone(), range.clone());
        let work = async move {
            // However many are expected, the same is found.
            let expected = [0, 3, 400, usize::MAX][range.start.len() % 4];
            let mut scan = index.scan(range, IoClass::Scan).expecting(expected);
            let mut found = Vec::new();
            while let Some(scanned) = index.next_scanned(&mut scan).await? {
                found.push((scanned.key, scanned.entry));
            }
            let cut_at = scan.cut_at().map(<[u8]>::to_vec);
            assert!(cut_at.is_none() || found.last().map(|(key, _)| key.clone()) == cut_at);
            Ok::<_, EngineError>((found, cut_at.is_some()))
        };
        let (found, is_cut) = self.simulation.block_on(work).expect("runs")?;
        Ok((found.into_iter().map(|(key, entry)| (key_number(&key), entry)).collect(), is_cut))
    }

    /// The same by the model.
    pub(super) fn expected(&self, range: &ScanRange) -> Vec<(u32, EntryBuf)> {
        let is_within = |number: u32| {
            let key = key(number);
            key >= range.start && range.end.as_ref().is_none_or(|end| key < *end)
        };
        let all = self.model.iter().filter(|(number, _)| is_within(**number));
        let mut all: Vec<_> = all.map(|(number, entry)| (*number, entry.clone())).collect();
        if range.is_reverse {
            all.reverse();
        }
        all
    }

    /// Holds scans of some ranges against the model. Tombstones may be there or not.
    fn check_scans(&mut self, random: &mut Random) {
        for _ in 0..6 {
            let (from, to) = (random.below(450) as u32, random.below(450) as u32);
            let end = (random.below(4) > 0).then(|| key(to));
            for is_reverse in [false, true] {
                let start = if random.below(4) > 0 { key(from) } else { Vec::new() };
                let range = ScanRange { start, end: end.clone(), is_reverse, passes_lost: false };
                let (found, is_cut) = self.scan(&range).expect("readable");
                let living = |entries: Vec<(u32, EntryBuf)>| {
                    let lives = |(_, entry): &(u32, EntryBuf)| !entry.as_entry().is_tombstone();
                    entries.into_iter().filter(lives).collect::<Vec<_>>()
                };
                assert!(!is_cut);
                assert_eq!(living(found), living(self.expected(&range)), "{range:?}");
            }
        }
    }
}

#[test]
fn scans_find_what_the_model_has_in_order() {
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let mut fixture = Fixture::new(seed);
        for _ in 0..8 {
            for _ in 0..random.below(150) {
                let make = if random.below(5) == 0 { tombstone } else { separate };
                fixture.insert(random.below(400) as u32, make);
            }
            fixture.check_scans(&mut random);
            if random.below(3) > 0 {
                fixture.flush();
                fixture.check_scans(&mut random);
            }
            if random.below(2) == 0 {
                fixture.compact().expect("merges");
                fixture.check_scans(&mut random);
            }
            if random.below(5) == 0 {
                fixture.flush();
                fixture.reopen();
                fixture.check_scans(&mut random);
            }
        }
    }
}

#[test]
fn who_expects_much_waits_for_the_device_less_often() {
    let reads_of = |expected: usize| {
        let mut fixture = Fixture::new(5);
        (0..400).for_each(|number| fixture.insert(number, separate));
        fixture.flush();
        // Blocks that were just written are in memory.
        fixture.reopen();
        let env = fixture.simulation.env();
        let range =
            ScanRange { start: Vec::new(), end: None, is_reverse: false, passes_lost: false };
        let before = env.reads_of(IoClass::Scan);
        let mut scan = fixture.index.scan(range, IoClass::Scan).expecting(expected);
        let index = fixture.index.clone();
        let work = async move {
            let mut found = 0;
            while index.next_scanned(&mut scan).await.expect("readable").is_some() {
                found += 1;
            }
            found
        };
        assert_eq!(fixture.simulation.block_on(work).expect("runs"), 400);
        env.reads_of(IoClass::Scan) - before
    };
    let (by_and_by, at_once) = (reads_of(0), reads_of(400));
    assert!(at_once == 1 && by_and_by > 1, "{at_once} reads and {by_and_by}");
}

#[test]
fn a_scan_sees_the_moment_at_which_it_began() {
    let mut fixture = Fixture::new(3);
    (0..200).for_each(|number| fixture.insert(number, separate));
    fixture.flush();
    (0..200).filter(|number| number % 3 == 0).for_each(|number| fixture.insert(number, separate));
    let range = ScanRange { start: Vec::new(), end: None, is_reverse: false, passes_lost: false };
    let expected = fixture.expected(&range);
    let mut scan = fixture.index.scan(range, IoClass::Scan);
    let mut found = Vec::new();
    for round in 0..200u32 {
        // Everything changes between two steps.
        fixture.insert(round, tombstone);
        fixture.insert(round + 1, separate);
        if round % 40 == 20 {
            fixture.flush();
            fixture.compact().expect("merges");
        }
        let index = fixture.index.clone();
        let step = async move { (index.next_scanned(&mut scan).await, scan) };
        let (next, after) = fixture.simulation.block_on(step).expect("runs");
        scan = after;
        let next = next.expect("readable").expect("there are more");
        found.push((key_number(&next.key), next.entry));
    }
    assert_eq!(found, expected);
}

#[test]
fn a_scan_of_a_large_memtable_ends_where_it_can_vouch_for() {
    let mut options = options();
    options.memtable_bytes = 1 << 20;
    let mut fixture = Fixture::with(4, options);
    (0..3000).filter(|number| number % 2 == 0).for_each(|number| fixture.insert(number, separate));
    fixture.flush();
    (0..3000).filter(|number| number % 2 == 1).for_each(|number| fixture.insert(number, separate));
    for is_reverse in [false, true] {
        let range = ScanRange { start: Vec::new(), end: None, is_reverse, passes_lost: false };
        let (found, is_cut) = fixture.scan(&range).expect("readable");
        assert!(is_cut && (2047..=2049).contains(&found.len()), "{}", found.len());
        assert_eq!(found, fixture.expected(&range)[..found.len()]);
    }
}
