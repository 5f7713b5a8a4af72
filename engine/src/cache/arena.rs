//! The bytes of all entries, and where the parts of an entry lie.
//!
//! ```text
//! 0            8            12          14      15        16       16 + HEADER
//! | hash u64   | value len  | key len   | uses  | dead    | header | key | value | pad to 8 |
//! |            | u32        | u16       | u8    | u8      |
//! ```

use std::ops::Range;

use larder_runtime::memory::{CACHE_LINE, ZeroedSlice, prefetch};

use super::pages::Pages;

/// Entries start at multiples of this many bytes, so that 32 bits address 32 GiB.
pub(super) const UNIT: usize = 8;

/// The most bytes that a [`Location`] can address.
pub(super) const ARENA_BYTES_MAX: usize = UNIT << 32;

/// The most uses that are counted: two bits, as S3-FIFO has it.
const USES_MAX: u8 = 3;

const DESCRIPTOR_BYTES: usize = 16;
const USES_AT: usize = 14;
const DEAD_AT: usize = 15;

/// Where an entry starts, in units of [`UNIT`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location(u32);

impl Location {
    pub(super) fn at(offset: usize) -> Self {
        assert!(offset.is_multiple_of(UNIT), "an entry must start at a multiple of {UNIT}");
        Self(u32::try_from(offset / UNIT).expect("the arena is at most 32 GiB"))
    }

    pub(super) fn raw(self) -> u32 {
        self.0
    }

    pub(super) fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    pub(super) fn offset(self) -> usize {
        self.0 as usize * UNIT
    }
}

/// The bytes that an entry takes in the arena. The lengths must be those of admissible slices.
pub(super) fn entry_bytes<const HEADER: usize>(key_len: usize, value_len: usize) -> usize {
    (DESCRIPTOR_BYTES + HEADER + key_len + value_len).next_multiple_of(UNIT)
}

/// What an entry says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    /// The hash the index knows the entry by.
    pub(super) hash: u64,
    pub(super) value_len: u32,
    pub(super) key_len: u16,
    /// Uses counted since the entry came into its queue, at most [`USES_MAX`].
    pub(super) uses: u8,
    /// The entry was removed or replaced: only its bytes are still there.
    pub(super) dead: bool,
}

impl Descriptor {
    pub(super) fn new(hash: u64, key: &[u8], value: &[u8], uses: u8) -> Self {
        let key_len = u16::try_from(key.len()).expect("longer keys are not admitted");
        Self { hash, value_len: 0, key_len, uses, dead: false }.with_value(value)
    }

    /// The descriptor of the same entry with another value.
    pub(super) fn with_value(self, value: &[u8]) -> Self {
        let value_len = u32::try_from(value.len()).expect("longer values are not admitted");
        Self { value_len, ..self }
    }

    pub(super) fn entry_bytes<const HEADER: usize>(self) -> usize {
        entry_bytes::<HEADER>(usize::from(self.key_len), self.value_len as usize)
    }

    fn encode(self) -> [u8; DESCRIPTOR_BYTES] {
        let lengths = u64::from(self.value_len)
            | u64::from(self.key_len) << 32
            | u64::from(self.uses) << (8 * (USES_AT - 8))
            | u64::from(self.dead) << (8 * (DEAD_AT - 8));
        let mut bytes = [0; DESCRIPTOR_BYTES];
        bytes[..8].copy_from_slice(&self.hash.to_le_bytes());
        bytes[8..].copy_from_slice(&lengths.to_le_bytes());
        bytes
    }

    #[inline]
    fn decode(bytes: &[u8; DESCRIPTOR_BYTES]) -> Self {
        let whole = u128::from_le_bytes(*bytes);
        let lengths = (whole >> 64) as u64;
        Self {
            hash: whole as u64,
            value_len: lengths as u32,
            key_len: (lengths >> 32) as u16,
            uses: bytes[USES_AT],
            dead: bytes[DEAD_AT] != 0,
        }
    }
}

/// All entries' bytes.
pub(super) struct Arena<const HEADER: usize> {
    bytes: ZeroedSlice<u8>,
    pages: Pages,
}

impl<const HEADER: usize> Arena<HEADER> {
    /// The bytes of an entry whose key and value are empty.
    pub(super) const ENTRY_MIN: usize = (DESCRIPTOR_BYTES + HEADER).next_multiple_of(UNIT);

    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes: ZeroedSlice::new(bytes), pages: Pages::new(bytes) }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How much of it is in memory.
    pub(super) fn resident_bytes(&self) -> usize {
        self.pages.resident_bytes()
    }

    /// Whether an entry lies in memory that was written to and not given back.
    #[cfg(test)]
    pub(super) fn is_in_memory(&self, location: Location, entry_bytes: usize) -> bool {
        self.pages.are_in_memory(location.offset()..location.offset() + entry_bytes)
    }

    /// The length of what is given back at a time, in bytes.
    pub(super) fn unit_bytes(&self) -> usize {
        self.pages.unit_bytes()
    }

    /// What the first write to a place brings into memory, in bytes.
    pub(super) fn fault_bytes(&self) -> usize {
        self.pages.fault_bytes()
    }

    /// Parts of the arena are going to be given back, so units come into memory one by one.
    pub(super) fn prepare_release(&mut self) {
        if self.pages.end_huge_pages() {
            self.bytes.use_small_pages();
        }
    }

    /// Gives back to the operating system what of `free` makes up whole units, at most `units_max`
    /// of them, and says how many. No live entry may lie in `free`.
    pub(super) fn release(&mut self, free: Range<usize>, units_max: usize) -> usize {
        let mut from = free.start;
        let mut units = 0;
        while units < units_max
            && let Some(unit) = self.pages.first_within(from..free.end)
            && self.bytes.release(unit.clone())
        {
            self.pages.note_release(&unit);
            from = unit.end;
            units += 1;
        }
        units
    }

    #[inline]
    pub(super) fn descriptor(&self, location: Location) -> Descriptor {
        let descriptor = self.bytes[location.offset()..]
            .first_chunk::<DESCRIPTOR_BYTES>()
            .expect("an entry lies inside the arena");
        Descriptor::decode(descriptor)
    }

    /// The entry's bytes after the descriptor, without the padding.
    #[inline]
    fn body(&self, location: Location, descriptor: Descriptor) -> &[u8] {
        let len = HEADER + usize::from(descriptor.key_len) + descriptor.value_len as usize;
        &self.bytes[location.offset() + DESCRIPTOR_BYTES..][..len]
    }

    /// Brings the first `lines` cache lines of an entry near.
    #[inline]
    pub(super) fn prefetch(&self, location: Location, lines: usize) {
        for byte in self.bytes[location.offset()..].iter().step_by(CACHE_LINE).take(lines) {
            prefetch(byte);
        }
    }

    #[inline]
    pub(super) fn has_key(&self, location: Location, key: &[u8]) -> bool {
        let descriptor = self.descriptor(location);
        let key_len = usize::from(descriptor.key_len);
        key_len == key.len() && self.body(location, descriptor)[HEADER..][..key_len] == *key
    }

    pub(super) fn key(&self, location: Location) -> &[u8] {
        let descriptor = self.descriptor(location);
        &self.body(location, descriptor)[HEADER..][..usize::from(descriptor.key_len)]
    }

    #[inline]
    pub(super) fn contents(&self, location: Location) -> (&[u8; HEADER], &[u8]) {
        let descriptor = self.descriptor(location);
        let (header, rest) = self
            .body(location, descriptor)
            .split_first_chunk::<HEADER>()
            .expect("a body starts with the header");
        (header, &rest[usize::from(descriptor.key_len)..])
    }

    #[inline]
    pub(super) fn contents_mut(&mut self, location: Location) -> (&mut [u8; HEADER], &[u8]) {
        let descriptor = self.descriptor(location);
        let len = HEADER + usize::from(descriptor.key_len) + descriptor.value_len as usize;
        let (header, rest) = self.bytes[location.offset() + DESCRIPTOR_BYTES..][..len]
            .split_first_chunk_mut::<HEADER>()
            .expect("a body starts with the header");
        (header, &rest[usize::from(descriptor.key_len)..])
    }

    #[inline]
    pub(super) fn count_use(&mut self, location: Location) {
        let uses = &mut self.bytes[location.offset() + USES_AT];
        // A saturated count is not written again: the cache line stays clean.
        if *uses < USES_MAX {
            *uses += 1;
        }
    }

    pub(super) fn set_uses(&mut self, location: Location, uses: u8) {
        self.bytes[location.offset() + USES_AT] = uses;
    }

    pub(super) fn mark_dead(&mut self, location: Location) {
        self.bytes[location.offset() + DEAD_AT] = 1;
    }

    /// Writes a whole entry.
    pub(super) fn write(
        &mut self,
        location: Location,
        descriptor: Descriptor,
        header: &[u8; HEADER],
        key: &[u8],
        value: &[u8],
    ) {
        let offset = location.offset();
        let len = DESCRIPTOR_BYTES + HEADER + key.len() + value.len();
        self.pages.note_write(offset..offset + len);
        let entry = &mut self.bytes[offset..];
        let (descriptor_bytes, rest) = entry.split_at_mut(DESCRIPTOR_BYTES);
        let (header_bytes, rest) = rest.split_at_mut(HEADER);
        let (key_bytes, rest) = rest.split_at_mut(key.len());
        descriptor_bytes.copy_from_slice(&descriptor.encode());
        header_bytes.copy_from_slice(header);
        key_bytes.copy_from_slice(key);
        rest[..value.len()].copy_from_slice(value);
    }

    /// Copies the `bytes` bytes of an entry to another place, which may overlap the first.
    pub(super) fn copy(&mut self, from: Location, to: Location, bytes: usize) {
        self.pages.note_write(to.offset()..to.offset() + bytes);
        self.bytes.copy_within(from.offset()..from.offset() + bytes, to.offset());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_round_trip() {
        let descriptor = Descriptor {
            hash: u64::MAX - 7,
            value_len: u32::MAX,
            key_len: 65_535,
            uses: 3,
            dead: true,
        };
        assert_eq!(Descriptor::decode(&descriptor.encode()), descriptor);
        let live = Descriptor::new(1 << 63, b"key", b"value", 2);
        assert_eq!(Descriptor::decode(&live.encode()), live);
        assert_eq!((live.key_len, live.value_len, live.uses, live.dead), (3, 5, 2, false));
    }

    #[test]
    fn locations_address_the_whole_arena() {
        let last = ARENA_BYTES_MAX - UNIT;
        assert_eq!(Location::at(last).offset(), last);
        assert_eq!(Location::at(0).offset(), 0);
    }

    #[test]
    fn an_entry_keeps_its_parts_through_uses_and_overlapping_copies() {
        let mut arena = Arena::<3>::new(256);
        let from = Location::at(64);
        let descriptor = Descriptor::new(42, b"key", b"a value", 0);
        arena.write(from, descriptor, b"abc", b"key", b"a value");
        for expected in [1, 2, 3, 3] {
            arena.count_use(from);
            assert_eq!(arena.descriptor(from).uses, expected);
        }
        let to = Location::at(56);
        arena.copy(from, to, descriptor.entry_bytes::<3>());
        arena.set_uses(to, 1);
        assert_eq!(arena.descriptor(to), Descriptor { uses: 1, ..descriptor });
        assert!(arena.has_key(to, b"key"));
        assert!(!arena.has_key(to, b"kez") && !arena.has_key(to, b"ke"));
        arena.contents_mut(to).0[1] = b'-';
        assert_eq!(arena.contents(to), (b"a-c", &b"a value"[..]));
    }
}
