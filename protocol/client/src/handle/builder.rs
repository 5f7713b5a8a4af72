//! What a client may be told.

use std::collections::BTreeSet;
use std::time::Duration;

use larder_protocol::native::{HELLO_NAME_BYTES_MAX, RequestDurability};

use super::budget::Backoff;
use super::client_core::ClientCore;
use super::codec::Wire;
use super::placement::{Placement, REPLICAS_MAX, Rule};
use super::settings::Settings;
use super::{CONNECTIONS_MAX, Client, DURATION_MAX, NODES_MAX};
use crate::error::ClientError;
use crate::large::CHUNKS_UNDER_WAY_MAX;

/// Makes a [`Client`]. What is usual is in brackets; only a node has to be named.
///
/// ```
/// # use larder_client::{Client, ClientError};
/// # use std::time::Duration;
/// # fn build() -> Result<(), ClientError> {
/// // Two nodes share the records. Writes are made once, however often they have to be sent, and
/// // reads that are slow are sent a second time.
/// let client = Client::builder()
///     .node("127.0.0.1:9411")
///     .weighted_node("127.0.0.1:9412", 2.0)
///     .name("shop")
///     .timeout(Duration::from_millis(500))
///     .tokens(true)
///     .hedge_after(Some(Duration::from_millis(5)))
///     .build()?;
/// assert_eq!(client.nodes().len(), 2);
///
/// // Records that are on both of two nodes, compressed from 4 KiB on.
/// let nodes = Client::builder().node("127.0.0.1:9411").node("127.0.0.1:9412");
/// let client = nodes.replicas(2).compress(4096).build()?;
///
/// // The servers of memcached that other programs use as well.
/// let servers = ["127.0.0.1:11211", "127.0.0.1:11212"];
/// let named = servers.into_iter().fold(Client::builder(), |build, server| build.node(server));
/// let client = named.memcached().ketama().build()?;
/// # Ok(())
/// # }
/// # build().expect("all of it can be");
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct ClientBuilder {
    settings: Settings,
    nodes: Vec<(String, f64)>,
    replicas: usize,
    rule: Rule,
}

impl Client {
    /// Begins a client of Larder's nodes, over their native ports.
    pub fn builder() -> ClientBuilder {
        let (settings, nodes, rule) = (Settings::default(), Vec::new(), Rule::Rendezvous);
        ClientBuilder { settings, nodes, replicas: 1, rule }
    }
}

impl ClientBuilder {
    /// Adds a node, as HOST:PORT. Where there are several, records are divided among them by their
    /// ids and the nodes' addresses: all clients have to name the nodes alike, in any order.
    pub fn node(self, address: impl Into<String>) -> Self {
        self.weighted_node(address, 1.0)
    }

    /// Adds a node that gets a share of the records in proportion to its weight.
    pub fn weighted_node(mut self, address: impl Into<String>, weight: f64) -> Self {
        self.nodes.push((address.into(), weight));
        self
    }

    /// Divides records among nodes as libmemcached does with weighted ketama hashing, for programs
    /// that share their memcached servers with others. Nodes are then named as those name them, by
    /// host and port.
    pub fn ketama(mut self) -> Self {
        self.rule = Rule::Ketama;
        self
    }

    /// Keeps each record on so many nodes (1). Writes go to all of them, and succeed if all have
    /// done them; reads go to the first that answers, in the same order for each record.
    ///
    /// Nothing else is promised: a write that failed may have been done by some of the nodes, two
    /// writes of one item at a time may end in another order on each, and nobody brings a node up
    /// to date that was away. Writes that depend on what a node has (conditions, numbers,
    /// appending) are refused where there are several replicas.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Speaks memcached's meta protocol, to any memcached of version 1.6 or to the memcached port
    /// of a Larder node.
    pub fn memcached(mut self) -> Self {
        self.settings.wire = Wire::Meta;
        self
    }

    /// The name by which nodes know the client, for people: up to 64 bytes.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// How long a call may take, tries included (5 s). [`Client::with_timeout`] changes it for
    /// some. Chunks of a large value have it one by one, from the answer to the one before on.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// How long it may take to connect to a node (2 s).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// Connections to the port of each node (1), each of which takes a thread. A node that offers a
    /// port for each core gets one connection to each of those besides, unless
    /// [`ClientBuilder::core_connections`] says no.
    pub fn connections(mut self, connections: usize) -> Self {
        self.settings.connections = connections;
        self
    }

    /// Whether requests go to the core that owns their record, over a connection of its own, where
    /// a node offers it with `--native-core-ports` (yes).
    pub fn core_connections(mut self, core_connections: bool) -> Self {
        self.settings.core_connections = core_connections;
        self
    }

    /// How often a call is tried (3). Reads are tried again after any failure of a connection or a
    /// node that is busy; writes only if they were surely not carried out, or have
    /// [`tokens`](ClientBuilder::tokens). Tries beyond the first have a budget: a tenth of all
    /// calls, once a hundred were used up.
    pub fn tries(mut self, tries: u32) -> Self {
        self.settings.tries_max = tries;
        self
    }

    /// Gives each put, delete, increment and change of a record a name (an idempotency token; no),
    /// so that the node makes it once, however often it is sent. Then such a write is tried again
    /// like a read when nobody knows whether it was done: over new connections and over a restart
    /// of the node, within its deadline, and as long as the node knows the name. Without, the call
    /// ends with an error of which [`ClientError::may_be_done`] is true. Either way touches,
    /// deletes of ranges and changes of namespaces have no names.
    ///
    /// It is not usual because the node keeps what it has answered under each name, some hundred
    /// bytes on its disk for `--idempotency-window`, and takes more time for the write; programs
    /// whose writes may be made twice need none of it. The clocks of both machines have to agree
    /// within the bounds that the node's hello says (`token_window_seconds` and
    /// `token_drift_seconds`): else it refuses, and says so.
    ///
    /// That a condition did not hold is said of the moment of the try that was answered.
    ///
    /// ```no_run
    /// # use larder_client::{Client, ClientError, ItemRef};
    /// # use std::time::Duration;
    /// # fn count(node: &str) -> Result<(), ClientError> {
    /// let client = Client::builder().node(node).tokens(true);
    /// let client = client.timeout(Duration::from_secs(30)).build()?;
    /// // Counts once, also where the node is killed and started anew meanwhile.
    /// client.increment(ItemRef::of_record("visits")?, 1, Some(1)).wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn tokens(mut self, tokens: bool) -> Self {
        self.settings.names_changes = tokens;
        self
    }

    /// Sends a read a second time, to another replica or over another connection, if it has no
    /// answer after this delay (never). The 99th percentile of reads is a good one. At most about
    /// one read in twenty is.
    pub fn hedge_after(mut self, delay: Option<Duration>) -> Self {
        self.settings.hedge_after = delay;
        self
    }

    /// How long a connection that owes an answer may be silent before it is asked for a sign of
    /// life, and again before it is given up (5 s).
    pub fn silence(mut self, silence: Duration) -> Self {
        self.settings.silence = silence;
        self
    }

    /// How often nodes are asked how they are laid out (10 s).
    pub fn hello_every(mut self, every: Duration) -> Self {
        self.settings.hello_every = every;
        self
    }

    /// Calls that may wait for a connection, or for room on it, and bytes of their requests (65,536
    /// and 64 MiB). More fail at once with [`ClientError::Overloaded`].
    pub fn waiting(mut self, calls: usize, bytes: usize) -> Self {
        self.settings.waiting_calls_max = calls;
        self.settings.waiting_bytes_max = bytes;
        self
    }

    /// Bounds of the delay before a connection is tried again (50 ms and 5 s): the first doubles
    /// with each failure up to the second, and a delay is anything below.
    pub fn reconnect(mut self, first: Duration, most: Duration) -> Self {
        self.settings.reconnect = Backoff { first, most };
        self
    }

    /// The same before a call is tried again (10 ms and 1 s).
    pub fn retry(mut self, first: Duration, most: Duration) -> Self {
        self.settings.retry = Backoff { first, most };
        self
    }

    /// Chunks of a large value that are under way at a time (4, at most 64). Each is in memory up
    /// to twice, and requests that come behind them on the same connection wait for their bytes.
    pub fn chunks_under_way(mut self, chunks: usize) -> Self {
        self.settings.chunks_under_way = chunks;
        self
    }

    /// Compresses values from so many bytes on with LZ4, where that saves an eighth, and expands
    /// those that are read; without it values are stored and shown as they are. A compressed value
    /// has [bit 31](crate::COMPRESSED) set in its client flags, which the program may not use
    /// then. All programs that share the values need it; one that is never to compress itself says
    /// `usize::MAX`.
    pub fn compress(mut self, from_bytes: usize) -> Self {
        self.settings.compress_from = Some(from_bytes);
        self
    }

    /// Makes the client. It connects in the background, so a node need not be there yet.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if what it was told cannot be; [`ClientError::Thread`].
    pub fn build(self) -> Result<Client, ClientError> {
        let Self { settings, nodes, replicas, rule } = self;
        check(&settings, &nodes, replicas).map_err(ClientError::Usage)?;
        let placement = Placement::new(&nodes, replicas, rule);
        let timeout = settings.timeout;
        let core = ClientCore::open(settings, &nodes, placement).map_err(ClientError::Thread)?;
        Ok(Client { core, timeout, durability: RequestDurability::AsNode, name: None })
    }
}

fn check(settings: &Settings, nodes: &[(String, f64)], replicas: usize) -> Result<(), String> {
    let is_positive = |weight: f64| weight.is_finite() && weight > 0.0;
    let names: BTreeSet<&str> = nodes.iter().map(|(address, _)| address.as_str()).collect();
    let connections = settings.connections;
    if nodes.is_empty() || nodes.len() > NODES_MAX {
        let count = nodes.len();
        return Err(format!("a client has 1 to {NODES_MAX} nodes, not {count}: see `node`"));
    }
    if let Some((address, _)) = nodes.iter().find(|(address, _)| !address.contains(':')) {
        return Err(format!("a node is named as HOST:PORT, not {address:?}"));
    }
    if let Some((address, weight)) = nodes.iter().find(|(_, weight)| !is_positive(*weight)) {
        return Err(format!("the weight of {address} is above 0, not {weight}"));
    }
    if names.len() < nodes.len() {
        return Err("a node is named twice; for a larger share give it a weight".to_owned());
    }
    if !(1..=REPLICAS_MAX.min(nodes.len())).contains(&replicas) {
        let most = REPLICAS_MAX.min(nodes.len());
        return Err(format!("{} nodes keep 1 to {most} replicas, not {replicas}", nodes.len()));
    }
    if !(1..=CONNECTIONS_MAX).contains(&connections) {
        return Err(format!("a node has 1 to {CONNECTIONS_MAX} connections, not {connections}"));
    }
    if !(1..=CHUNKS_UNDER_WAY_MAX).contains(&settings.chunks_under_way) {
        return Err(format!("1 to {CHUNKS_UNDER_WAY_MAX} chunks are under way at a time"));
    }
    if settings.name.len() > HELLO_NAME_BYTES_MAX {
        return Err(format!("a client's name has at most {HELLO_NAME_BYTES_MAX} bytes"));
    }
    if settings.names_changes && settings.wire == Wire::Meta {
        return Err("memcached knows no `tokens`: leave them out, or `memcached`".to_owned());
    }
    if settings.tries_max == 0 || settings.waiting_calls_max == 0 {
        return Err("`tries` and the calls of `waiting` are at least 1".to_owned());
    }
    let Settings { timeout, connect_timeout, silence, hello_every, reconnect, retry, .. } =
        settings;
    let durations = [*timeout, *connect_timeout, *silence, *hello_every];
    let delays = [reconnect.first, reconnect.most, retry.first, retry.most];
    let hedge = settings.hedge_after;
    if durations.iter().any(Duration::is_zero) {
        return Err("timeouts, `silence` and `hello_every` are longer than nothing".to_owned());
    }
    if durations.into_iter().chain(delays).chain(hedge).any(|duration| duration > DURATION_MAX) {
        return Err("timeouts, delays and the like are at most a day".to_owned());
    }
    Ok(())
}
