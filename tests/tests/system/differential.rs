//! The same valid requests to the server and to memcached get the same answers.
//!
//! What is left out of the requests, because the two may or must differ:
//!
//! | input | memcached 1.6.18 | the server |
//! |---|---|---|
//! | CAS ids (`gets`, the `c` flag) | its own | its own |
//! | `me`, `stats`, `version`, administrative commands | about itself | about itself |
//! | seconds and reads (`t`, `l`, `h`) | of its own clock and memory | compared as present only |
//! | `t` of an item that `T` has just ended | below zero | 0 |
//! | `t` of an item that `N` has just made | never | the seconds of `N` |
//! | `t` before `T` in one `mg` | the old seconds | the new ones, as in any order |
//! | a number that gets shorter (`decr`, `ma MD`, wrap) | padded with spaces | not padded |
//! | `incr`, `decr`, `ma` on a stale item | stale or not, by its length | stale |
//! | a stored number of 2^63 or more, or with zeros before it | now and then no number | a number |
//! | a stored number of over 20 digits | a number if its value fits | no number |
//! | `k` of a key that was sent once plainly, once in base64 | as stored | as asked |
//! | `k` of an item that `N`, `MA` or `MP` made of a base64 key | decoded | as asked |
//! | `ma` with a wrong `C` on an empty value | no number | `EX` |
//! | `ma` with `q` that makes its item | answered | quiet |
//! | `E`, `x`, `s` of `ms`, `N` with `MA` and `MP` | not known yet | as memcached 1.6.45 |
//! | a line without keys or arguments | `ERROR` | as memcached 1.6.45 |

use fastrand::Rng;
use larder_tests::client::Client;
use larder_tests::memcached::Memcached;
use larder_tests::node::{Node, NodeOptions};
use larder_tests::scratch::Scratch;
use larder_tests::{seed, skip};

const KEYS: usize = 12;
/// Requests that are sent in one write.
const BATCH: usize = 40;
const BATCHES: usize = 100;
const SEEDS: u64 = 4;

fn key(random: &mut Rng) -> String {
    format!("key-{}", random.usize(..KEYS))
}

/// One of those; each choice is a word of the text.
fn one_of<'a>(random: &mut Rng, choices: &'a str) -> &'a str {
    let choices: Vec<&str> = choices.split(' ').collect();
    choices[random.usize(..choices.len())]
}

fn value(random: &mut Rng) -> String {
    match random.u8(..10) {
        0 => String::new(),
        1..4 => random.u64(..1_000_000_000).to_string(),
        4 => random.u64(..1 << 62).to_string(),
        5 => random.alphabetic().to_string().repeat(random.usize(5_000..60_000)),
        _ => (0..random.usize(1..300)).map(|_| random.alphanumeric()).collect(),
    }
}

/// Relative, absolute (in 2035), never, and past.
fn exptime(random: &mut Rng) -> &'static str {
    one_of(random, "0 0 0 1000 86400 2051222400 -1")
}

fn noreply(random: &mut Rng) -> &'static str {
    if random.u8(..8) == 0 { " noreply" } else { "" }
}

fn storage(random: &mut Rng) -> String {
    let verb = one_of(random, "set set set add replace append prepend cas");
    let flags = one_of(random, "0 0 1 77 4294967295");
    // No item ever gets this CAS id.
    let cas = if verb == "cas" { " 9223372036854775807" } else { "" };
    let (key, value, exptime) = (key(random), value(random), exptime(random));
    let (length, noreply) = (value.len(), noreply(random));
    format!("{verb} {key} {flags} {exptime} {length}{cas}{noreply}\r\n{value}\r\n")
}

fn retrieval(random: &mut Rng) -> String {
    let keys: Vec<String> = (0..random.usize(1..6)).map(|_| key(random)).collect();
    let keys = keys.join(if random.bool() { " " } else { "   " });
    match random.u8(..4) {
        0 => format!("gat {} {keys}\r\n", exptime(random)),
        _ => format!("get {keys}\r\n"),
    }
}

fn other_classic(random: &mut Rng) -> String {
    let (key, noreply) = (key(random), noreply(random));
    match random.u8(..6) {
        0 => format!("delete {key}{noreply}\r\n"),
        1 => format!("delete {key} 0\r\n"),
        2 => format!("touch {key} {}{noreply}\r\n", exptime(random)),
        3 => format!("incr {key} {}{noreply}\r\n", random.u32(..)),
        // It may get shorter: what follows gives it a known length again.
        4 => format!("decr {key} {}\r\nset {key} 3 0 2\r\n12\r\n", random.u32(..)),
        _ => {
            let delta = (1 << 63) + u64::from(random.u16(1..));
            format!(
                "set {key} 1 0 19\r\n{}\r\nincr {key} {delta}\r\nset {key} 0 0 1\r\n5\r\n",
                i64::MAX
            )
        }
    }
}

/// Some of the flags, each at most once, in any order.
fn flags(random: &mut Rng, choices: &str) -> String {
    let mut chosen: Vec<&str> = choices.split(' ').filter(|_| random.u8(..3) == 0).collect();
    random.shuffle(&mut chosen);
    chosen.iter().map(|flag| format!(" {flag}")).collect()
}

fn meta(random: &mut Rng) -> String {
    let (name, encoded) = match random.u8(..4) {
        0 => (one_of(random, "AAEC/w== IA== YmFzZTY0").to_owned(), " b"),
        _ => (key(random), ""),
    };
    match random.u8(..6) {
        0..3 => {
            let time = one_of(random, "T0 T1000 T86400 T2051222400");
            let first = flags(random, time);
            let may_create = encoded.is_empty() && random.bool();
            let more = format!("s f h k q Oopaque u R30 {}", if may_create { "N60" } else { "t" });
            let more = flags(random, &more);
            let wants_value = if random.u8(..4) > 0 { " v" } else { "" };
            format!("mg {name}{encoded}{first}{more}{wants_value}\r\n")
        }
        3 => {
            let modes = if encoded.is_empty() { "S E A P R s e a p r" } else { "S E R s e r" };
            let (mode, value) = (one_of(random, modes), value(random));
            let more = format!("k q Oab F5 T{} C9223372036854775807", exptime(random));
            let more = flags(random, &more);
            format!("ms {name} {} M{mode}{encoded}{more}\r\n{value}\r\n", value.len())
        }
        4 => {
            // An item that is stale stays so in no other request: memcached forgets it with some.
            let stale = if random.bool() { " I" } else { "" };
            let more = format!("k q Oabc T{} C9223372036854775807", exptime(random));
            let more = flags(random, &more);
            let read = format!("mg {name}{encoded} v\r\n").repeat(random.usize(1..4));
            format!("md {name}{encoded}{stale}{more}\r\n{read}ms {name} 2{encoded}\r\n10\r\n")
        }
        _ => arithmetic(random, &name, encoded),
    }
}

/// `ma`. The number may get shorter, so what follows gives it a known length again.
fn arithmetic(random: &mut Rng, name: &str, encoded: &str) -> String {
    let mode = one_of(random, "I + D - i d");
    let (before, more) = match random.u8(..3) {
        0 if encoded.is_empty() => (String::new(), flags(random, "k O1 v t N0 J13 D5")),
        1 => {
            let number = format!("ms {name} 2 T0{encoded}\r\n77\r\n");
            (number, format!(" C9223372036854775807{}", flags(random, "k q O1 v t D5")))
        }
        _ => (String::new(), flags(random, "k q O1 v t D5")),
    };
    format!("{before}ma {name}{encoded} M{mode}{more}\r\nms {name} 2 T0{encoded}\r\n10\r\n")
}

fn request(random: &mut Rng) -> String {
    match random.u8(..20) {
        0..6 => storage(random),
        6..10 => retrieval(random),
        10..13 => other_classic(random),
        13 if random.u8(..8) == 0 => format!("flush_all{}\r\n", noreply(random)),
        _ => meta(random),
    }
}

/// The answer without the numbers of the flags that are compared as present only.
fn without_times(answer: &str) -> String {
    let line = |line: &str| {
        let is_meta = line.starts_with("HD ") || line.starts_with("VA ");
        let word = |word: &str| match word.split_at_checked(1) {
            Some((flag @ ("t" | "l" | "h"), digits))
                if is_meta && digits.parse::<u64>().is_ok() =>
            {
                format!("{flag}<number>")
            }
            _ => word.to_owned(),
        };
        line.split(' ').map(word).collect::<Vec<_>>().join(" ")
    };
    answer.split("\r\n").map(line).collect::<Vec<_>>().join("\r\n")
}

fn compare(shards: u16, seed: u64) {
    let Some(memcached) = Memcached::start() else {
        skip("comparison with memcached", "it is not installed (apt-get install memcached)");
        return;
    };
    let scratch = Scratch::new("differential");
    let mut options = NodeOptions::new(scratch.path()).shards(shards);
    options.durability = "none";
    let node = Node::start(&options);
    let mut ours = node.client();
    let mut theirs = Client::connect(memcached.address()).expect("memcached listens");
    let mut random = Rng::with_seed(seed);
    let mut sent: Vec<String> = Vec::new();
    for _ in 0..BATCHES {
        let start = sent.len();
        sent.extend((0..BATCH).map(|_| request(&mut random)));
        // An `mn` behind each request tells the answers apart.
        let all: String = sent[start..].iter().map(|request| format!("{request}mn\r\n")).collect();
        ours.send(all.as_bytes()).expect("the server reads");
        theirs.send(all.as_bytes()).expect("memcached reads");
        for number in start..sent.len() {
            let our = without_times(&ours.until_noop().expect("the server answers"));
            let their = without_times(&theirs.until_noop().expect("memcached answers"));
            assert!(our == their, "{}", difference(seed, &sent[..=number], &our, &their));
        }
    }
    node.stop();
}

/// Both answers to the last request, and what was asked before of the same keys.
fn difference(seed: u64, sent: &[String], our: &str, their: &str) -> String {
    let (last, before) = sent.split_last().expect("a request");
    let line = |request: &str| request.lines().next().unwrap_or_default().to_owned();
    let keys = line(last);
    let keys: Vec<&str> = keys.split(' ').filter(|word| word.len() > 3).collect();
    let is_related = |request: &&String| {
        let line = line(request);
        line.starts_with("flush_all") || line.split(' ').any(|word| keys.contains(&word))
    };
    let mut related: Vec<String> =
        before.iter().rev().filter(is_related).take(12).map(|request| line(request)).collect();
    related.reverse();
    format!(
        "seed {seed}: {:?}\n  memcached: {:?}\n  ours:      {:?}\nbefore:\n  {}",
        start_of(last),
        start_of(their),
        start_of(our),
        related.join("\n  ")
    )
}

fn start_of(text: &str) -> String {
    text.chars().take(300).collect()
}

#[test]
fn answers_are_memcacheds() {
    let first = seed::given_or("answers_are_memcacheds", 1);
    for seed in first..first + SEEDS {
        compare(if seed % 2 == 0 { 2 } else { 1 }, seed);
    }
}

#[test]
fn numbers_of_times_are_left_out() {
    let answer = "HD t55 k\r\nVA 3 l0 t-1 h1 f4\r\nt55\r\n";
    let expected = "HD t<number> k\r\nVA 3 l<number> t-1 h<number> f4\r\nt55\r\n";
    assert_eq!(without_times(answer), expected);
}
