//! How far compaction is behind.

use super::super::sorted_runs::sorted_runs;
use super::{Level, PickerOptions};

/// The debt at which no more should be taken in.
pub const DEBT_MAX: u32 = 1000;

/// Level 0 may grow to so many times what it is relieved at before its debt is [`DEBT_MAX`].
const LEVEL_ZERO_TIMES: u64 = 4;

/// Deeper levels may be over their targets by so many times `merge_bytes` before they slow writers
/// as much as can be.
const EXCESS_TIMES: u64 = 16;

/// And by so many times before they stop them. These levels are one run each, so that look-ups do
/// not suffer, and they are relieved after level 0: a stop would last until all of them are.
const EXCESS_STOP_TIMES: u64 = 64;

/// How far compaction is behind: 0 if every level is within its target, [`DEBT_MAX`] or more if no
/// more should be taken in until it has caught up. The largest of
///
/// - the runs of level 0, and its tables, over what it is relieved at;
/// - the bytes by which deeper levels exceed their targets, which come close to [`DEBT_MAX`] long
///   before they reach it.
pub fn debt(levels: &[Level<'_>], options: &PickerOptions) -> u32 {
    let level_zero = levels.first().map_or(&[][..], |level| &level.tables);
    let runs = sorted_runs(level_zero).len() as u64;
    let over = |have: u64, target: u64| {
        share(have.saturating_sub(target), target.saturating_mul(LEVEL_ZERO_TIMES - 1))
    };
    let level_zero = over(runs, options.level_zero_runs)
        .max(over(level_zero.len() as u64, options.level_zero_tables));
    let last = usize::from(options.levels_max) - 1;
    let mut target = options.level_one_bytes;
    let mut excess = 0u64;
    for level in levels.iter().take(last).skip(1) {
        let bytes = level.tables.iter().fold(0u64, |sum, table| sum.saturating_add(table.bytes));
        excess = excess.saturating_add(bytes.saturating_sub(target));
        target = target.saturating_mul(options.level_factor);
    }
    let of = |times: u64| share(excess, options.merge_bytes.saturating_mul(times));
    let deeper = match of(EXCESS_STOP_TIMES) {
        DEBT_MAX.. => DEBT_MAX,
        _ => of(EXCESS_TIMES).min(DEBT_MAX - 1),
    };
    level_zero.max(deeper)
}

fn share(have: u64, whole: u64) -> u32 {
    let thousandths = u128::from(have) * u128::from(DEBT_MAX) / u128::from(whole.max(1));
    u32::try_from(thousandths).unwrap_or(u32::MAX)
}
