use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};
use larder_runtime::simulation::SimEnv;
use proptest::prelude::*;

use super::footer::{FOOTER_BYTES, Footer, FooterKind};
use super::test_disk::{DIRECTORY, TestDisk};
use super::*;
use crate::entry::{Entry, Metadata, Payload, Pointer, state};
use crate::key::Key;

const IDENTITY: TableIdentity = TableIdentity { store: 0xABCD << 64, table: 0x51 };
const CACHE_BYTES: usize = 1 << 20;

type Model = BTreeMap<Vec<u8>, EntryBuf>;

fn directory() -> &'static Path {
    Path::new(DIRECTORY)
}

fn path() -> PathBuf {
    directory().join(file_name(IDENTITY.table))
}

fn entry(number: u64, inline_bytes: usize) -> EntryBuf {
    let metadata = Metadata {
        version: number + 1,
        client_flags: number as u32,
        expiry: 0,
        state: state::STALE * u8::from(number.is_multiple_of(5)),
    };
    let value = vec![number as u8; inline_bytes];
    let pointer = Pointer { segment: number as u32, offset: 4096, len: 100 };
    let payload = match number % 3 {
        0 => Payload::Inline(&value),
        1 => Payload::Separate(pointer, 80),
        _ => Payload::Tombstone,
    };
    EntryBuf::new(&Entry { metadata, payload })
}

fn model(count: u64, inline_bytes: usize) -> Model {
    let key = |number: u64| {
        let record = format!("record {:03}", number / 4);
        Key { namespace: 7, record: record.as_bytes(), item: &[number as u8; 3] }.encode()
    };
    (0..count).map(|number| (key(number), entry(number, inline_bytes))).collect()
}

fn build(env: &TestDisk, model: &Model, options: TableOptions) -> Option<TableMeta> {
    let mut builder =
        TableBuilder::new(env.env(), directory(), IDENTITY, 1, IoClass::Flush, options);
    env.block_on(async {
        for (key, entry) in model {
            builder.add(key, &entry.as_entry()).await.unwrap();
        }
        let estimate = builder.estimated_bytes();
        let meta = builder.finish().await.unwrap();
        if let Some(meta) = &meta {
            let error = estimate.abs_diff(meta.file_bytes);
            assert!(error <= 3 * 4096, "estimated {estimate}, is {}", meta.file_bytes);
        }
        meta
    })
}

fn open(env: &TestDisk, meta: &TableMeta) -> Result<Table<SimEnv>, TableError> {
    env.block_on(Table::open(env.env(), directory(), IDENTITY, meta, IoClass::Read))
}

fn get(
    env: &TestDisk,
    table: &Table<SimEnv>,
    key: &[u8],
    blocks: &BlockCache,
) -> Result<Option<EntryBuf>, TableError> {
    env.block_on(table.get(key, key_hash(key), blocks, IoClass::Read))
}

fn walk(
    env: &TestDisk,
    table: &Rc<Table<SimEnv>>,
    start: &[u8],
    read_ahead_bytes: usize,
) -> Result<Vec<(Vec<u8>, EntryBuf)>, Vec<u32>> {
    let mut iterator =
        TableIterator::new(table.clone(), start, IoClass::Compaction, read_ahead_bytes);
    assert!(iterator.current().is_none());
    env.block_on(async {
        let mut found = Vec::new();
        while let Some((key, entry)) = iterator.next().await.unwrap() {
            found.push((key.to_vec(), EntryBuf::new(&entry)));
        }
        assert!(iterator.next().await.unwrap().is_none());
        if iterator.bad_blocks().is_empty() {
            Ok(found)
        } else {
            Err(iterator.bad_blocks().to_vec())
        }
    })
}

/// Keys that are not in the model but close to those that are.
fn absent_keys(model: &Model) -> Vec<Vec<u8>> {
    let near = model.keys().flat_map(|key| {
        let mut longer = key.clone();
        longer.push(0);
        let shorter = key[..key.len() - 1].to_vec();
        [longer, shorter]
    });
    near.chain([vec![0], vec![0xFF; 5]]).filter(|key| !model.contains_key(key)).collect()
}

#[test]
fn names_round_trip() {
    assert_eq!(file_name(0x51), "table-0000000000000051.sst");
    for id in [0, 1, u64::MAX] {
        assert_eq!(parse_file_name(&file_name(id)), Some(id));
    }
    let others = ["table-51.sst", "table-000000000000005G.sst", "table-+000000000000051.sst", ""];
    for name in others {
        assert_eq!(parse_file_name(name), None, "{name}");
    }
}

#[test]
fn a_table_answers_as_the_map_it_was_built_from() {
    let env = TestDisk::new();
    let model = model(3000, 300);
    let meta = build(&env, &model, TableOptions::default()).unwrap();
    let tombstones = model.values().filter(|entry| entry.as_entry().is_tombstone()).count() as u64;
    assert_eq!((meta.entries, meta.tombstones, meta.version_max), (3000, tombstones, 3000));
    let separate = model.values().filter(|entry| entry.as_entry().pointer().is_some());
    assert_eq!((meta.separate_bytes, meta.expiring_bytes), (100 * separate.count() as u64, 0));
    assert_eq!(meta.expiry_max, 0, "the items never expire");
    assert_eq!(Some(&meta.smallest), model.keys().next());
    assert_eq!(Some(&meta.largest), model.keys().next_back());
    assert_eq!(meta.file_bytes, env.bytes(&path()).len() as u64);
    assert!(meta.file_bytes > 256 << 10, "the test wants more than one chunk");

    let table = open(&env, &meta).unwrap();
    assert_eq!(table.meta(), &meta);
    let pointed = env.block_on(table.pointed(IoClass::Read)).unwrap();
    assert_eq!((pointed.total(), pointed.iter().count()), (meta.separate_bytes, 1000));
    assert!(table.memory_bytes() < meta.file_bytes as usize / 20);
    let blocks = BlockCache::new(CACHE_BYTES);
    for (key, entry) in &model {
        assert!(table.may_contain(key_hash(key)));
        assert_eq!(get(&env, &table, key, &blocks).unwrap().as_ref(), Some(entry));
    }
    for key in absent_keys(&model) {
        assert_eq!(get(&env, &table, &key, &blocks).unwrap(), None);
    }
}

#[test]
fn a_table_knows_when_all_its_items_have_expired() {
    let item = |expiry| {
        let pointer = Pointer { segment: 1, offset: 0, len: 10 };
        let metadata = Metadata { expiry, ..Metadata::default() };
        EntryBuf::new(&Entry { metadata, payload: Payload::Separate(pointer, 5) })
    };
    let inline = |expiry| {
        let metadata = Metadata { expiry, ..Metadata::default() };
        EntryBuf::new(&Entry { metadata, payload: Payload::Inline(b"x") })
    };
    let tombstone = entry(2, 0);
    for (entries, expected) in [
        (vec![item(7), item(5), tombstone.clone()], (7, 7, 20)),
        (vec![item(7), inline(9)], (9, 9, 10)),
        (vec![item(7), inline(0)], (0, 7, 10)),
        (vec![item(0), item(9)], (0, 9, 10)),
        (vec![tombstone.clone(), tombstone], (1, 0, 0)),
    ] {
        let keys = (1u8..).map(|number| vec![number]);
        let model = keys.zip(entries).collect();
        let meta = build(&TestDisk::new(), &model, TableOptions::default()).unwrap();
        let found = (meta.expiry_max, meta.expiry_last, meta.expiring_bytes);
        assert_eq!(found, expected);
    }
}

#[test]
fn a_lookup_reads_once_and_then_comes_from_the_cache() {
    let env = TestDisk::new();
    // Entries of more than a block: each lookup still is one read.
    let model = model(30, 6000);
    let meta = build(&env, &model, TableOptions::default()).unwrap();
    let table = open(&env, &meta).unwrap();
    assert_eq!(env.reads(), 2);
    let blocks = BlockCache::new(CACHE_BYTES);
    let version = |entry: Option<Entry<'_>>| entry.map(|entry| entry.metadata.version);
    for (key, entry) in model.iter().step_by(3) {
        let hash = key_hash(key);
        let before = env.reads();
        assert_eq!(table.get_resident(key, hash, &blocks, version), Resident::NeedsDevice);
        assert_eq!(get(&env, &table, key, &blocks).unwrap().as_ref(), Some(entry));
        assert_eq!(env.reads(), before + 1);
        let expected = Some(entry.as_entry().metadata.version);
        assert_eq!(table.get_resident(key, hash, &blocks, version), Resident::Answer(expected));
        assert_eq!(get(&env, &table, key, &blocks).unwrap().as_ref(), Some(entry));
        assert_eq!(env.reads(), before + 1);
    }
    assert!(blocks.counters().hits >= 20);
    let beyond = [0xFF; 9];
    let answer = table.get_resident(&beyond, key_hash(&beyond), &blocks, version);
    assert_eq!(answer, Resident::Answer(None));
}

#[test]
fn blocks_are_kept_as_they_are_written_until_they_are_forgotten() {
    let env = TestDisk::new();
    let (model, options) = (model(300, 100), TableOptions::default());
    let blocks = BlockCache::new(CACHE_BYTES);
    let builder = TableBuilder::new(env.env(), directory(), IDENTITY, 1, IoClass::Flush, options);
    let mut builder = builder.keeping(Some(blocks.clone()));
    let meta = env.block_on(async {
        for (key, entry) in &model {
            builder.add(key, &entry.as_entry()).await.unwrap();
        }
        builder.finish().await.unwrap().unwrap()
    });
    let table = open(&env, &meta).unwrap();
    let opened = env.reads();
    for (key, entry) in &model {
        assert_eq!(get(&env, &table, key, &blocks).unwrap().as_ref(), Some(entry));
    }
    assert_eq!(env.reads(), opened, "a block was read that had just been written");
    assert_eq!(blocks.counters().entries, table.blocks());
    (0..table.blocks()).for_each(|block| table.forget_block(block, &blocks));
    assert_eq!(blocks.counters().entries, 0);
    assert_eq!(get(&env, &table, &meta.smallest, &blocks).unwrap().as_ref(), model.values().next());
    assert_eq!(env.reads(), opened + 1);
}

#[test]
fn an_iterator_starts_where_it_is_told() {
    let env = TestDisk::new();
    let model = model(500, 200);
    let options = TableOptions { block_bytes: 1000, ..TableOptions::default() };
    let meta = build(&env, &model, options).unwrap();
    let table = Rc::new(open(&env, &meta).unwrap());
    let all: Vec<_> = model.iter().map(|(key, entry)| (key.clone(), entry.clone())).collect();
    for read_ahead_bytes in [0, 10_000, READ_AHEAD_BYTES] {
        assert_eq!(walk(&env, &table, b"", read_ahead_bytes).unwrap(), all);
    }
    for start in all.iter().step_by(37).map(|(key, _)| key.clone()).chain(absent_keys(&model)) {
        let from = all.partition_point(|(key, _)| *key < start);
        assert_eq!(walk(&env, &table, &start, 8192).unwrap(), all[from..]);
    }
    let (reads, blocks) = (env.reads(), table.index().len() as u64);
    let (_, turns) = env.count_turns(async {
        let mut iterator = TableIterator::new(table.clone(), b"", IoClass::Compaction, 128 << 10);
        while iterator.next().await.unwrap().is_some() {}
    });
    assert!(blocks > 40 && turns > blocks, "{turns} turns for {blocks} blocks");
    assert!(env.reads() - reads <= blocks.div_ceil(32) + 1);
}

#[test]
fn an_empty_table_leaves_no_file_and_an_abandoned_one_neither() {
    let env = TestDisk::new();
    assert_eq!(build(&env, &Model::new(), TableOptions::default()), None);
    let options = TableOptions::default();
    for count in [1, 3000] {
        let mut builder =
            TableBuilder::new(env.env(), directory(), IDENTITY, 0, IoClass::Flush, options);
        env.block_on(async {
            for (key, entry) in model(count, 300) {
                builder.add(&key, &entry.as_entry()).await.unwrap();
            }
            assert_eq!(env.paths().len(), usize::from(count > 1));
            builder.abandon().await.unwrap();
        });
        assert_eq!(env.paths(), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_failed_write_or_sync_fails_the_table_and_removes_it() {
    let model = model(3000, 300);
    for writes in 0..4 {
        let env = TestDisk::new();
        env.fail_writes_after(Some(writes));
        let mut builder = TableBuilder::new(
            env.env(),
            directory(),
            IDENTITY,
            0,
            IoClass::Flush,
            TableOptions::default(),
        );
        let result: Result<_, TableError> = env.block_on(async {
            for (key, entry) in &model {
                if let Err(error) = builder.add(key, &entry.as_entry()).await {
                    builder.abandon().await?;
                    return Err(error);
                }
            }
            builder.finish().await
        });
        match result {
            Err(TableError::Io { .. }) => assert_eq!(env.paths(), Vec::<PathBuf>::new()),
            other => {
                assert!(matches!(other, Ok(Some(_))), "{other:?}");
                assert_eq!(env.paths(), [path()]);
                assert!(writes >= 2, "a table of two chunks survived {writes} writes");
            }
        }
    }
}

#[test]
fn flipping_any_byte_never_changes_an_answer() {
    let env = TestDisk::new();
    let model = model(60, 40);
    let options = TableOptions { block_bytes: 600, restart_interval: 4, ..TableOptions::default() };
    let meta = build(&env, &model, options).unwrap();
    let (mut refused_at_open, mut refused_at_get, mut refused_at_pointed) = (0, 0, 0);
    for at in 0..meta.file_bytes {
        env.change(|disk| disk.flip_bit(path(), at, (at % 8) as u8));
        match open(&env, &meta) {
            Err(_) => refused_at_open += 1,
            Ok(table) => {
                let pointed = env.block_on(table.pointed(IoClass::Read));
                refused_at_pointed += usize::from(pointed.is_err());
                let blocks = BlockCache::new(CACHE_BYTES / 8);
                let mut refused = false;
                for (key, entry) in &model {
                    match get(&env, &table, key, &blocks) {
                        Ok(found) => assert_eq!(found.as_ref(), Some(entry), "byte {at}"),
                        Err(_) => refused = true,
                    }
                }
                let walked = walk(&env, &Rc::new(table), b"", READ_AHEAD_BYTES);
                assert_eq!(walked.is_err(), refused, "byte {at}");
                refused_at_get += usize::from(refused);
            }
        }
        env.change(|disk| disk.flip_bit(path(), at, (at % 8) as u8));
    }
    // Only padding goes unchecked.
    let bytes = env.bytes(&path());
    let footer_offset = bytes.len() - FOOTER_BYTES;
    let footer =
        Footer::decode(IDENTITY, meta.file_bytes, meta.footer_checksum, &bytes[footer_offset..]);
    let Ok(FooterKind::Known(footer)) = footer else { panic!("{footer:?}") };
    let in_memory = FOOTER_BYTES + (footer.index.length + footer.filter.length) as usize;
    let pointed = footer.pointed.length as usize;
    let table = open(&env, &meta).unwrap();
    let blocks = (0..table.index().len()).map(|number| table.index().block(number).length);
    assert!(blocks.len() > 2, "the test wants several blocks");
    assert_eq!((refused_at_open, refused_at_get), (in_memory, blocks.sum::<u32>() as usize));
    assert_eq!(refused_at_pointed, pointed);
}

#[test]
fn bytes_of_another_place_table_or_store_are_refused() {
    let env = TestDisk::new();
    let model = model(200, 40);
    let meta = build(&env, &model, TableOptions::default()).unwrap();
    let bytes = env.bytes(&path());
    let other_store = TableIdentity { store: 1, ..IDENTITY };
    let opened =
        env.block_on(Table::open(env.env(), directory(), other_store, &meta, IoClass::Read));
    assert!(matches!(opened.err(), Some(TableError::Damaged { .. })));

    let mut swapped = bytes.clone();
    swapped[..8192].rotate_left(4096);
    env.replace(&path(), &swapped);
    let table = open(&env, &meta).unwrap();
    let answer = get(&env, &table, &meta.smallest, &BlockCache::new(CACHE_BYTES));
    assert!(matches!(answer, Err(TableError::Damaged { offset: 0, .. })));

    env.replace(&path(), &bytes[..bytes.len() - 4096]);
    assert!(matches!(open(&env, &meta).err(), Some(TableError::Damaged { .. })));
    env.replace(&path(), &bytes);
    for file_bytes in [0, 1, 4095, 4096, 8192, u64::MAX] {
        assert!(open(&env, &TableMeta { file_bytes, ..meta.clone() }).is_err());
    }
    let stale = TableMeta { footer_checksum: meta.footer_checksum ^ 1, ..meta.clone() };
    assert!(matches!(open(&env, &stale).err(), Some(TableError::Damaged { .. })));
    assert!(open(&env, &meta).is_ok());
}

#[test]
fn the_bytes_are_those_of_format_two() {
    let env = TestDisk::new();
    let model = model(400, 50);
    let meta = build(&env, &model, TableOptions::default()).unwrap();
    assert_eq!((meta.file_bytes, meta.footer_checksum), (32_768, 754_537_695));

    // The environment hands out buffers with other contents after a read.
    let bytes = env.bytes(&path());
    open(&env, &meta).unwrap();
    env.block_on(env.env().remove(&path())).unwrap();
    assert_eq!(build(&env, &model, TableOptions::default()), Some(meta));
    assert_eq!(env.bytes(&path()), bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_tables_round_trip(
        records in proptest::collection::btree_map(
            proptest::collection::vec(prop_oneof![Just(0u8), Just(b'a'), any::<u8>()], 1..400),
            (any::<u64>(), 0usize..3000),
            1..80,
        ),
        block_bytes in 64usize..9000,
        restart_interval in 1u32..20,
        bloom_bits_per_key in 1u32..=64,
    ) {
        let env = TestDisk::new();
        let model: Model = records
            .into_iter()
            .map(|(key, (number, len))| (key, entry(number / 2, len)))
            .collect();
        let options = TableOptions {
            block_bytes, restart_interval, bloom_bits_per_key, ..TableOptions::default()
        };
        let meta = build(&env, &model, options).unwrap();
        let table = Rc::new(open(&env, &meta).unwrap());
        let blocks = BlockCache::new(CACHE_BYTES / 8);
        for (key, entry) in &model {
            let found = get(&env, &table, key, &blocks).unwrap();
            prop_assert_eq!(found.as_ref(), Some(entry));
        }
        for key in absent_keys(&model) {
            prop_assert_eq!(get(&env, &table, &key, &blocks).unwrap(), None);
        }
        let walked = walk(&env, &table, b"", 10_000).unwrap();
        prop_assert_eq!(walked, model.into_iter().collect::<Vec<_>>());
    }
}
