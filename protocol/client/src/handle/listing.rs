//! Items in order, page by page, over a handle.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::call::Call;
use super::compression::expand_listed;
use super::placement::Targets;
use super::{Access, CallKind, Client};
use crate::connection::Arrived;
use crate::error::ClientError;
use crate::pages::{Asked, ListedItem, PageRead, read_page};

/// Items in order. Pages are asked for as they are needed: a thread takes the items as an iterator,
/// a task as a [`Stream`] or page by page. After an error nothing more comes.
///
/// ```no_run
/// # use larder_client::{Client, ClientError, ItemsOf};
/// # async fn list(client: &Client) -> Result<(), ClientError> {
/// let mut photos = client.items(ItemsOf::record(0, "user:1")?);
/// while let Some(page) = photos.next_page().await? {
///     page.iter().for_each(|item| println!("{}", item.item.escape_ascii()));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Listing<'a> {
    client: Client,
    asked: Asked<'a>,
    /// The node that is scanned.
    node: usize,
    /// The token of the next page.
    token: Vec<u8>,
    /// The next page, if it was asked for.
    call: Option<Call<Vec<u8>>>,
    page: std::vec::IntoIter<ListedItem>,
    has_left_out: bool,
    is_over: bool,
}

impl<'a> Listing<'a> {
    pub(super) fn new(client: Client, asked: Asked<'a>) -> Self {
        let (token, page) = (Vec::new(), Vec::new().into_iter());
        let (call, has_left_out) = (None, false);
        Self { client, asked, node: 0, token, call, page, has_left_out, is_over: false }
    }

    /// Whether a node has left out, so far, what it cannot read: only where the limits say
    /// `passes_damage`. Those items are not absent.
    pub fn has_left_out(&self) -> bool {
        self.has_left_out
    }

    /// The items of the next page, which may be none; `None` after the last page. Who gives up
    /// waiting loses nothing.
    ///
    /// # Errors
    /// Any; then nothing more comes.
    pub async fn next_page(&mut self) -> Result<Option<Vec<ListedItem>>, ClientError> {
        poll_fn(|context| self.poll_next_page(context)).await
    }

    /// The same for who polls.
    ///
    /// # Errors
    /// Any; then nothing more comes.
    pub fn poll_next_page(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Vec<ListedItem>>, ClientError>> {
        let left: Vec<ListedItem> = self.page.by_ref().collect();
        if !left.is_empty() {
            return Poll::Ready(Ok(Some(left)));
        }
        if self.is_over {
            return Poll::Ready(Ok(None));
        }
        let mut call = self.call.take().unwrap_or_else(|| self.ask());
        match Pin::new(&mut call).poll(context) {
            Poll::Ready(body) => Poll::Ready(self.turn(body).map(Some)),
            Poll::Pending => {
                self.call = Some(call);
                Poll::Pending
            }
        }
    }

    /// The items as a stream, for tasks. It takes no runtime: what any runtime has for streams
    /// goes with it.
    pub fn into_stream(self) -> ItemStream<'a> {
        ItemStream { listing: self }
    }

    fn ask(&self) -> Call<Vec<u8>> {
        let request = self.asked.request(&self.token);
        let (kind, record, targets) = match &self.asked {
            Asked::Record(get) => {
                (CallKind::Items, Some(get.record), self.client.core.placement.of(get.record))
            }
            Asked::Namespace(_) => (CallKind::Scan, None, Targets::one(self.node)),
        };
        let body = |arrived: Arrived| Ok(arrived.ok(&[])?.body);
        match self.client.begin(kind, record, &request, Access::Read, targets) {
            Ok(operation) => Call::new(&self.client.core, [operation], body),
            Err(error) => Call::failed(error),
        }
    }

    /// Goes on with the body of a page.
    fn turn(&mut self, body: Result<Vec<u8>, ClientError>) -> Result<Vec<ListedItem>, ClientError> {
        self.is_over = true;
        let PageRead { mut items, next, has_left_out } = read_page(&body?, &self.token)?;
        self.has_left_out |= has_left_out;
        let core = Arc::clone(&self.client.core);
        if core.placement.replicas() > 1 && matches!(self.asked, Asked::Namespace(_)) {
            items.retain(|item| {
                let record = item.record.as_deref().unwrap_or_default();
                core.placement.of(record).at(0) == self.node
            });
        }
        if core.settings.compress_from.is_some() {
            items = items.into_iter().map(expand_listed).collect::<Result<_, _>>()?;
        }
        let has_next_node = matches!(self.asked, Asked::Namespace(_))
            && next.is_none()
            && self.node + 1 < core.nodes.len();
        self.node += usize::from(has_next_node);
        self.is_over = next.is_none() && !has_next_node;
        self.token = next.unwrap_or_default();
        Ok(items)
    }
}

impl Iterator for Listing<'_> {
    type Item = Result<ListedItem, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.page.next() {
                return Some(Ok(item));
            }
            if self.is_over {
                return None;
            }
            let body = self.call.take().unwrap_or_else(|| self.ask()).wait();
            match self.turn(body) {
                Ok(items) => self.page = items.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Items in order, as a stream. After an error nothing more comes.
#[derive(Debug)]
pub struct ItemStream<'a> {
    listing: Listing<'a>,
}

impl Stream for ItemStream<'_> {
    type Item = Result<ListedItem, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let listing = &mut self.listing;
        loop {
            if let Some(item) = listing.page.next() {
                return Poll::Ready(Some(Ok(item)));
            }
            match ready!(listing.poll_next_page(context)) {
                Ok(Some(items)) => listing.page = items.into_iter(),
                Ok(None) => return Poll::Ready(None),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}
