//! Programs that other people wrote, against the server.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use larder_tests::node::{Node, NodeOptions};
use larder_tests::scratch::Scratch;
use larder_tests::{skip, tidy};

/// Runs the command against servers of one and of two shards.
fn on_each_server(mut run: impl FnMut(&Node)) {
    for shards in [1, 2] {
        let scratch = Scratch::new("clients");
        let node = Node::start(&NodeOptions::new(scratch.path()).shards(shards));
        run(&node);
        node.stop();
    }
}

fn text(output: &Output) -> String {
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr))
}

/// libmemcached's conformance tool, under the name that this system gives it.
fn conformance_tool() -> Option<&'static str> {
    ["memcapable", "memccapable"].into_iter().find(|name| {
        let help = Command::new(name).arg("-?").stdin(Stdio::null()).output();
        help.is_ok()
    })
}

/// The tests that the tool reports as passed: `ascii get    [pass]`. Failures are on stderr.
fn passed(report: &str) -> Vec<&str> {
    report.lines().filter_map(|line| Some(line.strip_suffix("[pass]")?.trim_end())).collect()
}

#[test]
fn the_conformance_tool_is_content() {
    let Some(tool) = conformance_tool() else {
        skip("memcapable", "it is not installed (apt-get install libmemcached-tools)");
        return;
    };
    on_each_server(|node| {
        let address = node.address();
        let output = Command::new(tool)
            .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
            .args(["-t", "20"])
            .stdin(Stdio::null())
            .output()
            .expect("the tool can be run");
        let report = text(&output);
        assert!(output.status.success(), "{tool}:\n{report}");
        let passed = passed(&report);
        // As many of the binary protocol as of the text protocol.
        assert!(passed.len() >= 54, "only {} tests have run:\n{report}", passed.len());
    });
}

#[test]
fn the_tools_report_is_understood() {
    let report = "ascii get      [pass]\nascii set noreply     [FAIL]\nAll tests passed\n";
    assert_eq!(passed(report), ["ascii get"]);
}

fn run_python(script: &str, address: impl Fn(&Node) -> SocketAddr) {
    let Some(python) = std::env::var_os("LARDER_TEST_PYTHON") else {
        skip(script, "LARDER_TEST_PYTHON does not name a Python that has the client");
        return;
    };
    let path = tidy::root().join("tests/clients").join(script);
    on_each_server(|node| {
        let address = address(node);
        let output = Command::new(&python)
            .arg(&path)
            .args([address.ip().to_string(), address.port().to_string()])
            .stdin(Stdio::null())
            .output()
            .expect("Python can be run");
        let report = text(&output);
        assert!(output.status.success() && report.trim_end().ends_with("passed"), "{report}");
    });
}

#[test]
fn python_memcached_is_served() {
    run_python("python_memcached.py", Node::address);
}

#[test]
fn pymemcache_is_served() {
    run_python("python_pymemcache.py", Node::address);
}

#[test]
fn a_client_that_was_written_from_the_document_is_served() {
    run_python("python_native.py", Node::native);
}
