//! What a plan is asked for.

use std::fmt;
use std::path::Path;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::cpu_mask::CpuMask;

/// Which CPUs take interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum TuneMode {
    /// By the machine: up to 4 CPUs mq, up to 4 cores sq, up to 16 cores sq_split, and beyond that
    /// one whole core for each 16, the same number of every NUMA node
    Auto,
    /// All CPUs take interrupts and requests
    Mq,
    /// One CPU takes interrupts, all others requests
    Sq,
    /// One core, with all its threads, takes interrupts, all others requests
    SqSplit,
}

impl TuneMode {
    /// As options spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Mq => "mq",
            Self::Sq => "sq",
            Self::SqSplit => "sq_split",
        }
    }
}

impl fmt::Display for TuneMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What a plan is asked for; also the keys of an options file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuneOptions {
    /// Which CPUs take interrupts; `None` is `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TuneMode>,
    /// Network cards; none means all that have a device and are up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nic: Vec<String>,
    /// Directories whose disks are tuned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dir: Vec<String>,
    /// The CPUs that are divided; `None` is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_mask: Option<CpuMask>,
    /// Those of them that take interrupts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irq_cpu_mask: Option<CpuMask>,
}

impl TuneOptions {
    /// Reads an options file.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
    }

    /// The options as a file.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("options are plain data")
    }

    /// These options, and what a file says of those that are not given. Lists are joined.
    #[must_use]
    pub fn over(mut self, file: Self) -> Self {
        let join = |mut first: Vec<String>, second: Vec<String>| {
            let new = second.into_iter().filter(|name| !first.contains(name)).collect::<Vec<_>>();
            first.extend(new);
            first
        };
        self.nic = join(self.nic, file.nic);
        self.dir = join(self.dir, file.dir);
        // Both say which CPUs take interrupts, so one that is given hides both of the file.
        if self.mode.is_none() && self.irq_cpu_mask.is_none() {
            self.mode = file.mode;
            self.irq_cpu_mask = file.irq_cpu_mask;
        }
        self.cpu_mask = self.cpu_mask.or(file.cpu_mask);
        self
    }

    /// The command line that asks for the same.
    pub fn command_line(&self) -> String {
        let mut line = String::new();
        let mut add = |option: &str, value: &str| {
            line.push_str(&format!(" --{option} {}", crate::print::quoted(value)));
        };
        self.mode.iter().for_each(|mode| add("mode", mode.name()));
        self.nic.iter().for_each(|name| add("nic", name));
        self.dir.iter().for_each(|path| add("dir", path));
        self.cpu_mask.iter().for_each(|mask| add("cpu-mask", &mask.to_string()));
        self.irq_cpu_mask.iter().for_each(|mask| add("irq-cpu-mask", &mask.to_string()));
        line
    }
}

/// Reads the file that `--options-file` names.
pub(crate) fn read_options_file(path: &Path) -> Result<TuneOptions, String> {
    let text = crate::tree::read_small(path).map_err(|error| error.to_string())?;
    TuneOptions::from_toml(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exported_is_read_again() {
        let options = TuneOptions {
            mode: None,
            nic: vec!["eth0".to_owned()],
            dir: vec!["/data/a b".to_owned()],
            cpu_mask: Some(CpuMask::of(0..8)),
            irq_cpu_mask: Some(CpuMask::of([0])),
        };
        assert_eq!(TuneOptions::from_toml(&options.to_toml()), Ok(options.clone()));
        let line = " --nic eth0 --dir '/data/a b' --cpu-mask 0-7 --irq-cpu-mask 0";
        assert_eq!(options.command_line(), line);
        let sq = TuneOptions { mode: Some(TuneMode::SqSplit), ..TuneOptions::default() };
        assert_eq!(sq.to_toml(), "mode = \"sq_split\"\n");
        assert_eq!(TuneOptions::from_toml("mode = \"sq_split\""), Ok(sq));
    }

    #[test]
    fn the_command_line_wins_and_lists_are_joined() {
        let text = "mode = \"mq\"\nnic = [\"eth0\", \"eth1\"]\ncpu_mask = \"0-3\"";
        let file = TuneOptions::from_toml(text).expect("options");
        let given = TuneOptions {
            irq_cpu_mask: Some(CpuMask::of([0])),
            nic: vec!["eth1".to_owned()],
            ..TuneOptions::default()
        };
        let both = given.over(file);
        assert_eq!((both.mode, both.nic), (None, vec!["eth1".to_owned(), "eth0".to_owned()]));
        assert_eq!(both.cpu_mask, Some(CpuMask::of(0..4)));
    }

    #[test]
    fn a_wrong_file_is_refused_with_the_key() {
        for (text, part) in [
            ("moed = \"mq\"", "moed"),
            ("mode = \"fast\"", "fast"),
            ("cpu_mask = \"x\"", "list of CPUs"),
            ("nic = 3", "nic"),
            ("=", "line 1"),
        ] {
            let error = TuneOptions::from_toml(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
