//! Several clients do what they like to a few keys, over both doors, while the server is killed and
//! started again. What each saw, with its times, must be what one operation after the other gives.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use larder_protocol::native::{Condition, NativeStatus, PutMode};
use larder_tests::client::Client;
use larder_tests::linear::{self, Action, Operation, Output};
use larder_tests::node::{Node, NodeOptions};
use larder_tests::scratch::Scratch;
use larder_tests::seed;

use super::crash::{kills, restart};
use super::native::{NativeClient, delete, increment, key, put};

const KEYS: usize = 4;
const CLIENTS: usize = 6;
/// Operations of a client in one life of the server, at most.
const OPERATIONS: usize = 400;
/// How long the server lives, in milliseconds.
const LIFE: std::ops::Range<u64> = 20..150;

/// A way into the server.
enum Door {
    Memcached(Client),
    Native(NativeClient),
}

fn name(key: usize) -> String {
    format!("shared-{key}")
}

fn number(value: &[u8]) -> u64 {
    let text = str::from_utf8(value).expect("digits");
    text.parse().expect("a number that a client has stored")
}

impl Door {
    fn open(node: (SocketAddr, SocketAddr), is_native: bool) -> io::Result<Self> {
        let (memcached, native) = node;
        Ok(match is_native {
            true => Self::Native(NativeClient::connect(native)?),
            false => Self::Memcached(Client::connect(memcached)?),
        })
    }

    fn act(&mut self, name: &str, action: Action) -> io::Result<Output> {
        match self {
            Self::Memcached(client) => act_memcached(client, name, action),
            Self::Native(client) => act_native(client, name, action),
        }
    }
}

fn act_memcached(client: &mut Client, name: &str, action: Action) -> io::Result<Output> {
    let store = |verb: &str, value: u64| {
        let value = value.to_string();
        format!("{verb} {name} 0 0 {}\r\n{value}\r\n", value.len())
    };
    let request = match action {
        Action::Get => {
            let item = client.get(name)?;
            return Ok(Output::Value(item.map(|item| number(&item.value))));
        }
        Action::Set(value) => store("set", value),
        Action::Add(value) => store("add", value),
        Action::Increment(by) => format!("incr {name} {by}\r\n"),
        Action::Delete => format!("delete {name}\r\n"),
    };
    let line = client.ask(request.as_bytes())?;
    Ok(match (action, line.as_str()) {
        (Action::Increment(_), "NOT_FOUND") => Output::Value(None),
        (Action::Increment(_), digits) => Output::Value(Some(number(digits.as_bytes()))),
        (_, "STORED" | "DELETED") => Output::Done(true),
        (_, "NOT_STORED" | "NOT_FOUND") => Output::Done(false),
        (action, other) => panic!("{action:?} is answered {other:?}"),
    })
}

fn act_native(client: &mut NativeClient, name: &str, action: Action) -> io::Result<Output> {
    let key = key(name.as_bytes(), b"");
    let digits = |value: u64| value.to_string().into_bytes();
    let replied = match action {
        Action::Get => {
            return Ok(Output::Value(client.get(key)?.as_deref().map(number)));
        }
        Action::Set(value) => {
            client.ask(&put(key, PutMode::Set(Condition::Any), &digits(value)))?
        }
        Action::Add(value) => client.ask(&put(key, PutMode::IfAbsent, &digits(value)))?,
        Action::Increment(by) => client.ask(&increment(key, by))?,
        Action::Delete => client.ask(&delete(key))?,
    };
    Ok(match (action, replied.status) {
        (Action::Increment(_), NativeStatus::Ok) => Output::Value(Some(replied.number())),
        (Action::Increment(_), NativeStatus::Absent) => Output::Value(None),
        (_, NativeStatus::Ok) => Output::Done(true),
        (_, NativeStatus::Exists | NativeStatus::Absent) => Output::Done(false),
        (action, status) => panic!("{action:?} is answered {status:?}"),
    })
}

/// What all clients share: a clock, and numbers that are stored once.
struct World {
    begun: Instant,
    values: AtomicU64,
}

impl World {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).expect("a short test")
    }

    fn action(&self, random: &mut Rng) -> Action {
        // Far apart, so that increments of one never reach another.
        let value = || (self.values.fetch_add(1, Ordering::Relaxed) + 1) << 20;
        match random.u8(..10) {
            0..4 => Action::Get,
            4..6 => Action::Set(value()),
            6 => Action::Add(value()),
            7..9 => Action::Increment(random.u64(1..5)),
            _ => Action::Delete,
        }
    }
}

/// Works until the server is gone or there was enough; returns what was seen of which key.
fn work(
    world: &World,
    node: (SocketAddr, SocketAddr),
    is_native: bool,
    random: &mut Rng,
) -> Vec<(usize, Operation)> {
    let mut seen = Vec::new();
    let Ok(mut door) = Door::open(node, is_native) else { return seen };
    for _ in 0..OPERATIONS {
        let (key, action) = (random.usize(..KEYS), world.action(random));
        let asked_at = world.now();
        let answer = door.act(&name(key), action);
        let ended_at = world.now();
        let output = answer.as_ref().ok().copied();
        // Nobody can tell what has become of it; its end is when the server was gone.
        let ended_at = if output.is_some() { ended_at } else { u64::MAX };
        seen.push((key, Operation { action, asked_at, ended_at, output }));
        if answer.is_err() {
            break;
        }
    }
    seen
}

fn record(test: &str, shards: u16, kills: usize) {
    let mut random = Rng::with_seed(seed::given_or_fresh(test));
    let store = Scratch::new("linearizable");
    let options = NodeOptions::new(store.path()).shards(shards);
    let world = World { begun: Instant::now(), values: AtomicU64::new(0) };
    let mut histories: Vec<Vec<Operation>> = vec![Vec::new(); KEYS];
    let mut node = Node::start(&options);
    for _ in 0..kills {
        let life = Duration::from_millis(random.u64(LIFE));
        let addresses = (node.address(), node.native());
        let mut randoms: Vec<Rng> = (0..CLIENTS).map(|_| random.fork()).collect();
        let (seen, gone_at) = thread::scope(|scope| {
            let world = &world;
            let clients: Vec<_> = randoms
                .iter_mut()
                .enumerate()
                .map(|(client, random)| {
                    scope.spawn(move || work(world, addresses, client % 2 == 0, random))
                })
                .collect();
            thread::sleep(life);
            node.kill();
            let gone_at = world.now();
            let join = |client: thread::ScopedJoinHandle<'_, Vec<_>>| client.join().expect("ends");
            (clients.into_iter().flat_map(join).collect::<Vec<_>>(), gone_at)
        });
        for (key, operation) in seen {
            let ended_at = operation.ended_at.min(gone_at.max(operation.asked_at));
            let is_open = operation.output.is_none();
            let ended_at = if is_open { ended_at } else { operation.ended_at };
            histories[key].push(Operation { ended_at, ..operation });
        }
        node = restart(&options);
        read_all(&world, &node, &mut histories);
    }
    node.stop();
    let node = Node::start(&options);
    read_all(&world, &node, &mut histories);
    node.stop();
    for (key, history) in histories.iter().enumerate() {
        let open = history.iter().filter(|operation| operation.output.is_none()).count();
        println!("{}: {} operations, {open} without an answer", name(key), history.len());
        linear::check(history).unwrap_or_else(|reason| panic!("{}: {reason}", name(key)));
    }
    assert!(kills == 0 || histories.iter().any(|history| history.len() > 10), "nothing was done");
}

/// Reads every key once, over one door or the other.
fn read_all(world: &World, node: &Node, histories: &mut [Vec<Operation>]) {
    for (key, history) in histories.iter_mut().enumerate() {
        let addresses = (node.address(), node.native());
        let mut door = Door::open(addresses, key % 2 == 0).expect("the server listens");
        let (action, asked_at) = (Action::Get, world.now());
        let output = Some(door.act(&name(key), action).expect("an answer"));
        history.push(Operation { action, asked_at, ended_at: world.now(), output });
    }
}

#[test]
fn one_shard_is_linearizable_by_key_across_kills() {
    record("one_shard_is_linearizable_by_key_across_kills", 1, kills().div_ceil(2));
}

#[test]
fn two_shards_are_linearizable_by_key_across_kills() {
    record("two_shards_are_linearizable_by_key_across_kills", 2, kills().div_ceil(2));
}
