//! Values that are longer than a request: stored and read in chunks.

use std::io::{self, Read};

use larder_protocol::native::{
    GetItem, ItemKey, LargeHead, LargeItem, LargeWork, NativeRequest, NativeStatus,
    RequestDurability, StoreWhen,
};

use crate::connection::{ClientConnection, Item, Stored, When};
use crate::error::ClientError;
use crate::key::ItemRef;

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
    fn when(&self) -> Result<StoreWhen, ClientError> {
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
    /// Stores a value that `source` gives, chunk by chunk: one of them is in memory at a time. The
    /// item changes when all are there, and not at all after an error. `progress` is told after
    /// each chunk how many bytes the node has.
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
        let mut chunk = vec![0; staged.chunk_bytes.min(staged.len) as usize];
        let mut done = 0;
        for index in 0..staged.chunks() {
            let bytes = &mut chunk[..staged.chunk_len(index) as usize];
            source.read_exact(bytes).map_err(ClientError::Source)?;
            let work = LargeWork::PutChunk { upload: staged.upload, index, bytes };
            // The commit comes behind it in the log, and waits for both.
            let durability = self.replace_durability(RequestDurability::None);
            let arrived = self.large(key, work);
            self.replace_durability(durability);
            arrived?.ok(&[])?;
            done += bytes.len() as u64;
            progress(done);
        }
        Ok(())
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
        let ItemKey { namespace, record, item: item_key } = key.wire;
        let (record, item_key) = (record.to_vec(), item_key.to_vec());
        if arrived.status != Some(NativeStatus::Large) {
            let found = self.judge(arrived.item())?;
            return Ok(found.map(|mut item| {
                let chunk = std::mem::take(&mut item.value);
                let key = (namespace, record, item_key);
                ValueReader { node: self, key, item, large: None, next: 0, chunk, at: 0 }
            }));
        }
        let shown = arrived.as_reply().large().map_err(|_| arrived.foreign());
        let (item, large) = self.judge(shown)?;
        let (item, large, key) = (Item::of(&item), Some(large), (namespace, record, item_key));
        let chunk = Vec::new();
        Ok(Some(ValueReader { node: self, key, item, large, next: 0, chunk, at: 0 }))
    }

    fn large(
        &mut self,
        key: ItemKey<'_>,
        work: LargeWork<'_>,
    ) -> Result<crate::connection::Arrived, ClientError> {
        self.call(&NativeRequest::Large(LargeItem { key, work }))
    }
}

/// A value that is read in chunks: one of them is in memory at a time.
///
/// As [`Read`], an error is one of the kind [`io::ErrorKind::Other`] that has the [`ClientError`]
/// in it. If the value is replaced while it is read, that says [`NativeStatus::Changed`]: what was
/// read is the beginning of the old one, and reading begins again with another
/// [`ClientConnection::get_large`].
#[derive(Debug)]
pub struct ValueReader<'n> {
    node: &'n mut ClientConnection,
    /// Namespace, record id and item key.
    key: (u32, Vec<u8>, Vec<u8>),
    item: Item,
    /// `None` if the chunk is all.
    large: Option<LargeHead>,
    /// The next chunk that is asked for.
    next: u32,
    chunk: Vec<u8>,
    /// How much of the chunk was read.
    at: usize,
}

impl ValueReader<'_> {
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

    /// What is here of the value and was not read yet; empty at its end. Another chunk is fetched
    /// where nothing is.
    fn rest_of_chunk(&mut self) -> Result<&[u8], ClientError> {
        let next = self.large.filter(|large| self.next < large.chunks());
        if let Some(large) = next.filter(|_| self.at == self.chunk.len()) {
            let (namespace, record, item) = &self.key;
            let key = ItemKey { namespace: *namespace, record, item };
            let (upload, index) = (large.upload, self.next);
            let arrived = self.node.large(key, LargeWork::GetChunk { upload, index })?.ok(&[])?;
            if arrived.body.len() != large.chunk_len(index) as usize {
                let foreign = Err(arrived.foreign());
                return self.node.judge(foreign);
            }
            (self.chunk, self.at) = (arrived.body, 0);
            self.next += 1;
        }
        Ok(&self.chunk[self.at..])
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
