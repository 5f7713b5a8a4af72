//! The seam: everything that a test wants to control reaches the engine through [`Env`].
//!
//! Disk, clock, random numbers and task spawning come in through one narrow trait family. The ring
//! (production) and the simulation (tests) are its instances; the engine is generic over it and
//! never calls the operating system. An `Env` is a cheap handle that belongs to one thread: clones
//! share the same core, and neither it nor its futures are `Send`.

use std::future::Future;
use std::io;
use std::path::Path;

use crate::buffer::Buffer;

/// Which of the core's weighted queues a task runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TaskQueue {
    /// Work that a client waits for.
    Foreground = 0,
    /// Writing a frozen memtable out.
    Flush = 1,
    /// Merging SSTables.
    Compaction = 2,
    /// Moving live records out of mostly dead segments.
    GarbageCollection = 3,
    /// Range reads.
    Scan = 4,
    /// Preparing segments, trimming the manifest, statistics.
    Maintenance = 5,
}

/// The number of task queues.
pub const TASK_QUEUES: usize = 6;

impl TaskQueue {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; TASK_QUEUES] = [
        Self::Foreground,
        Self::Flush,
        Self::Compaction,
        Self::GarbageCollection,
        Self::Scan,
        Self::Maintenance,
    ];

    /// What it is called in metrics and in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Foreground => "foreground",
            Self::Flush => "flush",
            Self::Compaction => "compaction",
            Self::GarbageCollection => "garbage_collection",
            Self::Scan => "scan",
            Self::Maintenance => "maintenance",
        }
    }

    /// The class of the disk requests of its tasks, where nearly all of them have the same.
    pub const fn io_class(self) -> Option<IoClass> {
        match self {
            Self::Flush => Some(IoClass::Flush),
            Self::Compaction => Some(IoClass::Compaction),
            Self::GarbageCollection => Some(IoClass::GarbageCollection),
            Self::Foreground | Self::Scan | Self::Maintenance => None,
        }
    }
}

/// Which class of the core's I/O queue a disk request is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum IoClass {
    /// Group commits, and edits of the manifest that they may have to wait for: a client waits for
    /// the flush that follows.
    Commit = 0,
    /// A read that a client waits for.
    Read = 1,
    /// Range reads.
    Scan = 2,
    /// Writing a frozen memtable out.
    Flush = 3,
    /// Reads and writes of compaction.
    Compaction = 4,
    /// Reads and writes of garbage collection.
    GarbageCollection = 5,
    /// Verification, segment preparation and other work nobody waits for.
    Scrub = 6,
}

/// The number of I/O classes.
pub const IO_CLASSES: usize = 7;

impl IoClass {
    /// All classes, in the order of their numbers.
    pub const ALL: [Self; IO_CLASSES] = [
        Self::Commit,
        Self::Read,
        Self::Scan,
        Self::Flush,
        Self::Compaction,
        Self::GarbageCollection,
        Self::Scrub,
    ];

    /// The class of this name.
    ///
    /// # Errors
    /// That there is none, and which there are.
    pub fn named(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|class| class.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("there is no class `{name}`; there are {names}")
        })
    }

    /// What options, metrics and reports call the class.
    pub fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Read => "read",
            Self::Scan => "scan",
            Self::Flush => "flush",
            Self::Compaction => "compaction",
            Self::GarbageCollection => "garbage_collection",
            Self::Scrub => "scrub",
        }
    }
}

/// What must be true of a file when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// The file exists; it is opened for reading only.
    Read,
    /// The file exists; it is opened for reading and writing.
    ReadWrite,
    /// The file must not exist; it is created for reading and writing.
    CreateNew,
}

/// One entry of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirectoryEntry {
    /// The entry's name, without its directory. Names that are not UTF-8 are converted lossily.
    pub name: String,
    /// The file's length in bytes; 0 for a directory.
    pub len: u64,
    /// Whether the entry is a directory.
    pub is_directory: bool,
}

/// Offsets and lengths of every disk request are multiples of this many bytes.
///
/// 4 KiB is the physical sector of the devices this node is for and a multiple of every logical
/// sector size; an instance refuses to open a file whose device asks for more.
pub const DISK_ALIGNMENT: usize = 4096;

/// One core's view of the world.
pub trait Env: Clone + 'static {
    /// The open files of this instance.
    type File: File;

    /// Monotonic time in nanoseconds since an arbitrary origin. Cheap: read once per turn.
    fn now(&self) -> u64;

    /// Wall-clock time in whole seconds since the Unix epoch.
    fn unix_seconds(&self) -> u64;

    /// A random number; in the simulation a function of the seed.
    fn random(&self) -> u64;

    /// Starts `future` in `queue`. It runs until it ends or the core shuts down.
    fn spawn(&self, queue: TaskQueue, future: impl Future<Output = ()> + 'static);

    /// Says how urgent `claimant`'s work of a queue is, in thousandths of the usual shares, from
    /// [`URGENCY_USUAL`](crate::urgency::URGENCY_USUAL) to
    /// [`URGENCY_MAX`](crate::urgency::URGENCY_MAX). From now on the queue, and the class of its
    /// disk requests, gets so much more where others want the core or the disk as well. Of several
    /// claimants of a core (its shards, by their numbers) the neediest decides.
    fn set_urgency(&self, claimant: u16, queue: TaskQueue, urgency: u32);

    /// Completes after at least `nanoseconds`.
    fn sleep(&self, nanoseconds: u64) -> impl Future<Output = ()> + 'static;

    /// Gives the core back if the running task has used up its quantum; otherwise does nothing.
    ///
    /// Background loops call this once per block or record.
    fn yield_if_needed(&self) -> impl Future<Output = ()> + 'static;

    /// A buffer of `len` bytes whose address is a multiple of [`DISK_ALIGNMENT`].
    ///
    /// Its contents are unspecified: a recycled buffer holds what it held before, so a writer
    /// fills every byte that it writes out.
    fn buffer(&self, len: usize) -> Buffer;

    /// Opens a file for direct I/O (buffered where the file system has none).
    ///
    /// A file made by [`OpenMode::CreateNew`] survives a crash only after
    /// [`Env::sync_directory`] on its directory.
    fn open(
        &self,
        path: &Path,
        mode: OpenMode,
    ) -> impl Future<Output = io::Result<Self::File>> + 'static;

    /// The entries of a directory, sorted by name.
    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>>;

    /// Creates a directory and its missing parents; succeeds if it exists.
    fn create_directory(&self, directory: &Path) -> io::Result<()>;

    /// Renames a file within one directory, replacing the target. Durable only after
    /// [`Env::sync_directory`].
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static;

    /// Removes a file. Durable only after [`Env::sync_directory`].
    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static;

    /// Makes the names in `directory` durable.
    fn sync_directory(&self, directory: &Path) -> impl Future<Output = io::Result<()>> + 'static;

    /// Bytes that files under `directory` may still grow by before the file system is full.
    fn free_space(&self, directory: &Path) -> io::Result<u64>;
}

/// An open file. Clones share the same descriptor, which is closed with the last of them.
///
/// A buffer is moved into each request and comes back with the result, so that a request whose
/// future is dropped can keep the memory until the device is done with it.
pub trait File: Clone + 'static {
    /// Fills `buffer` from `offset`, which is a multiple of [`DISK_ALIGNMENT`], as is the length.
    ///
    /// Bytes past the end of the file are an [`io::ErrorKind::UnexpectedEof`] error. Short reads
    /// are continued inside.
    fn read(
        &self,
        class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static;

    /// Writes all of `buffer` at `offset`; both aligned as for [`File::read`].
    ///
    /// When it resolves the bytes are visible to later reads, and durable only after a
    /// [`File::sync`] that was started after it resolved.
    fn write(
        &self,
        class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static;

    /// Writes all of `buffer` at `offset` and then flushes the device.
    ///
    /// When it resolves with `Ok` these bytes are durable.
    fn write_durably(
        &self,
        class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static;

    /// Flushes every write of this file that had resolved when this was called (`fdatasync`).
    ///
    /// An error is final: the kernel may have dropped the data, so it is never retried.
    fn sync(&self, class: IoClass) -> impl Future<Output = io::Result<()>> + 'static;

    /// Reserves space so that the file is at least `len` bytes long and writes below that cannot
    /// run out of space. New bytes read as zero.
    fn allocate(&self, len: u64) -> impl Future<Output = io::Result<()>> + 'static;

    /// The file's length in bytes, as known to this handle.
    fn len(&self) -> u64;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
