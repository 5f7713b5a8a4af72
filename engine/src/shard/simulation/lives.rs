//! The model test: random operations of several clients, crashes, kills and restarts.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::simulation::{
    FaultPlan, SimDisk, SimEnv, Simulation, SimulationOptions, Stopped,
};

use super::harness::{self, Random, TestShard};
use super::model::{Found, Model};
use super::workload::{Mix, SharedModel, client};
use crate::error::EngineError;
use crate::shard::{OpenReport, ShardOptions};
use crate::signal::Signal;

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The power fails.
    Crash,
    /// The process is killed.
    Kill,
    /// The shard is closed.
    Close,
}

/// A shard through several lives.
pub(super) struct Lives {
    pub(super) seed: u64,
    pub(super) random: Random,
    pub(super) options: ShardOptions,
    pub(super) mix: Mix,
    pub(super) model: SharedModel,
    pub(super) faults: FaultPlan,
    loses_writes: bool,
    disk: Option<SimDisk>,
    life: u64,
    clock: u64,
}

impl Lives {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let options = harness::random_options(&mut random);
        let mix = Mix::random(&mut random);
        let faults =
            FaultPlan { slow_per_million: random.pick(&[0, 20_000]), ..FaultPlan::default() };
        Self {
            seed,
            random,
            options,
            mix,
            model: Rc::new(RefCell::new(Model::default())),
            faults,
            loses_writes: false,
            disk: Some(harness::empty_disk(harness::CAPACITY)),
            life: 0,
            clock: 1_700_000_000,
        }
    }

    /// Starts a process on the disk.
    fn start(&mut self) -> Simulation {
        self.life += 1;
        let options = SimulationOptions {
            faults: self.faults.clone(),
            unix_seconds: self.clock,
            turn_limit: 2_000_000,
            ..SimulationOptions::new(self.seed * 1000 + self.life)
        };
        self.model.borrow_mut().see_clock(self.clock as u32);
        let disk = self.disk.take().expect("the life before has ended");
        Simulation::with_disk(options, disk)
    }

    fn end(&mut self, simulation: Simulation, end: End) {
        self.clock = simulation.env().unix_seconds();
        self.disk = Some(match end {
            End::Crash => simulation.crash(),
            End::Kill | End::Close => simulation.kill(),
        });
    }

    /// Gives the device faults. The first kind only makes reads fail or lie; if it also
    /// `loses_writes`, what was acknowledged may be lost, too.
    pub(super) fn suffer(&mut self, faults: FaultPlan, loses_writes: bool) {
        self.faults = faults;
        self.mix.faults = true;
        self.loses_writes = loses_writes;
    }

    /// Opens the shard and checks it; in some seeds crashes meanwhile and tries again. `None` if
    /// a fault of the device keeps it from being opened.
    fn open(&mut self) -> Option<(Simulation, TestShard)> {
        let crashes = if self.random.percent(10) { self.random.within(1, 3) } else { 0 };
        for _ in 0..crashes {
            let mut simulation = self.start();
            let env = simulation.env();
            let at = self.random.below(60);
            env.set_faults(FaultPlan { crash_at_operation: Some(at), ..self.faults.clone() });
            let opened = simulation.block_on(harness::open(env, self.options.clone()));
            let end = self.random.pick(&[End::Crash, End::Crash, End::Kill]);
            match opened {
                Ok(opened) => drop(self.accept(opened)),
                Err(stopped) => assert_eq!(stopped, Stopped::Crashed),
            }
            self.end(simulation, end);
        }
        let mut simulation = self.start();
        let opening = harness::open(simulation.env(), self.options.clone());
        let opened = simulation.block_on(opening).expect("opening does not hang");
        let Some((shard, report)) = self.accept(opened) else {
            self.end(simulation, End::Kill);
            return None;
        };
        assert!(report.damage.is_empty() || self.mix.faults, "{:?}", report.damage);
        self.verify(&mut simulation, &shard, &report);
        Some((simulation, shard))
    }

    fn accept<T>(&self, opened: Result<T, EngineError>) -> Option<T> {
        match opened {
            Ok(opened) => Some(opened),
            Err(error) => {
                let text = error.to_string();
                assert!(self.mix.faults, "the shard does not open: {text}");
                assert!(text.contains(harness::DIRECTORY), "no file is named: {text}");
                None
            }
        }
    }

    /// Compares everything that the shard holds with what it should hold.
    fn verify(&mut self, simulation: &mut Simulation, shard: &TestShard, report: &OpenReport) {
        let sequence_next = shard.log.sequence_next();
        let reused = sequence_next < self.model.borrow().sequence_end();
        assert!(!reused || self.loses_writes, "versions are used again");
        let (generation, flush_at) = {
            let state = shard.state.borrow();
            let namespaces = &state.namespaces;
            (namespaces.generation(0), namespaces.scheduled_flush().unwrap_or(0))
        };
        let may_fail = self.mix.faults;
        let found = simulation.block_on(read_all(shard.clone(), self.model.clone(), may_fail));
        let found = found.expect("nothing stops the run");
        let mut model = self.model.borrow_mut();
        if self.loses_writes || !report.damage.is_empty() {
            model.settle_after_loss(&found, generation, flush_at, sequence_next);
        } else {
            model.settle(&found, generation, flush_at);
        }
    }

    /// One life: open, check, work, end.
    pub(super) fn live(&mut self) {
        assert!(self.try_live(), "the shard opens");
    }

    /// The same; false if a fault of the device keeps the shard from being opened.
    pub(super) fn try_live(&mut self) -> bool {
        let Some((mut simulation, shard)) = self.open() else { return false };
        let end = self.random.pick(&[End::Crash, End::Crash, End::Crash, End::Kill, End::Close]);
        let env = simulation.env();
        if end != End::Close {
            let at = env.operations() + self.random.pick(&[50, 500, 4000, 20_000]);
            let at = at - self.random.below(30);
            env.set_faults(FaultPlan { crash_at_operation: Some(at), ..self.faults.clone() });
        }
        let clients = self.random.within(1, 5);
        let count = self.random.pick(&[10, 200, 700]);
        match simulation.block_on(self.work(&env, &shard, clients, count)) {
            Ok(()) | Err(Stopped::Crashed) => {}
            Err(stopped) => panic!("the run stopped: {stopped}"),
        }
        if end == End::Close {
            self.close(&mut simulation, &shard);
        }
        self.model.borrow_mut().acknowledge(shard.log.durable_end());
        drop(shard);
        self.end(simulation, end);
        true
    }

    fn close(&self, simulation: &mut Simulation, shard: &TestShard) {
        let closing = shard.clone();
        let closed = simulation.block_on(async move { closing.close().await });
        match closed.expect("closing does not hang") {
            Ok(()) => self.model.borrow_mut().acknowledge(shard.log.sequence_next()),
            Err(error) => assert!(self.mix.faults, "closing failed: {error}"),
        }
    }

    fn work(
        &mut self,
        env: &SimEnv,
        shard: &TestShard,
        clients: usize,
        count: u64,
    ) -> impl Future<Output = ()> + 'static {
        let running = Rc::new(Cell::new(clients));
        let done = Rc::new(Signal::default());
        for _ in 0..clients {
            let random = Random::new(self.random.bits());
            let (running, done) = (running.clone(), done.clone());
            let work =
                client(env.clone(), shard.clone(), self.model.clone(), self.mix, random, count);
            env.spawn(TaskQueue::Foreground, async move {
                work.await;
                running.set(running.get() - 1);
                done.notify();
            });
        }
        async move { done.wait_for(|| (running.get() == 0).then_some(())).await }
    }

    /// A last start that checks what the end has left, twice: recovering again changes nothing.
    pub(super) fn finish(&mut self) {
        assert!(self.try_finish(), "the shard opens");
    }

    /// The same; false if a fault of the device keeps the shard from being opened.
    pub(super) fn try_finish(&mut self) -> bool {
        for end in [End::Crash, End::Kill] {
            let Some((simulation, shard)) = self.open() else { return false };
            drop(shard);
            self.end(simulation, end);
        }
        true
    }
}

/// Everything that the shard holds of the model's keys.
pub(super) async fn read_all(shard: TestShard, model: SharedModel, may_fail: bool) -> Found {
    let keys: Vec<Vec<u8>> = model.borrow().keys().iter().cloned().collect();
    let mut found = BTreeMap::new();
    for key in keys {
        if model.borrow().is_lost(&key) {
            continue;
        }
        let item = match harness::stored(&shard, &key).await {
            Ok(item) => Some(item),
            Err(EngineError::Damaged { .. } | EngineError::Read(_)) if may_fail => None,
            Err(error) => panic!("{} is not readable: {error}", key.escape_ascii()),
        };
        found.insert(key, item);
    }
    found
}

#[test]
fn a_shard_survives_crashes() {
    harness::for_each_seed("a_shard_survives_crashes", 1, 500, |seed| {
        let mut lives = Lives::new(seed);
        for _ in 0..lives.random.within(1, 5) {
            lives.live();
        }
        lives.finish();
    });
}
