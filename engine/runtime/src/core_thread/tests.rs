use super::*;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::core_env::CoreWaker;
use crate::env::{Env, File, IoClass, OpenMode, TaskQueue};
use crate::network::{ConnectionId, Network};

const HIGH_WATER: usize = 64 << 10;

#[derive(Default)]
struct Seen {
    connected: AtomicUsize,
    closed: AtomicUsize,
    ended: AtomicUsize,
    drained: AtomicUsize,
    received: AtomicUsize,
    is_stopping: AtomicBool,
    is_resuming: AtomicBool,
}

/// Echoes. A connection whose output passes the high-water mark is paused until it drains. A chunk
/// that starts with `Q` closes after the echo, one with `P` pauses until the test resumes.
struct Echo {
    seen: Arc<Seen>,
    paused: Vec<ConnectionId>,
}

impl Service<RingNetwork> for Echo {
    fn connected(
        &mut self,
        network: &mut RingNetwork,
        connection: ConnectionId,
        listener: usize,
        _peer: Option<SocketAddr>,
    ) -> bool {
        self.seen.connected.fetch_add(1, Ordering::SeqCst);
        if listener == 1 {
            network.output(connection).unwrap().bytes().extend_from_slice(b"busy\r\n");
        }
        listener == 0
    }

    fn received(&mut self, network: &mut RingNetwork, connection: ConnectionId, bytes: &[u8]) {
        self.seen.received.fetch_add(bytes.len(), Ordering::SeqCst);
        let Some(output) = network.output(connection) else { return };
        output.bytes().extend_from_slice(bytes);
        match bytes[0] {
            b'Q' => network.close_after_output(connection),
            b'P' => {
                network.pause(connection);
                self.paused.push(connection);
            }
            _ if network.output_pending(connection) > HIGH_WATER => network.pause(connection),
            _ => {}
        }
    }

    fn ended(&mut self, network: &mut RingNetwork, connection: ConnectionId) {
        self.seen.ended.fetch_add(1, Ordering::SeqCst);
        if let Some(output) = network.output(connection) {
            output.bytes().extend_from_slice(b"bye");
        }
        network.close_after_output(connection);
    }

    fn drained(&mut self, network: &mut RingNetwork, connection: ConnectionId) {
        self.seen.drained.fetch_add(1, Ordering::SeqCst);
        network.resume(connection);
    }

    fn closed(&mut self, _connection: ConnectionId) {
        self.seen.closed.fetch_add(1, Ordering::SeqCst);
    }

    fn turn(&mut self, network: &mut RingNetwork) -> bool {
        if !self.seen.is_resuming.swap(false, Ordering::SeqCst) {
            return false;
        }
        self.paused.drain(..).for_each(|connection| network.resume(connection));
        true
    }

    fn publish(&mut self) {}
}

struct Server {
    address: SocketAddr,
    refusing: SocketAddr,
    seen: Arc<Seen>,
    waker: RemoteWaker,
    thread: Option<JoinHandle<LoopCounters>>,
}

impl Server {
    #[allow(clippy::disallowed_methods, reason = "the server needs a thread")]
    fn start() -> Self {
        let seen = Arc::new(Seen::default());
        let service_seen = Arc::clone(&seen);
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let options = CoreOptions { output_high_water: HIGH_WATER, ..CoreOptions::default() };
            let mut core = Core::new(options).unwrap();
            let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
            let addresses = [0, 1].map(|index: usize| listeners[index].local_addr().unwrap());
            for listener in listeners {
                core.network().listen(listener);
            }
            sender.send((addresses, core.waker())).unwrap();
            let mut service = Echo { seen: service_seen, paused: Vec::new() };
            core.run(&mut service, &|service| service.seen.is_stopping.load(Ordering::SeqCst));
            let counters = core.env().loop_counters();
            core.shutdown();
            counters
        });
        let ([address, refusing], waker) = receiver.recv().unwrap();
        Self { address, refusing, seen, waker, thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_nodelay(true).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client
    }

    fn stop(mut self) -> LoopCounters {
        self.seen.is_stopping.store(true, Ordering::SeqCst);
        self.waker.wake();
        self.thread.take().unwrap().join().unwrap()
    }

    fn resume(&self) {
        self.seen.is_resuming.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    fn received(&self) -> usize {
        self.seen.received.load(Ordering::SeqCst)
    }

    fn expect(&self, what: &str, reached: impl Fn(&Seen) -> bool) {
        let is_reached = wait_until(|| reached(&self.seen));
        assert!(is_reached, "not {what} within five seconds");
    }
}

#[allow(clippy::disallowed_methods, reason = "the test waits for another thread")]
fn wait_until(is_reached: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !is_reached() {
        if start.elapsed() > Duration::from_secs(5) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

fn echo(client: &mut TcpStream, bytes: &[u8]) {
    client.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    client.read_exact(&mut back).unwrap();
    assert!(back == bytes, "other bytes came back");
}

#[test]
fn several_clients_are_echoed() {
    let server = Server::start();
    let mut clients: Vec<TcpStream> = (0..8).map(|_| server.connect()).collect();
    for round in 0..50 {
        for (index, client) in clients.iter_mut().enumerate() {
            echo(client, format!("client {index}, round {round}").as_bytes());
        }
    }
    drop(clients);
    server.expect("closed", |seen| seen.closed.load(Ordering::SeqCst) == 8);
    assert_eq!(server.seen.ended.load(Ordering::SeqCst), 8);
    server.stop();
}

#[test]
fn one_byte_segments() {
    let server = Server::start();
    let mut client = server.connect();
    let text = b"every byte of this comes in a segment of its own";
    for byte in text {
        client.write_all(&[*byte]).unwrap();
    }
    let mut back = vec![0; text.len()];
    client.read_exact(&mut back).unwrap();
    assert_eq!(back, text);
    server.stop();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the client reads and writes at the same time")]
fn a_large_value_in_and_out() {
    let server = Server::start();
    let mut client = server.connect();
    let bytes: Vec<u8> = (0..8 << 20).map(|index: usize| (index % 251) as u8 | 0x80).collect();
    let sent = bytes.clone();
    let mut writer = client.try_clone().unwrap();
    let thread = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut back = vec![0; bytes.len()];
    client.read_exact(&mut back).unwrap();
    thread.join().unwrap();
    assert!(back == bytes);
    server.stop();
}

#[test]
fn a_half_closed_client_gets_its_answers() {
    let server = Server::start();
    let mut client = server.connect();
    client.write_all(b"last words, ").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "last words, bye");
    server.expect("closed", |seen| seen.closed.load(Ordering::SeqCst) == 1);
    server.stop();
}

#[test]
fn the_service_closes_after_output_and_refuses_with_a_message() {
    let server = Server::start();
    let mut client = server.connect();
    client.write_all(b"Quit").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "Quit");
    let mut refused = TcpStream::connect(server.refusing).unwrap();
    answer.clear();
    refused.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "busy\r\n");
    server.expect("closed", |seen| seen.closed.load(Ordering::SeqCst) == 2);
    server.stop();
}

#[test]
fn a_reset_connection_is_closed_once() {
    let server = Server::start();
    let mut client = server.connect();
    echo(&mut client, b"hello");
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let len = size_of_val(&linger) as libc::socklen_t;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&client);
    // SAFETY: `linger` is valid for reading its size.
    let set = unsafe {
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), len)
    };
    assert_eq!(set, 0);
    drop(client);
    server.expect("closed", |seen| seen.closed.load(Ordering::SeqCst) == 1);
    echo(&mut server.connect(), b"still here");
    server.expect("closed", |seen| seen.closed.load(Ordering::SeqCst) == 2);
    assert_eq!(server.seen.ended.load(Ordering::SeqCst), 1, "the reset was no orderly end");
    server.stop();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the client writes from another thread")]
fn a_client_that_never_reads_holds_nobody_up() {
    let server = Server::start();
    let stuck = server.connect();
    let mut writer = stuck.try_clone().unwrap();
    writer.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let thread = std::thread::spawn(move || {
        let chunk = vec![b'x'; 64 << 10];
        let mut written = 0;
        while let Ok(bytes) = writer.write(&chunk) {
            written += bytes;
        }
        written
    });
    let mut other = server.connect();
    for _ in 0..100 {
        echo(&mut other, b"are you there?");
    }
    let written = thread.join().unwrap();
    let seen = server.received();
    assert!(written > HIGH_WATER && seen < 64 << 20, "{written} written, {seen} received");
    // Once the client reads, everything that was written comes back.
    let mut stuck = stuck;
    let mut back = vec![0; written];
    stuck.read_exact(&mut back).unwrap();
    assert!(server.seen.drained.load(Ordering::SeqCst) >= 1);
    server.stop();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test gives the server time to do nothing")]
fn a_paused_connection_receives_nothing_until_it_is_resumed() {
    let server = Server::start();
    let mut client = server.connect();
    echo(&mut client, b"Pause");
    // The cancellation of the receive is in the ring by the time the answer is out; what comes
    // before it has taken effect is delivered, so a second connection makes sure.
    echo(&mut server.connect(), b"ping");
    let before = server.received();
    client.write_all(b"while paused").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(server.received(), before);
    server.resume();
    let mut back = [0; 12];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"while paused");
    server.stop();
}

#[test]
fn a_thousand_connections() {
    let server = Server::start();
    let mut clients: Vec<TcpStream> = (0..1000).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.write_all(b"all at once").unwrap();
    }
    for client in &mut clients {
        let mut back = [0; 11];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"all at once");
    }
    drop(clients);
    server.expect("closed", |seen| seen.closed.load(Ordering::SeqCst) == 1000);
    server.stop();
}

/// What the calling thread has used of its CPU, in nanoseconds.
fn thread_cpu_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[test]
fn an_idle_core_sleeps() {
    let mut core = Core::new(CoreOptions::default()).unwrap();
    let env = core.env();
    core.block_on(env.sleep(1_000_000));
    let (before, used) = (env.loop_counters(), thread_cpu_time());
    core.block_on(env.sleep(300_000_000));
    let (after, used) = (env.loop_counters(), thread_cpu_time() - used);
    assert!(used < 3_000_000, "{used} ns of CPU in 300 ms");
    assert!(after.turns - before.turns < 10, "{before:?} {after:?}");
    assert!(after.parks > before.parks);
}

#[test]
fn timers_wake_in_order_and_not_early() {
    let mut core = Core::new(CoreOptions::default()).unwrap();
    let env = core.env();
    let order = Rc::new(RefCell::new(Vec::new()));
    for milliseconds in [30, 10, 20] {
        let (timer, order) = (env.clone(), Rc::clone(&order));
        env.spawn(TaskQueue::Maintenance, async move {
            timer.sleep(milliseconds * 1_000_000).await;
            order.borrow_mut().push(milliseconds);
        });
    }
    let start = monotonic_nanoseconds();
    core.block_on(env.sleep(40_000_000));
    assert!(monotonic_nanoseconds() - start >= 40_000_000);
    assert_eq!(*order.borrow(), [10, 20, 30]);
    core.block_on(async { drop(env.sleep(1_000_000_000_000)) });
    core.block_on(futures_lite::future::or(env.sleep(1_000_000), env.sleep(u64::MAX)));
    assert_eq!(core.shared.timers.borrow().len(), 0, "dropped sleeps are forgotten");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the wake-up comes from another thread")]
fn another_thread_wakes_a_sleeping_core() {
    let mut core = Core::new(CoreOptions::default()).unwrap();
    for round in 0..20 {
        let is_done = Arc::new(AtomicBool::new(false));
        let (flag, sender) = (Arc::clone(&is_done), mpsc::channel::<Waker>());
        let (sender, receiver) = sender;
        let thread = std::thread::spawn(move || {
            let waker = receiver.recv().unwrap();
            if round % 2 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
            flag.store(true, Ordering::SeqCst);
            waker.wake();
        });
        core.block_on(std::future::poll_fn(|context| {
            if is_done.load(Ordering::SeqCst) {
                return Poll::Ready(());
            }
            let _gone = sender.send(context.waker().clone());
            Poll::Pending
        }));
        thread.join().unwrap();
    }
    let counters = core.env().loop_counters();
    assert!(counters.wakes >= 5, "{counters:?}");
    core.shutdown();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the wake-up comes from another thread")]
fn a_task_is_woken_by_another_thread() {
    let mut core = Core::new(CoreOptions::default()).unwrap();
    let env = core.env();
    let (sender, receiver) = mpsc::channel::<Waker>();
    let is_done = Rc::new(Cell::new(false));
    let flag = Rc::clone(&is_done);
    env.spawn(TaskQueue::Foreground, async move {
        let mut is_polled = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut is_polled, true) {
                return Poll::Ready(());
            }
            sender.send(context.waker().clone()).unwrap();
            Poll::Pending
        })
        .await;
        flag.set(true);
    });
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        receiver.recv().unwrap().wake();
    });
    core.block_on(async {
        while !is_done.get() {
            env.sleep(50_000_000).await;
        }
    });
    thread.join().unwrap();
}

#[test]
fn a_busy_task_gives_way_at_its_quantum() {
    let mut core = Core::new(CoreOptions::default()).unwrap();
    let env = core.env();
    let yields = Rc::new(Cell::new(0));
    let (task_env, task_yields) = (env.clone(), Rc::clone(&yields));
    env.spawn(TaskQueue::Compaction, async move {
        loop {
            let before = task_env.loop_counters().turns;
            task_env.yield_if_needed().await;
            if task_env.loop_counters().turns > before {
                task_yields.set(task_yields.get() + 1);
            }
        }
    });
    core.block_on(env.sleep(20_000_000));
    let yields = yields.get();
    assert!((5..=110).contains(&yields), "{yields} yields in 20 ms of 200 us quanta");
    core.shutdown();
}

#[test]
fn a_panicking_task_ends_the_loop_with_its_panic() {
    let mut core = Core::new(CoreOptions::default()).unwrap();
    let env = core.env();
    env.spawn(TaskQueue::Flush, async { panic!("a broken invariant") });
    let run = std::panic::AssertUnwindSafe(|| core.block_on(env.sleep(1_000_000_000)));
    let panic = std::panic::catch_unwind(run).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"a broken invariant"));
}

#[test]
fn a_cpu_that_is_not_there_is_an_error() {
    let options = CoreOptions { pin_to_cpu: Some(1023), ..CoreOptions::default() };
    let message = Core::new(options).unwrap_err().to_string();
    assert!(message.starts_with("cannot bind the core's thread to CPU 1023"), "{message}");
}

#[test]
fn random_numbers_differ() {
    let (one, two) =
        (Core::new(CoreOptions::default()).unwrap(), Core::new(CoreOptions::default()).unwrap());
    let numbers: std::collections::BTreeSet<u64> =
        (0..100).flat_map(|_| [one.env().random(), two.env().random()]).collect();
    assert_eq!(numbers.len(), 200);
    assert!(one.env().unix_seconds() > 1_700_000_000);
}

/// The status of the threads that the kernel has started to work for the calling thread's ring.
#[allow(clippy::disallowed_methods, reason = "the kernel tells of its threads in files")]
fn worker_statuses() -> Vec<String> {
    let own = std::fs::read_link("/proc/thread-self").unwrap();
    let name = format!("Name:\tiou-wrk-{}", own.file_name().unwrap().to_str().unwrap());
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let status = |task: io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("status")).ok()
    };
    let named = |status: &String| status.lines().next() == Some(name.as_str());
    tasks.filter_map(status).filter(named).collect()
}

#[test]
fn workers_of_the_ring_run_where_they_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let cpus = CpuBits::of([0]);
    let mut core = Core::new(CoreOptions { worker_cpus: cpus, ..CoreOptions::default() }).unwrap();
    let env = core.env();
    core.block_on(async {
        let file = env.open(&path, OpenMode::CreateNew).await.unwrap();
        file.sync(IoClass::Flush).await.unwrap();
    });
    let statuses = worker_statuses();
    assert!(!statuses.is_empty(), "a flush is done by a worker");
    for status in statuses {
        assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    }
    core.shutdown();
}
