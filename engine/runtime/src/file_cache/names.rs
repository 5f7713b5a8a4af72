//! Which handles stand for which name, and what renaming and removing do to them.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use super::Shared;
use super::handle::Handle;
use crate::env::Env;

/// The names in use.
pub(super) struct Names<E: Env> {
    by_path: HashMap<Rc<Path>, Name<E>>,
    handles: usize,
    /// Who waits for an opening or a change of any name to end.
    waiting: Vec<Waker>,
}

struct Name<E: Env> {
    handles: Vec<Weak<Handle<E>>>,
    /// Openings of this name that are under way.
    opening: usize,
    /// Whether it is being renamed, replaced or removed.
    is_changing: bool,
}

impl<E: Env> Default for Name<E> {
    fn default() -> Self {
        Self { handles: Vec::new(), opening: 0, is_changing: false }
    }
}

impl<E: Env> Name<E> {
    fn is_unused(&self) -> bool {
        self.handles.is_empty() && self.opening == 0 && !self.is_changing
    }
}

impl<E: Env> Names<E> {
    pub(super) fn new() -> Self {
        Self { by_path: HashMap::new(), handles: 0, waiting: Vec::new() }
    }

    pub(super) fn handles(&self) -> usize {
        self.handles
    }

    pub(super) fn add(&mut self, path: Rc<Path>, handle: Weak<Handle<E>>) {
        self.handles += 1;
        self.by_path.entry(path).or_default().handles.push(handle);
    }

    /// Forgets a handle that goes. One that is gone from its name is only counted.
    pub(super) fn remove(&mut self, path: &Path, handle: *const Handle<E>) {
        self.handles -= 1;
        self.update(path, |name| name.handles.retain(|other| other.as_ptr() != handle));
    }

    fn update(&mut self, path: &Path, update: impl FnOnce(&mut Name<E>)) {
        let Some(name) = self.by_path.get_mut(path) else { return };
        update(name);
        if name.is_unused() {
            self.by_path.remove(path);
        }
    }

    /// Whether the name can be opened now; if so, an opening is under way until
    /// [`Names::end_opening`]. Else `waker` is woken when it may be.
    pub(super) fn begin_opening(&mut self, path: &Rc<Path>, waker: &Waker) -> bool {
        let name = self.by_path.entry(Rc::clone(path)).or_default();
        if name.is_changing {
            self.waiting.push(waker.clone());
            return false;
        }
        name.opening += 1;
        true
    }

    /// Returns who is to be woken.
    pub(super) fn end_opening(&mut self, path: &Path) -> Vec<Waker> {
        self.update(path, |name| name.opening -= 1);
        std::mem::take(&mut self.waiting)
    }

    fn begin_change(&mut self, paths: &[Rc<Path>], waker: &Waker) -> bool {
        let is_used = |path: &Rc<Path>| {
            self.by_path.get(path).is_some_and(|name| name.opening > 0 || name.is_changing)
        };
        if paths.iter().any(is_used) {
            self.waiting.push(waker.clone());
            return false;
        }
        for path in paths {
            self.by_path.entry(Rc::clone(path)).or_default().is_changing = true;
        }
        true
    }

    fn end_change(&mut self, paths: &[Rc<Path>]) -> Vec<Waker> {
        for path in paths {
            self.update(path, |name| name.is_changing = false);
        }
        std::mem::take(&mut self.waiting)
    }

    /// The name stands for no file any more, or for one that its handles do not know.
    fn take_away(&mut self, path: &Path) {
        let Some(name) = self.by_path.get_mut(path) else { return };
        for handle in name.handles.drain(..).filter_map(|handle| handle.upgrade()) {
            handle.set_gone();
        }
    }

    fn give(&mut self, from: &Path, to: &Rc<Path>) {
        let Some(name) = self.by_path.get_mut(from) else { return };
        let handles = std::mem::take(&mut name.handles);
        for handle in handles.iter().filter_map(Weak::upgrade) {
            handle.set_path(Rc::clone(to));
        }
        self.by_path.entry(Rc::clone(to)).or_default().handles.extend(handles);
    }
}

/// Names that are being changed. When it is dropped before the end, nobody knows what they stand
/// for.
struct Change<E: Env> {
    shared: Rc<Shared<E>>,
    paths: Vec<Rc<Path>>,
    is_over: bool,
}

impl<E: Env> Change<E> {
    /// Waits for openings and changes of these names that are under way.
    async fn begin(shared: Rc<Shared<E>>, paths: Vec<Rc<Path>>) -> Self {
        std::future::poll_fn(|context| {
            let names = &mut shared.state.borrow_mut().names;
            let has_begun = names.begin_change(&paths, context.waker());
            if has_begun { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        Self { shared, paths, is_over: false }
    }

    fn end(mut self, change: impl FnOnce(&mut Names<E>)) {
        self.is_over = true;
        change(&mut self.shared.state.borrow_mut().names);
    }
}

impl<E: Env> Drop for Change<E> {
    fn drop(&mut self) {
        let mut state = self.shared.state.borrow_mut();
        if !self.is_over {
            self.paths.iter().for_each(|path| state.names.take_away(path));
        }
        let woken = state.names.end_change(&self.paths);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// Renames a file. Its handles stay its own; those of a file that it replaces, and those of the
/// target of a rename that failed, are gone.
pub(super) async fn rename<E: Env>(
    shared: Rc<Shared<E>>,
    from: PathBuf,
    to: PathBuf,
) -> io::Result<()> {
    if from == to {
        return shared.env.rename(&from, &to).await;
    }
    let paths = vec![Rc::from(from.as_path()), Rc::from(to.as_path())];
    let change = Change::begin(Rc::clone(&shared), paths).await;
    let renamed = shared.env.rename(&from, &to).await;
    let is_renamed = renamed.is_ok();
    change.end(|names| {
        names.take_away(&to);
        if is_renamed {
            names.give(&from, &Rc::from(to.as_path()));
        }
    });
    renamed
}

/// Removes a file. Its handles are gone.
pub(super) async fn remove<E: Env>(shared: Rc<Shared<E>>, path: PathBuf) -> io::Result<()> {
    let change = Change::begin(Rc::clone(&shared), vec![Rc::from(path.as_path())]).await;
    let removed = shared.env.remove(&path).await;
    let is_removed =
        removed.as_ref().map_or_else(|e| e.kind() == io::ErrorKind::NotFound, |()| true);
    change.end(|names| {
        if is_removed {
            names.take_away(&path);
        }
    });
    removed
}
