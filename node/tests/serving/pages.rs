//! Pages over the native port.

#![allow(clippy::disallowed_methods, reason = "the clients' threads are not the node's")]

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use larder::launch::Launcher;
use larder_protocol::native::{
    GetItems, ItemKey, ItemRange, NativePage, NativeRequest, NativeStatus, PageLimits, ScanItems,
    put_request,
};

use super::client::{TestNode, config, found, noise, set};
use super::native::{Answered, NativeClient, SET, delete, key, put};
use super::process::NodeProcess;

/// Record, item key and value; the record is empty in a page of one record.
pub(crate) type Shown = (Vec<u8>, Vec<u8>, Option<Vec<u8>>);

/// The items and the token of a page.
pub(crate) fn page(answered: &Answered) -> (Vec<Shown>, Option<Vec<u8>>) {
    assert_eq!(answered.status, NativeStatus::Ok, "{}", String::from_utf8_lossy(&answered.body));
    let page = NativePage::decode(&answered.body).expect("a page");
    let shown = page.items.iter().map(|item| {
        assert!(item.value.is_none_or(|value| value.len() == item.value_len as usize));
        let record = item.record.unwrap_or_default().to_vec();
        (record, item.item.to_vec(), item.value.map(<[u8]>::to_vec))
    });
    (shown.collect(), page.next.map(<[u8]>::to_vec))
}

/// The request for the first page of a record.
pub(crate) fn of_record(record: &str) -> GetItems<'_> {
    GetItems {
        namespace: 0,
        record: record.as_bytes(),
        range: ItemRange::Prefix(b""),
        keys: None,
        is_descending: false,
        limits: PageLimits::default(),
        token: b"",
    }
}

/// The pages of `first`, one after the other.
fn pages_of(client: &mut NativeClient, first: GetItems<'_>) -> Vec<Vec<Shown>> {
    let mut ask = |token: &[u8]| client.ask(&NativeRequest::GetItems(GetItems { token, ..first }));
    follow(&mut ask)
}

fn follow(ask: &mut impl FnMut(&[u8]) -> Answered) -> Vec<Vec<Shown>> {
    let (mut pages, mut token) = (Vec::new(), Vec::new());
    loop {
        let (items, next) = page(&ask(&token));
        pages.push(items);
        match next {
            Some(next) => token = next,
            None => return pages,
        }
    }
}

/// The keys of all items, in the order in which they were shown.
fn keys(pages: &[Vec<Shown>]) -> Vec<String> {
    let key = |shown: &Shown| String::from_utf8(shown.1.clone()).expect("text");
    pages.iter().flatten().map(key).collect()
}

fn fill(client: &mut NativeClient, record: &str, items: impl Iterator<Item = (String, Vec<u8>)>) {
    let mut items = items.peekable();
    while items.peek().is_some() {
        let some: Vec<_> = items.by_ref().take(500).collect();
        let send = |(item, value): &(String, Vec<u8>)| {
            let key = ItemKey { item: item.as_bytes(), ..key(record) };
            client.send(&put(key, SET, value))
        };
        let ids: Vec<u64> = some.iter().map(send).collect();
        for id in ids {
            assert_eq!(client.wait(id).status, NativeStatus::Ok);
        }
    }
}

fn numbered(range: std::ops::Range<u32>) -> impl Iterator<Item = (String, Vec<u8>)> {
    range.map(|number| (format!("{number:06}"), format!("value {number}").into_bytes()))
}

#[test]
fn a_records_items_come_in_order_by_range_and_by_limits() {
    let node = TestNode::start_with(2, |config| config.shards = Some(5));
    let mut client = NativeClient::connect(node.node.addresses().native);
    let names: Vec<String> = numbered(0..300).map(|(name, _)| name).collect();
    let mut hops = [0; 2];
    for number in 0..12 {
        let record = format!("record{number}");
        fill(&mut client, &record, numbered(0..300));
        let first = of_record(&record);
        let answered = client.ask(&NativeRequest::GetItems(first));
        hops[usize::from(answered.hops)] += 1;
        let (items, next) = page(&answered);
        assert!(next.is_none() && items.iter().all(|(record, ..)| record.is_empty()));
        assert_eq!(items[7].2.as_deref(), Some(&b"value 7"[..]));
        assert_eq!(keys(&[items]), names);
        let limits = PageLimits { items_max: 7, ..first.limits };
        let pages = pages_of(&mut client, GetItems { limits, ..first });
        assert!(keys(&pages) == names && pages.iter().all(|page| page.len() <= 7));
        let reverse = GetItems { is_descending: true, limits, ..first };
        let mut backwards = keys(&pages_of(&mut client, reverse));
        backwards.reverse();
        assert_eq!(backwards, names);
    }
    assert!(hops[0] > 0 && hops[1] > 0, "both cores own some: {hops:?}");
    let first = of_record("record3");
    let mut shown =
        |range, limits| keys(&pages_of(&mut client, GetItems { range, limits, ..first }));
    let all = PageLimits::default();
    assert_eq!(shown(ItemRange::Prefix(b"00020"), all), names[200..210]);
    let between = |from, to| ItemRange::Between { from, to };
    assert_eq!(shown(between(Some(b"000290"), None), all), names[290..]);
    assert_eq!(shown(between(None, Some(b"000010")), all), names[..10]);
    assert_eq!(shown(between(Some(b"000100"), Some(b"00011")), all), names[100..110]);
    assert!(shown(between(Some(b"2"), Some(b"1")), all).is_empty(), "the wrong way round");
    assert!(shown(between(None, Some(b"")), all).is_empty(), "nothing is below the empty key");
    let small = PageLimits { bytes_max: 60, ..all };
    assert_eq!(shown(ItemRange::Prefix(b""), small), names);
    let pages = pages_of(&mut client, GetItems { limits: small, ..first });
    assert!(pages.iter().all(|page| (1..=3).contains(&page.len())), "{}", pages.len());
    assert_eq!(keys(&pages_of(&mut client, of_record("nothing"))), Vec::<String>::new());
    node.stop();
}

#[test]
fn values_are_left_out_on_request() {
    let node = TestNode::start(2);
    let mut client = NativeClient::connect(node.node.addresses().native);
    let lengths = [0, 10, 128, 129, 1000, 300_000];
    let item = |len: usize| (format!("{len:06}"), noise(len as u64, len));
    fill(&mut client, "r", lengths.into_iter().map(item));
    let mut shown = |limits| {
        let pages = pages_of(&mut client, GetItems { limits, ..of_record("r") });
        let values = pages.into_iter().flatten().map(|(_, _, value)| value);
        values.collect::<Vec<_>>()
    };
    let all = PageLimits::default();
    let whole: Vec<_> = lengths.map(|len| Some(noise(len as u64, len))).to_vec();
    assert!(shown(all) == whole);
    assert!(shown(PageLimits { keys_only: true, ..all }).iter().all(Option::is_none));
    for most in [1, 128, 129, 1000] {
        let limits = PageLimits { value_bytes_max: most, ..all };
        let kept = whole.iter().map(|value| value.clone().filter(|v| v.len() <= most as usize));
        assert!(shown(limits) == kept.collect::<Vec<_>>(), "up to {most} bytes");
    }
    node.stop();
}

fn scan(limits: PageLimits, token: &[u8]) -> NativeRequest<'_> {
    NativeRequest::Scan(ScanItems { namespace: 0, limits, token, is_descending: false })
}

/// All items of the store, by record and item; none is shown twice.
fn scan_all(client: &mut NativeClient, limits: PageLimits) -> BTreeMap<(String, String), usize> {
    let mut ask = |token: &[u8]| {
        client.ask(&NativeRequest::Scan(ScanItems {
            namespace: 0,
            limits,
            token,
            is_descending: false,
        }))
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let mut all = BTreeMap::new();
    for (record, item, value) in follow(&mut ask).into_iter().flatten() {
        let len = value.map_or(0, |value| value.len());
        let before = all.insert((text(record), text(item)), len);
        assert_eq!(before, None, "an item is shown twice");
    }
    all
}

#[test]
fn a_scan_goes_through_all_shards_of_all_cores() {
    let node = TestNode::start_with(2, |config| config.shards = Some(5));
    let mut client = NativeClient::connect(node.node.addresses().native);
    assert!(scan_all(&mut client, PageLimits::default()).is_empty());
    let mut expected = BTreeMap::new();
    for number in 0..40 {
        let record = format!("record{number}");
        fill(&mut client, &record, numbered(0..10));
        for (item, value) in numbered(0..10) {
            expected.insert((record.clone(), item), value.len());
        }
    }
    let mut memcached = node.connect();
    for number in 0..40 {
        let name = format!("key{number}");
        memcached.ask(set(&name, b"from memcached"), "STORED\r\n");
        expected.insert((name, String::new()), 14);
    }
    for items_max in [0, 3, 1000] {
        let limits = PageLimits { items_max, ..PageLimits::default() };
        assert_eq!(scan_all(&mut client, limits), expected);
    }
    node.stop();
}

#[test]
fn a_token_holds_when_the_node_was_started_anew() {
    let node = TestNode::start_with(2, |config| config.shards = Some(3));
    let mut client = NativeClient::connect(node.node.addresses().native);
    fill(&mut client, "r", numbered(0..100));
    fill(&mut client, "other", numbered(0..100));
    let limits = PageLimits { items_max: 30, ..PageLimits::default() };
    let first = GetItems { limits, ..of_record("r") };
    let (items, token) = page(&client.ask(&NativeRequest::GetItems(first)));
    let token = token.expect("there is more");
    let mut scanned = Vec::new();
    let mut cursor = Vec::new();
    for _ in 0..4 {
        let (items, next) = page(&client.ask(&scan(limits, &cursor)));
        scanned.extend(items);
        cursor = next.expect("there is more");
    }
    drop(client);
    let directory = node.stop();
    let mut config = config(directory.path(), 1);
    config.shards = Some(3);
    let again = Launcher::default().start(&config).expect("it starts again");
    let mut client = NativeClient::connect(again.addresses().native);
    let mut all = vec![items];
    let mut ask = |rest: &[u8]| {
        let token = if rest.is_empty() { &token } else { rest };
        client.ask(&NativeRequest::GetItems(GetItems { token, ..first }))
    };
    all.extend(follow(&mut ask));
    let names: Vec<String> = numbered(0..100).map(|(name, _)| name).collect();
    assert_eq!(keys(&all), names);
    let mut ask = |rest: &[u8]| {
        let token = if rest.is_empty() { &cursor } else { rest };
        client.ask(&scan(limits, token))
    };
    scanned.extend(follow(&mut ask).into_iter().flatten());
    assert_eq!(scanned.len(), 200);
    scanned.sort();
    scanned.dedup();
    assert_eq!(scanned.len(), 200);
    again.stop();
    again.join().expect("a good end");
}

#[test]
fn a_record_of_a_hundred_thousand_items_comes_page_by_page() {
    let node = TestNode::start(2);
    let mut client = NativeClient::connect(node.node.addresses().native);
    fill(&mut client, "large", numbered(0..100_000));
    let limits = PageLimits { items_max: 10_000, keys_only: true, ..PageLimits::default() };
    for is_descending in [false, true] {
        let first = GetItems { limits, is_descending, ..of_record("large") };
        let mut shown = keys(&pages_of(&mut client, first));
        if is_descending {
            shown.reverse();
        }
        assert!(shown.len() == 100_000 && shown.is_sorted());
        assert_eq!((shown[0].as_str(), shown[99_999].as_str()), ("000000", "099999"));
    }
    // Pages that have to end early lead to the end as well.
    let mut ask = |token: &[u8]| {
        loop {
            let get = GetItems { limits, token, ..of_record("large") };
            let id = client.send_with(&NativeRequest::GetItems(get), 20_000, false);
            let answered = client.wait(id);
            if answered.status != NativeStatus::DeadlinePassed {
                return answered;
            }
        }
    };
    let shown = keys(&follow(&mut ask));
    assert!(shown.len() == 100_000 && shown.is_sorted());
    node.stop();
}

#[test]
fn pages_go_on_in_order_while_others_write() {
    let node = TestNode::start(2);
    let address = node.node.addresses().native;
    let mut client = NativeClient::connect(address);
    // The even ones stay; a writer sets and deletes the odd ones.
    fill(&mut client, "r", numbered(0..4000).step_by(2));
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = NativeClient::connect(address);
            let mut round = 0;
            while !is_done.load(Ordering::Relaxed) {
                round += 1;
                let mut ids = Vec::new();
                for (item, value) in numbered(0..4000).skip(1 + 2 * (round % 7)).step_by(14) {
                    let key = ItemKey { item: item.as_bytes(), ..key("r") };
                    let any = larder_protocol::native::Condition::Any;
                    let is_set = round % 3 > 0;
                    ids.push(if is_set {
                        writer.send(&put(key, SET, &value))
                    } else {
                        writer.send(&delete(key, any))
                    });
                }
                for id in ids {
                    writer.wait(id);
                }
            }
        });
        let even: Vec<String> = numbered(0..4000).step_by(2).map(|(name, _)| name).collect();
        for round in 0..30 {
            let limits = PageLimits { items_max: 100, ..PageLimits::default() };
            let is_descending = round % 2 == 1;
            let first = GetItems { limits, is_descending, ..of_record("r") };
            let mut shown = keys(&pages_of(&mut client, first));
            if is_descending {
                shown.reverse();
            }
            assert!(shown.windows(2).all(|pair| pair[0] < pair[1]), "in order, and none twice");
            shown.retain(|name| name.parse::<u32>().expect("a number").is_multiple_of(2));
            assert_eq!(shown, even, "none that was there all the time is missing");
        }
        is_done.store(true, Ordering::Relaxed);
    });
    node.stop();
}

#[test]
fn a_token_of_another_request_is_refused() {
    let node = TestNode::start(2);
    let mut client = NativeClient::connect(node.node.addresses().native);
    fill(&mut client, "r", numbered(0..10));
    let limits = PageLimits { items_max: 3, ..PageLimits::default() };
    let first = GetItems { limits, ..of_record("r") };
    let token = page(&client.ask(&NativeRequest::GetItems(first))).1.expect("there is more");
    let mut flipped = token.clone();
    flipped[10] ^= 1;
    let scan = ScanItems { namespace: 0, limits, token: &token, is_descending: false };
    for request in [
        NativeRequest::GetItems(GetItems { token: &flipped, ..first }),
        NativeRequest::GetItems(GetItems { token: &token[1..], ..first }),
        NativeRequest::GetItems(GetItems { token: &token, record: b"s", ..first }),
        NativeRequest::GetItems(GetItems { token: &token, is_descending: true, ..first }),
        NativeRequest::Scan(scan),
    ] {
        let answered = client.ask(&request);
        let text = String::from_utf8(answered.body).expect("text");
        assert_eq!(answered.status, NativeStatus::BadToken, "{request:?}");
        assert!(text.contains("token"), "{text}");
    }
    let elsewhere = NativeRequest::GetItems(GetItems { namespace: 5, ..first });
    assert_eq!(client.status(&elsewhere), NativeStatus::UnknownNamespace);
    let going_on = NativeRequest::GetItems(GetItems { token: &token, ..first });
    assert_eq!(keys(&[page(&client.ask(&going_on)).0]), ["000003", "000004", "000005"]);
    node.stop();
}

#[test]
fn clients_that_ask_for_pages_and_do_not_read_are_held_to_their_share() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = NodeProcess::start(directory.path(), 2);
    let address = node.field("native").parse().expect("an address");
    let mut client = NativeClient::connect(address);
    // Records of 2 MB on both cores.
    for number in 0..4 {
        let record = format!("record{number}");
        fill(&mut client, &record, (0..200).map(|n| (format!("{n:03}"), noise(n, 10_000))));
    }
    let limits = PageLimits { bytes_max: 1 << 20, ..PageLimits::default() };
    let asked = |count: u64| {
        let mut bytes = Vec::new();
        for id in 1..=count {
            let record = format!("record{}", id % 4);
            let request = NativeRequest::GetItems(GetItems { limits, ..of_record(&record) });
            put_request(&mut bytes, id, 0, false, &request);
        }
        bytes
    };
    let before = node.resident_bytes();
    // 1.6 GB are asked for.
    let mut greedy: Vec<NativeClient> = (0..8).map(|_| NativeClient::connect(address)).collect();
    for client in &mut greedy {
        client.stream.write_all(&asked(200)).expect("the node reads");
    }
    let mut polite = node.connect();
    let few = PageLimits { items_max: 5, value_bytes_max: 1, ..PageLimits::default() };
    for number in 0..200 {
        let name = format!("polite{number}");
        polite.ask(set(&name, b"value"), "STORED\r\n");
        polite.ask(format!("get {name}\r\n"), found(&name, b"value"));
        let record = format!("record{}", number % 4);
        let small = GetItems { limits: few, ..of_record(&record) };
        assert_eq!(page(&client.ask(&NativeRequest::GetItems(small))).0.len(), 5);
    }
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for clients that do not read");
    drop(greedy);
    // One that reads gets all that it asked for.
    let mut reader = NativeClient::connect(address);
    reader.stream.write_all(&asked(40)).expect("the node reads");
    for id in 1..=40 {
        let (items, next) = page(&reader.wait(id));
        assert!(next.is_some() && items.len() == 104, "{} items", items.len());
    }
    node.stop("-TERM");
}
