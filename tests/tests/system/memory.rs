//! Clients that could make the server hold much memory for them: it stays within what it was
//! given, others are served, and what it says of its memory is true.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;

use larder_tests::client::{Client, set_request};
use larder_tests::node::{Node, NodeOptions};
use larder_tests::scratch::Scratch;
use larder_tests::{process, skip};

/// What the servers of these tests are given, and how much of the process that may be.
const MEMORY: &str = "512M";
const RESIDENT_MAX: u64 = (512 << 20) / 10 * 11;

fn start(purpose: &str, shards: u16) -> (Scratch, Node) {
    let scratch = Scratch::new(purpose);
    let mut options = NodeOptions::new(scratch.path()).shards(shards);
    options.memory = MEMORY;
    let node = Node::start(&options);
    (scratch, node)
}

fn assert_within_memory(node: &Node) {
    let peak = process::memory(node.pid()).peak_bytes;
    assert!(peak <= RESIDENT_MAX, "{} MiB resident", peak >> 20);
}

/// Another client is answered.
fn exchange(client: &mut Client, count: usize) {
    for number in 0..count {
        let key = format!("other-{number}");
        assert_eq!(client.set(&key, b"value").expect("an answer"), "STORED");
        assert_eq!(client.get(&key).expect("an answer").expect("an item").value, b"value");
    }
}

/// Sends without reading from all streams in turn, until all is sent or nothing is taken any more.
fn send_to_all(streams: &mut [(TcpStream, Vec<u8>)], mut meanwhile: impl FnMut()) {
    const PIECE: usize = 64 << 10;
    let mut sent = vec![0; streams.len()];
    let mut rounds_without_progress = 0;
    for (stream, _) in streams.iter() {
        stream.set_nonblocking(true).expect("a socket");
    }
    while rounds_without_progress < 100 {
        rounds_without_progress += 1;
        for ((stream, bytes), sent) in streams.iter_mut().zip(&mut sent) {
            let end = bytes.len().min(*sent + PIECE);
            match stream.write(&bytes[*sent..end]) {
                Ok(0) => {}
                Ok(count) => {
                    *sent += count;
                    rounds_without_progress = 0;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The server has closed it: nothing more is sent.
                Err(_) => *sent = bytes.len(),
            }
        }
        meanwhile();
    }
}

fn clients_with(node: &Node, requests: impl Iterator<Item = Vec<u8>>) -> Vec<(TcpStream, Vec<u8>)> {
    requests.map(|requests| (node.client().into_stream(), requests)).collect()
}

#[test]
fn large_values_of_which_a_part_comes_take_bounded_memory() {
    const WANTED: u64 = 2_000;
    const OTHERS: u64 = 500;
    let count = WANTED.min(process::allow_open_files(WANTED + OTHERS).saturating_sub(OTHERS));
    if count < WANTED {
        skip("2,000 partial values", &format!("the limit of open files leaves {count}"));
    }
    let (_scratch, node) = start("partial", 2);
    let mut other = node.client();
    exchange(&mut other, 10);
    let whole = set_request("part", &vec![b'v'; 1_000_000]);
    // All but the last byte of the value and its line end.
    let part = whole[..whole.len() - 3].to_vec();
    let mut partial = clients_with(&node, (0..count).map(|_| part.clone()));
    send_to_all(&mut partial, || exchange(&mut other, 1));
    exchange(&mut other, 100);
    assert_within_memory(&node);
    assert!(node.metric("larder_memory_bytes{part=\"input\"}") >= 1e6, "the parts are accounted");
    drop(partial);
    let is_free = process::wait_until(larder_tests::client::PATIENCE, || {
        node.metric("larder_memory_bytes{part=\"input\"}") < 1e6
    });
    assert!(is_free, "what closed connections held is not given back");
    assert_eq!(other.set("whole", &vec![b'w'; 1_000_000]).expect("an answer"), "STORED");
    node.stop();
}

#[test]
fn a_client_that_is_closed_for_its_memory_is_told_so() {
    let (_scratch, node) = start("told", 1);
    let whole = set_request("part", &vec![b'v'; 1_000_000]);
    let part = whole[..whole.len() - 3].to_vec();
    let mut partial = clients_with(&node, (0..200).map(|_| part.clone()));
    send_to_all(&mut partial, || {});
    // Nobody completes a request, so those that have their grants for long make room for others.
    let closed = || node.metric("larder_shed_connections_total") >= 1.0;
    assert!(process::wait_until(larder_tests::client::PATIENCE, closed), "nobody is closed");
    let has_answer = |stream: &mut TcpStream| {
        let mut answer = [0; 100];
        match stream.read(&mut answer) {
            Ok(count) => {
                let expected = b"SERVER_ERROR out of memory reading request\r\n";
                assert_eq!(answer[..count], expected[..], "the answer");
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "the error comes before the end");
                false
            }
        }
    };
    let answered = process::wait_until(larder_tests::client::PATIENCE, || {
        partial.iter_mut().any(|(stream, _)| has_answer(stream))
    });
    assert!(answered, "nobody is told");
    node.stop();
}

fn unread_values(shards: u16) {
    let (_scratch, node) = start("values", shards);
    let mut other = node.client();
    let value = vec![b'v'; 1_000_000];
    for number in 0..400 {
        assert_eq!(other.set(&format!("large-{number}"), &value).expect("an answer"), "STORED");
    }
    let requests = |client: usize| -> Vec<u8> {
        let keys = (0..1000).map(|number| (client * 25 + number) % 400);
        keys.flat_map(|key| format!("mg large-{key} v\r\n").into_bytes()).collect()
    };
    let mut unread = clients_with(&node, (0..16).map(requests));
    send_to_all(&mut unread, || exchange(&mut other, 1));
    exchange(&mut other, 100);
    assert_within_memory(&node);
    drop(unread);
    exchange(&mut other, 100);
    node.stop();
}

#[test]
fn values_that_are_not_read_are_not_made_on_one_shard() {
    unread_values(1);
}

#[test]
fn values_that_are_not_read_are_not_made_on_two_shards() {
    unread_values(2);
}

fn unread_acknowledgements(shards: u16) {
    const REQUESTS: usize = 2000;
    let (_scratch, node) = start("stores", shards);
    let mut other = node.client();
    let requests = |client: usize| -> Vec<u8> {
        (0..REQUESTS)
            .flat_map(|number| set_request(&format!("{client}-{number}"), &[b'v'; 1000]))
            .collect()
    };
    let mut unread = clients_with(&node, (0..64).map(requests));
    send_to_all(&mut unread, || exchange(&mut other, 1));
    exchange(&mut other, 100);
    assert_within_memory(&node);
    // They were not read for a while, and all of them are there.
    let expected = b"STORED\r\n".repeat(REQUESTS);
    for (stream, _) in &mut unread {
        stream.set_nonblocking(false).expect("a socket");
        stream.set_read_timeout(Some(larder_tests::client::PATIENCE)).expect("a socket");
        let mut answers = vec![0; expected.len()];
        stream.read_exact(&mut answers).expect("an answer to every request");
        assert!(answers == expected, "{}", String::from_utf8_lossy(&answers));
    }
    node.stop();
}

#[test]
fn stores_whose_answers_are_not_read_are_answered_on_one_shard() {
    unread_acknowledgements(1);
}

#[test]
fn stores_whose_answers_are_not_read_are_answered_on_two_shards() {
    unread_acknowledgements(2);
}

#[test]
fn a_client_over_the_limit_reads_why_whatever_it_has_sent() {
    let scratch = Scratch::new("over");
    let options = NodeOptions::new(scratch.path()).with("--max-connections").with("1");
    let node = Node::start(&options);
    let mut first = node.client();
    exchange(&mut first, 1);
    for _ in 0..50 {
        let mut over = node.client().into_stream();
        let mut sending = over.try_clone().expect("a socket");
        // The server may close before it has taken all of it.
        let sender = thread::spawn(move || drop(sending.write_all(&[b'x'; 300_000])));
        sender.join().expect("the sender ends");
        let mut answer = Vec::new();
        over.read_to_end(&mut answer).expect("an end, not a reset");
        assert_eq!(answer, b"ERROR Too many open connections\r\n");
    }
    exchange(&mut first, 1);
    node.stop();
}

/// What the node says of its memory adds up to what the kernel says, and hardly any of it is
/// memory that nobody has counted.
fn assert_accounted(node: &Node, when: &str) {
    let parts = node.metrics("larder_memory_bytes");
    let sum: f64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let resident = process::memory(node.pid()).resident_bytes as f64;
    let difference = (sum - resident).abs();
    assert!(difference <= resident / 10.0, "{when}: {sum} of {resident} bytes: {parts:?}");
    let other = parts.iter().find(|(labels, _)| labels.contains("heap_other"));
    let (_, other) = other.expect("the part is there");
    assert!(*other <= resident / 10.0, "{when}: {other} of {resident} bytes: {parts:?}");
}

#[test]
fn the_parts_of_the_memory_are_what_is_resident() {
    let scratch = Scratch::new("parts");
    let mut options = NodeOptions::new(scratch.path()).shards(2);
    (options.memory, options.durability) = ("128M", "none");
    let node = Node::start(&options);
    assert_accounted(&node, "at the start");
    let mut client = node.client();
    for (count, bytes) in [(100_000, 100), (60_000, 1_000), (6_000, 10_000), (50, 900_000)] {
        let value = vec![b'v'; bytes];
        for batch in 0..count / 50 {
            let keys = (0..50).map(|number| format!("{bytes}-{batch}-{number}"));
            let requests: Vec<u8> = keys.flat_map(|key| set_request(&key, &value)).collect();
            client.send(&requests).expect("it is taken");
            for _ in 0..50 {
                assert_eq!(client.line().expect("an answer"), "STORED");
            }
        }
        assert_accounted(&node, &format!("after values of {bytes} bytes"));
    }
    for number in 0..20_000 {
        client.get(&format!("100-{}-{}", number % 2000, number % 50)).expect("an answer");
    }
    assert_accounted(&node, "after reads");
    assert_eq!(client.ask(b"flush_all\r\n").expect("an answer"), "OK");
    assert_accounted(&node, "after flush_all");
    let peak = process::memory(node.pid()).peak_bytes;
    assert!(peak <= (128 << 20) / 10 * 11, "{} MiB resident", peak >> 20);
    node.stop();
}
