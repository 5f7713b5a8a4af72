//! The whole load generator against a server in this process.

use std::net::SocketAddr;
use std::time::Duration;

use super::fake_server::{Behaviour, start};
use super::*;

/// A few thousand operations on a few keys, over two threads.
fn small(target: SocketAddr) -> Settings {
    Settings {
        connections: 5,
        depth: 7,
        threads: 2,
        keys: 101,
        value_size: 100,
        operations: Some(3_001),
        fill: true,
        duration: Duration::from_secs(60),
        ..Settings::against(target)
    }
}

fn run(settings: &Settings) -> Result<Summary, BenchError> {
    measure(settings, &mut Progress::hidden())
}

#[test]
fn filled_keys_are_found_and_every_operation_is_counted() {
    let zipf = Distribution::Zipf { theta: 0.99 };
    for (protocol, distribution) in
        [(Protocol::Meta, Distribution::Uniform), (Protocol::Text, zipf)]
    {
        let address = start(Behaviour::Honest);
        let ratio = Ratio { get: 3, set: 1 };
        let settings = Settings { protocol, distribution, ratio, ..small(address) };
        let summary = run(&settings).expect("a run");
        let fill = summary.fill.expect("a fill");
        assert_eq!((fill.keys, fill.stored, fill.errors.len()), (101, 101, 0));
        assert_eq!(summary.operations, 3_001);
        assert_eq!((summary.misses, summary.wrong_values, summary.errors.len()), (0, 0, 0));
        let (get, set) = (summary.get.expect("GETs"), summary.set.expect("SETs"));
        assert_eq!(get.count, summary.hits);
        assert_eq!(get.count + set.count, 3_001);
        assert!((2_100..2_400).contains(&get.count), "{} of 3,001 at 3:1", get.count);
        assert!(get.p50_us <= get.p99_us && get.p99_us <= get.max_us * 1.001);
    }
}

#[test]
fn the_time_ends_a_run_and_the_own_process_can_be_the_server() {
    let settings = Settings {
        operations: None,
        duration: Duration::from_millis(300),
        server_pid: Some(std::process::id()),
        ..small(start(Behaviour::Honest))
    };
    let summary = run(&settings).expect("a run");
    assert!((0.29..30.0).contains(&summary.seconds), "{}", summary.seconds);
    assert!(summary.operations > 0 && summary.operations_per_second > 0.0);
    assert!(summary.server.expect("sampled").resident_bytes > 0);
    assert!(summary.loader_cpu_us_per_operation > 0.0);
}

#[test]
fn unfilled_keys_are_misses() {
    let settings = Settings { fill: false, ..small(start(Behaviour::Honest)) };
    let summary = run(&settings).expect("a run");
    assert_eq!((summary.hits, summary.misses), (0, 3_001));
    assert_eq!(summary.hit_ratio, Some(0.0));
}

#[test]
fn values_larger_than_the_socket_takes_are_sent_in_parts() {
    let settings = Settings {
        value_size: 3_000_000,
        keys: 4,
        depth: 3,
        connections: 2,
        operations: Some(20),
        ratio: Ratio { get: 1, set: 1 },
        ..small(start(Behaviour::Honest))
    };
    let summary = run(&settings).expect("a run");
    assert_eq!((summary.operations, summary.wrong_values, summary.misses), (20, 0, 0));
}

#[test]
fn a_value_that_was_never_stored_is_noticed() {
    let summary = run(&small(start(Behaviour::Lies))).expect("a run");
    assert_eq!((summary.wrong_values, summary.hits), (3_001, 0));
    assert_eq!(summary.errors[0].kind, "wrong value");
    assert!(render(&summary).contains("error: 3001 x wrong value, first: key number"));
}

#[test]
fn values_of_another_size_are_noticed() {
    let address = start(Behaviour::Honest);
    run(&small(address)).expect("a run");
    let later = Settings { value_size: 99, fill: false, ..small(address) };
    assert_eq!(run(&later).expect("a run").wrong_values, 3_001);
}

#[test]
fn a_servers_errors_are_counted_with_the_first_text() {
    let settings = Settings { ratio: Ratio { get: 0, set: 1 }, ..small(start(Behaviour::Refuses)) };
    let summary = run(&settings).expect("a run");
    assert_eq!((summary.operations, summary.errors.len()), (0, 1));
    let error = &summary.errors[0];
    assert_eq!((error.kind, error.count), ("server error", 3_001));
    assert_eq!(error.first, "SERVER_ERROR busy");
    assert_eq!(summary.fill.expect("a fill").errors[0].count, 101);
}

#[test]
fn a_run_without_connections_ends_and_says_why() {
    let error = run(&small(start(Behaviour::HangsUp))).expect_err("all are lost");
    assert!(matches!(error, BenchError::AllConnectionsLost { connections: 5, .. }), "{error}");
    let timeout = Duration::from_millis(100);
    let settings = Settings { timeout, ..small(start(Behaviour::Silent)) };
    let error = run(&settings).expect_err("nothing is answered").to_string();
    assert!(error.contains("without an answer for 0.1 s"), "{error}");
}

#[test]
fn an_unreachable_server_is_named() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("bound");
    drop(free);
    let error = run(&small(address)).expect_err("nobody listens").to_string();
    assert!(error.starts_with("--target") && error.contains(&address.to_string()), "{error}");
}

#[test]
fn the_fill_gives_each_thread_its_own_keys() {
    let settings = Settings {
        keys: 11,
        threads: 3,
        connections: 3,
        ..Settings::against("127.0.0.1:1".parse().expect("an address"))
    };
    let ranges: Vec<_> = (0..3)
        .map(|index| match work_of(&settings, Phase::Fill, host::now(), index) {
            Work::Fill { next, end } => (next, end),
            Work::Mix { .. } => panic!("a fill has a range"),
        })
        .collect();
    assert_eq!(ranges, [(0, 4), (4, 8), (8, 11)]);
}
