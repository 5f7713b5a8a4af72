//! Disk operations: a request, the moment it is submitted, and the moment it is done.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::content::{PAGE, Page};
use super::disk::{DirectoryChange, Entry, FileChange, InFlight, NodeId, SimDisk};
use super::faults::{Failure, OperationKind};
use super::world::World;
use crate::buffer::Buffer;
use crate::env::OpenMode;

/// What is asked of the disk.
pub(super) enum Request {
    Open {
        path: PathBuf,
        mode: OpenMode,
        /// The file that a creating open brings into the world, without a name until it is done.
        created: Option<NodeId>,
    },
    Read {
        file: NodeId,
        offset: u64,
        buffer: Buffer,
        /// The pages at submission, for reads that overlap with writes.
        snapshot: Vec<Page>,
    },
    Write {
        file: NodeId,
        offset: u64,
        buffer: Buffer,
        /// The buffer's pages at submission.
        pages: Rc<[Page]>,
    },
    Sync {
        file: NodeId,
        covered: u64,
    },
    Allocate {
        file: NodeId,
        len: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    SyncDirectory {
        path: PathBuf,
        covered: u64,
    },
}

impl Request {
    pub(super) fn open(path: PathBuf, mode: OpenMode) -> Self {
        Self::Open { path, mode, created: None }
    }

    pub(super) fn read(file: NodeId, offset: u64, buffer: Buffer) -> Self {
        assert_aligned(offset, buffer.len());
        Self::Read { file, offset, buffer, snapshot: Vec::new() }
    }

    pub(super) fn write(file: NodeId, offset: u64, buffer: Buffer) -> Self {
        assert_aligned(offset, buffer.len());
        Self::Write { file, offset, buffer, pages: Rc::default() }
    }

    pub(super) fn kind(&self) -> OperationKind {
        match self {
            Self::Open { .. } => OperationKind::Open,
            Self::Read { .. } => OperationKind::Read,
            Self::Write { .. } => OperationKind::Write,
            Self::Sync { .. } => OperationKind::Sync,
            Self::Allocate { .. } => OperationKind::Allocate,
            Self::Rename { .. } => OperationKind::Rename,
            Self::Remove { .. } => OperationKind::Remove,
            Self::SyncDirectory { .. } => OperationKind::SyncDirectory,
        }
    }

    /// The file, offset and length that the trace shows for this request.
    pub(super) fn target(&self) -> (u64, u64, u64) {
        match self {
            Self::Read { file, offset, buffer, .. } | Self::Write { file, offset, buffer, .. } => {
                (*file, *offset, buffer.len() as u64)
            }
            Self::Sync { file, .. } => (*file, 0, 0),
            Self::Allocate { file, len } => (*file, 0, *len),
            _ => (0, 0, 0),
        }
    }

    /// Takes what the request needs from the disk as it is now, and returns the change that the
    /// disk may have made already if the power fails before the request is done.
    pub(super) fn submit(&mut self, disk: &mut SimDisk) -> Option<InFlight> {
        match self {
            Self::Open { path, mode: OpenMode::CreateNew, created } => {
                let (directory, name) = disk.lookup_parent(path).ok()?;
                if disk.entries(directory).contains_key(&name) {
                    return None;
                }
                let file = disk.create_unnamed();
                *created = Some(file);
                let change = DirectoryChange::Link { name, entry: Entry::File(file) };
                Some(InFlight::Directory(directory, change))
            }
            Self::Read { file, offset, buffer, snapshot } => {
                let node = disk.files.get(file)?;
                *snapshot = node.current.pages(page_of(*offset), buffer.len() / PAGE);
                None
            }
            Self::Write { file, offset, buffer, pages } => {
                *pages = buffer.chunks_exact(PAGE).map(Page::from_bytes).collect();
                let (first, pages) = (page_of(*offset), Rc::clone(pages));
                let needed = disk.files.get(file)?.current.uncharged_by_write(first, pages.len());
                disk.check_space(needed).ok()?;
                Some(InFlight::File(*file, FileChange::Write { first, pages }))
            }
            Self::Allocate { file, len } => {
                let needed = disk.files.get(file)?.current.uncharged_by_reserve(*len);
                disk.check_space(needed).ok()?;
                let change = FileChange::Length { len: *len, reserve: true };
                Some(InFlight::File(*file, change))
            }
            Self::Rename { from, to } => {
                let (directory, change) = rename(disk, from, to).ok()?;
                Some(InFlight::Directory(directory, change))
            }
            Self::Remove { path } => {
                let (directory, change) = remove(disk, path).ok()?;
                Some(InFlight::Directory(directory, change))
            }
            Self::Open { .. } | Self::Sync { .. } | Self::SyncDirectory { .. } => None,
        }
    }
}

pub(super) fn page_of(offset: u64) -> u64 {
    offset / PAGE as u64
}

fn assert_aligned(offset: u64, len: usize) {
    assert!(offset.is_multiple_of(PAGE as u64), "offset {offset} is not aligned");
    assert!(len.is_multiple_of(PAGE), "length {len} is not aligned");
    assert!(len > 0, "a request transfers something");
    assert!(offset.checked_add(len as u64).is_some(), "offset {offset} + {len} overflows");
}

/// Checks a rename; the directory and the change it comes to.
pub(super) fn rename(
    disk: &SimDisk,
    from: &std::path::Path,
    to: &std::path::Path,
) -> io::Result<(NodeId, DirectoryChange)> {
    let (directory, from_name) = disk.lookup_parent(from)?;
    let (target_directory, to_name) = disk.lookup_parent(to)?;
    if directory != target_directory {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    disk.lookup_file(from)?;
    if let Some(Entry::Directory(_)) = disk.entries(directory).get(&to_name) {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok((directory, DirectoryChange::Rename { from: from_name, to: to_name }))
}

/// Checks a removal; the directory and the change it comes to.
pub(super) fn remove(
    disk: &SimDisk,
    path: &std::path::Path,
) -> io::Result<(NodeId, DirectoryChange)> {
    disk.lookup_file(path)?;
    let (directory, name) = disk.lookup_parent(path)?;
    Ok((directory, DirectoryChange::Unlink { name }))
}

/// What comes back from an operation.
pub(super) struct Outcome {
    pub(super) result: io::Result<()>,
    /// The buffer of a read or write.
    pub(super) buffer: Option<Buffer>,
    /// The file that was opened, with one handle.
    pub(super) opened: Option<NodeId>,
}

impl Outcome {
    pub(super) fn of(result: io::Result<()>) -> Self {
        Self { result, buffer: None, opened: None }
    }

    pub(super) fn with_buffer(result: io::Result<()>, buffer: Buffer) -> Self {
        Self { result, buffer: Some(buffer), opened: None }
    }
}

/// An operation between submission and the moment its outcome is taken.
pub(super) struct Slot {
    /// Counts operations of this run, for the trace.
    pub(super) number: u64,
    /// Gone once the operation is done.
    pub(super) request: Option<Request>,
    pub(super) in_flight: Option<u64>,
    pub(super) failure: Option<Failure>,
    /// Whether the operation was taken back in time and does nothing.
    pub(super) is_cancelled: bool,
    /// Whether nobody waits any more.
    pub(super) is_abandoned: bool,
    pub(super) outcome: Option<Outcome>,
    pub(super) waker: Option<Waker>,
}

/// The future of an operation, which is submitted when it is first polled.
pub(super) struct Operation {
    world: Rc<World>,
    stage: Stage,
}

enum Stage {
    Unsubmitted(Request),
    /// The number of the slot.
    Submitted(usize),
    /// The run has crashed or ended: no answer will ever come.
    Lost,
    Done,
}

impl Operation {
    pub(super) fn new(world: &Rc<World>, request: Request) -> Self {
        Self { world: Rc::clone(world), stage: Stage::Unsubmitted(request) }
    }
}

impl Future for Operation {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let slot = match std::mem::replace(&mut self.stage, Stage::Lost) {
            Stage::Unsubmitted(request) => self.world.submit(request),
            Stage::Submitted(slot) => Some(slot),
            Stage::Lost => None,
            Stage::Done => panic!("an operation was polled after it had resolved"),
        };
        let Some(slot) = slot else { return Poll::Pending };
        match self.world.poll_operation(slot, context.waker()) {
            Some(outcome) => {
                self.stage = Stage::Done;
                Poll::Ready(outcome)
            }
            None => {
                self.stage = Stage::Submitted(slot);
                Poll::Pending
            }
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if let Stage::Submitted(slot) = self.stage {
            self.world.abandon(slot);
        }
    }
}
