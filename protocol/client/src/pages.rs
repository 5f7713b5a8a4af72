//! Items in order, page by page.

use larder_protocol::native::{
    GetItems, ItemKeyList, ItemRange, NativePage, NativeRequest, PageLimits, ScanItems,
};

use crate::connection::ClientConnection;
use crate::error::ClientError;
use crate::key::{ItemRef, check_range};

/// Which items of a record, in which order, and how much of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemsOf<'a> {
    pub(crate) get: GetItems<'a>,
}

impl<'a> ItemsOf<'a> {
    /// All items of `record` of the namespace with this number; 0 is `default`.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if the record id has not 1 to 1,024 bytes.
    pub fn record(
        namespace: u32,
        record: &'a (impl AsRef<[u8]> + ?Sized),
    ) -> Result<Self, ClientError> {
        let key = ItemRef::new(namespace, record.as_ref(), &[])?.wire;
        Ok(Self {
            get: GetItems {
                namespace,
                record: key.record,
                range: ItemRange::Prefix(&[]),
                keys: None,
                is_descending: false,
                limits: PageLimits::default(),
                token: &[],
            },
        })
    }

    /// Only those of a range. Neither range nor order go with a list of keys: what is said last
    /// counts.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if a prefix or bound has more than 1,024 bytes.
    pub fn range(mut self, range: ItemRange<'a>) -> Result<Self, ClientError> {
        check_range(range)?;
        self.get.keys = None;
        self.get.range = range;
        Ok(self)
    }

    /// Only those with these keys, in the order of the list; those that are not there are left out.
    pub fn keys(mut self, keys: &'a ItemKeyList) -> Self {
        (self.get.range, self.get.is_descending) = (ItemRange::Prefix(&[]), false);
        self.get.keys = Some(keys.as_keys());
        self
    }

    /// The greatest key first.
    pub fn descending(mut self) -> Self {
        self.get.keys = None;
        self.get.is_descending = true;
        self
    }

    /// With these limits of each page.
    pub fn limits(mut self, limits: PageLimits) -> Self {
        self.get.limits = limits;
        self
    }
}

/// An item of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedItem {
    /// The record id; `None` where the items of one record were asked for.
    pub record: Option<Vec<u8>>,
    /// The item key.
    pub item: Vec<u8>,
    /// Changes whenever the value does.
    pub version: u64,
    /// The 32 bits that were stored with the value.
    pub client_flags: u32,
    /// Unix second at which the item is gone; 0 for never.
    pub expiry: u32,
    /// How long the value is, in bytes, also where it was left out.
    pub value_len: u32,
    /// The value, unless it was left out.
    pub value: Option<Vec<u8>>,
}

/// What is asked for again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked<'a> {
    Record(GetItems<'a>),
    Namespace(ScanItems<'a>),
}

impl<'a> Asked<'a> {
    /// The request for the page that follows `token`.
    pub(crate) fn request<'t>(&self, token: &'t [u8]) -> NativeRequest<'t>
    where
        'a: 't,
    {
        match *self {
            Self::Record(get) => NativeRequest::GetItems(GetItems { token, ..get }),
            Self::Namespace(scan) => NativeRequest::Scan(ScanItems { token, ..scan }),
        }
    }
}

/// Items in order: pages are asked for as they are needed. After an error nothing more comes.
#[derive(Debug)]
pub struct Items<'a> {
    connection: &'a mut ClientConnection,
    asked: Asked<'a>,
    /// The token of the next page.
    token: Vec<u8>,
    page: std::vec::IntoIter<ListedItem>,
    has_left_out: bool,
    is_over: bool,
}

impl ClientConnection {
    /// The items of a record.
    pub fn items<'a>(&'a mut self, of: ItemsOf<'a>) -> Items<'a> {
        Items::new(self, Asked::Record(of.get))
    }

    /// The items of a namespace, in no order that means anything, with these limits of each page.
    pub fn scan(&mut self, namespace: u32, limits: PageLimits) -> Items<'_> {
        self.scan_in(namespace, limits, false)
    }

    /// The same from the other end.
    pub fn scan_in_reverse(&mut self, namespace: u32, limits: PageLimits) -> Items<'_> {
        self.scan_in(namespace, limits, true)
    }

    fn scan_in(&mut self, namespace: u32, limits: PageLimits, is_descending: bool) -> Items<'_> {
        let scan = ScanItems { namespace, limits, token: &[], is_descending };
        Items::new(self, Asked::Namespace(scan))
    }

    /// A page.
    fn page(&mut self, request: &NativeRequest<'_>, token: &[u8]) -> Result<PageRead, ClientError> {
        let body = self.call(request)?.ok(&[])?.body;
        self.judge(read_page(&body, token))
    }
}

/// What a page has brought.
pub(crate) struct PageRead {
    pub(crate) items: Vec<ListedItem>,
    /// The token of the next one.
    pub(crate) next: Option<Vec<u8>>,
    /// Whether the node has left out what it cannot read.
    pub(crate) has_left_out: bool,
}

/// The page that follows `token`.
pub(crate) fn read_page(body: &[u8], token: &[u8]) -> Result<PageRead, ClientError> {
    let page = NativePage::decode(body);
    let page = page.map_err(|error| ClientError::Foreign(error.to_string()))?;
    if page.items.is_empty() && page.next.is_some_and(|next| next == token) {
        return Err(ClientError::Foreign("pages without items lead to themselves".to_owned()));
    }
    let items = page.items.iter().map(|item| ListedItem {
        record: item.record.map(<[u8]>::to_vec),
        item: item.item.to_vec(),
        version: item.version,
        client_flags: item.client_flags,
        expiry: item.expiry,
        value_len: item.value_len,
        value: item.value.map(<[u8]>::to_vec),
    });
    Ok(PageRead {
        items: items.collect(),
        next: page.next.map(<[u8]>::to_vec),
        has_left_out: page.is_damaged,
    })
}

impl<'a> Items<'a> {
    fn new(connection: &'a mut ClientConnection, asked: Asked<'a>) -> Self {
        let (token, page) = (Vec::new(), Vec::new().into_iter());
        Self { connection, asked, token, page, has_left_out: false, is_over: false }
    }

    /// Whether the node has left out, so far, what it cannot read: only where the limits say
    /// `passes_damage`. Those items are not absent.
    pub fn has_left_out(&self) -> bool {
        self.has_left_out
    }

    /// Brings the next page.
    fn turn(&mut self) -> Result<(), ClientError> {
        let token = self.token.as_slice();
        let request = self.asked.request(token);
        let PageRead { items, next, has_left_out } = self.connection.page(&request, token)?;
        self.page = items.into_iter();
        self.has_left_out |= has_left_out;
        self.is_over = next.is_none();
        self.token = next.unwrap_or_default();
        Ok(())
    }
}

impl Iterator for Items<'_> {
    type Item = Result<ListedItem, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.page.next() {
                return Some(Ok(item));
            }
            if self.is_over {
                return None;
            }
            if let Err(error) = self.turn() {
                self.is_over = true;
                return Some(Err(error));
            }
        }
    }
}
