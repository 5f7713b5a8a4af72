//! One request for several items, of which some wait, some are held and some are refused at first.

use std::sync::Arc;

use larder_engine::operation::Outcome;
use larder_engine::shard::AnswerBuf;
use larder_protocol::native::reply::NativeReply;
use larder_protocol::native::{
    ItemKey, MultiGet, NativeNamespace, NativeRequest, NativeStatus, put_request,
};

use super::super::*;
use super::Fake;
use crate::facts::Facts;
use crate::limits::OUTPUT_HIGH_WATER;
use crate::namespaces::{NamespaceTable, NamespaceView};
use crate::native::Native;

/// A connection, what it has sent, and what answers it.
struct Bench {
    view: NamespaceView,
    connection: Connection<Native>,
    fake: Fake,
    out: OutputQueue,
    spares: SpareInputs,
}

impl Bench {
    fn new() -> Self {
        let users = NativeNamespace { name: "users".to_owned(), number: 5, ..Default::default() };
        let view = NamespaceView::new(Arc::new(NamespaceTable::default().with(users)));
        Self {
            connection: Connection::new(Native::new(&Arc::new(Facts::example()), 0, &view)),
            view,
            fake: Fake::new(),
            out: OutputQueue::default(),
            spares: SpareInputs::default(),
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> Stop {
        let mut output = Output::new(&mut self.out, 0, Some(OUTPUT_HIGH_WATER));
        let Self { connection, fake, spares, .. } = self;
        connection.receive(bytes, &mut output, fake, spares)
    }

    fn resume(&mut self) -> Stop {
        let mut output = Output::new(&mut self.out, 0, Some(OUTPUT_HIGH_WATER));
        let Self { connection, fake, spares, .. } = self;
        connection.resume(&mut output, fake, spares)
    }

    /// Answers what waits for `key` with this value, and goes on.
    fn complete(&mut self, key: &str, value: &[u8]) -> Stop {
        let index = self.fake.waiting.iter().position(|(_, waiting)| waiting == key);
        let (sequence, _) = self.fake.waiting.remove(index.expect("it waits"));
        let answer = Answer { value_len: value.len(), ..Answer::nothing(Outcome::Hit, 0) };
        let answered = Answered::Item(AnswerBuf::with_value(&answer, value.to_vec()));
        let arrival = Arrival { answered, after: After::NOTHING, core: None };
        self.connection.complete(sequence, arrival);
        self.resume()
    }

    /// The id of the next reply, and how long the value of each of its entries is, or its status.
    fn sent(&mut self, count: usize) -> (u64, Vec<Result<usize, NativeStatus>>) {
        let (reply, len) = NativeReply::read(self.out.bytes(), 16 << 20).expect("a reply");
        let entries = reply.multi(count).expect("an entry for each key");
        let shown = entries
            .iter()
            .map(|entry| match entry {
                Ok(item) => Ok(item.value.len()),
                Err(status) => Err(status.expect("a known status")),
            })
            .collect();
        let id = reply.head.id;
        self.out.bytes().drain(..len);
        (id, shown)
    }
}

fn request(id: u64, records: &[&str]) -> Vec<u8> {
    request_in(0, id, records)
}

fn request_in(namespace: u32, id: u64, records: &[&str]) -> Vec<u8> {
    let mut keys = Vec::new();
    for record in records {
        keys.push(ItemKey { namespace, record: record.as_bytes(), item: b"" });
    }
    let body = MultiGet::body(&keys, false, false);
    let multi = MultiGet::read(&body).expect("a good body");
    let mut bytes = Vec::new();
    put_request(&mut bytes, id, 0, false, &NativeRequest::MultiGet(multi));
    bytes
}

#[test]
fn a_reply_leaves_when_the_last_of_its_parts_may() {
    let mut bench = Bench::new();
    assert_eq!(bench.receive(&request(1, &["w1", "a", "n5", "e", "w2"])), Stop::Input);
    assert_eq!(bench.receive(&request(2, &["a", "a"])), Stop::Input);
    assert_eq!(bench.sent(2), (2, vec![Ok(0), Ok(0)]), "it need not wait for the other");
    bench.complete("w2", b"second");
    bench.complete("w1", b"first");
    assert!(bench.out.is_empty(), "one may not leave yet");
    assert!(bench.connection.waits_for_log());
    bench.fake.acknowledged = 5;
    bench.resume();
    let expected = vec![Ok(5), Ok(0), Ok(0), Err(NativeStatus::Damaged), Ok(6)];
    assert_eq!(bench.sent(5), (1, expected));
    assert!(bench.connection.is_answered() && bench.out.is_empty());
    assert_eq!(bench.connection.load(), Load::default());
    assert!(bench.connection.waiting_bytes() < 4096, "nothing is gathered any more");
}

#[test]
fn what_is_taken_in_part_goes_on_where_it_has_stopped() {
    let mut bench = Bench::new();
    bench.fake.is_full = true;
    let names: Vec<String> = (0..40).map(|number| format!("a{number}")).collect();
    let mut keys: Vec<&str> = names.iter().map(String::as_str).collect();
    keys.insert(20, "r");
    let bytes = request(1, &keys);
    let (first, second) = bytes.split_at(bytes.len() - 3);
    assert_eq!(bench.receive(first), Stop::Input);
    assert_eq!(bench.receive(second), Stop::Core);
    assert_eq!((bench.fake.requests, bench.out.len()), (20, 0));
    assert_eq!(bench.resume(), Stop::Core);
    assert_eq!(bench.fake.requests, 20, "none is asked for twice");
    bench.fake.is_full = false;
    assert_eq!(bench.resume(), Stop::Input);
    assert_eq!(bench.fake.requests, 41);
    assert_eq!(bench.sent(41), (1, vec![Ok(0); 41]));
}

#[test]
fn who_holds_values_does_not_wait_for_memory_that_others_hold() {
    let mut bench = Bench::new();
    (bench.fake.is_full, bench.fake.lacks_memory) = (true, true);
    assert_eq!(bench.receive(&request(1, &["r", "a"])), Stop::Core);
    assert!(bench.out.is_empty(), "what holds nothing waits");
    bench.fake.is_full = false;
    assert_eq!(bench.resume(), Stop::Input);
    assert_eq!(bench.sent(2), (1, vec![Ok(0), Ok(0)]));
    bench.fake.is_full = true;
    assert_eq!(bench.receive(&request(2, &["w", "r1", "r2", "a"])), Stop::Core);
    assert!(bench.out.is_empty(), "its own value may come and go");
    assert_eq!(bench.complete("w", b"value"), Stop::Input);
    let busy = Err(NativeStatus::Busy);
    assert_eq!(bench.sent(4), (2, vec![Ok(5), busy, busy, Ok(0)]));
    // Where it is not memory that is wanted, what is wanted comes.
    bench.fake.lacks_memory = false;
    bench.receive(&request(3, &["w", "r", "a"]));
    assert_eq!(bench.complete("w", b"value"), Stop::Core);
    bench.fake.is_full = false;
    assert_eq!(bench.resume(), Stop::Input);
    assert_eq!(bench.sent(3), (3, vec![Ok(5), Ok(0), Ok(0)]));
    assert!(bench.connection.is_answered() && bench.connection.load() == Load::default());
}

#[test]
fn what_was_begun_goes_on_where_its_namespace_is_dropped_meanwhile() {
    let mut bench = Bench::new();
    bench.fake.is_full = true;
    let mut keys = vec!["a"; 40];
    keys.insert(20, "r");
    assert_eq!(bench.receive(&request_in(5, 1, &keys)), Stop::Core);
    bench.view.set(Arc::default());
    bench.fake.is_full = false;
    assert_eq!(bench.resume(), Stop::Input);
    assert_eq!(bench.sent(41), (1, vec![Ok(0); 41]));
    // Those that come later are requests of their own.
    assert_eq!(bench.receive(&request(2, &["a"; 100])), Stop::Input);
    assert_eq!(bench.sent(100), (2, vec![Ok(0); 100]));
    assert_eq!(bench.receive(&request_in(5, 3, &["a"])), Stop::Input);
    let (reply, _) = NativeReply::read(bench.out.bytes(), 1 << 20).expect("a reply");
    assert_eq!(reply.status, Some(NativeStatus::UnknownNamespace));
}

#[test]
fn a_part_whose_shard_has_stopped_says_so_alone() {
    let mut bench = Bench::new();
    bench.receive(&request(1, &["a", "n5", "w"]));
    bench.fake.is_stopped = true;
    bench.complete("w", b"value");
    let expected = vec![Ok(0), Err(NativeStatus::Stopped), Ok(5)];
    assert_eq!(bench.sent(3), (1, expected));
}
