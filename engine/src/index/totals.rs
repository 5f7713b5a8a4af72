//! The tables one by one, and what their metadata says of the space that they and the log take.

use std::rc::Rc;

use larder_runtime::env::Env;

use super::Index;
use super::table::Table;
use crate::generations::generation_of;

impl<E: Env> Index<E> {
    /// The table with this id, unless it is a stub, which says itself what is damaged.
    pub fn table(&self, id: u64) -> Option<Rc<Table<E>>> {
        let table = self.contents.borrow().tables.find(id).cloned();
        table.filter(|table| !table.meta().is_stub())
    }

    /// The lowest id above `id` of a table that is no stub, of any if there is no id.
    pub fn table_after(&self, id: Option<u64>) -> Option<u64> {
        self.contents.borrow().tables.after(id)
    }

    /// Bytes of the tables of a generation, and of the log records that they point to.
    pub fn bytes_of(&self, generation: u32) -> u64 {
        let contents = self.contents.borrow();
        let metas = contents.tables.metas();
        let of_it = metas.filter(|meta| generation_of(&meta.smallest) == generation);
        of_it.map(|meta| meta.file_bytes + meta.separate_bytes).sum()
    }

    /// Bytes of the log records that entries of tables point to: those with an expiry, and all.
    pub fn expiring_bytes(&self) -> (u64, u64) {
        let contents = self.contents.borrow();
        let metas = contents.tables.metas();
        metas.fold((0, 0), |(expiring, all), meta| {
            (expiring + meta.expiring_bytes, all + meta.separate_bytes)
        })
    }
}
