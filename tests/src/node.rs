//! The server under test, as a process of its own.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use crate::client::Client;
use crate::process;
use crate::scratch::Scratch;

/// How long a start, a recovery or a stop may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// The server's executable: `LARDER_BINARY`, or else built now with the profile that the tests were
/// built with, next to them.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("LARDER_BINARY") {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    // TARGET/PROFILE/deps/test
    let profile_dir = test.ancestors().nth(2).expect("the tests are in a target directory");
    let target_dir = profile_dir.parent().expect("the profile's folder is in a target directory");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--package", "larder", "--bin", "larder", "--profile", profile])
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(crate::tidy::root())
        .stdin(Stdio::null())
        .output()
        .expect("cargo can be run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the server cannot be built:\n{errors}");
    profile_dir.join("larder")
}

/// How a server is started. All options have a value that suits a test.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// `--shards`.
    pub shards: u16,
    /// `--durability`.
    pub durability: &'static str,
    /// `--memory`.
    pub memory: &'static str,
    /// `--native-port`; 0 picks one.
    pub native_port: u16,
    /// More options, as they are.
    pub more: Vec<OsString>,
}

impl NodeOptions {
    /// One shard, synchronous, with its data in `data_dir`. `LARDER_TEST_RUNTIME` names what its
    /// cores run on.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let (durability, memory) = ("sync", "256M");
        let runtime = std::env::var_os("LARDER_TEST_RUNTIME");
        let runtime = runtime.into_iter().flat_map(|name| [OsString::from("--runtime"), name]);
        let (data_dir, more) = (data_dir.into(), runtime.collect());
        Self { data_dir, shards: 1, durability, memory, native_port: 0, more }
    }

    /// With so many shards.
    pub fn shards(mut self, shards: u16) -> Self {
        self.shards = shards;
        self
    }

    /// With one more option.
    pub fn with(mut self, option: impl Into<OsString>) -> Self {
        self.more.push(option.into());
        self
    }
}

/// A running server; killed when it is dropped.
#[derive(Debug)]
pub struct Node {
    child: Child,
    /// The line that says it is ready, once it has been printed; disconnected at the end of stdout.
    ready: Receiver<String>,
    address: SocketAddr,
    native: SocketAddr,
    admin: SocketAddr,
    /// Holds the log.
    scratch: Scratch,
}

impl Node {
    /// Starts a server and waits until it is ready; the error says what it wrote.
    pub fn try_start(options: &NodeOptions) -> Result<Self, String> {
        let mut node = Self::launch(options);
        node.wait_ready().map(|()| node)
    }

    /// Starts a server and waits until it is ready; fails the test if it does not start.
    pub fn start(options: &NodeOptions) -> Self {
        Self::try_start(options).unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// Starts a server and does not wait.
    pub fn launch(options: &NodeOptions) -> Self {
        let mut command = command();
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(&options.data_dir)
            .args(["--shards", &options.shards.to_string()])
            .args(["--memory", options.memory, "--listen", "127.0.0.1"])
            .args(["--memcached-port", "0", "--admin-port", "0"])
            .args(["--native-port", &options.native_port.to_string()])
            .args(["--durability", options.durability])
            .args(&options.more);
        Self::spawn(&mut command)
    }

    /// Starts a server with the command line of memcached, whose clients come by a path alone.
    pub fn start_memcached(data_dir: &Path, path: &Path) -> Self {
        let mut command = command();
        command.args(["memcached", "-t", "2", "-m", "256", "-p", "0", "-s"]).arg(path);
        command.args(["-l", "127.0.0.1", "--native-port", "0", "--admin-port", "0", "--data-dir"]);
        let mut node = Self::spawn(command.arg(data_dir));
        node.wait_ready().unwrap_or_else(|reason| panic!("{reason}"));
        node
    }

    fn spawn(command: &mut Command) -> Self {
        let scratch = Scratch::new("log");
        let log = File::create(scratch.path().join("stderr")).expect("a file for the log");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary().display()));
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let ready = first_line(stdout);
        Self { child, ready, address, native: address, admin: address, scratch }
    }

    fn wait_ready(&mut self) -> Result<(), String> {
        let failed = |node: &Self, what: &str| format!("{what}; its log:\n{}", node.log());
        let line = match self.ready.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(failed(self, "the server did not get ready"));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let status = process::wait_for_end(&mut self.child, PATIENCE);
                return Err(failed(self, &format!("the server ended ({status:?})")));
            }
        };
        let of = |name| address_of(name, &line);
        // Clients that come by a path need no address.
        let memcached = of("memcached").or_else(|| line.contains("=unix:").then_some(self.address));
        match (memcached, of("native"), of("admin")) {
            (Some(address), Some(native), Some(admin)) => {
                (self.address, self.native, self.admin) = (address, native, admin);
                Ok(())
            }
            _ => Err(failed(self, &format!("the server printed {line:?}"))),
        }
    }

    /// Where memcached clients are served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where native clients are served.
    pub fn native(&self) -> SocketAddr {
        self.native
    }

    /// A new connection; fails the test if there is none.
    pub fn client(&self) -> Client {
        Client::connect(self.address)
            .unwrap_or_else(|error| panic!("cannot connect: {error}; the log:\n{}", self.log()))
    }

    /// The sum of the samples of `/metrics` that begin with `name`, labels included.
    pub fn metric(&self, name: &str) -> f64 {
        self.metrics(name).iter().map(|(_, value)| value).sum()
    }

    /// These samples: each with its name and labels.
    pub fn metrics(&self, name: &str) -> Vec<(String, f64)> {
        let page = self.admin_page("/metrics");
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let samples: Vec<(String, f64)> =
            page.lines().filter(|line| line.starts_with(name)).filter_map(sample).collect();
        assert!(!samples.is_empty(), "no {name} in:\n{page}");
        samples
    }

    /// A page of the admin port.
    pub fn admin_page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).expect("the admin port is there");
        let request = format!("GET {path} HTTP/1.1\r\nHost: larder\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a request is taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("a page of text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{path}: {answer}");
        body.to_owned()
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the server wrote to stderr.
    pub fn log(&self) -> String {
        let path = self.scratch.path().join("stderr");
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Kills the server at once (SIGKILL) and waits for its end.
    pub fn kill(mut self) {
        self.child.kill().expect("the server is ours to kill");
        let status = self.child.wait().expect("the server is ours to wait for");
        assert!(
            process::was_killed(status),
            "the server had ended by itself ({status}); its log:\n{}",
            self.log()
        );
    }

    /// Asks the server to stop (SIGTERM), without waiting for its end.
    pub fn terminate(&self) {
        process::terminate(&self.child);
    }

    /// Waits for the server's end; fails the test if it does not come, or is not a good one.
    pub fn wait_stopped(mut self) {
        let status = process::wait_for_end(&mut self.child, PATIENCE);
        assert!(
            status.is_some_and(|status| status.success()),
            "the server's end is {status:?}; its log:\n{}",
            self.log()
        );
    }

    /// Stops the server (SIGTERM); fails the test unless it ends well.
    pub fn stop(self) {
        self.terminate();
        self.wait_stopped();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server, without what the environment would tell it: it reads LARDER_ variables as options.
fn command() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LARDER_") {
            command.env_remove(name);
        }
    }
    // A measurement of the disk says nothing while tests use it, and takes its time.
    command.env("LARDER_CALIBRATE", "false");
    command
}

/// Reads stdout to its end, so that the server never waits for a reader; hands out the first line.
fn first_line(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        if let Some(line) = lines.next() {
            // The test may have stopped waiting.
            let _ = sender.send(line);
        }
        drop(sender);
        lines.for_each(drop);
    });
    receiver
}

/// The address in `larder ready memcached=ADDR:PORT admin=ADDR:PORT ...`.
fn address_of(port: &str, line: &str) -> Option<SocketAddr> {
    let fields = line.strip_prefix("larder ready ")?.split(' ');
    let fields: HashMap<&str, &str> = fields.filter_map(|field| field.split_once('=')).collect();
    fields.get(port)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_names_the_addresses() {
        let line = "larder ready memcached=127.0.0.1:4242 admin=127.0.0.1:4243 shards=2";
        let expected = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(address_of("memcached", line), expected(4242));
        assert_eq!(address_of("admin", line), expected(4243));
        assert_eq!(address_of("memcached", "larder ready admin=127.0.0.1:4243"), None);
        assert_eq!(address_of("memcached", "ready memcached=127.0.0.1:4242"), None);
    }
}
