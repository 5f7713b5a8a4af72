//! The simulated disk: a file system, of which one part is durable and the rest is not yet.
//!
//! Every file and directory is kept twice: as reads see it (`current`) and as it is sure to
//! survive a power failure (`durable`), with the list of changes that lie between (`pending`).
//! Invariant: `current` is `durable` with all of `pending` applied in order, unless a sync failed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};
use std::rc::Rc;

use super::content::{Content, PAGE, Page};
use crate::env::DirectoryEntry;

pub(super) type NodeId = u64;
pub(super) const ROOT: NodeId = 0;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    File(NodeId),
    Directory(NodeId),
}

pub(super) type Entries = BTreeMap<String, Entry>;

/// A change to a file.
#[derive(Clone)]
pub(super) enum FileChange {
    /// These pages, from page number `first` on.
    Write { first: u64, pages: Rc<[Page]> },
    /// The file is at least `len` bytes long, with space reserved for them if `reserve`.
    Length { len: u64, reserve: bool },
}

impl FileChange {
    pub(super) fn apply(&self, content: &mut Content) {
        match self {
            Self::Write { first, pages } => {
                for (index, page) in (*first..).zip(pages.iter()) {
                    content.put(index, page.clone());
                }
            }
            Self::Length { len, reserve } => content.extend(*len, *reserve),
        }
    }
}

/// A change to a directory.
#[derive(Clone, Debug)]
pub(super) enum DirectoryChange {
    Link { name: String, entry: Entry },
    Rename { from: String, to: String },
    Unlink { name: String },
}

impl DirectoryChange {
    /// Applies the change as far as it makes sense, and returns the entry that lost its name.
    pub(super) fn apply(&self, entries: &mut Entries) -> Option<Entry> {
        match self {
            Self::Link { name, entry } => entries.insert(name.clone(), *entry),
            Self::Rename { from, to } if from == to => None,
            Self::Rename { from, to } => {
                let entry = entries.remove(from)?;
                entries.insert(to.clone(), entry)
            }
            Self::Unlink { name } => entries.remove(name),
        }
    }
}

/// A change that has been submitted and not yet resolved.
#[derive(Clone)]
pub(super) enum InFlight {
    File(NodeId, FileChange),
    Directory(NodeId, DirectoryChange),
}

#[derive(Clone, Default)]
pub(super) struct FileNode {
    pub(super) current: Content,
    pub(super) durable: Content,
    /// With the sequence number at which each resolved.
    pub(super) pending: Vec<(u64, FileChange)>,
    /// Sectors (of `SECTOR` bytes) that cannot be read.
    pub(super) bad_sectors: BTreeSet<u64>,
    links: u32,
    handles: u32,
}

impl FileNode {
    /// A file at rest that has a name: all that it has is durable.
    pub(super) fn at_rest(content: Content, bad_sectors: BTreeSet<u64>) -> Self {
        let current = content.clone();
        Self { current, durable: content, bad_sectors, links: 1, ..Self::default() }
    }

    fn space(&self) -> u64 {
        let is_alive = self.links > 0 || self.handles > 0;
        if is_alive { self.current.charged_pages() } else { 0 }
    }
}

#[derive(Clone, Default)]
pub(super) struct DirectoryNode {
    pub(super) current: Entries,
    pub(super) durable: Entries,
    pub(super) pending: Vec<(u64, DirectoryChange)>,
}

/// A simulated disk with its file system.
///
/// A clone is an independent copy; both share the pages that neither has changed since, so a copy
/// costs about as much as there are files. Paths are taken from the root whether or not they begin
/// with a slash.
///
/// In this model a directory is a name in its parent like any file: one that was created survives
/// a crash only after [`Env::sync_directory`](crate::env::Env::sync_directory) on the parent.
#[derive(Clone)]
pub struct SimDisk {
    pub(super) files: BTreeMap<NodeId, Rc<FileNode>>,
    pub(super) directories: BTreeMap<NodeId, Rc<DirectoryNode>>,
    pub(super) in_flight: BTreeMap<u64, InFlight>,
    /// Orders resolved changes; a sync covers those up to the sequence number when it was called.
    pub(super) sequence: u64,
    pub(super) next_node: NodeId,
    pub(super) capacity_bytes: u64,
    pub(super) used_pages: u64,
    /// Handles of all files, now and at most.
    pub(super) open_handles: usize,
    pub(super) open_handles_max: usize,
}

impl SimDisk {
    /// An empty disk on which files may take `capacity_bytes` together, in pages of 4 KiB. Names
    /// and directories take no space.
    pub fn new(capacity_bytes: u64) -> Self {
        Self {
            files: BTreeMap::new(),
            directories: BTreeMap::from([(ROOT, Rc::default())]),
            in_flight: BTreeMap::new(),
            sequence: 0,
            next_node: ROOT + 1,
            capacity_bytes,
            used_pages: 0,
            open_handles: 0,
            open_handles_max: 0,
        }
    }

    /// How many files are open now, each as often as it was opened; and how many have been at a
    /// time in this life of the process.
    pub fn open_handles(&self) -> (usize, usize) {
        (self.open_handles, self.open_handles_max)
    }

    /// Changes the disk's size. A size below what is used leaves no free space.
    pub fn set_capacity(&mut self, capacity_bytes: u64) {
        self.capacity_bytes = capacity_bytes;
    }

    /// Bytes taken by files that have a name or are open.
    pub fn used_bytes(&self) -> u64 {
        self.used_pages * PAGE as u64
    }

    /// Bytes by which files may still grow.
    pub fn free_bytes(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.used_bytes())
    }

    pub(super) fn check_space(&self, pages: u64) -> io::Result<()> {
        let is_available = pages == 0 || pages <= self.free_bytes() / PAGE as u64;
        if is_available { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENOSPC)) }
    }

    // ---- names

    pub(super) fn lookup(&self, path: &Path) -> io::Result<Entry> {
        self.walk(&names(path)?)
    }

    fn walk(&self, names: &[String]) -> io::Result<Entry> {
        let mut entry = Entry::Directory(ROOT);
        for name in names {
            let Entry::Directory(directory) = entry else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            let found = self.entries(directory).get(name);
            entry = *found.ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(entry)
    }

    pub(super) fn lookup_file(&self, path: &Path) -> io::Result<NodeId> {
        match self.lookup(path)? {
            Entry::File(file) => Ok(file),
            Entry::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn lookup_directory(&self, path: &Path) -> io::Result<NodeId> {
        self.walk_directory(&names(path)?)
    }

    fn walk_directory(&self, names: &[String]) -> io::Result<NodeId> {
        match self.walk(names)? {
            Entry::Directory(directory) => Ok(directory),
            Entry::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// The directory that `path` lies in, and its name there.
    pub(super) fn lookup_parent(&self, path: &Path) -> io::Result<(NodeId, String)> {
        let mut names = names(path)?;
        let name = names.pop().ok_or(io::ErrorKind::IsADirectory)?;
        Ok((self.walk_directory(&names)?, name))
    }

    pub(super) fn entries(&self, directory: NodeId) -> &Entries {
        &self.directories.get(&directory).expect("an entry's directory exists").current
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let entries = self.entries(self.lookup_directory(path)?);
        let describe = |(name, entry): (&String, &Entry)| {
            let (len, is_directory) = match entry {
                Entry::File(file) => (self.len(*file), false),
                Entry::Directory(_) => (0, true),
            };
            DirectoryEntry { name: name.clone(), len, is_directory }
        };
        Ok(entries.iter().map(describe).collect())
    }

    /// Creates the directories of `path` that are missing, none of them durable yet.
    pub(super) fn make_directories(&mut self, path: &Path) -> io::Result<()> {
        let mut directory = ROOT;
        for name in names(path)? {
            directory = match self.entries(directory).get(&name) {
                Some(Entry::Directory(existing)) => *existing,
                Some(Entry::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
                None => {
                    let created = self.next_node();
                    self.directories.insert(created, Rc::default());
                    let entry = Entry::Directory(created);
                    self.change_directory(directory, DirectoryChange::Link { name, entry });
                    created
                }
            };
        }
        Ok(())
    }

    /// Changes what is seen of a directory; not durable yet.
    pub(super) fn change_directory(&mut self, directory: NodeId, change: DirectoryChange) {
        self.sequence += 1;
        let sequence = self.sequence;
        let Some(node) = self.directories.get_mut(&directory) else { return };
        let node = Rc::make_mut(node);
        let displaced = change.apply(&mut node.current);
        let linked = match &change {
            DirectoryChange::Link { entry: Entry::File(file), .. } => Some(*file),
            _ => None,
        };
        node.pending.push((sequence, change));
        if let Some(file) = linked {
            self.update_file(file, |file| file.links += 1);
        }
        if let Some(Entry::File(file)) = displaced {
            self.update_file(file, |file| file.links -= 1);
        }
    }

    /// Makes the changes up to sequence number `covered`, but at most `count` of them, durable.
    pub(super) fn sync_directory(&mut self, directory: NodeId, covered: u64, count: usize) {
        let Some(node) = self.directories.get_mut(&directory) else { return };
        let node = Rc::make_mut(node);
        let count = node.pending.partition_point(|(sequence, _)| *sequence <= covered).min(count);
        for (_, change) in node.pending.drain(..count) {
            change.apply(&mut node.durable);
        }
        self.forget_lost_files();
    }

    // ---- files

    pub(super) fn next_node(&mut self) -> NodeId {
        self.next_node += 1;
        self.next_node - 1
    }

    /// A new file without a name, opened once.
    pub(super) fn create_unnamed(&mut self) -> NodeId {
        let id = self.next_node();
        self.files.insert(id, Rc::new(FileNode::default()));
        self.open_handle(id);
        id
    }

    pub(super) fn open_handle(&mut self, file: NodeId) {
        self.update_file(file, |file| file.handles += 1);
        self.open_handles += 1;
        self.open_handles_max = self.open_handles_max.max(self.open_handles);
    }

    /// A file of a run that has ended is not on this disk.
    pub(super) fn close_handle(&mut self, file: NodeId) {
        if self.files.contains_key(&file) {
            self.update_file(file, |file| file.handles -= 1);
            self.open_handles -= 1;
        }
    }

    pub(super) fn close_all_handles(&mut self) {
        let open = |(id, file): (&NodeId, &Rc<FileNode>)| (file.handles > 0).then_some(*id);
        for file in self.files.iter().filter_map(open).collect::<Vec<_>>() {
            self.update_file(file, |file| file.handles = 0);
        }
        (self.open_handles, self.open_handles_max) = (0, 0);
    }

    pub(super) fn len(&self, file: NodeId) -> u64 {
        self.files.get(&file).map_or(0, |file| file.current.len())
    }

    /// Changes a file and keeps the count of used space right. A file that is gone stays gone.
    pub(super) fn update_file(&mut self, file: NodeId, update: impl FnOnce(&mut FileNode)) {
        let Some(node) = self.files.get_mut(&file) else { return };
        let node = Rc::make_mut(node);
        let before = node.space();
        update(node);
        self.used_pages = self.used_pages - before + node.space();
    }

    /// Changes what reads see of a file; not durable yet.
    pub(super) fn change_file(&mut self, file: NodeId, change: FileChange) {
        self.sequence += 1;
        let sequence = self.sequence;
        self.update_file(file, |file| {
            change.apply(&mut file.current);
            file.pending.push((sequence, change));
        });
    }

    /// Takes the changes up to sequence number `covered` off the list, each to be made durable, or
    /// not, by `settle`.
    pub(super) fn sync_file(
        &mut self,
        file: NodeId,
        covered: u64,
        mut settle: impl FnMut(&mut Content, FileChange),
    ) {
        self.update_file(file, |file| {
            let count = file.pending.partition_point(|(sequence, _)| *sequence <= covered);
            for (_, change) in file.pending.drain(..count) {
                settle(&mut file.durable, change);
            }
        });
    }

    /// Forgets files that have no name, now or after any crash, and no handle.
    pub(super) fn forget_lost_files(&mut self) {
        if self.files.values().all(|file| file.links > 0 || file.handles > 0) {
            return;
        }
        let mut named = BTreeSet::new();
        for directory in self.directories.values() {
            let pending = directory.pending.iter().filter_map(|(_, change)| match change {
                DirectoryChange::Link { entry, .. } => Some(entry),
                _ => None,
            });
            named.extend(directory.durable.values().chain(pending).filter_map(file_of));
        }
        self.files.retain(|id, file| file.links > 0 || file.handles > 0 || named.contains(id));
    }
}

pub(super) fn file_of(entry: &Entry) -> Option<NodeId> {
    match entry {
        Entry::File(file) => Some(*file),
        Entry::Directory(_) => None,
    }
}

/// The names along a path, from the root.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
    }
    Ok(names)
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SimDisk")
            .field("files", &self.files())
            .field("used_bytes", &self.used_bytes())
            .field("capacity_bytes", &self.capacity_bytes)
            .field("in_flight", &self.in_flight.len())
            .finish()
    }
}
