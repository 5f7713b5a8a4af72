//! The binary, as a process of its own.

#![allow(clippy::disallowed_methods, reason = "tests look at /proc")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use super::client::Client;

/// A command of the binary, with its output caught. No node that it starts measures its disk.
pub(crate) fn larder(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.env("LARDER_CALIBRATE", "false");
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `larder serve` on free ports.
pub(crate) fn serve(directory: &Path, cores: usize) -> Command {
    let mut command = larder(&["serve", "--memcached-port", "0", "--native-port", "0"]);
    command.args(["--admin-port", "0"]);
    command.args(["--cores", &cores.to_string(), "--memory", "192M", "--data-dir"]).arg(directory);
    command
}

/// A node that has not said yet that it is ready.
pub(crate) struct StartingProcess {
    child: Child,
    stderr: BufReader<ChildStderr>,
    log: String,
}

impl StartingProcess {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("it runs");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        Self { child, stderr, log: String::new() }
    }

    /// Waits until it has logged a line with `part`.
    pub(crate) fn wait_for(&mut self, part: &str) {
        loop {
            let mut line = String::new();
            let read = self.stderr.read_line(&mut line).expect("text");
            self.log.push_str(&line);
            assert!(read > 0, "no {part:?} before its end: {}", self.log);
            if line.contains(part) {
                return;
            }
        }
    }

    pub(crate) fn wait_for_ready(&mut self) {
        let mut line = String::new();
        let stdout = self.child.stdout.as_mut().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert!(line.starts_with("larder ready "), "{line:?}");
    }

    pub(crate) fn terminate(&self) {
        signal(&self.child, "-TERM");
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Waits for its end: whether that was a good one, stdout, and the whole log.
    pub(crate) fn end(mut self) -> (bool, String, String) {
        let mut stdout = String::new();
        let pipe = self.child.stdout.as_mut().expect("a pipe");
        pipe.read_to_string(&mut stdout).expect("text");
        self.stderr.read_to_string(&mut self.log).expect("text");
        let status = self.child.wait().expect("it ends");
        (status.success(), stdout, std::mem::take(&mut self.log))
    }
}

impl Drop for StartingProcess {
    /// A test that fails leaves no process behind.
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let status = Command::new("kill").args([name, &pid]).status().expect("it runs");
    assert!(status.success());
}

fn end(child: &mut Child) {
    if matches!(child.try_wait(), Ok(None)) && child.kill().is_ok() {
        drop(child.wait());
    }
}

/// A node in a process of its own.
pub(crate) struct NodeProcess {
    child: Child,
    ready: String,
}

impl NodeProcess {
    pub(crate) fn start(directory: &Path, cores: usize) -> Self {
        Self::start_as(&mut serve(directory, cores))
    }

    pub(crate) fn start_as(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("it runs");
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

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process's resident memory.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()));
        let text = text.expect("it runs");
        let pages = text.split(' ').nth(1).expect("a field").parse::<u64>().expect("a number");
        pages * 4096
    }

    /// The most resident memory that it has had.
    pub(crate) fn peak_resident_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let text = text.expect("it runs");
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix(" kB"));
        peak.expect("a field").trim().parse::<u64>().expect("a number") * 1024
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
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
        end(&mut self.child);
    }
}

#[test]
fn a_shell_completes_the_programs_words() {
    let script = larder(&["completion", "bash"]).output().expect("it runs");
    assert!(script.status.success());
    let words = "COMP_WORDS=(larder sc) COMP_CWORD=1; _larder larder sc larder; \
                 echo \"${COMPREPLY[@]}\"";
    let text = format!("{}\n{words}", String::from_utf8(script.stdout).expect("text"));
    let completed = Command::new("bash").args(["-c", &text]).output().expect("bash runs");
    assert_eq!(String::from_utf8_lossy(&completed.stdout).trim(), "scan");
    let unknown = larder(&["completion", "tcsh"]).output().expect("it runs");
    let told = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && told.contains("bash"), "{told}");
}
