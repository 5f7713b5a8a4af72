//! Carrying a plan out, and undoing it: the third of the three steps.
//!
//! Invariant: before the first setting is changed, the old values of all that will be are durable.
//! So whatever ends this in the middle, an undo finds them; and undoing twice does no more than
//! once.

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
}

/// What was undone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// The settings that have their old value again.
    pub restored: Vec<String>,
    /// Those that are not there any more.
    pub gone: Vec<String>,
    /// How many the last start of the machine has undone already.
    pub by_restart: usize,
}

/// Gives every setting that differs from the plan its value: all of them or, on an error, none.
///
/// # Errors
/// If something cannot be written, which is found out before anything is; if something is refused
/// in the middle, after what had been done is undone.
pub fn apply(
    files: &dyn SystemFiles,
    machine: &Machine,
    plan: &TunePlan,
) -> Result<Applied, TuneError> {
    let changes: Vec<&TuneSetting> = plan.differences().collect();
    if changes.is_empty() {
        return Ok(Applied::default());
    }
    check_writable(files, &changes)?;
    let old: Vec<OldValue> = changes.iter().map(|setting| old_value(setting)).collect();
    let kept = TuneState::load(files)?;
    TuneState::with(kept.as_ref(), machine.boot(), old.clone()).save(files)?;
    let mut applied = Applied::default();
    for (index, setting) in changes.iter().enumerate() {
        match make(files, setting) {
            Ok(()) => applied.changed.push(setting.path.clone()),
            Err(error) if setting.may_be_refused && is_refusal(&error) => {
                applied.kept.push(setting.path.clone());
            }
            Err(source) => {
                let path = setting.path.clone();
                let failures = roll_back(files, &old[..=index], kept.as_ref());
                return Err(if failures.is_empty() {
                    TuneError::Refused { path, source }
                } else {
                    TuneError::HalfUndone { path, source, failures }
                });
            }
        }
    }
    Ok(applied)
}

fn check_writable(files: &dyn SystemFiles, changes: &[&TuneSetting]) -> Result<(), TuneError> {
    let paths = changes.iter().map(|setting| setting.path.as_str()).chain([STATE_FILE]);
    let failures: Vec<(String, String)> = paths
        .filter_map(|path| {
            let error = files.check_writable(path).err()?;
            Some((path.to_owned(), error.to_string()))
        })
        .collect();
    if failures.is_empty() { Ok(()) } else { Err(TuneError::NotWritable { failures }) }
}

fn old_value(setting: &TuneSetting) -> OldValue {
    OldValue {
        path: setting.path.clone(),
        content: setting.current.clone(),
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
fn roll_back(
    files: &dyn SystemFiles,
    done: &[OldValue],
    kept: Option<&TuneState>,
) -> Vec<(String, String)> {
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
    failures
}

/// Gives everything that was changed its old value.
///
/// # Errors
/// If the old values cannot be read, or not all can be given back; those are kept then.
pub fn undo(files: &dyn SystemFiles) -> Result<Undone, TuneError> {
    let mut undone = Undone::default();
    let Some(state) = TuneState::load(files)? else {
        return forget(files).map(|()| undone);
    };
    let boot = files.read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut failures = Vec::new();
    for value in state.values.iter().rev() {
        if value.is_of_kernel() && boot.trim() != state.boot {
            undone.by_restart += 1;
            continue;
        }
        match restore(files, value) {
            Ok(true) => undone.restored.push(value.path.clone()),
            Ok(false) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                undone.gone.push(value.path.clone());
            }
            Err(error) => failures.push((value.path.clone(), error.to_string())),
        }
    }
    if !failures.is_empty() {
        return Err(TuneError::NotUndone { failures });
    }
    forget(files).map(|()| undone)
}

fn forget(files: &dyn SystemFiles) -> Result<(), TuneError> {
    TuneState::forget(files).map_err(|error| TuneError::State {
        path: STATE_FILE.to_owned(),
        message: format!("everything has its old value, but this file cannot be removed: {error}"),
    })
}

/// Gives a setting its old value; returns whether it had another one.
fn restore(files: &dyn SystemFiles, value: &OldValue) -> io::Result<bool> {
    if !is_of_kernel(&value.path) {
        files.remove(&unfinished_name(&value.path))?;
    }
    let now = match files.read(&value.path) {
        Ok(now) => Some(now),
        Err(error) if error.kind() == ErrorKind::NotFound && !value.is_of_kernel() => None,
        Err(error) => return Err(error),
    };
    if now == value.content {
        return Ok(false);
    }
    match &value.content {
        None => files.remove(&value.path)?,
        Some(old) if value.is_of_kernel() => files.put(&value.path, written_form(old), old)?,
        Some(old) => files.replace(&value.path, old)?,
    }
    value.then.as_ref().map_or(Ok(()), |command| files.run(command))?;
    Ok(true)
}
