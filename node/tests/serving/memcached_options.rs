#![allow(clippy::disallowed_methods, reason = "tests look at files")]

use super::client::{found, set};
use super::process::{NodeProcess, StartingProcess, larder};

#[test]
fn a_command_line_of_memcached_starts_a_node() {
    let directory = tempfile::tempdir().expect("a directory");
    let pidfile = directory.path().join("pid");
    let line = "memcached -m 1 -p -1 -U 0 -l 127.0.0.1 -c 50 -t 1 -R 20 -d -o modern -v";
    let mut command = larder(&line.split(' ').collect::<Vec<_>>());
    command.args(["--native-port", "0", "--admin-port", "0", "--data-dir"]);
    command.arg(directory.path().join("data")).arg("-P").arg(&pidfile);
    let node = NodeProcess::start_as(&mut command);
    let pid = std::fs::read_to_string(&pidfile).expect("it is written before the ready line");
    assert_eq!(pid.trim(), node.pid().to_string());
    let mut client = node.connect();
    client.ask(set("k", b"value"), "STORED\r\n");
    client.ask("get k\r\n", found("k", b"value"));
    client.send("stats settings\r\n");
    let settings = client.lines_until("END");
    assert!(settings.contains("STAT maxconns 50\r\n") && settings.contains("num_threads 1\r\n"));
    let memory = settings.split("STAT maxbytes ").nth(1).and_then(|rest| rest.lines().next());
    let memory: u64 = memory.and_then(|digits| digits.parse().ok()).expect("a number");
    assert!(memory > 1 << 20, "as much as it needs, and not 1 MiB");
    node.stop("-TERM");
    assert!(!pidfile.exists(), "nobody is to be stopped by it any more");
}

#[test]
fn what_changes_nothing_is_said_and_what_cannot_be_is_refused() {
    let output = larder(&["memcached", "-d", "-f", "1.1", "--print-config", "-m", "100"]).output();
    let output = output.expect("it runs");
    let settings = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && settings.contains("memory = \"100M\""), "{settings}");
    assert!(settings.contains("listen = \"0.0.0.0\""), "{settings}");
    let (is_good, _, log) = StartingProcess::start(&mut larder(&["memcached", "-S"])).end();
    assert!(!is_good && log.contains("-S: there is no SASL"), "{log}");
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = larder(&["memcached", "-p", "-1", "-l", "127.0.0.1", "-f", "1.1"]);
    command.args(["--native-port", "0", "--admin-port", "0", "--data-dir"]);
    command.arg(directory.path().join("data")).args(["-P", "/nowhere/at/all"]);
    let (is_good, ready, log) = StartingProcess::start(&mut command).end();
    assert!(log.contains("larder: -f changes nothing: there are no slabs\n"), "{log}");
    assert!(!is_good && ready.is_empty() && log.contains("-P /nowhere/at/all"), "{log}");
    let version = larder(&["memcached", "-V"]).output().expect("it runs");
    assert!(version.stdout.starts_with(b"memcached 1.6."), "{:?}", version.stdout);
}
