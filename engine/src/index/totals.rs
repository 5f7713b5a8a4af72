//! What the tables' metadata says of the space that they and the log take.

use larder_runtime::env::Env;

use super::Index;

impl<E: Env> Index<E> {
    /// Bytes of the log records that entries of tables point to: those with an expiry, and all.
    pub fn expiring_bytes(&self) -> (u64, u64) {
        let contents = self.contents.borrow();
        let metas = contents.tables.metas();
        metas.fold((0, 0), |(expiring, all), meta| {
            (expiring + meta.expiring_bytes, all + meta.separate_bytes)
        })
    }
}
