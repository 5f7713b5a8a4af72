//! A short measurement when a data directory is made: enough to share a disk by until somebody
//! measures it.
//!
//! It is bounded in time, space and memory, and whatever keeps it from its end leaves the directory
//! as it was.

use std::io;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use super::error::IotuneError;
use super::machine_name;
use super::ring_runner::{FILE_BYTES_MIN, RingRunner, RingRunnerOptions};
use super::surroundings;
use super::unnamed_file::{UNNAMED_PREFIX, UNNAMED_SUFFIX};
use crate::disk::{DISK_FILE, DiskProperties, doubts, from_toml, to_toml};
use crate::machine::{mount_above, mounts};
use crate::measure::{DiskLoad, LoadRunner, LoadSample, MeasureOptions, measure_rates};
use crate::tree::{SystemFiles, SystemTree, unfinished_name};

/// The file to measure on is so long at most, and one part of this many of what is free.
const FILE_BYTES_MAX: u64 = 256 << 20;
const FREE_PART: u64 = 8;
/// What is written of the file within this time is what is measured on, in milliseconds.
const FILL_MILLISECONDS: u32 = 700;
/// How much longer each of the loads may take on a slow disk, in milliseconds.
const MORE_MILLISECONDS: u32 = 500;

/// What the file of figures begins with.
const NOTE: &str = "\
# Found in two seconds when the data directory was made. `larder iotune` finds more.
";

/// A short measurement of the disk of a data directory.
pub struct Calibration<'a> {
    /// The directory.
    pub directory: &'a Path,
    /// The most bytes that it may take of the disk for a while.
    pub bytes_max: u64,
    /// Whether it is to be given up.
    pub is_given_up: &'a dyn Fn() -> bool,
}

impl Calibration<'_> {
    /// Measures, and writes the figures to [`DISK_FILE`] in the directory. Progress is shown on
    /// stderr if that is a terminal. It takes about three seconds, and twice that on a slow disk.
    ///
    /// # Errors
    /// Why there are no figures; then there is no file either.
    pub fn run(&self) -> Result<DiskProperties, String> {
        let milliseconds = u64::from(MeasureOptions::rates().milliseconds);
        let progress = ProgressBar::new(milliseconds);
        let style = ProgressStyle::with_template("{msg} {bar:40} {percent} %")
            .expect("the template is well formed");
        progress.set_style(style);
        let result = self.measure(&progress);
        progress.finish_and_clear();
        result
    }

    fn measure(&self, progress: &ProgressBar) -> Result<DiskProperties, String> {
        let directory = self.directory.canonicalize().map_err(|error| error.to_string())?;
        let text = directory.to_str().ok_or("its path is no UTF-8")?;
        let tree = SystemTree::new(Path::new("/")).map_err(|error| error.to_string())?;
        let mounts = mounts(&tree);
        let mount = mount_above(&mounts, text).ok_or("nothing is mounted there or above it")?;
        if let Some(reason) = surroundings::refusal(mount) {
            return Err(reason);
        }
        let measure = MeasureOptions::rates();
        let options = RingRunnerOptions {
            bytes: self.file_bytes(&directory)?,
            depth_max: measure.depth_max,
            fill_milliseconds_max: Some(FILL_MILLISECONDS),
            more_milliseconds: MORE_MILLISECONDS,
        };
        progress.set_message("measuring the disk, once (--calibrate=false leaves it out)");
        let hidden = ProgressBar::hidden();
        let runner = RingRunner::start(&directory, options, hidden).map_err(reason)?;
        let mut runner = Watched { runner, progress, is_given_up: self.is_given_up };
        let mut disk = measure_rates(&mut runner, measure)?.properties;
        disk.mountpoints = vec![mount.path.clone()];
        let machine = machine_name(&tree);
        if let Some(doubt) = doubts(&disk, machine.as_deref()).into_iter().next() {
            return Err(format!("the figures are implausible: {doubt}"));
        }
        let figures = to_toml(std::slice::from_ref(&disk));
        from_toml(&figures).map_err(|error| format!("{}: {}", error.key, error.message))?;
        let path = format!("{text}/{DISK_FILE}");
        if let Err(error) = tree.replace(&path, &format!("{NOTE}{figures}")) {
            // Half a file would keep the next start from being the first one of the directory.
            let removed = tree.remove(&unfinished_name(&path));
            let removed = removed.map_or_else(|error| format!("; {error}"), |()| String::new());
            return Err(format!("{path} cannot be written: {error}{removed}"));
        }
        Ok(disk)
    }

    /// How long the file to measure on may be.
    fn file_bytes(&self, directory: &Path) -> Result<u64, String> {
        let space = rustix::fs::statvfs(directory).map_err(|error| error.to_string())?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let bytes = (free / FREE_PART).min(self.bytes_max).min(FILE_BYTES_MAX);
        let bytes = bytes >> 20 << 20;
        if bytes < FILE_BYTES_MIN {
            return Err(format!(
                "it takes a file of {} MiB for a while, and at most {} MiB may be used of the {} \
                 MiB that are free",
                FILE_BYTES_MIN >> 20,
                bytes >> 20,
                free >> 20
            ));
        }
        Ok(bytes)
    }
}

/// The reason of an error without the option that `larder iotune` would name.
fn reason(error: IotuneError) -> String {
    match error {
        IotuneError::Directory { message, .. } => message,
        other => other.to_string(),
    }
}

/// A runner that is asked between loads whether they are still wanted.
struct Watched<'a> {
    runner: RingRunner,
    progress: &'a ProgressBar,
    is_given_up: &'a dyn Fn() -> bool,
}

impl LoadRunner for Watched<'_> {
    fn run(&mut self, load: DiskLoad) -> Result<LoadSample, String> {
        if (self.is_given_up)() {
            return Err("it was given up".to_owned());
        }
        let sample = self.runner.run(load)?;
        self.progress.inc(u64::from(load.milliseconds));
        Ok(sample)
    }
}

/// Removes what a measurement has left in a directory that was cut off, by a power cut for example,
/// before it took its file's name away.
///
/// # Errors
/// As the operating system says.
pub fn forget_interrupted(directory: &Path) -> io::Result<()> {
    let tree = SystemTree::new(Path::new("/"))?;
    let directory = directory.canonicalize()?;
    let Some(directory) = directory.to_str() else { return Ok(()) };
    for name in tree.list(directory)?.into_iter().filter(|name| is_interrupted(name)) {
        tree.remove(&format!("{directory}/{name}"))?;
    }
    Ok(())
}

/// Whether a file of this name is one that a measurement takes away or renames itself.
pub fn is_interrupted(name: &str) -> bool {
    let is_runners = name.starts_with(UNNAMED_PREFIX) && name.ends_with(UNNAMED_SUFFIX);
    is_runners || name == unfinished_name(DISK_FILE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "the tests look at what is left in directories")]

    use std::cell::Cell;

    use super::*;
    use crate::disk::DiskFile;

    /// A directory on a disk: where the tests were built, because /tmp may be memory.
    fn on_disk() -> tempfile::TempDir {
        let program = std::env::current_exe().expect("the tests' program");
        tempfile::tempdir_in(program.parent().expect("a directory")).expect("a directory")
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).expect("a list");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into()).collect()
    }

    #[test]
    fn a_directory_gets_the_figures_of_its_disk_and_nothing_else() {
        let directory = on_disk();
        let directory = directory.path();
        let disk = Calibration { directory, bytes_max: 32 << 20, is_given_up: &|| false }.run();
        let disk = match disk {
            // A machine that is used by others may do anything in two seconds.
            Err(reason) => {
                assert!(reason.contains("implausible") || reason.contains("MiB"), "{reason}");
                assert_eq!(names(directory), Vec::<String>::new());
                return;
            }
            Ok(disk) => disk,
        };
        assert_eq!(names(directory), [DISK_FILE]);
        let file = DiskFile::load(&directory.join(DISK_FILE)).expect("figures");
        assert_eq!(file.disk_of(directory), Ok(&disk));
        let text = std::fs::read_to_string(directory.join(DISK_FILE)).expect("it is there");
        assert!(text.starts_with(NOTE), "{text}");
    }

    #[test]
    fn what_cannot_be_measured_is_said_and_nothing_is_left() {
        let disk = on_disk();
        let memory = tempfile::tempdir_in("/dev/shm").expect("a directory");
        let asked = Cell::new(0);
        let given_up = || {
            asked.set(asked.get() + 1);
            asked.get() > 2
        };
        for (directory, bytes_max, given_up, part) in [
            (memory.path(), 64 << 20, &(|| false) as &dyn Fn() -> bool, "memory and no disk"),
            (disk.path(), 8 << 20, &|| false, "at most 8 MiB may be used"),
            (disk.path(), 16 << 20, &given_up, "given up"),
            (Path::new("/no/such"), 64 << 20, &|| false, "No such file"),
            (Path::new("/sys"), 64 << 20, &|| false, "MiB"),
        ] {
            let error = Calibration { directory, bytes_max, is_given_up: given_up }.run();
            let error = error.expect_err(part);
            assert!(error.contains(part), "{error} ({part})");
            if directory == disk.path() || directory == memory.path() {
                assert_eq!(names(directory), Vec::<String>::new(), "{error}");
            }
        }
        assert_eq!(asked.get(), 3, "it is asked between loads");
    }

    #[test]
    fn what_an_interrupted_measurement_has_left_is_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["larder-iotune-17.tmp", "io-properties.toml.larder-new", DISK_FILE, "x.tmp"] {
            std::fs::write(directory.path().join(name), "").expect("written");
        }
        forget_interrupted(directory.path()).expect("removed");
        let mut left = names(directory.path());
        left.sort();
        assert_eq!(left, [DISK_FILE, "x.tmp"]);
    }
}
