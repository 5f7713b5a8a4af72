//! Writing a frozen memtable out as tables of level 0.

use std::rc::Rc;

use larder_runtime::env::{DISK_ALIGNMENT, Env, IoClass, TaskQueue};

use super::hiding::Older;
use super::live_bytes::LiveBytes;
use super::table::{TableError, TableMeta, TableSequence};
use super::{Frozen, Host, Index};
use crate::canary::{self, Defect};
use crate::error::EngineError;
use crate::manifest::{Edit, LogPosition, NamespaceGeneration};
use crate::range_tombstones::RangeTombstone;
use crate::space::Purpose;

impl<E: Env> Index<E> {
    /// Makes the frozen memtable, if there is one, tables of level 0. Replay starts behind it then.
    ///
    /// # Errors
    ///
    /// [`EngineError::Full`] and [`EngineError::Read`]: nothing has changed, and it may be tried
    /// again later. All others are final.
    pub async fn flush(&self, host: &impl Host) -> Result<(), EngineError> {
        let Some(frozen) = self.contents.borrow().frozen.clone() else { return Ok(()) };
        // A pointer becomes durable only after its target.
        host.sync_log().await?;
        let _reserved = host.reserve(2 * frozen.memtable.bytes() as u64, Purpose::Flush)?;
        let mut live = LiveBytes::default();
        let outputs = self.write_memtable(&frozen, &mut live).await?;
        let opened = self.open_outputs(&outputs, IoClass::Flush).await?;
        for table in &opened {
            self.estimate_hiding(table, Older::All, IoClass::Flush).await;
        }
        self.sync_directory().await?;
        let bytes: u64 = outputs.iter().map(|meta| meta.file_bytes).sum();
        let seals = host.take_seals();
        let (live_bytes, segment_pointers) = live.into_edit();
        let replay_from = replay_position(frozen.position);
        host.commit(|| Edit {
            tables_added: outputs,
            live_bytes,
            segment_pointers,
            segments_sealed: seals,
            replay_from: Some(replay_from),
            table_id_next: Some(self.table_id_next.get()),
            namespace_generations: new_generations(&frozen, host),
            ranges_deleted: self.new_ranges(&frozen),
            ..Edit::default()
        })
        .await?;
        let mut contents = self.contents.borrow_mut();
        self.change_tables(&mut contents, |tables| {
            for table in &opened {
                tables.add(0, Rc::clone(table));
            }
        });
        contents.frozen = None;
        drop(contents);
        self.snapshots.flushed(&opened);
        self.flushed_until.set(replay_from.sequence);
        self.count(|counters| {
            counters.flushes += 1;
            counters.flush_bytes += bytes;
        });
        self.drop_in_steps(frozen);
        Ok(())
    }

    /// Frees a memtable's memory without holding the core.
    fn drop_in_steps(&self, frozen: Rc<Frozen>) {
        let frozen = Rc::into_inner(frozen)
            .expect("look-ups keep no memtables, and snapshots none that were flushed");
        let (env, mut memtable) = (self.env.clone(), frozen.memtable);
        self.env.spawn(TaskQueue::Flush, async move {
            while memtable.drop_some() {
                env.yield_if_needed().await;
            }
        });
    }

    /// The deletions of ranges that are in the memtable's part of the log.
    fn new_ranges(&self, frozen: &Frozen) -> Vec<RangeTombstone> {
        let is_new = |range: &RangeTombstone| range.sequence >= self.flushed_until.get();
        frozen.living.ranges.iter().filter(is_new).collect()
    }

    async fn write_memtable(
        &self,
        frozen: &Frozen,
        live: &mut LiveBytes,
    ) -> Result<Vec<TableMeta>, TableError> {
        let until = frozen.position.sequence;
        let options = self.sequence_options(0, IoClass::Flush, until);
        let mut outputs = TableSequence::new(options, || self.take_table_id());
        for (key, found) in frozen.memtable.iter() {
            if frozen.living.is_deleted(key, found.sequence) {
                continue;
            }
            if let Err(error) = outputs.add(key, &found.entry).await {
                outputs.abandon().await;
                return Err(error);
            }
            live.add_new(&found.entry);
            self.env.yield_if_needed().await;
        }
        outputs.finish().await
    }
}

/// The generations of which the log before the memtable's end tells, and the manifest does not.
fn new_generations(frozen: &Frozen, host: &impl Host) -> Vec<NamespaceGeneration> {
    let durable = host.durable().generations;
    let new = frozen.living.generations.iter().filter(|&(namespace, generation)| {
        !durable.iter().any(|known| known == (namespace, generation))
    });
    new.map(|(namespace, generation)| NamespaceGeneration {
        namespace,
        generation: u64::from(generation),
    })
    .collect()
}

/// Where replay goes on after a flush: where the log stood when the memtable was frozen.
fn replay_position(frozen: LogPosition) -> LogPosition {
    if canary::has(Defect::ReplayFromLater) {
        let offset = frozen.offset + DISK_ALIGNMENT as u32;
        return LogPosition { offset, sequence: frozen.sequence + 1, ..frozen };
    }
    frozen
}
