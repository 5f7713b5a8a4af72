//! Every limit of the node, with its default and its reason. At a limit the node makes the one
//! who asks wait, or refuses with the protocol's own error; it never grows beyond it.

/// Connections of the whole node, unless `--max-connections` says otherwise. memcached's default is
/// 1,024; an idle connection costs less than 1 KiB here, so the default is what large fleets need.
pub const CONNECTIONS_MAX_DEFAULT: usize = 10_000;

/// Connections below which, or below what was asked for, the node does not start for want of
/// descriptors.
pub const CONNECTIONS_MIN: u64 = 16;

/// Descriptors that are for the process: standard streams, lock, signals, the admin port.
pub const DESCRIPTORS_RESERVED: u64 = 32;

/// Descriptors that each core has beside its connections and files: ring, eventfd, two listeners,
/// directories that are being synced.
pub const DESCRIPTORS_PER_CORE: u64 = 8;

/// Files that a core must be able to keep open for each of its shards: the log's segment and its
/// spare, manifest, a table that is written, one that is merged, and a few for reads.
pub const FILES_PER_SHARD_MIN: u64 = 8;

/// Files that a core keeps open at most. Each takes about 1 KiB in the kernel, and 4,096 segments
/// are 256 GiB of data.
pub const FILES_PER_CORE_MAX: u64 = 4096;

/// Connections that may wait to be accepted, per listener.
pub const LISTEN_BACKLOG: i32 = 1024;

/// Requests of one connection that are not answered yet. Beyond it the connection is not read from:
/// a pipeline of any length takes bounded memory, and 1,024 fill any device's queue.
pub const CONNECTION_REQUESTS_MAX: usize = 1024;

/// Parsing of a connection goes on when its unanswered requests are down to this.
pub const CONNECTION_REQUESTS_RESUME: usize = CONNECTION_REQUESTS_MAX / 2;

/// Requests of one connection from the oldest unanswered one on, where later ones may be answered
/// before it.
pub const SLOTS_MAX: usize = 8 * CONNECTION_REQUESTS_MAX;

/// Unsent output of a connection above which nothing more is executed for it, in bytes. With the
/// one reply that crosses the mark it is also the most that a connection's output takes.
pub const OUTPUT_HIGH_WATER: usize = 256 << 10;

/// Bytes of finished replies of one connection that wait for an earlier one, or for its client to
/// read, plus what its waiting requests are expected to bring; beyond it nothing more is executed
/// for it. One client cannot take all that its core has for waiting replies.
pub const CONNECTION_WAITING_BYTES_MAX: usize = 1 << 20;

/// A connection whose output is above the mark and has not moved for so many seconds is closed: a
/// reader that does not read holds memory that others could use.
pub const OUTPUT_STALL_SECONDS: u64 = 30;

/// The same under memory pressure: five seconds are enough for any client that reads at all.
pub const OUTPUT_STALL_SECONDS_PRESSED: u64 = 5;

/// Unsent output of a connection above which nothing more is executed for it, in bytes, while its
/// core's memory for connections is more than half used.
pub const OUTPUT_MARK_PRESSED: usize = 16 << 10;

/// What is kept of `--memory` for the program itself, in bytes: the pages of its files, and what
/// belongs to no core.
pub const PROCESS_MEMORY: usize = 6 << 20;

/// What is kept for each core's thread, in bytes: its stack, its ring and its queues.
pub const CORE_MEMORY: usize = 512 << 10;

/// What is kept for each connection that may be open and hold nothing, in bytes.
pub const CONNECTION_BYTES: usize = 1 << 10;

/// The part of a core's memory that its connections may hold: one in so many.
pub const CONNECTION_MEMORY_PART: usize = 10;

/// The least that the connections of a core may hold, in bytes.
pub const CONNECTION_MEMORY_MIN: usize = 4 << 20;

/// The same in items of the largest size: one is there several times while it passes from the
/// socket to the shard and back, and others go on meanwhile.
pub const CONNECTION_ITEMS_MIN: usize = 6;

/// What tasks of a core may be expected to need, beside what its connections hold: one part in so
/// many of that.
pub const TASK_MEMORY_PART: usize = 4;

/// A request of which more than so many bytes have yet to come is received only when the core has
/// granted the memory for it. One receive buffer: a smaller one is here before anyone could say no.
pub const INPUT_FREE_BYTES: usize = 16 << 10;

/// How long a granted request may take to arrive while others wait for a grant, in seconds.
pub const GRANT_SECONDS: u64 = 5;

/// Tasks of one core that wait for the device, their key or room in the log. A thousand fill any
/// device's queue and several frames of the log.
pub const TASKS_MAX: usize = 1024;

/// Requests of one connection that may wait in tasks while more than half of the tasks are taken.
pub const SHARE_REQUESTS_SCARCE: usize = 4;

/// Bytes that one connection's waiting requests and replies may need while little is left.
pub const SHARE_BYTES_SCARCE: usize = 64 << 10;

/// Bytes of replies for one connection of another core that its client has not been given yet;
/// beyond it the connection's requests are parked.
pub const LANE_BYTES_MAX: usize = 512 << 10;

/// The bytes of a reply that are covered by the number of requests a connection may have: only what
/// is longer is charged to it.
pub const REPLY_COVERED_BYTES: usize = 256;

/// What waits for the device in front of a core's logs should be written in about so long, in
/// nanoseconds: it is what a change of a client that writes little has before it.
pub const LOG_WAIT_NANOSECONDS: u64 = 5_000_000;

/// The least that may wait there however slow the device is, in bytes: fewer would make each flush
/// pay for too little.
pub const LOG_BUDGET_MIN: usize = 512 << 10;

/// The most, however fast it is: two frames on their way, and what follows them.
pub const LOG_BUDGET_MAX: usize = 4 << 20;

/// A change up to so many bytes is small: the first of a connection goes beyond the budget.
pub const LOG_SMALL_BYTES: usize = 16 << 10;

/// What a record takes in the log besides its value, in bytes, roughly.
pub const LOG_RECORD_BYTES: usize = 64;

/// A task that is expected to need no more is small: a quarter of what tasks may need is for such.
pub const TASK_SMALL_BYTES: usize = 64 << 10;

/// What a task needs besides the values that it works on, in bytes, roughly.
pub const TASK_BYTES: usize = 1024;

/// Changes of namespaces that may wait for others.
pub const NAMESPACE_REQUESTS_MAX: usize = 1024;

/// Namespaces that there may be, the default one among them.
pub const NAMESPACES_MAX: usize = 1000;

/// For how many seconds a request with an idempotency token is known again unless it is said.
pub const IDEMPOTENCY_WINDOW_DEFAULT: u32 = 600;

/// For how many seconds chunks of a large value are kept for its commit unless it is said.
pub const STAGING_WINDOW_DEFAULT: u32 = 3600;

/// How far a client's clock may be before the node's where it names a request by a token, in
/// seconds.
pub const TOKEN_DRIFT_SECONDS: u32 = 60;

/// Items of a page at most. More would keep the small things of others waiting.
pub const PAGE_ITEMS_MAX: usize = 10_000;

/// Items of a page unless it is said how many.
pub const PAGE_ITEMS_DEFAULT: usize = 1024;

/// Bytes of keys and values in a page at most; the first item comes however long it is. As much as
/// one connection's replies may have.
pub const PAGE_BYTES_MAX: usize = CONNECTION_WAITING_BYTES_MAX;

/// The same unless it is said how many.
pub const PAGE_BYTES_DEFAULT: usize = 256 << 10;

/// What an item of a page takes in memory besides its key and value, in bytes, roughly, as it is
/// and as it is encoded: half of both.
pub const PAGE_ITEM_BYTES: usize = 128;

/// Items of a page of a list of everything that is stored.
pub const DUMP_ITEMS: usize = 512;

/// Prefixes of keys that a core counts requests by. What has a further one is not counted.
pub const PREFIXES_MAX: usize = 1024;

/// Connections of a core that watch what happens.
pub const WATCHERS_MAX: usize = 20;

/// Events that a core tells of in one turn. What is beyond is counted as skipped.
pub const EVENTS_TURN_MAX: usize = 512;

/// What an event takes in memory, in bytes, roughly.
pub const EVENT_BYTES: usize = 256;

/// Unsent output of a connection that watches above which events are skipped for it, in bytes.
pub const WATCHER_OUTPUT_BYTES: usize = OUTPUT_HIGH_WATER / 2;

/// Questions to all cores that a core has under way for its connections; who asks more waits for
/// the end of one. Each brings figures of all cores, and is made by a person or a monitor.
pub const GATHERS_MAX: usize = 16;

/// Connections of a core that are listed one by one.
pub const CONNECTIONS_LISTED_MAX: usize = 4096;

/// Requests of one core that wait for other cores. Beyond half of it a connection may have few.
pub const FORWARDED_MAX: usize = 16 << 10;

/// Requests that a connection may have on other cores while more than half of those are taken.
pub const FORWARDED_SHARE_SCARCE: usize = 64;

/// Requests of a batch of another core that are carried out in one turn, and the bytes of replies
/// to all other cores after which the rest waits for the next turn.
pub const BATCH_TURN_REQUESTS: usize = 1024;

/// See [`BATCH_TURN_REQUESTS`].
pub const BATCH_TURN_BYTES: usize = 1 << 20;

/// How long a turn goes on with connections whose requests or replies wait, in nanoseconds: as long
/// as it may run tasks. Those who are left over come first in the next turn, after what has arrived
/// meanwhile.
pub const TURN_NANOSECONDS: u64 = 200_000;

/// What a turn does for connections in which bytes have come, in bytes as
/// [`TURN_REQUEST_BYTES`] counts them. The others wait, those excepted that have used little.
pub const TURN_BYTES: u64 = 1 << 20;

/// What a request counts besides the bytes that are copied for it: what could be copied meanwhile.
pub const TURN_REQUEST_BYTES: u64 = 256;

/// How far a connection that uses less than others stays behind them, in the same bytes: so much it
/// may use before all others.
pub const CREDIT_BYTES: u64 = 256 << 10;

/// How far a new connection begins behind those that use little: who connects again and again gets
/// nothing for it.
pub const NEWCOMER_BYTES: u64 = CREDIT_BYTES;

/// Input of a connection that waits for its turn above which it is not received from.
pub const WAITING_INPUT_BYTES: usize = 64 << 10;

/// Batches that one core may have on their way to another.
pub const MAILBOX_BATCHES: usize = 256;

/// Requests and answers of a batch for another core with which it is handed over before the turn
/// ends, if more come. With values of 1,000 bytes it then has 64 KiB, so that what one core writes
/// and the other reads stays in their nearest caches; handing it over to a core that is awake costs
/// each message a nanosecond or two.
pub const BATCH_MESSAGES_USUAL: usize = 64;

/// Requests in a batch for another core. When the mailbox is full too, connections that ask that
/// core are not read from until it has caught up.
pub const BATCH_REQUESTS_MAX: usize = 2048;

/// Bytes of requests in a batch, large values included; beyond it as above.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// Requests and replies of other cores after which a core's turn goes on with other work; the batch
/// that reaches it is carried out whole.
pub const TURN_MESSAGES_MAX: usize = 1024;

/// A request or reply up to this length is copied into its batch's bytes; a longer one travels as a
/// vector of its own, so that batches stay small enough to be kept.
pub const BATCH_COPY_BYTES_MAX: usize = 4096;

/// Memory of the empty batches that a core keeps for all others, in bytes; each has the same part
/// of it. Beyond it they are given back to the allocator, and one that is made anew has to grow
/// again.
pub const BATCHES_KEPT_BYTES_MAX: usize = 4 << 20;

/// The least that a core keeps for another one, in bytes, with which memory is planned: not all
/// pairs of cores talk so much at a time.
pub const BATCHES_KEPT_BYTES_MIN: usize = 256 << 10;

/// Empty batches that a core keeps for another one.
pub const BATCHES_KEPT_MAX: usize = 64;

/// Empty batches above which a core gives the rest back to the one that they came from. A turn of
/// two thousand messages hands so many over before any comes back.
pub const BATCHES_RETURNED_ABOVE: usize = 32;

/// An input buffer up to this size is kept for the next connection with a request cut in two.
pub const SPARE_INPUT_BYTES_MAX: usize = 64 << 10;

/// How many of these are kept per core.
pub const SPARE_INPUTS_MAX: usize = 64;

/// The largest item of the memcached port unless `--max-item-size` says otherwise, in bytes.
pub const ITEM_BYTES_DEFAULT: u64 = 1 << 20;

/// The range of `--max-item-size` in bytes: memcached's smallest, and the engine's largest value.
pub const ITEM_BYTES_RANGE: std::ops::RangeInclusive<u64> = (1 << 10)..=(128 << 20);

/// Log of the whole node that a start may have to replay, unless `--recovery-log` says otherwise,
/// in bytes: a second of reading on a device of an i3.
pub const RECOVERY_LOG_DEFAULT: u64 = 256 << 20;

/// The least of it: a shard's memtable would hold next to nothing.
pub const RECOVERY_LOG_MIN: u64 = 4 << 20;

/// Bytes a second of a node's files that are read to look for damage: 340 GB a day.
pub const SCRUB_RATE_DEFAULT: u64 = 4 << 20;

/// Milliseconds that one task or request may hold its core before that is told of. A turn of the
/// core has a twentieth of that for each kind of work.
pub const STALL_BOUND_DEFAULT: u32 = 10;

/// From which length on values are compressed, in bytes, unless `--compress-from` says otherwise.
pub const COMPRESS_FROM_DEFAULT: u64 = larder_engine::shard::options::COMPRESS_FROM_DEFAULT as u64;

/// How much larger than what lives the files may be, in hundredths, unless `--max-space-amp` says
/// otherwise: every byte written is then copied 0.7 times on average.
pub const SPACE_AMPLIFICATION_DEFAULT: u32 = 150;

/// Its range: below 1.1 every byte is copied more than five times.
pub const SPACE_AMPLIFICATION_RANGE: std::ops::RangeInclusive<u32> = 110..=10_000;

/// The most shards a directory may have: their index has 16 bits on disk, their names three digits.
pub const SHARDS_MAX: u16 = 999;

/// An HTTP request's head on the admin port, in bytes.
pub const ADMIN_REQUEST_BYTES_MAX: usize = 8192;

/// How long a client of the admin port may take to send its request and to take the answer. Clients
/// are served one after the other, so this is also the longest that one holds up the next.
pub const ADMIN_CLIENT_MILLISECONDS: u64 = 2000;

/// How long the admin port waits after it could not accept a client: while descriptors are short,
/// an
/// attempt at once would fail like the one before, and take a whole CPU.
pub const ADMIN_ACCEPT_RETRY_MILLISECONDS: u64 = 50;

/// How long the admin port waits for a core's figures.
pub const REPORT_MILLISECONDS: u64 = 1000;

/// How long a start waits for addresses and for the data directory's lock, which the kernel gives
/// back a moment after a process was killed. What is in use for longer belongs to a process that
/// runs.
pub const RESTART_PATIENCE_MILLISECONDS: u64 = 5000;

/// How long a stop waits for connections to take their answers.
pub const DRAIN_MILLISECONDS: u64 = 5000;

/// How long reads go on after a shard has failed, before the node exits.
pub const FAILED_DRAIN_MILLISECONDS: u64 = 1000;

/// Shares that a class of disk requests may have. The usual ones are up to 1,000; ten times that
/// leaves room above them, and no class can be kept from the disk altogether.
pub const IO_SHARES_RANGE: std::ops::RangeInclusive<u32> = 1..=10_000;

/// What a class of disk requests may be held to, in bytes a second of the whole node. With less the
/// longest request would take a minute on a machine with many cores.
pub const IO_CAP_RANGE: std::ops::RangeInclusive<u64> = (1 << 20)..=(1 << 40);

/// The least part of such a cap that one core gets, in bytes a second.
pub const IO_CAP_CORE_MIN: u64 = 16 << 10;

const _: () = {
    assert!(CONNECTION_REQUESTS_RESUME < CONNECTION_REQUESTS_MAX);
    assert!(FILES_PER_SHARD_MIN < FILES_PER_CORE_MAX);
    assert!(TASK_MEMORY_PART <= CONNECTION_ITEMS_MIN, "a task for any item may start");
    assert!(CONNECTION_WAITING_BYTES_MAX < CONNECTION_MEMORY_MIN);
    assert!(LANE_BYTES_MAX <= CONNECTION_WAITING_BYTES_MAX);
    assert!(SHARE_BYTES_SCARCE < LANE_BYTES_MAX && OUTPUT_MARK_PRESSED < OUTPUT_HIGH_WATER);
    assert!(SHARE_REQUESTS_SCARCE < TASKS_MAX && FORWARDED_SHARE_SCARCE < FORWARDED_MAX);
    assert!(LOG_SMALL_BYTES < LOG_BUDGET_MIN / 4 && LOG_BUDGET_MIN < LOG_BUDGET_MAX);
    assert!(MAILBOX_BATCHES.is_power_of_two());
    // Who has many requests under way is held back before the line to a core is full for all.
    assert!(MAILBOX_BATCHES * BATCH_MESSAGES_USUAL >= FORWARDED_MAX);
    assert!(2 * BATCHES_RETURNED_ABOVE <= BATCHES_KEPT_MAX);
    assert!(CREDIT_BYTES < TURN_BYTES);
    assert!(BATCH_COPY_BYTES_MAX < BATCHES_KEPT_BYTES_MIN);
};
