//! The file of a disk's figures, and the disk in it that a directory lies on.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::placement::entry_of;
use super::{DiskEntry, DiskProperties, FigureError, toml_form, yaml_form};
use crate::machine::{mount_above, mounts};
use crate::tree::{SystemTree, read_small};

/// The name of the file inside a data directory.
pub const DISK_FILE: &str = "io-properties.toml";

/// Why a file of figures says nothing about a directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskFileError {
    /// There is none.
    #[error("there is no such file")]
    Absent,
    /// It cannot be read, or the directory cannot be found among the mounts.
    #[error("{0}")]
    Unreadable(String),
    /// A figure that cannot be, or something else that does not belong into such a file.
    #[error(transparent)]
    Figure(FigureError),
    /// Mount points that are others on this machine.
    #[error("{0}; correct the line, or measure the disk again")]
    Misplaced(FigureError),
    /// It is about other disks.
    #[error("it has no disk that is mounted at {mount}, on which {directory} lies")]
    Elsewhere {
        /// Where the directory's disk is mounted.
        mount: String,
        /// The directory.
        directory: String,
    },
}

/// A file of figures: TOML as `larder iotune` writes it, or Seastar's YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFile {
    entries: Vec<DiskEntry>,
}

impl DiskFile {
    /// Reads a file.
    ///
    /// # Errors
    /// If it is not there, cannot be read, or is wrong: with line and key.
    pub fn load(path: &Path) -> Result<Self, DiskFileError> {
        let text = read_small(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => DiskFileError::Absent,
            _ => DiskFileError::Unreadable(error.to_string()),
        })?;
        Self::parse(path, &text).map_err(DiskFileError::Figure)
    }

    /// Reads a file's text. Its name says which form it has, or its first line where the name does
    /// not.
    fn parse(path: &Path, text: &str) -> Result<Self, FigureError> {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let is_yaml = match ending.to_ascii_lowercase().as_str() {
            "yaml" | "yml" => true,
            "toml" => false,
            _ => begins_as_yaml(text),
        };
        let entries = if is_yaml { yaml_form::entries(text) } else { toml_form::entries(text) };
        Ok(Self { entries: entries? })
    }

    /// The figures of the disk that a directory of this machine lies on.
    ///
    /// # Errors
    /// If the file has none for it, or the file's mount points are not those of this machine.
    pub fn disk_of(&self, directory: &Path) -> Result<&DiskProperties, DiskFileError> {
        let unreadable = |error: std::io::Error| DiskFileError::Unreadable(error.to_string());
        let tree = SystemTree::new(Path::new("/")).map_err(unreadable)?;
        let resolved: PathBuf = directory.canonicalize().map_err(unreadable)?;
        let directory = resolved.display().to_string();
        let mounts = mounts(&tree);
        let found = entry_of(&self.entries, &mounts, &directory);
        if let Some(entry) = found.map_err(DiskFileError::Misplaced)? {
            return Ok(&entry.disk);
        }
        let mount = mount_above(&mounts, &directory).map_or("/", |mount| mount.path.as_str());
        Err(DiskFileError::Elsewhere { mount: mount.to_owned(), directory })
    }
}

/// Whether the first line that says something is one with which Seastar's files begin.
fn begins_as_yaml(text: &str) -> bool {
    let said = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let first = text.lines().map(str::trim).find(said).unwrap_or_default();
    first == "---" || first.starts_with("disks:")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "the tests write files of figures")]

    use super::super::to_toml;
    use super::*;

    const YAML: &str = "# x\ndisks:\n- mountpoint: /\n  read_iops: 1000\n  read_bandwidth: 1M\n  \
                        write_iops: 500\n  write_bandwidth: 1M\n";

    fn disk(mountpoint: &str) -> DiskProperties {
        DiskProperties {
            mountpoints: vec![mountpoint.to_owned()],
            read_iops: 1000,
            read_bandwidth: 1 << 20,
            write_iops: 500,
            write_bandwidth: 1 << 20,
            ..DiskProperties::default()
        }
    }

    #[test]
    fn the_form_is_told_by_name_or_content() {
        let toml = to_toml(&[disk("/")]);
        for (name, text) in [
            ("io.toml", toml.as_str()),
            ("io", toml.as_str()),
            ("io.conf", toml.as_str()),
            ("io.yaml", YAML),
            ("io.YML", YAML),
            ("io", YAML),
            ("io.conf", &format!("---\n{YAML}")),
        ] {
            let file = DiskFile::parse(Path::new(name), text).expect(name);
            assert_eq!(file.entries.len(), 1, "{name}");
            assert_eq!(file.entries[0].disk, disk("/"), "{name}");
        }
        let error = DiskFile::parse(Path::new("io.toml"), YAML).expect_err("it is no TOML");
        assert_eq!(error.key, "TOML");
        let error = DiskFile::parse(Path::new("io.yaml"), &toml).expect_err("it is no YAML");
        assert!(error.line > 0 && error.to_string().contains("disks"), "{error}");
    }

    #[test]
    fn a_directory_finds_its_disk_and_what_is_wrong_is_said() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join(DISK_FILE);
        assert_eq!(DiskFile::load(&path), Err(DiskFileError::Absent));
        let is_unreadable = |error| matches!(error, Err(DiskFileError::Unreadable(_)));
        assert!(is_unreadable(DiskFile::load(folder.path())), "a directory is no file");
        std::fs::write(&path, "[[disk]]\nread_iops = 0\n").expect("written");
        let error = DiskFile::load(&path).expect_err("wrong").to_string();
        assert!(error.contains("line 2: read_iops: 0 is not from 10"), "{error}");
        let tree = SystemTree::new(Path::new("/")).expect("a root");
        let here = folder.path().canonicalize().expect("it is there").display().to_string();
        let mounts = mounts(&tree);
        let mount = mount_above(&mounts, &here).expect("something is mounted");
        std::fs::write(&path, to_toml(&[disk(&mount.path)])).expect("written");
        let file = DiskFile::load(&path).expect("figures");
        assert_eq!(file.disk_of(folder.path()), Ok(&disk(&mount.path)));
        let other = mounts.iter().find(|other| other.number != mount.number).expect("another");
        std::fs::write(&path, to_toml(&[disk(&other.path)])).expect("written");
        let file = DiskFile::load(&path).expect("figures");
        let error = file.disk_of(folder.path());
        let elsewhere =
            DiskFileError::Elsewhere { mount: mount.path.clone(), directory: here.clone() };
        assert_eq!(error, Err(elsewhere));
        std::fs::write(&path, to_toml(&[disk("/no/such/mount")])).expect("written");
        let file = DiskFile::load(&path).expect("figures");
        let error = file.disk_of(folder.path()).expect_err("no such mount").to_string();
        assert!(error.contains("line 3: mountpoints: nothing is mounted at /no/such"), "{error}");
    }
}
