//! The smallest environment for tests: files in memory, every request ready at once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use larder_runtime::buffer::Buffer;
use larder_runtime::env::{DirectoryEntry, Env, File, IoClass, OpenMode, TaskQueue};

/// Clones share the files.
#[derive(Clone, Default)]
pub(crate) struct MemoryEnv {
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    files: RefCell<BTreeMap<PathBuf, Rc<RefCell<Vec<u8>>>>>,
    reads: Cell<u64>,
    /// Writes and syncs that still succeed; all of them when `None`.
    writes_left: Cell<Option<u64>>,
    turns: Cell<u64>,
}

impl MemoryEnv {
    /// The contents of a file.
    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        self.state.files.borrow()[path].borrow().clone()
    }

    /// Changes one byte of a file.
    pub(crate) fn flip(&self, path: &Path, at: usize, mask: u8) {
        self.state.files.borrow()[path].borrow_mut()[at] ^= mask;
    }

    /// Replaces a file's contents.
    pub(crate) fn replace(&self, path: &Path, bytes: Vec<u8>) {
        *self.state.files.borrow()[path].borrow_mut() = bytes;
    }

    /// The names of all files.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.state.files.borrow().keys().cloned().collect()
    }

    /// The number of reads so far.
    pub(crate) fn reads(&self) -> u64 {
        self.state.reads.get()
    }

    /// The number of times a task offered to give the core back.
    pub(crate) fn turns(&self) -> u64 {
        self.state.turns.get()
    }

    /// Lets `count` more writes and syncs succeed.
    pub(crate) fn fail_writes_after(&self, count: Option<u64>) {
        self.state.writes_left.set(count);
    }

    fn take_write(&self) -> io::Result<()> {
        match self.state.writes_left.get() {
            Some(0) => Err(io::Error::other("injected")),
            Some(left) => {
                self.state.writes_left.set(Some(left - 1));
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Env for MemoryEnv {
    type File = MemoryFile;

    fn now(&self) -> u64 {
        0
    }

    fn unix_seconds(&self) -> u64 {
        0
    }

    fn random(&self) -> u64 {
        4
    }

    fn spawn(&self, _queue: TaskQueue, future: impl Future<Output = ()> + 'static) {
        futures_lite::future::block_on(future);
    }

    fn sleep(&self, _nanoseconds: u64) -> impl Future<Output = ()> + 'static {
        ready(())
    }

    fn yield_if_needed(&self) -> impl Future<Output = ()> + 'static {
        self.state.turns.set(self.state.turns.get() + 1);
        ready(())
    }

    /// Full of different bytes each time, so that what a writer forgot to fill shows.
    fn buffer(&self, len: usize) -> Buffer {
        let mut buffer = Buffer::zeroed(len);
        buffer.fill(self.state.reads.get() as u8 ^ 0xA5);
        buffer
    }

    fn open(
        &self,
        path: &Path,
        mode: OpenMode,
    ) -> impl Future<Output = io::Result<MemoryFile>> + 'static {
        let mut files = self.state.files.borrow_mut();
        let bytes = match (files.get(path), mode) {
            (None, OpenMode::CreateNew) => Ok(files.entry(path.to_owned()).or_default().clone()),
            (Some(_), OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(bytes), OpenMode::Read | OpenMode::ReadWrite) => Ok(bytes.clone()),
            (None, OpenMode::Read | OpenMode::ReadWrite) => Err(io::ErrorKind::NotFound.into()),
        };
        ready(bytes.map(|bytes| MemoryFile { env: self.clone(), bytes }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let files = self.state.files.borrow();
        let inside = files.iter().filter_map(|(path, bytes)| {
            let name = path.strip_prefix(directory).ok()?.to_string_lossy().into_owned();
            Some(DirectoryEntry { name, len: bytes.borrow().len() as u64, is_directory: false })
        });
        Ok(inside.collect())
    }

    fn create_directory(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let mut files = self.state.files.borrow_mut();
        let moved = files.remove(from).map(|bytes| files.insert(to.to_owned(), bytes));
        ready(moved.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into()))
    }

    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let removed = self.state.files.borrow_mut().remove(path);
        ready(removed.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into()))
    }

    fn sync_directory(&self, _directory: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        ready(Ok(()))
    }

    fn free_space(&self, _directory: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

/// Clones share the bytes.
#[derive(Clone)]
pub(crate) struct MemoryFile {
    env: MemoryEnv,
    bytes: Rc<RefCell<Vec<u8>>>,
}

impl File for MemoryFile {
    fn read(
        &self,
        _class: IoClass,
        offset: u64,
        mut buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        self.env.state.reads.set(self.env.reads() + 1);
        let bytes = self.bytes.borrow();
        let range = offset as usize..offset as usize + buffer.len();
        let result = match bytes.get(range) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        ready((result, buffer))
    }

    fn write(
        &self,
        _class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        let result = self.env.take_write().map(|()| {
            let mut bytes = self.bytes.borrow_mut();
            let end = offset as usize + buffer.len();
            let len = bytes.len().max(end);
            bytes.resize(len, 0);
            bytes[offset as usize..end].copy_from_slice(&buffer);
        });
        ready((result, buffer))
    }

    fn write_durably(
        &self,
        class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        self.write(class, offset, buffer)
    }

    fn sync(&self, _class: IoClass) -> impl Future<Output = io::Result<()>> + 'static {
        ready(self.env.take_write())
    }

    fn allocate(&self, len: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let mut bytes = self.bytes.borrow_mut();
        let len = bytes.len().max(len as usize);
        bytes.resize(len, 0);
        ready(Ok(()))
    }

    fn len(&self) -> u64 {
        self.bytes.borrow().len() as u64
    }
}
