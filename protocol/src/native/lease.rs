//! Leases: moments that a shard keeps, so that pages that follow each other show one of them.

use super::request::BodyError;
use super::{RECORD_BYTES_MAX, reply::ReplyError, u16_at, u32_at, u64_at};

/// Bytes of the body that begins a lease, before the record id.
const BEGIN_BYTES: usize = 8;

/// Bytes of the reply to it.
const LEASE_BYTES: usize = 16;

/// Whose moment a lease keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseOf<'a> {
    /// That of the shard that has this record.
    Record(&'a [u8]),
    /// That of the shard with this number.
    Shard(u16),
}

/// A lease to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeginLease<'a> {
    /// How long it is to be held, in milliseconds; 0 for as long as the node allows.
    pub milliseconds: u32,
    /// Whose moment it keeps.
    pub of: LeaseOf<'a>,
}

/// A lease that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeLease {
    /// What pages name it by; never 0.
    pub lease: u64,
    /// How long it is held, in milliseconds from when the node answered.
    pub milliseconds: u32,
    /// The shard whose moment it keeps.
    pub shard: u16,
}

impl<'a> BeginLease<'a> {
    /// Appends the body.
    ///
    /// # Panics
    /// If the record id has not 1 to 1,024 bytes.
    pub(super) fn put_body(&self, out: &mut Vec<u8>) {
        let (shard, record) = match self.of {
            LeaseOf::Record(record) => {
                let is_id = (1..=RECORD_BYTES_MAX).contains(&record.len());
                assert!(is_id, "a record id has 1 to 1,024 bytes");
                (0, record)
            }
            LeaseOf::Shard(shard) => (shard, &[][..]),
        };
        out.extend_from_slice(&self.milliseconds.to_le_bytes());
        out.extend_from_slice(&shard.to_le_bytes());
        out.extend_from_slice(&(record.len() as u16).to_le_bytes());
        out.extend_from_slice(record);
    }

    /// Reads a body.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, BodyError> {
        let (fixed, record) = body
            .split_at_checked(BEGIN_BYTES)
            .ok_or("the body is shorter than the opcode's fixed part")?;
        let (milliseconds, shard) = (u32_at(fixed, 0), u16_at(fixed, 4));
        if record.len() != usize::from(u16_at(fixed, 6)) {
            return Err("the body has not the length that its record id says");
        }
        let of = match record {
            [] => LeaseOf::Shard(shard),
            record if record.len() > RECORD_BYTES_MAX => {
                return Err("a record id has at most 1,024 bytes");
            }
            _ if shard != 0 => return Err("a record, or a shard: not both"),
            record => LeaseOf::Record(record),
        };
        Ok(Self { milliseconds, of })
    }
}

/// Reads the body that ends a lease.
pub(super) fn read_end(body: &[u8]) -> Result<u64, BodyError> {
    if body.len() != size_of::<u64>() {
        return Err("the body is the number of a lease, 8 bytes");
    }
    Ok(u64_at(body, 0))
}

impl NativeLease {
    /// Appends the body of the reply.
    pub(super) fn put_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.lease.to_le_bytes());
        out.extend_from_slice(&self.milliseconds.to_le_bytes());
        out.extend_from_slice(&self.shard.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
    }

    /// Reads it.
    pub(super) fn read(body: &[u8]) -> Result<Self, ReplyError> {
        if body.len() != LEASE_BYTES || u64_at(body, 0) == 0 {
            return Err(ReplyError::Body);
        }
        let (lease, milliseconds) = (u64_at(body, 0), u32_at(body, 8));
        Ok(Self { lease, milliseconds, shard: u16_at(body, 12) })
    }
}
