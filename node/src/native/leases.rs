//! Leases: what their requests ask of a shard, and what is told of them.

use larder_engine::key::{route_hash, shard_of_hash};
use larder_engine::shard::{LEASE_NANOSECONDS_MAX, LeaseGiven};
use larder_protocol::native::{BeginLease, LeaseOf, NativeLease, NativeStatus};

use super::records::Fault;
use crate::request::{ShardRequest, ShardWork};

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

/// What is said of a lease that this node cannot have given, or has given for another record.
pub(super) const OTHER_LEASE: Fault =
    (NativeStatus::LeaseEnded, "the lease is none of this node's, or of another shard");

/// The shard that a lease is of, if this node has it.
pub(super) fn shard_of(lease: u64, shards: u16) -> Result<u16, Fault> {
    // The engine puts it there.
    let shard = lease as u16;
    if shard < shards { Ok(shard) } else { Err(OTHER_LEASE) }
}

/// What a lease to begin asks of a shard.
pub(super) fn begun(
    begin: &BeginLease<'_>,
    shards: u16,
    deadline: Option<u64>,
) -> Result<ShardRequest, Fault> {
    let shard = match begin.of {
        LeaseOf::Record(record) => shard_of_hash(route_hash(record), shards),
        LeaseOf::Shard(shard) if shard < shards => shard,
        LeaseOf::Shard(_) => {
            return Err((NativeStatus::Malformed, "there is no such shard: see the hello"));
        }
    };
    let nanoseconds = match begin.milliseconds {
        0 => LEASE_NANOSECONDS_MAX,
        milliseconds => u64::from(milliseconds) * NANOSECONDS_PER_MILLISECOND,
    };
    Ok(ShardRequest::new(shard, deadline, ShardWork::BeginLease(nanoseconds)))
}

/// What the end of a lease asks of its shard.
pub(super) fn ended(lease: u64, shards: u16, deadline: Option<u64>) -> Result<ShardRequest, Fault> {
    let shard = shard_of(lease, shards)?;
    Ok(ShardRequest::new(shard, deadline, ShardWork::EndLease(lease)))
}

/// What is told of a lease.
pub(super) fn shown(given: &LeaseGiven) -> NativeLease {
    let milliseconds = given.nanoseconds / NANOSECONDS_PER_MILLISECOND;
    NativeLease {
        lease: given.id,
        milliseconds: u32::try_from(milliseconds).unwrap_or(u32::MAX),
        shard: given.id as u16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_asked_of_the_shard_of_its_record_or_number() {
        let begin = |milliseconds, of, shards| {
            let asked = begun(&BeginLease { milliseconds, of }, shards, None);
            asked.map(|request| (request.shard, request.work)).map_err(|(status, _)| status)
        };
        let of_record = LeaseOf::Record(b"record");
        let shard = shard_of_hash(route_hash(b"record"), 7);
        let longest = ShardWork::BeginLease(LEASE_NANOSECONDS_MAX);
        assert_eq!(begin(0, of_record, 7), Ok((shard, longest)));
        let second = ShardWork::BeginLease(1_000_000_000);
        assert_eq!(begin(1_000, LeaseOf::Shard(6), 7), Ok((6, second)));
        assert_eq!(begin(0, LeaseOf::Shard(7), 7), Err(NativeStatus::Malformed));
    }

    #[test]
    fn a_lease_says_its_shard() {
        let given = LeaseGiven { id: 0xABCD_0003, nanoseconds: 2_000_000_000, needs: 0 };
        let shown = shown(&given);
        assert_eq!((shown.shard, shown.milliseconds), (3, 2_000));
        let end = |shards| ended(shown.lease, shards, None).map(|request| request.shard);
        assert_eq!((end(4), end(3)), (Ok(3), Err(OTHER_LEASE)));
    }
}
