//! The old values of what was changed, kept on disk before the first change.

use std::io::{self, ErrorKind};

use serde::{Deserialize, Serialize};

use crate::error::TuneError;
use crate::tree::{SystemFiles, unfinished_name};

/// Where they are kept.
pub(crate) const STATE_FILE: &str = "/var/lib/larder/tune-state.toml";
/// The directory of that, which whoever changes something locks.
pub(crate) const STATE_DIRECTORY: &str = "/var/lib/larder";

const FORMAT: u32 = 2;
const PREFIXES: [&str; 3] = ["/sys/", "/proc/", "/etc/"];

/// What a setting was before it was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OldValue {
    pub path: String,
    /// What the file said; `None` if it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// What a plain file says while nobody else has changed it: what was written, and until that
    /// is done what was written before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<String>,
    /// A command that makes a change of the file effective.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<String>,
}

impl OldValue {
    /// Whether it is a setting of the kernel, which the next start of the machine forgets.
    pub(crate) fn is_of_kernel(&self) -> bool {
        is_of_kernel(&self.path)
    }

    /// Whether the file that says `now` is as this program has left it.
    pub(crate) fn is_as_made(&self, now: &str) -> bool {
        self.made.iter().any(|made| made == now)
    }

    /// Takes in that the file is to be changed once more. What somebody else has written into it
    /// since is the old content from then on.
    fn change_again(&mut self, changing: Self) {
        if self.is_of_kernel() {
            return;
        }
        let now = changing.content;
        let is_edited = now != self.content && !now.iter().any(|now| self.is_as_made(now));
        if is_edited {
            self.content = now.clone();
        }
        self.made = now.into_iter().filter(|now| self.is_as_made(now)).collect();
        self.made.extend(changing.made);
        self.then = changing.then;
    }
}

pub(crate) fn is_of_kernel(path: &str) -> bool {
    path.starts_with("/sys/") || path.starts_with("/proc/")
}

/// All of them, in the order in which the settings were changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TuneState {
    format: u32,
    /// The start of the machine to which the settings of the kernel belong.
    pub boot: String,
    /// Commands that a crash may have cut: a file was about to change that they make effective.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub due: Vec<String>,
    #[serde(default, rename = "old")]
    pub values: Vec<OldValue>,
}

impl TuneState {
    /// Reads what is kept; `None` if nothing is.
    pub(crate) fn load(files: &dyn SystemFiles) -> Result<Option<Self>, TuneError> {
        let wrong = |message: String| TuneError::State { path: STATE_FILE.to_owned(), message };
        let text = match files.read(STATE_FILE) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let state: Self = toml::from_str(&text)
            .map_err(|error| wrong(format!("it does not say what the old values were: {error}")))?;
        if state.format != FORMAT {
            let found = state.format;
            return Err(wrong(format!("format {found}; this program knows format {FORMAT}")));
        }
        let is_ours = |path: &str| {
            PREFIXES.iter().any(|prefix| path.starts_with(prefix))
                && !path.split('/').any(|part| part == "..")
        };
        match state.values.iter().find(|value| !is_ours(&value.path)) {
            Some(value) => Err(wrong(format!("{} is no setting of this program", value.path))),
            None => Ok(Some(state)),
        }
    }

    /// What is kept from then on: what was kept, if it is of the same start of the machine, and
    /// what is about to be changed besides. Of a setting that is changed twice the first counts,
    /// unless it is a file that somebody else has changed in between.
    pub(crate) fn with(kept: Option<&Self>, boot: &str, changing: Vec<OldValue>) -> Self {
        let is_known =
            |value: &&OldValue| kept.is_some_and(|kept| kept.boot == boot) || !value.is_of_kernel();
        let values: Vec<OldValue> =
            kept.iter().flat_map(|kept| &kept.values).filter(is_known).cloned().collect();
        let mut state = Self { format: FORMAT, boot: boot.to_owned(), due: Vec::new(), values };
        for value in changing {
            state.owe(value.then.as_ref());
            match state.values.iter_mut().find(|known| known.path == value.path) {
                Some(known) => known.change_again(value),
                None => state.values.push(value),
            }
        }
        state
    }

    /// Notes that a command has to be run.
    pub(crate) fn owe(&mut self, command: Option<&String>) {
        let new = command.filter(|command| !self.due.contains(command)).cloned();
        self.due.extend(new);
    }

    /// Makes it durable.
    pub(crate) fn save(&self, files: &dyn SystemFiles) -> io::Result<()> {
        let text = toml::to_string(self).expect("old values are plain data");
        files.replace(STATE_FILE, &text)
    }

    /// The same before anything is changed.
    pub(crate) fn save_first(&self, files: &dyn SystemFiles) -> Result<(), TuneError> {
        self.save(files).map_err(|error| TuneError::State {
            path: STATE_FILE.to_owned(),
            message: format!("the old values cannot be kept, so nothing was changed: {error}"),
        })
    }

    /// Forgets the old values, and what a crash may have left unfinished.
    pub(crate) fn forget(files: &dyn SystemFiles) -> io::Result<()> {
        files.remove(&unfinished_name(STATE_FILE))?;
        files.remove(STATE_FILE)
    }
}
