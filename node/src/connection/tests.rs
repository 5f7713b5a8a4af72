mod first_byte;
mod linked;
mod marked;
mod parted;
mod parts;

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::LazyLock;

use larder_engine::operation::Outcome;
use larder_engine::shard::AnswerBuf;
use larder_protocol::memcached::error;
use larder_protocol::memcached::reply::END;
use proptest::prelude::*;

use marked::Marked;

use super::*;
use crate::facts::Facts;
use crate::limits::OUTPUT_HIGH_WATER;
use crate::memcached::Memcached;
use crate::memcached::answer::{DAMAGED, STOPPED};
use crate::namespaces::NamespaceView;
use crate::process::MEMCACHED_VERSION;

/// Answers requests from a script: a key's first letter says how.
///
/// - `a`: at once
/// - `n`: at once, when the log has reached the number that follows
/// - `w`: later, when the test says so
/// - `r`: refused while `is_full`
/// - `e`: at once, with an error
struct Fake {
    clock: u64,
    acknowledged: u64,
    is_stopped: bool,
    is_full: bool,
    /// Whether it is full for want of memory.
    lacks_memory: bool,
    /// Sequences of what waits, with the key.
    waiting: Vec<(u64, String)>,
    requests: usize,
    node_requests: usize,
    /// Cores and how long their replies were that have left.
    passed: Vec<(usize, usize)>,
    /// Keys that were announced, with a bar after each batch.
    announced: Vec<String>,
}

impl Fake {
    fn new() -> Self {
        Self {
            clock: 0,
            acknowledged: 0,
            is_stopped: false,
            is_full: false,
            lacks_memory: false,
            waiting: Vec::new(),
            requests: 0,
            node_requests: 0,
            passed: Vec::new(),
            announced: Vec::new(),
        }
    }
}

/// An answer with this value.
fn item(value: &[u8]) -> Answer<'_> {
    Answer::nothing(Outcome::Hit, 0).with_value(value)
}

/// The same as it comes from another core.
fn carried<'a>(value: impl Into<Cow<'a, [u8]>>) -> CarriedAnswer<'a> {
    static HIT: LazyLock<Answer<'static>> = LazyLock::new(|| item(b""));
    CarriedAnswer { answer: &HIT, value: value.into() }
}

fn key_of(key: &Key<'_>) -> String {
    String::from_utf8(key.record.to_vec()).expect("text")
}

impl Handler for Fake {
    fn now(&self) -> Moment {
        Moment { second: 0, nanoseconds: self.clock }
    }

    fn target(&self, _: &Key<'_>) -> Target {
        Target { shard: 0, announced: None }
    }

    fn announce(&mut self, key: &Key<'_>) -> Target {
        self.announced.push(key_of(key));
        self.target(key)
    }

    fn announced(&mut self) {
        self.announced.push("|".into());
    }

    fn request(
        &mut self,
        request: &ItemRequest<'_>,
        _: Target,
        asked: Asked,
        put: impl FnOnce(Result<&Answer<'_>, NoAnswer>),
    ) -> Handled {
        let key = key_of(&request.key);
        if key.starts_with('r') && self.is_full {
            return Handled::Refused;
        }
        self.requests += 1;
        if key.starts_with('w') {
            self.waiting.push((asked.sequence, key));
            return Handled::Waiting { expected_bytes: 10 };
        }
        let is_error = key.starts_with('e');
        let answer = item(b"");
        put(if is_error { Err(NoAnswer::Damaged) } else { Ok(&answer) });
        let needs = key.strip_prefix('n').and_then(|digits| digits.parse().ok()).unwrap_or(0);
        Handled::Done { after: After { needs, ..After::NOTHING }, is_error }
    }

    fn lacks_memory(&self) -> bool {
        self.lacks_memory
    }

    fn shard_request(
        &mut self,
        request: Arc<ShardRequest>,
        asked: Asked,
        put: impl FnOnce(NoAnswer),
    ) -> Handled {
        if self.is_full {
            return Handled::Refused;
        }
        if self.is_stopped {
            put(NoAnswer::Stopped);
            return Handled::Done { after: After::NOTHING, is_error: true };
        }
        self.waiting.push((asked.sequence, format!("shard {}", request.shard)));
        Handled::Waiting { expected_bytes: 10 }
    }

    fn node_request(&mut self, _: NodeRequest, sequence: u64) -> Handled {
        self.node_requests += 1;
        self.waiting.push((sequence, "node".into()));
        Handled::Waiting { expected_bytes: 10 }
    }

    fn release(&self, after: After) -> Release {
        match after.needs <= self.acknowledged {
            true => Release::Now,
            false if self.is_stopped => Release::Never,
            false => Release::Later,
        }
    }

    fn passed(&mut self, core: usize, bytes: usize) {
        self.passed.push((core, bytes));
    }
}

/// An answer of this core's that may leave.
fn arrival(value: &[u8]) -> Arrival {
    let answered = Answered::Item(AnswerBuf::with_value(&item(b""), value.to_vec()));
    Arrival { answered, after: After::NOTHING, core: None }
}

/// A connection, what it has sent, and what answers it.
struct Bench<const IS_LOOSE: bool = false> {
    connection: Connection<Marked<IS_LOOSE>>,
    fake: Fake,
    out: OutputQueue,
    spares: SpareInputs,
}

impl Bench {
    fn new() -> Self {
        Self::with_items(1 << 20)
    }

    /// Whose longest item has so many bytes.
    fn with_items(item_bytes_max: u64) -> Self {
        Self::begin(item_bytes_max)
    }
}

impl<const IS_LOOSE: bool> Bench<IS_LOOSE> {
    fn begin(item_bytes_max: u64) -> Self {
        let facts = Facts { item_bytes_max, flush_enabled: true, ..Facts::example() };
        Self {
            connection: Connection::new(Marked(
                Memcached::new(&Arc::new(facts), &NamespaceView::default()),
                Cell::default(),
            )),
            fake: Fake::new(),
            out: OutputQueue::default(),
            spares: SpareInputs::default(),
        }
    }

    fn receive(&mut self, bytes: impl AsRef<[u8]>) -> Stop {
        let pending = self.out.len();
        let mut output = Output::new(&mut self.out, pending, Some(OUTPUT_HIGH_WATER));
        let Self { connection, fake, spares, .. } = self;
        connection.receive(bytes.as_ref(), &mut output, fake, spares)
    }

    fn resume(&mut self) -> Stop {
        let pending = self.out.len();
        let mut output = Output::new(&mut self.out, pending, Some(OUTPUT_HIGH_WATER));
        let Self { connection, fake, spares, .. } = self;
        connection.resume(&mut output, fake, spares)
    }

    /// Answers what waits for `key`, and goes on.
    fn complete(&mut self, key: &str) -> Stop {
        let index = self.fake.waiting.iter().position(|(_, waiting)| waiting == key);
        let (sequence, _) = self.fake.waiting.remove(index.expect("it waits"));
        self.connection.complete(sequence, arrival(b""));
        self.resume()
    }

    /// What was sent since the last call.
    fn sent(&mut self) -> String {
        let out = std::mem::take(&mut self.out);
        String::from_utf8(out.pieces(0).flatten().copied().collect()).expect("text")
    }
}

#[test]
fn replies_that_come_out_of_order_leave_in_order() {
    let mut bench = Bench::new();
    let stop = bench.receive("get a1 w1 a2\r\nget w2\r\nmn\r\nversion\r\nget a3\r\n");
    assert_eq!(stop, Stop::Input);
    assert_eq!(bench.sent(), "<a1>");
    bench.complete("w2");
    assert_eq!(bench.sent(), "");
    assert_eq!(bench.connection.load().waiting, 1);
    bench.complete("w1");
    let version = format!("VERSION {MEMCACHED_VERSION}\r\n");
    let rest = format!("<w1><a2>END\r\n<w2>END\r\nMN\r\n{version}<a3>END\r\n");
    assert_eq!(bench.sent(), rest);
    assert!(bench.connection.is_answered());
    assert_eq!(bench.connection.load(), Load::default());
}

#[test]
fn a_reply_that_is_next_leaves_without_a_detour() {
    let mut bench = Bench::new();
    bench.receive("get w1 w2\r\n");
    let mut output = Output::new(&mut bench.out, 0, Some(OUTPUT_HIGH_WATER));
    let connection = &mut bench.connection;
    assert!(!connection.complete_now(1, Ok(carried(&b"second"[..])), 4, 0, &mut output));
    assert!(connection.complete_now(0, Ok(carried(&b"first"[..])), 3, 0, &mut output));
    assert_eq!(bench.sent(), "first");
    assert_eq!(bench.fake.passed, []);
    bench.resume();
    assert_eq!(bench.sent(), "secondEND\r\n");
    assert_eq!(bench.fake.passed, [(4, 6)], "the core is told that its reply has left");
}

#[test]
fn input_grows_with_what_has_come_and_not_beyond_its_request() {
    let mut bench = Bench::new();
    let request = [&b"set large 0 0 1000000\r\n"[..], &vec![b'v'; 1_000_000], b"\r\n"].concat();
    let mut received = 0;
    for piece in request[..1_000_000].chunks(10_000) {
        assert_eq!(bench.receive(piece), Stop::Input);
        received += piece.len();
        let held = bench.connection.input_bytes();
        assert!(held <= (received + received / 2).min(request.len()), "{held} for {received}");
        assert_eq!(bench.connection.input_needed(), request.len());
    }
    bench.receive(&request[1_000_000..]);
    assert_eq!((bench.connection.input_bytes(), bench.connection.input_needed()), (0, 0));
}

#[test]
fn writes_leave_when_the_log_is_acknowledged() {
    let mut bench = Bench::new();
    bench.receive("delete n5\r\ndelete n7\r\ndelete a\r\ndelete n6\r\n");
    assert_eq!(bench.sent(), "");
    assert!(bench.connection.waits_for_log());
    bench.fake.acknowledged = 6;
    bench.resume();
    assert_eq!(bench.sent(), "<n5>");
    bench.fake.acknowledged = 7;
    bench.resume();
    assert_eq!(bench.sent(), "<n7><a><n6>");
    bench.receive("delete n7\r\n");
    assert_eq!(bench.sent(), "<n7>", "the log is there already");
}

#[test]
fn writes_of_a_stopped_shard_are_answered_with_an_error() {
    let mut bench = Bench::new();
    bench.receive("delete n5\r\ndelete n6 noreply\r\ndelete w\r\n");
    bench.fake.is_stopped = true;
    bench.resume();
    assert_eq!(bench.sent(), format!("{STOPPED}\r\n"));
    bench.complete("w");
    assert_eq!(bench.sent(), "<w>");
}

#[test]
fn requests_without_a_reply_take_no_slot() {
    let mut bench = Bench::new();
    bench.receive("delete n9 noreply\r\ndelete a noreply\r\nlru_crawler enable noreply\r\n");
    assert!(bench.connection.is_answered());
    bench.receive("delete w noreply\r\nget a\r\n");
    assert_eq!(bench.sent(), "");
    bench.complete("w");
    assert_eq!(bench.sent(), "<a>END\r\n");
}

#[test]
fn an_error_in_a_retrieval_stands_in_the_place_of_its_end() {
    let mut bench = Bench::new();
    bench.receive("get a1 e1 a2\r\nget a3\r\n");
    assert_eq!(bench.sent(), format!("<a1>{DAMAGED}\r\n<a3>END\r\n"));
    bench.receive("get w1 e2 w2 a1\r\nget w3 a4\r\n");
    bench.complete("w3");
    bench.complete("w1");
    assert_eq!(bench.sent(), format!("<w1>{DAMAGED}\r\n"));
    bench.complete("w2");
    assert_eq!(bench.sent(), "<w3><a4>END\r\n");
}

#[test]
fn malformed_lines_are_answered_in_order() {
    let mut bench = Bench::new();
    bench.receive("get w\r\nnonsense\r\nset a 0 0 1\r\nxyz\r\nget a\r\n");
    bench.complete("w");
    let (chunk, format) = (error::BAD_DATA_CHUNK, error::BAD_FORMAT);
    let expected = format!("<w>END\r\nERROR\r\n{chunk}\r\n{format}\r\n<a>END\r\n");
    assert_eq!(bench.sent(), expected);
}

#[test]
fn a_value_that_is_too_large_drops_the_key() {
    let mut bench = Bench::with_items(1024);
    let value = "v".repeat(2000);
    bench.receive(format!("set abc 0 0 2000\r\n{value}\r\nget a\r\n"));
    assert_eq!(bench.fake.requests, 2);
    assert_eq!(bench.sent(), "<abc><a>END\r\n");
}

#[test]
fn a_pipeline_of_a_million_requests_takes_bounded_memory() {
    let mut bench = Bench::new();
    let chunk = "get w\r\n".repeat(2000);
    let mut stop = bench.receive(&chunk);
    assert_eq!(stop, Stop::Requests);
    assert!(bench.connection.has_input());
    let mut answered = 0;
    for _ in 0..500 {
        while stop == Stop::Requests {
            assert!(bench.fake.waiting.len() <= CONNECTION_REQUESTS_MAX);
            for (sequence, _) in std::mem::take(&mut bench.fake.waiting) {
                answered += 1;
                bench.connection.complete(sequence, arrival(b"x"));
            }
            stop = bench.resume();
            bench.out = OutputQueue::default();
        }
        stop = bench.receive(&chunk);
    }
    assert!(answered > 990_000 && bench.connection.input.capacity() < 10 * chunk.len());
}

#[test]
fn nothing_is_executed_for_a_client_that_does_not_read() {
    let mut bench = Bench::new();
    let key = format!("a{}", "k".repeat(200));
    let chunk = format!("get {key}\r\n").repeat(10_000);
    assert_eq!(bench.receive(&chunk), Stop::Output);
    assert!(bench.out.len() <= OUTPUT_HIGH_WATER + key.len() + 16);
    let executed = bench.fake.requests;
    assert_eq!(bench.resume(), Stop::Output);
    assert_eq!(bench.fake.requests, executed);
    let mut sent = bench.out.len();
    loop {
        bench.out = OutputQueue::default();
        let stop = bench.resume();
        sent += bench.out.len();
        if stop == Stop::Input {
            break;
        }
    }
    assert_eq!(sent, 10_000 * (key.len() + "<>END\r\n".len()));
}

#[test]
fn replies_that_are_there_wait_for_a_client_that_does_not_read() {
    let mut bench = Bench::new();
    bench.receive("get w1 w2 w3\r\n");
    for (sequence, _) in std::mem::take(&mut bench.fake.waiting) {
        bench.connection.complete(sequence, arrival(&[b'x'; OUTPUT_HIGH_WATER]));
    }
    bench.resume();
    assert_eq!(bench.out.len(), 2 * OUTPUT_HIGH_WATER, "up to the mark and one reply");
    bench.out = OutputQueue::default();
    bench.resume();
    assert_eq!(bench.out.len(), OUTPUT_HIGH_WATER + END.len());
}

#[test]
fn held_bytes_of_one_connection_are_limited() {
    let mut bench = Bench::new();
    bench.receive("get w1 w2\r\n");
    bench.connection.complete(1, arrival(&vec![b'x'; CONNECTION_WAITING_BYTES_MAX]));
    assert_eq!(bench.receive("get a\r\n"), Stop::Requests);
    bench.complete("w1");
    bench.out = OutputQueue::default();
    assert_eq!(bench.resume(), Stop::Input);
}

#[test]
fn refused_requests_are_asked_again() {
    let mut bench = Bench::new();
    bench.fake.is_full = true;
    assert_eq!(bench.receive("get a1 r1 a2\r\nget a3\r\n"), Stop::Core);
    assert_eq!(bench.sent(), "<a1>");
    assert_eq!(bench.resume(), Stop::Core);
    bench.fake.is_full = false;
    assert_eq!(bench.resume(), Stop::Input);
    assert_eq!(bench.sent(), "<r1><a2>END\r\n<a3>END\r\n");
}

#[test]
fn requests_for_the_whole_node_wait_for_those_before_and_hold_up_those_after() {
    let mut bench = Bench::new();
    assert_eq!(bench.receive("get w1\r\nflush_all\r\nget a1\r\n"), Stop::Barrier);
    assert_eq!((bench.fake.node_requests, bench.fake.requests), (0, 1));
    assert_eq!(bench.complete("w1"), Stop::Barrier);
    assert_eq!((bench.fake.node_requests, bench.fake.requests), (1, 1));
    assert_eq!(bench.complete("node"), Stop::Input);
    assert_eq!(bench.sent(), "<w1>END\r\n<node><a1>END\r\n");
}

#[test]
fn quit_and_bad_lines_close_after_what_came_before() {
    let mut bench = Bench::new();
    assert_eq!(bench.receive("get w\r\nquit\r\nget a\r\n"), Stop::Closing);
    assert!(!bench.connection.is_answered() && !bench.connection.has_input());
    assert_eq!(bench.complete("w"), Stop::Closing);
    assert_eq!(bench.sent(), "<w>END\r\n");
    assert!(bench.connection.is_answered());
    assert_eq!(bench.receive("get a\r\n"), Stop::Closing);
    let mut bench = Bench::new();
    assert_eq!(bench.receive("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), Stop::Closing);
    assert_eq!(bench.sent(), "");
}

#[test]
fn the_input_grows_with_what_arrives_and_not_with_what_is_announced() {
    let mut bench = Bench::with_items(64 << 20);
    assert_eq!(bench.receive("set a 0 0 60000000\r\n"), Stop::Input);
    assert!(bench.connection.input.capacity() < 1024);
    for _ in 0..100 {
        assert_eq!(bench.receive([b'v'; 1000]), Stop::Input);
    }
    assert!(bench.connection.input.capacity() < 1 << 20);
}

#[test]
fn input_buffers_are_used_again() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.receive("get a1");
        assert!(bench.connection.has_input());
        bench.receive(" a2\r\n");
        assert_eq!(bench.connection.input.capacity(), 0);
        assert_eq!(bench.spares.0.len(), 1);
        assert_eq!(bench.sent(), "<a1><a2>END\r\n");
    }
}

/// Requests whose replies tell what was understood.
const SCRIPT: &[u8] = b"get a1 w1 a2\r\nset a3 0 0 5\r\nva\r\nl\r\ndelete n3\r\nmg w2 v\r\n\
    set a4 0 0 3\r\nbadbad\r\nms a5 2 c\r\nxx\r\nget e1 a6\r\nincr w3 1\r\nmn\r\nflush_all\r\n\
    touch a7 0\r\nset toolargebyfar 0 0 4000000\r\n";

/// Sends the script cut at `cuts`, completing what waits in an order that `pick` gives.
fn run_script(cuts: &[usize], pick: &[usize]) -> String {
    let mut bench = Bench::new();
    let mut pick = pick.iter().cycle();
    let mut start = 0;
    let mut stop = Stop::Input;
    let ends: HashMap<usize, ()> = cuts.iter().map(|cut| (cut % SCRIPT.len(), ())).collect();
    for end in 1..=SCRIPT.len() {
        if end < SCRIPT.len() && !ends.contains_key(&end) {
            continue;
        }
        let received = bench.receive(&SCRIPT[start..end]);
        stop = received;
        start = end;
    }
    bench.fake.acknowledged = 3;
    while !bench.fake.waiting.is_empty() || stop != Stop::Input {
        let next = pick.next().expect("a cycle") % bench.fake.waiting.len();
        let key = bench.fake.waiting[next].1.clone();
        stop = bench.complete(&key);
    }
    bench.resume();
    bench.sent()
}

proptest! {
    #[test]
    fn replies_do_not_depend_on_how_bytes_are_cut_and_when_replies_come(
        cuts in proptest::collection::vec(0usize..10_000, 0..40),
        pick in proptest::collection::vec(0usize..100, 1..10),
    ) {
        let whole = run_script(&[], &[0]);
        prop_assert!(whole.contains("<a7>") && whole.ends_with("<toolargebyfar>"), "{whole}");
        prop_assert_eq!(run_script(&cuts, &pick), whole);
    }
}

#[test]
fn a_pipeline_is_announced_before_it_is_carried_out() {
    let mut bench = Bench::new();
    bench.receive("mg a1 v\r\n");
    assert!(bench.fake.announced.is_empty(), "a single request gains nothing");
    bench.receive("mg a2 v\r\nmn\r\nget a3 a4\r\nmg a5");
    assert_eq!(bench.fake.announced, ["a2", "a3", "a4", "|"]);
    assert_eq!(bench.fake.requests, 4);
}

#[test]
fn where_replies_leave_as_they_are_done_none_waits_for_another() {
    let mut bench = Bench::<true>::begin(1 << 20);
    bench.receive("mg w1\r\nmg a1\r\nmg w2\r\nmd n5\r\nmd n7\r\nmg a2\r\n");
    assert_eq!(bench.sent(), "<a1><a2>");
    assert!(bench.connection.waits_for_log());
    bench.complete("w2");
    assert_eq!(bench.sent(), "<w2>");
    bench.fake.acknowledged = 5;
    bench.resume();
    assert_eq!(bench.sent(), "<n5>");
    let before = bench.connection.load();
    assert_eq!((before.waiting, before.bytes), (1, "<n7>".len()));
    let mut output = Output::new(&mut bench.out, 0, Some(OUTPUT_HIGH_WATER));
    assert!(bench.connection.complete_now(0, Ok(carried(&b"first"[..])), 3, 0, &mut output));
    bench.fake.is_stopped = true;
    bench.resume();
    assert_eq!(bench.sent(), format!("first{STOPPED}\r\n"));
    assert!(bench.connection.is_answered());
    assert_eq!(bench.connection.load(), Load::default());
    bench.receive("mg a3\r\n");
    assert_eq!(bench.sent(), "<a3>");
}

#[test]
fn a_request_that_waits_keeps_the_time_at_which_it_was_received() {
    let mut bench = Bench::new();
    let asked = |bench: &Bench| bench.connection.protocol.1.get();
    bench.fake.clock = 100;
    bench.receive("get a\r\n");
    assert_eq!(asked(&bench), 100);
    (bench.fake.clock, bench.fake.is_full) = (200, true);
    assert_eq!(bench.receive("get r\r\n"), Stop::Core);
    bench.fake.clock = 900;
    assert_eq!(bench.resume(), Stop::Core);
    assert_eq!(asked(&bench), 200, "however often it is tried");
    bench.connection.store(b"get a\r\n", 950, &mut bench.spares);
    bench.fake.is_full = false;
    assert_eq!(bench.resume(), Stop::Input);
    assert_eq!(asked(&bench), 950);
}

#[test]
fn what_is_answered_behind_a_slow_request_is_not_counted_against_the_limit() {
    let mut bench = Bench::<true>::begin(1 << 20);
    assert_eq!(bench.receive("mg w0\r\n"), Stop::Input);
    let batch = "mg w\r\n".repeat(CONNECTION_REQUESTS_MAX / 2);
    let mut batches = 0;
    while bench.receive(&batch) == Stop::Input {
        batches += 1;
        for (sequence, _) in bench.fake.waiting.split_off(1) {
            bench.connection.complete(sequence, arrival(b"x"));
        }
        bench.resume();
        bench.out = OutputQueue::default();
    }
    assert_eq!(batches, 2 * SLOTS_MAX / CONNECTION_REQUESTS_MAX - 1, "but the window has an end");
    assert_eq!(bench.connection.load().waiting, bench.fake.waiting.len());
}
