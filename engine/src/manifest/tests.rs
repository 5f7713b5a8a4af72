use std::path::{Path, PathBuf};

use futures_lite::future::poll_once;
use larder_runtime::random::Random;
use larder_runtime::simulation::SimEnv;
use proptest::prelude::*;

use super::record::{self, Heading};
use super::test_disk::TestDisk;
use super::*;
use crate::index::table::TableMeta;

mod edits;
mod full;

pub(super) const DIRECTORY: &str = "/store/shard-003";

/// Small enough that a few dozen edits switch files several times.
pub(super) const SMALL: Limits = Limits { switch_bytes: 20 << 10, allocation_step: 16 << 10 };

pub(super) fn directory() -> &'static Path {
    Path::new(DIRECTORY)
}

pub(super) fn identity() -> ShardIdentity {
    ShardIdentity {
        store_id: 0x0123_4567_89AB_CDEF_FEDC_BA98_7654_3210,
        shard_index: 3,
        shard_count: 8,
        route_seed: 0,
        segment_bytes: 64 << 20,
    }
}

fn manifest_path(number: u64) -> PathBuf {
    directory().join(log::file_name(number))
}

fn superblock_path() -> PathBuf {
    directory().join(SUPERBLOCK_FILE)
}

fn table(id: u64, level: u8, smallest: &[u8], largest: &[u8]) -> TableMeta {
    TableMeta {
        id,
        level,
        file_bytes: 8 << 20,
        entries: 1000,
        tombstones: id / 2,
        smallest: smallest.to_vec(),
        largest: largest.to_vec(),
        footer_checksum: 0xDEAD_BEEF,
        version_max: id / 3,
        separate_bytes: id << 20,
        expiring_bytes: id << 10,
        expiry_max: id as u32 % 3,
        expiry_last: id as u32 % 5,
        bad_blocks: Vec::new(),
        deleted_until: id << 4,
    }
}

/// A possible edit on `state`, which a flush, a compaction or garbage collection might make.
fn random_edit(state: &State, random: &mut Random) -> Edit {
    let mut edit = Edit::default();
    let id = state.table_id_next;
    let key = (random.below(1000) as u32).to_be_bytes();
    edit.tables_added.push(table(id, 0, &key[..2], &key));
    if state.levels[0].len() > 3 {
        edit.tables_removed = state.levels[0].iter().skip(1).map(|table| table.id).collect();
        let level = 1 + random.below(LEVELS as u64 - 1) as u8;
        let old = state.levels[usize::from(level)].iter();
        if random.below(2) == 0 {
            edit.tables_removed.extend(old.map(|table| table.id));
            edit.tables_added.push(table(id + 1, level, b"a", b"k"));
            edit.tables_added.push(table(id + 2, level, b"m", b"z"));
        } else if let (Some(moving), true) = (old.last(), usize::from(level) + 1 < LEVELS)
            && state.levels[usize::from(level) + 1].is_empty()
        {
            edit.tables_moved.push((moving.id, level + 1));
        }
    }
    let segment = state.segment_id_next;
    edit.segments_opened.push((segment, 64 << 20));
    edit.live_bytes.push((segment, 5000 + random.below(5000) as i64));
    edit.live_bytes.push((segment, -(random.below(5000) as i64)));
    for (&segment, known) in &state.segments {
        match (known.sealed, random.below(4)) {
            (None, 0) => {
                let end = random.below(64 << 20) as u32;
                edit.segments_sealed.push(SegmentSeal { segment, end, sequence_last: 9 });
            }
            (Some(_), 0) => {
                edit.segments_freed.push(segment);
                let (until, live_bytes) = (random.below(100) as u32, known.live_bytes);
                edit.segments_expired.push(SegmentExpiry { segment, until, live_bytes });
            }
            (_, 1) => edit.live_bytes.push((segment, -(known.live_bytes as i64) / 2)),
            _ => {}
        }
    }
    for (&segment, expiry) in &state.segments_expired {
        let gone = random.below(2) * expiry.live_bytes / (1 + random.below(2));
        edit.live_bytes.push((segment, -(gone as i64)));
    }
    let sequence = state.replay_from.sequence + random.below(100);
    edit.replay_from = Some(LogPosition { segment, offset: 4096, sequence });
    edit.version_ceiling = Some(state.version_ceiling + random.below(1000));
    if random.below(3) == 0 {
        let namespace = random.below(3) as u32;
        let before = state.namespace_generations.get(&namespace).copied().unwrap_or(0);
        let generation = before + random.below(10);
        edit.namespace_generations.push(NamespaceGeneration { namespace, generation });
    }
    edit
}

/// `count` edits, each with the state that it leads to; the state before the first one is empty.
pub(super) fn history(count: usize, seed: u64) -> Vec<(Edit, State)> {
    let mut random = Random::new(seed);
    let mut state = State::default();
    let steps = (0..count).map(|_| {
        let edit = random_edit(&state, &mut random);
        state.apply(&edit).expect("the edit is possible");
        (edit, state.clone())
    });
    steps.collect()
}

fn new_shard(disk: &mut TestDisk, limits: Limits) -> Manifest<SimEnv> {
    let created = Manifest::create_with(disk.env(), directory(), identity(), limits);
    disk.run(created).expect("creates")
}

fn append_all(disk: &mut TestDisk, manifest: &mut Manifest<SimEnv>, history: &[(Edit, State)]) {
    for (edit, state) in history {
        disk.run(manifest.append(edit, state)).expect("appends");
    }
}

fn reopened(disk: &mut TestDisk) -> Result<State, ManifestError> {
    let opening = Manifest::open_with(disk.env(), directory(), SMALL);
    disk.run(opening).map(|(_, state, _)| state)
}

fn log_identity() -> LogIdentity {
    LogIdentity { store_id: identity().store_id, number: 1 }
}

/// A manifest file of a snapshot and these edits.
fn file_of(edits: &[Edit]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut checksum_previous = 0;
    let snapshot = State::default().snapshot();
    for (sequence, edit) in (1..).zip([&snapshot].into_iter().chain(edits)) {
        let kind = if sequence == 1 { Kind::Snapshot } else { Kind::Edit };
        let offset = bytes.len() as u64;
        let heading = Heading { kind, sequence, checksum_previous, offset };
        let payload = codec::encode(edit);
        let (header, checksum) = record::header(log_identity(), heading, &payload);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&payload);
        bytes.resize(bytes.len().next_multiple_of(4096), 0);
        checksum_previous = checksum;
    }
    bytes.resize(bytes.len() + 8192, 0);
    bytes
}

#[test]
fn every_damaged_byte_of_a_manifest_file_is_an_error_or_leaves_the_right_state() {
    let history = history(4, 7);
    let edits: Vec<Edit> = history.iter().map(|(edit, _)| edit.clone()).collect();
    let intact = file_of(&edits);
    let (_, last) = history.last().unwrap();
    assert_eq!(log::recover(&intact, log_identity()).as_ref(), Ok(last));
    let last_record = 4 * 4096;
    let mut refused = 0;
    for index in 0..intact.len() {
        for mask in [0x01, 0x80, 0xFF] {
            let mut damaged = intact.clone();
            damaged[index] ^= mask;
            match log::recover(&damaged, log_identity()) {
                Ok(state) if state == *last => {}
                Ok(state) => {
                    assert!(index >= last_record, "byte {index} lost an edit in silence");
                    assert_eq!(state, history[2].1, "byte {index}");
                }
                Err(damage) => {
                    assert_eq!(damage.offset, index / 4096 * 4096, "byte {index}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 3 * 4 * record::HEADER_BYTES, "only {refused} refusals");
}

#[test]
fn every_truncated_manifest_file_is_an_error_or_a_prefix() {
    let history = history(3, 8);
    let edits: Vec<Edit> = history.iter().map(|(edit, _)| edit.clone()).collect();
    let intact = file_of(&edits);
    let mut states = vec![State::default()];
    states.extend(history.into_iter().map(|(_, state)| state));
    for len in 0..intact.len() {
        match log::recover(&intact[..len], log_identity()) {
            Ok(state) => assert!(states.contains(&state), "{len} bytes"),
            Err(damage) => assert!(damage.offset == 0 && len < 4096, "{len} bytes: {damage:?}"),
        }
    }
}

#[test]
fn records_of_another_place_file_or_store_do_not_count() {
    let history = history(3, 9);
    let edits: Vec<Edit> = history.iter().map(|(edit, _)| edit.clone()).collect();
    let intact = file_of(&edits);
    let mut misdirected = intact.clone();
    misdirected.copy_within(2 * 4096..3 * 4096, 4096);
    assert_eq!(log::recover(&misdirected, log_identity()).unwrap_err().offset, 4096);
    // The last record again, where the next one would be: not a record at all in that place.
    let mut doubled = intact.clone();
    doubled.copy_within(3 * 4096..4 * 4096, 4 * 4096);
    assert_eq!(log::recover(&doubled, log_identity()).as_ref(), Ok(&history[2].1));
    let other_file = LogIdentity { number: 2, ..log_identity() };
    assert_eq!(log::recover(&intact, other_file).unwrap_err().offset, 0);
    let other_store = LogIdentity { store_id: 1, ..log_identity() };
    assert_eq!(log::recover(&intact, other_store).unwrap_err().offset, 0);
    // A block of an earlier life of the same file, intact by itself, does not fit the chain.
    let mut stale = intact;
    let earlier =
        file_of(&[Edit { version_ceiling: Some(1), ..Edit::default() }, edits[1].clone()]);
    stale[4096..8192].copy_from_slice(&earlier[4096..8192]);
    let damage = log::recover(&stale, log_identity()).unwrap_err();
    assert_eq!(damage.offset, 8192);
    assert!(damage.what.contains("another log"), "{}", damage.what);
}

#[test]
fn file_names_are_recognised_only_in_their_one_spelling() {
    assert_eq!(log::file_name(42), "MANIFEST-00000042");
    assert_eq!(log::parse_file_name("MANIFEST-00000042"), Some(42));
    assert_eq!(log::parse_file_name("MANIFEST-123456789"), Some(123_456_789));
    for name in ["MANIFEST-42", "MANIFEST-000000042", "MANIFEST-+0000042", "MANIFEST-", "X"] {
        assert_eq!(log::parse_file_name(name), None, "{name}");
    }
}

#[test]
fn a_new_shard_is_empty_and_remembers_who_it_is() {
    let mut disk = TestDisk::new();
    let env = disk.env();
    assert!(!Manifest::exists(&env, directory()).unwrap());
    let manifest = new_shard(&mut disk, LIMITS);
    assert_eq!(manifest.superblock().identity, identity());
    assert!(Manifest::exists(&env, directory()).unwrap());
    let (_, state, superblock) = disk.run(Manifest::open(env.clone(), directory())).unwrap();
    assert_eq!(state, State::default());
    let expected = Superblock { sequence: 1, identity: identity(), manifest_number: 1 };
    assert_eq!(superblock, expected);
    let again = disk.run(Manifest::create(env, directory(), identity()));
    assert!(matches!(again, Err(ManifestError::Io { source, .. })
        if source.kind() == io::ErrorKind::AlreadyExists));
    assert_eq!(disk.names(), ["MANIFEST-00000001", "SUPERBLOCK"]);
}

#[test]
fn long_files_are_replaced_and_every_state_survives_reopening() {
    let mut disk = TestDisk::new();
    let mut manifest = new_shard(&mut disk, SMALL);
    let mut switches = 0;
    for (edit, state) in history(60, 3) {
        let before = manifest.superblock().manifest_number;
        disk.run(manifest.append(&edit, &state)).expect("appends");
        let number = manifest.superblock().manifest_number;
        switches += number - before;
        assert_eq!(disk.names(), [log::file_name(number).as_str(), SUPERBLOCK_FILE]);
        assert_eq!(reopened(&mut disk.duplicate()).expect("opens"), state);
    }
    assert!(switches >= 5, "{switches} switches");
}

#[test]
fn leftovers_are_removed_and_their_numbers_not_used_again() {
    let mut disk = TestDisk::new();
    drop(new_shard(&mut disk, SMALL));
    let unfinished = directory().join(SUPERBLOCK_UNFINISHED_FILE);
    let planted = disk.plant(&manifest_path(9), b"an unfinished snapshot");
    let mut disk = planted.plant(&unfinished, b"");
    let opened = Manifest::open_with(disk.env(), directory(), SMALL);
    let (mut manifest, _, _) = disk.run(opened).expect("opens");
    assert_eq!(disk.names(), ["MANIFEST-00000001", SUPERBLOCK_FILE]);
    append_all(&mut disk, &mut manifest, &history(10, 12));
    assert_eq!(manifest.superblock().manifest_number, 10);
}

#[test]
fn a_record_of_several_pieces_is_appended_and_read_back() {
    let mut disk = TestDisk::new();
    let mut manifest = new_shard(&mut disk, LIMITS);
    let tables = (0..200).map(|id| table(id, 0, &[1; 2000], &[2; 2000]));
    let large = Edit { tables_added: tables.collect(), ..Edit::default() };
    let mut state = State::default();
    state.apply(&large).unwrap();
    disk.run(manifest.append(&large, &state)).unwrap();
    for seed in 0..20 {
        assert_eq!(reopened(&mut disk.crash(seed)).expect("opens"), state, "seed {seed}");
    }
    let small = Edit { version_ceiling: Some(1), ..Edit::default() };
    state.apply(&small).unwrap();
    disk.run(manifest.append(&small, &state)).unwrap();
    let number = manifest.superblock().manifest_number;
    assert!(disk.contents(&manifest_path(number)).len() > 3 * (256 << 10));
    assert_eq!(reopened(&mut disk).unwrap(), state);
}

#[test]
fn an_edit_beyond_the_limit_is_refused() {
    let mut disk = TestDisk::new();
    let mut manifest = new_shard(&mut disk, LIMITS);
    let table = table(1, 0, b"a", &vec![b'b'; PAYLOAD_BYTES_MAX]);
    let edit = Edit { tables_added: vec![table], ..Edit::default() };
    let appended = disk.run(manifest.append(&edit, &State::default()));
    assert!(matches!(appended, Err(ManifestError::Invalid(EditError::TooLarge { .. }))));
    assert_eq!(reopened(&mut disk).unwrap(), State::default());
}

#[test]
fn a_failed_append_is_the_last_one() {
    let history = history(30, 4);
    let mut clean = TestDisk::new();
    let mut manifest = new_shard(&mut clean, SMALL);
    let created = clean.changes();
    append_all(&mut clean, &mut manifest, &history);
    for failing in created..clean.changes() {
        let mut disk = TestDisk::new();
        let mut manifest = new_shard(&mut disk, SMALL);
        disk.fail_at(failing);
        let mut steps = history.iter().enumerate();
        let failed = steps
            .find_map(|(step, (edit, state))| {
                let error = disk.run(manifest.append(edit, state)).err()?;
                assert!(matches!(error, ManifestError::Io { .. }), "{error}");
                Some(step)
            })
            .expect("an operation of an append fails");
        let changes = disk.changes();
        if let Some((_, (edit, state))) = steps.next() {
            let next = disk.run(manifest.append(edit, state));
            assert!(matches!(next, Err(ManifestError::Poisoned)));
        }
        assert_eq!(disk.changes(), changes, "a poisoned manifest wrote");
        let state = reopened(&mut disk).expect("opens");
        let before = if failed == 0 { State::default() } else { history[failed - 1].1.clone() };
        assert!(state == before || state == history[failed].1, "operation {failing}");
    }
}

#[test]
fn an_abandoned_append_is_the_last_one() {
    let mut disk = TestDisk::new();
    let mut manifest = new_shard(&mut disk, SMALL);
    let state = State::default();
    drop(manifest.append(&Edit::default(), &state));
    let appended = disk.run(manifest.append(&Edit::default(), &state));
    appended.expect("a future never polled did nothing");
    let changes = disk.changes();
    let hung = disk.run(poll_once(manifest.append(&Edit::default(), &state)));
    assert!(hung.is_none(), "the append ended: {hung:?}");
    assert!(disk.changes() > changes, "the append has begun");
    let refused = disk.run(manifest.append(&Edit::default(), &state));
    assert!(matches!(refused, Err(ManifestError::Poisoned)));
}

#[test]
fn a_directory_without_superblock_is_told_from_an_empty_one() {
    let mut disk = TestDisk::new();
    let missing = reopened(&mut disk);
    assert!(matches!(missing, Err(ManifestError::Io { source, .. })
        if source.kind() == io::ErrorKind::NotFound));
    let mut disk = disk.plant(&directory().join("holiday.jpg"), b"sunny");
    assert!(matches!(reopened(&mut disk), Err(ManifestError::NotAStore { .. })));
    let created = Manifest::create(disk.env(), directory(), identity());
    let error = disk.run(created).err().expect("refused").to_string();
    assert!(error.starts_with(DIRECTORY), "{error}");

    let mut disk = TestDisk::new();
    drop(new_shard(&mut disk, SMALL));
    let mut disk = disk.without(&superblock_path());
    assert!(matches!(reopened(&mut disk), Err(ManifestError::NotAStore { .. })));
}

#[test]
fn damaged_and_missing_files_are_named() {
    let mut disk = TestDisk::new();
    let mut manifest = new_shard(&mut disk, LIMITS);
    append_all(&mut disk, &mut manifest, &history(3, 5));
    let mut bytes = disk.contents(&manifest_path(1));
    bytes[2 * 4096 + 100] ^= 1;
    let mut disk = disk.plant(&manifest_path(1), &bytes);
    let error = reopened(&mut disk).unwrap_err().to_string();
    let expected = format!("{DIRECTORY}/MANIFEST-00000001 is damaged at byte 8192: ");
    assert!(error.starts_with(&expected), "{error}");
    let error = reopened(&mut disk.without(&manifest_path(1))).unwrap_err();
    assert!(matches!(error, ManifestError::Damaged { path, offset: 0, .. }
        if path == manifest_path(1)));
}

#[test]
fn a_superblock_put_back_to_an_earlier_state_is_refused_and_nothing_is_removed() {
    let mut disk = TestDisk::new();
    let mut manifest = new_shard(&mut disk, SMALL);
    let mut old = None;
    for (edit, state) in history(30, 6) {
        let superblock = disk.contents(&superblock_path());
        let file = disk.contents(&manifest_path(manifest.superblock().manifest_number));
        disk.run(manifest.append(&edit, &state)).unwrap();
        match (&old, manifest.superblock().manifest_number) {
            (None, 2) => old = Some((superblock, file)),
            // Two appends after the switch to file 2.
            (Some(_), 2) => break,
            _ => {}
        }
    }
    let (superblock, file) = old.expect("a switch");
    let mut disk = disk.plant(&superblock_path(), &superblock);
    assert!(matches!(reopened(&mut disk), Err(ManifestError::Damaged { path, .. })
        if path == manifest_path(1)));
    let mut disk = disk.plant(&manifest_path(1), &file);
    let names = disk.names();
    assert!(matches!(reopened(&mut disk), Err(ManifestError::Damaged { path, .. })
        if path == superblock_path()));
    assert_eq!(disk.names(), names);
}

#[test]
fn every_damaged_byte_of_the_superblock_file_is_mended() {
    let mut disk = TestDisk::new();
    let mut manifest = new_shard(&mut disk, SMALL);
    append_all(&mut disk, &mut manifest, &history(12, 2));
    assert!(manifest.superblock().sequence > 1);
    let superblock = manifest.superblock();
    let intact = disk.contents(&superblock_path());
    for index in (0..intact.len()).filter(|index| index % 4096 < 80 || index % 97 == 0) {
        for mask in [0x01, 0x80, 0xFF] {
            let mut damaged = intact.clone();
            damaged[index] ^= mask;
            let mut disk = disk.duplicate().plant(&superblock_path(), &damaged);
            let opening = Manifest::open_with(disk.env(), directory(), SMALL);
            let (_, _, opened) = disk.run(opening).unwrap();
            assert_eq!(opened, superblock);
            assert!(disk.contents(&superblock_path()) == intact, "byte {index} is not mended");
        }
    }
}
