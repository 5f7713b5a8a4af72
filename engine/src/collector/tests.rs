//! The segments that the collector fills: which it closes, and what becomes of one when something
//! fails.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use larder_runtime::env::{Env, File, IoClass};
use larder_runtime::simulation::{SimEnv, SimFile};

use super::{
    Collected, Collector, CollectorHost, Fate, GENERATION_MOVED, Newest, Passage, RecordMove,
    Separation, Victim,
};
use crate::entry::{Metadata, Pointer};
use crate::error::EngineError;
use crate::space::ListedPart;
use crate::value_log::frame::{self, FrameBuilder};
use crate::value_log::record::{self, Place, Record, RecordKind};
use crate::value_log::segment::{self, Segment};
use crate::value_log::test_log::{IDENTITY, disk, life, prepare};

const NOW: u32 = 1_700_000_000;

/// Of an output's segment.
const OUTPUT_BYTES: u32 = 64 << 10;

/// The first segment that the collector makes has this number.
const FIRST_OUTPUT: u32 = 100;

/// A shard that has records in segments, and no index: all of them live.
struct Host {
    env: SimEnv,
    collector: Collector<SimEnv>,
    separation: Cell<Separation>,
    metadata: RefCell<BTreeMap<Vec<u8>, Metadata>>,
    next_victim: Cell<u32>,
    /// Moves that succeed before one fails.
    moves_left: Cell<usize>,
    opened: RefCell<Vec<u32>>,
    /// The ends of segments that take no more records.
    sealed: RefCell<BTreeMap<u32, u32>>,
    places: RefCell<BTreeMap<Vec<u8>, Pointer>>,
}

impl Host {
    fn new(env: SimEnv) -> Self {
        Self {
            collector: Collector::new(env.clone(), IDENTITY.store),
            env,
            separation: Cell::default(),
            metadata: RefCell::default(),
            next_victim: Cell::default(),
            moves_left: Cell::new(usize::MAX),
            opened: RefCell::default(),
            sealed: RefCell::default(),
            places: RefCell::default(),
        }
    }

    /// A segment with records of these keys, expiries and lengths of values.
    async fn victim(&self, records: &[(&[u8], u32, usize)]) -> (Victim, Segment<SimFile>) {
        let number = self.next_victim.replace(self.next_victim.get() + 1);
        let len = |&(key, _, len): &(&[u8], u32, usize)| record::encoded_len(key.len(), len);
        let frame = frame::padded(frame::HEADER_BYTES + records.iter().map(len).sum::<usize>());
        let offset = segment::HEADER_BYTES;
        let segment = prepare(&self.env, number, offset + frame as u32).await;
        let place = Place { store: IDENTITY.store, segment: number, offset };
        let mut builder = FrameBuilder::new(self.env.buffer(frame), place, 1);
        for &(key, expiry, len) in records {
            let metadata = Metadata { version: 1, expiry, ..Metadata::default() };
            let payload = &vec![7; len];
            let record = Record { kind: RecordKind::Put, metadata, key, payload, original: None };
            builder.push(&record, crc32c::crc32c(payload));
            self.metadata.borrow_mut().insert(key.to_vec(), metadata);
        }
        let mut end = offset;
        if !builder.is_empty() {
            let (buffer, _) = builder.seal(0, 0);
            end += buffer.len() as u32;
            let (result, _) =
                segment.file.write_durably(IoClass::Commit, u64::from(offset), buffer).await;
            result.expect("the disk takes it");
        }
        (Victim { number, generation: GENERATION_MOVED, end }, segment)
    }

    async fn collect(
        &self,
        (victim, segment): &(Victim, Segment<SimFile>),
    ) -> Result<Collected, EngineError> {
        self.collector.collect(*victim, segment, self).await
    }

    /// Begins a collection in which nothing lives, with other kinds kept apart; returns which
    /// segments are sealed then.
    async fn keep_apart(&self, separation: Separation) -> BTreeSet<u32> {
        self.separation.set(Separation { now: NOW, ..separation });
        let nothing = self.victim(&[]).await;
        assert!(self.collect(&nothing).await.expect("nothing fails").is_complete);
        self.sealed.borrow().keys().copied().collect()
    }

    /// The segment that a key was moved to.
    fn segment_of(&self, key: &[u8]) -> u32 {
        self.places.borrow()[key].segment
    }
}

impl CollectorHost<SimEnv> for Host {
    fn listed(&self, _: u32, _: usize, _: (usize, usize)) -> Option<ListedPart> {
        None
    }

    fn in_memory(&self, _: u64, _: Pointer) -> Option<(Vec<u8>, Vec<u8>)> {
        None
    }

    fn fate(&self, key: &[u8], pointer: Pointer) -> Fate {
        let metadata = self.metadata.borrow()[key];
        let value_len = pointer.len - record::encoded_len(key.len(), 0) as u32;
        Fate::Lives(Newest { metadata, value_len, table_changes: 0 })
    }

    async fn newest_at(&self, key: &[u8], _: Pointer) -> Result<Option<Newest>, EngineError> {
        panic!("memory knows of {key:?}");
    }

    async fn open_segment(&self, _: u8, bytes: u32) -> Result<Segment<SimFile>, EngineError> {
        let number = FIRST_OUTPUT + self.opened.borrow().len() as u32;
        self.opened.borrow_mut().push(number);
        Ok(prepare(&self.env, number, bytes.max(OUTPUT_BYTES)).await)
    }

    async fn seal_segment(&self, number: u32, end: u32) -> Result<(), EngineError> {
        let before = self.sealed.borrow_mut().insert(number, end);
        assert_eq!(before, None, "it is sealed once");
        Ok(())
    }

    async fn room_for_moves(&self, _: &[RecordMove]) -> Result<(), EngineError> {
        Ok(())
    }

    async fn move_records(&self, moves: Vec<RecordMove>) -> Result<(), EngineError> {
        for RecordMove { key, to, .. } in moves {
            let Some(left) = self.moves_left.get().checked_sub(1) else {
                return Err(EngineError::Full);
            };
            self.moves_left.set(left);
            self.places.borrow_mut().insert(key, to);
        }
        Ok(())
    }

    fn separation(&self) -> Separation {
        self.separation.get()
    }

    fn is_closing(&self) -> bool {
        false
    }

    async fn passed(&self, _: Passage) {}
}

/// Runs `test` with a host on an empty disk.
fn run(test: impl AsyncFnOnce(Host) + 'static) {
    let mut life = life(1, disk());
    let host = Host::new(life.env());
    life.block_on(test(host)).expect("nothing stops the run");
}

fn separation(by_age: bool, expiry_classes: usize, live_segments: u64) -> Separation {
    Separation { by_age, expiry_classes, live_segments, now: NOW }
}

#[test]
fn segments_of_kinds_that_are_no_longer_kept_apart_are_closed() {
    run(async |host| {
        host.separation.set(separation(true, 2, 100));
        let keys: [&[u8]; 3] = [b"stays", b"goes soon", b"goes late"];
        let expiries = [0, NOW + 60, NOW + 6000];
        let records = [
            (keys[0], expiries[0], 100),
            (keys[1], expiries[1], 9000),
            (keys[2], expiries[2], 100),
        ];
        let mixed = host.victim(&records).await;
        host.collect(&mixed).await.expect("nothing fails");
        let [stays, soon, late] = keys.map(|key| host.segment_of(key));
        assert_eq!(BTreeSet::from([stays, soon, late]).len(), 3, "each has one of its own");
        let sealed = host.keep_apart(separation(false, 0, 12)).await;
        assert_eq!(sealed, BTreeSet::new(), "three are few where twelve live");
        let sealed = host.keep_apart(separation(true, 1, 11)).await;
        assert_eq!(sealed, BTreeSet::from([soon]), "of two classes the fuller one is closed");
        assert!(!host.collector.writes_to(soon));
        let sealed = host.keep_apart(separation(true, 1, 0)).await;
        assert_eq!(sealed, BTreeSet::from([soon]), "the others are kept apart still");
        let sealed = host.keep_apart(separation(false, 0, 0)).await;
        assert_eq!(sealed, BTreeSet::from([stays, soon, late]));
        assert!(!host.collector.writes_to(stays) && !host.collector.writes_to(late));
        for key in keys {
            let place = host.places.borrow()[key];
            assert!(place.offset + place.len <= host.sealed.borrow()[&place.segment]);
        }
    });
}

#[test]
fn a_segment_stays_with_the_collector_when_a_move_fails() {
    run(async |host| {
        let victim = host.victim(&[(b"a", 0, 500), (b"b", 0, 500), (b"c", 0, 500)]).await;
        host.moves_left.set(1);
        let failed = host.collect(&victim).await;
        assert!(matches!(failed, Err(EngineError::Full)), "{failed:?}");
        host.moves_left.set(usize::MAX);
        assert!(host.collect(&victim).await.expect("nothing fails").is_complete);
        assert_eq!(*host.opened.borrow(), [FIRST_OUTPUT], "the rest of it is used");
        assert!(host.collector.writes_to(FIRST_OUTPUT));
        assert_eq!([b"a", b"b", b"c"].map(|key| host.segment_of(key)), [FIRST_OUTPUT; 3]);
    });
}

#[test]
fn a_full_segment_is_sealed_although_a_move_failed_when_it_was_to_be() {
    run(async |host| {
        let keys: Vec<Vec<u8>> = (0..30).map(|number| vec![b'k', number]).collect();
        let records: Vec<(&[u8], u32, usize)> =
            keys.iter().map(|key| (key.as_slice(), 0, 3000)).collect();
        let victim = host.victim(&records).await;
        host.moves_left.set(5);
        let failed = host.collect(&victim).await;
        assert!(matches!(failed, Err(EngineError::Full)), "{failed:?}");
        assert_eq!(*host.opened.borrow(), [FIRST_OUTPUT], "it is full, and the next one not made");
        assert!(host.sealed.borrow().is_empty() && host.collector.writes_to(FIRST_OUTPUT));
        host.moves_left.set(usize::MAX);
        assert!(host.collect(&victim).await.expect("nothing fails").is_complete);
        assert!(!host.collector.writes_to(FIRST_OUTPUT));
        let end = host.sealed.borrow()[&FIRST_OUTPUT];
        assert!((OUTPUT_BYTES / 2..=OUTPUT_BYTES).contains(&end), "{end}");
        for key in &keys {
            assert_ne!(host.segment_of(key), FIRST_OUTPUT, "all were copied anew");
        }
    });
}
