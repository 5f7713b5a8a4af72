//! Why a machine is not tuned.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::cpu_mask::CpuMask;
use crate::options::TuneMode;

/// Why there is no plan, or why it was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// The root is no directory, or a link in it leads nowhere.
    #[error("--root {path}: {source}", path = path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The kernel's account of CPUs and nodes makes no sense.
    #[error("{path}: {why}")]
    Topology {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// CPUs that the machine does not have.
    #[error("{option} names CPUs that this machine does not have ({missing}): it has {available}")]
    CpusMissing {
        /// The option.
        option: &'static str,
        /// Those it does not have.
        missing: CpuMask,
        /// Those it has.
        available: CpuMask,
    },
    /// A set without a CPU.
    #[error("{option} names no CPU: give some of {available}")]
    EmptyMask {
        /// The option.
        option: &'static str,
        /// Those to choose from.
        available: CpuMask,
    },
    /// Two options that both say which CPUs take interrupts.
    #[error(
        "--mode {mode} and --irq-cpu-mask {mask} both say which CPUs take interrupts: give one of \
         them"
    )]
    TwoChoices {
        /// The one.
        mode: TuneMode,
        /// The other.
        mask: CpuMask,
    },
    /// Interrupts on CPUs that are not to be touched.
    #[error("--irq-cpu-mask names CPUs ({outside}) that are not in --cpu-mask {allowed}")]
    OutsideMask {
        /// Those that are not.
        outside: CpuMask,
        /// The CPUs that may be used.
        allowed: CpuMask,
    },
    /// Nothing is left for requests.
    #[error(
        "--mode {mode} takes all of the CPUs {cpus} for interrupts and leaves none for requests: \
         give --mode mq, or more CPUs with --cpu-mask"
    )]
    NothingLeft {
        /// The mode.
        mode: TuneMode,
        /// The CPUs.
        cpus: CpuMask,
    },
    /// Nodes of different sizes.
    #[error(
        "the NUMA nodes have different numbers of cores ({counts}), so no cores are chosen for \
         interrupts: name them with --irq-cpu-mask, or give --mode"
    )]
    UnevenNodes {
        /// How many cores each has.
        counts: String,
    },
    /// A network card that is not there.
    #[error("--nic {name}: there is no such network card; there are: {known}")]
    UnknownCard {
        /// What was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// A directory below no mount.
    #[error("--dir {path}: nothing is mounted there or above it")]
    NoMount {
        /// The directory.
        path: String,
    },
    /// A file of options that cannot be taken.
    #[error("--options-file {path}: {message}", path = path.display())]
    OptionsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        message: String,
    },
    /// A saved CPU plan that cannot be taken.
    #[error("{path}: {message}; give options, or remove the file", path = path.display())]
    SavedPlan {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Settings that cannot be written; nothing was changed.
    #[error("nothing was changed, because these cannot be written:{}{}", Lines(failures), HINT)]
    NotWritable {
        /// Each with the reason.
        failures: Vec<(String, String)>,
    },
    /// The old values cannot be kept or read; nothing was changed.
    #[error("{path}: {message}")]
    State {
        /// The file that they are kept in.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// A setting was refused in the middle; what had been done is undone.
    #[error("{path}: {source}; what had been changed before it is as it was again")]
    Refused {
        /// The setting.
        path: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A setting was refused in the middle, and not all could be undone.
    #[error(
        "{path}: {source}; these could not be given their old values:{}\nrun `larder tune --undo` \
         once they can be",
        Lines(failures)
    )]
    HalfUndone {
        /// The setting.
        path: String,
        /// What the operating system said.
        source: io::Error,
        /// What could not be undone, with the reason.
        failures: Vec<(String, String)>,
    },
    /// A command that an earlier call has left cannot be run; nothing was changed.
    #[error(
        "`{command}` makes an earlier change effective and could not be run ({source}): nothing \
         else was changed"
    )]
    NotRun {
        /// The command.
        command: String,
        /// Why it could not.
        source: io::Error,
    },
    /// Old values that could not be given back.
    #[error(
        "these could not be given their old values, which are kept:{}{}",
        Lines(failures),
        HINT
    )]
    NotUndone {
        /// Each with the reason.
        failures: Vec<(String, String)>,
    },
    /// The output cannot be written.
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
}

const HINT: &str = "\nIt takes root, outside of a container whose /sys and /proc are read-only.";

/// A line for each path, with what is said of it.
struct Lines<'a>(&'a [(String, String)]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(path, reason)| write!(formatter, "\n  {path}: {reason}"))
    }
}
