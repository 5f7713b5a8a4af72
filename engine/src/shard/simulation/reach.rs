//! What crashes have hit: proof that the simulation gets to the places where they could do harm.

use larder_runtime::env::Env;
use larder_runtime::simulation::SimEnv;

use super::harness::{self, TestShard};
use super::lives::Lives;
use crate::index::table;
use crate::value_log::segment;

/// How many crashes have hit the middle of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    crashes: u64,
    /// A memtable that is not in the manifest as a table.
    flushes: u64,
    /// Tables that are not in the manifest yet, or not any more, and no flush.
    merges: u64,
    /// Two manifests.
    manifest_switches: u64,
    /// A freed segment that has been taken up again and is not in the manifest yet.
    recyclings: u64,
    /// A segment that is full but not durable to its end.
    segment_rolls: u64,
    /// A segment out of which records are being moved.
    collections: u64,
    /// A segment of which everything has expired, and that the manifest is being told to be gone.
    expiries: u64,
}

/// The files of a shard, as the running process sees them.
#[derive(Default)]
struct Files {
    tables_unknown: usize,
    manifests: usize,
    /// The segments that the manifest does not know.
    segments_unknown: Vec<u32>,
}

impl Files {
    fn of(env: &SimEnv, shard: &TestShard) -> Self {
        let mut files = Self::default();
        let known = shard.journal.state();
        let directory = harness::directory_of(shard.options().shard);
        for entry in env.list(&directory).expect("the directory is there") {
            if let Some(id) = table::parse_file_name(&entry.name) {
                let is_known = known.levels.iter().flatten().any(|meta| meta.id == id);
                files.tables_unknown += usize::from(!is_known);
            } else if let Some(number) = segment::parse_file_name(&entry.name) {
                if !known.segments.contains_key(&number) {
                    files.segments_unknown.push(number);
                }
            } else {
                files.manifests += usize::from(entry.name.starts_with("MANIFEST-"));
            }
        }
        files
    }
}

impl Reach {
    /// Notes what the crash that has just happened has hit.
    pub(super) fn note_crash(&mut self, env: &SimEnv, shard: &TestShard) {
        let files = Files::of(env, shard);
        let is_flushing = shard.index.has_frozen();
        // What is neither free nor about to be is being made a new segment of. A file with an old
        // number was one before; so was one with a new number while there is no other of its kind.
        let taken_up = files.segments_unknown.iter().filter(|number| {
            let is_old = **number < shard.journal.state().segment_id_next;
            is_old && !shard.free.borrow().holds(**number)
        });
        self.crashes += 1;
        self.recyclings += u64::from(taken_up.count() > 0);
        self.flushes += u64::from(is_flushing);
        self.merges += u64::from(!is_flushing && files.tables_unknown > 0);
        self.manifest_switches += u64::from(files.manifests > 1);
        self.segment_rolls += u64::from(shard.log.is_rolling());
        self.collections += u64::from(shard.garbage.is_collecting.get());
        let now = env.unix_seconds() as u32;
        let journal = shard.journal.state();
        let mut segments = journal.segments.iter();
        let is_expiring = segments.any(|(number, segment)| {
            let is_collected = shard.garbage.collected.borrow().contains(number);
            let is_leaving = shard.free.borrow().is_leaving(*number) && !is_collected;
            is_leaving && segment.live_bytes > 0 && segment.has_expired(now)
        });
        self.expiries += u64::from(is_expiring && !shard.garbage.is_collecting.get());
    }
}

/// Crashes that are enough if they have hit everything, and seeds after which they must have.
const CRASHES_ENOUGH: u64 = 800;
const SEEDS_MAX: u64 = 4000;

#[test]
fn crashes_hit_the_middle_of_everything() {
    let mut reach = Reach::default();
    for seed in 1..=SEEDS_MAX {
        let mut lives = Lives::new(seed);
        if seed % 3 > 0 {
            lives.expire_soon();
        }
        for _ in 0..lives.random.count(1..=5) {
            lives.live();
        }
        reach.add(&lives.reach);
        if reach.crashes >= CRASHES_ENOUGH && reach.has_hit_everything() {
            break;
        }
    }
    eprintln!("{reach:?}");
    assert!(reach.has_hit_everything(), "{reach:?}");
}

impl Reach {
    fn has_hit_everything(&self) -> bool {
        let hits = [
            self.flushes,
            self.merges,
            self.manifest_switches,
            self.recyclings,
            self.segment_rolls,
            self.collections,
            self.expiries,
        ];
        hits.iter().all(|hits| *hits > 0)
    }

    fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.flushes += other.flushes;
        self.merges += other.merges;
        self.manifest_switches += other.manifest_switches;
        self.recyclings += other.recyclings;
        self.segment_rolls += other.segment_rolls;
        self.collections += other.collections;
        self.expiries += other.expiries;
    }
}
