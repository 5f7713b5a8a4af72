//! The bytes of a manifest file, without I/O. FORMAT.md draws them.
//!
//! Every record starts at a multiple of [`DISK_ALIGNMENT`] and owns its blocks up to the next one,
//! so that appending never rewrites a block that holds acknowledged data. A record is intact if its
//! checksum holds, which is seeded with the store, the file and the offset: a record of another
//! store, another file or another place is not intact here. Intact records form a chain, by
//! sequence and by the checksum of the record before.
//!
//! One append is in flight at a time. So a crash can spoil only the last record, and whatever is
//! not intact is either the end of the log or damage: damage if an intact record follows.

use larder_runtime::env::DISK_ALIGNMENT;

const MAGIC: [u8; 8] = *b"LARDMANI";
const NUMBER_AT: usize = MAGIC.len();
const SEQUENCE_AT: usize = NUMBER_AT + size_of::<u64>();
const PAYLOAD_BYTES_AT: usize = SEQUENCE_AT + size_of::<u64>();
const KIND_AT: usize = PAYLOAD_BYTES_AT + size_of::<u32>();
const PREVIOUS_AT: usize = KIND_AT + size_of::<u32>();
const CHECKSUM_AT: usize = PREVIOUS_AT + size_of::<u32>();

/// The length of a record's header in bytes.
pub(super) const HEADER_BYTES: usize = CHECKSUM_AT + size_of::<u32>();
const _: () = assert!(HEADER_BYTES == 40);

/// The longest payload in bytes. A snapshot of half a million tables fits.
pub(super) const PAYLOAD_BYTES_MAX: usize = 64 << 20;
const _: () = assert!(PAYLOAD_BYTES_MAX <= u32::MAX as usize);

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// The edit that makes the whole state out of nothing: the first record of a file.
    Snapshot = 1,
    /// A change of the state: every later record.
    Edit = 2,
}

/// Which file a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogIdentity {
    /// The store's random id.
    pub(super) store_id: u128,
    /// The manifest file's number.
    pub(super) number: u64,
}

/// An intact record of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// Where the record starts, in bytes from the start of the file.
    pub(super) offset: usize,
    /// The edit's number; it goes up by one from record to record.
    pub(super) sequence: u64,
    /// The checksum of this record, which the next one repeats.
    pub(super) checksum: u32,
    /// The encoded edit.
    pub(super) payload: &'a [u8],
    kind: u32,
    checksum_previous: u32,
}

impl Record<'_> {
    /// Where the next record starts.
    pub(super) fn end(&self) -> usize {
        self.offset + padded_bytes(self.payload.len())
    }
}

/// What a new record says about itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heading {
    pub(super) kind: Kind,
    pub(super) sequence: u64,
    pub(super) checksum_previous: u32,
    pub(super) offset: u64,
}

/// Where a file stops making sense, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) offset: usize,
    pub(super) what: String,
}

/// The bytes that a record with this payload takes in the file.
pub(super) const fn padded_bytes(payload_bytes: usize) -> usize {
    (HEADER_BYTES + payload_bytes).next_multiple_of(DISK_ALIGNMENT)
}

fn checksum(identity: LogIdentity, offset: u64, header: &[u8], payload: &[u8]) -> u32 {
    let seed = crc32c::crc32c(&identity.store_id.to_le_bytes());
    let seed = crc32c::crc32c_append(seed, &identity.number.to_le_bytes());
    let seed = crc32c::crc32c_append(seed, &offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(seed, header), payload)
}

/// The header of a record, and the record's checksum.
pub(super) fn header(
    identity: LogIdentity,
    heading: Heading,
    payload: &[u8],
) -> ([u8; HEADER_BYTES], u32) {
    let payload_bytes = u32::try_from(payload.len()).expect("payloads are limited");
    let mut header = [0; HEADER_BYTES];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &MAGIC);
    put(NUMBER_AT, &identity.number.to_le_bytes());
    put(SEQUENCE_AT, &heading.sequence.to_le_bytes());
    put(PAYLOAD_BYTES_AT, &payload_bytes.to_le_bytes());
    put(KIND_AT, &(heading.kind as u32).to_le_bytes());
    put(PREVIOUS_AT, &heading.checksum_previous.to_le_bytes());
    let checksum = checksum(identity, heading.offset, &header[..CHECKSUM_AT], payload);
    header[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    (header, checksum)
}

/// Puts the checksum right of the record at the front of `bytes`, if its length says that one is
/// there; `offset` is its place in the file.
pub(super) fn seal(bytes: &mut [u8], identity: LogIdentity, offset: u64) {
    let Some((header, rest)) = bytes.split_first_chunk_mut::<HEADER_BYTES>() else { return };
    let payload_bytes = u32::from_le_bytes(field(header, PAYLOAD_BYTES_AT)) as usize;
    if let Some(payload) = rest.get(..payload_bytes).filter(|_| header.starts_with(&MAGIC)) {
        let checksum = checksum(identity, offset, &header[..CHECKSUM_AT], payload);
        header[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    }
}

fn field<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    header[at..at + N].try_into().expect("a field lies inside the header")
}

/// The record at `offset` of the file that holds `bytes`, if there is an intact one.
fn record_at(bytes: &[u8], identity: LogIdentity, offset: usize) -> Option<Record<'_>> {
    let (header, rest) = bytes.get(offset..)?.split_first_chunk::<HEADER_BYTES>()?;
    let ours = header.starts_with(&MAGIC)
        && u64::from_le_bytes(field(header, NUMBER_AT)) == identity.number;
    if !ours {
        return None;
    }
    let payload_bytes = u32::from_le_bytes(field(header, PAYLOAD_BYTES_AT)) as usize;
    if payload_bytes > PAYLOAD_BYTES_MAX {
        return None;
    }
    let payload = rest.get(..payload_bytes)?;
    let found = u32::from_le_bytes(field(header, CHECKSUM_AT));
    let expected = checksum(identity, offset as u64, &header[..CHECKSUM_AT], payload);
    (found == expected).then(|| Record {
        offset,
        sequence: u64::from_le_bytes(field(header, SEQUENCE_AT)),
        checksum: found,
        payload,
        kind: u32::from_le_bytes(field(header, KIND_AT)),
        checksum_previous: u32::from_le_bytes(field(header, PREVIOUS_AT)),
    })
}

/// The offset of the first intact record that starts at `from` or in a later block.
pub(super) fn intact_record_from(
    bytes: &[u8],
    identity: LogIdentity,
    from: usize,
) -> Option<usize> {
    (from..bytes.len())
        .step_by(DISK_ALIGNMENT)
        .find(|&offset| record_at(bytes, identity, offset).is_some())
}

/// The records of a whole file: a snapshot and the edits that follow on it.
///
/// What comes after the last intact record is ignored: an append that a crash cut short, or space
/// that was never written. Damage is a first record that is not intact (the superblock names a file
/// only after its snapshot is durable), one that is not intact although a later one is, and an
/// intact one that does not continue the chain.
pub(super) fn scan(bytes: &[u8], identity: LogIdentity) -> Result<Vec<Record<'_>>, Damage> {
    let mut records: Vec<Record<'_>> = Vec::new();
    let mut offset = 0;
    while let Some(record) = record_at(bytes, identity, offset) {
        check_chain(records.last(), &record)?;
        offset = record.end();
        records.push(record);
    }
    if let Some(later) = intact_record_from(bytes, identity, offset + DISK_ALIGNMENT) {
        let what = format!("the record here is not intact, but the one at byte {later} is");
        return Err(Damage { offset, what });
    }
    if records.is_empty() {
        let what = "the snapshot at the start of the file is not intact".to_owned();
        return Err(Damage { offset, what });
    }
    Ok(records)
}

fn check_chain(previous: Option<&Record<'_>>, record: &Record<'_>) -> Result<(), Damage> {
    let damage = |what: String| Err(Damage { offset: record.offset, what });
    let kind = if previous.is_some() { Kind::Edit } else { Kind::Snapshot };
    if record.kind != kind as u32 {
        return damage(format!("a record of kind {} instead of {}", record.kind, kind as u32));
    }
    let Some(previous) = previous else { return Ok(()) };
    if Some(record.sequence) != previous.sequence.checked_add(1) {
        let (found, before) = (record.sequence, previous.sequence);
        return damage(format!("edit {found} follows on edit {before}"));
    }
    if record.checksum_previous != previous.checksum {
        return damage("the record continues another log than the one before it".to_owned());
    }
    Ok(())
}
