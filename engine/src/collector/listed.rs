//! Collecting a segment whose records are listed in memory: what lives is found without reading the
//! segment, and copied from the value cache, or read record by record.

use larder_runtime::buffer::Buffer;
use larder_runtime::env::{DISK_ALIGNMENT, Env, File, IoClass};

use super::kinds::Kind;
use super::{Collected, Collector, CollectorHost, Fate, LOOK_UPS_MAX, Newest, Passage, Victim};
use crate::concurrent::concurrently;
use crate::entry::Pointer;
use crate::error::EngineError;
use crate::space::ListedRecord;
use crate::value_log::frame;
use crate::value_log::record::{self, Head, Place, Record, RecordKind};
use crate::value_log::segment::{self, Segment};

/// So many records are decided on, and so many looked at, before others get the core.
const PART: (usize, usize) = (LOOK_UPS_MAX, 4096);

/// Reading a record by itself costs a device about as much as so many bytes that are read together
/// with others.
const READ_COST_BYTES: u64 = 32 << 10;

/// Records that are read at the same time have at most so many bytes, if they are several.
const READ_BYTES_MAX: u64 = 1 << 20;

impl<E: Env> Collector<E> {
    /// Moves what lives of `victim`, going by the list of its records. False if there is none, or
    /// if reading all of the segment costs less: what was not moved is still to be looked at then.
    pub(super) async fn listed(
        &self,
        victim: Victim,
        source: &Segment<E::File>,
        host: &impl CollectorHost<E>,
        collected: &mut Collected,
    ) -> Result<bool, EngineError> {
        let mut from = 0;
        let mut passed = segment::HEADER_BYTES.min(victim.end);
        let mut reads_left = u64::from(victim.end);
        while !collected.is_complete && !host.is_closing() {
            let Some(part) = host.listed(victim.number, from, PART) else { return Ok(false) };
            let before = collected.moved_bytes;
            let mut unread = Vec::new();
            for listed in part.records {
                if !self.move_cached(victim, listed, host, collected).await? {
                    unread.push(listed);
                }
            }
            let costs = unread.iter().map(|listed| READ_COST_BYTES.max(u64::from(listed.len)));
            let Some(left) = reads_left.checked_sub(costs.sum()) else { return Ok(false) };
            reads_left = left;
            if !self.move_unread(victim, source, &unread, host, collected).await? {
                return Ok(false);
            }
            from = part.next;
            collected.is_complete = part.end.is_none();
            let end = part.end.unwrap_or(victim.end).clamp(passed, victim.end);
            let bytes = u64::from(end - passed);
            let dead = bytes.saturating_sub(collected.moved_bytes - before);
            collected.dead_bytes += dead;
            passed = end;
            host.passed(Passage { bytes, dead, left: u64::from(victim.end - end) }).await;
            self.env.yield_if_needed().await;
        }
        Ok(true)
    }

    /// Moves a record that is in memory, if it lives. False if it is not in memory as it is in the
    /// segment.
    async fn move_cached(
        &self,
        victim: Victim,
        listed: ListedRecord,
        host: &impl CollectorHost<E>,
        collected: &mut Collected,
    ) -> Result<bool, EngineError> {
        let from = pointer(victim, listed);
        let Some((key, value)) = host.in_memory(listed.hash, from) else { return Ok(false) };
        let len = record::encoded_len(key.len(), value.len());
        if len != listed.len as usize {
            // It is compressed there, and in the cache it is not.
            return Ok(false);
        }
        let Some(newest) = newest(host, &key, from).await? else { return Ok(true) };
        let (kind, metadata) = (RecordKind::Put, newest.metadata);
        let record = Record { kind, metadata, key: &key, payload: &value, original: None };
        let found = Head { record, len, payload_crc: crc32c::crc32c(&value) };
        collected.cached_bytes += len as u64;
        self.survive(victim, &found, from, newest, host, collected).await?;
        Ok(true)
    }

    /// Moves those of `unread` that live. False if one of them cannot be read.
    async fn move_unread(
        &self,
        victim: Victim,
        source: &Segment<E::File>,
        unread: &[ListedRecord],
        host: &impl CollectorHost<E>,
        collected: &mut Collected,
    ) -> Result<bool, EngineError> {
        let mut rest = unread;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |listed: &&ListedRecord| {
                bytes += u64::from(listed.len);
                bytes <= READ_BYTES_MAX
            };
            let some = rest.iter().take_while(fits).count().max(1);
            let (together, others) = rest.split_at(some);
            rest = others;
            let reads = together.iter().map(|listed| self.read(source, *listed));
            let buffers = concurrently(LOOK_UPS_MAX, reads).await;
            for (listed, buffer) in together.iter().zip(buffers) {
                let place =
                    Place { store: self.store, segment: victim.number, offset: listed.offset };
                let within = listed.offset as usize % DISK_ALIGNMENT;
                let bytes = buffer.as_ref().and_then(|buffer| buffer.get(within..));
                let found = bytes.and_then(|bytes| record::decode_head(bytes, place).ok());
                let Some(found) = found.filter(|found| found.len == listed.len as usize) else {
                    return Ok(false);
                };
                let (key, from) = (found.record.key, pointer(victim, *listed));
                if let Some(newest) = newest(host, key, from).await? {
                    self.survive(victim, &found, from, newest, host, collected).await?;
                }
            }
        }
        Ok(true)
    }

    async fn survive(
        &self,
        victim: Victim,
        found: &Head<'_>,
        from: Pointer,
        newest: Newest,
        host: &impl CollectorHost<E>,
        collected: &mut Collected,
    ) -> Result<(), EngineError> {
        collected.moved += 1;
        collected.moved_bytes += found.len as u64;
        let kind = Kind::of(victim, newest.metadata, self.separation.get());
        self.copy(found, from, newest, kind, host).await
    }

    /// The blocks that a record lies in; `None` if they cannot be read.
    async fn read(&self, source: &Segment<E::File>, listed: ListedRecord) -> Option<Buffer> {
        let start = listed.offset & !(DISK_ALIGNMENT as u32 - 1);
        let bytes = frame::padded((listed.offset - start) as usize + listed.len as usize);
        if start as usize + bytes > source.bytes as usize {
            return None;
        }
        let buffer = self.env.buffer(bytes);
        let class = IoClass::GarbageCollection;
        let (result, buffer) = source.file.read(class, u64::from(start), buffer).await;
        result.ok().map(|_| buffer)
    }
}

fn pointer(victim: Victim, listed: ListedRecord) -> Pointer {
    Pointer { segment: victim.number, offset: listed.offset, len: listed.len }
}

/// The newest entry of `key` if it points to `from`.
async fn newest<E: Env>(
    host: &impl CollectorHost<E>,
    key: &[u8],
    from: Pointer,
) -> Result<Option<Newest>, EngineError> {
    match host.fate(key, from) {
        Fate::Dead => Ok(None),
        Fate::Lives(newest) => Ok(Some(newest)),
        Fate::Unknown => host.newest_at(key, from).await,
    }
}
