//! CPU time and memory of a process on this machine, read from /proc.

use std::path::PathBuf;
use std::time::Duration;

use crate::host;

/// What /proc says about a process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessSample {
    /// User and system time of all threads since the process started; a multiple of a clock tick.
    pub(crate) cpu: Duration,
    /// Resident memory, in bytes.
    pub(crate) resident_bytes: u64,
    /// The most memory that was ever resident, in bytes.
    pub(crate) resident_peak_bytes: u64,
}

/// Bytes that this process has caused to be written to and read from storage, as the kernel counts
/// them: (written, read).
pub(crate) fn storage_bytes() -> Result<(u64, u64), String> {
    let path = PathBuf::from("/proc/self/io");
    let text = host::read_text(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let bytes = |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.and_then(|number| number.trim().parse().ok()).ok_or(format!("{path:?} has no {name}"))
    };
    Ok((bytes("write_bytes")?, bytes("read_bytes")?))
}

/// Reads the process's figures; the error says which file could not be read or understood.
pub(crate) fn sample(pid: u32) -> Result<ProcessSample, String> {
    let ticks = cpu_ticks(&read(pid, "stat")?).ok_or("/proc/PID/stat is not understood")?;
    let status = read(pid, "status")?;
    let bytes = |name| status_bytes(&status, name).ok_or(format!("/proc/PID/status has no {name}"));
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(ProcessSample {
        cpu: Duration::from_secs_f64(ticks as f64 / ticks_per_second as f64),
        resident_bytes: bytes("VmRSS")?,
        resident_peak_bytes: bytes("VmHWM")?,
    })
}

fn read(pid: u32, file: &str) -> Result<String, String> {
    let path = PathBuf::from(format!("/proc/{pid}/{file}"));
    host::read_text(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// User plus system time in clock ticks. The command's name may hold spaces and brackets, so the
/// fields are counted from the last closing bracket.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let user = times.next()?.parse::<u64>().ok()?;
    let system = times.next()?.parse::<u64>().ok()?;
    user.checked_add(system)
}

fn status_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_an_awkward_name() {
        let stat = "4242 (a (b) c) S 1 4242 4242 0 -1 4194304 500 0 2 0 731 269 5 6 20 0 4 0 99";
        assert_eq!(cpu_ticks(stat), Some(1000));
        assert_eq!(cpu_ticks("4242 (short) S 1 2"), None);
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tlarder\nVmPeak:\t  900 kB\nVmHWM:\t    64 kB\nVmRSS:\t      12 kB\n";
        assert_eq!(status_bytes(status, "VmHWM"), Some(65_536));
        assert_eq!(status_bytes(status, "VmRSS"), Some(12_288));
        assert_eq!(status_bytes(status, "VmSwap"), None);
        assert_eq!(status_bytes("VmRSS:\t18446744073709551615 kB", "VmRSS"), None);
    }

    #[test]
    fn this_process_can_be_sampled() {
        storage_bytes().expect("the kernel counts");
        let sample = sample(std::process::id()).expect("own process");
        assert!(sample.resident_bytes > 0);
        assert!(sample.resident_peak_bytes >= sample.resident_bytes);
        assert!(super::sample(u32::MAX).is_err());
    }
}
