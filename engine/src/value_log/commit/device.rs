//! The log's dealings with the device: writing frames, flushing.

use std::collections::BTreeSet;
use std::rc::Rc;

use larder_runtime::buffer::Buffer;
use larder_runtime::env::{Env, File, IoClass, TaskQueue};

use super::state::State;
use super::{Durability, ValueLog};
use crate::canary::{self, Defect};
use crate::error::EngineError;
use crate::value_log::segment;

/// A flush under way: the next one waits, because it may rely on its outcome.
struct Flush<'a, E: Env> {
    log: &'a ValueLog<E>,
    /// What is to be flushed. What is left when this is dropped was not.
    segments: BTreeSet<u32>,
}

impl<'a, E: Env> Flush<'a, E> {
    fn begin(log: &'a ValueLog<E>) -> Self {
        let mut state = log.shared.state.borrow_mut();
        state.flushing = true;
        let segments = std::mem::take(&mut state.unsynced);
        drop(state);
        Self { log, segments }
    }
}

impl<E: Env> Drop for Flush<'_, E> {
    fn drop(&mut self) {
        let mut state = self.log.shared.state.borrow_mut();
        state.flushing = false;
        state.unsynced.append(&mut self.segments);
        drop(state);
        self.log.shared.changed.notify();
    }
}

impl<E: Env> ValueLog<E> {
    /// Completes when every record below `sequence_end` is durable.
    pub async fn wait_durable(&self, sequence_end: u64) -> Result<(), EngineError> {
        self.wait(|state| state.durable_end >= sequence_end).await
    }

    pub(super) async fn wait(&self, done: impl Fn(&State<E>) -> bool) -> Result<(), EngineError> {
        let shared = &*self.shared;
        shared
            .changed
            .wait_for(|| {
                let state = shared.state.borrow();
                if done(&state) {
                    return Some(Ok(()));
                }
                state.stopped.clone().map(|reason| Err(EngineError::Stopped(reason)))
            })
            .await
    }

    /// Sends the open frame to the device without waiting for more records.
    pub(super) fn write_open_frame(&self) {
        self.shared.state.borrow_mut().close_open_frame();
        self.shared.to_write.notify();
    }

    /// Makes everything that was appended before the call durable, in any durability mode.
    ///
    /// # Errors
    ///
    /// [`EngineError::Stopped`]. A flush that has failed is never tried again: the device may have
    /// dropped what it covered, and would now report success.
    pub async fn flush(&self) -> Result<(), EngineError> {
        let target = self.sequence_next();
        self.write_open_frame();
        self.wait(|state| {
            state.durable_end >= target || (state.written_end >= target && !state.flushing)
        })
        .await?;
        if self.durable_end() >= target {
            return Ok(());
        }
        self.check_running()?;
        let mut flush = Flush::begin(self);
        let result = self.sync_segments(&flush.segments).await;
        let result = result.and_then(|()| self.check_running());
        if result.is_ok() {
            let mut state = self.shared.state.borrow_mut();
            state.durable_end = state.durable_end.max(target);
        }
        flush.segments.clear();
        drop(flush);
        result
    }

    fn check_running(&self) -> Result<(), EngineError> {
        if canary::has(Defect::RetryFlush) {
            return Ok(());
        }
        self.stopped().map_or(Ok(()), |reason| Err(EngineError::Stopped(reason)))
    }

    async fn sync_segments(&self, numbers: &BTreeSet<u32>) -> Result<(), EngineError> {
        for &number in numbers {
            let segment = self.shared.state.borrow().segments.open(number);
            // A segment that was freed holds nothing that could be missed.
            let Some(segment) = segment else { continue };
            if let Err(source) = segment.file.sync(IoClass::Commit).await {
                let error = self.segment_error(number, "flushing", &source);
                self.stop(error.to_string());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Keeps what was appended from lingering in memory in the mode that never waits for it.
    pub(super) async fn write_every(self, nanoseconds: u64) {
        while self.stopped().is_none() {
            self.shared.env.sleep(nanoseconds).await;
            self.write_open_frame();
        }
    }

    pub(super) async fn flush_every(self, nanoseconds: u64) {
        while self.stopped().is_none() {
            self.shared.env.sleep(nanoseconds).await;
            let idle = {
                let state = self.shared.state.borrow();
                state.durable_end == state.sequence_next
            };
            if !idle && self.flush().await.is_err() {
                return;
            }
        }
    }

    fn segment_error(&self, number: u32, operation: &str, source: &std::io::Error) -> EngineError {
        let path = self.shared.directory.join(segment::file_name(number));
        EngineError::Stopped(format!("{operation} {}: {source}", path.display()))
    }

    /// The task that sends frames to the device.
    pub(super) async fn write_frames(self) {
        let shared = Rc::clone(&self.shared);
        loop {
            let frame = shared
                .to_write
                .wait_for(|| {
                    let mut state = shared.state.borrow_mut();
                    if state.stopped.is_some() {
                        return Some(None);
                    }
                    state.next_to_write(&shared.options).map(Some)
                })
                .await;
            let Some((file, offset, buffer, index)) = frame else { return };
            shared
                .env
                .spawn(TaskQueue::Foreground, self.clone().write(file, offset, buffer, index));
        }
    }

    async fn write(self, file: E::File, offset: u32, buffer: Buffer, sequence_end: u64) {
        let durable = self.shared.options.durability == Durability::Sync;
        let (result, buffer) = if durable {
            file.write_durably(IoClass::Commit, u64::from(offset), buffer).await
        } else {
            file.write(IoClass::Commit, u64::from(offset), buffer).await
        };
        match result {
            Ok(()) => {
                let mut state = self.shared.state.borrow_mut();
                state.frame_written(sequence_end, durable);
                state.buffers.give(buffer);
            }
            Err(source) => {
                let number = self.shared.state.borrow().segment_of_frame(sequence_end);
                let error = self.segment_error(number, "writing", &source);
                self.stop(error.to_string());
            }
        }
        self.shared.changed.notify();
        self.shared.to_write.notify();
        self.offer_room();
    }
}
