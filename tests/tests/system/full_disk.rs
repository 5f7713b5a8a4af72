//! A disk that two shards fill to the brim: reads and deletes go on, writes are refused and come
//! back by themselves, and a node that was killed there starts with everything it has
//! acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use larder_tests::client::{Client, PATIENCE, set_request};
use larder_tests::file_system::FileSystem;
use larder_tests::node::{Node, NodeOptions};
use larder_tests::scratch::Scratch;
use larder_tests::{process, skip};

const VALUE_BYTES: usize = 10_000;

/// Requests in flight.
const DEPTH: usize = 32;

/// The disk is taken to be full when nothing was stored for so long.
const FULL_AFTER: Duration = Duration::from_secs(1);

/// What the disk has, unless `LARDER_FULL_DISK_MIB` says otherwise.
const DISK_MIB: u64 = 1536;
const DISK_VARIABLE: &str = "LARDER_FULL_DISK_MIB";

fn value(key: &str) -> Vec<u8> {
    let mut value = key.as_bytes().repeat(VALUE_BYTES / key.len() + 1);
    value.truncate(VALUE_BYTES);
    value
}

/// The node and what it must hold.
struct Tried {
    options: NodeOptions,
    node: Option<Node>,
    client: Client,
    /// Keys that were stored, and not deleted.
    stored: BTreeSet<String>,
    /// Keys that were refused or deleted.
    absent: BTreeSet<String>,
}

impl Tried {
    fn start(options: NodeOptions) -> Self {
        let node = Node::start(&options);
        let client = node.client();
        let (stored, absent) = (BTreeSet::new(), BTreeSet::new());
        Self { options, node: Some(node), client, stored, absent }
    }

    fn kill_and_restart(&mut self) {
        self.node.take().expect("it runs").kill();
        self.start_again();
    }

    fn start_again(&mut self) {
        let node = Node::start(&self.options);
        self.client = node.client();
        self.node = Some(node);
    }

    /// Stores new keys until they are refused; how many were stored.
    fn fill(&mut self, name: &str) -> usize {
        let before = self.stored.len();
        let mut stored_at = Instant::now();
        let mut batch = 0;
        while stored_at.elapsed() < FULL_AFTER {
            let keys: Vec<_> =
                (0..DEPTH).map(|number| format!("{name}-{batch:06}-{number:02}")).collect();
            batch += 1;
            let requests: Vec<u8> =
                keys.iter().flat_map(|key| set_request(key, &value(key))).collect();
            self.client.send(&requests).expect("it is taken");
            let mut answers = BTreeMap::new();
            for key in keys {
                let answer = self.client.line().expect("an answer");
                *answers.entry(answer.clone()).or_insert(0) += 1;
                match answer.as_str() {
                    "STORED" => self.stored.insert(key),
                    "SERVER_ERROR out of memory storing object" => self.absent.insert(key),
                    other => panic!("set {key}: {other}"),
                };
            }
            if answers.contains_key("STORED") {
                stored_at = Instant::now();
            } else {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.stored.len() - before
    }

    /// Deletes `count` of the keys, those that were stored first or every `step`th; each of them is
    /// there and must go.
    fn delete(&mut self, count: usize, step: usize) {
        let keys = self.stored.iter().step_by(step).take(count);
        let keys: Vec<String> = keys.cloned().collect();
        for keys in keys.chunks(DEPTH) {
            let requests: String = keys.iter().map(|key| format!("delete {key}\r\n")).collect();
            self.client.send(requests.as_bytes()).expect("it is taken");
            for key in keys {
                assert_eq!(self.client.line().expect("an answer"), "DELETED", "{key}");
                self.stored.remove(key);
                self.absent.insert(key.clone());
            }
        }
    }

    /// Deletes every third key. A node for which next to nothing was left may take a moment to find
    /// that there is room again, and refuses meanwhile.
    fn delete_a_third(&mut self) {
        let keys: Vec<String> = self.stored.iter().step_by(3).cloned().collect();
        for keys in keys.chunks(DEPTH) {
            let mut left = keys.to_vec();
            let began = Instant::now();
            while !left.is_empty() {
                assert!(began.elapsed() < Duration::from_secs(5), "{left:?} cannot be deleted");
                let requests: String = left.iter().map(|key| format!("delete {key}\r\n")).collect();
                self.client.send(requests.as_bytes()).expect("it is taken");
                let answers: Vec<_> =
                    left.iter().map(|_| self.client.line().expect("an answer")).collect();
                let mut answers = answers.iter();
                left.retain(|key| match answers.next().expect("one each").as_str() {
                    "DELETED" => false,
                    "SERVER_ERROR out of memory storing object" => true,
                    other => panic!("delete {key}: {other}"),
                });
                if !left.is_empty() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            for key in keys {
                self.stored.remove(key);
                self.absent.insert(key.clone());
            }
        }
    }

    /// Every `step`th key is as it must be.
    fn check(&mut self, step: usize) {
        for key in self.stored.iter().step_by(step) {
            let item = self.client.get(key).expect("an answer");
            assert!(item.is_some_and(|item| item.value == value(key)), "{key} is not what it was");
        }
        for key in self.absent.iter().step_by(step) {
            assert_eq!(self.client.get(key).expect("an answer"), None, "{key} is there again");
        }
    }

    /// Writes are accepted again, of one shard at least, without a restart.
    fn check_writes_come_back(&mut self, when: &str) {
        let began = Instant::now();
        let mut tries = 0;
        let is_stored = || {
            tries += 1;
            let key = format!("back-{tries}-{}", when.replace(' ', "-"));
            let is_stored = self.client.set(&key, &value(&key)).expect("an answer") == "STORED";
            if is_stored {
                self.stored.insert(key)
            } else {
                self.absent.insert(key)
            };
            is_stored
        };
        let is_back = process::wait_until(PATIENCE, is_stored);
        let node = self.node.as_ref().expect("it runs");
        assert!(is_back, "writes stay refused {when}:\n{}", node.admin_page("/space"));
        eprintln!("writes are accepted {when}, after {} ms", began.elapsed().as_millis());
    }
}

/// Fills the disk, deletes half of it in one order and another, fills it again each time, and kills
/// the node.
fn fill_and_delete(tried: &mut Tried) {
    let stored = tried.fill("first");
    assert!(stored > 1000, "only {stored} values fit");
    tried.check(20);
    for (when, step) in [("the oldest half", 1), ("every second", 2)] {
        let all = tried.stored.len();
        tried.delete(all / 2, step);
        tried.check_writes_come_back(&format!("after {when} of the keys is deleted"));
        let again = tried.fill(&format!("after-{step}"));
        assert!(again > all / 4, "half of {all} is deleted, {when}, and only {again} fit again");
    }
    tried.kill_and_restart();
    // By hand there is time for every key.
    tried.check(if std::env::var_os(DISK_VARIABLE).is_some() { 1 } else { 4 });
}

/// Others take all the space before the node does, and give it back.
fn share_with_others(tried: &mut Tried, disk: &FileSystem) {
    let taken = disk.take_all_but(1 << 20);
    let stored = tried.fill("others");
    assert!(stored > 1000, "only {stored} values fit into the segments that are there");
    tried.delete(500, 1);
    tried.check(20);
    std::fs::remove_file(taken).expect("it is there");
    tried.check_writes_come_back("when others have made room");
}

/// Others take all the space while the node is down: it starts all the same, and serves what it
/// has. When they have given it back, deletes make room again.
fn start_beside_others(tried: &mut Tried, disk: &FileSystem) {
    tried.node.take().expect("it runs").kill();
    let taken = disk.take_all_but(1 << 20);
    tried.start_again();
    tried.check(40);
    tried.delete(5, 2);
    tried.check(40);
    std::fs::remove_file(taken).expect("it is there");
    tried.delete_a_third();
    tried.check_writes_come_back("when others have made room after a start");
}

fn options(data: &Path) -> NodeOptions {
    // What fills the disk is easy to compress.
    NodeOptions::new(data).shards(2).with("--compress-from").with("off")
}

fn disk_mib() -> u64 {
    let asked = std::env::var(DISK_VARIABLE).ok();
    asked.map_or(DISK_MIB, |asked| asked.parse().expect("a number of MiB"))
}

#[test]
fn a_new_store_for_which_there_is_no_space_says_how_much_it_needs() {
    match FileSystem::new(64 << 20) {
        Ok(disk) => {
            let path = disk.path().join("data");
            let error = Node::try_start(&options(&path)).expect_err("there is no space");
            let parts = [&*path.to_string_lossy(), "2 new shards need", "--data-dir"];
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        Err(reason) => skip("a file system that is too small", &reason),
    }
    let scratch = Scratch::new("low-limit");
    let options = options(scratch.path()).with("--disk-limit").with("16M");
    let error = Node::try_start(&options).expect_err("there is no space");
    assert!(error.contains("--disk-limit 16M") && error.contains("give at least"), "{error}");
}

#[test]
fn a_full_disk_takes_writes_again_when_there_is_room() {
    match FileSystem::new(disk_mib() << 20) {
        Ok(disk) => {
            let mut tried = Tried::start(options(&disk.path().join("data")));
            share_with_others(&mut tried, &disk);
            fill_and_delete(&mut tried);
            start_beside_others(&mut tried, &disk);
            tried.node.take().expect("it runs").stop();
        }
        Err(reason) => {
            skip("a file system that is full (--disk-limit is tried instead)", &reason);
            let scratch = Scratch::new("limit");
            let limit = format!("{}M", disk_mib());
            let options = options(scratch.path()).with("--disk-limit").with(limit);
            let mut tried = Tried::start(options);
            fill_and_delete(&mut tried);
            tried.node.take().expect("it runs").stop();
        }
    }
}
