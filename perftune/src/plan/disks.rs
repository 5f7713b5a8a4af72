//! The disks below the directories that the data is in.

use super::cpus::{Division, spread_order};
use super::setting::{SettingArea, SettingKind, written_form};
use super::{Draft, interrupts};
use crate::cpu_mask::CpuMask;
use crate::error::TuneError;
use crate::machine::{BlockDevice, InterruptLine, Machine, MountPoint};
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
        let mount = mount_of(machine, directory)
            .ok_or_else(|| TuneError::NoMount { path: directory.clone() })?;
        let disks = disks_of(machine, mount);
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

/// The mount with the longest path that the directory is below; the last of several, which hides
/// the others.
fn mount_of<'a>(machine: &'a Machine, directory: &str) -> Option<&'a MountPoint> {
    let is_above = |mount: &&MountPoint| {
        let rest = directory.strip_prefix(mount.path.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    machine.mounts.iter().filter(is_above).max_by_key(|mount| mount.path.len())
}

/// The disks that a file system lies on.
fn disks_of<'a>(machine: &'a Machine, mount: &MountPoint) -> Vec<&'a BlockDevice> {
    let by_number = |device: &&BlockDevice| device.number == mount.number;
    // Some file systems have several devices and a number of their own, and name one as source.
    let source = mount.source.strip_prefix("/dev/").unwrap_or("");
    let by_name = |device: &&BlockDevice| {
        let mapped = source.strip_prefix("mapper/");
        device.name == source || (mapped.is_some() && device.mapped_name.as_deref() == mapped)
    };
    let devices = &machine.devices;
    let first = devices.iter().find(by_number).or_else(|| devices.iter().find(by_name));
    let (mut seen, mut disks) = (Vec::new(), Vec::new());
    let mut open: Vec<&BlockDevice> = first.into_iter().collect();
    while let Some(device) = open.pop() {
        if seen.contains(&&device.name) {
            continue;
        }
        seen.push(&device.name);
        if device.lower.is_empty() {
            disks.push(device);
        }
        open.extend(devices.iter().filter(|lower| device.lower.contains(&lower.name)));
    }
    disks.sort_by_key(|disk| &disk.name);
    disks
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
