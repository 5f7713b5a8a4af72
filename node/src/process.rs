//! What the operating system says of this process.

use larder_runtime::memory::{self, Heap};

/// The node's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What memcached clients are told. They decide by the number in front what a server can do, so it
/// is that of the memcached whose behaviour the port has.
pub const MEMCACHED_VERSION: &str = concat!("1.6.45-larder-", env!("CARGO_PKG_VERSION"));

/// CPU time and memory of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Seconds in user mode.
    pub user_seconds: f64,
    /// Seconds in the kernel.
    pub system_seconds: f64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// The part of it that is the program's and its libraries' files.
    pub file_bytes: u64,
    /// What the allocator holds, where it says so.
    pub heap: Option<Heap>,
}

/// Bytes per page of the kernel's memory figures.
const PAGE_BYTES: u64 = 4096;
/// The unit of the kernel's CPU times per second, which is the same on all of Linux's platforms.
const TICKS_PER_SECOND: f64 = 100.0;

/// The process's use of CPU and memory so far; zeros if /proc cannot be read.
#[allow(clippy::disallowed_methods, reason = "/proc is no disk, and asked only for statistics")]
pub fn usage() -> Usage {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let usage = parse_stat(&read("/proc/self/stat")).unwrap_or_default();
    let file_bytes = parse_statm(&read("/proc/self/statm")).unwrap_or_default();
    Usage { file_bytes, heap: memory::heap(), ..usage }
}

/// Of the numbers of pages, the third is of resident ones that a file is behind.
fn parse_statm(text: &str) -> Option<u64> {
    let pages: u64 = text.split_ascii_whitespace().nth(2)?.parse().ok()?;
    Some(pages.saturating_mul(PAGE_BYTES))
}

/// The fields after the command's name, which is in parentheses and may hold anything.
fn parse_stat(text: &str) -> Option<Usage> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Usage {
        user_seconds: number(11)? as f64 / TICKS_PER_SECOND,
        system_seconds: number(12)? as f64 / TICKS_PER_SECOND,
        resident_bytes: number(21)?.saturating_mul(PAGE_BYTES),
        ..Usage::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_name_of_the_process() {
        let line = "7 (a) b (c) R 1 7 7 0 -1 4194304 90 0 0 0 250 50 0 0 20 0 3 0 1 9 25 184 0\n";
        let expected = Usage {
            user_seconds: 2.5,
            system_seconds: 0.5,
            resident_bytes: 25 * 4096,
            ..Usage::default()
        };
        assert_eq!(parse_stat(line), Some(expected));
        assert_eq!(parse_stat("7 (a) R 1"), None);
        assert_eq!(parse_statm("4000 300 200 100 0 50 0\n"), Some(200 * 4096));
        assert_eq!(parse_statm("4000 300"), None);
        let usage = usage();
        assert!(usage.file_bytes > 0 && usage.resident_bytes > usage.file_bytes);
    }
}
