//! What is on its way to a core that does nothing is counted where it comes from, and does not come
//! over it all at once.

use larder_runtime::random::Random;

use super::node::{MEMCACHED, Node, Size};
use super::watching::heard;
use crate::limits::BATCH_TURN_BYTES;
use crate::routing::{core_of, shard_of};

const VALUE_BYTES: usize = 20_000;
const CLIENTS: usize = 10;

#[test]
fn what_another_core_has_not_taken_is_counted() {
    for seed in 1..=5 {
        let mut random = Random::stream(seed, 1);
        let mut size = Size::random(&mut random);
        size.cores = 2;
        let mut node = Node::start(seed, size, false);
        // Of keys of all kinds some are the other core's.
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let client = node.connect(0, MEMCACHED, 1 << 20);
                client.send(format!("set key{number} 0 0 {VALUE_BYTES}\r\n").as_bytes());
                client.send(&[b'v'; VALUE_BYTES]);
                client.send(b"\r\n");
                client
            })
            .collect();
        let asker = node.connect(0, MEMCACHED, 1 << 20);
        let taken = |node: &mut Node| {
            asker.send(b"version\r\n");
            (0..100_000).for_each(|_| node.turn_of(0));
            node.memory_between_cores(0)
        };
        let before = taken(&mut node);
        assert!(before > VALUE_BYTES, "seed {seed}: {before} bytes");
        (0..1000).for_each(|_| node.turn());
        let after = taken(&mut node);
        assert!(after < before - VALUE_BYTES, "seed {seed}: {before}, and then {after} bytes");
        drop(clients);
    }
}

#[test]
fn a_turn_answers_other_cores_with_so_many_bytes_and_no_more() {
    // More of one connection would wait until the client has read.
    const GETS: usize = 3;
    for seed in 1..=5 {
        let mut random = Random::stream(seed, 1);
        let mut size = Size::random(&mut random);
        (size.cores, size.shards, size.cache_bytes) = (2, 2, 4 << 20);
        let mut node = Node::start(seed, size, false);
        let is_there = |key: &String| core_of(shard_of(key.as_bytes(), 2), 2) == 1;
        let key = (0..).map(|number| format!("key{number}")).find(is_there).expect("some key");
        let client = node.connect(1, MEMCACHED, 1 << 20);
        client.send(format!("set {key} 0 0 {VALUE_BYTES}\r\n").as_bytes());
        client.send(&[b'v'; VALUE_BYTES]);
        client.send(b"\r\n");
        node.go_on_for(1_000_000_000, &mut random);
        assert_eq!(heard(&client), "STORED\r\n");
        let asked = format!("get {key}\r\n").repeat(GETS);
        let clients: Vec<_> = (0..4 * BATCH_TURN_BYTES / VALUE_BYTES / GETS)
            .map(|_| node.connect(0, MEMCACHED, 1 << 20))
            .collect();
        node.go_on_for(1_000_000_000, &mut random);
        clients.iter().for_each(|client| client.send(asked.as_bytes()));
        (0..100_000).for_each(|_| node.turn_of(0));
        let before = node.memory_between_cores_now(1);
        node.turn_of(1);
        let made = node.memory_between_cores_now(1) - before;
        let bound = BATCH_TURN_BYTES + 4 * VALUE_BYTES;
        assert!((BATCH_TURN_BYTES / 2..bound).contains(&made), "seed {seed}: {made} bytes");
        drop(clients);
    }
}
