//! memcached itself, for comparison.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::process;
use crate::scratch::Scratch;

/// A running memcached; killed when it is dropped.
#[derive(Debug)]
pub struct Memcached {
    child: Child,
    address: SocketAddr,
}

impl Memcached {
    /// Starts memcached on a free port. `None` if it is not installed.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same with more options.
    pub fn start_with(options: &[&str]) -> Option<Self> {
        let scratch = Scratch::new("memcached");
        let port_file = scratch.path().join("port");
        // Port -1 is any free one; which, is written to the file.
        let child = Command::new("memcached")
            .args(["-u", "root", "-l", "127.0.0.1", "-p", "-1", "-U", "0", "-m", "64", "-t", "1"])
            .args(options)
            .env("MEMCACHED_PORT_FILENAME", &port_file)
            .stdin(Stdio::null())
            .spawn()
            .ok()?;
        let mut server = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let is_ready = process::wait_until(Duration::from_secs(60), || {
            let text = fs::read_to_string(&port_file).unwrap_or_default();
            let port = text.lines().find_map(|line| line.strip_prefix("TCP INET: ")?.parse().ok());
            server.address.set_port(port.unwrap_or(0));
            port.is_some()
        });
        assert!(is_ready, "memcached did not write its port");
        Some(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
