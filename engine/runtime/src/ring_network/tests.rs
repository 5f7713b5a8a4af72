use super::*;
use std::cell::Cell;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::IntoRawFd;
use std::rc::Rc;

use crate::core_thread::{Core, CoreOptions};
use crate::fake_ring::{FakeKernel, FakeRing, Reply};
use crate::network::Service;
use crate::network_events::{
    ACCEPT_RETRY_NANOSECONDS, ACCEPTS_PER_TURN, LINGER_NANOSECONDS, PROBE_NANOSECONDS,
};
use crate::random::Random;
use crate::ring::Operation;
use crate::sockets::tests::reset;

/// Echoes, and writes down what it was told.
#[derive(Default)]
struct Recorder {
    events: Vec<String>,
    received: Vec<u8>,
    connection: Option<ConnectionId>,
    pause_after: Option<usize>,
    resumes_next_turn: bool,
    /// Takes bytes and answers nothing.
    is_silent: bool,
    /// Closes after the first answer.
    closes: bool,
    /// Answers with the bytes as a value of its own between two brackets.
    is_linking: bool,
    /// By turn in which output was not sent yet, how much there was, and its memory.
    unsent: Vec<(usize, usize)>,
}

impl Service<RingNetwork> for Recorder {
    fn connected(
        &mut self,
        _network: &mut RingNetwork,
        connection: ConnectionId,
        listener: usize,
        _peer: Option<SocketAddr>,
    ) -> bool {
        self.connection = Some(connection);
        self.events.push(format!("connected {listener}"));
        true
    }

    fn received(&mut self, network: &mut RingNetwork, connection: ConnectionId, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
        if self.is_linking {
            let output = network.output(connection).unwrap();
            output.bytes().push(b'<');
            let at = output.bytes().len();
            output.link_at(at, bytes.to_vec());
            output.bytes().push(b'>');
        } else {
            let output = network.output(connection).unwrap();
            output.bytes().extend_from_slice(if self.is_silent { &[] } else { bytes });
        }
        if self.closes {
            network.close_after_output(connection);
        }
        if self.pause_after.is_some_and(|limit| self.received.len() >= limit) {
            network.pause(connection);
        }
    }

    fn ended(&mut self, network: &mut RingNetwork, connection: ConnectionId) {
        self.events.push("ended".into());
        network.close_after_output(connection);
    }

    fn drained(&mut self, _network: &mut RingNetwork, _connection: ConnectionId) {
        self.events.push("drained".into());
    }

    fn closed(&mut self, _connection: ConnectionId) {
        self.events.push("closed".into());
    }

    fn turn(&mut self, network: &mut RingNetwork) -> bool {
        let pending = self.connection.map_or(0, |connection| network.output_pending(connection));
        if pending > 0 {
            self.unsent.push((pending, network.output_memory()));
        }
        if std::mem::take(&mut self.resumes_next_turn) {
            self.pause_after = None;
            network.resume(self.connection.unwrap());
            return true;
        }
        false
    }

    fn publish(&mut self) {}
}

struct Fixture {
    core: Core<FakeRing>,
    ring: FakeRing,
    stop: Rc<Cell<bool>>,
    address: SocketAddr,
    clients: Vec<TcpStream>,
}

fn is_accept(operation: &Operation) -> bool {
    matches!(operation, Operation::Accept { .. })
}

fn is_receive(operation: &Operation) -> bool {
    matches!(operation, Operation::Receive { .. })
}

fn is_send(operation: &Operation) -> bool {
    matches!(operation, Operation::Send { .. } | Operation::SendPieces { .. })
}

fn is_in_pieces(operation: &Operation) -> bool {
    matches!(operation, Operation::SendPieces { .. })
}

impl Fixture {
    fn new() -> Self {
        let ring = FakeRing::new();
        let options = CoreOptions {
            spin_max: std::time::Duration::ZERO,
            output_high_water: 8,
            ..CoreOptions::default()
        };
        let mut core = Core::with_ring(ring.clone(), options).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(core.network().listen(listener), 0);
        Self { core, ring, stop: Rc::default(), address, clients: Vec::new() }
    }

    /// A step that completes the accept with a real connection.
    fn accept(&mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        self.clients.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let socket = listener.accept().unwrap().0.into_raw_fd();
        self.ring.when_idle(move |kernel| kernel.complete(is_accept, socket, false));
    }

    fn step(&self, step: impl FnOnce(&mut FakeKernel) + 'static) {
        self.ring.when_idle(step);
    }

    fn run(&mut self, service: &mut Recorder) {
        let stop = Rc::clone(&self.stop);
        // Completing the watch makes the core look at the stop flag.
        self.ring.when_idle(move |kernel| {
            stop.set(true);
            kernel.complete(|operation| matches!(operation, Operation::Watch { .. }), 1, true);
        });
        let stop = Rc::clone(&self.stop);
        self.core.run(service, &move |_| stop.get());
        self.stop.set(false);
    }
}

#[test]
fn bytes_come_back_and_an_end_closes() {
    let mut fixture = Fixture::new();
    fixture.accept();
    fixture.step(|kernel| kernel.deliver(b"hello", true));
    fixture.step(|kernel| kernel.complete(is_receive, 0, false));
    let mut service = Recorder::default();
    fixture.run(&mut service);
    assert_eq!(service.events, ["connected 0", "ended", "closed"]);
    assert_eq!(fixture.ring.kernel.borrow().sent, b"hello");
    assert_eq!(fixture.ring.kernel.borrow().free_buffers(), 4);
    assert_eq!(fixture.core.network().connections(), 0);
}

#[test]
fn one_send_carries_all_replies_of_a_turn() {
    let mut fixture = Fixture::new();
    fixture.accept();
    fixture.step(|kernel| {
        kernel.deliver(b"a", true);
        kernel.deliver(b"b", true);
        kernel.deliver(b"c", true);
    });
    let mut service = Recorder::default();
    fixture.run(&mut service);
    assert_eq!((fixture.ring.count(is_send), service.received.as_slice()), (1, &b"abc"[..]));
    assert_eq!(fixture.ring.kernel.borrow().sent, b"abc");
}

#[test]
fn output_is_counted_in_the_turn_that_makes_it() {
    let mut fixture = Fixture::new();
    fixture.accept();
    fixture.step(|kernel| kernel.deliver(b"0123456789", true));
    let mut service = Recorder::default();
    fixture.run(&mut service);
    assert_eq!(service.unsent.iter().map(|(pending, _)| *pending).max(), Some(10));
    for (pending, memory) in service.unsent {
        assert!(memory >= pending, "{memory} bytes of memory for {pending}");
    }
    assert_eq!(fixture.core.network().output_memory(), 0);
}

#[test]
fn a_connection_that_is_answered_nothing_holds_no_buffer() {
    let mut fixture = Fixture::new();
    fixture.accept();
    fixture.step(|kernel| kernel.deliver(b"a part", true));
    let mut service = Recorder { is_silent: true, ..Recorder::default() };
    fixture.run(&mut service);
    assert_eq!(service.received, b"a part");
    let network = fixture.core.network();
    assert_eq!((network.connections(), network.output_memory()), (1, 0));
    assert_eq!(network.spare_memory(), OUTPUT_BYTES, "the next one gets it");
}

#[test]
fn short_and_interrupted_sends_are_continued_in_order() {
    let mut fixture = Fixture::new();
    fixture.accept();
    fixture.ring.script([
        Reply::Short(2),
        Reply::Error(libc::EINTR),
        Reply::Short(1),
        Reply::Error(libc::EAGAIN),
    ]);
    fixture.step(|kernel| kernel.deliver(b"0123456789", true));
    let mut service = Recorder::default();
    fixture.run(&mut service);
    assert_eq!(fixture.ring.kernel.borrow().sent, b"0123456789");
    assert_eq!(service.events, ["connected 0", "drained"]);
}

#[test]
fn values_of_their_own_arrive_whole_whatever_the_socket_takes_at_a_time() {
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let mut fixture = Fixture::new();
        fixture.accept();
        for _ in 0..random.index(30) {
            let len = random.count(1..=40);
            let passing = Reply::Error(random.pick(&[libc::EINTR, libc::EAGAIN]));
            fixture.ring.script([random.pick(&[Reply::Short(len), Reply::Full, passing])]);
        }
        let mut expected = Vec::new();
        for _ in 0..random.count(1..=5) {
            let chunks: Vec<Vec<u8>> = (0..random.count(1..=3))
                .map(|_| {
                    let len = random.count(1..=60);
                    random.bytes(len)
                })
                .collect();
            for chunk in &chunks {
                expected.extend([b"<", &chunk[..], b">"].concat());
            }
            fixture.step(move |kernel| {
                chunks.iter().for_each(|chunk| kernel.deliver(chunk, true));
            });
        }
        let mut service = Recorder { is_linking: true, ..Recorder::default() };
        fixture.run(&mut service);
        assert_eq!(fixture.ring.kernel.borrow().sent, expected, "seed {seed}");
        assert!(fixture.ring.count(is_in_pieces) > 0);
        assert_eq!(fixture.core.network().output_memory(), 0, "seed {seed}");
    }
}

#[test]
fn a_reset_amid_values_gives_their_memory_back_when_the_send_has_ended() {
    let mut fixture = Fixture::new();
    fixture.accept();
    fixture.ring.script([Reply::Short(3), Reply::Hold]);
    fixture.step(|kernel| kernel.deliver(b"0123456789", true));
    fixture.step(|kernel| kernel.complete(is_receive, -libc::ECONNRESET, false));
    let mut service = Recorder { is_linking: true, ..Recorder::default() };
    fixture.run(&mut service);
    assert_eq!(service.events, ["connected 0", "closed"]);
    assert_eq!(fixture.ring.kernel.borrow().sent, b"<01");
    let is_cancelled = |operation: &Operation| matches!(operation, Operation::CancelFile { .. });
    assert_eq!(fixture.ring.count(is_cancelled), 1, "the kernel may still have read the values");
    let network = fixture.core.network();
    assert_eq!((network.connections(), network.output_memory()), (0, 0));
}

#[test]
fn output_gathers_while_a_send_waits() {
    let mut fixture = Fixture::new();
    fixture.accept();
    fixture.ring.script([Reply::Hold]);
    fixture.step(|kernel| kernel.deliver(b"one", true));
    fixture.step(|kernel| kernel.deliver(b"two", true));
    fixture.step(|kernel| {
        kernel.sent.extend_from_slice(b"one");
        kernel.complete(is_send, 3, false);
    });
    let mut service = Recorder::default();
    fixture.run(&mut service);
    assert_eq!(fixture.ring.count(is_send), 2);
    assert_eq!(fixture.ring.kernel.borrow().sent, b"onetwo");
    assert_eq!(fixture.core.network().output_pending(service.connection.unwrap()), 0);
}

#[test]
fn a_receive_that_stops_is_armed_again() {
    let mut fixture = Fixture::new();
    fixture.accept();
    // The kernel may end a multishot operation with any completion.
    fixture.step(|kernel| kernel.deliver(b"x", false));
    fixture.step(|kernel| kernel.complete(is_receive, -libc::EAGAIN, false));
    // Five deliveries at once find four buffers.
    fixture.step(|kernel| {
        for _ in 0..5 {
            kernel.deliver(b"y", true);
        }
    });
    fixture.step(|kernel| kernel.deliver(b"z", true));
    let mut service = Recorder::default();
    fixture.run(&mut service);
    assert_eq!(service.received, b"xyyyyz");
    assert_eq!(fixture.core.network().buffer_shortages(), 1);
    assert_eq!(fixture.ring.count(is_receive), 4);
    assert_eq!(fixture.ring.kernel.borrow().free_buffers(), 4);
}

#[test]
fn an_accept_that_stops_is_armed_again() {
    let mut fixture = Fixture::new();
    fixture.step(|kernel| kernel.complete(is_accept, -libc::ECONNABORTED, false));
    fixture.accept();
    let mut service = Recorder::default();
    fixture.run(&mut service);
    assert_eq!(service.events, ["connected 0"]);
    assert_eq!(fixture.ring.count(is_accept), ACCEPTS_PER_TURN + 2);
}

#[test]
fn a_turn_accepts_a_few_of_many_who_connect_at_once() {
    const COMERS: usize = 3 * ACCEPTS_PER_TURN;
    let mut fixture = Fixture::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sockets = Vec::new();
    for _ in 0..COMERS {
        fixture.clients.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        sockets.push(listener.accept().unwrap().0.into_raw_fd());
    }
    for some in sockets.chunks(ACCEPTS_PER_TURN) {
        let some = some.to_vec();
        // All accepts that are in the ring are taken, and no other one would be.
        fixture.step(move |kernel| {
            some.iter().for_each(|socket| kernel.complete(is_accept, *socket, false));
            assert!(!kernel.is_waiting(is_accept));
        });
    }
    let mut service = Recorder::default();
    fixture.run(&mut service);
    assert_eq!(service.events, ["connected 0"; COMERS]);
    assert_eq!(fixture.ring.count(is_accept), COMERS + ACCEPTS_PER_TURN);
}

#[test]
fn accepting_backs_off_when_descriptors_run_out() {
    let mut fixture = Fixture::new();
    fixture.step(|kernel| {
        (0..ACCEPTS_PER_TURN).for_each(|_| kernel.complete(is_accept, -libc::EMFILE, false));
    });
    fixture.step(|kernel| assert!(!kernel.is_waiting(is_accept), "it waits before it tries again"));
    let mut service = Recorder::default();
    fixture.run(&mut service);
    assert_eq!(fixture.ring.count(is_accept), ACCEPTS_PER_TURN);
    assert!(fixture.core.network().deadline().is_some());
    let env = fixture.core.env();
    fixture.core.block_on(crate::env::Env::sleep(&env, ACCEPT_RETRY_NANOSECONDS));
    fixture.run(&mut service);
    assert_eq!(fixture.ring.count(is_accept), 2 * ACCEPTS_PER_TURN);
}

#[test]
fn a_reset_closes_and_cancels_the_send() {
    let mut fixture = Fixture::new();
    fixture.accept();
    fixture.ring.script([Reply::Hold]);
    fixture.step(|kernel| kernel.deliver(b"data", true));
    fixture.step(|kernel| kernel.complete(is_receive, -libc::ECONNRESET, false));
    let mut service = Recorder::default();
    fixture.run(&mut service);
    assert_eq!(service.events, ["connected 0", "closed"]);
    assert_eq!(fixture.core.network().connections(), 0);
    let mut end = [0];
    assert_eq!(fixture.clients[0].read(&mut end).unwrap(), 0, "the descriptor is closed");
}

#[test]
fn a_reset_that_the_ring_does_not_report_is_found() {
    let mut fixture = Fixture::new();
    fixture.accept();
    fixture.step(|kernel| kernel.deliver(b"half a request", true));
    let mut service = Recorder { is_silent: true, ..Recorder::default() };
    fixture.run(&mut service);
    let env = fixture.core.env();
    fixture.core.block_on(crate::env::Env::sleep(&env, PROBE_NANOSECONDS));
    fixture.run(&mut service);
    assert_eq!(service.events, ["connected 0"], "a silent client stays");

    fixture.step(|kernel| kernel.deliver(b"more of it", true));
    reset(fixture.clients.remove(0));
    fixture.run(&mut service);
    fixture.core.block_on(crate::env::Env::sleep(&env, PROBE_NANOSECONDS));
    fixture.run(&mut service);
    assert_eq!(service.events, ["connected 0", "closed"]);
    assert_eq!(fixture.core.network().connections(), 0);
}

#[test]
fn a_broken_pipe_closes() {
    let mut fixture = Fixture::new();
    fixture.accept();
    fixture.ring.script([Reply::Error(libc::EPIPE)]);
    fixture.step(|kernel| kernel.deliver(b"data", true));
    let mut service = Recorder::default();
    fixture.run(&mut service);
    assert_eq!(service.events, ["connected 0", "closed"]);
    let connection = service.connection.unwrap();
    assert!(fixture.core.network().output(connection).is_none());
    assert_eq!(fixture.core.network().output_pending(connection), 0);
}

#[test]
fn pausing_cancels_the_receive_and_resuming_arms_it() {
    let mut fixture = Fixture::new();
    fixture.accept();
    fixture.step(|kernel| kernel.deliver(b"12", true));
    fixture.step(|kernel| assert!(!kernel.is_waiting(is_receive)));
    let mut service = Recorder { pause_after: Some(2), ..Recorder::default() };
    fixture.run(&mut service);
    service.resumes_next_turn = true;
    fixture.step(|kernel| kernel.deliver(b"3", true));
    fixture.run(&mut service);
    assert_eq!(service.received, b"123");
    assert_eq!(service.events, ["connected 0"]);
}

#[test]
fn a_cancellation_that_finds_nothing_is_repeated() {
    let mut fixture = Fixture::new();
    fixture.accept();
    fixture.step(|kernel| {
        kernel.misses_cancellations = 1;
        kernel.deliver(b"12", true);
    });
    fixture.step(|kernel| {
        assert!(kernel.is_waiting(is_receive), "the cancellation came at the wrong moment");
        kernel.deliver(b"3", true);
    });
    fixture.step(|kernel| assert!(!kernel.is_waiting(is_receive)));
    let mut service = Recorder { pause_after: Some(2), ..Recorder::default() };
    fixture.run(&mut service);
    assert_eq!(service.received, b"123");
}

#[test]
fn a_connection_that_is_closed_lets_its_peer_read_to_the_end() {
    let mut fixture = Fixture::new();
    fixture.accept();
    let mut service = Recorder { closes: true, ..Recorder::default() };
    fixture.step(|kernel| kernel.deliver(b"first", true));
    fixture.step(|kernel| kernel.deliver(b"ignored", true));
    fixture.run(&mut service);
    let mut end = [0];
    assert_eq!(fixture.clients[0].read(&mut end).unwrap(), 0, "nothing follows");
    assert_eq!((service.events.len(), fixture.core.network().connections()), (1, 1));
    fixture.step(|kernel| kernel.complete(is_receive, 0, false));
    fixture.run(&mut service);
    assert_eq!(service.events, ["connected 0", "closed"]);
    assert_eq!(service.received, b"first");
    assert_eq!(fixture.ring.kernel.borrow().sent, b"first");
}

#[test]
fn a_peer_that_never_ends_is_not_waited_for_long() {
    let mut fixture = Fixture::new();
    fixture.accept();
    let mut service = Recorder { closes: true, ..Recorder::default() };
    fixture.step(|kernel| kernel.deliver(b"first", true));
    fixture.run(&mut service);
    assert_eq!(fixture.core.network().connections(), 1);
    let env = fixture.core.env();
    fixture.core.block_on(crate::env::Env::sleep(&env, LINGER_NANOSECONDS));
    fixture.run(&mut service);
    assert_eq!(service.events, ["connected 0", "closed"]);
    assert_eq!(fixture.core.network().output_memory(), 0);
}

#[test]
fn what_happens_while_no_service_runs_waits_for_one() {
    let mut fixture = Fixture::new();
    fixture.accept();
    let mut service = Recorder::default();
    fixture.run(&mut service);
    fixture.ring.kernel.borrow_mut().deliver(b"early", true);
    let env = fixture.core.env();
    fixture.core.block_on(crate::env::Env::yield_if_needed(&env));
    fixture.core.block_on(futures_lite::future::yield_now());
    assert_eq!(service.received, b"");
    fixture.run(&mut service);
    assert_eq!(service.received, b"early");
}

#[test]
fn listeners_stop() {
    let mut fixture = Fixture::new();
    let mut service = Recorder::default();
    fixture.run(&mut service);
    TcpStream::connect(fixture.address).unwrap();
    fixture.core.network().stop_listening();
    fixture.run(&mut service);
    assert!(!fixture.ring.kernel.borrow().is_waiting(is_accept));
    TcpStream::connect(fixture.address).unwrap_err();
}

#[test]
fn shutdown_gives_back_what_still_arrives() {
    let mut fixture = Fixture::new();
    fixture.accept();
    let mut service = Recorder::default();
    fixture.run(&mut service);
    fixture.ring.kernel.borrow_mut().deliver(b"late", true);
    let ring = fixture.ring.clone();
    fixture.core.shutdown();
    assert_eq!(ring.kernel.borrow().free_buffers(), 4);
    assert!(!ring.kernel.borrow().is_waiting(|_| true));
    assert_eq!(service.events, ["connected 0"]);
}

#[test]
fn ids_round_trip_through_integers() {
    let id = ConnectionId { index: 7, generation: 1 << 20 };
    assert_eq!(ConnectionId::from(u64::from(id)), id);
}
