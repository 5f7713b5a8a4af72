//! The footer: the last 4 KiB of the file, which says where everything else is.

use larder_runtime::env::DISK_ALIGNMENT;

use super::error::Malformed;
use super::format::{SectionHandle, TableIdentity, u32_at};

/// The length of the footer.
pub(super) const FOOTER_BYTES: usize = 4096;
const _: () = assert!(FOOTER_BYTES.is_multiple_of(DISK_ALIGNMENT));

/// The format that this program writes, and the only one it reads.
pub(super) const FORMAT_VERSION: u32 = 2;

/// The number of the cache-local Bloom filter, the only kind so far.
const FILTER_KIND_BLOOM: u32 = 1;

const MAGIC: [u8; 8] = *b"LardrSST";
const CHECKSUM_AT: usize = FOOTER_BYTES - 4;

/// The footer's contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) identity: TableIdentity,
    pub(super) file_bytes: u64,
    pub(super) entries: u64,
    pub(super) tombstones: u64,
    pub(super) version_max: u64,
    pub(super) separate_bytes: u64,
    pub(super) expiring_bytes: u64,
    pub(super) expiry_max: u32,
    pub(super) expiry_last: u32,
    pub(super) index: SectionHandle,
    pub(super) filter: SectionHandle,
    pub(super) pointed: SectionHandle,
}

/// What a footer turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FooterKind {
    /// This format's.
    Known(Footer),
    /// Sound, but of the format with this number.
    Other(u32),
}

impl Footer {
    /// The offset of the footer in its file.
    pub(super) fn offset(&self) -> u64 {
        self.file_bytes - FOOTER_BYTES as u64
    }

    /// The footer's bytes and their checksum.
    pub(super) fn encode(&self) -> (Vec<u8>, u32) {
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&FILTER_KIND_BLOOM.to_le_bytes());
        bytes.extend_from_slice(&self.identity.store.to_le_bytes());
        bytes.extend_from_slice(&self.identity.table.to_le_bytes());
        let counts = [self.file_bytes, self.entries, self.tombstones, self.version_max];
        for number in counts.into_iter().chain([self.separate_bytes, self.expiring_bytes]) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for section in [self.index, self.filter, self.pointed] {
            bytes.extend_from_slice(&section.offset.to_le_bytes());
            bytes.extend_from_slice(&section.length.to_le_bytes());
            bytes.extend_from_slice(&section.checksum.to_le_bytes());
        }
        bytes.extend_from_slice(&self.expiry_max.to_le_bytes());
        bytes.extend_from_slice(&self.expiry_last.to_le_bytes());
        bytes.resize(CHECKSUM_AT, 0);
        let checksum = self.identity.checksum(self.offset(), &bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        (bytes, checksum)
    }

    /// Checks and reads the footer of a file of `file_bytes` bytes, which is at least a footer's
    /// length. `expected_checksum` is what the manifest holds.
    ///
    /// The checksum comes first: a flipped bit in the format's number is damage, not a new format.
    pub(super) fn decode(
        identity: TableIdentity,
        file_bytes: u64,
        expected_checksum: u32,
        bytes: &[u8],
    ) -> Result<FooterKind, Malformed> {
        if bytes.len() != FOOTER_BYTES || bytes[..MAGIC.len()] != MAGIC {
            return Err(Malformed("no footer"));
        }
        if u32_at(bytes, CHECKSUM_AT) != Some(expected_checksum) {
            return Err(Malformed("the footer's checksum is not the one that the manifest holds"));
        }
        let offset = file_bytes - FOOTER_BYTES as u64;
        if identity.checksum(offset, &bytes[..CHECKSUM_AT]) != expected_checksum {
            return Err(Malformed("the footer's checksum is wrong"));
        }
        let mut fields = Fields(&bytes[MAGIC.len()..]);
        let version = fields.u32();
        if version != FORMAT_VERSION {
            return Ok(FooterKind::Other(version));
        }
        if fields.u32() != FILTER_KIND_BLOOM {
            return Err(Malformed("an unknown kind of filter"));
        }
        let footer = Self {
            identity: TableIdentity { store: fields.u128(), table: fields.u64() },
            file_bytes: fields.u64(),
            entries: fields.u64(),
            tombstones: fields.u64(),
            version_max: fields.u64(),
            separate_bytes: fields.u64(),
            expiring_bytes: fields.u64(),
            index: fields.section(),
            filter: fields.section(),
            pointed: fields.section(),
            expiry_max: fields.u32(),
            expiry_last: fields.u32(),
        };
        let expected = (identity, file_bytes);
        if (footer.identity, footer.file_bytes) != expected || !footer.sections_fill_the_file() {
            return Err(Malformed("the footer contradicts the file"));
        }
        Ok(FooterKind::Known(footer))
    }

    /// Whether data blocks, index, filter, segment list and footer follow one another without gap
    /// or overlap.
    fn sections_fill_the_file(&self) -> bool {
        let Self { index, filter, pointed, .. } = self;
        index.offset.is_multiple_of(DISK_ALIGNMENT as u64)
            && (DISK_ALIGNMENT as u64..self.offset()).contains(&index.offset)
            && index.end() == filter.offset
            && filter.end() == pointed.offset
            && pointed.end() == self.offset()
    }
}

/// The fields of a footer, whose length was checked, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const LEN: usize>(&mut self) -> [u8; LEN] {
        let (field, rest) = self.0.split_first_chunk().expect("all fields fit into the footer");
        self.0 = rest;
        *field
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    fn u128(&mut self) -> u128 {
        u128::from_le_bytes(self.array())
    }

    fn section(&mut self) -> SectionHandle {
        SectionHandle { offset: self.u64(), length: self.u32(), checksum: self.u32() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer() -> Footer {
        Footer {
            identity: TableIdentity { store: 77 << 70, table: 9 },
            file_bytes: 6 * 4096,
            entries: 10,
            tombstones: 2,
            version_max: u64::MAX,
            separate_bytes: 1 << 40,
            expiring_bytes: 3,
            expiry_max: u32::MAX,
            expiry_last: 8,
            index: SectionHandle { offset: 4096, length: 4097, checksum: 1 },
            filter: SectionHandle { offset: 3 * 4096, length: 80, checksum: 2 },
            pointed: SectionHandle { offset: 4 * 4096, length: 28, checksum: 3 },
        }
    }

    #[test]
    fn footers_round_trip_and_their_sections_must_fill_the_file() {
        let good = footer();
        let (bytes, checksum) = good.encode();
        let decoded = Footer::decode(good.identity, good.file_bytes, checksum, &bytes);
        assert_eq!(decoded, Ok(FooterKind::Known(good.clone())));

        let mut gap = good.clone();
        gap.filter.length = 5000;
        let mut far = good.clone();
        far.index.offset = u64::MAX - 4095;
        let mut crooked = good.clone();
        crooked.index.offset = u64::MAX - 100;
        let mut beyond = good;
        beyond.filter.offset = u64::MAX;
        for bad in [gap, far, crooked, beyond] {
            let (bytes, checksum) = bad.encode();
            let decoded = Footer::decode(bad.identity, bad.file_bytes, checksum, &bytes);
            assert_eq!(decoded, Err(Malformed("the footer contradicts the file")));
        }
    }

    #[test]
    fn a_newer_format_is_told_from_a_damaged_one() {
        let footer = footer();
        let (mut bytes, checksum) = footer.encode();
        bytes[8] = 3;
        let decode =
            |bytes: &[u8], sum| Footer::decode(footer.identity, footer.file_bytes, sum, bytes);
        assert!(decode(&bytes, checksum).is_err());
        let resealed = footer.identity.checksum(footer.offset(), &bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&resealed.to_le_bytes());
        assert_eq!(decode(&bytes, resealed), Ok(FooterKind::Other(3)));
    }
}
