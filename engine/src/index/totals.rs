//! What the tables' metadata says of the space that they and the log take.

use larder_runtime::env::Env;

use super::Index;

impl<E: Env> Index<E> {
    /// How many memtables were written out: after another one the tables may know something newer.
    pub fn flushes(&self) -> u64 {
        self.counters.get().flushes
    }

    /// Bytes of the log records that entries of tables point to: those with an expiry, and all.
    pub fn expiring_bytes(&self) -> (u64, u64) {
        let contents = self.contents.borrow();
        let metas = contents.tables.metas();
        metas.fold((0, 0), |(expiring, all), meta| {
            (expiring + meta.expiring_bytes, all + meta.separate_bytes)
        })
    }

    /// Of the log records that entries of tables point to, at most so many bytes are hidden by newer
    /// entries of tables.
    pub fn hidden_bytes_max(&self) -> u64 {
        let contents = self.contents.borrow();
        let deepest = contents.tables.metas().map(|meta| meta.level).max();
        let above = contents.tables.metas().filter(|meta| Some(meta.level) != deepest);
        above.map(|meta| meta.separate_bytes).sum()
    }

    /// Bytes of files of tables that the manifest does not name any more.
    pub fn doomed_bytes(&self) -> u64 {
        0
    }
}
