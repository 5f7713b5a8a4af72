//! Changes that have a name, over a handle.

use super::call::Call;
use super::{Client, Put};
use crate::conditional::Deleted;
use crate::connection::{Item, Stored};
use crate::key::ItemRef;
use crate::mutate::{Changes, Mutated};
use crate::once::ChangeName;
use larder_protocol::native::ItemRange;

/// A client whose next change has a name.
#[derive(Clone, Debug)]
pub struct NamedCall {
    client: Client,
}

impl Client {
    /// Makes the change that follows under this name, once, however often it is sent: by the
    /// client, which then tries it again when it has no answer, and by the program, which may keep
    /// the name and come again with the same change later, also after it was started anew.
    ///
    /// ```no_run
    /// # use larder_client::{ChangeName, Client, ClientError, ItemRef};
    /// # fn pay(client: &Client) -> Result<(), ClientError> {
    /// let (account, name) = (ItemRef::of_record("account:7")?, ChangeName::new());
    /// let pay = || client.once(name).increment(account, -10, None).wait();
    /// let paid = match pay() {
    ///     // Nobody knows whether it was done: the same name makes sure that it is, and once.
    ///     Err(error) if error.may_be_done() => pay()?,
    ///     told => told?,
    /// };
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Where every change is to have a name of its own there is
    /// [`ClientBuilder::tokens`](crate::ClientBuilder::tokens).
    pub fn once(&self, name: ChangeName) -> NamedCall {
        NamedCall { client: Self { name: Some(name), ..self.clone() } }
    }
}

impl NamedCall {
    /// As [`Client::put`]. [`ClientError::Refused`](crate::ClientError::Refused), here and below,
    /// if the name is that of another change, too old, or of a clock that differs too much from
    /// the node's.
    pub fn put<'a>(self, key: ItemRef<'a>, put: &Put<'a>) -> Call<Stored> {
        self.client.put(key, put)
    }

    /// As [`Client::delete`].
    pub fn delete(self, key: ItemRef<'_>) -> Call<bool> {
        self.client.delete(key)
    }

    /// As [`Client::delete_if_version`].
    pub fn delete_if_version(self, key: ItemRef<'_>, version: u64) -> Call<Deleted> {
        self.client.delete_if_version(key, version)
    }

    /// As [`Client::delete_if_value`].
    pub fn delete_if_value(self, key: ItemRef<'_>, value: &[u8]) -> Call<Deleted> {
        self.client.delete_if_value(key, value)
    }

    /// As [`Client::increment`].
    pub fn increment(self, key: ItemRef<'_>, by: i64, initial: Option<u64>) -> Call<Option<u64>> {
        self.client.increment(key, by, initial)
    }

    /// As [`Client::touch`]. Where the item has gone since the first time, `false`.
    pub fn touch(self, key: ItemRef<'_>, ttl: u32) -> Call<bool> {
        self.client.touch(key, ttl)
    }

    /// As [`Client::get_and_touch`]. Who comes again is shown the item as it is by then.
    pub fn get_and_touch(self, key: ItemRef<'_>, ttl: u32) -> Call<Option<Item>> {
        self.client.get_and_touch(key, ttl)
    }

    /// As [`Client::delete_items`]: nothing goes that was stored behind the first time.
    pub fn delete_items(
        self,
        namespace: u32,
        record: &(impl AsRef<[u8]> + ?Sized),
        range: ItemRange<'_>,
    ) -> Call<()> {
        self.client.delete_items(namespace, record, range)
    }

    /// As [`Client::mutate`].
    pub fn mutate(self, changes: &Changes<'_>) -> Call<Mutated> {
        self.client.mutate(changes)
    }
}
