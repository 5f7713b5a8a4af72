//! Leases: moments that a shard keeps, so that pages that follow each other show one of them.

use larder_protocol::native::{BeginLease, LeaseOf, NativeLease, NativeRequest};

use crate::connection::ClientConnection;
use crate::error::ClientError;
use crate::key::ItemRef;

impl ClientConnection {
    /// Keeps the moment of the shard that has `record` for so many milliseconds, 0 for as long as
    /// the node allows; what it grants is told. Pages show it that have the lease among their
    /// [`PageLimits`](crate::PageLimits). It ends earlier where space becomes short.
    ///
    /// # Errors Any; [`ClientError::Usage`] if the record id has not 1 to 1,024 bytes. The status
    /// *busy* says that the shard gives no further lease now.
    pub fn lease(
        &mut self,
        record: &(impl AsRef<[u8]> + ?Sized),
        milliseconds: u32,
    ) -> Result<NativeLease, ClientError> {
        let record = ItemRef::new(0, record.as_ref(), &[])?.wire.record;
        self.begin_lease(BeginLease { milliseconds, of: LeaseOf::Record(record) })
    }

    /// The same of the shard with this number: a scan under its lease shows this shard's items.
    ///
    /// # Errors
    /// Any; the status *malformed* if the node has no such shard.
    pub fn lease_shard(
        &mut self,
        shard: u16,
        milliseconds: u32,
    ) -> Result<NativeLease, ClientError> {
        self.begin_lease(BeginLease { milliseconds, of: LeaseOf::Shard(shard) })
    }

    fn begin_lease(&mut self, begin: BeginLease<'_>) -> Result<NativeLease, ClientError> {
        let arrived = self.call(&NativeRequest::BeginLease(begin))?.ok(&[])?;
        let lease = arrived.as_reply().lease();
        let told = "the reply to the beginning of a lease is none".to_owned();
        self.judge(lease.map_err(|_| ClientError::Foreign(told)))
    }

    /// Ends a lease; false if it had ended before.
    ///
    /// # Errors
    /// Any.
    pub fn end_lease(&mut self, lease: &NativeLease) -> Result<bool, ClientError> {
        let ended = Some(larder_protocol::native::NativeStatus::LeaseEnded);
        let arrived = self.call(&NativeRequest::EndLease(lease.lease))?;
        if arrived.status == ended {
            return Ok(false);
        }
        arrived.ok(&[]).map(|_| true)
    }
}
