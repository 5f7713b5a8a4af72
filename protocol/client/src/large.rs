//! Values that are longer than a request: stored and read in chunks.

use std::collections::VecDeque;
use std::io::{self, Read};

use larder_protocol::native::{
    GetItem, ItemKey, LargeHead, LargeItem, LargeWork, NativeRequest, NativeStatus,
    RequestDurability, StoreWhen,
};

use crate::connection::{Arrived, ClientConnection, Item, Stored, Ticket, When};
use crate::error::ClientError;
use crate::key::{ItemKeyBuf, ItemRef};

/// Chunks of a large value that are under way at a time, unless a client is told otherwise, and at
/// most.
pub(crate) const CHUNKS_UNDER_WAY: usize = 4;
pub(crate) const CHUNKS_UNDER_WAY_MAX: usize = 64;

/// Bytes of each of them, on the mean: of longer ones fewer are under way.
const CHUNK_BYTES: usize = 1 << 20;

/// How many chunks of this length are under way at a time, where there may be `most` of usual ones.
pub(crate) fn chunks_at_a_time(chunk_bytes: u32, most: usize) -> usize {
    (most * CHUNK_BYTES / (chunk_bytes as usize).max(1)).clamp(1, most)
}

/// How a value is stored that comes in chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LargePut<'a> {
    /// Its length in bytes, at least 1. The node says in its hello how many it takes.
    pub len: u32,
    /// When it is stored: in any case, if there is an item, if there is none, or if that has a
    /// version.
    pub when: When<'a>,
    /// 32 bits to keep with it.
    pub client_flags: u32,
    /// Seconds to live; 0 for ever.
    pub ttl: u32,
}

impl LargePut<'_> {
    pub(crate) fn when(&self) -> Result<StoreWhen, ClientError> {
        Ok(match self.when {
            When::Always => StoreWhen::Always,
            When::Absent => StoreWhen::IfAbsent,
            When::Present => StoreWhen::IfPresent,
            When::Version(version) => StoreWhen::IfVersion(version),
            When::Value(_) | When::Append | When::Prepend => {
                let reason = "a value that comes in chunks takes no other value's place in part";
                return Err(ClientError::Usage(reason.to_owned()));
            }
        })
    }
}

impl ClientConnection {
    /// Stores a value that `source` gives, chunk by chunk: four of them are under way at a time,
    /// and one is in memory. The item changes when all are there, and not at all after an error
    /// that says so ([`ClientError::may_be_done`]). `progress` is told after each chunk how many
    /// bytes the node has.
    ///
    /// ```no_run
    /// # use larder_client::{ClientConnection, ClientError, ItemRef, LargePut};
    /// # fn store(node: &mut ClientConnection, film: std::fs::File) -> Result<(), ClientError> {
    /// let len = film.metadata().map_err(ClientError::Source)?.len() as u32;
    /// let put = LargePut { len, ..LargePut::default() };
    /// node.put_large(ItemRef::of_record("film:1")?, &put, film, |_| ())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Any; [`ClientError::Source`] if `source` fails or ends early. A condition that does not hold
    /// is none.
    pub fn put_large(
        &mut self,
        key: ItemRef<'_>,
        put: &LargePut<'_>,
        mut source: impl Read,
        mut progress: impl FnMut(u64),
    ) -> Result<Stored, ClientError> {
        let when = put.when()?;
        let arrived = self.large(key.wire, LargeWork::Stage { len: put.len })?.ok(&[])?;
        let staged = arrived.as_reply().staged().map_err(|_| arrived.foreign());
        let staged = self.judge(staged)?;
        let upload = staged.upload;
        if let Err(error) = self.put_chunks(key.wire, staged, &mut source, &mut progress) {
            // It goes by itself in the end, if this fails too.
            let _unneeded = self.large(key.wire, LargeWork::Abort { upload });
            return Err(error);
        }
        let (client_flags, ttl) = (put.client_flags, put.ttl);
        let commit = LargeWork::Commit { upload, when, client_flags, ttl };
        let stored = self.large(key.wire, commit)?.stored();
        if !matches!(stored, Ok(Stored::Yes(_))) {
            let _unneeded = self.large(key.wire, LargeWork::Abort { upload });
        }
        self.judge(stored)
    }

    fn put_chunks(
        &mut self,
        key: ItemKey<'_>,
        staged: LargeHead,
        source: &mut impl Read,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), ClientError> {
        let mut under_way = VecDeque::new();
        // The commit comes behind the chunks in the log, and waits for all.
        let durability = self.replace_durability(RequestDurability::None);
        let sent = self.send_chunks((key, staged), source, &mut under_way, progress);
        self.replace_durability(durability);
        under_way.into_iter().for_each(|(ticket, _)| self.forget(ticket));
        sent
    }

    fn send_chunks(
        &mut self,
        (key, staged): (ItemKey<'_>, LargeHead),
        source: &mut impl Read,
        under_way: &mut VecDeque<(Ticket, usize)>,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), ClientError> {
        let under_way_max = chunks_at_a_time(staged.chunk_bytes, CHUNKS_UNDER_WAY);
        let mut chunk = vec![0; staged.chunk_bytes.min(staged.len) as usize];
        let mut done = 0;
        for index in 0..staged.chunks() {
            if under_way.len() >= under_way_max {
                done += self.confirm_chunk(under_way)?;
                progress(done);
            }
            let bytes = &mut chunk[..staged.chunk_len(index) as usize];
            source.read_exact(bytes).map_err(ClientError::Source)?;
            let work = LargeWork::PutChunk { upload: staged.upload, index, bytes };
            let ticket = self.send(&NativeRequest::Large(LargeItem { key, work }))?;
            under_way.push_back((ticket, bytes.len()));
        }
        while !under_way.is_empty() {
            done += self.confirm_chunk(under_way)?;
            progress(done);
        }
        Ok(())
    }

    /// Waits for the answer to the first of these chunks; how many bytes it has.
    fn confirm_chunk(
        &mut self,
        under_way: &mut VecDeque<(Ticket, usize)>,
    ) -> Result<u64, ClientError> {
        let Some((ticket, len)) = under_way.pop_front() else { return Ok(0) };
        self.wait(ticket)?.ok(&[])?;
        Ok(len as u64)
    }

    /// Reads an item whose value may be of any length, and comes in chunks if it is long; `None` if
    /// there is none.
    ///
    /// ```no_run
    /// # use larder_client::{ClientConnection, ClientError, ItemRef};
    /// # fn show(node: &mut ClientConnection) -> Result<(), Box<dyn std::error::Error>> {
    /// if let Some(mut film) = node.get_large(ItemRef::of_record("film:1")?)? {
    ///     std::io::copy(&mut film, &mut std::io::stdout())?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Any.
    pub fn get_large(&mut self, key: ItemRef<'_>) -> Result<Option<ValueReader<'_>>, ClientError> {
        let get = GetItem { key: key.wire, metadata_only: false, is_quiet: false };
        let arrived = self.call(&NativeRequest::Get(get))?;
        let key = ItemKeyBuf::from(key);
        if arrived.status != Some(NativeStatus::Large) {
            let found = self.judge(arrived.item())?;
            return Ok(found.map(|item| ValueReader::new(self, key, item, None)));
        }
        let shown = arrived.as_reply().large().map_err(|_| arrived.foreign());
        let (item, large) = self.judge(shown)?;
        Ok(Some(ValueReader::new(self, key, Item::of(&item), Some(large))))
    }

    fn large(&mut self, key: ItemKey<'_>, work: LargeWork<'_>) -> Result<Arrived, ClientError> {
        self.call(&NativeRequest::Large(LargeItem { key, work }))
    }
}

/// A value that is read in chunks: four of them are under way at a time, and no more of the value
/// is in memory.
///
/// As [`Read`], an error is one of the kind [`io::ErrorKind::Other`] that has the [`ClientError`]
/// in it. If the value is replaced while it is read, that says [`NativeStatus::Changed`]: what was
/// read is the beginning of the old one, and reading begins again with another
/// [`ClientConnection::get_large`]. After an error nothing more comes.
#[derive(Debug)]
pub struct ValueReader<'n> {
    node: &'n mut ClientConnection,
    key: ItemKeyBuf,
    item: Item,
    /// `None` if the chunk is all.
    large: Option<LargeHead>,
    /// The next chunk to ask for.
    next: u32,
    /// Chunks that were asked for, the first one first, and how long each is.
    under_way: VecDeque<(Ticket, usize)>,
    chunk: Vec<u8>,
    /// How much of the chunk was read.
    at: usize,
}

impl<'n> ValueReader<'n> {
    fn new(
        node: &'n mut ClientConnection,
        key: ItemKeyBuf,
        mut item: Item,
        large: Option<LargeHead>,
    ) -> Self {
        let (chunk, under_way) = (std::mem::take(&mut item.value), VecDeque::new());
        Self { node, key, item, large, next: 0, under_way, chunk, at: 0 }
    }

    /// The item, without its value.
    pub fn item(&self) -> &Item {
        &self.item
    }

    /// The next bytes of the value, a chunk of it; `None` at its end.
    ///
    /// # Errors
    /// Any.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let rest = self.rest_of_chunk()?.len();
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.drain(..chunk.len() - rest);
        self.at = 0;
        Ok((rest > 0).then_some(chunk))
    }

    /// What is here of the value and was not read yet; empty at its end. Another chunk is waited
    /// for where nothing is.
    fn rest_of_chunk(&mut self) -> Result<&[u8], ClientError> {
        if self.at == self.chunk.len() {
            let next = self.receive();
            if next.is_err() {
                self.large = None;
                self.forget_all();
            }
            (self.chunk, self.at) = (next?, 0);
        }
        Ok(&self.chunk[self.at..])
    }

    /// The next chunk; empty behind the last.
    fn receive(&mut self) -> Result<Vec<u8>, ClientError> {
        self.ask()?;
        let Some((ticket, len)) = self.under_way.pop_front() else { return Ok(Vec::new()) };
        let arrived = self.node.wait(ticket)?.ok(&[])?;
        if arrived.body.len() != len {
            let foreign = Err(arrived.foreign());
            return self.node.judge(foreign);
        }
        self.ask()?;
        Ok(arrived.body)
    }

    /// Asks for as many chunks as may be under way.
    fn ask(&mut self) -> Result<(), ClientError> {
        let Some(large) = self.large else { return Ok(()) };
        let under_way_max = chunks_at_a_time(large.chunk_bytes, CHUNKS_UNDER_WAY);
        while self.next < large.chunks() && self.under_way.len() < under_way_max {
            let work = LargeWork::GetChunk { upload: large.upload, index: self.next };
            let request = NativeRequest::Large(LargeItem { key: self.key.wire(), work });
            let ticket = self.node.send(&request)?;
            self.under_way.push_back((ticket, large.chunk_len(self.next) as usize));
            self.next += 1;
        }
        Ok(())
    }

    fn forget_all(&mut self) {
        for (ticket, _) in self.under_way.drain(..) {
            self.node.forget(ticket);
        }
    }
}

impl Drop for ValueReader<'_> {
    fn drop(&mut self) {
        self.forget_all();
    }
}

impl Read for ValueReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let rest = self.rest_of_chunk().map_err(io::Error::other)?;
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        self.at += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_bounded_in_bytes_too() {
        for (chunk_bytes, most, chunks) in [
            (512 << 10, 4, 4),
            (1 << 20, 4, 4),
            (2 << 20, 4, 2),
            (128 << 20, 64, 1),
            (u32::MAX, 4, 1),
            (1, 4, 4),
            (0, 1, 1),
        ] {
            assert_eq!(chunks_at_a_time(chunk_bytes, most), chunks, "{chunk_bytes} {most}");
        }
    }
}
