//! Clients that are slow, silent, greedy or gone: they cost a bounded amount of memory, and others
//! are served meanwhile.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use larder_tests::client::{Client, set_request};
use larder_tests::node::{Node, NodeOptions};
use larder_tests::scratch::Scratch;
use larder_tests::{process, skip};

/// By how much clients of a test may make the server grow, whatever they send: room for buffers,
/// but not for their input or their answers.
const GROWTH_MAX: u64 = 128 << 20;

fn start(purpose: &str) -> (Scratch, Node) {
    let scratch = Scratch::new(purpose);
    let mut options = NodeOptions::new(scratch.path()).shards(2);
    options.durability = "none";
    let node = Node::start(&options);
    (scratch, node)
}

fn assert_serves_others(node: &Node) {
    let mut client = node.client();
    for number in 0..100 {
        let key = format!("other-{number}");
        assert_eq!(client.set(&key, b"value").expect("an answer"), "STORED");
        let item = client.get(&key).expect("an answer").expect("an item");
        assert_eq!(item.value, b"value");
    }
}

fn assert_bounded(node: &Node, before: process::Memory) {
    let peak = process::memory(node.pid()).peak_bytes;
    let growth = peak.saturating_sub(before.peak_bytes);
    assert!(growth <= GROWTH_MAX, "grew by {} MiB", growth >> 20);
}

#[test]
fn lines_and_values_that_never_end_cost_what_was_sent() {
    let (_scratch, node) = start("slow");
    assert_serves_others(&node);
    let before = process::memory(node.pid());
    let mut silent: Vec<Client> = Vec::new();
    for number in 0..500 {
        let mut client = node.client();
        match number % 3 {
            0 => client.send(b"get half-a-li").unwrap(),
            1 => client.send(format!("set silent-{number} 0 0 1000000\r\nab").as_bytes()).unwrap(),
            // Far too large: the block would be skipped, if it came.
            _ => client.send(b"set huge 0 0 2147483645\r\nab").unwrap(),
        }
        silent.push(client);
    }
    assert_serves_others(&node);
    assert_bounded(&node, before);
    drop(silent);
    assert_serves_others(&node);
    node.stop();
}

/// Writes until all is written or the server does not take it; returns how much it took.
fn write_while_taken(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    stream.set_write_timeout(Some(Duration::from_secs(2))).expect("a socket has a time limit");
    let mut taken = 0;
    while taken < bytes.len() {
        match stream.write(&bytes[taken..]) {
            Ok(count) => taken += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Not taken for a while, or already disconnected.
            Err(_) => break,
        }
    }
    taken
}

#[test]
fn answers_that_are_never_read_do_not_pile_up() {
    let (_scratch, node) = start("unread");
    // Keys of both shards, so that answers also come from the core that has not the connection.
    let value = vec![b'v'; 1_000_000];
    let mut large = Vec::new();
    for number in 0..16 {
        let key = format!("large-{number}");
        assert_eq!(node.client().set(&key, &value).unwrap(), "STORED");
        large.extend_from_slice(format!("get {key}\r\n").as_bytes());
    }
    assert_eq!(node.client().set("small", b"v").unwrap(), "STORED");
    assert_serves_others(&node);
    let before = process::memory(node.pid());
    // 20 GB of answers to the first, millions to the second.
    let greedy = [large.repeat(20_000 / 16), b"get small\r\n".repeat(2_000_000)];
    let mut readers: Vec<TcpStream> = Vec::new();
    for requests in &greedy {
        let mut stream = node.client().into_stream();
        write_while_taken(&mut stream, requests);
        readers.push(stream);
    }
    assert_serves_others(&node);
    assert_bounded(&node, before);
    drop(readers);
    assert_serves_others(&node);
    node.stop();
}

#[test]
fn a_pipeline_of_a_million_requests_is_answered_in_order() {
    const REQUESTS: usize = 1_000_000;
    let (_scratch, node) = start("pipeline");
    let mut client = node.client();
    for digit in 0..10 {
        let value = vec![b'0' + digit; 20];
        assert_eq!(client.set(&format!("key-{digit}"), &value).unwrap(), "STORED");
    }
    let before = process::memory(node.pid());
    let mut sending = client.stream().try_clone().unwrap();
    let sender = thread::spawn(move || {
        let ten: String = (0..10).map(|digit| format!("get key-{digit}\r\n")).collect();
        let batch = ten.repeat(1000);
        for _ in 0..REQUESTS / 10_000 {
            sending.write_all(batch.as_bytes()).expect("the server takes the pipeline");
        }
    });
    for number in 0..REQUESTS {
        let digit = number % 10;
        assert_eq!(client.line().unwrap(), format!("VALUE key-{digit} 0 20"), "answer {number}");
        let value = client.line().unwrap();
        assert!(value.len() == 20 && value.starts_with(&digit.to_string()), "{number}: {value}");
        assert_eq!(client.line().unwrap(), "END", "answer {number}");
    }
    sender.join().expect("all was sent");
    assert_bounded(&node, before);
    node.stop();
}

#[test]
fn ten_thousand_idle_connections_are_kept() {
    const WANTED: u64 = 10_000;
    // Descriptors of the test itself, and of the other tests in this process.
    const OTHERS: u64 = 2_000;
    let allowed = process::allow_open_files(WANTED + OTHERS);
    let count = WANTED.min(allowed.saturating_sub(OTHERS)) as usize;
    if (count as u64) < WANTED {
        skip("10,000 idle connections", &format!("the limit of open files leaves {count}"));
    }
    let scratch = Scratch::new("idle");
    let most = (WANTED + 100).to_string();
    let options = NodeOptions::new(scratch.path()).shards(2);
    let node = Node::start(&options.with("--max-connections").with(most));
    let before = process::memory(node.pid());
    let mut idle: Vec<Client> = (0..count).map(|_| node.client()).collect();
    // Each of them has been accepted and works.
    for client in &mut idle {
        client.send(b"mn\r\n").unwrap();
    }
    for client in &mut idle {
        assert_eq!(client.line().unwrap(), "MN");
    }
    assert_serves_others(&node);
    assert_bounded(&node, before);
    assert_eq!(idle.last_mut().expect("clients").exchange(b"").unwrap(), "");
    drop(idle);
    assert_serves_others(&node);
    node.stop();
}

#[test]
fn single_bytes_make_the_same_requests() {
    let (_scratch, node) = start("bytes");
    let mut client = node.client();
    let mut requests = set_request("a", b"one\r\ntwo");
    requests.extend_from_slice(b"get a b\r\nmg a v s k\r\ndelete a\r\nget a\r\nquit\r\n");
    for byte in &requests {
        client.send(std::slice::from_ref(byte)).unwrap();
    }
    let expected = "STORED\r\nVALUE a 0 8\r\none\r\ntwo\r\nEND\r\nVA 8 s8 ka\r\none\r\ntwo\r\n\
                    DELETED\r\nEND\r\n";
    assert_eq!(String::from_utf8(client.rest().unwrap()).expect("text"), expected);
    node.stop();
}

#[test]
fn a_client_that_has_finished_sending_gets_its_answers() {
    let (_scratch, node) = start("half");
    let value = vec![b'v'; 500_000];
    let mut client = node.client();
    let mut requests = set_request("a", &value);
    requests.extend_from_slice(&b"get a\r\n".repeat(20));
    // The last request is cut: nobody can answer it.
    requests.extend_from_slice(b"get a");
    client.send(&requests).unwrap();
    client.finish_sending().unwrap();
    let answers = client.rest().unwrap();
    let each = b"VALUE a 0 500000\r\n".len() + value.len() + b"\r\nEND\r\n".len();
    assert_eq!(answers.len(), b"STORED\r\n".len() + 20 * each);
    assert!(answers.ends_with(b"v\r\nEND\r\n"));
    node.stop();
}

#[test]
fn connections_that_are_reset_leave_nothing_behind() {
    let (_scratch, node) = start("reset");
    assert_eq!(node.client().set("a", &vec![b'v'; 100_000]).unwrap(), "STORED");
    let before = process::memory(node.pid());
    for number in 0..1000 {
        let mut client = node.client();
        let halves: [&[u8]; 4] = [
            b"set half 0 0 1000\r\nabc",
            b"get a\r\nget a\r\nget a\r\nget ",
            b"set whole 0 0 1\r\nx\r\nms half 5000 q\r\n",
            b"",
        ];
        client.send(halves[number % 4]).unwrap();
        if number % 8 == 1 {
            // In the middle of an answer.
            let mut some = [0; 1000];
            client.stream().read_exact(&mut some).unwrap();
        }
        process::reset(client.into_stream());
    }
    assert_serves_others(&node);
    let mut client = node.client();
    assert_eq!(client.get("half").unwrap(), None);
    let mut connections = None;
    let are_gone = process::wait_until(Duration::from_secs(60), || {
        connections = client.statistic("curr_connections").unwrap();
        connections == Some(1)
    });
    assert!(are_gone, "connections: {connections:?}");
    assert_bounded(&node, before);
    node.stop();
}
