//! Every short sequence of operations, cut off at every disk operation, with every combination of
//! what the power failure may have left of the writes that nothing had made durable.
//!
//! Most crash bugs need no more than a few operations (Pillai et al., OSDI '14; Mohan et al.,
//! OSDI '18), so the short sequences are tried out in full. LARDER_SIMULATION_OPERATIONS=3 tries
//! the next longer ones, which takes minutes.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use larder_runtime::env::Env;
use larder_runtime::random::Random;
use larder_runtime::simulation::{
    FaultPlan, SimDisk, SimEnv, Simulation, SimulationOptions, Stopped,
};

use super::harness::{self, TestShard, tiny_options};
use super::history::Name;
use super::lives::read_all;
use super::model::{Device, Model, Start};
use super::smoke::{delete, set};
use super::workload::{SharedModel, clear, delete_range, perform, perform_batch};
use crate::operation::{Arithmetic, Operation, Read, Store, StoreMode};
use crate::scan::Scan;
use crate::shard::{OpenReport, OperationBuf, ShardOptions};

/// How many of the states that one crash point may leave are tried.
const STATES_MAX: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    SetInline(u8),
    SetSeparate(u8),
    Delete(u8),
    Append(u8),
    Increment(u8),
    Touch(u8),
    FlushAll,
    DeleteRange,
    Batch,
}

fn steps() -> Vec<Step> {
    let keyed = [
        Step::SetInline,
        Step::SetSeparate,
        Step::Delete,
        Step::Append,
        Step::Increment,
        Step::Touch,
    ];
    let mut steps = vec![Step::FlushAll, Step::DeleteRange, Step::Batch];
    for key in [b'a', b'b'] {
        steps.extend(keyed.iter().map(|step| step(key)));
    }
    steps
}

fn operation(step: Step) -> Option<(u8, OperationBuf)> {
    Some(match step {
        Step::SetInline(key) => (key, set(b"41")),
        Step::SetSeparate(key) => (key, set(&separate(key))),
        Step::Delete(key) => (key, delete()),
        Step::Append(key) => {
            let store = Store {
                mode: StoreMode::Append,
                value: b"0",
                client_flags: 0,
                expiry: 0,
                compare: None,
                invalidate: false,
                is_large: false,
                vivify: Some(0),
                version: None,
            };
            (key, OperationBuf::new(&Operation::Store(store)))
        }
        Step::Increment(key) => {
            let arithmetic = Arithmetic {
                delta: 1,
                decrement: false,
                compare: None,
                vivify: Some((7, 0)),
                expiry: None,
                version: None,
            };
            (key, OperationBuf::new(&Operation::Arithmetic(arithmetic)))
        }
        Step::Touch(key) => {
            let read = Read { expiry: Some(2_000_000_000), ..Read::default() };
            (key, OperationBuf::new(&Operation::Read(read)))
        }
        Step::FlushAll | Step::DeleteRange | Step::Batch => return None,
    })
}

/// A value that is in the log: one of them compressed, the other as it is.
fn separate(key: u8) -> Vec<u8> {
    match key {
        b'a' => vec![key; 60],
        _ => Random::new(u64::from(key)).bytes(60),
    }
}

async fn work(
    env: SimEnv,
    shard: TestShard,
    model: SharedModel,
    steps: Vec<Step>,
    last_begins: Rc<Cell<u64>>,
) {
    for step in steps {
        last_begins.set(env.operations());
        let done = match (step, operation(step)) {
            (_, Some((key, operation))) => {
                let name = Name::memcached(&[key]);
                perform(&env, &shard, &model, &name, &operation).await.map(drop)
            }
            (Step::DeleteRange, _) => {
                let range = Scan::of_namespace(0).from(b"a", b"").below(b"b", b"");
                delete_range(&shard, &model, &range).await
            }
            (Step::Batch, _) => {
                let steps = [(b'a', set(&[1; 70])), (b'b', delete()), (b'c', set(b"2"))];
                let steps = steps.map(|(key, operation)| (Name::memcached(&[key]), operation));
                perform_batch(&env, &shard, &model, &steps).await
            }
            _ => clear(&env, &shard, &model, None).await,
        };
        done.expect("nothing fails");
    }
    // Flushes and merges are cut off as well.
    env.sleep(3_000_000).await;
}

/// A shard with a long value under `a` and a number under `b`, one of them in a table.
fn prepared(options: &ShardOptions) -> (SimDisk, Model) {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let model: SharedModel = Rc::new(RefCell::new(Model::default()));
    let (shard, _) = harness::open_in(&mut life, options);
    let steps = vec![Step::SetSeparate(b'a'), Step::SetInline(b'b')];
    let work = work(life.env(), shard.clone(), model.clone(), steps, Rc::default());
    life.block_on(work).expect("runs");
    drop(shard);
    let disk = life.crash();
    let model = model.borrow().clone();
    (disk, model)
}

struct Search<'a> {
    options: &'a ShardOptions,
    disk: &'a SimDisk,
    model: &'a Model,
    states: u64,
}

impl Search<'_> {
    /// Cuts one sequence off at every disk operation of its last step and of what comes after. The
    /// steps before are the last ones of other sequences.
    fn cut_everywhere(&mut self, steps: &[Step]) {
        let (end, begin) = self.cut(steps, None);
        for cut in begin..end {
            self.cut(steps, Some(cut));
        }
    }

    /// Returns how many disk operations there were, also before the last step.
    fn cut(&mut self, steps: &[Step], crash_at_operation: Option<u64>) -> (u64, u64) {
        let options = SimulationOptions {
            faults: FaultPlan { crash_at_operation, ..FaultPlan::default() },
            ..SimulationOptions::new(5)
        };
        let mut life = Simulation::with_disk(options, self.disk.clone());
        let model: SharedModel = Rc::new(RefCell::new(self.model.clone()));
        let (env, last_begins) = (life.env(), Rc::<Cell<u64>>::default());
        let (options, running, steps) = (self.options.clone(), model.clone(), steps.to_vec());
        let begins = last_begins.clone();
        let run = life.block_on(async move {
            let (shard, report) = harness::open(env.clone(), options).await.expect("opens");
            settle(&shard, &report, &running).await;
            work(env, shard, running, steps, begins).await;
        });
        let expected = crash_at_operation.map_or(Ok(()), |_| Err(Stopped::Crashed));
        assert_eq!(run, expected);
        for disk in life.snapshot().enumerate_crashes(STATES_MAX) {
            self.check(disk, &model.borrow());
        }
        (life.operations(), last_begins.get())
    }

    fn try_out(&mut self, steps: &[Step]) {
        let cut = AssertUnwindSafe(|| self.cut_everywhere(steps));
        if let Err(panic) = catch_unwind(cut) {
            eprintln!("failed: {steps:?}");
            resume_unwind(panic);
        }
    }

    fn check(&mut self, disk: SimDisk, model: &Model) {
        self.states += 1;
        let mut life = harness::life(9, disk);
        let (shard, report) = harness::open_in(&mut life, self.options);
        let model: SharedModel = Rc::new(RefCell::new(model.clone()));
        life.block_on(async move { settle(&shard, &report, &model).await }).expect("runs");
    }
}

/// Compares the shard with the model, which goes on from what was found.
async fn settle(shard: &TestShard, report: &OpenReport, model: &SharedModel) {
    let found = read_all(shard.clone(), model.clone(), false).await;
    model.borrow_mut().settle(&found, &Start::of(shard, report, Device::Honest));
}

fn search(options: &ShardOptions) {
    let (disk, model) = prepared(options);
    let mut search = Search { options, disk: &disk, model: &model, states: 0 };
    let longest = match std::env::var("LARDER_SIMULATION_OPERATIONS") {
        Ok(text) => text.parse().expect("a number of operations"),
        Err(_) => 2,
    };
    let mut sequences: Vec<Vec<Step>> = vec![Vec::new()];
    for _ in 0..=longest {
        for sequence in &sequences {
            search.try_out(sequence);
        }
        let longer = |sequence: &Vec<Step>| {
            let sequence = sequence.clone();
            steps().into_iter().map(move |step| [sequence.clone(), vec![step]].concat())
        };
        sequences = sequences.iter().flat_map(longer).collect();
    }
    assert!(search.states > 2000, "only {} states", search.states);
}

fn options() -> ShardOptions {
    let mut options = tiny_options();
    options.segment_bytes = 32 << 10;
    options.compress_from = Some(40);
    options.ranges.round_nanoseconds = 500_000;
    options
}

#[test]
fn short_sequences_in_the_log() {
    search(&options());
}

#[test]
fn short_sequences_with_flushes_and_merges() {
    let mut options = options();
    options.memtable_bytes = 1;
    options.picker.level_zero_runs = 2;
    search(&options);
}
