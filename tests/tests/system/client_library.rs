//! The client library against memcached itself, and against nodes that are killed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use larder_client::{Client, ClientError, ItemRef, Put, Stored, When};
use larder_tests::memcached::Memcached;
use larder_tests::node::{Node, NodeOptions};
use larder_tests::scratch::Scratch;
use larder_tests::skip;

#[allow(dead_code, reason = "its `main` is for people")]
#[path = "../../../protocol/client/examples/from_memcached.rs"]
mod from_memcached;

fn client(memcached: &Memcached) -> Client {
    let build = Client::builder().node(memcached.address().to_string()).memcached();
    build.build().expect("a client")
}

#[test]
fn the_client_library_speaks_to_memcached() {
    let Some(memcached) = Memcached::start() else {
        skip("client library over memcached", "it is not installed (apt-get install memcached)");
        return;
    };
    let client = client(&memcached);
    client.ping().wait().expect("a sign of life");
    from_memcached::run(client.clone()).expect("it runs");
    let key = ItemRef::of_record("k").expect("a key");
    let put = |when, value| client.put(key, &Put { when, ttl: 100, ..Put::value(value) }).wait();
    assert_eq!(put(When::Append, b"no").expect("a reply"), Stored::Absent);
    assert!(matches!(put(When::Always, b"middle").expect("a reply"), Stored::Yes(cas) if cas > 0));
    assert!(matches!(put(When::Append, b"!").expect("a reply"), Stored::Yes(_)));
    assert!(matches!(put(When::Prepend, b"?").expect("a reply"), Stored::Yes(_)));
    let item = client.get_and_touch(key, 0).wait().expect("a reply").expect("an item");
    assert_eq!((item.value.as_slice(), item.value_len, item.expiry), (&b"?middle!"[..], 8, 0));
    let item = client.get_metadata(key).wait().expect("a reply").expect("an item");
    assert_eq!((item.value.len(), item.value_len), (0, 8));
    let month = Put { ttl: 40 * 24 * 3600, ..Put::value(b"v") };
    client.put(key, &month).wait().expect("a reply");
    let item = client.get(key).wait().expect("a reply").expect("it lives longer than 30 days");
    assert!(item.expiry > 1_700_000_000);
    let large = vec![b'v'; 2 << 20];
    let error = client.put(key, &Put::value(&large)).wait().expect_err("memcached has a limit");
    assert!(matches!(error, ClientError::Refused { .. }), "{error}");
    assert!(client.get(key).wait().is_ok(), "the connection goes on");
}

#[test]
fn many_threads_share_a_connection_to_memcached() {
    let Some(memcached) = Memcached::start() else {
        skip("client library over memcached", "it is not installed (apt-get install memcached)");
        return;
    };
    let client = client(&memcached);
    thread::scope(|scope| {
        for thread in 0..8 {
            let client = client.clone();
            scope.spawn(move || {
                for number in 0..300 {
                    let name = format!("thread {thread} number {}", number % 40);
                    let key = ItemRef::of_record(&name).expect("a key");
                    let value = format!("{thread}:{number}");
                    client.put(key, &Put::value(value.as_bytes())).wait().expect("a reply");
                    let item = client.get(key).wait().expect("a reply").expect("an item");
                    assert_eq!(item.value, value.as_bytes());
                }
            });
        }
    });
    assert_eq!(client.metrics().retries, 0);
}

/// Counts until it is told to end: the numbers that it was told, and how often it does not know
/// whether it has counted.
fn count(client: &Client, record: &str, is_over: &AtomicBool) -> (Vec<u64>, u64) {
    let key = ItemRef::of_record(record).expect("a key");
    let (mut told, mut unknown) = (Vec::new(), 0);
    while !is_over.load(Ordering::Relaxed) {
        match client.increment(key, 1, Some(1)).wait() {
            Ok(number) => told.push(number.expect("it begins with 1")),
            Err(error) => {
                println!("{record}: {error}");
                unknown += u64::from(error.may_be_done());
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
    (told, unknown)
}

#[test]
fn changes_with_tokens_are_made_once_across_kills() {
    const COUNTERS: usize = 4;
    let store = Scratch::new("tokens");
    let options = NodeOptions::new(store.path()).shards(2);
    let mut node = Node::start(&options);
    // It comes back where it was.
    let options = NodeOptions { native_port: node.native().port(), ..options };
    let build = Client::builder().node(node.native().to_string()).tokens(true);
    let client = build.timeout(Duration::from_secs(60)).build().expect("a client");
    let is_over = AtomicBool::new(false);
    let records: Vec<String> = (0..COUNTERS).map(|number| format!("counter{number}")).collect();
    let (counted, node) = thread::scope(|scope| {
        let (client, is_over) = (&client, &is_over);
        let counters: Vec<_> = records
            .iter()
            .map(|record| scope.spawn(move || count(client, record, is_over)))
            .collect();
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(300));
            node.kill();
            thread::sleep(Duration::from_millis(200));
            node = Node::start(&options);
        }
        thread::sleep(Duration::from_millis(300));
        is_over.store(true, Ordering::Relaxed);
        let join = |counter: thread::ScopedJoinHandle<'_, _>| counter.join().expect("no panic");
        (counters.into_iter().map(join).collect::<Vec<_>>(), node)
    });
    for (record, (told, unknown)) in records.iter().zip(counted) {
        let key = ItemRef::of_record(record).expect("a key");
        let last = client.increment(key, 0, None).wait().expect("a reply").expect("a number");
        println!("{record}: {last}, {} told, {unknown} unknown", told.len());
        assert!(told.windows(2).all(|pair| pair[0] < pair[1]), "{record}: {told:?}");
        // What was done twice would be counted, and told to nobody.
        let untold = last - told.len() as u64;
        assert!(untold <= unknown, "{record}: {untold} of {last} were told to nobody");
    }
    assert!(client.metrics().retries > 0, "some had to be sent again");
    node.stop();
}
