#![allow(clippy::disallowed_methods, reason = "tests write files")]

use super::client::{TestNode, found, set};

const UNKNOWN: &str = "CLIENT_ERROR unauthenticated\r\n";

fn node() -> TestNode {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "foo:bar\nbaaaz:quux\n").expect("it is written");
    TestNode::start_with(2, |config| config.auth_file = Some(file.path().to_owned()))
}

#[test]
fn a_client_begins_with_its_password() {
    let node = node();
    let mut client = node.connect();
    for (request, answer) in [
        ("set foo 0 0 2\r\nhi\r\n", "CLIENT_ERROR bad authentication token format\r\n"),
        ("get foo bar baz\r\n", UNKNOWN),
        ("mg foo v\r\nflush_all\r\n", "CLIENT_ERROR unauthenticated\r\n"),
        ("set foo 0 0 7\r\nfoo bab\r\n", "CLIENT_ERROR authentication failure\r\n"),
        ("quit\r\n", UNKNOWN),
    ] {
        client.send(request);
        client.expect(answer);
        if request.contains("flush_all") {
            client.expect(UNKNOWN);
        }
    }
    // What follows the password in the same bytes is carried out already.
    client.send(
        "get toast\r\nset foo 0 0 7\r\nfoo bar\r\nset toast 0 0 2\r\nhi\r\nget toast foo\r\n",
    );
    client.expect(format!("{UNKNOWN}STORED\r\nSTORED\r\n"));
    client.expect(found("toast", b"hi"));
    client.ask(set("large", &[b'v'; 100_000]), "STORED\r\n");
    client.ask("nonsense\r\n", "ERROR\r\n");

    let mut other = node.connect();
    for byte in b"set foo 0 0 10\r\nbaaaz quux\r\n" {
        other.send([*byte]);
    }
    other.expect("STORED\r\n");
    other.ask("get toast\r\n", found("toast", b"hi"));
    node.stop();
}

#[test]
fn nothing_is_done_for_a_client_that_is_not_known() {
    let node = node();
    let mut known = node.connect();
    known.send("set x 0 0 7\r\nfoo bar\r\n");
    known.expect("STORED\r\n");
    known.ask(set("kept", b"value"), "STORED\r\n");
    let mut unknown = node.connect();
    // A value that is too large takes the old one with it, but not for anybody.
    let large = set("kept", &[b'v'; 2_000_000]);
    unknown.send(&large);
    unknown.expect(UNKNOWN);
    unknown.send("delete kept noreply\r\nflush_all noreply\r\nversion\r\n");
    unknown.expect(UNKNOWN.repeat(3));
    known.ask("get kept\r\n", found("kept", b"value"));
    // The binary protocol has no password here, and so no way in.
    let mut binary = node.connect();
    binary.send(b"\x80\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    binary.expect(UNKNOWN);
    node.stop();
}
