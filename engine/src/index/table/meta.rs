//! What the manifest remembers of a table.

/// A table's place and contents; the manifest stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}
