//! Large values on their way to their nodes, over a handle.

use std::collections::VecDeque;
use std::io::Read;
use std::pin::pin;
use std::sync::Arc;

use larder_protocol::native::{
    ItemKey, LargeHead, LargeItem, LargeWork, NativeRequest, NativeStatus, RequestDurability,
    StoreWhen,
};

use super::call::Call;
use super::compression::COMPRESSED;
use super::operation::{Operation, TimeAllowed};
use super::pace::ChunkPace;
use super::placement::Targets;
use super::waiting::wait;
use super::{Access, CallKind, Client, NOT_WITH_REPLICAS, read_nothing};
use crate::clock::now;
use crate::connection::{Arrived, Stored};
use crate::error::ClientError;
use crate::key::{ItemKeyBuf, ItemRef};
use crate::large::{LargePut, chunks_at_a_time};

/// Bytes that every node of a value takes before the first of them takes more.
const PIECE_BYTES: usize = 64 << 10;

/// A value of up to 128 MiB on its way, chunk by chunk. The item changes with
/// [`LargeUpload::commit`], and not at all without: an upload that is dropped is given up.
///
/// Bytes are taken as they come. Some chunks are under way at a time
/// ([`ClientBuilder::chunks_under_way`](crate::ClientBuilder::chunks_under_way)), and one is
/// gathered, on each node that keeps the record; no more of the value is in memory, except that
/// what waits to be sent is there twice. Each chunk has the client's timeout, from the answer to
/// the one before it on, so that a slow link is no failure; and it is sent again where its
/// connection breaks: that it comes twice makes no difference.
#[derive(Debug)]
#[must_use = "an upload that is dropped is given up"]
pub struct LargeUpload {
    client: Client,
    key: ItemKeyBuf,
    /// When it is stored, client flags, and seconds to live.
    store: (StoreWhen, u32, u32),
    len: u32,
    /// Bytes that were given so far.
    given: u32,
    nodes: Vec<NodeUpload>,
    /// Whether nothing has failed, and nobody has given up waiting.
    is_sound: bool,
}

/// The same on one node.
#[derive(Debug)]
struct NodeUpload {
    targets: Targets,
    pace: Arc<ChunkPace>,
    staging: Option<Call<LargeHead>>,
    staged: Option<LargeHead>,
    /// What has come of the next chunk.
    chunk: Vec<u8>,
    /// The place of the next chunk.
    next: u32,
    /// Chunks that have no answer yet, the first one first, and how long each is.
    under_way: VecDeque<(Call<()>, usize)>,
    confirmed: u64,
    is_committed: bool,
}

impl Client {
    /// Stores a value of up to 128 MiB that `source` gives, in chunks; some of them are in memory
    /// at a time. The item changes when all are there, and not at all after an error that says so
    /// ([`ClientError::may_be_done`]). `progress` is told now and then how many bytes the node has.
    /// For threads; tasks take [`Client::upload`].
    ///
    /// ```no_run
    /// # use larder_client::{Client, ClientError, ItemRef, LargePut};
    /// # fn store(client: &Client, film: std::fs::File) -> Result<(), ClientError> {
    /// let len = film.metadata().map_err(ClientError::Source)?.len() as u32;
    /// let put = LargePut { len, ..LargePut::default() };
    /// client.put_large(ItemRef::of_record("film:1")?, &put, film, |_| ())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A node waits half a minute for the first whole chunk, and then for each of the others its
    /// part of `--staging-window`: a `source` that is slower fails with
    /// [`NativeStatus::NoUpload`](larder_protocol::native::NativeStatus::NoUpload).
    ///
    /// # Errors
    /// Any; [`ClientError::Source`] if `source` fails or ends early. A condition that does not hold
    /// is none.
    pub fn put_large(
        &self,
        key: ItemRef<'_>,
        put: &LargePut<'_>,
        mut source: impl Read,
        mut progress: impl FnMut(u64),
    ) -> Result<Stored, ClientError> {
        let mut upload = self.upload(key, put)?;
        // A source may not be read again, so the nodes are heard first.
        wait(pin!(upload.settle()))?;
        let (mut left, mut told) = (put.len as usize, 0);
        let mut piece = vec![0; PIECE_BYTES.min(left)];
        while left > 0 {
            let piece = &mut piece[..PIECE_BYTES.min(left)];
            source.read_exact(piece).map_err(ClientError::Source)?;
            wait(pin!(upload.send(piece)))?;
            left -= piece.len();
            if upload.confirmed() > told {
                told = upload.confirmed();
                progress(told);
            }
        }
        wait(pin!(upload.settle()))?;
        if upload.confirmed() > told {
            progress(upload.confirmed());
        }
        wait(pin!(upload.commit()))
    }

    /// Begins to store a value of up to 128 MiB whose bytes come by and by.
    ///
    /// ```no_run
    /// # use larder_client::{Client, ClientError, ItemRef, LargePut};
    /// # async fn store(client: &Client, parts: Vec<Vec<u8>>) -> Result<(), ClientError> {
    /// let len = parts.iter().map(Vec::len).sum::<usize>() as u32;
    /// let put = LargePut { len, ..LargePut::default() };
    /// let mut upload = client.upload(ItemRef::of_record("film:1")?, &put)?;
    /// for part in &parts {
    ///     upload.send(part).await?;
    /// }
    /// upload.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The upload begins now, and its first whole chunk has to be sent within half a minute; see
    /// [`Client::put_large`].
    ///
    /// # Errors
    /// [`ClientError::Usage`]. What nodes say comes with the first bytes that are sent.
    pub fn upload(&self, key: ItemRef<'_>, put: &LargePut<'_>) -> Result<LargeUpload, ClientError> {
        let refused = |text: &str| Err(ClientError::Usage(text.to_owned()));
        let when = put.when()?;
        if when != StoreWhen::Always && self.core.placement.replicas() > 1 {
            return refused(NOT_WITH_REPLICAS);
        }
        if self.core.settings.compress_from.is_some() && put.client_flags & COMPRESSED != 0 {
            return refused("bit 31 of the client flags says that a value is compressed");
        }
        let (len, key) = (put.len, ItemKeyBuf::from(key));
        let targets = self.core.placement.of(key.wire().record);
        let begin = |node: &u16| {
            let targets = Targets::one(usize::from(*node));
            let stage = LargeWork::Stage { len };
            // One that was begun twice goes by itself, because its first chunk does not come.
            let step = self.large_step(key.wire(), stage, Access::Repeatable, targets)?;
            let read = move |arrived: Arrived| {
                let arrived = arrived.ok(&[])?;
                let staged = arrived.as_reply().staged().map_err(|_| arrived.foreign())?;
                if staged.len == len { Ok(staged) } else { Err(arrived.foreign()) }
            };
            Ok(NodeUpload {
                targets,
                pace: self.pace_of_chunks(),
                staging: Some(Call::new(&self.core, [step], read)),
                staged: None,
                chunk: Vec::new(),
                next: 0,
                under_way: VecDeque::new(),
                confirmed: 0,
                is_committed: false,
            })
        };
        let nodes = targets.as_slice().iter().map(begin).collect::<Result<_, ClientError>>()?;
        let store = (when, put.client_flags, put.ttl);
        Ok(LargeUpload { client: self.clone(), key, store, len, given: 0, nodes, is_sound: true })
    }

    /// Begins a step on the way of a large value.
    pub(super) fn large_step(
        &self,
        key: ItemKey<'_>,
        work: LargeWork<'_>,
        access: Access,
        targets: Targets,
    ) -> Result<Arc<Operation>, ClientError> {
        let request = NativeRequest::Large(LargeItem { key, work });
        self.begin(CallKind::Large, Some(key.record), &request, access, targets)
    }

    /// The same for one of several chunks that are under way.
    pub(super) fn chunk_step(
        &self,
        key: ItemKey<'_>,
        work: LargeWork<'_>,
        how: (Access, Targets),
        pace: &Arc<ChunkPace>,
    ) -> Result<Arc<Operation>, ClientError> {
        let request = NativeRequest::Large(LargeItem { key, work });
        let time = (now(), TimeAllowed::Paced(Arc::clone(pace)));
        self.begin_for(CallKind::Large, Some(key.record), &request, how, time)
    }

    pub(super) fn pace_of_chunks(&self) -> Arc<ChunkPace> {
        Arc::new(ChunkPace::new(self.timeout, self.core.settings.chunks_under_way, now()))
    }
}

impl LargeUpload {
    /// Takes the next bytes of the value; waits where enough are under way.
    ///
    /// Who gives up waiting for it, or gets an error from a node, cannot go on: it is not known
    /// then how many of the bytes were taken.
    ///
    /// # Errors
    /// Any; [`ClientError::Usage`] if these are more bytes than the value has, and then none of
    /// them were taken.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let left = (self.len - self.given) as usize;
        if bytes.len() > left {
            let (len, more) = (self.len, bytes.len() - left);
            return Err(ClientError::Usage(format!(
                "the value was said to have {len} bytes, and now comes with {more} more"
            )));
        }
        self.begin_step()?;
        for piece in bytes.chunks(PIECE_BYTES) {
            for node in &mut self.nodes {
                node.take(&self.client, self.key.wire(), piece).await?;
            }
        }
        self.given += bytes.len() as u32;
        self.is_sound = true;
        Ok(())
    }

    /// Waits until the nodes have begun, and have all that was sent but for the beginning of a
    /// chunk.
    ///
    /// # Errors
    /// Any.
    pub async fn settle(&mut self) -> Result<(), ClientError> {
        self.begin_step()?;
        for node in &mut self.nodes {
            node.settle().await?;
        }
        self.is_sound = true;
        Ok(())
    }

    /// How many bytes of the value all nodes of the record are known to have.
    pub fn confirmed(&self) -> u64 {
        self.nodes.iter().map(|node| node.confirmed).min().unwrap_or(0)
    }

    /// Stores the value, all of which was sent.
    ///
    /// # Errors
    /// Any. A condition that does not hold is none. [`ClientError::InDoubt`] with
    /// [`NativeStatus::Changed`] means that the value was stored by a try whose answer was lost,
    /// and that another has taken its place since.
    pub async fn commit(mut self) -> Result<Stored, ClientError> {
        if self.given < self.len {
            let (len, given) = (self.len, self.given);
            return Err(ClientError::Usage(format!(
                "only {given} of the {len} bytes of the value have come: it is not stored"
            )));
        }
        self.settle().await?;
        let (when, client_flags, ttl) = self.store;
        let mut commits = Vec::with_capacity(self.nodes.len());
        for node in &mut self.nodes {
            let upload = node.staged().await?.upload;
            let commit = LargeWork::Commit { upload, when, client_flags, ttl };
            let (key, access) = (self.key.wire(), Access::Once);
            commits.push(self.client.large_step(key, commit, access, node.targets)?);
        }
        let stored = Call::new(&self.client.core, commits, committed).await;
        let is_stored = matches!(stored, Ok(Stored::Yes(_)));
        self.nodes.iter_mut().for_each(|node| node.is_committed = is_stored);
        stored
    }

    /// Nothing goes on behind a step that has not ended.
    fn begin_step(&mut self) -> Result<(), ClientError> {
        if std::mem::take(&mut self.is_sound) {
            return Ok(());
        }
        let text = "this upload has failed, or a part of it was given up: begin another";
        Err(ClientError::Usage(text.to_owned()))
    }
}

fn committed(arrived: Arrived) -> Result<Stored, ClientError> {
    let was_replaced = arrived.status == Some(NativeStatus::Changed);
    let stored = arrived.stored();
    stored.map_err(|error| if was_replaced { ClientError::InDoubt(Box::new(error)) } else { error })
}

impl Drop for LargeUpload {
    fn drop(&mut self) {
        for node in self.nodes.iter().filter(|node| !node.is_committed) {
            let Some(LargeHead { upload, .. }) = node.staged else { continue };
            let abort = LargeWork::Abort { upload };
            // It goes by itself in the end, if this fails.
            let key = self.key.wire();
            drop(self.client.large_step(key, abort, Access::Repeatable, node.targets));
        }
        self.client.core.flush();
    }
}

impl NodeUpload {
    /// What the node has said of the upload.
    async fn staged(&mut self) -> Result<LargeHead, ClientError> {
        if let Some(staging) = &mut self.staging {
            let staged = staging.await;
            self.staging = None;
            self.staged = Some(staged?);
        }
        self.staged.ok_or_else(|| ClientError::Usage("the upload could not be begun".to_owned()))
    }

    /// Takes bytes, and sends each chunk that they complete.
    async fn take(
        &mut self,
        client: &Client,
        key: ItemKey<'_>,
        mut bytes: &[u8],
    ) -> Result<(), ClientError> {
        let staged = self.staged().await?;
        let under_way_max =
            chunks_at_a_time(staged.chunk_bytes, client.core.settings.chunks_under_way);
        while !bytes.is_empty() {
            let chunk_len = staged.chunk_len(self.next) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(chunk_len - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
            if self.chunk.len() < chunk_len {
                return Ok(());
            }
            while self.under_way.len() >= under_way_max {
                self.confirm().await?;
            }
            self.send_chunk(client, key, staged.upload)?;
        }
        Ok(())
    }

    fn send_chunk(
        &mut self,
        client: &Client,
        key: ItemKey<'_>,
        upload: u64,
    ) -> Result<(), ClientError> {
        let put = LargeWork::PutChunk { upload, index: self.next, bytes: &self.chunk };
        // The commit comes behind it in the node's log, and waits for both.
        let hasty = client.with_durability(RequestDurability::None);
        let how = (Access::Repeatable, self.targets);
        let step = hasty.chunk_step(key, put, how, &self.pace)?;
        let sent = Call::new(&client.core, [step], read_nothing);
        self.under_way.push_back((sent, self.chunk.len()));
        client.core.flush();
        self.chunk.clear();
        self.next += 1;
        Ok(())
    }

    /// Waits for the answer to the first chunk that has none; whether there was one.
    async fn confirm(&mut self) -> Result<bool, ClientError> {
        let Some((sent, len)) = self.under_way.front_mut() else { return Ok(false) };
        let len = *len as u64;
        sent.await?;
        self.confirmed += len;
        self.under_way.pop_front();
        Ok(true)
    }

    async fn settle(&mut self) -> Result<(), ClientError> {
        self.staged().await?;
        while self.confirm().await? {}
        Ok(())
    }
}
