//! Changes of a record's items, against nodes that misbehave.

use super::*;
use crate::{Changed, Changes, Mutated, Unmet};

/// A connection to a node that answers each request with what `answer` makes of its id, and then
/// closes.
fn answering<const N: usize>(answers: [fn(u64) -> Vec<u8>; N]) -> ClientConnection {
    against(move |mut stream| {
        for answer in answers {
            let id = ids(&mut stream, 1)[0];
            stream.write_all(&answer(id)).expect("it reads");
        }
    })
}

fn reply_to(id: u64, opcode: Opcode, status: NativeStatus, body: &[u8]) -> Vec<u8> {
    let head = ReplyHead { opcode: opcode as u8, ..head(id) };
    let mut out = Vec::new();
    reply::put(&mut out, head, status, |out| out.extend_from_slice(body));
    out
}

fn mutated(id: u64, status: NativeStatus, body: &[u8]) -> Vec<u8> {
    reply_to(id, Opcode::MutateRecord, status, body)
}

/// The body that says that two changes have made these versions and numbers.
fn two(first: [u64; 2], second: [u64; 2]) -> Vec<u8> {
    [first, second].concat().iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Two changes.
fn changes() -> Changes<'static> {
    let mut changes = Changes::of_record(0, "r").expect("a record");
    changes.put("a", &Put::value(b"v")).expect("good").increment("b", -4, None).expect("good");
    changes
}

#[test]
fn what_changes_have_made_comes_in_their_order() {
    let mut node = answering([
        |id| mutated(id, NativeStatus::Ok, &two([7, 0], [8, 38])),
        |id| mutated(id, NativeStatus::Ok, &two([9, 0], [10, 0])),
        |id| reply_to(id, Opcode::DeleteItems, NativeStatus::Ok, b""),
    ]);
    let made = [Changed { version: 7, number: 0 }, Changed { version: 8, number: 38 }];
    assert_eq!(node.mutate(&changes()).expect("a reply"), Mutated::Yes(made.into()));
    let versions = node.put_items(0, "r", &[(b"a", b"1"), (b"b", b"2")]).expect("a reply");
    assert_eq!(versions, [9, 10]);
    node.delete_items(0, "r", ItemRange::Prefix(b"p")).expect("a reply");
}

#[test]
fn a_demand_that_is_not_met_is_an_outcome_with_its_place() {
    let mut node = answering([
        |id| mutated(id, NativeStatus::Exists, &[0, 0, 0, 0]),
        |id| mutated(id, NativeStatus::Absent, &[1, 0, 0, 0]),
        |id| mutated(id, NativeStatus::VersionDiffers, &[0, 0, 0, 0]),
        |id| mutated(id, NativeStatus::NotANumber, &[1, 0, 0, 0]),
    ]);
    for (at, unmet) in
        [(0, Unmet::Exists), (1, Unmet::Absent), (0, Unmet::VersionDiffers), (1, Unmet::NotANumber)]
    {
        assert_eq!(node.mutate(&changes()).expect("an outcome"), Mutated::No { at, unmet });
    }
}

#[test]
fn a_refusal_of_changes_says_which_and_what_to_do_next() {
    let mut node = answering([
        |id| mutated(id, NativeStatus::TooLarge, b"change 1, counted from 0: the value is longer"),
        |id| mutated(id, NativeStatus::TooLarge, b"all of it is too long"),
        |id| mutated(id, NativeStatus::Malformed, b"two changes are of the same item"),
        |id| mutated(id, NativeStatus::Full, b""),
        |id| mutated(id, NativeStatus::Stopped, b""),
        |id| reply_to(id, Opcode::DeleteItems, NativeStatus::Full, b""),
        |id| reply_to(id, Opcode::DeleteItems, NativeStatus::Stopped, b""),
        |id| reply_to(id, Opcode::Increment, NativeStatus::NotANumber, b""),
    ]);
    for (part, next, may_be_done) in [
        ("change 1, counted from 0: the value is longer", Next::FixRequest, false),
        ("all of it is too long", Next::FixRequest, false),
        ("the same item", Next::FixRequest, false),
        ("full", Next::RetryHere, false),
        ("no more writes", Next::RetryElsewhere, true),
    ] {
        let error = node.mutate(&changes()).expect_err("a refusal");
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!((error.next(), error.may_be_done()), (next, may_be_done), "{error}");
    }
    for (next, may_be_done) in [(Next::RetryHere, false), (Next::RetryElsewhere, true)] {
        let error = node.delete_items(0, "r", ItemRange::Prefix(b"")).expect_err("a refusal");
        assert_eq!((error.next(), error.may_be_done()), (next, may_be_done), "{error}");
    }
    let error = node.increment(key("k"), 1, None).expect_err("a refusal");
    assert!(error.next() == Next::FixRequest && !error.may_be_done(), "{error}");
}

#[test]
fn a_body_that_is_not_that_of_its_status_is_foreign() {
    let wrong: [fn(u64) -> Vec<u8>; 11] = [
        |id| mutated(id, NativeStatus::Ok, b""),
        |id| mutated(id, NativeStatus::Ok, &[0; 16]),
        |id| mutated(id, NativeStatus::Ok, &[0; 31]),
        |id| mutated(id, NativeStatus::Ok, &[0; 33]),
        |id| mutated(id, NativeStatus::Ok, &[0; 48]),
        |id| mutated(id, NativeStatus::Exists, b""),
        |id| mutated(id, NativeStatus::Exists, &[2, 0, 0, 0]),
        |id| mutated(id, NativeStatus::Absent, &[0xFF; 4]),
        |id| mutated(id, NativeStatus::VersionDiffers, b"it has another"),
        |id| mutated(id, NativeStatus::NotANumber, &[0; 8]),
        |id| reply_to(id, Opcode::DeleteItems, NativeStatus::Ok, &[0; 32]),
    ];
    for (number, answer) in wrong.into_iter().enumerate() {
        let mut node = answering([answer]);
        let error = node.mutate(&changes()).expect_err("no such answer");
        assert!(matches!(error, ClientError::Foreign(_)), "{number}: {error}");
        assert!(error.may_be_done(), "{number}: {error}");
        assert!(matches!(node.ping(), Err(ClientError::Spent)), "{number}");
    }
    let mut node = answering([|id| mutated(id, NativeStatus::Exists, &[0; 4])]);
    let error = node.put_items(0, "r", &[(b"a", b"1")]).expect_err("no condition was asked for");
    assert!(matches!(error, ClientError::Foreign(_)), "{error}");
    assert!(matches!(node.ping(), Err(ClientError::Spent)));
}

#[test]
fn changes_may_be_made_where_the_connection_ends_before_the_reply() {
    let ends: [fn(u64) -> Vec<u8>; 3] = [
        |_| Vec::new(),
        |id| mutated(id, NativeStatus::Ok, &two([7, 0], [8, 38]))[..20].to_vec(),
        |id| mutated(id, NativeStatus::Ok, &two([7, 0], [8, 38]))[..40].to_vec(),
    ];
    for end in ends {
        let mut node = answering([end]);
        let error = node.mutate(&changes()).expect_err("no reply");
        assert!(matches!(error, ClientError::Closed), "{error}");
        assert!(error.may_be_done() && error.next() == Next::RetryElsewhere, "{error}");
        let spent = node.mutate(&changes()).expect_err("spent");
        assert!(matches!(spent, ClientError::Spent) && !spent.may_be_done(), "{spent}");
        let mut node = answering([end]);
        let error = node.delete_items(0, "r", ItemRange::Prefix(b"")).expect_err("no reply");
        assert!(error.may_be_done(), "{error}");
    }
}

#[test]
fn changes_that_cannot_be_said_are_not_sent() {
    let is_usage = |error: ClientError| {
        let is_usage = matches!(error, ClientError::Usage(_));
        assert!(is_usage && !error.may_be_done() && error.next() == Next::FixRequest, "{error}");
    };
    let mut node = answering([|id| mutated(id, NativeStatus::Ok, &two([7, 0], [8, 38]))]);
    let long = [b'k'; 1025];
    let huge = vec![0; (128 << 20) + 1];
    is_usage(Changes::of_record(0, "").expect_err("no record"));
    is_usage(Changes::of_record(0, &long).expect_err("a long record"));
    let mut some = changes();
    is_usage(some.put(&long, &Put::value(b"v")).expect_err("a long key"));
    is_usage(some.delete(&long).expect_err("a long key"));
    is_usage(some.delete_if_version(&long, 1).expect_err("a long key"));
    is_usage(some.increment(&long, 1, None).expect_err("a long key"));
    is_usage(some.check_present(&long).expect_err("a long key"));
    is_usage(some.put("c", &Put::value(&huge)).expect_err("a long value"));
    is_usage(some.put("c", &Put::value(&huge[1..])).expect_err("long with that of the other"));
    assert_eq!(some, changes(), "a mistake leaves the list as it was");
    let names: Vec<String> = (0..1025).map(|number| number.to_string()).collect();
    let mut many = Changes::of_record(0, "r").expect("a record");
    for name in &names[..1024] {
        many.delete(name).expect("up to 1,024");
    }
    is_usage(many.delete(&names[1024]).expect_err("one too many"));
    assert_eq!((many.len(), many.is_empty()), (1024, false));
    is_usage(node.mutate(&Changes::of_record(0, "r").expect("none")).expect_err("no change"));
    is_usage(node.put_items(0, "r", &[]).expect_err("no item"));
    is_usage(node.put_items(0, "", &[(b"a", b"1")]).expect_err("no record"));
    is_usage(node.put(key("k"), &Put::value(&huge)).expect_err("a long value"));
    is_usage(node.delete_items(0, "", ItemRange::Prefix(b"")).expect_err("no record"));
    is_usage(node.delete_items(0, "r", ItemRange::Prefix(&long)).expect_err("a long prefix"));
    let between = ItemRange::Between { from: None, to: Some(&long) };
    is_usage(node.delete_items(0, "r", between).expect_err("a long bound"));
    // The node has seen nothing of all that: its one answer is to this.
    assert!(matches!(node.mutate(&changes()), Ok(Mutated::Yes(_))));
}
