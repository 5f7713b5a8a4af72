//! Several cores, and several nodes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::fake::{Fake, Store, hello, say};
use super::{PATIENCE, builder, key};
use crate::{Changes, Client, ClientError, Put, Stored, When};
use larder_protocol::native::{HelloReply, NativeStatus};

/// A node with two cores, which have a port each, and how many requests went to which port.
pub(super) struct TwoCores {
    pub door: Fake,
    cores: [Fake; 2],
    pub seen: Arc<[AtomicUsize; 3]>,
    said: Arc<Mutex<HelloReply>>,
}

pub(super) fn two_cores() -> TwoCores {
    let seen: Arc<[AtomicUsize; 3]> = Arc::default();
    let said = Arc::new(Mutex::new(HelloReply { shards: 4, cores: 2, ..hello() }));
    let store = Store::default();
    let port = |index: usize| {
        let (seen, said, store) = (Arc::clone(&seen), Arc::clone(&said), store.clone());
        Fake::start(move |mut peer| {
            peer.hello = said.lock().expect("whole").clone();
            peer.hello.core = index as u16 % 2;
            peer.each(|head, request, out| {
                seen[index].fetch_add(1, Ordering::SeqCst);
                store.answer(head, request, out)
            });
        })
    };
    let (door, cores) = (port(2), [port(0), port(1)]);
    let number =
        |fake: &Fake| fake.address.rsplit(':').next().expect("a port").parse().expect("u16");
    said.lock().expect("whole").core_ports = cores.iter().map(number).collect();
    TwoCores { door, cores, seen, said }
}

pub(super) fn counts(seen: &[AtomicUsize; 3]) -> [usize; 3] {
    seen.each_ref().map(|count| count.swap(0, Ordering::SeqCst))
}

/// Waits until what is so.
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(super) fn is_up(client: &Client, lanes: usize) -> bool {
    client.core.nodes[0].layout().lanes().filter(|lane| lane.is_up()).count() == lanes
}

#[test]
fn requests_go_to_the_core_that_owns_their_record() {
    let node = two_cores();
    let client = builder(&node.door.address).build().expect("a client");
    client.ping().wait().expect("a reply");
    until("both cores are connected", || is_up(&client, 3));
    counts(&node.seen);
    for number in 0..64u64 {
        let name = format!("record{number}");
        let hash = xxhash_rust::xxh3::xxh3_64(name.as_bytes());
        let core = ((u128::from(hash) * 4) >> 64) as usize % 2;
        client.get(key(&name)).wait().expect("a reply");
        let mut expected = [0; 3];
        expected[core] = 1;
        assert_eq!(counts(&node.seen), expected, "{name}");
    }
    assert_eq!(client.nodes()[0].1.as_ref().map(|hello| hello.cores), Some(2));
}

#[test]
fn a_node_with_other_cores_is_followed() {
    let node = two_cores();
    let every = Duration::from_millis(10);
    let client = builder(&node.door.address).hello_every(every).build().expect("a client");
    until("both cores are connected", || is_up(&client, 3));
    {
        let mut said = node.said.lock().expect("whole");
        (said.cores, said.core_ports) = (1, Vec::new());
    }
    // Only new connections say so here, as after a start.
    for lane in client.core.nodes[0].layout().lanes().take(1) {
        lane.cut();
    }
    until("the cores' connections are gone", || client.core.nodes[0].layout().lanes().count() == 1);
    client.put(key("k"), &Put::value(b"v")).wait().expect("a reply");
    counts(&node.seen);
    for _ in 0..10 {
        client.get(key("k")).wait().expect("a reply");
    }
    let [first, second, door] = counts(&node.seen);
    assert!(first == 0 && second == 0 && door >= 10, "{first} {second} {door}");
}

#[test]
fn ports_of_cores_are_not_used_before_their_node_is_heard_again() {
    let TwoCores { door, cores, seen, .. } = two_cores();
    let address = door.address.clone();
    let client = builder(&address).tries(1).build().expect("a client");
    until("both cores are connected", || is_up(&client, 3));
    counts(&seen);
    // The node is gone. Who listens where its cores did is another one.
    drop(door);
    let accepted = || cores.each_ref().map(|core| core.accepted.load(Ordering::SeqCst));
    client.core.nodes[0].layout().lanes().for_each(|lane| lane.cut());
    until("nothing is connected", || is_up(&client, 0));
    for number in 0..20 {
        let name = format!("record{number}");
        let stored = client.put(key(&name), &Put::value(b"v")).wait();
        stored.expect_err("the node is not there");
    }
    assert_eq!((counts(&seen), accepted()), ([0; 3], [1, 1]));
    let store = Store::default();
    let _back = Fake::start_at(&address, move |mut peer| {
        peer.each(|head, request, out| store.answer(head, request, out));
    });
    until("it is back", || client.put(key("k"), &Put::value(b"v")).wait().is_ok());
    assert_eq!((counts(&seen), accepted()), ([0; 3], [1, 1]), "its cores have no ports now");
}

#[test]
fn cores_are_connected_to_once_each_however_many_there_are() {
    const CORES: usize = 64;
    let (shards, count) = (CORES as u16, CORES as u16);
    let said = Arc::new(Mutex::new(HelloReply { shards, cores: count, ..hello() }));
    let port = |core: usize| {
        let said = Arc::clone(&said);
        Fake::start(move |mut peer| {
            peer.hello = said.lock().expect("whole").clone();
            peer.hello.core = core as u16;
            peer.each(|head, _, out| {
                say(head, NativeStatus::Ok, out);
                true
            });
        })
    };
    let (door, cores): (Fake, Vec<Fake>) = (port(0), (0..CORES).map(port).collect());
    let number =
        |fake: &Fake| fake.address.rsplit(':').next().expect("a port").parse().expect("u16");
    said.lock().expect("whole").core_ports = cores.iter().map(number).collect();
    let client = builder(&door.address).build().expect("a client");
    until("all cores are connected", || is_up(&client, CORES + 1));
    let accepted: Vec<_> = cores.iter().map(|core| core.accepted.load(Ordering::SeqCst)).collect();
    assert_eq!(accepted, [1; CORES]);
}

#[test]
fn a_port_that_leads_to_another_core_is_not_used() {
    let node = two_cores();
    {
        let mut said = node.said.lock().expect("whole");
        said.core_ports.swap(0, 1);
    }
    let client = builder(&node.door.address).build().expect("a client");
    until("both are tried", || {
        node.cores.iter().all(|core| core.accepted.load(Ordering::SeqCst) > 0)
    });
    for number in 0..20 {
        client.get(key(&format!("record{number}"))).wait().expect("by the port of all");
    }
    assert_eq!(counts(&node.seen), [0, 0, 20]);
}

/// Nodes that keep values, and say what they are asked to.
pub(super) struct Nodes {
    pub fakes: Vec<Fake>,
    pub stores: Vec<Store>,
    is_full: Arc<AtomicBool>,
}

pub(super) fn nodes(count: usize) -> Nodes {
    let is_full = Arc::new(AtomicBool::new(false));
    let stores: Vec<Store> = (0..count).map(|_| Store::default()).collect();
    let fake = |(index, store): (usize, &Store)| {
        let (store, is_full) = (store.clone(), Arc::clone(&is_full));
        Fake::start(move |mut peer| {
            peer.each(|head, request, out| {
                if index == 0 && is_full.load(Ordering::SeqCst) {
                    say(head, NativeStatus::Full, out);
                    return true;
                }
                store.answer(head, request, out)
            });
        })
    };
    let fakes = stores.iter().enumerate().map(fake).collect();
    Nodes { fakes, stores, is_full }
}

pub(super) fn over(nodes: &Nodes, replicas: usize) -> Client {
    let mut build = builder(&nodes.fakes[0].address).replicas(replicas);
    for fake in &nodes.fakes[1..] {
        build = build.node(&fake.address);
    }
    build.build().expect("a client")
}

fn held(nodes: &Nodes) -> Vec<usize> {
    nodes.stores.iter().map(|store| store.values.lock().expect("whole").len()).collect()
}

#[test]
fn records_are_divided_among_nodes() {
    let nodes = nodes(3);
    let client = over(&nodes, 1);
    for number in 0..300 {
        let name = format!("record{number}");
        let stored = client.put(key(&name), &Put::value(name.as_bytes())).wait();
        assert_eq!(stored.expect("a reply"), Stored::Yes(1));
        let item = client.get(key(&name)).wait().expect("a reply").expect("stored");
        assert_eq!(item.value, name.as_bytes());
    }
    let held = held(&nodes);
    assert!(held.iter().sum::<usize>() == 300 && held.iter().all(|held| *held > 50), "{held:?}");
}

#[test]
fn a_ring_divides_records_too() {
    let nodes = nodes(3);
    let build = nodes.fakes.iter().fold(Client::builder(), |build, fake| build.node(&fake.address));
    let client = build.ketama().replicas(2).build().expect("a client");
    for number in 0..150 {
        let name = format!("record{number}");
        client.put(key(&name), &Put::value(name.as_bytes())).wait().expect("both have it");
        let item = client.get(key(&name)).wait().expect("a reply").expect("stored");
        assert_eq!(item.value, name.as_bytes());
    }
    let held = held(&nodes);
    assert!(held.iter().sum::<usize>() == 300 && held.iter().all(|held| *held > 50), "{held:?}");
}

#[test]
fn replicas_are_written_to_all_and_read_from_those_that_are_there() {
    let mut nodes = nodes(3);
    let client = over(&nodes, 2);
    let names: Vec<String> = (0..60).map(|number| format!("record{number}")).collect();
    for name in &names {
        client.put(key(name), &Put::value(name.as_bytes())).wait().expect("both have it");
    }
    assert_eq!(held(&nodes).iter().sum::<usize>(), 120);
    drop(nodes.fakes.remove(0));
    for name in &names {
        let item = client.get(key(name)).wait().expect("the other has it").expect("stored");
        assert_eq!(item.value, name.as_bytes());
    }
    let failed = names.iter().filter_map(|name| client.delete(key(name)).wait().err());
    for error in failed.inspect(|error| println!("{error}")) {
        let ClientError::Replicas { done: 1, of: 2, .. } = error else { panic!("{error}") };
        assert!(error.may_be_done());
    }
}

#[test]
fn a_write_that_one_replica_refuses_says_how_many_have_done_it() {
    let nodes = nodes(2);
    let client = over(&nodes, 2);
    client.put(key("k"), &Put::value(b"v")).wait().expect("both have it");
    nodes.is_full.store(true, Ordering::SeqCst);
    let error = client.put(key("k"), &Put::value(b"w")).wait().expect_err("one is full");
    assert!(error.to_string().starts_with("done by 1 of 2 nodes"), "{error}");
    assert!(error.may_be_done());
}

#[test]
fn with_replicas_no_write_depends_on_what_a_node_has() {
    let nodes = nodes(2);
    let client = over(&nodes, 2);
    let put = |when| Put { when, ..Put::value(b"v") };
    for when in [When::Absent, When::Present, When::Version(1), When::Append, When::Prepend] {
        let error = client.put(key("k"), &put(when)).wait().expect_err("it depends");
        assert!(matches!(error, ClientError::Usage(_)), "{error}");
    }
    client.increment(key("k"), 1, Some(1)).wait().expect_err("it depends");
    let mut changes = Changes::of_record(0, "r").expect("a record");
    changes.put("a", &Put::value(b"v")).expect("good").increment("b", 1, None).expect("good");
    let error = client.mutate(&changes).wait().expect_err("it depends");
    assert!(error.to_string().contains("one replica"), "{error}");
    assert_eq!(held(&nodes), [0, 0]);
}
