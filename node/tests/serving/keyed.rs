//! Items of a record by a list of their keys, and scans from the other end.

#![allow(clippy::disallowed_methods, reason = "the clients' threads are not the node's")]

use std::sync::atomic::{AtomicBool, Ordering};

use larder_client::{
    Changes, ClientConnection, ItemKeyList, ItemRange, ItemRef, ItemsOf, ListedItem, Mutated,
    PageLimits, Put,
};
use larder_protocol::native::{GetItems, NativeRequest, NativeStatus};

use super::client::{TestNode, noise};
use super::native::NativeClient;
use super::pages::{of_record, page};
use super::records::{connect, connect_to};

/// Key and value of items; the value is `None` where it was left out.
type Named = Vec<(String, Option<Vec<u8>>)>;

fn named(items: impl Iterator<Item = ListedItem>) -> Named {
    let text = |item: Vec<u8>| String::from_utf8(item).expect("text");
    items.map(|item| (text(item.item), item.value)).collect()
}

fn by_keys(
    client: &mut ClientConnection,
    record: &str,
    keys: &[String],
    limits: PageLimits,
) -> Named {
    let list = ItemKeyList::new(keys).expect("good keys");
    let of = ItemsOf::record(0, record).expect("a record").keys(&list).limits(limits);
    named(client.items(of).map(|item| item.expect("a page")))
}

/// The value of an item: those of some are in the index, of others in the log.
fn value(number: u64) -> Vec<u8> {
    noise(number, [0, 5, 128, 129, 3000][number as usize % 5])
}

#[test]
fn items_come_in_the_order_of_their_list_and_absent_ones_are_left_out() {
    let node = TestNode::start_with(2, |config| config.shards = Some(3));
    let mut client = connect(&node);
    let seed = larder_runtime::random::Random::new(7);
    for record in ["r", "s", "t"] {
        let names: Vec<String> = (0..200).map(|number| format!("{number:03}")).collect();
        let values: Vec<Vec<u8>> = (0..200).map(value).collect();
        for (name, value) in names.iter().zip(&values) {
            let key = ItemRef::new(0, record.as_bytes(), name.as_bytes()).expect("a key");
            client.put(key, &Put::value(value)).expect("stored");
        }
        client.delete_items(0, record, ItemRange::Prefix(b"19")).expect("deleted");
        let (mut keys, mut expected) = (Vec::new(), Vec::new());
        let mut random = seed.clone();
        for _ in 0..300 {
            let number = random.below(260) as usize;
            keys.push(format!("{number:03}"));
            if number < 190 {
                expected.push((names[number].clone(), Some(values[number].clone())));
            }
        }
        for (items_max, bytes_max) in
            [(0, 0), (1, 0), (7, 0), (0, 1), (0, 5000), (1 << 20, 1 << 30)]
        {
            let limits = PageLimits { items_max, bytes_max, ..PageLimits::default() };
            assert!(by_keys(&mut client, record, &keys, limits) == expected, "{limits:?}");
        }
        let limits = PageLimits { value_bytes_max: 128, ..PageLimits::default() };
        let short = |(name, value): &(String, Option<Vec<u8>>)| {
            (name.clone(), value.clone().filter(|value| value.len() <= 128))
        };
        let left: Named = expected.iter().map(short).collect();
        assert!(by_keys(&mut client, record, &keys, limits) == left);
        let limits = PageLimits { keys_only: true, ..PageLimits::default() };
        let bare: Named = expected.iter().map(|(name, _)| (name.clone(), None)).collect();
        assert!(by_keys(&mut client, record, &keys, limits) == bare);
        let absent = ["none".to_owned(), "200".to_owned()];
        assert_eq!(by_keys(&mut client, record, &absent, limits), []);
    }
    node.stop();
}

#[test]
fn a_token_goes_on_in_its_own_list_only() {
    let node = TestNode::start(1);
    let mut client = NativeClient::connect(node.node.addresses().native);
    let mut filler = connect(&node);
    filler.put_items(0, "r", &[(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]).expect("stored");
    let lists = [["c", "a", "b"], ["c", "b", "a"]].map(ItemKeyList::new);
    let [list, other] = lists.map(|list| list.expect("good keys"));
    let limits = PageLimits { items_max: 2, ..PageLimits::default() };
    let first = GetItems { limits, keys: Some(list.as_keys()), ..of_record("r") };
    let (shown, token) = page(&client.ask(&NativeRequest::GetItems(first)));
    assert_eq!(shown.iter().map(|(_, item, _)| item.as_slice()).collect::<Vec<_>>(), [b"c", b"a"]);
    let token = token.expect("there is more");
    let next = GetItems { token: &token, ..first };
    let (shown, end) = page(&client.ask(&NativeRequest::GetItems(next)));
    assert_eq!((shown.len(), shown[0].1.as_slice(), end), (1, &b"b"[..], None));
    for wrong in [
        GetItems { keys: Some(other.as_keys()), ..next },
        GetItems { record: b"s", ..next },
        GetItems { keys: None, ..next },
    ] {
        assert_eq!(client.status(&NativeRequest::GetItems(wrong)), NativeStatus::BadToken);
    }
    let descending = GetItems { is_descending: true, ..first };
    assert_eq!(client.status(&NativeRequest::GetItems(descending)), NativeStatus::Malformed);
    node.stop();
}

#[test]
fn readers_by_keys_see_all_changes_of_a_list_or_none() {
    let node = TestNode::start_with(2, |config| config.shards = Some(3));
    let address = node.node.addresses().native;
    let is_done = AtomicBool::new(false);
    let keys: Vec<String> = ["b", "missing", "a"].map(str::to_owned).to_vec();
    std::thread::scope(|scope| {
        for record in ["r", "s"] {
            let (is_done, keys) = (&is_done, &keys);
            scope.spawn(move || {
                let (mut client, mut last, mut rounds) = (connect_to(address), 0, 0);
                while !is_done.load(Ordering::Relaxed) || rounds < 50 {
                    rounds += 1;
                    let shown = by_keys(&mut client, record, keys, PageLimits::default());
                    let both: Vec<_> = shown.into_iter().map(|(_, value)| value).collect();
                    assert!(both.is_empty() || (both.len() == 2 && both[0] == both[1]), "{both:?}");
                    let number = both.first().map_or(0, |number| {
                        let digits = number.as_deref().expect("a value");
                        str::from_utf8(digits).expect("text").parse().expect("a number")
                    });
                    assert!(number >= last, "{record}: {number} after {last}");
                    last = number;
                }
            });
        }
        let mut client = connect_to(address);
        for round in 0..400 {
            let record = ["r", "s"][round % 2];
            let number = round.to_string();
            let mut changes = Changes::of_record(0, record).expect("a record");
            for name in ["a", "b"] {
                changes.put(name, &Put::value(number.as_bytes())).expect("a good change");
            }
            assert!(matches!(client.mutate(&changes), Ok(Mutated::Yes(_))));
        }
        is_done.store(true, Ordering::Relaxed);
    });
    node.stop();
}

#[test]
fn a_scan_from_the_other_end_shows_the_same_in_reverse() {
    let node = TestNode::start_with(2, |config| config.shards = Some(5));
    let mut client = connect(&node);
    for number in 0..60 {
        let record = format!("record{number}");
        client.put_items(0, &record, &[(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]).expect("stored");
    }
    for items_max in [0, 1, 7] {
        let limits = PageLimits { items_max, keys_only: true, ..PageLimits::default() };
        let all = |items: larder_client::Items<'_>| -> Vec<ListedItem> {
            items.map(|item| item.expect("a page")).collect()
        };
        let mut forward = all(client.scan(0, limits));
        assert_eq!(forward.len(), 180);
        forward.reverse();
        assert_eq!(all(client.scan_in_reverse(0, limits)), forward);
    }
    node.stop();
}
