//! `larder check` and `larder space` as their users run them.

#![allow(clippy::disallowed_methods, reason = "tests look at files")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::client::set;
use super::process::{NodeProcess, larder};

/// Runs a subcommand on a directory: exit code, stdout, stderr.
fn run(command: &str, directory: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let mut process: Command = larder(&[command]);
    let output = process.arg(directory).args(more).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The files of all shards.
fn files(directory: &Path) -> Vec<PathBuf> {
    let shards = fs::read_dir(directory).expect("a directory").map(|it| it.expect("it").path());
    let list =
        |shard: PathBuf| fs::read_dir(shard).expect("a shard").map(|it| it.expect("it").path());
    shards.filter(|path| path.is_dir()).flat_map(list).collect()
}

/// Changes the byte in the middle of the first place that holds `needle`; returns the file.
fn damage(directory: &Path, needle: &[u8]) -> PathBuf {
    for path in files(directory) {
        let mut bytes = fs::read(&path).expect("a file");
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            bytes[at + needle.len() / 2] ^= 1;
            fs::write(&path, bytes).expect("written");
            return path;
        }
    }
    panic!("no file holds it");
}

#[test]
fn a_store_is_checked_and_explained_and_damage_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let node = NodeProcess::start(path, 2);
    let mut client = node.connect();
    for key in 0..50u8 {
        client.ask(set(&format!("key{key}"), &[b'a' + key % 20; 700]), "STORED\r\n");
    }
    for command in ["check", "space"] {
        let (code, stdout, stderr) = run(command, path, &[]);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
        assert!(stderr.contains("another larder runs"), "{stderr}");
    }
    node.stop("-TERM");

    let (code, stdout, stderr) = run("check", path, &[]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.ends_with("no damage\n") && stdout.contains("2 shards"), "{stdout}");
    let (code, stdout, _) = run("check", path, &["--json"]);
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((code, &json["problems"]), (Some(0), &Value::from(0)));

    let (code, stdout, _) = run("space", path, &[]);
    assert_eq!(code, Some(0));
    assert!(stdout.contains("log: awaiting a flush"), "{stdout}");
    let (_, stdout, _) = run("space", path, &["--json"]);
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    let shards = json["shards"].as_array().expect("shards");
    let total: u64 = shards.iter().map(|shard| shard["total_bytes"].as_u64().expect("bytes")).sum();
    let on_disk: u64 = files(path).iter().map(|it| it.metadata().expect("a file").len()).sum();
    assert_eq!(total, on_disk);

    let damaged = damage(path, &[b'c'; 700]);
    let (code, stdout, stderr) = run("check", path, &[]);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    let name = damaged.file_name().expect("a name").to_string_lossy().into_owned();
    let lines: Vec<&str> = stdout.lines().collect();
    let of_file = lines.iter().position(|line| line.contains(&name));
    assert!(of_file.is_some() && stdout.contains("DAMAGED byte"), "{stdout}");
    assert!(stdout.contains("the value of \"key"), "{stdout}");
    let (code, stdout, _) = run("check", path, &["--json"]);
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(code, Some(1));
    assert!(json["problems"].as_u64() > Some(0), "{stdout}");
}

/// One shard of a store that an earlier build has written, with tables.
fn golden(directory: &Path) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden/format-6");
    let shard = directory.join("shard-001");
    fs::create_dir(&shard).expect("created");
    for file in fs::read_dir(golden).expect("the golden store").map(|it| it.expect("it").path()) {
        fs::copy(&file, shard.join(file.file_name().expect("a name"))).expect("copied");
    }
}

#[test]
fn a_repair_drops_what_is_unreadable_and_lists_what_that_costs() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    golden(path);
    let (code, stdout, stderr) = run("check", path, &["--repair"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(!stdout.contains("repaired"), "{stdout}");

    // The last one was left behind by a merge.
    let tables = files(path).into_iter().filter(|it| it.extension().is_some_and(|it| it == "sst"));
    let table = tables.min().expect("the golden store has a table");
    let mut bytes = fs::read(&table).expect("a table");
    bytes[100] ^= 1;
    fs::write(&table, bytes).expect("written");
    assert_eq!(run("check", path, &[]).0, Some(1));
    let (code, stdout, stderr) = run("check", path, &["--repair"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("was repaired") && stdout.contains("LOST values"), "{stdout}");
    let (code, stdout, _) = run("check", path, &["--repair", "--json"]);
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((code, &json["repairs"]), (Some(0), &Value::Array(Vec::new())));

    // Without its manifest nothing tells what the files mean.
    let manifest = files(path).into_iter().find(|it| it.to_string_lossy().contains("MANIFEST"));
    fs::write(manifest.expect("a manifest"), [0; 4096]).expect("written");
    assert_eq!(run("check", path, &[]).0, Some(1));
    let (code, stdout, stderr) = run("check", path, &["--repair"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("MANIFEST") && stderr.contains("from a backup"), "{stderr}");
}

#[test]
fn what_is_no_store_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let refused = |path: &Path| {
        let (code, stdout, stderr) = run("check", path, &[]);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
        stderr
    };
    assert!(refused(path).contains("holds no store"));
    assert!(refused(&path.join("missing")).contains("missing"));
    let data = path.join("data");
    NodeProcess::start(&data, 1).stop("-TERM");
    assert!(refused(&data.join("shard-000")).contains("give the directory above"));
    let superblock = data.join("shard-000/SUPERBLOCK");
    let mut bytes = fs::read(&superblock).expect("a superblock");
    for copy in 0..4 {
        bytes[copy * 4096 + 8] = 77;
    }
    fs::write(&superblock, bytes).expect("written");
    let text = refused(&data);
    assert!(text.contains("format 77") && text.contains("format 6"), "{text}");
    fs::write(data.join("notes.txt"), "x").expect("written");
    assert!(refused(&data).contains("notes.txt"));
}
