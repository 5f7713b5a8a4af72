//! The CPU plan: the file by which `larder serve` learns how the CPUs are divided.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cpu_mask::CpuMask;
use crate::options::{TuneMode, TuneOptions};
use crate::tree::read_small;

/// Where `larder tune --apply` saves the plan, and `larder serve` looks for it.
pub const CPU_PLAN_FILE: &str = "/etc/larder/cpu-plan.toml";

const HEAD: &str = "\
# How the CPUs of this machine are divided. Written by `larder tune --apply`; `larder serve` runs
# its cores on `cpus`, and leaves `interrupts` to network cards and disks.
";

/// How the CPUs of a machine are divided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuPlan {
    /// The mode by which they were divided.
    pub mode: TuneMode,
    /// The CPUs that serve requests.
    pub cpus: CpuMask,
    /// The CPUs that take interrupts; the same ones if nothing is divided.
    pub interrupts: CpuMask,
    /// What the plan was asked for with.
    #[serde(default)]
    pub options: TuneOptions,
}

impl CpuPlan {
    /// The plan as a file.
    pub fn to_toml(&self) -> String {
        format!("{HEAD}{}", toml::to_string(self).expect("a plan is plain data"))
    }

    /// Reads a plan.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let plan: Self =
            toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        if plan.cpus.is_empty() {
            return Err("`cpus` is empty: a node needs at least one".to_owned());
        }
        Ok(plan)
    }

    /// Reads the plan in a file; `None` if there is no such file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(path: &Path) -> Result<Option<Self>, String> {
        match read_small(path) {
            Ok(text) => Self::from_toml(&text).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let plan = CpuPlan {
            mode: TuneMode::Sq,
            cpus: CpuMask::of([1, 2, 3]),
            interrupts: CpuMask::of([0]),
            options: TuneOptions { dir: vec!["/data".to_owned()], ..TuneOptions::default() },
        };
        assert_eq!(CpuPlan::from_toml(&plan.to_toml()), Ok(plan));
    }

    #[test]
    fn a_wrong_plan_is_refused_with_the_key() {
        let fine = "mode = \"sq\"\ncpus = \"1\"\ninterrupts = \"0\"\n";
        CpuPlan::from_toml(fine).expect("a plan");
        for (text, part) in [
            (fine.replace("\"1\"", "\"\""), "`cpus` is empty"),
            (fine.replace("cpus", "cups"), "cups"),
            (fine.replace("\"1\"", "\"1-\""), "list of CPUs"),
            (fine.replace("\"1\"", "\"0-99999\""), "beyond"),
            (fine.replace("sq", "all"), "all"),
            (String::new(), "mode"),
        ] {
            let error = CpuPlan::from_toml(&text).expect_err(&text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
