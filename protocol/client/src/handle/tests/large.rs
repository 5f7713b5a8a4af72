//! Values that come in chunks, over nodes that close in the middle.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_core::Stream;
use larder_protocol::native::{
    LargeHead, LargeItem, LargeWork, NativeRequest, NativeStatus, RequestHead, StoreWhen, reply,
};

use super::fake::{Fake, GoesOn, item, reply_head, say};
use super::{builder, key, numbers, seed};
use crate::{Client, ClientError, LargePut, LargeReader, Stored, When};

const CHUNK_BYTES: u32 = 1000;

/// The uploads of a node.
#[derive(Default)]
struct Uploads {
    begun: u64,
    chunks: HashMap<u64, Vec<Option<Vec<u8>>>>,
    /// Bytes that each has in all.
    lens: HashMap<u64, u32>,
    /// By record, the upload that was committed.
    values: HashMap<Vec<u8>, u64>,
    aborted: usize,
}

/// What a node does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// It does and answers it.
    All,
    /// It closes the connection before it does it.
    Nothing,
    /// It does it and closes the connection instead of answering.
    HalfOfIt,
}

#[derive(Clone, Default)]
struct LargeNode(Arc<Mutex<Uploads>>);

impl LargeNode {
    /// A node that does with each step what `does` says.
    fn start(&self, does: impl Fn(&LargeWork<'_>) -> Does + Send + Sync + 'static) -> Fake {
        let node = self.clone();
        Fake::start(move |mut peer| {
            peer.each(|head, request, out| node.answer(head, request, &does, out));
        })
    }

    /// A node over a slow link: chunks are answered one after the other, each `delay` after the
    /// one before it, and so many of them at all.
    fn start_slow(&self, delay: Duration, answered_max: usize) -> Fake {
        let node = self.clone();
        Fake::start(move |mut peer| {
            let mut stream = peer.stream.try_clone().expect("a descriptor");
            let mut answered = 0;
            peer.each(|head, request, _| {
                let work = match request {
                    NativeRequest::Large(LargeItem { work, .. }) => Some(work),
                    _ => None,
                };
                if let Some(LargeWork::PutChunk { .. } | LargeWork::GetChunk { .. }) = work {
                    let left = Duration::from_micros(head.deadline_microseconds.into());
                    assert!(left > 3 * delay, "the node waits for those before it: {left:?}");
                    if answered == answered_max {
                        return true;
                    }
                    answered += 1;
                    std::thread::sleep(delay);
                }
                let mut told = Vec::new();
                let goes_on = node.answer(head, request, &|_| Does::All, &mut told);
                stream.write_all(&told).is_ok() && goes_on
            });
        })
    }

    fn answer(
        &self,
        head: RequestHead,
        request: &NativeRequest<'_>,
        does: &impl Fn(&LargeWork<'_>) -> Does,
        out: &mut Vec<u8>,
    ) -> GoesOn {
        let mut uploads = self.0.lock().expect("whole");
        match request {
            NativeRequest::Get(get) => {
                uploads.show(head, get.key.record, out);
                true
            }
            NativeRequest::Large(LargeItem { key, work }) => {
                let does = does(work);
                let mut told = Vec::new();
                if does != Does::Nothing {
                    uploads.step(head, key.record, work, &mut told);
                }
                if does == Does::All {
                    out.extend_from_slice(&told);
                }
                does == Does::All
            }
            other => panic!("{other:?}"),
        }
    }

    /// The value that the record has, and how many uploads were begun and aborted.
    fn state(&self, record: &str) -> (Option<Vec<u8>>, u64, usize) {
        let uploads = self.0.lock().expect("whole");
        let upload = uploads.values.get(record.as_bytes());
        let value = upload.map(|upload| {
            let chunks = uploads.chunks[upload].iter();
            chunks.flat_map(|chunk| chunk.clone().expect("it was committed")).collect()
        });
        (value, uploads.begun, uploads.aborted)
    }
}

impl Uploads {
    fn head(&self, upload: u64) -> LargeHead {
        LargeHead { upload, len: self.lens[&upload], chunk_bytes: CHUNK_BYTES }
    }

    fn show(&self, head: RequestHead, record: &[u8], out: &mut Vec<u8>) {
        let Some(upload) = self.values.get(record) else {
            return say(head, NativeStatus::Absent, out);
        };
        let stands = self.head(*upload);
        let mut shown = item(b"");
        shown.value_len = stands.len;
        reply::put_large(out, reply_head(head), &shown, &stands.bytes());
    }

    fn step(&mut self, head: RequestHead, record: &[u8], work: &LargeWork<'_>, out: &mut Vec<u8>) {
        match *work {
            LargeWork::Stage { len } => {
                self.begun += 1;
                self.lens.insert(self.begun, len);
                let staged = self.head(self.begun);
                self.chunks.insert(self.begun, vec![None; staged.chunks() as usize]);
                let bytes = staged.bytes();
                let put = |out: &mut Vec<u8>| out.extend_from_slice(&bytes);
                reply::put(out, reply_head(head), NativeStatus::Ok, put);
            }
            LargeWork::PutChunk { upload, index, bytes } => {
                assert_eq!(bytes.len() as u32, self.head(upload).chunk_len(index));
                let chunks = self.chunks.get_mut(&upload).expect("it was begun");
                chunks[index as usize] = Some(bytes.to_vec());
                say(head, NativeStatus::Ok, out);
            }
            LargeWork::Commit { upload, when, .. } => {
                let is_again = self.values.get(record) == Some(&upload);
                if when == StoreWhen::IfAbsent && self.values.contains_key(record) && !is_again {
                    return say(head, NativeStatus::Exists, out);
                }
                assert!(self.chunks[&upload].iter().all(Option::is_some), "all have come");
                self.values.insert(record.to_vec(), upload);
                reply::put_version(out, reply_head(head), 7);
            }
            LargeWork::Abort { .. } => {
                self.aborted += 1;
                say(head, NativeStatus::Ok, out);
            }
            LargeWork::GetChunk { upload, index } => {
                if self.values.get(record) != Some(&upload) {
                    return say(head, NativeStatus::Changed, out);
                }
                let chunk = self.chunks[&upload][index as usize].clone().expect("whole");
                let put = |out: &mut Vec<u8>| out.extend_from_slice(&chunk);
                reply::put(out, reply_head(head), NativeStatus::Ok, put);
            }
        }
    }
}

fn value(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 + at / 1000) as u8).collect()
}

fn put(len: usize) -> LargePut<'static> {
    LargePut { len: len as u32, ..LargePut::default() }
}

fn read(client: &Client, record: &str) -> Vec<u8> {
    let mut reader = client.get_large(key(record)).wait().expect("a reply").expect("an item");
    let mut read = Vec::new();
    reader.read_to_end(&mut read).expect("readable");
    assert_eq!(read.len(), reader.item().value_len as usize);
    read
}

#[test]
fn a_value_is_whole_however_often_the_node_closes_in_the_middle() {
    let seed = seed();
    let (node, random) = (LargeNode::default(), Mutex::new(numbers(seed)));
    let fake = node.start(move |_| match random.lock().expect("whole")(12) {
        0 => Does::Nothing,
        1 => Does::HalfOfIt,
        _ => Does::All,
    });
    let client = builder(&fake.address).tries(100).build().expect("a client");
    for (record, len) in [("a", 40_500), ("b", 1), ("c", 1000), ("d", 4001)] {
        let (value, mut told) = (value(len), Vec::new());
        let stored = client.put_large(key(record), &put(len), &value[..], |done| told.push(done));
        assert_eq!(stored.expect("it goes on"), Stored::Yes(7), "{record}");
        assert!(told.is_sorted() && told.last() == Some(&(len as u64)), "{told:?}");
        assert!(node.state(record).0.expect("stored") == value, "{record}");
        assert!(read(&client, record) == value, "{record}");
    }
    assert!(client.metrics().retries > 0, "some have been sent again");
}

#[test]
fn four_chunks_are_under_way_at_a_time() {
    let uploads = LargeNode::default();
    // Answers chunks when four have come, or the last one.
    let fake = Fake::start(move |mut peer| {
        let mut waiting = Vec::new();
        peer.each(|head, request, out| {
            let is_chunk = matches!(
                request,
                NativeRequest::Large(LargeItem {
                    work: LargeWork::PutChunk { .. } | LargeWork::GetChunk { .. },
                    ..
                })
            );
            let mut told = Vec::new();
            uploads.answer(head, request, &|_| Does::All, &mut told);
            if !is_chunk {
                out.extend_from_slice(&told);
                return true;
            }
            waiting.push(told);
            if waiting.len() == 4 {
                waiting.drain(..).for_each(|told| out.extend_from_slice(&told));
            }
            true
        });
    });
    let client = builder(&fake.address).timeout(Duration::from_secs(10)).build().expect("a client");
    let value = value(8000);
    let stored = client.put_large(key("r"), &put(8000), &value[..], |_| ());
    assert_eq!(stored.expect("four come together"), Stored::Yes(7));
    assert!(read(&client, "r") == value);
}

#[test]
fn each_chunk_has_its_time_from_the_answer_before_it_on() {
    const DELAY: Duration = Duration::from_millis(200);
    const TIMEOUT: Duration = Duration::from_millis(500);
    let node = LargeNode::default();
    let fake = node.start_slow(DELAY, usize::MAX);
    let client = builder(&fake.address).timeout(TIMEOUT).build().expect("a client");
    let value = value(7500);
    // The fourth chunk that is under way is answered after 800 ms.
    let stored = client.put_large(key("r"), &put(7500), &value[..], |_| ());
    assert_eq!(stored.expect("the link is slow"), Stored::Yes(7));
    assert!(read(&client, "r") == value);
    drop(fake);

    let node = LargeNode::default();
    let fake = node.start_slow(DELAY, 3);
    let client = builder(&fake.address).timeout(TIMEOUT).tries(1).build().expect("a client");
    let began = Instant::now();
    let failed = client.put_large(key("r"), &put(7500), &value[..], |_| ());
    let (failed, took) = (failed.expect_err("the fourth has no answer"), began.elapsed());
    assert!(matches!(failed, ClientError::Timeout { seconds } if seconds == 0.5), "{failed}");
    let expected = 3 * DELAY + TIMEOUT;
    assert!(took >= expected && took < expected + Duration::from_secs(5), "{took:?}");
}

#[test]
fn an_error_says_whether_the_value_may_be_there() {
    let node = LargeNode::default();
    let fake = node.start(|work| match work {
        LargeWork::PutChunk { index: 2, .. } => Does::Nothing,
        _ => Does::All,
    });
    let client = builder(&fake.address).timeout(Duration::from_millis(500)).build();
    let client = client.expect("a client");
    let value = value(5000);
    let failed = client.put_large(key("r"), &put(5000), &value[..], |_| ());
    let failed = failed.expect_err("a chunk never comes through");
    assert!(!matches!(failed, ClientError::Usage(_)), "{failed}");
    assert_eq!(node.state("r").0, None);
    drop(fake);

    let node = LargeNode::default();
    let fake = node.start(|work| match work {
        LargeWork::Commit { .. } => Does::HalfOfIt,
        _ => Does::All,
    });
    let client = builder(&fake.address).timeout(Duration::from_millis(500)).build();
    let client = client.expect("a client");
    let failed = client.put_large(key("r"), &put(5000), &value[..], |_| ());
    let failed = failed.expect_err("the answer never comes");
    assert!(failed.may_be_done(), "{failed}");
    assert!(node.state("r").0.expect("it was done") == value);
}

#[test]
fn what_is_given_up_is_aborted_and_says_why() {
    let node = LargeNode::default();
    let fake = node.start(|_| Does::All);
    let client = builder(&fake.address).build().expect("a client");
    let short = client.put_large(key("r"), &put(5000), &value(4999)[..], |_| ());
    assert!(matches!(short, Err(ClientError::Source(_))), "{short:?}");
    let append = LargePut { when: When::Append, ..put(5) };
    let append = client.put_large(key("r"), &append, &value(5)[..], |_| ());
    assert!(matches!(append, Err(ClientError::Usage(_))), "{append:?}");
    client.put_large(key("r"), &put(3000), &value(3000)[..], |_| ()).expect("stored");
    let absent = LargePut { when: When::Absent, ..put(10) };
    let stored = client.put_large(key("r"), &absent, &value(10)[..], |_| ());
    assert_eq!(stored.expect("it is decided"), Stored::Exists);
    smol::block_on(async {
        let mut upload = client.upload(key("r"), &put(10)).expect("begun");
        upload.send(b"12345").await.expect("taken");
        let more = upload.send(b"123456").await.expect_err("one too many");
        assert!(more.to_string().contains("1 more"), "{more}");
        let early = upload.commit().await.expect_err("not all has come");
        assert!(early.to_string().contains("5 of the 10"), "{early}");
    });
    super::many_nodes::until("all of it is aborted", || node.state("r").2 == 3);
    assert_eq!(node.state("r").1, 4);
    assert!(node.state("r").0.expect("as before") == value(3000));
}

#[test]
fn tasks_send_and_read_as_bytes_come() {
    let node = LargeNode::default();
    let fake = node.start(|_| Does::All);
    let client = builder(&fake.address).chunks_under_way(2).build().expect("a client");
    let value = value(10_100);
    smol::block_on(async {
        let mut upload = client.upload(key("r"), &put(value.len())).expect("begun");
        for part in value.chunks(777) {
            upload.send(part).await.expect("taken");
        }
        assert!(upload.confirmed() > 0, "only two are under way");
        assert_eq!(upload.commit().await.expect("stored"), Stored::Yes(7));
        let mut reader = client.get_large(key("r")).await.expect("a reply").expect("an item");
        let mut read = vec![0; 10];
        reader.read_exact(&mut read).expect("readable");
        while let Some(chunk) = next(&mut reader).await {
            read.extend_from_slice(&chunk.expect("readable"));
        }
        assert!(read == value);
        // It is replaced while it is read: some chunks were asked for before.
        let mut reader = client.get_large(key("r")).await.expect("a reply").expect("an item");
        reader.next_chunk().await.expect("readable").expect("the first");
        let other = client.put_large(key("r"), &put(5), &b"other"[..], |_| ());
        assert_eq!(other.expect("stored"), Stored::Yes(7));
        let mut chunks = 1;
        let error = loop {
            match reader.next_chunk().await {
                Ok(chunk) => chunk.map(|_| chunks += 1).expect("it does not end whole"),
                Err(error) => break error,
            }
        };
        let is_changed = |status| status == Some(NativeStatus::Changed);
        assert!(matches!(error, ClientError::Refused { status, .. } if is_changed(status)));
        assert!(chunks < 11, "{chunks}");
        assert!(reader.next_chunk().await.expect("over").is_none());
        assert!(client.get_large(key("none")).await.expect("a reply").is_none());
    });
}

/// The next chunk, as a stream gives it.
async fn next(reader: &mut LargeReader) -> Option<Result<Vec<u8>, ClientError>> {
    std::future::poll_fn(|context| std::pin::Pin::new(&mut *reader).poll_next(context)).await
}

#[test]
fn each_replica_gets_the_value_and_the_other_is_read_where_one_is_gone() {
    let nodes = [LargeNode::default(), LargeNode::default()];
    let mut fakes: Vec<_> = nodes.iter().map(|node| node.start(|_| Does::All)).collect();
    let client = builder(&fakes[0].address).node(&fakes[1].address).replicas(2).build();
    let client = client.expect("a client");
    let value = value(9500);
    let stored = client.put_large(key("r"), &put(9500), &value[..], |_| ());
    assert_eq!(stored.expect("both have done it"), Stored::Yes(7));
    for node in &nodes {
        assert!(node.state("r").0.expect("stored") == value);
    }
    let absent = LargePut { when: When::Absent, ..put(10) };
    let refused = client.put_large(key("r"), &absent, &value[..], |_| ());
    assert!(matches!(refused, Err(ClientError::Usage(_))), "{refused:?}");
    // Whichever of them is asked first.
    fakes.swap_remove(usize::from(client.core.placement.of(b"r").as_slice()[0]));
    assert!(read(&client, "r") == value, "the other node has it");
}
