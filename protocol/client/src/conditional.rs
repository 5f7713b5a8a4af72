//! Deletes of what is as it was last seen.

use larder_protocol::native::{Condition, DeleteItem, NativeRequest, NativeStatus};

use crate::connection::{Arrived, ClientConnection, VALUE_BYTES_MAX};
use crate::error::ClientError;
use crate::key::ItemRef;

/// What became of an item that was to be deleted if it is as demanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is deleted.
    Yes,
    /// There is none.
    Absent,
    /// It has another version, and stays.
    VersionDiffers,
    /// It has another value, and stays.
    ValueDiffers,
}

impl ClientConnection {
    /// Deletes an item if it has this version.
    ///
    /// # Errors
    /// Any. A condition that does not hold is none.
    pub fn delete_if_version(
        &mut self,
        key: ItemRef<'_>,
        version: u64,
    ) -> Result<Deleted, ClientError> {
        self.delete_if(key, Condition::Version(version))
    }

    /// Deletes an item if it has this value.
    ///
    /// # Errors
    /// Any. A condition that does not hold is none.
    pub fn delete_if_value(
        &mut self,
        key: ItemRef<'_>,
        value: &[u8],
    ) -> Result<Deleted, ClientError> {
        check_demanded(value)?;
        self.delete_if(key, Condition::Value(value))
    }

    fn delete_if(
        &mut self,
        key: ItemRef<'_>,
        condition: Condition<'_>,
    ) -> Result<Deleted, ClientError> {
        let delete = DeleteItem { key: key.wire, condition };
        self.call(&NativeRequest::Delete(delete))?.deleted()
    }
}

/// A value that is demanded is no longer than one that may be stored.
pub(crate) fn check_demanded(value: &[u8]) -> Result<(), ClientError> {
    let len = value.len();
    if len <= VALUE_BYTES_MAX {
        return Ok(());
    }
    Err(ClientError::Usage(format!("a value has at most {VALUE_BYTES_MAX} bytes, not {len}")))
}

impl Arrived {
    /// What became of an item that was to be deleted if it is as demanded.
    pub(crate) fn deleted(self) -> Result<Deleted, ClientError> {
        let arrived = self.ok(&[
            NativeStatus::Absent,
            NativeStatus::VersionDiffers,
            NativeStatus::ValueDiffers,
        ])?;
        Ok(match arrived.status {
            Some(NativeStatus::Absent) => Deleted::Absent,
            Some(NativeStatus::VersionDiffers) => Deleted::VersionDiffers,
            Some(NativeStatus::ValueDiffers) => Deleted::ValueDiffers,
            _ => Deleted::Yes,
        })
    }
}
