//! How much of what tables point to is hidden by newer tables: estimated, because no merge has met
//! both yet. When a table comes, some of its keys are looked up in the filters of everything older.

use larder_runtime::env::{Env, IoClass};

use super::Index;
use super::table::{Table, key_hash};
use super::tables::Tables;

/// All of something, in the unit that shares are given in.
pub(super) const ALL: u32 = 1000;

/// After so many keys others may have a turn.
const TURN_KEYS: usize = 64;

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

impl<E: Env> Index<E> {
    /// Estimates how many entries of `table` hide something older, with a few reads charged to
    /// `class`.
    pub(super) async fn estimate_hiding(&self, table: &Table<E>, older: Older, class: IoClass) {
        let keys = table.sample(class).await;
        let mut hiding = 0;
        for some in keys.chunks(TURN_KEYS) {
            {
                let tables = &self.contents.borrow().tables;
                hiding += some.iter().filter(|key| may_have(tables, key, older)).count() as u64;
            }
            self.env.yield_if_needed().await;
        }
        let share = (hiding * u64::from(ALL)).checked_div(keys.len() as u64);
        table.set_hiding(share.map_or(ALL, |share| share as u32));
    }
}

/// Whether something `older` seems to have an entry of `key`.
fn may_have<E: Env>(tables: &Tables<E>, key: &[u8], older: Older) -> bool {
    let hash = key_hash(key);
    let has = |table: &Table<E>| table.may_contain(hash);
    match older {
        Older::All => tables.holding(key).any(|table| has(table)),
        Older::Than(id) => {
            let mut visited = tables.holding(key).skip_while(|table| table.meta().id != id);
            visited.next().is_some() && visited.any(|table| has(table))
        }
        Older::Below(level) => tables.holding_below(level, key).any(|table| has(table)),
    }
}
