//! Scrubbing: reading what nobody asks for, so that damage is found while there is still a backup.
//!
//! A pass goes through all tables and then through all full segments, in small steps, and checks
//! every checksum. Between two steps nothing is held, so that files can be removed; what a step has
//! found counts only if its file is still the shard's afterwards, because the file of a freed
//! segment is written anew under another number. Who reads a damaged key is told so. A table in
//! which something is damaged is written anew by a merge, which sets blocks aside that it cannot
//! read; a segment stays as it is, and the collector moves what it can read of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use crate::check::reader::Reader;
use crate::check::segments::{pieces, read_frame};
use crate::error::EngineError;
use crate::index::table::{self, Table};
use crate::value_log::record::Place;
use crate::value_log::segment::{self, Segment};

/// How much one step reads, but for longer frames.
const STEP_BYTES: usize = 128 << 10;

/// Damaged places that are remembered, so that each is reported once. Of more only the first are
/// logged.
const PLACES_MAX: usize = 10_000;

/// How often a scrubber that waits looks whether the shard is being closed, in nanoseconds.
const TICK_NANOSECONDS: u64 = 1_000_000_000;

/// How fast is scrubbed, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Bytes a second; none turns scrubbing off.
    pub bytes_per_second: Option<u64>,
    /// How long to rest after a pass, in nanoseconds.
    pub rest_nanoseconds: u64,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self { bytes_per_second: None, rest_nanoseconds: 3600 * 1_000_000_000 }
    }
}

impl ScrubOptions {
    /// How long a step that has read `bytes` has to be waited for.
    fn nanoseconds_for(&self, bytes: u64) -> u64 {
        let rate = u128::from(self.bytes_per_second.unwrap_or(u64::MAX).max(1));
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / rate;
        u64::try_from(nanoseconds).unwrap_or(u64::MAX)
    }
}

/// What scrubbing has done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubCounters {
    /// Bytes checked.
    pub bytes: u64,
    /// Passes that have come to their end.
    pub passes: u64,
    /// Damaged places found, each counted once while its file exists.
    pub damages: u64,
    /// When the last pass ended, in Unix seconds; 0 if none did.
    pub pass_ended_at: u64,
}

/// A file to scrub, in the order of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScrubFile {
    /// The table with this id.
    Table(u64),
    /// The segment with this number.
    Segment(u32),
}

impl ScrubFile {
    fn name(self) -> String {
        match self {
            Self::Table(id) => table::file_name(id),
            Self::Segment(number) => segment::file_name(number),
        }
    }
}

/// What the scrubber needs of the shard around it.
pub trait ScrubHost<E: Env> {
    /// The first file to scrub behind `after`, in order.
    fn next_file(&self, after: Option<ScrubFile>) -> Option<ScrubFile>;

    /// The table with this id, while the manifest names it.
    fn table(&self, id: u64) -> Option<Rc<Table<E>>>;

    /// Where the full segment with this number ends, while the manifest names it.
    fn segment_end(&self, number: u32) -> Option<u32>;

    /// The segment with this number, while it is there.
    ///
    /// # Errors
    ///
    /// Those of opening it.
    fn segment(
        &self,
        number: u32,
    ) -> impl Future<Output = Result<Option<Rc<Segment<E::File>>>, EngineError>>;

    /// Told after each step: files that it has kept may go.
    fn has_let_go(&self);

    /// Told when damage was found in a file.
    fn has_found_damage(&self);

    /// Whether the work is to be broken off: the shard is being closed.
    fn is_closing(&self) -> bool;
}

/// What one step has come to.
#[derive(Debug, Default)]
pub(crate) struct ScrubStep {
    /// Where the next one goes on; `None` at the end of the file.
    pub(crate) next: Option<u64>,
    pub(crate) bytes: u64,
    /// Where something is wrong, and what.
    pub(crate) damage: Vec<(u64, String)>,
}

/// Reads the files of one shard again and again.
pub struct Scrubber<E: Env> {
    env: E,
    store: u128,
    options: ScrubOptions,
    counters: Cell<ScrubCounters>,
    /// The damaged places that were reported.
    reported: RefCell<BTreeSet<(ScrubFile, u64)>>,
}

impl<E: Env> Scrubber<E> {
    /// A scrubber of the store with this id.
    pub fn new(env: E, store: u128, options: ScrubOptions) -> Self {
        let (counters, reported) = (Cell::default(), RefCell::default());
        Self { env, store, options, counters, reported }
    }

    /// What was done so far.
    pub fn counters(&self) -> ScrubCounters {
        self.counters.get()
    }

    /// Scrubs until the shard is being closed.
    pub async fn run(&self, host: &impl ScrubHost<E>) {
        if self.options.bytes_per_second.is_none() {
            return;
        }
        while !host.is_closing() {
            let mut last = None;
            while let Some(file) = host.next_file(last) {
                self.file(file, host).await;
                if host.is_closing() {
                    return;
                }
                last = Some(file);
            }
            self.end_pass(host);
            self.wait(self.options.rest_nanoseconds, host).await;
        }
    }

    async fn file(&self, file: ScrubFile, host: &impl ScrubHost<E>) {
        let mut at = Some(0);
        while let Some(from) = at {
            let Some(step) = self.step(file, from, host).await else { return };
            host.has_let_go();
            if !is_there(file, host) {
                return;
            }
            if !step.damage.is_empty() {
                host.has_found_damage();
            }
            for (offset, what) in step.damage {
                self.report(file, offset, &what);
            }
            self.count(|counters| counters.bytes += step.bytes);
            at = step.next;
            self.wait(self.options.nanoseconds_for(step.bytes), host).await;
            if host.is_closing() {
                return;
            }
        }
    }

    /// One step in `file`; `None` if it is not the shard's any more.
    async fn step(
        &self,
        file: ScrubFile,
        from: u64,
        host: &impl ScrubHost<E>,
    ) -> Option<ScrubStep> {
        match file {
            ScrubFile::Table(id) => {
                let table = host.table(id)?;
                Some(table.scrub(from, STEP_BYTES as u64, IoClass::Scrub).await)
            }
            ScrubFile::Segment(number) => {
                let end = host.segment_end(number)?;
                match host.segment(number).await {
                    Ok(segment) => Some(self.segment(&*segment?, end, from).await),
                    Err(error) => {
                        let damage = vec![(0, error.to_string())];
                        Some(ScrubStep { damage, ..ScrubStep::default() })
                    }
                }
            }
        }
    }

    async fn segment(&self, segment: &Segment<E::File>, end: u32, from: u64) -> ScrubStep {
        let mut reader = Reader::of(&self.env, segment.file.clone(), STEP_BYTES);
        let mut step = ScrubStep::default();
        let from = u32::try_from(from).unwrap_or(end).max(segment::HEADER_BYTES);
        let mut offset = from;
        while offset < end && (offset - from) < STEP_BYTES as u32 {
            let place = Place { store: self.store, segment: segment.number, offset };
            let mut found = check_frame(&mut reader, place, end).await;
            if !found.1.is_empty() {
                // A transfer that went wrong must not look like damage.
                reader = Reader::of(&self.env, segment.file.clone(), STEP_BYTES);
                found = check_frame(&mut reader, place, end).await;
            }
            offset = found.0;
            let damage = found.1.into_iter();
            step.damage.extend(damage.map(|(offset, what)| (u64::from(offset), what)));
            self.env.yield_if_needed().await;
        }
        step.bytes = u64::from(offset - from.min(offset));
        step.next = (offset < end).then_some(u64::from(offset));
        step
    }

    fn report(&self, file: ScrubFile, offset: u64, what: &str) {
        let mut reported = self.reported.borrow_mut();
        if reported.len() >= PLACES_MAX || !reported.insert((file, offset)) {
            return;
        }
        self.count(|counters| counters.damages += 1);
        tracing::error!(file = file.name(), offset, "scrubbing has found damage: {what}");
    }

    fn end_pass(&self, host: &impl ScrubHost<E>) {
        self.reported.borrow_mut().retain(|(file, _)| is_there(*file, host));
        let now = self.env.unix_seconds();
        self.count(|counters| {
            counters.passes += 1;
            counters.pass_ended_at = now;
        });
    }

    fn count(&self, count: impl FnOnce(&mut ScrubCounters)) {
        let mut counters = self.counters.get();
        count(&mut counters);
        self.counters.set(counters);
    }

    async fn wait(&self, nanoseconds: u64, host: &impl ScrubHost<E>) {
        let mut left = nanoseconds;
        while left > 0 && !host.is_closing() {
            let part = left.min(TICK_NANOSECONDS);
            self.env.sleep(part).await;
            left -= part;
        }
    }
}

/// Where the frame at `place` ends, and what is wrong in it.
async fn check_frame<E: Env>(
    reader: &mut Reader<'_, E>,
    place: Place,
    end: u32,
) -> (u32, Vec<(u32, String)>) {
    let frame = read_frame(reader, place, end).await;
    let damage = match pieces(&frame.bytes, place) {
        Ok(pieces) => frame.damage(&pieces),
        Err(error) => vec![(place.offset, error.to_string())],
    };
    (frame.end(), damage)
}

fn is_there<E: Env>(file: ScrubFile, host: &impl ScrubHost<E>) -> bool {
    match file {
        ScrubFile::Table(id) => host.table(id).is_some(),
        ScrubFile::Segment(number) => host.segment_end(number).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_waited_for_as_the_rate_says() {
        let options = |bytes_per_second| ScrubOptions {
            bytes_per_second: Some(bytes_per_second),
            ..ScrubOptions::default()
        };
        assert_eq!(options(4 << 20).nanoseconds_for(1 << 20), 250_000_000);
        assert_eq!(options(0).nanoseconds_for(2), 2_000_000_000);
        assert_eq!(options(1).nanoseconds_for(u64::MAX), u64::MAX);
    }
}
