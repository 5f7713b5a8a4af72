//! The model test: random operations of several clients, crashes, kills and restarts.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::file_cache::FileCache;
use larder_runtime::random::Random;
use larder_runtime::simulation::{
    FaultPlan, OperationKind, OperationKinds, SimDisk, SimEnv, Simulation, SimulationOptions,
    Stopped,
};

use super::harness::{self, TestEnv, TestShard};
use super::history::Name;
use super::mix::Mix;
use super::model::{Device, Found, Model, Start};
use super::reach::Reach;
use super::smoke::set;
use super::workload::{Client, SharedModel, perform, see_clears};
use crate::error::EngineError;
use crate::shard::{OpenReport, ShardOptions};
use crate::signal::Signal;
use crate::space::Purpose;

/// How soon a shard accepts writes again when there is room.
const ROOM_IS_SEEN_NANOSECONDS: u64 = 5_000_000_000;

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

/// A shard, and what it should hold.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) options: ShardOptions,
    pub(super) model: SharedModel,
}

/// Shards on one disk, most often one alone, through several lives.
pub(super) struct Lives {
    pub(super) seed: u64,
    pub(super) random: Random,
    pub(super) members: Vec<Member>,
    pub(super) mix: Mix,
    pub(super) faults: FaultPlan,
    pub(super) reach: Reach,
    device: Device,
    /// How many files may be open at a time.
    files_max: usize,
    disk: Option<SimDisk>,
    life: u64,
    clock: u64,
}

impl Lives {
    pub(super) fn new(seed: u64) -> Self {
        Self::of_shards(seed, 1)
    }

    pub(super) fn of_shards(seed: u64, shards: u16) -> Self {
        let mut random = Random::new(seed);
        let options = harness::random_options(&mut random);
        let mix = Mix::random(&mut random);
        let faults =
            FaultPlan { slow_per_million: random.pick(&[0, 20_000]), ..FaultPlan::default() };
        let member = |shard| Member {
            options: ShardOptions { shard, shards, ..options.clone() },
            model: Rc::new(RefCell::new(Model::default())),
        };
        Self {
            seed,
            random,
            members: (0..shards).map(member).collect(),
            mix,
            faults,
            reach: Reach::default(),
            device: Device::Honest,
            files_max: [harness::FILES_MAX, 16, 8 * usize::from(shards)][(seed % 3) as usize],
            disk: Some(harness::empty_disk(harness::CAPACITY)),
            life: 0,
            clock: 1_700_000_000,
        }
    }

    /// The room that others leave: what the shards keep free of writes for everything else.
    fn reserve(&self) -> u64 {
        let options = &self.members[0].options;
        let kept = |options: &ShardOptions| {
            let (reserve, segment) = (options.disk_reserve_bytes, options.segment_bytes);
            Purpose::Ingest.left(reserve, segment, options.shards)
        };
        if self.mix.takes_reserve { 0 } else { kept(options) }
    }

    /// Starts a process on the disk.
    fn start(&mut self) -> Simulation {
        self.life += 1;
        if self.mix.is_crowded {
            let room = self.random.pick(&[256 << 10, 3 << 20, 8 << 20]) + self.reserve();
            let disk = self.disk.as_mut().expect("the life before has ended");
            disk.set_capacity(disk.used_bytes() + room);
        }
        let options = SimulationOptions {
            faults: self.faults.clone(),
            unix_seconds: self.clock,
            turn_limit: 5_000_000,
            ..SimulationOptions::new(self.seed * 1000 + self.life)
        };
        for member in &self.members {
            member.model.borrow_mut().see_clock(self.clock as u32);
        }
        let disk = self.disk.take().expect("the life before has ended");
        Simulation::with_disk(options, disk)
    }

    fn end(&mut self, simulation: Simulation, end: End) {
        self.clock = simulation.env().unix_seconds();
        let files_open_max = simulation.env().open_handles().1;
        assert!(files_open_max <= self.files_max, "{files_open_max} files were open");
        self.disk = Some(match end {
            End::Crash => simulation.crash(),
            End::Kill | End::Close => simulation.kill(),
        });
    }

    /// Gives the device faults.
    pub(super) fn suffer(&mut self, faults: FaultPlan, device: Device) {
        self.faults = faults;
        self.mix.faults = true;
        self.device = device;
    }

    /// Opens the shards and checks them; in some seeds crashes meanwhile and tries again. `None` if
    /// a fault of the device keeps one from being opened.
    fn open(&mut self) -> Option<(Simulation, Vec<TestShard>)> {
        let crashes = if self.random.percent(10) { self.random.count(1..=3) } else { 0 };
        for _ in 0..crashes {
            self.note_reports();
            let mut simulation = self.start();
            let files = FileCache::new(simulation.env(), self.files_max);
            let at = self.random.below(60);
            let faults = FaultPlan { crash_at_operation: Some(at), ..self.faults.clone() };
            simulation.env().set_faults(faults);
            let end = self.random.pick(&[End::Crash, End::Crash, End::Kill]);
            for member in self.members.clone() {
                match self.open_member(&mut simulation, &files, &member) {
                    Ok(opened) => drop(opened),
                    Err(stopped) => assert_eq!(stopped, Stopped::Crashed),
                }
            }
            self.end(simulation, end);
        }
        let mut simulation = self.start();
        let files = FileCache::new(simulation.env(), self.files_max);
        let mut shards = Vec::new();
        for member in self.members.clone() {
            let opened = self.open_member(&mut simulation, &files, &member);
            let Some((shard, report)) = opened.expect("opening does not hang") else {
                drop(shards);
                self.end(simulation, End::Kill);
                return None;
            };
            self.verify(&mut simulation, &shard, (&member, &report));
            shards.push(shard);
        }
        Some((simulation, shards))
    }

    /// Notes what a start reports that crashes: damage at the end of a segment is reported once,
    /// and then left out by the seal that the start has made.
    fn note_reports(&self) {
        if self.device != Device::LosesWrites {
            return;
        }
        for member in &self.members {
            let disk = self.disk.clone().expect("the life before has ended");
            let mut simulation = harness::life(self.seed, disk);
            let opening = harness::open(simulation.env(), member.options.clone());
            if let Ok((_, report)) = simulation.block_on(opening).expect("opening does not hang") {
                member.model.borrow_mut().note_damage(&report.damage);
            }
        }
    }

    /// `Ok(None)` if a fault of the device keeps the shard from being opened.
    fn open_member(
        &self,
        simulation: &mut Simulation,
        files: &TestEnv,
        member: &Member,
    ) -> Result<Option<(TestShard, OpenReport)>, Stopped> {
        let env = simulation.env();
        let opening = || harness::open_over(files.clone(), member.options.clone());
        let mut opened = simulation.block_on(opening())?;
        if opened.is_err() && self.mix.is_crowded && self.mix.takes_reserve {
            env.set_capacity(harness::CAPACITY);
            opened = simulation.block_on(opening())?;
        }
        match opened {
            Ok(opened) => Ok(Some(opened)),
            Err(error) => {
                let text = error.to_string();
                assert!(self.mix.faults, "the shard does not open: {text}");
                assert!(text.contains(harness::DIRECTORY), "no file is named: {text}");
                Ok(None)
            }
        }
    }

    /// Compares everything that the shard holds with what it should hold.
    fn verify(
        &self,
        simulation: &mut Simulation,
        shard: &TestShard,
        (member, report): (&Member, &OpenReport),
    ) {
        let model = &member.model;
        let reused = shard.log.sequence_next() < model.borrow().sequence_end();
        assert!(!reused || self.device == Device::LosesWrites, "versions are used again");
        // What is read back was carried out at this start, before anything new.
        let start = Start::of(shard, report, self.device);
        let found = simulation.block_on(read_all(shard.clone(), model.clone(), self.mix.faults));
        let found = found.expect("nothing stops the run");
        // Merges go on meanwhile, and drop what expires.
        model.borrow_mut().see_clock(simulation.env().unix_seconds() as u32);
        model.borrow_mut().settle(&found, &start);
    }

    /// One life: open, check, work, end.
    pub(super) fn live(&mut self) {
        assert!(self.try_live(), "the shard opens");
    }

    /// The same; false if a fault of the device keeps a shard from being opened.
    pub(super) fn try_live(&mut self) -> bool {
        let Some((mut simulation, shards)) = self.open() else { return false };
        let end = self.random.pick(&[End::Crash, End::Crash, End::Crash, End::Kill, End::Close]);
        let env = simulation.env();
        if end != End::Close {
            self.plan_crash(&env);
        }
        let clients = self.random.count(1..=5);
        let count = self.random.pick(&[10, 200, 700]);
        match simulation.block_on(self.work(&env, &shards, clients, count)) {
            Ok(()) if self.mix.is_crowded => self.work_with_room(&mut simulation, &shards),
            Ok(()) => {}
            Err(Stopped::Crashed) => {
                shards.iter().for_each(|shard| self.reach.note_crash(&env, shard));
            }
            Err(stopped) => {
                let seconds = env.now() / 1_000_000_000;
                panic!("after {seconds} s of virtual time: {stopped}; does an operation wait?")
            }
        }
        for (member, shard) in self.members.iter().zip(&shards) {
            if end == End::Close {
                self.close(&mut simulation, shard, &member.model);
            }
            // Whoever carried out a clear that was due may not have come to telling the model.
            see_clears(shard, &mut member.model.borrow_mut());
            member.model.borrow_mut().acknowledge(shard.log.durable_end());
            let damages = shard.statistics().scrub.damages;
            assert!(self.mix.faults || damages == 0, "scrubbing has found damage");
        }
        drop(shards);
        self.end(simulation, end);
        true
    }

    /// Lets the process end at some disk operation, often at one that few others are like.
    fn plan_crash(&mut self, env: &SimEnv) {
        let rare = OperationKinds::of(&[
            OperationKind::Open,
            OperationKind::Rename,
            OperationKind::Remove,
            OperationKind::SyncDirectory,
        ]);
        let (among, ahead) = if self.random.percent(40) {
            (rare, self.random.pick(&[4, 20, 80]))
        } else {
            (OperationKinds::ALL, self.random.pick(&[50, 500, 2000, 10_000]))
        };
        let at = env.operations_of(among) + 1 + self.random.below(ahead);
        env.set_faults(FaultPlan {
            crash_at_operation: Some(at),
            crash_among: among,
            ..self.faults.clone()
        });
    }

    /// When there is room again, writes are accepted, unless the shard has stopped.
    fn work_with_room(&mut self, simulation: &mut Simulation, shards: &[TestShard]) {
        let env = simulation.env();
        env.set_capacity(harness::CAPACITY);
        let number = self.random.bits();
        for (member, shard) in self.members.iter().zip(shards) {
            let (clock, shard, model) = (env.clone(), shard.clone(), member.model.clone());
            let written = simulation.block_on(async move {
                clock.sleep(ROOM_IS_SEEN_NANOSECONDS).await;
                let name = Name::memcached(b"room");
                let value = number.to_le_bytes().repeat(100);
                perform(&clock, &shard, &model, &name, &set(&value)).await
            });
            match written {
                Ok(Ok(_)) | Err(Stopped::Crashed) => {}
                Ok(Err(EngineError::Stopped(_))) if self.mix.takes_reserve => {}
                refused => panic!("there is room, and a write is refused: {refused:?}"),
            }
        }
    }

    fn close(&self, simulation: &mut Simulation, shard: &TestShard, model: &SharedModel) {
        let closing = shard.clone();
        let closed = simulation.block_on(async move { closing.close().await });
        match closed.expect("closing does not hang") {
            Ok(()) => model.borrow_mut().acknowledge(shard.log.sequence_next()),
            Err(EngineError::Full | EngineError::Stopped(_)) if self.mix.takes_reserve => {}
            Err(error) => assert!(self.mix.faults, "closing failed: {error}"),
        }
    }

    fn work(
        &mut self,
        env: &SimEnv,
        shards: &[TestShard],
        clients: usize,
        count: u64,
    ) -> impl Future<Output = ()> + 'static {
        let running = Rc::new(Cell::new(clients * shards.len()));
        let done = Rc::new(Signal::default());
        let models: Rc<[_]> = self.members.iter().map(|member| member.model.clone()).collect();
        for (member, shard) in self.members.iter().zip(shards) {
            for _ in 0..clients {
                let client = Client {
                    env: env.clone(),
                    shard: shard.clone(),
                    model: member.model.clone(),
                    models: models.clone(),
                    mix: self.mix,
                    random: Random::new(self.random.bits()),
                };
                let (running, done) = (running.clone(), done.clone());
                env.spawn(TaskQueue::Foreground, async move {
                    client.work(count).await;
                    running.set(running.get() - 1);
                    done.notify();
                });
            }
        }
        if self.mix.is_crowded {
            let random = Random::new(self.random.bits());
            env.spawn(
                TaskQueue::Maintenance,
                tide(env.clone(), random, self.reserve(), running.clone()),
            );
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
            let Some((simulation, shards)) = self.open() else { return false };
            drop(shards);
            self.end(simulation, end);
        }
        true
    }
}

/// Others use the disk as well while clients are `running`: room comes and goes, but for `reserve`.
async fn tide(env: SimEnv, mut random: Random, reserve: u64, running: Rc<Cell<usize>>) {
    for _ in 0..100 {
        env.sleep(random.below(60_000_000)).await;
        if running.get() == 0 {
            return;
        }
        let room = random.pick(&[0, 100 << 10, 1 << 20, 3 << 20, 5 << 20]);
        env.set_capacity(env.snapshot().used_bytes() + reserve + room);
    }
}

/// Everything that the shard holds of the model's keys.
pub(super) async fn read_all(shard: TestShard, model: SharedModel, may_fail: bool) -> Found {
    let names: Vec<Name> = model.borrow().names().iter().cloned().collect();
    let mut found = BTreeMap::new();
    for name in names {
        let item = match harness::stored(&shard, &name).await {
            Ok(item) => Some(item),
            Err(EngineError::Damaged { .. } | EngineError::Read(_)) if may_fail => None,
            Err(error) => panic!("{name} is not readable: {error}"),
        };
        found.insert(name, item);
    }
    found
}

#[test]
fn a_shard_survives_crashes() {
    harness::for_each_seed("a_shard_survives_crashes", 1, 500, |seed| {
        let mut lives = Lives::new(seed);
        for _ in 0..lives.random.count(1..=5) {
            lives.live();
        }
        lives.finish();
    });
}
