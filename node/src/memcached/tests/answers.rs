use larder_engine::entry::Metadata;
use larder_engine::operation::{Lease, Outcome};
use larder_engine::shard::Answer;

use super::super::answer::{put, put_failure};
use super::super::token::Token;
use super::*;
use crate::request::NoAnswer;

const NOW: u32 = 1_800_000_000;

fn answer(outcome: Outcome) -> Answer<'static> {
    Answer {
        outcome,
        metadata: Metadata { version: 77, client_flags: 5, expiry: NOW + 100, state: 0 },
        value: b"value",
        value_len: 5,
        lease: Lease::default(),
        last_access: NOW - 9,
        fetched: true,
    }
}

fn text(line: &str, answer: &Answer<'_>) -> String {
    let mut out = b"before|".to_vec();
    let parsed = parsed(line);
    let command = Command::of(&parsed);
    put(&mut out, &command, command.value_bytes(), answer, NOW);
    let text = String::from_utf8(out).expect("text");
    text.strip_prefix("before|").expect("what was there stays").to_owned()
}

#[test]
fn every_outcome_has_its_answer() {
    use Outcome::*;
    for (line, outcome, reply) in [
        ("get k\r\n", Hit, "VALUE k 5 5\r\nvalue\r\n"),
        ("gets k\r\n", Hit, "VALUE k 5 5 77\r\nvalue\r\n"),
        ("gat 1 k\r\n", Hit, "VALUE k 5 5\r\nvalue\r\n"),
        ("get k\r\n", Miss, ""),
        ("set k 0 0 1\r\nv\r\n", Stored, "STORED\r\n"),
        ("set k 0 0 1 noreply\r\nv\r\n", Stored, ""),
        ("add k 0 0 1\r\nv\r\n", NotStored, "NOT_STORED\r\n"),
        ("cas k 0 0 1 1\r\nv\r\n", Exists, "EXISTS\r\n"),
        ("cas k 0 0 1 1\r\nv\r\n", NotFound, "NOT_FOUND\r\n"),
        ("append k 0 0 1\r\nv\r\n", TooLarge, "SERVER_ERROR object too large for cache\r\n"),
        ("append k 0 0 1 noreply\r\nv\r\n", TooLarge, ""),
        ("delete k\r\n", Deleted, "DELETED\r\n"),
        ("delete k\r\n", NotFound, "NOT_FOUND\r\n"),
        ("delete k noreply\r\n", NotFound, ""),
        ("incr k 1\r\n", Number(8), "8\r\n"),
        ("incr k 1 noreply\r\n", Number(8), ""),
        ("decr k 1\r\n", NotFound, "NOT_FOUND\r\n"),
        (
            "incr k 1\r\n",
            NotNumeric,
            "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
        ),
        ("touch k 1\r\n", Hit, "TOUCHED\r\n"),
        ("touch k 1\r\n", Miss, "NOT_FOUND\r\n"),
        ("touch k 1 noreply\r\n", Miss, ""),
        ("mg k v t c f s h l O1 k\r\n", Hit, "VA 5 t100 c77 f5 s5 h1 l9 O1 kk\r\nvalue\r\n"),
        ("mg k v C77 t\r\n", Hit, "HD t100\r\n"),
        ("mg k v\r\n", Miss, "EN\r\n"),
        ("mg k v q\r\n", Miss, ""),
        ("ms k 1 c s\r\nv\r\n", Stored, "HD c77 s5\r\n"),
        ("ms k 1 c s\r\nv\r\n", NotStored, "NS c0 s1\r\n"),
        ("ms k 1 c\r\nv\r\n", Exists, "EX c0\r\n"),
        ("ms k 1 q\r\nv\r\n", NotFound, "NF\r\n"),
        ("ms k 1 q\r\nv\r\n", Stored, ""),
        ("md k q O3\r\n", NotFound, "NF O3\r\n"),
        ("md k\r\n", Deleted, "HD\r\n"),
        ("md k\r\n", Exists, "EX\r\n"),
        ("ma k v t c\r\n", Number(12), "VA 2 t100 c77\r\n12\r\n"),
        ("ma k\r\n", NotFound, "NF\r\n"),
        ("ma k\r\n", Exists, "EX\r\n"),
        ("ma k\r\n", NotStored, "NS\r\n"),
        (
            "ma k q\r\n",
            NotNumeric,
            "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
        ),
        ("me k\r\n", Hit, "ME k exp=100 la=9 cas=77 fetch=yes cls=1 size=77\r\n"),
        ("me k\r\n", Miss, "EN\r\n"),
    ] {
        assert_eq!(text(line, &answer(outcome)), reply, "{line:?} {outcome:?}");
    }
}

#[test]
fn recache_marks_and_items_without_expiry() {
    let mut item = answer(Outcome::Hit);
    item.metadata.expiry = 0;
    assert_eq!(text("mg k t\r\n", &item), "HD t-1\r\n");
    item.lease = Lease { won: true, stale: true, already_sent: false };
    assert_eq!(text("mg k\r\n", &item), "HD X W\r\n");
    item.lease = Lease { won: false, stale: true, already_sent: true };
    assert_eq!(text("mg k\r\n", &item), "HD Z X\r\n");
    item.metadata.expiry = 1;
    assert_eq!(text("mg k t\r\n", &item), "HD t0 Z X\r\n");
}

#[test]
fn a_refused_value_is_answered_with_its_error() {
    let too_large = format!("set k 0 0 {}\r\n", 1 << 20);
    let reply = "SERVER_ERROR object too large for cache\r\n";
    assert_eq!(text(&too_large, &answer(Outcome::Deleted)), reply);
    assert_eq!(text(&too_large, &answer(Outcome::NotFound)), reply);
    let quiet = format!("set k 0 0 {} noreply\r\n", 1 << 20);
    assert_eq!(text(&quiet, &answer(Outcome::Deleted)), "");
}

#[test]
fn failures_are_server_errors() {
    for (failure, reply) in [
        (NoAnswer::Damaged, "SERVER_ERROR stored data of this key is damaged\r\n"),
        (NoAnswer::Full, "SERVER_ERROR out of memory storing object\r\n"),
        (NoAnswer::Stopped, "SERVER_ERROR the shard has stopped taking writes\r\n"),
        (NoAnswer::ReadFailed, "SERVER_ERROR reading from the disk failed\r\n"),
    ] {
        let mut out = Vec::new();
        put_failure(&mut out, &Command::of(&parsed("delete k noreply\r\n")), failure);
        assert!(out.is_empty());
        put_failure(&mut out, &Command::of(&parsed("delete k\r\n")), failure);
        assert_eq!(out, reply.as_bytes());
    }
    let mut out = Vec::new();
    let too_large = format!("set k 0 0 {}\r\n", 1 << 20);
    put_failure(&mut out, &Command::of(&parsed(&too_large)), NoAnswer::Stopped);
    assert_eq!(out, b"SERVER_ERROR object too large for cache\r\n");
}

#[test]
fn a_store_that_has_waited_still_knows_the_length_of_its_value() {
    for (outcome, reply) in [
        (Outcome::NotStored, "NS s5\r\n"),
        (Outcome::Exists, "EX s5\r\n"),
        (Outcome::NotFound, "NF s5\r\n"),
    ] {
        let token = Token::new(&Command::of(&parsed("ms k 5 s\r\nvalue\r\n")));
        let mut out = Vec::new();
        let found = answer(outcome);
        let kept = token.parsed();
        put(&mut out, &Command::of(&kept), token.value_bytes(), &found, NOW);
        assert_eq!(String::from_utf8(out).expect("text"), reply);
    }
}
