//! Who takes which interrupt.

use super::setting::{SettingArea, SettingKind};
use super::{Draft, TuneSetting};
use crate::cpu_mask::CpuMask;
use crate::machine::{InterruptLine, affinity_path};

/// Has each interrupt taken by one CPU of `order`, evenly over all of them.
pub(super) fn spread(
    draft: &mut Draft<'_>,
    lines: &[&InterruptLine],
    order: &[usize],
    reason: &str,
) {
    let (count, places) = (lines.len(), order.len());
    for (index, line) in lines.iter().enumerate() {
        let place = if count >= places { index % places } else { index * places / count };
        bind(draft, line, &CpuMask::of([order[place]]), reason);
    }
}

/// Has an interrupt taken by some CPUs.
pub(super) fn bind<'a>(
    draft: &'a mut Draft<'_>,
    line: &InterruptLine,
    cpus: &CpuMask,
    reason: &str,
) -> Option<&'a mut TuneSetting> {
    let value = (SettingKind::CpuList, cpus.to_string());
    let reason = format!("{}: {reason}", line.name);
    draft.set(SettingArea::Interrupts, &affinity_path(line.number), value, &reason)
}
