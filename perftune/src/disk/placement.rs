//! Which disk of a file a directory lies on.

use super::{DiskEntry, FigureError};
use crate::machine::{MountPoint, mount_above};

/// The disk that `directory` lies on: the one that has a mount point on the same device as the
/// mount with the longest path above the directory. `None` if the file has no such disk.
///
/// # Errors
/// A mount point at which nothing is mounted; two disks on one device.
pub(super) fn entry_of<'a>(
    entries: &'a [DiskEntry],
    mounts: &[MountPoint],
    directory: &str,
) -> Result<Option<&'a DiskEntry>, FigureError> {
    let mut placed: Vec<(&str, &DiskEntry)> = Vec::new();
    for entry in entries {
        for path in &entry.disk.mountpoints {
            let device = device_at(mounts, path)
                .ok_or_else(|| wrong(entry, format!("nothing is mounted at {path}")))?;
            let other = placed.iter().find(|(known, _)| *known == device);
            match other.map(|(_, other)| *other) {
                Some(other) if other.line != entry.line => {
                    let line = other.line;
                    let reason = format!("{path} is on the same device as the disk of line {line}");
                    return Err(wrong(entry, reason));
                }
                _ => placed.push((device, entry)),
            }
        }
    }
    let Some(mount) = mount_above(mounts, directory) else { return Ok(None) };
    let found = placed.into_iter().find(|(device, _)| *device == mount.number);
    Ok(found.map(|(_, entry)| entry))
}

fn wrong(entry: &DiskEntry, reason: String) -> FigureError {
    FigureError::new(entry.line, "mountpoints", reason)
}

/// The number of the device that is mounted at a path; of several the last, which hides the others.
fn device_at<'a>(mounts: &'a [MountPoint], path: &str) -> Option<&'a str> {
    let plain = |path: &str| path.trim_end_matches('/').to_owned();
    let wanted = plain(path);
    mounts.iter().rev().find(|mount| plain(&mount.path) == wanted).map(|it| it.number.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::DiskProperties;
    use super::*;

    fn mount(path: &str, number: &str) -> MountPoint {
        MountPoint {
            path: path.to_owned(),
            number: number.to_owned(),
            source: "/dev/x".to_owned(),
            kind: "xfs".to_owned(),
            options: Vec::new(),
        }
    }

    fn entry(line: usize, paths: &[&str]) -> DiskEntry {
        let mountpoints = paths.iter().map(|&path| path.to_owned()).collect();
        DiskEntry { line, disk: DiskProperties { mountpoints, ..DiskProperties::default() } }
    }

    fn mounts() -> Vec<MountPoint> {
        vec![
            mount("/", "8:1"),
            mount("/mnt", "8:2"),
            mount("/mnt/nvme", "259:0"),
            mount("/mnt/nvme", "259:1"),
            mount("/srv/bound", "259:1"),
        ]
    }

    #[test]
    fn the_longest_mount_point_above_counts_and_its_device() {
        let entries = [entry(1, &["/"]), entry(9, &["/mnt/nvme/"]), entry(20, &["/mnt"])];
        let line = |directory| {
            let entry = entry_of(&entries, &mounts(), directory).expect("sound entries");
            entry.map(|entry| entry.line)
        };
        assert_eq!(line("/mnt/nvme"), Some(9));
        assert_eq!(line("/mnt/nvme/larder/data"), Some(9));
        assert_eq!(line("/mnt/nvme2"), Some(20));
        assert_eq!(line("/var/lib"), Some(1));
        assert_eq!(line("/srv/bound/data"), Some(9), "another mount of the same device");
        let one = [entry(1, &["/mnt/nvme", "/srv/bound"])];
        assert_eq!(entry_of(&one, &mounts(), "/mnt"), Ok(None), "not the disk above it");
        assert_eq!(entry_of(&one, &mounts(), "/srv/bound"), Ok(Some(&one[0])));
    }

    #[test]
    fn a_mount_that_is_not_there_and_a_device_twice_are_refused() {
        for (entries, line, part) in [
            (
                vec![entry(1, &["/"]), entry(8, &["/mnt/gone"])],
                8,
                "nothing is mounted at /mnt/gone",
            ),
            (vec![entry(1, &["/mnt/nv"])], 1, "nothing is mounted at /mnt/nv"),
            (
                vec![entry(1, &["/mnt/nvme"]), entry(8, &["/srv/bound"])],
                8,
                "/srv/bound is on the same device as the disk of line 1",
            ),
        ] {
            let error = entry_of(&entries, &mounts(), "/var").expect_err(part);
            assert_eq!((error.line, error.key.as_str()), (line, "mountpoints"), "{error}");
            assert!(error.message.contains(part), "{error}");
        }
    }
}
