//! A file, whether it has a descriptor now or not, and the uses of it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::Shared;
use super::room;
use crate::buffer::Buffer;
use crate::env::{Env, File, IoClass, OpenMode, TaskQueue};

#[derive(Clone, Copy)]
enum Descriptor {
    Closed,
    /// A task is about to open it.
    Opening,
    /// In this slot of the room.
    Open(usize),
}

/// An error that several operations get.
struct Failed {
    kind: io::ErrorKind,
    text: String,
}

impl Failed {
    fn of(error: &io::Error) -> Self {
        Self { kind: error.kind(), text: error.to_string() }
    }

    fn error(&self) -> io::Error {
        io::Error::new(self.kind, self.text.clone())
    }
}

/// What the clones of a [`CachedFile`] share.
pub(super) struct Handle<E: Env> {
    shared: Rc<Shared<E>>,
    path: RefCell<Rc<Path>>,
    /// How it is opened next.
    mode: Cell<OpenMode>,
    descriptor: Cell<Descriptor>,
    len: Cell<u64>,
    /// Operations under way, those that wait for the descriptor included.
    uses: Cell<usize>,
    /// Writes that have ended.
    writes: Cell<u64>,
    /// Those of them that a sync has covered.
    synced: Cell<u64>,
    /// Whether no name stands for the file any more.
    is_gone: Cell<bool>,
    /// How often opening has ended, and how it failed the last time, if it did.
    openings: Cell<u64>,
    failure: RefCell<Option<Failed>>,
    /// A sync that failed: the file's last, whoever asked for it.
    sync_failure: RefCell<Option<Failed>>,
    /// Operations that wait for the descriptor.
    waiting: RefCell<Vec<Waker>>,
}

impl<E: Env> Handle<E> {
    pub(super) fn new(shared: &Rc<Shared<E>>, path: &Path, mode: OpenMode) -> Rc<Self> {
        let path: Rc<Path> = Rc::from(path);
        let handle = Rc::new(Self {
            shared: Rc::clone(shared),
            path: RefCell::new(Rc::clone(&path)),
            mode: Cell::new(mode),
            descriptor: Cell::new(Descriptor::Closed),
            len: Cell::new(0),
            uses: Cell::new(0),
            writes: Cell::new(0),
            synced: Cell::new(0),
            is_gone: Cell::new(false),
            openings: Cell::new(0),
            failure: RefCell::default(),
            sync_failure: RefCell::default(),
            waiting: RefCell::default(),
        });
        shared.state.borrow_mut().names.add(path, Rc::downgrade(&handle));
        handle
    }

    pub(super) fn set_closed(&self) {
        self.descriptor.set(Descriptor::Closed);
    }

    pub(super) fn set_gone(&self) {
        self.is_gone.set(true);
    }

    pub(super) fn set_path(&self, path: Rc<Path>) {
        self.path.replace(path);
    }

    /// Opens the file in a task of its own, so that an operation that is dropped, or that nobody
    /// goes on with, holds up no other.
    fn start_opening(self: &Rc<Self>) {
        self.descriptor.set(Descriptor::Opening);
        let handle = Rc::clone(self);
        self.shared.env.spawn(TaskQueue::Foreground, async move {
            room::place(&handle.shared).await;
            let opened = handle.open().await;
            handle.end_opening(opened);
        });
    }

    async fn open(&self) -> io::Result<E::File> {
        let path = std::future::poll_fn(|context| {
            let path = Rc::clone(&self.path.borrow());
            if self.is_gone.get() {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::NotFound)));
            }
            let names = &mut self.shared.state.borrow_mut().names;
            let has_begun = names.begin_opening(&path, context.waker());
            if has_begun { Poll::Ready(Ok(path)) } else { Poll::Pending }
        })
        .await?;
        let opened = self.shared.env.open(&path, self.mode.get()).await;
        let woken = self.shared.state.borrow_mut().names.end_opening(&path);
        woken.into_iter().for_each(Waker::wake);
        opened
    }

    fn end_opening(self: &Rc<Self>, opened: io::Result<E::File>) {
        let mut state = self.shared.state.borrow_mut();
        let next = match opened {
            Ok(file) => {
                self.len.set(self.len.get().max(file.len()));
                if self.mode.get() == OpenMode::CreateNew {
                    self.mode.set(OpenMode::ReadWrite);
                }
                let slot = state.room.opened(file, Rc::downgrade(self));
                self.descriptor.set(Descriptor::Open(slot));
                self.failure.replace(None);
                let is_unused = self.uses.get() == 0;
                if is_unused { state.room.end_use(slot, self.is_synced()) } else { None }
            }
            Err(error) => {
                self.descriptor.set(Descriptor::Closed);
                self.failure.replace(Some(Failed::of(&error)));
                state.room.not_opened()
            }
        };
        drop(state);
        self.openings.set(self.openings.get() + 1);
        let waiting = self.waiting.take();
        waiting.into_iter().chain(next).for_each(Waker::wake);
    }

    fn is_synced(&self) -> bool {
        self.writes.get() == self.synced.get()
    }

    /// Notes the end of a sync that began when `writes` had ended. Its result, unless an earlier
    /// sync has failed.
    fn note_sync(&self, writes: u64, result: io::Result<()>) -> io::Result<()> {
        match &result {
            Ok(()) => self.synced.set(self.synced.get().max(writes)),
            Err(error) => {
                // It is reported from here: the descriptor has nothing more to say.
                self.sync_failure.borrow_mut().get_or_insert(Failed::of(error));
                self.synced.set(self.writes.get());
            }
        }
        let earlier = self.sync_failure.borrow().as_ref().map(Failed::error);
        result.and(earlier.map_or(Ok(()), Err))
    }
}

impl<E: Env> Drop for Handle<E> {
    fn drop(&mut self) {
        let mut state = self.shared.state.borrow_mut();
        state.names.remove(&self.path.borrow(), std::ptr::from_ref(self));
        let Descriptor::Open(slot) = self.descriptor.get() else { return };
        let (file, next) = state.room.close(slot);
        drop(state);
        drop(file);
        next.into_iter().for_each(Waker::wake);
    }
}

/// An operation's hold on a file: the descriptor stays open until it is dropped.
pub(super) struct Use<E: Env> {
    /// `None` while the descriptor is waited for.
    file: Option<E::File>,
    handle: Rc<Handle<E>>,
    /// Whether the operation is a write that no sync of its own covers.
    is_write: bool,
    /// Writes that had ended when this use began: what a sync by it covers.
    writes_before: u64,
}

/// What an operation does, as far as syncs are concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    DurableWrite,
}

impl<E: Env> Use<E> {
    /// A use of a file that is open.
    pub(super) fn with(handle: Rc<Handle<E>>, file: E::File) -> Self {
        handle.uses.set(handle.uses.get() + 1);
        let writes_before = handle.writes.get();
        Self { file: Some(file), handle, is_write: false, writes_before }
    }

    /// A use that needs no waiting.
    #[inline]
    fn now(handle: &Rc<Handle<E>>) -> Option<Self> {
        let Descriptor::Open(slot) = handle.descriptor.get() else { return None };
        let file = handle.shared.state.borrow_mut().room.begin_use(slot);
        Some(Self::with(Rc::clone(handle), file))
    }

    /// A use, once the file is open.
    async fn open(handle: Rc<Handle<E>>) -> io::Result<Self> {
        handle.uses.set(handle.uses.get() + 1);
        // From here on the descriptor is not closed for another as soon as it is open.
        let mut held =
            Self { file: None, handle: Rc::clone(&handle), is_write: false, writes_before: 0 };
        let openings = handle.openings.get();
        loop {
            match handle.descriptor.get() {
                Descriptor::Open(slot) => {
                    held.file = Some(handle.shared.state.borrow_mut().room.begin_use(slot));
                    held.writes_before = handle.writes.get();
                    return Ok(held);
                }
                Descriptor::Closed if handle.openings.get() != openings => {
                    let failure = handle.failure.borrow();
                    let failure = failure.as_ref().expect("an opening that ended has failed");
                    return Err(failure.error());
                }
                Descriptor::Closed => handle.start_opening(),
                Descriptor::Opening => handle.wait_for_opening().await,
            }
        }
    }

    fn file(&self) -> &E::File {
        self.file.as_ref().expect("it is open while it is used")
    }

    /// Syncs the file so that its descriptor can be closed. A failure is the next sync's.
    pub(super) async fn sync(self, class: IoClass) {
        let result = self.file().sync(class).await;
        if let Err(error) = self.handle.note_sync(self.writes_before, result) {
            tracing::error!("{error}: the file's next sync will say so");
        }
    }
}

impl<E: Env> Handle<E> {
    async fn wait_for_opening(&self) {
        let openings = self.openings.get();
        std::future::poll_fn(|context| {
            if self.openings.get() != openings {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl<E: Env> Drop for Use<E> {
    fn drop(&mut self) {
        let handle = &self.handle;
        if let Some(file) = self.file.take() {
            handle.len.set(handle.len.get().max(file.len()));
        }
        handle.writes.set(handle.writes.get() + u64::from(self.is_write));
        handle.uses.set(handle.uses.get() - 1);
        let Descriptor::Open(slot) = handle.descriptor.get() else { return };
        if handle.uses.get() == 0 {
            let next = handle.shared.state.borrow_mut().room.end_use(slot, handle.is_synced());
            next.into_iter().for_each(Waker::wake);
        }
    }
}

/// A file of a [`FileCache`](super::FileCache).
pub struct CachedFile<E: Env> {
    handle: Rc<Handle<E>>,
}

impl<E: Env> CachedFile<E> {
    pub(super) fn new(handle: Rc<Handle<E>>) -> Self {
        Self { handle }
    }

    /// Opens the file for the first time.
    pub(super) async fn first_opened(&self) -> io::Result<()> {
        Use::open(Rc::clone(&self.handle)).await.map(drop)
    }

    /// What is not open is opened first, at the cost of allocations that a use of an open file does
    /// not have.
    #[inline]
    async fn hold(handle: Rc<Handle<E>>) -> io::Result<Use<E>> {
        match Use::now(&handle) {
            Some(held) => Ok(held),
            None => Box::pin(Use::open(handle)).await,
        }
    }

    #[inline]
    fn transfer(
        &self,
        kind: Kind,
        class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        let handle = Rc::clone(&self.handle);
        async move {
            let mut held = match Self::hold(handle).await {
                Ok(held) => held,
                Err(error) => return (Err(error), buffer),
            };
            held.is_write = kind != Kind::Read;
            let file = held.file();
            let (result, buffer) = match kind {
                Kind::Read => file.read(class, offset, buffer).await,
                Kind::Write => file.write(class, offset, buffer).await,
                Kind::DurableWrite => file.write_durably(class, offset, buffer).await,
            };
            if kind == Kind::DurableWrite && result.is_ok() {
                held.is_write = false;
                return (held.handle.note_sync(held.writes_before, result), buffer);
            }
            (result, buffer)
        }
    }
}

impl<E: Env> Clone for CachedFile<E> {
    fn clone(&self) -> Self {
        Self { handle: Rc::clone(&self.handle) }
    }
}

impl<E: Env> std::fmt::Debug for CachedFile<E> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "CachedFile({})", self.handle.path.borrow().display())
    }
}

impl<E: Env> File for CachedFile<E> {
    #[inline]
    fn read(
        &self,
        class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        self.transfer(Kind::Read, class, offset, buffer)
    }

    fn write(
        &self,
        class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        self.transfer(Kind::Write, class, offset, buffer)
    }

    fn write_durably(
        &self,
        class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        self.transfer(Kind::DurableWrite, class, offset, buffer)
    }

    fn sync(&self, class: IoClass) -> impl Future<Output = io::Result<()>> + 'static {
        let handle = Rc::clone(&self.handle);
        async move {
            let held = Self::hold(handle).await?;
            let result = held.file().sync(class).await;
            held.handle.note_sync(held.writes_before, result)
        }
    }

    fn allocate(&self, len: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let handle = Rc::clone(&self.handle);
        async move { Self::hold(handle).await?.file().allocate(len).await }
    }

    fn len(&self) -> u64 {
        self.handle.len.get()
    }
}
