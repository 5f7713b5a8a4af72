use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

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
