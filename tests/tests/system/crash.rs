//! The server is killed under load, again and again on the same store; each time everything that it
//! had acknowledged must be there.
//!
//! The load comes over both doors at once: memcached's, and the native one with records of several
//! items, changes of several of them that are made as a whole, deleted ranges, and pages. What one
//! door has acknowledged the other shows.
//!
//! Each key has one writer, which knows what the key held last and what was asked for since. After
//! a kill a key must be as it was last acknowledged, or as a later request that was under way made
//! it; nothing else. What is found then counts as acknowledged: it was read from the disk, so it
//! must not go away again.

mod history;

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use larder_protocol::native::NativeStatus;
use larder_tests::client::Client;
use larder_tests::node::{Node, NodeOptions};
use larder_tests::scratch::Scratch;
use larder_tests::{process, seed};

use super::native::NativeClient;
use history::{Expected, History, Request};

const WRITERS: usize = 4;
/// Requests that a writer sends before it waits for their answers, at most.
const DEPTH_MAX: usize = 8;
/// How long the server runs before it is killed, in milliseconds.
const LIFE: std::ops::Range<u64> = 50..2000;
/// How long after its start a server is killed that may still be recovering, in milliseconds.
const RECOVERY: std::ops::Range<u64> = 0..150;

pub(super) fn kills() -> usize {
    match std::env::var("LARDER_KILLS") {
        Ok(text) => text.parse().expect("LARDER_KILLS is a number"),
        Err(_) => 3,
    }
}

/// Where the server is reached.
#[derive(Clone, Copy)]
struct Doors {
    memcached: SocketAddr,
    native: SocketAddr,
}

/// One writer: its keys, and a file with what was acknowledged, for a person who looks into a
/// failure. It is outside of the store, whose faults must not touch it.
struct Writer {
    history: History,
    acknowledged: File,
    random: Rng,
}

impl Writer {
    fn new(number: usize, folder: &Path, random: Rng) -> Self {
        let path = folder.join(format!("acknowledged-{number}"));
        let file = OpenOptions::new().create_new(true).append(true).open(path);
        Self { history: History::new(number), acknowledged: file.expect("a file"), random }
    }

    /// Sends requests until the server is gone. The error of a connection that broke is the usual
    /// end; an answer that is wrong fails the test.
    fn write(&mut self, doors: Doors) -> io::Result<()> {
        let mut memcached = Client::connect(doors.memcached)?;
        let mut native = NativeClient::connect(doors.native)?;
        loop {
            if self.random.bool() {
                self.write_memcached(&mut memcached)?;
            } else {
                self.write_native(&mut native)?;
            }
            if self.random.u8(..4) == 0 {
                self.history.look(&mut self.random, &mut memcached, &mut native)?;
            }
        }
    }

    fn write_memcached(&mut self, client: &mut Client) -> io::Result<()> {
        let depth = self.random.usize(1..=DEPTH_MAX);
        let requests: Vec<Request> =
            (0..depth).map(|_| self.history.issue(&mut self.random)).collect();
        let bytes: Vec<u8> = requests.iter().flat_map(Request::bytes).collect();
        client.send(&bytes)?;
        for request in requests {
            let answer = client.line()?;
            assert_eq!(answer, request.line(), "to {request}");
            self.acknowledge(&request)?;
        }
        Ok(())
    }

    fn write_native(&mut self, client: &mut NativeClient) -> io::Result<()> {
        let (depth, mut busy) = (self.random.usize(1..=DEPTH_MAX), HashSet::new());
        let mut open = HashMap::new();
        for _ in 0..depth {
            let request = self.history.issue_native(&mut self.random, &mut busy);
            let Some(request) = request else { continue };
            let id = request.with_native(|native| client.send(std::slice::from_ref(native)))?;
            open.insert(id, request);
        }
        while !open.is_empty() {
            let replied = client.receive()?;
            let request = open.remove(&replied.id).expect("one reply to each request");
            let answer = match replied.status {
                NativeStatus::Ok if matches!(request.expected(), Expected::Number(_)) => {
                    Expected::Number(replied.number())
                }
                NativeStatus::Ok => Expected::Done,
                NativeStatus::Absent => Expected::Absent,
                status => panic!("{status:?} to {request}"),
            };
            assert_eq!(answer, request.expected(), "to {request}");
            self.acknowledge(&request)?;
        }
        Ok(())
    }

    fn acknowledge(&mut self, request: &Request) -> io::Result<()> {
        self.history.acknowledge(request);
        writeln!(self.acknowledged, "{request}")
    }
}

/// Starts a server on a store whose last one has just been killed. The kernel may need a moment to
/// let go of what that one held.
pub(super) fn restart(options: &NodeOptions) -> Node {
    let mut outcome = Node::try_start(options);
    process::wait_until(Duration::from_secs(10), || {
        if outcome.is_err() {
            outcome = Node::try_start(options);
        }
        outcome.is_ok()
    });
    outcome.unwrap_or_else(|reason| panic!("no start after a kill: {reason}"))
}

fn load_and_kill(node: Node, writers: &mut [Writer], life: Duration) {
    let doors = Doors { memcached: node.address(), native: node.native() };
    thread::scope(|scope| {
        let threads: Vec<_> =
            writers.iter_mut().map(|writer| scope.spawn(move || writer.write(doors))).collect();
        thread::sleep(life);
        node.kill();
        for thread in threads {
            thread.join().expect("every answer was right").expect_err("the server is gone");
        }
    });
}

/// Reads every key and compares it with its history.
fn verify(node: &Node, writers: &mut [Writer]) {
    let mut memcached = node.client();
    let mut native = NativeClient::connect(node.native()).expect("the server listens");
    for writer in writers {
        let Writer { history, random, .. } = writer;
        let wrong = history.verify(random, &mut memcached, &mut native);
        let wrong = wrong.expect("the server answers");
        assert!(wrong.is_empty(), "{} keys:\n{}", wrong.len(), wrong.join("\n"));
    }
}

fn kill_again_and_again(test: &str, shards: u16, kills: usize) {
    let seed = seed::given_or_fresh(test);
    let mut random = Rng::with_seed(seed);
    let store = Scratch::new("store");
    // Shared, so that it outlives a failed assertion in any thread.
    let oracle = Arc::new(Scratch::new("acknowledged"));
    let options = NodeOptions::new(store.path()).shards(shards);
    let mut writers: Vec<Writer> =
        (0..WRITERS).map(|number| Writer::new(number, oracle.path(), random.fork())).collect();
    let mut node = Node::start(&options);
    for round in 0..kills {
        let life = Duration::from_millis(random.u64(LIFE));
        println!("round {round}: killed after {life:?}");
        load_and_kill(node, &mut writers, life);
        if random.u8(..3) == 0 {
            let recovering = Node::launch(&options);
            thread::sleep(Duration::from_millis(random.u64(RECOVERY)));
            recovering.kill();
        }
        node = restart(&options);
        verify(&node, &mut writers);
    }
    let acknowledged: u64 = writers.iter().map(|writer| writer.history.acknowledged()).sum();
    println!("{kills} kills, {acknowledged} acknowledged requests");
    assert!(kills == 0 || acknowledged > 0, "nothing was acknowledged: nothing was tested");
    node.stop();
    let node = Node::start(&options);
    verify(&node, &mut writers);
    node.stop();
}

#[test]
fn one_shard_keeps_what_it_acknowledged() {
    kill_again_and_again("one_shard_keeps_what_it_acknowledged", 1, kills().div_ceil(2));
}

#[test]
fn two_shards_keep_what_they_acknowledged() {
    kill_again_and_again("two_shards_keep_what_they_acknowledged", 2, kills() / 2);
}
