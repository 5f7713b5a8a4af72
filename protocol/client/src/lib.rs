//! The client of a Larder node, and of memcached.
//!
//! [`Client`] is a handle that any number of threads and tasks share. Each call is a future that
//! needs no runtime of its own, and a thread waits for it with [`Call::wait`]:
//!
//! ```no_run
//! # use larder_client::{Client, ClientError, ItemRef, Put};
//! # fn run(node: &str) -> Result<(), ClientError> {
//! let client = Client::connect(node)?;
//! let name = ItemRef::new(0, b"user:1", b"name")?;
//! client.put(name, &Put::value(b"Ada")).wait()?;
//! let item = client.get(name).wait()?.expect("it was just stored");
//! assert_eq!(item.value, b"Ada");
//! client.delete(name).wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! What is asked for before the first answer is waited for goes to the node together, and so does
//! what other threads ask for meanwhile:
//!
//! ```no_run
//! use larder_client::{Calls, Client, ClientError, ItemRef};
//!
//! # fn several(client: &Client) -> Result<(), ClientError> {
//! let keys = [ItemRef::of_record("user:1")?, ItemRef::of_record("user:2")?];
//! let calls: Calls<_> = keys.into_iter().map(|key| client.get(key)).collect();
//! for item in calls.wait() {
//!     println!("{:?}", item?);
//! }
//! # Ok(())
//! # }
//! # fn at_once(client: &Client, keys: &[ItemRef<'_>]) -> Result<(), ClientError> {
//! // The same with one request for each core that owns some of them:
//! for item in client.multi_get(keys).wait() {
//!     println!("{:?}", item?);
//! }
//! # Ok(())
//! # }
//! # async fn awaited(client: &Client) -> Result<(), ClientError> {
//! // The same in a task of any runtime:
//! let item = client.get(ItemRef::of_record("user:1")?).await?;
//! # drop(item);
//! # Ok(())
//! # }
//! ```
//!
//! The items of a record come in the order of their keys, page by page, and changes of them are
//! made together or not at all:
//!
//! ```no_run
//! use larder_client::{Changes, Client, ClientError, ItemRange, ItemsOf, Mutated, Put};
//!
//! # fn record(client: &Client) -> Result<(), ClientError> {
//! let mut changes = Changes::of_record(0, "user:1")?;
//! changes.check_present("name")?.put("photo:7", &Put::value(b"..."))?;
//! changes.increment("photos", 1, Some(1))?.delete("draft")?;
//! match client.mutate(&changes).wait()? {
//!     Mutated::Yes(changed) => println!("{} photos", changed[2].number),
//!     Mutated::No { at, unmet } => println!("nothing was changed: change {at}: {unmet:?}"),
//! }
//! let photos = ItemsOf::record(0, "user:1")?.range(ItemRange::Prefix(b"photo:"))?;
//! for item in client.items(photos) {
//!     let item = item?;
//!     println!("{} has {} bytes", item.item.escape_ascii(), item.value_len);
//! }
//! client.delete_items(0, "user:1", ItemRange::Prefix(b"photo:")).wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! Values that are longer than a request, up to 128 MiB, go in chunks: [`Client::put_large`] stores
//! what a reader gives, and [`Client::get_large`] gives a reader, which is a stream as well.
//!
//! [`Client::builder`] says the rest: several nodes and replicas, deadlines, how often something is
//! tried, slow reads that are sent twice, compression. Options that cannot be are refused:
//!
//! ```
//! use larder_client::{Client, ClientError};
//! use std::time::Duration;
//!
//! let build = Client::builder().node("10.0.0.1:9411").node("10.0.0.2:9411").replicas(3);
//! let error = build.timeout(Duration::from_millis(200)).build().expect_err("two nodes");
//! assert!(matches!(error, ClientError::Usage(_)));
//! assert_eq!(error.to_string(), "2 nodes keep 1 to 2 replicas, not 3");
//! ```
//!
//! Every error says what to do next ([`ClientError::next`]), and whether what was asked for may
//! have been done all the same ([`ClientError::may_be_done`]): where a connection breaks, nobody
//! knows what became of the writes on it. They are not repeated, unless the node is to make each
//! once however often it comes ([`ClientBuilder::tokens`], or [`Client::once`] for some).
//!
//! [`Memcache`] has the commands of memcached, for programs that move over; a client that was
//! built with [`memcached`](ClientBuilder::memcached) speaks to any memcached. [`ClientConnection`]
//! is one connection of one thread, for programs that want no threads besides their own.
#![forbid(unsafe_code)]

mod clock;
mod conditional;
mod connection;
mod error;
mod handle;
mod key;
mod large;
mod leases;
mod memcache;
mod multi;
mod mutate;
mod namespaces;
mod once;
mod pages;
mod statistics;

pub use conditional::Deleted;
pub use connection::{ClientConnection, Item, Put, Stored, Ticket, When};
pub use error::{ClientError, Next};
pub use handle::{
    COMPRESSED, Call, CallKind, CallMetrics, Calls, Client, ClientBuilder, ClientMetrics,
    ItemStream, LargeReader, LargeUpload, Listing, MultiRead, NamedCall,
};
pub use key::ItemRef;
pub use larder_protocol::native::reply::Changed;
pub use larder_protocol::native::{
    COMPRESS_NEVER, HelloReply, ItemKeyList, ItemRange, NamespaceCache, NamespaceDurability,
    NamespaceSettings, NativeLease, NativeNamespace, PageLimits, RequestDurability, SettingsChange,
};
pub use large::{LargePut, ValueReader};
pub use memcache::{CasOutcome, Memcache, MemcacheRead, MemcacheValue};
pub use multi::ItemRead;
pub use mutate::{Changes, Mutated, Unmet};
pub use once::{ChangeName, NamedChange};
pub use pages::{Items, ItemsOf, ListedItem};

#[cfg(test)]
mod tests;
