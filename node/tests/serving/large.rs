//! Values that come in chunks, over each door.

#![allow(clippy::disallowed_methods, reason = "tests write files")]

use std::io::Read;
use std::time::Duration;

use larder_client::{
    Changes, ClientConnection, ClientError, ItemRange, ItemRef, ItemsOf, LargePut, Put, Stored,
    When,
};
use larder_protocol::native::reply::NativeReply;
use larder_protocol::native::{
    GetItem, LargeHead, LargeItem, LargeWork, NativeRequest, NativeStatus, PutMode, StoreWhen,
};

use super::ask::run;
use super::client::{TestNode, noise};
use super::native::{Answered, NativeClient, key, put};

const PATIENCE: Duration = Duration::from_secs(20);

fn open(node: &TestNode) -> ClientConnection {
    let address = node.node.addresses().native.to_string();
    ClientConnection::open(&address, PATIENCE).expect("the node accepts")
}

fn put_large(
    client: &mut ClientConnection,
    record: &str,
    value: &[u8],
    when: When<'_>,
) -> Result<Stored, ClientError> {
    let len = u32::try_from(value.len()).expect("it is short");
    let put = LargePut { len, when, client_flags: 9, ttl: 0 };
    client.put_large(ItemRef::of_record(record)?, &put, value, |_| ())
}

fn read(client: &mut ClientConnection, record: &str) -> Option<Vec<u8>> {
    let key = ItemRef::of_record(record).expect("a good key");
    let mut reader = client.get_large(key).expect("readable")?;
    let (mut value, len) = (Vec::new(), reader.item().value_len);
    reader.read_to_end(&mut value).expect("readable");
    assert_eq!(value.len(), len as usize);
    Some(value)
}

fn status_of(error: &ClientError) -> Option<NativeStatus> {
    match error {
        ClientError::Refused { status, .. } => *status,
        other => panic!("{other}"),
    }
}

#[test]
fn large_values_go_in_and_come_out_on_every_core_and_outlast_a_stop() {
    let node = TestNode::start(2);
    let mut client = open(&node);
    let hello = client.hello("a test").expect("it answers");
    assert_eq!((hello.large_bytes_max, hello.chunk_bytes_max), (128 << 20, 512 << 10));
    // Records of both shards.
    let values: Vec<_> = (0..4).map(|seed| noise(seed, 1_500_000 + seed as usize)).collect();
    for (number, value) in values.iter().enumerate() {
        let (record, mut done) = (format!("film:{number}"), Vec::new());
        let put = LargePut { len: value.len() as u32, ..LargePut::default() };
        let key = ItemRef::of_record(&record).expect("a good key");
        let stored = client.put_large(key, &put, value.as_slice(), |bytes| done.push(bytes));
        assert!(matches!(stored, Ok(Stored::Yes(_))), "{stored:?}");
        assert_eq!((done.len(), done.last()), (3, Some(&(value.len() as u64))));
        assert!(read(&mut client, &record).as_ref() == Some(value), "{record}");
    }
    let items = ItemsOf::record(0, "film:1").expect("a good key");
    let items = items.range(ItemRange::Prefix(b"")).expect("a good range");
    let shown: Vec<_> = client.items(items).collect::<Result<_, _>>().expect("readable");
    assert_eq!((shown.len(), shown[0].value_len), (1, 1_500_001));
    assert_eq!(shown[0].value, None, "it is left out");
    let node = TestNode::start_in(node.stop(), 2, |_| {});
    let mut client = open(&node);
    for (number, value) in values.iter().enumerate() {
        assert!(read(&mut client, &format!("film:{number}")).as_ref() == Some(value));
    }
    assert_eq!(read(&mut client, "film:9"), None);
    client.put(ItemRef::of_record("small").expect("good"), &Put::value(b"v")).expect("stored");
    assert_eq!(read(&mut client, "small"), Some(b"v".to_vec()));
    node.stop();
}

#[test]
fn what_goes_wrong_leaves_the_item_as_it_was() {
    let node = TestNode::start(1);
    let mut client = open(&node);
    let (old, new) = (noise(1, 4_000_000), noise(2, 700_000));
    assert!(matches!(put_large(&mut client, "k", &old, When::Absent), Ok(Stored::Yes(_))));
    let stored = put_large(&mut client, "k", &new, When::Absent).expect("it is decided");
    assert_eq!(stored, Stored::Exists);
    let stored = put_large(&mut client, "k", &new, When::Version(1)).expect("it is decided");
    assert_eq!(stored, Stored::VersionDiffers);
    assert_eq!(put_large(&mut client, "none", &new, When::Present).ok(), Some(Stored::Absent));
    let longer = LargePut { len: 700_001, ..LargePut::default() };
    let key = ItemRef::of_record("k").expect("a good key");
    let ended = client.put_large(key, &longer, new.as_slice(), |_| ());
    assert!(matches!(ended, Err(ClientError::Source(_))), "{ended:?}");
    let append = put_large(&mut client, "k", &new, When::Append);
    assert!(matches!(append, Err(ClientError::Usage(_))), "{append:?}");
    for len in [0, (128 << 20) + 1] {
        let put = LargePut { len, ..LargePut::default() };
        let refused = client.put_large(key, &put, new.as_slice(), |_| ()).expect_err("a length");
        assert_eq!(status_of(&refused), Some(NativeStatus::TooLarge));
    }
    let part = Put { when: When::Append, ..Put::value(b"more") };
    let refused = client.put(key, &part).expect_err("it is large");
    assert_eq!(status_of(&refused), Some(NativeStatus::IsLarge));
    let refused = client.increment(key, 1, None).expect_err("it is large");
    assert_eq!(status_of(&refused), Some(NativeStatus::IsLarge));
    let mut changes = Changes::of_record(0, "k").expect("a good key");
    changes.put("other", &Put::value(b"v")).expect("a good change");
    changes.increment("", 1, None).expect("a good change");
    let refused = client.mutate(&changes).expect_err("it is large");
    assert_eq!(status_of(&refused), Some(NativeStatus::IsLarge));
    assert!(refused.to_string().contains("change 1"), "{refused}");
    let refused = client.get(key).expect_err("it is large");
    assert_eq!(status_of(&refused), Some(NativeStatus::Large));
    assert!(refused.to_string().contains("in chunks"), "{refused}");
    assert!(read(&mut client, "k") == Some(old), "it is as it was");
    assert_eq!(client.touch(key, 1000).ok(), Some(true));
    // Who is in the middle of it is told when it is replaced.
    let mut other = open(&node);
    let mut reader = client.get_large(key).expect("readable").expect("it is there");
    assert_eq!(reader.next_chunk().expect("readable").map(|chunk| chunk.len()), Some(512 << 10));
    other.put(key, &Put::value(b"small")).expect("stored");
    // Some chunks were asked for before.
    let chunks: Vec<_> = std::iter::repeat_with(|| reader.next_chunk()).take(7).collect();
    let changed = chunks.into_iter().find_map(Result::err).expect("it was replaced");
    assert_eq!(status_of(&changed), Some(NativeStatus::Changed));
    drop(reader);
    assert_eq!(read(&mut client, "k"), Some(b"small".to_vec()));
    node.stop();
}

fn large<'a>(record: &'a str, work: LargeWork<'a>) -> NativeRequest<'a> {
    NativeRequest::Large(LargeItem { key: key(record), work })
}

fn staged(answered: &Answered) -> LargeHead {
    assert_eq!(answered.status, NativeStatus::Ok);
    LargeHead::read(&answered.body).expect("it stands for a value")
}

#[test]
fn each_step_says_what_was_wrong() {
    let node = TestNode::start(2);
    let mut client = NativeClient::connect(node.node.addresses().native);
    let staging = client.ask(&large("r", LargeWork::Stage { len: 600_000 }));
    let LargeHead { upload, len, chunk_bytes } = staged(&staging);
    assert_eq!((len, chunk_bytes), (600_000, 512 << 10));
    let (first, second) = (noise(1, 512 << 10), noise(2, 600_000 - (512 << 10)));
    let chunk = |index, bytes| LargeWork::PutChunk { upload, index, bytes };
    let commit =
        |upload| LargeWork::Commit { upload, when: StoreWhen::Always, client_flags: 3, ttl: 0 };
    assert_eq!(client.status(&large("r", chunk(1, &first))), NativeStatus::Malformed);
    assert_eq!(client.status(&large("r", chunk(2, &second))), NativeStatus::Malformed);
    assert_eq!(client.status(&large("other", chunk(0, &first))), NativeStatus::NoUpload);
    assert_eq!(client.status(&large("r", commit(upload + 1))), NativeStatus::NoUpload);
    assert_eq!(client.status(&large("r", chunk(1, &second))), NativeStatus::Ok);
    let missing = client.ask(&large("r", commit(upload)));
    assert_eq!((missing.status, &missing.body[..]), (NativeStatus::MissingChunk, &[0; 4][..]));
    assert_eq!(client.status(&large("r", chunk(0, &first))), NativeStatus::Ok);
    let get = |index| LargeWork::GetChunk { upload, index };
    assert_eq!(client.status(&large("r", get(0))), NativeStatus::Changed);
    let committed = client.ask(&large("r", commit(upload)));
    assert_eq!((committed.status, committed.body.len()), (NativeStatus::Ok, 8));
    assert_eq!(client.ask(&large("r", commit(upload))).body, committed.body);
    assert_eq!(client.ask(&large("r", get(1))).body, second);
    assert_eq!(client.status(&large("r", get(2))), NativeStatus::Malformed);
    assert_eq!(client.status(&large("r", LargeWork::Abort { upload })), NativeStatus::NoUpload);
    let asked =
        NativeRequest::Get(GetItem { key: key("r"), metadata_only: false, is_quiet: false });
    let shown = client.ask(&asked);
    assert_eq!(shown.status, NativeStatus::Large);
    let head = larder_protocol::native::reply::ReplyHead {
        id: 0,
        opcode: 0x10,
        has_checksum: false,
        hops: 0,
    };
    let reply = NativeReply { head, status: Some(shown.status), body: &shown.body };
    let (item, stands) = reply.large().expect("it shows a large value");
    assert_eq!((item.value_len, item.client_flags, stands), (600_000, 3, staged(&staging)));
    let mut unknown = large("r", commit(upload));
    if let NativeRequest::Large(item) = &mut unknown {
        item.key.namespace = 77;
    }
    assert_eq!(client.status(&unknown), NativeStatus::UnknownNamespace);
    node.stop();
}

#[test]
fn memcached_is_told_where_to_read_a_large_value() {
    let node = TestNode::start(2);
    let mut client = open(&node);
    for record in ["a", "b"] {
        put_large(&mut client, record, &noise(1, 600_000), When::Always).expect("stored");
    }
    let mut native = NativeClient::connect(node.node.addresses().native);
    native.ask(&put(key("small"), PutMode::IfAbsent, b"v"));
    let told = "SERVER_ERROR the value is large; read it in chunks on the native port\r\n";
    let mut memcached = node.connect();
    for record in ["a", "b"] {
        memcached.ask(format!("get {record}\r\n"), told);
        memcached.ask(format!("mg {record} v\r\n"), told);
        memcached.ask(format!("append {record} 0 0 1\r\nx\r\n"), told);
        memcached.ask(format!("incr {record} 1\r\n"), told);
        memcached.ask(format!("mg {record} s f\r\n"), "HD s600000 f9\r\n");
        memcached.ask(format!("touch {record} 100\r\n"), "TOUCHED\r\n");
    }
    memcached.ask("get small\r\n", "VALUE small 7 1\r\nv\r\nEND\r\n");
    memcached.ask("get small a b small\r\n", format!("VALUE small 7 1\r\nv\r\n{told}"));
    memcached.ask("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    memcached.ask("delete b\r\n", "DELETED\r\n");
    assert_eq!(read(&mut client, "a"), Some(b"x".to_vec()));
    assert_eq!(read(&mut client, "b"), None);
    node.stop();
}

#[test]
fn commands_store_and_show_values_of_any_length() {
    let node = TestNode::start(1);
    let value = noise(3, 3_000_000);
    let file = node.directory.path().join("film");
    std::fs::write(&file, &value).expect("written");
    let path = file.to_str().expect("text");
    let (code, stdout, stderr) = run(&node, &["set", "film", "--file", path], b"");
    assert_eq!((code, stdout, stderr), (Some(0), vec![], String::new()));
    let (code, stdout, stderr) = run(&node, &["get", "film"], b"");
    assert!((code, stderr.as_str()) == (Some(0), "") && stdout == value, "{stderr}");
    assert_eq!(run(&node, &["set", "piped"], &value).0, Some(0));
    assert!(run(&node, &["get", "piped"], b"").1 == value);
    let (code, _, stderr) = run(&node, &["set", "film", "--file", path, "--if-absent"], b"");
    assert!(code == Some(1) && stderr.contains("already"), "{stderr}");
    let (code, stdout, _) = run(&node, &["get", "film", "--json"], b"");
    let shown: serde_json::Value = serde_json::from_slice(&stdout).expect("JSON");
    assert_eq!((code, &shown["length"]), (Some(0), &3_000_000.into()));
    assert_eq!(run(&node, &["del", "film"], b"").0, Some(0));
    assert_eq!(run(&node, &["get", "film"], b"").0, Some(1));
    node.stop();
}
