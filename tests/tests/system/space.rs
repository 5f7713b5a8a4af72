//! What `/space` says while the node runs and `larder space` afterwards, held against the files.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use larder_tests::node::{Node, NodeOptions, binary};
use larder_tests::process;
use larder_tests::scratch::Scratch;

const PATIENCE: Duration = Duration::from_secs(60);

/// The lines of a report, by shard: what the bytes are for, and how many there are.
fn lines(text: &str) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut shards: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let mut directory = String::new();
    for line in text.lines() {
        if !line.starts_with(' ') {
            line.clone_into(&mut directory);
        } else if line.ends_with(" %") {
            let (what, figures) = line.split_at(49);
            let bytes = figures.split_whitespace().next().expect("a number of bytes");
            let bytes = bytes.parse().expect("a number of bytes");
            let shard = shards.entry(directory.clone()).or_default();
            assert!(shard.insert(what.trim().to_owned(), bytes).is_none(), "{line} twice");
        }
    }
    shards
}

fn on_disk(directory: &str) -> u64 {
    let files = std::fs::read_dir(Path::new(directory)).expect("a shard");
    files.map(|file| file.expect("a file").metadata().expect("its length").len()).sum()
}

/// Whether the parts of each shard add up to its total, and that is what its files have.
fn is_exact(text: &str) -> bool {
    lines(text).iter().all(|(directory, parts)| {
        let total = parts["total"];
        let sum: u64 = parts.iter().filter(|part| part.0 != "total").map(|part| part.1).sum();
        assert_eq!(sum, total, "{directory} in\n{text}");
        total == on_disk(directory)
    })
}

fn from_outside(data: &Path, json: bool) -> String {
    let mut command = Command::new(binary());
    command.arg("space").arg(data).args(json.then_some("--json"));
    let output = command.output().expect("larder can be run");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn every_byte_is_explained_while_the_node_runs_and_afterwards() {
    let scratch = Scratch::new("space");
    let data = scratch.path().join("data");
    let options = NodeOptions::new(&data).shards(2).with("--compress-from").with("off");
    let node = Node::start(&options);
    let mut client = node.client();
    for number in 0..400 {
        let value = vec![b'v'; 20_000];
        assert_eq!(client.set(&format!("key-{}", number % 100), &value).unwrap(), "STORED");
    }
    // While files are made or removed, the figures are those of a moment before or after.
    let has_settled = process::wait_until(PATIENCE, || is_exact(&node.admin_page("/space")));
    let text = node.admin_page("/space");
    assert!(has_settled, "the files do not add up to\n{text}");
    let running = lines(&text);
    assert_eq!(running.len(), 2, "{text}");
    for parts in running.values() {
        assert!(parts["log: awaiting a flush"] > 1_000_000, "{text}");
        assert!(parts.contains_key("log: spare segments, nothing written yet"), "{text}");
    }
    assert!(text.contains("the node runs"), "{text}");
    let running_json = node.admin_page("/space.json");
    node.stop();

    let text = from_outside(&data, false);
    assert!(is_exact(&text), "{text}");
    let stopped = lines(&text);
    assert_eq!(stopped.len(), 2, "{text}");
    for (directory, parts) in &stopped {
        let what = "log: awaiting a flush";
        assert_eq!(parts[what], running[directory][what], "{text}");
    }
    // The same names for programs.
    let names = |json: &str| {
        let names = json.lines().filter_map(|line| Some(line.trim().split_once("\": ")?.0));
        names.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(names(&running_json), names(&from_outside(&data, true)));
}
