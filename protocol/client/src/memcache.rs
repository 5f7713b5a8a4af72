//! What programs do with memcached, for those that move over.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use larder_protocol::native::IncrementItem;

use crate::clock::unix_seconds;
use crate::connection::{Item, Put, Stored, When};
use crate::error::ClientError;
use crate::handle::{Call, Calls, Client, MultiRead};
use crate::key::ItemRef;
use crate::multi::ItemRead;

/// Expiries above this many seconds are Unix times, as in memcached.
const RELATIVE_SECONDS_MAX: u32 = 30 * 24 * 3600;

/// The commands of memcached over a [`Client`], with keys of bytes or text.
///
/// The client speaks to Larder's native port, or to any memcached if it was built with
/// [`memcached`](crate::ClientBuilder::memcached). On a Larder node both see the same values.
///
/// An expiry is 0 for never, seconds from now up to 30 days, or else a Unix time; one that has
/// passed counts as a second from now.
#[derive(Clone, Debug)]
pub struct Memcache {
    client: Client,
}

/// A value, as `gets` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemcacheValue {
    /// The value.
    pub value: Vec<u8>,
    /// The 32 bits that were stored with it.
    pub flags: u32,
    /// For [`Memcache::cas`].
    pub cas: u64,
}

/// A read of several values that is under way: a future for tasks, and something to wait for for
/// threads. It gives an answer for each key, in the order of the keys.
#[derive(Debug)]
#[must_use = "a read may stay unsent until it is waited for or awaited"]
pub struct MemcacheRead {
    read: MultiRead,
    /// By key, what is wrong with it: such keys were not asked for.
    refused: Vec<Option<ClientError>>,
}

impl MemcacheRead {
    /// Waits for all answers, at most until the deadline.
    pub fn wait(self) -> Vec<Result<Option<MemcacheValue>, ClientError>> {
        let Self { read, refused } = self;
        in_order(refused, read.wait())
    }
}

impl Future for MemcacheRead {
    type Output = Vec<Result<Option<MemcacheValue>, ClientError>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let reads = ready!(Pin::new(&mut self.read).poll(context));
        Poll::Ready(in_order(std::mem::take(&mut self.refused), reads))
    }
}

/// An answer for each key, of which some were not asked for.
fn in_order(
    refused: Vec<Option<ClientError>>,
    reads: Vec<ItemRead>,
) -> Vec<Result<Option<MemcacheValue>, ClientError>> {
    let mut reads = reads.into_iter();
    let answer = |refused: Option<ClientError>| match refused {
        Some(error) => Some(Err(error)),
        None => reads.next().map(|read| Ok(read?.map(MemcacheValue::from))),
    };
    refused.into_iter().filter_map(answer).collect()
}

/// What a `cas` ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CasOutcome {
    /// The value is stored.
    Stored,
    /// Somebody has changed it since it was read.
    Exists,
    /// There is none.
    NotFound,
}

impl Memcache {
    /// The commands over this client.
    pub fn over(client: Client) -> Self {
        Self { client }
    }

    /// A value; `None` if there is none.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Call<Option<Vec<u8>>> {
        self.read(key.as_ref()).map(|item| item.map(|item| item.value))
    }

    /// A value with its flags and what [`Memcache::cas`] needs.
    pub fn gets(&self, key: impl AsRef<[u8]>) -> Call<Option<MemcacheValue>> {
        self.read(key.as_ref()).map(|item| item.map(MemcacheValue::from))
    }

    /// The values of all these keys, in their order. Each core of a node is asked for what it owns
    /// with one request.
    pub fn get_multi<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> MemcacheRead {
        let keys: Vec<K> = keys.into_iter().collect();
        let refs: Vec<_> = keys.iter().map(ItemRef::of_record).collect();
        let good: Vec<_> = refs.iter().filter_map(|key| key.as_ref().ok().copied()).collect();
        let read = self.client.multi_get(&good);
        let refused = refs.into_iter().map(Result::err).collect();
        MemcacheRead { read, refused }
    }

    /// Stores a value.
    pub fn set(&self, key: impl AsRef<[u8]>, value: &[u8], flags: u32, expiry: u32) -> Call<()> {
        self.put(key.as_ref(), value, flags, expiry, When::Always).map(drop)
    }

    /// Stores all these values, each under its key.
    pub fn set_multi<'v, K: AsRef<[u8]>>(
        &self,
        values: impl IntoIterator<Item = (K, &'v [u8])>,
        flags: u32,
        expiry: u32,
    ) -> Calls<()> {
        values.into_iter().map(|(key, value)| self.set(key, value, flags, expiry)).collect()
    }

    /// Stores a value if there is none; whether it has.
    pub fn add(&self, key: impl AsRef<[u8]>, value: &[u8], flags: u32, expiry: u32) -> Call<bool> {
        self.put(key.as_ref(), value, flags, expiry, When::Absent).map(is_stored)
    }

    /// Stores a value if there is one; whether it has.
    pub fn replace(
        &self,
        key: impl AsRef<[u8]>,
        value: &[u8],
        flags: u32,
        expiry: u32,
    ) -> Call<bool> {
        self.put(key.as_ref(), value, flags, expiry, When::Present).map(is_stored)
    }

    /// Stores a value if nobody has changed it since [`Memcache::gets`] has shown this `cas`.
    pub fn cas(
        &self,
        key: impl AsRef<[u8]>,
        value: &[u8],
        flags: u32,
        expiry: u32,
        cas: u64,
    ) -> Call<CasOutcome> {
        self.put(key.as_ref(), value, flags, expiry, When::Version(cas)).map(
            |stored| match stored {
                Stored::Yes(_) => CasOutcome::Stored,
                Stored::Absent => CasOutcome::NotFound,
                Stored::Exists | Stored::VersionDiffers | Stored::ValueDiffers => {
                    CasOutcome::Exists
                }
            },
        )
    }

    /// Adds to a number, modulo 2^64, and returns what it is then; `None` if there is none.
    pub fn incr(&self, key: impl AsRef<[u8]>, by: u64) -> Call<Option<u64>> {
        self.count(key.as_ref(), by, false)
    }

    /// Subtracts from a number, down to no less than 0, and returns what it is then; `None` if
    /// there is none.
    pub fn decr(&self, key: impl AsRef<[u8]>, by: u64) -> Call<Option<u64>> {
        self.count(key.as_ref(), by, true)
    }

    /// Deletes a value; whether there was one.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Call<bool> {
        match ItemRef::of_record(key.as_ref()) {
            Ok(key) => self.client.delete(key),
            Err(error) => Call::failed(error),
        }
    }

    /// Gives a value another expiry; whether there is one.
    pub fn touch(&self, key: impl AsRef<[u8]>, expiry: u32) -> Call<bool> {
        match ItemRef::of_record(key.as_ref()) {
            Ok(key) => self.client.touch(key, seconds_to_live(expiry, unix_seconds())),
            Err(error) => Call::failed(error),
        }
    }

    fn read(&self, key: &[u8]) -> Call<Option<Item>> {
        match ItemRef::of_record(key) {
            Ok(key) => self.client.get(key),
            Err(error) => Call::failed(error),
        }
    }

    fn put(&self, key: &[u8], value: &[u8], flags: u32, expiry: u32, when: When) -> Call<Stored> {
        let ttl = seconds_to_live(expiry, unix_seconds());
        match ItemRef::of_record(key) {
            Ok(key) => self.client.put(key, &Put { value, when, client_flags: flags, ttl }),
            Err(error) => Call::failed(error),
        }
    }

    fn count(&self, key: &[u8], delta: u64, is_decrement: bool) -> Call<Option<u64>> {
        match ItemRef::of_record(key) {
            Ok(key) => {
                let count = IncrementItem { key: key.wire, is_decrement, delta, initial: None };
                self.client.increment_as(key, count)
            }
            Err(error) => Call::failed(error),
        }
    }
}

impl From<Item> for MemcacheValue {
    fn from(item: Item) -> Self {
        Self { value: item.value, flags: item.client_flags, cas: item.version }
    }
}

fn is_stored(stored: Stored) -> bool {
    matches!(stored, Stored::Yes(_))
}

/// An expiry of memcached as seconds to live.
fn seconds_to_live(expiry: u32, unix_seconds: u64) -> u32 {
    if expiry <= RELATIVE_SECONDS_MAX {
        return expiry;
    }
    let left = u64::from(expiry).saturating_sub(unix_seconds).max(1);
    u32::try_from(left).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiries_are_those_of_memcached() {
        let now = 1_800_000_000;
        for (expiry, seconds) in [
            (0, 0),
            (1, 1),
            (RELATIVE_SECONDS_MAX, RELATIVE_SECONDS_MAX),
            (RELATIVE_SECONDS_MAX + 1, 1),
            (1_800_000_000, 1),
            (1_800_000_060, 60),
            (u32::MAX, u32::MAX - 1_800_000_000),
        ] {
            assert_eq!(seconds_to_live(expiry, now), seconds, "{expiry}");
        }
    }
}
