//! A decorator of the seam: files whose descriptors are opened when they are needed, and of which
//! a bounded number is open at a time.
//!
//! A shard keeps a handle on every segment and table that it has, and a device holds far more of
//! them than a process may have descriptors. A [`CachedFile`] is a path and a length; it has a
//! descriptor while it is used and for as long afterwards as the bound allows. For room the file
//! that was used longest ago is closed.
//!
//! Invariants:
//! - At most `open_max` descriptors are open, those that are being opened included. A request whose
//!   future was dropped may keep one beyond that until the device has ended it.
//! - A descriptor with an operation in flight is not closed, and neither is one that was written
//!   through since its last sync: the kernel reports a lost write to the descriptors that are open.
//!   Where all others are in use such a file is synced first, and an error is kept for the handle's
//!   next sync, so that the bound can always be kept.
//! - A handle is never opened under a name that stands for another file: the names of those that
//!   are renamed or removed through this cache follow, or are gone ([`io::ErrorKind::NotFound`]).
//!   Opening a name and changing it wait for each other.
//!
//! The first opening happens in [`Env::open`], so that its errors show there and the length is
//! known. Errors of later ones show in the operation that needed the descriptor.

#![forbid(unsafe_code)]

mod handle;
mod names;
mod recency;
mod room;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::path::Path;
use std::rc::Rc;

use crate::buffer::Buffer;
use crate::env::{DirectoryEntry, Env, OpenMode, TaskQueue};
pub use handle::CachedFile;
use handle::Handle;
use names::Names;
use room::Room;

/// What a [`FileCache`] has done and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileCacheCounters {
    /// The bound.
    pub open_max: usize,
    /// Descriptors that are open or being opened.
    pub open: usize,
    /// Files that have a handle, with a descriptor or without.
    pub handles: usize,
    /// Descriptors opened so far.
    pub opens: u64,
    /// Descriptors closed so far to make room for others.
    pub evictions: u64,
    /// Openings that had to wait for room.
    pub waits: u64,
    /// Files synced so that their descriptor could be closed.
    pub syncs: u64,
}

/// An instance of the seam with a bounded number of open files. Clones share the bound.
pub struct FileCache<E: Env> {
    shared: Rc<Shared<E>>,
}

/// What the cache and its handles share.
struct Shared<E: Env> {
    env: E,
    /// Nothing that could come back here (files, handles, wakers) is dropped or called while this
    /// is borrowed.
    state: RefCell<State<E>>,
}

struct State<E: Env> {
    room: Room<E>,
    names: Names<E>,
}

impl<E: Env> FileCache<E> {
    /// Files of `env`, of which at most `open_max` are open, and at least one.
    pub fn new(env: E, open_max: usize) -> Self {
        let state = State { room: Room::new(open_max.max(1)), names: Names::new() };
        Self { shared: Rc::new(Shared { env, state: RefCell::new(state) }) }
    }

    /// The instance that this one decorates.
    pub fn inner(&self) -> &E {
        &self.shared.env
    }

    /// What it has done and holds.
    pub fn counters(&self) -> FileCacheCounters {
        let state = self.shared.state.borrow();
        FileCacheCounters { handles: state.names.handles(), ..state.room.counters() }
    }
}

impl<E: Env> Clone for FileCache<E> {
    fn clone(&self) -> Self {
        Self { shared: Rc::clone(&self.shared) }
    }
}

impl<E: Env> std::fmt::Debug for FileCache<E> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "FileCache({:?})", self.counters())
    }
}

impl<E: Env> Env for FileCache<E> {
    type File = CachedFile<E>;

    #[inline]
    fn now(&self) -> u64 {
        self.shared.env.now()
    }

    fn unix_seconds(&self) -> u64 {
        self.shared.env.unix_seconds()
    }

    fn random(&self) -> u64 {
        self.shared.env.random()
    }

    fn spawn(&self, queue: TaskQueue, future: impl Future<Output = ()> + 'static) {
        self.shared.env.spawn(queue, future);
    }

    fn set_urgency(&self, claimant: u16, queue: TaskQueue, urgency: u32) {
        self.shared.env.set_urgency(claimant, queue, urgency);
    }

    fn sleep(&self, nanoseconds: u64) -> impl Future<Output = ()> + 'static {
        self.shared.env.sleep(nanoseconds)
    }

    fn yield_if_needed(&self) -> impl Future<Output = ()> + 'static {
        self.shared.env.yield_if_needed()
    }

    fn buffer(&self, len: usize) -> Buffer {
        self.shared.env.buffer(len)
    }

    fn open(
        &self,
        path: &Path,
        mode: OpenMode,
    ) -> impl Future<Output = io::Result<CachedFile<E>>> + 'static {
        let handle = Handle::new(&self.shared, path, mode);
        async move {
            let file = CachedFile::new(handle);
            file.first_opened().await.map(|()| file)
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        self.shared.env.list(directory)
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        self.shared.env.create_directory(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        names::rename(Rc::clone(&self.shared), from.to_path_buf(), to.to_path_buf())
    }

    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        names::remove(Rc::clone(&self.shared), path.to_path_buf())
    }

    fn sync_directory(&self, directory: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        self.shared.env.sync_directory(directory)
    }

    fn free_space(&self, directory: &Path) -> io::Result<u64> {
        self.shared.env.free_space(directory)
    }
}
