use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::client::{TestNode, found, set};

pub(crate) const METRICS: &str = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
const READS: &str = "larder_disk_reads_total{core=\"0\",class=\"read\"}";

pub(crate) fn value_in(metrics: &str, sample: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(sample));
    let line = line.unwrap_or_else(|| panic!("{sample} in {metrics}"));
    line.trim().parse().expect("a number")
}

fn get(node: &TestNode, request: &str) -> String {
    ask(node.node.addresses().admin, request)
}

/// What the admin port answers to one request.
pub(crate) fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it accepts");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    text
}

#[test]
fn metrics_health_and_overview() {
    let node = TestNode::start(2);
    // Opening the shards reads too.
    let reads_before = value_in(&get(&node, METRICS), READS);
    let mut client = node.connect();
    for key in 0..40 {
        let name = format!("key{key}");
        client.ask(set(&name, b"v"), "STORED\r\n");
        client.ask(format!("get {name}\r\n"), found(&name, b"v"));
    }
    let metrics = get(&node, METRICS);
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    let value = |sample: &str| value_in(&metrics, sample);
    let reads = [0, 1].map(|shard| {
        value(&format!("larder_operations_total{{shard=\"{shard}\",operation=\"get\"}}"))
    });
    assert_eq!(reads.iter().sum::<u64>(), 40);
    assert!(reads.iter().all(|reads| *reads > 0), "both shards are used: {reads:?}");
    assert_eq!(value(READS), reads_before, "all are answered from RAM");
    let connections = [0, 1].map(|core| value(&format!("larder_connections{{core=\"{core}\"}}")));
    assert_eq!(connections.iter().sum::<u64>(), 1);
    assert!(get(&node, "GET /healthz HTTP/1.1\r\n\r\n").ends_with("\r\n\r\nok\n"));
    assert!(get(&node, "GET / HTTP/1.1\r\n\r\n").contains("href=\"/metrics\""));
    assert!(get(&node, "GET /other HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
    assert!(get(&node, "DELETE / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(get(&node, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(9000));
    assert!(get(&node, &long[..8192]).starts_with("HTTP/1.1 431 "));
    node.stop();
}

#[test]
fn a_slow_client_holds_others_up_only_for_a_while() {
    let node = TestNode::start(1);
    let mut slow = TcpStream::connect(node.node.addresses().admin).expect("it accepts");
    slow.write_all(b"GET /met").expect("it reads");
    assert!(get(&node, "GET /healthz HTTP/1.1\r\n\r\n").ends_with("ok\n"));
    node.stop();
}

/// The sum of all samples that begin so.
fn sum_of(metrics: &str, beginning: &str) -> f64 {
    let samples = metrics.lines().filter(|line| line.starts_with(beginning));
    let values = samples.map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>());
    values.map(|value| value.expect("a number")).sum()
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "the node's figures are compared with the time that has really passed"
)]
fn the_parts_of_a_cores_time_are_the_time_that_has_passed() {
    const CPU: &str = "larder_cpu_seconds_total{core=\"0\",";
    let node = TestNode::start(1);
    let look = || {
        let asked = Instant::now();
        let metrics = get(&node, METRICS);
        (asked, metrics, Instant::now())
    };
    let first = look();
    let mut client = node.connect();
    for key in 0..100 {
        client.ask(set(&format!("key{key}"), b"v"), "STORED\r\n");
    }
    std::thread::sleep(Duration::from_millis(500));
    let second = look();
    let spent = sum_of(&second.1, CPU) - sum_of(&first.1, CPU);
    let least = (second.0 - first.2).as_secs_f64();
    let most = (second.2 - first.0).as_secs_f64();
    assert!((least * 0.99..most * 1.01).contains(&spent), "{spent} s of {least} to {most}");
    let idle = format!("{CPU}class=\"idle\"}}");
    assert!(sum_of(&second.1, &idle) - sum_of(&first.1, &idle) > 0.25, "it slept most of the time");
    let foreground = format!("{CPU}class=\"foreground\"}}");
    assert!(sum_of(&second.1, &foreground) > sum_of(&first.1, &foreground), "it has served");
    node.stop();
}
