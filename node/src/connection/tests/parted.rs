//! Replies that come in parts, and clients that watch.

use std::sync::Arc;

use larder_engine::scan::{Page, PageItem, PagePlace};

use super::super::*;
use super::Fake;
use crate::events::{Happening, NodeEvent};
use crate::facts::Facts;
use crate::limits::OUTPUT_HIGH_WATER;
use crate::memcached::Memcached;
use crate::namespaces::NamespaceView;
use crate::request::ShardAnswer;

/// A connection to a store of two shards, and what answers it.
struct Bench {
    connection: Connection<Memcached>,
    fake: Fake,
    out: OutputQueue,
    spares: SpareInputs,
}

impl Bench {
    fn new() -> Self {
        let protocol = Memcached::new(&Arc::new(Facts::example()), &NamespaceView::default());
        let (connection, spares) = (Connection::new(protocol), SpareInputs::default());
        Self { connection, fake: Fake::new(), out: OutputQueue::default(), spares }
    }

    /// Gives it bytes, or `None` to go on.
    fn drive(&mut self, bytes: Option<&str>) -> Stop {
        let Self { connection, fake, out, spares } = self;
        let pending = out.len();
        let mut output = Output::new(out, pending, Some(OUTPUT_HIGH_WATER));
        match bytes {
            Some(bytes) => connection.receive(bytes.as_bytes(), &mut output, fake, spares),
            None => connection.resume(&mut output, fake, spares),
        }
    }

    /// Answers the one request that waits for this shard.
    fn complete(&mut self, shard: u16, answered: Answered) -> Stop {
        let (sequence, what) = self.fake.waiting.remove(0);
        assert_eq!((what, self.fake.waiting.len()), (format!("shard {shard}"), 0));
        self.connection.complete(sequence, Arrival { answered, after: After::NOTHING, core: None });
        self.drive(None)
    }

    fn sent(&mut self) -> String {
        String::from_utf8(std::mem::take(self.out.bytes())).expect("text")
    }
}

fn page(records: &[String], goes_on: bool) -> Answered {
    let item = |record: &String| PageItem {
        record: record.clone().into_bytes(),
        item: Vec::new(),
        metadata: Default::default(),
        value_len: 0,
        value: None,
        last_use: None,
    };
    let key = Key { namespace: 0, record: b"z", item: b"" }.encode();
    let next = goes_on.then(|| PagePlace::from_bytes(&key[4..]).expect("a place"));
    let items = records.iter().map(item).collect();
    Answered::Shard(ShardAnswer::page(Page { items, next, ..Page::default() }))
}

#[test]
fn a_part_is_asked_for_when_the_one_before_has_left() {
    let mut bench = Bench::new();
    assert_eq!(bench.drive(Some("lru_crawler mgdump all\r\nmn\r\n")), Stop::Input);
    let long: Vec<String> = (0..2000).map(|number| format!("{number:0200}")).collect();
    assert_eq!(bench.complete(0, page(&long, true)), Stop::Output);
    assert_eq!(bench.fake.waiting, [], "the client has not taken the first part");
    assert!(bench.sent().len() > OUTPUT_HIGH_WATER && !bench.connection.is_answered());
    assert_eq!(bench.drive(None), Stop::Input);
    assert_eq!(bench.complete(0, page(&["a".to_owned()], false)), Stop::Input);
    assert_eq!(bench.sent(), "mg a\r\n");
    assert_eq!(bench.complete(1, page(&[], false)), Stop::Input);
    assert_eq!(bench.sent(), "EN\r\nMN\r\n");
    assert!(bench.connection.is_answered() && bench.connection.load() == Load::default());
}

#[test]
fn a_part_that_waits_for_room_is_known_also_where_the_connection_is_to_be_closed() {
    let mut bench = Bench::new();
    assert_eq!(bench.drive(Some("lru_crawler mgdump all\r\nquit\r\n")), Stop::Closing);
    assert!(!bench.connection.has_parted(), "the first part was asked for");
    let long: Vec<String> = (0..2000).map(|number| format!("{number:0200}")).collect();
    // Why nothing is taken any more is told before that the output is full.
    assert_eq!(bench.complete(0, page(&long, true)), Stop::Closing);
    assert!(bench.connection.has_parted() && !bench.connection.is_answered());
    assert_eq!(bench.connection.next_after(), None, "nothing is there that may leave");
    assert_eq!(bench.drive(None), Stop::Closing);
    assert_eq!(bench.fake.waiting, [], "the client has not taken the first part");
    bench.sent();
    // Where memory is short no output is taken at all, however little waits.
    let Bench { connection, fake, out, spares } = &mut bench;
    let stop = connection.resume(&mut Output::new(out, 0, None), fake, spares);
    assert_eq!((stop, &fake.waiting[..]), (Stop::Closing, &[][..]));
    assert!(bench.connection.has_parted());
    bench.drive(None);
    assert!(!bench.connection.has_parted(), "it was asked for");
    bench.complete(0, page(&["a".to_owned()], false));
    assert!(!bench.connection.has_parted() && !bench.connection.is_answered());
    assert_eq!(bench.complete(1, page(&[], false)), Stop::Closing);
    assert_eq!(bench.sent(), "mg a\r\nEN\r\n");
    assert!(bench.connection.is_answered() && bench.connection.load() == Load::default());
}

#[test]
fn a_part_that_is_refused_is_asked_for_again_and_one_that_fails_ends_the_reply() {
    let mut bench = Bench::new();
    bench.drive(Some("lru_crawler mgdump all\r\n"));
    bench.fake.is_full = true;
    assert_eq!(bench.complete(0, page(&[], true)), Stop::Core);
    assert_eq!(bench.drive(None), Stop::Core);
    bench.fake.is_full = false;
    bench.drive(None);
    let answered = Answered::Failed(NoAnswer::Damaged);
    assert_eq!(bench.complete(0, answered), Stop::Input);
    assert_eq!(bench.sent(), "OK\r\nSERVER_ERROR stored data of this key is damaged\r\n");
    bench.drive(Some("lru_crawler mgdump all\r\n"));
    bench.fake.is_stopped = true;
    bench.complete(0, page(&[], true));
    assert_eq!(bench.sent(), "OK\r\nSERVER_ERROR the shard has stopped taking writes\r\n");
    assert!(bench.connection.is_answered() && bench.connection.load() == Load::default());
}

#[test]
fn what_must_be_alone_is_refused_behind_others() {
    let mut bench = Bench::new();
    let lines = "mn\r\nlru_crawler metadump all\r\nlru_crawler mgdump 1\r\nwatch\r\n\
                 stats cachedump 1 0\r\n";
    bench.drive(Some(lines));
    let not_before = "ERROR cannot pipeline other commands before";
    let expected =
        format!("MN\r\n{not_before} metadump\r\n{not_before} mgdump\r\n{not_before} watch\r\n");
    assert_eq!(bench.sent(), expected);
    assert_eq!(bench.fake.waiting.len(), 1, "a list with another end may come behind others");
}

#[test]
fn a_client_that_watches_asks_for_nothing_more() {
    let mut bench = Bench::new();
    assert_eq!(bench.drive(Some("watch\r\nversion\r\n")), Stop::Barrier);
    assert!(!bench.connection.is_watching(), "it was not told so");
    let sequence = bench.fake.waiting.remove(0).0;
    let answered = Answered::Node(NodeAnswer::Done);
    bench.connection.complete(sequence, Arrival { answered, after: After::NOTHING, core: None });
    assert_eq!(bench.drive(None), Stop::Input);
    assert_eq!(bench.drive(Some("version\r\n")), Stop::Input);
    assert_eq!(bench.sent(), "OK\r\n");
    assert!(bench.connection.is_watching() && !bench.connection.has_input());
    let what = Happening::Began(None);
    let event = NodeEvent { microseconds: 1_000_002, number: 3, connection: 4, what };
    bench.connection.put_event(&event, bench.out.bytes());
    bench.connection.put_skipped(5, bench.out.bytes());
    let expected = "ts=1.2 gid=3 type=conn_new rip=unix rport=0 transport=local cfd=4\nskipped=5\n";
    assert_eq!(bench.sent(), expected);
}

#[test]
fn a_client_that_may_not_watch_goes_on() {
    let mut bench = Bench::new();
    bench.drive(Some("watch\r\nmn\r\n"));
    let sequence = bench.fake.waiting.remove(0).0;
    let answered = Answered::Node(NodeAnswer::TooManyWatchers);
    bench.connection.complete(sequence, Arrival { answered, after: After::NOTHING, core: None });
    assert_eq!(bench.drive(None), Stop::Input);
    assert_eq!(bench.sent(), "WATCHER_TOO_MANY log watcher limit reached\r\nMN\r\n");
}
