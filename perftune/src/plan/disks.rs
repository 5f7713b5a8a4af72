//! The disks below the directories that the data is in.

use super::cpus::{Division, spread_order};
use super::setting::{SettingArea, SettingKind, written_form};
use super::{Draft, interrupts};
use crate::cpu_mask::CpuMask;
use crate::error::TuneError;
use crate::machine::{BlockDevice, InterruptLine};
use crate::options::TuneOptions;

pub(super) fn plan(
    draft: &mut Draft<'_>,
    options: &TuneOptions,
    division: &Division,
) -> Result<(), TuneError> {
    let machine = draft.machine;
    if options.dir.is_empty() {
        draft.note("no --dir is given, so no disk is tuned".to_owned());
    }
    for directory in &options.dir {
        let mount = machine
            .mount_of(directory)
            .ok_or_else(|| TuneError::NoMount { path: directory.clone() })?;
        let disks = machine.disks_of(mount);
        if disks.is_empty() {
            draft.note(format!(
                "{directory} is on {} ({}), which lies on no disk that is known: nothing is set \
                 for it",
                mount.kind, mount.source
            ));
        }
        for disk in disks {
            set_queue(draft, disk);
            bind_interrupts(draft, disk, division);
        }
    }
    Ok(())
}

fn set_queue(draft: &mut Draft<'_>, disk: &BlockDevice) {
    let path = disk.queue_setting("scheduler");
    let offered = draft.machine.content(&path).unwrap_or_default();
    let offers =
        |name: &str| offered.split_whitespace().any(|word| word.trim_matches(['[', ']']) == name);
    if let Some(name) = ["none", "noop"].into_iter().find(|name| offers(name)) {
        let reason = format!("{}: the node orders its requests itself", disk.name);
        let value = (SettingKind::Word, name.to_owned());
        draft.set(SettingArea::Disks, &path, value, &reason);
    } else if !offered.is_empty() {
        draft.note(format!(
            "{}: scheduler {} stays, because the kernel offers neither none nor noop",
            disk.name,
            written_form(offered)
        ));
    }
    let reason = format!("{}: looking for neighbouring requests to merge costs CPU", disk.name);
    let value = (SettingKind::Word, "2".to_owned());
    draft.set(SettingArea::Disks, &disk.queue_setting("nomerges"), value, &reason);
}

/// The interrupt of a queue is taken where the queue's requests come from. Kernels that bind these
/// interrupts themselves do it so, and let nobody else.
fn bind_interrupts(draft: &mut Draft<'_>, disk: &BlockDevice, division: &Division) {
    let (mut unknown, mut others): (Vec<&InterruptLine>, Vec<&InterruptLine>) = Default::default();
    for line in &disk.interrupts {
        match queue_of(disk, &line.name).map(|queue| disk.queue_cpus.get(queue)) {
            Some(Some(list)) => {
                let cpus = CpuMask::from_list(list).unwrap_or_default();
                let reason = "requests are answered on the CPUs that they come from";
                if !cpus.is_empty()
                    && let Some(setting) = interrupts::bind(draft, line, &cpus, reason)
                {
                    setting.may_be_refused = true;
                }
            }
            Some(None) => unknown.push(line),
            None => others.push(line),
        }
    }
    let everywhere = spread_order(draft.machine, &division.all());
    interrupts::spread(draft, &unknown, &everywhere, "disk interrupts are spread over all CPUs");
    let apart = spread_order(draft.machine, &division.interrupts);
    let reason = "the few interrupts that are not of a queue join those of the network";
    interrupts::spread(draft, &others, &apart, reason);
}

/// The number of the queue that an interrupt is of: `nvme0q3` is of queue 2 of the disk, because
/// the first is the controller's own; `virtio1-req.2` is of queue 2.
fn queue_of(disk: &BlockDevice, name: &str) -> Option<usize> {
    let rest = name.strip_prefix(disk.controller.as_deref()?)?;
    match (rest.strip_prefix('q'), rest.strip_prefix("-req.")) {
        (Some(number), _) => number.parse::<usize>().ok()?.checked_sub(1),
        (None, number) => number?.parse().ok(),
    }
}
