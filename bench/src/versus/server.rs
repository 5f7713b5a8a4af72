//! Servers that the comparison starts, and that never outlive it.
//!
//! A server is pinned with `taskset` and told with `setpriv --pdeathsig` to die with the thread
//! that started it, so that it is gone even if this program is killed; both programs replace
//! themselves with the server, whose process id is therefore the child's.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::error::VersusError;
use super::ready::{self, ReadyLine};
use crate::{host, process};

/// How long a server may take until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a server may take to end by itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long background work after a fill is waited for.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);

/// The span over which a server must be idle to count as settled.
const SETTLE_SPAN: Duration = Duration::from_millis(500);

/// Pause between two looks at something that is waited for.
const POLL_EVERY: Duration = Duration::from_millis(10);

/// How much of a server's stderr is shown when it fails, in bytes.
const LOG_TAIL_BYTES: usize = 2000;

/// How a larder node is started.
#[derive(Clone, Debug)]
pub(super) struct LarderOptions<'a> {
    pub(super) program: &'a Path,
    /// A directory for this server's data and log; the data may be there already.
    pub(super) directory: &'a Path,
    /// Processors, as `taskset -c` takes them.
    pub(super) cpus: &'a str,
    pub(super) shards: usize,
    /// The value of `--memory`.
    pub(super) memory: &'a str,
    /// The value of `--durability`.
    pub(super) durability: &'a str,
    /// The value of `--runtime`; `None` for what the program takes by itself.
    pub(super) runtime: Option<&'a str>,
}

/// How memcached is started.
#[derive(Clone, Debug)]
pub(super) struct MemcachedOptions<'a> {
    pub(super) program: &'a Path,
    /// A directory for this server's log.
    pub(super) directory: &'a Path,
    /// Processors, as `taskset -c` takes them.
    pub(super) cpus: &'a str,
    pub(super) threads: usize,
}

/// A running server. Dropping it ends the process: by SIGTERM, and by SIGKILL if that is ignored.
#[derive(Debug)]
pub(super) struct Server {
    name: &'static str,
    child: Child,
    log: PathBuf,
    address: SocketAddr,
    admin: Option<SocketAddr>,
    ready_after: Duration,
}

impl Server {
    /// Starts a node and waits for its ready line.
    pub(super) fn larder(options: &LarderOptions<'_>) -> Result<Self, VersusError> {
        let mut command = pinned(options.cpus, options.program);
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(options.directory.join("data"))
            .args(["--shards", &options.shards.to_string()])
            .args(["--memory", options.memory, "--durability", options.durability])
            .args(["--listen", "127.0.0.1", "--memcached-port", "0", "--admin-port", "0"])
            // By environment, which a node without that port or option ignores.
            .env("LARDER_NATIVE_PORT", "0")
            .env("LARDER_CALIBRATE", "false");
        if let Some(runtime) = options.runtime {
            command.args(["--runtime", runtime]);
        }
        let starting = Starting::spawn("larder", command, options.directory)?;
        starting.wait_for_ready_line()
    }

    /// Starts memcached on a free port and waits until it takes connections.
    pub(super) fn memcached(options: &MemcachedOptions<'_>) -> Result<Self, VersusError> {
        let address = free_address().map_err(|source| VersusError::Server {
            server: "memcached",
            reason: format!("no free port: {source}"),
            log: String::new(),
        })?;
        let mut command = pinned(options.cpus, options.program);
        command.args(["-l", &address.ip().to_string(), "-p", &address.port().to_string()]).args([
            "-t",
            &options.threads.to_string(),
            "-m",
            "1024",
            "-c",
            "4096",
        ]);
        if geteuid().is_root() {
            command.args(["-u", "root"]);
        }
        let starting = Starting::spawn("memcached", command, options.directory)?;
        starting.wait_for_port(address)
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where memcached's protocol is spoken.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the metrics are.
    pub(super) fn admin(&self) -> Result<SocketAddr, VersusError> {
        self.admin.ok_or_else(|| self.error("the ready line has no admin=ADDR:PORT"))
    }

    /// The time from the start of the process until it was ready.
    pub(super) fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// CPU time and memory of the process.
    pub(super) fn sample(&self) -> Result<process::ProcessSample, VersusError> {
        process::sample(self.pid()).map_err(|reason| self.error(reason))
    }

    /// Waits until the server uses less than a twentieth of a processor, or for 20 seconds.
    pub(super) fn settle(&self) -> Result<(), VersusError> {
        let give_up_at = host::now() + SETTLE_TIMEOUT;
        let mut before = self.sample()?.cpu;
        while host::now() < give_up_at {
            host::sleep(SETTLE_SPAN);
            let after = self.sample()?.cpu;
            if after.saturating_sub(before) < SETTLE_SPAN / 20 {
                break;
            }
            before = after;
        }
        Ok(())
    }

    /// Ends the process as a power cut would: by SIGKILL, at once.
    pub(super) fn kill(mut self) {
        kill_and_wait(&mut self.child);
    }

    /// An error of this server, with the end of its log.
    pub(super) fn error(&self, reason: impl Into<String>) -> VersusError {
        server_error(self.name, reason, &self.log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        terminate(&mut self.child);
    }
}

/// A process that is not known to be ready; dropping it ends it.
struct Starting {
    name: &'static str,
    child: Option<Child>,
    log: PathBuf,
    started_at: Instant,
}

impl Starting {
    fn spawn(
        name: &'static str,
        mut command: Command,
        directory: &Path,
    ) -> Result<Self, VersusError> {
        let file_error = |path: &Path| {
            let path = path.to_owned();
            |source| VersusError::File { option: "--data-dir", path, source }
        };
        host::create_dir(directory).map_err(file_error(directory))?;
        let log = directory.join("stderr.log");
        let log_file = host::create_file(&log).map_err(file_error(&log))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file);
        let started_at = host::now();
        let child = command.spawn().map_err(|source| VersusError::Spawn {
            program: command.get_program().to_string_lossy().into_owned(),
            option: "package util-linux",
            source,
        })?;
        Ok(Self { name, child: Some(child), log, started_at })
    }

    fn wait_for_ready_line(mut self) -> Result<Server, VersusError> {
        let stdout = self.child.as_mut().and_then(|child| child.stdout.take());
        let stdout = stdout.expect("stdout is piped and taken once");
        match next_ready_line(stdout, self.started_at + READY_TIMEOUT) {
            Ok(line) => Ok(self.into_server(line.memcached, line.admin)),
            Err(reason) => Err(server_error(self.name, reason, &self.log)),
        }
    }

    fn wait_for_port(mut self, address: SocketAddr) -> Result<Server, VersusError> {
        let give_up_at = self.started_at + READY_TIMEOUT;
        loop {
            if TcpStream::connect(address).is_ok() {
                return Ok(self.into_server(address, None));
            }
            let child = self.child.as_mut().expect("taken only by into_server");
            let ended = child.try_wait().ok().flatten();
            if ended.is_some() || host::now() >= give_up_at {
                let reason = ended.map_or_else(
                    || format!("{address} takes no connections"),
                    |status| format!("it ended at once with {status}"),
                );
                return Err(server_error(self.name, reason, &self.log));
            }
            host::sleep(POLL_EVERY);
        }
    }

    fn into_server(mut self, address: SocketAddr, admin: Option<SocketAddr>) -> Server {
        Server {
            name: self.name,
            child: self.child.take().expect("taken only here"),
            log: std::mem::take(&mut self.log),
            address,
            admin,
            ready_after: host::now() - self.started_at,
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            terminate(child);
        }
    }
}

/// `program`, to be run on the processors `cpus` and to die with this thread.
fn pinned(cpus: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cpus, "setpriv", "--pdeathsig", "KILL"]).arg(program);
    command
}

/// An address of this machine that nobody listens on right now.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Waits for the ready line. A thread goes on reading what comes after it, so that the server never
/// blocks on a full pipe; it ends with the server.
fn next_ready_line(stdout: ChildStdout, give_up_at: Instant) -> Result<ReadyLine, String> {
    let (sender, lines) = mpsc::channel();
    host::start_detached(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
            if let Some(ready) = ready::parse(&line) {
                // Nobody waits for a second one.
                let _ = sender.send(ready);
            }
            line.clear();
        }
        let _ = reader.read_to_end(&mut Vec::new());
    });
    match lines.recv_timeout(give_up_at.saturating_duration_since(host::now())) {
        Ok(ready) => Ok(ready),
        Err(RecvTimeoutError::Timeout) => Err("no ready line came in time".to_owned()),
        Err(RecvTimeoutError::Disconnected) => Err("it ended before it was ready".to_owned()),
    }
}

fn server_error(server: &'static str, reason: impl Into<String>, log: &Path) -> VersusError {
    let text = host::read_text(log).unwrap_or_default();
    let tail_start = text.ceil_char_boundary(text.len().saturating_sub(LOG_TAIL_BYTES));
    VersusError::Server { server, reason: reason.into(), log: text[tail_start..].trim().to_owned() }
}

/// Asks the process to end, waits, and kills it if it does not.
fn terminate(child: &mut Child) {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    if kill_process(Pid::from_child(child), Signal::TERM).is_ok() {
        let give_up_at = host::now() + STOP_TIMEOUT;
        while host::now() < give_up_at {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return;
            }
            host::sleep(POLL_EVERY);
        }
    }
    kill_and_wait(child);
}

fn kill_and_wait(child: &mut Child) {
    // It fails only for a process that has already ended and been waited for.
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell script in the place of a server.
    fn start_script(directory: &Path, script: &str) -> Result<Server, VersusError> {
        let mut command = pinned("0", Path::new("sh"));
        command.args(["-c", script]);
        Starting::spawn("script", command, directory)?.wait_for_ready_line()
    }

    fn is_running(pid: u32) -> bool {
        process::sample(pid).is_ok()
    }

    const READY: &str = "echo noise; echo larder ready memcached=127.0.0.1:7 shards=1;";

    #[test]
    fn a_server_is_ready_with_its_line_and_gone_when_dropped() {
        let directory = tempfile::tempdir().expect("a directory");
        let server = start_script(directory.path(), &format!("{READY} exec sleep 1000"));
        let server = server.expect("ready");
        assert_eq!(server.address().port(), 7);
        assert!(server.ready_after() > Duration::ZERO);
        assert!(server.admin().is_err(), "the line named no admin port");
        server.settle().expect("an idle process");
        let pid = server.pid();
        assert!(is_running(pid));
        drop(server);
        assert!(!is_running(pid));
    }

    #[test]
    fn a_killed_server_gets_no_chance_to_clean_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let mark = directory.path().join("terminated");
        let script = format!(
            "trap 'touch {}; exit' TERM; {READY} while :; do sleep 0.01; done",
            mark.display()
        );
        let first = start_script(directory.path(), &script).expect("ready");
        let pid = first.pid();
        first.kill();
        assert!(!is_running(pid));
        assert!(!mark.exists());
        drop(start_script(directory.path(), &script).expect("ready"));
        assert!(mark.exists(), "a dropped server is asked to end");
    }

    #[test]
    fn a_server_that_ends_early_is_reported_with_its_log() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = start_script(directory.path(), "echo no such option >&2; exit 3");
        let error = error.expect_err("not ready").to_string();
        assert!(error.contains("ended before it was ready"), "{error}");
        assert!(error.ends_with("no such option"), "{error}");
    }
}
