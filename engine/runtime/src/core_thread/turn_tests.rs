//! What holds from turn to turn, on a ring without a kernel.

use std::cell::Cell;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::IntoRawFd;

use super::*;
use crate::core_env::CoreEnv;
use crate::env::{DISK_ALIGNMENT, Env, File, IoClass, OpenMode, TaskQueue};
use crate::fake_ring::{FakeKernel, FakeRing};
use crate::network::ConnectionId;

/// Reads a clock at most once per turn, as services do.
struct Timed {
    clock: Rc<Cell<u64>>,
    read: Option<u64>,
    /// What the clock showed, to the service, when bytes came.
    seen: Vec<u64>,
}

impl Timed {
    fn now(&mut self) -> u64 {
        *self.read.get_or_insert(self.clock.get())
    }
}

impl Service<RingNetwork> for Timed {
    fn begin_turn(&mut self) {
        self.read = None;
    }

    fn connected(
        &mut self,
        _: &mut RingNetwork,
        _: ConnectionId,
        _: usize,
        _: Option<SocketAddr>,
    ) -> bool {
        true
    }

    fn received(&mut self, _network: &mut RingNetwork, _connection: ConnectionId, _bytes: &[u8]) {
        let now = self.now();
        self.seen.push(now);
    }

    fn ended(&mut self, _network: &mut RingNetwork, _connection: ConnectionId) {}

    fn drained(&mut self, _network: &mut RingNetwork, _connection: ConnectionId) {}

    fn closed(&mut self, _connection: ConnectionId) {}

    fn turn(&mut self, _network: &mut RingNetwork) -> bool {
        self.now();
        false
    }

    fn publish(&mut self) {}
}

fn core(ring: &FakeRing) -> Core<FakeRing> {
    let options = CoreOptions { spin_max: Duration::ZERO, ..CoreOptions::default() };
    Core::with_ring(ring.clone(), options).unwrap()
}

#[test]
fn the_first_bytes_after_a_sleep_find_the_time_of_now() {
    let ring = FakeRing::new();
    let mut core = core(&ring);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let accepted = listener.accept().unwrap().0.into_raw_fd();
    core.network().listen(listener);
    let clock = Rc::new(Cell::new(100));
    let accept = |operation: &Operation| matches!(operation, Operation::Accept { .. });
    ring.when_idle(move |kernel| kernel.complete(accept, accepted, false));
    for step in 1..=3 {
        let clock = Rc::clone(&clock);
        ring.when_idle(move |kernel: &mut FakeKernel| {
            clock.set(100 + 10 * step);
            kernel.deliver(b"x", true);
        });
    }
    let mut service = Timed { clock, read: None, seen: Vec::new() };
    core.run(&mut service, &|service| service.seen.len() == 3);
    assert_eq!(service.seen, [110, 120, 130]);
    drop(client);
}

#[test]
fn a_flood_of_completions_leaves_tasks_their_turn() {
    const FLOOD: usize = 20 * COMPLETIONS_PER_TURN;
    let ring = FakeRing::new();
    let mut core = core(&ring);
    let env = core.env();
    core.block_on(futures_lite::future::yield_now());
    // Rings of the bell, which wake nobody.
    let bell = |operation: &Operation| matches!(operation, Operation::Watch { .. });
    (0..FLOOD).for_each(|_| ring.kernel.borrow_mut().complete(bell, 1, true));
    let (sleeper, turns) = (env.clone(), Rc::new(Cell::new(vec![0])));
    let noted = Rc::clone(&turns);
    env.spawn(TaskQueue::Foreground, async move {
        loop {
            let mut handled = noted.take();
            handled.push(sleeper.loop_counters().wakes as usize);
            noted.set(handled);
            futures_lite::future::yield_now().await;
        }
    });
    core.block_on(async move {
        while (env.loop_counters().wakes as usize) < FLOOD {
            futures_lite::future::yield_now().await;
        }
    });
    let handled = turns.take();
    let most = handled.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(handled.len() > FLOOD / COMPLETIONS_PER_TURN, "{} turns", handled.len());
    assert!(most <= COMPLETIONS_PER_TURN, "{most} completions without a task");
}

fn burn(nanoseconds: u64) {
    let began = monotonic_nanoseconds();
    while monotonic_nanoseconds() - began < nanoseconds {}
}

/// A service that always has more to do, and takes so many nanoseconds for each bit of it.
struct Busy(u64);

impl Service<RingNetwork> for Busy {
    fn connected(
        &mut self,
        _: &mut RingNetwork,
        _: ConnectionId,
        _: usize,
        _: Option<SocketAddr>,
    ) -> bool {
        true
    }

    fn received(&mut self, _network: &mut RingNetwork, _connection: ConnectionId, _bytes: &[u8]) {}

    fn ended(&mut self, _network: &mut RingNetwork, _connection: ConnectionId) {}

    fn drained(&mut self, _network: &mut RingNetwork, _connection: ConnectionId) {}

    fn closed(&mut self, _connection: ConnectionId) {}

    fn turn(&mut self, _network: &mut RingNetwork) -> bool {
        burn(self.0);
        true
    }

    fn publish(&mut self) {}

    fn heaviest(&self) -> String {
        "a loop".to_owned()
    }
}

/// What a run measures is disturbed by other processes; a wrong result is wrong in every run.
fn is_so_in_an_undisturbed_run(run: impl Fn() -> bool) {
    const RUNS_MAX: usize = 20;
    assert!((0..RUNS_MAX).any(|_| run()), "in none of {RUNS_MAX} runs");
}

fn spawn_endless(env: &RingEnv, queue: TaskQueue) {
    let own = env.clone();
    env.spawn(queue, async move {
        loop {
            burn(20_000);
            own.yield_if_needed().await;
        }
    });
}

#[test]
fn a_busy_service_and_background_tasks_have_their_shares_of_the_core() {
    is_so_in_an_undisturbed_run(|| {
        let mut core = core(&FakeRing::new());
        let env = core.env();
        spawn_endless(&env, TaskQueue::Compaction);
        let end = monotonic_nanoseconds() + 100_000_000;
        core.run(&mut Busy(50_000), &|_| monotonic_nanoseconds() >= end);
        let cpu = env.figures().time.cpu;
        let compaction = cpu.queues[TaskQueue::Compaction as usize] as f64;
        let foreground = cpu.queues[TaskQueue::Foreground as usize] as f64;
        // 200 of 1,200 shares.
        (compaction / (compaction + foreground) - 1.0 / 6.0).abs() < 0.03
    });
}

#[test]
fn a_service_that_holds_the_core_is_counted_turn_by_turn_and_a_future_at_the_start_is_not() {
    let mut core = core(&FakeRing::new());
    let env = core.env();
    core.block_on(async {
        burn(15_000_000);
        futures_lite::future::yield_now().await;
    });
    assert_eq!(env.figures().time.stalls.longest, 0, "nobody is served yet");
    let turns = Cell::new(0);
    core.run(&mut Busy(15_000_000), &|_| turns.replace(turns.get() + 1) == 3);
    let stalls = env.figures().time.stalls;
    // The last turn has no end.
    assert_eq!((turns.get(), stalls.counts[TaskQueue::Foreground as usize]), (4, 3));
    assert!(stalls.longest >= 15_000_000, "{stalls:?}");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the core reads a file that is there")]
fn the_device_gets_what_some_tasks_ask_for_before_others_go_on() {
    const TASKS: usize = 80;
    let ring = FakeRing::new();
    let mut core = core(&ring);
    let env = core.env();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, vec![1; DISK_ALIGNMENT]).unwrap();
    let opener = env.clone();
    let file = core.block_on(async move { opener.open(&path, OpenMode::Read).await }).unwrap();
    // What tasks had asked for, and the device did not have, when each began.
    let waiting = Rc::new(RefCell::new(Vec::new()));
    let left = Rc::new(Cell::new(TASKS));
    for number in 0..TASKS {
        let (env, file, ring) = (env.clone(), file.clone(), ring.clone());
        let (waiting, left) = (Rc::clone(&waiting), Rc::clone(&left));
        env.clone().spawn(TaskQueue::Foreground, async move {
            let handed = ring.count(|operation| matches!(operation, Operation::Read { .. }));
            waiting.borrow_mut().push(number - handed);
            let (result, _) = file.read(IoClass::Read, 0, env.buffer(DISK_ALIGNMENT)).await;
            result.unwrap();
            left.set(left.get() - 1);
        });
    }
    core.block_on(async move {
        while left.get() > 0 {
            futures_lite::future::yield_now().await;
        }
    });
    let waiting = waiting.take();
    let most = waiting.iter().max().unwrap();
    assert!(*most < crate::disk::BATCH_REQUESTS, "{waiting:?}");
}
