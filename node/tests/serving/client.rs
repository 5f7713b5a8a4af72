//! A node to test and a client that is strict about what it gets.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use larder::config::{Config, Size};
use larder::launch::{Launcher, RunningNode};

/// No test waits longer than this for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A configuration on free ports, for `cores` cores.
pub(crate) fn config(directory: &Path, cores: usize) -> Config {
    Config {
        data_dir: directory.join("data"),
        memory: Size(192 << 20),
        memcached_port: 0,
        native_port: 0,
        admin_port: 0,
        cores: Some(cores),
        calibrate: false,
        ..Config::default()
    }
}

/// A node with a directory of its own, which goes with it.
pub(crate) struct TestNode {
    pub node: RunningNode,
    pub directory: tempfile::TempDir,
}

impl TestNode {
    pub(crate) fn start(cores: usize) -> Self {
        Self::start_with(cores, |_| {})
    }

    pub(crate) fn start_with(cores: usize, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"), cores, change)
    }

    /// A node on what another has left.
    pub(crate) fn start_in(
        directory: tempfile::TempDir,
        cores: usize,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = config(directory.path(), cores);
        change(&mut config);
        let node = Launcher::default().start(&config).expect("the node starts");
        Self { node, directory }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.node.addresses().memcached.expect("a port"))
    }

    /// Stops the node in good order.
    pub(crate) fn stop(self) -> tempfile::TempDir {
        self.node.stop();
        self.node.join().expect("a good end");
        self.directory
    }
}

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the node accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("an option");
        Self { stream }
    }

    /// The same connection once more, for another thread.
    pub(crate) fn share(&self) -> Self {
        Self { stream: self.stream.try_clone().expect("a descriptor") }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the node reads");
    }

    /// Reads exactly `len` bytes.
    pub(crate) fn receive(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            let read = self.stream.read(&mut bytes[filled..]).unwrap_or_else(|error| {
                let got = String::from_utf8_lossy(&bytes[..filled]);
                panic!("{error} after {filled} of {len} bytes: {got:?}")
            });
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&bytes[..filled]));
            filled += read;
        }
        bytes
    }

    /// Expects exactly this next.
    pub(crate) fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let received = self.receive(expected.len());
        assert!(
            received == expected,
            "got {:?} instead of {:?}",
            received.escape_ascii().to_string().chars().take(300).collect::<String>(),
            expected.escape_ascii().to_string().chars().take(300).collect::<String>(),
        );
    }

    /// Sends a request and expects exactly this answer.
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) {
        self.send(request);
        self.expect(expected);
        self.send("mn\r\n");
        self.expect("MN\r\n");
    }

    /// Reads lines until one is `last`, and returns all.
    pub(crate) fn lines_until(&mut self, last: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(&format!("{last}\r\n")) {
            let byte = self.receive(1);
            text.push(char::from(byte[0]));
        }
        text
    }

    /// Sends no more.
    pub(crate) fn end(&self) {
        self.stream.shutdown(Shutdown::Write).expect("open");
    }

    /// Everything until the node closes the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).expect("the node closes");
        bytes
    }
}

/// A `set` of this value.
pub(crate) fn set(key: &str, value: &[u8]) -> Vec<u8> {
    let mut request = format!("set {key} 0 0 {}\r\n", value.len()).into_bytes();
    request.extend_from_slice(value);
    request.extend_from_slice(b"\r\n");
    request
}

/// The answer to a `get` of one key.
pub(crate) fn found(key: &str, value: &[u8]) -> Vec<u8> {
    let mut answer = format!("VALUE {key} 0 {}\r\n", value.len()).into_bytes();
    answer.extend_from_slice(value);
    answer.extend_from_slice(b"\r\nEND\r\n");
    answer
}

/// Bytes that follow from `seed`.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| byte()).collect()
}
