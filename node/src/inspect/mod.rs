//! `larder check` and `larder space`: a data directory that no node runs on, seen from outside.
//!
//! Both hold the directory's lock while they look, so that no node starts meanwhile, and open
//! nothing for writing.

mod check;
pub(crate) mod space;

use std::fmt;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use larder_engine::check::{CheckError, CheckProgress};
use larder_engine::superblock::SUPERBLOCK_FILE;
use larder_runtime::core_thread::{Core, CoreOptions};

use crate::launch::StartError;
use crate::launch::directory::{self, ExistingDirectory};

/// The exit code where damage was found.
const EXIT_DAMAGE: u8 = 1;

/// The exit code where nothing could be found out.
const EXIT_NOT_RUN: u8 = 2;

const CHECK_HELP: &str = "\
Exit code: 0 no damage, 1 damage, 2 the check could not be run.

A repair keeps everything that can be read. What cannot is dropped, and so is what it may have
overwritten or deleted; the keys are listed. Where the log since the last flush is damaged, what is
readable of it is written to tables, as a start would keep it, and the numbers of the changes that
are lost are listed; that takes room for a segment and the tables.

  larder check /var/lib/larder
  larder check /var/lib/larder --repair --json > repaired.json";

const SPACE_HELP: &str = "\
Exit code: 0, or 2 if the directory cannot be read or is damaged.

  larder space /var/lib/larder";

/// `larder check`.
#[derive(Args, Clone, Debug)]
#[command(after_help = CHECK_HELP)]
pub struct CheckArgs {
    /// The data directory; no node may run on it
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Drop what is unreadable, list the keys that this costs, and check again
    #[arg(long)]
    pub repair: bool,
}

/// `larder space`.
#[derive(Args, Clone, Debug)]
#[command(after_help = SPACE_HELP)]
pub struct SpaceArgs {
    /// The data directory; no node may run on it
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Why a directory was not looked at.
#[derive(Debug, thiserror::Error)]
enum InspectError {
    #[error(transparent)]
    Directory(#[from] StartError),
    #[error("{} holds no store of larder: {why}", path.display())]
    NoStore { path: PathBuf, why: String },
    #[error(transparent)]
    Shard(#[from] CheckError),
    #[error("cannot set up io_uring: {0}")]
    Core(String),
    #[error("cannot write the result: {0}")]
    Output(#[from] std::io::Error),
}

/// Checks every checksum and every pointer of a data directory and prints what it finds.
pub fn check(args: &CheckArgs) -> ExitCode {
    exit(check::run(args))
}

/// Prints what every byte of a data directory is for.
pub fn space(args: &SpaceArgs) -> ExitCode {
    exit(space::run(args))
}

fn exit(result: Result<ExitCode, InspectError>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("larder: {error}");
        ExitCode::from(EXIT_NOT_RUN)
    })
}

/// A directory that no node can start on while this is there.
struct Held {
    directory: ExistingDirectory,
    core: Core,
}

impl Held {
    fn new(path: &Path) -> Result<Self, InspectError> {
        let no_store = |why: &str| {
            let (path, why) = (path.to_path_buf(), why.to_owned());
            Err(InspectError::NoStore { path, why })
        };
        if path.join(SUPERBLOCK_FILE).is_file() {
            return no_store("it is a shard of one; give the directory above");
        }
        let directory = directory::hold(path)?;
        if directory.shards.is_empty() {
            return no_store("there are no shards in it");
        }
        let core = Core::new(CoreOptions::default());
        let core = core.map_err(|error| InspectError::Core(error.to_string()))?;
        Ok(Self { directory, core })
    }

    /// Looks at each shard that was ever written to, in order.
    fn each_shard<T>(
        &mut self,
        look: &impl AsyncFn(
            &larder_runtime::ring_env::RingEnv,
            &Path,
            &mut dyn FnMut(CheckProgress<'_>),
        ) -> Result<T, CheckError>,
    ) -> Result<Vec<(PathBuf, T)>, InspectError> {
        let mut looked = Vec::new();
        for shard in self.directory.shards.clone() {
            let bar = Bar::new(&shard);
            let env = self.core.env();
            let mut show = |progress: CheckProgress<'_>| bar.show(&progress);
            match self.core.block_on(Box::pin(look(&env, &shard, &mut show))) {
                Ok(found) => looked.push((shard, found)),
                // A first start that was interrupted leaves empty shards; the next one goes on.
                Err(CheckError::NoShard { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if looked.is_empty() {
            let (path, why) = (self.directory.path.clone(), "its shards are empty".to_owned());
            return Err(InspectError::NoStore { path, why });
        }
        Ok(looked)
    }
}

/// How far one shard has come, on a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new(shard: &Path) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{prefix} {bar:30} {bytes}/{total_bytes} {msg}")
            .expect("the template is well formed");
        let name = shard.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self(ProgressBar::new(0).with_style(style).with_prefix(name))
    }

    fn show(&self, progress: &CheckProgress<'_>) {
        self.0.set_length(progress.total_bytes);
        self.0.set_position(progress.done_bytes);
        self.0.set_message(progress.file.to_owned());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn print(text: &str) -> Result<(), InspectError> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// A number of bytes for people.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1 << 10 {
            return formatter.pad(&format!("{} B", self.0));
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        formatter.pad(&format!("{value:.1} {}", UNITS[unit]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_for_people() {
        let text = |bytes| Bytes(bytes).to_string();
        assert_eq!([text(0), text(1023), text(1024)], ["0 B", "1023 B", "1.0 KiB"]);
        assert_eq!([text(64 << 20), text(3 << 40)], ["64.0 MiB", "3.0 TiB"]);
        assert_eq!(format!("{:>10}|", Bytes(5)), "       5 B|");
    }
}
