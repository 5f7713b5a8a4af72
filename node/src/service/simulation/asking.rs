//! Many clients that ask the whole node for something at the same time.

use larder_runtime::random::Random;
use larder_runtime::simulation::SimClient;

use super::node::{MEMCACHED, Node, Size};
use crate::limits::GATHERS_MAX;

const CORES: usize = 2;
const CLIENTS: usize = 80;

/// What a client has read so far.
struct Asker {
    client: SimClient,
    read: Vec<u8>,
}

impl Asker {
    fn is_answered(&self) -> bool {
        self.read.ends_with(b"END\r\n")
    }
}

#[test]
fn few_questions_to_all_cores_are_under_way_and_all_are_answered() {
    for seed in 1..=10 {
        let mut random = Random::stream(seed, 1);
        let mut size = Size::random(&mut random);
        size.cores = CORES;
        let mut node = Node::start(seed, size, false);
        let mut askers: Vec<Asker> = (0..CLIENTS)
            .map(|number| {
                let client = node.connect(number % CORES, MEMCACHED, 1 << 20);
                Asker { client, read: Vec::new() }
            })
            .collect();
        // All are there before the first one asks.
        (0..CLIENTS).for_each(|_| node.turn());
        askers.iter().for_each(|asker| asker.client.send(b"stats conns\r\n"));
        // While the other core does nothing, only so many questions go out.
        (0..CLIENTS).for_each(|_| node.turn_of(0));
        assert_eq!(node.gathers(0), GATHERS_MAX, "seed {seed}");
        for round in 0.. {
            assert!(round < 100_000, "seed {seed}: not all are answered");
            node.turn();
            assert!((0..CORES).all(|core| node.gathers(core) <= GATHERS_MAX), "seed {seed}");
            for asker in &mut askers {
                asker.read.extend(asker.client.read(1 << 20));
            }
            if askers.iter().all(Asker::is_answered) {
                break;
            }
        }
        for Asker { read, .. } in &askers {
            let text = String::from_utf8_lossy(read);
            let asking = text.matches(":state conn_parse_cmd\r\n").count();
            assert_eq!(asking, 1, "seed {seed}: each is told which one is its own");
            assert_eq!(text.matches(":secs_since_last_cmd ").count(), CLIENTS + 2 * CORES);
        }
    }
}
