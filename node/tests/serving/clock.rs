//! What an expiry means to a node that was asleep.

#![allow(clippy::disallowed_methods, reason = "the test waits for a moment of the second")]

use std::time::{Duration, SystemTime};

use super::client::{TestNode, set};

const ROUNDS: usize = 3;
const ATTEMPTS_MAX: usize = 30;
/// After the second has changed, and more than the kernel's coarse clock is behind.
const PHASE: Duration = Duration::from_millis(50);

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970")
}

fn sleep_into_the_next_second() {
    let past = Duration::from_nanos(since_epoch().subsec_nanos().into());
    std::thread::sleep(Duration::from_secs(1) - past + PHASE);
}

#[test]
fn an_item_for_one_second_is_there_in_the_second_in_which_it_was_stored() {
    let node = TestNode::start(1);
    let mut client = node.connect();
    client.ask(set("k", b"v"), "STORED\r\n");
    let mut rounds = 0;
    for _ in 0..ATTEMPTS_MAX {
        // The core falls asleep in one second and is woken in the next.
        sleep_into_the_next_second();
        let before = since_epoch();
        client.send("set k 0 1 1\r\nv\r\n");
        client.expect("STORED\r\n");
        client.send("get k\r\n");
        let answer = client.lines_until("END");
        if since_epoch().as_secs() == before.as_secs() {
            assert_eq!(answer, "VALUE k 0 1\r\nv\r\nEND\r\n", "stored at {before:?}");
            rounds += 1;
        }
        if rounds == ROUNDS {
            node.stop();
            return;
        }
    }
    panic!("no {ROUNDS} rounds of {ATTEMPTS_MAX} within a second: the machine is too slow");
}
