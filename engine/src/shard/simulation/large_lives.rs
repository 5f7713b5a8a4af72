//! Large values in lives that end with a crash: there whole or not at all.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use larder_runtime::random::Random;
use larder_runtime::simulation::FaultPlan;

use super::harness::{TestShard, for_each_seed, random_options, tiny_options};
use super::items::{restart, start};
use super::large::{PLAIN, Wanted, content, look, put, staged, step, sweeps_down_to};
use super::model::Reply;
use super::smoke::{delete, set};
use crate::error::EngineError;
use crate::key::{DEFAULT_NAMESPACE, Key};
use crate::large::{LargeAnswer, LargeStep};
use crate::operation::StoreMode;
use crate::scan::Scan;
use crate::shard::ShardOptions;
use crate::value_log::Durability;

type Value = Option<Vec<u8>>;

/// What items may have: the last value that was acknowledged, and those of changes that were begun
/// since.
#[derive(Default)]
struct Known(BTreeMap<u8, Vec<Value>>);

impl Known {
    fn of(&self, item: u8) -> Vec<Value> {
        self.0.get(&item).cloned().unwrap_or_else(|| vec![None])
    }

    fn begins(&mut self, item: u8, value: Value) {
        self.0.entry(item).or_insert_with(|| vec![None]).push(value);
    }

    fn is(&mut self, item: u8, value: Value) {
        self.0.insert(item, vec![value]);
    }
}

const ITEMS: u8 = 4;

type Shared = Rc<RefCell<Known>>;

async fn change(
    shard: &TestShard,
    item: u8,
    operation: crate::shard::OperationBuf,
) -> Result<(), EngineError> {
    let key = Key { namespace: DEFAULT_NAMESPACE, record: b"r", item: &[item] };
    shard.run(&key, operation, Reply::new).await.map(drop)
}

/// Changes one item, by chance, or all.
async fn act(shard: &TestShard, random: &mut Random, known: &Shared) -> Result<(), EngineError> {
    let (item, seed) = (random.below(u64::from(ITEMS)) as u8, random.below(u64::MAX));
    let at = (DEFAULT_NAMESPACE, &[item][..]);
    let value = content(seed, 1 + random.below(6000) as usize);
    match random.below(100) {
        0..45 => {
            known.borrow_mut().begins(item, Some(value.clone()));
            let done = put(shard, &[item], &value, PLAIN).await?;
            assert!(matches!(done, LargeAnswer::Committed(_)), "{done:?}");
            known.borrow_mut().is(item, Some(value));
        }
        45..55 => {
            let before = known.borrow().of(item);
            known.borrow_mut().begins(item, Some(value.clone()));
            let add = Wanted { mode: StoreMode::Add, ..PLAIN };
            let done = put(shard, &[item], &value, add).await?;
            match (done, &before[..]) {
                (LargeAnswer::Committed(_), [None]) => known.borrow_mut().is(item, Some(value)),
                (LargeAnswer::Refused(_), [Some(there)]) => {
                    known.borrow_mut().is(item, Some(there.clone()));
                }
                (done, before) => panic!("{done:?} over {} values", before.len()),
            }
        }
        55..65 => {
            let upload = staged(shard, at, &value).await?.upload;
            if random.percent(50) {
                step(shard, at, LargeStep::Abort { upload }).await?;
            }
        }
        65..75 => {
            known.borrow_mut().begins(item, Some(b"small".to_vec()));
            change(shard, item, set(b"small")).await?;
            known.borrow_mut().is(item, Some(b"small".to_vec()));
        }
        75..85 => {
            known.borrow_mut().begins(item, None);
            change(shard, item, delete()).await?;
            known.borrow_mut().is(item, None);
        }
        85..92 => {
            known.borrow_mut().begins(item, None);
            let range = Scan::of_items(DEFAULT_NAMESPACE, b"r", &[item]);
            let needs = shard.delete_range(&range).await?;
            shard.wait_acknowledged(needs).await?;
            known.borrow_mut().is(item, None);
        }
        92..96 => {
            (0..ITEMS).for_each(|item| known.borrow_mut().begins(item, None));
            let needs = shard.flush_all(None).await?;
            shard.wait_acknowledged(needs).await?;
            (0..ITEMS).for_each(|item| known.borrow_mut().is(item, None));
        }
        _ => shard.freeze(&mut shard.state.borrow_mut()),
    }
    check(shard, known).await
}

/// Every item has what it may have; from then on that is what it has.
async fn check(shard: &TestShard, known: &Shared) -> Result<(), EngineError> {
    for item in 0..ITEMS {
        let seen = look(shard, (DEFAULT_NAMESPACE, &[item])).await?;
        let seen = seen.expect("nobody else changes it");
        let may_be = known.borrow().of(item);
        assert!(may_be.contains(&seen), "item {item} has what nobody stored, or lost");
        known.borrow_mut().is(item, seen);
    }
    Ok(())
}

/// Acts until something fails, or often enough.
async fn live(shard: TestShard, mut random: Random, known: Shared) {
    for _ in 0..60 {
        if act(&shard, &mut random, &known).await.is_err() {
            return;
        }
    }
}

fn durable(mut options: ShardOptions) -> ShardOptions {
    options.log.durability = Durability::Sync;
    // What is abandoned is not in the way of what follows.
    options.large.staged_max = 10_000;
    options
}

/// Deletes everything, and sees that no chunk is left, of abandoned uploads neither.
async fn end(shard: TestShard, seconds: u64, set_clock: impl FnOnce(u64)) {
    for item in 0..ITEMS {
        change(&shard, item, delete()).await.expect("nothing fails");
    }
    set_clock(seconds + u64::from(shard.options().large.staging_seconds) + 1);
    sweeps_down_to(&shard, 0).await;
    shard.close().await.expect("closes");
}

#[test]
fn large_values_are_there_whole_or_not_at_all_whatever_crashes() {
    let name = "large_values_are_there_whole_or_not_at_all_whatever_crashes";
    for_each_seed(name, 1, 30, |seed| {
        let mut random = Random::new(seed);
        let options = durable(random_options(&mut random));
        let (mut life, mut shard) = start(seed, &options);
        let known = Shared::default();
        for round in 0..6 {
            let env = life.env();
            let crash_at_operation = Some(env.operations() + 1 + random.below(300));
            env.set_faults(FaultPlan { crash_at_operation, ..FaultPlan::default() });
            let chance = Random::new(seed ^ (round << 32));
            // It ends with the crash, or because the shard has stopped, or with enough.
            let _ended = life.block_on(live(shard.clone(), chance, Rc::clone(&known)));
            (life, shard) = restart(life, shard, &options);
            let (reader, known) = (shard.clone(), Rc::clone(&known));
            life.block_on(async move { check(&reader, &known).await.expect("readable") })
                .expect("runs");
        }
        let env = life.env();
        let now = larder_runtime::env::Env::unix_seconds(&env);
        life.block_on(end(shard, now, move |at| env.set_unix_seconds(at))).expect("runs");
    });
}

/// One value after another, small and large.
async fn script(shard: TestShard, known: Shared) -> Result<(), EngineError> {
    let small = Some(b"small".to_vec());
    for (seed, is_large) in [(1, true), (2, true), (3, false), (4, true)] {
        let value = if is_large { Some(content(seed, 2500)) } else { small.clone() };
        known.borrow_mut().begins(0, value.clone());
        match &value {
            Some(bytes) if is_large => drop(put(&shard, &[0], bytes, PLAIN).await?),
            _ => change(&shard, 0, set(b"small")).await?,
        }
        known.borrow_mut().is(0, value);
        if seed == 2 {
            shard.freeze(&mut shard.state.borrow_mut());
        }
    }
    known.borrow_mut().begins(0, None);
    change(&shard, 0, delete()).await?;
    known.borrow_mut().is(0, None);
    Ok(())
}

#[test]
fn a_crash_at_every_operation_of_the_disk_leaves_a_large_value_whole_or_none() {
    let options = durable(tiny_options());
    let operations = {
        let (mut life, shard) = start(1, &options);
        let before = life.env().operations();
        life.block_on(script(shard, Shared::default())).expect("runs").expect("nothing fails");
        life.env().operations() - before
    };
    assert!(operations > 20, "{operations}");
    for at in 1..=operations {
        let (mut life, shard) = start(1, &options);
        let env = life.env();
        let crash_at_operation = Some(env.operations() + at);
        env.set_faults(FaultPlan { crash_at_operation, ..FaultPlan::default() });
        let known = Shared::default();
        let _ended = life.block_on(script(shard.clone(), Rc::clone(&known)));
        let (mut life, shard) = restart(life, shard, &options);
        let env = life.env();
        let now = larder_runtime::env::Env::unix_seconds(&env);
        life.block_on(async move {
            check(&shard, &known).await.expect("readable");
            end(shard, now, move |at| env.set_unix_seconds(at)).await;
        })
        .unwrap_or_else(|stopped| panic!("operation {at}: {stopped:?}"));
    }
}
