//! What all parts of the file share: alignment, identity, checksums and the section header.
//!
//! Data blocks, the index and the filter are sections: a header of 16 bytes, then the body. A
//! section starts at a multiple of the disk's alignment and is padded with zeros up to the next.

use larder_runtime::env::DISK_ALIGNMENT;

use super::error::Malformed;

/// What the checksums of a table cover besides the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableIdentity {
    /// The store's id, from its superblock.
    pub store: u128,
    /// The table's id.
    pub table: u64,
}

impl TableIdentity {
    /// The CRC32C of store, table, `offset` and `bytes`.
    pub(super) fn checksum(&self, offset: u64, bytes: &[u8]) -> u32 {
        let mut place = [0; 32];
        place[..16].copy_from_slice(&self.store.to_le_bytes());
        place[16..24].copy_from_slice(&self.table.to_le_bytes());
        place[24..].copy_from_slice(&offset.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c(&place), bytes)
    }
}

/// Bytes before a section's body.
pub(super) const SECTION_HEADER_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;
const LENGTH_AT: usize = CHECKSUM_BYTES;
const COUNT_AT: usize = LENGTH_AT + 4;
const DETAIL_AT: usize = COUNT_AT + 4;
const _: () = assert!(DETAIL_AT + 4 == SECTION_HEADER_BYTES);

/// What a parent knows of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SectionHandle {
    /// Bytes from the start of the file; aligned.
    pub(super) offset: u64,
    /// Bytes of header and body, without padding.
    pub(super) length: u32,
    /// The checksum that the section's own header repeats.
    pub(super) checksum: u32,
}

impl SectionHandle {
    /// The offset after the section's padding; beyond any file if the handle is no section's.
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(padded(u64::from(self.length)))
    }
}

/// `bytes` rounded up to the disk's alignment.
pub(super) fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(DISK_ALIGNMENT as u64)
}

/// Fills in the header of `section`, whose first [`SECTION_HEADER_BYTES`] bytes are for it.
pub(super) fn seal(
    identity: TableIdentity,
    offset: u64,
    section: &mut [u8],
    count: u32,
    detail: u32,
) -> SectionHandle {
    let length = u32::try_from(section.len()).expect("a section is shorter than 4 GiB");
    section[LENGTH_AT..COUNT_AT].copy_from_slice(&length.to_le_bytes());
    section[COUNT_AT..DETAIL_AT].copy_from_slice(&count.to_le_bytes());
    section[DETAIL_AT..SECTION_HEADER_BYTES].copy_from_slice(&detail.to_le_bytes());
    let checksum = identity.checksum(offset, &section[CHECKSUM_BYTES..]);
    section[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    SectionHandle { offset, length, checksum }
}

/// A section whose checksum was found right, or which comes from the block cache.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    /// Header and body, without padding.
    pub(super) bytes: &'a [u8],
    /// The number of things in the body.
    pub(super) count: u32,
    /// A second number; its meaning depends on the kind of section.
    pub(super) detail: u32,
}

impl<'a> Section<'a> {
    /// Checks the section that `handle` describes; `read` starts with it and may be longer.
    pub(super) fn verify(
        identity: TableIdentity,
        handle: SectionHandle,
        read: &'a [u8],
    ) -> Result<Self, Malformed> {
        let bytes = read.get(..handle.length as usize).ok_or(Malformed("cut short"))?;
        let section = Self::trusted(bytes)?;
        if u32_at(bytes, 0) != Some(handle.checksum) {
            return Err(Malformed("its checksum is not the one that its parent holds"));
        }
        if identity.checksum(handle.offset, &bytes[CHECKSUM_BYTES..]) != handle.checksum {
            return Err(Malformed("wrong checksum"));
        }
        if u32_at(bytes, LENGTH_AT) != Some(handle.length) {
            return Err(Malformed("its length is not the one that its parent holds"));
        }
        Ok(section)
    }

    /// Takes the header apart without looking at the checksum.
    pub(super) fn trusted(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let count = u32_at(bytes, COUNT_AT).ok_or(Malformed("shorter than its header"))?;
        let detail = u32_at(bytes, DETAIL_AT).ok_or(Malformed("shorter than its header"))?;
        Ok(Self { bytes, count, detail })
    }

    /// What follows the header.
    pub(super) fn body(&self) -> &'a [u8] {
        &self.bytes[SECTION_HEADER_BYTES..]
    }
}

/// The little-endian number at `at`; `None` beyond the end.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*field))
}

/// How many bytes `left` and `right` have in common at their start.
pub(super) fn common_prefix_len(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(a, b)| a == b).count()
}
