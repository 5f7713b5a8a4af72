//! Clients that watch what happens on other cores.

use larder_runtime::random::Random;
use larder_runtime::simulation::SimClient;

use super::for_each_seed;
use super::node::{MEMCACHED, Node, Size};

/// In so much time everything has gone where it is to go that does not wait for the second that is
/// counted, which is later than all of the test.
const STEP_NANOSECONDS: u64 = 200_000_000;

pub(super) fn heard(watcher: &SimClient) -> String {
    String::from_utf8(watcher.read(1 << 20)).expect("lines of text")
}

#[test]
fn events_reach_watchers_of_another_core_without_waiting_for_the_next_second() {
    let name = "events_reach_watchers_of_another_core_without_waiting_for_the_next_second";
    for_each_seed(name, 1, 40, |seed| {
        let mut random = Random::stream(seed, 100);
        let mut size = Size::random(&mut random);
        size.cores = 2;
        let mut node = Node::start(seed, size, false);
        let watcher = node.connect(0, MEMCACHED, usize::MAX);
        watcher.send(b"watch connevents\r\n");
        node.go_on_for(STEP_NANOSECONDS, &mut random);
        assert_eq!(heard(&watcher), "OK\r\n");
        let guest = node.connect(1, MEMCACHED, usize::MAX);
        node.go_on_for(STEP_NANOSECONDS, &mut random);
        let text = heard(&watcher);
        assert!(text.contains("type=conn_new"), "{text:?}");
        if random.percent(50) {
            guest.reset();
        } else {
            guest.finish();
        }
        node.go_on_for(STEP_NANOSECONDS, &mut random);
        let text = heard(&watcher);
        assert!(text.contains("type=conn_close"), "{text:?}");
    });
}
