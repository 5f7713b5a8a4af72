//! The client library against memcached itself.

use larder_client::{Client, ClientError, ItemRef, Put, Stored, When};
use larder_tests::memcached::Memcached;
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
    std::thread::scope(|scope| {
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
