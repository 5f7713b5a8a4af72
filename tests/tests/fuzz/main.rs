//! Every decoder of bytes that come from a file or a socket, fed with changed bytes.
//!
//! Whatever the bytes are, a decoder neither panics nor takes memory out of proportion to them.
//! Each target runs some thousand inputs, or for `LARDER_FUZZ_SECONDS`; a failure prints the
//! input and the seed, and `LARDER_SEED` runs the same inputs again.

#![allow(unsafe_code, reason = "an allocator that counts is an allocator")]
#![allow(clippy::disallowed_methods, reason = "a run may be limited by time")]

mod memory;
mod mutate;

use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use larder_engine::check::decoders::{DECODERS, Decoder};
use larder_protocol::memcached::binary::{BinaryParsed, BinaryParser};
use larder_protocol::memcached::{Limits, Parsed, Parser};
use larder_protocol::native::reply::NativeReply;
use larder_protocol::native::{
    HEADER_BYTES, HelloReply, NativeLimits, NativePage, NativeParsed, NativeParser, StatisticsReply,
};
use larder_tests::binary::request;
use larder_tests::seed;

use mutate::Mutator;

struct Counting;

// SAFETY: all calls go to the system's allocator with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        memory::count(layout.size().cast_signed());
        // SAFETY: the caller's promises are the system allocator's demands.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        memory::count(-layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        memory::count(size.cast_signed() - layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Inputs of one target in a run that is not limited by time.
const INPUTS: u64 = 50_000;

/// Memory that a decoder may take whatever the length of its input, in bytes.
const MEMORY_FLOOR: usize = 64 << 10;

/// How long each target runs, if the run is limited by time.
fn limit() -> Option<Duration> {
    let text = std::env::var("LARDER_FUZZ_SECONDS").ok()?;
    Some(Duration::from_secs(text.parse().expect("LARDER_FUZZ_SECONDS is a number")))
}

fn fuzz(target: &Decoder) {
    let limit = limit();
    let seed = match limit {
        Some(_) => seed::given_or_fresh(target.name),
        None => seed::given_or(target.name, 1),
    };
    let mut mutator = Mutator::new(seed, (target.seeds)());
    for input in (target.seeds)() {
        assert!(run(target, &input), "{} refuses what is written", target.name);
    }
    let start = Instant::now();
    let (mut inputs, mut accepted) = (0, 0);
    while limit.map_or(inputs < INPUTS, |limit| start.elapsed() < limit) {
        let mut input = mutator.next();
        if mutator.chance(75) {
            (target.reseal)(&mut input);
        }
        accepted += u64::from(run(target, &input));
        inputs += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{}: {inputs} inputs, {accepted} accepted, in {seconds:.1} s", target.name);
    // Changes that break everything, or nothing, would not reach what is to be tried.
    assert!(accepted > inputs / 200, "{}: {accepted} of {inputs} accepted", target.name);
    assert!(accepted < inputs - inputs / 200, "{}: {accepted} of {inputs} accepted", target.name);
}

/// Returns whether the input was accepted.
fn run(target: &Decoder, input: &[u8]) -> bool {
    let (result, peak) = memory::peak(|| catch_unwind(AssertUnwindSafe(|| (target.decode)(input))));
    let accepted = result.unwrap_or_else(|panic| {
        eprintln!("{} fails on these bytes: {input:?}", target.name);
        resume_unwind(panic)
    });
    let most = MEMORY_FLOOR + target.expansion_max * input.len();
    assert!(peak <= most, "{}: {peak} bytes of memory for {input:?}", target.name);
    accepted
}

fn engine(name: &str) {
    let target = DECODERS.iter().find(|target| target.name == name);
    fuzz(target.unwrap_or_else(|| panic!("there is no decoder {name}")));
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            engine(stringify!($name));
        })*

        #[test]
        fn every_decoder_is_a_target() {
            let names = DECODERS.map(|decoder| decoder.name);
            assert_eq!(names.as_slice(), [$(stringify!($name)),*]);
        }
    };
}

targets! {
    superblock manifest edit segment_header frame record footer index filter pointed block moves
    entry key
}

#[test]
fn native() {
    let target = Decoder {
        name: "native",
        seeds: native_seeds,
        decode: parse_native,
        reseal: |_| {},
        // An item of a page takes 16 bytes in a body, and six times that when it is read.
        expansion_max: 8,
    };
    fuzz(&target);
}

fn vectors(name: &str) -> Vec<serde_json::Value> {
    let path = larder_tests::tidy::root().join("protocol/vectors").join(name);
    let text = std::fs::read_to_string(path).expect("the vectors are there");
    serde_json::from_str(&text).expect("JSON")
}

/// The vectors of requests, some at a time, a hello, and pages.
fn native_seeds() -> Vec<Vec<u8>> {
    let bytes = |vector: &serde_json::Value| -> Vec<u8> {
        let text = vector["hex"].as_str().expect("hexadecimal").as_bytes();
        let digit = |digit: u8| char::from(digit).to_digit(16).expect("a digit") as u8;
        text.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    };
    let requests = vectors("requests.json");
    let mut seeds: Vec<Vec<u8>> =
        requests.chunks(3).map(|some| some.iter().flat_map(bytes).collect()).collect();
    let pages = vectors("replies.json").into_iter().filter(|reply| {
        let kinds = ["get_items", "scan", "statistics"];
        reply["status"] == 0 && kinds.iter().any(|kind| reply["kind"] == *kind)
    });
    seeds.extend(pages.map(|page| bytes(&page).split_off(HEADER_BYTES)));
    seeds.push(HelloReply { shards: 2, core_ports: vec![1, 2], ..Default::default() }.encode());
    seeds
}

/// Parses all of the bytes, as they come in two reads, as requests, as replies, as a hello, as a
/// page and as figures; whether all were requests, or they were one of these.
fn parse_native(bytes: &[u8]) -> bool {
    if let Ok((reply, _)) = NativeReply::read(bytes, 1 << 20) {
        let _ = reply.multi(4);
    }
    let is_structure = HelloReply::decode(bytes).is_ok()
        || NativePage::decode(bytes).is_ok()
        || StatisticsReply::decode(bytes).is_ok();
    if is_structure {
        return true;
    }
    let limits = NativeLimits { value_bytes_max: 4096 };
    let mut parser = NativeParser::default();
    let (mut at, mut refused) = (0, 0);
    for end in [bytes.len() / 2, bytes.len()] {
        loop {
            let step = parser.next(&limits, &bytes[at..end]);
            assert!(step.consumed <= end - at, "more consumed than there is");
            at += step.consumed;
            match step.parsed {
                NativeParsed::NeedMore { bytes: needed } => {
                    assert!(needed > end - at, "it asks for what is there");
                    break;
                }
                NativeParsed::Close => return false,
                NativeParsed::Request(..) => {}
                NativeParsed::Refused(_) => refused += 1,
            }
        }
    }
    refused == 0
}

#[test]
fn memcached() {
    let target = Decoder {
        name: "memcached",
        seeds: memcached_seeds,
        decode: parse,
        reseal: |_| {},
        expansion_max: 0,
    };
    fuzz(&target);
}

fn memcached_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "get a\r\ngets a bb ccc\r\ngat 100 a b\r\nversion\r\n",
        "set key 7 0 5\r\nhello\r\nadd k 0 -1 0 noreply\r\n\r\ncas k 1 2 3 4\r\nabc\r\n",
        "append a 0 0 1\r\nx\r\nprepend a 0 0 2\r\nyz\r\nreplace a 0 0 1\r\nz\r\n",
        "incr n 1\r\ndecr n 18446744073709551615\r\ntouch a 60\r\ndelete a noreply\r\n",
        "mg key v f c t s k O1 q N30 R10\r\nmn\r\nms key 5 T90 F1 I C3 E9\r\nhello\r\n",
        "ma n N60 J5 D2 MD q\r\nmd key I T30 x\r\nme key\r\nmg Zm9v b v\r\nms Zm9v 1 b ME\r\nx\r\n",
        "flush_all 10 noreply\r\nstats items\r\nverbosity 1\r\nshutdown graceful\r\nquit\r\n",
        "lru_crawler metadump 1,2\r\nlru_crawler mgdump all\r\nstats cachedump 1 20\r\n",
        "watch fetchers mutations\r\nstats detail on\r\ncache_memlimit 64 noreply\r\n",
        "slabs automove 1\r\nlru tune 10 25 0.1 2.0\r\nlru_crawler sleep 100\r\nlru mode flat\r\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// Parses all of the bytes, as they come in two reads; whether all were requests.
fn parse(bytes: &[u8]) -> bool {
    let limits = Limits { item_bytes_max: 4096, line_bytes_max: 512, ..Limits::default() };
    let mut parser = Parser::default();
    let (mut at, mut malformed) = (0, 0);
    for end in [bytes.len() / 2, bytes.len()] {
        loop {
            let step = parser.next(&limits, &bytes[at..end]);
            assert!(step.consumed <= end - at, "more consumed than there is");
            at += step.consumed;
            match step.parsed {
                Parsed::NeedMore { bytes: needed } => {
                    assert!(needed > end - at, "it asks for what is there");
                    break;
                }
                Parsed::Close(_) => return false,
                Parsed::Request(_) => {}
                Parsed::Malformed(_) => malformed += 1,
            }
        }
    }
    malformed == 0
}

#[test]
fn memcached_binary() {
    let target = Decoder {
        name: "memcached_binary",
        seeds: memcached_binary_seeds,
        decode: parse_memcached_binary,
        reseal: |_| {},
        expansion_max: 0,
    };
    fuzz(&target);
}

/// Every opcode, some at a time.
fn memcached_binary_seeds() -> Vec<Vec<u8>> {
    let keyed = |opcodes: &[u8], extras: &[u8], value: &[u8]| -> Vec<u8> {
        let message = |&opcode: &u8| request(opcode, 7, extras, b"key", value);
        opcodes.iter().flat_map(message).collect()
    };
    let bare = |opcodes: &[u8], extras: &[u8]| -> Vec<u8> {
        opcodes.iter().flat_map(|&opcode| request(opcode, 0, extras, b"", b"")).collect()
    };
    vec![
        keyed(&[0x00, 0x09, 0x0C, 0x0D, 0x04, 0x14, 0x10], b"", b""),
        keyed(&[0x01, 0x02, 0x03, 0x11, 0x12, 0x13], &[1; 8], b"value"),
        keyed(&[0x0E, 0x0F, 0x19, 0x1A], b"", b"value"),
        keyed(&[0x1C, 0x1D, 0x1E, 0x23, 0x24], &[0, 0, 0, 9], b""),
        keyed(&[0x05, 0x06, 0x15, 0x16], &[0xFF; 20], b""),
        bare(&[0x0A, 0x0B, 0x10, 0x08, 0x18, 0x07, 0x17], b""),
        bare(&[0x1B, 0x08], &[0, 0, 0, 1]),
    ]
}

/// Parses all of the bytes, as they come in two reads; whether all were requests.
fn parse_memcached_binary(bytes: &[u8]) -> bool {
    let limits = Limits { item_bytes_max: 4096, ..Limits::default() };
    let mut parser = BinaryParser::default();
    let (mut at, mut refused) = (0, 0);
    for end in [bytes.len() / 2, bytes.len()] {
        loop {
            let step = parser.next(&limits, &bytes[at..end]);
            assert!(step.consumed <= end - at, "more consumed than there is");
            at += step.consumed;
            match step.parsed {
                BinaryParsed::NeedMore { bytes: needed } => {
                    assert!(needed > end - at, "it asks for what is there");
                    break;
                }
                BinaryParsed::Close => return false,
                BinaryParsed::Request(..) => {}
                BinaryParsed::Refused(_) => refused += 1,
            }
        }
    }
    refused == 0
}
