use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use larder_runtime::env::IoClass;
use larder_runtime::simulation::SimEnv;
use proptest::prelude::*;

use super::*;
use crate::entry::{Metadata, Payload, Pointer};
use crate::index::compaction::KeyRange;
use crate::index::table::test_disk::{DIRECTORY, TestDisk};
use crate::index::table::{
    BlockCache, EntryBuf, TableBuilder, TableIdentity, TableOptions, key_hash,
};

const STORE: u128 = 0x1234_5678;

/// Key to version and whether it is a tombstone.
type Contents = BTreeMap<u16, (u64, bool)>;

fn key(number: u16) -> Vec<u8> {
    [b"namespace".as_slice(), &number.to_be_bytes()].concat()
}

fn entry(version: u64, is_tombstone: bool) -> Entry<'static> {
    let pointer = Pointer { segment: 1, offset: 0, len: version as u32 };
    let payload =
        if is_tombstone { Payload::Tombstone } else { Payload::Separate(pointer, version as u32) };
    Entry { metadata: Metadata { version, ..Metadata::default() }, payload }
}

struct Store {
    disk: TestDisk,
    next_id: Cell<u64>,
}

impl Store {
    fn new() -> Self {
        Self { disk: TestDisk::new(), next_id: Cell::new(0) }
    }

    fn take_id(&self) -> u64 {
        self.next_id.set(self.next_id.get() + 1);
        self.next_id.get()
    }

    fn open(&self, meta: &TableMeta) -> Rc<Table<SimEnv>> {
        let identity = TableIdentity { store: STORE, table: meta.id };
        let opened = Table::open(self.disk.env(), directory(), identity, meta, IoClass::Read);
        Rc::new(self.disk.block_on(opened).unwrap())
    }

    fn build(&self, contents: &Contents) -> Rc<Table<SimEnv>> {
        let identity = TableIdentity { store: STORE, table: self.take_id() };
        let options = TableOptions { block_bytes: 256, ..TableOptions::default() };
        let env = self.disk.env();
        let mut builder = TableBuilder::new(env, directory(), identity, 0, IoClass::Flush, options);
        let meta = self.disk.block_on(async {
            for (&number, &(version, is_tombstone)) in contents {
                builder.add(&key(number), &entry(version, is_tombstone)).await.unwrap();
            }
            builder.finish().await.unwrap().expect("the table has entries")
        });
        self.open(&meta)
    }

    fn merge(
        &self,
        inputs: &[Rc<Table<SimEnv>>],
        drops_tombstones: bool,
        dropped: &mut Vec<u64>,
    ) -> Result<Merged<SimEnv>, TableError> {
        self.disk.block_on(self.run(inputs, drops_tombstones, dropped))
    }

    async fn run(
        &self,
        inputs: &[Rc<Table<SimEnv>>],
        drops_tombstones: bool,
        dropped: &mut Vec<u64>,
    ) -> Result<Merged<SimEnv>, TableError> {
        let options =
            TableOptions { block_bytes: 256, table_bytes: 32 << 10, ..TableOptions::default() };
        let outputs = SequenceOptions {
            env: self.disk.env(),
            directory: directory().to_owned(),
            store: STORE,
            level: 3,
            class: IoClass::Compaction,
            tables: options,
            cuts: Vec::new(),
            blocks: None,
            deleted_until: 0,
        };
        let filter = |_: &[u8], entry: &Entry<'_>, _| {
            if drops_tombstones && entry.is_tombstone() { Verdict::Drop } else { Verdict::Keep }
        };
        run_merge(
            inputs.to_vec(),
            outputs,
            || self.take_id(),
            filter,
            |entry| dropped.push(entry.metadata.version),
        )
        .await
    }
}

fn directory() -> &'static Path {
    Path::new(DIRECTORY)
}

/// Contents of `tables`, newest first, with versions that are unique and larger in newer ones.
fn numbered(tables: &[BTreeMap<u16, bool>]) -> Vec<Contents> {
    let mut version = tables.iter().map(|table| table.len() as u64).sum::<u64>();
    let mut contents = Vec::new();
    for table in tables {
        let mut numbered = Contents::new();
        for (&number, &is_tombstone) in table {
            numbered.insert(number, (version, is_tombstone));
            version -= 1;
        }
        contents.push(numbered);
    }
    contents
}

fn check_outputs(store: &Store, outputs: &[TableMeta], expected: &Contents) {
    for pair in outputs.windows(2) {
        assert!(!pair[0].overlaps(&pair[1]) && pair[0].largest < pair[1].smallest);
        assert!(pair[0].file_bytes >= 32 << 10, "only the last output may be short");
    }
    let tables: Vec<_> = outputs.iter().map(|meta| store.open(meta)).collect();
    assert!(tables.iter().all(|table| table.meta().level == 3));
    assert!(outputs.iter().all(|meta| meta.file_bytes <= 44 << 10));
    assert_eq!(outputs.iter().map(|meta| meta.entries).sum::<u64>(), expected.len() as u64);
    let blocks = BlockCache::new(1 << 20);
    for (&number, &(version, is_tombstone)) in expected {
        let key = key(number);
        let found = tables.iter().find_map(|table| {
            store.disk.block_on(table.get(&key, key_hash(&key), &blocks, IoClass::Read)).unwrap()
        });
        assert_eq!(found, Some(EntryBuf::new(&entry(version, is_tombstone))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_merge_keeps_the_newest_of_each_key_and_reports_the_rest(
        tables in proptest::collection::vec(
            proptest::collection::btree_map(
                prop_oneof![0u16..300, any::<u16>()], any::<bool>(), 1..200,
            ),
            1..9,
        ),
        drops_tombstones: bool,
    ) {
        let contents = numbered(&tables);
        let store = Store::new();
        let inputs: Vec<_> = contents.iter().map(|table| store.build(table)).collect();
        let mut expected = Contents::new();
        for table in contents.iter().rev() {
            expected.extend(table.clone());
        }
        expected.retain(|_, (_, is_tombstone)| !(drops_tombstones && *is_tombstone));
        let kept: Vec<u64> = expected.values().map(|(version, _)| *version).collect();
        let all = contents.iter().flat_map(|table| table.values().map(|(version, _)| *version));
        let mut expected_dropped: Vec<u64> =
            all.filter(|version| !kept.contains(version)).collect();
        expected_dropped.sort_unstable();

        let mut dropped = Vec::new();
        let outputs = store.merge(&inputs, drops_tombstones, &mut dropped).unwrap().outputs;
        dropped.sort_unstable();
        prop_assert_eq!(dropped, expected_dropped);
        check_outputs(&store, &outputs, &expected);
    }
}

/// Two overlapping runs, the older of three tables, large enough for several outputs.
fn large_inputs(store: &Store) -> (Vec<Rc<Table<SimEnv>>>, Contents) {
    let newer: BTreeMap<u16, bool> = (0..3000).step_by(2).map(|number| (number, false)).collect();
    let older = |from: u16| (from..from + 1000).map(|number| (number, true)).collect();
    let contents = numbered(&[newer, older(2000), older(0), older(1000)]);
    let mut merged = Contents::new();
    for table in contents.iter().rev() {
        merged.extend(table.clone());
    }
    (contents.iter().map(|table| store.build(table)).collect(), merged)
}

#[test]
fn outputs_are_split_and_the_core_is_offered_back() {
    let store = Store::new();
    let (inputs, merged) = large_inputs(&store);
    let mut dropped = Vec::new();
    let merging = store.run(&inputs, false, &mut dropped);
    let (done, turns) = store.disk.count_turns(merging);
    let outputs = done.unwrap().outputs;
    assert!(outputs.len() > 2, "{} outputs", outputs.len());
    assert_eq!(dropped.len(), 1500);
    assert!(turns > 50, "{turns} turns");
    check_outputs(&store, &outputs, &merged);
}

#[test]
fn a_merge_of_nothing_but_dropped_entries_leaves_no_table() {
    let store = Store::new();
    let input = store.build(&Contents::from([(1, (1, true)), (2, (2, true))]));
    let mut dropped = Vec::new();
    assert_eq!(store.merge(&[input], true, &mut dropped).unwrap().outputs, []);
    assert_eq!((dropped, store.disk.paths().len()), (vec![1, 2], 1));
}

#[test]
fn a_failed_merge_leaves_its_inputs_and_nothing_else() {
    let store = Store::new();
    let (inputs, _) = large_inputs(&store);
    let before = store.disk.paths();
    let mut failures = 0;
    for writes in 0.. {
        store.disk.fail_writes_after(Some(writes));
        let merged = store.merge(&inputs, false, &mut Vec::new());
        store.disk.fail_writes_after(None);
        if merged.is_ok() {
            break;
        }
        assert_eq!(store.disk.paths(), before);
        failures += 1;
    }
    assert!(failures > 4, "several outputs take more than {failures} writes and syncs");

    let store = Store::new();
    let (inputs, _) = large_inputs(&store);
    let before = store.disk.paths();
    store.disk.change(|disk| disk.flip_bit(inputs[0].path(), 40 * 4096 + 20, 1));
    let inputs: Vec<_> = inputs.iter().map(|table| store.open(table.meta())).collect();
    let merged = store.merge(&inputs, false, &mut Vec::new()).unwrap();
    let [(table, blocks)] = &merged.damaged[..] else { panic!("one input is damaged") };
    assert_eq!((table.meta().id, blocks.as_slice()), (inputs[0].meta().id, &[40][..]));
    // Of the keys in the bad block none comes out, neither its own nor the older entries of them.
    let outputs: Vec<_> = merged.outputs.iter().map(|meta| store.open(meta)).collect();
    let (mut lost, mut kept) = (0, 0);
    for number in 0..3000 {
        let (key, hash) = (key(number), key_hash(&key(number)));
        let may_be_lost = inputs[0].may_be_lost(blocks, &key, hash);
        let found = outputs.iter().find_map(|table| {
            let blocks = BlockCache::new(0);
            store.disk.block_on(table.get(&key, hash, &blocks, IoClass::Read)).unwrap()
        });
        assert_eq!(found.is_none(), may_be_lost, "key {number}");
        lost += u32::from(may_be_lost);
        kept += u32::from(found.is_some());
    }
    assert!(lost > 4 && kept > 2900, "{lost} lost, {kept} kept");
    assert_eq!(store.disk.paths().len(), before.len() + outputs.len());
}
