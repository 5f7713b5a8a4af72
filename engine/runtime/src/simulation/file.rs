//! An open file of the simulated disk.

use std::future::Future;
use std::io;
use std::rc::Rc;

use super::disk::NodeId;
use super::operation::{Operation, Outcome, Request};
use super::world::World;
use crate::buffer::Buffer;
use crate::env::{File, IoClass};

/// The simulated instance of [`File`].
///
/// A handle outlives a rename and, as on Unix, the removal of its file. I/O classes make no
/// difference, but reads are counted by them: every request takes its own, seeded time.
#[derive(Clone)]
pub struct SimFile {
    handle: Rc<Handle>,
}

struct Handle {
    world: Rc<World>,
    file: NodeId,
    is_writable: bool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.world.close(self.file);
    }
}

impl SimFile {
    pub(super) fn new(world: Rc<World>, file: NodeId, is_writable: bool) -> Self {
        Self { handle: Rc::new(Handle { world, file, is_writable }) }
    }

    /// Performs a request, with the file held open until it is done.
    fn perform(&self, request: Request) -> impl Future<Output = Outcome> + 'static {
        let file = self.clone();
        let operation = Operation::new(&file.handle.world, request);
        async move {
            let outcome = operation.await;
            drop(file);
            outcome
        }
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.handle.is_writable {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::EBADF))
    }

    fn sync_request(&self) -> Request {
        let covered = self.handle.world.state().disk.sequence;
        Request::Sync { file: self.handle.file, covered }
    }
}

impl File for SimFile {
    fn read(
        &self,
        class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        self.handle.world.state().reads[class as usize] += 1;
        let read = self.perform(Request::read(self.handle.file, offset, buffer));
        async move { with_buffer(read.await) }
    }

    fn write(
        &self,
        _class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        let file = self.clone();
        let request = Request::write(file.handle.file, offset, buffer);
        async move {
            match (file.check_writable(), request) {
                (Err(error), Request::Write { buffer, .. }) => (Err(error), buffer),
                (_, request) => with_buffer(file.perform(request).await),
            }
        }
    }

    fn write_durably(
        &self,
        class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        let file = self.clone();
        let write = self.write(class, offset, buffer);
        async move {
            let (written, buffer) = write.await;
            if written.is_err() {
                return (written, buffer);
            }
            (file.sync(class).await, buffer)
        }
    }

    fn sync(&self, _class: IoClass) -> impl Future<Output = io::Result<()>> + 'static {
        let sync = self.perform(self.sync_request());
        async move { sync.await.result }
    }

    fn allocate(&self, len: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let file = self.clone();
        async move {
            file.check_writable()?;
            let request = Request::Allocate { file: file.handle.file, len };
            file.perform(request).await.result
        }
    }

    fn len(&self) -> u64 {
        self.handle.world.state().disk.len(self.handle.file)
    }
}

fn with_buffer(outcome: Outcome) -> (io::Result<()>, Buffer) {
    (outcome.result, outcome.buffer.expect("reads and writes give their buffer back"))
}
