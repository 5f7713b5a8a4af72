//! What is around a disk that makes it slower than it is, or its figures other than they seem.

use crate::machine::{BlockDevice, Machine, MountPoint};

/// File systems whose files are memory.
const IN_MEMORY: [&str; 4] = ["tmpfs", "ramfs", "devtmpfs", "hugetlbfs"];
/// File systems that a node is meant for.
const MEANT_FOR: [&str; 2] = ["ext4", "xfs"];

/// Mount options that cost something, with what to know of them.
const OPTIONS: [(&str, &str); 6] = [
    (
        "discard",
        "every removed file is discarded at once, which holds up other requests; mount \
     without it and run fstrim.timer",
    ),
    ("strictatime", "every read of a file is followed by a write of its time; mount with noatime"),
    ("sync", "every write waits for the device; mount without it"),
    ("data=journal", "data is written twice, and not directly; mount with data=ordered"),
    ("nobarrier", "a flush does not reach the device, so a power cut loses acknowledged writes"),
    ("barrier=0", "a flush does not reach the device, so a power cut loses acknowledged writes"),
];

/// Why nothing can be measured on a file system.
pub(super) fn refusal(mount: &MountPoint) -> Option<String> {
    IN_MEMORY.contains(&mount.kind.as_str()).then(|| {
        format!(
            "it is on {}, which is memory and no disk; name a directory of the disk that is to be \
             measured",
            mount.kind
        )
    })
}

/// What to know before figures are believed: each a sentence.
pub(super) fn warnings(machine: &Machine, mount: &MountPoint) -> Vec<String> {
    let mut warnings = Vec::new();
    let path = &mount.path;
    if !MEANT_FOR.contains(&mount.kind.as_str()) {
        warnings.push(format!(
            "{path} is {}: the node is meant for ext4 and XFS, and others may copy what is \
             written or keep it",
            mount.kind
        ));
    }
    for (option, meaning) in OPTIONS {
        if mount.options.iter().any(|it| it == option) {
            warnings.push(format!("{path} is mounted with {option}: {meaning}"));
        }
    }
    let disks = machine.disks_of(mount);
    if disks.is_empty() {
        warnings.push(format!(
            "{path} ({}) lies on no disk that is known, so nothing is said of its settings",
            mount.source
        ));
    }
    disks.into_iter().for_each(|disk| look_at_queue(machine, disk, &mut warnings));
    warnings
}

fn look_at_queue(machine: &Machine, disk: &BlockDevice, warnings: &mut Vec<String>) {
    let setting = |name: &str| machine.content(&disk.queue_setting(name)).map(str::trim);
    let name = &disk.name;
    let scheduler = setting("scheduler").unwrap_or("none");
    let chosen = scheduler.split_once('[').and_then(|(_, rest)| rest.split(']').next());
    let chosen = chosen.unwrap_or(scheduler);
    if !["none", "noop"].contains(&chosen) {
        warnings.push(format!(
            "{name}: the kernel's scheduler {chosen} orders requests too; `larder tune --apply` \
             sets none"
        ));
    }
    if setting("nomerges").is_some_and(|value| value != "2") {
        warnings.push(format!(
            "{name}: the kernel looks for requests to merge (nomerges); `larder tune --apply` \
             turns it off"
        ));
    }
    if setting("write_cache") == Some("write back") {
        warnings.push(format!(
            "{name}: it has a volatile write cache, so a durable write also waits for a flush, \
             which the figures leave out"
        ));
    }
    if setting("discard_max_bytes") == Some("0") {
        warnings.push(format!(
            "{name}: it takes no discards, so it is not told of removed files, and writes may \
             become slower as it fills"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(contents: &[(&str, &str)], kind: &str, options: &[&str]) -> Machine {
        let disk = BlockDevice {
            name: "sda".to_owned(),
            number: "8:0".to_owned(),
            mapped_name: None,
            lower: Vec::new(),
            controller: None,
            queue_cpus: Vec::new(),
            interrupts: Vec::new(),
        };
        let mount = MountPoint {
            path: "/data".to_owned(),
            number: "8:0".to_owned(),
            source: "/dev/sda".to_owned(),
            kind: kind.to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        };
        let contents = contents
            .iter()
            .map(|(name, text)| (format!("/sys/block/sda/queue/{name}"), (*text).to_owned()));
        Machine {
            devices: vec![disk],
            mounts: vec![mount],
            contents: contents.collect(),
            ..Machine::default()
        }
    }

    fn said(machine: &Machine) -> Vec<String> {
        warnings(machine, &machine.mounts[0])
    }

    #[test]
    fn a_tuned_disk_gets_no_warning() {
        let contents = [
            ("scheduler", "[none] mq-deadline\n"),
            ("nomerges", "2\n"),
            ("write_cache", "write through\n"),
            ("discard_max_bytes", "2147483648\n"),
        ];
        let machine = machine(&contents, "xfs", &["rw", "noatime"]);
        assert_eq!(said(&machine), Vec::<String>::new());
        assert_eq!(refusal(&machine.mounts[0]), None);
    }

    #[test]
    fn each_setting_that_costs_something_is_named() {
        let contents = [
            ("scheduler", "none [mq-deadline]\n"),
            ("nomerges", "0\n"),
            ("write_cache", "write back\n"),
            ("discard_max_bytes", "0\n"),
        ];
        let machine = machine(&contents, "btrfs", &["rw", "discard", "sync"]);
        let said = said(&machine);
        let parts = [
            "is btrfs",
            "with discard",
            "with sync",
            "scheduler mq-deadline",
            "nomerges",
            "write cache",
            "no discards",
        ];
        assert_eq!(said.len(), parts.len(), "{said:?}");
        for (warning, part) in said.iter().zip(parts) {
            assert!(warning.contains(part), "{warning}: {part}");
        }
    }

    #[test]
    fn memory_is_refused_and_an_unknown_disk_is_said() {
        let mut machine = machine(&[], "tmpfs", &[]);
        let refused = refusal(&machine.mounts[0]).expect("refused");
        assert!(refused.contains("tmpfs") && refused.contains("no disk"), "{refused}");
        machine.devices.clear();
        let said = said(&machine);
        assert!(said.iter().any(|warning| warning.contains("no disk that is known")), "{said:?}");
    }
}
