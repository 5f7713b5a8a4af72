//! An [`Env`] in memory for this module's tests: every request is ready at once, and one of them
//! can be made to fail or to be the last before a crash.
//!
//! A crash keeps what was flushed. Each write and growth since then survives or not, each by
//! itself; of a write each 512-byte sector may survive by itself, or hold garbage. Each change of a
//! name that was not flushed with its directory survives or not.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, pending, ready};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use larder_runtime::buffer::Buffer;
use larder_runtime::env::{
    DISK_ALIGNMENT, DirectoryEntry, Env, File, IoClass, OpenMode, TaskQueue,
};

const SECTOR_BYTES: usize = 512;

/// What happens at the chosen operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It may take effect, and neither it nor any later one succeeds.
    Crash,
    /// It has no effect and fails; later ones succeed.
    Error,
    /// It takes effect and never completes; only writes, flushes and growth of files can.
    Hang,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Grow { len: usize },
}

#[derive(Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum NameChange {
    Add(PathBuf, usize),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    names_durable: BTreeMap<PathBuf, usize>,
    name_changes: Vec<NameChange>,
    directories: BTreeSet<PathBuf>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    /// The operation under way never completes.
    hanging: bool,
}

/// Whether an operation that the fault concerns takes effect, and how it ends.
enum Verdict {
    Succeeds,
    Hangs,
    FailsAfterEffect,
    FailsWithout,
}

impl Verdict {
    fn has_effect(&self) -> bool {
        !matches!(self, Self::FailsWithout)
    }

    fn result(&self) -> io::Result<()> {
        match self {
            Self::Succeeds | Self::Hangs => Ok(()),
            Self::FailsAfterEffect | Self::FailsWithout => Err(io::Error::other("injected fault")),
        }
    }
}

/// A small generator (SplitMix64), so that a seed decides what a crash leaves.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

impl Disk {
    fn operation(&mut self) -> Verdict {
        self.operations += 1;
        match self.fault {
            Some((at, Fault::Error)) if self.operations == at => Verdict::FailsWithout,
            Some((at, Fault::Hang)) if self.operations == at => {
                self.hanging = true;
                Verdict::Hangs
            }
            Some((at, Fault::Crash)) if self.operations == at => Verdict::FailsAfterEffect,
            Some((at, Fault::Crash)) if self.operations > at => Verdict::FailsWithout,
            _ => Verdict::Succeeds,
        }
    }

    fn change_name(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.name_changes.push(change);
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    match change {
        NameChange::Add(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        NameChange::Remove(path) => {
            names.remove(path);
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

impl NameChange {
    fn directory(&self) -> &Path {
        let (Self::Add(path, _) | Self::Remove(path) | Self::Rename(path, _)) = self;
        path.parent().expect("files are in directories")
    }
}

fn write_at(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    bytes.resize(bytes.len().max(end), 0);
    bytes[offset..end].copy_from_slice(data);
}

fn survive_crash(inode: &Inode, random: &mut Random) -> Vec<u8> {
    let mut bytes = inode.durable.clone();
    for change in &inode.unsynced {
        match (change, random.below(3)) {
            (_, 0) => {}
            (Change::Grow { len }, _) => bytes.resize(bytes.len().max(*len), 0),
            (Change::Write { offset, bytes: data }, 1) => write_at(&mut bytes, *offset, data),
            (Change::Write { offset, bytes: data }, _) => {
                for (index, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                    let at = offset + index * SECTOR_BYTES;
                    match random.below(8) {
                        0 => write_at(&mut bytes, at, &[random.next() as u8; SECTOR_BYTES]),
                        1..4 => write_at(&mut bytes, at, sector),
                        _ => {}
                    }
                }
            }
        }
    }
    bytes
}

/// A disk in memory.
#[derive(Clone, Default)]
pub(crate) struct MemoryEnv {
    disk: Rc<RefCell<Disk>>,
}

impl MemoryEnv {
    /// Makes the operation with this number, counted from 1, meet `fault`.
    pub(crate) fn inject(&self, operation: u64, fault: Fault) {
        self.disk.borrow_mut().fault = Some((operation, fault));
    }

    /// How many operations that change anything there have been.
    pub(crate) fn operations(&self) -> u64 {
        self.disk.borrow().operations
    }

    /// The disk as it may be found after a crash now.
    pub(crate) fn crash(&self, seed: u64) -> Self {
        let disk = self.disk.borrow();
        let mut random = Random(seed);
        let inodes = disk.inodes.iter().map(|inode| {
            let bytes = survive_crash(inode, &mut random);
            Inode { durable: bytes.clone(), bytes, unsynced: Vec::new() }
        });
        let inodes = inodes.collect();
        let mut names = disk.names_durable.clone();
        for change in &disk.name_changes {
            if random.below(2) == 0 {
                apply_name(&mut names, change);
            }
        }
        let directories = disk.directories.clone();
        let disk =
            Disk { inodes, names_durable: names.clone(), names, directories, ..Disk::default() };
        Self { disk: Rc::new(RefCell::new(disk)) }
    }

    /// A copy of the disk with everything on it durable.
    pub(crate) fn duplicate(&self) -> Self {
        let disk = self.disk.borrow();
        let inodes = disk.inodes.iter().map(|inode| Inode {
            bytes: inode.bytes.clone(),
            durable: inode.bytes.clone(),
            unsynced: Vec::new(),
        });
        let disk = Disk {
            inodes: inodes.collect(),
            names: disk.names.clone(),
            names_durable: disk.names.clone(),
            directories: disk.directories.clone(),
            ..Disk::default()
        };
        Self { disk: Rc::new(RefCell::new(disk)) }
    }

    /// The file names, without their directory.
    pub(crate) fn names(&self) -> Vec<String> {
        let disk = self.disk.borrow();
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        disk.names.keys().map(name).collect()
    }

    /// The contents of a file.
    pub(crate) fn contents(&self, path: &Path) -> Vec<u8> {
        let disk = self.disk.borrow();
        disk.inodes[disk.names[path]].bytes.clone()
    }

    /// Replaces a file behind the program's back, durably.
    pub(crate) fn plant(&self, path: &Path, bytes: &[u8]) {
        let mut disk = self.disk.borrow_mut();
        let inode = Inode { bytes: bytes.to_vec(), durable: bytes.to_vec(), unsynced: vec![] };
        disk.inodes.push(inode);
        let index = disk.inodes.len() - 1;
        disk.names.insert(path.to_path_buf(), index);
        disk.names_durable.insert(path.to_path_buf(), index);
        disk.directories.insert(path.parent().unwrap().to_path_buf());
    }
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Env for MemoryEnv {
    type File = MemoryFile;

    fn now(&self) -> u64 {
        self.operations()
    }

    fn unix_seconds(&self) -> u64 {
        self.operations()
    }

    fn random(&self) -> u64 {
        Random(self.operations()).next()
    }

    fn spawn(&self, _queue: TaskQueue, future: impl Future<Output = ()> + 'static) {
        futures_lite::future::block_on(future);
    }

    fn sleep(&self, _nanoseconds: u64) -> impl Future<Output = ()> + 'static {
        ready(())
    }

    fn yield_if_needed(&self) -> impl Future<Output = ()> + 'static {
        ready(())
    }

    /// Full of garbage, as a recycled buffer may be.
    fn buffer(&self, len: usize) -> Buffer {
        let mut buffer = Buffer::zeroed(len);
        buffer.fill(0xA5);
        buffer
    }

    fn open(
        &self,
        path: &Path,
        mode: OpenMode,
    ) -> impl Future<Output = io::Result<MemoryFile>> + 'static {
        let mut disk = self.disk.borrow_mut();
        let inode = match (mode, disk.names.get(path).copied()) {
            (OpenMode::CreateNew, Some(_)) => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
            (OpenMode::CreateNew, None) => {
                let verdict = disk.operation();
                let inode = disk.inodes.len();
                if verdict.has_effect() {
                    disk.inodes.push(Inode::default());
                    disk.change_name(NameChange::Add(path.to_path_buf(), inode));
                }
                verdict.result().map(|()| inode)
            }
            (_, Some(inode)) => Ok(inode),
            (_, None) => Err(missing()),
        };
        ready(inode.map(|inode| MemoryFile { disk: self.disk.clone(), inode }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let disk = self.disk.borrow();
        if !disk.directories.contains(directory) {
            return Err(missing());
        }
        let inside = disk.names.iter().filter(|(path, _)| path.parent() == Some(directory));
        let entries = inside.map(|(path, &inode)| DirectoryEntry {
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            len: disk.inodes[inode].bytes.len() as u64,
            is_directory: false,
        });
        Ok(entries.collect())
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        let mut disk = self.disk.borrow_mut();
        let verdict = disk.operation();
        if verdict.has_effect() {
            disk.directories.insert(directory.to_path_buf());
        }
        verdict.result()
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let mut disk = self.disk.borrow_mut();
        assert!(disk.names.contains_key(from), "{} is renamed but missing", from.display());
        let verdict = disk.operation();
        if verdict.has_effect() {
            disk.change_name(NameChange::Rename(from.to_path_buf(), to.to_path_buf()));
        }
        ready(verdict.result())
    }

    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let mut disk = self.disk.borrow_mut();
        assert!(disk.names.contains_key(path), "{} is removed but missing", path.display());
        let verdict = disk.operation();
        if verdict.has_effect() {
            disk.change_name(NameChange::Remove(path.to_path_buf()));
        }
        ready(verdict.result())
    }

    fn sync_directory(&self, directory: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let mut disk = self.disk.borrow_mut();
        let verdict = disk.operation();
        if matches!(verdict, Verdict::Succeeds) {
            let changes = std::mem::take(&mut disk.name_changes);
            for change in changes {
                if change.directory() == directory {
                    apply_name(&mut disk.names_durable, &change);
                } else {
                    disk.name_changes.push(change);
                }
            }
        }
        ready(verdict.result())
    }

    fn free_space(&self, _directory: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

/// A file of a [`MemoryEnv`].
#[derive(Clone)]
pub(crate) struct MemoryFile {
    disk: Rc<RefCell<Disk>>,
    inode: usize,
}

impl MemoryFile {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut disk = self.disk.borrow_mut();
        let verdict = disk.operation();
        if verdict.has_effect() {
            let inode = &mut disk.inodes[self.inode];
            match &change {
                Change::Write { offset, bytes } => write_at(&mut inode.bytes, *offset, bytes),
                Change::Grow { len } => inode.bytes.resize(inode.bytes.len().max(*len), 0),
            }
            inode.unsynced.push(change);
        }
        verdict.result()
    }

    /// Resolves to `value`, or never if the operation just made is to hang.
    fn complete<T: 'static>(&self, value: T) -> impl Future<Output = T> + 'static {
        let hangs = std::mem::take(&mut self.disk.borrow_mut().hanging);
        async move {
            if hangs {
                pending::<()>().await;
            }
            value
        }
    }

    fn flush(&self) -> io::Result<()> {
        let mut disk = self.disk.borrow_mut();
        let verdict = disk.operation();
        if matches!(verdict, Verdict::Succeeds) {
            let inode = &mut disk.inodes[self.inode];
            inode.durable = inode.bytes.clone();
            inode.unsynced.clear();
        }
        verdict.result()
    }

    fn write_now(&self, offset: u64, buffer: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        assert!(offset.is_multiple_of(DISK_ALIGNMENT), "unaligned offset {offset}");
        assert!(buffer.len().is_multiple_of(DISK_ALIGNMENT), "unaligned length {}", buffer.len());
        self.change(Change::Write { offset, bytes: buffer.to_vec() })
    }
}

impl File for MemoryFile {
    fn read(
        &self,
        _class: IoClass,
        offset: u64,
        mut buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        let offset = usize::try_from(offset).unwrap();
        assert!(offset.is_multiple_of(DISK_ALIGNMENT), "unaligned offset {offset}");
        assert!(buffer.len().is_multiple_of(DISK_ALIGNMENT), "unaligned length {}", buffer.len());
        let disk = self.disk.borrow();
        let len = buffer.len();
        match disk.inodes[self.inode].bytes.get(offset..offset + len) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                ready((Ok(()), buffer))
            }
            None => ready((Err(io::Error::from(io::ErrorKind::UnexpectedEof)), buffer)),
        }
    }

    fn write(
        &self,
        _class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        let result = self.write_now(offset, &buffer);
        self.complete((result, buffer))
    }

    fn write_durably(
        &self,
        _class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        let result = self.write_now(offset, &buffer).and_then(|()| self.flush());
        self.complete((result, buffer))
    }

    fn sync(&self, _class: IoClass) -> impl Future<Output = io::Result<()>> + 'static {
        let result = self.flush();
        self.complete(result)
    }

    fn allocate(&self, len: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let result = self.change(Change::Grow { len: usize::try_from(len).unwrap() });
        self.complete(result)
    }

    fn len(&self) -> u64 {
        self.disk.borrow().inodes[self.inode].bytes.len() as u64
    }
}
