//! What a core has done, in numbers. Plain integers of one thread; other threads get copies.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use larder_engine::error::EngineError;
use larder_engine::operation::Outcome;
use larder_engine::shard::Statistics;
use larder_engine::space::SpaceReport;
use larder_runtime::core_env::{CoreTime, LoopCounters};
use larder_runtime::disk::DiskCounters;
use larder_runtime::file_cache::FileCacheCounters;

/// One connection, or a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionReport {
    /// Its number, which no other has.
    pub number: u64,
    /// Who is at the other end; `None` if it came by a path.
    pub peer: Option<SocketAddr>,
    /// Where it was accepted; `None` by a path.
    pub listener: Option<SocketAddr>,
    /// What it does.
    pub state: ConnectionState,
    /// Seconds since it was last heard of.
    pub silent_seconds: u64,
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// It is a listener.
    Listening,
    /// It waits for a request, or the rest of one.
    Reading,
    /// It is the one that asks.
    Asking,
    /// Its requests are carried out.
    Working,
    /// Its client has yet to take replies.
    Writing,
    /// It is told what happens.
    Watching,
}

/// The connections and listeners of all cores, for the connection that has asked.
#[derive(Clone, Debug)]
pub struct ConnectionList {
    /// A list of each core, which all have that asked in the same turn.
    cores: Vec<Arc<[ConnectionReport]>>,
    asking: u64,
}

impl ConnectionList {
    /// These lists, where the connection of that number has asked.
    pub fn new(cores: Vec<Arc<[ConnectionReport]>>, asking: u64) -> Self {
        Self { cores, asking }
    }

    /// All of them by number, with what each does.
    pub fn by_number(&self) -> Vec<(&ConnectionReport, ConnectionState)> {
        let state = |report: &ConnectionReport| match report.state {
            _ if report.number == self.asking => ConnectionState::Asking,
            state => state,
        };
        let all = self.cores.iter().flat_map(|reports| reports.iter());
        let mut all: Vec<_> = all.map(|report| (report, state(report))).collect();
        all.sort_by_key(|(report, _)| report.number);
        all
    }

    /// The memory that it takes if nobody else has it, in bytes.
    pub fn memory(&self) -> usize {
        self.cores.iter().map(|reports| size_of_val(&**reports)).sum()
    }
}

/// As what a request counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A read.
    Get {
        /// Whether it also sets an expiry.
        touches: bool,
    },
    /// A store with a comparison.
    CompareAndStore,
    /// Any other store.
    Store,
    /// `delete`, `md`.
    Delete,
    /// `incr`, `ma`.
    Increment,
    /// `decr`, `ma`.
    Decrement,
    /// `touch`.
    Touch,
    /// A store whose value is over the limit.
    TooLarge,
    /// What is not counted.
    Other,
}

/// What a command did, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// The item was there, or was stored.
    Hit,
    /// It was not.
    Miss,
    /// The item had another CAS id, or another value.
    BadValue,
    /// It failed, or there is nothing to count.
    Other,
}

impl From<Outcome> for Tally {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Hit | Outcome::Stored | Outcome::Deleted | Outcome::Number(_) => Self::Hit,
            Outcome::Miss | Outcome::NotFound => Self::Miss,
            Outcome::Exists | Outcome::ValueDiffers => Self::BadValue,
            Outcome::NotStored | Outcome::NotNumeric | Outcome::TooLarge | Outcome::Large => {
                Self::Other
            }
        }
    }
}

/// What the connections of one core have asked for, and what its shards have answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Keys read: `get`, `gets`, `gat`, `gats`, `mg`.
    pub cmd_get: u64,
    /// Values stored or refused.
    pub cmd_set: u64,
    /// `flush_all`.
    pub cmd_flush: u64,
    /// `touch`, `gat`, `gats`, and `mg` with a new expiry.
    pub cmd_touch: u64,
    /// Keys that were found.
    pub get_hits: u64,
    /// Keys that were not.
    pub get_misses: u64,
    /// Deletes of an item.
    pub delete_hits: u64,
    /// Deletes of nothing.
    pub delete_misses: u64,
    /// Increments of a number.
    pub incr_hits: u64,
    /// Increments of nothing.
    pub incr_misses: u64,
    /// Decrements of a number.
    pub decr_hits: u64,
    /// Decrements of nothing.
    pub decr_misses: u64,
    /// Stores whose CAS id was the item's.
    pub cas_hits: u64,
    /// Stores with a CAS id that found no item.
    pub cas_misses: u64,
    /// Stores whose CAS id was not the item's.
    pub cas_badval: u64,
    /// New expiries given.
    pub touch_hits: u64,
    /// New expiries for nothing.
    pub touch_misses: u64,
    /// Values refused for their size.
    pub store_too_large: u64,
    /// Values refused for want of space.
    pub store_no_memory: u64,
    /// Bytes received.
    pub bytes_read: u64,
    /// Bytes of answers.
    pub bytes_written: u64,
    /// Connections accepted.
    pub total_connections: u64,
    /// Connections refused at the limit.
    pub rejected_connections: u64,
    /// Connections closed because they were silent for too long.
    pub idle_kicks: u64,
    /// Connections closed because their client did not read.
    pub stalled_readers: u64,
    /// Connections closed because their core's connections held too much memory.
    pub shed_connections: u64,
    /// Requests of other cores that had to wait for their client to read, or for a place.
    pub parked: u64,
    /// Times that a request was refused for the moment because its core had reached a limit.
    pub refused: u64,
    /// Times that a connection was not read from because a limit was reached.
    pub conn_yields: u64,
    /// Commands sent to another core.
    pub forwarded: u64,
    /// Commands that failed because of damage.
    pub damaged: u64,
    /// Requests that were not begun because their deadline was past.
    pub too_late: u64,
    /// Events for those who watch.
    pub log_worker_written: u64,
    /// Events that were not kept because there were too many at once.
    pub log_worker_dropped: u64,
    /// Events that a client was sent.
    pub log_watcher_sent: u64,
    /// Events that were skipped because a client did not read.
    pub log_watcher_skipped: u64,
}

/// Gives the names of all counters to another macro.
macro_rules! every_counter {
    ($take:ident) => {
        $take!(
            cmd_get,
            cmd_set,
            cmd_flush,
            cmd_touch,
            get_hits,
            get_misses,
            delete_hits,
            delete_misses,
            incr_hits,
            incr_misses,
            decr_hits,
            decr_misses,
            cas_hits,
            cas_misses,
            cas_badval,
            touch_hits,
            touch_misses,
            store_too_large,
            store_no_memory,
            bytes_read,
            bytes_written,
            total_connections,
            rejected_connections,
            idle_kicks,
            stalled_readers,
            shed_connections,
            parked,
            refused,
            conn_yields,
            forwarded,
            damaged,
            too_late,
            log_worker_written,
            log_worker_dropped,
            log_watcher_sent,
            log_watcher_skipped,
        )
    };
}

impl Counters {
    /// Counts a finished command.
    #[inline]
    pub fn count(&mut self, kind: Kind, outcome: Outcome) {
        self.store_too_large += u64::from(outcome == Outcome::TooLarge);
        self.count_tally(kind, Tally::from(outcome));
    }

    fn count_tally(&mut self, kind: Kind, tally: Tally) {
        let (hits, misses) = match kind {
            Kind::Get { touches } => {
                self.cmd_get += 1;
                if touches {
                    self.count_touch(tally);
                }
                (&mut self.get_hits, &mut self.get_misses)
            }
            Kind::Store => {
                self.cmd_set += 1;
                return;
            }
            Kind::TooLarge => {
                self.cmd_set += 1;
                self.store_too_large += 1;
                return;
            }
            Kind::CompareAndStore => {
                self.cmd_set += 1;
                self.cas_badval += u64::from(tally == Tally::BadValue);
                (&mut self.cas_hits, &mut self.cas_misses)
            }
            Kind::Delete => (&mut self.delete_hits, &mut self.delete_misses),
            Kind::Increment => (&mut self.incr_hits, &mut self.incr_misses),
            Kind::Decrement => (&mut self.decr_hits, &mut self.decr_misses),
            Kind::Touch => return self.count_touch(tally),
            Kind::Other => return,
        };
        *hits += u64::from(tally == Tally::Hit);
        *misses += u64::from(tally == Tally::Miss);
    }

    fn count_touch(&mut self, tally: Tally) {
        self.cmd_touch += 1;
        self.touch_hits += u64::from(tally == Tally::Hit);
        self.touch_misses += u64::from(tally == Tally::Miss);
    }

    /// Counts a command that failed.
    pub fn count_failure(&mut self, kind: Kind, error: &EngineError) {
        self.count_tally(kind, Tally::Other);
        match error {
            EngineError::Full => self.store_no_memory += 1,
            EngineError::Damaged { .. } => self.damaged += 1,
            EngineError::NoNamespace(_)
            | EngineError::OverQuota(_)
            | EngineError::RecordFull(_)
            | EngineError::RecordChanging(_)
            | EngineError::LeaseEnded
            | EngineError::TooManyLeases => {}
            EngineError::Stopped(_) | EngineError::Read(_) | EngineError::Open(_) => {}
        }
    }

    /// Every counter with its name.
    pub fn named(&self) -> [(&'static str, u64); 36] {
        macro_rules! named {
            ($($name:ident),* $(,)?) => { [$((stringify!($name), self.$name)),*] };
        }
        every_counter!(named)
    }

    /// Adds what another core has counted.
    pub fn add(&mut self, other: &Self) {
        macro_rules! add {
            ($($name:ident),* $(,)?) => {{ $(self.$name += other.$name;)* }};
        }
        every_counter!(add);
    }
}

/// One shard in numbers.
#[derive(Clone, Debug)]
pub struct ShardReport {
    /// The shard's number.
    pub shard: u16,
    /// The engine's figures.
    pub statistics: Statistics,
    /// Why it takes no more writes, if so.
    pub stopped: Option<String>,
}

/// What the bytes of one shard are for.
#[derive(Clone, Debug)]
pub struct ShardSpace {
    /// Where the shard's files are.
    pub directory: PathBuf,
    /// What they are for.
    pub report: SpaceReport,
}

/// The memory of one core and its connections, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoreMemory {
    /// What they may hold together.
    pub bound: usize,
    /// Requests of which a part has come.
    pub input: usize,
    /// Replies that clients have not taken, and empty buffers for more.
    pub output: usize,
    /// Requests that wait, and replies that wait for earlier ones.
    pub waiting: usize,
    /// Batches on their way between cores, what of them waits to be carried out, and what cores
    /// have told that goes into one answer.
    pub mailboxes: usize,
    /// Buffers that the kernel receives into.
    pub receive_buffers: usize,
    /// Buffers for the disk: frames of the log, and what is read and written.
    pub disk_buffers: usize,
}

/// One core in numbers.
#[derive(Clone, Debug)]
pub struct CoreReport {
    /// The core's number.
    pub core: usize,
    /// Open connections.
    pub connections: usize,
    /// Those of them that watch what happens.
    pub watchers: usize,
    /// Whether it counts requests by prefix.
    pub counts_prefixes: bool,
    /// Commands that wait for the device, another core or a flush.
    pub waiting: usize,
    /// What its connections hold of its memory.
    pub memory: CoreMemory,
    /// Receives that ended because all receive buffers were in use.
    pub buffer_shortages: u64,
    /// What was asked and answered.
    pub counters: Counters,
    /// The core's shards.
    pub shards: Vec<ShardReport>,
    /// The disk as this core has used it.
    pub disk: DiskCounters,
    /// The open files of the core's shards.
    pub files: FileCacheCounters,
    /// The core's loop.
    pub turns: LoopCounters,
    /// What has become of the core's time.
    pub time: CoreTime,
}

impl CoreReport {
    /// The memory that it takes, in bytes.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.shards.capacity() * size_of::<ShardReport>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_all_cores_are_one_list() {
        let report = |number, state| ConnectionReport {
            number,
            peer: None,
            listener: None,
            state,
            silent_seconds: 0,
        };
        let (working, reading) = (ConnectionState::Working, ConnectionState::Reading);
        let cores =
            [[report(1, working), report(5, working)], [report(0, reading), report(4, reading)]];
        let list = ConnectionList::new(cores.into_iter().map(Arc::from).collect(), 5);
        let all: Vec<_> = list.by_number().iter().map(|(it, state)| (it.number, *state)).collect();
        assert_eq!(all, [(0, reading), (1, working), (4, reading), (5, ConnectionState::Asking)]);
        assert_eq!(list.memory(), 4 * size_of::<ConnectionReport>());
    }

    #[test]
    fn commands_count_where_memcached_counts_them() {
        let mut counters = Counters::default();
        for (kind, tally) in [
            (Kind::Get { touches: false }, Tally::Hit),
            (Kind::Get { touches: true }, Tally::Miss),
            (Kind::Store, Tally::Hit),
            (Kind::CompareAndStore, Tally::BadValue),
            (Kind::CompareAndStore, Tally::Hit),
            (Kind::Delete, Tally::Miss),
            (Kind::Increment, Tally::Hit),
            (Kind::Decrement, Tally::Miss),
            (Kind::Touch, Tally::Hit),
            (Kind::TooLarge, Tally::Miss),
            (Kind::Other, Tally::Hit),
        ] {
            counters.count_tally(kind, tally);
        }
        let expected = Counters {
            cmd_get: 2,
            cmd_set: 4,
            store_too_large: 1,
            cmd_touch: 2,
            get_hits: 1,
            get_misses: 1,
            touch_hits: 1,
            touch_misses: 1,
            cas_hits: 1,
            cas_badval: 1,
            delete_misses: 1,
            incr_hits: 1,
            decr_misses: 1,
            ..Counters::default()
        };
        assert_eq!(counters, expected);
        counters.count_failure(Kind::Store, &EngineError::Full);
        assert_eq!((counters.cmd_set, counters.store_no_memory), (5, 1));
        assert!(counters.named().contains(&("cmd_set", 5)));
        let mut sum = Counters { parked: 1, shed_connections: 2, refused: 3, ..counters };
        sum.add(&sum.clone());
        for ((name, twice), (_, once)) in sum.named().iter().zip(counters.named()) {
            let once = match *name {
                "parked" => 1,
                "shed_connections" => 2,
                "refused" => 3,
                _ => once,
            };
            assert_eq!(*twice, 2 * once, "{name}");
        }
    }

    #[test]
    fn outcomes_are_counted_as_hits_and_misses() {
        for (outcome, tally) in [
            (Outcome::Hit, Tally::Hit),
            (Outcome::Number(1), Tally::Hit),
            (Outcome::NotFound, Tally::Miss),
            (Outcome::Exists, Tally::BadValue),
            (Outcome::NotNumeric, Tally::Other),
        ] {
            assert_eq!(Tally::from(outcome), tally);
        }
    }
}
