//! What connections go through, whatever runs the core.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Make;
use crate::core_env::CoreWaker;
use crate::core_runtime::CoreRuntime;
use crate::core_thread::CoreOptions;
use crate::network::{ConnectionId, Network, Service};
use crate::wake::RemoteWaker;

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

impl<N: Network> Service<N> for Echo {
    fn connected(
        &mut self,
        network: &mut N,
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

    fn received(&mut self, network: &mut N, connection: ConnectionId, bytes: &[u8]) {
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

    fn ended(&mut self, network: &mut N, connection: ConnectionId) {
        self.seen.ended.fetch_add(1, Ordering::SeqCst);
        if let Some(output) = network.output(connection) {
            output.bytes().extend_from_slice(b"bye");
        }
        network.close_after_output(connection);
    }

    fn drained(&mut self, network: &mut N, connection: ConnectionId) {
        self.seen.drained.fetch_add(1, Ordering::SeqCst);
        network.resume(connection);
    }

    fn closed(&mut self, _connection: ConnectionId) {
        self.seen.closed.fetch_add(1, Ordering::SeqCst);
    }

    fn turn(&mut self, network: &mut N) -> bool {
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
    thread: Option<JoinHandle<()>>,
}

impl Server {
    #[allow(clippy::disallowed_methods, reason = "the server needs a thread")]
    fn start<C: CoreRuntime + 'static>(make: Make<C>) -> Self {
        let seen = Arc::new(Seen::default());
        let service_seen = Arc::clone(&seen);
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let options = CoreOptions { output_high_water: HIGH_WATER, ..CoreOptions::default() };
            let mut core = make(options);
            let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
            let addresses = [0, 1].map(|index: usize| listeners[index].local_addr().unwrap());
            for listener in listeners {
                core.listen(listener.into());
            }
            sender.send((addresses, core.waker())).unwrap();
            let mut service = Echo { seen: service_seen, paused: Vec::new() };
            core.run(&mut service, &|service| service.seen.is_stopping.load(Ordering::SeqCst));
            core.shutdown();
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

    fn stop(mut self) {
        self.seen.is_stopping.store(true, Ordering::SeqCst);
        self.waker.wake();
        self.thread.take().unwrap().join().unwrap();
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

pub(super) fn several_clients_are_echoed<C: CoreRuntime + 'static>(make: Make<C>) {
    let server = Server::start(make);
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

pub(super) fn one_byte_segments<C: CoreRuntime + 'static>(make: Make<C>) {
    let server = Server::start(make);
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

#[allow(clippy::disallowed_methods, reason = "the client reads and writes at the same time")]
pub(super) fn a_large_value_in_and_out<C: CoreRuntime + 'static>(make: Make<C>) {
    let server = Server::start(make);
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

pub(super) fn a_half_closed_client_gets_its_answers<C: CoreRuntime + 'static>(make: Make<C>) {
    let server = Server::start(make);
    let mut client = server.connect();
    client.write_all(b"last words, ").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "last words, bye");
    server.expect("closed", |seen| seen.closed.load(Ordering::SeqCst) == 1);
    server.stop();
}

pub(super) fn the_service_closes_after_output_and_refuses_with_a_message<
    C: CoreRuntime + 'static,
>(
    make: Make<C>,
) {
    let server = Server::start(make);
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

pub(super) fn a_reset_connection_is_closed_once<C: CoreRuntime + 'static>(make: Make<C>) {
    let server = Server::start(make);
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

#[allow(clippy::disallowed_methods, reason = "the client writes from another thread")]
pub(super) fn a_client_that_never_reads_holds_nobody_up<C: CoreRuntime + 'static>(make: Make<C>) {
    let server = Server::start(make);
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

#[allow(clippy::disallowed_methods, reason = "the test gives the server time to do nothing")]
pub(super) fn a_paused_connection_receives_nothing_until_it_is_resumed<C: CoreRuntime + 'static>(
    make: Make<C>,
) {
    let server = Server::start(make);
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

pub(super) fn a_thousand_connections<C: CoreRuntime + 'static>(make: Make<C>) {
    let server = Server::start(make);
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
