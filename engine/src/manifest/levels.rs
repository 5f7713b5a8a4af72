//! The part of the state that tables make up: what an edit does to the levels.

use std::collections::{BTreeMap, BTreeSet};

use super::edit::{Edit, EditError};
use crate::index::table::TableMeta;

/// How many levels there are. With tables of 8 MiB and a factor of 8 the last one holds more
/// index than any device has room for.
pub const LEVELS: usize = 8;

/// Tables by level. Level 0 may overlap and is sorted from the newest to the oldest; the others do
/// not overlap, but for stubs, and are sorted by key.
pub type Levels = [Vec<TableMeta>; LEVELS];

/// Finds out whether `edit` can be applied, without changing anything.
pub(super) fn check(levels: &Levels, edit: &Edit) -> Result<(), EditError> {
    let mut leaving = BTreeSet::new();
    for id in edit.tables_removed.iter().chain(edit.tables_moved.iter().map(|(id, _)| id)) {
        // Whatever names a table twice finds it gone the second time.
        if !leaving.insert(*id) {
            return Err(EditError::UnknownTable { id: *id });
        }
    }
    let moved: BTreeMap<u64, u8> = edit.tables_moved.iter().copied().collect();
    let mut added = BTreeSet::new();
    for table in &edit.tables_added {
        check_table(table)?;
        if !added.insert(table.id) {
            return Err(EditError::TableIdReused { id: table.id });
        }
    }

    let mut arriving: [Vec<&TableMeta>; LEVELS] = Default::default();
    let mut missing = leaving.clone();
    for table in levels.iter().flatten() {
        // A table that is taken out may come back as a stub.
        if added.contains(&table.id) && !leaving.contains(&table.id) {
            return Err(EditError::TableIdReused { id: table.id });
        }
        missing.remove(&table.id);
        if let Some(&level) = moved.get(&table.id) {
            let sorted = level > 0 && usize::from(level) < LEVELS;
            if !sorted {
                return Err(EditError::LevelOutOfRange { id: table.id, level });
            }
            arriving[usize::from(level)].push(table);
        }
    }
    if let Some(&id) = missing.first() {
        return Err(EditError::UnknownTable { id });
    }
    for table in &edit.tables_added {
        arriving[usize::from(table.level)].push(table);
    }
    for (level, (tables, arriving)) in (0u8..).zip(levels.iter().zip(&arriving)).skip(1) {
        if !arriving.is_empty() {
            let staying = tables.iter().filter(|table| !leaving.contains(&table.id));
            let present = staying.chain(arriving.iter().copied());
            check_overlap(level, present.filter(|table| !table.is_stub()))?;
        }
    }
    Ok(())
}

fn check_table(table: &TableMeta) -> Result<(), EditError> {
    if usize::from(table.level) >= LEVELS {
        return Err(EditError::LevelOutOfRange { id: table.id, level: table.level });
    }
    if table.smallest > table.largest {
        return Err(EditError::KeysReversed { id: table.id });
    }
    Ok(())
}

fn check_overlap<'a>(
    level: u8,
    tables: impl Iterator<Item = &'a TableMeta>,
) -> Result<(), EditError> {
    let mut tables: Vec<&TableMeta> = tables.collect();
    tables.sort_by(|left, right| left.smallest.cmp(&right.smallest));
    match tables.windows(2).find(|pair| pair[0].largest >= pair[1].smallest) {
        Some(pair) => Err(EditError::Overlap { level, left: pair[0].id, right: pair[1].id }),
        None => Ok(()),
    }
}

/// Applies an edit that [`check`] has found possible.
pub(super) fn commit(levels: &mut Levels, edit: &Edit) {
    let removed: BTreeSet<u64> = edit.tables_removed.iter().copied().collect();
    let moved: BTreeMap<u64, u8> = edit.tables_moved.iter().copied().collect();
    let mut arriving = Vec::new();
    for tables in levels.iter_mut() {
        tables.retain(|table| !removed.contains(&table.id));
        for mut table in tables.extract_if(.., |table| moved.contains_key(&table.id)) {
            table.level = moved[&table.id];
            arriving.push(table);
        }
    }
    arriving.extend(edit.tables_added.iter().cloned());

    let mut changed = BTreeSet::new();
    for table in arriving {
        let level = usize::from(table.level);
        if level == 0 {
            levels[0].insert(0, table);
        } else {
            levels[level].push(table);
            changed.insert(level);
        }
    }
    for level in changed {
        levels[level].sort_by(|left, right| left.smallest.cmp(&right.smallest));
    }
}
