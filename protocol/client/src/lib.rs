//! The client of the native protocol.
//!
//! [`ClientConnection`] is one connection of one thread: a call sends a request and waits for its
//! reply, or [`ClientConnection::send_get`] and [`ClientConnection::wait_item`] keep many under
//! way. It needs no runtime.
//!
//! ```no_run
//! use larder_client::{ClientConnection, ItemRef, Put};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), larder_client::ClientError> {
//! let mut node = ClientConnection::open("127.0.0.1:9411", Duration::from_secs(5))?;
//! let key = ItemRef::of_record("user:1")?;
//! node.put(key, &Put::value(b"Ada"))?;
//! let item = node.get(key)?.expect("it was just stored");
//! assert_eq!(item.value, b"Ada");
//! # Ok(())
//! # }
//! ```
//!
//! The items of a record come in the order of their keys, page by page:
//!
//! ```no_run
//! use larder_client::{ClientConnection, ItemRange, ItemsOf};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), larder_client::ClientError> {
//! let mut node = ClientConnection::open("127.0.0.1:9411", Duration::from_secs(5))?;
//! let photos = ItemsOf::record(0, "user:1")?.range(ItemRange::Prefix(b"photo:"))?;
//! for item in node.items(photos) {
//!     let item = item?;
//!     println!("{} has {} bytes", item.item.escape_ascii(), item.value_len);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Changes of a record's items are made together or not at all, and a range is deleted at once:
//!
//! ```no_run
//! use larder_client::{Changes, ClientConnection, ItemRange, Mutated, Put};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), larder_client::ClientError> {
//! let mut node = ClientConnection::open("127.0.0.1:9411", Duration::from_secs(5))?;
//! let mut changes = Changes::of_record(0, "user:1")?;
//! changes.check_present("name")?.put("photo:7", &Put::value(b"..."))?;
//! changes.increment("photos", 1, Some(1))?.delete("draft")?;
//! match node.mutate(&changes)? {
//!     Mutated::Yes(changed) => println!("{} photos", changed[2].number),
//!     Mutated::No { at, unmet } => println!("nothing was changed: change {at}: {unmet:?}"),
//! }
//! node.delete_items(0, "user:1", ItemRange::Prefix(b"photo:"))?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod clock;
mod connection;
mod error;
mod handle;
mod key;
mod memcache;
mod mutate;
mod pages;

pub use connection::{ClientConnection, Item, Put, Stored, Ticket, When};
pub use error::{ClientError, Next};
pub use handle::{
    COMPRESSED, Call, CallKind, CallMetrics, Calls, Client, ClientBuilder, ClientMetrics, Listing,
};
pub use key::ItemRef;
pub use larder_protocol::native::reply::Changed;
pub use larder_protocol::native::{HelloReply, ItemRange, PageLimits};
pub use memcache::{CasOutcome, Memcache, MemcacheValue};
pub use mutate::{Changes, Mutated, Unmet};
pub use pages::{Items, ItemsOf, ListedItem};

#[cfg(test)]
mod tests;
