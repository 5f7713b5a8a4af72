//! Frames: the records of one group commit. FORMAT.md draws the bytes.
//!
//! A frame starts on a 4 KiB block and is padded with zeros to the next. Its header carries how far
//! the log was known to be durable when it was sealed, so that recovery can tell a
//! torn tail from damage to acknowledged data: if a frame at sequence x is unreadable and a later
//! frame says that x was durable, x was acknowledged (the test of "Protocol-Aware Recovery",
//! FAST '18, for one node).

use larder_runtime::buffer::Buffer;
use larder_runtime::env::DISK_ALIGNMENT;

use super::record::{self, Place, Record};

/// The bytes of a frame before its first record.
pub const HEADER_BYTES: usize = 64;

/// What a frame has at most besides values, whose sum is at most that of the longest one.
pub const FRAME_BESIDES_VALUE_BYTES: usize = 4 << 20;

const MAGIC: u32 = u32::from_le_bytes(*b"LFRM");

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The sequence of the first record.
    pub sequence_first: u64,
    /// Every sequence below this one was durable when the frame was sealed.
    pub durable_end: u64,
    /// Bytes of header and records, without padding.
    pub len: u32,
    /// How many records follow.
    pub count: u32,
    /// The header checksum of the frame before it in the log; 0 for the first after a start.
    pub previous: u32,
}

impl FrameHeader {
    /// The bytes that the frame takes in its segment.
    pub fn padded_len(&self) -> u32 {
        padded(self.len as usize) as u32
    }

    /// The sequence after the frame's last record.
    pub fn sequence_end(&self) -> u64 {
        self.sequence_first + u64::from(self.count)
    }

    /// Writes the header to the front of `out` and returns its checksum.
    pub fn encode(&self, place: Place, out: &mut [u8]) -> u32 {
        let header = &mut out[..HEADER_BYTES];
        header.fill(0);
        header[..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[8..16].copy_from_slice(&self.sequence_first.to_le_bytes());
        header[16..24].copy_from_slice(&self.durable_end.to_le_bytes());
        header[24..28].copy_from_slice(&self.len.to_le_bytes());
        header[28..32].copy_from_slice(&self.count.to_le_bytes());
        header[32..36].copy_from_slice(&self.previous.to_le_bytes());
        let crc = crc32c::crc32c_append(place.seed(), &header[8..]);
        header[4..8].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Reads the header at the front of `bytes`, which lies at `place`, with its checksum.
    ///
    /// `None` if there is none: never written, torn, damaged, or left from the segment's earlier
    /// life under another number.
    pub fn decode(bytes: &[u8], place: Place) -> Option<(Self, u32)> {
        let header = bytes.first_chunk::<HEADER_BYTES>()?;
        let le32 = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four"));
        let le64 = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight"));
        let crc = crc32c::crc32c_append(place.seed(), &header[8..]);
        if le32(0) != MAGIC || le32(4) != crc {
            return None;
        }
        let frame = Self {
            sequence_first: le64(8),
            durable_end: le64(16),
            len: le32(24),
            count: le32(28),
            previous: le32(32),
        };
        // A checksum that fits does not make a length safe to compute with.
        let sane = frame.len as usize >= HEADER_BYTES
            && frame.len as usize <= FRAME_BESIDES_VALUE_BYTES + record::VALUE_BYTES_MAX
            && frame.sequence_first.checked_add(u64::from(frame.count)).is_some();
        sane.then_some((frame, crc))
    }
}

/// `len` rounded up to whole blocks.
pub fn padded(len: usize) -> usize {
    len.next_multiple_of(DISK_ALIGNMENT)
}

/// A frame that is being filled.
pub struct FrameBuilder {
    buffer: Buffer,
    place: Place,
    sequence_first: u64,
    count: u32,
    len: usize,
}

impl FrameBuilder {
    /// An empty frame at `place`, with `buffer` to build it in.
    pub fn new(mut buffer: Buffer, place: Place, sequence_first: u64) -> Self {
        buffer.set_len(buffer.capacity());
        Self { buffer, place, sequence_first, count: 0, len: HEADER_BYTES }
    }

    /// Where the frame starts.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Bytes of header and records so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no record was added.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The sequence after the last record so far.
    pub fn sequence_end(&self) -> u64 {
        self.sequence_first + u64::from(self.count)
    }

    /// The buffer's size; a frame that would outgrow it moves with [`FrameBuilder::move_to`].
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Moves what was built to a larger buffer; returns the one that it has outgrown.
    pub fn move_to(&mut self, mut larger: Buffer) -> Buffer {
        larger.set_len(larger.capacity());
        larger[..self.len].copy_from_slice(&self.buffer[..self.len]);
        std::mem::replace(&mut self.buffer, larger)
    }

    /// Adds a record, which must fit the buffer; returns its offset in the segment.
    pub fn push(&mut self, record: &Record<'_>, payload_crc: u32) -> u32 {
        let len = record.encoded_len();
        let offset = self.place.offset + self.len as u32;
        let place = Place { offset, ..self.place };
        record::encode(record, payload_crc, place, &mut self.buffer[self.len..self.len + len]);
        self.len += len;
        self.count += 1;
        offset
    }

    /// Writes the header and the padding; returns the bytes to write and the header's checksum.
    pub fn seal(mut self, durable_end: u64, previous: u32) -> (Buffer, u32) {
        let padded_len = padded(self.len);
        self.buffer[self.len..padded_len].fill(0);
        let header = FrameHeader {
            sequence_first: self.sequence_first,
            durable_end,
            len: self.len as u32,
            count: self.count,
            previous,
        };
        let crc = header.encode(self.place, &mut self.buffer);
        self.buffer.set_len(padded_len);
        (self.buffer, crc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Metadata;
    use crate::value_log::record::RecordKind;

    #[test]
    fn a_sealed_frame_reads_back() {
        let place = Place { store: 1, segment: 2, offset: 8192 };
        let mut builder = FrameBuilder::new(Buffer::zeroed(4096), place, 10);
        let metadata = Metadata { version: 10, ..Metadata::default() };
        let kind = RecordKind::Put;
        let record = Record { kind, metadata, key: b"key", payload: b"value", original: None };
        let offset = builder.push(&record, crc32c::crc32c(b"value"));
        assert_eq!(offset, 8192 + HEADER_BYTES as u32);
        let outgrown = builder.move_to(Buffer::zeroed(8192));
        assert_eq!(outgrown.len(), 4096);
        let (buffer, crc) = builder.seal(9, 77);
        assert_eq!(buffer.len(), 4096);
        let (header, header_crc) = FrameHeader::decode(&buffer, place).expect("a frame");
        assert_eq!(header_crc, crc);
        assert_eq!((header.sequence_first, header.sequence_end()), (10, 11));
        assert_eq!((header.durable_end, header.previous), (9, 77));
        let at = Place { offset, ..place };
        let found = record::decode(&buffer[HEADER_BYTES..], at).expect("a record");
        assert_eq!(found.record, record);

        let elsewhere = Place { segment: 3, ..place };
        assert_eq!(FrameHeader::decode(&buffer, elsewhere), None);
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        let place = Place { store: 1, segment: 2, offset: 8192 };
        let builder = FrameBuilder::new(Buffer::zeroed(4096), place, 10);
        let (mut buffer, _) = builder.seal(9, 77);
        for bit in 0..HEADER_BYTES * 8 {
            buffer[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&buffer, place), None, "bit {bit}");
            buffer[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
