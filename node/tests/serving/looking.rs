//! Clients that look into the node: lists of what is stored, what happens, who is connected.
#![allow(clippy::disallowed_methods, reason = "the test waits for the node")]

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use larder_protocol::native::{Condition, ItemKey, NativeStatus, PutMode};

use super::client::{Client, TestNode, found, set};
use super::native::{NativeClient, put};

/// How often something is looked at that has to come.
const TRIES: usize = 400;

fn wait_until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..TRIES {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(25));
    }
    panic!("it does not come");
}

fn ask_lines(client: &mut Client, request: &str, last: &str) -> String {
    client.send(format!("{request}\r\n"));
    client.lines_until(last)
}

/// Stores so many items with keys that begin alike.
fn fill(node: &TestNode, prefix: &str, items: usize) -> BTreeSet<String> {
    let mut client = node.connect();
    let keys: BTreeSet<String> = (0..items).map(|number| format!("{prefix}{number:06}")).collect();
    for key in &keys {
        client.send(format!("set {key} 0 0 5 noreply\r\nvalue\r\n"));
    }
    client.ask("", "");
    keys
}

#[test]
fn a_list_has_every_item_of_all_cores_once() {
    let node = TestNode::start(2);
    let keys = fill(&node, "some:", 3000);
    let mut native = NativeClient::connect(node.node.addresses().native);
    let item = ItemKey { namespace: 0, record: b"some:record", item: b"item" };
    let request = put(item, PutMode::Set(Condition::Any), b"not listed");
    assert_eq!(native.status(&request), NativeStatus::Ok);
    let mut client = node.connect();
    let text = ask_lines(&mut client, "lru_crawler mgdump all", "EN");
    let mut lines = text.lines();
    assert_eq!((lines.next(), lines.next_back()), (Some("OK"), Some("EN")));
    let listed: Vec<String> =
        lines.map(|line| line.strip_prefix("mg ").expect("a command").to_owned()).collect();
    assert_eq!(listed.len(), keys.len());
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), keys);

    client.ask("get some:000007\r\n", found("some:000007", b"value"));
    let text = ask_lines(&mut client, "lru_crawler metadump hash", "END");
    assert_eq!(text.lines().count(), keys.len() + 2);
    let line = |key: &str| {
        let start = format!("key=some%3A{key} exp=-1 la=");
        let line = text.lines().find(|line| line.starts_with(&start));
        line.unwrap_or_else(|| panic!("no {key}")).to_owned()
    };
    assert!(line("000007").ends_with(&format!("fetch=yes cls=1 size={}", 11 + 5 + 71)));
    assert!(line("000008").contains(" fetch=no "));

    for (limit, items) in [(0, keys.len()), (7, 7)] {
        let text = ask_lines(&mut client, &format!("stats cachedump 1 {limit}"), "END");
        assert_eq!(text.matches("ITEM some:").count(), items);
    }
    assert_eq!(ask_lines(&mut client, "stats cachedump 2 0", "END"), "END\r\n");
    node.stop();
}

#[test]
fn a_client_that_does_not_take_its_list_holds_nobody_up_and_little_memory() {
    let node = TestNode::start(2);
    let keys = fill(&node, &"k".repeat(200), 20_000);
    let mut slow = node.connect();
    slow.send("lru_crawler metadump all\r\n");
    let mut other = node.connect();
    for number in 0..200 {
        let key = format!("other{number}");
        other.ask(set(&key, b"v"), "STORED\r\n");
        other.ask(format!("get {key}\r\n"), found(&key, b"v"));
    }
    // What is stored meanwhile may be listed or not, what was there is.
    let text = slow.rest_of_list();
    assert_eq!(text.matches("key=kkk").count(), keys.len());
    node.stop();
}

impl Client {
    fn rest_of_list(&mut self) -> String {
        let mut text = Vec::new();
        while !text.ends_with(b"\nEND\r\n") {
            text.extend(self.receive(1));
        }
        String::from_utf8(text).expect("text")
    }
}

#[test]
fn who_watches_is_told_of_all_cores() {
    let node = TestNode::start(2);
    let mut watcher = node.connect();
    watcher.send("watch fetchers mutations deletions\r\n");
    watcher.expect("OK\r\n");
    let mut client = node.connect();
    for number in 0..20 {
        let key = format!("key{number}");
        client.ask(set(&key, b"value"), "STORED\r\n");
        client.ask(format!("get {key}\r\n"), found(&key, b"value"));
        client.ask(format!("delete {key}\r\n"), "DELETED\r\n");
        client.ask(format!("delete {key}\r\n"), "NOT_FOUND\r\n");
        client.ask(format!("mg {key} v\r\n"), "EN\r\n");
    }
    let mut seen = Vec::new();
    while seen.len() < 80 {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.extend(watcher.receive(1));
        }
        seen.push(String::from_utf8(line).expect("text"));
    }
    for number in 0..20 {
        let of_key: Vec<&String> =
            seen.iter().filter(|line| line.contains(&format!(" key=key{number} "))).collect();
        let begins = |line: &str, what: &str| assert!(line.contains(what), "{line}");
        assert_eq!(of_key.len(), 4, "{of_key:?}");
        begins(of_key[0], "type=item_store key=key");
        begins(of_key[0], "status=stored cmd=set ttl=0 clsid=1 cfd=");
        begins(of_key[1], "type=item_get key=key");
        begins(of_key[1], "status=found clsid=1 cfd=");
        begins(of_key[1], " size=5\n");
        begins(of_key[2], "type=deleted key=key");
        begins(of_key[3], "status=not_found clsid=0 cfd=");
    }
    let mut numbers: Vec<u64> = seen.iter().map(|line| number_of(line)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=80).collect::<Vec<_>>());
    watcher.end();
    let log_watchers = |client: &mut Client, number: usize| {
        ask_lines(client, "stats", "END").contains(&format!("STAT log_watchers {number}\r\n"))
    };
    wait_until(|| log_watchers(&mut client, 0));
    node.stop();
}

fn number_of(line: &str) -> u64 {
    let rest = line.split(" gid=").nth(1).expect("a number");
    rest.split(' ').next().and_then(|digits| digits.parse().ok()).expect("digits")
}

#[test]
fn who_watches_and_does_not_read_misses_lines_and_is_told_how_many() {
    let node = TestNode::start(2);
    let mut watcher = node.connect();
    watcher.send("watch\r\n");
    watcher.expect("OK\r\n");
    let mut client = node.connect();
    let line = "get missing\r\n".repeat(1000);
    let skipped = |client: &mut Client| {
        let text = ask_lines(client, "stats", "END");
        let rest = text.split("STAT log_watcher_skipped ").nth(1).expect("it is counted");
        rest.lines().next().and_then(|digits| digits.parse::<u64>().ok()).expect("digits") > 0
    };
    wait_until(|| {
        client.ask(&line, "END\r\n".repeat(1000));
        skipped(&mut client)
    });
    let mut last = Vec::new();
    wait_until(|| {
        // Lines that come when there is room again say how many are missing.
        client.ask("get missing\r\n", "END\r\n");
        for _ in 0..200 {
            last.clear();
            while last.last() != Some(&b'\n') {
                last.extend(watcher.receive(1));
            }
            if last.starts_with(b"skipped=") {
                return true;
            }
            if last.len() < 10 {
                break;
            }
            client.send("get missing\r\n");
            client.expect("END\r\n");
        }
        false
    });
    node.stop();
}

#[test]
fn no_more_watch_than_may() {
    let node = TestNode::start(1);
    let mut watchers: Vec<Client> = (0..20).map(|_| node.connect()).collect();
    for watcher in &mut watchers {
        watcher.send("watch connevents\r\n");
        watcher.expect("OK\r\n");
    }
    let mut client = node.connect();
    client.ask("watch\r\n", "WATCHER_TOO_MANY log watcher limit reached\r\n");
    for watcher in &mut watchers {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.extend(watcher.receive(1));
        }
        let line = String::from_utf8(line).expect("text");
        assert!(line.contains("type=conn_new rip=127.0.0.1 rport="), "{line}");
    }
    node.stop();
}

#[test]
fn requests_are_counted_by_prefix_while_it_is_asked_for() {
    let node = TestNode::start(2);
    let mut client = node.connect();
    client.ask(set("before:x", b"v"), "STORED\r\n");
    client.ask("stats detail on\r\n", "OK\r\n");
    for number in 0..30 {
        client.ask(set(&format!("a:{number}"), b"v"), "STORED\r\n");
        client.ask(format!("get a:{number}\r\n"), found(&format!("a:{number}"), b"v"));
        client.ask(format!("get a:{number}x none\r\n"), "END\r\n");
    }
    client.ask("delete b:c:d\r\n", "NOT_FOUND\r\n");
    let counted =
        "PREFIX a get 60 hit 30 set 30 del 0\r\nPREFIX b get 0 hit 0 set 0 del 1\r\nEND\r\n";
    client.ask("stats detail dump\r\n", counted);
    assert!(ask_lines(&mut client, "stats settings", "END").contains("detail_enabled yes"));
    client.ask("stats detail off\r\n", "OK\r\n");
    client.ask("get a:1\r\n", found("a:1", b"v"));
    client.ask("stats detail dump\r\n", counted);
    client.ask("stats reset\r\n", "RESET\r\n");
    client.ask("stats detail dump\r\n", "END\r\n");
    node.stop();
}

#[test]
fn connections_of_all_cores_are_listed() {
    let node = TestNode::start(2);
    let mut clients: Vec<Client> = (0..12).map(|_| node.connect()).collect();
    for client in &mut clients {
        client.ask("mn\r\n", "MN\r\n");
    }
    clients[1].send("watch\r\n");
    clients[1].expect("OK\r\n");
    let text = ask_lines(&mut clients[0], "stats conns", "END");
    let address = node.node.addresses().memcached.expect("a port");
    assert_eq!(text.matches(&format!(":listen_addr tcp:{address}\r\n")).count(), 12);
    assert_eq!(text.matches(":state conn_parse_cmd\r\n").count(), 1);
    assert_eq!(text.matches(":state conn_watch\r\n").count(), 1);
    assert_eq!(text.matches(":state conn_read\r\n").count(), 10);
    let numbers: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("STAT ")?.split_once(":addr "))
        .map(|(number, _)| number)
        .collect();
    assert_eq!(numbers.len(), text.matches(":addr ").count(), "each has its own number");
    node.stop();
}

#[test]
fn lists_and_watching_can_be_switched_off() {
    let node = TestNode::start_with(1, |config| {
        config.disable_dumps = true;
        config.disable_watch = true;
    });
    let mut client = node.connect();
    client.ask("lru_crawler metadump all\r\n", "ERROR metadump not allowed\r\n");
    client.ask("lru_crawler mgdump hash\r\n", "ERROR key dump not allowed\r\n");
    client.ask("stats cachedump 1 0\r\n", "CLIENT_ERROR stats cachedump not allowed\r\n");
    client.ask("watch\r\n", "CLIENT_ERROR watch commands not allowed\r\n");
    let settings = ask_lines(&mut client, "stats settings", "END");
    assert!(settings.contains("dump_enabled no\r\n") && settings.contains("watch_enabled no\r\n"));
    node.stop();
}
