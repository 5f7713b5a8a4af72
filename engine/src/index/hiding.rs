//! How much of what tables point to is hidden by newer tables: estimated, because no merge has met
//! both yet. Some keys of each table are looked up in the filters of everything older.

use std::collections::BTreeMap;

use larder_runtime::env::Env;

use super::table::{Table, key_hash};
use super::tables::{Tables, Visit};

/// How many keys are looked up, spread over all tables; of each at least one.
const KEYS_MAX: usize = 2048;

/// All of something, in the unit that shares are given in.
pub(super) const ALL: u32 = 1000;

/// By table: of [`ALL`] of its entries, so many hide an older entry of their key. `ALL` if nothing
/// is known of it.
pub(super) fn hiding_shares<E: Env>(tables: &Tables<E>) -> BTreeMap<u64, u32> {
    let count = tables.tables().count();
    let keys_of_table = (KEYS_MAX / count.max(1)).max(1);
    let share = |table: &Table<E>| {
        let step = table.sample().len().div_ceil(keys_of_table).max(1);
        let keys = || table.sample().iter().step_by(step);
        let hiding = keys().filter(|key| hides_older(tables, table, key)).count() as u64;
        let share = (hiding * u64::from(ALL)).checked_div(keys().count() as u64);
        share.map_or(ALL, |share| share as u32)
    };
    tables.tables().map(|table| (table.meta().id, share(table))).collect()
}

/// Whether something older than `table` seems to have an entry of `key`, which `table` has.
fn hides_older<E: Env>(tables: &Tables<E>, table: &Table<E>, key: &[u8]) -> bool {
    let hash = key_hash(key);
    let is_itself =
        |visit: &Visit<'_, E>| matches!(visit, Visit::Table(t) if t.meta().id == table.meta().id);
    let mut older = tables.visits(key).skip_while(|visit| !is_itself(visit)).skip(1);
    older.any(|visit| matches!(visit, Visit::Table(table) if table.may_contain(hash)))
}
