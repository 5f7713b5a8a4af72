//! What a node says of itself: `schema/hello.fbs`.

use flatbuffers::FlatBufferBuilder;

use super::structured::{Reader, StructureError, slot, write_scalars, write_table};

/// The longest name of a client, in bytes.
pub const HELLO_NAME_BYTES_MAX: usize = 64;

/// The schema's `file_identifier`.
const IDENTIFIER: &str = "LRHE";

/// The reply to a hello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HelloReply {
    /// The version of the protocol that is spoken.
    pub version: u16,
    /// The node's software, for people.
    pub software: String,
    /// Shards of the store.
    pub shards: u16,
    /// The seed of the hash that names a record's shard.
    pub hash_seed: u64,
    /// Cores of the node.
    pub cores: u16,
    /// The core that the connection is on.
    pub core: u16,
    /// By core, a port on which it alone accepts; empty if there are none.
    pub core_ports: Vec<u16>,
    /// The longest record id, in bytes.
    pub record_bytes_max: u32,
    /// The longest item key, in bytes.
    pub item_bytes_max: u32,
    /// The longest value, in bytes.
    pub value_bytes_max: u32,
    /// The longest body, in bytes.
    pub body_bytes_max: u32,
    /// Requests of a connection that may be unanswered.
    pub requests_max: u32,
    /// The opcodes that the node knows.
    pub opcodes: Vec<u8>,
    /// Items of a page at most; 0 from a node that has no pages.
    pub page_items_max: u32,
    /// Bytes of keys and values in a page at most.
    pub page_bytes_max: u32,
    /// What the operator has clients expect of a read, in microseconds; 0 if it was not said.
    pub read_target_microseconds: u32,
    /// The same of a write.
    pub write_target_microseconds: u32,
    /// By shard, how full is what makes its requests wait, in percent.
    pub shard_loads: Vec<u8>,
    /// What the node can besides its opcodes: bits of [`capability`].
    pub capabilities: u64,
    /// Seconds for which a request with an idempotency token is known again, from the token's time
    /// on; 0 from a node that does not say it.
    pub token_window_seconds: u32,
    /// Seconds by which a token's time may be ahead of the node's clock.
    pub token_drift_seconds: u32,
    /// The longest large value, in bytes; 0 from a node that has none.
    pub large_bytes_max: u32,
    /// The longest chunk of one, in bytes.
    pub chunk_bytes_max: u32,
    /// By core, what 99 of 100 reads took at most lately, in microseconds; 0 where too few were
    /// measured.
    pub read_p99_microseconds: Vec<u32>,
    /// The same of changes.
    pub write_p99_microseconds: Vec<u32>,
}

/// Bits of [`HelloReply::capabilities`].
pub mod capability {
    /// Puts, deletes and changes of a record that demand a value.
    pub const IF_VALUE: u64 = 1;
    /// Pages by a list of keys.
    pub const ITEMS_BY_KEYS: u64 = 1 << 1;
    /// Scans in descending order.
    pub const DESCENDING_SCAN: u64 = 1 << 2;
    /// Durability by request.
    pub const DURABILITY: u64 = 1 << 3;

    /// Idempotency tokens of puts, deletes, increments and changes of a record.
    pub const TOKENS: u64 = 1 << 4;
    /// Idempotency tokens of touches, with or without a read, and of deletions of items.
    pub const MORE_TOKENS: u64 = 1 << 5;

    /// All of them.
    pub const ALL: u64 =
        IF_VALUE | ITEMS_BY_KEYS | DESCENDING_SCAN | DURABILITY | TOKENS | MORE_TOKENS;
}

impl HelloReply {
    /// The body.
    pub fn encode(&self) -> Vec<u8> {
        let mut builder = FlatBufferBuilder::with_capacity(256);
        let software = builder.create_string(&self.software);
        let core_ports = write_scalars(&mut builder, &self.core_ports);
        let opcodes = write_scalars(&mut builder, &self.opcodes);
        let shard_loads = write_scalars(&mut builder, &self.shard_loads);
        let read_p99 = write_scalars(&mut builder, &self.read_p99_microseconds);
        let write_p99 = write_scalars(&mut builder, &self.write_p99_microseconds);
        let root = write_table(&mut builder, |builder| {
            builder.push_slot(slot(3), self.hash_seed, 0);
            builder.push_slot(slot(18), self.capabilities, 0);
            builder.push_slot_always(slot(1), software);
            builder.push_slot_always(slot(6), core_ports);
            builder.push_slot_always(slot(12), opcodes);
            builder.push_slot(slot(7), self.record_bytes_max, 0);
            builder.push_slot(slot(8), self.item_bytes_max, 0);
            builder.push_slot(slot(9), self.value_bytes_max, 0);
            builder.push_slot(slot(10), self.body_bytes_max, 0);
            builder.push_slot(slot(11), self.requests_max, 0);
            builder.push_slot(slot(13), self.page_items_max, 0);
            builder.push_slot(slot(14), self.page_bytes_max, 0);
            builder.push_slot(slot(15), self.read_target_microseconds, 0);
            builder.push_slot(slot(16), self.write_target_microseconds, 0);
            builder.push_slot_always(slot(17), shard_loads);
            builder.push_slot(slot(19), self.token_window_seconds, 0);
            builder.push_slot(slot(20), self.token_drift_seconds, 0);
            builder.push_slot(slot(21), self.large_bytes_max, 0);
            builder.push_slot(slot(22), self.chunk_bytes_max, 0);
            builder.push_slot_always(slot(23), read_p99);
            builder.push_slot_always(slot(24), write_p99);
            builder.push_slot(slot(0), self.version, 0);
            builder.push_slot(slot(2), self.shards, 0);
            builder.push_slot(slot(4), self.cores, 0);
            builder.push_slot(slot(5), self.core, 0);
        });
        builder.finish(root, Some(IDENTIFIER));
        builder.finished_data().to_vec()
    }

    /// Reads a body. Never panics, whatever the bytes are, and takes memory in proportion to them.
    ///
    /// # Errors
    /// If they are no such body.
    pub fn decode(body: &[u8]) -> Result<Self, StructureError> {
        Reader::read(body, IDENTIFIER, |reader, root| {
            let [
                version,
                software,
                shards,
                hash_seed,
                cores,
                core,
                core_ports,
                record_bytes_max,
                item_bytes_max,
                value_bytes_max,
                body_bytes_max,
                requests_max,
                opcodes,
                page_items_max,
                page_bytes_max,
                read_target,
                write_target,
                shard_loads,
                capabilities,
                token_window,
                token_drift,
                large_bytes_max,
                chunk_bytes_max,
                read_p99,
                write_p99,
            ] = reader.fields(root)?;
            Ok(Self {
                version: reader.u16(version)?,
                software: String::from_utf8_lossy(reader.bytes(software)?).into_owned(),
                shards: reader.u16(shards)?,
                hash_seed: reader.u64(hash_seed)?,
                cores: reader.u16(cores)?,
                core: reader.u16(core)?,
                core_ports: reader.u16s(core_ports)?,
                record_bytes_max: reader.u32(record_bytes_max)?,
                item_bytes_max: reader.u32(item_bytes_max)?,
                value_bytes_max: reader.u32(value_bytes_max)?,
                body_bytes_max: reader.u32(body_bytes_max)?,
                requests_max: reader.u32(requests_max)?,
                opcodes: reader.bytes(opcodes)?.to_vec(),
                page_items_max: reader.u32(page_items_max)?,
                page_bytes_max: reader.u32(page_bytes_max)?,
                read_target_microseconds: reader.u32(read_target)?,
                write_target_microseconds: reader.u32(write_target)?,
                shard_loads: reader.bytes(shard_loads)?.to_vec(),
                capabilities: reader.u64(capabilities)?,
                token_window_seconds: reader.u32(token_window)?,
                token_drift_seconds: reader.u32(token_drift)?,
                large_bytes_max: reader.u32(large_bytes_max)?,
                chunk_bytes_max: reader.u32(chunk_bytes_max)?,
                read_p99_microseconds: reader.u32s(read_p99)?,
                write_p99_microseconds: reader.u32s(write_p99)?,
            })
        })
    }
}
