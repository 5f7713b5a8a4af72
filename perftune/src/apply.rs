//! Carrying a plan out, and undoing it: the third of the three steps.
//!
//! Invariants:
//! - Before the first setting is changed, the old values of all that will be are durable. So
//!   whatever ends this in the middle, an undo finds them; and undoing twice does no more than
//!   once.
//! - Before a file is changed it is durable which command makes that effective, until it was run.
//! - An undo changes no file that somebody else has changed since.

use std::io::{self, ErrorKind};

use crate::error::TuneError;
use crate::machine::Machine;
use crate::plan::{SettingKind, TunePlan, TuneSetting, written_form};
use crate::state::{OldValue, STATE_FILE, TuneState, is_of_kernel};
use crate::tree::{SystemFiles, unfinished_name};

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The settings that have their new value.
    pub changed: Vec<String>,
    /// Those that the kernel keeps to itself.
    pub kept: Vec<String>,
    /// Commands of an earlier call that had not come so far.
    pub caught_up: Vec<String>,
}

/// What was undone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// The settings that have their old value again.
    pub restored: Vec<String>,
    /// Those that are not there any more.
    pub gone: Vec<String>,
    /// Files that somebody has changed since, and that are left so. Their old content is kept.
    pub edited: Vec<String>,
    /// How many the last start of the machine has undone already.
    pub by_restart: usize,
}

/// Gives every setting that differs from the plan its value: all of them or, on an error, none.
///
/// # Errors
/// If something cannot be written, which is found out before anything is; if something is refused
/// in the middle, after what had been done is undone; if a command that an earlier call has left
/// cannot be run.
pub fn apply(
    files: &dyn SystemFiles,
    machine: &Machine,
    plan: &TunePlan,
) -> Result<Applied, TuneError> {
    let changes: Vec<&TuneSetting> = plan.differences().collect();
    check_writable(files, plan, &changes)?;
    let mut kept = TuneState::load(files)?;
    let caught_up = catch_up(files, kept.as_mut())?;
    let mut applied = Applied { caught_up, ..Applied::default() };
    if changes.is_empty() {
        return Ok(applied);
    }
    let old: Vec<OldValue> = changes.iter().map(|setting| old_value(setting)).collect();
    let mut state = TuneState::with(kept.as_ref(), machine.boot(), old.clone());
    state.save_first(files)?;
    for (index, setting) in changes.iter().enumerate() {
        match make(files, setting) {
            Ok(()) => applied.changed.push(setting.path.clone()),
            Err(error) if setting.may_be_refused && is_refusal(&error) => {
                applied.kept.push(setting.path.clone());
            }
            Err(source) => {
                return Err(rolled_back(files, &setting.path, source, (&old[..=index], kept)));
            }
        }
    }
    if !state.due.is_empty() {
        state.due.clear();
        state
            .save(files)
            .map_err(|source| rolled_back(files, STATE_FILE, source, (&old[..], kept)))?;
    }
    Ok(applied)
}

/// Runs the commands that an earlier call has left; returns them.
fn catch_up(
    files: &dyn SystemFiles,
    state: Option<&mut TuneState>,
) -> Result<Vec<String>, TuneError> {
    let Some(state) = state.filter(|state| !state.due.is_empty()) else { return Ok(Vec::new()) };
    for command in &state.due {
        let wrong = |source| TuneError::NotRun { command: command.clone(), source };
        files.run(command).map_err(wrong)?;
    }
    let done = std::mem::take(&mut state.due);
    state.save_first(files)?;
    Ok(done)
}

fn check_writable(
    files: &dyn SystemFiles,
    plan: &TunePlan,
    changes: &[&TuneSetting],
) -> Result<(), TuneError> {
    let unreadable = plan.unreadable.iter().map(|(path, reason)| {
        (path.clone(), format!("it is there and cannot be read, so it could not be kept: {reason}"))
    });
    let state = (!changes.is_empty()).then_some(STATE_FILE);
    let paths = changes.iter().map(|setting| setting.path.as_str()).chain(state);
    let unwritable = paths.filter_map(|path| {
        let error = files.check_writable(path).err()?;
        Some((path.to_owned(), error.to_string()))
    });
    let failures: Vec<(String, String)> = unreadable.chain(unwritable).collect();
    if failures.is_empty() { Ok(()) } else { Err(TuneError::NotWritable { failures }) }
}

fn old_value(setting: &TuneSetting) -> OldValue {
    let is_file = setting.kind == SettingKind::File;
    OldValue {
        path: setting.path.clone(),
        content: setting.current.clone(),
        made: is_file.then(|| setting.value.clone()).into_iter().collect(),
        then: setting.then.clone(),
    }
}

fn make(files: &dyn SystemFiles, setting: &TuneSetting) -> io::Result<()> {
    if setting.kind == SettingKind::File {
        files.replace(&setting.path, &setting.value)?;
    } else {
        files.put(&setting.path, &setting.value, &setting.shown())?;
    }
    setting.then.as_ref().map_or(Ok(()), |command| files.run(command))
}

/// What the kernel answers where it binds an interrupt itself.
fn is_refusal(error: &io::Error) -> bool {
    const REFUSALS: [rustix::io::Errno; 4] = [
        rustix::io::Errno::IO,
        rustix::io::Errno::PERM,
        rustix::io::Errno::INVAL,
        rustix::io::Errno::OPNOTSUPP,
    ];
    let is = |errno: rustix::io::Errno| error.raw_os_error() == Some(errno.raw_os_error());
    REFUSALS.into_iter().any(is)
}

/// Undoes what this program has just done, the last first, and keeps of older values what was kept.
/// Returns what is to be said of it, where `path` was refused.
fn rolled_back(
    files: &dyn SystemFiles,
    path: &str,
    source: io::Error,
    (done, kept): (&[OldValue], Option<TuneState>),
) -> TuneError {
    let path = path.to_owned();
    let mut failures = Vec::new();
    for value in done.iter().rev() {
        if let Err(error) = restore(files, value) {
            failures.push((value.path.clone(), error.to_string()));
        }
    }
    if failures.is_empty() {
        let result = match kept {
            Some(kept) => kept.save(files).map_err(|error| error.to_string()),
            None => TuneState::forget(files).map_err(|error| error.to_string()),
        };
        failures.extend(result.err().map(|error| (STATE_FILE.to_owned(), error)));
    }
    if failures.is_empty() {
        return TuneError::Refused { path, source };
    }
    TuneError::HalfUndone { path, source, failures }
}

/// Gives everything that was changed its old value, but for files that somebody else has changed
/// since.
///
/// # Errors
/// If the old values cannot be read, or not all can be given back; those are kept then.
pub fn undo(files: &dyn SystemFiles) -> Result<Undone, TuneError> {
    let mut undone = Undone::default();
    let Some(mut state) = TuneState::load(files)? else {
        return forget(files).map(|()| undone);
    };
    owe_commands(files, &mut state)?;
    let boot = files.read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut failures = Vec::new();
    for value in state.values.iter().rev() {
        if value.is_of_kernel() && boot.trim() != state.boot {
            undone.by_restart += 1;
            continue;
        }
        match give_back(files, value, &state.due) {
            Ok(GivenBack::Now) => undone.restored.push(value.path.clone()),
            Ok(GivenBack::Before) => {}
            Ok(GivenBack::Gone) => undone.gone.push(value.path.clone()),
            Ok(GivenBack::Edited) => undone.edited.push(value.path.clone()),
            Err(error) => failures.push((value.path.clone(), error.to_string())),
        }
    }
    if !failures.is_empty() {
        return Err(TuneError::NotUndone { failures });
    }
    state.values.retain(|value| undone.edited.contains(&value.path));
    state.due.clear();
    if state.values.is_empty() {
        forget(files)?;
    } else {
        state.save(files).map_err(|error| left(&error))?;
    }
    Ok(undone)
}

fn forget(files: &dyn SystemFiles) -> Result<(), TuneError> {
    TuneState::forget(files).map_err(|error| left(&error))
}

/// What is said where only the old values themselves are left to be dealt with.
fn left(error: &io::Error) -> TuneError {
    TuneError::State {
        path: STATE_FILE.to_owned(),
        message: format!("everything has its old value, but this file cannot be changed: {error}"),
    }
}

/// Makes it durable which commands make an undo effective, before that changes their files.
fn owe_commands(files: &dyn SystemFiles, state: &mut TuneState) -> Result<(), TuneError> {
    let known = state.due.len();
    for value in state.values.clone() {
        let is_made = |now: String| Some(&now) != value.content.as_ref() && value.is_as_made(&now);
        if value.then.is_some() && files.read(&value.path).is_ok_and(is_made) {
            state.owe(value.then.as_ref());
        }
    }
    if state.due.len() == known { Ok(()) } else { state.save_first(files) }
}

/// What became of a setting that was to have its old value again.
enum GivenBack {
    /// It has it now.
    Now,
    /// It had it before.
    Before,
    /// There is no such file any more.
    Gone,
    /// Somebody has changed the file since.
    Edited,
}

/// Gives a setting its old value, unless it is a file that somebody has changed since, and runs the
/// command that is due for it.
fn give_back(files: &dyn SystemFiles, value: &OldValue, due: &[String]) -> io::Result<GivenBack> {
    let now = current(files, value)?;
    let given = match &now {
        _ if now == value.content => GivenBack::Before,
        Some(text) if !value.is_of_kernel() && !value.is_as_made(text) => GivenBack::Edited,
        None => GivenBack::Gone,
        Some(_) => {
            put_back(files, value)?;
            GivenBack::Now
        }
    };
    let command = value.then.as_ref().filter(|command| due.contains(command));
    command.map_or(Ok(()), |command| files.run(command))?;
    Ok(given)
}

/// Gives a setting its old value that this program has just changed.
fn restore(files: &dyn SystemFiles, value: &OldValue) -> io::Result<()> {
    if current(files, value)? == value.content {
        return Ok(());
    }
    put_back(files, value)?;
    value.then.as_ref().map_or(Ok(()), |command| files.run(command))
}

/// What a setting is now; `None` if it is not there. What a crash has left unfinished of
/// it is removed.
fn current(files: &dyn SystemFiles, value: &OldValue) -> io::Result<Option<String>> {
    if !is_of_kernel(&value.path) {
        files.remove(&unfinished_name(&value.path))?;
    }
    match files.read(&value.path) {
        Ok(now) => Ok(Some(now)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn put_back(files: &dyn SystemFiles, value: &OldValue) -> io::Result<()> {
    match &value.content {
        None => files.remove(&value.path),
        Some(old) if value.is_of_kernel() => files.put(&value.path, written_form(old), old),
        Some(old) => files.replace(&value.path, old),
    }
}
