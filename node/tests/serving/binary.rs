use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use super::client::{Client, found, set};

fn larder(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn serve(directory: &Path) -> Command {
    let mut command = larder(&["serve", "--memcached-port", "0", "--admin-port", "0"]);
    command.args(["--cores", "1", "--memory", "128M", "--data-dir"]).arg(directory);
    command
}

fn run(command: &mut Command) -> (Output, String, String) {
    let output = command.output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output, stdout, stderr)
}

fn start(directory: &Path) -> (Child, Client) {
    let mut child = serve(directory).spawn().expect("it runs");
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let field = |name: &str| {
        let mut fields = line.split_whitespace();
        fields.find_map(|field| field.strip_prefix(name)).unwrap_or_else(|| panic!("{line:?}"))
    };
    assert!(line.starts_with("larder ready memcached=127.0.0.1:") && field("shards=") == "1");
    assert!(field("admin=").starts_with("127.0.0.1:"));
    let client = Client::connect(field("memcached=").parse().expect("an address"));
    (child, client)
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let status = Command::new("kill").args([name, &pid]).status().expect("it runs");
    assert!(status.success());
}

#[test]
fn a_signal_stops_it_in_good_order_and_the_data_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    for (round, name) in ["-TERM", "-INT"].into_iter().enumerate() {
        let (mut child, mut client) = start(directory.path());
        if round > 0 {
            client.ask("get k\r\n", found("k", b"v"));
        }
        client.ask(set("k", b"v"), "STORED\r\n");
        signal(&child, name);
        let status = child.wait().expect("it ends");
        let mut stderr = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
        assert!(status.success(), "{status}: {stderr}");
    }
}

#[test]
fn acknowledged_writes_survive_a_kill() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut child, mut client) = start(directory.path());
    for key in 0..100 {
        client.ask(set(&format!("key{key}"), b"value"), "STORED\r\n");
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let (mut child, mut client) = start(directory.path());
    for key in 0..100 {
        let name = format!("key{key}");
        client.ask(format!("get {name}\r\n"), found(&name, b"value"));
    }
    signal(&child, "-TERM");
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn errors_go_to_stderr_and_name_the_option() {
    let directory = tempfile::tempdir().expect("a directory");
    let (output, stdout, stderr) = run(larder(&["serve", "--memroy", "1G"]).env_clear());
    assert_eq!((output.status.code(), stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("--memory"), "{stderr}");
    let (output, _, stderr) = run(serve(directory.path()).env("LARDER_DURABILITY", "fast"));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.starts_with("larder: environment: LARDER_DURABILITY = `fast`"), "{stderr}");
    let (output, _, stderr) = run(serve(directory.path()).args(["--shards", "500"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("larder: --memory 128M is too little"), "{stderr}");
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
