//! The files of a system: `/sys`, `/proc` and `/etc`, or a tree of files that stands for them.
//!
//! This is the one place of the crate that touches files. Paths are those of the system
//! (`/sys/...`), wherever its root is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::Access;

mod links;

/// The longest file that is read, in bytes; `/proc/interrupts` of a large machine has a few MB.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// The most entries of a directory.
const ENTRIES_MAX: usize = 1 << 16;

/// What is done to the files of a system. Each call is one step that a crash may come after.
pub trait SystemFiles {
    /// What a file says.
    ///
    /// # Errors
    /// As the operating system says; also if the file is no text, or longer than any that is known.
    fn read(&self, path: &str) -> io::Result<String>;

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// As the operating system says.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;

    /// The path without symbolic links.
    ///
    /// # Errors
    /// As the operating system says; also if it leads out of the system.
    fn resolve(&self, path: &str) -> io::Result<String>;

    /// Whether the file can be written, or made, without doing it.
    ///
    /// # Errors
    /// Why not.
    fn check_writable(&self, path: &str) -> io::Result<()>;

    /// Gives a setting of the kernel a value. `shown` is what the file says afterwards: where the
    /// files are plain ones, nobody but this makes them say so.
    ///
    /// # Errors
    /// As the operating system says.
    fn put(&self, path: &str, value: &str, shown: &str) -> io::Result<()>;

    /// Writes a new file, and has it durable; directories above it are made.
    ///
    /// # Errors
    /// As the operating system says.
    fn write_file(&self, path: &str, content: &str) -> io::Result<()>;

    /// Gives a file another name, durably.
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file, durably. One that is not there is removed already.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Runs a command of the system, if these are the files of a running one.
    ///
    /// # Errors
    /// If it cannot be run, or fails.
    fn run(&self, command: &str) -> io::Result<()>;

    /// Gives a file another content: after a crash it has the old or the new one.
    ///
    /// # Errors
    /// As the operating system says.
    fn replace(&self, path: &str, content: &str) -> io::Result<()> {
        let new = unfinished_name(path);
        self.write_file(&new, content)?;
        self.rename(&new, path)
    }
}

/// The name of a file's new content until it is whole.
pub(crate) fn unfinished_name(path: &str) -> String {
    format!("{path}.larder-new")
}

/// The files below a directory.
#[derive(Clone, Debug)]
pub struct SystemTree {
    root: PathBuf,
    is_running: bool,
}

impl SystemTree {
    /// The system whose root is this directory; `/` is the running one.
    ///
    /// # Errors
    /// If it is no directory.
    pub fn new(root: &Path) -> io::Result<Self> {
        let root = fs::canonicalize(root)?;
        if !root.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        let is_running = root == Path::new("/");
        Ok(Self { root, is_running })
    }

    /// Whether these are the files of the running system.
    pub fn is_running(&self) -> bool {
        self.is_running
    }

    /// Where a file of the system is. Links are followed: by the kernel where the system is the
    /// running one, and otherwise here, so that none leads out of the root.
    ///
    /// # Errors
    /// If there are too many links, or a part of the path cannot be looked at.
    pub fn path_of(&self, path: &str) -> io::Result<PathBuf> {
        if self.is_running {
            return Ok(self.root.join(path.trim_start_matches('/')));
        }
        links::resolved(&self.root, Path::new(path))
    }

    /// Where a file is that gets a new content under its own name, or loses its name: a link of
    /// that name is not followed.
    ///
    /// # Errors
    /// As [`SystemTree::path_of`] says.
    pub fn name_of(&self, path: &str) -> io::Result<PathBuf> {
        let (folder, name) = path.rsplit_once('/').ok_or(ErrorKind::InvalidInput)?;
        Ok(self.path_of(folder)?.join(name))
    }

    /// The path of a directory that an option names, as the system's mounts would.
    pub fn directory_named(&self, directory: &Path) -> PathBuf {
        if !self.is_running {
            let inside = links::resolved(&self.root, directory).ok();
            let inside = inside.as_ref().and_then(|path| path.strip_prefix(&self.root).ok());
            return Path::new("/").join(inside.unwrap_or(directory));
        }
        let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        // One that is not made yet is where the nearest directory above it is.
        let existing =
            absolute.ancestors().find_map(|path| Some((path, path.canonicalize().ok()?)));
        existing.map_or(absolute.clone(), |(path, resolved)| {
            let rest = absolute.strip_prefix(path).unwrap_or(Path::new(""));
            if rest.as_os_str().is_empty() { resolved } else { resolved.join(rest) }
        })
    }

    /// Keeps others from what is done to a directory's files until the lock is dropped; `None` if
    /// there can be no such directory, so that nobody can do anything to them.
    ///
    /// # Errors
    /// If somebody else has it.
    #[allow(clippy::disallowed_methods, reason = "settings of the kernel are not the node's files")]
    pub(crate) fn lock(&self, directory: &str) -> io::Result<Option<File>> {
        let Ok(directory) = self.path_of(directory) else { return Ok(None) };
        if fs::create_dir_all(&directory).is_err() {
            return Ok(None);
        }
        let lock = open(&directory)?;
        lock.try_lock()?;
        Ok(Some(lock))
    }

    fn sync_parent(path: &Path) -> io::Result<()> {
        let parent = path.parent().ok_or(ErrorKind::InvalidInput)?;
        open(parent)?.sync_all()
    }
}

#[allow(clippy::disallowed_methods, reason = "settings of the kernel are not the node's files")]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[allow(clippy::disallowed_methods, reason = "as above")]
fn open_for_writing(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

/// Makes a file anew: what has its name already, a link too, is not written to.
#[allow(clippy::disallowed_methods, reason = "as above")]
fn make_anew(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).open(path)
}

#[allow(clippy::disallowed_methods, reason = "as above")]
impl SystemFiles for SystemTree {
    fn read(&self, path: &str) -> io::Result<String> {
        let mut text = String::new();
        open(&self.path_of(path)?)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::FileTooLarge, "longer than 32 MiB"));
        }
        Ok(text)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path_of(path)?)?.take(ENTRIES_MAX) {
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn resolve(&self, path: &str) -> io::Result<String> {
        let resolved = fs::canonicalize(self.path_of(path)?)?;
        let inside = resolved.strip_prefix(&self.root).ok().and_then(Path::to_str);
        let outside = || io::Error::new(ErrorKind::InvalidInput, "it leads out of the system");
        inside.map(|inside| format!("/{inside}")).ok_or_else(outside)
    }

    fn check_writable(&self, path: &str) -> io::Result<()> {
        let path = self.path_of(path)?;
        if path.exists() {
            // A setting that the kernel takes from nobody may look writable to who is root.
            open_for_writing(&path)?;
        }
        let is_setting = path.starts_with("/sys") || path.starts_with("/proc");
        if self.is_running && is_setting {
            return Ok(());
        }
        let parent = path.ancestors().skip(1).find(|parent| parent.exists());
        let parent = parent.ok_or(ErrorKind::NotFound)?;
        rustix::fs::access(parent, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from)
    }

    fn put(&self, path: &str, value: &str, shown: &str) -> io::Result<()> {
        let path = self.path_of(path)?;
        let mut file = open_for_writing(&path)?;
        if self.is_running {
            return file.write_all(value.as_bytes());
        }
        file.set_len(0)?;
        file.write_all(shown.as_bytes())
    }

    fn write_file(&self, path: &str, content: &str) -> io::Result<()> {
        let path = self.name_of(path)?;
        fs::create_dir_all(path.parent().ok_or(ErrorKind::InvalidInput)?)?;
        let mut file = make_anew(&path)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let replaced = fs::metadata(self.path_of(to)?);
        let (from, to) = (self.name_of(from)?, self.name_of(to)?);
        if let Ok(replaced) = replaced {
            fs::set_permissions(&from, replaced.permissions())?;
        }
        fs::rename(&from, &to)?;
        Self::sync_parent(&to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let path = self.name_of(path)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Self::sync_parent(&path),
        }
    }

    fn run(&self, command: &str) -> io::Result<()> {
        if !self.is_running {
            return Ok(());
        }
        let mut words = command.split(' ');
        let program = words.next().ok_or(ErrorKind::InvalidInput)?;
        let wrong = |why: String| io::Error::other(format!("`{command}` {why}"));
        let started = Command::new(program).args(words).stdin(Stdio::null()).status();
        let status = started.map_err(|error| wrong(format!("cannot be run: {error}")))?;
        if status.success() { Ok(()) } else { Err(wrong(format!("ended with {status}"))) }
    }
}

/// The longest options file or CPU plan, in bytes.
const SMALL_FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads a file that people write.
pub(crate) fn read_small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.take(SMALL_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SMALL_FILE_BYTES_MAX {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "longer than 1 MiB"));
    }
    Ok(text)
}
