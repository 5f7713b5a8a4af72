use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::client::{TestNode, found, set};

fn exchange(stream: &mut UnixStream, request: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) {
    stream.write_all(request.as_ref()).expect("it reads");
    let mut answer = vec![0; expected.as_ref().len()];
    stream.read_exact(&mut answer).expect("it answers");
    assert_eq!(answer.escape_ascii().to_string(), expected.as_ref().escape_ascii().to_string());
}

#[test]
fn a_path_is_served_as_the_port_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let node = TestNode::start_with(2, |config| {
        config.unix_socket = Some(path.clone());
        config.max_connections = 12;
    });
    let mut by_port = node.connect();
    for number in 0..10 {
        let key = format!("key{number}");
        let mut stream = UnixStream::connect(&path).expect("it accepts");
        exchange(&mut stream, set(&key, b"value"), "STORED\r\n");
        by_port.ask(format!("get {key}\r\n"), found(&key, b"value"));
        let large = vec![b'v'; 1_000_000];
        exchange(&mut stream, set(&key, &large), "STORED\r\n");
        exchange(&mut stream, format!("get {key}\r\nmn\r\n"), {
            [found(&key, &large), b"MN\r\n".to_vec()].concat()
        });
        stream.write_all(b"quit\r\n").expect("it reads");
        assert_eq!(stream.read(&mut [0]).expect("it ends"), 0);
    }
    let noop = b"\x80\x0a\0\0\0\0\0\0\0\0\0\0opaq\0\0\0\0\0\0\0\0";
    let done = b"\x81\x0a\0\0\0\0\0\0\0\0\0\0opaq\0\0\0\0\0\0\0\0";
    let mut binary = UnixStream::connect(&path).expect("it accepts");
    exchange(&mut binary, noop, done);
    // Who waits for an answer gets it, and then the connection ends.
    node.stop();
    assert_eq!(binary.read(&mut [0]).expect("it ends"), 0);
    assert!(UnixStream::connect(&path).is_err(), "nobody answers there any more");
}
