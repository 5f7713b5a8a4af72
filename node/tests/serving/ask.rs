//! `larder get`, `set`, `del`, `incr`, `items`, `scan`, `stats` and `ping` as their users run them.

#![allow(clippy::disallowed_methods, reason = "tests write files")]

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use super::client::{TestNode, found, noise};
use super::process::larder;

/// Runs a command against the node: exit code, stdout, stderr.
pub(crate) fn run(
    node: &TestNode,
    arguments: &[&str],
    input: &[u8],
) -> (Option<i32>, Vec<u8>, String) {
    let mut command = larder(arguments);
    command.env("LARDER_NODE", node.node.addresses().native.to_string()).stdin(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    child.stdin.take().expect("a pipe").write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), output.stdout, stderr)
}

#[test]
fn values_go_in_and_come_out_byte_for_byte() {
    let node = TestNode::start(2);
    let value = noise(1, 300_000);
    assert_eq!(run(&node, &["get", "photo"], b"").0, Some(1), "nothing is there");
    assert_eq!(run(&node, &["set", "photo"], &value), (Some(0), vec![], String::new()));
    let (code, stdout, stderr) = run(&node, &["get", "photo"], b"");
    assert!((code, stderr.as_str()) == (Some(0), "") && stdout == value, "{stderr}");
    let file = node.directory.path().join("file");
    std::fs::write(&file, b"from a file").expect("written");
    let path = file.to_str().expect("text");
    assert_eq!(run(&node, &["set", "user:1", "name", "--file", path], b"").0, Some(0));
    assert_eq!(run(&node, &["get", "user:1", "name"], b"").1, b"from a file");
    assert_eq!(run(&node, &["get", "user:1"], b"").0, Some(1), "that is another item");
    assert_eq!(run(&node, &["set", "empty", "--value", ""], b"ignored").0, Some(0));
    assert_eq!(run(&node, &["get", "empty"], b""), (Some(0), vec![], String::new()));
    node.connect().ask("get empty\r\n", found("empty", b""));
    node.stop();
}

#[test]
fn each_help_text_has_an_example() {
    for words in [
        &["serve"][..],
        &["memcached"],
        &["bench", "run"],
        &["bench", "hostile"],
        &["bench", "engine"],
        &["check"],
        &["space"],
        &["get"],
        &["set"],
        &["del"],
        &["incr"],
        &["items"],
        &["scan"],
        &["ns"],
        &["ns", "create"],
        &["ns", "set"],
        &["ns", "list"],
        &["ns", "drop"],
        &["ping"],
        &["stats"],
        &["completion"],
    ] {
        let output = larder(words).arg("--help").output().expect("it runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let command = format!("larder {} ", words.join(" "));
        let is_example = |line: &str| line.starts_with("  ") && line.contains(command.trim_end());
        assert!(text.lines().any(is_example), "{command}: {text}");
    }
    let (code, _, stderr) = {
        let output = larder(&["ping", "--node", "127.0.0.1:1"]).output().expect("it runs");
        (output.status.code(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert!(code == Some(2) && stderr.contains("--node, or LARDER_NODE"), "{stderr}");
}

#[test]
fn conditions_numbers_and_deletes_have_their_exit_codes() {
    let node = TestNode::start(1);
    let code = |arguments: &[&str]| run(&node, arguments, b"").0;
    assert_eq!(code(&["set", "k", "--value", "v", "--if-present"]), Some(1));
    assert_eq!(code(&["set", "k", "--value", "v", "--if-absent"]), Some(0));
    let (exit, _, stderr) = run(&node, &["set", "k", "--value", "v", "--if-absent"], b"");
    assert!(exit == Some(1) && stderr.contains("already"), "{stderr}");
    let (exit, stdout, _) = run(&node, &["get", "k", "--json"], b"");
    let shown: Value = serde_json::from_slice(&stdout).expect("JSON");
    assert_eq!((exit, &shown["value"], &shown["length"]), (Some(0), &"v".into(), &1.into()));
    let version = shown["version"].to_string();
    assert_eq!(code(&["set", "k", "--value", "w", "--if-version", "999"]), Some(1));
    assert_eq!(code(&["set", "k", "--value", "w", "--if-version", &version]), Some(0));
    assert_eq!(code(&["set", "k", "--value", "w", "--if-version", "1", "--if-absent"]), Some(2));
    assert_eq!(code(&["incr", "k"]), Some(2), "no number");
    assert_eq!(code(&["del", "k"]), Some(0));
    assert_eq!(code(&["del", "k"]), Some(1));
    assert_eq!(code(&["incr", "visits"]), Some(1));
    assert_eq!(run(&node, &["incr", "visits", "--initial", "5"], b"").1, b"5\n");
    assert_eq!(run(&node, &["incr", "visits", "--by", "10"], b"").1, b"15\n");
    assert_eq!(
        run(&node, &["incr", "visits", "--by", "-3", "--json"], b"").1,
        b"{\"number\":12}\n"
    );
    assert_eq!(code(&["set", "short", "--value", "v", "--ttl", "4000000000"]), Some(0));
    node.stop();
}

#[test]
fn items_and_scan_print_a_line_for_each_item() {
    let node = TestNode::start(2);
    let list = |arguments: &[&str]| {
        let (code, stdout, stderr) = run(&node, arguments, b"");
        assert_eq!(stderr, "", "{arguments:?}");
        (code, String::from_utf8(stdout).expect("text"))
    };
    let none = (Some(1), String::new());
    assert_eq!((list(&["items", "r"]), list(&["scan"])), (none.clone(), none.clone()));
    for (item, value) in [("a", "1"), ("b", "2"), ("ba", "3"), ("c", ""), ("", "plain")] {
        assert_eq!(run(&node, &["set", "r", item, "--value", value], b"").0, Some(0));
    }
    let shown = |text: &str| (Some(0), text.to_owned());
    assert_eq!(list(&["items", "r"]), shown("\tplain\na\t1\nb\t2\nba\t3\nc\t\n"));
    assert_eq!(list(&["items", "r", "--keys-only"]), shown("\na\nb\nba\nc\n"));
    assert_eq!(list(&["items", "r", "--prefix", "b", "--reverse"]), shown("ba\t3\nb\t2\n"));
    assert_eq!(list(&["items", "r", "--from", "a", "--to", "ba"]), shown("a\t1\nb\t2\n"));
    assert_eq!(list(&["items", "r", "--from", "b", "--limit", "2"]), shown("b\t2\nba\t3\n"));
    assert_eq!(list(&["items", "r", "--limit", "0"]), none);
    assert_eq!(list(&["items", "r", "--prefix", "x"]), none);
    node.connect().ask("set key 5 0 5\r\nvalue\r\n", "STORED\r\n");
    let (code, text) = list(&["scan"]);
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let all = ["key\t\tvalue", "r\t\tplain", "r\ta\t1", "r\tb\t2", "r\tba\t3", "r\tc\t"];
    assert_eq!((code, lines.as_slice()), (Some(0), &all[..]));
    assert_eq!(list(&["scan", "--limit", "4"]).1.lines().count(), 4);
    let (_, text) = list(&["scan", "--json"]);
    let found = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let key = found.into_iter().find(|item| item["record"] == "key").expect("it is there");
    assert_eq!((&key["item"], &key["value"]), (&"".into(), &"value".into()));
    assert_eq!((&key["client_flags"], &key["length"]), (&5.into(), &5.into()));
    let (_, text) = list(&["items", "r", "--json", "--keys-only", "--prefix", "ba"]);
    let item: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&item["item"], item.get("value"), item.get("record")), (&"ba".into(), None, None));
    node.stop();
}

#[test]
fn del_takes_away_what_is_named_and_no_more() {
    let node = TestNode::start(2);
    let fill = || {
        for item in ["", "a", "b", "ba", "c", "d"] {
            assert_eq!(run(&node, &["set", "r", item, "--value", "v"], b"").0, Some(0));
        }
    };
    let left = |record: &str| {
        let (_, stdout, _) = run(&node, &["items", record, "--keys-only"], b"");
        String::from_utf8(stdout).expect("text").lines().collect::<Vec<_>>().join(",")
    };
    assert_eq!(run(&node, &["set", "other", "b", "--value", "v"], b"").0, Some(0));
    for (arguments, rest) in [
        (&[][..], "a,b,ba,c,d"),
        (&["ba"], ",a,b,c,d"),
        (&["--prefix", "b"], ",a,c,d"),
        (&["--from", "b"], ",a"),
        (&["--to", "b"], "b,ba,c,d"),
        (&["--from", "a", "--to", "c"], ",c,d"),
        (&["--from", "", "--to", "a"], "a,b,ba,c,d"),
        (&["--to", ""], ",a,b,ba,c,d"),
        (&["--from", "c", "--to", "a"], ",a,b,ba,c,d"),
        (&["--prefix", "x"], ",a,b,ba,c,d"),
        (&["--all"], ""),
    ] {
        fill();
        let arguments = [&["del", "r"], arguments].concat();
        let done = run(&node, &arguments, b"");
        assert_eq!(done, (Some(0), vec![], String::new()), "{arguments:?}");
        assert_eq!(left("r"), rest, "{arguments:?}");
    }
    assert_eq!(run(&node, &["del", "r"], b"").0, Some(1), "there is none");
    assert_eq!(run(&node, &["del", "r", "--all"], b"").0, Some(0), "nobody counts them");
    fill();
    let json = |arguments: &[&str]| run(&node, arguments, b"").1;
    assert_eq!(json(&["del", "r", "a", "--json"]), b"{\"deleted\":true}\n");
    assert_eq!(json(&["del", "r", "a", "--json"]), b"{\"deleted\":false}\n");
    assert_eq!(json(&["del", "r", "--prefix", "b", "--json"]), b"{\"deleted\":true}\n");
    for (arguments, part) in [
        (&["--prefix", ""][..], "--all"),
        (&["--from", ""], "--all"),
        (&["a", "--all"], "cannot be used with"),
        (&["a", "--prefix", "b"], "cannot be used with"),
        (&["a", "--to", "b"], "cannot be used with"),
        (&["--all", "--from", "b"], "cannot be used with"),
        (&["--all", "--prefix", "b"], "cannot be used with"),
        (&["--prefix", "b", "--to", "b"], "cannot be used with"),
        (&["--all", "--namespace", "9"], "no such namespace"),
        (&["--prefix", &"k".repeat(1025)], "at most 1024 bytes"),
    ] {
        let arguments = [&["del", "r"], arguments].concat();
        let (code, stdout, stderr) = run(&node, &arguments, b"");
        assert_eq!((code, stdout), (Some(2), vec![]), "{arguments:?}");
        assert!(stderr.contains(part), "{part} in {stderr}");
    }
    assert_eq!((left("r"), left("other")), (",c,d".into(), "b".into()));
    node.stop();
}

#[test]
fn a_mistake_is_said_and_ends_with_2() {
    let node = TestNode::start(1);
    let (code, stdout, _) = run(&node, &["ping"], b"");
    let text = String::from_utf8(stdout).expect("text");
    assert!(code == Some(0) && text.starts_with("larder ") && text.contains("1 shards"), "{text}");
    let long = "k".repeat(1025);
    for (arguments, part) in [
        (vec!["get", &long], "1 to 1024 bytes"),
        (vec!["get", ""], "1 to 1024 bytes"),
        (vec!["get", "k", "--namespace", "9"], "no such namespace"),
        (vec!["items", "k", "--namespace", "9"], "no such namespace"),
        (vec!["scan", "--namespace", "9"], "no such namespace"),
        (vec!["items", &long], "1 to 1024 bytes"),
        (vec!["items", "k", "--to", &long], "at most 1024 bytes"),
        (vec!["items", "k", "--prefix", "a", "--to", "b"], "cannot be used with"),
        (vec!["set", "k", "--file", "/does/not/exist"], "/does/not/exist"),
        (vec!["get", "k", "--node", "127.0.0.1:1"], "--native-port"),
        (vec!["get", "k", "--node", "nonsense"], "nonsense"),
    ] {
        let (code, stdout, stderr) = run(&node, &arguments, b"");
        assert_eq!((code, stdout), (Some(2), vec![]), "{arguments:?}");
        assert!(stderr.contains(part), "{part} in {stderr}");
    }
    let large = vec![0; (1 << 20) + 1];
    let (code, _, stderr) = run(&node, &["set", "k"], &large);
    assert_eq!(code, Some(0), "longer than --max-item-size, it goes in chunks: {stderr}");
    assert_eq!(run(&node, &["get", "k"], b"").1, large);
    let memcached = node.node.addresses().memcached.expect("a port").to_string();
    let (code, _, stderr) = run(&node, &["ping", "--node", &memcached], b"");
    assert_eq!(code, Some(2), "another port: {stderr}");
    node.stop();
}

#[test]
fn figures_are_those_of_all_cores() {
    let node = TestNode::start_with(2, |config| config.shards = Some(3));
    for number in 0..20 {
        let name = format!("key{number}");
        assert_eq!(run(&node, &["set", &name, "--value", "v"], b"").0, Some(0));
    }
    let mut memcached = node.connect();
    memcached.send("stats\r\n");
    let stats = memcached.lines_until("END");
    let (code, stdout, _) = run(&node, &["stats", "--json"], b"");
    let shown: Value = serde_json::from_slice(&stdout).expect("JSON");
    assert_eq!((code, &shown["cmd_set"], &shown["threads"]), (Some(0), &20.into(), &2.into()));
    assert_eq!((&shown["durability"], &shown["shard2:stopped"]), (&"sync".into(), &0.into()));
    for line in stats.lines().filter_map(|line| line.strip_prefix("STAT ")) {
        let (name, _) = line.split_once(' ').expect("a value");
        assert!(!shown[name].is_null(), "{name} is not shown");
    }
    let (code, stdout, _) = run(&node, &["stats"], b"");
    let text = String::from_utf8(stdout).expect("text");
    assert!(code == Some(0) && text.lines().any(|line| line == "cmd_set\t20"), "{text}");
    node.stop();
}

#[test]
fn a_scan_is_printed_from_either_end() {
    let node = TestNode::start(2);
    for number in 0..9 {
        let name = format!("key{number}");
        assert_eq!(run(&node, &["set", &name, "--value", "v"], b"").0, Some(0));
    }
    let lines = |arguments: &[&str]| {
        let (code, stdout, _) = run(&node, arguments, b"");
        assert_eq!(code, Some(0));
        let text = String::from_utf8(stdout).expect("text");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut forward = lines(&["scan"]);
    assert_eq!(forward.len(), 9);
    forward.reverse();
    assert_eq!(lines(&["scan", "--reverse"]), forward);
    assert_eq!(lines(&["scan", "--reverse", "--limit", "2"]), forward[..2]);
    node.stop();
}
