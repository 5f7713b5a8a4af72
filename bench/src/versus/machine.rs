//! What figures must be published with: when, on which machine, with which versions.

use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::host;

/// The circumstances of a comparison.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Circumstances {
    /// The day, in UTC, as YYYY-MM-DD.
    pub(super) date: String,
    /// The command line.
    pub(super) command: String,
    /// The processor's name and the number of processors.
    pub(super) processor: String,
    /// The kernel's release.
    pub(super) kernel: String,
    /// What each program says of its version.
    pub(super) versions: Vec<String>,
}

impl Circumstances {
    /// Asks the machine and the programs; what cannot be found out is called unknown.
    pub(super) fn look_up(larder: &Path, memcached: &Path) -> Self {
        let cpuinfo = host::read_text(Path::new("/proc/cpuinfo")).unwrap_or_default();
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let programs = [
            ("larder", larder, "--version"),
            ("memcached", memcached, "-V"),
            ("fio", Path::new("fio"), "--version"),
        ];
        Self {
            date: date(host::unix_seconds()),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            processor: processor(&cpuinfo),
            kernel: release,
            versions: programs.map(|(name, path, flag)| version(name, path, flag)).to_vec(),
        }
    }

    /// One line that stands above a table.
    pub(super) fn line(&self) -> String {
        let versions = self.versions.join(", ");
        format!("{}: {}; Linux {}; {versions}", self.date, self.processor, self.kernel)
    }
}

fn version(name: &str, program: &Path, flag: &str) -> String {
    let output = Command::new(program).arg(flag).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match text {
        Ok(text) if !text.is_empty() => text.lines().next().unwrap_or_default().to_owned(),
        _ => format!("{name} of unknown version"),
    }
}

fn processor(cpuinfo: &str) -> String {
    let names = cpuinfo.lines().filter_map(|line| line.strip_prefix("model name"));
    let names: Vec<&str> = names.map(|rest| rest.trim_start_matches([' ', '\t', ':'])).collect();
    let name = names.first().copied().unwrap_or("unknown processor");
    format!("{} x {name}", names.len().max(1))
}

/// The Gregorian day of a time in seconds since 1970, as YYYY-MM-DD.
fn date(unix_seconds: u64) -> String {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut days = unix_seconds / 86_400;
    let mut year = 1970;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_over_leap_years() {
        for (seconds, day) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_735_689_599, "2024-12-31"),
            (1_735_689_600, "2025-01-01"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(date(seconds), day);
        }
    }

    #[test]
    fn processors_are_named_and_counted() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\n\nprocessor\t: 1\n\
                       model name\t: Fast CPU @ 3 GHz\n";
        assert_eq!(processor(cpuinfo), "2 x Fast CPU @ 3 GHz");
        assert_eq!(processor(""), "1 x unknown processor");
    }

    #[test]
    fn a_missing_program_has_an_unknown_version() {
        let missing = version("larder", Path::new("/nonexistent/larder"), "--version");
        assert_eq!(missing, "larder of unknown version");
    }
}
