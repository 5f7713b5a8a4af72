//! The binary, as a process of its own.

#![allow(clippy::disallowed_methods, reason = "tests look at /proc")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::client::Client;

/// A command of the binary, with its output caught.
pub(crate) fn larder(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `larder serve` on free ports.
pub(crate) fn serve(directory: &Path, cores: usize) -> Command {
    let mut command = larder(&["serve", "--memcached-port", "0", "--admin-port", "0"]);
    command.args(["--cores", &cores.to_string(), "--memory", "192M", "--data-dir"]).arg(directory);
    command
}

/// A node in a process of its own.
pub(crate) struct NodeProcess {
    child: Child,
    ready: String,
}

impl NodeProcess {
    pub(crate) fn start(directory: &Path, cores: usize) -> Self {
        let mut child = serve(directory, cores).spawn().expect("it runs");
        let mut ready = String::new();
        let stdout = child.stdout.as_mut().expect("a pipe");
        BufReader::new(stdout).read_line(&mut ready).expect("a line");
        assert!(ready.starts_with("larder ready memcached=127.0.0.1:"), "{ready:?}");
        Self { child, ready }
    }

    /// A field of the line that says that the node is ready.
    pub(crate) fn field(&self, name: &str) -> &str {
        let mut fields = self.ready.split_whitespace();
        let field = fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        field.unwrap_or_else(|| panic!("{name} in {:?}", self.ready))
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.field("memcached").parse().expect("an address"))
    }

    /// The process's resident memory.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()));
        let text = text.expect("it runs");
        let pages = text.split(' ').nth(1).expect("a field").parse::<u64>().expect("a number");
        pages * 4096
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([name, &pid]).status().expect("it runs");
        assert!(status.success());
    }

    /// Stops it with a signal, in good order.
    pub(crate) fn stop(mut self, name: &str) {
        self.signal(name);
        let status = self.child.wait().expect("it ends");
        let mut stderr = String::new();
        let pipe = self.child.stderr.as_mut().expect("a pipe");
        pipe.read_to_string(&mut stderr).expect("text");
        assert!(status.success(), "{status}: {stderr}");
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

impl Drop for NodeProcess {
    /// A test that fails leaves no process behind.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}
