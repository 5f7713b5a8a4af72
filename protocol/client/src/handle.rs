//! A handle for any number of threads and tasks.
//!
//! - `call` is what a program holds, `operation` a request on its way, `client_core` what all
//!   handles share and where a try that failed goes on.
//! - `lane` keeps a connection, `link` makes one, `pipeline` gathers requests and finds replies,
//!   `sending` sends and `reading` reads, `waiting` is how threads wait, `codec` and `meta` turn
//!   requests to bytes and bytes to replies.
//! - `node` knows how a node is laid out, `placement` and `ketama` on which nodes a record is.
//! - `keeper` and `watch` keep time, `budget` says how often and when, `spare` keeps memory.
//! - `once` names changes, `multi` gathers reads, `listing` turns pages, `namespaces` asks all
//!   nodes, `upload` and `download` cut large values into chunks, which have their time by `pace`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use larder_protocol::native::{
    Condition, DeleteItem, DeleteItems, GetItem, HelloReply, IncrementItem, ItemRange,
    MutateRecord, NativeRequest, NativeStatus, PageLimits, PutMode, RequestDurability,
    RequestOptions, ScanItems, TouchItem,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::clock::now;
use crate::conditional::{Deleted, check_demanded};
use crate::connection::{Arrived, Item, Put, Stored, increment_of};
use crate::error::ClientError;
use crate::key::{ItemRef, check_range};
use crate::mutate::{Changes, Mutated};
use crate::once::ChangeName;
use crate::pages::{Asked, ItemsOf};

mod breakage;
mod budget;
mod builder;
mod call;
mod client_core;
mod codec;
mod compression;
mod download;
mod keeper;
mod ketama;
mod lane;
mod link;
mod listing;
mod meta;
mod metrics;
mod multi;
mod namespaces;
mod node;
mod once;
mod operation;
mod pace;
mod pipeline;
mod placement;
mod reading;
mod sending;
mod settings;
mod spare;
mod upload;
mod waiting;
mod watch;

pub use builder::ClientBuilder;
pub use call::{Call, Calls};
pub use compression::COMPRESSED;
pub use download::LargeReader;
pub use listing::{ItemStream, Listing};
pub use metrics::{CallKind, CallMetrics, ClientMetrics};
pub use multi::MultiRead;
pub use once::NamedCall;
pub use upload::LargeUpload;

use client_core::ClientCore;
use compression::{NOT_COMPARED, Packed, expand_item, packed};
use operation::{Draft, Operation, Route, TimeAllowed};
use placement::Targets;
use spare::Spare;

/// Nodes of a client at most.
const NODES_MAX: usize = 1024;

/// Connections to the port of a node at most.
const CONNECTIONS_MAX: usize = 64;

/// No time that a client is told is longer.
const DURATION_MAX: Duration = Duration::from_hours(24);

/// A client of one node or several. Clones share its connections; the last one that goes, with the
/// calls that it has made, closes them.
///
/// Requests of all threads and tasks are gathered: who comes while others are being sent goes with
/// the next ones. No call waits for a socket. A thread that waits for its answers reads them itself
/// while it is the only one, and a thread of the connection reads them else.
#[derive(Clone, Debug)]
pub struct Client {
    core: Arc<ClientCore>,
    timeout: Duration,
    durability: RequestDurability,
    /// Names the next change.
    name: Option<ChangeName>,
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// It reads: it may be repeated, and any node that has the record will do.
    Read,
    /// It writes the same whatever a node has.
    Write,
    /// It writes what depends on what a node has.
    Change,
    /// It writes what makes no difference when it comes again.
    Repeatable,
    /// A node does it once, however often it comes, and says each time what came of it.
    Once,
}

/// What a client with several replicas is told that asks for more than they can do.
const NOT_WITH_REPLICAS: &str = "with several replicas a write cannot depend on what a node has \
     (conditions, versions, numbers, appending): put whole values, or build the client with one \
     replica";

impl Client {
    /// A client of one node, as HOST:PORT, over its native port. It connects in the background.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`].
    pub fn connect(node: impl Into<String>) -> Result<Self, ClientError> {
        Self::builder().node(node).build()
    }

    /// The same client, with calls that may take so long: from a microsecond to a day.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let timeout = timeout.clamp(Duration::from_micros(1), DURATION_MAX);
        Self { timeout, ..self.clone() }
    }

    /// The same client, with calls that are answered as this says, whatever the nodes' durability.
    ///
    /// ```no_run
    /// # use larder_client::{Client, ClientError, ItemRef, Put, RequestDurability};
    /// # fn pay(client: &Client) -> Result<(), ClientError> {
    /// let durable = client.with_durability(RequestDurability::Sync);
    /// // When this returns, a crash of node and machine does not take it back.
    /// durable.put(ItemRef::of_record("order:7")?, &Put::value(b"paid")).wait()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_durability(&self, durability: RequestDurability) -> Self {
        Self { durability, ..self.clone() }
    }

    /// What was counted and measured since the client was built.
    pub fn metrics(&self) -> ClientMetrics {
        self.core.meters.read()
    }

    /// What each node has said of itself last, with its address.
    pub fn nodes(&self) -> Vec<(String, Option<HelloReply>)> {
        self.core.nodes.iter().map(|node| (node.address.clone(), node.hello())).collect()
    }

    /// Waits for a sign of life of every node.
    pub fn ping(&self) -> Call<()> {
        match self.begin_all(CallKind::Ping, &NativeRequest::Ping(b""), Access::Read) {
            Ok(pings) => Call::new(&self.core, pings, read_nothing),
            Err(error) => Call::failed(error),
        }
    }

    /// The figures of each node over all its cores, by name; in the order in which
    /// [`Client::nodes`] shows the nodes. They are those behind what this client has asked for
    /// before on the same connection.
    pub fn statistics(&self) -> Calls<Vec<(String, String)>> {
        let ask = |node: usize| {
            let (request, targets) = (NativeRequest::Statistics, Targets::one(node));
            match self.begin(CallKind::Statistics, None, &request, Access::Read, targets) {
                Ok(operation) => Call::new(&self.core, [operation], Arrived::figures),
                Err(error) => Call::failed(error),
            }
        };
        (0..self.core.nodes.len()).map(ask).collect()
    }

    /// Reads an item; `None` if there is none.
    pub fn get(&self, key: ItemRef<'_>) -> Call<Option<Item>> {
        let get = GetItem { key: key.wire, metadata_only: false, is_quiet: false };
        self.read(CallKind::Get, key, &NativeRequest::Get(get), Access::Read)
    }

    /// Reads an item but for its value. Where that is compressed, its length is that of what is
    /// stored, and [`COMPRESSED`] is set.
    pub fn get_metadata(&self, key: ItemRef<'_>) -> Call<Option<Item>> {
        let get = GetItem { key: key.wire, metadata_only: true, is_quiet: true };
        self.call(CallKind::Get, key, &NativeRequest::Get(get), Access::Read, Arrived::item)
    }

    /// Reads an item and gives it so many seconds to live, 0 for ever; `None` if there is none.
    pub fn get_and_touch(&self, key: ItemRef<'_>, ttl: u32) -> Call<Option<Item>> {
        let touch = TouchItem { key: key.wire, ttl, with_value: true };
        self.read(CallKind::Touch, key, &NativeRequest::Touch(touch), Access::Write)
    }

    /// Gives an item so many seconds to live, 0 for ever; whether there is one.
    pub fn touch(&self, key: ItemRef<'_>, ttl: u32) -> Call<bool> {
        let touch = TouchItem { key: key.wire, ttl, with_value: false };
        let is_there = |arrived: Arrived| Ok(arrived.item()?.is_some());
        self.call(CallKind::Touch, key, &NativeRequest::Touch(touch), Access::Write, is_there)
    }

    /// Stores a value. A condition that does not hold is no error.
    pub fn put<'a>(&self, key: ItemRef<'a>, put: &Put<'a>) -> Call<Stored> {
        let put = match put.of(key) {
            Ok(put) => put,
            Err(error) => return Call::failed(error),
        };
        let is_plain = put.mode == PutMode::Set(Condition::Any);
        let access = if is_plain { Access::Write } else { Access::Change };
        let Some(from) = self.core.settings.compress_from else {
            return self.call(
                CallKind::Put,
                key,
                &NativeRequest::Put(put),
                access,
                Arrived::stored,
            );
        };
        match Packed::new(put, from) {
            Ok(packed) => {
                let put = NativeRequest::Put(packed.put());
                self.call(CallKind::Put, key, &put, access, Arrived::stored)
            }
            Err(error) => Call::failed(error),
        }
    }

    /// Deletes an item; whether there was one. With several replicas it is the first node's word.
    pub fn delete(&self, key: ItemRef<'_>) -> Call<bool> {
        let delete = DeleteItem { key: key.wire, condition: Condition::Any };
        let was_there = |arrived: Arrived| {
            let arrived = arrived.ok(&[NativeStatus::Absent])?;
            Ok(arrived.status == Some(NativeStatus::Ok))
        };
        self.call(CallKind::Delete, key, &NativeRequest::Delete(delete), Access::Write, was_there)
    }

    /// Deletes an item if it has this version.
    pub fn delete_if_version(&self, key: ItemRef<'_>, version: u64) -> Call<Deleted> {
        self.delete_if(key, Condition::Version(version))
    }

    /// Deletes an item if it has this value.
    pub fn delete_if_value(&self, key: ItemRef<'_>, value: &[u8]) -> Call<Deleted> {
        if self.core.settings.compress_from.is_some() {
            return Call::failed(ClientError::Usage(NOT_COMPARED.to_owned()));
        }
        match check_demanded(value) {
            Ok(()) => self.delete_if(key, Condition::Value(value)),
            Err(error) => Call::failed(error),
        }
    }

    fn delete_if(&self, key: ItemRef<'_>, condition: Condition<'_>) -> Call<Deleted> {
        let request = NativeRequest::Delete(DeleteItem { key: key.wire, condition });
        self.call(CallKind::Delete, key, &request, Access::Change, Arrived::deleted)
    }

    /// Adds `by`, which may be negative, to the number of an item, and returns what it is then. A
    /// missing number begins as `initial`, if that is given. `None` if there is none. Numbers do
    /// not go below 0.
    pub fn increment(&self, key: ItemRef<'_>, by: i64, initial: Option<u64>) -> Call<Option<u64>> {
        self.increment_as(key, increment_of(key, by, initial))
    }

    pub(crate) fn increment_as(
        &self,
        key: ItemRef<'_>,
        increment: IncrementItem<'_>,
    ) -> Call<Option<u64>> {
        let request = NativeRequest::Increment(increment);
        self.call(CallKind::Increment, key, &request, Access::Change, Arrived::number)
    }

    /// Makes all of these changes of a record, or none if what one of them demands is not so.
    /// Nobody sees some of them without the others, also after a crash of the node.
    pub fn mutate(&self, changes: &Changes<'_>) -> Call<Mutated> {
        self.mutate_as(changes, Ok)
    }

    fn mutate_as<T>(
        &self,
        changes: &Changes<'_>,
        read: impl FnOnce(Mutated) -> Result<T, ClientError> + Send + 'static,
    ) -> Call<T> {
        let Changes { namespace, record, ref changes, .. } = *changes;
        if changes.is_empty() {
            return Call::failed(ClientError::Usage("there is no change to make".to_owned()));
        }
        let is_plain = |change: &NativeRequest<'_>| match change {
            NativeRequest::Put(put) => put.mode == PutMode::Set(Condition::Any),
            NativeRequest::Delete(delete) => delete.condition == Condition::Any,
            _ => false,
        };
        let access = if changes.iter().all(is_plain) { Access::Write } else { Access::Change };
        let body = match self.packed_changes(namespace, record, changes) {
            Ok(body) => body,
            Err(error) => return Call::failed(error),
        };
        let request = match MutateRecord::read(&body) {
            Ok(request) => NativeRequest::Mutate(request),
            Err(wrong) => return Call::failed(ClientError::Usage(wrong.to_owned())),
        };
        let key = match ItemRef::new(namespace, record, &[]) {
            Ok(key) => key,
            Err(error) => return Call::failed(error),
        };
        let count = changes.len();
        let read = move |arrived: Arrived| arrived.mutated(count).and_then(read);
        self.call(CallKind::Mutate, key, &request, access, read)
    }

    /// The body of these changes, with values that may have become shorter.
    fn packed_changes(
        &self,
        namespace: u32,
        record: &[u8],
        changes: &[NativeRequest<'_>],
    ) -> Result<Vec<u8>, ClientError> {
        let Some(from) = self.core.settings.compress_from else {
            return Ok(MutateRecord::body(namespace, record, changes));
        };
        let all = changes.iter().map(|change| packed(*change, from));
        let all = all.collect::<Result<Vec<_>, _>>()?;
        let sent = all.iter().map(|change| match change {
            Ok(packed) => NativeRequest::Put(packed.put()),
            Err(other) => *other,
        });
        Ok(MutateRecord::body(namespace, record, &sent.collect::<Vec<_>>()))
    }

    /// Stores these values under these item keys of a record, all or none, in any case and for
    /// ever. Returns their versions.
    pub fn put_items(
        &self,
        namespace: u32,
        record: &(impl AsRef<[u8]> + ?Sized),
        items: &[(&[u8], &[u8])],
    ) -> Call<Vec<u64>> {
        let changes = Changes::of_record(namespace, record).and_then(|mut changes| {
            for (item, value) in items {
                changes.put(item, &Put::value(value))?;
            }
            Ok(changes)
        });
        let changes = match changes {
            Ok(changes) => changes,
            Err(error) => return Call::failed(error),
        };
        self.mutate_as(&changes, |mutated| match mutated {
            Mutated::Yes(changed) => Ok(changed.iter().map(|changed| changed.version).collect()),
            Mutated::No { .. } => {
                let told = "it refuses by a condition what has none".to_owned();
                Err(ClientError::Foreign(told))
            }
        })
    }

    /// Deletes the items of a record that are in a range, all at once and at the same cost however
    /// many they are. The range that a prefix without bytes is has all items.
    pub fn delete_items(
        &self,
        namespace: u32,
        record: &(impl AsRef<[u8]> + ?Sized),
        range: ItemRange<'_>,
    ) -> Call<()> {
        let key = ItemRef::new(namespace, record.as_ref(), &[]);
        let key = match check_range(range).and(key) {
            Ok(key) => key,
            Err(error) => return Call::failed(error),
        };
        let delete = DeleteItems { namespace, record: key.wire.record, range };
        let request = NativeRequest::DeleteItems(delete);
        self.call(CallKind::DeleteItems, key, &request, Access::Write, read_nothing)
    }

    /// The items of a record, in the order of their keys.
    pub fn items<'a>(&self, of: ItemsOf<'a>) -> Listing<'a> {
        Listing::new(self.clone(), Asked::Record(of.get))
    }

    /// The items of a namespace, in no order that means anything, with these limits of each page;
    /// one node after the other. With several replicas each item is shown by the first of its
    /// nodes.
    pub fn scan(&self, namespace: u32, limits: PageLimits) -> Listing<'static> {
        self.scan_in(namespace, limits, false)
    }

    /// The same with what each node has from the other end.
    pub fn scan_in_reverse(&self, namespace: u32, limits: PageLimits) -> Listing<'static> {
        self.scan_in(namespace, limits, true)
    }

    fn scan_in(&self, namespace: u32, limits: PageLimits, is_descending: bool) -> Listing<'static> {
        let scan = ScanItems { namespace, limits, token: &[], is_descending };
        Listing::new(self.clone(), Asked::Namespace(scan))
    }

    /// A request that is answered with an item, which may be compressed.
    fn read(
        &self,
        kind: CallKind,
        key: ItemRef<'_>,
        request: &NativeRequest<'_>,
        access: Access,
    ) -> Call<Option<Item>> {
        if self.core.settings.compress_from.is_none() {
            return self.call(kind, key, request, access, Arrived::item);
        }
        let expanded = |arrived: Arrived| arrived.item()?.map(expand_item).transpose();
        self.call(kind, key, request, access, expanded)
    }

    fn call<T>(
        &self,
        kind: CallKind,
        key: ItemRef<'_>,
        request: &NativeRequest<'_>,
        access: Access,
        read: impl FnOnce(Arrived) -> Result<T, ClientError> + Send + 'static,
    ) -> Call<T> {
        let record = key.wire.record;
        let targets = self.core.placement.of(record);
        if access == Access::Read || self.core.placement.replicas() == 1 {
            return match self.begin(kind, Some(record), request, access, targets) {
                Ok(operation) => Call::new(&self.core, [operation], read),
                Err(error) => Call::failed(error),
            };
        }
        if access == Access::Change {
            return Call::failed(ClientError::Usage(NOT_WITH_REPLICAS.to_owned()));
        }
        let nodes = targets.as_slice().iter().map(|node| Targets::one(usize::from(*node)));
        let begun = nodes.map(|target| self.begin(kind, Some(record), request, access, target));
        match begun.collect::<Result<Vec<_>, _>>() {
            Ok(operations) => Call::new(&self.core, operations, read),
            Err(error) => Call::failed(error),
        }
    }

    /// Begins a request to one of these nodes.
    fn begin(
        &self,
        kind: CallKind,
        record: Option<&[u8]>,
        request: &NativeRequest<'_>,
        access: Access,
        targets: Targets,
    ) -> Result<Arc<Operation>, ClientError> {
        let started = now();
        let time = (started, TimeAllowed::Until(started + self.timeout));
        self.begin_for(kind, record, request, (access, targets), time)
    }

    /// Begins a request to one of these nodes at this time, which may take so long.
    fn begin_for(
        &self,
        kind: CallKind,
        record: Option<&[u8]>,
        request: &NativeRequest<'_>,
        (access, targets): (Access, Targets),
        (started, time): (Instant, TimeAllowed),
    ) -> Result<Arc<Operation>, ClientError> {
        let settings = &self.core.settings;
        let name = kind.takes_name().then(|| self.name.or_else(|| settings.name_change()));
        let token = name.flatten().map(|name| name.token());
        let durability = self.durability;
        let options = RequestOptions { durability, token, ..RequestOptions::default() };
        let Spare { operation: over, bytes } = Spare::take();
        let frame = settings.wire.frame(request, &options, bytes)?;
        let route = record.map(|record| self.route(record, targets));
        let is_named = token.is_some() || access == Access::Once;
        let may_repeat = is_named || matches!(access, Access::Read | Access::Repeatable);
        let hedge_after = settings.hedge_after.filter(|_| kind == CallKind::Get);
        let operation = Operation::new(Draft {
            kind: Some(kind),
            frame,
            route,
            targets,
            may_repeat,
            is_named,
            started,
            time,
            hedge_at: hedge_after.map(|delay| started + delay),
        });
        let operation = spare::hold(over, operation);
        self.core.start(&operation);
        Ok(operation)
    }

    /// Begins a request to each node.
    fn begin_all(
        &self,
        kind: CallKind,
        request: &NativeRequest<'_>,
        access: Access,
    ) -> Result<Vec<Arc<Operation>>, ClientError> {
        let nodes = 0..self.core.nodes.len();
        nodes.map(|node| self.begin(kind, None, request, access, Targets::one(node))).collect()
    }

    /// What a request on this record needs to find its core.
    fn route(&self, record: &[u8], targets: Targets) -> Route {
        let seed = self.core.nodes[targets.at(0)].seed();
        Route { seed, hash: xxh3_64_with_seed(record, seed) }
    }
}

fn read_nothing(arrived: Arrived) -> Result<(), ClientError> {
    arrived.ok(&[]).map(drop)
}

/// What a lock guards is whole at any time, also if a thread that held it has ended in panic.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
