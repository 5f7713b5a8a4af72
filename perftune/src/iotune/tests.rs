//! Loads on a small file, and the command as it is called.

#![allow(clippy::disallowed_methods, reason = "the test looks at what is left in directories")]

use std::path::Path;

use clap::Parser;
use tempfile::TempDir;

use super::*;
use crate::disk::from_toml;
use crate::measure::{DiskLoad, LoadKind, LoadRunner};

#[derive(Parser)]
struct Iotune {
    #[command(flatten)]
    args: IotuneArgs,
}

/// A directory on a disk: where the tests were built, because /tmp may be memory.
fn on_disk() -> TempDir {
    let program = std::env::current_exe().expect("the tests' program");
    tempfile::tempdir_in(program.parent().expect("a directory")).expect("a directory")
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a list");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into()).collect()
}

/// What the command prints, or its error.
fn iotune(directory: &Path, out: &Path, more: &[&str]) -> Result<String, String> {
    let words = ["iotune", "--dir", &directory.display().to_string(), "--out"]
        .map(str::to_owned)
        .into_iter()
        .chain([out.display().to_string()])
        .chain(more.iter().map(|&word| word.to_owned()));
    let args = Iotune::try_parse_from(words).map_err(|error| error.to_string())?.args;
    let mut output = Vec::new();
    run(&args, &mut output, &ProgressBar::hidden()).map_err(|error| error.to_string())?;
    Ok(String::from_utf8(output).expect("text"))
}

#[test]
fn every_kind_of_load_is_carried_out_and_leaves_nothing() {
    let directory = on_disk();
    let bytes = 16 << 20;
    let options = RingRunnerOptions::patient(bytes, 64);
    let hidden = ProgressBar::hidden();
    let mut runner = RingRunner::start(directory.path(), options, hidden.clone()).expect("a file");
    assert_eq!(names(directory.path()), Vec::<String>::new(), "the file has no name");
    assert_eq!(hidden.position(), bytes);
    for (kind, length, depth) in [
        (LoadKind::RandomRead, 4096, 64),
        (LoadKind::RandomWrite, 4096, 8),
        (LoadKind::SequentialRead, 1 << 20, 4),
        (LoadKind::SequentialWrite, 65_536, 2),
        (LoadKind::Mixed, 4096, 8),
    ] {
        let sample = runner.run(DiskLoad { kind, length, depth, milliseconds: 100 });
        let sample = sample.expect("a sample");
        assert!((8..=32).contains(&sample.rates.len()), "{kind:?}: {sample:?}");
        assert!(sample.rates.iter().sum::<f64>() > 0.0, "{kind:?}: {sample:?}");
        assert!(sample.p99_us > 0, "{kind:?}: {sample:?}");
        if kind == LoadKind::Mixed {
            assert!((0.5..2.0).contains(&sample.reads_per_write), "{sample:?}");
        }
    }
    for length in [0, 512, 32 << 20] {
        let load = DiskLoad { kind: LoadKind::RandomRead, length, depth: 1, milliseconds: 10 };
        assert!(runner.run(load).expect_err("refused").contains("do not fit"), "{length}");
    }
    drop(runner);
    assert_eq!(names(directory.path()), Vec::<String>::new());
}

#[test]
fn a_disk_is_measured_and_its_figures_are_written() {
    let (directory, results) = (on_disk(), tempfile::tempdir().expect("a directory"));
    let path = |name: &str| results.path().join(name);
    let other = "[[disk]]\nmountpoints = [\"/another\"]\nread_iops = 1000\n\
                 read_bandwidth = 10000000\nwrite_iops = 500\nwrite_bandwidth = 10000000\n";
    std::fs::write(path("io.toml"), other).expect("written");
    let (json, plot) = (path("io.json").display().to_string(), path("io.svg"));
    let plot = plot.display().to_string();
    let more = ["--seconds", "1", "--size", "32", "--json", &json, "--plot", &plot];
    let said = iotune(directory.path(), &path("io.toml"), &more).expect("measured");
    assert!(said.contains("random reads") && said.contains("written to"), "{said}");
    let disks = from_toml(&std::fs::read_to_string(path("io.toml")).expect("it is there"));
    let disks = disks.expect("figures");
    assert_eq!((disks.len(), disks[0].mountpoints[0].as_str()), (2, "/another"));
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(json).expect("it is there")).expect("JSON");
    assert_eq!(json["disk"]["read_iops"], disks[1].read_iops);
    assert_eq!(json["curves"].as_array().map(Vec::len), Some(4));
    let picture = std::fs::read_to_string(plot).expect("it is there");
    assert!(picture.starts_with("<svg") && picture.contains("random reads, 64 KiB"));
    assert_eq!(names(directory.path()), Vec::<String>::new());
    assert_eq!(names(results.path()).len(), 3, "{:?}", names(results.path()));
}

#[test]
fn figures_of_the_same_mount_are_replaced_and_wrong_ones_refused() {
    let results = tempfile::tempdir().expect("a directory");
    let out = results.path().join("io.toml");
    let disk = |mountpoints: &[&str], read_iops| DiskProperties {
        mountpoints: mountpoints.iter().map(|&path| path.to_owned()).collect(),
        read_iops,
        read_bandwidth: 1_000_000_000,
        write_iops: 1000,
        write_bandwidth: 1_000_000_000,
        ..DiskProperties::default()
    };
    let known = [disk(&["/a"], 1000), disk(&["/b", "/c"], 1000)];
    std::fs::write(&out, crate::disk::to_toml(&known)).expect("written");
    let words = ["iotune", "--dir", "/", "--out", &out.display().to_string()].map(str::to_owned);
    let args = Iotune::try_parse_from(words).expect("options").args;
    let tree = SystemTree::new(Path::new("/")).expect("a root");
    let files = ResultFiles::check(&tree, &args).expect("writable");
    let figures = files.figures(&disk(&["/b"], 2000)).expect("figures");
    let expected = vec![disk(&["/a"], 1000), disk(&["/c"], 1000), disk(&["/b"], 2000)];
    assert_eq!(from_toml(&figures), Ok(expected));
    let refused = files.figures(&disk(&["/b"], 3)).expect_err("too few");
    assert!(refused.contains("read_iops: 3 is not from 10"), "{refused}");
}

#[test]
fn what_cannot_be_measured_is_refused_and_nothing_is_left() {
    let (directory, results) = (on_disk(), tempfile::tempdir().expect("a directory"));
    let out = results.path().join("io.toml");
    let file = results.path().join("file");
    std::fs::write(&file, "no figures").expect("written");
    let missing = directory.path().join("missing");
    let space = rustix::fs::statvfs(directory.path()).expect("free space");
    let free = (space.f_bavail * space.f_frsize) >> 20;
    let too_large = free.max(32).to_string();
    for (dir, out, more, part) in [
        (missing.as_path(), out.as_path(), &[][..], "name a directory that is there"),
        (&file, &out, &[], "it is no directory"),
        (directory.path(), &file, &[], "is no file of figures"),
        (directory.path(), &missing.join("io.toml"), &[], "there is no directory"),
        (directory.path(), &PathBuf::from("/dev/null"), &[], "is no plain file"),
        (directory.path(), results.path(), &[], "--out"),
        (directory.path(), &out, &["--json", "/proc/x/y"], "--json /proc/x/y"),
        (directory.path(), &out, &["--size", &too_large], "at most half of the free space"),
        (directory.path(), &out, &["--size", "1"], "--size"),
        (directory.path(), &out, &["--quick", "--seconds", "5"], "--quick"),
        // Nobody can make a file there, root neither.
        (Path::new("/sys"), &out, &["--size", "16"], "no file can be made there"),
    ] {
        let error = iotune(dir, out, more).expect_err(part);
        assert!(error.contains(part), "{error}\n(expected: {part})");
        assert_eq!(names(directory.path()), Vec::<String>::new(), "{error}");
        assert_eq!(names(results.path()), ["file"], "{error}");
    }
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "no figures");
}

#[test]
fn memory_is_refused() {
    let is_memory = |path: &Path| {
        let tree = SystemTree::new(Path::new("/")).expect("a root");
        let machine = Machine::read(&tree).expect("a machine");
        machine.mount_of(&path.display().to_string()).is_some_and(|mount| mount.kind == "tmpfs")
    };
    let shared_memory = Path::new("/dev/shm");
    assert!(is_memory(shared_memory), "Linux machines have it");
    let directory = tempfile::tempdir_in(shared_memory).expect("a directory");
    let out = directory.path().join("io.toml");
    let error = iotune(directory.path(), &out, &[]).expect_err("memory");
    assert!(error.contains("memory and no disk"), "{error}");
    assert_eq!(names(directory.path()), Vec::<String>::new());
}

#[test]
fn figures_that_cannot_be_true_are_named_and_not_written() {
    let results = tempfile::tempdir().expect("a directory");
    let out = results.path().join("io.toml").display().to_string();
    let words = ["iotune", "--dir", "/", "--out", &out].map(str::to_owned);
    let args = Iotune::try_parse_from(words).expect("options").args;
    let tree = SystemTree::new(Path::new("/")).expect("a root");
    let files = ResultFiles::check(&tree, &args).expect("writable");
    let report = |machine: &str, read_iops| Report {
        directory: "/".to_owned(),
        file_system: "xfs".to_owned(),
        machine: Some(machine.to_owned()),
        milliseconds: 1000,
        file_bytes: 16 << 20,
        disk: DiskProperties {
            mountpoints: vec!["/".to_owned()],
            read_iops,
            read_bandwidth: 3_090_000_000,
            write_iops: 240_000,
            write_bandwidth: 2_290_000_000,
            ..DiskProperties::default()
        },
        spread_percent: [0.0; 4],
        curves: Vec::new(),
        notes: Vec::new(),
        warnings: Vec::new(),
    };
    assert!(checked_figures(&files, &report("i4i.4xlarge", 385_000)).is_ok());
    for (machine, read_iops, part) in [
        ("i4i.4xlarge", 90_000, "read_iops 90000 is far from 385000"),
        ("laptop", 20_000_000, "read_iops 20000000 of the smallest length are more than"),
        ("laptop", 0, "read_iops: 0 is not from 10"),
    ] {
        let error = checked_figures(&files, &report(machine, read_iops)).expect_err(part);
        let text = error.to_string();
        assert!(text.contains("nothing is written") && text.contains(part), "{text}");
    }
    assert_eq!(names(results.path()), Vec::<String>::new());
}
