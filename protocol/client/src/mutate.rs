//! Changes of a record's items: several together, or all of a range.

use larder_protocol::native::reply::Changed;
use larder_protocol::native::{
    Condition, DeleteItem, DeleteItems, GetItem, ItemRange, MUTATE_CHANGES_MAX, MutateRecord,
    NativeRequest, NativeStatus,
};

use crate::connection::{Arrived, ClientConnection, Put, VALUE_BYTES_MAX, increment_of};
use crate::error::ClientError;
use crate::key::{ItemRef, check_range};

/// Changes of items of one record that are made together or not at all, each of another item.
///
/// Each is checked when it is added. An error leaves the list as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes<'a> {
    pub(crate) namespace: u32,
    pub(crate) record: &'a [u8],
    pub(crate) changes: Vec<NativeRequest<'a>>,
    /// Bytes of the values.
    value_bytes: usize,
}

/// What became of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutated {
    /// All are made. What each has made, in their order.
    Yes(Vec<Changed>),
    /// None is made, because what one of them demands is not so.
    No {
        /// Its place in the list, counted from 0.
        at: usize,
        /// What is not so.
        unmet: Unmet,
    },
}

/// What a change demands in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// There is an item already.
    Exists,
    /// There is no item.
    Absent,
    /// The item has another version.
    VersionDiffers,
    /// The item has another value.
    ValueDiffers,
    /// The value is no decimal number of at most 64 bits.
    NotANumber,
}

impl<'a> Changes<'a> {
    /// No changes yet of `record` of the namespace with this number; 0 is `default`.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if the record id has not 1 to 1,024 bytes.
    pub fn of_record(
        namespace: u32,
        record: &'a (impl AsRef<[u8]> + ?Sized),
    ) -> Result<Self, ClientError> {
        let record = ItemRef::new(namespace, record.as_ref(), &[])?.wire.record;
        Ok(Self { namespace, record, changes: Vec::new(), value_bytes: 0 })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Stores a value, if its condition holds.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if the item key has more than 1,024 bytes, there are 1,024 changes
    /// already, or their values have more bytes than any node takes.
    pub fn put(
        &mut self,
        item: &'a (impl AsRef<[u8]> + ?Sized),
        put: &Put<'a>,
    ) -> Result<&mut Self, ClientError> {
        let key = self.key(item.as_ref())?;
        let request = NativeRequest::Put(put.of(key)?);
        self.count(request.value_bytes())?;
        Ok(self.add(request))
    }

    /// Deletes an item, if there is one.
    ///
    /// # Errors
    /// As [`Changes::put`].
    pub fn delete(
        &mut self,
        item: &'a (impl AsRef<[u8]> + ?Sized),
    ) -> Result<&mut Self, ClientError> {
        self.delete_on(item.as_ref(), Condition::Any)
    }

    /// Deletes an item that has to be there, with this version.
    ///
    /// # Errors
    /// As [`Changes::put`].
    pub fn delete_if_version(
        &mut self,
        item: &'a (impl AsRef<[u8]> + ?Sized),
        version: u64,
    ) -> Result<&mut Self, ClientError> {
        self.delete_on(item.as_ref(), Condition::Version(version))
    }

    /// Deletes an item that has to be there, with this value.
    ///
    /// # Errors
    /// As [`Changes::put`].
    pub fn delete_if_value(
        &mut self,
        item: &'a (impl AsRef<[u8]> + ?Sized),
        value: &'a [u8],
    ) -> Result<&mut Self, ClientError> {
        self.key(item.as_ref())?;
        self.count(value.len())?;
        self.delete_on(item.as_ref(), Condition::Value(value))
    }

    fn delete_on(
        &mut self,
        item: &'a [u8],
        condition: Condition<'a>,
    ) -> Result<&mut Self, ClientError> {
        let key = self.key(item)?.wire;
        Ok(self.add(NativeRequest::Delete(DeleteItem { key, condition })))
    }

    /// Adds `by`, which may be negative, to the number of an item. A missing number begins as
    /// `initial`; if that is not given, the item has to be there.
    ///
    /// # Errors
    /// As [`Changes::put`].
    pub fn increment(
        &mut self,
        item: &'a (impl AsRef<[u8]> + ?Sized),
        by: i64,
        initial: Option<u64>,
    ) -> Result<&mut Self, ClientError> {
        let key = self.key(item.as_ref())?;
        Ok(self.add(NativeRequest::Increment(increment_of(key, by, initial))))
    }

    /// Changes nothing, but demands that there is an item.
    ///
    /// # Errors
    /// As [`Changes::put`].
    pub fn check_present(
        &mut self,
        item: &'a (impl AsRef<[u8]> + ?Sized),
    ) -> Result<&mut Self, ClientError> {
        let key = self.key(item.as_ref())?.wire;
        let get = GetItem { key, metadata_only: true, is_quiet: true };
        Ok(self.add(NativeRequest::Get(get)))
    }

    /// Counts the bytes of a change's values.
    fn count(&mut self, value_bytes: usize) -> Result<(), ClientError> {
        let value_bytes = self.value_bytes.saturating_add(value_bytes);
        if value_bytes > VALUE_BYTES_MAX {
            return Err(ClientError::Usage(format!(
                "the values of all changes have at most {VALUE_BYTES_MAX} bytes, not {value_bytes}"
            )));
        }
        self.value_bytes = value_bytes;
        Ok(())
    }

    /// The key of one item more.
    fn key(&self, item: &'a [u8]) -> Result<ItemRef<'a>, ClientError> {
        if self.changes.len() >= MUTATE_CHANGES_MAX {
            return Err(ClientError::Usage(format!(
                "at most {MUTATE_CHANGES_MAX} changes are made together"
            )));
        }
        ItemRef::new(self.namespace, self.record, item)
    }

    fn add(&mut self, change: NativeRequest<'a>) -> &mut Self {
        self.changes.push(change);
        self
    }
}

impl ClientConnection {
    /// Makes all of these changes, or none if what one of them demands is not so. Nobody sees some
    /// of them without the others, also after a crash of the node.
    ///
    /// # Errors
    /// Any; [`ClientError::Refused`] if two changes are of the same item, or a value is longer than
    /// the node takes. [`ClientError::may_be_done`] says whether all may have been made, or none
    /// was.
    pub fn mutate(&mut self, changes: &Changes<'_>) -> Result<Mutated, ClientError> {
        let Changes { namespace, record, ref changes, .. } = *changes;
        if changes.is_empty() {
            return Err(ClientError::Usage("there is no change to make".to_owned()));
        }
        let body = MutateRecord::body(namespace, record, changes);
        let request = MutateRecord::read(&body).expect("each change was checked when it was added");
        let mutated = self.call(&NativeRequest::Mutate(request))?.mutated(changes.len());
        self.judge(mutated)
    }

    /// Stores these values under these item keys of a record, all or none, in any case and for
    /// ever. Returns their versions.
    ///
    /// # Errors
    /// As [`ClientConnection::mutate`].
    pub fn put_items(
        &mut self,
        namespace: u32,
        record: &(impl AsRef<[u8]> + ?Sized),
        items: &[(&[u8], &[u8])],
    ) -> Result<Vec<u64>, ClientError> {
        let mut changes = Changes::of_record(namespace, record)?;
        for (item, value) in items {
            changes.put(item, &Put::value(value))?;
        }
        match self.mutate(&changes)? {
            Mutated::Yes(changed) => Ok(changed.iter().map(|changed| changed.version).collect()),
            Mutated::No { .. } => {
                let told = "it refuses by a condition what has none".to_owned();
                self.judge(Err(ClientError::Foreign(told)))
            }
        }
    }

    /// Deletes the items of a record that are in a range, all at once and at the same cost however
    /// many they are. The range that a prefix without bytes is has all items.
    ///
    /// # Errors
    /// Any; [`ClientError::Usage`] if the record id has not 1 to 1,024 bytes, or a prefix or bound
    /// more than 1,024.
    pub fn delete_items(
        &mut self,
        namespace: u32,
        record: &(impl AsRef<[u8]> + ?Sized),
        range: ItemRange<'_>,
    ) -> Result<(), ClientError> {
        let record = ItemRef::new(namespace, record.as_ref(), &[])?.wire.record;
        check_range(range)?;
        let delete = DeleteItems { namespace, record, range };
        self.call(&NativeRequest::DeleteItems(delete))?.ok(&[]).map(|_| ())
    }
}

impl Arrived {
    /// What became of `count` changes.
    pub(crate) fn mutated(self, count: usize) -> Result<Mutated, ClientError> {
        let unmet = match self.status {
            Some(NativeStatus::Exists) => Unmet::Exists,
            Some(NativeStatus::Absent) => Unmet::Absent,
            Some(NativeStatus::VersionDiffers) => Unmet::VersionDiffers,
            Some(NativeStatus::ValueDiffers) => Unmet::ValueDiffers,
            Some(NativeStatus::NotANumber) => Unmet::NotANumber,
            _ => {
                let arrived = self.ok(&[])?;
                let changed = arrived.as_reply().changed().ok();
                let changed = changed.filter(|changed| changed.len() == count);
                return changed.map(Mutated::Yes).ok_or_else(|| arrived.foreign());
            }
        };
        Ok(Mutated::No { at: self.refused_change(count)?, unmet })
    }

    /// Which of `count` changes was refused.
    fn refused_change(&self, count: usize) -> Result<usize, ClientError> {
        let at = self.as_reply().refused_change().ok();
        at.filter(|at| *at < count).ok_or_else(|| self.foreign())
    }
}
