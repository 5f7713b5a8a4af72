use std::process::{Command, Output};

use super::client::{found, set};
use super::process::{NodeProcess, larder, serve};

fn run(command: &mut Command) -> (Output, String, String) {
    let output = command.output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output, stdout, stderr)
}

#[test]
fn a_signal_stops_it_in_good_order_and_the_data_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    for (round, name) in ["-TERM", "-INT"].into_iter().enumerate() {
        let node = NodeProcess::start(directory.path(), 1);
        assert_eq!(node.field("shards"), "1");
        assert!(node.field("admin").starts_with("127.0.0.1:"));
        let mut client = node.connect();
        if round > 0 {
            client.ask("get k\r\n", found("k", b"v"));
        }
        client.ask(set("k", b"v"), "STORED\r\n");
        node.stop(name);
    }
}

#[test]
fn acknowledged_writes_survive_a_kill() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = NodeProcess::start(directory.path(), 2);
    let mut client = node.connect();
    for key in 0..100 {
        client.ask(set(&format!("key{key}"), b"value"), "STORED\r\n");
    }
    node.kill();
    let node = NodeProcess::start(directory.path(), 1);
    assert_eq!(node.field("shards"), "2", "whatever the number of cores");
    let mut client = node.connect();
    for key in 0..100 {
        let name = format!("key{key}");
        client.ask(format!("get {name}\r\n"), found(&name, b"value"));
    }
    node.stop("-TERM");
}

#[test]
fn errors_go_to_stderr_and_name_the_option() {
    let directory = tempfile::tempdir().expect("a directory");
    let (output, stdout, stderr) = run(larder(&["serve", "--memroy", "1G"]).env_clear());
    assert_eq!((output.status.code(), stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("--memory"), "{stderr}");
    let (output, _, stderr) = run(serve(directory.path(), 1).env("LARDER_DURABILITY", "fast"));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.starts_with("larder: environment: LARDER_DURABILITY = `fast`"), "{stderr}");
    let (output, _, stderr) = run(serve(directory.path(), 1).args(["--shards", "100"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("larder: --memory 192M is too little"), "{stderr}");
}

#[test]
fn settings_and_version_are_printed() {
    let mut command = larder(&["serve", "--print-config", "-m", "2G", "--listen", "0.0.0.0"]);
    let (output, stdout, _) = run(command.env("LARDER_SHARDS", "7"));
    assert!(output.status.success());
    for line in ["memory = \"2G\"", "shards = 7", "listen = \"0.0.0.0\"", "durability = \"sync\""] {
        assert!(stdout.lines().any(|found| found == line), "{line} in {stdout}");
    }
    let (_, stdout, _) = run(&mut larder(&["--version"]));
    assert_eq!(stdout.trim(), format!("larder {}", env!("CARGO_PKG_VERSION")));
}
