//! Queues on a device that takes time, in ticks: what classes and cores get of it, and situations
//! that disks bring about.

use std::sync::Arc;

use super::{IoQueue, IoQueueOptions, IoRequest};
use crate::device_group::{Claimant, DeviceGroup};
use crate::device_model::{DeviceCosts, DeviceModel, IoDirection, nanoseconds_of, tokens_of};
use crate::env::IoClass;

pub(super) const MICROSECOND: u64 = 1_000;
pub(super) const MILLISECOND: u64 = 1_000 * MICROSECOND;
pub(super) const SECOND: u64 = 1_000 * MILLISECOND;

/// What a device with channels has in one of them, in bytes.
const STRIPE: u64 = 16 << 10;

/// A device whose channels each do one thing after the other, with a delay that hinders no other.
struct Disk {
    costs: DeviceCosts,
    delay: u64,
    /// When each channel has done what it has.
    free_at: Vec<u64>,
}

impl Disk {
    /// When a request that is given to it now will have ended.
    fn take(&mut self, request: IoRequest, now: u64) -> u64 {
        let own = nanoseconds_of(self.costs.of(request.direction, request.bytes));
        let stripes = request.bytes.div_ceil(STRIPE).max(1);
        let each = own * self.free_at.len() as u64 / stripes;
        let mut end = now;
        for _ in 0..stripes {
            let channel = self.free_at.iter_mut().min().expect("a channel");
            *channel = (*channel).max(now) + each;
            end = end.max(*channel);
        }
        end + self.delay
    }
}

/// Requests of one kind that a core is asked for: as many as have their time, and at most so many
/// that have not ended.
pub(super) struct Load {
    pub(super) request: IoRequest,
    outstanding_max: u64,
    /// Nanoseconds from one request to the next; 0 for as soon as one has ended.
    interval: u64,
    /// What the next distance at random follows from; none where all are the same.
    random: Option<u64>,
    next_at: u64,
    outstanding: u64,
    ended: u64,
    /// From the push to the end, of all that have ended.
    took: Vec<u64>,
}

impl Load {
    fn new(class: IoClass, direction: IoDirection, bytes: u64, outstanding_max: u64) -> Self {
        Self {
            request: IoRequest { class, direction, bytes },
            outstanding_max,
            interval: 0,
            random: None,
            next_at: 0,
            outstanding: 0,
            ended: 0,
            took: Vec::new(),
        }
    }

    /// One every so many nanoseconds, however many have not ended.
    fn every(self, interval: u64) -> Self {
        Self { interval, outstanding_max: u64::MAX, ..self }
    }

    /// One every so many nanoseconds on average, at random: many at once now and then.
    pub(super) fn at_random(self, interval: u64, seed: u64) -> Self {
        Self { random: Some(seed), ..self.every(interval) }
    }

    /// Nanoseconds to the next request.
    fn distance(&mut self) -> u64 {
        let Some(seed) = &mut self.random else { return self.interval };
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let part = ((*seed >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        (-part.ln() * self.interval as f64) as u64
    }

    fn is_due(&self, now: u64) -> bool {
        self.outstanding < self.outstanding_max && self.next_at <= now
    }

    /// The time that all but one in a hundred have kept, in nanoseconds.
    pub(super) fn p99(&self) -> u64 {
        let mut took = self.took.clone();
        took.sort_unstable();
        took[took.len() * 99 / 100]
    }
}

/// What a queue is given: which load, and when it was pushed.
pub(super) type Ticket = (usize, u64);

pub(super) struct SimulatedCore {
    pub(super) queue: IoQueue<Ticket>,
    loads: Vec<Load>,
    /// What the device has: when it ends, when it was given, and the ticket.
    flying: Vec<(u64, u64, Ticket)>,
    /// It looks at its queue once in so many nanoseconds, because it does other things meanwhile;
    /// 0 for at every tick.
    pub(super) turn: u64,
    turns_at: u64,
}

pub(super) struct Machine {
    disk: Disk,
    pub(super) cores: Vec<SimulatedCore>,
    now: u64,
    tick: u64,
}

impl Machine {
    /// Cores with these loads on a device that does what `real` says and of which `file` is known.
    pub(super) fn new(real: DeviceModel, file: DeviceModel, loads: Vec<Vec<Load>>) -> Self {
        let group = DeviceGroup::new(file, loads.len());
        let options = IoQueueOptions { device: Some(group), ..IoQueueOptions::default() };
        Self::with_options(real, &options, loads)
    }

    pub(super) fn with_options(
        real: DeviceModel,
        options: &IoQueueOptions,
        loads: Vec<Vec<Load>>,
    ) -> Self {
        let core = |loads| SimulatedCore {
            queue: IoQueue::new(options.clone()),
            loads,
            flying: Vec::new(),
            turn: 0,
            turns_at: 0,
        };
        Self {
            disk: Disk { costs: real.costs(), delay: 80 * MICROSECOND, free_at: vec![0] },
            cores: loads.into_iter().map(core).collect(),
            now: 0,
            tick: 10 * MICROSECOND,
        }
    }

    /// The same on a device with so many channels.
    pub(super) fn with_channels(mut self, channels: usize) -> Self {
        self.disk.free_at = vec![0; channels];
        self
    }

    pub(super) fn run(&mut self, nanoseconds: u64) {
        let end = self.now + nanoseconds;
        while self.now < end {
            self.now += self.tick;
            // Nobody is always first.
            let first = (self.now / self.tick) as usize % self.cores.len();
            self.cores.rotate_left(first);
            for core in self.cores.iter_mut().filter(|core| core.turns_at <= self.now) {
                core.turns_at = self.now + core.turn;
                core.turn(&mut self.disk, self.now);
            }
            self.cores.rotate_right(first);
        }
    }

    pub(super) fn forget(&mut self) {
        for load in self.cores.iter_mut().flat_map(|core| &mut core.loads) {
            load.ended = 0;
            load.took.clear();
        }
    }

    pub(super) fn load(&self, core: usize, load: usize) -> &Load {
        &self.cores[core].loads[load]
    }

    pub(super) fn allowed(&self, core: usize) -> u64 {
        self.cores[core].queue.flow().allowed_thousandths
    }
}

impl SimulatedCore {
    fn turn(&mut self, disk: &mut Disk, now: u64) {
        self.queue.note_unwatched(self.turn);
        let mut index = 0;
        while index < self.flying.len() {
            if self.flying[index].0 > now {
                index += 1;
                continue;
            }
            let (ended_at, given_at, (load, pushed_at)) = self.flying.swap_remove(index);
            let load = &mut self.loads[load];
            (load.outstanding, load.ended) = (load.outstanding - 1, load.ended + 1);
            load.took.push(ended_at - pushed_at);
            // A core learns of it when it looks.
            self.queue.complete(load.request, load.request.bytes, now - given_at, now);
        }
        for (index, load) in self.loads.iter_mut().enumerate() {
            while load.is_due(now) {
                load.outstanding += 1;
                load.next_at = load.next_at.max(now.saturating_sub(SECOND)) + load.distance();
                self.queue.push(load.request, (index, now), now);
            }
        }
        while let Some(ticket) = self.queue.pop(now) {
            let ends_at = disk.take(self.loads[ticket.0].request, now);
            self.flying.push((ends_at, now, ticket));
        }
        let is_stuck = self.queue.queued() > 0 && self.flying.is_empty();
        assert!(!is_stuck || self.queue.due().is_some_and(|due| due > now), "it waits for ever");
    }
}

pub(super) fn reads(class: IoClass, bytes: u64, outstanding_max: u64) -> Load {
    Load::new(class, IoDirection::Read, bytes, outstanding_max)
}

pub(super) fn writes(class: IoClass, bytes: u64, outstanding_max: u64) -> Load {
    Load::new(class, IoDirection::Write, bytes, outstanding_max)
}

/// A device with a delay under load that is well above the goal's slack, so its figures are right.
pub(super) fn model() -> DeviceModel {
    DeviceModel {
        read_iops: 100_000,
        write_iops: 50_000,
        read_bandwidth: 1_000_000_000,
        write_bandwidth: 500_000_000,
        ..DeviceModel::default()
    }
}

pub(super) fn times(model: DeviceModel, numerator: u64, denominator: u64) -> DeviceModel {
    let scaled = |rate: u64| rate * numerator / denominator;
    DeviceModel {
        read_iops: scaled(model.read_iops),
        write_iops: scaled(model.write_iops),
        read_bandwidth: scaled(model.read_bandwidth),
        write_bandwidth: scaled(model.write_bandwidth),
        ..model
    }
}

/// A scan, and the work of a store that is overwritten.
pub(super) fn all_that_nobody_waits_for() -> Vec<Load> {
    vec![
        reads(IoClass::Scan, 16 << 10, 64),
        writes(IoClass::Flush, 64 << 10, 1),
        reads(IoClass::Compaction, 128 << 10, 1),
        writes(IoClass::Compaction, 64 << 10, 1),
        reads(IoClass::GarbageCollection, 128 << 10, 1),
    ]
}

pub(super) fn cost(load: &Load) -> u64 {
    load.ended * model().cost(load.request.direction, load.request.bytes)
}

#[test]
fn two_classes_with_one_and_four_shares_get_one_and_four_parts_at_saturation() {
    let mut options =
        IoQueueOptions { device: Some(DeviceGroup::new(model(), 1)), ..IoQueueOptions::default() };
    options.shares[IoClass::Read as usize] = 100;
    options.shares[IoClass::Commit as usize] = 400;
    let loads = vec![reads(IoClass::Read, 4_096, 64), writes(IoClass::Commit, 64 << 10, 64)];
    let mut machine = Machine::with_options(model(), &options, vec![loads]);
    machine.run(100 * MILLISECOND);
    machine.forget();
    machine.run(SECOND);
    let (one, four) = (cost(machine.load(0, 0)), cost(machine.load(0, 1)));
    assert!(four.abs_diff(4 * one) * 20 <= four, "{one} and {four}");
    let used = one + four;
    assert!(used >= tokens_of(SECOND) * 97 / 100, "the device is used: {used}");
}

#[test]
fn an_idle_class_that_comes_back_waits_no_longer_than_the_goal() {
    let background = || {
        vec![
            reads(IoClass::Compaction, 256 << 10, 64),
            writes(IoClass::Compaction, 128 << 10, 64),
            reads(IoClass::Scan, 64 << 10, 64),
        ]
    };
    let loads = |class| {
        let mut loads = background();
        loads.push(reads(class, 4_096, 0));
        loads
    };
    let mut machine = Machine::new(model(), model(), vec![loads(IoClass::Read)]);
    for _ in 0..50 {
        machine.run(7 * MILLISECOND);
        machine.cores[0].loads[3].outstanding_max = 1;
        machine.run(3 * MILLISECOND);
        machine.cores[0].loads[3].outstanding_max = 0;
    }
    let waited = machine.cores[0].queue.class_statistics(IoClass::Read, machine.now);
    let mean = waited.queue_nanoseconds / waited.dispatched;
    assert!(mean <= model().latency_goal, "{mean} ns");
    assert!(waited.dispatched > 50, "{}", waited.dispatched);
}

#[test]
fn two_cores_stay_within_the_device_and_get_half_of_it_each() {
    let loads = || vec![reads(IoClass::Read, 4_096, 64), writes(IoClass::Flush, 128 << 10, 16)];
    let mut machine = Machine::new(model(), model(), vec![loads(), loads()]);
    machine.run(SECOND);
    machine.forget();
    machine.run(SECOND);
    let of_core = |core| cost(machine.load(core, 0)) + cost(machine.load(core, 1));
    let [first, second] = [of_core(0), of_core(1)];
    let limit = model().costs().limit();
    assert!(first + second <= tokens_of(SECOND) + 2 * limit, "{first} and {second}");
    assert!(first + second >= tokens_of(SECOND) * 97 / 100, "{first} and {second}");
    assert!(first.abs_diff(second) * 20 <= first, "{first} and {second}");
}

#[test]
fn a_core_alone_has_the_whole_device() {
    let loads = vec![vec![reads(IoClass::Read, 4_096, 128)], vec![], vec![], vec![]];
    let mut machine = Machine::new(model(), model(), loads);
    machine.run(SECOND);
    let used = cost(machine.load(0, 0));
    assert!(used >= tokens_of(SECOND) * 97 / 100, "{used}");
}

#[test]
fn a_capped_class_keeps_its_cap_and_leaves_the_rest_to_others() {
    let cap = 50_000_000;
    let mut options =
        IoQueueOptions { device: Some(DeviceGroup::new(model(), 1)), ..IoQueueOptions::default() };
    options.bandwidth_max[IoClass::Compaction as usize] = Some(cap);
    let loads = vec![reads(IoClass::Compaction, 128 << 10, 32), reads(IoClass::Read, 4_096, 128)];
    let mut machine = Machine::with_options(model(), &options, vec![loads]);
    machine.run(2 * SECOND);
    let moved = machine.load(0, 0).ended * (128 << 10);
    assert!(moved <= 2 * cap + cap / 100 + (128 << 10), "{moved}");
    assert!(moved >= 2 * cap * 95 / 100, "{moved}");
    let used = cost(machine.load(0, 0)) + cost(machine.load(0, 1));
    assert!(used >= tokens_of(2 * SECOND) * 97 / 100, "{used}");
    assert_eq!(machine.allowed(0), 1_000, "no read is late where the figures are right");
}

/// The figures promise ten times what the device does. Reads at half of its rate are all done, and
/// the background is held back so that they are.
#[test]
fn figures_ten_times_too_high_do_not_hurt_reads() {
    let real = times(model(), 1, 10);
    let half = 2 * SECOND / real.read_iops;
    let loads = vec![
        reads(IoClass::Read, 4_096, 0).every(half),
        reads(IoClass::Compaction, 256 << 10, 64),
        writes(IoClass::Compaction, 128 << 10, 64),
    ];
    let mut machine = Machine::new(real, model(), vec![loads]);
    machine.run(5 * SECOND);
    assert!(machine.allowed(0) < 100, "{}", machine.allowed(0));
    machine.forget();
    machine.run(5 * SECOND);
    let (read, offered) = (machine.load(0, 0).ended, 5 * SECOND / half);
    assert!(read >= offered * 97 / 100, "{read} of {offered}");
    let mut took = machine.load(0, 0).took.clone();
    took.sort_unstable();
    let middle = took[took.len() / 2];
    assert!(middle <= 2 * model().latency_goal, "{middle} ns");
    let moved = machine.load(0, 1).ended + machine.load(0, 2).ended;
    assert!(moved > 50, "the background goes on: {moved}");
}

/// The device does ten times what the figures promise.
#[test]
fn figures_ten_times_too_low_are_found_out() {
    let file = DeviceModel { latency_goal: 2 * MILLISECOND, ..times(model(), 1, 10) };
    let loads = vec![reads(IoClass::Read, 4_096, 64), reads(IoClass::Compaction, 64 << 10, 8)];
    let mut machine = Machine::new(model(), file, vec![loads]);
    machine.tick = 50 * MICROSECOND;
    machine.run(20 * SECOND);
    assert_eq!(machine.allowed(0), 1_000, "for a while the figures are believed");
    machine.forget();
    machine.run(SECOND);
    let before = machine.load(0, 0).ended;
    machine.run(30 * SECOND);
    assert!(machine.allowed(0) >= 5_000, "{}", machine.allowed(0));
    machine.forget();
    machine.run(SECOND);
    let after = machine.load(0, 0).ended;
    assert!(after >= 5 * before, "{before} and then {after}");
}

#[test]
fn a_stall_of_100_ms_is_over_when_it_is_over() {
    let loads = vec![
        reads(IoClass::Read, 4_096, 0).every(40 * MICROSECOND),
        writes(IoClass::Flush, 128 << 10, 16),
    ];
    let mut machine = Machine::new(model(), model(), vec![loads]);
    machine.run(SECOND);
    machine.disk.free_at = vec![machine.now + 100 * MILLISECOND];
    machine.run(100 * MILLISECOND);
    let in_flight = machine.cores[0].queue.in_flight();
    assert!(in_flight <= 128, "{in_flight} requests were given to a device that stands");
    machine.run(10 * SECOND);
    let flow = machine.cores[0].queue.flow();
    assert!((900..=1_100).contains(&flow.ratio_thousandths), "{flow:?}");
    machine.forget();
    machine.run(SECOND);
    let (read, p99) = (machine.load(0, 0).ended, machine.load(0, 0).p99());
    assert!(read.abs_diff(SECOND / (40 * MICROSECOND)) <= 250, "{read}");
    assert!(p99 <= 4 * model().latency_goal, "{p99} ns");
    assert!(machine.load(0, 1).ended > 1_000, "{}", machine.load(0, 1).ended);
}

/// After a pause compaction asks for much at once; reads go on at a quarter of the device's rate.
#[test]
fn a_burst_of_compaction_after_idleness_does_not_hold_reads_up() {
    let loads = vec![
        reads(IoClass::Read, 4_096, 0).every(40 * MICROSECOND),
        writes(IoClass::Compaction, 128 << 10, 0),
        reads(IoClass::Compaction, 256 << 10, 0),
    ];
    let mut machine = Machine::new(model(), model(), vec![loads]);
    let mut quiet = 0;
    for round in 0..20 {
        machine.run(50 * MILLISECOND);
        if round == 0 {
            quiet = machine.load(0, 0).p99();
            machine.forget();
        }
        let burst = &mut machine.cores[0].loads[1..];
        burst.iter_mut().for_each(|load| load.outstanding_max = 64);
        machine.run(2 * MILLISECOND);
        let burst = &mut machine.cores[0].loads[1..];
        burst.iter_mut().for_each(|load| load.outstanding_max = 0);
    }
    let longest = machine.load(0, 0).took.iter().max().copied().unwrap();
    assert!(quiet <= 200 * MICROSECOND, "{quiet} ns");
    assert!(longest <= 4 * model().latency_goal, "{longest} ns");
}

#[test]
fn a_clock_that_stands_still_gives_what_the_bucket_holds_and_goes_on_with_the_clock() {
    let group = DeviceGroup::new(model(), 1);
    let options = IoQueueOptions { device: Some(Arc::clone(&group)), ..IoQueueOptions::default() };
    let mut queue = IoQueue::new(options);
    let request = IoRequest { class: IoClass::Read, direction: IoDirection::Read, bytes: 4_096 };
    let costs = model().cost(IoDirection::Read, 4_096);
    let hour = 3_600 * SECOND;
    for _ in 0..1_000 {
        queue.push(request, (), hour);
    }
    let drain = |queue: &mut IoQueue<()>, now| {
        let went = std::iter::from_fn(|| {
            queue.pop(now)?;
            queue.complete(request, 4_096, 0, now);
            Some(())
        });
        went.count() as u64
    };
    let bucket = group.costs().limit() / costs;
    assert_eq!(drain(&mut queue, hour), bucket);
    for _ in 0..1_000 {
        assert_eq!(drain(&mut queue, hour), 0);
        assert!(queue.due().unwrap() > hour, "it sleeps and does not spin");
    }
    let due = queue.due().unwrap();
    assert!(drain(&mut queue, due) > 0, "due when it said");
    // Set back by almost an hour, and on from there.
    assert_eq!(drain(&mut queue, SECOND), 0);
    assert!(drain(&mut queue, SECOND + MILLISECOND) > 0);
    // A jump ahead brings what was claimed and what the bucket holds, and no more.
    for _ in 0..1_000 {
        queue.push(request, (), 2 * SECOND);
    }
    let went = drain(&mut queue, 100 * hour);
    assert!((bucket..=2 * (bucket + 1) + 1).contains(&went), "{went}");
}

#[test]
fn a_device_that_ends_nothing_is_given_a_bounded_number() {
    let loads = vec![reads(IoClass::Read, 4_096, 10_000), writes(IoClass::Flush, 64 << 10, 100)];
    let mut machine = Machine::new(model(), model(), vec![loads]);
    machine.disk.free_at = vec![u64::MAX / 2];
    machine.run(200 * MILLISECOND);
    let queue = &machine.cores[0].queue;
    assert!(queue.in_flight() <= 128 && queue.bytes_in_flight() <= 4 << 20);
    assert_eq!(queue.due(), None, "nothing is due before something ends");
}

#[test]
fn tokens_of_a_core_that_has_nothing_to_do_are_left_to_others() {
    let group = DeviceGroup::new(model(), 2);
    let options = IoQueueOptions { device: Some(Arc::clone(&group)), ..IoQueueOptions::default() };
    let mut idle = IoQueue::new(options);
    let request = IoRequest { class: IoClass::Read, direction: IoDirection::Read, bytes: 4_096 };
    let cost = model().cost(IoDirection::Read, 4_096);
    for _ in 0..3 {
        idle.push(request, (), SECOND);
    }
    let limit = group.costs().limit();
    let available = || group.tokens(Claimant::Awaited).available;
    assert_eq!(idle.pop(SECOND), Some(()));
    assert_eq!(idle.pop(SECOND), Some(()));
    idle.withdraw(request, SECOND);
    assert_eq!(idle.pop(SECOND), Some(()));
    assert_eq!(idle.pop(SECOND), None);
    assert_eq!(available(), limit - 2 * cost, "one was withdrawn");
    idle.push(request, (), SECOND);
    drop(idle);
    assert_eq!(available(), limit - 2 * cost);
}

/// What the requests of these classes were charged on all cores, in tokens.
pub(super) fn charged(machine: &Machine, is_counted: impl Fn(IoClass) -> bool) -> u64 {
    let of_core = |core: &SimulatedCore| -> u64 {
        let classes = IoClass::ALL.into_iter().filter(|class| is_counted(*class));
        classes.map(|class| core.queue.class_statistics(class, machine.now).charged_tokens).sum()
    };
    machine.cores.iter().map(of_core).sum()
}

/// Cores that are busy look at their queues once in a turn. What they see late is not taken for a
/// slow device, and the background has what reads leave.
#[test]
fn the_background_has_what_reads_leave_however_busy_the_cores_are() {
    for turn in [0, 100, 200, 400] {
        let half = 4 * SECOND / model().read_iops;
        let loads = || {
            let reads = reads(IoClass::Read, 4_096, 0).every(half);
            std::iter::once(reads).chain(all_that_nobody_waits_for()).collect()
        };
        let mut machine = Machine::new(model(), model(), vec![loads(), loads()]);
        machine.cores.iter_mut().for_each(|core| core.turn = turn * MICROSECOND);
        machine.run(SECOND);
        let is_read = |class| class == IoClass::Read;
        let both = |machine: &Machine| {
            (charged(machine, is_read), charged(machine, |class| !is_read(class)))
        };
        let (reads_before, others_before) = both(&machine);
        machine.run(4 * SECOND);
        let (reads, others) = both(&machine);
        let (reads, others) = (reads - reads_before, others - others_before);
        let left = tokens_of(4 * SECOND) - reads;
        assert!(reads >= tokens_of(4 * SECOND) * 49 / 100, "{turn} us: half is for reads");
        assert!(others >= left * 9 / 10, "turns of {turn} us: {others} of {left}");
    }
}

#[test]
fn what_is_charged_is_what_time_has_brought() {
    let mixed = DeviceModel { mixed_thousandths: 800, ..model() };
    let loads = || vec![reads(IoClass::Scan, 4_096, 64), writes(IoClass::Flush, 64 << 10, 16)];
    let mut machine = Machine::new(mixed, mixed, vec![loads(), loads()]);
    machine.run(SECOND);
    let all = charged(&machine, |_| true);
    let limit = model().costs().limit();
    assert!(all <= tokens_of(SECOND) + 2 * limit, "{all}");
    assert!(all >= tokens_of(SECOND) * 97 / 100, "{all}");
    let done: u64 =
        (0..2).map(|core| cost(machine.load(core, 0)) + cost(machine.load(core, 1))).sum();
    assert!(done < all * 97 / 100, "together they cost more: {done} of {all}");
}

#[test]
fn a_withdrawn_request_is_charged_nothing() {
    let group = DeviceGroup::new(model(), 1);
    let options = IoQueueOptions { device: Some(group), ..IoQueueOptions::default() };
    let mut queue = IoQueue::new(options);
    let read = IoRequest { class: IoClass::Read, direction: IoDirection::Read, bytes: 4_096 };
    let charged =
        |queue: &IoQueue<()>| queue.class_statistics(IoClass::Read, SECOND).charged_tokens;
    queue.push(read, (), SECOND);
    assert_eq!(
        (queue.pop(SECOND), charged(&queue)),
        (Some(()), model().cost(IoDirection::Read, 4_096))
    );
    queue.withdraw(read, SECOND);
    assert_eq!(charged(&queue), 0);
}
