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

#[test]
fn what_is_stored_in_the_second_of_a_delayed_clear_is_gone_at_once() {
    let node = TestNode::start(2);
    let mut client = node.connect();
    for _ in 0..ATTEMPTS_MAX {
        sleep_into_the_next_second();
        let before = since_epoch();
        client.send("set old 0 0 1\r\n1\r\nflush_all 1\r\nget old\r\n");
        client.send("set k 0 0 1\r\n2\r\nadd k 0 0 1\r\n3\r\nms k 1\r\n4\r\nget k\r\n");
        client.send("ma n N0 J5\r\nma n\r\nmg v N0 v\r\nappend k 0 0 1\r\nx\r\nmn\r\n");
        let answer = client.lines_until("MN");
        if since_epoch().as_secs() != before.as_secs() {
            continue;
        }
        let expected = "STORED\r\nOK\r\nEND\r\nSTORED\r\nSTORED\r\nHD\r\nEND\r\n\
                        HD\r\nNF\r\nVA 0 W\r\n\r\nNOT_STORED\r\nMN\r\n";
        assert_eq!(answer, expected, "at {before:?}");
        sleep_into_the_next_second();
        client.ask("get old k n v\r\n", "END\r\n");
        client.ask(set("k", b"5"), "STORED\r\n");
        client.ask("get k\r\n", "VALUE k 0 1\r\n5\r\nEND\r\n");
        node.stop();
        return;
    }
    panic!("none of {ATTEMPTS_MAX} attempts within a second: the machine is too slow");
}
