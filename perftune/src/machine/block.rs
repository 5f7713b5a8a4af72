//! Disks, their partitions, what is built of them, and what is mounted.

use super::{InterruptLine, Machine, Reader, interrupts};

const FOLDER: &str = "/sys/class/block";

/// A block device: a disk, a partition, or one that is built of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    /// Its name, such as `nvme0n1p1` or `dm-0`.
    pub name: String,
    /// Its number, such as `259:1`.
    pub number: String,
    /// What it is called below `/dev/mapper`.
    pub mapped_name: Option<String>,
    /// The devices that it lies on: a partition's disk, or what a volume is built of.
    pub lower: Vec<String>,
    /// The NVMe controller or the virtio device that it is of.
    pub controller: Option<String>,
    /// The CPUs whose requests each of its queues takes.
    pub queue_cpus: Vec<String>,
    /// Its interrupts; none for a device that lies on others.
    pub interrupts: Vec<InterruptLine>,
}

impl BlockDevice {
    /// A setting of the device's queue.
    pub(crate) fn queue_setting(&self, name: &str) -> String {
        format!("/sys/block/{}/queue/{name}", self.name)
    }
}

/// Something mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// Where.
    pub path: String,
    /// The number of the device.
    pub number: String,
    /// The device's path, or whatever the file system calls its source.
    pub source: String,
    /// The kind of file system.
    pub kind: String,
    /// The options of the mount and those of the file system.
    pub options: Vec<String>,
}

impl Machine {
    /// The mount with the longest path that a directory is below; the last of several, which hides
    /// the others.
    pub fn mount_of(&self, directory: &str) -> Option<&MountPoint> {
        mount_above(&self.mounts, directory)
    }

    /// The disks that a file system lies on.
    pub fn disks_of(&self, mount: &MountPoint) -> Vec<&BlockDevice> {
        let by_number = |device: &&BlockDevice| device.number == mount.number;
        // Some file systems have several devices and a number of their own, and name one as source.
        let source = mount.source.strip_prefix("/dev/").unwrap_or("");
        let by_name = |device: &&BlockDevice| {
            let mapped = source.strip_prefix("mapper/");
            device.name == source || (mapped.is_some() && device.mapped_name.as_deref() == mapped)
        };
        let devices = &self.devices;
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
}

/// The mount with the longest path that a directory is below; the last of several, which hides the
/// others.
pub fn mount_above<'a>(mounts: &'a [MountPoint], directory: &str) -> Option<&'a MountPoint> {
    let is_above = |mount: &&MountPoint| {
        let rest = directory.strip_prefix(mount.path.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    mounts.iter().filter(is_above).max_by_key(|mount| mount.path.len())
}

/// All devices but those that stand for none: loop devices and RAM disks.
pub(super) fn read(reader: &mut Reader<'_>, all: &[InterruptLine]) -> Vec<BlockDevice> {
    let names = reader.list(FOLDER);
    let stands_for_none =
        |name: &String| ["loop", "ram", "zram"].iter().any(|kind| name.starts_with(kind));
    let mut devices = Vec::new();
    for name in names.into_iter().filter(|name| !stands_for_none(name)) {
        let folder = format!("{FOLDER}/{name}");
        let Some(path) = reader.resolve(&folder) else { continue };
        let mut lower = reader.list(&format!("{folder}/slaves"));
        if reader.word(&format!("{folder}/partition")).is_some() {
            let disk = path.rsplit('/').nth(1);
            lower = disk.map(str::to_owned).into_iter().collect();
        }
        let controller = controller(&path, &name);
        let is_disk = lower.is_empty();
        let interrupts = match (&controller, is_disk) {
            (_, false) => Vec::new(),
            (Some(controller), true) => interrupts::of_device(reader, &path, controller, all),
            (None, true) => interrupts::of_device(reader, &path, &name, all),
        };
        let device = BlockDevice {
            number: reader.word(&format!("{folder}/dev")).unwrap_or_default(),
            mapped_name: reader.word(&format!("{folder}/dm/name")),
            queue_cpus: if is_disk { queue_cpus(reader, &name) } else { Vec::new() },
            lower,
            controller,
            interrupts,
            name,
        };
        if is_disk {
            for setting in ["scheduler", "nomerges", "write_cache", "discard_max_bytes"] {
                reader.keep(&device.queue_setting(setting));
            }
        }
        devices.push(device);
    }
    devices
}

/// `nvme0` or `virtio1` out of a path such as `/sys/devices/.../nvme/nvme0/nvme0n1`. Where several
/// controllers share a disk the path has none, and the disk's name begins with that of the first.
fn controller(path: &str, name: &str) -> Option<String> {
    let is_numbered = |part: &str, kind: &str| {
        let rest = part.strip_prefix(kind);
        rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|it| it.is_ascii_digit()))
    };
    let is_controller = |part: &&str| is_numbered(part, "nvme") || is_numbered(part, "virtio");
    let in_path = path.split('/').find(is_controller).map(str::to_owned);
    in_path.or_else(|| {
        let (controller, _) = name.strip_prefix("nvme")?.split_once('n')?;
        Some(format!("nvme{controller}")).filter(|name| is_numbered(name, "nvme"))
    })
}

/// The CPUs of each queue, in the order of the queues.
fn queue_cpus(reader: &mut Reader<'_>, name: &str) -> Vec<String> {
    let folder = format!("{FOLDER}/{name}/mq");
    let count = reader.list(&folder).len();
    let lists = (0..count).map(|queue| reader.word(&format!("{folder}/{queue}/cpu_list")));
    lists.map_while(|list| list.map(|list| list.replace(' ', ""))).collect()
}

/// What is mounted, by `/proc/self/mountinfo`.
pub(super) fn read_mounts(reader: &mut Reader<'_>) -> Vec<MountPoint> {
    let text = reader.read("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(parse_mount).collect()
}

/// Reads `36 35 98:0 /root /mount rw,noatime master:1 - ext4 /dev/sda1 rw`.
fn parse_mount(line: &str) -> Option<MountPoint> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let number = left.nth(2)?.to_owned();
    let path = unescaped(left.nth(1)?);
    let own_options = left.next().unwrap_or_default();
    let mut right = right.split(' ');
    let kind = right.next()?.to_owned();
    let source = unescaped(right.next()?);
    let options = own_options.split(',').chain(right.next().unwrap_or_default().split(','));
    let options = options.filter(|option| !option.is_empty()).map(str::to_owned).collect();
    Some(MountPoint { path, number, kind, source, options })
}

/// White space and backslashes are written as `\` and three octal digits.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let line =
            r"36 35 259:1 / /mnt/my\040data rw,noatime shared:1 master:2 - xfs /dev/x rw,discard";
        let mount = parse_mount(line).expect("a mount");
        assert_eq!((mount.path.as_str(), mount.number.as_str()), ("/mnt/my data", "259:1"));
        assert_eq!((mount.kind.as_str(), mount.source.as_str()), ("xfs", "/dev/x"));
        assert_eq!(mount.options, ["rw", "noatime", "rw", "discard"]);
        for nonsense in ["", "1 2 3", "1 2 3 - x", " - ", "1 2 3 4 - x y"] {
            assert_eq!(parse_mount(nonsense), None, "{nonsense:?}");
        }
        assert_eq!(unescaped(r"a\9b\"), r"a\9b\");
    }

    #[test]
    fn controllers_are_found() {
        let path = "/sys/devices/pci0000:00/0000:00:1e.0/nvme/nvme1/nvme1n1";
        assert_eq!(controller(path, "nvme1n1").as_deref(), Some("nvme1"));
        let shared = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1";
        assert_eq!(controller(shared, "nvme0n1").as_deref(), Some("nvme0"));
        let virtio = "/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda";
        assert_eq!(controller(virtio, "vda").as_deref(), Some("virtio1"));
        assert_eq!(controller("/sys/devices/pci0000:00/ata1/sda", "sda"), None);
    }
}
