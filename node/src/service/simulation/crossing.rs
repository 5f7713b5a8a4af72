//! What is on its way to a core that does nothing is counted where it comes from.

use larder_runtime::random::Random;

use super::node::{MEMCACHED, Node, Size};

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
