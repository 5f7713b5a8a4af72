//! The client library against nodes.

use std::io::Read;
use std::time::Duration;

use larder::config::{Config, Size};
use larder::launch::Launcher;
use larder_client::{
    Call, CallKind, Calls, ChangeName, Changes, Client, ClientError, Deleted, ItemKeyList,
    ItemRange, ItemRef, ItemsOf, LargePut, Memcache, Mutated, PageLimits, Put, SettingsChange,
    Stored, Unmet, When,
};
use smol::stream::StreamExt;

use super::client::{TestNode, config, noise};
use super::native::free_ports;

// The programs that the library's documentation shows.
#[allow(dead_code, reason = "its `main` is for people")]
#[path = "../../../protocol/client/examples/from_memcached.rs"]
mod from_memcached;
#[allow(dead_code, reason = "its `main` is for people")]
#[path = "../../../protocol/client/examples/quick_start.rs"]
mod quick_start;
#[allow(dead_code, reason = "its `main` is for people")]
#[path = "../../../protocol/client/examples/threads.rs"]
mod threads;
#[allow(dead_code, reason = "its `main` is for people")]
#[path = "../../../protocol/client/examples/throughput.rs"]
mod throughput;
#[allow(dead_code, reason = "its `main` is for people")]
#[path = "../../../protocol/client/examples/under_smol.rs"]
mod under_smol;
#[allow(dead_code, reason = "its `main` is for people")]
#[path = "../../../protocol/client/examples/under_tokio.rs"]
mod under_tokio;

fn native(node: &TestNode) -> String {
    node.node.addresses().native.to_string()
}

fn client(node: &TestNode) -> Client {
    Client::connect(native(node)).expect("a client")
}

fn key(record: &str) -> ItemRef<'_> {
    ItemRef::of_record(record).expect("a key")
}

#[test]
fn large_values_go_over_a_handle_whichever_core_owns_them() {
    let node = TestNode::start(2);
    let client = Client::connect(native(&node)).expect("a client");
    let values: Vec<_> = (0..4).map(|seed| noise(seed, 3_000_000 + seed as usize)).collect();
    for (number, value) in values.iter().enumerate() {
        let (record, mut told) = (format!("film:{number}"), 0);
        let key = ItemRef::of_record(&record).expect("a good key");
        let put = LargePut { len: value.len() as u32, client_flags: 7, ..LargePut::default() };
        let stored = client.put_large(key, &put, value.as_slice(), |done| told = done);
        assert!(matches!(stored, Ok(Stored::Yes(_))), "{stored:?}");
        assert_eq!(told, value.len() as u64);
        let mut reader = client.get_large(key).wait().expect("a reply").expect("an item");
        assert_eq!((reader.item().client_flags, reader.item().value_len), (7, put.len));
        let mut read = Vec::new();
        std::io::copy(&mut reader, &mut read).expect("readable");
        assert!(read == *value, "{record}");
    }
    let key = ItemRef::of_record("film:0").expect("a good key");
    let absent = LargePut { len: 5, when: When::Absent, ..LargePut::default() };
    let stored = client.put_large(key, &absent, &b"other"[..], |_| ());
    assert_eq!(stored.expect("it is decided"), Stored::Exists);
    let none = LargePut { len: 0, ..LargePut::default() };
    let refused = client.put_large(key, &none, &b""[..], |_| ()).expect_err("no length");
    assert!(matches!(refused, ClientError::Refused { .. }), "{refused}");
    client.put(key, &Put::value(b"small")).wait().expect("stored");
    let mut small = client.get_large(key).wait().expect("a reply").expect("an item");
    let mut read = String::new();
    small.read_to_string(&mut read).expect("readable");
    assert_eq!(read, "small");
    node.stop();
}

#[test]
fn the_programs_of_the_documentation_do_what_they_say() {
    let node = TestNode::start_with(2, |config| config.native_core_ports = Some(free_ports()));
    let address = native(&node);
    quick_start::run(&address).expect("it runs");
    threads::run(&address).expect("it runs");
    throughput::run(&address, Duration::from_millis(50)).expect("it runs");
    under_tokio::run(&address).expect("it runs");
    under_smol::run(&address).expect("it runs");
    from_memcached::run(client(&node)).expect("it runs");
    let memcached = node.node.addresses().memcached.expect("it listens").to_string();
    let build = Client::builder().node(memcached).memcached();
    from_memcached::run(build.build().expect("a client")).expect("it runs");
    node.stop();
}

#[test]
fn every_operation_over_two_cores() {
    let node = TestNode::start_with(2, |config| config.native_core_ports = Some(free_ports()));
    let client = client(&node);
    client.ping().wait().expect("a sign of life");
    for number in 0..20 {
        every_operation(&client, &format!("record{number}"));
    }
    let nodes = client.nodes();
    assert_eq!(
        nodes[0].1.as_ref().map(|hello| (hello.cores, hello.core_ports.len())),
        Some((2, 2))
    );
    let metrics = client.metrics();
    assert_eq!(metrics.retries, 0);
    assert!(CallKind::ALL.iter().all(|kind| metrics.of(*kind).errors == 0), "{metrics:?}");
    node.stop();
}

fn every_operation(client: &Client, record: &str) {
    let key = key(record);
    let put = |when, value| client.put(key, &Put { when, client_flags: 9, ..Put::value(value) });
    assert_eq!(client.get(key).wait().expect("a reply"), None);
    assert_eq!(put(When::Present, b"no").wait().expect("a reply"), Stored::Absent);
    let Stored::Yes(version) = put(When::Absent, b"middle").wait().expect("a reply") else {
        panic!("there was none");
    };
    assert_eq!(put(When::Absent, b"no").wait().expect("a reply"), Stored::Exists);
    assert_eq!(
        put(When::Version(u64::MAX), b"no").wait().expect("a reply"),
        Stored::VersionDiffers
    );
    let item = client.get(key).wait().expect("a reply").expect("an item");
    assert_eq!(
        (item.version, item.client_flags, item.value.as_slice()),
        (version, 9, &b"middle"[..])
    );
    put(When::Append, b"!").wait().expect("a reply");
    put(When::Prepend, b"?").wait().expect("a reply");
    let seen = client.get_metadata(key).wait().expect("a reply").expect("an item");
    assert_eq!((seen.value_len, seen.expiry, seen.value.len()), (8, 0, 0));
    assert!(client.touch(key, 1000).wait().expect("a reply"));
    let item = client.get_and_touch(key, 0).wait().expect("a reply").expect("an item");
    assert_eq!((item.expiry, item.value.as_slice()), (0, &b"?middle!"[..]));
    assert!(client.delete(key).wait().expect("a reply"));
    assert!(!client.delete(key).wait().expect("a reply"));
    assert_eq!(client.increment(key, 1, None).wait().expect("a reply"), None);
    assert_eq!(client.increment(key, 1, Some(40)).wait().expect("a reply"), Some(40));
    assert_eq!(client.increment(key, -50, None).wait().expect("a reply"), Some(0));
    let names: Vec<String> = (0..30).map(|number| format!("item{number:02}")).collect();
    let mut changes = Changes::of_record(0, record).expect("a record");
    for name in &names {
        changes.put(name, &Put::value(name.as_bytes())).expect("good");
    }
    assert!(matches!(client.mutate(&changes).wait(), Ok(Mutated::Yes(made)) if made.len() == 30));
    let pair: [(&[u8], &[u8]); 2] = [(b"item00", b"item00"), (b"item01", b"item01")];
    let versions = client.put_items(0, record, &pair).wait().expect("a reply");
    assert!(versions.len() == 2 && versions[0] > version);
    let mut unmet = Changes::of_record(0, record).expect("a record");
    unmet.delete("item00").expect("good").check_present("none").expect("good");
    let refused = Mutated::No { at: 1, unmet: Unmet::Absent };
    assert_eq!(client.mutate(&unmet).wait().expect("an outcome"), refused);
    let of = ItemsOf::record(0, record).expect("a record");
    let few = PageLimits { items_max: 7, ..PageLimits::default() };
    let of = of.range(ItemRange::Prefix(b"item")).expect("a range").limits(few);
    let listed: Vec<_> = client.items(of).map(|item| item.expect("a page")).collect();
    assert!(listed.iter().map(|item| item.item.as_slice()).eq(names.iter().map(String::as_bytes)));
    client.delete_items(0, record, ItemRange::Prefix(b"item1")).wait().expect("a reply");
    assert_eq!(client.items(of).count(), 20);
    conditional_deletes(client, record);
}

fn conditional_deletes(client: &Client, record: &str) {
    let key = ItemRef::new(0, record.as_bytes(), b"conditional").expect("a key");
    let put = |value| client.put(key, &Put::value(value)).wait().expect("a reply");
    assert_eq!(client.delete_if_value(key, b"v").wait().expect("a reply"), Deleted::Absent);
    let Stored::Yes(version) = put(b"v") else { panic!("it is stored in any case") };
    let deleted = |call: Call<Deleted>| call.wait().expect("a reply");
    assert_eq!(deleted(client.delete_if_value(key, b"w")), Deleted::ValueDiffers);
    assert_eq!(deleted(client.delete_if_version(key, version + 1)), Deleted::VersionDiffers);
    assert_eq!(deleted(client.delete_if_version(key, version)), Deleted::Yes);
    put(b"v");
    let when = When::Value(b"v");
    let exchanged = client.put(key, &Put { when, ..Put::value(b"w") }).wait().expect("a reply");
    assert!(matches!(exchanged, Stored::Yes(_)));
    let refused = client.put(key, &Put { when, ..Put::value(b"x") }).wait().expect("a reply");
    assert_eq!(refused, Stored::ValueDiffers);
    assert_eq!(deleted(client.delete_if_value(key, b"w")), Deleted::Yes);
}

#[test]
fn items_of_many_records_are_read_at_once_from_cores_and_nodes() {
    let ports = |config: &mut Config| config.native_core_ports = Some(free_ports());
    let nodes = [TestNode::start_with(2, ports), TestNode::start_with(2, ports)];
    let build = nodes.iter().fold(Client::builder(), |build, node| build.node(native(node)));
    let client = build.compress(500).build().expect("a client");
    let names: Vec<String> = (0..1500).map(|number| format!("record{number}")).collect();
    let value = |number: usize| names[number].repeat(1 + number % 90).into_bytes();
    let puts: Calls<_> = (0..1000)
        .map(|number| client.put(key(&names[number]), &Put::value(&value(number))))
        .collect();
    assert!(puts.wait().into_iter().all(|stored| stored.is_ok()));
    let keys: Vec<_> = names.iter().map(|name| key(name)).collect();
    let reads = client.multi_get(&keys).wait();
    assert_eq!(reads.len(), 1500);
    for (number, read) in reads.into_iter().enumerate() {
        let read = read.expect("a reply").map(|item| item.value);
        assert!(read == (number < 1000).then(|| value(number)), "record{number}");
    }
    let figures = client.statistics().wait();
    assert_eq!(figures.len(), 2);
    for told in figures {
        let told = told.expect("a reply");
        assert!(told.iter().any(|(name, _)| name == "curr_items"), "{told:?}");
    }
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

#[test]
fn namespaces_of_several_nodes_are_made_and_dropped_together() {
    let nodes = [TestNode::start(2), TestNode::start(1)];
    let build = nodes.iter().fold(Client::builder(), |build, node| build.node(native(node)));
    let both = build.build().expect("a client");
    let settings = SettingsChange { ttl_default: Some(100), ..SettingsChange::default() };
    let made = both.create_namespace("users", settings).wait().expect("made").expect("new");
    assert_eq!(both.create_namespace("users", settings).wait().expect("told"), None);
    assert_eq!(both.namespace("users").wait().expect("told"), Some(made.clone()));
    assert_eq!(both.namespaces().wait().expect("told").len(), 2);
    let longer = SettingsChange { ttl_max: Some(200), ..SettingsChange::default() };
    let changed = both.set_namespace("users", longer).wait().expect("told").expect("there");
    assert_eq!((changed.settings.ttl_default, changed.settings.ttl_max), (100, 200));
    let item = ItemRef::new(made.number, b"r", b"i").expect("a key");
    both.put(item, &Put::value(b"v")).wait().expect("stored");
    assert!(both.get(item).wait().expect("a reply").expect("there").expiry > 0);
    assert!(both.drop_namespace("users").wait().expect("dropped"));
    assert!(!both.drop_namespace("users").wait().expect("there is none"));
    both.get(item).wait().expect_err("its number is nobody's");
    // One of them has another namespace of the first number that is free.
    let alone = client(&nodes[0]);
    alone.create_namespace("alone", settings).wait().expect("made").expect("new");
    let error = both.create_namespace("late", settings).wait().expect_err("numbers differ");
    assert!(matches!(error, ClientError::Disagreement), "{error}");
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

#[test]
fn items_come_as_a_stream_and_by_their_keys() {
    let node = TestNode::start(2);
    let client = client(&node);
    let names: Vec<String> = (0..50).map(|number| format!("item{number:02}")).collect();
    let items: Vec<(&[u8], &[u8])> =
        names.iter().map(|name| (name.as_bytes(), &b"v"[..])).collect();
    client.put_items(0, "r", &items).wait().expect("stored");
    let few = PageLimits { items_max: 7, ..PageLimits::default() };
    let of = ItemsOf::record(0, "r").expect("a record").limits(few);
    let listed: Vec<_> = smol::block_on(client.items(of).into_stream().collect::<Vec<_>>());
    let listed: Vec<_> = listed.into_iter().map(|item| item.expect("a page").item).collect();
    assert!(listed.iter().map(Vec::as_slice).eq(names.iter().map(String::as_bytes)));
    let wanted = ItemKeyList::new(["item40", "none", "item03"].map(str::as_bytes)).expect("keys");
    let by_keys = client.items(of.keys(&wanted)).map(|item| item.expect("a page").item);
    assert_eq!(by_keys.collect::<Vec<_>>(), [b"item40", b"item03"]);
    let scanned = client.scan_in_reverse(0, few).into_stream();
    assert_eq!(smol::block_on(scanned.count()), 50);
    node.stop();
    let mut stream = client.with_timeout(Duration::from_millis(200)).items(of).into_stream();
    let (error, end) = smol::block_on(async { (stream.next().await, stream.next().await) });
    assert!(matches!((error, end), (Some(Err(_)), None)), "an error, and nothing behind it");
}

#[test]
fn changes_get_names_and_one_name_is_one_change() {
    let node = TestNode::start(2);
    let build = Client::builder().node(native(&node)).tokens(true);
    let client = build.build().expect("a client");
    every_operation(&client, "named");
    let name = ChangeName::new();
    for _ in 0..3 {
        let number = client.once(name).increment(key("n"), 5, Some(5)).wait();
        assert_eq!(number.expect("a reply"), Some(5));
    }
    let error = client.once(name).increment(key("n"), 6, None).wait().expect_err("another change");
    assert!(error.to_string().contains("another request"), "{error}");
    let hello = client.nodes()[0].1.clone().expect("it has said what it is");
    assert_eq!((hello.token_window_seconds, hello.token_drift_seconds), (600, 60));
    node.stop();
}

#[test]
fn requests_find_their_core_and_a_node_with_other_cores_is_followed() {
    let ports = free_ports();
    let node = TestNode::start_with(2, |config| config.native_core_ports = Some(ports));
    let address = native(&node);
    let client = Client::connect(&address).expect("a client");
    let names: Vec<String> = (0..64).map(|number| format!("record{number}")).collect();
    let read_all = |client: &Client| {
        let calls: Calls<_> = names.iter().map(|name| client.get(key(name))).collect();
        calls.wait().into_iter().collect::<Result<Vec<_>, _>>()
    };
    for name in &names {
        client.put(key(name), &Put::value(name.as_bytes())).wait().expect("a reply");
    }
    let until_none_is_forwarded = |client: &Client| {
        for _ in 0..1000 {
            let before = client.metrics().forwarded;
            read_all(client).expect("replies");
            if client.metrics().forwarded == before {
                return;
            }
        }
        panic!("requests still go to the wrong core");
    };
    until_none_is_forwarded(&client);
    // The same store on one core, behind the same port.
    let directory = node.stop();
    let mut settings = config(directory.path(), 1);
    settings.native_port = address.rsplit(':').next().expect("a port").parse().expect("a number");
    let node = Launcher::default().start(&settings).expect("the node starts");
    let read = (0..1000).find_map(|_| read_all(&client).ok()).expect("the client comes back");
    for (item, name) in read.into_iter().zip(&names) {
        assert_eq!(item.expect("it was stored before").value, name.as_bytes());
    }
    let cores = client.nodes()[0].1.as_ref().map(|hello| hello.cores);
    assert_eq!(cores, Some(1));
    until_none_is_forwarded(&client);
    node.stop();
    node.join().expect("a good end");
    let error = client.get(key("k")).wait().expect_err("nobody is there");
    assert!(
        !error.to_string().is_empty() && !matches!(error, ClientError::Timeout { .. }),
        "{error}"
    );
}

#[test]
fn replicas_outlive_a_node() {
    let nodes: Vec<TestNode> = (0..3).map(|_| TestNode::start(1)).collect();
    let build = nodes.iter().fold(Client::builder(), |build, node| build.node(native(node)));
    let client = build.replicas(2).build().expect("a client");
    let names: Vec<String> = (0..100).map(|number| format!("record{number}")).collect();
    for name in &names {
        client.put(key(name), &Put::value(name.as_bytes())).wait().expect("two have it");
    }
    let scanned: Result<Vec<_>, _> = client.scan(0, PageLimits::default()).collect();
    let mut records: Vec<_> =
        scanned.expect("pages").into_iter().filter_map(|item| item.record).collect();
    records.sort();
    let mut expected: Vec<Vec<u8>> = names.iter().map(|name| name.clone().into_bytes()).collect();
    expected.sort();
    assert_eq!(records, expected, "each record once");
    let mut nodes = nodes.into_iter();
    nodes.next().expect("a node").stop();
    for name in &names {
        let item = client.get(key(name)).wait().expect("one has it").expect("an item");
        assert_eq!(item.value, name.as_bytes());
    }
    nodes.for_each(|node| drop(node.stop()));
}

#[test]
fn large_and_compressed_values_come_back_as_they_went() {
    let node = TestNode::start_with(2, |config| {
        (config.max_item_size, config.memory) = (Size(8 << 20), Size(512 << 20));
    });
    let packing = Client::builder().node(native(&node)).compress(100).build().expect("a client");
    let plain = client(&node);
    let text = b"a line that comes again\n".repeat(100_000);
    let random = noise(3, 3 << 20);
    packing
        .put(key("text"), &Put { client_flags: 5, ..Put::value(&text) })
        .wait()
        .expect("a reply");
    packing.put(key("random"), &Put::value(&random)).wait().expect("a reply");
    let mut changes = Changes::of_record(0, "both").expect("a record");
    changes
        .put("text", &Put::value(&text))
        .expect("good")
        .put("n", &Put::value(b"1"))
        .expect("good");
    packing.mutate(&changes).wait().expect("a reply");
    let item = packing.get(key("text")).wait().expect("a reply").expect("an item");
    assert!(item.value == text && item.client_flags == 5 && item.value_len == 2_400_000);
    assert!(packing.get(key("random")).wait().expect("a reply").expect("an item").value == random);
    let stored = plain.get(key("text")).wait().expect("a reply").expect("an item");
    assert!(stored.value.len() < text.len() / 20);
    assert_eq!(stored.client_flags, 5 | larder_client::COMPRESSED);
    let of = ItemsOf::record(0, "both").expect("a record");
    let listed: Vec<_> = packing.items(of).map(|item| item.expect("a page").value).collect();
    assert!(listed[1].as_deref() == Some(&text[..]) && listed[0].as_deref() == Some(b"1"));
    node.stop();
}

#[test]
fn both_doors_of_a_node_show_the_same_values_to_the_memcached_commands() {
    let node = TestNode::start(2);
    let native = Memcache::over(client(&node));
    let memcached = node.node.addresses().memcached.expect("it listens").to_string();
    let build = Client::builder().node(memcached).memcached();
    let meta = build.build().expect("a client");
    let other = Memcache::over(meta.clone());
    for key in ["plain", "with space", "gr\u{fc}\u{df}e"] {
        native.set(key, b"from native", 3, 0).wait().expect("a reply");
        let seen = other.gets(key).wait().expect("a reply").expect("a value");
        assert_eq!((seen.value.as_slice(), seen.flags), (&b"from native"[..], 3));
        other.set(key, b"from memcached", 4, 100).wait().expect("a reply");
        let seen = native.gets(key).wait().expect("a reply").expect("a value");
        assert_eq!((seen.value.as_slice(), seen.flags), (&b"from memcached"[..], 4));
    }
    let item = meta.get_metadata(key("plain")).wait().expect("a reply").expect("an item");
    assert!((item.value_len, item.value.len()) == (14, 0) && item.expiry > 1_700_000_000);
    meta.ping().wait().expect("a reply");
    let error = meta.items(ItemsOf::record(0, "r").expect("a record")).next().expect("an end");
    assert!(error.expect_err("no such command").to_string().contains("native port"));
    node.stop();
}
