//! A collection against everything else. One side is held at each of its steps in turn, the other
//! goes on; what was deleted or overwritten never returns, what lives is never missing, and nothing
//! changes its version, then and after a restart.
//!
//! Whoever is not polled any more is held: for all others, its device does not answer.

use std::future::Future;
use std::pin::Pin;

use futures_lite::future;
use larder_runtime::env::Env;
use larder_runtime::simulation::{FaultPlan, SimDisk, SimEnv, Simulation, Stopped};

use super::harness::{self, TestShard, tiny_options};
use super::items::{flush_memtable, rest, touched};
use super::model::Reply;
use super::races::write_garbage;
use super::smoke::{delete, get, run, set, set_until};
use crate::collector::Victim;
use crate::error::EngineError;
use crate::key::Key;
use crate::operation::{Operation, Outcome, Store, StoreMode};
use crate::shard::{OperationBuf, ShardOptions};

/// Longer than any operation of the device.
const STEP_NANOSECONDS: u64 = 2_000_000;

/// How long one side is held: what the other needs of it, it gets afterwards.
const HELD_NANOSECONDS: u64 = 300_000_000;

/// When the item that is raced for expires.
const EXPIRY: u32 = 1_700_100_000;

const RACED: &[u8] = b"raced";
const WITNESSES: [&[u8]; 3] = [b"before", b"raced-after", b"zz"];

/// Collections begin when the test says so.
fn options() -> ShardOptions {
    let mut options = tiny_options();
    options.memtable_bytes = 1 << 20;
    options.recovery_log_bytes = 64 << 20;
    options.space_amplification_percent = 10_000;
    options.picker.level_zero_runs = 2;
    options
}

/// What a client is told of a key: value, version and expiry.
type Seen = Option<(Vec<u8>, u64, u32)>;

async fn see(shard: &TestShard, key: &[u8]) -> Seen {
    let reply = run(shard, key, get()).await;
    let metadata = reply.metadata;
    (reply.outcome == Outcome::Hit).then_some((reply.value, metadata.version, metadata.expiry))
}

async fn see_witnesses(shard: &TestShard) -> Vec<Seen> {
    let mut seen = Vec::new();
    for key in WITNESSES {
        seen.push(see(shard, key).await);
    }
    seen
}

/// What must be true of the key that is raced for from now on.
#[derive(Clone, Debug, PartialEq)]
enum Promise {
    Exactly(Seen),
    /// It has been seen to be expired, and may go, for good.
    MayGo(Seen),
    /// Everything is gone, the witnesses as well.
    Cleared,
}

impl Promise {
    async fn check(&mut self, shard: &TestShard, witnesses: &[Seen], when: &str) {
        let seen = see(shard, RACED).await;
        match self {
            Self::Exactly(expected) => assert_eq!(seen, *expected, "{when}"),
            Self::MayGo(_) if seen.is_none() => *self = Self::Exactly(None),
            Self::MayGo(expected) => assert_eq!(seen, *expected, "{when}"),
            Self::Cleared => assert_eq!(seen, None, "{when}"),
        }
        let is_cleared = *self == Self::Cleared;
        let expected = if is_cleared { &[const { None }; WITNESSES.len()] } else { witnesses };
        assert_eq!(see_witnesses(shard).await, expected, "{when}");
    }
}

type Acting = Pin<Box<dyn Future<Output = Promise>>>;

/// What goes on while a collection is held. Ends when it has been acknowledged.
type Rival = fn(TestShard, SimEnv) -> Acting;

/// A store with a victim, the number of its segment, and what the witnesses in it show.
#[derive(Clone)]
struct Prepared {
    disk: SimDisk,
    segment: u32,
    raced: Seen,
    witnesses: Vec<Seen>,
}

fn prepare() -> Prepared {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options());
    let (segment, raced, witnesses) = life
        .block_on(async move {
            // A cleared generation can be told from one that has never been.
            let needs = shard.flush_all(None).await.expect("logs");
            shard.wait_acknowledged(needs).await.expect("durable");
            run(&shard, RACED, set_until(&[1; 300], EXPIRY)).await;
            run(&shard, RACED, set_until(&[2; 500], EXPIRY)).await;
            for (number, key) in WITNESSES.into_iter().enumerate() {
                run(&shard, key, set(&[number as u8; 400])).await;
            }
            run(&shard, b"dead", set(&[9; 40_000])).await;
            run(&shard, b"dead", set(b"short")).await;
            let segments = [RACED, WITNESSES[0], WITNESSES[1], WITNESSES[2]]
                .map(|key| harness::pointer(&shard, key).expect("a long value").segment);
            assert_eq!(segments, [segments[0]; 4]);
            write_garbage(&shard, 2).await;
            flush_memtable(&shard).await;
            rest(&shard).await;
            (segments[0], see(&shard, RACED).await, see_witnesses(&shard).await)
        })
        .expect("runs");
    Prepared { disk: life.kill(), segment, raced, witnesses }
}

impl Prepared {
    fn start(&self, seed: u64) -> (Simulation, TestShard) {
        let mut life = harness::life(seed, self.disk.clone());
        let (shard, report) = harness::open_in(&mut life, &options());
        assert_eq!(report.damage, []);
        (life, shard)
    }

    /// A collection of the victim, as the shard's task would carry it out.
    fn collect(
        &self,
        shard: &TestShard,
    ) -> Pin<Box<dyn Future<Output = Result<(), EngineError>> + 'static>> {
        let known = shard.journal.state().segments.get(&self.segment).copied();
        let known = known.expect("the victim has not been freed");
        let end = known.sealed.expect("the log has gone on").end;
        let victim = Victim { number: self.segment, generation: known.generation, end };
        let shard = shard.clone();
        Box::pin(async move {
            let result = shard.collect(victim).await;
            shard.something_changed();
            result
        })
    }

    /// Whether the store still has the victim.
    fn knows_victim(&self) -> bool {
        let (_life, shard) = self.start(0);
        !shard.is_gone(self.segment)
    }

    /// Starts again and checks.
    fn check_again(&self, disk: SimDisk, seed: u64, mut promise: Promise) {
        let mut life = harness::life(seed, disk);
        let (shard, report) = harness::open_in(&mut life, &options());
        assert_eq!(report.damage, []);
        let witnesses = self.witnesses.clone();
        life.block_on(async move {
            promise.check(&shard, &witnesses, "after a restart").await;
            settle(&shard).await;
            promise.check(&shard, &witnesses, "after a restart and merges").await;
        })
        .expect("runs");
    }
}

/// Writes out, merges, and uses the files of freed segments again.
async fn settle(shard: &TestShard) {
    flush_memtable(shard).await;
    rest(shard).await;
    write_garbage(shard, 4).await;
    flush_memtable(shard).await;
    rest(shard).await;
}

/// Polls `future` so many times; its result if it has ended.
async fn polled<F: Future + ?Sized>(
    env: &SimEnv,
    future: &mut Pin<Box<F>>,
    times: usize,
) -> Option<F::Output> {
    for _ in 0..times {
        if let Some(result) = future::poll_once(future.as_mut()).await {
            return Some(result);
        }
        env.sleep(STEP_NANOSECONDS).await;
    }
    None
}

/// Runs `future` for as long as the other side is held; its result if it has ended by then.
async fn unless_held_up<F: Future + ?Sized>(
    env: &SimEnv,
    future: &mut Pin<Box<F>>,
) -> Option<F::Output> {
    let held = async {
        env.sleep(HELD_NANOSECONDS).await;
        None
    };
    future::or(async { Some(future.as_mut().await) }, held).await
}

/// How a race ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The power fails while the collection is held.
    CrashAmid,
    /// The process is killed when the collection has ended: a start replays its moves.
    Kill,
    /// The power fails when the victim has been freed and its file is used again.
    Crash,
}

/// Holds a collection after `steps` steps. `None` if it ended before, else whether the rival came
/// to its end meanwhile.
fn race(prepared: &Prepared, rival: Rival, steps: usize, end: End) -> Option<bool> {
    let seed = steps as u64;
    let (mut life, shard) = prepared.start(seed);
    let env = life.env();
    let began = env.unix_seconds();
    let witnesses = prepared.witnesses.clone();
    let mut collecting = prepared.collect(&shard);
    let segment = prepared.segment;
    let raced = life.block_on(async move {
        if polled(&env, &mut collecting, steps).await.is_some() {
            return None;
        }
        let mut rival = rival(shard.clone(), env.clone());
        let amid = unless_held_up(&env, &mut rival).await;
        if let (Some(promise), End::CrashAmid) = (&amid, end) {
            return Some((promise.clone(), true));
        }
        let was_amid = amid.is_some();
        let (collected, mut promise) = match amid {
            Some(promise) => (collecting.await, promise),
            None => future::zip(collecting, rival).await,
        };
        if shard.state.borrow().closing {
            return Some((promise, was_amid));
        }
        collected.expect("nothing fails");
        env.set_unix_seconds(began);
        promise.check(&shard, &witnesses, "after the collection").await;
        if end == End::Kill {
            return Some((promise, was_amid));
        }
        settle(&shard).await;
        assert!(shard.is_gone(segment), "the victim is freed");
        promise.check(&shard, &witnesses, "after the victim was freed").await;
        Some((promise, was_amid))
    });
    let (promise, was_amid) = raced.expect("runs")?;
    let disk = if end == End::Kill { life.kill() } else { life.crash() };
    prepared.check_again(disk, seed, promise);
    Some(was_amid)
}

/// Holds a collection at each of its steps while `rival` goes on.
fn race_at_each_step(rival: Rival) {
    let prepared = prepare();
    for end in [End::CrashAmid, End::Kill, End::Crash] {
        let mut amid = 0;
        let mut steps = 0;
        while let Some(was_amid) = race(&prepared, rival, steps, end) {
            amid += usize::from(was_amid);
            steps += 1;
        }
        assert!(steps > 20 && amid > 10, "{amid} of {steps} steps were raced");
    }
}

/// An operation, and what is seen of the key when it has been acknowledged.
fn operate(shard: TestShard, operation: OperationBuf, outcome: Outcome) -> Acting {
    Box::pin(async move {
        assert_eq!(run(&shard, RACED, operation).await.outcome, outcome);
        Promise::Exactly(see(&shard, RACED).await)
    })
}

fn store(mode: StoreMode, value: &[u8], compare: Option<u64>) -> OperationBuf {
    OperationBuf::new(&Operation::Store(Store {
        mode,
        value,
        client_flags: 7,
        expiry: EXPIRY,
        compare,
        invalidate: false,
        is_large: false,
        vivify: None,
        version: None,
    }))
}

/// `then` with everything written out and merged, the tables among it that point into the victim.
fn merged(shard: TestShard, then: Acting) -> Acting {
    Box::pin(async move {
        let promise = then.await;
        let merges = || shard.statistics().index.counters.compactions;
        let before = merges();
        for number in [0u8, 1, 2] {
            for key in [b"a".as_slice(), b"s", b"zzz"] {
                run(&shard, key, set(&[number; 20])).await;
            }
            flush_memtable(&shard).await;
        }
        rest(&shard).await;
        assert!(merges() > before, "the tables overlap");
        promise
    })
}

fn deletes(shard: TestShard, _: SimEnv) -> Acting {
    operate(shard, delete(), Outcome::Deleted)
}

fn overwrites(shard: TestShard, _: SimEnv) -> Acting {
    operate(shard, set_until(&[3; 600], EXPIRY), Outcome::Stored)
}

fn looks(shard: TestShard, _: SimEnv) -> Acting {
    operate(shard, get(), Outcome::Hit)
}

#[test]
pub(super) fn against_a_delete() {
    race_at_each_step(deletes);
    race_at_each_step(|shard, env| merged(shard.clone(), deletes(shard, env)));
}

#[test]
pub(super) fn against_an_overwrite() {
    race_at_each_step(overwrites);
    race_at_each_step(|shard, _| operate(shard, set(b"short"), Outcome::Stored));
    race_at_each_step(|shard, env| merged(shard.clone(), overwrites(shard, env)));
}

#[test]
fn against_an_append() {
    race_at_each_step(|shard, _| {
        Box::pin(async move {
            run(&shard, RACED, store(StoreMode::Append, &[4; 10], None)).await;
            let seen = see(&shard, RACED).await;
            let value = seen.as_ref().map(|(value, ..)| value.clone());
            assert_eq!(value, Some([vec![2; 500], vec![4; 10]].concat()));
            Promise::Exactly(seen)
        })
    });
}

#[test]
fn against_a_compare_and_swap() {
    race_at_each_step(|shard, _| {
        Box::pin(async move {
            let (_, version, _) = see(&shard, RACED).await.expect("it lives");
            let swap = || store(StoreMode::Set, &[5; 500], Some(version));
            assert_eq!(run(&shard, RACED, swap()).await.outcome, Outcome::Stored);
            assert_eq!(run(&shard, RACED, swap()).await.outcome, Outcome::Exists);
            Promise::Exactly(see(&shard, RACED).await)
        })
    });
}

#[test]
fn against_a_change_of_metadata_alone() {
    race_at_each_step(|shard, _| operate(shard, touched(EXPIRY + 1000), Outcome::Hit));
    race_at_each_step(|shard, _| {
        let touching = operate(shard.clone(), touched(EXPIRY + 1000), Outcome::Hit);
        merged(shard, touching)
    });
}

/// The clock shows that the item has expired until the collection has ended, and is then set back.
fn expires_for_long(shard: TestShard, env: SimEnv) -> Acting {
    Box::pin(async move {
        let promise = Promise::MayGo(see(&shard, RACED).await);
        env.set_unix_seconds(u64::from(EXPIRY) + 1);
        assert_eq!(see(&shard, RACED).await, None);
        promise
    })
}

/// The clock shows that the item has expired, and is set back at once.
fn expires(shard: TestShard, env: SimEnv) -> Acting {
    Box::pin(async move {
        let now = env.unix_seconds();
        env.set_unix_seconds(u64::from(EXPIRY) + 1);
        assert_eq!(see(&shard, RACED).await, None);
        env.sleep(1_000_000).await;
        env.set_unix_seconds(now);
        Promise::MayGo(see(&shard, RACED).await)
    })
}

#[test]
fn against_expiry_with_the_clock_leaping() {
    race_at_each_step(expires);
    race_at_each_step(expires_for_long);
    race_at_each_step(|shard, env| {
        Box::pin(async move {
            let now = env.unix_seconds();
            env.set_unix_seconds(u64::from(EXPIRY) + 1);
            let gone = Box::pin(async { Promise::Exactly(None) });
            merged(shard.clone(), gone).await;
            env.set_unix_seconds(now);
            Promise::MayGo(see(&shard, RACED).await)
        })
    });
}

#[test]
fn against_a_clear() {
    let clears: Rival = |shard, _| {
        Box::pin(async move {
            let needs = shard.flush_all(None).await.expect("logs");
            shard.wait_acknowledged(needs).await.expect("durable");
            Promise::Cleared
        })
    };
    race_at_each_step(clears);
}

#[test]
fn against_flushes_and_merges_of_the_tables_that_point_into_it() {
    race_at_each_step(|shard, env| {
        Box::pin(async move {
            run(&shard, b"other", set(&[6; 100])).await;
            flush_memtable(&shard).await;
            looks(shard, env).await
        })
    });
    race_at_each_step(|shard, env| merged(shard.clone(), looks(shard, env)));
}

#[test]
fn against_closing() {
    race_at_each_step(|shard, env| {
        Box::pin(async move {
            let promise = looks(shard.clone(), env).await;
            shard.close().await.expect("closes");
            promise
        })
    });
}

/// Holds an operation at each of its steps while the key's record is moved and the file where it
/// was is used again.
fn hold_at_each_step(operation: &OperationBuf, check: impl Fn(Seen, Seen)) {
    let prepared = prepare();
    let mut steps = 0;
    while let Some((disk, seen)) = hold(&prepared, RACED, operation, steps) {
        check(prepared.raced.clone(), seen.clone());
        prepared.check_again(disk, steps as u64, Promise::Exactly(seen));
        steps += 1;
    }
    assert!(steps > 1, "it has {steps} steps");
}

/// Holds an operation on `key` after `steps` steps; what is seen of the key that is raced for in
/// the end. `None` if it ended before.
fn hold(
    prepared: &Prepared,
    key: &'static [u8],
    operation: &OperationBuf,
    steps: usize,
) -> Option<(SimDisk, Seen)> {
    let (mut life, shard) = prepared.start(steps as u64);
    let env = life.env();
    let collecting = prepared.collect(&shard);
    let (segment, witnesses) = (prepared.segment, prepared.witnesses.clone());
    let operation = operation.clone();
    let seen = life.block_on(async move {
        // Who is held while it opens the segment would hold the others up.
        see(&shard, WITNESSES[0]).await;
        let key = Key::memcached(key);
        let mut doing = Box::pin(shard.run(&key, operation, Reply::new));
        if polled(&env, &mut doing, steps).await.is_some() {
            return None;
        }
        collecting.await.expect("nothing fails");
        settle(&shard).await;
        assert!(shard.is_gone(segment), "the record was moved");
        doing.await.expect("nothing fails");
        let seen = see(&shard, RACED).await;
        settle(&shard).await;
        let mut promise = Promise::Exactly(seen.clone());
        promise.check(&shard, &witnesses, "after the collection").await;
        Some(seen)
    });
    let seen = seen.expect("runs")?;
    Some((life.crash(), seen))
}

#[test]
fn readers_of_the_old_place() {
    hold_at_each_step(&get(), |before, after| assert_eq!(before, after));
    // Of an item that does not expire nothing is remembered when its segment is freed.
    let prepared = prepare();
    let mut steps = 0;
    while let Some((_, seen)) = hold(&prepared, WITNESSES[1], &get(), steps) {
        assert_eq!(seen, prepared.raced);
        steps += 1;
    }
    assert!(steps > 1, "it has {steps} steps");
}

#[test]
fn changes_begun_at_the_old_place() {
    let value = |seen: Seen| seen.expect("it lives").0;
    hold_at_each_step(&store(StoreMode::Append, &[4; 10], None), |before, after| {
        assert_eq!([value(before), vec![4; 10]].concat(), value(after));
    });
    let version = prepare().raced.expect("it lives").1;
    hold_at_each_step(&store(StoreMode::Set, &[5; 500], Some(version)), |_, after| {
        assert_eq!(value(after), [5; 500]);
    });
    hold_at_each_step(&touched(EXPIRY + 1000), |before, after| {
        let before = before.map(|(value, version, _)| (value, version, EXPIRY + 1000));
        assert_eq!(before, after);
    });
    hold_at_each_step(&delete(), |_, after| assert_eq!(after, None));
    hold_at_each_step(&set(&[6; 500]), |_, after| assert_eq!(value(after), [6; 500]));
}

/// Ends the life before one of the disk operations of a collection and of what follows it: the
/// victim is freed, and its file used again. `None` if there are not so many.
fn crash_before(prepared: &Prepared, number: u64, end: End) -> Option<SimDisk> {
    let (mut life, shard) = prepared.start(number);
    let env = life.env();
    let crash_at_operation = Some(env.operations() + number);
    env.set_faults(FaultPlan { crash_at_operation, ..FaultPlan::default() });
    let (collecting, segment) = (prepared.collect(&shard), prepared.segment);
    let ran = life.block_on(async move {
        collecting.await.expect("nothing fails");
        settle(&shard).await;
        assert!(shard.is_gone(segment), "the victim is freed");
    });
    match ran {
        Ok(()) => None,
        Err(Stopped::Crashed) if end == End::Kill => Some(life.kill()),
        Err(Stopped::Crashed) => Some(life.crash()),
        Err(stopped) => panic!("the run stopped: {stopped}"),
    }
}

#[test]
pub(super) fn crashes() {
    let prepared = prepare();
    for end in [End::Kill, End::Crash] {
        let mut number = 0;
        while let Some(disk) = crash_before(&prepared, number, end) {
            // What the crash has left is collected again.
            let again = Prepared { disk: disk.clone(), ..prepared.clone() };
            let known = again.knows_victim();
            let disk =
                if known { crash_before(&again, 20, End::Crash).unwrap_or(disk) } else { disk };
            let promise = Promise::Exactly(prepared.raced.clone());
            prepared.check_again(disk, number, promise);
            number += 1;
        }
        assert!(number > 100, "a collection has {number} disk operations");
    }
}
