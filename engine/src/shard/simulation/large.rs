//! Large values: each way that they come and go.

use std::collections::BTreeMap;

use larder_runtime::env::Env;

use super::harness::{TestShard, tiny_options};
use super::items::{flush_memtable, restart, start, touched};
use super::model::Reply;
use super::smoke::{delete, get, set};
use crate::error::EngineError;
use crate::key::{DEFAULT_NAMESPACE, Key};
use crate::large::{
    LARGE_BYTES_MAX, LargeAnswer, LargeRefusal, LargeRequest, LargeStep, LargeValue,
};
use crate::operation::{Arithmetic, Exchange, Operation, Outcome, Read, Store, StoreMode};
use crate::scan::Scan;
use crate::shard::{NamespaceCompression, NamespaceOptions, OperationBuf, ShardOptions};

/// The namespace of uploads and chunks.
const RESERVED: u32 = 0x7FFF_FFFD;

/// How an item is to be stored.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub namespace: u32,
    pub mode: StoreMode,
    pub compare: Option<u64>,
    pub expiry: u32,
}

pub(super) const PLAIN: Wanted =
    Wanted { namespace: DEFAULT_NAMESPACE, mode: StoreMode::Set, compare: None, expiry: 0 };

/// A value of so many bytes that no other seed gives.
pub(super) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let bytes = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    bytes.take(len).collect()
}

pub(super) async fn step(
    shard: &TestShard,
    (namespace, item): (u32, &[u8]),
    step: LargeStep,
) -> Result<LargeAnswer, EngineError> {
    let (record, item) = (b"r".to_vec(), item.to_vec());
    let request = LargeRequest { client: 0, namespace, record, item, step };
    let (answer, needs) = shard.large(&request).await?;
    shard.wait_acknowledged(needs).await?;
    Ok(answer)
}

fn store_of(wanted: Wanted) -> OperationBuf {
    let Wanted { mode, compare, expiry, .. } = wanted;
    OperationBuf::new(&Operation::Store(Store {
        mode,
        value: b"",
        client_flags: 7,
        expiry,
        compare,
        invalidate: false,
        is_large: false,
        vivify: None,
        version: None,
    }))
}

/// Stages all chunks of a value.
pub(super) async fn staged(
    shard: &TestShard,
    at: (u32, &[u8]),
    value: &[u8],
) -> Result<LargeValue, EngineError> {
    let len = value.len() as u32;
    let large = match step(shard, at, LargeStep::Stage { len }).await? {
        LargeAnswer::Staged(large) => large,
        other => panic!("{other:?}"),
    };
    // From the end, and one of them twice.
    let chunks = value.chunks(large.chunk_bytes as usize).enumerate();
    let mut chunks: Vec<_> = chunks.collect();
    chunks.reverse();
    chunks.extend_from_within(..1);
    for (index, bytes) in chunks {
        let (upload, index, bytes) = (large.upload, index as u32, bytes.to_vec());
        let answer = step(shard, at, LargeStep::PutChunk { upload, index, bytes }).await?;
        assert_eq!(answer, LargeAnswer::Done);
    }
    Ok(large)
}

pub(super) async fn put(
    shard: &TestShard,
    item: &[u8],
    value: &[u8],
    wanted: Wanted,
) -> Result<LargeAnswer, EngineError> {
    let at = (wanted.namespace, item);
    let upload = staged(shard, at, value).await?.upload;
    step(shard, at, LargeStep::Commit { upload, store: store_of(wanted) }).await
}

/// What an item has: nothing, a value, or all of a large one. `None` if it was replaced meanwhile.
pub(super) async fn look(
    shard: &TestShard,
    (namespace, item): (u32, &[u8]),
) -> Result<Option<Option<Vec<u8>>>, EngineError> {
    let reply = shard.run(&Key { namespace, record: b"r", item }, get(), Reply::new).await?;
    let large = match reply.outcome {
        Outcome::Miss => return Ok(Some(None)),
        Outcome::Hit => return Ok(Some(Some(reply.value))),
        Outcome::Large => LargeValue::decode(&reply.value).expect("it stands for one"),
        other => panic!("{other:?}"),
    };
    assert_eq!(reply.value_len, large.len as usize);
    let mut value = Vec::new();
    for index in 0..large.chunks() {
        let asked = LargeStep::GetChunk { upload: large.upload, index };
        match step(shard, (namespace, item), asked).await? {
            LargeAnswer::Chunk(bytes) => value.extend_from_slice(&bytes),
            LargeAnswer::Refused(LargeRefusal::Changed) => return Ok(None),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(value.len(), large.len as usize);
    Ok(Some(Some(value)))
}

async fn has(shard: &TestShard, item: &[u8]) -> Option<Vec<u8>> {
    let seen = look(shard, (DEFAULT_NAMESPACE, item)).await.expect("readable");
    seen.expect("nobody else changes it")
}

/// Keys of the reserved namespace.
pub(super) async fn kept(shard: &TestShard) -> usize {
    let mut scan = Scan::of_namespace(RESERVED);
    scan.keys_only = true;
    let mut items = 0;
    loop {
        let page = shard.scan(scan.clone()).await.expect("readable");
        items += page.items.len();
        let Some(place) = page.next else { return items };
        scan = scan.after(&place);
    }
}

/// Waits until the reserved namespace has so many items.
pub(super) async fn sweeps_down_to(shard: &TestShard, items: usize) {
    for _ in 0..2000 {
        if kept(shard).await == items {
            return;
        }
        shard.env.sleep(10_000_000).await;
    }
    panic!("{} items are kept instead of {items}", kept(shard).await);
}

/// Lets the sweep go round a few times.
pub(super) async fn several_rounds(shard: &TestShard) {
    let round = shard.options().large.round_nanoseconds;
    shard.env.sleep(20 * round).await;
}

/// Upload and chunks of a value of so many bytes.
fn items_of(len: usize) -> usize {
    1 + len.div_ceil(tiny_options().large.chunk_bytes_max)
}

async fn run(shard: &TestShard, item: &[u8], operation: OperationBuf) -> Reply {
    let key = Key { namespace: DEFAULT_NAMESPACE, record: b"r", item };
    shard.run(&key, operation, Reply::new).await.expect("nothing fails")
}

/// A large value is there for as long as nobody takes it away.
pub(super) fn a_large_value_stays() {
    let options = tiny_options();
    let (mut life, shard) = start(1, &options);
    let value = content(1, 10_000);
    let (worker, expected) = (shard.clone(), value.clone());
    life.block_on(async move {
        let done = put(&worker, b"i", &expected, PLAIN).await.expect("there is room");
        let LargeAnswer::Committed(version) = done else { panic!("{done:?}") };
        assert_eq!(has(&worker, b"i").await, Some(expected.clone()));
        flush_memtable(&worker).await;
        let touched = run(&worker, b"i", touched(2_000_000_000)).await;
        assert_eq!((touched.outcome, touched.metadata.version), (Outcome::Hit, version));
        several_rounds(&worker).await;
        assert_eq!(has(&worker, b"i").await, Some(expected));
    })
    .expect("runs");
    let (mut life, shard) = restart(life, shard, &options);
    life.block_on(async move {
        several_rounds(&shard).await;
        assert_eq!(has(&shard, b"i").await, Some(value));
        assert_eq!(kept(&shard).await, items_of(10_000));
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn a_large_value_stays_through_sweeps_and_restarts() {
    a_large_value_stays();
}

#[test]
fn sweeps_leave_the_value_cache_as_it_is() {
    let options = ShardOptions { item_cache_bytes: 256 << 10, ..tiny_options() };
    let (mut life, shard) = start(8, &options);
    life.block_on(async move {
        put(&shard, b"large", &content(1, 3000), PLAIN).await.expect("there is room");
        put(&shard, b"replaced", &content(2, 3000), PLAIN).await.expect("there is room");
        run(&shard, b"replaced", set(&[1; 5000])).await;
        flush_memtable(&shard).await;
        shard.state.borrow_mut().items.clear();
        sweeps_down_to(&shard, items_of(3000)).await;
        several_rounds(&shard).await;
        assert_eq!(shard.state.borrow().items.counters().entries, 0);
        assert_eq!(has(&shard, b"large").await, Some(content(1, 3000)));
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn chunks_go_with_what_they_belong_to() {
    let (mut life, shard) = start(2, &tiny_options());
    let env = life.env();
    life.block_on(async move {
        let value = content(2, 5000);
        let now = env.unix_seconds() as u32;
        let until = Wanted { expiry: now + 500, ..PLAIN };
        let items = [&b"set"[..], b"large", b"deleted", b"ranged", b"expired", b"flushed"];
        for item in items {
            let wanted = if item == b"expired" { until } else { PLAIN };
            put(&shard, item, &value, wanted).await.expect("there is room");
        }
        assert_eq!(kept(&shard).await, items.len() * items_of(5000));
        flush_memtable(&shard).await;
        let left = |gone: usize| (items.len() - gone) * items_of(5000);
        run(&shard, b"set", set(b"small")).await;
        sweeps_down_to(&shard, left(1)).await;
        put(&shard, b"large", &content(3, 5000), PLAIN).await.expect("there is room");
        sweeps_down_to(&shard, left(1)).await;
        assert_eq!(has(&shard, b"large").await, Some(content(3, 5000)));
        assert_eq!(run(&shard, b"deleted", delete()).await.outcome, Outcome::Deleted);
        sweeps_down_to(&shard, left(2)).await;
        let range = Scan::of_items(DEFAULT_NAMESPACE, b"r", b"ran");
        shard.delete_range(&range).await.expect("there is room");
        sweeps_down_to(&shard, left(3)).await;
        env.set_unix_seconds(u64::from(now) + 501);
        sweeps_down_to(&shard, left(4)).await;
        // If the clock goes back it is no item without its chunks.
        env.set_unix_seconds(u64::from(now) + 1);
        assert_eq!(has(&shard, b"expired").await, None);
        assert_eq!(has(&shard, b"flushed").await, Some(value));
        shard.flush_all(None).await.expect("there is room");
        sweeps_down_to(&shard, 0).await;
        assert_eq!(has(&shard, b"set").await, None);
        let live = || -> u64 {
            shard.journal.state().segments.values().map(|segment| segment.live_bytes).sum()
        };
        for _ in 0..200 {
            if live() == 0 && shard.index.ranges().is_empty() {
                break;
            }
            flush_memtable(&shard).await;
            env.sleep(20_000_000).await;
        }
        assert_eq!(live(), 0, "the space is free again");
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn what_is_not_committed_is_no_value_and_goes() {
    let options = tiny_options();
    let (mut life, shard) = start(3, &options);
    let env = life.env();
    let worker = shard.clone();
    let upload = life
        .block_on(async move {
            let at = (DEFAULT_NAMESPACE, &b"i"[..]);
            let value = content(5, 3000);
            let aborted = staged(&worker, at, &value).await.expect("there is room").upload;
            let abort = LargeStep::Abort { upload: aborted };
            let done = step(&worker, at, abort.clone()).await.expect("there is room");
            assert_eq!(done, LargeAnswer::Done);
            assert_eq!(kept(&worker).await, 0);
            let none = LargeAnswer::Refused(LargeRefusal::NoUpload);
            assert_eq!(step(&worker, at, abort).await.expect("runs"), none);
            let commit = LargeStep::Commit { upload: aborted, store: store_of(PLAIN) };
            assert_eq!(step(&worker, at, commit).await.expect("runs"), none);
            let abandoned = staged(&worker, at, &value).await.expect("there is room").upload;
            several_rounds(&worker).await;
            assert_eq!(has(&worker, b"i").await, None);
            assert_eq!(kept(&worker).await, items_of(3000));
            abandoned
        })
        .expect("runs");
    let now = env.unix_seconds();
    let (mut life, shard) = restart(life, shard, &options);
    let env = life.env();
    life.block_on(async move {
        let at = (DEFAULT_NAMESPACE, &b"i"[..]);
        env.set_unix_seconds(now + u64::from(options.large.staging_seconds) + 1);
        let commit = LargeStep::Commit { upload, store: store_of(PLAIN) };
        let none = LargeAnswer::Refused(LargeRefusal::NoUpload);
        assert_eq!(step(&shard, at, commit).await.expect("runs"), none);
        sweeps_down_to(&shard, 0).await;
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn commits_are_answered_again_and_go_by_their_conditions() {
    let (mut life, shard) = start(4, &tiny_options());
    life.block_on(async move {
        let at = (DEFAULT_NAMESPACE, &b"i"[..]);
        let refused = |outcome| LargeAnswer::Refused(LargeRefusal::Condition(outcome));
        let wanted = |mode, compare| Wanted { mode, compare, ..PLAIN };
        let asked = async |seed, wanted| {
            put(&shard, b"i", &content(seed, 2000), wanted).await.expect("there is room")
        };
        let replace = wanted(StoreMode::Replace, None);
        assert_eq!(asked(1, replace).await, refused(Outcome::NotStored));
        let LargeAnswer::Committed(version) = asked(2, wanted(StoreMode::Add, None)).await else {
            panic!("nothing was there");
        };
        assert_eq!(asked(3, wanted(StoreMode::Add, None)).await, refused(Outcome::NotStored));
        let other = wanted(StoreMode::Set, Some(version + 1));
        assert_eq!(asked(4, other).await, refused(Outcome::Exists));
        assert_eq!(has(&shard, b"i").await, Some(content(2, 2000)));
        let same = wanted(StoreMode::Set, Some(version));
        assert!(matches!(asked(5, same).await, LargeAnswer::Committed(_)));
        // What was refused may be committed otherwise.
        let upload = staged(&shard, at, &content(6, 2000)).await.expect("there is room").upload;
        let commit = |wanted| LargeStep::Commit { upload, store: store_of(wanted) };
        let add = commit(wanted(StoreMode::Add, None));
        let told = step(&shard, at, add).await.expect("runs");
        assert_eq!(told, refused(Outcome::NotStored));
        let first = step(&shard, at, commit(PLAIN)).await.expect("runs");
        assert!(matches!(first, LargeAnswer::Committed(_)));
        assert_eq!(step(&shard, at, commit(PLAIN)).await.expect("runs"), first);
        assert_eq!(has(&shard, b"i").await, Some(content(6, 2000)));
        run(&shard, b"i", set(b"small")).await;
        let changed = LargeAnswer::Refused(LargeRefusal::Changed);
        assert_eq!(step(&shard, at, commit(PLAIN)).await.expect("runs"), changed);
        let chunk = LargeStep::GetChunk { upload, index: 0 };
        assert_eq!(step(&shard, at, chunk).await.expect("runs"), changed);
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn steps_that_make_no_sense_are_refused() {
    let options = tiny_options();
    let (mut life, shard) = start(5, &options);
    life.block_on(async move {
        let at = (DEFAULT_NAMESPACE, &b"i"[..]);
        let refused = async |at, asked| match step(&shard, at, asked).await.expect("runs") {
            LargeAnswer::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        };
        let longest = options.large.len_max();
        assert!(longest < LARGE_BYTES_MAX, "a third of what may be staged");
        for len in [0, longest + 1, LARGE_BYTES_MAX + 1] {
            assert_eq!(refused(at, LargeStep::Stage { len }).await, LargeRefusal::Length);
        }
        let staged = step(&shard, at, LargeStep::Stage { len: 1500 }).await.expect("runs");
        let LargeAnswer::Staged(large) = staged else { panic!("{staged:?}") };
        assert_eq!((large.len, large.chunk_bytes, large.chunks()), (1500, 700, 3));
        let upload = large.upload;
        let chunk = |index, len| LargeStep::PutChunk { upload, index, bytes: vec![1; len] };
        for (index, len) in [(0, 699), (0, 701), (2, 700), (3, 1), (u32::MAX, 700)] {
            assert_eq!(refused(at, chunk(index, len)).await, LargeRefusal::WrongChunk);
        }
        let other = (DEFAULT_NAMESPACE, &b"j"[..]);
        assert_eq!(refused(other, chunk(0, 700)).await, LargeRefusal::NoUpload);
        let commit = || LargeStep::Commit { upload, store: store_of(PLAIN) };
        assert_eq!(refused(at, commit()).await, LargeRefusal::Missing(0));
        for (index, len) in [(0, 700), (2, 100)] {
            assert_eq!(step(&shard, at, chunk(index, len)).await.expect("runs"), LargeAnswer::Done);
        }
        assert_eq!(refused(at, commit()).await, LargeRefusal::Missing(1));
        assert_eq!(refused(other, commit()).await, LargeRefusal::NoUpload);
        let get = |index| LargeStep::GetChunk { upload, index };
        assert_eq!(refused(at, get(0)).await, LargeRefusal::Changed);
        let more = LargeStep::Stage { len: 9 };
        let mut begun = 1;
        let full = loop {
            match step(&shard, other, more.clone()).await.expect("runs") {
                LargeAnswer::Staged(_) => begun += 1,
                LargeAnswer::Refused(refusal) => break refusal,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((full, begun), (LargeRefusal::TooManyStaged, 13), "a fifth, for one client");
        let (record, item) = (b"r".to_vec(), b"j".to_vec());
        let (client, namespace, step_of_other) = (1, DEFAULT_NAMESPACE, more.clone());
        let request = LargeRequest { client, namespace, record, item, step: step_of_other };
        let (answer, _) = shard.large(&request).await.expect("runs");
        assert!(matches!(answer, LargeAnswer::Staged(_)), "others have room: {answer:?}");
        assert_eq!(step(&shard, at, chunk(1, 700)).await.expect("runs"), LargeAnswer::Done);
        step(&shard, at, commit()).await.expect("runs");
        assert_eq!(refused(at, get(3)).await, LargeRefusal::WrongChunk);
        step(&shard, other, more).await.expect("one has left room");
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn a_large_value_is_not_changed_in_part_and_pages_leave_it_out() {
    let (mut life, shard) = start(6, &tiny_options());
    life.block_on(async move {
        put(&shard, b"i", &content(1, 3000), PLAIN).await.expect("there is room");
        let part = |mode| {
            let store = store_of(Wanted { mode, ..PLAIN });
            let Operation::Store(store) = store.as_operation() else {
                panic!("it stores");
            };
            OperationBuf::new(&Operation::Store(Store { value: b"more", ..store }))
        };
        let (decrement, compare, vivify) = (false, None, None);
        let (expiry, version) = (None, None);
        let count = Arithmetic { delta: 1, decrement, compare, vivify, expiry, version };
        for operation in [
            part(StoreMode::Append),
            part(StoreMode::Prepend),
            OperationBuf::new(&Operation::Arithmetic(count)),
            OperationBuf::new(&Operation::Exchange(Exchange::delete(b"x"))),
            OperationBuf::new(&Operation::Exchange(Exchange::store(b"x", b"y", 0, 0))),
        ] {
            let reply = run(&shard, b"i", operation.clone()).await;
            assert_eq!(reply.outcome, Outcome::Large, "{operation:?}");
        }
        let metadata = OperationBuf::new(&Operation::Read(Read::default()));
        for _ in 0..2 {
            let reply = run(&shard, b"i", metadata.clone()).await;
            assert_eq!((reply.outcome, reply.value_len), (Outcome::Hit, 3000));
            assert!(reply.value.is_empty());
            let page = shard.scan(Scan::of_record(DEFAULT_NAMESPACE, b"r")).await;
            let item = page.expect("readable").items.remove(0);
            assert!(item.metadata.is_large());
            assert_eq!((item.value_len, item.value), (3000, None));
            flush_memtable(&shard).await;
        }
        assert_eq!(has(&shard, b"i").await, Some(content(1, 3000)));
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn large_values_count_for_their_namespace_and_go_with_it() {
    let options = tiny_options();
    let (mut life, shard) = start(7, &options);
    let namespaces = |with_five: bool| {
        let limited = NamespaceOptions { bytes_max: Some(50_000), ..NamespaceOptions::default() };
        let short = NamespaceOptions { value_bytes_max: Some(100), ..NamespaceOptions::default() };
        let five = with_five.then_some((5, limited));
        five.into_iter().chain([(6, short)]).collect::<BTreeMap<_, _>>()
    };
    let worker = shard.clone();
    life.block_on(async move {
        worker.set_namespaces(namespaces(true));
        let five = Wanted { namespace: 5, ..PLAIN };
        put(&worker, b"i", &content(1, 20_000), five).await.expect("there is room");
        let stage = |len| LargeStep::Stage { len };
        let refused = step(&worker, (5, b"j"), stage(31_000)).await;
        assert!(matches!(refused, Err(EngineError::OverQuota(5))), "{refused:?}");
        let length = LargeAnswer::Refused(LargeRefusal::Length);
        assert_eq!(step(&worker, (6, b"j"), stage(101)).await.expect("runs"), length);
        let refused = step(&worker, (7, b"j"), stage(101)).await;
        assert!(matches!(refused, Err(EngineError::NoNamespace(7))), "{refused:?}");
    })
    .expect("runs");
    let (mut life, shard) = restart(life, shard, &options);
    life.block_on(async move {
        shard.set_namespaces(namespaces(true));
        several_rounds(&shard).await;
        let refused = step(&shard, (5, b"j"), LargeStep::Stage { len: 31_000 }).await;
        assert!(matches!(refused, Err(EngineError::OverQuota(5))), "{refused:?}");
        let upload = staged(&shard, (5, b"j"), &content(2, 1000)).await.expect("room").upload;
        shard.set_namespaces(namespaces(false));
        let chunk = LargeStep::PutChunk { upload, index: 0, bytes: vec![0; 700] };
        let refused = step(&shard, (5, b"j"), chunk).await;
        assert!(matches!(refused, Err(EngineError::NoNamespace(5))), "{refused:?}");
        let commit =
            LargeStep::Commit { upload, store: store_of(Wanted { namespace: 5, ..PLAIN }) };
        let refused = step(&shard, (5, b"j"), commit).await;
        assert!(matches!(refused, Err(EngineError::NoNamespace(5))), "{refused:?}");
        shard.drop_namespace(5).await.expect("there is room");
        sweeps_down_to(&shard, 0).await;
        assert_eq!(shard.state.borrow().uploads.bytes_of(5), 0);
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn an_upload_that_brings_nothing_goes_soon() {
    let options = tiny_options();
    let (mut life, shard) = start(8, &options);
    let env = life.env();
    let now = env.unix_seconds();
    life.block_on(async move {
        let at = (DEFAULT_NAMESPACE, &b"i"[..]);
        let asked = step(&shard, at, LargeStep::Stage { len: 1400 }).await.expect("runs");
        let LargeAnswer::Staged(silent) = asked else { panic!("{asked:?}") };
        let asked = step(&shard, at, LargeStep::Stage { len: 1400 }).await.expect("runs");
        let LargeAnswer::Staged(busy) = asked else { panic!("{asked:?}") };
        let chunk = |upload, index| LargeStep::PutChunk { upload, index, bytes: vec![1; 700] };
        assert_eq!(step(&shard, at, chunk(busy.upload, 1)).await.expect("runs"), LargeAnswer::Done);
        env.set_unix_seconds(now + u64::from(options.large.first_chunk_seconds) + 1);
        let none = LargeAnswer::Refused(LargeRefusal::NoUpload);
        assert_eq!(step(&shard, at, chunk(silent.upload, 0)).await.expect("runs"), none);
        sweeps_down_to(&shard, 2).await;
        assert_eq!(step(&shard, at, chunk(busy.upload, 0)).await.expect("runs"), LargeAnswer::Done);
        env.set_unix_seconds(now + u64::from(options.large.staging_seconds) - 5);
        let commit = LargeStep::Commit { upload: busy.upload, store: store_of(PLAIN) };
        let committed = step(&shard, at, commit).await.expect("runs");
        assert!(matches!(committed, LargeAnswer::Committed(_)), "all is there: {committed:?}");
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn a_chunk_that_is_not_stored_is_not_said_to_be() {
    let mut options = tiny_options();
    let (mut life, shard) = start(9, &options);
    let at = (DEFAULT_NAMESPACE, &b"i"[..]);
    let stage = LargeStep::Stage { len: 1400 };
    let worker = shard.clone();
    let asked = life.block_on(async move { step(&worker, at, stage).await });
    let asked = asked.expect("runs").expect("there is room");
    let LargeAnswer::Staged(LargeValue { upload, .. }) = asked else { panic!("{asked:?}") };
    options.value_bytes_max = 500;
    let (mut life, shard) = restart(life, shard, &options);
    life.block_on(async move {
        let chunk = LargeStep::PutChunk { upload, index: 0, bytes: vec![1; 700] };
        let told = step(&shard, at, chunk).await.expect("runs");
        assert_eq!(told, LargeAnswer::Refused(LargeRefusal::NoUpload));
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn chunks_are_compressed_as_values_of_their_namespace_are() {
    for (of_shard, of_namespace, is_compressed) in [
        (Some(1), NamespaceCompression::Never, false),
        (None, NamespaceCompression::From(1), true),
        (Some(1), NamespaceCompression::AsShard, true),
        (None, NamespaceCompression::AsShard, false),
    ] {
        let options = ShardOptions { compress_from: of_shard, ..tiny_options() };
        let (mut life, shard) = start(10, &options);
        life.block_on(async move {
            let own = NamespaceOptions { compression: of_namespace, ..Default::default() };
            shard.set_namespaces([(5, own)].into());
            // Chunks of 700 bytes, and a last one of 300.
            let five = Wanted { namespace: 5, ..PLAIN };
            put(&shard, b"i", &[7; 2400], five).await.expect("there is room");
            let compressed = shard.compression.counters().values;
            assert_eq!(compressed > 0, is_compressed, "{of_shard:?} {of_namespace:?}");
            assert_eq!(look(&shard, (5, b"i")).await.expect("reads"), Some(Some(vec![7; 2400])));
            shard.close().await.expect("closes");
        })
        .expect("runs");
    }
}
