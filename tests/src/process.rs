//! What the operating system says about processes, and the few things it is asked to do to them.

use std::fs;
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal};

/// Looks at `is_done` until it says yes or `limit` has passed; returns the last answer.
pub fn wait_until(limit: Duration, mut is_done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if is_done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for the child's end; `None` if it still runs after `limit`.
pub fn wait_for_end(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let mut status = None;
    wait_until(limit, || {
        status = child.try_wait().expect("the child is ours to wait for");
        status.is_some()
    });
    status
}

/// Asks the child to stop (SIGTERM).
pub fn terminate(child: &Child) {
    let pid = Pid::from_child(child);
    rustix::process::kill_process(pid, Signal::TERM).expect("the child is ours to signal");
}

/// Whether the process was ended by SIGKILL.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::KILL.as_raw())
}

/// Resident memory of a process in bytes: now, and at its highest.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// `VmRSS`.
    pub resident_bytes: u64,
    /// `VmHWM`.
    pub peak_bytes: u64,
}

/// What the process uses.
pub fn memory(pid: u32) -> Memory {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a memory line");
        let kibibytes = line.trim_end_matches("kB").trim().parse::<u64>().expect("a number");
        kibibytes * 1024
    };
    Memory { resident_bytes: bytes("VmRSS:"), peak_bytes: bytes("VmHWM:") }
}

/// Lets this process, and servers that it starts from now on, have `wanted` open files, or as many
/// as the hard limit allows. Returns how many that are.
pub fn allow_open_files(wanted: u64) -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let (current, maximum) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    if current >= wanted {
        return current;
    }
    let raised = wanted.min(maximum);
    let new = Rlimit { current: Some(raised), maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, new).expect("the hard limit is not passed");
    raised
}

/// Ends a connection with RST instead of FIN.
pub fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))
        .expect("a socket has a linger time");
    drop(stream);
}
