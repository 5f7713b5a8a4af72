//! A program that has moved over from memcached: the same calls to a Larder node, or to memcached
//! (`cargo run -p larder-client --example from_memcached -- memcached 127.0.0.1:11211`).
#![forbid(unsafe_code)]

use larder_client::{CasOutcome, Client, ClientError, Memcache};

pub(crate) fn run(client: Client) -> Result<(), ClientError> {
    let cache = Memcache::over(client);
    cache.delete("page").wait()?;
    assert_eq!(cache.get("page").wait()?, None);
    assert!(!cache.replace("page", b"no", 0, 0).wait()?);
    assert!(cache.add("page", b"first", 7, 600).wait()?);
    assert!(!cache.add("page", b"no", 0, 0).wait()?);
    let page = cache.gets("page").wait()?.expect("it was just stored");
    assert_eq!((page.value.as_slice(), page.flags), (&b"first"[..], 7));
    assert_eq!(cache.cas("page", b"second", 8, 0, page.cas).wait()?, CasOutcome::Stored);
    assert_eq!(cache.cas("page", b"third", 8, 0, page.cas).wait()?, CasOutcome::Exists);
    assert_eq!(cache.cas("none", b"third", 8, 0, page.cas).wait()?, CasOutcome::NotFound);
    assert!(cache.replace("page", b"fourth", 0, 3600).wait()?);
    assert!(cache.touch("page", 60).wait()? && !cache.touch("none", 60).wait()?);

    cache.set("visits", b"10", 0, 0).wait()?;
    assert_eq!(cache.incr("visits", 5).wait()?, Some(15));
    assert_eq!(cache.decr("visits", 6).wait()?, Some(9));
    assert_eq!(cache.decr("visits", 60).wait()?, Some(0));
    assert_eq!(cache.incr("none", 1).wait()?, None);
    let error = cache.incr("page", 1).wait().expect_err("it is no number");
    assert!(!error.may_be_done(), "{error}");

    let keys: Vec<String> = (0..50).map(|number| format!("key {number} of text")).collect();
    let stored = cache.set_multi(keys.iter().map(|key| (key, key.as_bytes())), 3, 0);
    stored.wait().into_iter().collect::<Result<Vec<()>, _>>()?;
    let read = cache.get_multi(keys.iter().map(String::as_str).chain(["none"])).wait();
    let read = read.into_iter().collect::<Result<Vec<_>, _>>()?;
    for (key, value) in keys.iter().zip(&read) {
        let value = value.as_ref().expect("it was just stored");
        assert_eq!((value.value.as_slice(), value.flags), (key.as_bytes(), 3));
    }
    assert_eq!(read.last(), Some(&None));
    assert!(cache.delete("page").wait()? && !cache.delete("page").wait()?);
    Ok(())
}

fn main() -> Result<(), ClientError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &*arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        ["memcached", address] => run(Client::builder().node(*address).memcached().build()?),
        [address] => run(Client::connect(*address)?),
        _ => run(Client::connect("127.0.0.1:9411")?),
    }
}
