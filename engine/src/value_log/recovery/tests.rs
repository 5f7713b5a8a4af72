use larder_runtime::simulation::{FaultPlan, SimDisk};

use super::*;
use crate::entry::Metadata;
use crate::value_log::commit::{Append, Appended, Durability};
use crate::value_log::moves::MovesBuilder;
use crate::value_log::test_log::{
    self, IDENTITY, Shown, directory, life, options, path, replay, written,
};

const LEN: usize = 300;

fn all(range: impl IntoIterator<Item = u64>) -> Shown {
    range.into_iter().map(|sequence| (sequence, sequence as u8, true)).collect()
}

/// Flips a bit in a record, `at` bytes from its start, or from its end if that is negative.
fn flip(disk: &mut SimDisk, appended: &Appended, at: i64) {
    let pointer = appended.pointer;
    let start = i64::from(pointer.offset);
    let offset = if at < 0 { start + i64::from(pointer.len) + at } else { start + at };
    disk.flip_bit(path(pointer.segment), offset as u64, 3);
}

/// Where the frame of a record starts, if it is the first in it.
fn frame_of(appended: &Appended) -> u64 {
    u64::from(appended.pointer.offset) - frame::HEADER_BYTES as u64
}

#[test]
fn a_log_that_ends_between_frames_is_whole() {
    let (disk, written) = written(4, LEN);
    let (outcome, shown) = replay(&disk, 1, &[]).expect("replays");
    assert_eq!(shown, all(1..=4));
    assert_eq!((outcome.sequence_next, outcome.records), (5, 4));
    assert_eq!((outcome.torn, outcome.damage), (false, vec![]));
    let last = written[3].pointer;
    let end = frame::padded((last.offset + last.len) as usize) as u32;
    assert_eq!(outcome.seals, [SegmentSeal { segment: 0, end, sequence_last: 4 }]);
}

#[test]
fn a_torn_last_frame_is_dropped_silently() {
    for at in [0, 20, 40, -1] {
        let (mut disk, written) = written(4, LEN);
        flip(&mut disk, &written[3], at);
        let (outcome, shown) = replay(&disk, 1, &[]).expect("replays");
        assert_eq!(shown, all(1..=3), "byte {at}");
        assert_eq!((outcome.sequence_next, outcome.torn), (4, true));
        assert_eq!(outcome.damage, []);
        assert_eq!(u64::from(outcome.seals[0].end), frame_of(&written[3]));
    }
}

#[test]
fn a_later_frame_that_survived_does_not_prove_the_one_before() {
    // Both were on their way: the second says only what was durable before them.
    let mut life = life(1, test_log::disk());
    let env = life.env();
    let appended = life.block_on(async move {
        let log = test_log::start(&env, options(Durability::Interval(1 << 40))).await;
        let mut appended = Vec::new();
        for fill in 1..=3 {
            appended.push(test_log::append(&log, fill, LEN).expect("fits"));
            let place = (appended[appended.len() - 1].pointer, LEN as u32);
            log.read(place, &test_log::key(fill), IoClass::Read).await.expect("reads");
        }
        appended
    });
    let appended = appended.expect("runs");
    let mut disk = life.kill();
    disk.zero_sector(path(0), frame_of(&appended[1]));
    let (outcome, shown) = replay(&disk, 1, &[]).expect("replays");
    assert_eq!(shown, all(1..=1));
    assert_eq!((outcome.torn, outcome.damage), (true, vec![]));
}

#[test]
fn damage_before_a_durable_frame_is_reported_and_the_rest_replayed() {
    let (clean, written) = written(5, LEN);
    // A value: its key is known.
    let mut disk = clean.clone();
    flip(&mut disk, &written[1], -1);
    let (outcome, shown) = replay(&disk, 1, &[]).expect("replays");
    let mut expected = all(1..=5);
    expected[1].2 = false;
    assert_eq!(shown, expected);
    assert_eq!(outcome.damage.len(), 1);
    assert!(outcome.damage[0].what.contains("key-002"), "{:?}", outcome.damage);
    // A record's head: nothing is known of it.
    let mut disk = clean.clone();
    flip(&mut disk, &written[1], 20);
    let (outcome, shown) = replay(&disk, 1, &[]).expect("replays");
    assert_eq!(shown, all([1, 3, 4, 5]));
    assert_eq!((outcome.damage.len(), outcome.sequence_next), (1, 6));
    // A frame's header.
    let mut disk = clean;
    disk.flip_bit(path(0), frame_of(&written[1]) + 8, 0);
    let (outcome, shown) = replay(&disk, 1, &[]).expect("replays");
    assert_eq!(shown, all([1, 3, 4, 5]));
    assert_eq!((outcome.damage.len(), outcome.torn), (1, false));
    assert_eq!(u64::from(outcome.damage[0].offset), frame_of(&written[1]));
}

#[test]
fn a_seal_proves_that_what_is_before_it_was_acknowledged() {
    let (clean, written) = written(4, LEN);
    let (outcome, _) = replay(&clean, 1, &[]).expect("replays");
    let seals = outcome.seals;
    for at in [20, -1] {
        let mut disk = clean.clone();
        flip(&mut disk, &written[3], at);
        let (outcome, _) = replay(&disk, 1, &seals).expect("replays");
        assert_eq!((outcome.damage.len(), outcome.torn), (1, false), "byte {at}");
        assert_eq!(outcome.sequence_next, 5);
    }
    let mut disk = clean;
    disk.zero_sector(path(0), frame_of(&written[3]));
    let (outcome, shown) = replay(&disk, 1, &seals).expect("replays");
    assert_eq!((shown, outcome.damage.len()), (all(1..=3), 1));
}

#[test]
fn an_unreadable_sector_is_never_taken_for_a_torn_tail() {
    let (clean, written) = written(4, LEN);
    for offset in [frame_of(&written[3]), u64::from(written[3].pointer.offset)] {
        let mut disk = clean.clone();
        disk.lose_sector(path(0), offset);
        let (outcome, shown) = replay(&disk, 1, &[]).expect("replays");
        assert_eq!(shown, all(1..=3));
        assert_eq!((outcome.damage.len(), outcome.torn), (1, false));
    }
}

#[test]
fn frames_go_on_in_the_next_segment() {
    let (clean, written) = written(20, LEN);
    let segments = written[19].pointer.segment + 1;
    assert!(segments > 2, "{segments} segments");
    let (outcome, shown) = replay(&clean, segments, &[]).expect("replays");
    assert_eq!(shown, all(1..=20));
    assert_eq!((outcome.damage, outcome.torn), (vec![], false));
    // Each segment's end is its own, so that the next replay goes through all of them again.
    let (again, shown) = replay(&clean, segments, &outcome.seals).expect("replays");
    assert_eq!(shown, all(1..=20));
    assert_eq!((again.damage, again.torn, again.seals), (vec![], false, vec![]));
    assert_eq!(again.sequence_next, outcome.sequence_next);
}

#[test]
fn damage_to_the_first_frame_of_a_segment_costs_that_frame_only() {
    let (mut disk, written) = written(20, LEN);
    let segments = written[19].pointer.segment + 1;
    let first = written.iter().find(|appended| appended.pointer.segment == 1).expect("some");
    disk.zero_sector(path(1), frame_of(first));
    let (outcome, shown) = replay(&disk, segments, &[]).expect("replays");
    let lost = first.sequence;
    assert_eq!(shown, all((1..=20).filter(|sequence| *sequence != lost)));
    assert_eq!(outcome.damage.len(), 1);
}

#[test]
fn an_unreadable_beginning_of_the_last_segment_is_never_taken_for_the_end_of_the_log() {
    let (_, written) = written(20, LEN);
    let in_first = written.iter().filter(|appended| appended.pointer.segment == 0).count();
    // The last frame is the first of its segment.
    let (mut disk, written) = test_log::written(in_first as u8 + 1, LEN);
    let last = written.last().expect("some");
    assert_eq!(last.pointer.segment, 1);
    disk.lose_sector(path(1), frame_of(last));
    let (outcome, shown) = replay(&disk, 2, &[]).expect("replays");
    assert_eq!(shown, all(1..=in_first as u64));
    assert_eq!((outcome.damage.len(), outcome.torn), (1, false));
    assert!(outcome.damage[0].lost.contains(&last.sequence), "{:?}", outcome.damage);
    assert_eq!((outcome.damage[0].segment, outcome.damage[0].offset), (1, segment::HEADER_BYTES));
}

#[test]
fn an_unreadable_later_segment_does_not_hide_frames_before_it() {
    let (mut disk, written) = written(20, LEN);
    let segments = written[19].pointer.segment + 1;
    let first = written.iter().find(|appended| appended.pointer.segment == 1).expect("some");
    disk.lose_sector(path(1), frame_of(first));
    // A header in the middle of the segment before is damaged as well.
    disk.flip_bit(path(0), frame_of(&written[1]) + 8, 0);
    let (outcome, shown) = replay(&disk, segments, &[]).expect("replays");
    let lost = [2, first.sequence];
    assert_eq!(shown, all((1..=20).filter(|sequence| !lost.contains(sequence))));
    assert_eq!((outcome.damage.len(), outcome.torn), (2, false));
}

#[test]
fn a_missing_record_does_not_hide_the_others_of_its_frame() {
    let mut life = life(1, test_log::disk());
    let env = life.env();
    let appended = life.block_on(async move {
        let log = test_log::start(&env, options(Durability::Sync)).await;
        let appended: Vec<Appended> =
            (1..=12).map(|fill| test_log::append(&log, fill, LEN).expect("fits")).collect();
        log.wait_durable(13).await.expect("durable");
        appended
    });
    let appended = appended.expect("runs");
    let mut disk = life.crash();
    let seals = replay(&disk, 1, &[]).expect("replays").0.seals;
    flip(&mut disk, &appended[4], 16);
    flip(&mut disk, &appended[8], 16);
    let (outcome, shown) = replay(&disk, 1, &seals).expect("replays");
    let fills: Vec<u8> = shown.iter().map(|(_, fill, _)| *fill).collect();
    assert_eq!(fills, [1, 2, 3, 4, 6, 7, 8, 10, 11, 12]);
    assert!(shown.windows(2).all(|pair| pair[0].0 < pair[1].0), "{shown:?}");
    assert_eq!(shown[4].0, 6, "what follows one lost record counts from behind it");
    assert_eq!((outcome.damage.len(), outcome.sequence_next), (2, 13));
}

/// A log with a value, a record of moves that says `payload`, and another value behind them.
fn with_moves(payload: &[u8]) -> (SimDisk, Appended) {
    let mut life = life(1, test_log::disk());
    let (env, payload) = (life.env(), payload.to_vec());
    let appended = life.block_on(async move {
        let log = test_log::start(&env, options(Durability::Sync)).await;
        test_log::append(&log, 1, LEN).expect("fits");
        let described = (RecordKind::Moves, Metadata::default());
        let moved = log.append(&Append::new(described, &[], &payload, None)).expect("fits");
        log.wait_durable(moved.sequence + 1).await.expect("durable");
        let last = test_log::append(&log, 2, LEN).expect("fits");
        log.wait_durable(last.sequence + 1).await.expect("durable");
        moved
    });
    (life.crash(), appended.expect("runs"))
}

#[test]
fn each_move_of_a_record_is_replayed_and_lost_ones_are_reported() {
    let mut moves = MovesBuilder::default();
    for fill in [7, 8] {
        let to = Pointer { segment: 9, offset: 4160 + u32::from(fill) * 400, len: 350 };
        moves.add(&test_log::key(fill), Metadata::default(), to, 300);
    }
    let (disk, moved) = with_moves(moves.payload());
    let (outcome, shown) = replay(&disk, 1, &[]).expect("replays");
    assert_eq!(shown, [(1, 1, true), (2, 7, true), (2, 8, true), (3, 2, true)]);
    assert_eq!((outcome.records, outcome.sequence_next), (4, 4));
    assert_eq!((outcome.damage, outcome.torn), (vec![], false));

    let mut damaged = disk;
    flip(&mut damaged, &moved, -1);
    for disk in [damaged, with_moves(&moves.payload()[1..]).0] {
        let (outcome, shown) = replay(&disk, 1, &[]).expect("replays");
        assert_eq!(shown, [(1, 1, true), (3, 2, true)]);
        let damage = &outcome.damage[..];
        assert!(matches!(damage, [one] if one.lost == (2..3)), "{damage:?}");
        assert_eq!(damage[0].offset, moved.pointer.offset);
    }
}

#[test]
fn what_a_recycled_file_held_before_is_not_replayed() {
    let (mut disk, _) = written(5, LEN);
    // The file of segment 0 under the number 1: all its frames are another segment's.
    let bytes = disk.read_all(path(0));
    let mut life = life(3, disk);
    let env = life.env();
    life.block_on(async move { test_log::prepare(&env, 1, bytes.len() as u32).await })
        .expect("runs");
    disk = life.crash();
    let old = disk.read_range(path(0), 4096..32 << 10);
    disk.write_raw(path(1), 4096, &old);
    let (outcome, shown) = replay(&disk, 2, &[]).expect("replays");
    assert_eq!(shown, all(1..=5));
    assert_eq!((outcome.damage, outcome.torn), (vec![], false));
}

#[test]
fn a_record_of_a_newer_version_is_refused_not_dropped() {
    let (mut disk, written) = written(3, LEN);
    let pointer = written[2].pointer;
    let (start, len) = (u64::from(pointer.offset), u64::from(pointer.len));
    let mut bytes = disk.read_range(path(0), start..start + len);
    bytes[32] += 1;
    let place = Place { store: IDENTITY.store, segment: 0, offset: pointer.offset };
    let key_end = record::HEAD_BYTES + test_log::key(3).len();
    let crc = crc32c::crc32c_append(place.seed(), &bytes[4..key_end]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    disk.write_raw(path(0), start, &bytes);
    let error = replay(&disk, 1, &[]).expect_err("refused");
    assert!(error.to_string().contains("format 3"), "{error}");
}

#[test]
fn a_segment_that_the_manifest_forgot_is_recognised() {
    let (disk, _) = written(1, LEN);
    let mut life = life(3, disk);
    let env = life.env();
    life.block_on(async move {
        test_log::prepare(&env, 1, 32 << 10).await;
        let holds = async |number| {
            let path = directory().join(segment::file_name(number));
            holds_frames(&env, &path, IDENTITY.store, number).await.expect("readable")
        };
        assert!(holds(0).await);
        assert!(!holds(1).await, "prepared, but nothing was written to it");
    })
    .expect("runs");
}

#[test]
fn one_lie_of_the_device_does_not_cut_the_log_off() {
    let (disk, _) = written(6, LEN);
    let mut life = life(3, disk);
    let env = life.env();
    let records = life.block_on(async move {
        let bytes = test_log::SEGMENT_BYTES;
        let opened = segment::open(&env, directory(), IDENTITY, 0, bytes).await;
        let source = [ReplaySegment { segment: opened.expect("opens"), seal: None }];
        let from = LogPosition { segment: 0, offset: 0, sequence: 1 };
        // The first read of the log lies, as often as it takes to hit a frame.
        let mut least = u64::MAX;
        for _ in 0..200 {
            let lie = FaultPlan { bit_flip_at_read_per_million: 1_000_000, ..FaultPlan::default() };
            env.set_faults(lie);
            let quiet = env.clone();
            let reading = super::replay(&env, IDENTITY.store, &source, from, |_| {});
            let truth = async move {
                // The read is on its way when this runs; what it returns is decided at its end.
                quiet.sleep(250_000).await;
                quiet.set_faults(FaultPlan::default());
            };
            let (outcome, ()) = futures_lite::future::zip(reading, truth).await;
            least = least.min(outcome.expect("replays").records);
        }
        least
    });
    assert_eq!(records.expect("runs"), 6);
}

/// Segment 1 is prepared, replaced by segment 2, and not taken out of the manifest before the end.
fn written_around_an_unused_spare() -> (SimDisk, u64) {
    let mut life = life(1, test_log::disk());
    let env = life.env();
    let last = life.block_on(async move {
        let log = test_log::start(&env, options(Durability::Sync)).await;
        let mut fill = 0;
        let refused = loop {
            fill += 1;
            match test_log::append(&log, fill, 6 * LEN) {
                Ok(appended) => log.wait_durable(appended.sequence + 1).await.expect("durable"),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, crate::value_log::commit::Refused::NoSegment);
        for number in [1, 2] {
            let bytes = test_log::SEGMENT_BYTES;
            log.offer_segment(test_log::prepare(&env, number, bytes).await);
        }
        let appended = test_log::append(&log, fill, LEN).expect("there is a segment");
        assert_eq!(appended.pointer.segment, 2);
        log.wait_durable(appended.sequence + 1).await.expect("durable");
        appended.sequence
    });
    (life.crash(), last.expect("runs"))
}

#[test]
fn a_spare_that_was_never_used_hides_nothing_behind_it() {
    let (disk, last) = written_around_an_unused_spare();
    let (first, shown) = replay(&disk, 3, &[]).expect("replays");
    assert_eq!(shown, all(1..=last));
    assert_eq!(first.damage, []);
    let spare = first.seals.iter().find(|seal| seal.segment == 1).expect("it is sealed");
    assert_eq!((spare.end, spare.sequence_last), (segment::HEADER_BYTES, last - 1));
    // The next start finds the ends that this one has put into the manifest.
    let (second, shown) = replay(&disk, 3, &first.seals).expect("replays");
    assert_eq!(shown, all(1..=last));
    assert_eq!((second.damage, second.sequence_next), (vec![], first.sequence_next));
}
