use larder_runtime::env::IoClass;
use larder_runtime::simulation::{
    FailOperation, Failure, FaultPlan, OperationKind, OperationKinds, SimEnv,
};

use super::*;
use crate::error::EngineError;
use crate::value_log::test_log::{
    self, SEGMENT_BYTES, TestLog, append, key, life, options, prepare, replay, start,
};

/// Runs `test` on a new log.
fn with_log<T, F: Future<Output = T>>(
    seed: u64,
    durability: Durability,
    test: impl FnOnce(SimEnv, TestLog) -> F,
) -> T {
    let mut life = life(seed, test_log::disk());
    let env = life.env();
    let result = life.block_on(async {
        let log = start(&env, options(durability)).await;
        test(env, log).await
    });
    result.expect("nothing stops the run")
}

async fn value(log: &TestLog, fill: u8, appended: Appended) -> Result<Vec<u8>, EngineError> {
    let key = key(fill);
    let value_len = appended.pointer.len - record::encoded_len(key.len(), 0) as u32;
    log.read((appended.pointer, value_len), &key, IoClass::Read).await
}

#[test]
fn a_record_for_which_room_was_made_is_appended() {
    with_log(1, Durability::Sync, |_, log| async move {
        let room = |len| log.make_room(key(1).len(), len);
        assert_eq!(room(1000), Ok(()));
        let appended = append(&log, 1, 1000).expect("there is room");
        assert_eq!((appended.sequence, log.counters().records), (1, 1));
        assert_eq!(room(2 * SEGMENT_BYTES as usize), Err(Refused::NoSegment));
        assert_eq!(log.counters().records, 1, "to ask adds nothing");
        log.stop("it ends".to_owned());
        assert_eq!(room(1000), Err(Refused::Stopped));
    });
}

#[test]
fn what_is_durable_survives_whatever_order_frames_finish_in() {
    for seed in 0..40 {
        with_log(seed, Durability::Sync, |env, log| async move {
            let mut last = 0;
            for fill in 1..60u8 {
                while append(&log, fill, 700).is_err() {
                    let wanted = log.wants_segment(SEGMENT_BYTES);
                    if let Some(bytes) = wanted {
                        let number = log.space_left().1 + 1;
                        log.offer_segment(prepare(&env, number, bytes).await);
                    } else {
                        env.sleep(50_000).await;
                    }
                }
                env.sleep(seed * 4_000).await;
                let durable_end = log.durable_end();
                assert!(durable_end >= last && durable_end <= log.sequence_next());
                last = durable_end;
                // The first of these disks is the one that keeps nothing it need not keep.
                let disk = env.snapshot().enumerate_crashes(1).next().expect("one");
                let segments = log.space_left().1 + 1;
                let (outcome, _) = replay(&disk, segments, &[]).expect("replays");
                assert!(outcome.sequence_next >= durable_end, "seed {seed}");
                assert_eq!(outcome.damage, []);
            }
        });
    }
}

#[test]
fn records_that_arrive_meanwhile_share_a_frame() {
    with_log(1, Durability::Sync, |_, log| async move {
        for fill in 1..=20 {
            append(&log, fill, 100).expect("fits");
        }
        log.wait_durable(21).await.expect("durable");
        let counters = log.counters();
        assert_eq!(counters.records, 20);
        assert!(counters.frames <= 2, "{counters:?}");
        assert_eq!(log.acknowledged_end(), 21);
    });
}

#[test]
fn a_frame_that_is_to_become_longer_does_not_wait_for_the_device() {
    let backlogs = |durability| {
        with_log(1, durability, |_, log| async move {
            let before = log.backlog().0;
            append(&log, 1, 300).expect("fits");
            let one = log.backlog().0;
            while log.backlog().0 == one {
                append(&log, 1, 300).expect("fits");
            }
            let more = log.backlog().0;
            log.flush().await.expect("flushes");
            (before, one, more, log.backlog())
        })
    };
    let (before, one, more, (waiting, written)) = backlogs(Durability::Sync);
    assert!(before == 0 && one > 300 && more > one + 300, "{one} and {more} bytes");
    assert!(waiting == 0 && written >= more as u64, "{written} of {more} bytes are written");
    for durability in [Durability::Interval(1_000_000), Durability::None] {
        let (before, one, more, (waiting, written)) = backlogs(durability);
        assert_eq!((before, one, waiting), (0, 0, 0), "{durability:?}");
        let due = options(durability).lazy_frame_bytes;
        assert!(more >= due && written >= more as u64, "{durability:?}: {more} bytes");
    }
}

#[test]
fn records_are_readable_wherever_they_are() {
    for durability in [Durability::Sync, Durability::Interval(1_000_000), Durability::None] {
        with_log(1, durability, |_, log| async move {
            let first = append(&log, 1, 300).expect("fits");
            // Still in the open frame.
            assert_eq!(value(&log, 1, first).await.expect("reads"), vec![1; 300]);
            let second = append(&log, 2, 300).expect("fits");
            log.flush().await.expect("flushes");
            assert_eq!(value(&log, 2, second).await.expect("reads"), vec![2; 300]);
            let other = value(&log, 1, second).await;
            assert!(matches!(other, Err(EngineError::Damaged { .. })));
            let longer = log.read((second.pointer, 301), &key(2), IoClass::Read).await;
            assert!(matches!(longer, Err(EngineError::Damaged { .. })));
        });
    }
}

#[test]
fn a_full_segment_is_followed_by_the_next_and_sealed_when_it_is_durable() {
    with_log(1, Durability::Sync, |env, log| async move {
        let mut last = None;
        let refused = loop {
            match append(&log, 1, 3000) {
                Ok(appended) => {
                    log.wait_durable(appended.sequence + 1).await.expect("durable");
                    last = Some(appended);
                }
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, Refused::NoSegment);
        assert_eq!(log.wants_segment(SEGMENT_BYTES), Some(SEGMENT_BYTES));
        log.offer_segment(prepare(&env, 1, SEGMENT_BYTES).await);
        assert_eq!(log.wants_segment(SEGMENT_BYTES), None);
        let next = append(&log, 2, 3000).expect("fits");
        assert_eq!(next.pointer.segment, 1);
        let last = last.expect("some fitted");
        let seals = log.take_seals();
        assert_eq!((seals.len(), seals[0].segment), (1, 0));
        assert_eq!(seals[0].sequence_last, last.sequence);
        assert!(seals[0].end > last.pointer.offset && seals[0].end <= SEGMENT_BYTES);
        assert_eq!(log.take_seals(), []);
    });
}

#[test]
fn a_segment_with_a_frame_on_its_way_is_not_sealed() {
    with_log(1, Durability::Interval(1 << 40), |env, log| async move {
        log.offer_segment(prepare(&env, 1, SEGMENT_BYTES).await);
        while append(&log, 1, 3000).expect("fits").pointer.segment == 0 {
            env.sleep(1_000_000).await;
        }
        assert_eq!(log.take_seals(), [], "nothing has been flushed");
        log.flush().await.expect("flushes");
        assert_eq!(log.take_seals().len(), 1);
    });
}

#[test]
fn a_record_that_no_standard_segment_holds_asks_for_a_longer_one() {
    with_log(1, Durability::Sync, |env, log| async move {
        log.offer_segment(prepare(&env, 1, SEGMENT_BYTES).await);
        let len = 2 * SEGMENT_BYTES as usize;
        assert_eq!(append(&log, 1, len), Err(Refused::NoSegment));
        let wanted = log.wants_segment(SEGMENT_BYTES).expect("a longer one");
        assert!(wanted as usize > len);
        // If there is no space for it, whoever asked is told once; short records go on.
        log.refuse_segment(wanted);
        assert_eq!(log.wants_segment(SEGMENT_BYTES), None);
        assert!(append(&log, 2, 100).is_ok());
        assert_eq!(append(&log, 1, len), Err(Refused::NoSpace));
        assert_eq!(append(&log, 1, len), Err(Refused::NoSegment));
        assert_eq!(log.offer_segment(prepare(&env, 2, wanted).await), Some(1));
        let long = append(&log, 1, len).expect("fits");
        assert_eq!(long.pointer.segment, 2);
        assert_eq!(value(&log, 1, long).await.expect("reads"), vec![1; len]);
    });
}

#[test]
fn too_much_that_waits_is_refused_until_it_is_written() {
    with_log(1, Durability::Sync, |env, log| async move {
        log.offer_segment(prepare(&env, 1, 4 * SEGMENT_BYTES).await);
        let mut appended = 0;
        let refused = loop {
            match append(&log, 1, 3000) {
                Ok(_) => appended += 1,
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, Refused::Queued);
        assert!(appended > 3, "{appended}");
        log.wait_durable(appended).await.expect("durable");
        assert!(append(&log, 1, 3000).is_ok());
    });
}

#[test]
fn no_sequence_beyond_the_reserved_ones_is_used() {
    let mut life = life(1, test_log::disk());
    let env = life.env();
    let done = life.block_on(async move {
        let current = prepare(&env, 0, SEGMENT_BYTES).await;
        let sequences = (10, 13);
        let options = options(Durability::Sync);
        let directory = test_log::directory();
        let identity = test_log::IDENTITY;
        let log = ValueLog::start(
            &env,
            directory,
            identity,
            options,
            current,
            LogSegments::default(),
            sequences,
        );
        assert!(log.needs_sequences());
        for sequence in 10..13 {
            assert_eq!(append(&log, 1, 10).expect("reserved").sequence, sequence);
        }
        assert_eq!(append(&log, 1, 10), Err(Refused::NoSequence));
        log.extend_sequences(20);
        assert_eq!(append(&log, 1, 10).expect("reserved").sequence, 13);
    });
    done.expect("nothing stops the run");
}

#[test]
fn an_interval_bounds_how_long_a_record_is_not_durable() {
    with_log(1, Durability::Interval(5_000_000), |env, log| async move {
        append(&log, 1, 100).expect("fits");
        assert_eq!(log.acknowledged_end(), u64::MAX);
        env.sleep(2_000_000).await;
        assert_eq!(log.durable_end(), 1);
        env.sleep(5_000_000).await;
        assert_eq!(log.durable_end(), 2);
    });
}

#[test]
fn without_durability_records_are_written_and_flushed_on_demand_only() {
    with_log(1, Durability::None, |env, log| async move {
        append(&log, 1, 100).expect("fits");
        env.sleep(2 * LAZY_WRITE_NANOSECONDS).await;
        assert_eq!((log.counters().frames, log.durable_end()), (1, 1));
        log.flush().await.expect("flushes");
        assert_eq!(log.durable_end(), 2);
    });
}

/// The next operation of this kind fails.
fn fail_next(env: &SimEnv, kind: OperationKind) {
    let among = OperationKinds::of(&[kind]);
    let fail = FailOperation::once(env.operations_of(among), Failure::Io).among(among);
    env.set_faults(FaultPlan { fail_operation: Some(fail), ..FaultPlan::default() });
}

#[test]
fn a_failed_write_or_flush_stops_the_log_for_good() {
    for kind in [OperationKind::Write, OperationKind::Sync] {
        with_log(1, Durability::Sync, |env, log| async move {
            let first = append(&log, 1, 100).expect("fits");
            log.wait_durable(2).await.expect("durable");
            fail_next(&env, kind);
            append(&log, 2, 100).expect("fits");
            assert!(matches!(log.wait_durable(3).await, Err(EngineError::Stopped(_))));
            assert_eq!(log.durable_end(), 2);
            assert_eq!(append(&log, 3, 100), Err(Refused::Stopped));
            assert!(log.flush().await.is_err());
            assert_eq!(log.wants_segment(SEGMENT_BYTES), None);
            // What was durable is, and can be read.
            log.wait_durable(2).await.expect("durable");
            assert_eq!(value(&log, 1, first).await.expect("reads"), vec![1; 100]);
        });
    }
}

#[test]
fn a_flush_that_nobody_waited_for_is_made_up_for_by_the_next() {
    with_log(3, Durability::None, |env, log| async move {
        append(&log, 1, 100).expect("fits");
        log.write_open_frame();
        env.sleep(1_000_000).await;
        {
            let mut abandoned = Box::pin(log.flush());
            let begun = futures_lite::future::poll_once(&mut abandoned).await;
            assert!(begun.is_none(), "the flush takes time");
        }
        log.flush().await.expect("flushes");
        let disk = env.snapshot().enumerate_crashes(1).next().expect("one");
        let (outcome, shown) = replay(&disk, 1, &[]).expect("replays");
        assert_eq!((outcome.sequence_next, shown), (2, vec![(1, 1, true)]));
    });
}

#[test]
fn a_closed_log_knows_all_its_ends() {
    with_log(1, Durability::Sync, |env, log| async move {
        log.offer_segment(prepare(&env, 1, SEGMENT_BYTES).await);
        while append(&log, 1, 3000).expect("fits").pointer.segment == 0 {
            env.sleep(1_000_000).await;
        }
        log.flush().await.expect("flushes");
        let ends: Vec<u32> = log.close().iter().map(|seal| seal.segment).collect();
        assert_eq!(ends, [0, 1]);
        assert_eq!(append(&log, 2, 10), Err(Refused::Stopped));
    });
}
