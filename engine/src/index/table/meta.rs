//! What the manifest remembers of a table.

/// A table's place and contents; the manifest stores it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableMeta {
    /// The table's id, which names its file.
    pub id: u64,
    /// The level it belongs to. The file itself does not say, so that a table moves without I/O.
    pub level: u8,
    /// The file's length in bytes.
    pub file_bytes: u64,
    /// The number of entries, tombstones included.
    pub entries: u64,
    /// The number of tombstones.
    pub tombstones: u64,
    /// The first key, encoded.
    pub smallest: Vec<u8>,
    /// The last key, encoded.
    pub largest: Vec<u8>,
    /// The checksum of the footer, and through it of every byte that a lookup relies on.
    pub footer_checksum: u32,
    /// The largest version among the entries.
    pub version_max: u64,
    /// Bytes of the log records that its entries point to.
    pub separate_bytes: u64,
    /// Bytes of those log records whose entries have an expiry.
    pub expiring_bytes: u64,
    /// The Unix second from which on every entry is a tombstone or has expired; 0 if that never
    /// comes.
    pub expiry_max: u32,
    /// The Unix second from which on every entry that has an expiry has expired; 0 if none has one.
    pub expiry_last: u32,
    /// Data blocks that cannot be read, in increasing order. A table that has some is a *stub*:
    /// its readable entries are in other tables, and it says which keys are lost.
    pub bad_blocks: Vec<u32>,
    /// The log sequence below which all deletions of ranges were applied to it: it has no entry
    /// that one of those hides. What a later one covers is hidden.
    pub deleted_until: u64,
}

impl TableMeta {
    /// Whether the table is there only to say which keys are lost.
    pub fn is_stub(&self) -> bool {
        !self.bad_blocks.is_empty()
    }
}
