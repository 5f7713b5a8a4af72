//! Changes that are made once, however often they are sent.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use larder_protocol::native::{IdempotencyToken, ItemRange};

use crate::connection::{ClientConnection, Put, Stored};
use crate::error::ClientError;
use crate::key::ItemRef;
use crate::mutate::{Changes, Mutated};

/// Names a change. Who sends one again because no answer came sends it under the same name: the
/// node then answers what it has answered the first time, if it has, and makes no second change.
/// That holds for a window of time (`--idempotency-window`), over connections and restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeName(IdempotencyToken);

impl ChangeName {
    /// A name that no other change has: of this moment, and otherwise by chance.
    #[allow(clippy::disallowed_methods, reason = "a client has a clock of its own")]
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_microseconds = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let mut nonce = [0; 16];
        for part in nonce.as_chunks_mut::<8>().0 {
            // Each state is made of another secret of the process.
            *part = RandomState::new().build_hasher().finish().to_le_bytes();
        }
        Self(IdempotencyToken { time_microseconds, nonce })
    }

    /// The name as it is sent.
    pub fn token(&self) -> IdempotencyToken {
        self.0
    }
}

impl Default for ChangeName {
    fn default() -> Self {
        Self::new()
    }
}

/// A connection whose next change has a name.
#[derive(Debug)]
pub struct NamedChange<'a> {
    node: &'a mut ClientConnection,
    name: ChangeName,
}

impl ClientConnection {
    /// Makes the change that follows under this name.
    ///
    /// ```no_run
    /// # use larder_client::{ChangeName, ClientConnection, ClientError, ItemRef};
    /// # type Paid = Result<(), ClientError>;
    /// # fn pay(mut node: ClientConnection, mut other: ClientConnection) -> Paid {
    /// let (account, name) = (ItemRef::of_record("account:7")?, ChangeName::new());
    /// let paid = match node.once(name).increment(account, -10, None) {
    ///     // Nobody knows whether it was done: the same name makes sure that it is, and once.
    ///     Err(error) if error.may_be_done() => other.once(name).increment(account, -10, None)?,
    ///     told => told?,
    /// };
    /// # Ok(())
    /// # }
    /// ```
    pub fn once(&mut self, name: ChangeName) -> NamedChange<'_> {
        NamedChange { node: self, name }
    }
}

impl NamedChange<'_> {
    fn make<T>(
        self,
        change: impl FnOnce(&mut ClientConnection) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        self.node.set_token(Some(self.name.token()));
        let made = change(self.node);
        // What was not even sent has not taken it.
        self.node.set_token(None);
        made
    }

    /// As [`ClientConnection::put`].
    ///
    /// # Errors
    /// The same; [`ClientError::Refused`] if the name is that of another change, or too old.
    pub fn put<'a>(self, key: ItemRef<'a>, put: &Put<'a>) -> Result<Stored, ClientError> {
        self.make(|node| node.put(key, put))
    }

    /// As [`ClientConnection::delete`].
    ///
    /// # Errors
    /// As [`NamedChange::put`].
    pub fn delete(self, key: ItemRef<'_>) -> Result<bool, ClientError> {
        self.make(|node| node.delete(key))
    }

    /// As [`ClientConnection::increment`].
    ///
    /// # Errors
    /// As [`NamedChange::put`].
    pub fn increment(
        self,
        key: ItemRef<'_>,
        by: i64,
        initial: Option<u64>,
    ) -> Result<Option<u64>, ClientError> {
        self.make(|node| node.increment(key, by, initial))
    }

    /// As [`ClientConnection::touch`]. Where the item has gone since the first time, `false`.
    ///
    /// # Errors
    /// As [`NamedChange::put`].
    pub fn touch(self, key: ItemRef<'_>, ttl: u32) -> Result<bool, ClientError> {
        self.make(|node| node.touch(key, ttl))
    }

    /// As [`ClientConnection::delete_items`]: nothing goes that was stored behind the first time.
    ///
    /// # Errors
    /// As [`NamedChange::put`].
    pub fn delete_items(
        self,
        namespace: u32,
        record: &(impl AsRef<[u8]> + ?Sized),
        range: ItemRange<'_>,
    ) -> Result<(), ClientError> {
        self.make(|node| node.delete_items(namespace, record, range))
    }

    /// As [`ClientConnection::mutate`].
    ///
    /// # Errors
    /// As [`NamedChange::put`].
    pub fn mutate(self, changes: &Changes<'_>) -> Result<Mutated, ClientError> {
        self.make(|node| node.mutate(changes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_names_are_the_same() {
        let names: Vec<_> = (0..100).map(|_| ChangeName::new()).collect();
        let mut nonces: Vec<_> = names.iter().map(|name| name.token().nonce).collect();
        nonces.sort_unstable();
        nonces.dedup();
        assert_eq!(nonces.len(), names.len());
    }
}
