//! Values of any length on their way from a node, over a handle.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, Read};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use larder_protocol::native::{GetItem, LargeHead, LargeWork, NativeRequest, NativeStatus};

use super::call::Call;
use super::compression::expand_item;
use super::pace::ChunkPace;
use super::placement::Targets;
use super::waiting::wait;
use super::{Access, CallKind, Client};
use crate::connection::{Arrived, Item};
use crate::error::ClientError;
use crate::key::{ItemKeyBuf, ItemRef};
use crate::large::chunks_at_a_time;

/// A value of any length that comes in chunks: as [`Read`] for threads, as a [`Stream`] or chunk by
/// chunk for tasks.
///
/// Some chunks are under way at a time
/// ([`ClientBuilder::chunks_under_way`](crate::ClientBuilder::chunks_under_way)), and no more of
/// the value is in memory. Each has the client's timeout, from the answer to the one before it on,
/// so that a slow link is no failure; and it is asked for again where its connection breaks.
///
/// As [`Read`], an error is one of the kind [`io::ErrorKind::Other`] that has the [`ClientError`]
/// in it. If the value is replaced while it is read, that says [`NativeStatus::Changed`]: what was
/// read is the beginning of the old one, and reading begins again with another
/// [`Client::get_large`]. After an error nothing more comes.
#[derive(Debug)]
pub struct LargeReader {
    client: Client,
    key: ItemKeyBuf,
    /// The node that has shown the item: another one has other chunks.
    node: usize,
    pace: Arc<ChunkPace>,
    item: Item,
    /// `None` if `chunk` is all that comes.
    large: Option<LargeHead>,
    /// The next chunk to ask for.
    next: u32,
    /// Chunks that were asked for, the first one first.
    under_way: VecDeque<Call<Vec<u8>>>,
    chunk: Vec<u8>,
    /// How much of the chunk was read.
    at: usize,
}

impl Client {
    /// Reads an item whose value may be of any length, and comes in chunks if it is long; `None` if
    /// there is none. A client that compresses expands what [`Client::put`] has stored; large
    /// values are stored and shown as they are.
    ///
    /// ```no_run
    /// # use larder_client::{Client, ClientError, ItemRef};
    /// # fn show(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    /// if let Some(mut film) = client.get_large(ItemRef::of_record("film:1")?).wait()? {
    ///     std::io::copy(&mut film, &mut std::io::stdout())?;
    /// }
    /// # Ok(())
    /// # }
    /// # async fn measure(client: &Client) -> Result<usize, ClientError> {
    /// let mut len = 0;
    /// if let Some(mut film) = client.get_large(ItemRef::of_record("film:1")?).await? {
    ///     while let Some(chunk) = film.next_chunk().await? {
    ///         len += chunk.len();
    ///     }
    /// }
    /// # Ok(len)
    /// # }
    /// ```
    pub fn get_large(&self, key: ItemRef<'_>) -> Call<Option<LargeReader>> {
        let get = GetItem { key: key.wire, metadata_only: false, is_quiet: false };
        let (record, targets) = (key.wire.record, self.core.placement.of(key.wire.record));
        let request = NativeRequest::Get(get);
        let begun = self.begin(CallKind::Large, Some(record), &request, Access::Read, targets);
        let asked = match begun {
            Ok(asked) => asked,
            Err(error) => return Call::failed(error),
        };
        let (client, key, shown) = (self.clone(), ItemKeyBuf::from(key), Arc::clone(&asked));
        Call::new(&self.core, [asked], move |arrived: Arrived| {
            let (item, large) = if arrived.status == Some(NativeStatus::Large) {
                let (item, large) = arrived.as_reply().large().map_err(|_| arrived.foreign())?;
                (Item::of(&item), Some(large))
            } else {
                let Some(item) = arrived.item()? else { return Ok(None) };
                let expands = client.core.settings.compress_from.is_some();
                (if expands { expand_item(item)? } else { item }, None)
            };
            Ok(Some(LargeReader::new((client, key, shown.answered_by()), item, large)))
        })
    }
}

impl LargeReader {
    fn new(
        (client, key, node): (Client, ItemKeyBuf, usize),
        mut item: Item,
        large: Option<LargeHead>,
    ) -> Self {
        let (chunk, under_way) = (std::mem::take(&mut item.value), VecDeque::new());
        let pace = client.pace_of_chunks();
        Self { client, key, node, pace, item, large, next: 0, under_way, chunk, at: 0 }
    }

    /// The item, without its value.
    pub fn item(&self) -> &Item {
        &self.item
    }

    /// The next bytes of the value, a chunk of it; `None` at its end. Who gives up waiting loses
    /// nothing.
    ///
    /// # Errors
    /// Any.
    pub async fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        poll_fn(|context| self.poll_next_chunk(context)).await
    }

    /// The same for who polls.
    ///
    /// # Errors
    /// Any.
    pub fn poll_next_chunk(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Vec<u8>>, ClientError>> {
        if self.at < self.chunk.len() {
            let mut rest = std::mem::take(&mut self.chunk);
            rest.drain(..self.at);
            self.at = 0;
            return Poll::Ready(Ok(Some(rest)));
        }
        if let Err(error) = self.ask() {
            return Poll::Ready(Err(self.end(error)));
        }
        let Some(first) = self.under_way.front_mut() else { return Poll::Ready(Ok(None)) };
        let chunk = ready!(Pin::new(first).poll(context));
        self.under_way.pop_front();
        Poll::Ready(match chunk.and_then(|chunk| self.ask().map(|()| chunk)) {
            Ok(chunk) => Ok(Some(chunk)),
            Err(error) => Err(self.end(error)),
        })
    }

    /// Asks for as many chunks as may be under way.
    fn ask(&mut self) -> Result<(), ClientError> {
        let Some(large) = self.large else { return Ok(()) };
        let most = self.client.core.settings.chunks_under_way;
        let under_way_max = chunks_at_a_time(large.chunk_bytes, most);
        while self.next < large.chunks() && self.under_way.len() < under_way_max {
            let (upload, index) = (large.upload, self.next);
            let work = LargeWork::GetChunk { upload, index };
            let how = (Access::Read, Targets::one(self.node));
            let step = self.client.chunk_step(self.key.wire(), work, how, &self.pace)?;
            let len = large.chunk_len(index) as usize;
            self.under_way.push_back(Call::new(&self.client.core, [step], move |arrived| {
                let arrived: Arrived = arrived.ok(&[])?;
                if arrived.body.len() == len { Ok(arrived.body) } else { Err(arrived.foreign()) }
            }));
            self.next += 1;
        }
        self.client.core.flush();
        Ok(())
    }

    /// Nothing more comes.
    fn end(&mut self, error: ClientError) -> ClientError {
        self.large = None;
        self.under_way.clear();
        error
    }
}

impl Read for LargeReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            let next = wait(pin!(self.next_chunk())).map_err(io::Error::other)?;
            (self.chunk, self.at) = (next.unwrap_or_default(), 0);
        }
        let rest = &self.chunk[self.at..];
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        self.at += len;
        Ok(len)
    }
}

impl Stream for LargeReader {
    type Item = Result<Vec<u8>, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_next_chunk(context).map(Result::transpose)
    }
}
