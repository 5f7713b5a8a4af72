//! What a node knows of its disk, and how its classes of requests share it.

#![allow(clippy::disallowed_methods, reason = "the tests look at what is in directories")]

use std::path::Path;

use larder::config::Config;
use larder::launch::Launcher;

use super::admin::{METRICS, ask, value_in};
use super::client::{TestNode, config, found, set};

const IO: &str = "GET /io HTTP/1.1\r\n\r\n";
const FIGURES: &str = "io-properties.toml";

/// What `/io` says, as a value.
fn io_page(node: &TestNode) -> serde_json::Value {
    let answer = ask(node.node.addresses().admin, IO);
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("application/json"), "{head}");
    serde_json::from_str(body).expect("JSON")
}

fn change(node: &TestNode, query: &str) -> String {
    ask(node.node.addresses().admin, &format!("POST /io?{query} HTTP/1.1\r\n\r\n"))
}

/// Usual shares and cap of a class on a core.
fn settings(page: &serde_json::Value, core: usize, class: &str) -> (u64, Option<u64>) {
    let classes = page["cores"][core]["classes"].as_array().expect("classes");
    let class = classes.iter().find(|it| it["class"] == class).expect("the class");
    // Urgent work has more of them for a while.
    let (now, usual) = (class["shares"].as_u64(), class["usual_shares"].as_u64());
    assert!(now >= usual, "{class}");
    (usual.expect("shares"), class["cap"].as_u64())
}

fn start_error(config: &Config) -> String {
    Launcher::default().start(config).expect_err("it does not start").to_string()
}

#[test]
fn shares_and_caps_are_set_at_the_start_and_changed_while_the_node_runs() {
    let node = TestNode::start_with(2, |config| {
        config.io_shares = Some("scan=70".parse().expect("shares"));
        config.io_caps = Some("scrub=8M".parse().expect("caps"));
    });
    let page = io_page(&node);
    assert!(page["device"].is_null(), "{page}");
    for core in 0..2 {
        assert_eq!(settings(&page, core, "scan"), (70, None));
        assert_eq!(settings(&page, core, "scrub"), (50, Some(4 << 20)));
        assert_eq!(settings(&page, core, "read"), (2000, None));
    }
    let answer = change(&node, "shares=scan=30,compaction=500&caps=scrub=none,scan=20M");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let shown = answer.split_once("\r\n\r\n").expect("head and body").1;
    let shown: serde_json::Value = serde_json::from_str(shown).expect("JSON");
    for page in [shown, io_page(&node)] {
        for core in 0..2 {
            assert_eq!(settings(&page, core, "scan"), (30, Some(10 << 20)));
            assert_eq!(settings(&page, core, "compaction"), (500, None));
            assert_eq!(settings(&page, core, "scrub"), (50, None));
        }
    }
    for (query, part) in [
        ("shares=scan=0", "scan: `0` are no shares"),
        ("shares=read=5,scans=5", "there is no class `scans`"),
        ("caps=scan=1", "scan: `1` is neither"),
        ("", "nothing to change"),
    ] {
        let answer = change(&node, query);
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(part), "{answer}");
    }
    let foreign = "POST /io?shares=scan=5 HTTP/1.1\r\nOrigin: http://example.org\r\n\r\n";
    let answer = ask(node.node.addresses().admin, foreign);
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let metrics = ask(node.node.addresses().admin, METRICS);
    for core in 0..2 {
        let shares = format!("larder_disk_shares{{core=\"{core}\",class=\"scan\"}}");
        assert_eq!(value_in(&metrics, &shares), 30);
    }
    let mut client = node.connect();
    client.ask(set("key", b"value"), "STORED\r\n");
    client.ask("get key\r\n", found("key", b"value"));
    node.stop();
}

#[test]
fn a_file_of_figures_is_taken_and_a_wrong_one_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = config(directory.path(), 1);
    let figures = directory.path().join("figures.toml");
    let named = Config { io_properties: Some(figures.clone()), ..config };
    assert!(start_error(&named).contains("figures.toml: there is no such file"));
    let disk = |mountpoint: &str, reads: &str| {
        format!(
            "[[disk]]\nmountpoints = [\"{mountpoint}\"]\nread_iops = {reads}\n\
             read_bandwidth = 500000000\nwrite_iops = 20000\nwrite_bandwidth = 300000000\n"
        )
    };
    for (text, part) in [
        (disk("/", "-1"), "line 3: read_iops: -1 is not from 10"),
        (disk("/no/such/mount", "50000"), "line 1: mountpoints: nothing is mounted at"),
        (disk("/proc", "50000"), "it has no disk that is mounted at"),
        (format!("{}speed = 1\n", disk("/", "50000")), "line 7: speed: unknown"),
    ] {
        std::fs::write(&figures, text).expect("written");
        let error = start_error(&named);
        assert!(error.contains(part) && error.contains("--io-properties"), "{error}");
    }
    std::fs::write(&figures, disk("/proc", "50000")).expect("written");
    let mount = start_error(&named);
    let mount = mount.split("mounted at ").nth(1).and_then(|rest| rest.split(',').next());
    std::fs::write(&figures, disk(mount.expect("the mount"), "50000")).expect("written");
    let node = TestNode::start_in(directory, 2, |config| {
        config.io_properties = Some(figures);
        config.io_latency_goal = Some(3000);
    });
    let page = io_page(&node);
    assert_eq!(page["device"]["read_iops"], 50_000, "{page}");
    assert_eq!(page["device"]["latency_goal_us"], 3000, "{page}");
    let metrics = ask(node.node.addresses().admin, METRICS);
    assert_eq!(value_in(&metrics, "larder_disk_model{figure=\"writes\"}"), 20_000);
    let mut client = node.connect();
    client.ask(set("key", &[b'v'; 300_000]), "STORED\r\n");
    client.ask("get key\r\n", found("key", &[b'v'; 300_000]));
    node.stop();
}

/// Starts a node on a new directory whose disk it measures, and says whether it could.
fn calibrated(parent: &Path) -> Option<TestNode> {
    let directory = tempfile::tempdir_in(parent).expect("a directory");
    let node = TestNode::start_in(directory, 1, |config| config.calibrate = true);
    let data = node.directory.path().join("data");
    let is_measured = data.join(FIGURES).exists();
    assert_eq!(io_page(&node)["device"].is_null(), !is_measured);
    let names = std::fs::read_dir(data).expect("a list").count();
    assert_eq!(names, 2 + usize::from(is_measured), "lock, shard, and the figures at most");
    let mut client = node.connect();
    client.ask(set("key", b"value"), "STORED\r\n");
    is_measured.then_some(node)
}

#[test]
fn the_disk_of_a_new_directory_is_measured_once() {
    // On a disk: where the tests are built, because /tmp may be memory. While other tests keep it
    // busy the measurement may fail.
    let on_disk = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let node = (0..3).find_map(|_| calibrated(on_disk)).expect("it is measured");
    let device = io_page(&node)["device"].clone();
    let figures = node.directory.path().join("data").join(FIGURES);
    let text = std::fs::read_to_string(&figures).expect("figures");
    let directory = node.stop();
    let node = TestNode::start_in(directory, 1, |config| config.calibrate = true);
    assert_eq!(io_page(&node)["device"]["read_iops"], device["read_iops"]);
    assert_eq!(std::fs::read_to_string(&figures).expect("figures"), text, "not measured again");
    let mut client = node.connect();
    client.ask("get key\r\n", found("key", b"value"));
    node.stop();
}

#[test]
fn memory_is_not_measured_and_a_node_starts_on_it() {
    assert!(calibrated(Path::new("/dev/shm")).is_none(), "it is no disk");
}
