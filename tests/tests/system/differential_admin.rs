//! Commands that are not about one item, limits and times: the server does what memcached does.
//!
//! Left out is what differs because the server follows memcached 1.6.45 (`OK` before a list,
//! `mgdump`) or says so in PROTOCOL.md (numbers beyond 32 bits are refused where memcached cuts
//! them).

use std::ffi::OsString;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use larder_tests::client::Client;
use larder_tests::memcached::Memcached;
use larder_tests::node::{Node, NodeOptions};
use larder_tests::scratch::Scratch;
use larder_tests::skip;

/// Both servers, with the same options as far as they have them.
struct Pair {
    memcached: Memcached,
    node: Node,
    _scratch: Scratch,
}

impl Pair {
    /// `None` if memcached is not installed.
    fn start(theirs: &[&str], ours: &[&str]) -> Option<Self> {
        let Some(memcached) = Memcached::start_with(theirs) else {
            skip("comparison with memcached", "it is not installed (apt-get install memcached)");
            return None;
        };
        let scratch = Scratch::new("differential-admin");
        let mut options = NodeOptions::new(scratch.path()).shards(2);
        options.durability = "none";
        options.more = ours.iter().map(OsString::from).collect();
        let node = Node::start(&options);
        Some(Self { memcached, node, _scratch: scratch })
    }

    /// Memcached first.
    fn addresses(&self) -> [SocketAddr; 2] {
        [self.memcached.address(), self.node.address()]
    }

    fn clients(&self) -> [Client; 2] {
        self.addresses().map(|address| Client::connect(address).expect("it listens"))
    }
}

/// What both answer to lines, one after the other on connections of their own.
fn compare(pair: &Pair, lines: &[&str]) {
    for line in lines {
        let [theirs, ours] = pair.clients().map(|mut client| {
            client.exchange(format!("{line}\r\n").as_bytes()).expect("an answer")
        });
        assert_eq!(ours, theirs, "{line:?}: ours and memcached's");
    }
}

#[test]
fn words_are_memcacheds() {
    let Some(pair) = Pair::start(&[], &[]) else { return };
    compare(
        &pair,
        &[
            "cache_memlimit",
            "cache_memlimit 0",
            "cache_memlimit 7",
            "cache_memlimit 8",
            "cache_memlimit 1024",
            "cache_memlimit 1000000001",
            "cache_memlimit abc",
            "cache_memlimit -1",
            "cache_memlimit 100 noreply",
            "cache_memlimit 1 noreply",
            "cache_memlimit noreply",
            "stats detail",
            "stats detail nonsense",
            "stats detail on",
            "stats detail dump",
            "stats detail off more",
            "stats sizes",
            "stats sizes_disable",
            "stats cachedump",
            "stats cachedump 1",
            "stats cachedump 1 0",
            "stats cachedump 0 0",
            "stats cachedump 63 0",
            "stats cachedump 64 0",
            "stats cachedump x 0",
            "stats cachedump 1 x",
            "lru_crawler",
            "lru_crawler metadump",
            "lru_crawler metadump foo",
            "lru_crawler metadump 0",
            "lru_crawler metadump 64",
            "lru_crawler metadump 1 2",
            "verbosity 0",
            "verbosity 0 noreply",
            "verbosity x",
            "verbosity -1",
            "verbosity noreply",
            "verbosity 99999999999999999999",
            "watch nonsense",
            "watch fetchers nonsense",
        ],
    );
    pair.node.stop();
}

#[test]
fn a_store_that_asks_for_the_cas_id_is_told_it() {
    let Some(pair) = Pair::start(&[], &[]) else { return };
    let answers = pair.clients().map(|mut client| {
        let mut answers = Vec::new();
        for line in [
            "ms k 2 c",
            "ms k 2 c k q",
            "ms none 2 MR c",
            "ms k 2 ME c k",
            "ms k 2 C9223372036854775807 c",
            "ms none 2 C5 O1 c",
            "ms k 2 MA c",
            "ms k 2 MP c O1",
        ] {
            let request = format!("{line}\r\nab\r\n");
            let stored = client.exchange(request.as_bytes()).expect("an answer");
            let read = client.exchange(b"mg k c\r\n").expect("an answer");
            let cas = read.trim_end().strip_prefix("HD ").expect("it is there").to_owned();
            // Each server gives ids of its own: what counts is whose it is.
            let is_own = |word: &str| if word == cas { "<id>".to_owned() } else { word.to_owned() };
            let words: Vec<String> = stored.trim_end().split(' ').map(is_own).collect();
            answers.push(words.join(" "));
        }
        answers
    });
    let expected =
        ["HD <id>", "", "NS c0", "NS c0 kk", "EX c0", "NF O1 c0", "HD <id>", "HD <id> O1"];
    assert_eq!(answers[0], expected, "memcached's");
    assert_eq!(answers[1], expected, "ours");
    pair.node.stop();
}

#[test]
fn numbers_out_of_range_are_a_bad_line() {
    let Some(pair) = Pair::start(&[], &[]) else { return };
    let bad = "CLIENT_ERROR bad command line format";
    // What memcached takes of these it cuts to 32 bits: see PROTOCOL.md.
    for (line, theirs_too) in [
        ("set k 18446744073709551616 0 1", true),
        ("set k -1 0 1", true),
        ("set k 4294967296 0 1", false),
        ("set k 0 99999999999999999999 1", true),
        ("set k 0 2147483648 1", false),
        ("set k 0 -2147483649 1", false),
        ("cas k 0 0 1 18446744073709551616", true),
        ("cas k 0 0 1 -1", true),
        ("set k 0 0 2147483646", true),
        ("set k 0 0 99999999999999999999", true),
        ("set k 0 0 -1", true),
    ] {
        let [theirs, ours] = pair.clients().map(|mut client| {
            client.ask(format!("{line}\r\nx\r\n").as_bytes()).expect("an answer")
        });
        assert_eq!(ours, bad, "{line}");
        assert!(!theirs_too || theirs == bad, "{line}: memcached says {theirs:?}");
    }
    pair.node.stop();
}

/// Seconds until an item is gone, and until what is stored stays, after a delayed `flush_all`.
fn gone_and_back(client: &mut Client, delay: u64) -> (f64, f64) {
    client.set("old", b"1").expect("it stores");
    let begun = Instant::now();
    let answer = client.ask(format!("flush_all {delay}\r\n").as_bytes());
    assert_eq!(answer.expect("an answer"), "OK");
    let mut gone = None;
    loop {
        let now = begun.elapsed().as_secs_f64();
        assert!(now < 60.0, "it does not end");
        if gone.is_none() && client.get("old").expect("an answer").is_none() {
            gone = Some(now);
        }
        if let Some(gone) = gone {
            client.set("new", b"2").expect("it stores");
            if client.get("new").expect("an answer").is_some() {
                return (gone, now);
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_delayed_flush_comes_when_memcacheds_does() {
    let Some(pair) = Pair::start(&[], &[]) else { return };
    // The clocks of both count whole seconds, which begin when they like.
    const SLACK: f64 = 0.3;
    thread::scope(|scope| {
        for (mut client, whose) in pair.clients().into_iter().zip(["memcached", "ours"]) {
            scope.spawn(move || {
                for delay in [1, 2, 3] {
                    let (gone, back) = gone_and_back(&mut client, delay);
                    let last = delay as f64;
                    let what = format!("{whose}: {delay} seconds: gone {gone:.2}, back {back:.2}");
                    println!("{what}");
                    assert!(gone <= last - 1.0 + SLACK && gone > last - 2.0 - SLACK, "{what}");
                    assert!(back <= last + SLACK && back > last - 1.0 - SLACK, "{what}");
                    let dark = back - gone;
                    assert!(delay == 1 || (1.0 - SLACK..1.0 + SLACK).contains(&dark), "{what}");
                }
            });
        }
    });
    pair.node.stop();
}

#[test]
fn a_flush_takes_what_was_stored_in_its_second_before_it_and_nothing_else() {
    let Some(pair) = Pair::start(&[], &[]) else { return };
    let store = |verb: &str, key: &str, value: u8| format!("{verb} {key} 0 0 1\r\n{value}");
    let lines = [
        &store("set", "a", 1),
        &store("set", "b", 1),
        "flush_all\r\nget a b",
        &store("set", "a", 2),
        "get a b",
        &store("add", "b", 3),
        "get b\r\nflush_all -1\r\nget a",
        &store("set", "a", 4),
        "get a\r\nflush_all 0\r\nget a",
        &store("add", "a", 5),
        "get a",
    ];
    let lines = &lines.join("\r\n");
    for _ in 0..5 {
        compare(&pair, &[lines]);
    }
    // A later one stands in the place of one before.
    let lines = "flush_all 2\r\nflush_all 0\r\nset z 0 0 1\r\n1";
    compare(&pair, &[lines]);
    thread::sleep(Duration::from_millis(3200));
    compare(&pair, &["get z"]);
    pair.node.stop();
}

#[test]
fn one_connection_too_many_is_told_so_before_it_says_anything() {
    // memcached counts what it has open besides clients against its limit.
    let Some(pair) = Pair::start(&["-c", "20"], &["--max-connections", "20"]) else { return };
    for address in pair.addresses() {
        let mut kept = Vec::new();
        let refused = loop {
            assert!(kept.len() <= 20, "{address}: there is no limit");
            let mut client = Client::connect(address).expect("it listens");
            // The first thing that a client over the limit gets is that.
            match client.ask(b"version\r\n") {
                Ok(line) if line.starts_with("VERSION ") => kept.push(client),
                // It may be closed before what was sent has been read.
                Ok(_) | Err(_) => break kept.len(),
            }
        };
        let mut silent = Client::connect(address).expect("it listens");
        let rest = silent.rest().expect("it is closed");
        assert_eq!(rest, b"ERROR Too many open connections\r\n", "{address}, after {refused}");
        drop(kept.pop());
        let is_served = larder_tests::process::wait_until(Duration::from_secs(20), || {
            let mut client = Client::connect(address).expect("it listens");
            client.ask(b"version\r\n").is_ok_and(|line| line.starts_with("VERSION "))
        });
        assert!(is_served, "{address}: there is room again");
    }
    pair.node.stop();
}

#[test]
fn silent_connections_are_closed_where_memcached_closes_them() {
    let Some(pair) = Pair::start(&["-o", "idle_timeout=1"], &["--idle-timeout", "1"]) else {
        return;
    };
    // What a client has sent, and whether it is silent then.
    let cases: [(&[u8], bool); 5] = [
        (b"", true),
        (b"version\r\n", true),
        (b"vers", true),
        (b"set k 0 0 10\r\nabc", false),
        (b"watch evictions\r\n", false),
    ];
    let is_closed = |address: SocketAddr, sent: &[u8]| {
        let client = Client::connect(address).expect("it listens");
        let mut stream = client.into_stream();
        std::io::Write::write_all(&mut stream, sent).expect("it is read");
        stream.set_read_timeout(Some(Duration::from_secs(8))).expect("a timeout");
        let mut received = Vec::new();
        let is_closed = stream.read_to_end(&mut received).is_ok();
        (is_closed, String::from_utf8_lossy(&received).into_owned())
    };
    thread::scope(|scope| {
        for (sent, expected) in cases {
            let [theirs, ours] =
                pair.addresses().map(|address| scope.spawn(move || is_closed(address, sent)));
            let what = sent.escape_ascii().to_string();
            scope.spawn(move || {
                let (theirs, ours) = (theirs.join().expect("ends"), ours.join().expect("ends"));
                assert_eq!((theirs.0, ours.0), (expected, expected), "{what}");
                let without_version = |text: &str| text.lines().next().map(|line| line.len() > 10);
                assert_eq!(without_version(&ours.1), without_version(&theirs.1), "{what}");
            });
        }
    });
    pair.node.stop();
}

#[test]
fn a_path_stands_for_the_port() {
    let scratch = Scratch::new("path-alone");
    let path = scratch.path().join("socket");
    let node = Node::start_memcached(&scratch.path().join("data"), &path);
    let mut stream = UnixStream::connect(&path).expect("it listens");
    std::io::Write::write_all(&mut stream, b"stats settings\r\nquit\r\n").expect("it is read");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    assert!(text.contains("STAT tcpport 0\r\n"), "{text}");
    assert!(text.contains(&format!("STAT domain_socket {}\r\n", path.display())), "{text}");
    let mut stream = UnixStream::connect(&path).expect("it listens");
    std::io::Write::write_all(&mut stream, b"stats conns\r\nquit\r\n").expect("it is read");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let listening = |place: &str| text.contains(&format!(":addr {place}"));
    assert!(listening(&format!("unix:{}\r\n", path.display())), "{text}");
    assert_eq!(text.matches("addr tcp:").count(), text.matches(&node.native().to_string()).count());
    node.stop();
}

#[test]
fn verbosity_changes_what_is_logged() {
    let scratch = Scratch::new("verbosity");
    let node = Node::start(&NodeOptions::new(scratch.path()).shards(2));
    let mut client = node.client();
    let level = |client: &mut Client| {
        client.send(b"stats settings\r\n").expect("it reads");
        let mut found = None;
        loop {
            let line = client.line().expect("an answer");
            if line == "END" {
                return found.expect("it is among the settings");
            }
            if let Some(level) = line.strip_prefix("STAT verbosity ") {
                found = Some(level.to_owned());
            }
        }
    };
    assert_eq!(level(&mut client), "1");
    for wanted in ["2", "0", "3", "1"] {
        let request = format!("verbosity {wanted}\r\n");
        assert_eq!(client.ask(request.as_bytes()).expect("an answer"), "OK");
        let is_so = larder_tests::process::wait_until(Duration::from_secs(20), || {
            level(&mut client) == wanted
        });
        assert!(is_so, "verbosity {wanted}");
    }
    assert!(node.log().contains("logs debug from now on"), "{}", node.log());
    node.stop();
}
