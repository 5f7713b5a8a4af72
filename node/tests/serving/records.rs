//! Changes of several items of a record, and of ranges, over the native port.

#![allow(clippy::disallowed_methods, reason = "the clients' threads are not the node's")]

mod bounds;
mod ranges;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder::config::Size;
use larder_client::{
    Changes, ClientConnection, ClientError, ItemRef, ItemsOf, ListedItem, Mutated, Put, Unmet, When,
};
use larder_protocol::native::{IncrementItem, ItemKey, MutateRecord, NativeRequest, NativeStatus};

use super::client::{TestNode, noise};
use super::native::{NativeClient, key};
use super::pages::{of_record, page};

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn connect(node: &TestNode) -> ClientConnection {
    connect_to(node.node.addresses().native)
}

pub(crate) fn connect_to(address: SocketAddr) -> ClientConnection {
    ClientConnection::open(&address.to_string(), PATIENCE).expect("the node accepts")
}

/// All that is known of a record's items.
fn items(client: &mut ClientConnection, record: &str) -> Vec<ListedItem> {
    let of = ItemsOf::record(0, record).expect("a record");
    client.items(of).collect::<Result<_, _>>().expect("pages")
}

fn names_of(client: &mut ClientConnection, record: &str) -> Vec<String> {
    let name = |item: ListedItem| String::from_utf8(item.item).expect("text");
    items(client, record).into_iter().map(name).collect()
}

fn value_of(client: &mut ClientConnection, record: &str, item: &str) -> Option<Vec<u8>> {
    let key = ItemRef::new(0, record.as_bytes(), item.as_bytes()).expect("a key");
    client.get(key).expect("a reply").map(|item| item.value)
}

fn when<'a>(when: When<'a>, value: &'a [u8]) -> Put<'a> {
    Put { when, ..Put::value(value) }
}

/// Adds a change to a list.
type Add<'a> = &'a dyn Fn(&mut Changes<'static>);

/// One change of each kind, all of which the filled record fulfils.
const CHANGES: usize = 15;

/// Records on both cores.
const RECORDS: [&str; 6] = ["record0", "record1", "record2", "record3", "record4", "record5"];

/// Changes that the filled record does not fulfil, and why.
const WRONG: [(Add<'static>, Unmet); 14] = [
    (&|it| added(it.check_present("missing")), Unmet::Absent),
    (&|it| added(it.increment("missing", 1, None)), Unmet::Absent),
    (&|it| added(it.increment("w", 1, Some(1))), Unmet::NotANumber),
    (&|it| added(it.put("w", &when(When::Absent, b"no"))), Unmet::Exists),
    (&|it| added(it.put("missing", &when(When::Present, b""))), Unmet::Absent),
    (&|it| added(it.put("missing", &when(When::Append, b""))), Unmet::Absent),
    (&|it| added(it.put("missing", &when(When::Version(1), b""))), Unmet::Absent),
    (&|it| added(it.put("w", &when(When::Version(1), b""))), Unmet::VersionDiffers),
    (&|it| added(it.delete_if_version("missing", 1)), Unmet::Absent),
    (&|it| added(it.delete_if_version("w", 1)), Unmet::VersionDiffers),
    (&|it| added(it.put("missing", &when(When::Value(b""), b""))), Unmet::Absent),
    (&|it| added(it.put("w", &when(When::Value(b"words"), b""))), Unmet::ValueDiffers),
    (&|it| added(it.delete_if_value("missing", b"")), Unmet::Absent),
    (&|it| added(it.delete_if_value("w", b"")), Unmet::ValueDiffers),
];

fn added(result: Result<&mut Changes<'_>, ClientError>) {
    result.expect("a good change");
}

/// All changes, and `wrong` at its place among them.
fn list(record: &'static str, version: u64, wrong: Option<(usize, Add<'_>)>) -> Changes<'static> {
    let good: [Add<'_>; CHANGES] = [
        &|it| added(it.put("new", &Put::value(b"set"))),
        &|it| added(it.put("absent", &when(When::Absent, b"added"))),
        &|it| added(it.put("a", &when(When::Present, b"replaced"))),
        &|it| added(it.put("b", &when(When::Version(version), b"swapped"))),
        &|it| added(it.put("c", &when(When::Append, b">"))),
        &|it| added(it.put("d", &when(When::Prepend, b"<"))),
        &|it| added(it.delete("e")),
        &|it| added(it.delete("nothing")),
        &|it| added(it.delete_if_version("f", version + 4)),
        &|it| added(it.put("h", &when(When::Value(b"8"), b"eight"))),
        &|it| added(it.delete_if_value("i", b"nine")),
        &|it| added(it.increment("n", 8, None)),
        &|it| added(it.increment("m", -50, Some(7))),
        &|it| added(it.increment("begun", -1, Some(9))),
        &|it| added(it.check_present("g")),
    ];
    let mut changes = Changes::of_record(0, record).expect("a record");
    for at in 0..=CHANGES {
        if let Some((place, wrong)) = wrong
            && place == at
        {
            wrong(&mut changes);
        }
        if let Some(add) = good.get(at) {
            add(&mut changes);
        }
    }
    changes
}

/// Fills a record; returns the version of `b`, which those of `c` to `g` follow.
fn fill(client: &mut ClientConnection, record: &str) -> u64 {
    let text: [(&[u8], &[u8]); 9] = [
        (b"a", b"1"),
        (b"b", b"2"),
        (b"c", b"3"),
        (b"d", b"4"),
        (b"e", b"5"),
        (b"f", b"6"),
        (b"g", b"seven"),
        (b"h", b"8"),
        (b"i", b"nine"),
    ];
    let versions = client.put_items(0, record, &text).expect("stored");
    assert!(versions.is_sorted_by(|one, next| one + 1 == *next), "{versions:?}");
    let numbers: [(&[u8], &[u8]); 3] = [(b"n", b"34"), (b"m", b"45"), (b"w", b"word")];
    client.put_items(0, record, &numbers).expect("stored");
    versions[1]
}

#[test]
fn changes_are_made_together_or_not_at_all() {
    let node = TestNode::start_with(2, |config| config.shards = Some(5));
    let mut client = connect(&node);
    for record in RECORDS {
        let version = fill(&mut client, record);
        let before = items(&mut client, record);
        for (number, (add, unmet)) in WRONG.into_iter().enumerate() {
            for at in 0..=CHANGES {
                let mutated = client.mutate(&list(record, version, Some((at, add))));
                let expected = Mutated::No { at, unmet };
                assert_eq!(mutated.expect("an outcome"), expected, "{record}: {number} at {at}");
            }
            assert!(items(&mut client, record) == before, "{record}: {number}: nothing is done");
        }
        all_are_made(&mut client, record, version);
    }
    node.stop();
}

/// Makes the list of changes without a wrong one.
fn all_are_made(client: &mut ClientConnection, record: &'static str, version: u64) {
    let made = match client.mutate(&list(record, version, None)).expect("an outcome") {
        Mutated::Yes(made) => made,
        no @ Mutated::No { .. } => panic!("{no:?}"),
    };
    let numbers: Vec<u64> = made.iter().map(|changed| changed.number).collect();
    assert_eq!(numbers, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 42, 0, 9, 0]);
    let listed = items(client, record);
    let shown: Vec<(&str, &[u8])> = listed
        .iter()
        .map(|item| {
            let name = std::str::from_utf8(&item.item).expect("text");
            (name, item.value.as_deref().expect("a value"))
        })
        .collect();
    let expected: [(&str, &[u8]); 12] = [
        ("a", b"replaced"),
        ("absent", b"added"),
        ("b", b"swapped"),
        ("begun", b"9"),
        ("c", b"3>"),
        ("d", b"<4"),
        ("g", b"seven"),
        ("h", b"eight"),
        ("m", b"0"),
        ("n", b"42"),
        ("new", b"set"),
        ("w", b"word"),
    ];
    assert_eq!(shown, expected);
    let order = [
        "new", "absent", "a", "b", "c", "d", "e", "nothing", "f", "h", "i", "n", "m", "begun", "g",
    ];
    for (name, changed) in order.into_iter().zip(&made) {
        let item = listed.iter().find(|item| item.item == name.as_bytes());
        assert_eq!(item.map_or(0, |item| item.version), changed.version, "{name}");
    }
}

/// A request that changes items of a record, as `body` says.
fn mutate(body: &[u8]) -> NativeRequest<'_> {
    NativeRequest::Mutate(MutateRecord::read(body).expect("a list of changes"))
}

fn item_key<'a>(record: &'a str, item: &'a str) -> ItemKey<'a> {
    ItemKey { item: item.as_bytes(), ..key(record) }
}

/// A change that adds 1 to a number that begins with 1.
fn count<'a>(record: &'a str, item: &'a str) -> NativeRequest<'a> {
    let (key, initial) = (item_key(record, item), Some((1, 0)));
    NativeRequest::Increment(IncrementItem { key, is_decrement: false, delta: 1, initial })
}

#[test]
fn two_changes_of_an_item_are_refused() {
    let node = TestNode::start(2);
    let mut client = connect(&node);
    let names: Vec<String> = (0..1023).map(|number| format!("{number:04}")).collect();
    for twice in [0, 1, 500, 1022] {
        let mut changes = Changes::of_record(0, "r").expect("a record");
        for name in &names {
            added(changes.put(name, &Put::value(b"v")));
        }
        added(changes.delete(&names[twice]));
        let error = client.mutate(&changes).expect_err("twice the same");
        assert_eq!(error.to_string(), "two changes are of the same item");
        assert!(!error.may_be_done(), "{error}");
    }
    assert!(items(&mut client, "r").is_empty(), "nothing is done");
    node.stop();
}

#[test]
fn a_list_of_1024_changes_is_made() {
    let node = TestNode::start_with(2, |config| config.max_item_size = Size(4 << 20));
    let mut client = connect(&node);
    // The longest keys that there may be.
    let name = |number: u32| format!("{number:04}{}", "k".repeat(1020));
    let names: Vec<String> = (0..1024).map(name).collect();
    for record in ["r".to_owned(), "s".to_owned(), "x".repeat(1024)] {
        let stored: Vec<(&[u8], &[u8])> =
            names.iter().map(|name| (name.as_bytes(), &name.as_bytes()[..4])).collect();
        let versions = client.put_items(0, &record, &stored).expect("stored");
        assert!(versions.len() == 1024 && versions.is_sorted_by(|one, next| one < next));
        let mut changes = Changes::of_record(0, &record).expect("a record");
        for (number, name) in names.iter().enumerate() {
            match number % 4 {
                0 => added(changes.delete_if_version(name, versions[number])),
                1 => added(changes.increment(name, 1, None)),
                2 => added(changes.put(name, &when(When::Append, b"!"))),
                _ => added(changes.check_present(name)),
            }
        }
        let Mutated::Yes(made) = client.mutate(&changes).expect("made") else { panic!("refused") };
        for (number, changed) in made.iter().enumerate() {
            let expected = if number % 4 == 1 { number as u64 + 1 } else { 0 };
            assert_eq!(changed.number, expected, "{number}");
            match number % 4 {
                0 => assert_eq!(changed.version, 0),
                3 => assert_eq!(changed.version, versions[number]),
                _ => assert!(changed.version > versions[1023], "{number}"),
            }
        }
        let left = items(&mut client, &record);
        assert_eq!(left.len(), 768);
        assert_eq!(left[1].value.as_deref(), Some(&b"0002!"[..]));
    }
    node.stop();
}

#[test]
fn the_values_of_all_changes_are_no_longer_than_one_may_be() {
    values_of_changes(64 << 10);
    // Where one list fills the log's share.
    values_of_changes(1 << 20);
}

fn values_of_changes(most: usize) {
    let node = TestNode::start_with(2, |config| config.max_item_size = Size(most as u64));
    let mut client = connect(&node);
    let value = noise(1, most + 1);
    let half = most / 2;
    let mut refused = |items: &[(&[u8], &[u8])]| {
        let error = client.put_items(0, "r", items).expect_err("too large");
        assert!(matches!(error, ClientError::Refused { .. }) && !error.may_be_done(), "{error}");
        error.to_string()
    };
    let text = refused(&[(b"a", b"v"), (b"b", &value)]);
    assert!(
        text.contains("change 1, counted from 0") && text.contains("--max-item-size"),
        "{text}"
    );
    let text = refused(&[(b"a", &value[..half]), (b"b", &value[..half]), (b"c", b"v")]);
    assert!(text.contains("change 2, counted from 0"), "{text}");
    let text = refused(&[(b"a", &value[1..]), (b"b", &value[1..])]);
    assert!(text.contains("--max-item-size"), "{text}");
    assert!(items(&mut client, "r").is_empty(), "nothing is done");
    client.put_items(0, "r", &[(b"a", &value[..half]), (b"b", &value[..half])]).expect("stored");
    assert_eq!(value_of(&mut client, "r", "b").as_deref(), Some(&value[..half]));
    // What is there counts where it is read to be changed, and only there.
    let append = |names: &[&'static str], len: usize| {
        let mut changes = Changes::of_record(0, "r").expect("a record");
        for name in names {
            added(changes.put(*name, &when(When::Append, &value[..len])));
        }
        added(changes.delete("b"));
        changes
    };
    let error = client.mutate(&append(&["c", "a", "d"], most * 3 / 10)).expect_err("too large");
    assert!(error.to_string().contains("change 1, counted from 0"), "{error}");
    let mut changes = Changes::of_record(0, "r").expect("a record");
    added(changes.put("a", &when(When::Append, &value[half..most])));
    added(changes.delete("b"));
    assert!(matches!(client.mutate(&changes), Ok(Mutated::Yes(_))));
    assert_eq!(value_of(&mut client, "r", "a").as_deref(), Some(&value[..most]));
    assert_eq!(names_of(&mut client, "r"), ["a"]);
    node.stop();
}

#[test]
fn readers_see_all_changes_of_a_list_or_none() {
    let node = TestNode::start_with(2, |config| config.shards = Some(3));
    let address = node.node.addresses().native;
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|reader| {
                let is_done = &is_done;
                scope.spawn(move || {
                    let mut client = connect_to(address);
                    let mut last = [0; 2];
                    let mut rounds = 0;
                    while !is_done.load(Ordering::Relaxed) || rounds < 20 {
                        rounds += 1;
                        let record = ["r", "s"][(reader + rounds) % 2];
                        let seen = &mut last[(reader + rounds) % 2];
                        let shown = items(&mut client, record);
                        let both: Vec<_> = shown.iter().map(|item| item.value.clone()).collect();
                        assert!(both.is_empty() || (both.len() == 2 && both[0] == both[1]));
                        // What is read later is no older, in whatever order.
                        for name in ["b", "a", "b"] {
                            let number = value_of(&mut client, record, name);
                            let number = number.map_or(0, |number| parsed(&number));
                            assert!(number >= *seen, "{name} of {record}: {number} after {seen}");
                            *seen = number;
                        }
                    }
                })
            })
            .collect();
        for writer in 0..2 {
            scope.spawn(move || {
                let mut client = NativeClient::connect(address);
                for _ in 0..25 {
                    pipelined_rounds(&mut client, ["r", "s"][writer]);
                }
            });
        }
        // The readers go on until the writers have ended.
        let mut client = connect(&node);
        while ["r", "s"]
            .iter()
            .any(|record| value_of(&mut client, record, "b") != Some(b"500".into()))
        {
            std::thread::yield_now();
        }
        is_done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().expect("a reader"));
    });
    node.stop();
}

/// Sends changes and pages of the same items without waiting: each page shows both alike.
fn pipelined_rounds(client: &mut NativeClient, record: &str) {
    let body = MutateRecord::body(0, record.as_bytes(), &[count(record, "a"), count(record, "b")]);
    let mut ids = Vec::new();
    for _ in 0..20 {
        let changes = client.send(&mutate(&body));
        ids.push((changes, client.send(&NativeRequest::GetItems(of_record(record)))));
    }
    for (changes, items) in ids {
        let changed = client.wait(changes);
        assert_eq!((changed.status, changed.body.len()), (NativeStatus::Ok, 32));
        assert_eq!(changed.body[8..16], changed.body[24..32], "both have the same number");
        let shown = page(&client.wait(items)).0;
        assert!(shown.windows(2).all(|pair| pair[0].2 == pair[1].2), "{shown:?}");
    }
}

fn parsed(number: &[u8]) -> u64 {
    std::str::from_utf8(number).expect("text").parse().expect("a number")
}
