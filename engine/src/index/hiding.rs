//! How much of what tables point to is hidden by newer tables: estimated, because no merge has met
//! both yet. When a table comes, some of its keys are looked up in everything older. How many are
//! there is known from filters; how long the log records are that they point to, from those of
//! their blocks that are in memory. They need not be as long as the others are: small items that
//! are written often beside large ones would else seem to hide those.

use larder_runtime::env::{Env, IoClass};

use super::Index;
use super::table::{ALL, Hiding, Resident, Table, key_hash};
use super::tables::Tables;
use crate::entry::Entry;

/// After so many keys others may have a turn.
const TURN_KEYS: usize = 64;

/// One in so many of the hidden entries that were found must have been seen for their length to be
/// known.
const SEEN_PART: u64 = 4;

/// What is older than a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Older {
    /// All tables there are.
    All,
    /// Those below this level.
    Below(u8),
    /// Those that look-ups visit after the table with this id.
    Than(u64),
}

/// What a sample's keys have met.
#[derive(Default)]
struct Met {
    /// Older entries of them, those included of which only a filter has told.
    hidden: u64,
    /// Those that were seen, and the log records that they point to, in bytes.
    seen: u64,
    seen_bytes: u64,
}

impl Met {
    fn see(&mut self, record_bytes: u64) {
        self.hidden += 1;
        self.seen += 1;
        self.seen_bytes += record_bytes;
    }

    /// What the entries hide of which `keys` are a sample.
    fn hiding(&self, keys: u64) -> Hiding {
        let share = (self.hidden * u64::from(ALL)).checked_div(keys);
        let is_known = self.seen * SEEN_PART >= self.hidden;
        let record_bytes = self.seen_bytes.checked_div(self.seen).filter(|_| is_known);
        Hiding { share: share.map_or(ALL, |share| share as u32), record_bytes }
    }
}

impl<E: Env> Index<E> {
    /// Estimates what the entries of `table` hide of older ones, with a few reads charged to
    /// `class`.
    pub(super) async fn estimate_hiding(&self, table: &Table<E>, older: Older, class: IoClass) {
        let keys = table.sample(class).await;
        let mut met = Met::default();
        for some in keys.chunks(TURN_KEYS) {
            {
                let tables = &self.contents.borrow().tables;
                some.iter().for_each(|key| self.meet(tables, key, older, &mut met));
            }
            self.env.yield_if_needed().await;
        }
        table.set_hiding(met.hiding(keys.len() as u64));
    }

    /// Looks for the newest entry of `key` among those that are `older`.
    fn meet(&self, tables: &Tables<E>, key: &[u8], older: Older, met: &mut Met) {
        let (hash, blocks) = (key_hash(key), &self.blocks);
        let record_bytes = |entry: Option<Entry<'_>>| {
            let pointer = entry.map(|entry| entry.pointer());
            pointer.map(|pointer| pointer.map_or(0, |pointer| u64::from(pointer.len)))
        };
        let mut find = |table: &Table<E>| match table.get_resident(key, hash, blocks, record_bytes)
        {
            Resident::Answer(None) => false,
            Resident::Answer(Some(bytes)) => {
                met.see(bytes);
                true
            }
            // The filter says that it is there.
            Resident::NeedsDevice => {
                met.hidden += 1;
                true
            }
        };
        match older {
            Older::All => tables.holding(key).any(|table| find(table)),
            Older::Than(id) => {
                let mut visited = tables.holding(key).skip_while(|table| table.meta().id != id);
                visited.next().is_some() && visited.any(|table| find(table))
            }
            Older::Below(level) => tables.holding_below(level, key).any(|table| find(table)),
        };
    }
}
