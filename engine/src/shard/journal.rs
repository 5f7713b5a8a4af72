//! The manifest, shared by the tasks of a shard: one edit at a time.

use std::cell::{Cell, Ref, RefCell};

use larder_runtime::env::Env;

use crate::error::EngineError;
use crate::manifest::{Edit, Manifest, State};
use crate::signal::Exclusive;

/// The manifest and what it says.
pub(super) struct Journal<E: Env> {
    manifest: RefCell<Option<Manifest<E>>>,
    manifest_bytes: Cell<u64>,
    state: RefCell<State>,
    edits: Exclusive,
}

impl<E: Env> Journal<E> {
    /// A journal over an open manifest.
    pub(super) fn new(manifest: Manifest<E>, state: State) -> Self {
        Self {
            manifest_bytes: Cell::new(manifest.file_bytes()),
            manifest: RefCell::new(Some(manifest)),
            state: RefCell::new(state),
            edits: Exclusive::default(),
        }
    }

    /// What the manifest says: everything in it is durable.
    pub(super) fn state(&self) -> Ref<'_, State> {
        self.state.borrow()
    }

    /// The length of the manifest's file in bytes.
    pub(super) fn manifest_bytes(&self) -> u64 {
        self.manifest_bytes.get()
    }

    /// Makes an edit durable. `make` gets the state as it is when the edit's turn has come, and
    /// may find that nothing is to be done.
    ///
    /// Where there is no space for the edit, `wait` is called and the edit tried again, as long as
    /// that returns true; all later edits wait meanwhile. So who has made files for an edit need
    /// not take them back.
    ///
    /// An error is final for the shard, but for [`EngineError::Full`], after which nothing has
    /// changed.
    pub(super) async fn commit(
        &self,
        make: impl FnOnce(&State) -> Option<Edit>,
        wait: impl AsyncFn() -> Result<bool, EngineError>,
    ) -> Result<(), EngineError> {
        let _held = self.edits.enter().await;
        self.commit_alone(make, wait).await
    }

    async fn commit_alone(
        &self,
        make: impl FnOnce(&State) -> Option<Edit>,
        wait: impl AsyncFn() -> Result<bool, EngineError>,
    ) -> Result<(), EngineError> {
        let (edit, after) = {
            let state = self.state.borrow();
            let Some(edit) = make(&state) else { return Ok(()) };
            let mut after = state.clone();
            after.apply(&edit).map_err(crate::manifest::ManifestError::Invalid)?;
            (edit, after)
        };
        loop {
            let mut manifest = self.manifest.borrow_mut().take().expect("only one edit at a time");
            let result = manifest.append(&edit, &after).await;
            self.manifest_bytes.set(manifest.file_bytes());
            *self.manifest.borrow_mut() = Some(manifest);
            match result.map_err(EngineError::from) {
                Ok(()) => break,
                Err(EngineError::Full) if wait().await? => {}
                Err(error) => return Err(error),
            }
        }
        *self.state.borrow_mut() = after;
        Ok(())
    }
}
