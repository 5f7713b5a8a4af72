//! What the disk below the data directory can do: as a file says, or as was found out when the
//! directory was made, or not known.
//!
//! All cores of the node lie on the one disk of the data directory, so they share one group.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larder_perftune::disk::{DISK_FILE, DiskFile, DiskFileError, DiskProperties};
use larder_perftune::iotune::Calibration;
use larder_runtime::device_group::DeviceGroup;
use larder_runtime::env::IoClass;
use larder_runtime::io_queue::IoQueueOptions;

use super::StartError;
use super::directory::DataDirectory;
use super::patience::Patience;
use crate::config::Config;
use crate::facts::DiskFacts;

/// What the disk can do, and who says so; `None` if nobody does.
///
/// # Errors
/// A file that was named and cannot be taken, or that is in the directory and makes no sense; a
/// request to stop.
pub(super) fn find(
    config: &Config,
    directory: &DataDirectory,
    patience: &Patience<'_>,
) -> Result<Option<(DiskProperties, PathBuf)>, StartError> {
    let path = &config.data_dir;
    if let Some(named) = &config.io_properties {
        let wrong = |reason| StartError::IoProperties { path: named.clone(), reason };
        return Ok(Some((load(named, path).map_err(wrong)?, named.clone())));
    }
    let usual = path.join(DISK_FILE);
    match load(&usual, path) {
        Ok(disk) => Ok(Some((disk, usual))),
        Err(DiskFileError::Absent) if directory.is_new && config.calibrate => {
            calibrate(config, usual, patience)
        }
        Err(DiskFileError::Absent) => {
            warn_unknown(path, "nobody has measured it");
            Ok(None)
        }
        // A directory that has come to another disk still starts.
        Err(reason @ (DiskFileError::Misplaced(_) | DiskFileError::Elsewhere { .. })) => {
            warn_unknown(path, &format!("{}: {reason}", usual.display()));
            Ok(None)
        }
        Err(reason @ (DiskFileError::Figure(_) | DiskFileError::Unreadable(_))) => {
            Err(StartError::IoProperties { path: usual, reason })
        }
    }
}

fn load(file: &Path, directory: &Path) -> Result<DiskProperties, DiskFileError> {
    DiskFile::load(file)?.disk_of(directory).cloned()
}

/// Measures the disk for a moment. What keeps that from being done keeps no node from starting.
fn calibrate(
    config: &Config,
    usual: PathBuf,
    patience: &Patience<'_>,
) -> Result<Option<(DiskProperties, PathBuf)>, StartError> {
    patience.check()?;
    let path = &config.data_dir;
    tracing::info!(
        "measuring the disk of {} for two seconds, once (--calibrate=false leaves it out)",
        path.display()
    );
    let stopped = RefCell::new(None);
    let is_given_up = || {
        let asked = patience.check().err();
        let is_asked = asked.is_some();
        if is_asked {
            stopped.replace(asked);
        }
        is_asked
    };
    // Half of what the node may take is there again before its shards need it.
    let bytes_max = config.disk_limit.map_or(u64::MAX, |limit| limit.0 / 2);
    let found = Calibration { directory: path, bytes_max, is_given_up: &is_given_up }.run();
    if let Some(stopped) = stopped.take() {
        return Err(stopped);
    }
    Ok(match found {
        Ok(disk) => {
            tracing::info!(
                "the disk reads {} and writes {} requests a second, and moves {} and {} bytes",
                disk.read_iops,
                disk.write_iops,
                disk.read_bandwidth,
                disk.write_bandwidth
            );
            Some((disk, usual))
        }
        Err(reason) => {
            warn_unknown(path, &format!("it could not be measured in short: {reason}"));
            None
        }
    })
}

fn warn_unknown(directory: &Path, reason: &str) {
    let directory = directory.display();
    tracing::warn!(
        "what the disk of {directory} can do is not known ({reason}), so only how much it is given \
         at once is bounded; `larder iotune --dir {directory} --out {directory}/{DISK_FILE}` \
         measures it"
    );
}

/// What is told of the disk, and what the cores' queues begin with.
pub(super) fn set_up(
    config: &Config,
    found: Option<(DiskProperties, PathBuf)>,
    cores: usize,
) -> (Option<DiskFacts>, IoQueueOptions) {
    let facts = found.map(|(disk, path)| {
        let model = disk.model(config.io_latency_goal.map(u64::from));
        DiskFacts { path, group: DeviceGroup::new(model, cores) }
    });
    let mut options = IoQueueOptions {
        device: facts.as_ref().map(|facts| Arc::clone(&facts.group)),
        ..IoQueueOptions::default()
    };
    let (shares, caps) = (config.io_shares.unwrap_or_default(), config.io_caps.unwrap_or_default());
    for class in IoClass::ALL {
        if let Some(shares) = shares.of(class) {
            options.shares[class as usize] = shares;
        }
        options.bandwidth_max[class as usize] = caps.of(class).and_then(|cap| cap.of_core(cores));
    }
    if facts.is_none() && config.io_latency_goal.is_some() {
        tracing::warn!(
            "--io-latency-goal changes nothing, because what the disk can do is not known"
        );
    }
    (facts, options)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "the tests write files of figures")]

    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::control::Event;

    const FIGURES: &str = "read_iops = 1000\nread_bandwidth = 10000000\nwrite_iops = 500\n\
                           write_bandwidth = 20000000\n";

    fn figures(mountpoint: &str) -> String {
        format!("[[disk]]\nmountpoints = [\"{mountpoint}\"]\n{FIGURES}")
    }

    /// Where something is mounted that is above the directory.
    fn mountpoint_of(directory: &Path) -> String {
        let error = {
            let path = directory.join("probe.toml");
            std::fs::write(&path, figures("/proc")).expect("written");
            let error = load(&path, directory).expect_err("it is not there");
            std::fs::remove_file(path).expect("removed");
            error
        };
        let DiskFileError::Elsewhere { mount, .. } = error else { panic!("{error}") };
        mount
    }

    fn look(config: &Config, is_new: bool) -> Result<Option<PathBuf>, StartError> {
        let (_events, queue) = channel();
        let patience = Patience::new(&queue, Duration::ZERO);
        let lock = tempfile::tempfile().expect("a file");
        let directory = DataDirectory { lock, shards: Vec::new(), is_new };
        let found = find(config, &directory, &patience)?;
        if let Some((disk, _)) = &found {
            assert_eq!((disk.read_iops, disk.write_bandwidth), (1000, 20_000_000));
        }
        Ok(found.map(|(_, path)| path))
    }

    #[test]
    fn a_file_is_found_by_name_or_in_the_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let mount = mountpoint_of(directory.path());
        let usual = directory.path().join(DISK_FILE);
        let named = directory.path().join("other.yaml");
        let config = Config { data_dir: directory.path().to_owned(), ..Config::default() };
        assert_eq!(look(&config, false).expect("none"), None);
        std::fs::write(&usual, figures(&mount)).expect("written");
        assert_eq!(look(&config, true).expect("figures"), Some(usual.clone()));
        let with_name = Config { io_properties: Some(named.clone()), ..config.clone() };
        let error = look(&with_name, false).expect_err("it is not there").to_string();
        assert!(error.contains("other.yaml: there is no such file"), "{error}");
        let yaml = figures(&mount).replace("[[disk]]\nmountpoints = [\"", "disks:\n- mountpoint: ");
        let yaml =
            yaml.replace("\"]", "").replace("\nread", "\n  read").replace("\nwrite", "\n  write");
        std::fs::write(&named, yaml.replace(" =", ":")).expect("written");
        assert_eq!(look(&with_name, false).expect("figures"), Some(named));
        std::fs::write(&usual, figures("/no/such/mount")).expect("written");
        assert_eq!(look(&config, false).expect("it is passed over"), None);
        std::fs::write(&usual, figures("/proc")).expect("written");
        assert_eq!(look(&config, false).expect("it is passed over"), None);
        std::fs::write(&usual, figures(&mount).replace("= 1000\n", "= 0\n")).expect("written");
        let error = look(&config, false).expect_err("it is wrong").to_string();
        assert!(error.contains("line 3: read_iops: 0 is not from"), "{error}");
        assert!(error.contains(DISK_FILE) && error.contains("--io-properties"), "{error}");
    }

    #[test]
    fn a_stop_is_heard_before_a_measurement() {
        let directory = tempfile::tempdir().expect("a directory");
        let (events, queue) = channel();
        events.send(Event::StopRequested("a test")).expect("it is listened to");
        let patience = Patience::new(&queue, Duration::ZERO);
        let config = Config { data_dir: directory.path().to_owned(), ..Config::default() };
        let stopped = calibrate(&config, directory.path().join(DISK_FILE), &patience);
        assert!(matches!(stopped, Err(StartError::Stopped { .. })), "{stopped:?}");
        let left = std::fs::read_dir(directory.path()).expect("a list").count();
        assert_eq!(left, 0, "nothing is left");
    }

    #[test]
    fn options_become_what_each_core_gets() {
        let config = Config {
            io_shares: Some("scan=7".parse().expect("shares")),
            io_caps: Some("scrub=8M,scan=none".parse().expect("caps")),
            io_latency_goal: Some(2000),
            ..Config::default()
        };
        let usual = IoQueueOptions::default();
        let (facts, options) = set_up(&config, None, 4);
        assert!(facts.is_none() && options.device.is_none());
        assert_eq!(options.shares[IoClass::Scan as usize], 7);
        let read = IoClass::Read as usize;
        assert_eq!(options.shares[read], usual.shares[read]);
        assert_eq!(options.bandwidth_max[IoClass::Scrub as usize], Some(2 << 20));
        assert_eq!(options.bandwidth_max[IoClass::Scan as usize], None);
        let disk = DiskProperties {
            read_iops: 1000,
            read_bandwidth: 10_000_000,
            write_iops: 500,
            write_bandwidth: 20_000_000,
            ..DiskProperties::default()
        };
        let (facts, options) = set_up(&config, Some((disk, PathBuf::from("/x"))), 4);
        let facts = facts.expect("it is known");
        let model = facts.group.model();
        assert_eq!((model.latency_goal, model.read_iops), (2_000_000, 1000));
        let device = options.device.expect("it is known");
        assert!(Arc::ptr_eq(&device, &facts.group), "all cores share one");
    }
}
