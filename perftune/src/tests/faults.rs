//! Files of a system that refuse, or whose machine loses its power.

use std::cell::{Cell, RefCell};
use std::io;

use crate::tree::{SystemFiles, SystemTree};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// After so many changes nothing happens any more.
    PowerCut(usize),
    /// The change of this number is refused, and nothing else.
    Refusal(usize),
    /// The kernel binds the interrupts of disks' queues itself.
    BoundInterrupts,
    /// No file can be written.
    ReadOnly,
    /// Commands name programs that are not there.
    NoPrograms,
}

/// Files with a fault.
pub(super) struct FaultyFiles {
    inner: SystemTree,
    fault: Fault,
    changes: Cell<usize>,
    /// The commands that were run.
    pub(super) commands: RefCell<Vec<String>>,
}

impl FaultyFiles {
    pub(super) fn new(inner: SystemTree, fault: Fault) -> Self {
        Self { inner, fault, changes: Cell::new(0), commands: RefCell::default() }
    }

    /// How many changes were asked for.
    pub(super) fn changes(&self) -> usize {
        self.changes.get()
    }

    fn change(&self, path: &str) -> io::Result<()> {
        let number = self.changes.get();
        self.changes.set(number + 1);
        let is_of_disk = || {
            let number = path.strip_prefix("/proc/irq/").and_then(|path| path.split('/').next());
            let lines = self.inner.read("/proc/interrupts").unwrap_or_default();
            number.is_some_and(|number| {
                lines.lines().any(|line| {
                    line.trim_start().starts_with(&format!("{number}:"))
                        && line.contains("nvme")
                        && !line.ends_with("q0")
                })
            })
        };
        match self.fault {
            Fault::PowerCut(limit) if number >= limit => Err(io::Error::other("no power")),
            Fault::Refusal(refused) if number == refused => {
                Err(io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()))
            }
            Fault::BoundInterrupts if is_of_disk() => {
                Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()))
            }
            _ => Ok(()),
        }
    }
}

impl SystemFiles for FaultyFiles {
    fn read(&self, path: &str) -> io::Result<String> {
        self.inner.read(path)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.inner.list(path)
    }

    fn resolve(&self, path: &str) -> io::Result<String> {
        self.inner.resolve(path)
    }

    fn check_writable(&self, path: &str) -> io::Result<()> {
        if self.fault == Fault::ReadOnly {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.inner.check_writable(path)
    }

    fn put(&self, path: &str, value: &str, shown: &str) -> io::Result<()> {
        self.change(path)?;
        self.inner.put(path, value, shown)
    }

    fn write_file(&self, path: &str, content: &str) -> io::Result<()> {
        self.change(path)?;
        self.inner.write_file(path, content)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(to)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.change(path)?;
        self.inner.remove(path)
    }

    fn run(&self, command: &str) -> io::Result<()> {
        self.change(command)?;
        if self.fault == Fault::NoPrograms {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.commands.borrow_mut().push(command.to_owned());
        Ok(())
    }
}
